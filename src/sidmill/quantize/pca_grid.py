"""A grid on the principal axes, written as residual codebooks: scalar quantization by hand.

Finite scalar quantization (Mentzer et al. 2023, https://arxiv.org/abs/2309.15505) rounds each
dimension of a narrow latent to a few even steps; a token is the cell of some dimensions together.
There a network makes the latent; here the principal axes are the latent, which is what a linear
network would find. So this is the floor that a trained FSQ has to beat, and no FSQ itself.

A codeword is a point of the grid in the whole space. Axes are orthogonal, so the nearest codeword
is the nearest step on each axis. The first token spends its cells where the variance is, the next
ones where they left most, on the same axes again if need be: coarse to fine.

Shapes: N items, n sampled, D dimensions, L levels, K_l cells at most and G_l in fact at level l,
A leading axes.
"""

import itertools
import logging

import numpy as np

from sidmill.numeric import moments
from sidmill.quantize import sample
from sidmill.settings.quantize import PcaGrid

logger = logging.getLogger(__name__)

TRIED_STEPS = 64  # widths of a step that are tried on the sample


def fit(
    vectors: np.ndarray, settings: PcaGrid, *, codebook_sizes: list[int], seed: int
) -> list[np.ndarray]:
    """Fit a PCA grid: even steps on the principal axes, as residual codebooks.

    The axes come from all rows, the widths of the steps from a sample. Memory: three float64
    (D, D), and the sample, about ``memory_mb``.

    Args:
        vectors: float32 or float16 (N, D), finite, in memory or memory-mapped.
        settings: see :class:`sidmill.settings.quantize.PcaGrid`.
        codebook_sizes: K_l per level. A level has the largest product of steps that its axes
            allow, G_l <= K_l.
        seed: covers the sample.

    Returns:
        float32 (G_l, D) per level.

    Raises:
        SidmillError: if a row is not finite, or ``memory_mb`` is too small for the sample.
    """
    # Principal axes of all rows, and the coordinates of a sample on them.
    measured = moments.measure(vectors)
    mean = measured.mean()
    variances, axes = moments.principal_axes(measured.covariance())
    memory = sample.Memory(settings.memory_mb, "pca_grid.memory_mb", "pca_grid.sample")
    rows = sample.draw(vectors, settings.sample, np.random.default_rng(seed), memory)
    n_axes = sum(size.bit_length() for size in codebook_sizes)  # a level uses log2 K axes at most
    axes, variances = axes[:, :n_axes], variances[:n_axes]
    residuals = rows @ axes.astype(np.float32) - mean @ axes  # (n, A)

    codebooks = []
    for level, size in enumerate(codebook_sizes):
        # Quantize the axes that gain most, and subtract their nearest steps.
        counts = _share_out(variances, size)
        used = np.flatnonzero(counts > 1)
        grid = [_steps(residuals[:, axis], counts[axis]) for axis in used]
        for axis, steps in zip(used, grid, strict=True):
            # By the middles between steps: a table of all differences would be (n, steps).
            nearest = np.searchsorted((steps[1:] + steps[:-1]) / 2, residuals[:, axis])
            residuals[:, axis] -= steps[nearest]
            variances[axis] = np.square(residuals[:, axis]).mean()
        logger.info("level %d: %s steps on axes %s", level + 1, counts[used], used + 1)

        # Every combination of steps is a codeword; the first level holds the mean.
        points = np.array(list(itertools.product(*grid)))  # (G_l, axes used)
        codebook = points @ axes[:, used].T + (mean if level == 0 else 0.0)
        codebooks.append(codebook.astype(np.float32))
    return codebooks


def _share_out(variances: np.ndarray, size: int) -> np.ndarray:
    """Steps per axis, int64 (D,), with a product of at most ``size``: where they gain most.

    With n steps an axis keeps about 1 / n**2 of its variance; one more step costs the share by
    which the number of cells grows.
    """
    counts = np.ones(len(variances), dtype=np.int64)
    while True:
        gain = variances * (counts**-2.0 - (counts + 1) ** -2.0) / np.log((counts + 1) / counts)
        fits = counts.prod() // counts * (counts + 1) <= size
        if not (gain[fits] > 0).any():
            return counts
        counts[np.where(fits, gain, -np.inf).argmax()] += 1


def _steps(values: np.ndarray, count: int) -> np.ndarray:
    """Even steps around 0 that leave the least squared error of ``values``, float64 (count,)."""
    positions = np.arange(count) - (count - 1) / 2
    widths = np.abs(values).max() * 2 / count * np.arange(1, TRIED_STEPS + 1) / TRIED_STEPS
    errors = []
    for width in widths:
        nearest = np.clip(np.floor(values / max(width, 1e-300) + count / 2), 0, count - 1)
        errors.append(np.square(values - (nearest - (count - 1) / 2) * width).sum())
    result: np.ndarray = positions * widths[int(np.argmin(errors))]
    return result
