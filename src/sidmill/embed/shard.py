"""One shard of embeddings.parquet: rows of text.parquet -> vectors, by the chosen backend."""

import logging
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa

from sidmill.embed import (
    backend_choice,
    chunks,
    compute,
    progress,
    reuse,
    throughput,
    workers,
)
from sidmill.formats import embedding_shards, item_text
from sidmill.io import json_report

logger = logging.getLogger(__name__)

NAMED_IDS = 5  # ids that a warning names

Blocks = Iterator[tuple[pa.ChunkedArray, np.ndarray]]


def embed_shard(
    text_path: str,
    shard_path: str,
    speed_path: str,
    *,
    shard: int,
    shards: int,
    model_path: str | None,
    match_path: str | None,
    published: list[str],
    code: str,
    backend: str,
    model: str | None,
    revision: str | None,
    path: str | None,
    ids_path: str | None,
    fields: dict | None,
    rows: str | None,
    dim: int | None,
    batch_tokens: int | None,
    max_length: int | None,
    dtype: str | None,
    device: str,
    attention: str,
    compiled: bool,
    processes: int,
    prompt: str | None,
    normalize: bool,
    http: dict,
) -> int:
    """Embed the texts of one shard.

    Shards are consecutive rows of text.parquet, so their files in order of name hold the items in
    order. With ``sentence_transformers`` and ``openai`` a text that stands in the shard twice is
    computed once, and a shard that was killed goes on from its last chunk. Items whose text is as
    it was in a published version keep the vector of that; the others alone are embedded, as a
    shard of their own in a hidden file beside this one. Memory: 8,192 texts
    with their vectors, about 80 bytes per row, and the model; with ``precomputed`` the vectors of
    the shard.

    Args:
        text_path: text.parquet.
        shard_path: file of embeddings.parquet to write.
        speed_path: JSON to write: what it took (the one file with wall time in it).
        shard: number of the shard, from 0.
        shards: how many there are.
        model_path: fitted LSA model, for backend ``lsa``.
        match_path: match.parquet of a published version, or None.
        published: its shards of embeddings, in order; none where nothing is published.
        code: names the code; chunks of other code are not used.
        backend: lsa, sentence_transformers, openai or precomputed.
        model: folder or hub id, or the server's name; for ``precomputed`` a label of the space.
        revision: of the model, as the user names it.
        path: vectors of the user, for ``precomputed``.
        ids_path: ids of a .npy at ``path``.
        fields: columns ``pid`` and ``embedding`` of a parquet at ``path``.
        rows: ids; catalogue where row i of ``path`` is item i of ``text_path``.
        dim: D; see the backend for null.
        batch_tokens: padded tokens per batch; null: by the device.
        max_length: tokens per text.
        dtype: auto, float32 or bfloat16.
        device: auto, cpu or cuda.
        attention: auto, or an implementation that transformers knows.
        compiled: whether the model goes through torch.compile.
        processes: processes that share the shard, one GPU each; for ``sentence_transformers``.
        prompt: put before every text.
        normalize: scale vectors to unit length.
            Null for settings that the backend does not read: see
            :mod:`sidmill.embed.backend_settings`.
        http: how the server of ``openai`` is asked, see :func:`sidmill.embed.backends.openai.load`.

    Returns:
        Number of rows written.

    Raises:
        SidmillError: if a setting does not fit the backend, or the backend cannot do its work.
    """
    start, stop = item_text.shard_bounds(item_text.count(text_path), shard, shards)
    logger.info("shard %d of %d: rows %d to %d of %s", shard, shards, start, stop, text_path)
    task = compute.Task(
        text_path=text_path,
        shard_path=shard_path,
        start=start,
        stop=stop,
        rows=backend_choice.CHUNK_ROWS.get(backend, 0),
        code=code,
        checked=shard == 0,
        published=published,
        settings={
            "model_path": model_path,
            "backend": backend,
            "model": model,
            "revision": revision,
            "path": path,
            "ids_path": ids_path,
            "fields": fields,
            "order_path": text_path if rows == "catalogue" else None,
            "dim": dim,
            "batch_tokens": batch_tokens,
            "max_length": max_length,
            "dtype": dtype,
            "device": device,
            "attention": attention,
            "compiled": compiled,
            "prompt": prompt,
            "normalize": normalize,
            "http": http,
        },
    )
    members = processes if backend == "sentence_transformers" else 1
    if not published:
        return _embed(task, members, speed_path)
    kept = reuse.published_rows(match_path, published, start, stop)
    with reuse.fresh(task.text_path, start, stop, kept, shard_path) as (fresh_text, fresh_shard):
        new = task._replace(
            text_path=fresh_text, shard_path=fresh_shard, start=0, stop=item_text.count(fresh_text)
        )
        if new.stop or shard == 0:
            _embed(new, members, speed_path)
        else:
            _nothing(new, speed_path)
        facts = embedding_shards.fingerprint(fresh_shard)
        blocks = reuse.blocks(text_path, start, stop, kept, published, fresh_shard, facts["dim"])
        return embedding_shards.write(shard_path, item_text.pid_type(text_path), facts, blocks)


def _embed(task: compute.Task, processes: int, speed_path: str) -> int:
    """Embed all texts of a task."""
    pid_type = item_text.pid_type(task.text_path)
    if not task.rows:
        facts, blocks, figures = _at_once(task)
        written = embedding_shards.write(task.shard_path, pid_type, facts, _warned(blocks))
        json_report.write(speed_path, figures())
        return written
    count = -(-(task.stop - task.start) // task.rows)
    members = min(processes, max(count, 1))
    done = workers.run(task, members) if members > 1 else compute.compute(task, 0, 1)
    plan = compute.plan(task, done.fingerprint)
    blocks = chunks.assemble(plan, task.text_path)
    written = embedding_shards.write(task.shard_path, pid_type, done.fingerprint, _warned(blocks))
    json_report.write(speed_path, done.figures)
    chunks.clear(plan)
    return written


def _nothing(task: compute.Task, speed_path: str) -> None:
    """Embed no text, in the published space, without loading a model: shard 0 checks the space."""
    facts = embedding_shards.fingerprint(task.published[0])
    embedding_shards.write(task.shard_path, item_text.pid_type(task.text_path), facts, iter(()))
    figures = throughput.speed(throughput.Work(), None, rows=0, kept=0, seconds=0)
    json_report.write(speed_path, figures)


def _at_once(task: compute.Task) -> tuple[dict, Blocks, Callable[[], dict]]:
    """Vectors of a backend that needs no chunks: as they come."""
    chosen = compute.choose(task, 0)
    watch = throughput.Stopwatch()
    done: list[throughput.Work] = []
    rows = task.stop - task.start

    def blocks() -> Blocks:
        pids = []

        def read() -> Iterator[list[str]]:
            for table in item_text.read(task.text_path, task.start, task.stop):
                pids.append(table["pid"])
                yield table["text"].to_pylist()

        with progress.counting(rows, "texts") as advance:
            for found in chosen.stream(read(), advance):
                done.append(found.work)
                yield pids.pop(), found.vectors

    def figures() -> dict:
        return throughput.speed(
            throughput.total(done), None, rows=rows, kept=0, seconds=watch.seconds()
        )

    return chosen.fingerprint, blocks(), figures


def _warned(blocks: Blocks) -> Blocks:
    """Pass blocks on, and warn of vectors without a direction at the end."""
    empty: list = []
    count = 0
    for pids, vectors in blocks:
        zero = np.flatnonzero(~vectors.any(axis=1))
        count += zero.size
        empty += pids.take(zero[: NAMED_IDS - len(empty)]).to_pylist()
        yield pids, vectors
    if count:
        logger.warning(
            "%d texts have an all-zero vector, which the vector store refuses; first pids: %s",
            count,
            ", ".join(map(repr, empty)),
        )
