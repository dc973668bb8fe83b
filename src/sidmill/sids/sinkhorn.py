"""Spread the items that share a code over free codes, by optimal transport in rounds.

The idea of LC-Rec (https://arxiv.org/abs/2311.09049): in every round, for each code that several
items share, their last token is chosen anew by Sinkhorn-Knopp, which spreads the items over the
last codebook in place of sending each to the nearest word; after some rounds few collisions are
left. Three things differ. Only codes that no item has are on offer, one of the sharers always keeps
the code, and no two take the same one: a round never makes a collision, and the moves stay the
fewest. And a code has room for one item, in place of an even share of all, which would send few
items all over many codes.

Shapes: N items, L levels, K_l codes at level l, D dimensions, m items of one code, n codes.
"""

import logging
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from sidmill.sids import prefixes
from sidmill.sids.reassign import (
    EXACT_ITEMS,
    Space,
    crowded_prefixes,
    with_held,
)

logger = logging.getLogger(__name__)

NO_ROOM = np.finfo(np.float64).tiny  # its logarithm is finite


class Spread(NamedTuple):
    """Codes int32 (N, L), and the items still without a code of their own after each round.

    The first of ``left`` counts them before any round.
    """

    codes: np.ndarray
    left: list[int]


def spread(
    codes: np.ndarray,
    sizes: list[int],
    space: Space,
    held: np.ndarray | None = None,
    *,
    epsilon: float,
    iterations: int,
    rounds: int,
) -> Spread:
    """Move all but one of the items of each shared code to free codes of the same prefix.

    Ends after ``rounds``, or earlier when nothing is shared or nothing moves any more: items whose
    prefix is full, and many items of one vector, are left to the caller. The same input gives the
    same codes. Memory: about 60 bytes per item, and float64 (EXACT_ITEMS, K_L) some times over.

    Args:
        codes: int32 (N, L).
        sizes: K_l per level.
        space: vectors and codebooks.
        held: int32 (H, L), distinct codes that no item may have: whoever has one moves.
        epsilon: entropic regularisation, as a share of half the range of the distances.
        iterations: of Sinkhorn-Knopp.
        rounds: at most so many.
    """
    placed = with_held(codes, held)
    left = [len(placed) - _distinct(placed, sizes)]
    while left[-1] and len(left) <= rounds:
        for rows in crowded_prefixes(prefixes.number(placed, sizes)):
            _spread_prefix(rows, len(codes), placed, space, epsilon, iterations)
        left.append(len(placed) - _distinct(placed, sizes))
        if left[-1] == left[-2]:
            break
    logger.info("items without a code of their own, by round: %s", left)
    return Spread(placed[: len(codes)], left)


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
    return kernel + items + codes


def _spread_prefix(
    rows: np.ndarray,
    n_items: int,
    placed: np.ndarray,
    space: Space,
    epsilon: float,
    iterations: int,
) -> None:
    """One round for all shared codes under one prefix; ``placed`` is changed in place.

    ``rows`` from ``n_items`` on are held codes, which their items all leave.
    """
    counts = np.bincount(placed[rows, -1], minlength=len(space.codebooks[-1]))
    free = np.flatnonzero(counts == 0)
    if not len(free):
        return
    held = np.zeros(len(counts), dtype=bool)
    held[placed[rows[rows >= n_items], -1]] = True
    items = rows[rows < n_items]
    own = placed[items, -1]
    crowded = np.flatnonzero(counts > 1)
    sharing = [items[own == code][:EXACT_ITEMS] for code in crowded]
    for code, sharers, all_distances in zip(
        crowded, sharing, _distances(sharing, placed[items[0], :-1], space), strict=True
    ):
        distances = all_distances[:, np.r_[code, free]]
        capacity = np.ones(1 + len(free))
        # Who finds no free code stays, for now.
        capacity[0] = max(len(sharers) - len(free), NO_ROOM if held[code] else 1)
        plan = transport(_even_range(distances), capacity, epsilon, iterations)
        movers = np.arange(len(sharers))
        if not held[code]:
            movers = np.delete(movers, plan[:, 0].argmax())
        wanted = plan[movers, 1:].argmax(axis=1)
        order = np.lexsort((movers, -plan[movers, 1 + wanted]))  # who wants it most comes first
        taken, winner = np.unique(wanted[order], return_index=True)
        placed[sharers[movers[order[winner]]], -1] = free[taken]
        free = np.delete(free, taken)
        if not len(free):
            return


def _distances(sharing: list[np.ndarray], prefix: np.ndarray, space: Space) -> Iterator[np.ndarray]:
    """Yield for the items of each shared code their distances to all words, float64 (m, K).

    Codes are taken together up to ``EXACT_ITEMS`` items: a pass over the codebook costs far more
    than the few items of one code.
    """
    ends = np.cumsum([len(sharers) for sharers in sharing])
    first = 0
    while first < len(sharing):
        begin = ends[first - 1] if first else 0
        last = max(int(np.searchsorted(ends, begin + EXACT_ITEMS, side="right")), first + 1)
        left = space.left(np.concatenate(sharing[first:last]), prefix)
        found, _ = space.distances(left, len(space.codebooks) - 1)
        yield from np.split(found, ends[first : last - 1] - begin)
        first = last


def _even_range(distances: np.ndarray) -> np.ndarray:
    """Shift and scale distances to [-1, 1], so that one epsilon serves every catalogue."""
    low, high = distances.min(), distances.max()
    return (distances - (low + high) / 2) / max((high - low) / 2, np.finfo(np.float64).tiny)


def _log_sum(values: np.ndarray, axis: int) -> np.ndarray:
    """Logarithm of the sum of exponentials along one axis, which is kept."""
    top = values.max(axis=axis, keepdims=True)
    return top + np.log(np.exp(values - top).sum(axis=axis, keepdims=True))


def _distinct(codes: np.ndarray, sizes: list[int]) -> int:
    return len(prefixes.number(codes, sizes).children[-1])
