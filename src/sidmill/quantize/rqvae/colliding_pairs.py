"""Which items share all their codes, as pairs that a loss can part."""

import numpy as np

NONE = np.empty((0, 2), dtype=np.int64)


def pairs(codes: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Pair each item with the next one of equal codes: int64 (C, 2), by code and row.

    Args:
        codes: int32 (N, L).
        usable: bool (N,), items that may be trained on.
    """
    rows = np.flatnonzero(usable)
    order = rows[np.lexsort(codes[rows].T[::-1])]  # stable: equal codes by row
    same = (codes[order[1:]] == codes[order[:-1]]).all(axis=1)
    return np.column_stack([order[:-1][same], order[1:][same]])
