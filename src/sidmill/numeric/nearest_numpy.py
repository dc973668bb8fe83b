"""The codeword of a row: the one rule that every quantizer shares, in NumPy.

Shapes: K codewords, D dimensions, b rows of one block.

The decision is defined by one expression, not by whichever matrix product happens to run. With
``r`` the float32 residual, the code is the lowest ``k`` that minimises
``np.square(r - w[k]).sum() + price[k]``, all in float32: NumPy sums a contiguous row in an order
that depends on D alone. Prices are zero but for balanced codebooks. A matrix product only picks the
candidates: each codeword that comes, within the product's rounding, as near as the nearest. Where
there are two or more, the expression decides. So codes depend neither on the block size nor on the
thread count or the device.

How many candidates there are, the data decides: in a collapsed codebook every word is one. They are
decided in portions of a fixed size.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from sidmill.core.errors import SidmillError
from sidmill.numeric import row_blocks

EPSILON = float(np.finfo(np.float32).eps)
# Rounding of the product and of the expression, in units of eps sqrt(D) (|r| + max |w|)^2: the
# largest seen of either was 0.75, four of them add up, so 8 is ample; more only costs time.
MARGIN = 8
PAIRS_AT_ONCE = 2**18  # rows times codewords that are looked at for candidates together
VALUES_AT_ONCE = 2**16  # of differences between rows and codewords: they stay in the cache
CROWDED = 4  # where one codeword in so many is a candidate, all of them are compared


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
    # A repeated word that costs less stays, and so does the earlier one: the two costs may round
    # to one number, which goes to the lower code.
    cheapest: dict[bytes, float] = {}
    for code, price in enumerate(prices.tolist()):
        word = words[code].tobytes()
        if price >= cheapest.get(word, np.inf):
            halves[code] = np.inf
        else:
            cheapest[word] = price
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
    codes: np.ndarray = scores.argmin(axis=1)
    lines = np.arange(n_rows)
    best = scores[lines, codes]
    scores[lines, codes] = np.inf
    limit = best + margin(
        np.einsum("ij,ij->i", left, left), level.reach, level.dearest, left.shape[1]
    )
    unsure = np.flatnonzero(scores.min(axis=1) <= limit)
    for some in portions(unsure, n_codes):
        near = scores[some] <= limit[some, None]
        near[np.arange(len(some)), codes[some]] = True
        codes[some] = decide(left[some], level.words, level.prices, near)
    return codes


def portions(unsure: np.ndarray, n_codes: int) -> Iterator[np.ndarray]:
    """Cut int64 (u,) into parts of ``PAIRS_AT_ONCE`` candidates at most, of one row at least."""
    step = max(1, PAIRS_AT_ONCE // n_codes)
    return (unsure[start : start + step] for start in range(0, len(unsure), step))


def margin(squares: np.ndarray, reach: float, dearest: float, dim: int) -> np.ndarray:
    """How far apart two scores may be and still be decided by rounding alone.

    Args:
        squares: float32 (b,), squared norms of the rows.
        reach: the largest norm of a codeword.
        dearest: the largest absolute price.
        dim: D.

    Returns:
        float32 (b,).

    Raises:
        SidmillError: if a row is not finite, or too long for float32.
    """
    if not (squares <= row_blocks.LONGEST**2).all():
        raise SidmillError(
            "what a quantizer's encoder or its codebooks make of a vector is not finite, or too "
            "long for squared distances in float32: encode vectors like those that the quantizer "
            "was trained on, or train it again"
        )
    scale = np.square(np.sqrt(squares) + reach) + dearest
    result: np.ndarray = (MARGIN * EPSILON * dim**0.5 * scale).astype(np.float32)
    return result


def decide(left: np.ndarray, words: np.ndarray, prices: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Apply the deciding expression to the candidates.

    Memory besides the arguments: about 24 bytes per candidate and ``VALUES_AT_ONCE`` differences,
    or of one candidate as many as D.

    Args:
        left: float32 (u, D).
        words: float32 (K, D).
        prices: float32 (K,).
        near: bool (u, K), the candidates, at least one in each row.

    Returns:
        int64 (u,).
    """
    counts = np.count_nonzero(near, axis=1)
    decided = np.empty(len(left), dtype=np.int64)

    # Many candidates: compare every codeword, which needs no copy of rows and words.
    crowded = counts * CROWDED > len(words)
    for row in np.flatnonzero(crowded).tolist():
        decided[row] = _costs(left[row], words, prices).argmin()  # the first of equal ones

    # Few candidates: compare pairs of a row and a codeword.
    sparse = np.flatnonzero(~crowded)
    if len(sparse):
        rows, candidates = near[sparse].nonzero()
        costs = _pair_costs(left, words, prices, sparse[rows], candidates)
        firsts = np.cumsum(counts[sparse]) - counts[sparse]
        lowest = np.minimum.reduceat(costs, firsts)
        winners = np.flatnonzero(costs == lowest[rows])
        decided[sparse] = candidates[winners[np.searchsorted(winners, firsts)]]
    return decided


def _costs(row: np.ndarray, words: np.ndarray, prices: np.ndarray) -> np.ndarray:
    """The deciding expression of one row and every codeword: float32 (K,)."""
    costs = np.empty(len(words), dtype=np.float32)
    step = max(1, VALUES_AT_ONCE // words.shape[1])
    spare = np.empty((min(step, len(words)), words.shape[1]), dtype=np.float32)
    for start in range(0, len(words), step):
        part = slice(start, start + step)
        apart = np.subtract(row, words[part], out=spare[: len(words[part])])
        np.square(apart, out=apart).sum(axis=1, out=costs[part])
    result: np.ndarray = np.add(costs, prices, out=costs)
    return result


def _pair_costs(
    left: np.ndarray,
    words: np.ndarray,
    prices: np.ndarray,
    rows: np.ndarray,
    candidates: np.ndarray,
) -> np.ndarray:
    """The deciding expression of pairs of a row and a codeword: float32, one per pair."""
    costs = np.empty(len(rows), dtype=np.float32)
    step = max(1, VALUES_AT_ONCE // words.shape[1])
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        apart = left[rows[part]] - words[candidates[part]]
        costs[part] = np.square(apart, out=apart).sum(axis=1) + prices[candidates[part]]
    return costs
