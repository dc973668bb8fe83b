"""``topk.parquet``: recommended items of each user, best first.

user_id   string
item_ids  list<int64 or string>, at most k
scores    list<float32>, descending
sids      list<list<int32>>, the SID of each item
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
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


def make(
    users: pa.Array, ids: pa.Array, codes: np.ndarray, numbers: np.ndarray, scores: np.ndarray
) -> pa.Table:
    """Make a table of :func:`schema` from the lists of b users.

    Args:
        users: string (b,).
        ids: int64 or string (N,), of all items.
        codes: int32 (N, L), their SIDs.
        numbers: integers (b, k), rows of ``ids``, best first; -1 is no item.
        scores: float32 (b, k).
    """
    is_item = numbers >= 0
    bounds = pa.array(np.concatenate([[0], is_item.sum(axis=1).cumsum()]), pa.int32())
    chosen = numbers[is_item]
    sids = pa.FixedSizeListArray.from_arrays(codes[chosen].ravel(), codes.shape[1])
    columns = [
        users,
        pa.ListArray.from_arrays(bounds, ids.take(pa.array(chosen))),
        pa.ListArray.from_arrays(bounds, pa.array(scores[is_item])),
        pa.ListArray.from_arrays(bounds, sids.cast(pa.list_(pa.int32()))),
    ]
    return pa.table(columns, schema=schema(ids.type))


def write(path: str | Path, pid_type: pa.DataType, tables: Iterable[pa.Table]) -> int:
    """Write tables of :func:`schema` and return the number of users."""
    return parquet.write(path, schema(pid_type), tables)
