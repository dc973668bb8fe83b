"""``sequences.parquet``: who consumed what, oldest first; the one form that later stages read.

    user_id     string, one row per user, no user twice
    item_ids    list<int64 or string>, ids of the catalogue, at least one, oldest first
    splits      list<int8>, one per item: 0 train, 1 valid, 2 test
    timestamps  list<int64>, one per item, or null where the input had none

Histories of any length stream: no reader here holds more than one row group.

``rejects.parquet`` lists every interaction of the input that is not in it, one by one or by rows:

    file, row     where it stood, row from 1
    position      int64, place in the row's history, from 0; null for the whole row
    user_id       string, null where unreadable
    item_id       string, null for the whole row
    interactions  int64, how many this line stands for; 0 where that cannot be told
    reason        string
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sidmill.core.errors import SidmillError
from sidmill.io import parquet

TRAIN, VALID, TEST = 0, 1, 2
SPLITS = ("train", "valid", "test")
ONEREC_SPLITS = {0: TRAIN, 1: TEST}  # what OneRec's metadata has in its column split


REJECTS_SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("row", pa.int64()),
        ("position", pa.int64()),
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("interactions", pa.int64()),
        ("reason", pa.string()),
    ]
)


class Reject(NamedTuple):
    """One line of rejects.parquet."""

    file: str
    row: int
    position: int | None
    user_id: str | None
    item_id: str | None
    interactions: int
    reason: str


@contextmanager
def rejects_writer(path: str | Path) -> Iterator[Callable[[Reject], None]]:
    """Give a function that adds a line to rejects.parquet, which appears when the block ends well.

    Memory: one row group.
    """
    with parquet.row_writer(path, REJECTS_SCHEMA) as add:
        yield add


def schema(pid_type: pa.DataType) -> pa.Schema:
    """Schema of sequences.parquet for item ids of ``pid_type`` (int64 or string)."""
    return pa.schema(
        [
            ("user_id", pa.string()),
            ("item_ids", pa.list_(pid_type)),
            ("splits", pa.list_(pa.int8())),
            ("timestamps", pa.list_(pa.int64())),
        ]
    )


def write(path: str | Path, pid_type: pa.DataType, tables: Iterable[pa.Table]) -> int:
    """Write sequences.parquet from tables of :func:`schema` and return its number of users.

    Raises:
        SidmillError: if lists of one user differ in length, or a user has no item.
    """
    return parquet.write(path, schema(pid_type), (_checked(path, table) for table in tables))


def count(path: str | Path) -> int:
    """Number of users in sequences.parquet."""
    return int(_open(path).metadata.num_rows)


def folds(rows: np.ndarray, n_folds: int) -> np.ndarray:
    """The fold of each user, for training without the users of one: int64 (n,) in [0, n_folds).

    SIDMill writes users in the order of a hash of their id, so consecutive rows are users at
    random.

    Args:
        rows: int64 (n,), rows of the users in sequences.parquet.
        n_folds: number of folds.
    """
    return rows % n_folds


def pid_type(path: str | Path) -> pa.DataType:
    """Type of the item ids in sequences.parquet: int64 or string."""
    return _open(path).schema_arrow.field("item_ids").type.value_type


def read(path: str | Path, start: int = 0, stop: int | None = None) -> Iterator[pa.Table]:
    """Yield users ``start`` to ``stop`` in order as tables of :func:`schema`.

    Memory: one row group, which is 8,192 users where SIDMill wrote the file.

    Raises:
        SidmillError: if the file is not parquet, lacks a column, or holds lists that do not fit.
    """
    file = _open(path)
    last = file.metadata.num_rows if stop is None else stop
    for table in parquet.read_rows(file, schema(pa.int64()).names, start, last):
        yield parquet.plain_lists(_checked(path, table))


def _open(path: str | Path) -> pq.ParquetFile:
    columns = {
        "user_id": pa.types.is_string,
        "item_ids": parquet.is_list_of(*parquet.PID_TYPES),
        "splits": parquet.is_list_of(pa.int8()),
        "timestamps": parquet.is_list_of(pa.int64()),
    }
    return parquet.open_file(path, columns)


def _checked(path: str | Path, table: pa.Table) -> pa.Table:
    """Return the table, if each user has as many splits (and timestamps) as items."""
    items, splits = (pc.list_value_length(table[name]) for name in ("item_ids", "splits"))
    times = pc.fill_null(pc.list_value_length(table["timestamps"]), -1)
    whole = pc.and_(pc.greater(items, 0), pc.equal(items, splits))
    whole = pc.and_(whole, pc.or_(pc.equal(times, -1), pc.equal(times, items)))
    if not pc.all(pc.fill_null(whole, False), min_count=0).as_py():
        row = pc.index(pc.fill_null(whole, False), False).as_py()
        user = table["user_id"][row].as_py()
        raise SidmillError(
            f"{path}: user {user!r} has {items[row]} items, {splits[row]} splits and "
            f"{times[row]} timestamps: wanted at least one item, and one of each per item"
        )
    return table
