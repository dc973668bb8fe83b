"""Share out the last codes of one prefix among its items: an exact assignment.

Of the items that share a code one stays; the others take free codes under the same prefix: first
the fewest moves, then the least squared error (Hungarian method,
scipy.optimize.linear_sum_assignment).

Shapes: N items, L levels, K codes of the last level, D dimensions, m items under a prefix, H codes
held.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from sidmill.sids import prefixes
from sidmill.sids.space import Space, kinds

EXACT_ITEMS = 1024  # more items than this under one prefix share its codes in portions of this many
TIE = 1e-14  # of the largest error, per pair of items: see nudge


def crowded_prefixes(
    occupied: prefixes.Prefixes, chosen: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """Yield, for each prefix of length L - 1 under which a code is shared, all its items.

    Held codes count as items: their rows come after those of the items. With ``chosen``, int64 (c,)
    numbers of such prefixes, only these.
    """
    parents, leaves = occupied.numbers[-2:]
    if chosen is None:
        shared = np.bincount(leaves) > 1
        chosen = np.unique(parents[shared[leaves]])
    if not len(chosen):
        return
    rows, bounds = prefixes.groups(parents)
    for parent in chosen.tolist():
        yield rows[bounds[parent] : bounds[parent + 1]]


class Crowd(NamedTuple):
    """The items of one prefix of length L - 1 under which a code is shared, and what is free there.

    Attributes:
        items: int64 (m,), rows of all items under the prefix.
        movers: int64 (n,), those of shared codes: each may have to move.
        crowded: codes of which one of the movers stays.
        free: codes that no item has and that are not held.
        distances: float64 (n, K), squared, of the movers to every last code; None where there are
            too many of them at once.
        kind: int64 (n,), equal numbers for movers of equal distances.
    """

    items: np.ndarray
    movers: np.ndarray
    crowded: np.ndarray
    free: np.ndarray
    distances: np.ndarray | None = None
    kind: np.ndarray | None = None


def _crowds(
    crowded: Iterator[np.ndarray], n_items: int, placed: np.ndarray, space: Space
) -> Iterator[Crowd]:
    """Yield crowds with the distances of their movers.

    Those of several prefixes come of one product, of ``EXACT_ITEMS`` rows at most: a pass over the
    codebook costs far more than the few items of a prefix.

    Args:
        crowded: int64 (m,) per prefix, all items and held codes under it.
        n_items: N; rows from here on are held codes.
        placed: int32 (N + H, L).
        space: vectors and codebooks.
    """
    waiting: list[Crowd] = []
    for rows in crowded:
        crowd = _crowd(rows, n_items, placed, space)
        if sum(len(one.movers) for one in (*waiting, crowd)) > EXACT_ITEMS:
            yield from _measured(waiting, placed, space)
            waiting = []
        waiting.append(crowd)
    yield from _measured(waiting, placed, space)


def _crowd(rows: np.ndarray, n_items: int, placed: np.ndarray, space: Space) -> Crowd:
    """Tell which items under one prefix may have to move, and to which codes."""
    counts = np.bincount(placed[rows, -1], minlength=len(space.codebooks[-1]))
    held = np.zeros(len(counts), dtype=bool)
    held[placed[rows[rows >= n_items], -1]] = True
    items = rows[rows < n_items]
    movers = items[counts[placed[items, -1]] > 1]
    crowded = np.flatnonzero((counts > 1) & ~held)
    if len(movers) > EXACT_ITEMS:
        _, first = np.unique(placed[movers, -1], return_index=True)
        first = first[~held[placed[movers[first], -1]]]
        movers = np.delete(movers, first)  # the first item of each code stays
        crowded = crowded[:0]
    return Crowd(items, movers, crowded, np.flatnonzero(counts == 0))


def _measured(crowds: list[Crowd], placed: np.ndarray, space: Space) -> Iterator[Crowd]:
    """Add the distances, where the movers are few enough to be looked at together."""
    if len(crowds) == 1 and len(crowds[0].movers) > EXACT_ITEMS:
        yield crowds[0]
        return
    movers = np.concatenate([crowd.movers for crowd in crowds] or [np.empty(0, dtype=np.int64)])
    if not len(movers):
        yield from crowds
        return
    residuals = space.residuals(movers, placed[movers, :-1])
    distances, kind = space.distances(residuals, len(space.codebooks) - 1)
    start = 0
    for crowd in crowds:
        stop = start + len(crowd.movers)
        yield crowd._replace(distances=distances[start:stop], kind=kind[start:stop])
        start = stop


def share_out(
    crowded: Iterator[np.ndarray], n_items: int, placed: np.ndarray, space: Space
) -> list[np.ndarray]:
    """Share out the last codes of prefixes; return the items of each that find none.

    Args:
        crowded: int64 (m,) per prefix, all items and held codes under it.
        n_items: N; rows from here on are held codes.
        placed: int32 (N + H, L), changed in place.
        space: vectors and codebooks.
    """
    crowds = _crowds(crowded, n_items, placed, space)
    return [_share_out(crowd, placed, space) for crowd in crowds]


def _share_out(crowd: Crowd, placed: np.ndarray, space: Space) -> np.ndarray:
    """Share out the last codes of one prefix among its items; return those that find none.

    ``placed`` int32 (N + H, L) is changed in place.
    """
    free, crowded, last = crowd.free, crowd.crowded, placed.shape[1] - 1
    homeless = [crowd.items[:0]]
    for start in range(0, len(crowd.movers), EXACT_ITEMS):
        portion = crowd.movers[start : start + EXACT_ITEMS]
        distances, kind = crowd.distances, crowd.kind
        if distances is None or kind is None:
            residuals = space.residuals(portion, placed[portion[0], :last])
            distances, kind = space.distances(residuals, last)
        n_leaving = max(len(portion) - len(crowded) - len(free), 0)
        outside = np.zeros(len(portion))
        if n_leaving:
            outside = _nearest_outside(portion, distances, placed, space)
        own = placed[portion, last]
        rivals = Rivals(distances, kind, own, outside)
        chosen = _assign(rivals, crowded, free, n_leaving)
        homeless.append(portion[chosen < 0])
        placed[portion[chosen >= 0], last] = chosen[chosen >= 0]
        free = np.setdiff1d(free, chosen)
    return np.concatenate(homeless)


class Rivals(NamedTuple):
    """Items that compete for the last codes of one prefix.

    Attributes:
        distances: float64 (m, K), squared, to every last code.
        kind: int64 (m,), equal numbers for equal distances.
        own: int (m,), the code each item has now.
        outside: float64 (m,), squared distance of an item that leaves the prefix.
    """

    distances: np.ndarray
    kind: np.ndarray
    own: np.ndarray
    outside: np.ndarray


def _assign(rivals: Rivals, crowded: np.ndarray, free: np.ndarray, n_leaving: int) -> np.ndarray:
    """Choose a last code for each of m items: every crowded code keeps one of its own items.

    Of equal errors the lower row stays, goes to the lower code, and leaves last.

    Args:
        rivals: the items.
        crowded: codes of which one item must stay.
        free: codes that no item has.
        n_leaving: how many have to leave.

    Returns:
        int64 (m,): the code, or -1 for an item that leaves.
    """
    # No optimal solution needs more than the nearest few free codes of each item.
    distances, own = rivals.distances, rivals.own
    n_items = len(own)
    n_moving = n_items - len(crowded)
    if len(free) > n_moving:
        free = free[_nearest(distances[:, free], n_moving).any(axis=0)]

    # The cost matrix (m, crowded + free + leaving): what each choice adds to the error. A solver
    # breaks ties in its own order; a nudge makes the higher row move.
    base = distances[np.arange(n_items), own][:, None]
    added = np.column_stack([distances[:, free], np.repeat(rivals.outside[:, None], n_leaving, 1)])
    added -= base
    scale = float(np.abs(added).max(initial=0.0)) or 1.0
    moving = added - nudge(n_items, scale)
    stay_bonus = 4.0 * n_items * scale  # outweighs all moves
    staying = np.where(own[:, None] == crowded, -stay_bonus, np.inf)
    _, column = linear_sum_assignment(np.column_stack([staying, moving]))

    # Among equal codes take the lower one, among equal items let the lower row have the better.
    moved = np.flatnonzero(column >= len(crowded))
    column[moved] = len(crowded) + _lower_codes(column[moved] - len(crowded), added, len(free))
    cost = np.full(n_items, -np.inf)
    cost[moved] = added[moved, column[moved] - len(crowded)]
    cost[column >= len(crowded) + len(free)] = np.inf
    alike = np.column_stack([own, rivals.kind])  # rows of one kind and code are equal items
    column = _in_order(column, cost, np.unique(alike, axis=0, return_inverse=True)[1])
    codes = np.concatenate([crowded, free, np.full(n_leaving, -1)])
    chosen: np.ndarray = codes[column]
    return chosen


def _nearest(distances: np.ndarray, n: int) -> np.ndarray:
    """Mark the ``n`` smallest values of each row of float64 (m, F), ties by column: bool (m, F)."""
    last = np.partition(distances, n - 1, axis=1)[:, n - 1 : n]
    nearest: np.ndarray = distances < last
    tied = distances == last
    n_missing = n - np.count_nonzero(nearest, axis=1)[:, None]
    nearest |= tied & (tied.cumsum(axis=1) <= n_missing)
    return nearest


def nudge(n_items: int, scale: float) -> np.ndarray:
    """Costs float64 (m, 1) that rise with the row: above a solver's rounding, below any error.

    A solver's sums of m costs of this scale are exact to about m * 1e-15 of it, and each row needs
    a cost of its own above that.
    """
    nudges: np.ndarray = TIE * scale * n_items * np.arange(n_items)[:, None]
    return nudges


def _lower_codes(column: np.ndarray, added: np.ndarray, n_free: int) -> np.ndarray:
    """Of codes that add the same to every item take the lowest, the lower row the lower one.

    Args:
        column: int64 (t,), the columns that items got, in the order of their rows.
        added: float64 (m, n).
        n_free: columns that are codes; every column after them means to leave the prefix.
    """
    kind = kinds(added[:, :n_free].T)[1]
    if not n_free or kind.max() == n_free - 1:
        return column
    column = column.copy()
    coded = np.flatnonzero(column < n_free)
    for one in np.flatnonzero(np.bincount(kind) > 1):
        takers = coded[kind[column[coded]] == one]
        column[takers] = np.flatnonzero(kind == one)[: len(takers)]
    return column


def _in_order(column: np.ndarray, cost: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """Hand what equal items got among them to their rows in order, what costs least first.

    Args:
        column: int64 (m,), what each item got.
        cost: float64 (m,), of that.
        kind: int64 (m,), equal numbers for equal items.
    """
    ordered = np.empty_like(column)
    by_row = np.lexsort((np.arange(len(kind)), kind))
    ordered[by_row] = column[np.lexsort((column, cost, kind))]
    return ordered


def _nearest_outside(
    items: np.ndarray, distances: np.ndarray, placed: np.ndarray, space: Space
) -> np.ndarray:
    """Squared error of each item under the best other prefix of length L - 1, taken or not.

    With another codeword v in place of u, an item at r from the prefix is at r + (u - v) from the
    other one: its distances to the last codewords w change by what r and v alone decide, less
    ``2 (u - v) w``.

    Args:
        items: int64 (m,), of one prefix.
        distances: float64 (m, K), squared, of the items to the last codewords.
        placed: int32 (N + H, L).
        space: vectors and codebooks.
    """
    # The nearest other codeword of the level before the last, and the error after it: (m,).
    last = placed.shape[1] - 1
    if not last:
        return np.zeros(len(items))  # there is no other: the capacity was checked
    own = placed[items[0], last - 1]
    before = space.residuals(items, placed[items[0], : last - 1])
    others, _ = space.distances(before, last - 1)
    residual = before - space.codebook(last - 1).codewords[own]
    if others.shape[1] > 1:
        others[:, own] = np.inf
    other = others.argmin(axis=1)
    change = others[np.arange(len(items)), other] - np.square(residual).sum(axis=1)

    # Few codewords are the nearest of many items.
    nearest = np.empty(len(items))
    for code in np.unique(other):
        step = space.codebook(last - 1).codewords[own] - space.codebook(last - 1).codewords[code]
        rows = other == code
        products = space.codebook(last).codewords @ step
        nearest[rows] = (distances[rows] - 2 * products).min(axis=1) + change[rows]
    return np.maximum(nearest, 0.0)
