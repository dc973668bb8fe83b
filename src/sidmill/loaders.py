"""Batches for sequence models from item_data.h5 and sequence.h5, read as they are needed.

A training sample is a user's whole history, with target -1; a validation sample is all but the
last item, with that as the target. Unless a split is asked for, every sequence takes part in both.
Shuffling draws 256 blocks of 256 neighbouring users at random,
shuffles the users of those, and so on: HDF5 reads neighbours 20 times as fast as single lists, and
a user may still come anywhere in an epoch. Files that SIDMill wrote are in random order to begin
with.

Letters: s sequences, B users in a batch, T items at most, D dimensions.
"""

import logging
import math
import os
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from sidmill.core.errors import SidmillError
from sidmill.formats import item_data, sequence_data
from sidmill.formats.item_data import ItemData
from sidmill.formats.sequence_data import SequenceData

logger = logging.getLogger(__name__)

NONE = -1  # ids where there is no item
BLOCK_ROWS = 256
BLOCKS_AT_ONCE = 256
WHOLE_BLOCK_ROWS = 8  # rows asked for of a block from which it is read as a whole
TEST_RATIO = 0.2  # share of the users held out where a split is asked for without a share
SPLITS_BY = ("auto", "time", "index")
PARTS = {"train": "train", "test": "test", "eval": "test", "valid": "test", "all": "all"}


class Batch(dict[str, torch.Tensor]):
    """The tensors of a batch by name: ``batch["x"]`` and ``batch.x`` are the same.

    A dict, so ``**batch`` fills any tuple or function with these names; ``_asdict`` and ``_fields``
    are there for code that was written for a NamedTuple.
    """

    @property
    def _fields(self) -> tuple[str, ...]:
        return tuple(self)

    def __getattr__(self, name: str) -> torch.Tensor:
        """Return a tensor by its name."""
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"a batch has {', '.join(self)}, and no {name!r}") from None

    def _asdict(self) -> dict[str, torch.Tensor]:
        return dict(self)

    def to(self, device: torch.device | str) -> "Batch":
        """Return the same batch on another device."""
        return Batch({name: value.to(device) for name, value in self.items()})


class _Opened(NamedTuple):
    """Files as one process has them open, and item ids sorted, with the row of each."""

    process: int
    items: ItemData
    sequences: SequenceData
    ranked: np.ndarray  # int64 (n,)
    rows: np.ndarray  # int64 (n,)


def create_h5_dataloader(
    item_data_path: str | Path,
    sequence_data_path: str | Path,
    batch_size: int = 128,
    max_seq_len: int = 200,
    train_test_split: str = "train",
    shuffle: bool = True,
    test_ratio: float | None = None,
    *,
    split_by: str | None = None,
    padding_value: float = -1.0,
    num_workers: int = 0,
    seed: int = 42,
) -> DataLoader[Batch]:
    """Make a loader of batches, each a :class:`Batch` of tensors.

    ============  =====================  ===========================================================
    ``user_ids``  int64 (B,)             row of the user in sequence.h5; ``dataset.names`` has names
    ``ids``       int64 (B, T)           item ids, oldest first, -1 behind the last
    ``ids_fut``   int64 (B, 1)           the target, -1 in training samples
    ``x``         float32 (B, T, D)      vectors of ``ids``, ``padding_value`` where there is none
    ``x_fut``     float32 (B, 1, D)      vector of the target, likewise
    ``seq_mask``  bool (B, T)            where there is an item
    ============  =====================  ===========================================================

    Nothing stays open in this process, and each worker opens the files for itself, so fork, spawn
    and pickle are all safe. Memory per process: 24 bytes per sequence and per item, the last T
    items of 65,536 users, one batch.

    Args:
        item_data_path: item_data.h5, made by SIDMill or by others.
        sequence_data_path: sequence.h5, likewise.
        batch_size: B; the last batch may be smaller.
        max_seq_len: T; of longer histories the last T items are taken.
        train_test_split: ``train``, or ``all`` for whoever the split: training samples. ``test``
            (``eval`` and ``valid`` are the same): validation samples.
        shuffle: whether each epoch comes in another order, which ``seed`` fixes.
        test_ratio: share of the users that are held out for ``test``. None, and no ``split_by``:
            every sequence takes part in training and in validation, so training sees the targets
            of validation. None with ``split_by``: 0.2.
        split_by: who is held out. ``time``: the users whose last interaction is the latest;
            ``index``: the last of the file; ``auto``: by time where there are timestamps, else by
            index. None: ``auto`` where there is a ``test_ratio``, else nobody.
        padding_value: of ``x`` and ``x_fut`` where there is no item; ids are -1 there.
        num_workers: processes that read ahead; 0 reads in this one.
        seed: covers the order of users.

    Raises:
        SidmillError: if a file is not as its format says, or no user is left.
    """
    _check(batch_size, max_seq_len, train_test_split, test_ratio, split_by)
    if split_by is not None and test_ratio is None:
        test_ratio = TEST_RATIO
    users = H5Sequences(
        item_data_path,
        sequence_data_path,
        max_seq_len,
        PARTS[train_test_split],
        test_ratio,
        split_by or "auto",
        padding_value,
    )
    return DataLoader(
        users,
        batch_size=None,
        sampler=BatchOrder(users.rows, batch_size, shuffle, seed),
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )


class H5Sequences(Dataset[Batch]):
    """Users as samples: an int gives one sample, a list or an array of ints a batch."""

    def __init__(
        self,
        item_data_path: str | Path,
        sequence_data_path: str | Path,
        max_seq_len: int,
        part: str,
        test_ratio: float | None,
        split_by: str,
        padding_value: float,
    ) -> None:
        """Check both files, and choose users: see :func:`create_h5_dataloader`."""
        self.item_data_path = str(item_data_path)
        self.sequence_data_path = str(sequence_data_path)
        self.max_seq_len = max_seq_len
        self.with_target = part == "test"
        self.padding_value = padding_value
        self._here: _Opened | None = None
        self._blocks: OrderedDict[int, tuple[np.ndarray, np.ndarray]] = OrderedDict()
        opened = self._open()
        self.rows = _choose(opened.sequences, self.sequence_data_path, part, test_ratio, split_by)
        self._close()

    def __len__(self) -> int:
        """Count users."""
        return len(self.rows)

    def __getitem__(self, index: int | list[int] | np.ndarray) -> Batch:
        """Read one sample, or a batch."""
        if isinstance(index, int | np.integer):
            if not -len(self) <= index < len(self):
                raise IndexError(index)
            return Batch({name: value[0] for name, value in self[np.array([index])].items()})
        rows = self.rows[np.asarray(index)]
        return self._batch(rows, self._histories(rows))

    def __getstate__(self) -> dict[str, Any]:
        """Leave open files and what was read behind when pickled."""
        return {**self.__dict__, "_here": None, "_blocks": OrderedDict()}

    def names(self, user_ids: torch.Tensor | np.ndarray) -> list[str]:
        """Return the ids that users have in sequence.h5, for ``user_ids`` (B,) of a batch."""
        rows, inverse = np.unique(np.asarray(user_ids), return_inverse=True)
        names = self._open().sequences.user_ids.asstr()[rows]
        return list(names[inverse])

    def _open(self) -> _Opened:
        """The files as this process has them; a forked one opens its own."""
        if self._here is None or self._here.process != os.getpid():
            items = item_data.open_item_data(self.item_data_path)
            sequences = sequence_data.open_sequence_data(self.sequence_data_path)
            rows = np.argsort(items.item_ids, kind="stable")
            self._here = _Opened(os.getpid(), items, sequences, items.item_ids[rows], rows)
        return self._here

    def _close(self) -> None:
        if self._here is not None:
            self._here.items.file.close()
            self._here.sequences.file.close()
            self._here = None

    def _histories(self, rows: np.ndarray) -> list[np.ndarray]:
        """The end of each user's history, T items and a target at most."""
        # Blocks of which many rows are wanted are read as a whole and kept.
        keep = self.max_seq_len + self.with_target
        blocks, counts = np.unique(rows // BLOCK_ROWS, return_counts=True)
        found: dict[int, np.ndarray] = {}
        for block, count in zip(blocks.tolist(), counts.tolist(), strict=True):
            if block not in self._blocks and count >= min(WHOLE_BLOCK_ROWS, len(rows)):
                self._blocks[block] = self._read_block(block, keep)
            if block in self._blocks:
                self._blocks.move_to_end(block)

        # The other rows are read one by one.
        single = np.unique(rows[[row // BLOCK_ROWS not in self._blocks for row in rows.tolist()]])
        if single.size:
            offsets, items = sequence_data.flat(self._open().sequences, "sequences", single)
            ends = offsets[1:].tolist()
            begins = np.maximum(offsets[:-1], offsets[1:] - keep).tolist()
            for row, begin, end in zip(single.tolist(), begins, ends, strict=True):
                found[row] = items[begin:end]

        # The rest stands in the blocks; the oldest blocks go.
        for row in set(rows.tolist()) - found.keys():
            offsets, items = self._blocks[row // BLOCK_ROWS]
            begin, end = offsets[row % BLOCK_ROWS : row % BLOCK_ROWS + 2]
            found[row] = items[begin:end]
        while len(self._blocks) > BLOCKS_AT_ONCE:
            self._blocks.popitem(last=False)
        return [found[row] for row in rows.tolist()]

    def _read_block(self, block: int, keep: int) -> tuple[np.ndarray, np.ndarray]:
        """Read 256 neighbours: offsets and items, no more than ``keep`` of each."""
        part = slice(block * BLOCK_ROWS, (block + 1) * BLOCK_ROWS)
        offsets, items = sequence_data.flat(self._open().sequences, "sequences", part)
        sizes = np.diff(offsets)
        if sizes.max() > keep:
            from_end = np.arange(len(items)) - np.repeat(offsets[1:], sizes)  # -1 is the last
            items = items[from_end >= -keep]
            offsets = np.concatenate([[0], np.cumsum(np.minimum(sizes, keep))])
        return offsets, items

    def _batch(self, rows: np.ndarray, histories: list[np.ndarray]) -> Batch:
        opened = self._open()
        size, dim = len(rows), opened.items.embeddings.shape[1]
        ids = np.full((size, self.max_seq_len), NONE, dtype=np.int64)
        target = np.full((size, 1), NONE, dtype=np.int64)
        for row, history in enumerate(histories):
            past = history[:-1] if self.with_target else history
            ids[row, : len(past)] = past
            if self.with_target:
                target[row] = history[-1]
        return Batch(
            user_ids=torch.from_numpy(rows),
            ids=torch.from_numpy(ids),
            ids_fut=torch.from_numpy(target),
            x=torch.from_numpy(self._vectors(ids, dim)),
            x_fut=torch.from_numpy(self._vectors(target, dim)),
            seq_mask=torch.from_numpy(ids != NONE),
        )

    def _vectors(self, ids: np.ndarray, dim: int) -> np.ndarray:
        """Look up vectors float32 (..., D) of ids, padding where there is no item."""
        opened = self._open()
        is_item = ids != NONE
        item_ids = ids[is_item]
        first, last = opened.ranked[[0, -1]]
        dense = last - first + 1 == len(opened.ranked)  # ids without gaps need no search
        index = item_ids - first if dense else np.searchsorted(opened.ranked, item_ids)
        index = np.clip(index, 0, len(opened.ranked) - 1)
        missing = np.flatnonzero(opened.ranked[index] != item_ids)
        if missing.size:
            raise SidmillError(
                f"{self.sequence_data_path}: item id {item_ids[missing[0]]} is not among the "
                f"'item_ids' of {self.item_data_path}: the two files do not belong together"
            )
        vectors = np.full((*ids.shape, dim), self.padding_value, dtype=np.float32)
        vectors[is_item] = item_data.rows(opened.items, opened.rows[index])
        return vectors


class BatchOrder:
    """Which users come in which batch; every epoch in another order with ``shuffle``."""

    def __init__(self, rows: np.ndarray, batch_size: int, shuffle: bool, seed: int) -> None:
        """Take users in batches; ``rows`` int64 (users,), rising, is where they stand."""
        self.n_users = len(rows)
        self.begins = np.unique(rows // BLOCK_ROWS, return_index=True)[1]
        self.ends = np.append(self.begins[1:], len(rows))
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        """Count batches."""
        return math.ceil(self.n_users / self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch, as when a run goes on; each pass adds one."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield int64 (B,), users by their place in the part."""
        rng = np.random.default_rng((self.seed, self.epoch))
        self.epoch += 1
        waiting = np.empty(0, dtype=np.int64)
        for users in self._stretches(rng):
            waiting = np.concatenate([waiting, users])
            full = len(waiting) // self.batch_size * self.batch_size
            yield from waiting[:full].reshape(-1, self.batch_size)
            waiting = waiting[full:]
        if len(waiting):
            yield waiting

    def _stretches(self, rng: np.random.Generator) -> Iterator[np.ndarray]:
        count = len(self.begins)
        blocks = rng.permutation(count) if self.shuffle else np.arange(count)
        for start in range(0, count, BLOCKS_AT_ONCE):
            chosen = blocks[start : start + BLOCKS_AT_ONCE].tolist()
            users = np.concatenate([np.arange(self.begins[b], self.ends[b]) for b in chosen])
            yield rng.permutation(users) if self.shuffle else users


def _choose(
    sequences: SequenceData, path: str, part: str, test_ratio: float | None, split_by: str
) -> np.ndarray:
    """Rows of the users of a part, int64, rising; of all users where no share is held out."""
    # Held-out users are the last ones by time, or in the file.
    lengths = sequences.sequence_lengths
    rows = np.flatnonzero(lengths > 0)
    if part != "all" and test_ratio is not None:
        if split_by == "time" and sequences.timestamps is None:
            raise SidmillError(
                f"{path}: split_by 'time' needs the dataset 'timestamps', which is not there: take "
                f"split_by 'index', or interactions with timestamps"
            )
        n_test = round(len(rows) * test_ratio)
        order = rows
        if split_by != "index" and sequences.timestamps is not None:
            order = rows[np.argsort(_last_times(sequences)[rows], kind="stable")]
        chosen = order[len(order) - n_test :] if part == "test" else order[: len(order) - n_test]
        rows = np.sort(chosen)

    # A validation sample needs a history and a target.
    if part == "test":
        short = int((lengths[rows] < 2).sum())
        if short:
            logger.info("%s: %d users with a single item are not tested", path, short)
        rows = rows[lengths[rows] >= 2]

    if not len(rows):
        raise SidmillError(
            f"{path}: no user of {len(lengths)} is left for {part!r} with test_ratio {test_ratio}"
        )
    return rows.astype(np.int64)


def _last_times(sequences: SequenceData) -> np.ndarray:
    """Time of each user's last interaction, int64 (s,); the lowest where there is none."""
    last = np.full(len(sequences.sequence_lengths), np.iinfo(np.int64).min)
    for start in range(0, len(last), sequence_data.BLOCK_ROWS):
        part = slice(start, min(start + sequence_data.BLOCK_ROWS, len(last)))
        offsets, times = sequence_data.flat(sequences, "timestamps", part)
        filled = np.flatnonzero(np.diff(offsets))
        last[start + filled] = times[offsets[1:][filled] - 1]
    return last


def _check(
    batch_size: int, max_seq_len: int, split: str, test_ratio: float | None, split_by: str | None
) -> None:
    if batch_size < 1 or max_seq_len < 1:
        raise SidmillError(f"batch_size {batch_size}, max_seq_len {max_seq_len}: both at least 1")
    if split not in PARTS:
        raise SidmillError(f"train_test_split {split!r}: choose one of {', '.join(PARTS)}")
    if split_by is not None and split_by not in SPLITS_BY:
        raise SidmillError(f"split_by {split_by!r}: choose one of {', '.join(SPLITS_BY)}, or None")
    if test_ratio is not None and not 0 <= test_ratio < 1:
        raise SidmillError(f"test_ratio {test_ratio}: a share from 0 to below 1")
