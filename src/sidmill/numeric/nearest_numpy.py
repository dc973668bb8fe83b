"""The codeword of a row: the one rule that every quantizer shares, in NumPy.

Shapes: K codewords, D dimensions, b rows of one block.

The decision is defined by one expression, not by whichever matrix product happens to run. With
``r`` the float32 residual, the code is the lowest ``k`` that minimises
``np.square(r - w[k]).sum() + price[k]``, all in float32: NumPy sums a contiguous row in an order
that depends on D alone. Prices are zero but for balanced codebooks. A matrix product only picks the
candidates: each codeword that comes, within the product's rounding, as near as the nearest. Where
there are two or more, the expression decides. So codes depend neither on the block size nor on the
thread count or the device.

The number of candidates depends on the data: in a collapsed codebook every codeword is one. They
are compared in batches of a fixed size.
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

    codewords: np.ndarray  # float32 (K, D)
    prices: np.ndarray  # float32 (K,), what a codeword costs besides its distance
    halves: np.ndarray  # float32 (K,), half of norm squared and price; infinite for a repeat
    max_norm: float  # the largest norm
    max_price: float  # the largest absolute price


def search_level(codewords: np.ndarray, prices: np.ndarray | None = None) -> Level:
    """Prepare a codebook for :func:`nearest`.

    A codeword that repeats an earlier one at the same price or a higher one can never win.

    Args:
        codewords: float32 (K, D).
        prices: float32 (K,), or None for zeros.
    """
    codewords = np.ascontiguousarray(codewords, dtype=np.float32)
    prices = np.zeros(len(codewords), dtype=np.float32) if prices is None else prices
    norms = np.square(codewords.astype(np.float64)).sum(axis=1)
    halves = ((norms + prices) / 2).astype(np.float32)
    # A repeated codeword that costs less stays, and so does the earlier one: the two costs may
    # round to one number, which goes to the lower code.
    cheapest: dict[bytes, float] = {}
    for code, price in enumerate(prices.tolist()):
        codeword = codewords[code].tobytes()
        if price >= cheapest.get(codeword, np.inf):
            halves[code] = np.inf
        else:
            cheapest[codeword] = price
    return Level(
        codewords, prices, halves, float(np.sqrt(norms.max())), float(np.abs(prices).max())
    )


def nearest(residuals: np.ndarray, level: Level, buffer: np.ndarray) -> np.ndarray:
    """Return the nearest codeword of each row, by the rule of the module's docstring.

    Args:
        residuals: float32 (b, D).
        level: the codebook.
        buffer: float32, at least b K numbers, to write the scores to: fresh pages cost 10 %.

    Returns:
        int64 (b,).
    """
    # Scores are half costs, less half of the row's own squared norm: (b, K).
    n_rows, n_codes = len(residuals), len(level.codewords)
    scores = buffer[: n_rows * n_codes].reshape(n_rows, n_codes)
    np.matmul(residuals, level.codewords.T, out=scores)
    np.subtract(level.halves, scores, out=scores)
    codes: np.ndarray = scores.argmin(axis=1)
    rows = np.arange(n_rows)
    best = scores[rows, codes]
    scores[rows, codes] = np.inf

    # Where another codeword is within the rounding error, the deciding expression chooses.
    squares = np.einsum("ij,ij->i", residuals, residuals)
    limit = best + margin(squares, level.max_norm, level.max_price, residuals.shape[1])
    ambiguous = np.flatnonzero(scores.min(axis=1) <= limit)
    for batch in portions(ambiguous, n_codes):
        is_candidate = scores[batch] <= limit[batch, None]
        is_candidate[np.arange(len(batch)), codes[batch]] = True
        codes[batch] = decide(residuals[batch], level.codewords, level.prices, is_candidate)
    return codes


def portions(ambiguous: np.ndarray, n_codes: int) -> Iterator[np.ndarray]:
    """Cut int64 (u,) into parts of ``PAIRS_AT_ONCE`` candidates at most, of one row at least."""
    step = max(1, PAIRS_AT_ONCE // n_codes)
    return (ambiguous[start : start + step] for start in range(0, len(ambiguous), step))


def margin(squares: np.ndarray, max_norm: float, max_price: float, dim: int) -> np.ndarray:
    """How far apart two scores of codewords may be and still be decided by rounding alone.

    Args:
        squares: float32 (b,), squared norms of the rows.
        max_norm: the largest norm of a codeword.
        max_price: the largest absolute price.
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
    scale = np.square(np.sqrt(squares) + max_norm) + max_price
    result: np.ndarray = (MARGIN * EPSILON * dim**0.5 * scale).astype(np.float32)
    return result


def decide(
    residuals: np.ndarray, codewords: np.ndarray, prices: np.ndarray, is_candidate: np.ndarray
) -> np.ndarray:
    """Choose among candidate codewords by the deciding expression.

    Memory besides the arguments: about 24 bytes per candidate and ``VALUES_AT_ONCE`` differences,
    or of one candidate as many as D.

    Args:
        residuals: float32 (u, D).
        codewords: float32 (K, D).
        prices: float32 (K,).
        is_candidate: bool (u, K), the candidates, at least one in each row.

    Returns:
        int64 (u,).
    """
    counts = np.count_nonzero(is_candidate, axis=1)
    decided = np.empty(len(residuals), dtype=np.int64)

    # Many candidates: compare every codeword, which needs no copy of rows and codewords.
    is_crowded = counts * CROWDED > len(codewords)
    for row in np.flatnonzero(is_crowded).tolist():
        decided[row] = _costs(residuals[row], codewords, prices).argmin()  # the first of equal ones

    # Few candidates: compare pairs of a row and a codeword.
    sparse = np.flatnonzero(~is_crowded)
    if len(sparse):
        rows, candidates = is_candidate[sparse].nonzero()
        costs = _pair_costs(residuals, codewords, prices, sparse[rows], candidates)
        firsts = np.cumsum(counts[sparse]) - counts[sparse]
        lowest = np.minimum.reduceat(costs, firsts)
        winners = np.flatnonzero(costs == lowest[rows])
        decided[sparse] = candidates[winners[np.searchsorted(winners, firsts)]]
    return decided


def _costs(row: np.ndarray, codewords: np.ndarray, prices: np.ndarray) -> np.ndarray:
    """The deciding expression of one row and every codeword: float32 (K,)."""
    costs = np.empty(len(codewords), dtype=np.float32)
    step = max(1, VALUES_AT_ONCE // codewords.shape[1])
    buffer = np.empty((min(step, len(codewords)), codewords.shape[1]), dtype=np.float32)
    for start in range(0, len(codewords), step):
        batch = slice(start, start + step)
        differences = np.subtract(row, codewords[batch], out=buffer[: len(codewords[batch])])
        np.square(differences, out=differences).sum(axis=1, out=costs[batch])
    result: np.ndarray = np.add(costs, prices, out=costs)
    return result


def _pair_costs(
    residuals: np.ndarray,
    codewords: np.ndarray,
    prices: np.ndarray,
    rows: np.ndarray,
    candidates: np.ndarray,
) -> np.ndarray:
    """The deciding expression of pairs of a row and a codeword: float32, one per pair."""
    costs = np.empty(len(rows), dtype=np.float32)
    step = max(1, VALUES_AT_ONCE // codewords.shape[1])
    for start in range(0, len(rows), step):
        batch = slice(start, start + step)
        differences = residuals[rows[batch]] - codewords[candidates[batch]]
        costs[batch] = (
            np.square(differences, out=differences).sum(axis=1) + prices[candidates[batch]]
        )
    return costs
