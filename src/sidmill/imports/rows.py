"""Rows of published files: JSON lines, Python literals, tables with and without quotes.

Every function yields a row with its number, or the reason why it cannot be read.
"""

import ast
import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from sidmill.core.errors import SidmillError
from sidmill.imports import times
from sidmill.imports.content import Bad, Event
from sidmill.imports.files import Entry
from sidmill.io import json_values, text_lines
from sidmill.io.delimited_text import NOT_TEXT

UTF8 = "utf-8"
LITERAL_LONGEST = 1 << 20  # characters; ast.literal_eval needs some 100 bytes for each


class Row(NamedTuple):
    """One row of a file.

    Attributes:
        number: number of its line, from 1.
        fields: its fields by name.
    """

    number: int
    fields: dict[str, Any]


class EventKeys(NamedTuple):
    """Names of the fields of an interaction; ``value`` is its rating or another strength."""

    user: str
    item: str
    time: str
    value: str


def dated_events(
    found: Iterator[Row | Bad], entry: Entry, keys: EventKeys, read_date: Callable[[str], int]
) -> Iterator[Event | Bad]:
    """Yield the interactions of rows whose times are dates.

    Args:
        found: the rows of ``entry``.
        entry: the file.
        keys: names of the fields.
        read_date: a function of :mod:`sidmill.imports.times`.
    """
    for row in found:
        if isinstance(row, Bad):
            yield row
            continue
        fields = row.fields
        user, item = text(fields.get(keys.user)), text(fields.get(keys.item))
        try:
            time = read_date(str(fields.get(keys.time) or ""))
        except ValueError as error:
            yield Bad(entry.name, row.number, str(error))
            continue
        if user is None or item is None:
            yield Bad(entry.name, row.number, f"no {keys.user} or {keys.item}")
            continue
        value = number(fields.get(keys.value))
        yield Event(user, item, time, value, -1, entry.name, row.number)


def numbered_events(
    found: Iterator[Row | Bad],
    entry: Entry,
    keys: EventKeys,
    *,
    factor: int = 1,
    split: int = -1,
) -> Iterator[Event | Bad]:
    """Yield the interactions of rows of a table whose times are numbers.

    Args:
        found: the rows of ``entry``, which have all of these fields; the value may be missing.
        entry: the file.
        keys: names of the fields.
        factor: times are multiplied by it: 1000 makes milliseconds of seconds with decimals.
        split: of all rows, -1 for none.
    """
    for row in found:
        if isinstance(row, Bad):
            yield row
            continue
        fields = row.fields
        try:
            time = times.whole(fields[keys.time], factor)
        except ValueError as error:
            yield Bad(entry.name, row.number, str(error))
            continue
        if time is None:
            yield Bad(entry.name, row.number, "no timestamp")
            continue
        value = number(fields.get(keys.value))
        yield Event(
            fields[keys.user], fields[keys.item], time, value, split, entry.name, row.number
        )


def encoding_of(entry: Entry) -> str:
    """UTF-8, or latin-1 where a line of the file is no UTF-8."""
    with entry.opened() as stream:
        for line in text_lines.read(stream):
            try:
                (line or b"").decode()
            except UnicodeDecodeError:
                return "latin-1"
    return UTF8


def lines(entry: Entry, encoding: str = UTF8) -> Iterator[tuple[int, str] | Bad]:
    """Yield the lines of a file that are not blank, without their ends, and their numbers."""
    with entry.opened() as stream:
        for number, line in enumerate(text_lines.read(stream), start=1):
            if line is None:
                yield Bad(entry.name, number, text_lines.TOO_LONG)
                continue
            try:
                text = line.decode("utf-8-sig" if number == 1 and encoding == UTF8 else encoding)
            except UnicodeDecodeError:
                yield Bad(entry.name, number, "not UTF-8")
                continue
            if text.strip():
                yield number, text.rstrip("\r\n")


def json_lines(entry: Entry) -> Iterator[Row | Bad]:
    """Yield the objects of JSON lines. Memory: one line."""
    return _objects(entry, _parse_json)


def literal_lines(entry: Entry) -> Iterator[Row | Bad]:
    """Yield the dictionaries of lines that Python printed, or of JSON lines.

    A line is read by ``ast.literal_eval``, which runs nothing.
    """
    return _objects(entry, _parse_either)


def separated(
    entry: Entry, separator: str, columns: Sequence[str], encoding: str = UTF8
) -> Iterator[Row | Bad]:
    """Yield the rows of a table without quotes and without a header.

    Args:
        entry: the file.
        separator: what is between two columns.
        columns: their names.
        encoding: of the file.
    """
    for line in lines(entry, encoding):
        if isinstance(line, Bad):
            yield line
            continue
        number, text = line
        values = text.split(separator)
        if len(values) != len(columns):
            yield Bad(entry.name, number, f"{len(values)} columns, wanted {len(columns)}")
        else:
            yield Row(number, dict(zip(columns, values, strict=True)))


def csv_rows(
    entry: Entry, required: Sequence[str], columns: Sequence[str] | None = None
) -> Iterator[Row | Bad]:
    """Yield the rows of a CSV file, whose fields may be enclosed in double quotes.

    A line ends at a line feed only, as published captions contain carriage returns.

    Args:
        entry: the file.
        required: names of columns that the header must have.
        columns: names of the columns of a file without a header.

    Raises:
        SidmillError: if the header lacks a column.
    """
    csv.field_size_limit(text_lines.LONGEST)
    with entry.opened() as stream:
        text = io.TextIOWrapper(stream, "utf-8-sig", "surrogateescape", newline="\n")
        whole_lines = iter(partial(text.readline, text_lines.LONGEST), "")
        rows = csv.reader(line.replace("\r\n", "\n").replace("\r", " ") for line in whole_lines)

        # The header, or the names that are given.
        names = list(columns or next(rows, []))
        absent = [name for name in required if name not in names]
        if absent:
            raise SidmillError(
                f"{entry.name}: no column {', '.join(absent)}; its first line is "
                f"{','.join(names):.200}: is it the published file?"
            )

        # A row that an unclosed quote makes of several lines stands for as many.
        while True:
            number = rows.line_num + 1
            try:
                values = next(rows, None)
            except csv.Error as error:
                yield Bad(entry.name, number, f"not CSV ({error})", rows.line_num + 1 - number)
                continue
            if values is None:
                return
            if not values:
                continue
            if len(values) != len(names):
                reason = f"{len(values)} columns, wanted {len(names)}"
                yield Bad(entry.name, number, reason, rows.line_num + 1 - number)
            elif not "".join(values).isascii() and NOT_TEXT.search("".join(values)):
                yield Bad(entry.name, number, "not UTF-8")
            else:
                yield Row(number, dict(zip(names, values, strict=True)))


def json_object(entry: Entry) -> Iterator[tuple[int, str, Any] | Bad]:
    """Yield number, key and value of the entries of one large JSON object. Memory: one entry."""
    with entry.opened() as stream:
        for number, found in enumerate(json_values.read(entry.name, stream, "keyed"), start=1):
            if found.problem:
                yield Bad(entry.name, number, found.problem)
            else:
                yield number, str(found.key), found.value


def text(value: object) -> str | None:
    """A field as text: None for null and for white space."""
    if value is None or isinstance(value, dict | list):
        return None
    return str(value).strip() or None


def texts(value: object, separator: str | None = None) -> list[str]:
    """A field as a list of texts: a list, flattened, or a text that is cut at ``separator``."""
    # Lists within lists, as in Amazon's categories of 2014; objects are no text.
    parts: list[str] = []
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting += reversed(one)
        elif one is not None and not isinstance(one, dict):
            parts += str(one).split(separator) if separator else [str(one)]
    return [part.strip() for part in parts if part.strip()]


def number(value: object) -> float | None:
    """A field as a number; None where it is none."""
    try:
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return None if found != found else found


def _objects(entry: Entry, parse: Callable[[str], object]) -> Iterator[Row | Bad]:
    for line in lines(entry):
        if isinstance(line, Bad):
            yield line
            continue
        at, content = line
        try:
            value = parse(content)
        except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
            yield Bad(entry.name, at, f"cannot be parsed ({str(error).splitlines()[0]:.80})")
            continue
        if isinstance(value, dict):
            yield Row(at, value)
        else:
            yield Bad(entry.name, at, f"a {type(value).__name__}, wanted an object")


def _parse_json(line: str) -> object:
    return json_values.parse(line)


def _parse_either(line: str) -> object:
    try:
        return json.loads(line)
    except ValueError:
        if len(line) > LITERAL_LONGEST:
            raise ValueError("a Python literal of more than 2**20 characters") from None
        return ast.literal_eval(line)
