"""Collision strategies: what each does to the codes of items that need a SID.

    none      nothing: items of one code share a SID
    reassign  all but one of the items of a code move to free codes, at the least added distortion
    sinkhorn  they are spread over free last tokens in rounds, as in LC-Rec; the rest by reassign
    suffix    one more token numbers the items of a code (TIGER, https://arxiv.org/abs/2305.05065)

``STRATEGIES`` of :mod:`sidmill.settings.registry` names each function, and what it promises.

Shapes: F items to place, L levels, K_l codes at level l, H held SIDs of T tokens.
"""

import math
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sidmill.core.errors import SidmillError
from sidmill.settings.sids import Collisions
from sidmill.sids import prefixes, reassign, sinkhorn
from sidmill.sids.space import Space


class Unresolved(NamedTuple):
    """Items that need a SID, and the SIDs that they may not have.

    Attributes:
        codes: int32 (F, L), as the quantizer gave them.
        sizes: K_l per level.
        space: vectors and codebooks, by which errors are measured.
        held: int32 (H, T), distinct SIDs that other items have, or that are reserved.
        ids: int64 or string (M,), of the rows of ``space.vectors``; None where a strategy that
            numbers items does so by row.
    """

    codes: np.ndarray
    sizes: list[int]
    space: Space
    held: np.ndarray
    ids: pa.ChunkedArray | None = None


class Placement(NamedTuple):
    """SIDs int32 (F, T), the size of each token, and what the strategy reports of its own."""

    sids: np.ndarray
    sizes: list[int]
    cost: dict[str, object]


def keep_codes(items: Unresolved, settings: Collisions) -> Placement:
    """Give every item the SID of its codes, also where another item has it."""
    return Placement(items.codes, items.sizes, {})


def append_suffix(items: Unresolved, settings: Collisions) -> Placement:
    """Append a token that numbers the items of one code: by id, the lowest free numbers.

    Raises:
        SidmillError: if more than ``settings.suffix_size`` items share a code, or a held SID has a
            higher suffix.
    """
    highest = int(items.held[:, -1].max(initial=0))
    if highest >= settings.suffix_size:
        raise SidmillError(
            f"published SIDs have suffixes up to {highest}, but collisions.suffix_size is "
            f"{settings.suffix_size}: raise it to at least {highest + 1}"
        )
    order = np.arange(len(items.codes))
    if items.ids is not None:
        order = np.asarray(pc.sort_indices(items.ids.take(pa.array(items.space.rows))))
    suffixes = np.empty(len(order), dtype=np.int32)
    suffixes[order] = _lowest_free_numbers(items.codes[order], items.sizes, items.held)
    if suffixes.max(initial=0) >= settings.suffix_size:
        raise SidmillError(
            f"{suffixes.max() + 1} items share the code {items.codes[suffixes.argmax()].tolist()}, "
            f"but collisions.suffix_size is {settings.suffix_size}: raise it to at least "
            f"{suffixes.max() + 1}, or train larger codebooks"
        )
    sids = np.column_stack([items.codes, suffixes])
    return Placement(sids, [*items.sizes, settings.suffix_size], {})


def move_to_free_codes(items: Unresolved, settings: Collisions) -> Placement:
    """Move the fewest items to free codes, at the least added distortion (:mod:`.reassign`).

    Raises:
        SidmillError: if there are more items than free codes.
    """
    _check_capacity(items)
    sids = reassign.reassign(items.codes, items.sizes, items.space, items.held)
    return Placement(sids, items.sizes, {})


def spread_by_transport(items: Unresolved, settings: Collisions) -> Placement:
    """Spread items over free last tokens (:mod:`.sinkhorn`), then reassign those still colliding.

    Raises:
        SidmillError: if there are more items than free codes.
    """
    _check_capacity(items)
    spread = sinkhorn.spread(items.codes, items.sizes, items.space, settings, items.held)
    sids = reassign.reassign(spread.codes, items.sizes, items.space, items.held)
    cost = {
        "left_by_round": spread.colliding_by_round,
        "left_to_reassign": spread.colliding_by_round[-1],
    }
    return Placement(sids, items.sizes, cost)


def _lowest_free_numbers(codes: np.ndarray, sizes: list[int], held: np.ndarray) -> np.ndarray:
    """Number the items of each code by row, past the numbers that held SIDs have: int32 (F,).

    Args:
        codes: int32 (F, L).
        sizes: K_l per level.
        held: int32 (H, L + 1).
    """
    # The position of each item among all that have its code, held SIDs included: (F + H,).
    n_items = len(codes)
    every_code = np.concatenate([codes, held[:, : codes.shape[1]]])
    rows, bounds = prefixes.groups(prefixes.number(every_code, sizes).numbers[-1])
    suffixes = np.empty(len(every_code), dtype=np.int32)
    suffixes[rows] = np.arange(len(every_code)) - np.repeat(bounds[:-1], np.diff(bounds))
    if not len(held) or not n_items:
        return suffixes[:n_items]

    # Where a held SID may have the code too, items take the lowest numbers that it leaves free.
    has_items = np.minimum.reduceat(rows, bounds[:-1]) < n_items
    for group in np.flatnonzero(has_items):
        members = rows[bounds[group] : bounds[group + 1]]
        items = members[members < n_items]
        occupied = held[members[members >= n_items] - n_items, -1]
        free = np.setdiff1d(np.arange(len(members) + len(occupied)), occupied)
        suffixes[items] = free[: len(items)]
    return suffixes[:n_items]


def _check_capacity(items: Unresolved) -> None:
    """Refuse more items than there are codes that no held SID has."""
    n_items, n_held = len(items.codes), len(items.held)
    capacity = math.prod(map(int, items.sizes))
    if n_items + n_held > capacity:
        taken = f", {n_held} of which are published or reserved" if n_held else ""
        raise SidmillError(
            f"{n_items} items cannot have distinct SIDs: codebooks of "
            f"{' x '.join(map(str, items.sizes))} make {capacity} codes{taken}; add a level or "
            f"raise the codebook size, or set collisions.strategy to none or suffix"
        )
