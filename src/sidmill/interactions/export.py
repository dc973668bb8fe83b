"""sequences.parquet -> sequence.h5, for tools that read histories from HDF5."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.formats import (
    sequence_data,
    sequence_table,
    vector_store,
)
from sidmill.interactions import item_numbers
from sidmill.interactions.item_numbers import ItemNumbers
from sidmill.settings.interactions import H5

logger = logging.getLogger(__name__)


def write_sequence_h5(
    sequences_path: str | Path, text_path: str | Path, h5_path: str | Path, settings: H5
) -> dict[str, int | float | bool]:
    """Write the histories of all users, in the order of sequences.parquet.

    Item ids become integers as in item_index.parquet. Timestamps are written if every user has
    them.

    Args:
        sequences_path: sequences.parquet.
        text_path: text.parquet, or another parquet with a ``pid``, for the numbers of string ids.
        h5_path: sequence.h5 to write.
        settings: ``splits`` says which interactions go in. A user without any is left out, which
            the log counts.

    Returns:
        The attributes of the file. Memory: 8,192 users, and the catalogue's ids.

    Raises:
        SidmillError: if no user is left, or an item is not in the catalogue.
    """
    splits = settings.splits
    numbers = [sequence_table.SPLITS.index(split) for split in splits]
    users = timed = left_out = 0
    for table in sequence_table.read(sequences_path):
        block = _of_splits(table, numbers)
        users += len(block)
        left_out += table.num_rows - len(block)
        timed += len(block) - block["timestamps"].null_count
    if not users:
        raise SidmillError(f"{sequences_path}: no user has interactions in {', '.join(splits)}")
    if left_out:
        logger.info("%d users without interactions in %s left out", left_out, ", ".join(splits))
    if 0 < timed < users:
        logger.warning("%d of %d users have timestamps: none are written", timed, users)

    # Integer ids are their own numbers.
    is_integer = vector_store.read_pids(text_path).type == pa.int64()
    items = None if is_integer else item_numbers.as_indexed(text_path, sequences_path)
    blocks = _blocks(sequences_path, items, numbers, timed == users)
    return sequence_data.write(h5_path, users, timed == users, blocks)


def _blocks(
    sequences_path: str | Path, items: ItemNumbers | None, splits: list[int], timed: bool
) -> Iterator[sequence_data.Block]:
    """Yield the histories by blocks; items by number, or None where ids are numbers."""
    for table in sequence_table.read(sequences_path):
        block = _of_splits(table, splits)
        if not len(block):
            continue

        # Lists as offsets (b + 1,) and values (t,).
        offsets = np.concatenate(
            [[0], np.cumsum(block["item_ids"].combine_chunks().value_lengths())]
        )
        ids = block["item_ids"].combine_chunks().flatten()
        numbers = ids.to_numpy() if items is None else item_numbers.find(items, ids, sequences_path)
        times = block["timestamps"].combine_chunks().flatten().to_numpy() if timed else None
        yield sequence_data.Block(block["user_id"].to_pylist(), offsets, numbers, times)


def _of_splits(table: pa.Table, splits: list[int]) -> pa.Table:
    """Keep the interactions of some splits, and the users who have any."""
    if len(set(splits)) == len(sequence_table.SPLITS):
        return table
    table = table.combine_chunks()
    lists = {name: table[name].combine_chunks() for name in table.column_names[1:]}
    lengths = lists["item_ids"].value_lengths().to_numpy()
    kept = np.isin(lists["splits"].flatten().to_numpy(), splits)
    owners = np.repeat(np.arange(len(lengths)), lengths)
    ends = np.cumsum(np.bincount(owners[kept], minlength=len(lengths)))
    offsets = pa.array(np.concatenate([[0], ends]).astype(np.int32))
    columns = [table["user_id"].combine_chunks()]
    for name in ("item_ids", "splits"):
        columns.append(pa.ListArray.from_arrays(offsets, lists[name].flatten().filter(kept)))
    said = lists["timestamps"].is_valid().to_numpy(zero_copy_only=False)
    times = np.zeros(len(owners), dtype=np.int64)
    times[np.repeat(said, lengths)] = lists["timestamps"].flatten().to_numpy()
    columns.append(pa.ListArray.from_arrays(offsets, pa.array(times[kept]), mask=pa.array(~said)))
    chosen = pa.table(columns, schema=table.schema)
    return chosen.filter(pa.array(np.diff(offsets.to_numpy()) > 0))
