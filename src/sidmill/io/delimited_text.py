"""Delimited text of the user, record by record: with quotes or without, under a header or not.

A record that cannot be read has a ``problem``, so that the caller can count it. Where no record
after it could be separated, as behind an unclosed quote of CSV, it is an error.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import NamedTuple, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.csv

from sidmill.core.errors import SidmillError
from sidmill.core.terminal import names as shown_names
from sidmill.io import text_lines

QUOTE, LINE_END, RETURN = b'"\n\r'
CHUNK = 1 << 18  # characters that are read at once
UNIT_SEPARATOR = "\x1f"  # of ASCII, between values
SPACES = re.compile(r"^ +\r?$", re.MULTILINE)  # a line of nothing but spaces
NOT_TEXT = re.compile("[\ud800-\udfff]")  # what surrogateescape makes of bytes that are no text


class Record(NamedTuple):
    """One row of a table.

    Attributes:
        first: number of its first line, from 1.
        last: number of its last line.
        values: one per column; empty where there is a problem.
        problem: why the record cannot be read, else None.
    """

    first: int
    last: int
    values: list[str]
    problem: str | None = None


class Columns(NamedTuple):
    """Where the names of the columns come from, and what messages say of them.

    Attributes:
        names: as the user named them; None: the first line has them.
        setting: config key of ``names``; None where they cannot be set.
        not_text: problem of a record with a byte that the encoding does not have.
    """

    names: Sequence[str] | None
    setting: str | None
    not_text: str


class RecordBlock(NamedTuple):
    """Some consecutive records of a table.

    Attributes:
        firsts: number of the first line of each, from 1.
        lasts: number of the last line of each.
        values: one list per record; empty where there is a problem.
        problem: why the one record of this block cannot be read, else None.
    """

    firsts: Sequence[int]
    lasts: Sequence[int]
    values: list[list[str]]
    problem: str | None = None

    def records(self) -> Iterator[Record]:
        """The records, one by one."""
        for first, last, values in zip(self.firsts, self.lasts, self.values, strict=True):
            yield Record(first, last, values, self.problem)


class LineBlock(NamedTuple):
    """Some consecutive records of a table, each in one line, that are not yet split.

    Attributes:
        first: number of the first line, from 1.
        data: the lines, as :func:`_regular_lines` describes them.
        n_lines: how many.
        separator: between the values, one character.
    """

    first: int
    data: bytes
    n_lines: int
    separator: str

    def split(self) -> RecordBlock:
        """Split the lines."""
        lines = io.StringIO(self.data.decode(), newline="")
        values = list(csv.reader(lines, delimiter=self.separator, strict=True))
        numbers = range(self.first, self.first + len(values))
        return RecordBlock(numbers, numbers, values)

    def columns(self, names: Sequence[str], wanted: Sequence[str]) -> pa.RecordBatch | None:
        """Read some columns as strings.

        Args:
            names: of all columns.
            wanted: of the columns to read, at least one.

        Returns:
            A value for each line; None if a line has another number of values.
        """
        reading = pa.csv.ReadOptions(
            use_threads=False, block_size=len(self.data) + 1, column_names=names
        )
        parsing = pa.csv.ParseOptions(delimiter=self.separator)
        converting = pa.csv.ConvertOptions(
            column_types=dict.fromkeys(wanted, pa.string()), include_columns=wanted
        )
        source = pa.BufferReader(self.data)
        try:
            pool = pa.system_memory_pool()  # gives back what each block took
            table = pa.csv.read_csv(source, reading, parsing, converting, pool).combine_chunks()
        except pa.ArrowInvalid:
            return None
        return table.to_batches()[0] if table.num_rows == self.n_lines else None


def quoted_blocks(path: str, text: TextIO, separator: str) -> Iterator[RecordBlock | LineBlock]:
    """Yield the records of a table whose fields may stand in double quotes, but for blank lines.

    Memory: the records of ``CHUNK`` characters, or one record.

    Raises:
        SidmillError: for a line that is too long, or a quote that is not closed.
    """
    csv.field_size_limit(text_lines.LONGEST)
    lines = _Lines(path, text)
    while lines.has_more():
        if (found := _regular_lines(lines.chunk, separator)) is not None:
            yield LineBlock(lines.number + 1, *found, separator)
            lines.number += found[1]
        else:
            yield from _read_chunk(path, lines, separator)


def _read_chunk(path: str, lines: "_Lines", separator: str) -> Iterator[RecordBlock]:
    """Yield the records of a chunk one after another, the last of which may end in a later chunk.

    Raises:
        SidmillError: as :func:`quoted_blocks`.
    """
    before, is_over = lines.number, False
    rows = csv.reader(lines, delimiter=separator, strict=True)
    while not is_over:
        # Read to the end, or to a record that cannot be read.
        firsts: list[int] = []
        lasts: list[int] = []
        records: list[list[str]] = []
        error: Exception | None = None
        try:
            while True:
                lines.is_between, ended = True, before + rows.line_num
                values = next(rows)
                if values:
                    firsts.append(ended + 1)
                    lasts.append(before + rows.line_num)
                    records.append(values)
        except StopIteration:
            is_over = True
        except Exception as raised:  # raised again below
            error = raised

        # Records before an error come first, as if they were read one by one.
        if records:
            yield RecordBlock(firsts, lasts, records)
        if isinstance(error, csv.Error):
            last = before + rows.line_num
            if last > ended + 1:
                raise SidmillError(
                    f"{path}, line {ended + 1}: a quote opened there is not closed where the "
                    f"field ends, at line {last}: correct it; the rows after it cannot be "
                    f"separated"
                ) from None
            yield RecordBlock([ended + 1], [ended + 1], [[]], f"not CSV ({error})")
        elif error is not None:
            raise error


def _regular_lines(text: str, separator: str) -> tuple[bytes, int] | None:
    r"""Lines that Python and Arrow split equally, one record each: in UTF-8, and their number.

    No line is blank, all end by \n or by \r\n, all is text, quotes enclose whole fields or stand
    twice in them, and no line ends within quotes. None where some line is not so.
    """
    if not separator.isascii() or separator in '"\r\n' or text.startswith("\ufeff"):
        return None
    try:
        data = text.encode()
    except UnicodeEncodeError:
        return None

    # Line ends: none follows another one, and \r is a part of one.
    letters = np.frombuffer(data, dtype=np.uint8)
    line_ends = np.flatnonzero(letters == LINE_END)
    returns = np.flatnonzero(letters == RETURN)
    is_blank = np.diff(line_ends, prepend=-1) == 1
    if is_blank.any() or b"\0" in data or data.startswith(b"\r") or data.endswith(b"\r"):
        return None
    if (letters[returns + 1] != LINE_END).any() or (letters[returns - 1] == LINE_END).any():
        return None
    n_lines = len(line_ends) + (not data.endswith(b"\n"))

    # Quotes: each is the first or last letter of a field, or one of a pair, and lines end outside.
    quotes = np.flatnonzero(letters == QUOTE)
    if not len(quotes):
        return data, n_lines
    if len(quotes) % 2 or (np.searchsorted(quotes, line_ends) % 2).any():
        return None
    ends = np.array([ord(separator), LINE_END, QUOTE, RETURN], dtype=np.uint8)
    is_first = np.isin(letters[quotes[::2] - 1], ends[:3]) | (quotes[::2] == 0)
    behind = letters[np.minimum(quotes[1::2] + 1, len(letters) - 1)]
    is_last = np.isin(behind, ends) | (quotes[1::2] == len(letters) - 1)
    return (data, n_lines) if is_first.all() and is_last.all() else None


def plain_blocks(
    path: str, text: TextIO, separator: str | None
) -> Iterator[RecordBlock | LineBlock]:
    """Yield the records of a table without quotes, but for lines that hold nothing but spaces.

    Memory: the records of ``CHUNK`` characters, or one record.

    Args:
        path: the file, for messages.
        text: the file.
        separator: between the values; None: any run of white space.

    Raises:
        SidmillError: for a line that is too long.
    """
    csv.field_size_limit(text_lines.LONGEST)
    lines = _Lines(path, text)
    while lines.has_more():
        # Lines that read alike with quotes and without.
        if separator is not None and (found := _unquoted_lines(lines.chunk, separator)) is not None:
            yield found._replace(first=lines.number + 1)
            lines.number += found.n_lines
            continue

        # Others, one by one.
        numbered = list(enumerate(lines.lines, start=lines.number + 1))
        lines.number += len(numbered)
        filled = [
            (number, line.rstrip("\r\n").split(separator))
            for number, line in numbered
            if line.strip(" \r\n")
        ]
        numbers = [number for number, _ in filled]
        yield RecordBlock(numbers, numbers, [values for _, values in filled])


def _unquoted_lines(text: str, separator: str) -> LineBlock | None:
    """Lines without quotes as a block, whose first number is 1; None where some line is not so.

    A separator of several characters becomes one character that the lines do not hold.
    """
    if '"' in text or SPACES.search(text) or not set(separator).isdisjoint("\r\n"):
        return None
    mark = separator
    if len(separator) > 1:
        mark = UNIT_SEPARATOR
        if mark in text:
            return None
        text = text.replace(separator, mark)
    found = _regular_lines(text, mark)
    return LineBlock(1, *found, mark) if found is not None else None


def table_blocks(
    path: str, blocks: Iterator[RecordBlock | LineBlock], columns: Columns
) -> tuple[list[str], Iterator[RecordBlock | LineBlock], Callable[[Record], str | None]]:
    """Split a table of delimited text into the names of its columns and its rows.

    Args:
        path: the file, for messages.
        blocks: all records of the file.
        columns: where the names come from.

    Returns:
        The names of the columns, the rows, and what says why a row cannot be read, if so: one that
        does not have a value for each name cannot.

    Raises:
        SidmillError: if the header cannot be read, or the first line is a header although the
            columns are named.
    """
    first = RecordBlock([1], [1], [[]])
    for block in blocks:
        first = block.split() if isinstance(block, LineBlock) else block
        if first.values:
            break
    header, counted, is_row = _header(path, next(first.records()), columns)
    if not is_row:
        first = RecordBlock(first.firsts[1:], first.lasts[1:], first.values[1:])
    problem = partial(problem_of, len(header.values), counted, columns.not_text)
    return header.values, chain([first], blocks), problem


def _header(path: str, first: Record, columns: Columns) -> tuple[Record, str, bool]:
    """The header of a table, the phrase of messages that count columns, and if ``first`` is a row.

    Raises:
        SidmillError: if the header cannot be read, or the first line is a header although the
            columns are named.
    """
    if columns.names is None:
        if first.problem:
            raise SidmillError(f"{path}: the header is {first.problem}: correct it")
        return first, "the header has", False

    # The first line is a row like the others, unless it repeats the names.
    names = list(columns.names)
    if first.values == names:
        raise SidmillError(
            f"{path}: its first line is a header: set {columns.setting}: null, which names the "
            f"columns of files without one (the line is {shown_names(names)})"
        )
    return Record(0, 0, names), f"{columns.setting} names", bool(first.values or first.problem)


def repeated(names: Sequence[str]) -> str | None:
    """The first name that stands twice, or None."""
    return next((name for name in names if names.count(name) > 1), None)


def problem_of(n_columns: int, counted: str, not_text: str, row: Record) -> str | None:
    """Why a row cannot be read: its number of values, or bytes that are no text; else None."""
    if row.problem:
        return row.problem
    if len(row.values) != n_columns:
        span = f" in lines {row.first} to {row.last}" if row.last > row.first else ""
        return f"{len(row.values)} columns{span}, {counted} {n_columns}"
    if not all(map(str.isascii, row.values)) and any(map(NOT_TEXT.search, row.values)):
        return not_text
    return None


class _Lines:
    """The lines of a file with their ends, read by chunks of whole lines.

    As an iterator it ends with a chunk if no record is begun, and else goes on to the next one.

    Attributes:
        chunk: the lines that were read last.
        lines: those of them that were not given out.
        number: of the last line that was given out; 0 at the beginning.
        is_between: whether the next line begins a record; set by the reader of records.
    """

    def __init__(self, path: str, text: TextIO) -> None:
        self.path, self.text, self.chunk, self.number = path, text, "", 0
        self.lines: Iterator[str] = iter(())
        self.is_between = True

    def has_more(self) -> bool:
        """Whether the file has more lines, which are then in ``chunk``.

        Raises:
            SidmillError: if a line is longer than memory should hold.
        """
        # A line ends as TextIO ends it: by \n, \r or both. StringIO does the same.
        self.chunk = self.text.read(CHUNK)
        if not self.chunk:
            return False
        self.chunk += self.text.readline(text_lines.LONGEST)
        if len(self.chunk) >= text_lines.LONGEST:
            for number, line in enumerate(io.StringIO(self.chunk, newline=""), self.number + 1):
                if len(line) >= text_lines.LONGEST:
                    raise SidmillError(
                        f"{self.path}, line {number}: {text_lines.TOO_LONG}: correct it"
                    )
        self.lines = io.StringIO(self.chunk, newline="")
        return True

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self.lines, None)
        if line is None and not self.is_between and self.has_more():
            line = next(self.lines)
        if line is None:
            raise StopIteration
        self.is_between = False
        self.number += 1
        return line
