"""How far two lists of nearest neighbours agree.

Jaccard is the share of items in both lists among the items in either; rank-biased overlap gives the
top of the lists more weight (Webber, Moffat and Zobel 2010,
https://doi.org/10.1145/1852102.1852106).

Shapes: Q queries, k neighbours of each, no neighbour twice.
"""

import numpy as np


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """Mean over queries of shared items over all items of two lists, int64 (Q, k) each."""
    shared = _shared_counts(one, other)[:, -1]
    return float((shared / (2 * one.shape[1] - shared)).mean())


def rank_biased_overlap(one: np.ndarray, other: np.ndarray, persistence: float) -> float:
    """Mean rank-biased overlap of lists int64 (Q, k), scaled so that equal lists have 1.

    The share of common items among the first d of both, for d from 1 to k, weighed by
    ``persistence ** (d - 1)``.
    """
    depths = np.arange(1, one.shape[1] + 1)
    weights = persistence ** (depths - 1.0)
    return float((_shared_counts(one, other) / depths @ weights / weights.sum()).mean())


def _shared_counts(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Int64 (Q, k): how many items the first 1, 2, ..., k of two lists share."""
    # A pair of equal items counts from the depth on at which both have been seen.
    query, first, second = np.nonzero(one[:, :, None] == other[:, None, :])
    counts = np.zeros(one.shape, dtype=np.int64)
    np.add.at(counts, (query, np.maximum(first, second)), 1)
    return counts.cumsum(axis=1)
