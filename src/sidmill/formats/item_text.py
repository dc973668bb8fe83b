"""``text.parquet``: one text per item, and ``rejects.parquet``: the rows that gave none.

    text.parquet     pid (int64 or string), text (string, not empty)
    rejects.parquet  pid (string, null where unreadable), file, row (int64, from 1), reason

Every row of the catalogue is in one of the two; rejects.parquet carries in its metadata,
``sidmill.rows_read``, how many rows that were, counted where they are read.
"""

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sidmill.io import parquet

REJECTS_SCHEMA = pa.schema(
    [("pid", pa.string()), ("file", pa.string()), ("row", pa.int64()), ("reason", pa.string())]
)
ROWS_READ_KEY = "sidmill.rows_read"


def schema(pid_type: pa.DataType) -> pa.Schema:
    """Schema of text.parquet for item ids of ``pid_type`` (int64 or string)."""
    return pa.schema([("pid", pid_type), ("text", pa.string())])


def write(path: str | Path, pid_type: pa.DataType, tables: Iterable[pa.Table]) -> int:
    """Write text.parquet from tables of :func:`schema` and return its number of rows."""
    return parquet.write(path, schema(pid_type), tables)


def _open(path: str | Path) -> pq.ParquetFile:
    return parquet.open_file(path, {"pid": parquet.is_pid, "text": pa.types.is_string})


def count(path: str | Path) -> int:
    """Number of items in text.parquet."""
    return int(_open(path).metadata.num_rows)


def pid_type(path: str | Path) -> pa.DataType:
    """Type of the item ids in text.parquet: int64 or string."""
    return _open(path).schema_arrow.field("pid").type


def read(path: str | Path, start: int = 0, stop: int | None = None) -> Iterator[pa.Table]:
    """Yield the items of rows ``start`` to ``stop`` as tables ``pid``, ``text``, in row order.

    Memory: one row group.

    Raises:
        SidmillError: if the file is not parquet, or lacks a column.
    """
    file = _open(path)
    last = file.metadata.num_rows if stop is None else stop
    return parquet.read_rows(file, ["pid", "text"], start, last)


def rows_read(rejects_path: str | Path) -> int | None:
    """How many rows of the catalogue gave text.parquet and this rejects.parquet; None: unknown."""
    with parquet.naming(rejects_path):
        stored = pq.read_metadata(rejects_path).metadata or {}
    told = stored.get(ROWS_READ_KEY.encode(), b"").decode(errors="replace")
    return int(told) if told.isdecimal() else None


def find(path: str | Path, wanted: set[str]) -> dict[str, str]:
    """Find the texts of some ids, as strings, in text.parquet; unknown ids are left out.

    Memory: these, and a row group.
    """
    found: dict[str, str] = {}
    names = pa.array(sorted(wanted), pa.string())
    for table in read(path):
        pids = table["pid"].cast(pa.string())
        held = pc.is_in(pids, value_set=names)
        lines = table["text"].filter(held).to_pylist()
        found.update(zip(pids.filter(held).to_pylist(), lines, strict=True))
    return found


def find_ids(path: str | Path, wanted: set[str]) -> set[str]:
    """Find which of some ids, as strings, text.parquet has. Memory: these, and a row group."""
    found: set[str] = set()
    names = pa.array(sorted(wanted), pa.string())
    file = _open(path)
    for table in parquet.read_rows(file, ["pid"], 0, file.metadata.num_rows):
        pids = table["pid"].cast(pa.string())
        found.update(pids.filter(pc.is_in(pids, value_set=names)).to_pylist())
    return found


def shard_bounds(n_items: int, shard: int, n_shards: int) -> tuple[int, int]:
    """First row of a shard, and the row after its last: sizes differ by at most one."""
    return n_items * shard // n_shards, n_items * (shard + 1) // n_shards


def digests(path: str | Path, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Hash the texts of rows ``start`` to ``stop``, 128 bits each: S16 (n,), in row order."""
    stop = count(path) if stop is None else stop
    found = np.empty(stop - start, dtype="S16")
    row = 0
    for table in read(path, start, stop):
        for text in table["text"].to_pylist():
            found[row] = blake2b(text.encode(), digest_size=16).digest()
            row += 1
    return found


def text_classes(path: str | Path, *, wanted: bool = True) -> np.ndarray | None:
    """Number the distinct texts; None where items have no text in this run, or it is not wanted.

    Texts are told apart by :func:`digests`. Memory: about 50 bytes per item while it runs.

    Args:
        path: text.parquet; empty where items have no text.
        wanted: whether the caller tells texts apart.

    Returns:
        int64 (N,): items with the same text have the same number; numbers follow first occurrence.
    """
    if not path or not wanted:
        return None
    _, first, inverse = np.unique(digests(path), return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    return rank[inverse]
