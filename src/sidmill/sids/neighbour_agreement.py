"""Do items that are near by their vectors stay near by their codes?

Nearest items are found twice, by vectors and by what the codes decode to;
:mod:`sidmill.numeric.list_overlap` compares the two lists.

Shapes: N items, D dimensions, Q queries, k neighbours of each, S distinct codes.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from sidmill.core.faiss_library import faiss
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
