"""Scores of codewords less the score of one that each row names: products of bfloat16 on a CPU.

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

import torch

EXTRA = 16  # columns behind the dimensions; products of such widths are the faster ones
GUESSES = 64  # codewords that a row without one is compared with first
DIGITS = 3  # numbers of bfloat16 that together hold one of float32


class Codewords(NamedTuple):
    """Codewords, as :func:`scores` multiplies them."""

    exact: torch.Tensor  # float32 (K, D)
    halves: torch.Tensor  # float32 (K,), half of their squared norms
    factors: torch.Tensor  # bfloat16 (K, D + EXTRA)


def prepare(codewords: torch.Tensor, halves: torch.Tensor) -> Codewords | None:
    """Prepare codewords for :func:`scores`, or return None where other products are as fast.

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


def work_size(n_rows: int, n_codes: int, dim: int) -> int:
    """Numbers of float32 that :func:`scores` takes besides the scores."""
    return -(-n_rows * (n_codes + dim + EXTRA) // 2)


def guess(rows: torch.Tensor, codewords: Codewords) -> torch.Tensor:
    """Codewords that rows (p, D) without one are compared with: the nearest of some, int64 (p,)."""
    exact, halves = codewords.exact[:GUESSES], codewords.halves[:GUESSES]
    result: torch.Tensor = torch.addmm(halves, rows, exact.T, alpha=-1).argmin(dim=1)
    return result


def scores(
    rows: torch.Tensor, own: torch.Tensor, codewords: Codewords, buffer: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Score codewords for rows that have one: the scores less that of the own codeword.

    A score is half the squared distance less half of the row's own squared norm.

    Args:
        rows: float32 (p, D).
        own: int64 (p,), the codeword of each row.
        codewords: of :func:`prepare`.
        buffer: float32, at least p K numbers for the result; with :func:`work_size` more, nothing
            is allocated.

    Returns:
        Scores less the own one, float32 (p, K), and the own one, float32 (p,).
    """
    # Memory for the result, the rounded product and the rounded rows.
    n_rows, dim = rows.shape
    n_codes, width = codewords.factors.shape
    result = buffer[: n_rows * n_codes].view(n_rows, n_codes)
    work = buffer[n_rows * n_codes :]
    if len(work) < work_size(n_rows, n_codes, dim):
        work = torch.empty(work_size(n_rows, n_codes, dim))
    halves = work.view(torch.bfloat16)
    product = halves[: n_rows * n_codes].view(n_rows, n_codes)
    factors = halves[n_rows * n_codes :][: n_rows * width].view(n_rows, width)

    # The own score, and the rows with it behind their dimensions.
    own_scores = codewords.halves[own] - (rows * codewords.exact.index_select(0, own)).sum(dim=1)
    factors[:, :dim] = rows
    factors[:, dim:] = 0
    factors[:, dim : dim + DIGITS] = 1
    _split(own_scores, factors[:, dim + DIGITS : dim + 2 * DIGITS])

    torch.mm(factors, codewords.factors.T, out=product)
    return result.copy_(product), own_scores


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
