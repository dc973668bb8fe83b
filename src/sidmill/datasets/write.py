"""Second pass: the resolved rows of all shards -> files of a dataset, in random order.

Buckets come in the order of their keys, and each is sorted by key when it is read, so the rows come
in the order of their keys whatever the shards and blocks were.
"""

import logging
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.datasets import (
    item_lookup,
    ragged,
    render,
    tasks,
)
from sidmill.datasets.inputs import Shard
from sidmill.datasets.tasks import Dataset, Task
from sidmill.formats import dataset_rows, sid_text
from sidmill.io import buckets, json_report
from sidmill.settings.datasets import Datasets

logger = logging.getLogger(__name__)

SORTED_MB = 32  # of rows that are read and sorted at a time


class Resolved(NamedTuple):
    """What the first pass wrote: an Arrow file of rows per shard, and the JSON of its counts."""

    rows_paths: Sequence[str | Path]
    counts_paths: Sequence[str | Path]


def write_parts(
    folder: str | Path,
    resolved: Resolved,
    dataset: Dataset,
    items: item_lookup.ItemFiles,
    settings: Datasets,
    shard: Shard,
    seed: int,
) -> int:
    """Write one shard's share of the files of a dataset.

    The files are the same bytes for any number of shards of either pass. Memory: ``SORTED_MB`` of
    rows, twice while they are concatenated, two files of text, and about 100 bytes per item.

    Args:
        folder: where ``part-00003-of-00010.parquet`` goes; it is emptied first.
        resolved: files of the first pass, in the order of its shards.
        dataset: its task and prompts, checked before: :func:`sidmill.datasets.tasks.load`.
        items: SIDs and texts.
        settings: ``form``, ``language`` and ``rows_per_file``.
        shard: which share of the files.
        seed: covers the choice of wordings.

    Returns:
        The number of rows written.

    Raises:
        SidmillError: if the prompts do not fit the task, or no row of the input is in the dataset.
    """
    task = tasks.load(dataset.task_path, checked=True)
    prompts_path = dataset.prompts_path(task)
    prompts = tasks.load_prompts(prompts_path, settings.language, task, checked=True)

    # The files of this shard, and their rows.
    counts = [json_report.read(path) for path in resolved.counts_paths]
    total: int = sum(rows for each in counts for _, rows, _ in each["batches"])
    n_files = max(-(-total // settings.rows_per_file), 1)
    first, last = shard.bounds(n_files)
    start, stop = first * settings.rows_per_file, min(last * settings.rows_per_file, total)
    shutil.rmtree(folder, ignore_errors=True)
    Path(folder).mkdir(parents=True)
    if first == last:
        return 0

    # Rows in order, file by file, as text.
    texts = _item_texts(task, items, dataset.task)
    rows = _sorted_rows(resolved.rows_paths, counts, start, stop)
    tables = (
        render.render(part, task, prompts, texts, settings.form, seed)
        for part in dataset_rows.cut(rows, settings.rows_per_file)
    )
    names = [dataset_rows.part_name(number, n_files) for number in range(first, last)]
    _write_files(Path(folder), names, tables)
    if total == 0:
        raise SidmillError(
            f"{dataset.task_path}: no row of the input is left: {counts[0]['counts']}: check the "
            f"inputs, or leave the task out of datasets.tasks"
        )
    return stop - start


def _write_files(folder: Path, names: list[str], tables: Iterable[pa.Table]) -> None:
    """Write one file per table; a file is flushed to disk while the next one is rendered."""
    waiting: list[Future[None]] = []
    with ThreadPoolExecutor(1) as disk:
        for name, table in zip(names, tables, strict=False):
            _ = [each.result() for each in waiting]
            waiting = [disk.submit(dataset_rows.write, folder / name, table)]
        _ = [each.result() for each in waiting]


def gather(folders: list[str], target: str | Path) -> int:
    """Bring the files of all shards together, as links where the disk allows: no byte is copied.

    Returns:
        The number of files.
    """
    target = Path(target)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in sorted(path for folder in folders for path in Path(folder).glob("part-*.parquet")):
        try:
            (target / path.name).hardlink_to(path)
        except OSError:
            shutil.copy2(path, target / path.name)
    return len(dataset_rows.parts(target))


def _item_texts(task: Task, files: item_lookup.ItemFiles, dataset: str) -> render.ItemTexts:
    """SIDs as text, ids, and titles where the task names them."""
    domains = item_lookup.load_domains(files, task, dataset)
    sids = {name: render.Strings(sid_text.render(each.codes)) for name, each in domains.items()}
    pids = {name: each.pids for name, each in domains.items()}
    titles = None
    if tasks.names_titles(task):
        titles = item_lookup.load_titles(domains["items"], files.texts)
    return render.ItemTexts(sids, titles, pids)


class _Buckets:
    """Where the batches of each bucket are in one file of the first pass."""

    def __init__(self, batches: list[list[int]], n_buckets: int) -> None:
        """Take bucket, rows and bytes of each batch, in the order of the file."""
        numbers, rows, sizes = np.array(batches, np.int64).reshape(-1, 3).T
        self.rows = np.bincount(numbers, rows, n_buckets).astype(np.int64)  # (n_buckets,)
        self.sizes = np.bincount(numbers, sizes, n_buckets).astype(np.int64)  # bytes
        self.order = np.argsort(numbers, kind="stable")  # batches by bucket
        self.bounds = np.searchsorted(numbers[self.order], np.arange(n_buckets + 1))

    def batches(self, low: int, high: int) -> list[int]:
        """Numbers of the batches of buckets ``low`` to ``high``."""
        numbers: list[int] = self.order[self.bounds[low] : self.bounds[high]].tolist()
        return numbers


def _sorted_rows(
    paths: Sequence[str | Path], counts: list[dict[str, Any]], start: int, stop: int
) -> Iterator[pa.Table]:
    """Yield rows ``start`` to ``stop`` in the order of their keys, some buckets at a time."""
    # Rows and bytes of each bucket, in all files.
    n_buckets = 1 << counts[0]["bits"]
    indexes = [_Buckets(each["batches"], n_buckets) for each in counts]
    rows = np.sum([each.rows for each in indexes], axis=0)
    sizes = np.sum([each.sizes for each in indexes], axis=0)

    # Each run of buckets that fits the memory: rows that are asked for, by key.
    with ExitStack() as opened:
        files = [pa.ipc.open_file(opened.enter_context(pa.OSFile(str(path)))) for path in paths]
        first = 0  # row of the run in the whole dataset
        for low, high in buckets.groups(sizes, SORTED_MB):
            count = int(rows[low:high].sum())
            begin, end = max(start - first, 0), min(stop - first, count)
            first += count
            if begin < end:
                batches = [
                    file.get_batch(number)
                    for file, index in zip(files, indexes, strict=True)
                    for number in index.batches(low, high)
                ]
                table = pa.Table.from_batches(batches).combine_chunks()
                order = np.argsort(table["key"].to_numpy(), kind="stable")
                yield ragged.take_rows(table, order[begin:end])
