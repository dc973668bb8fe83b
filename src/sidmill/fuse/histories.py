"""Training histories from sequences.parquet, as rows of the item vectors.

Interactions of the splits valid and test are dropped as soon as they are read: nothing of this
package sees them.

Users are cut into folds (:func:`sidmill.formats.sequence_table.folds`), so that vectors can be made
without the users of one fold.

Letters: N items, n interactions of one chunk, U users of one table.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.formats import sequence_table
from sidmill.io import id_lookup

CHUNK_INTERACTIONS = 1_000_000


class Chunk(NamedTuple):
    """Training interactions of some consecutive users, oldest first.

    Attributes:
        users: int64 (n,), ascending, a number for each user.
        items: int32 (n,), rows of the item vectors.
    """

    users: np.ndarray
    items: np.ndarray


class Without(NamedTuple):
    """The users who are left out: fold ``fold`` of ``n_folds``."""

    fold: int
    n_folds: int


class Counts(NamedTuple):
    """How often items are consumed in training.

    Attributes:
        users: int64 (N,), users who have the item.
        interactions: int64 (N,).
    """

    users: np.ndarray
    interactions: np.ndarray


def count(
    path: str | Path, lookup: id_lookup.Lookup, n_items: int, without: Without | None = None
) -> Counts:
    """Count users and interactions of every item. Memory: 16 N bytes and one chunk.

    Args:
        path: sequences.parquet.
        lookup: from item ids to rows.
        n_items: N.
        without: users who are left out.

    Raises:
        SidmillError: if an item of the histories has no vector.
    """
    users, interactions = np.zeros(n_items, np.int64), np.zeros(n_items, np.int64)
    for chunk in read(path, lookup, CHUNK_INTERACTIONS, without):
        interactions += np.bincount(chunk.items, minlength=n_items)

        # A user counts once, however often they had the item.
        order = np.lexsort((chunk.items, chunk.users))
        owners, items = chunk.users[order], chunk.items[order]
        is_first = np.ones(len(order), bool)
        is_first[1:] = (np.diff(owners) != 0) | (np.diff(items) != 0)
        users += np.bincount(items[is_first], minlength=n_items)
    return Counts(users, interactions)


def read(
    path: str | Path,
    lookup: id_lookup.Lookup,
    n_interactions: int,
    without: Without | None = None,
) -> Iterator[Chunk]:
    """Yield the training interactions of all users, each user whole in one chunk.

    Memory: one row group of the file, and a chunk.

    Args:
        path: sequences.parquet.
        lookup: from item ids to rows.
        n_interactions: of a chunk, at most; one user with more is a chunk.
        without: users who are left out.

    Raises:
        SidmillError: if an item of the histories has no vector.
    """
    first = 0
    for table in sequence_table.read(path):
        lists = table["item_ids"].combine_chunks()
        is_training = _flat(table["splits"]) == sequence_table.TRAIN
        lengths = lists.value_lengths().to_numpy()
        users = first + np.repeat(np.arange(len(lists)), lengths)
        if without is not None:
            is_training &= sequence_table.folds(users, without.n_folds) != without.fold
        users = users[is_training]
        items = _rows(lookup, lists.flatten().filter(pa.array(is_training)), path)
        first += len(lists)

        # Cut between users, where the next user would make a chunk too long.
        ends = np.append(np.flatnonzero(np.diff(users)) + 1, len(users))
        start = 0
        while start < len(users):
            later = np.searchsorted(ends, start + n_interactions, side="right")
            at_least = np.searchsorted(ends, start, side="right")
            stop = int(ends[max(later - 1, at_least)])
            yield Chunk(users[start:stop], items[start:stop])
            start = stop


def _flat(column: pa.ChunkedArray) -> np.ndarray:
    values: np.ndarray = column.combine_chunks().flatten().to_numpy()
    return values


def _rows(lookup: id_lookup.Lookup, ids: pa.Array, path: str | Path) -> np.ndarray:
    rows = id_lookup.find(lookup, ids, str(path))
    missing = np.flatnonzero(rows == id_lookup.ABSENT)
    if missing.size:
        raise SidmillError(
            f"{path}: {missing.size} training interactions are with items that have no vector, "
            f"first {ids[int(missing[0])].as_py()!r}: read the interactions against the same "
            f"catalogue"
        )
    return rows
