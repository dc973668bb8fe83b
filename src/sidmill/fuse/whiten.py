"""Bring the variances of fused vectors nearer to each other, and keep the largest.

    whitened = (x - mean) E diag((v + floor) ^ -power)

E are the principal axes of the vectors of the items that have users, v their variances. A residual
quantizer spends its first codewords on the axes of large variance. Most of these say what kind of
text it is; which item a user takes next is said by many axes. The moments are those of items with
users: new items without interactions change no other vector.

Source: https://arxiv.org/abs/2402.10602 for item vectors; here with a power below that of full
whitening, 1/2. Where fewer items than axes have users, the moments are those of all items.

Letters: N items, D dimensions, d axes that are kept, b rows of one block.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from sidmill.fuse.graph import lengths_of
from sidmill.numeric.moments import Moments
from sidmill.numeric.row_blocks import read_blocks
from sidmill.settings.fuse import Fuse

FLOOR = 0.01  # added to every variance, as a share of their mean
BLOCK_ROWS = 8192
SHORTEST = np.finfo(np.float32).tiny


class Whitening(NamedTuple):
    """Subtract ``mean`` float32 (D,), then multiply by ``matrix`` float32 (D, d)."""

    mean: np.ndarray
    matrix: np.ndarray


def fit(vectors: np.ndarray, users: np.ndarray, settings: Fuse) -> Whitening:
    """Measure the vectors of items with users. Memory: two blocks, and four float64 (D, D).

    Args:
        vectors: float32 (N, D), a read-only map.
        users: int64 (N,), users who have each item.
        settings: whiten, whiten_dim.
    """
    dim = vectors.shape[1]
    rows = measured_rows(users, dim)
    moments = Moments(np.zeros(dim), np.zeros((dim, dim)))
    for _, block in read_blocks(vectors, BLOCK_ROWS, rows):
        moments.add(block.astype(np.float64))

    # Axes of the largest variances first; the sign of an axis is that of its largest component.
    variances, axes = np.linalg.eigh(moments.covariance())
    variances, axes = variances[::-1].clip(min=0), axes[:, ::-1]
    largest = np.abs(axes).argmax(axis=0)
    axes = axes * np.sign(axes[largest, np.arange(dim)])
    floor = max(FLOOR * variances.mean(), float(SHORTEST))
    matrix = axes * (variances + floor) ** -settings.whiten
    kept = dim if settings.whiten_dim is None else min(settings.whiten_dim, dim)
    return Whitening(moments.mean().astype(np.float32), matrix[:, :kept].astype(np.float32))


def measured_rows(users: np.ndarray, dim: int) -> np.ndarray:
    """Rows of the items that give mean and axes: int64, ascending.

    Args:
        users: int64 (N,), users who have each item.
        dim: D; moments of no more items than that leave axes undetermined.
    """
    rows = np.flatnonzero(users)
    return rows if len(rows) > dim else np.arange(len(users))


def blocks(vectors: np.ndarray, whitening: Whitening, text: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the whitened vectors of all items in order: float32 (b, d), as long as those of text.

    Memory: three blocks.

    Args:
        vectors: float32 (N, D), a read-only map.
        whitening: of :func:`fit`.
        text: float32 or float16 (N, ...), the text vectors.
    """
    pairs = zip(read_blocks(vectors, BLOCK_ROWS), read_blocks(text, BLOCK_ROWS), strict=True)
    for (_, block), (_, own) in pairs:
        whitened = (block - whitening.mean) @ whitening.matrix
        yield whitened * (lengths_of(own) / np.maximum(lengths_of(whitened), SHORTEST))
