"""Codes -> semantic IDs: what happens to items that share a code.

    none      nothing: a shared code stays shared
    reassign  all but one of the sharers move to free codes, at the least added distortion
    sinkhorn  they are spread over free last tokens in rounds, as in LC-Rec, the rest by reassign
    suffix    one more token numbers the sharers (TIGER, https://arxiv.org/abs/2305.05065)

Items of a published version keep the SID that they have, whatever the strategy; the others are
placed around them, but for ``none``, which gives them the SIDs of their codes, taken or not.

Shapes: N items, L levels, K_l codes at level l, D dimensions, H held SIDs, F items to place.
"""

import logging
import math
from typing import NamedTuple

import numpy as np

from sidmill.core.errors import SidmillError
from sidmill.formats.sid_text import MAX_LEVELS
from sidmill.numeric import residual_codec, row_blocks
from sidmill.sids import prefixes, reassign, sinkhorn
from sidmill.sids.published_sids import Kept

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
    vectors: np.ndarray | None,
    codebooks: list[np.ndarray],
    text_classes: np.ndarray | None,
    kept: Kept | None = None,
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
        codebooks: float32 (K_l, D) per level. Given SIDs have none, and need no vectors: no code is
            nearer than another one, so ``reassign`` takes the lowest free ones of a prefix.
        text_classes: int64 (N,): equal numbers for equal texts; None where items have no text.
        kept: SIDs that stay as they were published; None where all SIDs are new.
        strategy: ``none``, ``reassign``, ``sinkhorn`` or ``suffix``.
        identical_text: ``separate`` treats items of equal text like others; ``share`` gives them
            one SID, that of the first of them, or the published one.
        suffix_size: with ``suffix``, how many items may share a code.
        sinkhorn_epsilon: with ``sinkhorn``, the regularisation: see :func:`sinkhorn.spread`.
        sinkhorn_iterations: scalings of each transport plan.
        sinkhorn_rounds: rounds, at most.

    Raises:
        SidmillError: if there are more items than codes, or more sharers than suffixes; if the
            published SIDs have another number of tokens; if ``sinkhorn`` has no codebooks, or
            ``share`` no texts.
    """
    if not codebooks and strategy == "sinkhorn":
        raise SidmillError(
            "collisions.strategy: sinkhorn spreads items by their distances to codewords, and "
            "given SIDs have none: set none, which leaves the SIDs as they are, reassign or suffix"
        )
    if text_classes is None and identical_text == "share":
        raise SidmillError(
            "collisions.identical_text: share needs the texts of the items, and items.path is "
            "null: set separate, or name the catalogue in items.path"
        )
    if strategy == "suffix" and len(sizes) >= MAX_LEVELS:
        raise SidmillError(
            f"collisions.strategy: suffix adds a token, but SIDs of {len(sizes)} levels have no "
            f"letter left, of {MAX_LEVELS}: set none or reassign"
        )
    measured = bool(codebooks)
    if not measured:  # every code is as near as every other one
        vectors = np.zeros((len(codes), 1), dtype=np.float32)
        codebooks = [np.zeros((size, 1), dtype=np.float32) for size in sizes]
    if text_classes is None:
        text_classes = np.arange(len(codes))
    if kept is None:
        kept = _nothing(len(codes), len(sizes) + (strategy == "suffix"))
    elif kept.sids.shape[1] != len(sizes) + (strategy == "suffix"):
        raise SidmillError(
            f"published SIDs have {kept.sids.shape[1]} tokens, collisions.strategy: {strategy} "
            f"gives {len(sizes) + (strategy == 'suffix')}: take the strategy that they were made by"
        )
    if strategy == "suffix" and len(kept.held) and kept.held[:, -1].max() >= suffix_size:
        raise SidmillError(
            f"published SIDs have suffixes up to {kept.held[:, -1].max()}, but "
            f"collisions.suffix_size is {suffix_size}: raise it to at least "
            f"{kept.held[:, -1].max() + 1}"
        )
    takes = _whose(text_classes, identical_text, kept)
    first = np.flatnonzero((takes == np.arange(len(codes))) & ~kept.fixed)  # (F,)
    held = kept.held
    own_cost = {}
    if strategy == "suffix":
        placed = _append_rank(codes[first], sizes, suffix_size, held)
        sizes = [*sizes, suffix_size]
    elif strategy == "reassign":
        _check_capacity(len(first), len(held), sizes)
        placed = reassign.reassign(codes[first], sizes, vectors, first, codebooks, held)
    elif strategy == "sinkhorn":
        _check_capacity(len(first), len(held), sizes)
        spread = sinkhorn.spread(
            codes[first],
            sizes,
            reassign.Space(vectors, first, codebooks),
            held,
            epsilon=sinkhorn_epsilon,
            iterations=sinkhorn_iterations,
            rounds=sinkhorn_rounds,
        )
        placed = reassign.reassign(spread.codes, sizes, vectors, first, codebooks, held)
        own_cost = {"left_by_round": spread.left, "left_to_reassign": spread.left[-1]}
    else:
        placed = codes[first]
    sids = kept.sids.copy()
    sids[first] = placed
    sids = sids[takes]
    cost = {"strategy": strategy, "identical_text": identical_text, **own_cost}
    cost |= _cost(codes, sids[:, : codes.shape[1]], vectors, codebooks)
    if measured:
        logger.info("%(strategy)s: %(items_moved)d items moved, mse +%(added_mse).3g", cost)
    else:
        cost["added_mse"] = None
        level = logging.WARNING if cost["items_moved"] else logging.INFO
        logger.log(level, "%(strategy)s: %(items_moved)d items leave the SID they were given", cost)
    return Resolution(sids, sizes, cost)


def _nothing(n_items: int, n_tokens: int) -> Kept:
    """No SID is published."""
    none = np.zeros(n_items, dtype=bool)
    sids = np.zeros((n_items, n_tokens), dtype=np.int32)
    return Kept(sids, fixed=none, changed=none, held=sids[:0])


def _whose(text_classes: np.ndarray, identical_text: str, kept: Kept) -> np.ndarray:
    """The row whose SID each item takes, its own mostly: int64 (N,).

    Items of one text that share take that of the first published one whose text is as published,
    else of the first published one, else of the first one.
    """
    rows = np.arange(len(text_classes))
    if identical_text == "separate":
        return rows
    order = np.lexsort((rows, kept.changed, ~kept.fixed, text_classes))
    _, begin, member = np.unique(text_classes[order], return_index=True, return_inverse=True)
    takes = np.empty_like(rows)
    takes[order] = order[begin][member]
    return np.where(kept.fixed, rows, takes)


def _append_rank(
    codes: np.ndarray, sizes: list[int], suffix_size: int, held: np.ndarray
) -> np.ndarray:
    """Append a number that tells the items of one code apart: by row, the lowest that are free.

    Args:
        codes: int32 (F, L).
        sizes: K_l per level.
        suffix_size: how many numbers there are.
        held: int32 (H, L + 1), SIDs that no item may have.

    Returns:
        int32 (F, L + 1).
    """
    everyone = np.concatenate([codes, held[:, : codes.shape[1]]])
    rows, bounds = prefixes.groups(prefixes.number(everyone, sizes).numbers[-1])
    rank = np.empty(len(everyone), dtype=np.int32)
    rank[rows] = np.arange(len(everyone)) - np.repeat(bounds[:-1], np.diff(bounds))
    mixed = np.minimum.reduceat(rows, bounds[:-1]) < len(codes) if len(held) and len(rows) else []
    for group in np.flatnonzero(mixed):  # those that hold an item to place
        members = rows[bounds[group] : bounds[group + 1]]
        taken = held[members[members >= len(codes)] - len(codes), -1]
        free = np.setdiff1d(np.arange(len(members) + len(taken)), taken)
        items = members[members < len(codes)]
        rank[items] = free[: len(items)]
    rank = rank[: len(codes)]
    if len(rank) and rank.max() >= suffix_size:
        crowd = codes[np.argmax(rank)].tolist()
        raise SidmillError(
            f"{rank.max() + 1} items share the code {crowd}, but collisions.suffix_size is "
            f"{suffix_size}: raise it to at least {rank.max() + 1}, or train larger codebooks"
        )
    return np.column_stack([codes, rank])


def _check_capacity(n_sids: int, n_held: int, sizes: list[int]) -> None:
    capacity = math.prod(map(int, sizes))
    if n_sids + n_held > capacity:
        taken = f", {n_held} of which are published or reserved" if n_held else ""
        raise SidmillError(
            f"{n_sids} items cannot have distinct SIDs: codebooks of {' x '.join(map(str, sizes))} "
            f"make {capacity} codes{taken}; add a level or raise the codebook size, or set "
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
        target = row_blocks.take(vectors, rows).astype(np.float64)
        for picked, sign in ((sids, 1), (codes, -1)):
            added += sign * np.square(target - residual_codec.decode(picked[rows], codebooks)).sum()
    return {
        "items_moved": len(moved),
        "moved_by_level": np.bincount(first_level, minlength=codes.shape[1]).tolist(),
        "added_mse": float(added / vectors.size),
    }
