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
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from sidmill import blocks, codec
from sidmill.sids import prefixes

logger = logging.getLogger(__name__)

EXACT_ITEMS = 1024  # more items than this under one prefix share its codes in portions of this many
OUTSIDE_ITEMS = 256  # the same for items that leave their prefix
OFFERS = 64  # free codes that an item brings into an assignment outside its prefix
MIN_BEAM = 32


class Words(NamedTuple):
    """Codewords as distances need them: float64 (K, D), and their squares float64 (K,)."""

    values: np.ndarray
    squares: np.ndarray


class Space(NamedTuple):
    """What an item's error is measured with; ``rows[i]`` is the row of ``vectors`` of item i."""

    vectors: np.ndarray
    rows: np.ndarray
    codebooks: list[np.ndarray]

    def left(self, items: np.ndarray, prefix: np.ndarray) -> np.ndarray:
        """What ``prefix`` leaves unexplained of some items: float64 (m, D)."""
        target = blocks.take(self.vectors, self.rows[items]).astype(np.float64)
        return target - codec.decode(prefix[None], self.codebooks)


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
    fewest. Memory: about 60 bytes per item and held code, some 200 more per item that moves, and
    the distances float64 (m, K) of one portion, and the last codebook in float64.

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
    homeless = []
    words = in_double(codebooks[last])  # once: it costs more than the few items of a prefix
    for items in crowded_prefixes(occupied):
        homeless.append(_share_out(items, len(codes), placed, last, space, words))
        filled.update(map(tuple, placed[items].tolist()))
    pending = np.sort(np.concatenate(homeless)) if homeless else np.empty(0, dtype=np.int64)
    if len(pending):
        logger.info("%d items leave a full prefix of length %d", len(pending), last)
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


def _share_out(
    rows: np.ndarray, n_items: int, placed: np.ndarray, last: int, space: Space, words: Words
) -> np.ndarray:
    """Share out the last codes of one prefix among its items; return those that find none.

    Args:
        rows: int64 (m,), all items and held codes under the prefix.
        n_items: N; rows from here on are held codes.
        placed: int32 (N + H, L), changed in place.
        last: L - 1.
        space: vectors and codebooks.
        words: of the last level.
    """
    counts = np.bincount(placed[rows, last], minlength=len(space.codebooks[last]))
    held = np.zeros(len(counts), dtype=bool)
    held[placed[rows[rows >= n_items], last]] = True
    free = np.flatnonzero(counts == 0)
    items = rows[rows < n_items]
    movers = items[counts[placed[items, last]] > 1]
    crowded = np.flatnonzero((counts > 1) & ~held)
    prefix = placed[rows[0], :last]
    if len(movers) > EXACT_ITEMS:
        _, first = np.unique(placed[movers, last], return_index=True)
        first = first[~held[placed[movers[first], last]]]
        movers = np.delete(movers, first)  # the first item of each code stays
        crowded = crowded[:0]
    homeless = [items[:0]]
    for start in range(0, len(movers), EXACT_ITEMS):
        portion = movers[start : start + EXACT_ITEMS]
        distances = squared_distances(space.left(portion, prefix), words)
        current = placed[portion, last]
        n_leaving = max(len(portion) - len(crowded) - len(free), 0)
        outside = (
            _nearest_outside(portion, placed, last, space) if n_leaving else np.zeros(len(portion))
        )
        chosen = _assign(distances, current, crowded, free, outside, n_leaving)
        homeless.append(portion[chosen < 0])
        placed[portion[chosen >= 0], last] = chosen[chosen >= 0]
        free = np.setdiff1d(free, chosen)
    return np.concatenate(homeless)


def _assign(
    distances: np.ndarray,
    own: np.ndarray,
    crowded: np.ndarray,
    free: np.ndarray,
    outside: np.ndarray,
    n_leaving: int,
) -> np.ndarray:
    """Choose a last code for each of m items: every crowded code keeps one of its own items.

    Args:
        distances: float64 (m, K), squared, to every last code.
        own: int (m,), the code each item has now.
        crowded: codes of which one item must stay.
        free: codes that no item has.
        outside: float64 (m,), squared distance of an item that leaves the prefix.
        n_leaving: how many have to leave.

    Returns:
        int64 (m,): the code, or -1 for an item that leaves.
    """
    wanted = len(own) - len(crowded)
    if len(free) > wanted:  # no optimal solution needs more than the nearest few of each item
        nearest = np.argsort(distances[:, free], axis=1, kind="stable")[:, :wanted]
        free = free[np.unique(nearest)]
    base = distances[np.arange(len(own)), own][:, None]
    moving = np.column_stack([distances[:, free], np.repeat(outside[:, None], n_leaving, 1)]) - base
    stay_bonus = 1.0 + 2.0 * len(own) * np.abs(moving).max(initial=0.0)  # outweighs all moves
    staying = np.where(own[:, None] == crowded, -stay_bonus, np.inf)
    _, column = linear_sum_assignment(np.column_stack([staying, moving]))
    codes = np.concatenate([crowded, free, np.full(n_leaving, -1)])
    return codes[column]


def _nearest_outside(items: np.ndarray, placed: np.ndarray, last: int, space: Space) -> np.ndarray:
    """Squared error of each item under the best other prefix of length L - 1, taken or not."""
    prefix = placed[items[0], : last - 1]
    left = space.left(items, prefix)
    distances = squared_distances(left, space.codebooks[last - 1])
    distances[:, placed[items[0], last - 1]] = np.inf
    left -= space.codebooks[last - 1][distances.argmin(axis=1)]
    return squared_distances(left, space.codebooks[last]).min(axis=1)


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
    one search.
    """
    prefix = placed[items[0], :length]
    residuals, kind = np.unique(space.left(items, prefix), axis=0, return_inverse=True)
    while len(items):
        alike = np.bincount(kind, minlength=len(residuals))
        found = {
            one: _free_codes_near(
                residuals[one], prefix, max(OFFERS, alike[one]), occupied, filled, space.codebooks
            )
            for one in np.flatnonzero(alike)
        }
        offers: dict[tuple[int, ...], int] = {}  # free code -> column
        for code, _ in itertools.chain.from_iterable(found.values()):
            offers.setdefault(code, len(offers))
        if not offers:
            break
        matrix = np.full((len(items), len(offers)), np.inf)
        for row, one in enumerate(kind):
            matrix[row, [offers[code] for code, _ in found[one]]] = [cost for _, cost in found[one]]
        offered = np.isfinite(matrix)
        too_dear = 1.0 + 2.0 * len(items) * matrix[offered].max()
        row, column = linear_sum_assignment(np.where(offered, matrix, too_dear))
        taken = offered[row, column]
        codes = list(offers)
        for item, code in zip(items[row[taken]], column[taken], strict=True):
            placed[item] = codes[code]
            filled.add(codes[code])
        items, kind = np.delete(items, row[taken]), np.delete(kind, row[taken])
    return items


def _free_codes_near(
    left: np.ndarray,
    prefix: np.ndarray,
    wanted: int,
    occupied: prefixes.Prefixes,
    filled: set[tuple[int, ...]],
    codebooks: list[np.ndarray],
) -> list[tuple[tuple[int, ...], float]]:
    """Find up to ``wanted`` free codes under a prefix, nearest first, with their squared errors.

    The beam doubles until it finds enough or holds every prefix of length L - 1 there is.
    """
    width = MIN_BEAM
    while True:
        paths, residuals = prefix[None], left[None]
        whole = True
        for book in codebooks[len(prefix) : -1]:
            distances = squared_distances(residuals, book)
            best = _smallest(distances, width)
            whole &= len(best) == distances.size
            path, code = np.divmod(best, len(book))
            paths = np.column_stack([paths[path], code])
            residuals = residuals[path] - book[code]
        distances = squared_distances(residuals, codebooks[-1])
        looked_at = 4 * wanted
        while True:
            best = _smallest(distances, looked_at)
            path, code = np.divmod(best, len(codebooks[-1]))
            candidates = np.column_stack([paths[path], code])
            free = ~prefixes.occurs(occupied, candidates)
            costs = distances[path[free], code[free]].tolist()
            keys = map(tuple, candidates[free].tolist())
            found = [pair for pair in zip(keys, costs, strict=True) if pair[0] not in filled]
            if len(found) >= wanted or len(best) == distances.size:
                break
            looked_at *= 4
        if len(found) >= wanted or whole:
            return found[:wanted]
        width *= 2


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


def squared_distances(left: np.ndarray, words: np.ndarray | Words) -> np.ndarray:
    """Squared distances float64 (m, K) of rows float64 (m, D) to codewords float32 (K, D)."""
    if isinstance(words, np.ndarray):
        words = in_double(words)
    squares = np.square(left).sum(1)[:, None] + words.squares - 2.0 * left @ words.values.T
    return np.maximum(squares, 0.0)
