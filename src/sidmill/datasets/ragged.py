"""Lists of different lengths, without a loop over them.

Shapes: n lists, m values in all.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

NOTHING = -(1 << 63)  # stands for a null among integers: no item has this id
VALUES_AT_A_TIME = 1 << 17  # gathered: their places stay in the processor's cache


class Ragged(NamedTuple):
    """``values`` (m,); list i is values[offsets[i]:offsets[i+1]], ``offsets`` int64 (n + 1,)."""

    values: np.ndarray | pa.Array
    offsets: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """int64 (n,)."""
        return np.diff(self.offsets)


def of(column: pa.ChunkedArray | pa.Array) -> Ragged:
    """Read a list column; a null is an empty list. Integers come as numpy, other types as Arrow."""
    if pa.types.is_null(column.type):  # as writers type a column without any value
        column = pa.nulls(len(column), pa.large_list(pa.int64()))
    lengths = pc.list_value_length(column)
    if lengths.null_count:
        lengths = pc.fill_null(lengths, 0)
    values = pc.list_flatten(column)
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if pa.types.is_integer(values.type) or pa.types.is_boolean(values.type):
        if values.null_count and pa.types.is_boolean(values.type):
            values = pc.fill_null(values, False)
        elif values.null_count:
            values = pc.fill_null(values.cast(pa.int64()), NOTHING)
        values = values.to_numpy(zero_copy_only=False)
    return Ragged(values, offsets_of(np.asarray(lengths)))


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """Lengths (n,) to offsets, int64 (n + 1,)."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def places(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Numbers start, start + 1, ... of every run, one run behind the other: int64 (sum,)."""
    offsets = offsets_of(lengths)
    found = np.arange(offsets[-1])
    found += np.repeat(starts - offsets[:-1], lengths)
    return found


def slices(lists: Ragged, starts: np.ndarray, lengths: np.ndarray) -> Ragged:
    """Lists made of runs of the values: n' runs give n' lists."""
    offsets = offsets_of(lengths)
    if not isinstance(lists.values, np.ndarray):
        return Ragged(take(lists.values, places(starts, lengths)), offsets)
    values = np.empty(offsets[-1], lists.values.dtype)
    cuts = np.searchsorted(offsets, np.arange(VALUES_AT_A_TIME, offsets[-1], VALUES_AT_A_TIME))
    for first, last in pairwise([0, *cuts.tolist(), len(lengths)]):
        rows = places(starts[first:last], lengths[first:last])
        np.take(lists.values, rows, out=values[offsets[first] : offsets[last]], mode="clip")
    return Ragged(values, offsets)


def limit(lists: Ragged, most: int, keep: str) -> Ragged:
    """Keep the ``first`` or the ``last`` values of each list, at most ``most``."""
    lengths = lists.lengths
    if not len(lengths) or lengths.max(initial=0) <= most:
        return lists
    kept = np.minimum(lengths, most)
    starts = lists.offsets[:-1] if keep == "first" else lists.offsets[1:] - kept
    return slices(lists, starts, kept)


def where(lists: Ragged, keep: np.ndarray) -> Ragged:
    """Keep the values that ``keep``, bool (m,), marks."""
    if keep.all():
        return lists
    counts = np.zeros(len(keep) + 1, dtype=np.int64)
    np.cumsum(keep, out=counts[1:])
    return Ragged(take(lists.values, np.flatnonzero(keep)), counts[lists.offsets])


def pick(lists: Ragged, rows: np.ndarray) -> Ragged:
    """The lists of some rows, which may repeat."""
    return slices(lists, lists.offsets[:-1][rows], lists.lengths[rows])


def side_by_side(lists: list[Ragged]) -> Ragged:
    """Join list i of each: their values stand one behind the other."""
    offsets = offsets_of(sum(each.lengths for each in lists))
    values = np.empty(offsets[-1], lists[0].values.dtype)
    starts = offsets[:-1].copy()
    for each in lists:
        lengths = each.lengths
        if (lengths == 1).all():
            values[starts] = each.values
        else:
            values[places(starts, lengths)] = each.values
        starts += lengths
    return Ragged(values, offsets)


def take(values: np.ndarray | pa.Array, rows: np.ndarray) -> np.ndarray | pa.Array:
    """Values of some rows, for either kind of array."""
    return values.take(rows if isinstance(values, np.ndarray) else arrow(rows))


def arrow(values: np.ndarray | pa.Array) -> pa.Array:
    """As an Arrow array, without a copy where numpy and Arrow lay values out alike."""
    if not isinstance(values, np.ndarray):
        return values
    if values.dtype == bool or not values.flags.c_contiguous:
        return pa.array(values)
    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])


def to_arrow(lists: Ragged) -> pa.LargeListArray:
    """As an Arrow list column."""
    return pa.LargeListArray.from_arrays(arrow(lists.offsets), arrow(lists.values))


def take_rows(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """Some rows of a table; lists of integers several times faster than ``Table.take``."""
    columns, place = [], arrow(rows)
    for column in table.columns:
        if pa.types.is_large_list(column.type) and not column.null_count:
            columns.append(to_arrow(pick(of(column), rows)))
        else:
            columns.append(column.take(place))
    return pa.Table.from_arrays(columns, table.column_names)


def texts(strings: pa.LargeStringArray, rows: Ragged) -> pa.LargeStringArray:
    """Join the strings that each list numbers, with nothing between.

    Gathered strings lie end to end, so a list's text is a slice of them: only offsets are made.

    Args:
        strings: large_string (N,).
        rows: integers in [0, N).

    Returns:
        large_string (n,).
    """
    gathered = strings.take(arrow(rows.values))
    bounds = np.frombuffer(gathered.buffers()[1], np.int64, len(gathered) + 1, 8 * gathered.offset)
    return pa.LargeStringArray.from_buffers(
        len(rows.offsets) - 1, pa.py_buffer(bounds[rows.offsets]), gathered.buffers()[2]
    )
