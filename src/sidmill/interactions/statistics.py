"""What the report says of the histories, added up block by block.

Letters: N items of the catalogue; u users and n interactions of a block.
"""

from collections import Counter
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from sidmill.formats.sequence_table import (
    SPLITS,
    TEST,
    TRAIN,
    VALID,
)
from sidmill.interactions.histories import Histories
from sidmill.interactions.rows import NOT_SAID

QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
BUCKETS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)  # of the histogram: from each to the next


LEAKS = (
    "users_with_held_out_before_train",
    "held_out_before_train",
    "test_before_valid",
    "valid_also_in_train_of_user",
    "test_also_in_train_of_user",
    "same_user_item_time",
)


class Tally(NamedTuple):
    """Sums over the blocks seen so far, changed in place. Memory: 17 bytes per item.

    Attributes:
        lengths: int64 (max_history + 1,), users by number of interactions.
        interactions: int64 (3,), per split.
        users: int64 (3,), with interactions in that split.
        spans: int64 (3, 2), first and last timestamp of each split.
        trained: bool (N,), whether the item is in train.
        held_out: int64 (2, N), how often the item is in valid and test.
        others: the rest: ``timed`` users, and ``LEAKS``.
    """

    lengths: np.ndarray
    interactions: np.ndarray
    users: np.ndarray
    spans: np.ndarray
    trained: np.ndarray
    held_out: np.ndarray
    others: Counter[str]


def begin(n_items: int, max_history: int) -> Tally:
    """Begin the statistics of histories, with nothing counted."""
    limits = np.iinfo(np.int64)
    return Tally(
        np.zeros(max_history + 1, dtype=np.int64),
        np.zeros(3, dtype=np.int64),
        np.zeros(3, dtype=np.int64),
        np.array([[limits.max, limits.min]] * 3),
        np.zeros(n_items, dtype=bool),
        np.zeros((2, n_items), dtype=np.int64),
        Counter(),
    )


TIES = ("users", "interactions", "held_out_by_order")


def add(tally: Tally, histories: Histories, splits: np.ndarray, ties_choose: bool) -> None:
    """Count a block of histories.

    Args:
        tally: changed in place.
        histories: the block.
        splits: int8 (n,), their final splits.
        ties_choose: whether the order among equal timestamps chose what is held out.
    """
    # Lengths of the histories; owners (n,), the user of each interaction.
    lengths = np.diff(histories.offsets)
    owners = np.repeat(np.arange(len(lengths)), lengths)
    tally.lengths[:] += np.bincount(lengths, minlength=len(tally.lengths))
    tally.others["timed"] += int(histories.timed.sum())
    timed = np.repeat(histories.timed, lengths)

    # Interactions, users and times by split.
    for split in (TRAIN, VALID, TEST):
        inside = splits == split
        tally.interactions[split] += inside.sum()
        tally.users[split] += np.count_nonzero(np.bincount(owners[inside]))
        times = histories.times[inside & timed]
        tally.spans[split, 0] = times.min(initial=tally.spans[split, 0])
        tally.spans[split, 1] = times.max(initial=tally.spans[split, 1])

    # Items that training sees, and how often the others are held out.
    tally.trained[histories.items[splits == TRAIN]] = True
    for split in (VALID, TEST):
        np.add.at(tally.held_out[split - 1], histories.items[splits == split], 1)

    _add_leaks(tally.others, histories, splits, owners)
    _add_ties(tally.others, histories, splits, owners, ties_choose)
    unsaid = (histories.splits == NOT_SAID) & (histories.shown > TRAIN)
    tally.others["history_only interactions"] += int(unsaid.sum())
    tally.others["history_only users"] += len(np.unique(owners[unsaid]))


def _add_ties(
    ties: Counter[str], histories: Histories, splits: np.ndarray, owners: np.ndarray, choose: bool
) -> None:
    """Count interactions of a user that share their timestamp."""
    if not len(owners) or not histories.timed.any():
        return
    timed = np.repeat(histories.timed, np.diff(histories.offsets))
    same = (owners[1:] == owners[:-1]) & (histories.times[1:] == histories.times[:-1]) & timed[1:]
    begins = np.flatnonzero(np.concatenate([[True], ~same]))  # of each stretch of equal times
    sizes = np.diff(np.append(begins, len(owners)))
    tied = np.repeat(sizes > 1, sizes)
    ties["ties users"] += len(np.unique(owners[tied]))
    ties["ties interactions"] += int(tied.sum())
    if choose:
        lowest, highest = (reduce.reduceat(splits, begins) for reduce in (np.minimum, np.maximum))
        across = np.repeat(lowest != highest, sizes)
        ties["ties held_out_by_order"] += int((across & (splits != TRAIN)).sum())


def _add_leaks(
    leaks: Counter[str], histories: Histories, splits: np.ndarray, owners: np.ndarray
) -> None:
    # Held-out interactions before the user's last training one.
    train = splits == TRAIN
    index = np.arange(len(splits))
    last_train = np.full(len(histories.offsets) - 1, -1)
    last_train[owners[train]] = index[train]  # the last assignment stands
    early = ~train & (index < last_train[owners])
    leaks["held_out_before_train"] += int(early.sum())
    leaks["users_with_held_out_before_train"] += int((np.bincount(owners[early]) > 0).sum())

    # Test interactions before the user's last validation one.
    valid = splits == VALID
    last_valid = np.full(len(histories.offsets) - 1, -1)
    last_valid[owners[valid]] = index[valid]
    leaks["test_before_valid"] += int(((splits == TEST) & (index < last_valid[owners])).sum())

    # Held-out items that the user has in training, too: pairs (n,) of user and item.
    pairs = owners.astype(np.int64) << 32 | histories.items
    # Sorting, since np.isin and np.unique hash, which takes minutes for numbers like these.
    order = np.lexsort((histories.times, pairs)) if histories.timed.any() else np.argsort(pairs)
    ranked = pairs[order]
    trained = ranked[train[order]]
    for split in (VALID, TEST):
        held_out = ranked[splits[order] == split]
        index = np.minimum(np.searchsorted(trained, held_out), max(len(trained) - 1, 0))
        also = int((trained[index] == held_out).sum()) if len(trained) else 0
        leaks[f"{SPLITS[split]}_also_in_train_of_user"] += also

    # The same user, item and time twice.
    timed = np.repeat(histories.timed, np.diff(histories.offsets))[order]
    same = (ranked[1:] == ranked[:-1]) & (np.diff(histories.times[order]) == 0)
    leaks["same_user_item_time"] += int((same & timed[1:]).sum())


def summary(tally: Tally) -> dict[str, Any]:
    """The statistics of histories as JSON: see docs/interactions.md."""
    # bool (N,), items that stand in any history.
    seen = tally.trained | tally.held_out.any(axis=0)

    return {
        "users": int(tally.lengths.sum()),
        "interactions": int(tally.interactions.sum()),
        "splits": {
            name: {
                "interactions": int(tally.interactions[split]),
                "users": int(tally.users[split]),
                "first_and_last_timestamp": _span(tally.spans[split]),
            }
            for split, name in enumerate(SPLITS)
        },
        "users_with_timestamps": tally.others["timed"],
        "lengths": _lengths(tally.lengths),
        "items": {
            "in_catalogue": len(seen),
            "never_seen": int((~seen).sum()),
            "never_in_train": int((~tally.trained).sum()),
        },
        "cold": {SPLITS[split]: _cold(tally, split) for split in (VALID, TEST)},
        "ties": {name: tally.others[f"ties {name}"] for name in TIES},
        "history_only": {
            name: tally.others[f"history_only {name}"] for name in ("interactions", "users")
        },
        "leakage": {name: tally.others[name] for name in LEAKS},
    }


def _cold(tally: Tally, split: int) -> dict[str, Any]:
    """What a model that learns from train alone cannot know of a split's items."""
    counts = tally.held_out[split - 1]
    items, all_of = int((counts > 0).sum()), int(counts.sum())
    cold_items = int(((counts > 0) & ~tally.trained).sum())
    cold = int(counts[~tally.trained].sum())
    return {
        "items": items,
        "items_unseen_in_train": cold_items,
        "items_unseen_share": round(cold_items / items, 6) if items else 0.0,
        "interactions_unseen_share": round(cold / all_of, 6) if all_of else 0.0,
    }


def _span(span: np.ndarray) -> list[int] | None:
    return span.tolist() if span[0] <= span[1] else None


def _lengths(counts: np.ndarray) -> dict[str, Any]:
    users = int(counts.sum())
    reached = np.cumsum(counts)
    ranks = [min(int(share * users), users - 1) for share in QUANTILES]
    quantiles = np.searchsorted(reached, ranks, side="right").tolist() if users else []
    bounds = [*(bound for bound in BUCKETS if bound < len(counts)), len(counts)]
    histogram = {
        f"{begin}-{end - 1}" if end - 1 > begin else str(begin): int(counts[begin:end].sum())
        for begin, end in pairwise(bounds)
    }
    mean = float((counts * np.arange(len(counts))).sum() / users) if users else 0.0
    return {
        "mean": round(mean, 4),
        "quantiles": {
            f"{share:g}": value for share, value in zip(QUANTILES, quantiles, strict=False)
        },
        "histogram": histogram,
    }
