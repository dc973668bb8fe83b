"""How well a quantizer does on some embeddings: the figures by which quantizers are compared.

These are figures of the codes as the quantizer gives them, before collisions are resolved: what
the resolution repairs is part of the comparison.

Shapes: N items, L levels, K_l codes at level l, D dimensions.
"""

import math

import numpy as np
import pyarrow as pa

from sidmill.formats.quantizer_file import Quantizer
from sidmill.numeric import list_overlap, mlp, residual_codec
from sidmill.settings.sids import Evaluation
from sidmill.sids import alignment, neighbour_agreement, quality


def evaluate(
    fitted: Quantizer,
    vectors: np.ndarray | None,
    codes: np.ndarray,
    ids: pa.ChunkedArray | None,
    settings: Evaluation,
    seed: int,
) -> quality.Figures:
    """Measure a quantizer on some embeddings: the figures of evaluation.json.

    Memory: one block of vectors, about 100 bytes per item, and the queries.

    Args:
        fitted: the quantizer; given SIDs have no codebooks, and figures that need them are None.
        vectors: float (N, D), may be a memory map; need not be those it was trained on. None where
            items have no text: figures of errors and neighbours are None.
        codes: int32 (N, L), of these vectors.
        ids: int64 or string (N,); only used with ``settings.sequences``.
        settings: queries and neighbours, which are looked up exactly among all N; persistence of
            the rank-biased overlap; histories for the figures of co-consumption, or None.
        seed: draws the queries, and the order of items that share a code.
    """
    # Draw the queries, and find their nearest neighbours by vectors: (Q, k).
    n_items = len(codes)
    sizes = fitted.codebook_sizes
    generator = np.random.default_rng(seed)
    n_queries = 0 if vectors is None else min(settings.neighbour_queries, n_items)
    queries = np.sort(generator.choice(n_items, n_queries, replace=False))
    n_neighbours = min(settings.n_neighbours, n_items - 1)
    near = np.empty((0, n_neighbours), np.int64)
    if vectors is not None:
        near = neighbour_agreement.nearest_items(vectors, queries, n_neighbours)

    # Find them by what the codes decode to, and compare the two lists.
    jaccard = overlap = None
    if len(queries) and n_neighbours and fitted.codebooks:
        reconstruct = mlp.load(fitted.decoder, "cpu")

        def decode(rows: np.ndarray) -> np.ndarray:
            return np.asarray(reconstruct(residual_codec.decode(rows, fitted.codebooks)))

        by_code = neighbour_agreement.nearest_by_code(
            codes, sizes, decode, queries, n_neighbours, seed
        )
        jaccard = list_overlap.jaccard(near, by_code)
        overlap = list_overlap.rank_biased_overlap(near, by_code, settings.rbo_persistence)

    reference = quality.Reference(vectors, fitted.codebooks, fitted.decoder, None, queries, near)
    preserved = {
        "queries": len(queries),
        "neighbours": n_neighbours,
        "jaccard": jaccard,
        "rbo": overlap,
        "rbo_persistence": settings.rbo_persistence,
    }
    consumed = None
    if settings.sequences:
        consumed = alignment.align(settings.sequences, ids, codes, sizes)
    return {
        "quantizer": fitted.kind,
        "items": n_items,
        "dim": None if vectors is None else vectors.shape[1],
        "codebook_sizes": sizes,
        "capacity": math.prod(sizes),
        **quality.figures(codes, sizes, reference),
        "neighbour_preservation": preserved,
        "co_consumption": consumed,
    }
