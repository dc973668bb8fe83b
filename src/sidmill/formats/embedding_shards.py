"""``embeddings.parquet/``: a folder of shards that pandas and pyarrow read as one table.

    pid        int64 or string
    embedding  list<float32>, every list D long

The schema metadata key ``sidmill.fingerprint`` names the embedding space, as JSON.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sidmill.io import parquet, user_arrays

FINGERPRINT_KEY = "sidmill.fingerprint"
LISTS = parquet.is_list_of(pa.float32(), pa.float16(), pa.float64())


def schema(pid_type: pa.DataType, fingerprint: dict[str, Any]) -> pa.Schema:
    """Schema of one shard. Keys of ``fingerprint`` are sorted: equal ones are equal bytes."""
    return pa.schema(
        [("pid", pid_type), ("embedding", pa.list_(pa.float32()))],
        metadata={FINGERPRINT_KEY: json.dumps(fingerprint, sort_keys=True, ensure_ascii=False)},
    )


def write(
    path: str | Path,
    pid_type: pa.DataType,
    fingerprint: dict[str, Any],
    blocks: Iterable[tuple[pa.ChunkedArray, np.ndarray]],
) -> int:
    """Write one shard of embeddings atomically.

    Args:
        path: the shard's file.
        pid_type: int64 or string.
        fingerprint: names the embedding space.
        blocks: ids with their vectors, float32 (n, D). Values are written as they are: the
            vector store holds the gate.

    Returns:
        Number of rows.
    """
    form = schema(pid_type, fingerprint)

    def tables() -> Iterator[pa.Table]:
        for pids, vectors in blocks:
            values = np.ascontiguousarray(vectors, dtype=np.float32).ravel()
            offsets = np.arange(len(vectors) + 1, dtype=np.int32) * vectors.shape[1]
            lists = pa.ListArray.from_arrays(offsets, values)  # without a copy
            yield pa.table({"pid": pids, "embedding": lists})

    described = (table.replace_schema_metadata(form.metadata) for table in tables())
    return parquet.write(path, form, described, vectors="embedding")


def fingerprint(path: str | Path) -> dict[str, Any]:
    """The fingerprint stored in a shard, or ``{}`` in a file that SIDMill did not write."""
    return parquet.metadata_json(_open(path), FINGERPRINT_KEY)


def group_sizes(path: str | Path) -> list[int]:
    """Number of rows of each row group of a shard."""
    metadata = parquet.open_file(path, {"embedding": LISTS}).metadata
    return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]


def read(path: str | Path) -> Iterator[tuple[pa.ChunkedArray, np.ndarray]]:
    """Yield ids and embeddings of a shard, float32 (n, D), one row group at a time.

    Raises:
        SidmillError: if the file is not parquet, a column is missing, a row has no vector, or
            vectors differ in length.
    """
    file = _open(path)
    row = 0
    for table in parquet.read_rows(file, ["pid", "embedding"], 0, file.metadata.num_rows):
        yield parquet.pids(table["pid"]), vectors_of(table["embedding"], path, row)
        row += table.num_rows


def read_group(path: str | Path, group: int) -> np.ndarray:
    """Return the vectors of one row group, float32 (n, D), as of :func:`group_sizes`."""
    file = parquet.open_file(path, {"embedding": LISTS})
    column = file.read_row_group(group, columns=["embedding"])["embedding"]
    return vectors_of(column, path, sum(group_sizes(path)[:group]))


def vectors_of(lists: pa.ChunkedArray, path: str | Path, row: int) -> np.ndarray:
    """Turn a list column whose first value is ``row`` of a shard into float32 (n, D)."""
    return user_arrays.vectors_of(lists, path, row, remedy="embed this shard again")


def _open(path: str | Path) -> pq.ParquetFile:
    return parquet.open_file(path, {"pid": parquet.is_pid, "embedding": LISTS})
