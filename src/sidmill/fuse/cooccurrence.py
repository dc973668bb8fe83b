"""Training histories -> the nearest co-consumed items of every item.

Two items are consumed together by a user who has both within ``window`` steps of the training
history. With c users who consumed items i and j together, and n_i users who have item i, they are
near by a cosine with shrinkage: c / (sqrt(n_i n_j) + shrinkage).

Pairs are counted in two passes over disk: chunks of histories are counted and cut by ranges of
rows, then each range is added up by itself. Counts are integers, so neither the order of users nor
the memory changes a bit.

Letters: N items, b items of one range, m neighbours of all items of one range.

Source: item-to-item cosines as in Sarwar et al. 2001, https://doi.org/10.1145/371920.372071.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from sidmill.fuse import histories
from sidmill.fuse.histories import Chunk, Counts, Without
from sidmill.io import buckets
from sidmill.io.id_lookup import Lookup
from sidmill.settings.fuse import Fuse

MIB = 2**20
PAIR_BYTES = 128  # of one pair while a chunk is counted, temporaries included
ENTRY_BYTES = 128  # of one stored pair while a range is added up, temporaries included
MOST_RANGES = 1024
ENTRY = np.dtype([("key", "<i8"), ("count", "<i4")])  # key: row * N + row of the neighbour


class Neighbours(NamedTuple):
    """Neighbours of consecutive items; those of one item ascend by row.

    Attributes:
        first: row of the first item.
        bounds: int64 (b + 1,), offset of each item's first neighbour.
        rows: int32 (m,), the neighbours.
        counts: int32 (m,), users who consumed both together.
        cosines: float64 (m,), above 0.
        totals: int64 (b,), the sum of counts of all neighbours of an item, those left out too.
    """

    first: int
    bounds: np.ndarray
    rows: np.ndarray
    counts: np.ndarray
    cosines: np.ndarray
    totals: np.ndarray


class _Part(NamedTuple):
    """Entries of one range in the file: where they start, and how many."""

    offset: int
    size: int


def find(
    path: str | Path,
    lookup: Lookup,
    counts: Counts,
    settings: Fuse,
    folder: str | Path,
    without: Without | None = None,
) -> Iterator[Neighbours]:
    """Yield the neighbours of all items, range by range of rows, in order.

    Of neighbours with equal cosines those of lower rows are kept.

    Memory: ``settings.memory_mb``; if one item is consumed more often than fits, 128 bytes for each
    of the items it was consumed with. Disk: at most 24 bytes x window per training interaction.

    Args:
        path: sequences.parquet.
        lookup: from item ids to rows.
        counts: of :func:`histories.count`, from the same file and the same users.
        settings: window, neighbours, shrinkage, memory_mb.
        folder: for temporary files; it is emptied first and removed at the end.
        without: users who are left out.

    Raises:
        SidmillError: if an item of the histories has no vector.
    """
    n_items, memory = len(counts.users), settings.memory_mb * MIB
    edges = _ranges(2 * settings.window * counts.interactions, memory)
    with buckets.folder(Path(folder)) as own, Path(own, "pairs").open("w+b") as file:
        # First pass: pairs of each chunk, cut by ranges.
        parts: list[list[_Part]] = [[] for _ in edges[1:]]
        n_interactions = max(memory // (PAIR_BYTES * settings.window), 1)
        for chunk in histories.read(path, lookup, n_interactions, without):
            _store(file, _pairs(chunk, settings.window, n_items), edges * n_items, parts)

        # Second pass: all pairs of a range.
        for (first, stop), stored in zip(pairwise(edges.tolist()), parts, strict=True):
            entries = _load(file, stored, memory // ENTRY_BYTES)
            yield _nearest(first, stop, entries, counts.users, settings)


def _ranges(most_pairs: np.ndarray, memory: int) -> np.ndarray:
    """Cut the rows where the pairs of a range might exceed the memory: edges int64, 0 and N too.

    Args:
        most_pairs: int64 (N,), pairs of each row at most.
        memory: bytes.
    """
    before = np.concatenate([[0], np.cumsum(most_pairs)])
    most = max(memory // ENTRY_BYTES, int(before[-1]) // MOST_RANGES, 1)
    edges = [0]
    while edges[-1] < len(most_pairs):
        stop = int(np.searchsorted(before, before[edges[-1]] + most, side="right")) - 1
        edges.append(max(stop, edges[-1] + 1))
    return np.array(edges, dtype=np.int64)


def _pairs(chunk: Chunk, window: int, n_items: int) -> np.ndarray:
    """Count the users of every pair in a chunk, in both directions: ENTRY (p,), by key."""
    # One row per pair and distance, the lower item first.
    empty = np.empty(0, np.int64)
    keys, owners = [empty], [empty]
    longest = int(np.unique(chunk.users, return_counts=True)[1].max(initial=0))
    for distance in range(1, min(window, longest - 1) + 1):
        is_pair = chunk.users[distance:] == chunk.users[:-distance]
        one, other = chunk.items[:-distance][is_pair], chunk.items[distance:][is_pair]
        differ = one != other
        low, high = np.minimum(one, other)[differ], np.maximum(one, other)[differ]
        keys.append(low.astype(np.int64) * n_items + high)
        owners.append(chunk.users[distance:][is_pair][differ])
    key, owner = np.concatenate(keys), np.concatenate(owners)

    # A user counts once for a pair.
    order = np.lexsort((owner, key))
    key, owner = key[order], owner[order]
    is_first = np.ones(len(key), bool)
    is_first[1:] = (np.diff(key) != 0) | (np.diff(owner) != 0)
    entries = np.empty(int(is_first.sum()), ENTRY)
    entries["key"], entries["count"] = key[is_first], 1
    entries = _added(entries)

    # The other direction.
    low, high = np.divmod(entries["key"], n_items)
    reverse = entries.copy()
    reverse["key"] = high * n_items + low
    both = np.concatenate([entries, reverse])
    return both[np.argsort(both["key"], kind="stable")]


def _added(entries: np.ndarray) -> np.ndarray:
    """Add up the counts of equal keys: ENTRY, ascending by key."""
    if not len(entries):
        return entries
    entries = entries[np.argsort(entries["key"], kind="stable")]
    starts = np.flatnonzero(np.diff(entries["key"], prepend=-1))
    added = entries[starts]
    added["count"] = np.add.reduceat(entries["count"], starts)
    return added


def _store(
    file: BinaryIO, entries: np.ndarray, key_edges: np.ndarray, parts: list[list[_Part]]
) -> None:
    """Append entries (ascending by key), and note where those of each range are."""
    offset = file.seek(0, 2)
    file.write(entries.tobytes())
    cuts = np.searchsorted(entries["key"], key_edges)
    for number, (start, stop) in enumerate(pairwise(cuts.tolist())):
        if start < stop:
            parts[number].append(_Part(offset + start * ENTRY.itemsize, stop - start))


def _load(file: BinaryIO, parts: list[_Part], most: int) -> np.ndarray:
    """Read the entries of one range, adding them up whenever more than ``most`` are waiting."""
    added = np.empty(0, ENTRY)
    waiting: list[np.ndarray] = []
    for part in parts:
        if waiting and sum(map(len, waiting)) + part.size > most:
            added, waiting = _added(np.concatenate([added, *waiting])), []
        file.seek(part.offset)
        waiting.append(np.frombuffer(file.read(part.size * ENTRY.itemsize), ENTRY))
    return _added(np.concatenate([added, *waiting]))


def _nearest(
    first: int, stop: int, entries: np.ndarray, users: np.ndarray, settings: Fuse
) -> Neighbours:
    """Keep the nearest neighbours of the items of one range."""
    items, rows = np.divmod(entries["key"], len(users))
    counts = entries["count"]
    totals = np.zeros(stop - first, np.int64)
    np.add.at(totals, items - first, counts)
    cosines = counts / (np.sqrt(users[items] * users[rows]) + settings.shrinkage)

    # Rank of each neighbour among those of its item: entries ascend by item, then by row.
    order = np.lexsort((rows, -cosines, items))
    starts = np.searchsorted(items, np.arange(first, stop + 1))
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order)) - starts[items[order] - first]
    kept = ranks < settings.neighbours

    bounds = np.concatenate([[0], np.cumsum(kept)])[starts]
    return Neighbours(
        first, bounds, rows[kept].astype(np.int32), counts[kept], cosines[kept], totals
    )
