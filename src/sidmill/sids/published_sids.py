"""SIDs of a published version: which of them stay, and which are held against other items.

The pid identifies an item. The ledger of a version (:mod:`sidmill.formats.ledger_file`) holds every
SID that was given, and each version passes it on: with ``removed: reserve`` removed items get their
SID again when they return, and no other item gets that SID, or one that an item had before.

Shapes: N items of the catalogue, M rows of the ledger, T tokens of a SID, L levels, H held SIDs.
"""

import logging
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.formats import catalogue_match, item_text, ledger_file
from sidmill.formats.catalogue_match import Match
from sidmill.formats.ledger_file import Ledger
from sidmill.io import id_lookup
from sidmill.settings.sids import Published
from sidmill.sids import prefixes, refresh, versions

logger = logging.getLogger(__name__)


class Kept(NamedTuple):
    """What the resolution of collisions may not touch.

    Attributes:
        sids: int32 (N, T), the published SID of each item that is ``fixed``.
        fixed: bool (N,), whose SID stays.
        changed: bool (N,), whose text is not the published one.
        held: int32 (H, T), distinct SIDs that no other item may get.
    """

    sids: np.ndarray
    fixed: np.ndarray
    changed: np.ndarray
    held: np.ndarray


def match(text_path: str, ledger: Ledger, match_path: str) -> int:
    """Match a catalogue with the published SIDs of a ledger, and write match.parquet.

    Memory: the ids of the ledger (:mod:`sidmill.io.id_lookup`), 16 bytes per item of the catalogue.

    Returns:
        How many items were there before with the same text.
    """
    lookup = id_lookup.make(ledger.ids.slice(0, ledger.owners))
    digests = item_text.digests(text_path)
    same = 0

    def blocks() -> Iterator[tuple[pa.ChunkedArray, Match]]:
        nonlocal same
        start = 0
        for table in item_text.read(text_path):
            rows = id_lookup.find(lookup, table["pid"], text_path).astype(np.int64)
            known = rows != catalogue_match.NEW
            changed = known & (ledger.digests[rows] != digests[start : start + len(rows)])
            same += int((known & ~changed).sum())
            start += len(rows)
            yield table["pid"], Match(rows, changed)

    catalogue_match.write(match_path, item_text.pid_type(text_path), blocks())
    return same


def build(ledger: Ledger, match: Match, codes: np.ndarray, settings: Published) -> Kept:
    """Tell which published SIDs stay, and which SIDs no other item may get.

    With ``changed: resolve`` the SID of an item also stays where its new text gives the codes that
    it had, or the SID that it has; after a refresh that holds for all items. Memory: about 60 bytes
    per row of the ledger.

    Args:
        ledger: of the published version.
        match: of all N items of the catalogue.
        codes: int32 (N, L), as the published quantizer gives them, or the refreshed one.
        settings: ``changed: keep``: the SID of an item whose text changed stays; ``resolve``: it
            gets the SID of its new text. ``removed: reserve``: SIDs of items that are gone, and
            SIDs that an item left, are given to no other item, which the strategy ``none`` cannot
            do; ``release``: they are free again.
    """
    rows = match.rows
    fixed = match.known.copy()
    may_move = _may_move(match.known, match.changed, settings)
    fixed[may_move] = refresh.agreeing(ledger, rows[may_move], codes[may_move])
    sids = np.zeros((len(rows), ledger.sids.shape[1]), dtype=np.int32)
    sids[fixed] = ledger.sids[rows[fixed]]
    taken = ledger.sids if settings.removed == "reserve" else sids[fixed]
    held = _distinct(taken, ledger.sizes)
    logger.info(
        "%d of %d items keep their SID, %d SIDs are taken", fixed.sum(), len(rows), len(held)
    )
    return Kept(sids, fixed, match.changed, held)


def _may_move(known: np.ndarray, changed: np.ndarray, settings: Published) -> np.ndarray:
    """Which items get another SID where their codes are others: int64 rows.

    Args:
        known: bool (N,), items with a published SID.
        changed: bool (N,), those of them with another text.
        settings: of the published version.
    """
    if settings.refresh != "none":
        return np.flatnonzero(known)
    return np.flatnonzero(changed if settings.changed == "resolve" else np.zeros_like(known))


def load(ledger_path: str, match_path: str, codes: np.ndarray, settings: Published) -> Kept | None:
    """:func:`build` from files; None where ``ledger_path`` is empty: nothing is published."""
    if not ledger_path:
        return None
    ledger, matched = ledger_file.read(ledger_path), catalogue_match.read(match_path)
    return build(ledger, matched, codes, settings)


def ledger_before(path: str) -> Ledger | None:
    """The published ledger; None where ``path`` is empty."""
    return ledger_file.read(path) if path else None


def guard(
    ledger_path: str,
    kept: Kept | None,
    ids: pa.ChunkedArray,
    sids: np.ndarray,
    settings: Published,
) -> None:
    """Stop before SIDs are written that break a promise to published ones: see :func:`check`."""
    if kept is not None:
        ledger = ledger_file.read(ledger_path)
        may_move = kept.changed & (settings.changed == "resolve")
        if settings.refresh != "none":
            may_move = ~kept.fixed
        check(ledger, ids, sids, may_move, settings.removed)


def check(
    ledger: Ledger, ids: pa.ChunkedArray, sids: np.ndarray, may_move: np.ndarray, removed: str
) -> None:
    """Stop where an item's SID is not the published one, or a reserved one is given away.

    A SID is given away where an item gets it that did not have it before, and no item of the
    catalogue that had it has it now. With ``removed: release`` that is logged.

    Args:
        ledger: of the published version.
        ids: of all N items.
        sids: int32 (N, T), the SIDs that they are to have now.
        may_move: bool (N,), items that are allowed another SID.
        removed: as in :func:`build`.

    Raises:
        SidmillError: naming the first such item, and how many there are.
    """
    # No published SID may move, but those of items whose text changed, where the settings say so.
    lookup = id_lookup.make(ledger.ids.slice(0, ledger.owners))
    rows = id_lookup.find(lookup, ids, "pid2sid.parquet")
    bound = np.flatnonzero((rows != id_lookup.ABSENT) & ~may_move)
    moved = bound[(ledger.sids[rows[bound]] != sids[bound]).any(axis=1)]
    if len(moved):
        first = moved[0]
        raise SidmillError(
            f"{len(moved)} published SIDs would move, first that of pid {ids[first].as_py()!r}, "
            f"from {ledger.sids[rows[first]].tolist()} to {sids[first].tolist()}: delete "
            f"results/pid2sid.parquet and run again; if it stays so, this is a fault of SIDMill"
        )

    # No item may get the SID of another one that is gone, unless such SIDs are released.
    reused = np.flatnonzero(versions.follow(ledger.sids, sids, rows).reused)
    if not len(reused):
        return
    problem = (
        f"{len(reused)} items get SIDs that others had who are gone or have another one, first pid "
        f"{ids[reused[0]].as_py()!r}, that gets {sids[reused[0]].tolist()}"
    )
    if removed == "reserve":
        raise SidmillError(
            f"{problem}: with published.removed: reserve nobody may: delete "
            f"results/pid2sid.parquet and run again, with another collisions.strategy than none or "
            f"with release"
        )
    logger.warning("%s: published.removed is release", problem)


def carry_on(
    ledger: Ledger | None,
    ids: pa.ChunkedArray,
    sids: np.ndarray,
    sizes: list[int],
    codes: np.ndarray,
    digests: np.ndarray,
    settings: Published,
) -> Ledger:
    """Make the ledger of the next published version.

    Args:
        ledger: of the version before; None for the first one.
        ids: of the N items of the catalogue.
        sids: int32 (N, T).
        sizes: how many values each token has.
        codes: int32 (N, L).
        digests: S16 (N,), of their texts.
        settings: as in :func:`build`.

    Raises:
        SidmillError: if a published SID moved that should not, or a reserved one is given away.
    """
    n_items = len(ids)
    live = np.full(n_items, ledger_file.LIVE, dtype=np.int8)
    if ledger is None:
        first, trained = np.ones(n_items, dtype=np.int32), np.ones(n_items, dtype=bool)
        return Ledger(ids, sids, codes, digests, live, first, trained, sizes, 1)

    # Items of the version before: whose text changed, and who has the SID still.
    rows = id_lookup.find(
        id_lookup.make(ledger.ids.slice(0, ledger.owners)), ids, "pid2sid.parquet"
    )
    known = rows != id_lookup.ABSENT
    altered = known & (ledger.digests[rows] != digests)
    may_move = np.zeros(n_items, dtype=bool)
    movable = _may_move(known, altered, settings)
    may_move[movable] = True
    if settings.refresh != "none":
        may_move[movable] = ~refresh.agreeing(ledger, rows[movable], codes[movable])
    check(ledger, ids, sids, may_move, settings.removed)
    stayed = known & (ledger.sids[rows] == sids).all(axis=1)

    number = ledger.version + 1
    now = Ledger(
        ids,
        sids,
        codes,
        digests,
        live,
        np.where(stayed, ledger.versions[rows], number).astype(np.int32),
        (known & ~altered & ledger.trained[rows]) | (settings.refresh != "none"),
        sizes,
        number,
    )
    if settings.removed == "release":
        return now

    # Behind the items: SIDs of items that are gone, and SIDs that an item left.
    gone = np.delete(np.arange(ledger.owners), rows[known])
    left = np.r_[rows[known & ~stayed], ledger.owners : len(ledger.ids)]
    return _join(
        now, _rows_of(ledger, gone, ledger_file.REMOVED), _rows_of(ledger, left, ledger_file.LEFT)
    )


def _rows_of(ledger: Ledger, rows: np.ndarray, state: int) -> Ledger:
    """Some rows of a ledger, with a state of their own."""
    return ledger._replace(
        ids=ledger.ids.take(pa.array(rows)),
        sids=ledger.sids[rows],
        codes=ledger.codes[rows],
        digests=ledger.digests[rows],
        state=np.full(len(rows), state, dtype=np.int8),
        versions=ledger.versions[rows],
        trained=ledger.trained[rows],
    )


def _join(first: Ledger, *others: Ledger) -> Ledger:
    """Ledgers one after the other, with the sizes and the version of the first."""
    parts = [first, *others]
    ids = pa.chunked_array([chunk for part in parts for chunk in part.ids.chunks], first.ids.type)
    return first._replace(
        ids=ids,
        sids=np.concatenate([part.sids for part in parts]),
        codes=np.concatenate([part.codes for part in parts]),
        digests=np.concatenate([part.digests for part in parts]),
        state=np.concatenate([part.state for part in parts]),
        versions=np.concatenate([part.versions for part in parts]),
        trained=np.concatenate([part.trained for part in parts]),
    )


def _distinct(sids: np.ndarray, sizes: list[int]) -> np.ndarray:
    """Each of the SIDs once, int32 (H, T)."""
    _, first = np.unique(prefixes.number(sids, sizes).numbers[-1], return_index=True)
    return sids[first]
