"""Several datasets in one: weights, and users held out for a test.

A weight of 0.5 keeps half the rows, 2 takes each twice, 1.5 each once and half of them again.
Which rows, and their order, is a hash of the seed and the row's uuid. Held-out users are the same
in every dataset, so nobody is in both parts. Rows that an item owns are held out by item, and only
where a dataset of items has a test size.

Two mixtures are made of the same datasets: one to train a model on, one for reinforcement learning
of that model afterwards. What either holds out for its test is left out of the training part of
both, else the second would be tested on rows that the first has learned.

Rows go to disk by the leading bits of their key and come back some buckets at a time, so memory
does not grow with their number.
"""

import heapq
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sidmill.core.errors import SidmillError
from sidmill.datasets import ragged, row_hash
from sidmill.formats import dataset_rows
from sidmill.io import buckets

logger = logging.getLogger(__name__)

OWNERS = ("uid", "pid")
BUCKET_BITS = 10
MEMORY_MB = 64  # of rows that are gathered, and of rows that are sorted


class Plan(NamedTuple):
    """What is asked: folders by dataset, and the settings; what the other mixture holds out."""

    folders: dict[str, str]
    weights: dict[str, float]
    test_size: dict[str, int]
    seed: int
    own: list["Held"]
    others: list["Held"]


class Held(NamedTuple):
    """Who is held out of a dataset: owners of its ``kinds`` whose number is at most ``last``."""

    last: int
    kinds: frozenset[int]


def mix(
    folders: list[str],
    train: str | Path,
    test: str | Path,
    others: dict[str, int] | None = None,
    questions: bool = False,
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
        others: folders of datasets that another mixture holds rows out of, with their number, as
            its ``test_size`` says: those users are left out of the training part here.
        questions: whether rows of chat turns get the columns that trainers of reinforcement
            learning read: see :func:`sidmill.formats.dataset_rows.with_questions`.
        seed: covers samples, order and the users held out.
        weights: per dataset.
        test_size: rows held out, per dataset, at least; of whole users.
        rows_per_file: rows of a file.

    Returns:
        Per part and dataset, the number of rows; rows of users held out that stand in neither
        part, and those that the other mixture holds out; and the sizes of either.

    Raises:
        SidmillError: if a dataset with a test size is not in ``weights``, or has fewer rows.
    """
    names = sorted(weights)
    stray = sorted(set(test_size) - set(names))
    if stray:
        raise SidmillError(f"test_size names {', '.join(stray)}, which weights does not")
    by_name = dict(zip(names, folders, strict=True))
    own = [
        _held_out(by_name[name], test_size[name], seed) for name in names if test_size.get(name, 0)
    ]
    foreign, too_small = [], []
    for folder, size in (others or {}).items():
        if size and (found := _held_out(folder, size, seed, at_least=False)):
            foreign.append(found)
        elif size:  # the other mixture cannot be made with these sizes
            too_small.append(Path(folder).name)
    plan = Plan(by_name, weights, test_size, seed, own, foreign)
    lost, kept_away = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    counts = {}
    with buckets.folder(Path(f"{train}.work")) as work:
        for part, folder in (("train", train), ("test", test)):
            counts[part] = dict.fromkeys(names, 0)
            rows = _rows(plan, part, counts[part], lost, kept_away)
            shutil.rmtree(folder, ignore_errors=True)
            Path(folder).mkdir(parents=True)
            _shuffled(Path(folder), rows, work / f"{part}.arrow", rows_per_file, questions)
    dropped, away = (
        {name: count for name, count in each.items() if count} for each in (lost, kept_away)
    )
    figures = {"dropped_of_held_out_users": dropped, "dropped_for_the_other_test": away}
    if too_small:
        logger.warning("the other mixture holds more rows out of %s than it has", too_small)
    return {**figures, "other_test_larger_than_dataset": too_small, **counts}


def _held_out(folder: str, size: int, seed: int, *, at_least: bool = True) -> Held | None:
    """The owners of a dataset with the lowest numbers, as many as ``size`` rows ask for.

    Returns:
        None, if the dataset has no more rows than that and ``at_least`` is false.
    """
    lowest: list[int] = []  # negated, the largest first
    kinds, rows = set(), 0
    for path in dataset_rows.parts(folder):
        table = pq.read_table(path, columns=["uuid", "metadata"], partitioning=None)
        for number, kind in _owners(table, seed):
            rows += 1
            kinds.add(kind)
            if len(lowest) < size:
                heapq.heappush(lowest, -number)
            else:
                heapq.heappushpop(lowest, -number)
    if size < rows:
        return Held(-lowest[0], frozenset(kinds))
    if at_least:
        name = Path(folder).name
        raise SidmillError(f"test_size of {name} is {size}, but it has {rows} rows: lower it")
    return None


def _rows(plan: Plan, part: str, counts: dict, lost: dict, kept_away: dict) -> Iterator[pa.Table]:
    """Yield the rows of a part, file by file, each as often as its weight says, with a ``key``.

    Counts them by dataset, and those that a test part leaves out of datasets without a test size,
    and those that a training part leaves out for the test of the other mixture.
    """
    if part == "test" and not plan.own:
        return
    form = _common_form(plan.folders)
    for name, folder in plan.folders.items():
        for path in dataset_rows.parts(folder):
            table = pq.read_table(path, partitioning=None).cast(form)
            owners = _owners(table, plan.seed)
            own = np.array([_is_held(plan.own, *owner) for owner in owners], bool)
            other = np.array([_is_held(plan.others, *owner) for owner in owners], bool)
            picked = np.flatnonzero(own if part == "test" else ~own & ~other)
            if part == "train":
                kept_away[name] += int((other & ~own).sum())
            elif not plan.test_size.get(name, 0):
                lost[name] += len(picked)
                continue
            share = 1.0 if part == "test" else plan.weights[name]
            rows, key = _copies(table, picked, share, part, plan.seed)
            counts[name] += len(rows)
            yield table.take(pa.array(rows)).append_column("key", pa.array(key))


def _common_form(folders: dict[str, str]) -> pa.Schema:
    """One schema for all datasets; ids of two catalogues, numbers here and texts there, are texts.

    Raises:
        SidmillError: if some datasets are plain texts and some have chat turns, or their texts are
            JSON in one and lists in another.
    """
    form, first = None, None
    for name, folder in folders.items():
        for path in dataset_rows.parts(folder):
            schema = pq.read_schema(path).remove_metadata()
            form, first = form or schema, first or name
            if schema.names != form.names:
                raise SidmillError(
                    f"{first} and {name} cannot be mixed: one has the columns "
                    f"{', '.join(form.names)}, the other {', '.join(schema.names)}: weigh tasks of "
                    f"segments and of messages apart"
                )
            for place, (field, known) in enumerate(zip(schema, form, strict=True)):
                if field.type != known.type and field.name == dataset_rows.PIDS:
                    texts = pa.large_list(pa.large_string())
                    form = form.set(place, pa.field(field.name, texts))
                elif field.type != known.type:
                    raise SidmillError(
                        f"{first} and {name} cannot be mixed: the column {field.name} is "
                        f"{known.type} in one, {field.type} in the other: make both anew with one "
                        f"datasets.form"
                    )
    return form


def _copies(
    table: pa.Table, picked: np.ndarray, share: float, part: str, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows, each as often as a share says, and where each goes: int64 (n,), uint64 (n,)."""
    ids = [_number(text) for text in table["uuid"].take(pa.array(picked)).to_pylist()]
    key = np.array(ids, np.uint64)
    copies = (share + row_hash.share(row_hash.derive(key, seed, "copies"))).astype(np.int64)
    again = ragged.places(np.zeros(len(copies), np.int64), copies).astype(np.uint64)
    return np.repeat(picked, copies), row_hash.mix(
        np.repeat(row_hash.derive(key, seed, part), copies) + again
    )


def _is_held(held: list[Held], number: int, kind: int) -> bool:
    return any(number <= each.last and kind in each.kinds for each in held)


def _shuffled(
    folder: Path, rows: Iterator[pa.Table], path: Path, rows_per_file: int, questions: bool
) -> None:
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
            if questions:
                table = dataset_rows.with_questions(table, number * rows_per_file, folder.name)
            elif dataset_rows.ANSWERS in table.column_names:
                table = table.drop_columns([dataset_rows.ANSWERS, dataset_rows.PIDS])
            dataset_rows.write(folder / dataset_rows.part_name(number, count), table)


def _sorted(file: pa.RecordBatchFileReader, batches: list[int]) -> pa.Table:
    table = pa.Table.from_batches([file.get_batch(number) for number in batches])
    order = np.argsort(table["key"].to_numpy(), kind="stable")
    return table.drop_columns("key").take(pa.array(order))


def _owners(table: pa.Table, seed: int) -> list[tuple[int, int]]:
    pairs = zip(table["metadata"].to_pylist(), table["uuid"].to_pylist(), strict=True)
    return [_owner(metadata, uuid, seed) for metadata, uuid in pairs]


def _owner(metadata: str, uuid: str, seed: int) -> tuple[int, int]:
    """A number for the owner of a row, and what it is: a place in ``OWNERS``.

    A row that names neither a user nor an item is its own.
    """
    facts = json.loads(metadata)
    kind = next((kind for kind, key in enumerate(OWNERS) if key in facts), len(OWNERS))
    name = f"{OWNERS[kind]} {facts[OWNERS[kind]]}" if kind < len(OWNERS) else uuid
    return int(row_hash.stream(seed, f"owner {name}")), kind


def _number(uuid: str) -> int:
    return int(uuid.replace("-", "")[:16], 16)
