"""Move the fewest items to free codes, at the least added distortion.

Of the items that share a code one stays; the others take free codes under the same prefix. Who
stays and who goes where is one assignment problem per prefix of length L - 1: first the fewest
moves, then the least squared error. Most are solved from lists of nearest free codes, for many
prefixes at once (:mod:`.listed`), the others from all distances (:mod:`.crowds`). Only where such
a prefix has no free code left do items leave it, for the nearest free codes under the prefix one
token shorter, and so on. No item may have a held code, such as that of a published version: an item
that has one moves.

Shapes: N items, L levels, K_l codes at level l, D dimensions, m items to place, n candidates, H
codes held.
"""

import itertools
import logging
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from sidmill.sids import crowds, listed, prefixes
from sidmill.sids.crowds import EXACT_ITEMS, nudge
from sidmill.sids.space import Space, kinds

logger = logging.getLogger(__name__)

OUTSIDE_ITEMS = 256  # items that leave their prefix are placed in portions of this many
OFFERS = 64  # free codes that an item brings into an assignment outside its prefix
MIN_BEAM = 32

Code = tuple[int, ...]
Offer = tuple[Code, float]  # a free code, and its squared error


def reassign(
    codes: np.ndarray, sizes: list[int], space: Space, held: np.ndarray | None = None
) -> np.ndarray:
    """Move items that share a code to free codes, until every item has a code of its own.

    Deterministic: ties go to the item of the lower row and to the lower code. Where more than
    ``EXACT_ITEMS`` items must share out the codes of one prefix, the first item of each code stays
    and the others are placed in portions, each optimal given the ones before: moves are still the
    fewest. Memory: about 90 bytes per item and held code, 30 more per item that shares a code,
    ``listed.PORTION_MB`` of vectors, and the distances float64 (m, K) of one portion with the
    last codebook in float64; where items leave a full prefix, all codebooks.

    Args:
        codes: int32 (N, L).
        sizes: K_l per level; their product is at least N + H.
        space: vectors and codebooks.
        held: int32 (H, L), distinct codes that no item may have; None for none.

    Returns:
        int32 (N, L), all rows distinct, and none of them held.
    """
    placed = prefixes.with_held(codes, held)
    occupied = prefixes.number(placed, sizes)
    last = len(sizes) - 1

    # First share out the last codes of each prefix; ``pending`` are items of full prefixes.
    crowded = listed.share_out(listed.shared(occupied, len(codes)), placed, occupied, space)
    remaining = crowds.crowded_prefixes(occupied, crowded)
    homeless = crowds.share_out(remaining, len(codes), placed, space)
    pending = np.sort(np.concatenate(homeless)) if homeless else np.empty(0, dtype=np.int64)
    if not len(pending):
        return placed[: len(codes)]
    logger.info("%d items leave a full prefix of length %d", len(pending), last)
    taken = Taken(prefixes.number(placed, sizes), set())
    overlaps = Overlaps(space)

    # Then place these under prefixes that are shorter and shorter.
    for length in range(last - 1, -1, -1):
        unplaced = []
        for items in _by_prefix(pending, taken.occupied.numbers[length]):
            for start in range(0, len(items), OUTSIDE_ITEMS):
                portion = items[start : start + OUTSIDE_ITEMS]
                unplaced.append(_move_out(portion, length, placed, taken, overlaps))
        pending = np.sort(np.concatenate(unplaced)) if unplaced else pending
    return placed[: len(codes)]


class Taken(NamedTuple):
    """Codes that are not free: ``occupied`` from the beginning, ``filled`` since."""

    occupied: prefixes.Prefixes
    filled: set[Code]


class Overlaps:
    """Inner products of codewords of two levels, kept for the codes that were asked for last.

    Items that leave one prefix are near each other, and so are the prefixes that they go to.
    Memory: ``EXACT_ITEMS`` rows (K,) in float64 per pair of levels, or as many as are asked for.
    """

    def __init__(self, space: Space) -> None:
        """Know none of the codebooks of ``space`` yet."""
        self.space = space
        self._known: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}

    def of(self, level: int, later: int, codes: np.ndarray) -> np.ndarray:
        """Inner products of codewords of ``level`` with all of ``later``: float64 (n, K).

        Args:
            level: of the codewords.
            later: the other level.
            codes: int (n,), codewords.
        """
        # Where each code's products are; -1 where they are not known.
        first, second = self.space.codebook(level), self.space.codebook(later)
        empty = np.full(len(first.squares), -1), np.empty((0, len(second.squares)))
        position, products = self._known.get((level, later), empty)
        wanted = np.unique(codes)
        missing = wanted[position[wanted] < 0]
        if len(missing):
            if len(products) + len(missing) > EXACT_ITEMS:
                (position, products), missing = empty, wanted
            position[missing] = len(products) + np.arange(len(missing))
            more = first.codewords[missing] @ second.codewords.T
            products = np.concatenate([products, more])
            self._known[level, later] = position, products
        found: np.ndarray = products[position[codes]]
        return found


def _by_prefix(items: np.ndarray, numbers: np.ndarray) -> list[np.ndarray]:
    """Split items into those of each prefix, given the number of every item's prefix."""
    order = items[np.argsort(numbers[items], kind="stable")]
    return np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1) if len(items) else []


def _move_out(
    items: np.ndarray, length: int, placed: np.ndarray, taken: Taken, overlaps: Overlaps
) -> np.ndarray:
    """Place items on free codes anywhere under their prefix of ``length``; return the others.

    In rounds, until all are placed or no code is free: each item brings the nearest free codes that
    a beam search finds for it, and one assignment shares them out. Items of equal vectors share
    one search, and the lower rows of them get the nearer codes.
    """
    # Items of equal residuals are one row of ``distinct`` (n, D).
    prefix = placed[items[0], :length]
    residuals = overlaps.space.residuals(items, prefix)
    first, kind = kinds(residuals)
    search = _search(residuals[first], prefix, overlaps)
    while len(items):
        # The free codes that each searched row offers, as many as it has items or more.
        alike = np.bincount(kind, minlength=len(first))
        searched = np.flatnonzero(alike)
        counts = np.maximum(OFFERS, alike[searched])
        free = _free_codes_near(search, searched.tolist(), counts, taken)
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
        nudges = nudge(len(items), scale)
        costs = np.where(offered, errors + nudges - nudges.max(), 4.0 * len(items) * scale)
        row, column = linear_sum_assignment(costs)
        matched = offered[row, column]
        row, column = _nearer_first(row[matched], column[matched], kind, errors)

        # Items without a code offer others in the next round.
        codes = list(offers)
        for item, code in zip(items[row], column, strict=True):
            placed[item] = codes[code]
            taken.filled.add(codes[code])
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


class _Search(NamedTuple):
    """Residuals after a prefix, as beams need them.

    Attributes:
        prefix: int32 (length,).
        squares: float64 (m,), squared lengths of the residuals.
        products: their inner products with the codewords of each level after the prefix, float64
            (m, K_l).
        overlaps: inner products of codewords.
    """

    prefix: np.ndarray
    squares: np.ndarray
    products: list[np.ndarray]
    overlaps: Overlaps


def _search(residuals: np.ndarray, prefix: np.ndarray, overlaps: Overlaps) -> _Search:
    """Multiply residuals float64 (m, D) by every codebook after a prefix."""
    space = overlaps.space
    products = [
        residuals @ space.codebook(level).codewords.T
        for level in range(len(prefix), len(space.codebooks))
    ]
    return _Search(prefix, np.square(residuals).sum(axis=1), products, overlaps)


def _free_codes_near(
    search: _Search, rows: list[int], counts: np.ndarray, taken: Taken
) -> list[list[Offer]]:
    """Find free codes under a prefix, nearest first, with their squared errors.

    The beam doubles until it finds enough or holds every prefix of length L - 1 there is. Rows of
    one width are searched together, ``EXACT_ITEMS`` prefixes at a time.

    Args:
        search: the residuals.
        rows: r of these.
        counts: int64 (r,), how many codes each needs.
        taken: codes that are not free.

    Returns:
        For each row up to ``counts`` pairs of a code and its squared error.
    """
    offers: list[list[Offer]] = [[]] * len(rows)
    last = len(search.prefix) + len(search.products) - 1
    pending, width = list(range(len(rows))), MIN_BEAM
    while pending:
        wider = []
        at_once = max(EXACT_ITEMS // width, 1)
        for start in range(0, len(pending), at_once):
            # Errors (p, K) of all extensions of each beam.
            batch = pending[start : start + at_once]
            beams, whole = _beams(search, [rows[one] for one in batch], width)
            extended = _extend(search, beams, last)

            # Rows that found too few codes are searched again with a wider beam.
            for row, beam, errors in zip(batch, beams, extended, strict=True):
                offers[row] = _nearest_free(beam.paths, errors, counts[row], taken)
                if len(offers[row]) < counts[row] and not whole:
                    wider.append(row)
        pending, width = wider, 2 * width
    return offers


class _Beam(NamedTuple):
    """The best prefixes of one item, int (p, length), and their squared errors, float64 (p,)."""

    row: int  # of the search
    paths: np.ndarray
    errors: np.ndarray


def _beams(search: _Search, rows: list[int], width: int) -> tuple[list[_Beam], bool]:
    """Extend a prefix to length L - 1 for each row; tell whether the beams hold all extensions."""
    prefix = search.prefix
    beams = [_Beam(row, prefix[None], search.squares[row : row + 1]) for row in rows]
    whole = True
    for level in range(len(prefix), len(prefix) + len(search.products) - 1):
        longer = []
        for beam, errors in zip(beams, _extend(search, beams, level), strict=True):
            best = _smallest(errors, width)
            whole &= len(best) == errors.size
            path, code = np.divmod(best, errors.shape[1])
            paths = np.column_stack([beam.paths[path], code])
            longer.append(_Beam(beam.row, paths, errors[path, code]))
        beams = longer
    return beams, whole


def _extend(search: _Search, beams: list[_Beam], level: int) -> list[np.ndarray]:
    """Squared errors of beams extended by each code of a level: float64 (p, K) per beam.

    The error of a prefix and one more codeword w is that of the prefix, plus ``|w|^2``, less twice
    the inner product of w and what is left: the residual less the codewords since the search began.
    """
    # Inner products of w and what is left, for the prefixes of all beams: (sum of p, K).
    start = len(search.prefix)
    sizes = [len(beam.paths) for beam in beams]
    paths = np.concatenate([beam.paths for beam in beams])
    products = search.products[level - start][np.repeat([beam.row for beam in beams], sizes)]
    for before in range(start, level):
        products -= search.overlaps.of(before, level, paths[:, before])

    errors = products
    errors *= -2
    errors += search.overlaps.space.codebook(level).squares
    errors += np.concatenate([beam.errors for beam in beams])[:, None]
    np.maximum(errors, 0.0, out=errors)
    return np.split(errors, np.cumsum(sizes)[:-1])


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
