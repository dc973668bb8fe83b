"""Losses besides those of the quantizer.

Shapes: b rows, D dimensions, d latent dimensions.
"""

import torch
import torch.nn.functional as F

TINY = 1e-6
MARGIN = 2.0  # distance at which repulsion ends, in units of the length that the last level leaves


def reconstruction(output: torch.Tensor, target: torch.Tensor, kind: str) -> torch.Tensor:
    """Mean error of a batch: ``mse``, ``l1`` or ``cosine`` (1 - cosine similarity)."""
    if kind == "mse":
        return F.mse_loss(output, target)
    if kind == "l1":
        return F.l1_loss(output, target)
    return 1 - (unit(output) * unit(target)).sum(dim=1).mean()


def unit(rows: torch.Tensor) -> torch.Tensor:
    """Rows at length 1; those shorter than ``TINY`` are divided by it, so gradients stay small."""
    return F.normalize(rows, dim=1, eps=TINY)


def diversity(latents: torch.Tensor) -> torch.Tensor:
    """Spread latents: minus the mean log distance of each from its nearest neighbour in the batch.

    The estimator of entropy by Kozachenko and Leonenko, taken for quantization by "Spreading
    vectors for similarity search", https://arxiv.org/abs/1806.03198. Distances are measured in
    units of the batch's spread, so growing as a whole gains nothing. Equal rows do not count: no
    gradient can separate them. A batch of one row, or of equal rows only, has loss and gradient 0.
    """
    # clamped before the root: the derivative of a root at 0 is infinite, and 0 times it is NaN
    centred = latents - latents.mean(dim=0)
    scaled = centred / centred.square().mean().clamp(min=TINY**2).sqrt()

    # the nearest other row of each: (b,)
    with torch.no_grad():
        squares = scaled.square().sum(dim=1)
        distances = torch.addmm(squares, scaled, scaled.T, alpha=-2).add_(squares[:, None])
        distances.fill_diagonal_(torch.inf)
        neighbours = distances.argmin(dim=1)

    # its distance again, with a gradient
    nearest = (scaled - scaled[neighbours]).square().sum(dim=1)
    apart = nearest[nearest > TINY]
    return -apart.log().mean() / 2 if len(apart) else nearest.sum()


def repulsion(one: torch.Tensor, other: torch.Tensor, error: torch.Tensor) -> torch.Tensor:
    """Separate items that share all codes, up to about two codewords of the last level.

    A hinge on their distance, with the margin in units of what the last level leaves, as in
    QuaSID, https://arxiv.org/abs/2603.00632; a sum over the pairs, so that the last pairs that
    remain are pushed no harder. Equal rows do not count: no gradient can separate them.

    Args:
        one: float32 (b, d).
        other: float32 (b, d), row for row what collides.
        error: float32 (), mean squared length of the residual after the last level.
    """
    margin = (MARGIN * error.sqrt()).clamp(min=TINY)
    squares = (one - other).square().sum(dim=1)
    distances = squares[squares > TINY * margin**2].sqrt()
    return (1 - distances / margin).clamp(min=0).square().sum()


def contrastive(one: torch.Tensor, other: torch.Tensor, temperature: float) -> torch.Tensor:
    """InfoNCE: each row finds its partner among all the others of the batch, in both directions.

    Source: https://arxiv.org/abs/1807.03748.

    Args:
        one: float32 (b, d).
        other: float32 (b, d), row for row the partner.
        temperature: of the softmax over cosines.
    """
    scores = unit(one) @ unit(other).T / temperature
    targets = torch.arange(len(scores), device=scores.device)
    return (F.cross_entropy(scores, targets) + F.cross_entropy(scores.T, targets)) / 2
