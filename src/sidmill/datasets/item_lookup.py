"""What the engine knows of items: the row of an id, its SID as text, its title.

Shapes: N items, L levels.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sidmill.datasets import ragged
from sidmill.formats import code_files
from sidmill.io import id_lookup, plain_columns

CAPTION = "dense_caption"


class Items(NamedTuple):
    """``lookup`` finds the row of an id; ``codes`` int32 (N, L) are the items' SIDs; ``pids``."""

    lookup: id_lookup.Lookup
    codes: np.ndarray
    pids: pa.Array


def load(path: str | Path) -> Items:
    """Read pid2sid.parquet. Memory: about 100 bytes per item.

    Raises:
        SidmillError: if an item has two SIDs.
    """
    coded = code_files.read(path, "sid")
    return Items(id_lookup.make(coded.ids, path), coded.codes, coded.ids.combine_chunks())


def rows(lookup: id_lookup.Lookup, pids: np.ndarray | pa.Array, column: str) -> np.ndarray:
    """Rows of items, int32 (m,), -1 where there is no such item.

    Raises:
        SidmillError: if the ids are numbers and those of the items are texts, or the reverse.
    """
    return id_lookup.find(lookup, ragged.arrow(pids), f"column {column!r}")


def titles(items: Items, paths: Iterable[str | Path]) -> pa.LargeStringArray:
    """First lines of texts, in row order of the items; empty where an item has none.

    Memory: the titles, about 100 bytes per item.

    Args:
        items: which items.
        paths: parquet files with ``pid`` and ``dense_caption``, or without that, ``text``.
    """
    found = np.full(len(items.codes), -1, dtype=np.int64)
    lines, seen = [], 0
    for path in paths:
        file = pq.ParquetFile(path)
        column = CAPTION if CAPTION in file.schema_arrow.names else "text"
        for batch in file.iter_batches(8192, columns=["pid", column]):
            place = rows(items.lookup, batch["pid"], "pid")
            known = np.flatnonzero(place >= 0)
            found[place[known]] = seen + known
            texts = plain_columns.plain(batch[column], f"{path}: column {column!r}")
            lines.append(first_lines(texts.cast(pa.large_string())))
            seen += len(batch)
    table = pa.chunked_array([*lines, pa.array([""], pa.large_string())]).combine_chunks()
    return table.take(ragged.arrow(np.where(found < 0, seen, found)))


def titled(items: Items, paths: Iterable[str | Path]) -> np.ndarray:
    """Which items have a title: bool (N,). Memory: that of :func:`titles`."""
    lengths = pc.utf8_length(pc.utf8_trim_whitespace(titles(items, paths)))
    return pc.greater(lengths, 0).to_numpy(zero_copy_only=False)


def first_lines(texts: pa.Array) -> pa.Array:
    """What stands before the first line feed of each text."""
    found = pc.find_substring(texts, "\n")
    if not pc.any(pc.greater_equal(found, 0), min_count=0).as_py():
        return pc.fill_null(texts, "")
    return pc.replace_substring_regex(pc.fill_null(texts, ""), r"(?s)\n.*", "")
