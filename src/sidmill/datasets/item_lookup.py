"""What datasets need of items: the row of an id, its SID, its title.

Shapes: N items, L levels.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sidmill.core.errors import SidmillError
from sidmill.datasets import ragged, tasks
from sidmill.formats import code_files
from sidmill.io import id_lookup, plain_columns

CAPTION = "dense_caption"
BATCH_ROWS = 8192


class ItemFiles(NamedTuple):
    """Where the items of a dataset are described.

    Attributes:
        pid2sid: SIDs of items.
        products: SIDs of the second domain, where there is one.
        texts: parquet files with texts of items, for tasks that name items by title.
    """

    pid2sid: str | Path
    products: str | Path | None = None
    texts: Sequence[str | Path] = ()


class Items(NamedTuple):
    """The items of one domain.

    Attributes:
        lookup: from id to row.
        codes: int32 (N, L), the SID of each item.
        pids: the ids (N,), int64 or string.
    """

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


def load_domains(files: ItemFiles, task: tasks.Task, dataset: str) -> dict[str, Items]:
    """Read the items of each domain that a task has: ``items``, and ``product`` for some.

    Args:
        files: where they are.
        task: which domains it has.
        dataset: its name, for the message.

    Raises:
        SidmillError: if the task needs a second domain and none is given.
    """
    domains = {"items": load(files.pid2sid)}
    if tasks.names_products(task):
        if files.products is None:
            raise SidmillError(f"{dataset} needs a second domain: set datasets.product_pid2sid")
        domains["product"] = load(files.products)
    return domains


def find_rows(lookup: id_lookup.Lookup, pids: np.ndarray | pa.Array, column: str) -> np.ndarray:
    """Rows of items, int32 (m,), -1 where there is no such item.

    Raises:
        SidmillError: if the ids are numbers and those of the items are texts, or the reverse.
    """
    return id_lookup.find(lookup, ragged.as_arrow(pids), f"column {column!r}")


def load_titles(items: Items, paths: Iterable[str | Path]) -> pa.LargeStringArray:
    """First lines of texts, in row order of the items; empty where an item has none.

    Memory: the titles, about 100 bytes per item.

    Args:
        items: which items.
        paths: parquet files with ``pid`` and ``dense_caption``, or without that, ``text``.
    """
    # The line of each item, of all lines end to end; the last file wins.
    line_of_item = np.full(len(items.codes), -1, dtype=np.int64)
    lines, n_lines = [], 0
    for path in paths:
        file = pq.ParquetFile(path)
        column = CAPTION if CAPTION in file.schema_arrow.names else "text"
        for batch in file.iter_batches(BATCH_ROWS, columns=["pid", column]):
            rows = find_rows(items.lookup, batch["pid"], "pid")
            is_item = np.flatnonzero(rows >= 0)
            line_of_item[rows[is_item]] = n_lines + is_item
            texts = plain_columns.plain(batch[column], f"{path}: column {column!r}")
            lines.append(first_lines(texts.cast(pa.large_string())))
            n_lines += len(batch)

    # One more line, which is empty, for items without a text.
    table = pa.chunked_array([*lines, pa.array([""], pa.large_string())]).combine_chunks()
    return table.take(ragged.as_arrow(np.where(line_of_item < 0, n_lines, line_of_item)))


def have_titles(items: Items, paths: Iterable[str | Path]) -> np.ndarray:
    """Which items have a title: bool (N,). Memory: that of :func:`load_titles`."""
    lengths = pc.utf8_length(pc.utf8_trim_whitespace(load_titles(items, paths)))
    return ragged.as_numpy(pc.greater(lengths, 0))


def first_lines(texts: pa.Array) -> pa.Array:
    """The text before the first line feed of each text."""
    position = pc.find_substring(texts, "\n")
    if not pc.any(pc.greater_equal(position, 0), min_count=0).as_py():
        return pc.fill_null(texts, "")
    return pc.replace_substring_regex(pc.fill_null(texts, ""), r"(?s)\n.*", "")
