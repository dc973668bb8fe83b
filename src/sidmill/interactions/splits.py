"""Which interactions are for training, validation and test.

Letters: n interactions of some users, one user after the other, oldest first.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from sidmill.formats.sequence_table import TEST, TRAIN, VALID

BINS = 1 << 16
MIN_FOR_TWO = 3  # a user with fewer interactions trains with all of them
MIN_FOR_ONE = 2


class Cuts(NamedTuple):
    """Timestamps from which interactions are for validation, and for test."""

    valid: int
    test: int


def leave_out(offsets: np.ndarray, two: bool) -> np.ndarray:
    """Give the last interaction of each user to test, and with ``two`` the one before to valid.

    A user with fewer than two (three) interactions trains with all of them.

    Args:
        offsets: int64 (users + 1,), where each user's interactions begin.
        two: whether to leave two out.

    Returns:
        int8 (n,).
    """
    splits = np.full(offsets[-1], TRAIN, dtype=np.int8)
    enough = np.diff(offsets) >= (MIN_FOR_TWO if two else MIN_FOR_ONE)
    last = offsets[1:][enough] - 1
    splits[last] = TEST
    if two:
        splits[last - 1] = VALID
    return splits


def by_time(times: np.ndarray, cuts: Cuts) -> np.ndarray:
    """Give interactions from ``cuts.test`` on to test, those from ``cuts.valid`` on to valid.

    Args:
        times: int64 (n,).
        cuts: the two timestamps.

    Returns:
        int8 (n,).
    """
    return np.select([times >= cuts.test, times >= cuts.valid], [TEST, VALID], TRAIN).astype(
        np.int8
    )


def find_cuts(
    blocks: Callable[[], Iterable[np.ndarray]], valid_share: float, test_share: float
) -> Cuts:
    """Find the timestamps that leave given shares of all interactions after them.

    Equal timestamps stay together, so a share may come out a little larger.

    Args:
        blocks: gives all timestamps at every call, int64 (n,) by blocks.
        valid_share: share of the interactions for validation.
        test_share: share of the interactions for test.
    """
    total = sum(len(block) for block in blocks())
    if not total:
        return Cuts(0, 0)
    test = _nth(blocks, min(int(total * (1 - test_share)), total - 1))
    valid = _nth(blocks, min(int(total * (1 - test_share - valid_share)), total - 1))
    return Cuts(valid, test)


def _nth(blocks: Callable[[], Iterable[np.ndarray]], rank: int) -> int:
    """The value at ``rank`` of all values sorted, found by narrowing a histogram; memory: BINS."""
    low = min(int(block.min()) for block in blocks() if len(block))
    high = max(int(block.max()) for block in blocks() if len(block))
    while low < high:
        width = -(-(high - low + 1) // BINS)
        counts = np.zeros(BINS, dtype=np.int64)
        below = 0
        for block in blocks():
            below += int((block < low).sum())
            inside = block[(block >= low) & (block <= high)]
            above = inside.astype(np.uint64) - np.uint64(low % 2**64)  # a span may pass 63 bits
            counts += np.bincount((above // np.uint64(width)).astype(np.int64), minlength=BINS)
        reached = below + np.cumsum(counts)
        chosen = int(np.searchsorted(reached, rank, side="right"))
        low, high = low + chosen * width, min(high, low + (chosen + 1) * width - 1)
    return low
