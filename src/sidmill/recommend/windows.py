"""Histories from sequences.parquet: windows to train on, in random order, and queries to answer.

The file is streamed: memory holds a buffer of users, however many there are.

Shapes: U users of one group, B windows of one batch, T positions of the longest of them, Q queries.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from sidmill.formats import sequence_table
from sidmill.recommend.item_features import Items, look_up

GROUP_USERS = 8192  # a row group of sequences.parquet
NO_TARGET = -1  # the target of padding


class WindowSettings(Protocol):
    """Settings that windows are cut by, of whichever section."""

    @property
    def max_length(self) -> int:
        """Latest items of a history that a model reads."""

    @property
    def batch_users(self) -> int:
        """Histories in a batch."""

    @property
    def shuffle_users(self) -> int:
        """Users mixed at a time."""


class Group(NamedTuple):
    """Consecutive users.

    Attributes:
        first: row of the first user in sequences.parquet.
        bounds: int64 (U + 1,), offset of each user's first item.
        numbers: int32 (bounds[-1],), item numbers, oldest first.
        splits: int8 (bounds[-1],).
    """

    first: int
    bounds: np.ndarray
    numbers: np.ndarray
    splits: np.ndarray


class Batch(NamedTuple):
    """Windows of histories, padded with item 0 where ``targets`` is NO_TARGET.

    Attributes:
        inputs: int32 (B, T), items of the history.
        targets: int32 (B, T), the next item of each.
        fold: of all users of the batch (:func:`sidmill.formats.sequence_table.folds`).
    """

    inputs: np.ndarray
    targets: np.ndarray
    fold: int = 0


class Queries(NamedTuple):
    """Items to predict from all items before them: ``numbers[begins[i] : positions[i]]``.

    Attributes:
        users: int64 (Q,), rows in sequences.parquet.
        begins: int64 (Q,), offset of the history in ``numbers``.
        positions: int64 (Q,), offset of the target in ``numbers``.
        numbers: int32, the items of the group.
        n_without_history: number of targets with no item before them; they are no queries.
    """

    users: np.ndarray
    begins: np.ndarray
    positions: np.ndarray
    numbers: np.ndarray
    n_without_history: int


def read_group(path: str | Path, items: Items, first: int) -> Group:
    """Read the users from row ``first`` on, GROUP_USERS at most.

    Raises:
        SidmillError: if one of their items has no embedding.
    """
    bounds, numbers, splits = [np.zeros(1, np.int64)], [], []
    for table in sequence_table.read(path, first, first + GROUP_USERS):
        lists = table["item_ids"].combine_chunks()
        bounds.append(bounds[-1][-1] + np.cumsum(np.diff(lists.offsets.to_numpy())))
        numbers.append(look_up(items, lists.flatten(), str(path)))
        splits.append(table["splits"].combine_chunks().flatten().to_numpy())
    return Group(first, np.concatenate(bounds), np.concatenate(numbers), np.concatenate(splits))


def read_groups(path: str | Path, items: Items) -> Iterator[Group]:
    """Read all users in order."""
    for first in range(0, sequence_table.count(path), GROUP_USERS):
        yield read_group(path, items, first)


def training_batches(
    path: str | Path,
    items: Items,
    settings: WindowSettings,
    seed: int,
    epoch: int,
    n_sorted: int = 1,
    n_folds: int = 1,
) -> Iterator[Batch]:
    """Yield every training target once, in another random order in each epoch.

    Groups of users come in random order; ``shuffle_users`` users at a time are mixed. A history
    longer than ``max_length`` is cut into several windows, from its end: no target is dropped.
    The same seed and epoch give the same batches.

    With ``n_sorted`` above 1, the windows of so many batches are sorted by length before they are
    cut into batches, whose order is drawn again: a batch has less padding. With ``n_folds`` above
    1, a batch has users of one fold.

    Memory: the items of ``shuffle_users`` users, and of one group.
    """
    # Whole groups are shuffled first, since the file is read a group at a time.
    rng = np.random.default_rng([seed, epoch])
    firsts = np.arange(0, sequence_table.count(path), GROUP_USERS)
    n_groups = max(settings.shuffle_users // GROUP_USERS, 1)
    shuffled = rng.permutation(firsts)

    for start in range(0, len(shuffled), n_groups):
        groups = [
            training_split(read_group(path, items, int(first)))
            for first in shuffled[start : start + n_groups]
        ]
        numbers = np.concatenate([group.numbers for group in groups])
        begins, ends = _windows(groups, settings.max_length)

        # Then the windows of these groups: a batch mixes all of its fold.
        order = rng.permutation(len(begins))
        fold_of = _folds(groups, begins, n_folds)
        batches = [
            (fold, rows)
            for fold in range(n_folds)
            for rows in _cut(
                order[fold_of[order] == fold], ends - begins, settings.batch_users, n_sorted, rng
            )
        ]
        if n_folds > 1:
            batches = [batches[number] for number in rng.permutation(len(batches))]
        for fold, rows in batches:
            inputs, _ = pad(numbers, begins[rows], ends[rows])
            targets, lengths = pad(numbers, begins[rows] + 1, ends[rows] + 1)
            is_padding = np.arange(targets.shape[1]) >= lengths[:, None]
            yield Batch(inputs, np.where(is_padding, NO_TARGET, targets), fold)


def _folds(groups: list[Group], begins: np.ndarray, n_folds: int) -> np.ndarray:
    """Fold of the user of each window in the joined groups: int64 (n,)."""
    bounds = np.cumsum(np.concatenate([np.diff(group.bounds) for group in groups]))
    rows = np.concatenate([group.first + np.arange(len(group.bounds) - 1) for group in groups])
    return sequence_table.folds(rows[np.searchsorted(bounds, begins, side="right")], n_folds)


def _cut(
    order: np.ndarray, lengths: np.ndarray, n_rows: int, n_sorted: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Cut windows in drawn order into batches; see ``n_sorted`` of :func:`training_batches`."""
    if n_sorted == 1:
        batches = np.split(order, range(n_rows, len(order), n_rows))
        return [rows for rows in batches if len(rows)]
    sorted_batches = []
    for start in range(0, len(order), n_rows * n_sorted):
        block = order[start : start + n_rows * n_sorted]
        block = block[np.argsort(lengths[block], kind="stable")]
        sorted_batches += np.split(block, range(n_rows, len(block), n_rows))
    return [sorted_batches[number] for number in rng.permutation(len(sorted_batches))]


def training_split(group: Group) -> Group:
    """The same users with the items of the split train alone."""
    kept = group.splits == sequence_table.TRAIN
    bounds = np.concatenate([[0], np.cumsum(kept)])[group.bounds]
    return Group(group.first, bounds, group.numbers[kept], group.splits[kept])


def training_masks(path: str | Path, items: Items) -> tuple[np.ndarray, np.ndarray]:
    """Which items a training history has, and which of them are a target: bool (N,) each."""
    in_histories, is_target = np.zeros(len(items.ids), bool), np.zeros(len(items.ids), bool)
    for group in read_groups(path, items):
        train = training_split(group)
        in_histories[train.numbers] = True

        # The first item of a user follows no other, so it is no target.
        follows = np.ones(len(train.numbers), bool)
        follows[train.bounds[:-1][np.diff(train.bounds) > 0]] = False
        is_target[train.numbers[follows]] = True
    return in_histories, is_target


def _windows(groups: list[Group], max_length: int) -> tuple[np.ndarray, np.ndarray]:
    """Offsets of the inputs of all windows in the joined groups: begins, ends, int64 each."""
    begins, ends, offset = [], [], 0
    for group in groups:
        first, last = group.bounds[:-1] + offset, group.bounds[1:] + offset - 1
        offset += len(group.numbers)

        # One window per history and round, from its end; its last item is a target only.
        while (last > first).any():
            first, last = first[last > first], last[last > first]
            begins.append(np.maximum(first, last - max_length))
            ends.append(last)
            last = begins[-1]
    empty = [np.zeros(0, np.int64)]
    return np.concatenate(begins or empty), np.concatenate(ends or empty)


def pad(numbers: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut windows out of ``numbers``: int32 (B, T), padded with 0, and lengths int64 (B,)."""
    lengths = ends - begins
    offsets = begins[:, None] + np.arange(lengths.max(initial=1))
    is_inside = offsets < ends[:, None]
    return np.where(is_inside, numbers[np.where(is_inside, offsets, 0)], 0), lengths


def queries(group: Group, split: int) -> Queries:
    """Find the items of a split, each to be predicted from the items before it."""
    positions = np.flatnonzero(group.splits == split)
    users = np.searchsorted(group.bounds, positions, side="right") - 1
    begins = group.bounds[users]
    has_history = positions > begins
    return Queries(
        group.first + users[has_history],
        begins[has_history],
        positions[has_history],
        group.numbers,
        int((~has_history).sum()),
    )


def validation_queries(
    path: str | Path, items: Items, n_users: int, seed: int
) -> Iterator[Queries]:
    """Yield queries of the validation items of about ``n_users`` users: the same for one seed."""
    share = min(1.0, n_users / sequence_table.count(path))
    for group in read_groups(path, items):
        rng = np.random.default_rng([seed, group.first])
        is_drawn = rng.random(len(group.bounds) - 1) < share
        valid = queries(group, sequence_table.VALID)
        yield select(valid, is_drawn[valid.users - group.first])


def latest(group: Group) -> Queries:
    """Ask for the next item of each user after all of their items."""
    users = np.arange(len(group.bounds) - 1)
    return Queries(group.first + users, group.bounds[:-1], group.bounds[1:], group.numbers, 0)


def seen(queries: Queries) -> tuple[np.ndarray, np.ndarray]:
    """Row of the query and number of the item of each event of all histories: int64 (E,) each."""
    lengths = queries.positions - queries.begins
    rows = np.repeat(np.arange(len(lengths)), lengths)
    offsets = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return rows, queries.numbers[queries.begins[rows] + offsets].astype(np.int64)


def select(queries: Queries, rows: np.ndarray | slice) -> Queries:
    """Some of the queries: a slice, a mask bool (Q,), or rows."""
    return queries._replace(
        users=queries.users[rows], begins=queries.begins[rows], positions=queries.positions[rows]
    )


def split(queries: Queries, n_rows: int) -> Iterator[Queries]:
    """Cut queries into blocks of ``n_rows``."""
    for start in range(0, len(queries.users), n_rows):
        yield select(queries, slice(start, start + n_rows))
