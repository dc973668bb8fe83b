"""What the SIDs are worth: every figure of quality.json, before and after resolution.

Two collision rates are in use and both are given: (N - distinct) / N, as in LC-Rec, and the share
of items whose SID another item has too. Collisions among items of identical text (benign) are told
apart from those of different items (harmful). Entropy is set against min(log N, log capacity),
which is what can be reached, and not against the capacity alone.

Shapes: N items, L levels, K_l codes at level l, D dimensions.
"""

import logging
import math

import numpy as np

from sidmill.formats.quantizer_file import Network
from sidmill.numeric import mlp, row_blocks
from sidmill.sids import prefixes
from sidmill.sids.neighbour_agreement import nearest_items

logger = logging.getLogger(__name__)

MAX_RANKS = 2048  # points of a usage curve
LONGEST_NEIGHBOUR_PREFIX = 3
NO_LOSS = {"mse": None, "relative_loss": None}


def measure(
    codes: np.ndarray,
    code_sizes: list[int],
    sids: np.ndarray,
    sid_sizes: list[int],
    vectors: np.ndarray | None,
    codebooks: list[np.ndarray],
    text_classes: np.ndarray | None,
    decoder: Network | None = None,
    *,
    seed: int,
    neighbour_queries: int,
    neighbours: int,
) -> dict:
    """Measure codes (before) and SIDs (after).

    Memory: one block of vectors, about 60 bytes per item, and the queries.

    Args:
        codes: int32 (N, L).
        code_sizes: K_l per level.
        sids: int32 (N, L) or (N, L + 1) with a suffix.
        sid_sizes: the same for ``sids``.
        vectors: float (N, D), may be a memory map; None where items are not embedded.
        codebooks: float32 (K_l, D) per level, or (K_l, d) before a decoder; none of given SIDs.
        text_classes: int64 (N,): equal numbers for equal texts; None where items have no text.
        decoder: from what the codewords add up to (d) to vectors (D), or None where they are one.
        seed: draws the queries.
        neighbour_queries: items whose nearest neighbours are looked up, exactly, among all N.
        neighbours: how many nearest neighbours of each.
    """
    n_items = len(codes)
    queries, near = np.empty(0, dtype=np.int64), np.empty((0, 0), dtype=np.int64)
    if vectors is not None:
        rng = np.random.default_rng(seed)
        queries = np.sort(rng.choice(n_items, min(neighbour_queries, n_items), replace=False))
        near = nearest_items(vectors, queries, min(neighbours, n_items - 1))
    facts = (vectors, codebooks, decoder, text_classes, queries, near)
    before = figures(codes, code_sizes, *facts)
    loss = before["relative_loss"]
    if loss is not None and loss >= 1:
        logger.warning(
            "the codes explain nothing (relative loss %.2f): does the quantizer belong to these "
            "embeddings?",
            loss,
        )
    return {
        "items": n_items,
        "dim": None if vectors is None else vectors.shape[1],
        "codebook_sizes": code_sizes,
        "capacity": math.prod(code_sizes),
        "identical_text_items": None if text_classes is None else int(_sharing(text_classes).sum()),
        "neighbour_queries": len(queries),
        "neighbours": near.shape[1],
        "not_measured": _not_measured(vectors, codebooks, text_classes, loss),
        "before": before,
        "after": figures(sids, sid_sizes, *facts),
    }


def _not_measured(
    vectors: np.ndarray | None,
    codebooks: list[np.ndarray],
    text_classes: np.ndarray | None,
    loss: float | None,
) -> dict[str, str]:
    """Figures that are null or left out, with the reason."""
    reasons = {}
    if not codebooks:
        reasons["mse, relative_loss"] = "the SIDs were given, without codebooks"
    elif vectors is None:
        reasons["mse, relative_loss"] = "the items are not embedded"
    elif loss is None:
        reasons["relative_loss"] = "all vectors are zero"
    if vectors is None:
        reasons["dim, neighbours"] = "the items are not embedded: see given.measure_neighbours"
    if text_classes is None:
        reasons["identical_text_items, harmful, benign"] = "the items have no text: see items.path"
    return reasons


def figures(
    codes: np.ndarray,
    sizes: list[int],
    vectors: np.ndarray | None,
    codebooks: list[np.ndarray],
    decoder: Network | None,
    text_classes: np.ndarray | None,
    queries: np.ndarray,
    near: np.ndarray,
) -> dict:
    """Measure one set of codes.

    Args:
        codes: int32 (N, M), M >= L: what comes after the codebooks is a suffix.
        sizes: K_l per level.
        vectors: float (N, D), may be a memory map; None gives no errors.
        codebooks: float32 (K_l, D) per level, or (K_l, d) before a decoder; none gives no errors.
        decoder: from d to D, or None.
        text_classes: int64 (N,), equal numbers for equal texts; None tells no collisions apart.
        queries: int64 (Q,), rows of some items.
        near: int64 (Q, k), rows of their nearest neighbours.
    """
    n_items = len(codes)
    numbered = prefixes.number(codes, sizes)
    numbers = numbered.numbers
    distinct = int(numbers[-1].max()) + 1
    shared = _sharing(numbers[-1])
    entropy = _entropy_bits(np.bincount(numbers[-1]))
    bound = min(math.log2(n_items), sum(math.log2(size) for size in sizes))
    losses = _losses(codes[:, : len(codebooks)], vectors, codebooks, decoder)
    whole = losses[-1] if losses else NO_LOSS
    losses += [NO_LOSS] * (len(sizes) - len(losses))  # of a suffix, which describes no vector
    lengths = range(1, min(LONGEST_NEIGHBOUR_PREFIX, len(sizes)) + 1)
    return {
        "distinct": distinct,
        "collision_rate": (n_items - distinct) / n_items,
        "colliding_items_rate": float(shared.mean()),
        "largest_collision": int(np.bincount(numbers[-1]).max()),
        **({} if text_classes is None else _harm(numbers[-1], text_classes)),
        "entropy_bits": entropy,
        "entropy_bound_bits": bound,
        "entropy_ratio": entropy / bound if bound else 1.0,
        **whole,
        "neighbours": {str(m): _preserved(numbers[m], queries, near) for m in lengths},
        "neighbours_chance": {str(m): _chance(numbers[m]) for m in lengths},
        "levels": [
            _level(codes[:, level], size, numbers[level + 1]) | {"level": level + 1, **loss}
            for level, (size, loss) in enumerate(zip(sizes, losses, strict=True))
        ],
    }


def _level(column: np.ndarray, size: int, numbers: np.ndarray) -> dict:
    """Figures of one level: how its codes are used, and the prefixes that end there."""
    usage = np.bincount(column, minlength=size)
    used = np.sort(usage[usage > 0])[::-1]
    entropy = _entropy_bits(usage)
    under_prefix = np.bincount(numbers)
    exponents, counts = np.unique(np.log2(under_prefix).astype(int), return_counts=True)
    ranks = np.unique(np.linspace(0, len(used) - 1, min(len(used), MAX_RANKS)).astype(int))
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
    return np.bincount(numbers)[numbers] > 1


def _harm(numbers: np.ndarray, text_classes: np.ndarray) -> dict:
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


def _losses(
    codes: np.ndarray,
    vectors: np.ndarray | None,
    codebooks: list[np.ndarray],
    decoder: Network | None,
) -> list[dict]:
    """Error that is left after each level, per value and over the squared length of the vectors.

    The second is None where all vectors are zero: there is nothing to explain.
    """
    if vectors is None or not codebooks:
        return []
    errors = np.zeros(codes.shape[1])
    reconstruct = mlp.load(decoder, "cpu")
    energy = 0.0
    for start, block in row_blocks.read_blocks(vectors, row_blocks.MAX_BLOCK_ROWS):
        energy += float(np.square(block, dtype=np.float64).sum())
        known = np.zeros((len(block), codebooks[0].shape[1]), dtype=np.float32)
        for level, words in enumerate(codebooks[: codes.shape[1]]):
            known += words[codes[start : start + len(block), level]]
            left = block - np.asarray(reconstruct(known))
            errors[level] += np.square(left, dtype=np.float64).sum()
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


def _preserved(numbers: np.ndarray, queries: np.ndarray, near: np.ndarray) -> float | None:
    """Share of the nearest neighbours of ``queries`` that have the query's number."""
    return float((numbers[near] == numbers[queries][:, None]).mean()) if near.size else None


def _chance(numbers: np.ndarray) -> float | None:
    """Share of pairs of different items that have the same number."""
    counts = np.bincount(numbers).astype(np.float64)
    pairs = len(numbers) * (len(numbers) - 1)
    return float((counts * (counts - 1)).sum() / pairs) if pairs else None
