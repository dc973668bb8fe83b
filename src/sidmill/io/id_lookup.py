"""From item ids to rows: a table that is made once, for any number of look-ups.

Letters: N ids of the table, n ids to look up.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sidmill.core.errors import SidmillError
from sidmill.io import plain_columns

ABSENT = -1
DENSE_FACTOR = 8  # a direct table of integer ids is at most this many times as long as the ids
DENSE_LEAST = 1024  # or as this number


class Lookup(NamedTuple):
    """The ids of a table, in one of three forms.

    Attributes:
        kind: their type, int64 or string.
        texts: for strings, id to row, else None.
        dense: for integers close together, int32 (largest - ``first`` + 1,): the row of id
            ``first`` + index, ``ABSENT`` for none; else None.
        first: the smallest integer, where there is a ``dense``.
        ranked: for other integers, int64 (N,) ascending, else empty.
        rows: int32 (N,), the row of each of ``ranked``, else empty.
    """

    kind: pa.DataType
    texts: dict[str, int] | None = None
    dense: np.ndarray | None = None
    first: int = 0
    ranked: np.ndarray = np.empty(0, np.int64)
    rows: np.ndarray = np.empty(0, np.int32)


def make(ids: pa.Array | pa.ChunkedArray, where: str | Path = "the catalogue") -> Lookup:
    """Make the table. Memory: 12 to 32 bytes per integer, about 100 and the string per string.

    Args:
        ids: int64 or string (N,), without nulls; an id's row is its index here.
        where: where the ids are from, for the message.

    Raises:
        SidmillError: if an id is repeated.
    """
    ids = _one_chunk(ids)
    if not _is_simple(ids.type):
        ids = plain_columns.whole(ids, str(where))
    if not pa.types.is_integer(ids.type):
        _require_distinct(ids, pc.count_distinct(ids).as_py(), where)
        return Lookup(ids.type, texts=dict(zip(ids.to_pylist(), range(len(ids)), strict=True)))

    # Integers: a direct table where they are close together, else a sorted array.
    values = ids.to_numpy()
    first, last = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    if last - first < DENSE_FACTOR * max(len(values), DENSE_LEAST):
        dense = np.full(last - first + 1, ABSENT, dtype=np.int32)
        dense[values - first] = np.arange(len(values), dtype=np.int32)
        _require_distinct(ids, int((dense != ABSENT).sum()), where)
        return Lookup(ids.type, dense=dense, first=first)
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    _require_distinct(ids, int(1 + (ranked[1:] != ranked[:-1]).sum()), where)
    return Lookup(ids.type, ranked=ranked, rows=order.astype(np.int32))


def _require_distinct(ids: pa.Array, n_distinct: int, where: str | Path) -> None:
    """Refuse ids of which one is repeated, naming the first."""
    if n_distinct != len(ids):
        counts = ids.value_counts()
        repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1))[0].as_py()
        raise SidmillError(f"{where}: item {repeated!r} is listed twice: keep one of its rows")


def find(
    lookup: Lookup, ids: pa.Array | pa.ChunkedArray, where: str = "the ids to look up"
) -> np.ndarray:
    """Rows of ids. The time grows with n and hardly with N.

    Args:
        lookup: what :func:`make` returned.
        ids: to look up (n,), of any Arrow type that holds integers or text; a null is absent.
        where: where the ids are from, for the message.

    Returns:
        int32 (n,), ``ABSENT`` for ids that the table does not have.

    Raises:
        SidmillError: if the ids are strings and those of the table are integers, or the reverse, or
            neither of both.
    """
    # One array of a plain type, of the same kind as the table.
    if not len(ids):
        return np.empty(0, dtype=np.int32)
    ids = _one_chunk(ids)
    if not _is_simple(ids.type):
        ids = plain_columns.whole(ids, where)
    if pa.types.is_null(ids.type):
        return np.full(len(ids), ABSENT, dtype=np.int32)
    if pa.types.is_integer(ids.type) != pa.types.is_integer(lookup.kind):
        raise SidmillError(
            f"{where}: item ids are {ids.type}, those of the catalogue {lookup.kind}: set "
            f"items.id_type to int or string for both"
        )

    # The row of each, by the form of the table.
    if lookup.texts is not None:
        found = map(lookup.texts.get, ids.to_pylist(), [ABSENT] * len(ids))
        return np.fromiter(found, np.int32, len(ids))
    values: np.ndarray = ids.fill_null(0).to_numpy().astype(np.int64, copy=False)
    if lookup.dense is not None:
        offsets = values - lookup.first
        hits = offsets.view(np.uint64) < len(lookup.dense)  # negative offsets wrap to high numbers
        if hits.all() and not ids.null_count:
            return lookup.dense.take(offsets)
        rows = lookup.dense.take(np.where(hits, offsets, 0))
    else:
        ranks = np.minimum(np.searchsorted(lookup.ranked, values), len(lookup.ranked) - 1)
        hits = lookup.ranked[ranks] == values
        rows = lookup.rows[ranks]

    # A null was looked up as 0.
    if ids.null_count:
        hits &= ids.is_valid().to_numpy(zero_copy_only=False)
    return np.where(hits, rows, np.int32(ABSENT))


def _is_simple(kind: pa.DataType) -> bool:
    """Whether ids of a type are looked up as they are."""
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return bool(is_text or pa.types.is_signed_integer(kind))


def _one_chunk(ids: pa.Array | pa.ChunkedArray) -> pa.Array:
    return ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
