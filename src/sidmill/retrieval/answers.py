"""Answers of a search over the catalogue, with their SIDs."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sidmill.core.errors import SidmillError
from sidmill.formats.code_files import Codes
from sidmill.formats.run_files import Run
from sidmill.io import parquet

BLOCK = 1 << 20  # ids of the catalogue that are compared at a time
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

    Memory besides the arguments: the answers, and a block of ids of the catalogue.

    Args:
        run: answers that are items.
        sids: the SIDs of all items.
        path: file to write.

    Returns:
        Number of rows: Q k.

    Raises:
        SidmillError: if an answer is not an item of the catalogue.
    """
    rows = _rows(run, sids.ids)
    k = run.scores.shape[1]

    def tables() -> Iterator[pa.Table]:
        for row, (qid, pids) in enumerate(zip(run.qids, run.pids, strict=True)):
            found = sids.codes[rows[row]]
            columns = [[qid] * k, pids, np.arange(1, k + 1), run.scores[row], found.tolist()]
            yield pa.table(columns, schema=SCHEMA)

    return parquet.write(path, SCHEMA, tables())


def _rows(run: Run, ids: pa.ChunkedArray) -> np.ndarray:
    """Row of each answer in the catalogue, int64 (Q, k)."""
    named = pa.array((pid for line in run.pids for pid in line), pa.string()).dictionary_encode()
    row_of = np.full(len(named.dictionary), -1)  # by distinct answer
    for start in range(0, len(ids), BLOCK):
        block = ids.slice(start, BLOCK).cast(pa.string())
        answer = pc.index_in(block, value_set=named.dictionary)
        is_answer = answer.is_valid().to_numpy()
        row_of[answer.drop_null().to_numpy()] = start + np.flatnonzero(is_answer)

    rows: np.ndarray = row_of[named.indices.to_numpy()]  # (Q k,)
    if (rows < 0).any():
        missing = named[int(np.argmax(rows < 0))].as_py()
        raise SidmillError(
            f"passage {missing!r} is no item, so it has no SID: set retrieval.corpus: items"
        )
    return rows.reshape(run.scores.shape)
