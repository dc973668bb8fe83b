"""Chunks of a shard that are missing, computed by one process or shared by several."""

import logging
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, NamedTuple

import pyarrow as pa

from sidmill.embed import backend, chunks, progress, reuse, throughput
from sidmill.embed.backend import Backend, Run
from sidmill.embed.fingerprint import Fingerprint
from sidmill.formats import item_text
from sidmill.settings import base
from sidmill.settings.embedding import Embedding, Openai

logger = logging.getLogger(__name__)

CHECKED_TEXTS = 64


class Task(NamedTuple):
    """A shard to embed.

    Attributes:
        text_path: text.parquet.
        shard_path: the shard's file; the chunks lie in a folder next to it.
        start: first row.
        stop: row after the last.
        rows: rows per chunk; 0 for a backend without chunks.
        code: names the code.
        checked: whether this shard compares a smaller precision with the full one: one does.
        published: shards whose vectors go into the same file, so of the same space; maybe none.
        model_path: fitted LSA model, for ``lsa``.
        settings: of the embedding.
        openai: how a server is asked.
    """

    text_path: str
    shard_path: str
    start: int
    stop: int
    rows: int
    code: str
    checked: bool
    published: list[str]
    model_path: str | None
    settings: Embedding
    openai: Openai


class Done(NamedTuple):
    """What a process did: the embedding space, and the figures of its work."""

    fingerprint: Fingerprint
    figures: throughput.Figures


def as_json(task: Task) -> dict[str, Any]:
    """A task as JSON, for a process that shares the shard; read by :func:`of_json`."""
    sections = {"settings": asdict(task.settings), "openai": asdict(task.openai)}
    return task._asdict() | sections


def of_json(values: dict[str, Any]) -> Task:
    """The task that :func:`as_json` wrote."""
    sections = {
        "settings": base.read(Embedding, values["settings"]),
        "openai": base.read(Openai, values["openai"]),
    }
    return Task(**values | sections)


def compute(task: Task, process: int, processes: int) -> Done:
    """Compute the embeddings of every ``processes``-th missing chunk of a shard.

    Args:
        task: the shard.
        process: number of this process, from 0.
        processes: how many share the shard.
    """
    # Chunks of this process, and those of them that an earlier run has not left.
    loaded = load_backend(task, process)
    planned = plan(task, loaded.fingerprint)
    own = range(process, len(planned.keys), processes)
    missing = [n for n in own if not chunks.done(planned, n, loaded.fingerprint["dim"])]
    sizes = {chunk: len(planned.new(chunk)) for chunk in own}
    n_texts = sum(sizes[chunk] for chunk in missing)
    n_kept = sum(sizes.values()) - n_texts
    if n_kept:
        logger.info("%d texts were done by an earlier run", n_kept)
    if missing and task.checked and process == 0:
        loaded.check(chunks.texts(planned, task.text_path, missing[0])[:CHECKED_TEXTS])

    # Embed them, chunk by chunk; each is on disk before the next one begins.
    watch = throughput.Stopwatch()
    works = []
    texts = (chunks.texts(planned, task.text_path, chunk) for chunk in missing)
    with progress.counting(n_texts, "texts") as advance:
        for chunk, encoded in zip(missing, loaded.stream(texts, advance), strict=True):
            chunks.keep(planned, chunk, encoded.vectors)
            works.append(encoded.work)

    # What it took.
    seconds = watch.seconds()
    cost = loaded.cost() if works else None
    rows = sum(stop - start for start, stop in map(planned.bounds, own))
    work = throughput.total(works)
    figures = throughput.speed(work, cost, rows=rows, kept=n_kept, seconds=seconds)
    return Done(loaded.fingerprint, figures)


def plan(task: Task, fingerprint: Fingerprint) -> chunks.Plan:
    """Plan the chunks of a shard in an embedding space."""
    return chunks.plan(
        task.text_path,
        task.shard_path,
        task.start,
        task.stop,
        rows=task.rows,
        identity={"fingerprint": fingerprint, "code": task.code},
    )


def load_backend(task: Task, process: int) -> Backend:
    """Load the embedding backend of a task.

    Raises:
        SidmillError: before anything is embedded, if published vectors are of another space.
    """

    def read_pids() -> pa.Array:
        pid_type = item_text.pid_type(task.text_path)
        return pa.chunked_array(list(_pids(task)), pid_type).combine_chunks()

    run = Run(task.openai, task.model_path, task.text_path, read_pids, process)
    loaded = backend.choose(task.settings, run)
    if task.published:
        space = reuse.continued_space(loaded.fingerprint, task.published, task.settings.model)
        loaded = loaded._replace(fingerprint=space)
    return loaded


def _pids(task: Task) -> Iterator[pa.Array]:
    for table in item_text.read(task.text_path, task.start, task.stop):
        yield from table["pid"].chunks
