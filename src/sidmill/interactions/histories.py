"""Pieces of histories -> one history per user.

Letters: u users, n interactions of them all, one user after the other, oldest first.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from sidmill.interactions.rows import NOT_SAID

MERGED = ("missrec", "onerec")  # forms whose rows overlap


class Histories(NamedTuple):
    """Histories of u users.

    Attributes:
        users: string (u,).
        offsets: int64 (u + 1,).
        items: int32 (n,), numbers of known items.
        splits: int8 (n,), ``NOT_SAID`` where the input says none.
        times: int64 (n,), 0 where the input says none.
        timed: bool (u,), whether the input says times.
        restated: interactions that rows of overlapping forms say again.
        leaked: of these, held-out targets that rows of an earlier split hold as targets too.
    """

    users: pa.Array
    offsets: np.ndarray
    items: np.ndarray
    splits: np.ndarray
    times: np.ndarray
    timed: np.ndarray
    restated: int
    leaked: int


class Refused(NamedTuple):
    """Rows that fit no history: their user, where the first stood, interactions, why, how many."""

    user: str
    file: int
    row: int
    interactions: int
    reason: str
    rows: int = 1


class Merged(NamedTuple):
    """One user's overlapping rows as one history.

    Attributes:
        items: numbers of items, oldest first.
        splits: one per item, ``NOT_SAID`` where no row says one.
        misfits: places of the rows that fit nowhere.
        leaked: targets that rows of an earlier split have as targets too.
    """

    items: list[int]
    splits: list[int]
    misfits: list[int]
    leaked: int


def group(table: pa.Table, form: str, refuse: Callable[[Refused], None]) -> Histories:
    """Make one history of each user's pieces.

    Users come in order of the hash of their id, which depends on nothing else. Events of a user
    are sorted by time, and by catalogue order where times are equal. In ``sequences`` a user has
    one row: later ones are refused. Rows of missrec and onerec are laid over each other: see
    :func:`merge`.

    Args:
        table: all pieces of some users, as of :data:`sidmill.interactions.scan.PIECES` with
            ``hash``.
        form: missrec, sequences, events or onerec.
        refuse: takes what fits no history.
    """
    table = _sorted_by_user(table)
    if form == "sequences":
        table = _first_of_each(table, refuse)
    sizes = table["items"].combine_chunks().value_lengths().to_numpy()
    users = table["user"].combine_chunks().dictionary_encode()
    owners = np.repeat(users.indices.to_numpy(), sizes)  # sorted, so codes rise
    items = table["items"].combine_chunks().flatten().to_numpy()
    splits = _filled(table["splits"], sizes, NOT_SAID)
    times = _filled(table["times"], sizes, 0)
    timed = np.zeros(len(users.dictionary), dtype=bool)
    timed[users.indices.to_numpy()] = table["times"].is_valid().to_numpy()
    restated = leaked = 0
    if form == "events":
        order = np.lexsort((items, times, owners))
        items, splits, times = items[order], splits[order], times[order]
    elif form in MERGED:
        owners, items, splits, restated, leaked = _merge_all(table, users, refuse)
        times = np.zeros(len(items), dtype=np.int64)
    lengths = np.bincount(owners, minlength=len(users.dictionary))
    kept = lengths > 0
    offsets = np.concatenate([[0], np.cumsum(lengths[kept])])
    names = users.dictionary.filter(pa.array(kept))
    return Histories(names, offsets, items, splits, times, timed[kept], restated, leaked)


def keep(histories: Histories, kept: np.ndarray) -> Histories:
    """Keep the users of a mask (u,)."""
    lengths = np.diff(histories.offsets)
    inside = np.repeat(kept, lengths)
    return histories._replace(
        users=histories.users.filter(pa.array(kept)),
        offsets=np.concatenate([[0], np.cumsum(lengths[kept])]),
        items=histories.items[inside],
        splits=histories.splits[inside],
        times=histories.times[inside],
        timed=histories.timed[kept],
    )


def merge(pieces: list[tuple[list[int], list[int], bool]]) -> Merged:
    """Lay overlapping rows of one user over each other.

    Rows are taken by split, train first, then by length. A row that holds the history's beginning
    (a padded row) has to continue it from the start; any other may begin anywhere, and is laid
    where the most of its beginning repeats the end of the history so far. A row that the history
    holds already adds nothing. An interaction is for validation or test if some row of that
    split has it as a target and no train row has it; where no row says anything of an interaction,
    it takes the split of the one before, so that nothing after a held-out one is trained on.

    Args:
        pieces: per row the items, their splits (``NOT_SAID`` for mere history), and whether it
            holds the history's beginning.
    """
    order = sorted(
        range(len(pieces)),
        key=lambda place: (max(pieces[place][1]), len(pieces[place][0]), place),
    )
    items: list[int] = []
    splits: list[int] = []
    misfits = []
    leaked = 0
    for place in order:
        found, said, whole = pieces[place]
        start = _where(items, found, whole)
        if start is None:
            misfits.append(place)
            continue
        grown = start + len(found) - len(items)
        if grown > 0:
            items += found[-grown:]
            splits += [NOT_SAID] * grown
        for offset, split in enumerate(said, start=start):
            if splits[offset] == NOT_SAID:
                splits[offset] = split
            leaked += split > splits[offset]
    return Merged(items, splits, sorted(misfits), leaked)


def carried(offsets: np.ndarray, splits: np.ndarray) -> np.ndarray:
    """Fill ``NOT_SAID``: with the latest split said before it in the history, or train.

    Args:
        offsets: int64 (u + 1,).
        splits: int8 (n,).

    Returns:
        int8 (n,).
    """
    said = splits != NOT_SAID
    place = np.where(said, np.arange(len(splits)), -1)
    place = np.maximum.accumulate(place)
    begins = np.repeat(offsets[:-1], np.diff(offsets))
    return np.where(place >= begins, splits[np.maximum(place, 0)], 0).astype(np.int8)


def _where(items: list[int], found: list[int], whole: bool) -> int | None:
    """Where a row begins in a history, or None if it fits nowhere."""
    size = min(len(items), len(found))
    if not items or (whole and items[:size] == found[:size]):
        return 0
    if whole:
        return None
    for start in range(len(items) - len(found), -1, -1):
        if items[start : start + len(found)] == found:
            return start
    for overlap in range(size, 0, -1):
        if items[-overlap:] == found[:overlap]:
            return len(items) - overlap
    return None


def _merge_all(
    table: pa.Table, users: pa.DictionaryArray, refuse: Callable[[Refused], None]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, int]:
    codes = users.indices.to_numpy()
    bounds = np.flatnonzero(np.diff(codes, prepend=-1, append=-1))
    pieces = list(
        zip(*(table[name].to_pylist() for name in ("items", "splits", "whole")), strict=True)
    )
    owners, items, splits = [], [], []
    restated = leaked = 0
    for begin, end in pairwise(bounds):
        own = pieces[begin:end]
        merged = merge(own)
        for misfit in merged.misfits:
            row = begin + misfit
            refuse(
                Refused(
                    users.dictionary[codes[row]].as_py(),
                    table["file"][row].as_py(),
                    table["row"][row].as_py(),
                    len(own[misfit][0]),
                    "does not continue the user's other rows",
                )
            )
        refused = sum(len(own[misfit][0]) for misfit in merged.misfits)
        restated += sum(len(piece[0]) for piece in own) - refused - len(merged.items)
        leaked += merged.leaked
        owners.append(np.full(len(merged.items), codes[begin]))
        items += merged.items
        splits += merged.splits
    return (
        np.concatenate([np.empty(0, dtype=np.int64), *owners]),
        np.array(items, dtype=np.int32),
        np.array(splits, dtype=np.int8),
        restated,
        leaked,
    )


def _sorted_by_user(table: pa.Table) -> pa.Table:
    """Sort by hash and user; a user's rows by file and row. User codes rise with rows then."""
    table = table.combine_chunks()
    users = table["user"].combine_chunks().dictionary_encode()
    codes = users.indices.to_numpy()
    hashes = np.zeros(len(users.dictionary), dtype=np.uint64)
    hashes[codes] = table["hash"].to_numpy()
    names = users.dictionary.to_pylist()
    rank = np.empty(len(names), dtype=np.int64)
    rank[sorted(range(len(names)), key=lambda code: (int(hashes[code]), names[code]))] = np.arange(
        len(names)
    )
    order = np.lexsort((table["row"].to_numpy(), table["file"].to_numpy(), rank[codes]))
    return table.take(pa.array(order)).combine_chunks()


def _first_of_each(table: pa.Table, refuse: Callable[[Refused], None]) -> pa.Table:
    codes = table["user"].combine_chunks().dictionary_encode().indices.to_numpy()
    again = np.flatnonzero(np.diff(codes, prepend=-1) == 0)
    for row in again:
        refuse(
            Refused(
                table["user"][row].as_py(),
                table["file"][row].as_py(),
                table["row"][row].as_py(),
                len(table["items"][row]),
                "the user has an earlier row",
            )
        )
    return table.filter(pa.array(np.diff(codes, prepend=-1) != 0)) if again.size else table


def _filled(lists: pa.ChunkedArray, sizes: np.ndarray, absent: int) -> np.ndarray:
    """Values of a list column, with ``absent`` where a row has no list."""
    lists = lists.combine_chunks()
    values = lists.flatten().to_numpy()
    if not lists.null_count:
        return values
    inside = np.repeat(lists.is_valid().to_numpy(zero_copy_only=False), sizes)
    whole = np.full(len(inside), absent, dtype=values.dtype)
    whole[inside] = values
    return whole
