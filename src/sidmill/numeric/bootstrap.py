"""Bootstrap over users: the same draws for everything that is measured on the same users.

Shapes: U users, C columns, R resamples.
"""

import numpy as np

INTERVAL = (2.5, 97.5)  # percentiles of a 95 % interval


def resample(sums: np.ndarray, n_resamples: int, seed: int) -> np.ndarray:
    """Draw users with replacement and add up their rows: float64 (R, C).

    All columns of a resample are of the same users, so the difference of two columns is paired. The
    draws depend on U and ``seed`` alone. Memory: 16 bytes per user.

    Args:
        sums: float64 (U, C), sums over the queries of each user.
        n_resamples: R.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    n_users = len(sums)
    drawn = np.empty((n_resamples, sums.shape[1]))
    for number in range(n_resamples):
        weights = np.bincount(rng.integers(n_users, size=n_users), minlength=n_users)
        drawn[number] = weights @ sums
    return drawn
