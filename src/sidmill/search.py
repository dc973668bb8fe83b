"""The codeword of a row: the one rule that every quantizer shares, in NumPy.

Shapes: K codewords, D dimensions, b rows of one block.

The decision is defined by one expression, not by whichever matrix product happens to run. With
``r`` the float32 residual, the code is the lowest ``k`` that minimises
``np.square(r - w[k]).sum() + price[k]``, all in float32: NumPy sums a contiguous row in an order
that depends on D alone. Prices are zero but for balanced codebooks. A matrix product only picks the
candidates: each codeword that comes, within the product's rounding, as near as the nearest. Where
there are two or more, the expression decides. So codes depend neither on the block size nor on the
thread count or the device.
"""

from typing import NamedTuple

import numpy as np

EPSILON = float(np.finfo(np.float32).eps)
# Rounding of the product and of the expression, in units of eps sqrt(D) (|r| + max |w|)^2: the
# largest seen of either was 0.75, four of them add up, so 8 is ample; more only costs time.
MARGIN = 8
DECIDED_AT_ONCE = 1024


class Level(NamedTuple):
    """One codebook, ready for the search."""

    words: np.ndarray  # float32 (K, D)
    prices: np.ndarray  # float32 (K,), what a codeword costs besides its distance
    halves: np.ndarray  # float32 (K,), half of norm squared and price; infinite for a repeated word
    reach: float  # the largest norm
    dearest: float  # the largest absolute price


def search_level(words: np.ndarray, prices: np.ndarray | None = None) -> Level:
    """Prepare a codebook for :func:`nearest`.

    A word that repeats an earlier one at the same price or a higher one can never win.

    Args:
        words: float32 (K, D).
        prices: float32 (K,), or None for zeros.
    """
    words = np.ascontiguousarray(words, dtype=np.float32)
    prices = np.zeros(len(words), dtype=np.float32) if prices is None else prices
    norms = np.square(words.astype(np.float64)).sum(axis=1)
    halves = ((norms + prices) / 2).astype(np.float32)
    cheapest: dict[bytes, float] = {}
    for code in np.lexsort((np.arange(len(words)), prices)).tolist():
        if words[code].tobytes() in cheapest:
            halves[code] = np.inf
        cheapest[words[code].tobytes()] = prices[code]
    return Level(words, prices, halves, float(np.sqrt(norms.max())), float(np.abs(prices).max()))


def nearest(left: np.ndarray, level: Level, spare: np.ndarray) -> np.ndarray:
    """Return the code of each row, by the rule of the module's docstring.

    Args:
        left: float32 (b, D), residuals.
        level: the codebook.
        spare: float32, at least b K numbers, to write the scores to: fresh pages cost 10 %.

    Returns:
        int64 (b,).
    """
    n_rows, n_codes = len(left), len(level.words)
    scores = spare[: n_rows * n_codes].reshape(n_rows, n_codes)
    np.matmul(left, level.words.T, out=scores)
    np.subtract(level.halves, scores, out=scores)
    codes = scores.argmin(axis=1)
    lines = np.arange(n_rows)
    best = scores[lines, codes]
    scores[lines, codes] = np.inf
    limit = best + margin(
        np.einsum("ij,ij->i", left, left), level.reach, level.dearest, left.shape[1]
    )
    unsure = np.flatnonzero(scores.min(axis=1) <= limit)
    if len(unsure):
        near = scores[unsure] <= limit[unsure, None]
        near[np.arange(len(unsure)), codes[unsure]] = True
        codes[unsure] = decide(left[unsure], level.words, level.prices, near)
    return codes


def margin(squares: np.ndarray, reach: float, dearest: float, dim: int) -> np.ndarray:
    """How far apart two scores may be and still be decided by rounding alone.

    Args:
        squares: float32 (b,), squared norms of the rows.
        reach: the largest norm of a codeword.
        dearest: the largest absolute price.
        dim: D.

    Returns:
        float32 (b,).
    """
    scale = np.square(np.sqrt(squares) + reach) + dearest
    return (MARGIN * EPSILON * dim**0.5 * scale).astype(np.float32)


def decide(left: np.ndarray, words: np.ndarray, prices: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Apply the deciding expression to the candidates.

    Args:
        left: float32 (u, D).
        words: float32 (K, D).
        prices: float32 (K,).
        near: bool (u, K), the candidates, at least one in each row.

    Returns:
        int64 (u,).
    """
    rows, candidates = near.nonzero()
    costs = np.empty(len(rows), dtype=np.float32)
    for start in range(0, len(rows), DECIDED_AT_ONCE):
        part = slice(start, start + DECIDED_AT_ONCE)
        apart = left[rows[part]] - words[candidates[part]]
        costs[part] = np.square(apart).sum(axis=1) + prices[candidates[part]]
    order = np.lexsort((candidates, costs, rows))
    first = np.unique(rows[order], return_index=True)[1]
    return candidates[order][first]
