"""Second pass: the resolved rows of all shards -> files of a dataset, in random order.

Buckets come in the order of their keys, and each is sorted by key when it is read, so the rows come
in the order of their keys whatever the shards and blocks were.
"""

import logging
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.datasets import (
    item_lookup,
    ragged,
    render,
    tasks,
)
from sidmill.formats import dataset_rows, sid_text
from sidmill.formats.item_text import shard_bounds
from sidmill.io import buckets, json_report

logger = logging.getLogger(__name__)

SORTED_MB = 32  # of rows that are read and sorted at a time


def write_parts(
    folder: str | Path,
    *,
    rows_paths: list[str],
    counts_paths: list[str],
    task_path: str | Path,
    prompts_folder: str | Path,
    pid2sid: str | Path,
    product_pid2sid: str | Path | None,
    texts: list[str],
    shard: int,
    shards: int,
    seed: int,
    form: str,
    language: str,
    rows_per_file: int,
) -> int:
    """Write one shard's share of the files of a dataset.

    The files are the same bytes for any number of shards of either pass. Memory: ``SORTED_MB`` of
    rows, twice while they are put together, two files of text, and about 100 bytes per item.

    Args:
        folder: where ``part-00003-of-00010.parquet`` goes; made anew.
        rows_paths: Arrow files of the first pass.
        counts_paths: their JSON, in the same order.
        task_path: the task's YAML, checked before: :func:`sidmill.datasets.tasks.load`.
        prompts_folder: where its prompts file is, checked before too.
        pid2sid: SIDs of items.
        product_pid2sid: SIDs of the second domain, where the task has one.
        texts: parquet files with texts of items, for tasks that name items by title.
        shard: which share of the files.
        shards: how many shares.
        seed: covers the choice of wordings.
        form: ``onerec`` or ``chat``.
        language: of the prompts.
        rows_per_file: rows of a file; the last one is shorter.

    Returns:
        The number of rows written.

    Raises:
        SidmillError: if the prompts do not fit the task.
    """
    task = tasks.load(task_path, checked=True)
    wordings = Path(prompts_folder) / f"{task.prompts}.yaml"
    prompts = tasks.load_prompts(wordings, language, task, checked=True)
    counts = [json_report.read(path) for path in counts_paths]
    total = sum(rows for each in counts for _, rows, _ in each["batches"])
    n_files = max(-(-total // rows_per_file), 1)
    first, last = shard_bounds(n_files, shard, shards)
    shutil.rmtree(folder, ignore_errors=True)
    Path(folder).mkdir(parents=True)
    if first == last:
        return 0
    words = _words(task, pid2sid, product_pid2sid, texts)
    bounds = (first * rows_per_file, min(last * rows_per_file, total))
    files = dataset_rows.cut(_sorted_rows(rows_paths, counts, *bounds), rows_per_file)
    with ThreadPoolExecutor(1) as disk:  # a file is flushed while the next is rendered
        waiting = []
        for number, rows in enumerate(files, start=first):
            table = render.render(rows, task, prompts, words, form, seed)
            path = Path(folder) / dataset_rows.part_name(number, n_files)
            _ = [each.result() for each in waiting]
            waiting = [disk.submit(dataset_rows.write, path, table)]
        _ = [each.result() for each in waiting]
    if total == 0:
        raise SidmillError(
            f"{task_path}: no row is left of the input: {counts[0]['counts']}: check the inputs, "
            f"or leave the task out of datasets.tasks"
        )
    return bounds[1] - bounds[0]


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


def _words(task, pid2sid, product_pid2sid, texts: list[str]) -> render.Words:
    domains = {"items": item_lookup.load(pid2sid)}
    if any(declared.get("domain") == "product" for declared in task.fields.values()):
        domains["product"] = item_lookup.load(product_pid2sid)
    sids = {name: render.Strings(sid_text.render(each.codes)) for name, each in domains.items()}
    pids = {name: each.pids for name, each in domains.items()}
    titles = item_lookup.titles(domains["items"], texts) if tasks.names_titles(task) else None
    return render.Words(sids, titles, pids)


def _sorted_rows(paths: list[str], counts: list[dict], start: int, stop: int) -> Iterator[pa.Table]:
    """Yield rows ``start`` to ``stop`` in the order of their keys, some buckets at a time."""
    written = [np.array(each["batches"], np.int64).reshape(-1, 3).T for each in counts]
    n_buckets = 1 << counts[0]["bits"]
    rows, sizes = (
        sum(np.bincount(found[0], found[part], n_buckets).astype(np.int64) for found in written)
        for part in (1, 2)
    )
    orders = [np.argsort(found[0], kind="stable") for found in written]
    bounds = [
        np.searchsorted(found[0][order], np.arange(n_buckets + 1))
        for found, order in zip(written, orders, strict=True)
    ]
    with ExitStack() as opened:
        files = [pa.ipc.open_file(opened.enter_context(pa.OSFile(str(path)))) for path in paths]
        first = 0
        for low, high in buckets.groups(sizes, SORTED_MB):
            count = int(rows[low:high].sum())
            begin, end = max(start - first, 0), min(stop - first, count)
            first += count
            if begin < end:
                batches = [
                    file.get_batch(place)
                    for file, order, bound in zip(files, orders, bounds, strict=True)
                    for place in order[bound[low] : bound[high]].tolist()
                ]
                table = pa.Table.from_batches(batches).combine_chunks()
                order = np.argsort(table["key"].to_numpy(), kind="stable")
                yield ragged.take_rows(table, order[begin:end])
