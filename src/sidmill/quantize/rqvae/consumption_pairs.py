"""Pairs of items that users consumed together, as row numbers of the vectors.

Shapes: P pairs, N items.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sidmill.core.errors import SidmillError
from sidmill.formats import sequence_table, vector_store
from sidmill.io import id_lookup, parquet


def load(path: str, ids_path: str) -> np.ndarray:
    """Read pairs from ``sequences.parquet``, or from a parquet with ``pid_a`` and ``pid_b``.

    Of sequences, neighbours in a history make a pair, where both belong to the training part:
    what is held out for tests teaches nothing. Memory: 16 bytes per pair, and what
    :func:`sidmill.io.id_lookup.make` takes.

    Args:
        path: the parquet.
        ids_path: ids.parquet of the vectors.

    Returns:
        int64 (P, 2), items that are no neighbours of themselves.

    Raises:
        SidmillError: if an id is not in the catalogue, or of another type; if there is no pair.
    """
    lookup = id_lookup.make(vector_store.read_pids(ids_path))
    found = [
        np.column_stack([_rows(column, lookup, path) for column in table]) for table in _read(path)
    ]
    rows = np.concatenate([np.empty((0, 2), dtype=np.int64), *found])
    rows = rows[rows[:, 0] != rows[:, 1]]
    if not len(rows):
        raise SidmillError(
            f"{path}: no two different items stand together: set contrastive_weight 0"
        )
    return rows


def _read(path: str) -> Iterator[tuple[pa.Array, pa.Array]]:
    if "item_ids" not in pq.read_schema(path).names:
        file = parquet.open_file(path, {"pid_a": parquet.is_pid, "pid_b": parquet.is_pid})
        for table in parquet.read_rows(file, ["pid_a", "pid_b"], 0, file.metadata.num_rows):
            yield table["pid_a"].combine_chunks(), table["pid_b"].combine_chunks()
        return
    for table in sequence_table.read(path):
        items = pc.list_flatten(table["item_ids"]).combine_chunks()
        user = pc.list_parent_indices(table["item_ids"]).to_numpy()
        split = pc.list_flatten(table["splits"]).to_numpy()
        train = split == sequence_table.TRAIN
        both = np.flatnonzero((user[1:] == user[:-1]) & train[1:] & train[:-1])
        yield items.take(pa.array(both)), items.take(pa.array(both + 1))


def _rows(pids: pa.Array, lookup: id_lookup.Lookup, path: str) -> np.ndarray:
    rows = id_lookup.find(lookup, pids, path)
    if (rows == id_lookup.ABSENT).any():
        missing = pids[int(rows.argmin())].as_py()
        raise SidmillError(
            f"{path}: item {missing!r} is not in the catalogue: take the ones of these items"
        )
    return rows.astype(np.int64)
