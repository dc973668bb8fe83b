"""What a quantizer is worth on some embeddings: the figures by which quantizers are compared.

These are figures of the codes as the quantizer gives them, before collisions are resolved: what
the resolution repairs is part of what is compared.

Shapes: N items, L levels, K_l codes at level l, D dimensions.
"""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa

from sidmill.formats.quantizer_file import Quantizer
from sidmill.numeric import mlp, residual_codec
from sidmill.sids import alignment, neighbour_agreement, quality


def evaluate(
    fitted: Quantizer,
    vectors: np.ndarray,
    codes: np.ndarray,
    ids: pa.ChunkedArray | None,
    *,
    seed: int,
    neighbour_queries: int,
    n_neighbours: int,
    rbo_persistence: float,
    sequences: str | Path | None,
) -> dict:
    """Measure a quantizer.

    Memory: one block of vectors, about 100 bytes per item, and the queries.

    Args:
        fitted: the quantizer; of given SIDs, without codebooks, figures that need them are None.
        vectors: float (N, D), may be a memory map; need not be those it was trained on.
        codes: int32 (N, L), of these vectors.
        ids: int64 or string (N,); only used with ``sequences``.
        seed: draws the queries, and the order of items that share a code.
        neighbour_queries: items whose nearest neighbours are looked up, exactly, among all N.
        n_neighbours: how many nearest neighbours of each.
        rbo_persistence: in (0, 1), of the rank-biased overlap; nearer to 0 only the first count.
        sequences: sequences.parquet, or None for no figures of co-consumption.
    """
    n_items, dim = vectors.shape
    sizes = fitted.codebook_sizes
    generator = np.random.default_rng(seed)
    queries = np.sort(generator.choice(n_items, min(neighbour_queries, n_items), replace=False))
    n_neighbours = min(n_neighbours, n_items - 1)
    near = neighbour_agreement.nearest_items(vectors, queries, n_neighbours)
    by_code = None
    if n_neighbours and fitted.codebooks:
        reconstruct = mlp.load(fitted.decoder, "cpu")

        def decode(some: np.ndarray) -> np.ndarray:
            return np.asarray(reconstruct(residual_codec.decode(some, fitted.codebooks)))

        by_code = neighbour_agreement.nearest_by_code(
            codes, sizes, decode, queries, n_neighbours, seed
        )
    facts = (vectors, fitted.codebooks, fitted.decoder, None, queries, near)
    figures = quality.figures(codes, sizes, *facts)
    preserved = {
        "queries": len(queries),
        "neighbours": n_neighbours,
        "jaccard": None if by_code is None else neighbour_agreement.jaccard(near, by_code),
        "rbo": None
        if by_code is None
        else neighbour_agreement.rank_biased_overlap(near, by_code, rbo_persistence),
        "rbo_persistence": rbo_persistence,
    }
    return {
        "quantizer": fitted.kind,
        "items": n_items,
        "dim": dim,
        "codebook_sizes": sizes,
        "capacity": math.prod(sizes),
        **figures,
        "neighbour_preservation": preserved,
        "co_consumption": alignment.align(sequences, ids, codes, sizes) if sequences else None,
    }
