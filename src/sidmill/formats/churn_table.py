"""``churn.parquet``: the items that differ from the published version.

    pid         int64 or string
    what        new | returned | changed | moved (a refresh gave it another SID) | removed
    sid_before  list<int32>, null for a new item
    sid_after   list<int32>, null for a removed one

Items of the catalogue come first, in its order, then those that are gone. ``churn.json`` counts
them.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from sidmill.io import parquet


def write(
    path: str | Path,
    ids: pa.ChunkedArray,
    what: Sequence[str],
    before: list[np.ndarray | None],
    after: list[np.ndarray | None],
) -> None:
    """Write churn.parquet atomically: n ids, what happened to each, and their SIDs or None."""
    lists = pa.list_(pa.int32())
    schema = pa.schema(
        [("pid", ids.type), ("what", pa.string()), ("sid_before", lists), ("sid_after", lists)]
    )
    columns = [ids, pa.array(what, pa.string()), pa.array(before, lists), pa.array(after, lists)]
    parquet.write(path, schema, [pa.table(columns, schema=schema)])
