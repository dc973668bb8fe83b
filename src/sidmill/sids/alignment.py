"""Do items that people consume one after the other share their first tokens?

Of the pairs of consecutive items in training histories, how many share the first 1, 2 tokens; and
how many would by chance, were both items of a pair drawn by popularity. Only pairs inside the
training part count: a tokenizer may be chosen by this figure, before anything is tested.

Shapes: N items, L levels, P pairs.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sidmill.formats import sequence_table
from sidmill.io import id_lookup
from sidmill.sids import prefixes

LONGEST_PREFIX = 2


def align(
    path: str | Path, ids: pa.ChunkedArray, codes: np.ndarray, sizes: list[int]
) -> dict[str, Any]:
    """Measure how often consecutive items share a prefix, against chance.

    Pairs of one item with itself are left out of both. Memory: one row group of histories, and
    some 60 bytes per item beside what :func:`sidmill.io.id_lookup.make` takes.

    Args:
        path: sequences.parquet.
        ids: int64 or string (N,).
        codes: int32 (N, L).
        sizes: K_l per level.

    Returns:
        ``pairs``, ``pairs_of_unknown_items`` (not in ``ids``, not counted), and for prefixes of
        length "1", "2": ``share``, ``chance`` and ``ratio``; None where there is nothing to divide.

    Raises:
        SidmillError: if ids are strings here and integers there.
    """
    # Count pairs, and those that share a prefix of each length, by row group.
    lengths = range(1, min(LONGEST_PREFIX, codes.shape[1]) + 1)
    numbers = prefixes.number(codes, sizes).numbers
    lookup = id_lookup.make(ids)
    seen = np.zeros(len(ids), dtype=np.int64)  # how often an item is one of a pair
    shared = dict.fromkeys(lengths, 0)
    pairs = unknown = 0
    for one, other in _consecutive(path, lookup):
        known = (one != id_lookup.ABSENT) & (other != id_lookup.ABSENT)
        unknown += int((~known).sum())
        one, other = one[known & (one != other)], other[known & (one != other)]
        pairs += len(one)
        seen += np.bincount(one, minlength=len(seen)) + np.bincount(other, minlength=len(seen))
        for length in lengths:
            shared[length] += int((numbers[length][one] == numbers[length][other]).sum())

    # The same by chance, and how many times more often it is.
    figures: dict[str, Any] = {"pairs": pairs, "pairs_of_unknown_items": unknown}
    for length in lengths:
        share = shared[length] / pairs if pairs else None
        by_chance = chance(numbers[length], seen) if pairs else None
        ratio = share / by_chance if share is not None and by_chance else None
        figures[str(length)] = {"share": share, "chance": by_chance, "ratio": ratio}
    return figures


def chance(numbers: np.ndarray, popularity: np.ndarray) -> float:
    """Share of pairs of different items, both drawn by popularity, that have one number.

    Args:
        numbers: int64 (N,), of the prefix of each item.
        popularity: int64 (N,), at least two of them above 0.
    """
    weights = popularity / popularity.sum()
    same_item = np.square(weights).sum()
    same_number = np.square(np.bincount(numbers, weights)).sum()
    return float(max(same_number - same_item, 0.0) / (1.0 - same_item))


def _consecutive(
    path: str | Path, lookup: id_lookup.Lookup
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the rows of consecutive training items, one row group of histories at a time."""
    for table in sequence_table.read(path):
        items = table["item_ids"].combine_chunks()
        users = np.repeat(np.arange(len(items)), np.diff(items.offsets.to_numpy()))
        training = table["splits"].combine_chunks().flatten().to_numpy() == sequence_table.TRAIN
        together = (users[1:] == users[:-1]) & training[1:] & training[:-1]
        rows = id_lookup.find(lookup, items.flatten(), str(path))
        yield rows[:-1][together], rows[1:][together]
