"""sequences.parquet -> sequence.h5, for tools that read histories from HDF5."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.formats import (
    lcrec_index,
    sequence_data,
    sequence_table,
    vector_store,
)
from sidmill.io import id_lookup
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
    wanted = [sequence_table.SPLITS.index(split) for split in splits]
    users = timed = left_out = 0
    for table in sequence_table.read(sequences_path):
        block = _chosen(table, wanted)
        users += len(block)
        left_out += table.num_rows - len(block)
        timed += len(block) - block["timestamps"].null_count
    if not users:
        raise SidmillError(f"{sequences_path}: no user has interactions in {', '.join(splits)}")
    if left_out:
        logger.info("%d users without interactions in %s left out", left_out, ", ".join(splits))
    if 0 < timed < users:
        logger.warning("%d of %d users have timestamps: none are written", timed, users)
    blocks = _blocks(sequences_path, _known(text_path), wanted, timed == users)
    return sequence_data.write(h5_path, users, timed == users, blocks)


def _known(text_path: str | Path) -> pa.Array | None:
    """The catalogue's ids where they are strings, which have to be numbered."""
    ids = vector_store.read_pids(text_path)
    return None if ids.type == pa.int64() else ids.combine_chunks()


def _blocks(
    sequences_path: str | Path, known: pa.Array | None, wanted: list[int], timed: bool
) -> Iterator[sequence_data.Block]:
    # The number of each item of the catalogue, where its ids are strings.
    if known is not None:
        lookup = id_lookup.make(known)
        numbers = lcrec_index.number(pa.chunked_array([known]), sequences_path)
    for table in sequence_table.read(sequences_path):
        block = _chosen(table, wanted)
        if not len(block):
            continue

        # Lists as offsets (b + 1,) and values (t,).
        offsets = np.concatenate(
            [[0], np.cumsum(block["item_ids"].combine_chunks().value_lengths())]
        )
        ids = block["item_ids"].combine_chunks().flatten()
        if known is None:
            items = ids.to_numpy()
        else:
            places = id_lookup.find(lookup, ids, str(sequences_path))
            if (places == id_lookup.ABSENT).any():
                lost = ids[int(places.argmin())].as_py()
                raise SidmillError(
                    f"{sequences_path}: item {lost!r} is not in the catalogue: make it anew"
                )
            items = numbers[places]
        times = block["timestamps"].combine_chunks().flatten().to_numpy() if timed else None
        yield sequence_data.Block(block["user_id"].to_pylist(), offsets, items, times)


def _chosen(table: pa.Table, wanted: list[int]) -> pa.Table:
    """Keep the interactions of the splits wanted, and the users who have any."""
    if len(set(wanted)) == len(sequence_table.SPLITS):
        return table
    table = table.combine_chunks()
    lists = {name: table[name].combine_chunks() for name in table.column_names[1:]}
    lengths = lists["item_ids"].value_lengths().to_numpy()
    kept = np.isin(lists["splits"].flatten().to_numpy(), wanted)
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
