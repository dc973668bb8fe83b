"""The residual quantizer in training: codes, losses, and what gradients see.

Shapes: b rows, d latent dimensions, L levels, K_l codewords at level l.

Each level quantizes what the ones before left. The codeword is taken from the residual without
the straight-through term, so that the residual still depends on the encoder and the commitment
loss reaches it from every level; and detached, so that a codeword answers for its own level alone.
Source: https://arxiv.org/abs/2107.03312; EMA codebooks: https://arxiv.org/abs/1711.00937,
appendix A; rotation trick: https://arxiv.org/abs/2410.06424.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from sidmill.quantize import lloyd
from sidmill.quantize.rqvae import nearest

TINY = 1e-6  # lengths below it have no direction
LAPLACE = 1e-5  # keeps the mean of an EMA codeword that nothing chose finite


class Quantized(NamedTuple):
    """What a batch became."""

    latents: torch.Tensor  # float32 (b, d), what the decoder takes; gradients pass to the encoder
    codes: list[torch.Tensor]  # int64 (b,) per level
    left: list[torch.Tensor]  # float32 (b, d) per level, detached: what the level had to explain
    commitment: torch.Tensor  # float32 (), mean over levels, for the encoder
    missed: torch.Tensor  # float32 (), mean squared length of what the last level left
    codebook: torch.Tensor  # float32 (), mean over levels, for the codewords


def quantize(
    latents: torch.Tensor,
    codebooks: Sequence[torch.Tensor],
    *,
    sk_epsilons: Sequence[float],
    sk_iters: int,
    estimator: str,
) -> Quantized:
    """Quantize latents for a training step.

    Args:
        latents: float32 (b, d).
        codebooks: float32 (K_l, d) per level.
        sk_epsilons: per level; 0 takes the nearest codeword, more a balanced assignment.
        sk_iters: rounds of the balanced assignment.
        estimator: ``straight_through`` or ``rotation``.
    """
    left = latents
    total = torch.zeros_like(latents)
    codes, lefts, commitments, moves = [], [], [], []
    for words, epsilon in zip(codebooks, sk_epsilons or [0.0] * len(codebooks), strict=True):
        fixed = left.detach()
        if epsilon > 0:
            code = nearest.balanced(fixed, words.detach(), epsilon, sk_iters)
        else:
            code = nearest.nearest(fixed, words.detach())
        chosen = words[code]
        commitments.append(F.mse_loss(left, chosen.detach()))
        moves.append(F.mse_loss(chosen, fixed))
        codes.append(code)
        lefts.append(fixed)
        left = left - chosen.detach()
        total = total + chosen.detach()
    passed = rotate(latents, total) if estimator == "rotation" else pass_straight(latents, total)
    commitment, codebook = torch.stack(commitments).mean(), torch.stack(moves).mean()
    missed = left.detach().square().sum(dim=1).mean()
    return Quantized(passed, codes, lefts, commitment, missed, codebook)


def pass_straight(latents: torch.Tensor, quantized: torch.Tensor) -> torch.Tensor:
    """Return ``quantized``; the gradient goes to ``latents`` as it is."""
    return latents + (quantized - latents).detach()


def rotate(latents: torch.Tensor, quantized: torch.Tensor) -> torch.Tensor:
    """Return ``quantized`` as ``latents`` turned and stretched; the gradient is turned with it.

    Where a latent or its codeword has no length there is no angle: such rows pass straight.
    """
    norm = latents.detach().norm(dim=1, keepdim=True)
    goal_norm = quantized.norm(dim=1, keepdim=True)
    flat = (norm < TINY) | (goal_norm < TINY)  # (b, 1)

    # turn each latent to the direction of its codeword: two reflections
    start, goal = latents.detach() / norm.clamp(min=TINY), quantized / goal_norm.clamp(min=TINY)
    middle = F.normalize(start + goal, dim=1, eps=TINY)
    mirrored = latents - 2 * (latents * middle).sum(dim=1, keepdim=True) * middle
    turned = mirrored + 2 * (latents * start).sum(dim=1, keepdim=True) * goal

    # stretch it to the codeword's length
    stretched = turned * (goal_norm / norm.clamp(min=TINY))
    return torch.where(flat, pass_straight(latents, quantized), stretched)


class Averages(NamedTuple):
    """Moving sums behind one EMA codebook; the tensors are updated in place."""

    counts: torch.Tensor  # float32 (K,)
    sums: torch.Tensor  # float32 (K, d)


def average(
    words: torch.Tensor,
    averages: Averages,
    counts: torch.Tensor,
    sums: torch.Tensor,
    decay: float,
) -> None:
    """Move EMA codewords towards the mean of the rows that chose them, in place.

    Args:
        words: float32 (K, d).
        averages: of this codebook.
        counts: float32 (K,), rows of this step per codeword.
        sums: float32 (K, d), their sums.
        decay: share of the past that stays.
    """
    averages.counts.lerp_(counts, 1 - decay)
    averages.sums.lerp_(sums, 1 - decay)
    total = averages.counts.sum()
    smoothed = (averages.counts + LAPLACE) * (total / (total + len(words) * LAPLACE))
    words.copy_(averages.sums / smoothed[:, None])


def count_and_sum(
    left: torch.Tensor, codes: torch.Tensor, n_codes: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Count and add up the rows of each codeword: float32 (K,) and (K, d); same on every run."""
    counts = torch.bincount(codes, minlength=n_codes).to(left.dtype)
    sums = torch.zeros((n_codes, left.shape[1]), dtype=left.dtype, device=left.device)
    return counts, lloyd.add_rows(sums, left, codes)
