"""Optimized product quantization, written as residual codebooks.

Product quantization cuts a rotated vector into L parts and gives each part its own codebook; OPQ
learns the rotation (Ge, He, Ke and Sun 2013, https://doi.org/10.1109/CVPR.2013.379; here faiss's).
Rotated back, a codeword of one part is a vector of the whole space that is orthogonal to the
codewords of all other parts. So the sum of L such codewords is what product quantization decodes
to, and taking the nearest codeword level by level chooses as it does, part by part: OPQ is a
quantizer like any other here, but its tokens are side by side, not coarse to fine.

Vectors are taken from their mean, which the codewords of the first level hold: in float32 the costs
of one part would otherwise drown in the offset of the others.

Shapes: N items, n sampled, D dimensions, L levels, d = D // L dimensions of a part, K codewords.
"""

import logging

import numpy as np

from sidmill.core.errors import SidmillError
from sidmill.core.faiss_library import faiss
from sidmill.numeric import row_blocks, training_sizes
from sidmill.quantize import sample as samples
from sidmill.settings.quantize import Opq

logger = logging.getLogger(__name__)

ROTATION_BITS = 8  # a part's codebook while the rotation is learned has at most 2**8 codewords


def fit(
    vectors: np.ndarray, settings: Opq, *, codebook_sizes: list[int], seed: int
) -> list[np.ndarray]:
    """Fit optimized product quantization: a rotation, and one codebook per part.

    D - L d dimensions, fewer than L, are left out by the rotation. On one thread, so that the same
    input, settings and seed give the same bytes. A sample of fewer than 2 D rows is repeated for
    the rotation, which needs as many. Memory: the sample four times, about ``memory_mb``, and a few
    (D, D).

    Args:
        vectors: float32 or float16 (N, D), finite, in memory or memory-mapped.
        settings: see :class:`sidmill.settings.quantize.Opq`. The largest level decides how many
            rows ``max_points_per_centroid`` allows.
        codebook_sizes: K_l per level; L is at most D, each K at most N.
        seed: covers the sample and the first codewords; the rotation starts from faiss's own.

    Returns:
        float32 (K_l, D) per level.

    Raises:
        SidmillError: if there are fewer rows than codewords or fewer dimensions than levels, a row
            is not finite or out of the range of ``row_blocks.require_finite``, or ``memory_mb`` is
            too small for the sample.
    """
    # Refuse what cannot work, and draw the sample.
    n_items, dim = vectors.shape
    n_levels, largest = len(codebook_sizes), max(codebook_sizes)
    if dim < n_levels:
        raise SidmillError(f"{dim} dimensions cannot be cut into {n_levels} parts: lower n_levels")
    if n_items < largest:
        raise SidmillError(
            f"{n_items} of {n_items} vectors cannot fill {largest} codewords: lower "
            f"rqkmeans.codebook_size to at most {n_items}, or embed more items"
        )
    memory = samples.Memory(settings.memory_mb, "opq.memory_mb", "opq.max_points_per_centroid")
    n_rows = settings.max_points_per_centroid * largest
    sample = samples.draw(vectors, n_rows, np.random.default_rng(seed), memory)
    if training_sizes.are_few(len(sample), largest):
        logger.warning("%d vectors are few for %d codewords", len(sample), largest)

    # Centre the sample, and bring very large or small values near 1.
    mean = sample.mean(axis=0, dtype=np.float64)
    sample -= mean.astype(np.float32)
    values = row_blocks.exponents(row_blocks.largest_values(sample))
    scale = row_blocks.safe_scale(float(values.mean()) if len(values) else 0.0)
    sample *= np.float32(scale)

    # Learn the rotation, and k-means of each part of the rotated sample.
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        rotation = _rotation(sample, n_levels, min(codebook_sizes), settings.n_iter)  # (L d, D)
        parts = np.split(rotation, n_levels)
        codebooks = [
            _centroids(sample @ part.T, size, settings.n_iter, seed + level)
            @ part
            / np.float32(scale)
            for level, (part, size) in enumerate(zip(parts, codebook_sizes, strict=True))
        ]
    finally:
        faiss.omp_set_num_threads(threads)
    codebooks[0] = (codebooks[0] + mean).astype(np.float32)
    return codebooks


def _rotation(sample: np.ndarray, n_levels: int, n_codes: int, n_iter: int) -> np.ndarray:
    """Learn orthonormal rows, float32 (L d, D), with faiss."""
    width = sample.shape[1] // n_levels * n_levels
    bits = max(min(n_codes.bit_length() - 1, ROTATION_BITS), 1)
    product = faiss.ProductQuantizer(width, n_levels, bits)
    product.cp.min_points_per_centroid = 1  # fit() has warned already
    sample = _repeated(sample, training_sizes.opq_rows(sample.shape[1], width, bits))
    opq = faiss.OPQMatrix(sample.shape[1], n_levels, width)
    opq.pq = product
    opq.niter = n_iter
    opq.max_train_points = len(sample)
    opq.train(sample)
    return faiss.vector_to_array(opq.A).reshape(width, sample.shape[1])


def _repeated(sample: np.ndarray, n_rows: int) -> np.ndarray:
    """Repeat the rows (n, D) until there are ``n_rows``: the same distribution."""
    return np.tile(sample, (-(-n_rows // len(sample)), 1)) if len(sample) < n_rows else sample


def _centroids(part: np.ndarray, size: int, n_iter: int, seed: int) -> np.ndarray:
    """k-means of one part, float32 (n, d), to float32 (K, d)."""
    if size == len(part):
        return part
    clustering = faiss.Kmeans(
        part.shape[1],
        size,
        niter=n_iter,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=len(part),
    )
    clustering.train(np.ascontiguousarray(part))
    return np.asarray(clustering.centroids)
