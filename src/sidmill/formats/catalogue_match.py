"""``match.parquet``: each item of the catalogue, held against a published version.

pid      int64 or string, in the order of the catalogue
row      int64, its row of ledger.parquet; -1 for an item that was never there
changed  bool, whether its text is another one there
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from sidmill.formats import ledger_file
from sidmill.io import parquet

COLUMNS = {"pid": parquet.is_pid, "row": pa.types.is_int64, "changed": pa.types.is_boolean}
NEW = -1


class Match(NamedTuple):
    """``rows`` int64 and ``changed`` bool of some items, in the order of the catalogue."""

    rows: np.ndarray
    changed: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """Bool: which items were there before."""
        return np.asarray(self.rows != NEW)


def write(path: str | Path, pid_type: pa.DataType, blocks: Iterable[tuple[pa.Array, Match]]) -> int:
    """Write match.parquet atomically from ids with their matches; return the number of rows."""
    schema = pa.schema([("pid", pid_type), ("row", pa.int64()), ("changed", pa.bool_())])
    return parquet.write(
        path,
        schema,
        (
            pa.table([pids, pa.array(match.rows), pa.array(match.changed)], schema=schema)
            for pids, match in blocks
        ),
    )


def read(path: str | Path, start: int = 0, stop: int | None = None) -> Match:
    """Read the matches of rows ``start`` to ``stop``. Memory: 9 bytes per row.

    Raises:
        SidmillError: if the file is not parquet, or lacks a column.
    """
    file = parquet.open_file(path, COLUMNS)
    last = file.metadata.num_rows if stop is None else stop
    tables = list(parquet.read_rows(file, ["row", "changed"], start, last))
    rows = [table["row"].to_numpy() for table in tables]
    changed = [table["changed"].to_numpy() for table in tables]
    return Match(
        np.concatenate([np.empty(0, dtype=np.int64), *rows]),
        np.concatenate([np.empty(0, dtype=bool), *changed]),
    )


def published_codes(
    match_path: str | Path | None, ledger_path: str | Path | None
) -> np.ndarray | None:
    """Read the published codes of all items: int32 (N, L), -1 for items that are new or changed.

    None where no path is given. Memory: the ledger, and 4 L + 9 bytes per item.
    """
    if not match_path or not ledger_path:
        return None
    match, ledger = read(match_path), ledger_file.read(ledger_path)
    codes = np.full((len(match.rows), ledger.codes.shape[1]), NEW, dtype=np.int32)
    same = match.known & ~match.changed
    codes[same] = ledger.codes[match.rows[same]]
    return codes
