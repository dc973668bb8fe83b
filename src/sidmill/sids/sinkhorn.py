"""Spread the items that share a code over free codes, by optimal transport in rounds.

The idea of LC-Rec (https://arxiv.org/abs/2311.09049): in every round, for each code that several
items share, Sinkhorn-Knopp chooses their last tokens again. It spreads the items over the last
codebook in place of sending each to the nearest codeword; after some rounds few collisions remain.
Three things differ here. Items can move to free codes alone, and no two items to one code, while
one item always keeps the shared code: a round never makes a collision, and the moves stay the
fewest. And a code has capacity for one item, in place of an even share of all items, which would
send few items to many distant codes.

Shapes: N items, L levels, K_l codes at level l, D dimensions, m items of one code, n codes.
"""

import logging
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from sidmill.settings.sids import Collisions
from sidmill.sids import prefixes
from sidmill.sids.crowds import EXACT_ITEMS, crowded_prefixes
from sidmill.sids.prefixes import with_held
from sidmill.sids.space import Space

logger = logging.getLogger(__name__)

NO_ROOM = np.finfo(np.float64).tiny  # its logarithm is finite


class Spread(NamedTuple):
    """Codes int32 (N, L), and how many items have no code of their own after each round.

    The first entry of ``colliding_by_round`` counts them before any round.
    """

    codes: np.ndarray
    colliding_by_round: list[int]


def spread(
    codes: np.ndarray,
    sizes: list[int],
    space: Space,
    settings: Collisions,
    held: np.ndarray | None = None,
) -> Spread:
    """Move all but one of the items of each shared code to free codes of the same prefix.

    Ends after ``sinkhorn_rounds``, or earlier when no code is shared or no item moves any more.
    Items of a full prefix, and many items of one vector, are left to the caller. The same input
    gives the same codes. Memory: about 60 bytes per item, and a few times float64
    (EXACT_ITEMS, K_L).

    Args:
        codes: int32 (N, L).
        sizes: K_l per level.
        space: vectors and codebooks.
        settings: ``sinkhorn_epsilon`` (a share of half the range of the distances),
            ``sinkhorn_iterations`` and ``sinkhorn_rounds``.
        held: int32 (H, L), distinct codes that no item may have: an item that has one moves.
    """
    placed = with_held(codes, held)
    colliding = [_count_colliding(placed, sizes)]
    while colliding[-1] and len(colliding) <= settings.sinkhorn_rounds:
        for rows in crowded_prefixes(prefixes.number(placed, sizes)):
            _spread_prefix(rows, len(codes), placed, space, settings)
        colliding.append(_count_colliding(placed, sizes))
        if colliding[-1] == colliding[-2]:
            break
    logger.info("items without a code of their own, by round: %s", colliding)
    return Spread(placed[: len(codes)], colliding)


def transport(
    cost: np.ndarray, capacity: np.ndarray, epsilon: float, iterations: int
) -> np.ndarray:
    """Entropic optimal transport of m items of weight 1 to n codes of limited capacity.

    Sinkhorn-Knopp (https://arxiv.org/abs/1306.0895) with an upper bound in place of an even share
    for the codes, which are mostly many more than the items (scaling for inequalities:
    https://arxiv.org/abs/1607.05816). In log space, so that no weight under- or overflows however
    small ``epsilon`` is.

    Args:
        cost: float64 (m, n).
        capacity: float64 (n,), how many items a code takes; at least m in all.
        epsilon: in units of the cost, above 0.
        iterations: how many times codes and items are scaled, items last.

    Returns:
        float64 (m, n), the logarithm of the plan; its rows sum to 1.
    """
    kernel = cost / -epsilon
    items = -_log_sum(kernel, axis=1)  # (m, 1)
    for _ in range(iterations):
        codes = np.minimum(np.log(capacity) - _log_sum(kernel + items, axis=0), 0.0)  # (1, n)
        items = -_log_sum(kernel + codes, axis=1)
    plan: np.ndarray = kernel + items + codes
    return plan


def _spread_prefix(
    rows: np.ndarray, n_items: int, placed: np.ndarray, space: Space, settings: Collisions
) -> None:
    """One round under one prefix of length L - 1: ``placed`` is changed in place.

    ``rows`` from ``n_items`` on are held codes; every item that has one of them moves.
    """
    # How many items and held codes have each last code: (K,).
    counts = np.bincount(placed[rows, -1], minlength=len(space.codebooks[-1]))
    free = np.flatnonzero(counts == 0)
    if not len(free):
        return
    held = np.zeros(len(counts), dtype=bool)
    held[placed[rows[rows >= n_items], -1]] = True

    # The items of each shared code, with their distances to all last codes.
    items = rows[rows < n_items]
    own = placed[items, -1]
    crowded = np.flatnonzero(counts > 1)
    sharing = [items[own == code][:EXACT_ITEMS] for code in crowded]
    for code, sharers, all_distances in zip(
        crowded, sharing, _distances(sharing, placed[items[0], :-1], space), strict=True
    ):
        # Plan (m, 1 + free): column 0 is the shared code, where items stay that find no free code.
        distances = all_distances[:, np.r_[code, free]]
        capacity = np.ones(1 + len(free))
        capacity[0] = max(len(sharers) - len(free), NO_ROOM if held[code] else 1)
        plan = transport(
            _even_range(distances),
            capacity,
            settings.sinkhorn_epsilon,
            settings.sinkhorn_iterations,
        )
        movers = np.arange(len(sharers))
        if not held[code]:
            movers = np.delete(movers, plan[:, 0].argmax())

        # Each mover takes its best free code; of several movers the one with the largest weight.
        target = plan[movers, 1:].argmax(axis=1)
        order = np.lexsort((movers, -plan[movers, 1 + target]))
        taken, winner = np.unique(target[order], return_index=True)
        placed[sharers[movers[order[winner]]], -1] = free[taken]
        free = np.delete(free, taken)
        if not len(free):
            return


def _distances(sharing: list[np.ndarray], prefix: np.ndarray, space: Space) -> Iterator[np.ndarray]:
    """Yield for the items of each shared code their distances to all codewords, float64 (m, K).

    Codes are taken together up to ``EXACT_ITEMS`` items: a pass over the codebook costs far more
    than the few items of one code.
    """
    ends = np.cumsum([len(sharers) for sharers in sharing])
    first = 0
    while first < len(sharing):
        begin = ends[first - 1] if first else 0
        last = max(int(np.searchsorted(ends, begin + EXACT_ITEMS, side="right")), first + 1)
        residuals = space.residuals(np.concatenate(sharing[first:last]), prefix)
        distances, _ = space.distances(residuals, len(space.codebooks) - 1)
        yield from np.split(distances, ends[first : last - 1] - begin)
        first = last


def _even_range(distances: np.ndarray) -> np.ndarray:
    """Shift and scale distances to [-1, 1], so that one epsilon serves every catalogue."""
    low, high = distances.min(), distances.max()
    half_range = max((high - low) / 2, np.finfo(np.float64).tiny)
    scaled: np.ndarray = (distances - (low + high) / 2) / half_range
    return scaled


def _log_sum(values: np.ndarray, axis: int) -> np.ndarray:
    """Logarithm of the sum of exponentials along one axis, which is kept."""
    top = values.max(axis=axis, keepdims=True)
    log_sum: np.ndarray = top + np.log(np.exp(values - top).sum(axis=axis, keepdims=True))
    return log_sum


def _count_colliding(codes: np.ndarray, sizes: list[int]) -> int:
    """Items beyond the first of each code."""
    return len(codes) - len(prefixes.number(codes, sizes).children[-1])
