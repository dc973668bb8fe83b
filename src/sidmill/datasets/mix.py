"""Several datasets in one: weights, and users held out for a test.

A weight of 0.5 keeps half the rows, 2 takes each twice, 1.5 each once and half of them again.
Which rows, and their order, is a hash of the seed and the row's uuid. Held-out users are the same
in every dataset, so nobody is in both parts. Rows that an item owns are held out by item, and only
where a dataset of items has a test size.

Two mixtures are made of the same datasets: one to train a model on, one for reinforcement learning
of that model afterwards. What either holds out for its test is left out of the training part of
both, else the second would be tested on rows that the first has learned.

Rows are written to disk by the leading bits of their key and read back some buckets at a time, so
memory does not grow with their number.
"""

import heapq
import json
import logging
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sidmill.core.errors import SidmillError
from sidmill.core.splitmix import splitmix64
from sidmill.datasets import ragged, row_hash
from sidmill.formats import dataset_rows
from sidmill.io import buckets
from sidmill.settings.datasets import Mixture

logger = logging.getLogger(__name__)

OWNERS = ("uid", "pid")
BUCKET_BITS = 10
MEMORY_MB = 64  # of rows that are gathered, and of rows that are sorted


class Owner(NamedTuple):
    """Who owns a row: a hash of the user or item, and an index of ``OWNERS``."""

    number: int
    kind: int


class HeldOut(NamedTuple):
    """Who is held out of a dataset: owners of its ``kinds`` whose number is at most ``last``."""

    last: int
    kinds: frozenset[int]

    def holds(self, owner: Owner) -> bool:
        """Whether an owner is held out."""
        return owner.number <= self.last and owner.kind in self.kinds


class Plan(NamedTuple):
    """What one mixture is made of.

    Attributes:
        folders: datasets, by name.
        settings: weights and test sizes.
        seed: covers samples, order and the owners held out.
        own: who is held out for the test of this mixture.
        others: who is held out for the test of the other mixture.
    """

    folders: dict[str, str]
    settings: Mixture
    seed: int
    own: list[HeldOut]
    others: list[HeldOut]


@dataclass
class Tally:
    """Rows of each dataset, by name.

    Attributes:
        written: by part, then by dataset.
        dropped: of held-out owners, in datasets without a test size.
        dropped_for_other: left out of the training part for the test of the other mixture.
    """

    written: dict[str, dict[str, int]]
    dropped: dict[str, int]
    dropped_for_other: dict[str, int]


def mix(
    folders: list[str],
    train: str | Path,
    test: str | Path,
    settings: Mixture,
    seed: int,
    others: dict[str, int] | None = None,
    questions: bool = False,
) -> dict[str, Any]:
    """Mix datasets into a training and a test part.

    Memory: some 4 times ``MEMORY_MB``, and 8 bytes per row of ``test_size``. Disk: the rows once
    more, compressed, while it runs.

    Args:
        folders: one per dataset of the weights, in the order of their names.
        train: folder to write.
        test: folder to write; empty without a test size.
        settings: weights and test sizes, by dataset.
        seed: covers samples, order and the owners held out.
        others: folders of datasets that the other mixture holds rows out of, each with its
            ``test_size`` there: the owners of those rows are left out of this training part.
        questions: whether rows of chat turns get the columns that trainers of reinforcement
            learning read: see :func:`sidmill.formats.dataset_rows.with_questions`. Messages then
            name the section ``rl``, otherwise ``mixture``.

    Returns:
        Per part and dataset, the number of rows; rows of users held out that are in neither part,
        and those that the other mixture holds out; and the sizes of either.

    Raises:
        SidmillError: if a dataset with a test size is not in the weights, or has fewer rows.
    """
    names = sorted(settings.weights)
    unweighted = sorted(set(settings.test_size) - set(names))
    if unweighted:
        raise SidmillError(f"test_size names {', '.join(unweighted)}, which weights does not")
    section = "rl" if questions else "mixture"

    # Who is held out, of this and of the other mixture.
    by_name = dict(zip(names, folders, strict=True))
    own = [
        _require_held_out(by_name[name], settings.test_size[name], seed, section)
        for name in names
        if settings.test_size.get(name, 0)
    ]
    foreign, too_small = [], []
    for folder, size in (others or {}).items():
        if size and (held_out := _held_out(folder, size, seed)):
            foreign.append(held_out)
        elif size:  # the other mixture cannot be made with these sizes
            too_small.append(Path(folder).name)
    if too_small:
        logger.warning("the other mixture holds more rows out of %s than it has", too_small)

    # Both parts, shuffled through buckets on disk.
    plan = Plan(by_name, settings, seed, own, foreign)
    tally = Tally({}, dict.fromkeys(names, 0), dict.fromkeys(names, 0))
    with buckets.folder(Path(f"{train}.work")) as work:
        for part, target in (("train", Path(train)), ("test", Path(test))):
            tally.written[part] = dict.fromkeys(names, 0)
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir(parents=True)
            tables = _shuffle(_rows(plan, part, tally), work / f"{part}.arrow")
            _write_files(target, tables, tally.written[part], settings.rows_per_file, questions)

    return {
        "dropped_of_held_out_users": _nonzero(tally.dropped),
        "dropped_for_the_other_test": _nonzero(tally.dropped_for_other),
        "other_test_larger_than_dataset": too_small,
        **tally.written,
    }


def _nonzero(counts: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}


def _require_held_out(folder: str, size: int, seed: int, section: str) -> HeldOut:
    """The owners to hold out of a dataset; ``section`` of the settings has the size.

    Raises:
        SidmillError: if the dataset has no more rows than ``size``.
    """
    held_out = _held_out(folder, size, seed)
    if held_out is None:
        n_rows = sum(pq.read_metadata(path).num_rows for path in dataset_rows.parts(folder))
        name = Path(folder).name
        raise SidmillError(
            f"{section}.test_size: found {size} rows of {name}, which has {n_rows}: set a "
            f"smaller number"
        )
    return held_out


def _held_out(folder: str, size: int, seed: int) -> HeldOut | None:
    """The owners of a dataset with the lowest numbers, as many as ``size`` rows ask for.

    Returns:
        None, if the dataset has no more rows than that.
    """
    lowest: list[int] = []  # a heap of negated numbers, the largest number first
    kinds, n_rows = set(), 0
    for path in dataset_rows.parts(folder):
        table = pq.read_table(path, columns=["uuid", "metadata"], partitioning=None)
        for owner in _owners(table, seed):
            n_rows += 1
            kinds.add(owner.kind)
            if len(lowest) < size:
                heapq.heappush(lowest, -owner.number)
            else:
                heapq.heappushpop(lowest, -owner.number)
    return HeldOut(-lowest[0], frozenset(kinds)) if size < n_rows else None


def _rows(plan: Plan, part: str, tally: Tally) -> Iterator[pa.Table]:
    """Yield the rows of a part, file by file, each as often as its weight says, with a ``key``."""
    if part == "test" and not plan.own:
        return
    schema = _common_schema(plan.folders)
    for name, folder in plan.folders.items():
        for path in dataset_rows.parts(folder):
            # Which rows belong to the part.
            table = pq.read_table(path, partitioning=None).cast(schema)
            owners = _owners(table, plan.seed)
            own, other = (_are_held_out(owners, each) for each in (plan.own, plan.others))
            if part == "train":
                picked, weight = np.flatnonzero(~own & ~other), plan.settings.weights[name]
                tally.dropped_for_other[name] += int((other & ~own).sum())
            elif plan.settings.test_size.get(name, 0):
                picked, weight = np.flatnonzero(own), 1.0
            else:  # a dataset without a test part loses the rows of owners that others hold out
                tally.dropped[name] += int(own.sum())
                continue

            rows, keys = _copies(table, picked, weight, part, plan.seed)
            tally.written[part][name] += len(rows)
            yield table.take(pa.array(rows)).append_column("key", pa.array(keys))


def _common_schema(folders: dict[str, str]) -> pa.Schema:
    """One schema for all datasets; ids of two catalogues, numbers and texts, become texts.

    Raises:
        SidmillError: if some datasets are plain texts and some have chat turns, or their texts are
            JSON in one and lists in another.
    """
    common, first = None, ""
    for name, folder in folders.items():
        for path in dataset_rows.parts(folder):
            schema = pq.read_schema(path).remove_metadata()
            if common is None:
                common, first = schema, name
            common = _merge_schemas(common, schema, f"{first} and {name} cannot be mixed")
    return common


def _merge_schemas(common: pa.Schema, schema: pa.Schema, problem: str) -> pa.Schema:
    """The schema that files of two schemas can be cast to; ``problem`` begins the message."""
    if schema.names != common.names:
        raise SidmillError(
            f"{problem}: one has the columns {', '.join(common.names)}, the other "
            f"{', '.join(schema.names)}: name tasks of segments and tasks of messages in different "
            f"weights"
        )
    for position, (field, other) in enumerate(zip(schema, common, strict=True)):
        if field.type != other.type and field.name == dataset_rows.PIDS:
            texts = pa.large_list(pa.large_string())
            common = common.set(position, pa.field(field.name, texts))
        elif field.type != other.type:
            raise SidmillError(
                f"{problem}: the column {field.name} is {other.type} in one, {field.type} in the "
                f"other: make both again with one datasets.form"
            )
    return common


def _copies(
    table: pa.Table, picked: np.ndarray, weight: float, part: str, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows, each as often as a weight says, and their keys: int64 (n,), uint64 (n,)."""
    # The number of a row, of its uuid, draws whether the fraction of a weight is one more copy.
    uuids = table["uuid"].take(pa.array(picked)).to_pylist()
    numbers = np.array([_number(uuid) for uuid in uuids], np.uint64)
    drawn = row_hash.unit_interval(row_hash.derive(numbers, seed, "copies"))
    copies = (weight + drawn).astype(np.int64)

    # Copies of a row get different keys.
    copy_numbers = ragged.concat_ranges(np.zeros(len(copies), np.int64), copies).astype(np.uint64)
    keys = np.repeat(row_hash.derive(numbers, seed, part), copies) + copy_numbers
    return np.repeat(picked, copies), splitmix64(keys)


def _are_held_out(owners: list[Owner], held_out: list[HeldOut]) -> np.ndarray:
    """Which rows belong to an owner that one of the datasets holds out: bool (n,)."""
    return np.array([any(each.holds(owner) for each in held_out) for owner in owners], bool)


def _shuffle(rows: Iterable[pa.Table], path: Path) -> Iterator[pa.Table]:
    """Yield rows in the order of their keys, without the keys; ``path`` holds them meanwhile."""
    # To disk: a batch per bucket of the rows gathered.
    shift = np.uint64(64 - BUCKET_BITS)
    written: list[buckets.Batch] = []
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    out = None
    with pa.OSFile(str(path), "wb") as sink:
        for table in buckets.gathered(rows, MEMORY_MB):
            numbers = (table["key"].to_numpy() >> shift).astype(np.uint16)
            order = np.argsort(numbers, kind="stable")
            out = out or pa.ipc.new_file(sink, table.schema, options=options)
            written += buckets.append(out, table.take(pa.array(order)), numbers[order])
        if out is None:
            return
        out.close()

    # Which batches hold a bucket, and its bytes.
    batches: list[list[int]] = [[] for _ in range(1 << BUCKET_BITS)]
    sizes = np.zeros(len(batches), np.int64)
    for number, batch in enumerate(written):
        batches[batch.bucket].append(number)
        sizes[batch.bucket] += batch.size

    # Back from disk, as many buckets at a time as fit the memory.
    with pa.OSFile(str(path)) as source:
        file = pa.ipc.open_file(source)
        for low, high in buckets.groups(sizes, MEMORY_MB):
            yield _sorted(file, [number for bucket in batches[low:high] for number in bucket])


def _sorted(file: pa.RecordBatchFileReader, batches: list[int]) -> pa.Table:
    """Some batches in the order of their keys, without the keys."""
    table = pa.Table.from_batches([file.get_batch(number) for number in batches])
    order = np.argsort(table["key"].to_numpy(), kind="stable")
    return table.drop_columns("key").take(pa.array(order))


def _write_files(
    folder: Path,
    tables: Iterator[pa.Table],
    written: dict[str, int],
    rows_per_file: int,
    questions: bool,
) -> None:
    """Write the files of one part.

    Args:
        folder: to write to; its name is that of the part.
        tables: rows in order.
        written: rows by dataset, which are complete when the first table comes.
        rows_per_file: rows of a file; the last one is shorter.
        questions: whether chat turns get the columns of reinforcement learning.
    """
    for number, table in enumerate(dataset_rows.cut(tables, rows_per_file)):
        if questions:
            table = dataset_rows.with_questions(table, number * rows_per_file, folder.name)
        elif dataset_rows.ANSWERS in table.column_names:
            table = table.drop_columns([dataset_rows.ANSWERS, dataset_rows.PIDS])
        n_files = -(-sum(written.values()) // rows_per_file)
        dataset_rows.write(folder / dataset_rows.part_name(number, n_files), table)


def _owners(table: pa.Table, seed: int) -> list[Owner]:
    """The owner of each row."""
    pairs = zip(table["metadata"].to_pylist(), table["uuid"].to_pylist(), strict=True)
    return [_owner(metadata, uuid, seed) for metadata, uuid in pairs]


def _owner(metadata: str, uuid: str, seed: int) -> Owner:
    """The owner of a row; a row that names neither a user nor an item owns itself."""
    facts = json.loads(metadata)
    kind = next((kind for kind, key in enumerate(OWNERS) if key in facts), len(OWNERS))
    name = f"{OWNERS[kind]} {facts[OWNERS[kind]]}" if kind < len(OWNERS) else uuid
    return Owner(int(row_hash.stream(seed, f"owner {name}")), kind)


def _number(uuid: str) -> int:
    """The first 64 bits of a uuid."""
    return int(uuid.replace("-", "")[:16], 16)
