"""How many rows faiss needs to train each part of an index: it does not check all of them itself.

Letters: n rows, D dimensions, k centroids.

Plain arithmetic, so that the sizes are checked before faiss is called. A learned rotation works on
matrices of D x D in memory that it allocates as n x D: with fewer rows than dimensions it would
write past the end. Clustering needs at least a row per centroid; faiss checks this, but only after
it has trained the parts before it.

Source: https://github.com/facebookresearch/faiss/blob/main/faiss/VectorTransform.cpp
"""

ROTATION_ROWS = 2  # per dimension: more than the rotation needs
FEW_ROWS = 39  # per centroid: below it faiss warns that the centroids are poor


def rotation_rows(d_in: int, d_out: int) -> int:
    """Rows to learn a rotation from ``d_in`` to ``d_out`` dimensions from."""
    return ROTATION_ROWS * max(d_in, d_out)


def opq_rows(d_in: int, d_out: int, n_bits: int) -> int:
    """Rows for OPQ: for its rotation, and for ``2**n_bits`` centroids of each subspace."""
    return max(rotation_rows(d_in, d_out), 1 << n_bits)


def are_few(n_rows: int, n_centroids: int) -> bool:
    """Whether ``n_rows`` are few to find ``n_centroids`` centroids by k-means."""
    return n_rows < FEW_ROWS * n_centroids
