"""Codes -> semantic IDs: what happens to items that share a code (:mod:`.strategies`).

Items of a published version keep the SID that they have, whatever the strategy. The others are
placed around them; the strategy ``none`` alone gives them the SIDs of their codes, taken or not.

Shapes: N items, L levels, K_l codes at level l, T tokens of a SID, D dimensions, F items to place.
"""

import logging
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.formats.sid_text import MAX_LEVELS
from sidmill.numeric import residual_codec, row_blocks
from sidmill.settings import registry
from sidmill.settings.sids import Collisions
from sidmill.sids import strategies
from sidmill.sids.published_sids import Kept
from sidmill.sids.space import Space

logger = logging.getLogger(__name__)

BLOCK_ROWS = 4096


class Resolution(NamedTuple):
    """SIDs int32 (N, T), the size of each token, and what the resolution cost."""

    sids: np.ndarray
    sizes: list[int]
    cost: dict[str, object]


def resolve(
    codes: np.ndarray,
    sizes: list[int],
    vectors: np.ndarray | None,
    codebooks: list[np.ndarray],
    text_classes: np.ndarray | None,
    settings: Collisions,
    kept: Kept | None = None,
    ids: pa.ChunkedArray | None = None,
) -> Resolution:
    """Turn codes into semantic IDs: resolve collisions by the strategy of the settings.

    The same input gives the same SIDs. Memory: about 110 bytes per item, 30 more per item that
    shares its code, the codebooks, 16 MiB of vectors, 15 of blocks, and for each thread, of which
    there are 4 at most, some arrays of 1,024 items and the codes of the last level (5 MiB at 256).

    Args:
        codes: int32 (N, L), as the quantizer gave them.
        sizes: K_l per level.
        vectors: float (N, D), may be a memory map; in the space of the codebooks.
        codebooks: float32 (K_l, D) per level. Given SIDs have none, and need no vectors: every code
            is then equally near, so ``reassign`` takes the lowest free codes of a prefix.
        text_classes: int64 (N,): equal numbers for equal texts; None where items have no text, or
            do not share SIDs by it.
        settings: strategy and its parameters. With ``identical_text: share`` items of one text
            have one SID: the published one, else that of the first item.
        kept: SIDs that stay as they were published; None where all SIDs are new.
        ids: int64 or string (N,): ``suffix`` numbers the items of a code by their ids, so that the
            order of the catalogue does not matter; None: by row.

    Raises:
        SidmillError: if there are more items than codes, or more sharers than suffixes; if the
            published SIDs have another number of tokens; if ``sinkhorn`` has no codebooks, or
            ``share`` no texts.
    """
    strategy = registry.STRATEGIES[settings.strategy]
    n_items, n_tokens = len(codes), len(sizes) + strategy.extra_tokens
    kept = _nothing_kept(n_items, n_tokens) if kept is None else kept
    _check_request(settings, sizes, bool(codebooks), text_classes is not None, kept)

    # Without codebooks every code has the same distance to every item.
    has_distances = bool(codebooks) and vectors is not None
    if vectors is None or not codebooks:
        vectors = np.zeros((n_items, 1), dtype=np.float32)
        codebooks = [np.zeros((size, 1), dtype=np.float32) for size in sizes]

    # One item of each group that shares a SID on purpose is placed, unless its SID stays: (F,).
    owner = None  # (N,), the row whose SID each item has; None: its own
    is_placed = ~kept.fixed
    if settings.identical_text == "share" and text_classes is not None:
        owner = _owners_by_text(text_classes, kept)
        is_placed &= owner == np.arange(n_items)
    to_place = np.flatnonzero(is_placed)
    place = registry.load_function(strategy.function)
    space = Space(vectors, to_place, codebooks)
    to_resolve = codes if len(to_place) == n_items else codes[to_place]
    request = strategies.Unresolved(to_resolve, sizes, space, kept.held, ids)
    placement = place(request, settings)

    sids = kept.sids.copy()  # (N, T)
    sids[to_place] = placement.sids
    sids = sids if owner is None else sids[owner]
    cost: dict[str, object] = {
        "strategy": settings.strategy,
        "identical_text": settings.identical_text,
    }
    cost |= placement.cost | _cost(codes, sids[:, : codes.shape[1]], vectors, codebooks)
    _log_cost(cost, has_distances)
    return Resolution(sids, placement.sizes, cost if has_distances else cost | {"added_mse": None})


def _check_request(
    settings: Collisions, sizes: list[int], has_codebooks: bool, has_texts: bool, kept: Kept
) -> None:
    """Refuse settings that the codes, the texts or the published SIDs cannot meet."""
    # What the strategy and the sharing of SIDs need.
    strategy = registry.STRATEGIES[settings.strategy]
    n_tokens = len(sizes) + strategy.extra_tokens
    if strategy.needs_codebooks and not has_codebooks:
        raise SidmillError(
            f"collisions.strategy: {settings.strategy} spreads items by their distances to "
            f"codewords, and given SIDs have none: set none, which leaves the SIDs as they are, "
            f"reassign or suffix"
        )
    if settings.identical_text == "share" and not has_texts:
        raise SidmillError(
            "collisions.identical_text: share needs the texts of the items, and items.path is "
            "null: set separate, or name the catalogue in items.path"
        )

    # SIDs have a letter per token, and as many tokens as the published ones.
    if n_tokens > MAX_LEVELS:
        raise SidmillError(
            f"collisions.strategy: {settings.strategy} adds a token, but SIDs of {len(sizes)} "
            f"levels have no letter left, of {MAX_LEVELS}: set none or reassign"
        )
    if kept.sids.shape[1] != n_tokens:
        raise SidmillError(
            f"published SIDs have {kept.sids.shape[1]} tokens, collisions.strategy: "
            f"{settings.strategy} gives {n_tokens}: take the strategy that they were made by"
        )


def _nothing_kept(n_items: int, n_tokens: int) -> Kept:
    """No SID is published."""
    none = np.zeros(n_items, dtype=bool)
    sids = np.zeros((n_items, n_tokens), dtype=np.int32)
    return Kept(sids, fixed=none, changed=none, held=sids[:0])


def _owners_by_text(text_classes: np.ndarray, kept: Kept) -> np.ndarray:
    """The row whose SID each item has, where items of one text share a SID: int64 (N,).

    The owner is the first published item whose text is as published, else the first published
    item, else the first item. A published item keeps its own SID.
    """
    rows = np.arange(len(text_classes))
    order = np.lexsort((rows, kept.changed, ~kept.fixed, text_classes))
    _, begin, member = np.unique(text_classes[order], return_index=True, return_inverse=True)
    owner = np.empty_like(rows)
    owner[order] = order[begin][member]
    return np.where(kept.fixed, rows, owner)


def _cost(
    codes: np.ndarray, sids: np.ndarray, vectors: np.ndarray, codebooks: list[np.ndarray]
) -> dict[str, object]:
    """Count the items that moved, by the first level that changed, and the error they gained."""
    changed = codes != sids
    moved = np.flatnonzero(changed.any(axis=1))
    first_level = changed[moved].argmax(axis=1)
    added = 0.0
    for start in range(0, len(moved), BLOCK_ROWS):
        rows = moved[start : start + BLOCK_ROWS]
        target = row_blocks.take(vectors, rows).astype(np.float64)
        for picked, sign in ((sids, 1), (codes, -1)):
            residual = target - residual_codec.decode(picked[rows], codebooks)
            added += sign * np.square(residual).sum()
    return {
        "items_moved": len(moved),
        "moved_by_level": np.bincount(first_level, minlength=codes.shape[1]).tolist(),
        "added_mse": float(added / vectors.size),
    }


def _log_cost(cost: dict[str, object], has_distances: bool) -> None:
    """Log the moves; of given SIDs each move is a warning, since the SID was given on purpose."""
    if has_distances:
        logger.info("%(strategy)s: %(items_moved)d items moved, mse +%(added_mse).3g", cost)
        return
    level = logging.WARNING if cost["items_moved"] else logging.INFO
    logger.log(level, "%(strategy)s: %(items_moved)d items leave the SID they were given", cost)
