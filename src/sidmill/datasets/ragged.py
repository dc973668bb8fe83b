"""Lists of different lengths, without a Python loop over them.

Shapes: n lists, m values in all.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

NULL_ID = -(1 << 63)  # stands for a null among integers: no item has this id
GATHERED_VALUES = 1 << 17  # values gathered at a time: their row numbers fit the processor's cache


class Ragged(NamedTuple):
    """``values`` (m,); list i is values[offsets[i]:offsets[i+1]], ``offsets`` int64 (n + 1,)."""

    values: np.ndarray | pa.Array
    offsets: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """int64 (n,)."""
        return np.diff(self.offsets)


def from_arrow(column: pa.ChunkedArray | pa.Array) -> Ragged:
    """Read a list column as ragged lists; a null is an empty list.

    Integers come as numpy, other types as Arrow.
    """
    if pa.types.is_null(column.type):  # as writers type a column without any value
        column = pa.nulls(len(column), pa.large_list(pa.int64()))

    # The lengths, and the values of all lists end to end.
    lengths = pc.list_value_length(column)
    if lengths.null_count:
        lengths = pc.fill_null(lengths, 0)
    values = pc.list_flatten(column)
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()

    # Integers and truth values as numpy, which has no null.
    if pa.types.is_integer(values.type) or pa.types.is_boolean(values.type):
        if values.null_count and pa.types.is_boolean(values.type):
            values = pc.fill_null(values, False)
        elif values.null_count:
            values = pc.fill_null(values.cast(pa.int64()), NULL_ID)
        values = as_numpy(values)
    return Ragged(values, to_offsets(np.asarray(lengths)))


def to_offsets(lengths: np.ndarray) -> np.ndarray:
    """Lengths (n,) to offsets, int64 (n + 1,)."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def count_marked(marks: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Count the marked values of each ragged list: int64 (n,).

    Args:
        marks: bool (m,).
        offsets: int64 (n + 1,).
    """
    totals = to_offsets(marks)
    counts: np.ndarray = totals[offsets[1:]] - totals[offsets[:-1]]
    return counts


def concat_ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The numbers start, start + 1, ... of every run, the runs end to end: int64 (sum,)."""
    offsets = to_offsets(lengths)
    numbers = np.arange(offsets[-1])
    numbers += np.repeat(starts - offsets[:-1], lengths)
    return numbers


def slices(lists: Ragged, starts: np.ndarray, lengths: np.ndarray) -> Ragged:
    """Make ragged lists of runs of the values: n' runs give n' lists."""
    offsets = to_offsets(lengths)
    if not isinstance(lists.values, np.ndarray):
        return Ragged(take(lists.values, concat_ranges(starts, lengths)), offsets)
    values = np.empty(offsets[-1], lists.values.dtype)
    cuts = np.searchsorted(offsets, np.arange(GATHERED_VALUES, offsets[-1], GATHERED_VALUES))
    for first, last in pairwise([0, *cuts.tolist(), len(lengths)]):
        rows = concat_ranges(starts[first:last], lengths[first:last])
        np.take(lists.values, rows, out=values[offsets[first] : offsets[last]], mode="clip")
    return Ragged(values, offsets)


def truncate(lists: Ragged, limit: int, end: str) -> Ragged:
    """Keep the ``first`` or the ``last`` values of each list, at most ``limit``."""
    lengths = lists.lengths
    if not len(lengths) or lengths.max(initial=0) <= limit:
        return lists
    kept = np.minimum(lengths, limit)
    starts = lists.offsets[:-1] if end == "first" else lists.offsets[1:] - kept
    return slices(lists, starts, kept)


def filter_values(lists: Ragged, keep: np.ndarray) -> Ragged:
    """Keep the values that ``keep``, bool (m,), marks."""
    if keep.all():
        return lists
    counts = to_offsets(keep)
    return Ragged(take(lists.values, np.flatnonzero(keep)), counts[lists.offsets])


def take_lists(lists: Ragged, rows: np.ndarray) -> Ragged:
    """The lists of some rows, which may repeat."""
    return slices(lists, lists.offsets[:-1][rows], lists.lengths[rows])


def concat_lists(columns: Sequence[Ragged]) -> Ragged:
    """Concatenate the lists of each row: those of the first column come first."""
    lengths = np.sum([column.lengths for column in columns], axis=0)
    offsets = to_offsets(lengths)
    values = np.empty(offsets[-1], columns[0].values.dtype)
    starts = offsets[:-1].copy()
    for column in columns:
        lengths = column.lengths
        if (lengths == 1).all():
            values[starts] = column.values
        else:
            values[concat_ranges(starts, lengths)] = column.values
        starts += lengths
    return Ragged(values, offsets)


def take(values: np.ndarray | pa.Array, rows: np.ndarray) -> np.ndarray | pa.Array:
    """Values of some rows, for either kind of array."""
    return values.take(rows if isinstance(values, np.ndarray) else as_arrow(rows))


def as_arrow(values: np.ndarray | pa.Array) -> pa.Array:
    """Convert ragged lists to an Arrow array, without a copy where numpy and Arrow agree."""
    if not isinstance(values, np.ndarray):
        return values
    if values.dtype == bool or not values.flags.c_contiguous:
        return pa.array(values)
    kind = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])


def as_numpy(values: pa.Array) -> np.ndarray:
    """As a numpy array, without a copy where Arrow and numpy lay values out alike."""
    numbers: np.ndarray = values.to_numpy(zero_copy_only=False)
    return numbers


def to_list_array(lists: Ragged) -> pa.LargeListArray:
    """As an Arrow list column."""
    return pa.LargeListArray.from_arrays(as_arrow(lists.offsets), as_arrow(lists.values))


def take_rows(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """Take some rows of a table; ragged lists of integers much faster than ``Table.take``."""
    columns, indices = [], as_arrow(rows)
    for column in table.columns:
        if pa.types.is_large_list(column.type) and not column.null_count:
            columns.append(to_list_array(take_lists(from_arrow(column), rows)))
        else:
            columns.append(column.take(indices))
    return pa.Table.from_arrays(columns, table.column_names)


def join_strings(strings: pa.LargeStringArray, numbers: Ragged) -> pa.LargeStringArray:
    """Join the strings that each list numbers, with nothing between them.

    Gathered strings lie end to end, so a list's text is a slice of them: only offsets are made.

    Args:
        strings: large_string (N,).
        numbers: lists of integers in [0, N).

    Returns:
        large_string (n,).
    """
    gathered = strings.take(as_arrow(numbers.values))
    bounds = np.frombuffer(gathered.buffers()[1], np.int64, len(gathered) + 1, 8 * gathered.offset)
    return pa.LargeStringArray.from_buffers(
        len(numbers.offsets) - 1, pa.py_buffer(bounds[numbers.offsets]), gathered.buffers()[2]
    )
