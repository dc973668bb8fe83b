"""The items that a recommender knows: their ids, their text embeddings, and a number for each.

Item number r, in [0, N), is row r of the embeddings. Shapes: N items, D dimensions.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from sidmill.codec import require_finite
from sidmill.core.errors import SidmillError

BLOCK_ROWS = 4096
WHITENING_FLOOR = 0.01  # added to every variance, as a share of their mean
RANK_FLOOR = 1e-6  # directions of less variance than this share of the largest hold nothing


class Items(NamedTuple):
    """``ids`` has N rows, ``vectors`` is a read-only map (N, D), ``numbers`` finds ids in ids."""

    ids: pa.Array
    vectors: np.ndarray
    numbers: pd.Index


class Whitening(NamedTuple):
    """``mean`` float32 (D,) is taken off, ``matrix`` float32 (D, D) multiplied from the right."""

    mean: np.ndarray
    matrix: np.ndarray


def of_store(ids: pa.ChunkedArray, vectors: np.ndarray) -> Items:
    """Take the items of vectors.npy. Memory: the ids, and a hash table of them."""
    return Items(ids.combine_chunks(), vectors, pd.Index(ids.to_numpy()))


def of_maps(index: np.ndarray, vectors: np.ndarray) -> Items:
    """Take the items of memory maps.

    Args:
        index: int32 (M,), item id to row of ``vectors``; 0 where there is no such item.
        vectors: float (N + 1, D), row 0 for padding.

    Raises:
        SidmillError: if a row of ``vectors`` has no item id, or several.
    """
    known = np.flatnonzero(index)
    order = np.argsort(index[known], kind="stable")
    rows = index[known][order]
    if not np.array_equal(rows, np.arange(1, len(vectors))):
        raise SidmillError(
            f"the memory maps name {len(known)} items for {len(vectors) - 1} vectors, "
            f"{len(np.unique(rows))} of them different: each row but the first wants one item id"
        )
    ids = known[order].astype(np.int64)
    return Items(pa.array(ids), vectors[1:], pd.Index(ids))


def look_up(items: Items, ids: pa.Array, where: str) -> np.ndarray:
    """Numbers of items, int32 (n,).

    Raises:
        SidmillError: if one has no embedding.
    """
    if ids.type != items.ids.type:
        raise SidmillError(
            f"{where} has item ids of {ids.type}, the embeddings {items.ids.type}: set "
            f"items.id_type to int or string for both"
        )
    numbers = items.numbers.get_indexer(ids.to_numpy(zero_copy_only=False))
    missing = np.flatnonzero(numbers < 0)
    if missing.size:
        raise SidmillError(
            f"{where}: {missing.size} interactions are with items that have no embedding, first "
            f"{ids[int(missing[0])].as_py()!r}: read the interactions against the same catalogue"
        )
    return numbers.astype(np.int32)


def gather(items: Items, whitening: Whitening | None, numbers: np.ndarray | slice) -> np.ndarray:
    """Text embeddings of some items, as the model sees them: float32 (n, D).

    Raises:
        SidmillError: if a vector is not finite.
    """
    block = np.asarray(items.vectors[numbers], dtype=np.float32)
    require_finite(block, 0)
    return block if whitening is None else (block - whitening.mean) @ whitening.matrix


def measure_whitening(items: Items) -> Whitening:
    """Find the transformation that gives the embeddings mean 0 and covariance near 1.

    Text encoders crowd their vectors into a narrow cone; whitened ones recommend better
    (https://arxiv.org/abs/2402.10602). Memory: 3 D x D doubles and one block of rows.
    """
    n_items, dim = items.vectors.shape
    total, products = np.zeros(dim), np.zeros((dim, dim))
    for start in range(0, n_items, BLOCK_ROWS):
        block = np.asarray(items.vectors[start : start + BLOCK_ROWS], dtype=np.float64)
        require_finite(block, start)
        total += block.sum(axis=0)
        products += block.T @ block
    mean = total / n_items
    variances, axes = np.linalg.eigh(products / n_items - np.outer(mean, mean))
    scales = np.zeros(dim)
    full = variances > RANK_FLOOR * variances.max()
    scales[full] = (variances[full] + WHITENING_FLOOR * variances.mean()) ** -0.5
    return Whitening(mean.astype(np.float32), (axes * scales).astype(np.float32))
