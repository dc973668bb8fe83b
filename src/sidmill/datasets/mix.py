"""Several datasets in one: weights, and users held out for a test.

A weight of 0.5 keeps half the rows, 2 takes each twice, 1.5 each once and half of them again.
Which rows, and their order, is a hash of the seed and the row's uuid. Held-out users are the same
in every dataset, so nobody is in both parts. Rows that an item owns are held out by item, and only
where a dataset of items has a test size.

Rows go to disk by the leading bits of their key and come back some buckets at a time, so memory
does not grow with their number.
"""

import heapq
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sidmill.core.errors import SidmillError
from sidmill.datasets import keys, ragged
from sidmill.formats import buckets, dataset_rows

OWNERS = ("uid", "pid")
BUCKET_BITS = 10
MEMORY_MB = 64  # of rows that are gathered, and of rows that are sorted


class Plan(NamedTuple):
    """What is asked: folders by dataset, and the settings."""

    folders: dict[str, str]
    weights: dict[str, float]
    test_size: dict[str, int]
    seed: int


class Held(NamedTuple):
    """Who is held out of a dataset: owners of its ``kinds`` whose number is at most ``last``."""

    last: int
    kinds: frozenset[int]


def mix(
    folders: list[str],
    train: str | Path,
    test: str | Path,
    *,
    seed: int,
    weights: dict[str, float],
    test_size: dict[str, int],
    rows_per_file: int,
) -> dict:
    """Mix datasets into a training and a test part.

    Memory: some 4 times ``MEMORY_MB``, and 8 bytes per row of ``test_size``. Disk: the rows once
    more, compressed, while it runs.

    Args:
        folders: one per dataset of ``weights``, in the order of their names.
        train: folder to write.
        test: folder to write; empty without ``test_size``.
        seed: covers samples, order and the users held out.
        weights: per dataset.
        test_size: rows held out, per dataset, at least; of whole users.
        rows_per_file: rows of a file.

    Returns:
        Per part and dataset, the number of rows; and training rows of users held out.

    Raises:
        SidmillError: if a dataset with a test size is not in ``weights``, or has fewer rows.
    """
    names = sorted(weights)
    stray = sorted(set(test_size) - set(names))
    if stray:
        raise SidmillError(f"test_size names {', '.join(stray)}, which weights does not")
    plan = Plan(dict(zip(names, folders, strict=True)), weights, test_size, seed)
    held = [_held_out(plan, name) for name in names if test_size.get(name, 0)]
    lost, counts = dict.fromkeys(names, 0), {}
    with buckets.folder(Path(f"{train}.work")) as work:
        for part, folder in (("train", train), ("test", test)):
            counts[part] = dict.fromkeys(names, 0)
            rows = _rows(plan, held, part, counts[part], lost)
            shutil.rmtree(folder, ignore_errors=True)
            Path(folder).mkdir(parents=True)
            _shuffled(Path(folder), rows, work / f"{part}.arrow", rows_per_file)
    dropped = {name: count for name, count in lost.items() if count}
    return {"dropped_of_held_out_users": dropped, **counts}


def _held_out(plan: Plan, name: str) -> Held:
    """The owners of a dataset with the lowest numbers, as many as its size asks for."""
    size = plan.test_size[name]
    lowest: list[int] = []  # negated, the largest first
    kinds, rows = set(), 0
    for path in dataset_rows.parts(plan.folders[name]):
        table = pq.read_table(path, columns=["metadata"], partitioning=None)
        for number, kind in _owners(table, plan.seed):
            rows += 1
            kinds.add(kind)
            if len(lowest) < size:
                heapq.heappush(lowest, -number)
            else:
                heapq.heappushpop(lowest, -number)
    if size >= rows:
        raise SidmillError(f"test_size of {name} is {size}, but it has {rows} rows: lower it")
    return Held(-lowest[0], frozenset(kinds))


def _rows(plan: Plan, held: list[Held], part: str, counts: dict, lost: dict) -> Iterator[pa.Table]:
    """Yield the rows of a part, file by file, each as often as its weight says, with a ``key``.

    Counts them by dataset, and those that a test part leaves out of datasets without a test size.
    """
    if part == "test" and not held:
        return
    form = None
    for name, folder in plan.folders.items():
        for path in dataset_rows.parts(folder):
            table = pq.read_table(path, partitioning=None)
            form = form or table.schema
            if table.schema != form:
                raise SidmillError(
                    "segments and messages cannot be mixed: weigh one kind at a time"
                )
            out = np.array([_is_held(held, *owner) for owner in _owners(table, plan.seed)], bool)
            picked = np.flatnonzero(out if part == "test" else ~out)
            if part == "test" and not plan.test_size.get(name, 0):
                lost[name] += len(picked)
                continue
            share = 1.0 if part == "test" else plan.weights[name]
            rows, key = _copies(table, picked, share, part, plan.seed)
            counts[name] += len(rows)
            yield table.take(pa.array(rows)).append_column("key", pa.array(key))


def _copies(
    table: pa.Table, picked: np.ndarray, share: float, part: str, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows, each as often as a share says, and where each goes: int64 (n,), uint64 (n,)."""
    ids = [_number(text) for text in table["uuid"].take(pa.array(picked)).to_pylist()]
    key = np.array(ids, np.uint64)
    copies = (share + keys.share(keys.derive(key, seed, "copies"))).astype(np.int64)
    again = ragged.places(np.zeros(len(copies), np.int64), copies).astype(np.uint64)
    return np.repeat(picked, copies), keys.mix(
        np.repeat(keys.derive(key, seed, part), copies) + again
    )


def _is_held(held: list[Held], number: int, kind: int) -> bool:
    return any(number <= each.last and kind in each.kinds for each in held)


def _shuffled(folder: Path, rows: Iterator[pa.Table], path: Path, rows_per_file: int) -> None:
    """Write rows in the order of their keys; ``path`` is where they wait."""
    shift, n_buckets = np.uint64(64 - BUCKET_BITS), 1 << BUCKET_BITS
    written: list[buckets.Batch] = []
    packed = pa.ipc.IpcWriteOptions(compression="lz4")
    out = None
    with pa.OSFile(str(path), "wb") as sink:
        for table in buckets.gathered(rows, MEMORY_MB):
            numbers = (table["key"].to_numpy() >> shift).astype(np.uint16)
            order = np.argsort(numbers, kind="stable")
            out = out or pa.ipc.new_file(sink, table.schema, options=packed)
            written += buckets.append(out, table.take(pa.array(order)), numbers[order])
        if out is None:
            return
        out.close()
    place = [[] for _ in range(n_buckets)]
    sizes = np.zeros(n_buckets, np.int64)
    for number, batch in enumerate(written):
        place[batch.bucket].append(number)
        sizes[batch.bucket] += batch.size
    count = -(-sum(batch.rows for batch in written) // rows_per_file)
    with pa.OSFile(str(path)) as source:
        file = pa.ipc.open_file(source)
        tables = (
            _sorted(file, [number for bucket in place[low:high] for number in bucket])
            for low, high in buckets.groups(sizes, MEMORY_MB)
        )
        for number, table in enumerate(dataset_rows.cut(tables, rows_per_file)):
            dataset_rows.write(folder / dataset_rows.part_name(number, count), table)


def _sorted(file: pa.RecordBatchFileReader, batches: list[int]) -> pa.Table:
    table = pa.Table.from_batches([file.get_batch(number) for number in batches])
    order = np.argsort(table["key"].to_numpy(), kind="stable")
    return table.drop_columns("key").take(pa.array(order))


def _owners(table: pa.Table, seed: int) -> list[tuple[int, int]]:
    return [_owner(text, seed) for text in table["metadata"].to_pylist()]


def _owner(metadata: str, seed: int) -> tuple[int, int]:
    """A number for the owner of a row, and what it is: a place in ``OWNERS``."""
    facts = json.loads(metadata)
    kind = next((kind for kind, key in enumerate(OWNERS) if key in facts), len(OWNERS))
    name = f"{OWNERS[kind]} {facts[OWNERS[kind]]}" if kind < len(OWNERS) else metadata
    return int(keys.stream(seed, f"owner {name}")), kind


def _number(uuid: str) -> int:
    return int(uuid.replace("-", "")[:16], 16)
