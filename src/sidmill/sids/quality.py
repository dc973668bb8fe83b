"""What the SIDs are worth: every figure of quality.json, before and after resolution.

Two collision rates are in use and both are given: (N - distinct) / N, as in LC-Rec, and the share
of items whose SID another item has too. Collisions among items of identical text (benign) are told
apart from those of different items (harmful). Entropy is set against min(log N, log capacity),
which is what can be reached, and not against the capacity alone.

Shapes: N items, L levels, K_l codes at level l, D dimensions.
"""

import logging
import math
from typing import Any, NamedTuple

import numpy as np

from sidmill.formats.code_files import Codes
from sidmill.formats.quantizer_file import Network, Quantizer
from sidmill.numeric import mlp, row_blocks
from sidmill.settings.sids import Quality
from sidmill.sids import prefixes
from sidmill.sids.neighbour_agreement import nearest_items

logger = logging.getLogger(__name__)

MAX_RANKS = 2048  # points of a usage curve
LONGEST_NEIGHBOUR_PREFIX = 3
NO_LOSS: dict[str, float | None] = {"mse": None, "relative_loss": None}

Figures = dict[str, Any]  # a part of quality.json


class Reference(NamedTuple):
    """What codes are measured against.

    Attributes:
        vectors: float (N, D), may be a memory map; None gives no errors.
        codebooks: float32 (K_l, D) per level, or (K_l, d) before a decoder; none gives no errors.
        decoder: from sums of codewords (d) to vectors (D), or None where these are one space.
        text_classes: int64 (N,), equal numbers for equal texts; None: no collision is benign.
        queries: int64 (Q,), rows of some items.
        neighbours: int64 (Q, k), rows of their nearest neighbours.
    """

    vectors: np.ndarray | None
    codebooks: list[np.ndarray]
    decoder: Network | None
    text_classes: np.ndarray | None
    queries: np.ndarray
    neighbours: np.ndarray


def measure(
    before: Codes,
    after: Codes,
    vectors: np.ndarray | None,
    quantizer: Quantizer,
    text_classes: np.ndarray | None,
    settings: Quality,
    seed: int,
) -> Figures:
    """Measure quality.json: codes before collisions are resolved, and SIDs after.

    Memory: one block of vectors, about 60 bytes per item, and the queries.

    Args:
        before: codes int32 (N, L) and the size of each level.
        after: SIDs int32 (N, L), or (N, L + 1) with a suffix, and the size of each token.
        vectors: float (N, D), may be a memory map; None where items are not embedded.
        quantizer: codebooks and decoder; given SIDs have none.
        text_classes: int64 (N,): equal numbers for equal texts; None where items have no text.
        settings: how many items are queries, and how many neighbours of each are looked up, exactly
            and among all N.
        seed: draws the queries.
    """
    # Draw the queries, and find their nearest neighbours: (Q, k).
    n_items = len(before.codes)
    queries, near = np.empty(0, dtype=np.int64), np.empty((0, 0), dtype=np.int64)
    if vectors is not None:
        rng = np.random.default_rng(seed)
        n_queries = min(settings.neighbour_queries, n_items)
        queries = np.sort(rng.choice(n_items, n_queries, replace=False))
        near = nearest_items(vectors, queries, min(settings.neighbours, n_items - 1))
    reference = Reference(
        vectors, quantizer.codebooks, quantizer.decoder, text_classes, queries, near
    )

    # A loss of 1 is that of codes that say nothing: the quantizer was trained on other vectors.
    figures_before = figures(before.codes, before.sizes, reference)
    loss = figures_before["relative_loss"]
    if loss is not None and loss >= 1:
        logger.warning(
            "the codes explain nothing (relative loss %.2f): does the quantizer belong to these "
            "embeddings?",
            loss,
        )
    return {
        "items": n_items,
        "dim": None if vectors is None else vectors.shape[1],
        "codebook_sizes": before.sizes,
        "capacity": math.prod(before.sizes),
        "identical_text_items": None if text_classes is None else int(_sharing(text_classes).sum()),
        "neighbour_queries": len(queries),
        "neighbours": near.shape[1],
        "not_measured": _not_measured(reference, loss),
        "before": figures_before,
        "after": figures(after.codes, after.sizes, reference),
    }


def _not_measured(reference: Reference, loss: float | None) -> dict[str, str]:
    """Figures that are null or left out, with the reason."""
    reasons = {}
    if not reference.codebooks:
        reasons["mse, relative_loss"] = "the SIDs were given, without codebooks"
    elif reference.vectors is None:
        reasons["mse, relative_loss"] = "the items are not embedded"
    elif loss is None:
        reasons["relative_loss"] = "all vectors are zero"
    if reference.vectors is None:
        reasons["dim, neighbours"] = "the items are not embedded: see given.measure_neighbours"
    if reference.text_classes is None:
        reasons["identical_text_items, harmful, benign"] = "the items have no text: see items.path"
    return reasons


def figures(codes: np.ndarray, sizes: list[int], reference: Reference) -> Figures:
    """Measure the quality of one set of codes.

    Args:
        codes: int32 (N, M), M >= L: tokens after the codebooks are a suffix.
        sizes: K_l per level.
        reference: vectors, codebooks, texts and neighbours.
    """
    # Items of one SID have one number: how many SIDs are in use, and how evenly.
    n_items = len(codes)
    numbers = prefixes.number(codes, sizes).numbers  # one (N,) per prefix length
    distinct = int(numbers[-1].max()) + 1
    shared = _sharing(numbers[-1])
    entropy = _entropy_bits(np.bincount(numbers[-1]))
    bound = min(math.log2(n_items), sum(math.log2(size) for size in sizes))
    harm = {} if reference.text_classes is None else _harm(numbers[-1], reference.text_classes)

    # Errors by level; a suffix describes no vector and has none.
    losses = _losses(codes[:, : len(reference.codebooks)], reference)
    final_loss = losses[-1] if losses else NO_LOSS
    losses += [NO_LOSS] * (len(sizes) - len(losses))
    lengths = range(1, min(LONGEST_NEIGHBOUR_PREFIX, len(sizes)) + 1)
    return {
        "distinct": distinct,
        "collision_rate": (n_items - distinct) / n_items,
        "colliding_items_rate": float(shared.mean()),
        "largest_collision": int(np.bincount(numbers[-1]).max()),
        **harm,
        "entropy_bits": entropy,
        "entropy_bound_bits": bound,
        "entropy_ratio": entropy / bound if bound else 1.0,
        **final_loss,
        "neighbours": {str(m): _preserved(numbers[m], reference) for m in lengths},
        "neighbours_chance": {str(m): _chance(numbers[m]) for m in lengths},
        "levels": [
            _level(codes[:, level], size, numbers[level + 1]) | {"level": level + 1, **loss}
            for level, (size, loss) in enumerate(zip(sizes, losses, strict=True))
        ],
    }


def _level(column: np.ndarray, size: int, numbers: np.ndarray) -> Figures:
    """Figures of one level: how its codes are used, and the prefixes that end there."""
    # Items per code, the used ones in falling order; at most MAX_RANKS points of that curve.
    usage = np.bincount(column, minlength=size)
    used = np.sort(usage[usage > 0])[::-1]
    entropy = _entropy_bits(usage)
    ranks = np.unique(np.linspace(0, len(used) - 1, min(len(used), MAX_RANKS)).astype(int))

    # Prefixes by their number of items, in bins of powers of two.
    under_prefix = np.bincount(numbers)
    exponents, counts = np.unique(np.log2(under_prefix).astype(int), return_counts=True)
    return {
        "codebook_size": size,
        "used": len(used),
        "utilisation": len(used) / size,
        "entropy_bits": entropy,
        "perplexity": 2.0**entropy,
        "gini": _gini(usage),
        "largest_share": float(used[0] / len(column)),
        "prefixes": len(under_prefix),
        "largest_prefix": int(under_prefix.max()),
        "usage": used[ranks].tolist(),
        "prefix_size_histogram": {
            _range_name(2**exponent): int(count)
            for exponent, count in zip(exponents.tolist(), counts, strict=True)
        },
    }


def _range_name(start: int) -> str:
    return "1" if start == 1 else f"{start}-{2 * start - 1}"


def _sharing(numbers: np.ndarray) -> np.ndarray:
    """Bool (N,): whether another item has the same number."""
    sharing: np.ndarray = np.bincount(numbers)[numbers] > 1
    return sharing


def _harm(numbers: np.ndarray, text_classes: np.ndarray) -> Figures:
    """Tell shared SIDs whose items all have one text (benign) from the others (harmful)."""
    rows, bounds = prefixes.groups(numbers)
    ordered = text_classes[rows]
    counts = np.diff(bounds)
    mixed = np.minimum.reduceat(ordered, bounds[:-1]) != np.maximum.reduceat(ordered, bounds[:-1])
    benign = (counts > 1) & ~mixed
    return {
        name: {"sids": int(kind.sum()), "items": int(counts[kind].sum())}
        for name, kind in (("harmful", mixed), ("benign", benign))
    }


def _losses(codes: np.ndarray, reference: Reference) -> list[dict[str, float | None]]:
    """Squared error after each level, per value and over the squared length of the vectors.

    The second is None where all vectors are zero: there is nothing to explain.
    """
    vectors, codebooks = reference.vectors, reference.codebooks
    if vectors is None or not codebooks:
        return []
    errors = np.zeros(codes.shape[1])
    reconstruct = mlp.load(reference.decoder, "cpu")
    energy = 0.0
    for start, block in row_blocks.read_blocks(vectors, row_blocks.MAX_BLOCK_ROWS):
        energy += float(np.square(block, dtype=np.float64).sum())
        decoded = np.zeros((len(block), codebooks[0].shape[1]), dtype=np.float32)
        for level, codebook in enumerate(codebooks[: codes.shape[1]]):
            decoded += codebook[codes[start : start + len(block), level]]
            residual = block - np.asarray(reconstruct(decoded))
            errors[level] += np.square(residual, dtype=np.float64).sum()
    return [
        {"mse": error / vectors.size, "relative_loss": error / energy if energy else None}
        for error in errors.tolist()
    ]


def _entropy_bits(counts: np.ndarray) -> float:
    shares = counts[counts > 0] / counts.sum()
    return max(float(-(shares * np.log2(shares)).sum()), 0.0)


def _gini(counts: np.ndarray) -> float:
    """Gini coefficient of how often codes are used: 0 all alike, 1 one code for all items."""
    ordered = np.sort(counts)
    ranks = np.arange(1, len(ordered) + 1)
    return float((2 * ranks - len(ordered) - 1) @ ordered / (len(ordered) * ordered.sum()))


def _preserved(numbers: np.ndarray, reference: Reference) -> float | None:
    """Share of the nearest neighbours of the queries that have the query's number."""
    queries, near = reference.queries, reference.neighbours
    return float((numbers[near] == numbers[queries][:, None]).mean()) if near.size else None


def _chance(numbers: np.ndarray) -> float | None:
    """Share of pairs of different items that have the same number."""
    counts = np.bincount(numbers).astype(np.float64)
    pairs = len(numbers) * (len(numbers) - 1)
    return float((counts * (counts - 1)).sum() / pairs) if pairs else None
