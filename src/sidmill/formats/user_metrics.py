"""``users.parquet``: sums of metrics over the queries of each user, for paired comparisons.

user          int64, row in sequences.parquet; ascending, no user twice
queries       int64, targets of the user; at least one
HR@10         float64, sum over these
NDCG@10       float64, the same
cold_queries  int64, targets that no user has in train
cold_HR@10    float64, sum over these
"""

from pathlib import Path

import numpy as np
import pyarrow as pa

from sidmill.io import parquet

SCHEMA = pa.schema(
    [
        ("user", pa.int64()),
        ("queries", pa.int64()),
        ("HR@10", pa.float64()),
        ("NDCG@10", pa.float64()),
        ("cold_queries", pa.int64()),
        ("cold_HR@10", pa.float64()),
    ]
)
# By name of the column, arrays (U,) of one type each.
Columns = dict[str, np.ndarray]


def write(path: str | Path, columns: Columns) -> int:
    """Write users.parquet and return its number of users."""
    arrays = [pa.array(columns[name], SCHEMA.field(name).type) for name in SCHEMA.names]
    return parquet.write(path, SCHEMA, [pa.table(arrays, schema=SCHEMA)])


def empty() -> Columns:
    """The columns of no user."""
    return {name: np.empty(0, SCHEMA.field(name).type.to_pandas_dtype()) for name in SCHEMA.names}


def read(path: str | Path) -> Columns:
    """Read users.parquet. Memory: 48 bytes per user.

    Raises:
        SidmillError: if the file is missing, damaged, or lacks a column.
    """
    wanted = {field.name: field.type.equals for field in SCHEMA}
    table = parquet.open_file(path, wanted).read(columns=SCHEMA.names)
    return {name: table[name].to_numpy() for name in SCHEMA.names}
