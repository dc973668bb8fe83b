"""Histories from sequences.parquet: windows to train on, in random order, and queries to answer.

The file streams: what is in memory is a buffer of users, whatever their number in all.

Shapes: U users of one group, B windows of one batch, T positions of the longest of them, Q queries.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sidmill.formats import sequence_table
from sidmill.recommend.item_features import Items, look_up

GROUP_USERS = 8192  # a row group of sequences.parquet
NOTHING = -1  # a target where there is none


class Group(NamedTuple):
    """Some users in a row.

    Attributes:
        first: row of the first user in sequences.parquet.
        bounds: int64 (U + 1,), where each user's items begin.
        numbers: int32 (bounds[-1],), item numbers, oldest first.
        splits: int8 (bounds[-1],).
    """

    first: int
    bounds: np.ndarray
    numbers: np.ndarray
    splits: np.ndarray


class Batch(NamedTuple):
    """Windows of histories, filled up with item 0 where ``targets`` is NOTHING.

    Attributes:
        inputs: int32 (B, T), what was had.
        targets: int32 (B, T), what came next.
    """

    inputs: np.ndarray
    targets: np.ndarray


class Queries(NamedTuple):
    """Items to predict from all that went before them: ``numbers[begins[i] : positions[i]]``.

    Attributes:
        users: int64 (Q,), rows in sequences.parquet.
        begins: int64 (Q,).
        positions: int64 (Q,), of the targets in ``numbers``.
        numbers: int32, the items of the group.
        n_without_history: targets that nothing went before; they are no queries.
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
    *,
    batch_users: int,
    max_length: int,
    shuffle_users: int,
    seed: int,
    epoch: int,
) -> Iterator[Batch]:
    """Yield every training target once, in an order drawn anew in each epoch.

    Groups of users come in random order; ``shuffle_users`` users at a time are mixed. A history
    longer than ``max_length`` gives several windows, cut from its end: none of it is left out.
    The same seed and epoch give the same batches.

    Memory: the items of ``shuffle_users`` users, and of one group.
    """
    rng = np.random.default_rng([seed, epoch])
    firsts = np.arange(0, sequence_table.count(path), GROUP_USERS)
    n_groups = max(shuffle_users // GROUP_USERS, 1)
    shuffled = rng.permutation(firsts)
    for start in range(0, len(shuffled), n_groups):
        groups = [
            training_part(read_group(path, items, int(first)))
            for first in shuffled[start : start + n_groups]
        ]
        numbers = np.concatenate([group.numbers for group in groups])
        begins, ends = _windows(groups, max_length)
        order = rng.permutation(len(begins))
        for taken in np.split(order, range(batch_users, len(order), batch_users)):
            if len(taken):
                inputs, _ = pad(numbers, begins[taken], ends[taken])
                targets, lengths = pad(numbers, begins[taken] + 1, ends[taken] + 1)
                behind = np.arange(targets.shape[1]) >= lengths[:, None]
                yield Batch(inputs, np.where(behind, NOTHING, targets))


def training_part(group: Group) -> Group:
    """Leave only what is to be trained on."""
    kept = group.splits == sequence_table.TRAIN
    bounds = np.concatenate([[0], np.cumsum(kept)])[group.bounds]
    return Group(group.first, bounds, group.numbers[kept], group.splits[kept])


def met_in_training(path: str | Path, items: Items) -> tuple[np.ndarray, np.ndarray]:
    """Say of each item whether somebody had it in training, and after another: bool (N,) each."""
    had, followed = np.zeros(len(items.ids), bool), np.zeros(len(items.ids), bool)
    for group in read_groups(path, items):
        part = training_part(group)
        follows = np.ones(len(part.numbers), bool)
        follows[part.bounds[:-1][np.diff(part.bounds) > 0]] = False
        had[part.numbers] = True
        followed[part.numbers[follows]] = True
    return had, followed


def _windows(groups: list[Group], max_length: int) -> tuple[np.ndarray, np.ndarray]:
    """Begins and ends of the inputs of all windows, within the joined groups: int64 each."""
    begins, ends, offset = [], [], 0
    for group in groups:
        first, last = group.bounds[:-1] + offset, group.bounds[1:] + offset - 1
        offset += len(group.numbers)
        while (last > first).any():  # the last item of a window is a target only
            first, last = first[last > first], last[last > first]
            begins.append(np.maximum(first, last - max_length))
            ends.append(last)
            last = begins[-1]
    nothing = [np.zeros(0, np.int64)]
    return np.concatenate(begins or nothing), np.concatenate(ends or nothing)


def pad(numbers: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut windows out of ``numbers``: int32 (B, T), filled up with 0, and lengths int64 (B,)."""
    lengths = ends - begins
    places = begins[:, None] + np.arange(lengths.max(initial=1))
    inside = places < ends[:, None]
    return np.where(inside, numbers[np.where(inside, places, 0)], 0), lengths


def queries(group: Group, split: int) -> Queries:
    """Find the items of a split, each to be predicted from the items before it."""
    positions = np.flatnonzero(group.splits == split)
    users = np.searchsorted(group.bounds, positions, side="right") - 1
    begins = group.bounds[users]
    kept = positions > begins
    return Queries(
        group.first + users[kept],
        begins[kept],
        positions[kept],
        group.numbers,
        int((~kept).sum()),
    )


def latest(group: Group) -> Queries:
    """Ask for what each user wants after all of their items."""
    users = np.arange(len(group.bounds) - 1)
    return Queries(group.first + users, group.bounds[:-1], group.bounds[1:], group.numbers, 0)
