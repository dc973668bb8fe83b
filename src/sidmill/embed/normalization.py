"""Unit length: vectors scaled to L2 norm 1."""

import numpy as np

TOLERANCE = (
    1e-6  # a norm this close to 1 is 1: float32 vectors that are normalised stay as they are
)


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Scale each row to length 1.

    Rows that have that length already keep their bits, so doing it twice does nothing. Rows
    without a direction (zero, or not finite) are left for the vector store to refuse.

    Args:
        vectors: float32 (n, D).

    Returns:
        float32 (n, D).
    """
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    uneven = np.isfinite(norms) & (norms > 0) & (np.abs(norms - 1) > TOLERANCE)
    scaled = np.array(vectors, dtype=np.float32)
    scaled[uneven] = vectors[uneven] / norms[uneven, None]
    return scaled
