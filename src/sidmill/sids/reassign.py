"""Move the fewest items to free codes, at the least added distortion.

Of the items that share a code one stays; the others take free codes under the same prefix. Who
stays and who goes where is one assignment problem per prefix of length L - 1 (Hungarian method,
scipy.optimize.linear_sum_assignment): first the fewest moves, then the least squared error. Only
where such a prefix has no free code left do items leave it, for the nearest free codes under the
prefix one token shorter, and so on. Codes that are held, such as those of a published version, are
nobody's to take: whoever has one moves.

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


class Words(NamedTuple):
    """Codewords as distances need them: float64 (K, D), and their squares float64 (K,)."""

    values: np.ndarray
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
    _words: dict[int, Words] = field(default_factory=dict)

    def left(self, items: np.ndarray, prefix: np.ndarray) -> np.ndarray:
        """What prefixes, one for all or one each, leave unexplained of items: float64 (m, D)."""
        target = row_blocks.take(self.vectors, self.rows[items]).astype(np.float64)
        return target - residual_codec.decode(np.atleast_2d(prefix), self.codebooks)

    def words(self, level: int) -> Words:
        """The codebook of a level in float64, converted once: that costs more than a few items."""
        if level not in self._words:
            self._words[level] = in_double(self.codebooks[level])
        return self._words[level]

    def distances(self, left: np.ndarray, level: int) -> tuple[np.ndarray, np.ndarray]:
        """Squared distances float64 (m, K) of rows float64 (m, D) to the words of a level.

        Equal rows have equal distances, which a matrix product does not promise: it may round a
        row by its place. Which rows are equal is told by the numbers int64 (m,) that come second.
        """
        first, kind = _kinds(left)
        if len(first) == len(left):
            return squared_distances(left, self.words(level)), kind
        return squared_distances(left[first], self.words(level))[kind], kind


def reassign(
    codes: np.ndarray,
    sizes: list[int],
    vectors: np.ndarray,
    rows: np.ndarray,
    codebooks: list[np.ndarray],
    held: np.ndarray | None = None,
) -> np.ndarray:
    """Give every item a code of its own.

    Deterministic: ties go to the item of the lower row and to the lower code. Where more than
    ``EXACT_ITEMS`` items must share out the codes of one prefix, the first item of each code stays
    and the others are placed in portions, each optimal given the ones before: moves are still the
    fewest. Memory: about 60 bytes per item and held code, some 200 more per item that moves, the
    distances float64 (m, K) of one portion, and in float64 the last codebook; where items leave a
    full prefix, all codebooks.

    Args:
        codes: int32 (N, L).
        sizes: K_l per level; their product is at least N + H.
        vectors: float (M, D), M >= N, may be a memory map.
        rows: int64 (N,): the row of ``vectors`` of each item.
        codebooks: float32 (K_l, D) per level.
        held: int32 (H, L), distinct codes that no item may have; None for none.

    Returns:
        int32 (N, L), all rows distinct, and none of them held.
    """
    space = Space(vectors, rows, codebooks)
    placed = with_held(codes, held)
    occupied = prefixes.number(placed, sizes)
    filled: set[tuple[int, ...]] = set()  # codes that were free before
    last = len(sizes) - 1

    # Inside each prefix first.
    homeless = []
    for crowd in _crowds(crowded_prefixes(occupied), len(codes), placed, space):
        homeless.append(_share_out(crowd, placed, space))
        filled.update(map(tuple, placed[crowd.items].tolist()))
    pending = np.sort(np.concatenate(homeless)) if homeless else np.empty(0, dtype=np.int64)
    if len(pending):
        logger.info("%d items leave a full prefix of length %d", len(pending), last)

    # Then under shorter and shorter ones.
    for length in range(last - 1, -1, -1):
        left_over = []
        for items in _by_prefix(pending, occupied.numbers[length]):
            for start in range(0, len(items), OUTSIDE_ITEMS):
                portion = items[start : start + OUTSIDE_ITEMS]
                left_over.append(_move_out(portion, length, placed, occupied, filled, space))
        pending = np.sort(np.concatenate(left_over)) if left_over else pending
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
        free: codes that nobody has.
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
    """Tell who of the items and held codes under one prefix may have to move, and where to."""
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
    left = space.left(movers, placed[movers, :-1])
    distances, kind = space.distances(left, len(space.codebooks) - 1)
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
        if distances is None:
            left = space.left(portion, placed[portion[0], :last])
            distances, kind = space.distances(left, last)
        n_leaving = max(len(portion) - len(crowded) - len(free), 0)
        outside = _nearest_outside(portion, placed, space) if n_leaving else np.zeros(len(portion))
        own = placed[portion, last]
        chosen = _assign(distances, kind, own, crowded, free, outside, n_leaving)
        homeless.append(portion[chosen < 0])
        placed[portion[chosen >= 0], last] = chosen[chosen >= 0]
        free = np.setdiff1d(free, chosen)
    return np.concatenate(homeless)


def _assign(
    distances: np.ndarray,
    kind: np.ndarray,
    own: np.ndarray,
    crowded: np.ndarray,
    free: np.ndarray,
    outside: np.ndarray,
    n_leaving: int,
) -> np.ndarray:
    """Choose a last code for each of m items: every crowded code keeps one of its own items.

    Of equal errors the lower row stays, goes to the lower code, and leaves last.

    Args:
        distances: float64 (m, K), squared, to every last code.
        kind: int64 (m,), equal numbers for equal distances.
        own: int (m,), the code each item has now.
        crowded: codes of which one item must stay.
        free: codes that no item has.
        outside: float64 (m,), squared distance of an item that leaves the prefix.
        n_leaving: how many have to leave.

    Returns:
        int64 (m,): the code, or -1 for an item that leaves.
    """
    n_items = len(own)
    wanted = n_items - len(crowded)
    if len(free) > wanted:  # no optimal solution needs more than the nearest few of each item
        nearest = np.argsort(distances[:, free], axis=1, kind="stable")[:, :wanted]
        free = free[np.unique(nearest)]

    # What each choice adds to the error. A solver breaks ties as it comes upon them; a nudge makes
    # the higher row move.
    base = distances[np.arange(n_items), own][:, None]
    added = np.column_stack([distances[:, free], np.repeat(outside[:, None], n_leaving, 1)]) - base
    scale = float(np.abs(added).max(initial=0.0)) or 1.0
    moving = added - _nudge(n_items, scale)
    stay_bonus = 4.0 * n_items * scale  # outweighs all moves
    staying = np.where(own[:, None] == crowded, -stay_bonus, np.inf)
    _, column = linear_sum_assignment(np.column_stack([staying, moving]))

    # Equal items, and equal codes, in order.
    moved = np.flatnonzero(column >= len(crowded))
    column[moved] = len(crowded) + _lower_codes(column[moved] - len(crowded), added, len(free))
    cost = np.full(n_items, -np.inf)
    cost[moved] = added[moved, column[moved] - len(crowded)]
    cost[column >= len(crowded) + len(free)] = np.inf
    column = _in_order(
        column, cost, np.unique(np.column_stack([own, kind]), axis=0, return_inverse=True)[1]
    )
    codes = np.concatenate([crowded, free, np.full(n_leaving, -1)])
    return codes[column]


def _nudge(n_items: int, scale: float) -> np.ndarray:
    """Costs float64 (m, 1) that rise with the row: too small to matter, and no solver misses them.

    A solver's sums of m costs of this scale are exact to about m * 1e-15 of it, and each row needs
    a cost of its own above that.
    """
    return TIE * scale * n_items * np.arange(n_items)[:, None]


def _lower_codes(column: np.ndarray, added: np.ndarray, n_free: int) -> np.ndarray:
    """Of codes that add the same to every item take the lowest, the lower row the lower one.

    Args:
        column: int64 (t,), the columns that items got, in the order of their rows.
        added: float64 (m, n).
        n_free: columns that are codes; those after them all mean to leave.
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
    left = space.left(items, placed[items[0], : last - 1])
    distances, _ = space.distances(left, last - 1)
    distances[:, placed[items[0], last - 1]] = np.inf
    left -= space.codebooks[last - 1][distances.argmin(axis=1)]
    return space.distances(left, last)[0].min(axis=1)


def _move_out(
    items: np.ndarray,
    length: int,
    placed: np.ndarray,
    occupied: prefixes.Prefixes,
    filled: set[tuple[int, ...]],
    space: Space,
) -> np.ndarray:
    """Place items on free codes anywhere under their prefix of ``length``; return the others.

    In rounds, until all are placed or no code is free: each item brings the nearest free codes that
    a beam search finds for it, and one assignment shares them out. Items of equal vectors share
    one search, and the lower rows of them get the nearer codes.
    """
    prefix = placed[items[0], :length]
    left = space.left(items, prefix)
    first, kind = _kinds(left)
    residuals = left[first]
    while len(items):
        alike = np.bincount(kind, minlength=len(residuals))
        searched = np.flatnonzero(alike)
        wanted = np.maximum(OFFERS, alike[searched])
        free = _free_codes_near(residuals[searched], prefix, wanted, occupied, filled, space)
        found = dict(zip(searched.tolist(), free, strict=True))
        offers: dict[tuple[int, ...], int] = {}  # free code -> column
        for code, _ in itertools.chain.from_iterable(found.values()):
            offers.setdefault(code, len(offers))
        if not offers:
            break

        matrix = np.full((len(items), len(offers)), np.inf)
        for row, one in enumerate(kind):
            matrix[row, [offers[code] for code, _ in found[one]]] = [cost for _, cost in found[one]]
        offered = np.isfinite(matrix)
        scale = float(matrix[offered].max()) or 1.0
        nudge = _nudge(len(items), scale)  # who is left without a code is the highest row
        costs = np.where(offered, matrix + nudge - nudge.max(), 4.0 * len(items) * scale)
        row, column = linear_sum_assignment(costs)
        taken = offered[row, column]
        row, column = _nearer_first(row[taken], column[taken], kind, matrix)

        codes = list(offers)
        for item, code in zip(items[row], column, strict=True):
            placed[item] = codes[code]
            filled.add(codes[code])
        items, kind = np.delete(items, row), np.delete(kind, row)
    return items


def _nearer_first(
    row: np.ndarray, column: np.ndarray, kind: np.ndarray, costs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Give what the items of one kind got to the lowest rows of it, the nearest code first.

    Args:
        row: int64 (t,), items that got a code.
        column: int64 (t,), the code that each got.
        kind: int64 (m,), of all items.
        costs: float64 (m, n).
    """
    by_cost = np.lexsort((column, costs[row, column], kind[row]))
    counts = np.bincount(kind[row], minlength=int(kind.max()) + 1)
    by_kind = np.argsort(kind, kind="stable")
    place = np.arange(len(kind)) - np.searchsorted(kind[by_kind], kind[by_kind])  # within its kind
    return by_kind[place < counts[kind[by_kind]]], column[by_cost]


def _free_codes_near(
    residuals: np.ndarray,
    prefix: np.ndarray,
    wanted: np.ndarray,
    occupied: prefixes.Prefixes,
    filled: set[tuple[int, ...]],
    space: Space,
) -> list[list[tuple[tuple[int, ...], float]]]:
    """Find free codes under a prefix, nearest first, with their squared errors.

    The beam doubles until it finds enough or holds every prefix of length L - 1 there is. Rows of
    one width are searched together, ``EXACT_ITEMS`` prefixes at a time.

    Args:
        residuals: float64 (m, D), what the prefix leaves unexplained of each item.
        prefix: int32 (length,).
        wanted: int64 (m,), how many codes each needs.
        occupied: codes that were taken at the beginning.
        filled: codes that were taken since.
        space: vectors and codebooks.

    Returns:
        For each row up to ``wanted`` pairs of a code and its squared error.
    """
    found: list[list] = [[]] * len(residuals)
    last = len(space.codebooks) - 1
    pending, width = list(range(len(residuals))), MIN_BEAM
    while pending:
        wider = []
        at_once = max(EXACT_ITEMS // width, 1)
        for start in range(0, len(pending), at_once):
            some = pending[start : start + at_once]
            beams, whole = _beams(residuals[some], prefix, width, space)
            ends = np.cumsum([len(beam.paths) for beam in beams])
            left = np.concatenate([beam.left for beam in beams])
            distances = np.split(squared_distances(left, space.words(last)), ends[:-1])
            for one, beam, costs in zip(some, beams, distances, strict=True):
                found[one] = _nearest_free(beam.paths, costs, wanted[one], occupied, filled)
                if len(found[one]) < wanted[one] and not whole:
                    wider.append(one)
        pending, width = wider, 2 * width
    return found


class Beam(NamedTuple):
    """The best prefixes of one item: ``paths`` int (p, L - 1), what they leave float64 (p, D)."""

    paths: np.ndarray
    left: np.ndarray


def _beams(
    residuals: np.ndarray, prefix: np.ndarray, width: int, space: Space
) -> tuple[list[Beam], bool]:
    """Extend a prefix to length L - 1 for each row, and say whether every extension is there."""
    beams = [Beam(prefix[None], residual[None]) for residual in residuals]
    whole = True
    for level in range(len(prefix), len(space.codebooks) - 1):
        ends = np.cumsum([len(beam.paths) for beam in beams])
        left = np.concatenate([beam.left for beam in beams])
        distances = np.split(squared_distances(left, space.words(level)), ends[:-1])
        longer = []
        for beam, costs in zip(beams, distances, strict=True):
            best = _smallest(costs, width)
            whole &= len(best) == costs.size
            path, code = np.divmod(best, costs.shape[1])
            paths = np.column_stack([beam.paths[path], code])
            longer.append(Beam(paths, beam.left[path] - space.codebooks[level][code]))
        beams = longer
    return beams, whole


def _nearest_free(
    paths: np.ndarray,
    distances: np.ndarray,
    wanted: int,
    occupied: prefixes.Prefixes,
    filled: set[tuple[int, ...]],
) -> list[tuple[tuple[int, ...], float]]:
    """Find up to ``wanted`` free codes among all extensions of ``paths``, nearest first."""
    looked_at = 4 * wanted
    while True:
        best = _smallest(distances, looked_at)
        path, code = np.divmod(best, distances.shape[1])
        candidates = np.column_stack([paths[path], code])
        free = ~prefixes.occurs(occupied, candidates)
        costs = distances[path[free], code[free]].tolist()
        keys = map(tuple, candidates[free].tolist())
        unfilled = (pair for pair in zip(keys, costs, strict=True) if pair[0] not in filled)
        found = list(itertools.islice(unfilled, wanted))
        if len(found) >= wanted or len(best) == distances.size:
            return found
        looked_at *= 4


def _smallest(distances: np.ndarray, n: int) -> np.ndarray:
    """Flat places of the ``n`` smallest values, in order, ties by place; all of them if fewer."""
    flat = distances.ravel()
    if n >= flat.size:
        return np.argsort(flat, kind="stable")
    near = np.flatnonzero(flat <= np.partition(flat, n - 1)[n - 1])
    return near[np.argsort(flat[near], kind="stable")][:n]


def in_double(words: np.ndarray) -> Words:
    """Codewords float32 (K, D) as :func:`squared_distances` needs them."""
    values = words.astype(np.float64)
    return Words(values, np.square(values).sum(1))


def squared_distances(left: np.ndarray, words: Words) -> np.ndarray:
    """Squared distances float64 (m, K) of rows float64 (m, D) to codewords."""
    squares = np.square(left).sum(1)[:, None] + words.squares - 2.0 * left @ words.values.T
    return np.maximum(squares, 0.0)
