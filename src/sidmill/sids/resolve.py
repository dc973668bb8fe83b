"""Codes -> semantic IDs: what happens to items that share a code.

    none      nothing: a shared code stays shared
    reassign  all but one of the sharers move to free codes, at the least added distortion
    sinkhorn  they are spread over free last tokens in rounds, as in LC-Rec, the rest by reassign
    suffix    one more token numbers the sharers (TIGER, https://arxiv.org/abs/2305.05065)

Shapes: N items, L levels, K_l codes at level l, D dimensions.
"""

import logging
from typing import NamedTuple

import numpy as np

from sidmill import codec
from sidmill.core.errors import SidmillError
from sidmill.sids import prefixes, reassign, sinkhorn

logger = logging.getLogger(__name__)

BLOCK_ROWS = 4096


class Resolution(NamedTuple):
    """SIDs int32 (N, L) or (N, L + 1), the size of each level, and what the resolution cost."""

    sids: np.ndarray
    sizes: list[int]
    cost: dict


def resolve(
    codes: np.ndarray,
    sizes: list[int],
    vectors: np.ndarray,
    codebooks: list[np.ndarray],
    text_classes: np.ndarray,
    *,
    strategy: str,
    identical_text: str,
    suffix_size: int,
    sinkhorn_epsilon: float,
    sinkhorn_iterations: int,
    sinkhorn_rounds: int,
) -> Resolution:
    """Turn codes into semantic IDs.

    The same input gives the same SIDs. Memory: about 100 bytes per item, the codebooks, and the
    vectors of the items of one prefix.

    Args:
        codes: int32 (N, L), as the quantizer gave them.
        sizes: K_l per level.
        vectors: float (N, D), may be a memory map; of the space that the codebooks are in.
        codebooks: float32 (K_l, D) per level.
        text_classes: int64 (N,): equal numbers for equal texts.
        strategy: ``none``, ``reassign``, ``sinkhorn`` or ``suffix``.
        identical_text: ``separate`` treats items of equal text like others; ``share`` gives them
            one SID, that of the first of them.
        suffix_size: with ``suffix``, how many items may share a code.
        sinkhorn_epsilon: with ``sinkhorn``, the regularisation: see :func:`sinkhorn.spread`.
        sinkhorn_iterations: scalings of each transport plan.
        sinkhorn_rounds: rounds, at most.

    Raises:
        SidmillError: if there are more items than codes, or more sharers than suffixes.
    """
    if identical_text == "share":
        _, first, member = np.unique(text_classes, return_index=True, return_inverse=True)
    else:
        first = member = np.arange(len(codes))
    own_cost = {}
    if strategy == "suffix":
        sids = _append_rank(codes[first], sizes, suffix_size)[member]
        sizes = [*sizes, suffix_size]
    elif strategy == "reassign":
        _check_capacity(len(first), sizes)
        sids = reassign.reassign(codes[first], sizes, vectors, first, codebooks)[member]
    elif strategy == "sinkhorn":
        _check_capacity(len(first), sizes)
        spread = sinkhorn.spread(
            codes[first],
            sizes,
            reassign.Space(vectors, first, codebooks),
            epsilon=sinkhorn_epsilon,
            iterations=sinkhorn_iterations,
            rounds=sinkhorn_rounds,
        )
        sids = reassign.reassign(spread.codes, sizes, vectors, first, codebooks)[member]
        own_cost = {"left_by_round": spread.left, "left_to_reassign": spread.left[-1]}
    else:
        sids = codes[first][member]
    cost = {"strategy": strategy, "identical_text": identical_text, **own_cost}
    cost |= _cost(codes, sids[:, : codes.shape[1]], vectors, codebooks)
    logger.info("%(strategy)s: %(items_moved)d items moved, mse +%(added_mse).3g", cost)
    return Resolution(sids, sizes, cost)


def _append_rank(codes: np.ndarray, sizes: list[int], suffix_size: int) -> np.ndarray:
    """Append each item's rank among the items of its code, by row, from 0."""
    rows, bounds = prefixes.groups(prefixes.number(codes, sizes).numbers[-1])
    rank = np.empty(len(codes), dtype=np.int32)
    rank[rows] = np.arange(len(codes)) - np.repeat(bounds[:-1], np.diff(bounds))
    if len(rank) and rank.max() >= suffix_size:
        crowd = codes[np.argmax(rank)].tolist()
        raise SidmillError(
            f"{rank.max() + 1} items share the code {crowd}, but collisions.suffix_size is "
            f"{suffix_size}: raise it to at least {rank.max() + 1}, or train larger codebooks"
        )
    return np.column_stack([codes, rank])


def _check_capacity(n_sids: int, sizes: list[int]) -> None:
    capacity = 1
    for size in sizes:
        capacity *= int(size)
    if n_sids > capacity:
        raise SidmillError(
            f"{n_sids} items cannot have distinct SIDs: codebooks of {' x '.join(map(str, sizes))} "
            f"make {capacity} codes; add a level or raise the codebook size, or set "
            f"collisions.strategy to none or suffix"
        )


def _cost(
    codes: np.ndarray, sids: np.ndarray, vectors: np.ndarray, codebooks: list[np.ndarray]
) -> dict:
    """Count the items that moved, by the first level that changed, and the error they gained."""
    changed = codes != sids
    moved = np.flatnonzero(changed.any(axis=1))
    first_level = changed[moved].argmax(axis=1)
    added = 0.0
    for start in range(0, len(moved), BLOCK_ROWS):
        rows = moved[start : start + BLOCK_ROWS]
        target = np.asarray(vectors[rows], dtype=np.float64)
        for picked, sign in ((sids, 1), (codes, -1)):
            added += sign * np.square(target - codec.decode(picked[rows], codebooks)).sum()
    return {
        "items_moved": len(moved),
        "moved_by_level": np.bincount(first_level, minlength=codes.shape[1]).tolist(),
        "added_mse": float(added / vectors.size),
    }
