"""Delimited text of the user, record by record: with quotes or without, under a header or not.

A record that cannot be read has a ``problem``, so that the caller can count it. Where no record
after it could be separated, as behind an unclosed quote of CSV, it is an error.
"""

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import NamedTuple, TextIO

from sidmill.core.errors import SidmillError
from sidmill.core.terminal import names as shown_names
from sidmill.io import text_lines

CHUNK = 1 << 18  # characters that are read at once
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

    firsts: list[int]
    lasts: list[int]
    values: list[list[str]]
    problem: str | None = None

    def records(self) -> Iterator[Record]:
        """The records, one by one."""
        for first, last, values in zip(self.firsts, self.lasts, self.values, strict=True):
            yield Record(first, last, values, self.problem)


def quoted_records(path: str, text: TextIO, separator: str) -> Iterator[Record]:
    """Yield the records of :func:`quoted_blocks` one by one."""
    for block in quoted_blocks(path, text, separator):
        yield from block.records()


def quoted_blocks(path: str, text: TextIO, separator: str) -> Iterator[RecordBlock]:
    """Yield the records of a table whose fields may stand in double quotes, but for blank lines.

    Memory: the records of ``CHUNK`` characters, or one record.

    Raises:
        SidmillError: for a line that is too long, or a quote that is not closed.
    """
    csv.field_size_limit(text_lines.LONGEST)
    lines = _Lines(path, text)
    rows = csv.reader(iter(lines), delimiter=separator, strict=True)
    while True:
        # Read up to the end of a chunk, or to a record that cannot be read.
        block, error = RecordBlock([], [], []), None
        n_chunks, before = max(lines.n_chunks, 1), rows.line_num
        try:
            for values in rows:
                last = rows.line_num
                if values:
                    block.firsts.append(before + 1)
                    block.lasts.append(last)
                    block.values.append(values)
                before = last
                if lines.n_chunks > n_chunks:
                    break
            else:
                n_chunks = 0  # the end of the file
        except Exception as raised:  # raised again below
            error = raised

        # Records before an error come first, as if they were read one by one.
        if block.values:
            yield block
        if isinstance(error, csv.Error):
            if rows.line_num > before + 1:
                raise SidmillError(
                    f"{path}, line {before + 1}: a quote opened there is not closed where the "
                    f"field ends, at line {rows.line_num}: correct it; the rows after it cannot be "
                    f"separated"
                ) from None
            yield RecordBlock([before + 1], [before + 1], [[]], f"not CSV ({error})")
        elif error is not None:
            raise error
        elif not n_chunks:
            return


def plain_records(path: str, text: TextIO, split: Callable[[str], list[str]]) -> Iterator[Record]:
    """Yield the records of :func:`plain_blocks` one by one."""
    for block in plain_blocks(path, text, split):
        yield from block.records()


def plain_blocks(
    path: str, text: TextIO, split: Callable[[str], list[str]]
) -> Iterator[RecordBlock]:
    """Yield the records of a table without quotes, but for lines that hold nothing but spaces.

    Memory: the records of ``CHUNK`` characters, or one record.

    Args:
        path: the file, for messages.
        text: the file.
        split: gives the values of a line.

    Raises:
        SidmillError: for a line that is too long.
    """
    number = 1
    for lines in _Lines(path, text).blocks():
        filled = [
            (at, split(line.rstrip("\r\n")))
            for at, line in enumerate(lines, start=number)
            if line.strip(" \r\n")
        ]
        number += len(lines)
        numbers = [at for at, _ in filled]
        yield RecordBlock(numbers, numbers, [values for _, values in filled])


def table(
    path: str, records: Iterator[Record], columns: Columns
) -> tuple[Record, Iterator[Record]]:
    """Split a table of delimited text into the names of its columns and its rows.

    Args:
        path: the file, for messages.
        records: all records of the file.
        columns: where the names come from.

    Returns:
        The header, whose values are the names of the columns, and the rows: a row that does not
        have a value for each name has a problem.

    Raises:
        SidmillError: if the header cannot be read, or the first line is a header although the
            columns are named.
    """
    first = next(records, Record(1, 1, []))
    header, counted, is_row = _header(path, first, columns)
    rows = chain([first], records) if is_row else records
    problem = partial(problem_of, len(header.values), counted, columns.not_text)
    return header, _checked(rows, problem)


def table_blocks(
    path: str, blocks: Iterator[RecordBlock], columns: Columns
) -> tuple[list[str], Iterator[RecordBlock], Callable[[Record], str | None]]:
    """Split a table of delimited text, read by blocks, into names and rows, as :func:`table` does.

    Returns:
        The names of the columns, the rows, and what says why a row cannot be read, if so.

    Raises:
        SidmillError: as :func:`table`.
    """
    first = next((block for block in blocks if block.values), RecordBlock([1], [1], [[]]))
    header, counted, is_row = _header(path, next(first.records()), columns)
    if not is_row:
        first = RecordBlock(first.firsts[1:], first.lasts[1:], first.values[1:])
    problem = partial(problem_of, len(header.values), counted, columns.not_text)
    return header.values, chain([first], blocks), problem


def _header(path: str, first: Record, columns: Columns) -> tuple[Record, str, bool]:
    """The header of a table, who counts its columns in messages, and whether ``first`` is a row.

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


def _checked(
    rows: Iterator[Record], problem_of_row: Callable[[Record], str | None]
) -> Iterator[Record]:
    """Note the problems of rows, which have no values then."""
    for row in rows:
        problem = problem_of_row(row)
        yield row if problem is None else row._replace(values=[], problem=problem)


class _Lines:
    """The lines of a file with their ends, read by chunks of whole lines.

    Attributes:
        n_chunks: how many chunks have been read.
    """

    def __init__(self, path: str, text: TextIO) -> None:
        self.path, self.text, self.n_chunks, self.n_lines = path, text, 0, 0

    def __iter__(self) -> Iterator[str]:
        """Yield the lines one by one.

        Raises:
            SidmillError: if one is longer than memory should hold.
        """
        for lines in self._chunks():
            yield from lines

    def blocks(self) -> Iterator[list[str]]:
        """Yield the lines of one chunk after another.

        Raises:
            SidmillError: if one is longer than memory should hold.
        """
        for lines in self._chunks():
            yield list(lines)

    def _chunks(self) -> Iterator[Iterable[str]]:
        # A line ends as TextIO ends it: by \n, \r or both. StringIO does the same.
        while chunk := self.text.read(CHUNK):
            chunk += self.text.readline(text_lines.LONGEST)
            self.n_chunks += 1
            if len(chunk) >= text_lines.LONGEST:
                yield self._not_too_long(chunk)
                continue
            lines = io.StringIO(chunk, newline="")
            self.n_lines += chunk.count("\n") + chunk.count("\r") - chunk.count("\r\n")
            yield lines

    def _not_too_long(self, chunk: str) -> Iterator[str]:
        """Lines of a chunk that may be too long.

        Raises:
            SidmillError: naming the line, by its number in the file.
        """
        for line in io.StringIO(chunk, newline=""):
            self.n_lines += 1
            if len(line) >= text_lines.LONGEST:
                raise SidmillError(
                    f"{self.path}, line {self.n_lines}: {text_lines.TOO_LONG}: correct it"
                )
            yield line
