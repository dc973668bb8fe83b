"""How many rows faiss has to be given to train its parts: it does not check all of them itself.

Letters: n rows, D dimensions, k centroids.

Plain arithmetic, so that it can be asked before faiss is called. A learned rotation works on
matrices of D x D in memory that it takes for n x D: with fewer rows than dimensions it would write
past their end. Clustering needs a row per centroid at least, and says so itself, but only after
what comes before it has been trained.

Source: https://github.com/facebookresearch/faiss/blob/main/faiss/VectorTransform.cpp
"""

ROOM = 2  # times the dimensions: more than the rotation needs
FEW_ROWS = 39  # per centroid: below it faiss finds its centroids badly placed


def rotation_rows(d_in: int, d_out: int) -> int:
    """Rows that a rotation from ``d_in`` to ``d_out`` dimensions is to be learned from."""
    return ROOM * max(d_in, d_out)


def opq_rows(d_in: int, d_out: int, n_bits: int) -> int:
    """Rows for OPQ: its rotation, and the ``2**n_bits`` centroids that each part has meanwhile."""
    result: int = max(rotation_rows(d_in, d_out), 2**n_bits)
    return result


def are_few(n_rows: int, n_centroids: int) -> bool:
    """Whether rows are few to find so many centroids by."""
    return n_rows < FEW_ROWS * n_centroids
