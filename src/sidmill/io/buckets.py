"""Rows that go through disk: gathered up to a budget, then written bucket by bucket.

Grouping by user and shuffling both cut rows into buckets which are read back one at a time. Small
blocks would leave batches of a few rows; gathered first, a batch is the budget divided by the
number of buckets, whatever the number of rows.
"""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

BYTES_PER_MB = 1 << 20


class Batch(NamedTuple):
    """What was written for one bucket: its number, and rows and bytes of the batch."""

    bucket: int
    rows: int
    size: int


@contextmanager
def folder(path: Path) -> Iterator[Path]:
    """Make an empty folder for buckets, removed afterwards; remove first what a killed run left."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def gathered(tables: Iterable[pa.Table], memory_mb: int) -> Iterator[pa.Table]:
    """Concatenate tables until they hold ``memory_mb`` MiB; the last one may hold less.

    Memory: ``memory_mb`` MiB, and one table.
    """
    waiting: list[pa.Table] = []
    n_bytes = 0
    for table in tables:
        waiting.append(table)
        n_bytes += table.nbytes
        if n_bytes >= memory_mb * BYTES_PER_MB:
            yield pa.concat_tables(waiting)
            waiting, n_bytes = [], 0
    if waiting:
        yield pa.concat_tables(waiting)


def append(out: pa.RecordBatchFileWriter, table: pa.Table, buckets: np.ndarray) -> list[Batch]:
    """Write rows that are sorted by bucket, a batch for each bucket.

    Args:
        out: of an Arrow file.
        table: the rows (n,).
        buckets: integers (n,), ascending.

    Returns:
        The batches, in the order in which they were written.
    """
    edges = np.flatnonzero(np.diff(buckets)) + 1
    written = []
    for start, stop in pairwise([0, *edges.tolist(), len(buckets)]):
        if start < stop:
            part = table.slice(start, stop - start).combine_chunks()
            out.write_table(part)
            written.append(Batch(int(buckets[start]), stop - start, part.nbytes))
    return written


def groups(sizes: np.ndarray, memory_mb: int) -> Iterator[tuple[int, int]]:
    """Yield starts and stops of runs of buckets to read at the same time.

    Args:
        sizes: bytes of each bucket (B,).
        memory_mb: MiB that a run may hold; a larger bucket is a run of its own.
    """
    start, n_bytes = 0, 0
    for bucket, size in enumerate(sizes.tolist()):
        if n_bytes and n_bytes + size > memory_mb * BYTES_PER_MB:
            yield start, bucket
            start, n_bytes = bucket, 0
        n_bytes += size
    if n_bytes:
        yield start, len(sizes)
