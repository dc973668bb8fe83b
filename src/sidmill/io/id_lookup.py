"""Item ids to rows: a table made once, and looked up as often as one likes.

Letters: N ids that are known, n ids that are looked for.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sidmill.core.errors import SidmillError
from sidmill.io import plain_columns

ABSENT = -1
DENSE_FACTOR = 8  # integer ids get a direct table that may be so many times longer than they are
DENSE_LEAST = 1024  # or than this


class Lookup(NamedTuple):
    """Known ids, in one of three forms.

    Attributes:
        kind: their type, int64 or string.
        texts: for strings, id to row, else None.
        dense: for integers close together, int32 (largest - ``first`` + 1,): row of
            ``first`` + place, ``ABSENT`` for none; else None.
        first: the smallest integer, where there is a ``dense``.
        ranked: for other integers, int64 (N,) rising, else None.
        rows: int32 (N,), the row of each of ``ranked``, else None.
    """

    kind: pa.DataType
    texts: dict[str, int] | None = None
    dense: np.ndarray | None = None
    first: int = 0
    ranked: np.ndarray | None = None
    rows: np.ndarray | None = None


def make(ids: pa.Array | pa.ChunkedArray, where: str | Path = "the catalogue") -> Lookup:
    """Make the table. Memory: 12 to 32 bytes per integer, about 100 and the string per string.

    Args:
        ids: int64 or string (N,), without nulls; an id's row is its place here.
        where: where they stand, for the message.

    Raises:
        SidmillError: if an id stands there twice.
    """
    ids = _whole(ids)
    if not _is_simple(ids.type):
        ids = plain_columns.whole(ids, str(where))
    if pc.count_distinct(ids).as_py() != len(ids):
        counts = ids.value_counts()
        twice = counts.field("values").filter(pc.greater(counts.field("counts"), 1))[0].as_py()
        raise SidmillError(f"{where}: item {twice!r} stands there twice: keep one of its rows")
    if not pa.types.is_integer(ids.type):
        return Lookup(ids.type, texts=dict(zip(ids.to_pylist(), range(len(ids)), strict=True)))
    values = ids.to_numpy()
    first, last = (int(values.min()), int(values.max())) if len(values) else (0, 0)
    if last - first < DENSE_FACTOR * max(len(values), DENSE_LEAST):
        dense = np.full(last - first + 1, ABSENT, dtype=np.int32)
        dense[values - first] = np.arange(len(values), dtype=np.int32)
        return Lookup(ids.type, dense=dense, first=first)
    order = np.argsort(values, kind="stable")
    return Lookup(ids.type, ranked=values[order], rows=order.astype(np.int32))


def find(
    lookup: Lookup, wanted: pa.Array | pa.ChunkedArray, where: str = "the ids looked for"
) -> np.ndarray:
    """Rows of ids. Takes time by n, however many are known.

    Args:
        lookup: what :func:`make` gave.
        wanted: ids (n,), of any Arrow type that holds integers or text; a null is absent.
        where: where they stand, for the message.

    Returns:
        int32 (n,), ``ABSENT`` for ids that are not known.

    Raises:
        SidmillError: if the ids are strings and those known are integers, or the reverse, or
            neither of both.
    """
    if not len(wanted):
        return np.empty(0, dtype=np.int32)
    wanted = _whole(wanted)
    if not _is_simple(wanted.type):
        wanted = plain_columns.whole(wanted, where)
    if pa.types.is_null(wanted.type):
        return np.full(len(wanted), ABSENT, dtype=np.int32)
    if pa.types.is_integer(wanted.type) != pa.types.is_integer(lookup.kind):
        raise SidmillError(
            f"{where}: item ids are {wanted.type}, those of the catalogue {lookup.kind}: set "
            f"items.id_type to int or string for both"
        )
    if lookup.texts is not None:
        rows = map(lookup.texts.get, wanted.to_pylist(), [ABSENT] * len(wanted))
        return np.fromiter(rows, np.int32, len(wanted))
    values = wanted.fill_null(0).to_numpy().astype(np.int64, copy=False)
    if lookup.dense is not None:
        place = values - lookup.first
        known = place.view(np.uint64) < len(lookup.dense)  # below the first wraps to a high number
        if known.all() and not wanted.null_count:
            return lookup.dense.take(place)
        rows = lookup.dense.take(np.where(known, place, 0))
    else:
        place = np.minimum(np.searchsorted(lookup.ranked, values), len(lookup.ranked) - 1)
        known = lookup.ranked[place] == values
        rows = lookup.rows[place]
    if wanted.null_count:
        known &= wanted.is_valid().to_numpy(zero_copy_only=False)
    return np.where(known, rows, np.int32(ABSENT))


def _is_simple(kind: pa.DataType) -> bool:
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return text or pa.types.is_signed_integer(kind)


def _whole(ids: pa.Array | pa.ChunkedArray) -> pa.Array:
    return ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
