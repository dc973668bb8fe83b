"""The chunks of a shard that are not there yet, computed by one process or one of several."""

import logging
from collections.abc import Iterator
from typing import NamedTuple

import pyarrow as pa

from sidmill.embed import (
    backend_choice,
    chunks,
    progress,
    reuse,
    throughput,
)
from sidmill.formats import item_text

logger = logging.getLogger(__name__)

CHECKED_TEXTS = 64


class Task(NamedTuple):
    """A shard to embed.

    Attributes:
        text_path: text.parquet.
        shard_path: the shard's file; the chunks lie beside it.
        start: first row.
        stop: row after the last.
        rows: per chunk.
        code: names the code.
        checked: whether this shard compares a smaller precision with the full one: one does.
        published: shards whose vectors go into the same file, so of the same space; maybe none.
        settings: of the backend, see :func:`sidmill.embed.backend_choice.choose`.
    """

    text_path: str
    shard_path: str
    start: int
    stop: int
    rows: int
    code: str
    checked: bool
    published: list[str]
    settings: dict


class Done(NamedTuple):
    """What a process did: the name of the embedding space, and the figures of its work."""

    fingerprint: dict
    figures: dict


def compute(task: Task, process: int, processes: int) -> Done:
    """Compute every ``processes``-th chunk that is not there.

    Args:
        task: the shard.
        process: number of this process, from 0.
        processes: how many share the shard.
    """
    chosen = choose(task, process)
    prepared = plan(task, chosen.fingerprint)
    own = range(process, len(prepared.keys), processes)
    missing = [n for n in own if not chunks.done(prepared, n, chosen.fingerprint["dim"])]
    sizes = {chunk: len(prepared.new(chunk)) for chunk in own}
    todo = sum(sizes[chunk] for chunk in missing)
    kept = sum(sizes.values()) - todo
    if kept:
        logger.info("%d texts were done by an earlier run", kept)
    if missing and task.checked and process == 0:
        chosen.check(chunks.texts(prepared, task.text_path, missing[0])[:CHECKED_TEXTS])
    watch = throughput.Stopwatch()
    works = []
    reader = (chunks.texts(prepared, task.text_path, chunk) for chunk in missing)
    with progress.counting(todo, "texts") as advance:
        found = chosen.stream(reader, advance)
        for chunk, part in zip(missing, found, strict=True):
            chunks.keep(prepared, chunk, part.vectors)
            works.append(part.work)
    seconds = watch.seconds()
    cost = chosen.cost() if works else None
    rows = sum(stop - start for start, stop in map(prepared.bounds, own))
    figures = throughput.speed(throughput.total(works), cost, rows=rows, kept=kept, seconds=seconds)
    return Done(chosen.fingerprint, figures)


def plan(task: Task, fingerprint: dict) -> chunks.Plan:
    """Plan the chunks of a shard in an embedding space."""
    return chunks.plan(
        task.text_path,
        task.shard_path,
        task.start,
        task.stop,
        rows=task.rows,
        identity={"fingerprint": fingerprint, "code": task.code},
    )


def choose(task: Task, process: int) -> backend_choice.Backend:
    """Load the backend of a task.

    Raises:
        SidmillError: before anything is embedded, if published vectors are of another space.
    """

    def pids() -> pa.Array:
        return pa.chunked_array(
            list(_pids(task)), item_text.pid_type(task.text_path)
        ).combine_chunks()

    chosen = backend_choice.choose(pids, process=process, **task.settings)
    if task.published:
        known = reuse.go_on(chosen.fingerprint, task.published, task.settings["model"])
        chosen = chosen._replace(fingerprint=known)
    return chosen


def _pids(task: Task) -> Iterator[pa.Array]:
    for table in item_text.read(task.text_path, task.start, task.stop):
        yield from table["pid"].chunks
