"""What the engine knows of items: the row of an id, its SID as text, its title.

Shapes: N items, L levels.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sidmill.core.errors import SidmillError
from sidmill.datasets import ragged
from sidmill.formats import codes

DENSE_FACTOR = 8  # ids up to so many times N get a table of their own, looked up without a search


class Lookup(NamedTuple):
    """Ids to rows. Either ``dense`` or the sorted ``ids`` with their ``rows``, or texts."""

    first: int
    dense: np.ndarray | None
    ids: np.ndarray | pa.Array
    rows: np.ndarray | None


class Items(NamedTuple):
    """``lookup``, and ``codes`` int32 (N, L), which are the items' SIDs."""

    lookup: Lookup
    codes: np.ndarray


def load(path: str | Path) -> Items:
    """Read pid2sid.parquet. Memory: about 100 bytes per item.

    Raises:
        SidmillError: if an item has two SIDs.
    """
    coded = codes.read(path, "sid")
    return Items(_lookup(path, coded.ids), coded.codes)


def _lookup(path: str | Path, ids: pa.ChunkedArray) -> Lookup:
    twice = SidmillError(f"{path}: an item stands there twice: it can have one SID only")
    if not pa.types.is_integer(ids.type):
        if pc.count_distinct(ids).as_py() != len(ids):
            raise twice
        return Lookup(0, None, ids.combine_chunks().cast(pa.large_string()), None)
    numbers = ids.to_numpy()
    first, last = (int(numbers.min()), int(numbers.max())) if len(numbers) else (0, -1)
    if last - first < DENSE_FACTOR * max(len(numbers), 1024):
        dense = np.full(last - first + 1, -1, dtype=np.int32)
        dense[numbers - first] = np.arange(len(numbers), dtype=np.int32)
        if np.count_nonzero(dense >= 0) != len(numbers):
            raise twice
        return Lookup(first, dense, numbers, None)
    order = np.argsort(numbers, kind="stable")
    if (numbers[order[1:]] == numbers[order[:-1]]).any():
        raise twice
    return Lookup(0, None, numbers[order], order.astype(np.int32))


def rows(lookup: Lookup, pids: np.ndarray | pa.Array, column: str) -> np.ndarray:
    """Rows of items, int32 (m,), -1 where there is no such item.

    Raises:
        SidmillError: if the ids are numbers and those of the items are texts, or the reverse.
    """
    numeric = isinstance(pids, np.ndarray)
    if numeric != isinstance(lookup.ids, np.ndarray) and len(pids):
        kinds = ("numbers", "texts") if numeric else ("texts", "numbers")
        raise SidmillError(
            f"column {column!r} holds {kinds[0]}, but item ids of pid2sid.parquet are {kinds[1]}: "
            f"set items.id_type to what the interactions have"
        )
    if not numeric:
        found = pc.index_in(pids.cast(pa.large_string()), value_set=lookup.ids)
        return pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int32)
    if lookup.dense is None:
        place = np.minimum(np.searchsorted(lookup.ids, pids), max(len(lookup.ids) - 1, 0))
        if not len(lookup.ids):
            return np.full(len(pids), -1, dtype=np.int32)
        return np.where(lookup.ids[place] == pids, lookup.rows[place], np.int32(-1))
    shifted = pids - lookup.first
    inside = shifted.view(np.uint64) < len(lookup.dense)  # below the first wraps to a high number
    if inside.all():
        return lookup.dense[shifted]
    return np.where(inside, lookup.dense[np.where(inside, shifted, 0)], np.int32(-1))


def titles(items: Items, paths: Iterable[str | Path], column: str) -> pa.LargeStringArray:
    """First lines of texts, in row order of the items; empty where an item has none.

    Memory: the titles, about 100 bytes per item.

    Args:
        items: which items.
        paths: parquet files with ``pid`` and a column of texts.
        column: that column.
    """
    found = np.full(len(items.codes), -1, dtype=np.int64)
    lines, seen = [], 0
    for path in paths:
        for batch in pq.ParquetFile(path).iter_batches(8192, columns=["pid", column]):
            pids = batch["pid"]
            place = rows(items.lookup, ids_of(pids), "pid")
            known = np.flatnonzero(place >= 0)
            found[place[known]] = seen + known
            lines.append(first_lines(batch[column].cast(pa.large_string())))
            seen += len(batch)
    table = pa.chunked_array([*lines, pa.array([""], pa.large_string())]).combine_chunks()
    return table.take(ragged.arrow(np.where(found < 0, seen, found)))


def ids_of(column: pa.Array | pa.ChunkedArray) -> np.ndarray | pa.Array:
    """Ids as :func:`rows` takes them; a null becomes an id that no item has."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_integer(column.type):
        return pc.fill_null(column, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return pc.fill_null(column, "")


def first_lines(texts: pa.Array) -> pa.Array:
    """What stands before the first line feed of each text."""
    found = pc.find_substring(texts, "\n")
    if not pc.any(pc.greater_equal(found, 0), min_count=0).as_py():
        return pc.fill_null(texts, "")
    return pc.replace_substring_regex(pc.fill_null(texts, ""), r"(?s)\n.*", "")
