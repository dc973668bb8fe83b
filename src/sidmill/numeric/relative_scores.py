"""The nearest codeword by products of bfloat16, relative to one that each row names, on a CPU.

A CPU with instructions for bfloat16 multiplies it at twice the speed of torch's products of float32
that round their factors to it, but torch returns such a product as bfloat16, which has 8 bits. Of a
difference that is near 0 where it matters, 8 bits are enough: the score of the codeword that a row
belongs to is subtracted within the product, in columns behind the dimensions, so that scores close
to it keep more digits than the rounded factors have.

For searches that only guide a training: within ``rough_products`` of
:mod:`sidmill.numeric.nearest_torch`.

Shapes: K codewords, D dimensions, p rows.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
import torch

EXTRA = 16  # columns behind the dimensions; products of such widths are the faster ones
GUESSES = 64  # codewords that a row without one is compared with first
VALUES_AT_ONCE = 2**19  # scores that are computed together: they stay in the cache
MIN_ROWS = 64  # but those of so many rows: products of fewer are slow
DIGITS = 3  # numbers of bfloat16 that together hold one of float32


class Codewords(NamedTuple):
    """Codewords, as :func:`nearest` multiplies them."""

    exact: torch.Tensor  # float32 (K, D)
    halves: torch.Tensor  # float32 (K,), half of their squared norms
    factors: torch.Tensor  # bfloat16 (K, D + EXTRA)


class Nearest(NamedTuple):
    """Codewords of rows, with scores: half the squared distance less half of the row's own norm.

    Attributes:
        codes: int64 (p,).
        differences: float32 (p,), their scores less the own ones.
        own_scores: float32 (p,), of the codewords that the rows had.
    """

    codes: torch.Tensor
    differences: torch.Tensor
    own_scores: torch.Tensor


def prepare(codewords: torch.Tensor, halves: torch.Tensor) -> Codewords | None:
    """Prepare codewords for :func:`nearest`, or return None where other products are as fast.

    Args:
        codewords: float32 (K, D).
        halves: float32 (K,), half of their squared norms.
    """
    is_rough = torch.backends.mkldnn.matmul.fp32_precision == "bf16"  # type: ignore[attr-defined]
    if not is_rough or codewords.device.type != "cpu" or not _multiplies_bfloat16():
        return None
    if len(codewords) < 2 * GUESSES:
        return None

    # A row's columns behind the dimensions are DIGITS ones, and its own score.
    n_codes, dim = codewords.shape
    factors = torch.zeros((n_codes, dim + EXTRA), dtype=torch.bfloat16)
    factors[:, :dim] = codewords
    factors[:, :dim].neg_()
    _split(halves, factors[:, dim : dim + DIGITS])
    factors[:, dim + DIGITS : dim + 2 * DIGITS] = -1
    return Codewords(codewords, halves, factors)


def guess(rows: torch.Tensor, codewords: Codewords) -> torch.Tensor:
    """Codewords that rows (p, D) without one are compared with: the nearest of some, int64 (p,)."""
    exact, halves = codewords.exact[:GUESSES], codewords.halves[:GUESSES]
    result: torch.Tensor = torch.addmm(halves, rows, exact.T, alpha=-1).argmin(dim=1)
    return result


def nearest(rows: torch.Tensor, own: torch.Tensor, codewords: Codewords, *, other: bool) -> Nearest:
    """Find the nearest codeword of rows that have one.

    Memory: ``VALUES_AT_ONCE`` scores in float32 and in bfloat16, and the rows in bfloat16.

    Args:
        rows: float32 (p, D).
        own: int64 (p,), the codeword of each row.
        codewords: of :func:`prepare`.
        other: whether the own codeword is left out.
    """
    # The own score, and the rows with it behind their dimensions: (p, D + EXTRA).
    n_rows, dim = rows.shape
    n_codes, width = codewords.factors.shape
    own_scores = codewords.halves[own] - (rows * codewords.exact.index_select(0, own)).sum(dim=1)
    factors = torch.zeros((n_rows, width), dtype=torch.bfloat16)
    factors[:, :dim] = rows
    factors[:, dim : dim + DIGITS] = 1
    _split(own_scores, factors[:, dim + DIGITS : dim + 2 * DIGITS])

    # Few rows at once: the scores stay in the cache until the lowest is found.
    step = min(n_rows, max(MIN_ROWS, VALUES_AT_ONCE // n_codes))
    product = torch.empty((step, n_codes), dtype=torch.bfloat16)
    scores = torch.empty((step, n_codes))
    codes = np.empty(n_rows, dtype=np.int64)
    differences = np.empty(n_rows, dtype=np.float32)
    own_codes, own_score = own.numpy(), np.float32(np.inf if other else 0)
    for start in range(0, n_rows, step):
        span = slice(start, min(start + step, n_rows))
        size = span.stop - start
        torch.mm(factors[span], codewords.factors.T, out=product[:size])
        values = scores[:size].copy_(product[:size]).numpy()
        positions = np.arange(size)
        values[positions, own_codes[span]] = own_score
        values.argmin(axis=1, out=codes[span])
        differences[span] = values[positions, codes[span]]
    return Nearest(torch.from_numpy(codes), torch.from_numpy(differences), own_scores)


def _split(values: torch.Tensor, columns: torch.Tensor) -> None:
    """Write float32 (n,) as the sum of the columns of bfloat16 (n, DIGITS)."""
    rest = values.clone()
    for digit in range(DIGITS):
        columns[:, digit] = rest
        rest -= columns[:, digit].float()


@cache
def _multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for products of bfloat16 (torch 2.9 and newer tell)."""
    try:
        known = torch.cpu.get_capabilities()
    except (AttributeError, RuntimeError):
        return False
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
