"""``topk.parquet``: recommended items of each user, best first.

user_id   string
item_ids  list<int64 or string>, at most k
scores    list<float32>, descending
sids      list<list<int32>>, the SID of each item
"""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from sidmill.io import parquet


def schema(pid_type: pa.DataType) -> pa.Schema:
    """Schema of topk.parquet for item ids of ``pid_type``."""
    return pa.schema(
        [
            ("user_id", pa.string()),
            ("item_ids", pa.list_(pid_type)),
            ("scores", pa.list_(pa.float32())),
            ("sids", pa.list_(pa.list_(pa.int32()))),
        ]
    )


def write(path: str | Path, pid_type: pa.DataType, tables: Iterable[pa.Table]) -> int:
    """Write tables of :func:`schema` and return the number of users."""
    return parquet.write(path, schema(pid_type), tables)
