"""Do items that are near by their vectors stay near by their codes?

Nearest items are found twice, by vectors and by what the codes decode to, and the two lists are
compared: Jaccard, the items they share, and rank-biased overlap, which weighs the top more
(Webber, Moffat and Zobel 2010, https://doi.org/10.1145/1852102.1852106).

Shapes: N items, D dimensions, Q queries, k neighbours of each, S distinct codes.
"""

from collections.abc import Callable, Iterable, Iterator

import faiss
import numpy as np

from sidmill.numeric import row_blocks
from sidmill.sids import prefixes


def nearest_items(vectors: np.ndarray, queries: np.ndarray, n_neighbours: int) -> np.ndarray:
    """Find the nearest other items of some items by exact squared distance.

    Memory: one block of vectors, and the queries.

    Args:
        vectors: float (N, D), may be a memory map.
        queries: int64 (Q,), rows of the items.
        n_neighbours: k, below N.

    Returns:
        int64 (Q, k), nearest first, the item itself left out.
    """
    blocks = row_blocks.read_blocks(vectors, row_blocks.MAX_BLOCK_ROWS)
    nearest = _nearest_rows(row_blocks.take(vectors, queries), blocks, n_neighbours + 1)
    # Drop the query's own row; among many identical vectors it may be absent: then the last one.
    own = nearest == queries[:, None]
    own[~own.any(axis=1), -1] = True
    others: np.ndarray = nearest[~own].reshape(len(queries), n_neighbours)
    return others


def nearest_by_code(
    codes: np.ndarray,
    sizes: list[int],
    decode: Callable[[np.ndarray], np.ndarray],
    queries: np.ndarray,
    n_neighbours: int,
    seed: int,
) -> np.ndarray:
    """Find the nearest other items of some items by the vectors that their codes decode to.

    Items of one code have one such vector: they come in random order. Memory: one block of decoded
    codes, the queries, and some 30 bytes per item.

    Args:
        codes: int32 (N, L).
        sizes: K_l per level.
        decode: from codes int32 (n, L) to float32 (n, D).
        queries: int64 (Q,), rows of the items.
        n_neighbours: k, below N.
        seed: covers the order of the items of one code.

    Returns:
        int64 (Q, k), nearest first, the item itself left out.
    """
    number = prefixes.number(codes, sizes).numbers[-1]
    shuffled = np.random.default_rng(seed).permutation(len(codes))
    order = shuffled[np.argsort(number[shuffled], kind="stable")]  # by code, random within it
    bounds = np.r_[0, np.cumsum(np.bincount(number))]
    distinct = codes[order[bounds[:-1]]]  # (S, L)

    def decoded() -> Iterator[tuple[int, np.ndarray]]:
        for start in range(0, len(distinct), row_blocks.MAX_BLOCK_ROWS):
            yield start, decode(distinct[start : start + row_blocks.MAX_BLOCK_ROWS])

    near = _nearest_rows(decode(codes[queries]), decoded(), min(n_neighbours + 1, len(distinct)))
    neighbours = np.empty((len(queries), n_neighbours), dtype=np.int64)
    for line, query in enumerate(queries):
        # The query's own code comes first: equal distances may differ by rounding.
        own_first = [number[query], *near[line][near[line] != number[query]]]
        by_code = [order[bounds[c] : bounds[c + 1]][: n_neighbours + 1] for c in own_first]
        items = np.concatenate(by_code)
        neighbours[line] = items[items != query][:n_neighbours]
    return neighbours


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """Mean over queries of shared items over all items of two lists, int64 (Q, k) each."""
    shared = _agreement(one, other)[:, -1]
    return float((shared / (2 * one.shape[1] - shared)).mean())


def rank_biased_overlap(one: np.ndarray, other: np.ndarray, persistence: float) -> float:
    """Mean rank-biased overlap of lists int64 (Q, k), scaled so that equal lists have 1.

    The share of common items among the first d of both, for d from 1 to k, weighed by
    ``persistence ** (d - 1)``.
    """
    depths = np.arange(1, one.shape[1] + 1)
    weights = persistence ** (depths - 1.0)
    return float((_agreement(one, other) / depths @ weights / weights.sum()).mean())


def _agreement(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Int64 (Q, k): how many items the first 1, 2, ..., k of two lists share."""
    # A pair of equal items counts from the depth on at which both have been seen.
    query, first, second = np.nonzero(one[:, :, None] == other[:, None, :])
    counts = np.zeros(one.shape, dtype=np.int64)
    np.add.at(counts, (query, np.maximum(first, second)), 1)
    return counts.cumsum(axis=1)


def _nearest_rows(
    queries: np.ndarray, blocks: Iterable[tuple[int, np.ndarray]], n_rows: int
) -> np.ndarray:
    """Rows of the ``n_rows`` nearest of all blocks to each of the queries: int64 (Q, n_rows).

    Blocks are made while they are read, and distances are squared Euclidean ones as faiss rounds
    them: :mod:`sidmill.numeric.exact_search` finds inner products in a store.
    """
    best = np.full((len(queries), n_rows), np.inf, dtype=np.float32)
    nearest = np.full(best.shape, -1, dtype=np.int64)
    for start, block in blocks:
        distances, rows = faiss.knn(queries, block, min(n_rows, len(block)))
        distances = np.column_stack([best, distances])
        rows = np.column_stack([nearest, rows + start])
        order = np.argsort(distances, axis=1, kind="stable")[:, :n_rows]
        best = np.take_along_axis(distances, order, axis=1)
        nearest = np.take_along_axis(rows, order, axis=1)
    return nearest
