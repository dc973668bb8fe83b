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

import math
import threading
from functools import cache
from typing import NamedTuple

import numpy as np
import torch

from sidmill.numeric import cpu_instructions

EXTRA = 16  # columns behind the dimensions; products of such widths are the faster ones
GUESSES = 64  # codewords that a row without one is compared with first
VALUES_AT_ONCE = 2**19  # scores that are computed together: they stay in the cache
CODEWORDS_AT_ONCE = 1024
MIN_ROWS = 64  # but those of so many rows: products of fewer are slow
DIGITS = 3  # numbers of bfloat16 that together hold one of float32
_KEPT = threading.local()  # memory of the matrices of :func:`nearest`, by their names


class Codewords(NamedTuple):
    """Codewords less their mean, as :func:`nearest` multiplies them."""

    middle: torch.Tensor  # float32 (D,), the mean
    halves: torch.Tensor  # float32 (K,), half of the squared norms
    factors: torch.Tensor  # bfloat16 (K, D + EXTRA), negative


class Nearest(NamedTuple):
    """Codewords of rows, with squared distances.

    Attributes:
        codes: int64 (p,).
        distances: float32 (p,), to these.
        own_distances: float32 (p,), to the codewords that the rows had.
    """

    codes: torch.Tensor
    distances: torch.Tensor
    own_distances: torch.Tensor


def prepare(codewords: torch.Tensor) -> Codewords | None:
    """Prepare codewords for :func:`nearest`, or return None where other products are as good.

    The mean is subtracted from codewords and rows, which changes no distance: rounding takes its
    share of the values, and where all vectors have one direction in common, those are large.

    Args:
        codewords: float32 (K, D).
    """
    is_rough = torch.backends.mkldnn.matmul.fp32_precision == "bf16"  # type: ignore[attr-defined]
    if not is_rough or codewords.device.type != "cpu" or not _multiplies_bfloat16():
        return None
    if len(codewords) < 2 * GUESSES:
        return None

    # Few at once: no second (K, D) in float32.
    n_codes, dim = codewords.shape
    middle = codewords.mean(dim=0)
    halves = torch.empty(n_codes)
    factors = torch.zeros((n_codes, dim + EXTRA), dtype=torch.bfloat16)
    for start in range(0, n_codes, CODEWORDS_AT_ONCE):
        span = slice(start, start + CODEWORDS_AT_ONCE)
        negative = middle - codewords[span]
        factors[span, :dim] = negative
        torch.linalg.vector_norm(negative, dim=1, out=halves[span])
    halves.square_().div_(2)

    # The other factors of these columns are DIGITS ones, and a row's own score.
    _split(halves, factors[:, dim : dim + DIGITS])
    factors[:, dim + DIGITS : dim + 2 * DIGITS] = -1
    return Codewords(middle, halves, factors)


def nearest(
    rows: torch.Tensor, own: torch.Tensor | None, codewords: Codewords, *, other: bool
) -> Nearest:
    """Find the nearest codewords of rows.

    Memory: the rows, once in float32 and twice in bfloat16, and ``VALUES_AT_ONCE`` scores in both.
    Each thread keeps it for its next call: freed, it would stay in the C library's pool of that
    thread, in pieces that other sizes do not fill.

    Args:
        rows: float32 (p, D).
        own: int64 (p,), the codeword that each row has; None takes the nearest of ``GUESSES``.
        codewords: of :func:`prepare`.
        other: whether the own codeword is left out.
    """
    # Rows, rounded, in front of columns that subtract the own score: (p, D + EXTRA).
    n_rows, dim = rows.shape
    n_codes, width = codewords.factors.shape
    factors = _kept("factors", (n_rows, width), torch.bfloat16)
    factors[:, dim:] = 0
    centred = _kept("centred", (n_rows, dim), torch.float32)
    torch.sub(rows, codewords.middle, out=centred)
    factors[:, :dim] = centred
    norms = torch.linalg.vector_norm(centred, dim=1).square_()
    factors[:, dim : dim + DIGITS] = 1
    if own is None:
        own = (factors @ codewords.factors[:GUESSES].T).argmin(dim=1)

    # The own score of the rounded factors: what rounding adds to all scores of a row cancels.
    rounded = centred.copy_(factors[:, :dim])
    own_factors = _kept("own", (n_rows, width), torch.bfloat16)
    torch.index_select(codewords.factors, 0, own, out=own_factors)
    products = rounded.mul_(own_factors[:, :dim]).sum(dim=1)
    own_scores = products.add_(codewords.halves[own])
    _split(own_scores, factors[:, dim + DIGITS : dim + 2 * DIGITS])

    # Few rows at once: the scores stay in the cache until the lowest is found.
    step = min(n_rows, max(MIN_ROWS, VALUES_AT_ONCE // n_codes))
    product = _kept("product", (step, n_codes), torch.bfloat16)
    scores = _kept("scores", (step, n_codes), torch.float32)
    codes = np.empty(n_rows, dtype=np.int64)
    positions = np.arange(step)
    differences = np.empty(n_rows, dtype=np.float32)
    own_codes, own_score = own.numpy(), np.float32(np.inf if other else 0)
    for start in range(0, n_rows, step):
        span = slice(start, min(start + step, n_rows))
        size = span.stop - start
        torch.mm(factors[span], codewords.factors.T, out=product[:size])
        values = scores[:size].copy_(product[:size]).numpy()
        values[positions[:size], own_codes[span]] = own_score
        values.argmin(axis=1, out=codes[span])
        differences[span] = values[positions[:size], codes[span]]

    # A score is half the squared distance, less half of the row's own squared norm.
    own_distances = norms.add_(own_scores, alpha=2)
    distances = own_distances.add(torch.from_numpy(differences), alpha=2)
    return Nearest(torch.from_numpy(codes), distances.clamp_(min=0), own_distances.clamp_(min=0))


def _kept(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """A matrix of undefined values, in memory that this thread keeps for the same name."""
    size = math.prod(shape)
    flat: torch.Tensor | None = getattr(_KEPT, name, None)
    if flat is None or len(flat) < size:
        flat = torch.empty(size, dtype=dtype)
        setattr(_KEPT, name, flat)
    return flat[:size].view(shape)


def _split(values: torch.Tensor, columns: torch.Tensor) -> None:
    """Write float32 (n,) as the sum of the columns of bfloat16 (n, DIGITS)."""
    rest = values.clone()
    for digit in range(DIGITS):
        columns[:, digit] = rest
        rest -= columns[:, digit].float()


@cache
def _multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for products of bfloat16."""
    known = cpu_instructions.known()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
