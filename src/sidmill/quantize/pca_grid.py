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

from sidmill.core.errors import SidmillError
from sidmill.numeric import moments
from sidmill.quantize.sample import draw, memory_for

logger = logging.getLogger(__name__)

TRIED_STEPS = 64  # widths of a step that are tried on the sample


def fit(
    vectors: np.ndarray,
    *,
    codebook_sizes: list[int],
    sample: int,
    seed: int,
    memory_mb: int,
) -> list[np.ndarray]:
    """Lay grids on the principal axes.

    The axes come from all rows, the widths of the steps from a sample. Memory: three float64
    (D, D), and the sample, about ``memory_mb``.

    Args:
        vectors: float32 or float16 (N, D), finite, in memory or memory-mapped.
        codebook_sizes: K_l per level. A level has the largest product of steps that its axes
            allow, G_l <= K_l.
        sample: rows that the widths are fitted to, at most.
        seed: covers the sample.
        memory_mb: MiB for the sample; counts where it cuts the sample.

    Returns:
        float32 (G_l, D) per level.

    Raises:
        SidmillError: if a row is not finite, or ``memory_mb`` holds no row.
    """
    measured = moments.measure(vectors)
    mean = measured.mean()
    variances, axes = moments.principal_axes(measured.covariance())
    generator = np.random.default_rng(seed)
    rows = draw(vectors, sample, generator, memory_mb)
    if not len(rows):
        raise SidmillError(
            f"pca_grid.memory_mb {memory_mb} holds no vector of {vectors.shape[1]} dimensions: "
            f"raise it to at least {memory_for(1, vectors.shape[1])}"
        )
    reach = sum(size.bit_length() for size in codebook_sizes)  # a level opens log2 K axes at most
    axes, variances = axes[:, :reach], variances[:reach]
    left = rows @ axes.astype(np.float32) - mean @ axes  # (n, A), coordinates not yet explained
    codebooks = []
    for level, size in enumerate(codebook_sizes):
        counts = _share_out(variances, size)
        used = np.flatnonzero(counts > 1)
        grid = [_steps(left[:, axis], counts[axis]) for axis in used]
        for axis, steps in zip(used, grid, strict=True):
            # By the middles between steps: a table of all differences would be (n, steps).
            nearest = np.searchsorted((steps[1:] + steps[:-1]) / 2, left[:, axis])
            left[:, axis] -= steps[nearest]
            variances[axis] = np.square(left[:, axis]).mean()
        logger.info("level %d: %s steps on axes %s", level + 1, counts[used], used + 1)
        points = np.array(list(itertools.product(*grid)))  # (G_l, axes used)
        words = points @ axes[:, used].T + (mean if level == 0 else 0.0)
        codebooks.append(words.astype(np.float32))
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
    places = np.arange(count) - (count - 1) / 2
    widths = np.abs(values).max() * 2 / count * np.arange(1, TRIED_STEPS + 1) / TRIED_STEPS
    errors = []
    for width in widths:
        nearest = np.clip(np.floor(values / max(width, 1e-300) + count / 2), 0, count - 1)
        errors.append(np.square(values - (nearest - (count - 1) / 2) * width).sum())
    return places * widths[int(np.argmin(errors))]
