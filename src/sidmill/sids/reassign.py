"""Move the fewest items to free codes, at the least added distortion.

Of the items that share a code one stays; the others take free codes under the same prefix. Who
stays and who goes where is one assignment problem per prefix of length L - 1 (Hungarian method,
scipy.optimize.linear_sum_assignment): first the fewest moves, then the least squared error. Only
where such a prefix has no free code left do items leave it, for the nearest free codes under the
prefix one token shorter, and so on. No item may have a held code, such as that of a published
version: an item that has one moves.

Shapes: N items, L levels, K_l codes at level l, D dimensions, m items to place, n candidates, H
codes held.
"""

import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from sidmill.numeric import residual_codec, row_blocks
from sidmill.sids import prefixes

logger = logging.getLogger(__name__)

EXACT_ITEMS = 1024  # more items than this under one prefix share its codes in portions of this many
OUTSIDE_ITEMS = 256  # the same for items that leave their prefix
OFFERS = 64  # free codes that an item brings into an assignment outside its prefix
MIN_BEAM = 32
TIE = 1e-14  # of the largest error, per pair of items: see _nudge

Code = tuple[int, ...]
Offer = tuple[Code, float]  # a free code, and its squared error


class Codebook(NamedTuple):
    """A codebook as distances need it: codewords float64 (K, D), their squared norms (K,)."""

    codewords: np.ndarray
    squares: np.ndarray


@dataclass(frozen=True)
class Space:
    """What an item's error is measured with; ``rows[i]`` is the row of ``vectors`` of item i.

    Attributes:
        vectors: float (M, D), may be a memory map.
        rows: int64 (N,).
        codebooks: float32 (K_l, D) per level.
    """

    vectors: np.ndarray
    rows: np.ndarray
    codebooks: list[np.ndarray]
    _in_double: dict[int, Codebook] = field(default_factory=dict)

    def residuals(self, items: np.ndarray, prefix: np.ndarray) -> np.ndarray:
        """Residuals of items after a prefix, one for all or one each: float64 (m, D)."""
        target = row_blocks.take(self.vectors, self.rows[items]).astype(np.float64)
        residuals: np.ndarray = target - residual_codec.decode(
            np.atleast_2d(prefix), self.codebooks
        )
        return residuals

    def codebook(self, level: int) -> Codebook:
        """The codebook of a level in float64, converted once: that costs more than a few items."""
        if level not in self._in_double:
            self._in_double[level] = in_double(self.codebooks[level])
        return self._in_double[level]

    def distances(self, residuals: np.ndarray, level: int) -> tuple[np.ndarray, np.ndarray]:
        """Squared distances float64 (m, K) of residuals float64 (m, D) to a level's codewords.

        Equal rows have equal distances, which a matrix product does not promise: its rounding may
        depend on the position of a row. The second array, int64 (m,), has equal numbers for equal
        rows.
        """
        first, kind = _kinds(residuals)
        if len(first) == len(residuals):
            return squared_distances(residuals, self.codebook(level)), kind
        return squared_distances(residuals[first], self.codebook(level))[kind], kind


def reassign(
    codes: np.ndarray, sizes: list[int], space: Space, held: np.ndarray | None = None
) -> np.ndarray:
    """Move items that share a code to free codes, until every item has a code of its own.

    Deterministic: ties go to the item of the lower row and to the lower code. Where more than
    ``EXACT_ITEMS`` items must share out the codes of one prefix, the first item of each code stays
    and the others are placed in portions, each optimal given the ones before: moves are still the
    fewest. Memory: about 60 bytes per item and held code, some 200 more per item that moves, the
    distances float64 (m, K) of one portion, and in float64 the last codebook; where items leave a
    full prefix, all codebooks.

    Args:
        codes: int32 (N, L).
        sizes: K_l per level; their product is at least N + H.
        space: vectors and codebooks.
        held: int32 (H, L), distinct codes that no item may have; None for none.

    Returns:
        int32 (N, L), all rows distinct, and none of them held.
    """
    placed = with_held(codes, held)
    occupied = prefixes.number(placed, sizes)
    filled: set[Code] = set()  # codes that were free before
    last = len(sizes) - 1

    # First share out the last codes of each prefix; ``pending`` are items of full prefixes.
    homeless = []
    for crowd in _crowds(crowded_prefixes(occupied), len(codes), placed, space):
        homeless.append(_share_out(crowd, placed, space))
        filled.update(map(tuple, placed[crowd.items].tolist()))
    pending = np.sort(np.concatenate(homeless)) if homeless else np.empty(0, dtype=np.int64)
    if len(pending):
        logger.info("%d items leave a full prefix of length %d", len(pending), last)

    # Then place these under prefixes that are shorter and shorter.
    for length in range(last - 1, -1, -1):
        unplaced = []
        for items in _by_prefix(pending, occupied.numbers[length]):
            for start in range(0, len(items), OUTSIDE_ITEMS):
                portion = items[start : start + OUTSIDE_ITEMS]
                unplaced.append(_move_out(portion, length, placed, occupied, filled, space))
        pending = np.sort(np.concatenate(unplaced)) if unplaced else pending
    return placed[: len(codes)]


def with_held(codes: np.ndarray, held: np.ndarray | None) -> np.ndarray:
    """A copy of ``codes`` with the held ones after them: int32 (N + H, L)."""
    return codes.copy() if held is None else np.concatenate([codes, held])


def crowded_prefixes(occupied: prefixes.Prefixes) -> Iterator[np.ndarray]:
    """Yield, for each prefix of length L - 1 under which a code is shared, all its items.

    Held codes count as items: their rows come after those of the items.
    """
    parents, leaves = occupied.numbers[-2:]
    shared = np.bincount(leaves) > 1
    rows, bounds = prefixes.groups(parents)
    for parent in np.unique(parents[shared[leaves]]):
        yield rows[bounds[parent] : bounds[parent + 1]]


def _by_prefix(items: np.ndarray, numbers: np.ndarray) -> list[np.ndarray]:
    """Split items into those of each prefix, given the number of every item's prefix."""
    order = items[np.argsort(numbers[items], kind="stable")]
    return np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1) if len(items) else []


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
        outside = _nearest_outside(portion, placed, space) if n_leaving else np.zeros(len(portion))
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
        nearest = np.argsort(distances[:, free], axis=1, kind="stable")[:, :n_moving]
        free = free[np.unique(nearest)]

    # The cost matrix (m, crowded + free + leaving): what each choice adds to the error. A solver
    # breaks ties in its own order; a nudge makes the higher row move.
    base = distances[np.arange(n_items), own][:, None]
    added = np.column_stack([distances[:, free], np.repeat(rivals.outside[:, None], n_leaving, 1)])
    added -= base
    scale = float(np.abs(added).max(initial=0.0)) or 1.0
    moving = added - _nudge(n_items, scale)
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


def _nudge(n_items: int, scale: float) -> np.ndarray:
    """Costs float64 (m, 1) that rise with the row: above a solver's rounding, below any error.

    A solver's sums of m costs of this scale are exact to about m * 1e-15 of it, and each row needs
    a cost of its own above that.
    """
    nudge: np.ndarray = TIE * scale * n_items * np.arange(n_items)[:, None]
    return nudge


def _lower_codes(column: np.ndarray, added: np.ndarray, n_free: int) -> np.ndarray:
    """Of codes that add the same to every item take the lowest, the lower row the lower one.

    Args:
        column: int64 (t,), the columns that items got, in the order of their rows.
        added: float64 (m, n).
        n_free: columns that are codes; every column after them means to leave the prefix.
    """
    kind = _kinds(added[:, :n_free].T)[1]
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


def _kinds(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the distinct rows by first occurrence: where each is first, and the number of all."""
    known: dict[bytes, int] = {}
    contiguous = np.ascontiguousarray(rows)
    kind = np.array([known.setdefault(row.tobytes(), len(known)) for row in contiguous], dtype=int)
    return np.unique(kind, return_index=True)[1], kind


def _nearest_outside(items: np.ndarray, placed: np.ndarray, space: Space) -> np.ndarray:
    """Squared error of each item under the best other prefix of length L - 1, taken or not."""
    last = placed.shape[1] - 1
    if not last:
        return np.zeros(len(items))  # there is no other: the capacity was checked
    residuals = space.residuals(items, placed[items[0], : last - 1])
    distances, _ = space.distances(residuals, last - 1)
    distances[:, placed[items[0], last - 1]] = np.inf
    residuals -= space.codebooks[last - 1][distances.argmin(axis=1)]
    nearest: np.ndarray = space.distances(residuals, last)[0].min(axis=1)
    return nearest


def _move_out(
    items: np.ndarray,
    length: int,
    placed: np.ndarray,
    occupied: prefixes.Prefixes,
    filled: set[Code],
    space: Space,
) -> np.ndarray:
    """Place items on free codes anywhere under their prefix of ``length``; return the others.

    In rounds, until all are placed or no code is free: each item brings the nearest free codes that
    a beam search finds for it, and one assignment shares them out. Items of equal vectors share
    one search, and the lower rows of them get the nearer codes.
    """
    # Items of equal residuals are one row of ``distinct`` (n, D).
    prefix = placed[items[0], :length]
    residuals = space.residuals(items, prefix)
    first, kind = _kinds(residuals)
    distinct = residuals[first]
    while len(items):
        # The free codes that each searched row offers, as many as it has items or more.
        alike = np.bincount(kind, minlength=len(distinct))
        searched = np.flatnonzero(alike)
        counts = np.maximum(OFFERS, alike[searched])
        free = _free_codes_near(distinct[searched], prefix, counts, Taken(occupied, filled), space)
        offers_of = dict(zip(searched.tolist(), free, strict=True))
        offers: dict[Code, int] = {}  # free code -> column
        for code, _ in itertools.chain.from_iterable(offers_of.values()):
            offers.setdefault(code, len(offers))
        if not offers:
            break

        # One assignment of items to codes (m, n): the nudge leaves the highest row without a code.
        errors = np.full((len(items), len(offers)), np.inf)
        for item, row in enumerate(kind.tolist()):
            columns = [offers[code] for code, _ in offers_of[row]]
            errors[item, columns] = [error for _, error in offers_of[row]]
        offered = np.isfinite(errors)
        scale = float(errors[offered].max()) or 1.0
        nudge = _nudge(len(items), scale)
        costs = np.where(offered, errors + nudge - nudge.max(), 4.0 * len(items) * scale)
        row, column = linear_sum_assignment(costs)
        matched = offered[row, column]
        row, column = _nearer_first(row[matched], column[matched], kind, errors)

        # Items without a code offer others in the next round.
        codes = list(offers)
        for item, code in zip(items[row], column, strict=True):
            placed[item] = codes[code]
            filled.add(codes[code])
        items, kind = np.delete(items, row), np.delete(kind, row)
    return items


def _nearer_first(
    row: np.ndarray, column: np.ndarray, kind: np.ndarray, costs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Give the codes that items of one kind got to its lowest rows, the nearest code first.

    Args:
        row: int64 (t,), items that got a code.
        column: int64 (t,), the code that each got.
        kind: int64 (m,), of all items.
        costs: float64 (m, n).
    """
    by_cost = np.lexsort((column, costs[row, column], kind[row]))
    counts = np.bincount(kind[row], minlength=int(kind.max()) + 1)
    by_kind = np.argsort(kind, kind="stable")
    position = np.arange(len(kind)) - np.searchsorted(kind[by_kind], kind[by_kind])  # in its kind
    return by_kind[position < counts[kind[by_kind]]], column[by_cost]


class Taken(NamedTuple):
    """Codes that are not free: ``occupied`` from the beginning, ``filled`` since."""

    occupied: prefixes.Prefixes
    filled: set[Code]


def _free_codes_near(
    residuals: np.ndarray,
    prefix: np.ndarray,
    counts: np.ndarray,
    taken: Taken,
    space: Space,
) -> list[list[Offer]]:
    """Find free codes under a prefix, nearest first, with their squared errors.

    The beam doubles until it finds enough or holds every prefix of length L - 1 there is. Rows of
    one width are searched together, ``EXACT_ITEMS`` prefixes at a time.

    Args:
        residuals: float64 (m, D), of each item after the prefix.
        prefix: int32 (length,).
        counts: int64 (m,), how many codes each needs.
        taken: codes that are not free.
        space: vectors and codebooks.

    Returns:
        For each row up to ``counts`` pairs of a code and its squared error.
    """
    offers: list[list[Offer]] = [[]] * len(residuals)
    last = len(space.codebooks) - 1
    pending, width = list(range(len(residuals))), MIN_BEAM
    while pending:
        wider = []
        at_once = max(EXACT_ITEMS // width, 1)
        for start in range(0, len(pending), at_once):
            # One product for the beams of several rows: distances (p, K) of each beam.
            batch = pending[start : start + at_once]
            beams, whole = _beams(residuals[batch], prefix, width, space)
            ends = np.cumsum([len(beam.paths) for beam in beams])
            stacked = np.concatenate([beam.residuals for beam in beams])
            distances = np.split(squared_distances(stacked, space.codebook(last)), ends[:-1])

            # Rows that found too few codes are searched again with a wider beam.
            for row, beam, errors in zip(batch, beams, distances, strict=True):
                offers[row] = _nearest_free(beam.paths, errors, counts[row], taken)
                if len(offers[row]) < counts[row] and not whole:
                    wider.append(row)
        pending, width = wider, 2 * width
    return offers


class Beam(NamedTuple):
    """The best prefixes of one item, int (p, L - 1), and its residuals, float64 (p, D)."""

    paths: np.ndarray
    residuals: np.ndarray


def _beams(
    residuals: np.ndarray, prefix: np.ndarray, width: int, space: Space
) -> tuple[list[Beam], bool]:
    """Extend a prefix to length L - 1 for each row; tell whether the beams hold all extensions."""
    beams = [Beam(prefix[None], residual[None]) for residual in residuals]
    whole = True
    for level in range(len(prefix), len(space.codebooks) - 1):
        ends = np.cumsum([len(beam.paths) for beam in beams])
        stacked = np.concatenate([beam.residuals for beam in beams])
        distances = np.split(squared_distances(stacked, space.codebook(level)), ends[:-1])
        longer = []
        for beam, costs in zip(beams, distances, strict=True):
            best = _smallest(costs, width)
            whole &= len(best) == costs.size
            path, code = np.divmod(best, costs.shape[1])
            paths = np.column_stack([beam.paths[path], code])
            longer.append(Beam(paths, beam.residuals[path] - space.codebooks[level][code]))
        beams = longer
    return beams, whole


def _nearest_free(
    paths: np.ndarray, distances: np.ndarray, count: int, taken: Taken
) -> list[Offer]:
    """Find up to ``count`` free codes among all extensions of ``paths``, nearest first."""
    n_candidates = 4 * count
    while True:
        best = _smallest(distances, n_candidates)
        path, code = np.divmod(best, distances.shape[1])
        candidates = np.column_stack([paths[path], code])
        free = ~prefixes.occurs(taken.occupied, candidates)
        errors = distances[path[free], code[free]].tolist()
        codes = map(tuple, candidates[free].tolist())
        unfilled = (pair for pair in zip(codes, errors, strict=True) if pair[0] not in taken.filled)
        offers = list(itertools.islice(unfilled, count))
        if len(offers) >= count or len(best) == distances.size:
            return offers
        n_candidates *= 4


def _smallest(distances: np.ndarray, n: int) -> np.ndarray:
    """Flat indices of the ``n`` smallest values, in order, ties by index; all of them if fewer."""
    flat = distances.ravel()
    if n >= flat.size:
        return np.argsort(flat, kind="stable")
    near = np.flatnonzero(flat <= np.partition(flat, n - 1)[n - 1])
    smallest: np.ndarray = near[np.argsort(flat[near], kind="stable")][:n]
    return smallest


def in_double(codewords: np.ndarray) -> Codebook:
    """Codewords float32 (K, D) as :func:`squared_distances` needs them."""
    values = codewords.astype(np.float64)
    return Codebook(values, np.square(values).sum(1))


def squared_distances(residuals: np.ndarray, codebook: Codebook) -> np.ndarray:
    """Squared distances float64 (m, K) of residuals float64 (m, D) to codewords."""
    norms = np.square(residuals).sum(1)[:, None]
    squares = norms + codebook.squares - 2.0 * residuals @ codebook.codewords.T
    distances: np.ndarray = np.maximum(squares, 0.0)
    return distances
