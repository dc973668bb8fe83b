"""Append factors of co-consumption to the text vector of an item.

    fused_i = [sqrt(1 - g_i) t_i, sqrt(g_i) |t_i| f_i],   g_i = weight * n_i / (n_i + shrinkage)

t_i is the text vector, n_i the number of users who have the item in training, and f_i the factor of
the item, of length 1. So the vector has the length of its text vector, and for items of equal
lengths and gates its cosine is (1 - g) cos(text) + g cos(factors): ``weight`` is a share whatever
the scale of the text. Items without factors have g_i = 0: their text, then zeros.

Factors are those of the matrix of positive pointwise mutual information (PPMI) of co-consumed
items, discounted by c / (c + shrinkage) for c users, as U sqrt(S) of its truncated SVD: Levy,
Goldberg and Dagan 2015 (https://doi.org/10.1162/tacl_a_00134), for items.

Letters: N items, W items with neighbours, k neighbours, r factors, D dimensions of the text.
"""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from scipy import sparse

from sidmill.fuse.cooccurrence import MIB, Neighbours
from sidmill.fuse.graph import gates, lengths_of
from sidmill.numeric.row_blocks import FLOAT_BYTES, MAX_BLOCK_ROWS, read_blocks, require_finite
from sidmill.settings.fuse import Fuse

COPIES = 4  # of a block of vectors, temporaries included
LEAST_LENGTH = 1e-6  # of a factor, as a share of the longest; below it is noise of the SVD


class Pairs(NamedTuple):
    """Neighbours of all W items that have any, by their numbers in [0, W).

    Attributes:
        rows: int64 (W,), ascending, rows of the item vectors.
        counts: int32 sparse (W, W), users who consumed both together.
        totals: float64 (W,), sum of counts over all neighbours, those left out too.
    """

    rows: np.ndarray
    counts: sparse.csr_matrix
    totals: np.ndarray


class Factors(NamedTuple):
    """Factors of the items that have any.

    Attributes:
        rows: int64 (W,), ascending, rows of the item vectors.
        values: float32 (W, r), each row of length 1, or 0 where the item has none.
    """

    rows: np.ndarray
    values: np.ndarray


def gather(found: Iterator[Neighbours]) -> Pairs:
    """Collect the neighbours of all items. Memory: 8 bytes per neighbour, at most 8 W k, twice."""
    rows, lengths, columns, counts, totals = [], [], [], [], []
    for lists in found:
        n_neighbours = np.diff(lists.bounds)
        is_kept = n_neighbours > 0
        rows.append(lists.first + np.flatnonzero(is_kept))
        lengths.append(n_neighbours[is_kept])
        columns.append(lists.rows)
        counts.append(lists.counts)
        totals.append(lists.totals[is_kept])

    # Co-consumption is mutual, so the neighbours are among the items that have neighbours.
    every = np.concatenate(rows)
    bounds = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    numbers = np.searchsorted(every, np.concatenate(columns)).astype(np.int32)
    matrix = sparse.csr_matrix(
        (np.concatenate(counts), numbers, bounds), shape=(len(every), len(every))
    )
    return Pairs(every, matrix, np.concatenate(totals).astype(np.float64))


def digest(pairs: Pairs, ids: pa.Array) -> str:
    """Name the co-consumption that factors are of: 16 hex digits.

    Factors of other interactions have other axes, so a quantizer must not take them for its own.
    Items without interactions do not count.
    """
    named = "\n".join(map(str, ids.take(pa.array(pairs.rows)).to_pylist()))
    total = hashlib.sha256(named.encode())
    for array in (pairs.counts.indptr, pairs.counts.indices, pairs.counts.data, pairs.totals):
        total.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
    return total.hexdigest()[:16]


def factorise(pairs: Pairs, settings: Fuse, seed: int) -> Factors:
    """Factors of all items with neighbours.

    Memory: 64 bytes per neighbour, at most 64 W k, and 40 bytes x W x (r + 10).

    Args:
        pairs: of :func:`gather`.
        settings: dim (r), shrinkage.
        seed: of the randomised SVD.
    """
    from sklearn.utils.extmath import randomized_svd  # slow to import; graph does not need it

    values = np.zeros((len(pairs.rows), settings.dim), np.float32)
    if not len(pairs.rows):
        return Factors(pairs.rows, values)

    # U sqrt(S), each row scaled to length 1; fewer items than factors leave zeros.
    information = _information(pairs, settings.shrinkage)
    left, singular, _ = randomized_svd(information, settings.dim, random_state=seed)
    factors = left * np.sqrt(singular)
    lengths = np.linalg.norm(factors, axis=1, keepdims=True)
    is_noise = lengths <= LEAST_LENGTH * lengths.max()
    scaled = np.where(is_noise, 0, factors / np.where(is_noise, 1, lengths))
    values[:, : scaled.shape[1]] = scaled
    return Factors(pairs.rows, values)


def rotate(factors: Factors, onto: Factors) -> Factors:
    """Rotate factors onto the axes of others, by the items that both have.

    The rotation leaves products of the factors as they are: orthogonal Procrustes, Schönemann
    1966, https://doi.org/10.1007/BF02289451.

    Args:
        factors: float32 (W, r), of other interactions.
        onto: float32 (W', r).
    """
    _, ours, theirs = np.intersect1d(factors.rows, onto.rows, return_indices=True)
    cross = factors.values[ours].astype(np.float64).T @ onto.values[theirs]
    left, _, right = np.linalg.svd(cross)
    return factors._replace(values=(factors.values @ (left @ right)).astype(np.float32))


def _information(pairs: Pairs, shrinkage: float) -> sparse.csr_matrix:
    """Discounted PPMI, float64 sparse (W, W), where one item of a pair kept the other."""
    # log(c_ij T / (T_i T_j)), in one array: T_i are the totals, T is their sum.
    counts = pairs.counts.data.astype(np.float64)
    values = counts * pairs.totals.sum()
    values /= np.repeat(pairs.totals, np.diff(pairs.counts.indptr))
    values /= pairs.totals[pairs.counts.indices]
    np.log(values, out=values)
    np.maximum(values, 0, out=values)

    # Times c / (c + shrinkage), and the same in both directions.
    values *= counts
    counts += shrinkage
    values /= counts
    shape = pairs.counts.shape
    matrix = sparse.csr_matrix((values, pairs.counts.indices, pairs.counts.indptr), shape)
    return matrix.maximum(matrix.T).tocsr()


def blocks(
    vectors: np.ndarray, factors: Factors, users: np.ndarray, settings: Fuse
) -> Iterator[np.ndarray]:
    """Yield the fused vectors of all items in order: float32 (b, D + r).

    Memory: the factors, and ``settings.memory_mb``.

    Args:
        vectors: float32 or float16 (N, D), a read-only map.
        factors: of :func:`factorise`.
        users: int64 (N,), n_i.
        settings: weight, shrinkage, memory_mb.

    Raises:
        SidmillError: if a vector is not finite.
    """
    dim, n_factors = vectors.shape[1], factors.values.shape[1]
    row_bytes = COPIES * FLOAT_BYTES * (dim + n_factors)
    n_rows = min(max(settings.memory_mb * MIB // row_bytes, 1), MAX_BLOCK_ROWS)
    for start, text in read_blocks(vectors, n_rows):
        require_finite(text, start)
        fused = np.zeros((len(text), dim + n_factors), np.float32)
        fused[:, :dim] = text

        # Only items with factors change: the others keep every bit of their text.
        low, high = np.searchsorted(factors.rows, [start, start + len(text)])
        values = factors.values[low:high]
        has_factors = values.any(axis=1)
        values, rows = values[has_factors], factors.rows[low:high][has_factors]
        own = text[rows - start]
        gate = gates(users[rows], settings).astype(np.float32)[:, None]
        fused[rows - start, :dim] = np.sqrt(1 - gate) * own
        fused[rows - start, dim:] = np.sqrt(gate) * lengths_of(own) * values
        yield fused
