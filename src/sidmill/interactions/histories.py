"""Pieces of histories -> one history per user.

Letters: u users, n interactions of them all, one user after the other, oldest first.
"""

from collections.abc import Callable, Iterator
from itertools import groupby, pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from sidmill.interactions.rows import NOT_SAID

MERGED = ("missrec", "onerec", "inter")  # forms whose rows overlap
LONGEST_WINDOW = 64  # rows of more items are laid as they stand in the log
GRAM = 4  # items by which the place of a row in a long history is looked up


class Histories(NamedTuple):
    """Histories of u users.

    Attributes:
        users: string (u,).
        offsets: int64 (u + 1,).
        items: int32 (n,), rows of items in the catalogue.
        splits: int8 (n,), ``NOT_SAID`` where the input says none.
        times: int64 (n,), 0 where the input says none.
        timed: bool (u,), whether the input says times.
        shown: int8 (n,), the split of the first row that shows an interaction.
        restated: interactions that rows of overlapping forms say again.
        leaked: of these, held-out targets that rows of an earlier split hold as targets too.
    """

    users: pa.Array
    offsets: np.ndarray
    items: np.ndarray
    splits: np.ndarray
    times: np.ndarray
    timed: np.ndarray
    shown: np.ndarray
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
        shown: one per item, the split of the first row that shows it.
        misfits: places of the rows that fit nowhere.
        leaked: targets that rows of an earlier split have as targets too.
    """

    items: list[int]
    splits: list[int]
    shown: list[int]
    misfits: list[int]
    leaked: int


def group(
    table: pa.Table, form: str, refuse: Callable[[Refused], None], by_split: bool
) -> Histories:
    """Make one history of the pieces of each user.

    Users come in order of the hash of their id, which depends on nothing else. Events of a user
    are sorted by time; where times are equal, by the split that is said, with ``by_split``, and
    then as they stand in the log: by file and row. In ``sequences`` a user has one row: later ones
    are refused. Rows of the forms ``MERGED`` are laid over each other: see :func:`merge`.

    Args:
        table: all pieces of some users, as of :data:`sidmill.interactions.validate.PIECES` with
            ``hash``.
        form: missrec, sequences, events, onerec or inter.
        refuse: takes what fits no history.
        by_split: whether the splits that events say count.
    """
    # Rows by user; of the form sequences only the first of each.
    table = _sorted_by_user(table)
    if form == "sequences":
        table = _first_of_each(table, refuse)

    # Lists as arrays (n,), one entry per interaction.
    sizes = table["items"].combine_chunks().value_lengths().to_numpy()
    users = table["user"].combine_chunks().dictionary_encode()
    owners = np.repeat(users.indices.to_numpy(), sizes)  # sorted, so codes rise
    items = table["items"].combine_chunks().flatten().to_numpy()
    splits = _filled(table["splits"], sizes, NOT_SAID)
    times = _filled(table["times"], sizes, 0)
    timed = np.zeros(len(users.dictionary), dtype=bool)
    timed[users.indices.to_numpy()] = table["times"].is_valid().to_numpy()
    shown = np.zeros(len(items), dtype=np.int8)
    restated = leaked = 0

    # In the order of time, or as overlapping rows continue each other.
    if form == "events":  # rows stand by file and row, and the sort is stable
        order = np.lexsort((splits, times, owners) if by_split else (times, owners))
        items, splits, times = items[order], splits[order], times[order]
    elif form in MERGED:
        owners, items, splits, shown, restated, leaked = _merge_all(table, users, refuse)
        times = np.zeros(len(items), dtype=np.int64)

    # Users of whom nothing is left go.
    lengths = np.bincount(owners, minlength=len(users.dictionary))
    kept = lengths > 0
    offsets = np.concatenate([[0], np.cumsum(lengths[kept])])
    names = users.dictionary.filter(pa.array(kept))
    return Histories(names, offsets, items, splits, times, timed[kept], shown, restated, leaked)


def keep(histories: Histories, kept: np.ndarray) -> Histories:
    """Keep the histories of the users of a mask (u,)."""
    lengths = np.diff(histories.offsets)
    inside = np.repeat(kept, lengths)
    return histories._replace(
        users=histories.users.filter(pa.array(kept)),
        offsets=np.concatenate([[0], np.cumsum(lengths[kept])]),
        items=histories.items[inside],
        splits=histories.splits[inside],
        times=histories.times[inside],
        timed=histories.timed[kept],
        shown=histories.shown[inside],
    )


def merge(pieces: list[tuple[list[int], list[int], bool]]) -> Merged:
    """Merge overlapping rows of one user's log into one history.

    Rows are taken by split, train first, then by length; windows that continue each other in that
    order, however they stand in the log. A row that holds the
    history's beginning (a padded row) has to continue it from the start; any other may begin
    anywhere, and is laid where the most of its beginning repeats the end of the history so far, or,
    among rows of one split, the most of its end the beginning. A row that the history holds already
    adds nothing. An interaction is for validation or test if some row of that split has it as a
    target and no train row has it.

    Time: linear in the items of the rows, apart from rows that do not fit at first.

    Args:
        pieces: per row the items, their splits (``NOT_SAID`` and below for mere history), and
            whether it holds the history's beginning.
    """
    ranks = [max(map(_of_row, said)) for _, said, _ in pieces]
    order = sorted(range(len(pieces)), key=lambda row: (ranks[row], len(pieces[row][0]), row))
    groups = [list(rows) for _, rows in groupby(order, key=lambda row: ranks[row])]

    # Rows of the first split make the history, in the first order in which all of them fit.
    history, misfits = _History(), list(groups[0])
    for rows, is_last, by_one in _orders(pieces, groups[0]):
        tried = _History(by_one)
        unplaced = _lay_all(tried, pieces, ranks, rows, again=is_last, before=is_last)
        if len(unplaced) < len(misfits) or not history.items:
            history, misfits = tried, unplaced
        if not misfits:
            break

    # Those of later splits go on from there.
    for rows in groups[1:]:
        misfits = misfits + _lay_all(history, pieces, ranks, rows, again=True, before=False)
    return Merged(history.items, history.splits, history.shown, sorted(misfits), history.leaked)


Pieces = list[tuple[list[int], list[int], bool]]


def _of_row(said: int) -> int:
    """The split of a row, by what it says of one of its items: see :data:`NOT_SAID`."""
    return said if said >= 0 else NOT_SAID - said


def _lay_all(
    history: "_History",
    pieces: Pieces,
    ranks: list[int],
    rows: list[int],
    again: bool,
    before: bool,
) -> list[int]:
    """Lay rows over the history and return the misfits.

    Args:
        history: changed in place.
        pieces: all rows.
        ranks: the split of each.
        rows: the rows to lay, in order.
        again: try misfits again as long as that lays some of them.
        before: put a row before the history where none fits behind it.
    """
    waiting = rows
    while waiting:
        unplaced = [row for row in waiting if not history.lay(*pieces[row], ranks[row])]
        if len(unplaced) == len(waiting) and before:
            unplaced = history.put_before(pieces, unplaced, ranks)
        if len(unplaced) == len(waiting) or not again:
            return unplaced
        waiting = unplaced
    return waiting


def _orders(pieces: Pieces, rows: list[int]) -> Iterator[tuple[list[int], bool, bool]]:
    """Orders in which rows may continue each other, the surest first.

    Windows that all continue each other by one item have one order only. Otherwise rows are taken
    as they stand in the log; again so, where a row that repeats an earlier stretch may continue the
    history by one item all the same; and then as they overlap the most.

    Yields:
        The rows in order, whether this order is the last, and whether continuing the history by
        one item comes before repeating an earlier stretch.
    """
    sliding = [row for row in rows if not pieces[row][2]]
    others = [row for row in rows if pieces[row][2]]
    chains = _chains(pieces, sliding, 1)
    if len(sliding) > 1 and len(chains) == 1:
        yield others + chains[0], False, False
    length = max(len(pieces[row][0]) for row in rows)
    can_chain = len(sliding) > 1 and length <= LONGEST_WINDOW
    yield rows, not can_chain, False
    yield rows, False, True
    if can_chain:
        found = [row for chain in _chains(pieces, sliding, length) for row in chain]
        yield others + found, True, False


def _chains(pieces: Pieces, rows: list[int], n_steps: int) -> list[list[int]]:
    """Join windows into chains: each begins with what the one before it ends with.

    The longest overlap is joined first: all items but one, then but two, up to ``n_steps``; only
    where one window alone can follow, and it alone can be followed.
    """
    chains = {row: [row] for row in rows}  # by the first window
    joined: dict[int, int] = {}  # the first window of a chain that went into another: that one's
    for step in range(1, n_steps + 1):
        # Beginnings and ends of the chains without ``step`` items.
        begins: dict[tuple[int, ...], list[int]] = {}
        ends: dict[tuple[int, ...], list[int]] = {}
        for first, chain in chains.items():
            head, tail = pieces[first][0], pieces[chain[-1]][0]
            if len(head) > step:
                begins.setdefault(tuple(head[:-step]), []).append(first)
            if len(tail) > step:
                ends.setdefault(tuple(tail[step:]), []).append(first)

        # Join where one end meets one beginning, and no other does.
        for key, before in ends.items():
            after = begins.get(key, [])
            if len(before) == len(after) == 1:
                first = before[0]
                while first in joined:
                    first = joined[first]
                if first != after[0]:
                    chains[first] += chains.pop(after[0])
                    joined[after[0]] = first
    return list(chains.values())


class _History:
    """A history that grows at both ends, with the starts of its short stretches.

    Attributes:
        items, splits, shown: see :class:`Merged`.
        leaked: likewise.
        by_one: whether a row whose items all but the last repeat the end of the history continues
            it, also where the whole row repeats an earlier stretch.
    """

    def __init__(self, by_one: bool = False) -> None:
        self.by_one = by_one
        self.items: list[int] = []
        self.splits: list[int] = []
        self.shown: list[int] = []
        self.leaked = 0
        self.whole = False
        self._starts: dict[tuple[int, ...], list[int]] = {}

    def lay(self, found: list[int], said: list[int], whole: bool, rank: int) -> bool:
        """Lay a row of split ``rank`` over the history; False where it fits nowhere."""
        start = self._start_of(found, whole)
        if start is None:
            return False
        grown = start + len(found) - len(self.items)
        if grown > 0:
            self._extend(found[-grown:], rank)
        self._set_splits(start, said)
        self.whole |= whole
        return True

    def put_before(
        self, pieces: list[tuple[list[int], list[int], bool]], rows: list[int], ranks: list[int]
    ) -> list[int]:
        """Put the row before the history whose end repeats the most of its beginning.

        Returns:
            The rows that are left.
        """
        if self.whole:
            return rows
        overlaps = [0 if pieces[row][2] else _overlap(pieces[row][0], self.items) for row in rows]
        best = max(range(len(rows)), key=lambda number: overlaps[number])
        if not overlaps[best]:
            return rows
        items, said, _ = pieces[rows[best]]
        new = items[: len(items) - overlaps[best]]
        self.items[:0] = new
        self.splits[:0] = [NOT_SAID] * len(new)
        self.shown[:0] = [ranks[rows[best]]] * len(new)
        self._starts.clear()
        self._index(0)
        self._set_splits(0, said)
        return rows[:best] + rows[best + 1 :]

    def _start_of(self, found: list[int], whole: bool) -> int | None:
        """Where a row begins in the history, or None if it fits nowhere."""
        size = min(len(self.items), len(found))
        if not self.items or (whole and self.items[:size] == found[:size]):
            return 0
        if whole:
            return None
        if self.by_one and self.items[len(self.items) - len(found) + 1 :] == found[:-1]:
            return len(self.items) - len(found) + 1
        for start in reversed(self._starts.get(tuple(found[:GRAM]), ())):
            if self.items[start : start + len(found)] == found:
                return start
        overlap = _overlap(self.items, found)
        return len(self.items) - overlap if overlap else None

    def _extend(self, new: list[int], rank: int) -> None:
        before = len(self.items)
        self.items += new
        self.splits += [NOT_SAID] * len(new)
        self.shown += [rank] * len(new)
        self._index(before)

    def _index(self, before: int) -> None:
        """Note the stretches of up to GRAM items that end behind ``before``."""
        for end in range(before + 1, len(self.items) + 1):
            for length in range(1, min(GRAM, end) + 1):
                self._starts.setdefault(tuple(self.items[end - length : end]), []).append(
                    end - length
                )

    def _set_splits(self, start: int, said: list[int]) -> None:
        for index, split in enumerate(said, start=start):
            if split < 0:
                continue
            if self.splits[index] == NOT_SAID:
                self.splits[index] = split
            self.leaked += split > self.splits[index]


def _overlap(first: list[int], second: list[int]) -> int:
    """The most items at the end of one list that repeat the beginning of the other.

    The matching of Knuth, Morris and Pratt: its time is linear.
    """
    size = min(len(first), len(second))
    back = [0] * size  # of each index, how much of the beginning ends there
    matched = 0
    for index in range(1, size):
        while matched and second[index] != second[matched]:
            matched = back[matched - 1]
        matched += second[index] == second[matched]
        back[index] = matched
    matched = 0
    for index in range(len(first) - size, len(first)):
        while matched and (matched == size or first[index] != second[matched]):
            matched = back[matched - 1]
        matched += first[index] == second[matched]
    return matched


def held_out(offsets: np.ndarray, splits: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Fill ``NOT_SAID`` so that training gets nothing that only validation or test rows show.

    An interaction takes the latest split said before it in the history, as in :func:`carried`, but
    never an earlier one than that of the first row that shows it.

    Args:
        offsets: int64 (u + 1,).
        splits: int8 (n,).
        shown: int8 (n,).

    Returns:
        int8 (n,).
    """
    filled = carried(offsets, splits)
    return np.where(splits == NOT_SAID, np.maximum(filled, shown), filled).astype(np.int8)


def carried(offsets: np.ndarray, splits: np.ndarray) -> np.ndarray:
    """Fill ``NOT_SAID``: with the latest split said before it in the history, or train.

    Args:
        offsets: int64 (u + 1,).
        splits: int8 (n,).

    Returns:
        int8 (n,).
    """
    said = splits != NOT_SAID
    last = np.where(said, np.arange(len(splits)), -1)
    last = np.maximum.accumulate(last)  # (n,), index of the latest split said so far
    begins = np.repeat(offsets[:-1], np.diff(offsets))
    return np.where(last >= begins, splits[np.maximum(last, 0)], 0).astype(np.int8)


def _merge_all(
    table: pa.Table, users: pa.DictionaryArray, refuse: Callable[[Refused], None]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int, int]:
    # Rows of one user stand together: bounds (u + 1,).
    codes = users.indices.to_numpy()
    bounds = np.flatnonzero(np.diff(codes, prepend=-1, append=-1))
    pieces = list(
        zip(*(table[name].to_pylist() for name in ("items", "splits", "whole")), strict=True)
    )
    owners: list[np.ndarray] = []
    items: list[int] = []
    splits: list[int] = []
    shown: list[int] = []
    restated = leaked = 0
    for begin, end in pairwise(bounds):
        own = pieces[begin:end]
        merged = merge(own)

        # Rows that fit nowhere are refused; what other rows say again is counted.
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
        shown += merged.shown
    return (
        np.concatenate([np.empty(0, dtype=np.int64), *owners]),
        np.array(items, dtype=np.int32),
        np.array(splits, dtype=np.int8),
        np.array(shown, dtype=np.int8),
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
    values = np.asarray(lists.flatten().to_numpy())
    if not lists.null_count:
        return values
    inside = np.repeat(lists.is_valid().to_numpy(zero_copy_only=False), sizes)
    whole = np.full(len(inside), absent, dtype=values.dtype)
    whole[inside] = values
    return whole
