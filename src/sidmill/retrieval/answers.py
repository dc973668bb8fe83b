"""Answers of a search over the catalogue, with their SIDs."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.formats import parquet
from sidmill.formats.codes import Codes
from sidmill.formats.runs import Run

SCHEMA = pa.schema(
    [
        ("qid", pa.string()),
        ("pid", pa.string()),
        ("rank", pa.int64()),
        ("score", pa.float32()),
        ("sid", pa.list_(pa.int32())),
    ]
)


def attach(run: Run, sids: Codes, path: str | Path) -> int:
    """Write a run with the SID of each answer to answers.parquet.

    Args:
        run: answers that are items.
        sids: the SIDs of all items.
        path: file to write.

    Returns:
        Number of rows: Q k.

    Raises:
        SidmillError: if an answer is no item of the catalogue.
    """
    rows = {str(pid): row for row, pid in enumerate(sids.ids.to_pylist())}
    missing = next((pid for line in run.pids for pid in line if pid not in rows), None)
    if missing is not None:
        raise SidmillError(
            f"passage {missing!r} is no item, so it has no SID: set retrieval.corpus: items"
        )
    k = run.scores.shape[1]

    def tables() -> Iterator[pa.Table]:
        for row, (qid, pids) in enumerate(zip(run.qids, run.pids, strict=True)):
            found = sids.codes[[rows[pid] for pid in pids]]
            columns = [[qid] * k, pids, np.arange(1, k + 1), run.scores[row], found.tolist()]
            yield pa.table(columns, schema=SCHEMA)

    return parquet.write(path, SCHEMA, tables())
