"""How many codes a catalogue needs: expected collisions for K and L, and the smallest budget.

Two answers stand beside each other. *Even use* is balls into bins: N items thrown evenly into K^L
codes. Quantizers do not use codes evenly, and near-duplicates fall together whatever the size, so
real rates are far higher. *Expected* is measured: residual k-means is fitted to samples of the
catalogue with each K, which gives every L up to the longest at once, and each rate is turned into
the number of evenly used codes that would give it, the *effective* codes. Their logarithm is
followed in a straight line

    over the number of items, from half the sample and the sample to the whole catalogue, and
    over log K at each L, where a K is too large for the sample, from the two largest that fit.

A catalogue that fits into the sample is measured as it is, where K allows: then the rate is the one
that was found, which may be below that of even use. Where it does not fit, no more than even use is
foretold.

Shapes: N items, n sampled, D dimensions, L levels, K codes per level.
"""

import hashlib
import logging
import math
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.optimize import brentq

from sidmill.core.errors import SidmillError
from sidmill.numeric import residual_codec, row_blocks
from sidmill.quantize import rqkmeans
from sidmill.quantize import sample as samples
from sidmill.settings.quantize import Rqkmeans

logger = logging.getLogger(__name__)

ROWS_PER_CODE = 4  # a fit with fewer vectors per code says little of the catalogue
FIT = Rqkmeans(n_iter=10, tolerance=0.001)  # of the fits to a sample
MAX_BITS = 256  # of effective codes: more than any code space here


def advise(
    vectors: np.ndarray,
    *,
    target: float,
    codebook_sizes: list[int],
    n_levels: list[int],
    sample: int,
    seed: int,
    device: str,
    memory_mb: int,
) -> dict[str, Any]:
    """Predict the collision rate (N - distinct) / N for every K and L, before resolution.

    The same input and seed give the same answer. Memory: the sample four times, what
    :func:`rqkmeans.fit` takes, and 8 bytes per item.

    Args:
        vectors: float32 or float16 (N, D), finite, in memory or memory-mapped.
        target: the collision rate to come under.
        codebook_sizes: each K to consider; those above N are left out.
        n_levels: each L to consider.
        sample: vectors that are fitted, at most.
        seed: covers the sample and the fits.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        memory_mb: MiB for the sample and the fits.

    Returns:
        ``items``, ``identical_vectors`` (share of items that repeat an earlier vector, which no
        quantizer tells apart), ``candidates`` with ``n_levels``, ``codebook_size``, ``bits``,
        ``even``, ``expected``, ``effective_bits`` and ``how`` they were found, and the smallest
        candidate under the target, in bits and then in tokens, by either rate: None where there is
        none.

    Raises:
        SidmillError: if no K has ``ROWS_PER_CODE`` vectors per code in the smallest fit.
    """
    # A sample, or the whole catalogue where it fits.
    n_items = len(vectors)
    sizes = sorted({size for size in codebook_sizes if size <= n_items})
    lengths = sorted(set(n_levels))
    identical = _identical(vectors)
    memory = samples.Memory(memory_mb, "memory_mb", "the sample")
    rows = samples.draw(vectors, sample, np.random.default_rng(seed), memory)
    whole = len(rows) == n_items
    fit = replace(FIT, n_levels=max(lengths), device=device, memory_mb=memory_mb)
    # (K, L) -> log2 of the effective codes, and how they were found
    effective: dict[tuple[int, int], float] = {}
    measured: dict[tuple[int, int], float] = {}  # the rates themselves, of the whole catalogue

    # Measure every K that has enough rows; extrapolate from half of the sample to N.
    smallest_fit = len(rows) if whole else len(rows) // 2
    for size in (size for size in sizes if ROWS_PER_CODE * size <= smallest_fit):
        rates = _rates(rows, replace(fit, codebook_size=size), seed, lengths)
        full = [effective_bits(rate, len(rows)) for rate in rates]
        if whole:
            measured |= {(size, length): rate for length, rate in zip(lengths, rates, strict=True)}
        else:
            sparse = rows[::2]
            rates = _rates(sparse, replace(fit, codebook_size=size), seed, lengths)
            half = [effective_bits(rate, len(sparse)) for rate in rates]
            octaves = math.log2(n_items / len(rows))
            full = [b + max(b - a, 0.0) * octaves for a, b in zip(half, full, strict=True)]
        effective |= {(size, length): bits for length, bits in zip(lengths, full, strict=True)}
        logger.info("K %d: effective bits %s at L %s", size, np.round(full, 2), lengths)
    fitted = sorted({size for size, _ in effective})
    if not fitted:
        raise SidmillError(
            f"{len(rows)} vectors are too few for codebooks of {sorted(codebook_sizes)}: name "
            f"smaller ones, of at most {smallest_fit // ROWS_PER_CODE} codes, or raise the sample"
        )

    # Predict every candidate: measured, or extrapolated to a larger K.
    candidates = []
    for length in lengths:
        for size in sizes:
            capacity = length * math.log2(size)
            even = even_rate(capacity, n_items)
            bits = effective.get((size, length))
            how = "measured" if whole else "extrapolated over items"
            if bits is None:
                bits, how = _beyond(effective, fitted, size, length), "extrapolated over codes"
            expected = measured.get((size, length))
            if expected is None:
                # A sample without collisions says no more than even use of all codes does.
                if bits > capacity:
                    bits, how = capacity, f"{how}, at most even use"
                expected = max(even_rate(bits, n_items), identical)
            candidates.append(
                {
                    "n_levels": length,
                    "codebook_size": size,
                    "bits": capacity,
                    "even": even,
                    "expected": expected,
                    "effective_bits": bits,
                    "how": how,
                }
            )
    return {
        "items": n_items,
        "sampled": len(rows),
        "identical_vectors": identical,
        "target": target,
        "candidates": candidates,
        "smallest": _smallest(candidates, "expected", target),
        "smallest_if_even": _smallest(candidates, "even", target),
    }


def even_rate(bits: float, n_items: int) -> float:
    """Expected (N - distinct) / N of N items thrown evenly and independently into 2**bits codes."""
    load: float = n_items * 2.0**-bits
    if load < 1e-4:  # 1 - (1 - e**-x) / x, where its difference would be lost in rounding
        return load / 2
    # (1 - 1/M)**N, exact for few codes; e**-load in the limit
    missed = math.exp(n_items * math.log1p(-(2.0**-bits))) if bits > 0 else 0.0
    return max(1.0 - (1.0 - missed) / load, 0.0)


def effective_bits(rate: float, n_items: int) -> float:
    """The inverse of :func:`even_rate`: log2 of the number of codes, ``MAX_BITS`` for rate 0."""
    if rate <= even_rate(MAX_BITS, n_items):
        return float(MAX_BITS)
    if rate >= even_rate(0.0, n_items):
        return 0.0
    return float(brentq(lambda bits: even_rate(bits, n_items) - rate, 0.0, MAX_BITS))


def _rates(rows: np.ndarray, fit: Rqkmeans, seed: int, lengths: list[int]) -> list[float]:
    """(N - distinct) / N of residual k-means, at each number of levels."""
    codebooks = rqkmeans.fit(rows, fit, seed=seed).codebooks
    blocks = residual_codec.encode(rows, codebooks, device=fit.device, memory_mb=fit.memory_mb)
    codes = np.concatenate(list(blocks))
    distinct = [len(np.unique(codes[:, :length], axis=0)) for length in lengths]
    return [(len(rows) - number) / len(rows) for number in distinct]


def _beyond(
    effective: dict[tuple[int, int], float], fitted: list[int], size: int, length: int
) -> float:
    """Effective bits of a K that was too large to fit, in a straight line over log K."""
    last = effective[fitted[-1], length]
    if len(fitted) == 1:
        return last
    slope = (last - effective[fitted[-2], length]) / math.log2(fitted[-1] / fitted[-2])
    return last + slope * math.log2(size / fitted[-1])


def _identical(vectors: np.ndarray) -> float:
    """Share of rows that repeat an earlier one."""
    digests = np.empty(len(vectors), dtype=np.uint64)
    for start, block in row_blocks.read_blocks(vectors, row_blocks.MAX_BLOCK_ROWS):
        for row, vector in enumerate(block, start):
            digest = hashlib.blake2b(vector.tobytes(), digest_size=8).digest()
            digests[row] = int.from_bytes(digest, "little")
    return 1.0 - len(np.unique(digests)) / len(digests)


def _smallest(candidates: list[dict[str, Any]], rate: str, target: float) -> dict[str, Any] | None:
    """The candidate of the fewest bits, then the fewest tokens, whose rate is under the target."""
    under = [one for one in candidates if one[rate] <= target]
    return min(under, key=lambda one: (one["bits"], one["n_levels"]), default=None)
