"""Delimited text of the user, record by record: with quotes or without, under a header or not.

A record that cannot be read has a ``problem``, so that the caller can count it. Where no record
after it could be separated, as behind an unclosed quote of CSV, it is an error.
"""

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import NamedTuple, TextIO

from sidmill.core.errors import SidmillError
from sidmill.core.terminal import names as shown_names
from sidmill.io import text_lines

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


def quoted_records(path: str, text: TextIO, separator: str) -> Iterator[Record]:
    """Yield the records of a table whose fields may stand in double quotes, but for blank lines.

    Raises:
        SidmillError: for a line that is too long, or a quote that is not closed.
    """
    csv.field_size_limit(text_lines.LONGEST)
    rows = csv.reader(_lines(path, text), delimiter=separator, strict=True)
    while True:
        first = rows.line_num + 1
        try:
            values = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            if rows.line_num > first:
                raise SidmillError(
                    f"{path}, line {first}: a quote opened there is not closed where the field "
                    f"ends, at line {rows.line_num}: correct it; the rows after it cannot be "
                    f"separated"
                ) from None
            yield Record(first, first, [], f"not CSV ({error})")
            continue
        if values:
            yield Record(first, rows.line_num, values)


def plain_records(path: str, text: TextIO, split: Callable[[str], list[str]]) -> Iterator[Record]:
    """Yield the records of a table without quotes, but for lines that hold nothing but spaces.

    Args:
        path: the file, for messages.
        text: the file.
        split: gives the values of a line.

    Raises:
        SidmillError: for a line that is too long.
    """
    for number, line in enumerate(_lines(path, text), start=1):
        if line.strip(" \r\n"):
            yield Record(number, number, split(line.rstrip("\r\n")))


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
    if columns.names is None:
        if first.problem:
            raise SidmillError(f"{path}: the header is {first.problem}: correct it")
        return first, _checked(records, len(first.values), "the header has", columns.not_text)

    # The first line is a row like the others, unless it repeats the names.
    names = list(columns.names)
    if first.values == names:
        raise SidmillError(
            f"{path}: its first line is a header: set {columns.setting}: null, which names the "
            f"columns of files without one (the line is {shown_names(names)})"
        )
    rows = chain([first] if first.values or first.problem else [], records)
    counted = f"{columns.setting} names"
    return Record(0, 0, names), _checked(rows, len(names), counted, columns.not_text)


def repeated(names: Sequence[str]) -> str | None:
    """The first name that stands twice, or None."""
    return next((name for name in names if names.count(name) > 1), None)


def _checked(
    rows: Iterator[Record], n_columns: int, counted: str, not_text: str
) -> Iterator[Record]:
    """Note a problem where a row has another number of values, or holds bytes that are no text."""
    for row in rows:
        if row.problem:
            yield row
        elif len(row.values) != n_columns:
            span = f" in lines {row.first} to {row.last}" if row.last > row.first else ""
            problem = f"{len(row.values)} columns{span}, {counted} {n_columns}"
            yield row._replace(values=[], problem=problem)
        elif not all(map(str.isascii, row.values)) and any(map(NOT_TEXT.search, row.values)):
            yield row._replace(values=[], problem=not_text)
        else:
            yield row


def _lines(path: str, text: TextIO) -> Iterator[str]:
    """The lines of a file with their ends.

    Raises:
        SidmillError: if one is longer than memory should hold.
    """
    for number, line in enumerate(iter(partial(text.readline, text_lines.LONGEST), ""), start=1):
        if len(line) == text_lines.LONGEST:
            raise SidmillError(f"{path}, line {number}: {text_lines.TOO_LONG}: correct it")
        yield line
