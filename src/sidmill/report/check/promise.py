"""What a promise between files is, and the columns that several promises read."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from sidmill.formats import code_files
from sidmill.io import parquet
from sidmill.report.inspect.tables import parts_of

TEXT, IDS = "items/text.parquet", "items/ids.parquet"
PID2SID, CODES, QUANTIZER = "pid2sid.parquet", "codes.parquet", "quantizer.safetensors"
# Files by their name in the folder.
Paths = dict[str, Path]


class Promise(NamedTuple):
    """A promise between files.

    Attributes:
        says: the promise in words.
        path: the file that breaks it, if it is broken; relative.
        fault: says what is wrong, or returns None.
    """

    says: str
    path: str
    fault: Callable[[], str | None]


def clear() -> None:
    """Forget what was read: a file of the same name may have changed."""
    codes_of.cache_clear()
    pids.cache_clear()


@cache
def codes_of(path: Path, column: str) -> code_files.Codes:
    """Codes or SIDs of a table."""
    return code_files.read(path, column)


@cache
def pids(path: Path) -> pa.ChunkedArray:
    """The ids of a table, of all its parts."""
    columns = []
    for part in parts_of(path) if path.is_dir() else [path]:
        with parquet.naming(part):
            columns += parquet.Parquet(part).read(columns=["pid"])["pid"].chunks
    return parquet.pids(pa.chunked_array(columns)) if columns else pa.chunked_array([[]])
