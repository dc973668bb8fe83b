"""Finite scalar quantization as residual codebooks that nothing moves.

Each latent dimension is rounded to a few even steps between -1 and 1; a token names the cell of
some dimensions together (Mentzer et al. 2023, https://arxiv.org/abs/2309.15505). The codewords of
a level are all its cells, zero in the dimensions of the other levels: so the nearest codeword,
level by level, is the nearest step in each dimension, and one encode rule serves all quantizers.

Latents are clamped to [-1, 1] in training, where the paper has tanh: a latent beyond the last step
is rounded to it anyway, so the encoder that leaves the training needs no bound. There is no
codebook to learn and no commitment: reconstruction alone teaches the encoder, straight through.

Shapes: L levels, K codewords at each, d latent dimensions.
"""

import itertools

import numpy as np

from sidmill.quantize.rqvae.settings import Settings


def codebooks(*, steps: list[int], n_levels: int) -> list[np.ndarray]:
    """Every cell of every level.

    Args:
        steps: steps of each dimension of a level, at least 2 each; their product is K.
        n_levels: L.

    Returns:
        L times float32 (K, d), d = L x len(steps); the last dimension of a level turns fastest.
    """
    cells = np.array(list(itertools.product(*(np.linspace(-1, 1, count) for count in steps))))
    words = np.zeros((n_levels, len(cells), n_levels * len(steps)), dtype=np.float32)
    for level in range(n_levels):
        words[level, :, level * len(steps) : (level + 1) * len(steps)] = cells
    return list(words)


def suited(settings: Settings, words: list[np.ndarray]) -> Settings:
    """The settings of an RQ-VAE, with what a fixed grid replaces."""
    return settings._replace(
        codebook_sizes=[len(level) for level in words],
        e_dim=words[0].shape[1],
        codebook_update="none",
        quant_loss_weight=0.0,
        estimator="straight_through",
        sk_epsilons=[],
        kmeans_init="none",
        restart=False,
    )
