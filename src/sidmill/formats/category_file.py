"""``categories.parquet``: the category of each item.

pid       int64 or string, in the order of the catalogue
category  string, null for an item that has none
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.io import id_lookup, parquet

COLUMNS = {"pid": parquet.is_pid, "category": pa.types.is_string}


def schema(pid_type: pa.DataType) -> pa.Schema:
    """Schema of categories.parquet for item ids of ``pid_type`` (int64 or string)."""
    return pa.schema([("pid", pid_type), ("category", pa.string())])


def write(path: str | Path, pid_type: pa.DataType, tables: Iterable[pa.Table]) -> int:
    """Write categories.parquet atomically from tables of :func:`schema`; return its rows."""
    return parquet.write(path, schema(pid_type), tables)


def of_ids(path: str | Path, ids: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Look up the categories of items: string (N,), null where one has none.

    Memory: the ids and the categories; a hash table where the order is another one.

    Args:
        path: categories.parquet; empty for a run without categories, which gives None.
        ids: int64 or string (N,).

    Raises:
        SidmillError: if the file is not parquet, lacks a column, or lacks an item.
    """
    if not path:
        return None
    table = parquet.open_file(path, COLUMNS).read(columns=list(COLUMNS))
    pids = parquet.pids(table["pid"])
    if pids.equals(ids):
        return table["category"]
    asked = ids.combine_chunks()
    rows = id_lookup.find(id_lookup.make(pids, path), asked, str(path))
    missing = np.flatnonzero(rows < 0)
    if missing.size:
        raise SidmillError(
            f"{path}: lacks {missing.size} of {len(ids)} items, first "
            f"{asked[int(missing[0])].as_py()!r}: name a file with the categories of all of them"
        )
    return table["category"].take(pa.array(rows))
