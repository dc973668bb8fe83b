"""Grouping by user in bounded memory: rows go to disk by the hash of their user, and come back so.

Tables are gathered up to a budget, cut into ``CLASSES`` by the leading bits of the hash, and
written as one run, an Arrow file with a batch per class. A user's rows are in the same class of
every run, so classes are read back one after the other, as many at a time as fit the budget.
"""

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from sidmill.io import buckets

CLASSES = 1024
CLASS_SHIFT = np.uint64(54)  # of 64 bits leaves 10: 1024 classes


class Runs(NamedTuple):
    """What was written.

    Attributes:
        schema: of the tables, with ``hash`` uint64 as the last column.
        paths: one Arrow file per run.
        batches: int32 (runs, CLASSES), number of a class's batch in its file, -1 for none.
        sizes: int64 (runs, CLASSES), bytes of that batch.
    """

    schema: pa.Schema
    paths: list[Path]
    batches: np.ndarray
    sizes: np.ndarray


def write(tables: Iterable[pa.Table], schema: pa.Schema, folder: Path, memory_mb: int) -> Runs:
    """Write rows to disk as runs of Arrow, sorted by the class of the user's hash.

    Args:
        tables: of ``schema``, with a string column ``user``.
        schema: of the tables.
        folder: to write to.
        memory_mb: MiB of rows that are gathered; sorting takes about twice as much again.
    """
    form = schema.append(pa.field("hash", pa.uint64()))
    paths: list[Path] = []
    batches, sizes = [], []
    for rows in buckets.gathered(tables, memory_mb):
        paths.append(folder / f"run-{len(paths):06d}.arrow")
        where, size = _write_run(paths[-1], rows, form)
        batches.append(where)
        sizes.append(size)
    shape = (len(paths), CLASSES)
    return Runs(
        form,
        paths,
        np.array(batches, dtype=np.int32).reshape(shape),
        np.array(sizes, dtype=np.int64).reshape(shape),
    )


def read(runs: Runs, memory_mb: int, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Yield all rows from disk, each user's in one table, classes in rising order of the hash.

    Within a table rows stand in the order in which they were written. Memory: ``memory_mb``, or
    one class where that is larger.

    Args:
        runs: what :func:`write` gave.
        memory_mb: MiB of rows that a table may hold.
        columns: names of the columns to read; None for all.
    """
    names = columns or runs.schema.names
    form = pa.schema([runs.schema.field(name) for name in names])
    for start, stop in buckets.groups(runs.sizes.sum(axis=0), memory_mb):
        yield _read_classes(runs, start, stop, form)


def order_of(user: str) -> tuple[int, str]:
    """The key by which users come in order, whatever the files and the memory: hash, then id."""
    return _hash(user), user


def _read_classes(runs: Runs, start: int, stop: int, form: pa.Schema) -> pa.Table:
    batches_read = []
    for path, batches in zip(runs.paths, runs.batches[:, start:stop], strict=True):
        present = batches[batches >= 0]
        if present.size:
            with pa.OSFile(str(path)) as source, pa.ipc.open_file(source) as file:
                batches_read += [file.get_batch(int(batch)).select(form.names) for batch in present]
    return pa.Table.from_batches(batches_read, schema=form)


def _write_run(path: Path, table: pa.Table, form: pa.Schema) -> tuple[np.ndarray, np.ndarray]:
    users = table["user"].combine_chunks().dictionary_encode()
    hashes = np.fromiter(
        map(_hash, users.dictionary.to_pylist()), np.uint64, len(users.dictionary)
    )[users.indices.to_numpy()]
    classes = (hashes >> CLASS_SHIFT).astype(np.int64)
    order = np.argsort(classes, kind="stable")
    table = table.append_column("hash", pa.array(hashes)).take(pa.array(order))
    where = np.full(CLASSES, -1, dtype=np.int32)
    size = np.zeros(CLASSES, dtype=np.int64)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, form) as out:
        for number, batch in enumerate(buckets.append(out, table, classes[order])):
            where[batch.bucket], size[batch.bucket] = number, batch.size
    return where, size


def _hash(user: str) -> int:
    return int.from_bytes(blake2b(user.encode(), digest_size=8).digest(), "little")
