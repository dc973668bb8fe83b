"""RecBole's atomic files: tables with tabs, whose header has types.

    ml-100k.inter   user_id:token  item_id:token  rating:float  timestamp:float
    ml-100k.item    item_id:token  movie_title:token_seq  release_year:token  class:token_seq

The item id is the column ``item_id``, or the first token of X.item that X.inter has too
(``product_id`` of Steam, ``business_id`` of Yelp). Files by split (X.train.inter, X.valid.inter,
X.test.inter) keep their splits. Fields of text are those of type token_seq and token. A double
quote is a character like any other.

Source: https://recbole.io/docs/user_guide/data/atomic_files.html
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.imports import rows
from sidmill.imports.content import SPLITS, TEXT, Bad, Content, Event, Item
from sidmill.imports.files import Entry, Files, refuse_repeated

TYPED = re.compile(r"(.+):(token|token_seq|float|float_seq)")
TEXTUAL = ("token_seq", "token")


class Table(NamedTuple):
    """An atomic file: its names, and the type of each."""

    entry: Entry
    types: dict[str, str]


def open_source(files: Files) -> Content:
    """Open the files of one data set."""
    items = [_header(entry) for entry in files.need(r".+\.item", "X.item")]
    logs = [_header(entry) for entry in files.need(r".+\.inter", "X.inter")]
    for group in (items, logs):
        refuse_repeated([table.entry for table in group])
    pid = _item_id(items[0], logs[0])
    for table in items:
        _require(table, (pid,))
    for table in logs:
        if "item_id_list" in table.types:
            raise SidmillError(
                f"{table.entry.name}: rows have the column item_id_list: set interactions.path to "
                f"its folder, which needs no import (docs/interactions.md)"
            )
        _require(table, ("user_id", pid, "timestamp"))

    # Text fields of all files of items; sequences of words, such as titles, come first.
    names = [
        name
        for kind in TEXTUAL
        for table in items
        for name, found in table.types.items()
        if found == kind and name != pid
    ]
    fields: dict[str, pa.DataType] = dict.fromkeys(names, TEXT)
    if not fields:
        raise SidmillError(f"{items[0].entry.name}: no column of type token_seq or token")
    has_splits = any(_split(table.entry) >= 0 for table in logs)
    return Content(
        fields,
        lambda: _items(items, pid, fields),
        lambda: _events(logs, pid),
        has_splits=has_splits,
    )


def _header(entry: Entry) -> Table:
    """The names and types in the first line of a file."""
    first = next((line for line in rows.lines(entry) if not isinstance(line, Bad)), (1, ""))
    matches = [TYPED.fullmatch(name) for name in first[1].split("\t")]
    types = {match[1]: match[2] for match in matches if match}
    if len(types) != len(matches):
        raise SidmillError(
            f"{entry.name}: the first line is {first[1]:.200}: wanted names with types, such as "
            f"user_id:token, separated by tabs"
        )
    return Table(entry, types)


def _item_id(items: Table, log: Table) -> str:
    """The name of the column of item ids."""
    tokens = [name for name, kind in items.types.items() if kind == "token" and name in log.types]
    return "item_id" if "item_id" in items.types or not tokens else tokens[0]


def _require(table: Table, names: tuple[str, ...]) -> None:
    absent = [name for name in names if name not in table.types]
    if absent:
        raise SidmillError(
            f"{table.entry.name}: no column {', '.join(absent)}; it has {', '.join(table.types)}: "
            f"rename the columns in its first line"
        )


def _split(entry: Entry) -> int:
    parts = entry.base.split(".")
    return SPLITS.get(parts[-2], -1) if len(parts) > 2 else -1


def _rows(table: Table) -> Iterator[rows.Row | Bad]:
    for row in rows.separated(table.entry, "\t", tuple(table.types)):
        if isinstance(row, rows.Row) and row.number == 1:
            continue  # the header
        yield row


def _items(tables: list[Table], pid: str, fields: dict[str, pa.DataType]) -> Iterator[Item | Bad]:
    for table in tables:
        for row in _rows(table):
            if isinstance(row, Bad):
                yield row
                continue
            named = {name: rows.text(row.fields.get(name)) for name in fields}
            yield Item(row.fields[pid], named, table.entry.name, row.number)


def _events(tables: list[Table], pid: str) -> Iterator[Event | Bad]:
    keys = rows.EventKeys("user_id", pid, "timestamp", "rating")
    for table in tables:
        # Times are floats: 881250949, 881250949.0 or 8.8e8.
        yield from rows.numbered_events(_rows(table), table.entry, keys, split=_split(table.entry))
