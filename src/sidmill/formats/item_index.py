"""``item_index.parquet``: the integer by which memory maps and HDF5 files call an item.

    pid      int64 or string, as in the catalogue, in its order
    item_id  int64, from 1: the id itself where ids are integers, else the item's row counted from 1

0 is padding and stands for no item.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.io import parquet


def number(ids: pa.ChunkedArray, source: str | Path) -> np.ndarray:
    """Number items for item_index.parquet: the integers that memory maps and HDF5 files use.

    Args:
        ids: int64 or string (N,), in row order.
        source: where they come from, for the message.

    Returns:
        int64 (N,), all above 0.

    Raises:
        SidmillError: if an integer id is below 1.
    """
    if ids.type != pa.int64():
        return np.arange(1, len(ids) + 1)
    numbers = np.asarray(ids.to_numpy())
    if len(numbers) and numbers.min() < 1:
        raise SidmillError(
            f"{source}: item id {numbers.min()}: 0 is padding in memory maps and HDF5 files, so "
            f"integer ids begin at 1: number the catalogue from 1, or set items.id_type: string"
        )
    return numbers


def write(path: str | Path, ids: pa.ChunkedArray, numbers: np.ndarray) -> None:
    """Write item_index.parquet for ids (N,) and numbers int64 (N,)."""
    schema = pa.schema([("pid", ids.type), ("item_id", pa.int64())])
    parquet.write(path, schema, [pa.table([ids, numbers], schema=schema)])


def read(path: str | Path) -> tuple[pa.ChunkedArray, np.ndarray]:
    """Read ids (N,) and numbers int64 (N,) from item_index.parquet.

    Raises:
        SidmillError: if the file is not parquet, or lacks a column.
    """
    columns = {"pid": parquet.is_pid, "item_id": pa.types.is_int64}
    table = parquet.open_file(path, columns).read(columns=list(columns))
    return parquet.pids(table["pid"]), table["item_id"].to_numpy()
