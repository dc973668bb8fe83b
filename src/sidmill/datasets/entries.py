"""Mappings of words to item ids, one a row: an Arrow map, a struct, or JSON text.

Python writes a dictionary as JSON text, pandas as a struct with the keys of the whole file, Spark
and DuckDB as a map. The same mappings give the same entries.
"""

import json
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.datasets import ragged
from sidmill.io import plain_columns

INT64_MAX = 2**63 - 1


class Entries(NamedTuple):
    """The entries of n rows, in order.

    Attributes:
        words: keys, large_string (m,).
        lists: the ids of each key (m,).
        rows: the row of each entry, int64 (m,), rising.
        bad: the rows of entries that are left out, int64 (b,): their value is no list of ids.
        broken: rows that hold no mapping at all, int64.
    """

    words: pa.Array
    lists: ragged.Ragged
    rows: np.ndarray
    bad: np.ndarray
    broken: np.ndarray


class _Pairs(list):
    """A JSON object, as pairs in their order: a key may stand there twice."""


def read(column: pa.Array | pa.ChunkedArray, ids: pa.DataType) -> Entries:
    """Read the entries of a column of mappings.

    Args:
        column: a map, a struct, or JSON text (n,); an empty text and a null have no entries.
        ids: the type of the catalogue's ids, int64 or string. Digits in quotes are integers there,
            and integers are texts in the other case.

    Raises:
        SidmillError: if the column is of another type.
    """
    column = plain_columns.plain(column, "the column of mappings")
    kind = column.type
    known = (pa.types.is_map, pa.types.is_struct, pa.types.is_null)
    if not (kind == plain_columns.TEXT or any(test(kind) for test in known)):
        raise SidmillError(f"the column of mappings is {kind}: wanted a map, a struct or JSON text")
    one = _integer if pa.types.is_integer(ids) else _text
    words, values, rows, bad, broken = [], [], [], [], []
    for row, value in enumerate(column.to_pylist()):
        pairs = _pairs(value, is_json=kind == plain_columns.TEXT)
        if pairs is None:
            broken.append(row)
            continue
        for word, pids in pairs:
            found = [one(pid) for pid in pids] if type(pids) is list else [None]
            if pids is None:
                found = []
            if None in found or not _is_text(str(word)):
                bad.append(row)
                continue
            words.append(str(word))
            values.append(found)
            rows.append(row)
    kind = pa.large_list(pa.int64() if pa.types.is_integer(ids) else plain_columns.TEXT)
    numbers = (np.array(each, dtype=np.int64) for each in (rows, bad, broken))
    return Entries(pa.array(words, plain_columns.TEXT), ragged.of(pa.array(values, kind)), *numbers)


def _pairs(value: object, *, is_json: bool) -> Iterable[tuple] | None:
    """The entries of one row, or None where it holds no mapping."""
    if value is None or value == "":
        return []
    if isinstance(value, dict):  # a struct: keys of other rows are null here
        return [pair for pair in value.items() if pair[1] is not None]
    if not is_json:
        return value  # of a map, as pairs
    try:
        found = json.loads(value, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, _Pairs) else None


def _integer(pid: object) -> int | None:
    """An id of a catalogue of integers, or None for what can be none."""
    if isinstance(pid, str) and pid.removeprefix("-").isdecimal() and len(pid) < 21:
        pid = int(pid)
    if isinstance(pid, float) and pid.is_integer() and abs(pid) <= plain_columns.WHOLE_FLOATS:
        pid = int(pid)
    whole = isinstance(pid, int) and not isinstance(pid, bool)
    return pid if whole and -INT64_MAX <= pid <= INT64_MAX else None


def _text(pid: object) -> str | None:
    """An id of a catalogue of texts, or None for what can be none."""
    if not isinstance(pid, str):
        pid = str(number) if (number := _integer(pid)) is not None else None
    return pid if _is_text(pid) else None


def _is_text(value: object) -> bool:
    """Whether a value is text that can be written: JSON may hold half of a character pair."""
    return isinstance(value, str) and not any("\ud800" <= char <= "\udfff" for char in value)
