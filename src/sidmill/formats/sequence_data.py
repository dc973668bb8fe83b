"""``sequence.h5``: who consumed what, oldest first.

    user_ids          vlen str (s,)
    sequences         vlen int64 (s,), item ids, above 0
    sequence_lengths  int32 (s,)
    timestamps        vlen int64 (s,), optional, one per item
    attributes        n_sequences, max_sequence_length, total_items (of all sequences together),
                      avg_sequence_length, order_preserved

Letters: s sequences, b of them in a block, t items of a block, one sequence after the other.
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from sidmill.core.errors import SidmillError
from sidmill.io import hdf5
from sidmill.io.hdf5 import DatasetSpec

DATASETS = [
    DatasetSpec("user_ids", "vlen str", ("s",)),
    DatasetSpec("sequences", "vlen int64", ("s",)),
    DatasetSpec("sequence_lengths", "int32", ("s",)),
    DatasetSpec("timestamps", "vlen int64", ("s",), optional=True),
]
ATTRIBUTES = [
    "n_sequences",
    "max_sequence_length",
    "total_items",
    "avg_sequence_length",
    "order_preserved",
]
CHUNK_ROWS = 1024
BLOCK_ROWS = 8192


class SequenceData(NamedTuple):
    """An opened file. Memory: 4 bytes per sequence.

    Attributes:
        user_ids: vlen str (s,), on disk.
        sequences: vlen int64 (s,), on disk.
        sequence_lengths: int32 (s,).
        timestamps: vlen int64 (s,), on disk, or None.
        file: close it when done.
    """

    user_ids: h5py.Dataset
    sequences: h5py.Dataset
    sequence_lengths: np.ndarray
    timestamps: h5py.Dataset | None
    file: h5py.File


class Block(NamedTuple):
    """Some sequences: users (b,), int64 offsets (b + 1,), items int64 (t,), times int64 (t,)."""

    users: list[str]
    offsets: np.ndarray
    items: np.ndarray
    times: np.ndarray | None


def write(
    path: str | Path, n_sequences: int, timed: bool, blocks: Iterable[Block]
) -> dict[str, int | float | bool]:
    """Write sequence.h5 block by block, atomically, in the order given.

    Args:
        path: the file.
        n_sequences: s.
        timed: whether to write timestamps.
        blocks: s sequences in all, none empty.

    Returns:
        The attributes. Memory: one block.

    Raises:
        SidmillError: if a sequence is empty, an item id is below 1, times are missing, or there are
            not s sequences.
    """
    # Datasets of their final size.
    row = total = longest = 0
    form = {"shape": (n_sequences,), "chunks": (min(CHUNK_ROWS, max(n_sequences, 1)),)}
    with hdf5.writing(path) as file:
        users = file.create_dataset("user_ids", dtype=hdf5.text(), **form)
        sequences = file.create_dataset("sequences", dtype=hdf5.vlen_int64(), **form)
        lengths = file.create_dataset("sequence_lengths", dtype=np.int32, **form)
        if timed:
            times = file.create_dataset("timestamps", dtype=hdf5.vlen_int64(), **form)

        # Blocks of sequences, in order.
        for block in blocks:
            end = row + len(block.users)
            sizes = np.diff(block.offsets)
            _check_block(path, block, sizes, end, n_sequences, timed)
            users[row:end] = np.array(block.users, dtype=object)
            hdf5.write_lists(sequences, row, _lists(block.offsets, block.items))
            lengths[row:end] = sizes
            if timed and block.times is not None:
                hdf5.write_lists(times, row, _lists(block.offsets, block.times))
            row, total = end, total + len(block.items)
            longest = max(longest, int(sizes.max(initial=0)))

        # Attributes last, once all sequences are there.
        if row != n_sequences:
            raise SidmillError(f"{path}: {row} sequences, {n_sequences} were announced")
        attributes = {
            "n_sequences": row,
            "max_sequence_length": longest,
            "total_items": total,
            "avg_sequence_length": total / row if row else 0.0,
            "order_preserved": True,
        }
        file.attrs.update(attributes)
    return attributes


def open_sequence_data(path: str | Path) -> SequenceData:
    """Open sequence.h5, made by SIDMill or by others.

    Raises:
        SidmillError: naming dataset, shape and dtype, if one is missing or not as specified; if
            an attribute is missing or contradicts the datasets.
    """
    file = hdf5.open_checked(path, DATASETS, ATTRIBUTES)
    try:
        lengths = file["sequence_lengths"][:]
        sizes = {
            "n_sequences": len(lengths),
            "max_sequence_length": int(lengths.max(initial=0)),
            "total_items": int(lengths.sum(dtype=np.int64)),
        }
        if len(lengths) and lengths.min() < 0:
            raise SidmillError(f"{path}: dataset 'sequence_lengths' holds {lengths.min()}")
        for name in ("n_sequences", "max_sequence_length"):
            hdf5.check_attribute(path, file, name, sizes[name])
    except BaseException:
        file.close()
        raise
    return SequenceData(file["user_ids"], file["sequences"], lengths, file.get("timestamps"), file)


def read(data: SequenceData, start: int = 0, stop: int | None = None) -> Iterator[Block]:
    """Yield sequences ``start`` to ``stop`` of sequence.h5. Memory: 8,192 sequences.

    Raises:
        SidmillError: if a list is not as long as ``sequence_lengths`` says, or an id is below 1.
    """
    last = len(data.sequence_lengths) if stop is None else stop
    for begin in range(start, last, BLOCK_ROWS):
        part = slice(begin, min(begin + BLOCK_ROWS, last))
        offsets, items = flat(data, "sequences", part)
        times = None if data.timestamps is None else flat(data, "timestamps", part)[1]
        yield Block(data.user_ids.asstr()[part].tolist(), offsets, items, times)


def flat(data: SequenceData, name: str, rows: slice | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Read the lists of one dataset of sequence.h5 as one array.

    Args:
        data: the opened file.
        name: ``sequences`` or ``timestamps``.
        rows: a slice, or rising rows.

    Returns:
        int64 offsets (b + 1,) and values (t,).

    Raises:
        SidmillError: if a list is not as long as ``sequence_lengths`` says, or an item id is below
            1.
    """
    lists = data.file[name][rows]
    sizes = np.fromiter(map(len, lists), np.int64, len(lists))
    expected = data.sequence_lengths[rows]
    path = data.file.filename
    odd = np.flatnonzero(sizes != expected)
    if odd.size:
        numbers = np.arange(len(data.sequence_lengths))[rows]
        raise SidmillError(
            f"{path}: dataset {name!r}: row {numbers[odd[0]]} holds {sizes[odd[0]]} values, "
            f"'sequence_lengths' says {expected[odd[0]]}"
        )
    values = np.concatenate([np.empty(0, dtype=np.int64), *lists])
    if name == "sequences" and len(values) and values.min() < 1:
        raise SidmillError(
            f"{path}: dataset 'sequences' vlen int64 {data.sequences.shape} holds item id "
            f"{values.min()}: ids begin at 1, 0 is padding"
        )
    return np.concatenate([[0], np.cumsum(sizes)]), values


def _check_block(
    path: str | Path, block: Block, sizes: np.ndarray, end: int, n_sequences: int, timed: bool
) -> None:
    if end > n_sequences:
        raise SidmillError(f"{path}: more sequences than the {n_sequences} announced")
    if len(sizes) and sizes.min() < 1:
        raise SidmillError(f"{path}: user {block.users[int(sizes.argmin())]!r} has no item")
    if len(block.items) and block.items.min() < 1:
        raise SidmillError(f"{path}: item id {block.items.min()}: 0 is padding, ids begin at 1")
    if timed and (block.times is None or len(block.times) != len(block.items)):
        raise SidmillError(f"{path}: timestamps are missing or too few for {len(sizes)} users")


def _lists(offsets: np.ndarray, values: np.ndarray) -> np.ndarray:
    lists = np.empty(len(offsets) - 1, dtype=object)
    for row, (begin, end) in enumerate(pairwise(offsets)):
        lists[row] = values[begin:end]
    return lists
