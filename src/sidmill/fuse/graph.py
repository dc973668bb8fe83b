"""Mix the vector of an item with those of the items that are consumed together with it.

    fused_i = (1 - g_i) t_i + g_i |t_i| sum_j w_ij t_j / |t_j|
    g_i     = weight * n_i / (n_i + shrinkage)

t_i is the text vector of item i, n_i the number of users who have it in training, and w_ij the
cosine of co-consumption, scaled to the sum 1 over the neighbours j. Items without neighbours have
g_i = 0. This is one step of propagation over the item graph, as in LightGCN
(https://arxiv.org/abs/2002.02126), without training.

Letters: N items, D dimensions, b items of one block, m neighbours of all items of one block.
"""

from collections.abc import Iterator

import numpy as np
from scipy import sparse

from sidmill.fuse.cooccurrence import MIB, Neighbours
from sidmill.numeric.row_blocks import FLOAT_BYTES, MAX_BLOCK_ROWS, require_finite, take
from sidmill.settings.fuse import Fuse

COPIES = 3  # of a block of vectors, temporaries included
SHORTEST = np.finfo(np.float32).tiny


def blocks(
    vectors: np.ndarray, found: Iterator[Neighbours], users: np.ndarray, settings: Fuse
) -> Iterator[np.ndarray]:
    """Yield the fused vectors of all items in order: float32 (b, D).

    Memory: ``settings.memory_mb``, or the neighbours of one item where these take more.

    Args:
        vectors: float32 or float16 (N, D), a read-only map.
        found: of :func:`sidmill.fuse.cooccurrence.find`.
        users: int64 (N,), n_i.
        settings: weight, shrinkage, neighbours, normalize, memory_mb.

    Raises:
        SidmillError: if a vector is not finite.
    """
    row_bytes = COPIES * FLOAT_BYTES * vectors.shape[1] * (settings.neighbours + 1)
    n_rows = min(max(settings.memory_mb * MIB // row_bytes, 1), MAX_BLOCK_ROWS)
    for lists in found:
        n_items = len(lists.bounds) - 1
        for start in range(0, n_items, n_rows):
            yield _mix(vectors, lists, slice(start, min(start + n_rows, n_items)), users, settings)


def gates(users: np.ndarray, settings: Fuse) -> np.ndarray:
    """Weight of the interactions of items by the users who have them: float64, 0 for no user."""
    weights: np.ndarray = settings.weight * users / np.maximum(users + settings.shrinkage, 1e-9)
    return weights


def _mix(
    vectors: np.ndarray, lists: Neighbours, block: slice, users: np.ndarray, settings: Fuse
) -> np.ndarray:
    """Fused vectors of some items of a range: float32 (b, D)."""
    numbers = np.arange(lists.first + block.start, lists.first + block.stop)
    text = take(vectors, numbers)
    require_finite(text, int(numbers[0]))
    bounds = lists.bounds[block.start : block.stop + 1]
    has_neighbours = np.diff(bounds) > 0
    if not has_neighbours.any():
        return text

    # (b, m'), cosines scaled to the sum 1, by (m', D), directions of the different neighbours.
    part = slice(bounds[0], bounds[-1])
    sums = np.add.reduceat(lists.cosines[part], (bounds[:-1] - bounds[0])[has_neighbours])
    shares = lists.cosines[part] / np.repeat(sums, np.diff(bounds)[has_neighbours])
    different, columns = np.unique(lists.rows[part], return_inverse=True)
    shape = (len(numbers), len(different))
    weights = sparse.csr_matrix(
        (shares.astype(np.float32), columns, bounds - bounds[0]), shape=shape
    )
    near = take(vectors, different)
    near /= np.maximum(lengths_of(near), SHORTEST)
    means = (weights @ near)[has_neighbours]

    # Only items with neighbours change: the others keep every bit of their text.
    own = text[has_neighbours]
    lengths = lengths_of(own)
    gate = gates(users[numbers[has_neighbours]], settings).astype(np.float32)[:, None]
    mixed = (1 - gate) * own + gate * lengths * means
    if settings.normalize:
        mixed *= lengths / np.maximum(lengths_of(mixed), SHORTEST)
    text[has_neighbours] = mixed
    return text


def lengths_of(block: np.ndarray) -> np.ndarray:
    """Euclidean lengths of the rows of float32 (b, D): float32 (b, 1)."""
    lengths: np.ndarray = np.linalg.norm(block, axis=1, keepdims=True)
    return lengths
