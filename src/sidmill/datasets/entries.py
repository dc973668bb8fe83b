"""Mappings of keywords to item ids, one a row: an Arrow map, a struct, or JSON text.

Python writes a dictionary as JSON text, pandas as a struct with the keys of the whole file, Spark
and DuckDB as a map. The same mappings give the same entries.
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.datasets import ragged
from sidmill.io import plain_columns

INT64_MAX = 2**63 - 1


class Entries(NamedTuple):
    """The entries of n rows, in order.

    Attributes:
        keywords: large_string (m,).
        lists: the ids of each keyword (m,).
        rows: the row of each entry, int64 (m,), ascending.
        bad_rows: the rows of entries that are left out, int64 (b,): their value is not a list of
            ids.
        broken_rows: rows that hold no mapping at all, int64.
    """

    keywords: pa.Array
    lists: ragged.Ragged
    rows: np.ndarray
    bad_rows: np.ndarray
    broken_rows: np.ndarray


class _Pairs(list[tuple[str, Any]]):
    """A JSON object, as pairs in their order: a key may be repeated."""


def read(column: pa.Array | pa.ChunkedArray, ids: pa.DataType) -> Entries:
    """Read the entries of a column of mappings.

    Args:
        column: a map, a struct, or JSON text (n,); an empty text and a null have no entries.
        ids: the type of the catalogue's ids, int64 or string. Digits in quotes are read as
            integers for integer ids, and integers as text for string ids.

    Raises:
        SidmillError: if the column is of another type.
    """
    column = plain_columns.plain(column, "the column of mappings")
    kind = column.type
    mappings = (pa.types.is_map, pa.types.is_struct, pa.types.is_null)
    if not (kind == plain_columns.TEXT or any(test(kind) for test in mappings)):
        raise SidmillError(
            f"the column of mappings is {kind}: write it as a map, a struct or JSON text"
        )

    # One list of ids per keyword. A row without a mapping, and an entry without ids, are noted.
    is_integer = pa.types.is_integer(ids)
    keywords, lists, rows = [], [], []
    bad_rows, broken_rows = [], []
    for row, value in enumerate(column.to_pylist()):
        pairs = _pairs(value, is_json=kind == plain_columns.TEXT)
        if pairs is None:
            broken_rows.append(row)
            continue
        for keyword, pids in pairs:
            found = list(_parse_ids(pids, is_integer=is_integer))
            if None in found or not _is_text(str(keyword)):
                bad_rows.append(row)
                continue
            keywords.append(str(keyword))
            lists.append(found)
            rows.append(row)

    list_kind = pa.large_list(pa.int64() if is_integer else plain_columns.TEXT)
    return Entries(
        pa.array(keywords, plain_columns.TEXT),
        ragged.from_arrow(pa.array(lists, list_kind)),
        *(np.array(numbers, dtype=np.int64) for numbers in (rows, bad_rows, broken_rows)),
    )


def _pairs(value: Any, *, is_json: bool) -> Iterable[tuple[Any, Any]] | None:
    """The entries of one row, or None where it holds no mapping."""
    if value is None or value == "":
        return []
    if isinstance(value, dict):  # a struct: keys of other rows are null here
        return [pair for pair in value.items() if pair[1] is not None]
    if not is_json:
        pairs: list[tuple[Any, Any]] = value  # of a map
        return pairs
    try:
        decoded = json.loads(value, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError):
        return None
    return decoded if isinstance(decoded, _Pairs) else None


def _parse_ids(pids: object, *, is_integer: bool) -> Iterator[int | str | None]:
    """Yield the ids of one entry; None for each value that cannot be an id."""
    if pids is None:
        return
    if type(pids) is not list:
        yield None
        return
    yield from map(_integer if is_integer else _text, pids)


def _integer(pid: object) -> int | None:
    """An id of a catalogue of integers, or None for a value that cannot be one."""
    if isinstance(pid, str) and pid.removeprefix("-").isdecimal() and len(pid) < 21:
        pid = int(pid)
    if isinstance(pid, float) and pid.is_integer() and abs(pid) <= plain_columns.WHOLE_FLOATS:
        pid = int(pid)
    if not isinstance(pid, int) or isinstance(pid, bool):
        return None
    return pid if -INT64_MAX <= pid <= INT64_MAX else None


def _text(pid: object) -> str | None:
    """An id of a catalogue of texts, or None for a value that cannot be one."""
    if not isinstance(pid, str):
        number = _integer(pid)
        return None if number is None else str(number)
    return pid if _is_text(pid) else None


def _is_text(value: str) -> bool:
    """Whether a text can be written as UTF-8: JSON may hold one half of a surrogate pair."""
    return not any("\ud800" <= char <= "\udfff" for char in value)
