"""The residual quantizer in training: assignment, losses, gradients and EMA codebooks.

Shapes: b rows, d latent dimensions, L levels, K_l codewords at level l, K of one level.

Each level quantizes the residual of the levels before it. The codeword is subtracted from the
residual without the straight-through term, so that the residual still depends on the encoder and
the commitment loss reaches it from every level; and detached, so that a codeword answers for its
own level alone. Source: https://arxiv.org/abs/2107.03312; EMA codebooks:
https://arxiv.org/abs/1711.00937, appendix A; rotation trick: https://arxiv.org/abs/2410.06424.

A row trains its nearest codeword, or that of a balanced assignment by optimal transport
(Sinkhorn-Knopp, https://arxiv.org/abs/1306.0895), as LC-Rec uses it on codebooks,
https://arxiv.org/abs/2311.09049.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from sidmill.numeric import arrays
from sidmill.settings.quantize import Rqvae

TINY = 1e-6  # lengths below it have no direction
LAPLACE = 1e-5  # keeps the mean of an EMA codeword that no row chose finite
LINEAR_RANGE = 680.0  # exp(-680) is 5e-296; below exp(-708) float64 loses digits


class Quantized(NamedTuple):
    """A batch after quantization."""

    latents: torch.Tensor  # float32 (b, d), what the decoder takes; gradients pass to the encoder
    codes: list[torch.Tensor]  # int64 (b,) per level
    residuals: list[torch.Tensor]  # float32 (b, d) per level, detached: the input of the level
    commitment: torch.Tensor  # float32 (), mean over levels, for the encoder
    error: torch.Tensor  # float32 (), mean squared length of the residual after the last level
    codebook: torch.Tensor  # float32 (), mean over levels, for the codewords


def quantize(
    latents: torch.Tensor, codebooks: Sequence[torch.Tensor], settings: Rqvae
) -> Quantized:
    """Quantize latents for a training step.

    Args:
        latents: float32 (b, d).
        codebooks: float32 (K_l, d) per level.
        settings: ``sk_epsilons``, ``sk_iters`` and ``estimator`` count.
    """
    epsilons = settings.sk_epsilons or [0.0] * len(codebooks)
    residual = latents
    total = torch.zeros_like(latents)
    codes, residuals, commitments, moves = [], [], [], []

    # level by level: assign, then subtract the codeword from the residual
    for codebook, epsilon in zip(codebooks, epsilons, strict=True):
        detached = residual.detach()
        if epsilon > 0:
            code = balanced(detached, codebook.detach(), epsilon, settings.sk_iters)
        else:
            code = nearest(detached, codebook.detach())
        chosen = codebook[code]  # (b, d)
        commitments.append(F.mse_loss(residual, chosen.detach()))
        moves.append(F.mse_loss(chosen, detached))
        codes.append(code)
        residuals.append(detached)
        residual = residual - chosen.detach()
        total = total + chosen.detach()

    # what the decoder takes, and how gradients pass it
    is_rotation = settings.estimator == "rotation"
    quantized = rotate(latents, total) if is_rotation else pass_straight(latents, total)
    commitment, codebook_loss = torch.stack(commitments).mean(), torch.stack(moves).mean()
    error = residual.detach().square().sum(dim=1).mean()
    return Quantized(quantized, codes, residuals, commitment, error, codebook_loss)


def pass_straight(latents: torch.Tensor, quantized: torch.Tensor) -> torch.Tensor:
    """Return ``quantized``; the gradient goes to ``latents`` unchanged."""
    return latents + (quantized - latents).detach()


def rotate(latents: torch.Tensor, quantized: torch.Tensor) -> torch.Tensor:
    """Return ``quantized`` as ``latents`` rotated and scaled; the gradient is rotated with it.

    Where a latent or its codeword has no length there is no angle: such rows pass straight.
    """
    norm = latents.detach().norm(dim=1, keepdim=True)
    goal_norm = quantized.norm(dim=1, keepdim=True)
    has_no_angle = (norm < TINY) | (goal_norm < TINY)  # (b, 1)

    # rotate each latent to the direction of its codeword: two reflections
    start, goal = latents.detach() / norm.clamp(min=TINY), quantized / goal_norm.clamp(min=TINY)
    middle = F.normalize(start + goal, dim=1, eps=TINY)
    mirrored = latents - 2 * (latents * middle).sum(dim=1, keepdim=True) * middle
    rotated = mirrored + 2 * (latents * start).sum(dim=1, keepdim=True) * goal

    # scale it to the codeword's length
    scaled = rotated * (goal_norm / norm.clamp(min=TINY))
    return torch.where(has_no_angle, pass_straight(latents, quantized), scaled)


def distances(residual: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """Squared distances float32 (b, K), less the rows' own squared norms: enough to compare."""
    return torch.addmm(codebook.square().sum(dim=1), residual, codebook.T, alpha=-2)


def nearest(residual: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """Codes int64 (b,) of the nearest codewords."""
    compared = distances(residual, codebook)
    if compared.device.type == "cpu":
        return torch.from_numpy(compared.numpy().argmin(axis=1))
    return compared.argmin(dim=1)


def balanced(
    residual: torch.Tensor, codebook: torch.Tensor, epsilon: float, n_iter: int
) -> torch.Tensor:
    """Assign balanced codes int64 (b,): largest share in a transport plan of even load.

    Args:
        residual: float32 (b, d).
        codebook: float32 (K, d).
        epsilon: entropy of the plan, in units of half the range of distances: the smaller, the
            nearer to the nearest codeword.
        n_iter: rounds of scaling.
    """
    norms = residual.double().square().sum(dim=1)[:, None]
    squares = distances(residual, codebook).double() + norms
    return log_plan(squares, epsilon, n_iter).argmax(dim=1)


def log_plan(costs: torch.Tensor, epsilon: float, n_iter: int) -> torch.Tensor:
    """Logarithm of the transport plan, float64 (b, K).

    Rows of the plan sum to 1, columns, after the last round, nearly to b / K. It begins with every
    row scaled so that its nearest codeword has weight 1.

    Weights of the first plan go down to exp(-2 / epsilon). Where float64 holds that, products of
    matrices scale the plan itself; where it would vanish, the same rounds work on logarithms, about
    ten times slower.

    Args:
        costs: float64 (b, K).
        epsilon: entropy of the plan, in units of half the range of the costs.
        n_iter: rounds of scaling, columns first.
    """
    low, high = costs.min(), costs.max()
    scaled = (costs - low) / ((high - low) / 2).clamp(min=1e-12) / epsilon
    kernel = scaled.amin(dim=1, keepdim=True) - scaled  # (b, K), logarithms; each row reaches 0
    if 2 / epsilon > LINEAR_RANGE:
        return _scale_logarithms(kernel, n_iter)
    return _scale(kernel.exp(), n_iter).log()


def _scale(kernel: torch.Tensor, n_iter: int) -> torch.Tensor:
    share = len(kernel) / kernel.shape[1]
    rows = torch.ones(len(kernel), dtype=kernel.dtype, device=kernel.device)
    for _ in range(n_iter):
        columns = share / (kernel.T @ rows)
        rows = 1 / (kernel @ columns)
    return kernel * rows[:, None] * columns


def _scale_logarithms(kernel: torch.Tensor, n_iter: int) -> torch.Tensor:
    share = math.log(len(kernel) / kernel.shape[1])
    rows = torch.zeros(len(kernel), dtype=kernel.dtype, device=kernel.device)
    for _ in range(n_iter):
        columns = share - torch.logsumexp(kernel + rows[:, None], dim=0)
        rows = -torch.logsumexp(kernel + columns, dim=1)
    return kernel + rows[:, None] + columns


class Averages(NamedTuple):
    """Moving sums behind one EMA codebook; the tensors are updated in place."""

    counts: torch.Tensor  # float32 (K,)
    sums: torch.Tensor  # float32 (K, d)


def average(
    codebook: torch.Tensor,
    averages: Averages,
    counts: torch.Tensor,
    sums: torch.Tensor,
    decay: float,
) -> None:
    """Move EMA codewords towards the mean of the rows that chose them, in place.

    Args:
        codebook: float32 (K, d).
        averages: of this codebook.
        counts: float32 (K,), rows of this step per codeword.
        sums: float32 (K, d), their sums.
        decay: share of the past that stays.
    """
    averages.counts.lerp_(counts, 1 - decay)
    averages.sums.lerp_(sums, 1 - decay)
    total = averages.counts.sum()
    smoothed = (averages.counts + LAPLACE) * (total / (total + len(codebook) * LAPLACE))
    codebook.copy_(averages.sums / smoothed[:, None])


def count_and_sum(
    residual: torch.Tensor, codes: torch.Tensor, n_codes: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Count and sum the rows of each codeword: float32 (K,) and (K, d); same on every run."""
    counts = torch.bincount(codes, minlength=n_codes).to(residual.dtype)
    sums = torch.zeros((n_codes, residual.shape[1]), dtype=residual.dtype, device=residual.device)
    return counts, arrays.add_rows(sums, residual, codes)
