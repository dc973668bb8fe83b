"""Finite scalar quantization as residual codebooks that stay fixed.

Each latent dimension is rounded to a few even steps between -1 and 1; a token names the cell of
some dimensions together (Mentzer et al. 2023, https://arxiv.org/abs/2309.15505). The codewords of
a level are all its cells, zero in the dimensions of the other levels: so the nearest codeword,
level by level, is the nearest step in each dimension, and one encode rule serves all quantizers.

Latents are clamped to [-1, 1], where the paper has tanh, in training and in the exported encoder:
far outside the grid a distance in float32 cannot tell steps apart. There is no codebook to learn
and no commitment: reconstruction alone trains the encoder, straight through.

Shapes: L levels, K codewords at each, d latent dimensions.
"""

import itertools
import math
from dataclasses import replace

import numpy as np

from sidmill.core.errors import SidmillError
from sidmill.settings.quantize import Rqvae

MAX_CODES = 2**20  # of a level, as config.schema.yaml has it for every other codebook


def codebooks(*, steps: list[int], n_levels: int) -> list[np.ndarray]:
    """Return the fixed codebooks of an FSQ: every cell of every level.

    Args:
        steps: steps of each dimension of a level, at least 2 each; their product is K.
        n_levels: L.

    Returns:
        L times float32 (K, d), d = L x len(steps); the last dimension of a level turns fastest.

    Raises:
        SidmillError: if there are more than ``MAX_CODES`` cells.
    """
    n_codes = math.prod(steps)
    if n_codes > MAX_CODES:
        raise SidmillError(
            f"fsq.steps {steps} make {n_codes:,} codes per level, more than {MAX_CODES:,}: lower "
            f"them, or divide them among more levels (rqvae.codebook_sizes has one entry for each)"
        )

    axes = (np.linspace(-1, 1, count) for count in steps)
    cells = np.array(list(itertools.product(*axes)))  # (K, len(steps))
    grid = np.zeros((n_levels, len(cells), n_levels * len(steps)), dtype=np.float32)
    for level in range(n_levels):
        grid[level, :, level * len(steps) : (level + 1) * len(steps)] = cells
    return list(grid)


def adapted(settings: Rqvae, grid: list[np.ndarray]) -> Rqvae:
    """Return the settings of an RQ-VAE for an FSQ, which has no codebook to learn."""
    return replace(
        settings,
        codebook_sizes=[len(cells) for cells in grid],
        e_dim=grid[0].shape[1],
        quant_loss_weight=0.0,
        estimator="straight_through",
        sk_epsilons=[],
        kmeans_init="none",
        restart=False,
    )
