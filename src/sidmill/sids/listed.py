"""Share out the last codes of many prefixes at once, from lists of the nearest free codes.

An item needs no more free codes to choose from than there are items that move under its prefix: the
nearest of them are its list. A float32 product proposes the lists of many prefixes; it takes every
code that may belong to the list, as far as its rounding goes, and errors are then computed in
float64 for these codes alone. One sparse assignment per prefix has the same optimum as the dense
one of :mod:`.crowds`.

Shapes: N items, L levels, K codes of the last level, D dimensions, H codes held; M items that share
a code under C prefixes, m items under c prefixes at once; P pairs of an item and a listed code.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from sidmill.core import threads
from sidmill.numeric import lanes, nearest_numpy, residual_codec, row_blocks
from sidmill.sids import prefixes
from sidmill.sids.crowds import EXACT_ITEMS, TIE
from sidmill.sids.space import Space, pair_errors

MOST_MOVES = 64  # prefixes under which more items move are left alone
GROUPS = 2 * MOST_MOVES  # columns of scores that bounds are taken from
CODES_AROUND = 64  # a list may be longer than twice its length by so many until errors are known
PORTION_MB = 16  # vectors that are read at once
MOST_THREADS = 4  # each has arrays of its own


class Shared(NamedTuple):
    """The items that share a code, by prefix of length L - 1, and how many of them have to move.

    Attributes:
        movers: int64 (M,), rows of the items: by prefix, then ascending.
        bounds: int64 (C + 1,), where the items of each prefix begin.
        parents: int64 (C,), number of each prefix.
        leaves: int (M,), number of each item's code.
        is_held: bool (M,), whether the item's code is held, so that it moves in any case.
        n_moving: int64 (C,).
        n_free: int64 (C,), codes that no item has and that are not held.
    """

    movers: np.ndarray
    bounds: np.ndarray
    parents: np.ndarray
    leaves: np.ndarray
    is_held: np.ndarray
    n_moving: np.ndarray
    n_free: np.ndarray


class _Batch(NamedTuple):
    """Some prefixes, and the items that share a code under them.

    Attributes:
        rows: int64 (m,).
        crowd: int64 (m,), the position of each item's prefix in the batch.
        bounds: int64 (c + 1,), where the items of each prefix begin.
        codes: int32 (m, L), of the items.
        leaves, is_held: of the items, as in :class:`Shared`.
        n_moving: int64 (m,), of each item's prefix.
        taken: the codes that are not free, as positions of items and codes, int64 (2, n).
    """

    rows: np.ndarray
    crowd: np.ndarray
    bounds: np.ndarray
    codes: np.ndarray
    leaves: np.ndarray
    is_held: np.ndarray
    n_moving: np.ndarray
    taken: np.ndarray


class _Pairs(NamedTuple):
    """Items with their listed codes: by item, then by error.

    Attributes:
        item: int64 (P,), position of the item.
        code: int64 (P,).
        error: float64 (P,), squared.
    """

    item: np.ndarray
    code: np.ndarray
    error: np.ndarray


def shared(occupied: prefixes.Prefixes, n_items: int) -> Shared:
    """Find the items that share a code. Memory: about 50 bytes per item.

    Args:
        occupied: the prefixes of items and held codes.
        n_items: N; rows from here on are held codes.
    """
    # Items of shared codes, those of one prefix together: (M,).
    parents, leaves = occupied.numbers[-2:]
    is_shared = np.bincount(leaves) > 1
    is_held = np.zeros(len(is_shared), dtype=bool)
    is_held[leaves[n_items:]] = True
    movers = np.flatnonzero(is_shared[leaves[:n_items]])
    movers = movers[np.argsort(parents[movers], kind="stable")]
    crowded, starts = np.unique(parents[movers].astype(np.int64), return_index=True)  # (C,)
    bounds = np.r_[starts, len(movers)]

    # One item of each shared code stays, unless the code is held.
    children, size = occupied.children[-1], occupied.sizes[-1]
    parent_of_code = children // size
    n_staying = np.bincount(parent_of_code[is_shared & ~is_held], minlength=len(parents))
    n_codes = np.bincount(parent_of_code, minlength=len(parents))
    return Shared(
        movers,
        bounds,
        crowded,
        leaves[movers],
        is_held[leaves[movers]],
        np.diff(bounds) - n_staying[crowded],
        size - n_codes[crowded],
    )


def share_out(
    found: Shared, placed: np.ndarray, occupied: prefixes.Prefixes, space: Space
) -> np.ndarray:
    """Give the items that share a code under a prefix codes of their own, from lists.

    Prefixes are left alone that are full, under which more than ``MOST_MOVES`` items move, or where
    two codes are equally near to an item: :mod:`.crowds` has the rules for these. Threads share the
    prefixes, ``MOST_THREADS`` at most. Memory: about ``PORTION_MB``, and for each thread some
    arrays (EXACT_ITEMS, K) in float32.

    Args:
        found: the items that share a code.
        placed: int32 (N + H, L), changed in place.
        occupied: the prefixes of ``placed`` as it comes.
        space: vectors and codebooks.

    Returns:
        int64, numbers of the prefixes that are left alone, ascending.
    """
    codewords = space.codebooks[-1]
    sizes = np.diff(found.bounds)
    is_listed = (found.n_moving <= np.minimum(MOST_MOVES, found.n_free)) & (sizes <= EXACT_ITEMS)
    if (codewords == codewords[0]).all():
        is_listed[:] = False  # as for given SIDs, which have no codewords
    level = _search_level(codewords)
    place = partial(_place, found, placed, occupied, space.codebooks, level)
    buffers: list[np.ndarray] = []

    # Prefixes under which equally many items move come together; vectors are read by the portion.
    listed = np.flatnonzero(is_listed)
    listed = listed[np.argsort(found.n_moving[listed], kind="stable")]
    left_alone = [found.parents[~is_listed]]
    at_once = max(PORTION_MB * row_blocks.MIB // (4 * space.vectors.shape[1]), EXACT_ITEMS)
    for portion in _portions(listed, sizes, at_once):
        items = found.movers[_ranges(found.bounds[portion], sizes[portion])]
        vectors = row_blocks.take(space.vectors, space.rows[items])

        # Batches are independent: no prefix is in two of them.
        batches = list(_portions(portion, sizes, EXACT_ITEMS))
        ends = np.cumsum([sizes[chosen].sum() for chosen in batches])
        n_lanes = min(threads.granted(), MOST_THREADS, len(batches))
        while len(buffers) < n_lanes:
            buffers.append(np.empty(EXACT_ITEMS * len(codewords), dtype=np.float32))
        jobs = [
            (part, chosen, buffers[number % n_lanes])
            for number, (part, chosen) in enumerate(
                zip(np.split(vectors, ends[:-1]), batches, strict=True)
            )
        ]
        with lanes.one_core_each():
            done = lanes.run(place, jobs, [number % n_lanes for number in range(len(jobs))])
        for chosen, (rows, codes, is_settled) in zip(batches, done, strict=True):
            placed[rows, -1] = codes
            left_alone.append(found.parents[chosen[~is_settled]])
        del vectors, jobs  # before the next portion is read
    return np.sort(np.concatenate(left_alone))


def _place(
    found: Shared,
    placed: np.ndarray,
    occupied: prefixes.Prefixes,
    codebooks: Sequence[np.ndarray],
    level: nearest_numpy.Level,
    vectors: np.ndarray,
    chosen: np.ndarray,
    buffer: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Choose a last code for each item of some prefixes, its own where a prefix is left alone.

    Args:
        found: the items that share a code.
        placed: int32 (N + H, L).
        occupied: the prefixes of ``placed``.
        codebooks: float32 (K_l, D) per level.
        level: the last of them.
        vectors: float (m, D), of the items.
        chosen: int64 (c,), the prefixes.
        buffer: float32, at least m K numbers.

    Returns:
        The rows of the items, int64 (m,), their codes, int64 (m,), and bool (c,), whether the items
        of a prefix got codes.
    """
    batch = _batch(found, chosen, placed, occupied)
    target = vectors.astype(np.float64)
    residuals = target - residual_codec.decode(batch.codes[:, :-1], codebooks)
    is_settled, codes = _choose(batch, residuals, level, buffer)
    own = batch.codes[:, -1]
    return batch.rows, np.where(is_settled[batch.crowd], codes, own), is_settled


def _portions(chosen: np.ndarray, sizes: np.ndarray, most: int) -> Iterator[np.ndarray]:
    """Cut prefixes int64 (c,) into parts of at most ``most`` items, of one prefix at least."""
    ends = np.cumsum(sizes[chosen])
    start = 0
    while start < len(chosen):
        before = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, before + most, side="right")), start + 1)
        yield chosen[start:stop]
        start = stop


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The integers from each start on, as many as its length: int64 (sum of the lengths,)."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    ranges: np.ndarray = np.arange(total) + np.repeat(starts - (ends - lengths), lengths)
    return ranges


def _batch(
    found: Shared, chosen: np.ndarray, placed: np.ndarray, occupied: prefixes.Prefixes
) -> _Batch:
    """The items of the prefixes ``chosen``, int64 (c,), and what is not free for each of them."""
    sizes = np.diff(found.bounds)[chosen]
    positions = _ranges(found.bounds[chosen], sizes)
    crowd = np.repeat(np.arange(len(chosen)), sizes)

    # The codes under each prefix are consecutive in the list of all codes.
    codes, size = occupied.children[-1], occupied.sizes[-1]
    first, last = np.searchsorted(codes, found.parents[chosen] * size + [[0], [size]])
    counts = (last - first)[crowd]
    item = np.repeat(np.arange(len(crowd)), counts)
    taken = codes[_ranges(first[crowd], counts)] % size
    return _Batch(
        found.movers[positions],
        crowd,
        np.r_[0, np.cumsum(sizes)],
        placed[found.movers[positions]],
        found.leaves[positions],
        found.is_held[positions],
        found.n_moving[chosen][crowd],
        np.stack([item, taken]),
    )


def _search_level(codewords: np.ndarray) -> nearest_numpy.Level:
    """The last codebook for products in float32; repeated codewords are codes like the others."""
    level = nearest_numpy.search_level(codewords)
    norms = np.square(codewords.astype(np.float64)).sum(axis=1)
    return level._replace(halves=(norms / 2).astype(np.float32))


def _choose(
    batch: _Batch, residuals: np.ndarray, level: nearest_numpy.Level, buffer: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Choose a last code for each item of a batch.

    Args:
        batch: the items.
        residuals: float64 (m, D).
        level: the last codebook.
        buffer: float32, at least m K numbers.

    Returns:
        Bool (c,), whether the items of a prefix got codes, and int64 (m,), these codes.
    """
    pairs, is_settled = _list(batch, residuals, level, buffer)
    kind, is_told_apart = _kinds(batch, residuals, pairs)
    is_settled &= is_told_apart
    is_kept = is_settled[batch.crowd[pairs.item]]
    pairs = _Pairs(*(part[is_kept] for part in pairs))

    # Of equal items the lowest stays, and the nearest codes go to the lower rows.
    own = batch.codes[:, -1].astype(np.int64)
    own_error = pair_errors(residuals, level.codewords, np.arange(len(own)), own)
    codes = _assign(
        batch, pairs, pairs.error - own_error[pairs.item], is_settled, len(level.halves)
    )
    alike = np.flatnonzero((np.bincount(kind)[kind] > 1) & is_settled[batch.crowd])
    cost = pair_errors(residuals, level.codewords, alike, codes[alike])
    cost[codes[alike] == own[alike]] = -np.inf
    by_row = alike[np.lexsort((alike, kind[alike]))]
    codes[by_row] = codes[alike[np.lexsort((codes[alike], cost, kind[alike]))]]
    return is_settled, codes


def _list(
    batch: _Batch, residuals: np.ndarray, level: nearest_numpy.Level, buffer: np.ndarray
) -> tuple[_Pairs, np.ndarray]:
    """List for each item as many nearest free codes as items move under its prefix.

    Args and result as in :func:`_choose`: a prefix is not settled where errors are equal, or where
    too many codes are equally near as far as the product tells.
    """
    # Half squared distances, less half of the residuals' own: (m, K). Taken codes are infinite.
    n_items, n_codes = len(residuals), len(level.halves)
    rows = residuals.astype(np.float32)
    scores = buffer[: n_items * n_codes].reshape(n_items, n_codes)
    np.matmul(rows, level.codewords.T, out=scores)
    np.subtract(level.halves, scores, out=scores)
    scores[batch.taken[0], batch.taken[1]] = np.inf

    # All codes that may be among the nearest, as far as rounding goes.
    n_moving = batch.n_moving
    squares = np.einsum("ij,ij->i", rows, rows)
    limit = _bound(scores, n_moving)
    limit += nearest_numpy.margin(squares, level.max_norm, 0.0, residuals.shape[1])
    item, code = np.divmod(np.flatnonzero(scores <= limit[:, None]), n_codes)
    is_settled = np.ones(len(batch.bounds) - 1, dtype=bool)
    is_long = np.bincount(item, minlength=n_items) > 2 * n_moving + CODES_AROUND
    is_settled[batch.crowd[is_long]] = False
    is_kept = is_settled[batch.crowd[item]]
    item, code = item[is_kept], code[is_kept]

    # The nearest of them by their exact errors.
    error = pair_errors(residuals, level.codewords, item, code)
    order = np.lexsort((error, item))
    item, code, error = item[order], code[order], error[order]
    rank = np.arange(len(item)) - np.searchsorted(item, item)
    is_tied = (item[1:] == item[:-1]) & (error[1:] == error[:-1]) & (rank[1:] <= n_moving[item[1:]])
    is_settled[batch.crowd[item[1:][is_tied]]] = False
    is_listed = rank < n_moving[item]
    return _Pairs(item[is_listed], code[is_listed], error[is_listed]), is_settled


def _bound(scores: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """A bound of the smallest scores of each row: at least so many of them lie below it or on it.

    Minima of groups of columns bound the scores: of few columns a partition takes a fraction of the
    time, and the bound is hardly higher.

    Args:
        scores: float32 (m, K).
        ranks: int64 (m,), how many, from 1 to ``MOST_MOVES``.

    Returns:
        float32 (m,).
    """
    minima = scores
    if scores.shape[1] >= 2 * GROUPS:
        minima = scores[:, :GROUPS].copy()
        for start in range(GROUPS, scores.shape[1] - GROUPS + 1, GROUPS):
            np.minimum(minima, scores[:, start : start + GROUPS], out=minima)
    ranked = np.partition(minima, np.unique(ranks - 1), axis=1)
    bound: np.ndarray = ranked[np.arange(len(ranks)), ranks - 1]
    return bound


def _kinds(batch: _Batch, residuals: np.ndarray, pairs: _Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Number the items so that those of one code and equal residuals have one number: int64 (m,).

    Equal residuals have equal errors, so that few have to be compared. The second array, bool (c,),
    is false for prefixes of items whose residuals differ and whose least errors do not.
    """
    nearest = np.full(len(residuals), np.nan)  # the least error of each item
    nearest[pairs.item[::-1]] = pairs.error[::-1]
    order = np.lexsort((nearest, batch.leaves))
    is_alike = np.zeros(len(order), dtype=bool)  # like the item before it
    is_alike[1:] = np.diff(batch.leaves[order]) == 0
    is_alike[1:] &= nearest[order[1:]] == nearest[order[:-1]]

    # Compare neighbours of equal errors.
    is_told_apart = np.ones(len(batch.bounds) - 1, dtype=bool)
    suspects = np.flatnonzero(is_alike)
    differ = (residuals[order[suspects]] != residuals[order[suspects - 1]]).any(axis=1)
    is_told_apart[batch.crowd[order[suspects[differ]]]] = False
    kind = np.empty(len(order), dtype=np.int64)
    kind[order] = np.cumsum(~is_alike)
    return kind, is_told_apart


def _assign(
    batch: _Batch, pairs: _Pairs, added: np.ndarray, is_settled: np.ndarray, n_codes: int
) -> np.ndarray:
    """Solve the assignment of each settled prefix: every code that is not held keeps one item.

    Args:
        batch: the items.
        pairs: their lists; none for items of prefixes that are not settled.
        added: float64 (P,), the error that each pair adds.
        is_settled: bool (c,).
        n_codes: K.

    Returns:
        int64 (m,), the code of each item; its own where the prefix is not settled.
    """
    # The columns of each prefix: codes that keep an item, then free codes.
    n_prefixes, n_items = len(is_settled), len(batch.rows)
    keeps = np.flatnonzero(~batch.is_held)
    kept, kept_column, kept_start = _columns(
        batch.crowd[keeps], batch.codes[keeps, -1], n_codes, n_prefixes
    )
    of_pair = batch.crowd[pairs.item]
    free, free_column, free_start = _columns(of_pair, pairs.code, n_codes, n_prefixes)
    n_kept = np.diff(kept_start)
    widths = n_kept + np.diff(free_start)

    # One matrix (items, columns) per prefix, all of them in one array.
    sizes = np.diff(batch.bounds)
    corners = np.r_[0, np.cumsum(sizes * widths)]
    position = np.arange(n_items) - batch.bounds[batch.crowd]  # among the items of the prefix
    first = corners[batch.crowd] + position * widths[batch.crowd]  # (m,), where each row begins
    costs = np.full(corners[-1], np.inf)

    # A solver breaks ties in its own order; a nudge makes the higher row move. The bonus of an item
    # that stays outweighs all moves.
    scale = np.zeros(n_prefixes)
    np.maximum.at(scale, of_pair, np.abs(added))
    scale[scale == 0] = 1.0
    nudge = (TIE * scale * sizes)[batch.crowd] * position
    costs[first[pairs.item] + n_kept[of_pair] + free_column] = added - nudge[pairs.item]
    costs[first[keeps] + kept_column] = (-4.0 * sizes * scale)[batch.crowd[keeps]]

    codes = batch.codes[:, -1].astype(np.int64)
    for number in np.flatnonzero(is_settled).tolist():
        matrix = costs[corners[number] : corners[number + 1]].reshape(sizes[number], -1)
        column = linear_sum_assignment(matrix)[1]
        of_prefix = np.concatenate(
            [
                kept[kept_start[number] : kept_start[number + 1]],
                free[free_start[number] : free_start[number + 1]],
            ]
        )
        codes[batch.bounds[number] : batch.bounds[number + 1]] = of_prefix[column]
    return codes


def _columns(
    crowd: np.ndarray, code: np.ndarray, n_codes: int, n_prefixes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number the distinct codes under each prefix.

    Args:
        crowd: int64 (n,), prefixes.
        code: int (n,), a code under each.
        n_codes: K.
        n_prefixes: c.

    Returns:
        The codes of all prefixes; int64 (n,), the position of each code among those of its prefix;
        and int64 (c + 1,), where the codes of each prefix begin.
    """
    keys, inverse = np.unique(crowd * n_codes + code, return_inverse=True)
    starts = np.searchsorted(keys, np.arange(n_prefixes + 1) * n_codes)
    return keys % n_codes, inverse - starts[crowd], starts
