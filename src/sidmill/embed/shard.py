"""One shard of embeddings.parquet: rows of text.parquet -> vectors, by the chosen backend."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from sidmill.embed import chunks, compute, progress, reuse, throughput, workers
from sidmill.embed.fingerprint import Fingerprint
from sidmill.formats import embedding_shards, item_text
from sidmill.io import json_report
from sidmill.settings.embedding import Embedding, Openai
from sidmill.settings.registry import BACKENDS

logger = logging.getLogger(__name__)

NAMED_IDS = 5  # ids that a warning names

Blocks = Iterator[tuple[pa.ChunkedArray, np.ndarray]]


class ShardFiles(NamedTuple):
    """What a shard is made from, and what it leaves.

    Attributes:
        text_path: text.parquet.
        shard_path: file of embeddings.parquet to write.
        speed_path: JSON to write: what it took (the one file with wall time in it).
        model_path: fitted LSA model, for backend ``lsa``.
        match_path: match.parquet of a published version, or None.
        published: its shards of embeddings, in order; none where nothing is published.
    """

    text_path: str
    shard_path: str
    speed_path: str
    model_path: str | None = None
    match_path: str | None = None
    published: Sequence[str] = ()


def embed_shard(
    files: ShardFiles,
    settings: Embedding,
    openai: Openai,
    *,
    shard: int,
    shards: int,
    code: str,
) -> int:
    """Embed the texts of one shard.

    Shards are consecutive rows of text.parquet, so their files in order of name hold the items in
    order. A backend with chunks (``sentence_transformers``, ``openai``) computes a text that stands
    in the shard twice once, and a shard that was killed resumes after its last chunk. Items whose
    text is the same in a published version keep the vector of that version; only the others are
    embedded, as a shard of their own in a hidden file in the same folder. Memory: 8,192 texts with
    their vectors, about 80 bytes per row, and the model; with ``precomputed`` the vectors of the
    shard, unless a parquet file has them in the order of the items.

    Args:
        files: what is read and written.
        settings: of the embedding; ``processes`` is how many share the shard of an encoder.
        openai: how a server is asked.
        shard: number of the shard, from 0.
        shards: how many there are.
        code: names the code; chunks of other code are not used.

    Returns:
        Number of rows written.

    Raises:
        SidmillError: if a setting does not fit the backend, or the backend cannot do its work.
    """
    start, stop = item_text.shard_bounds(item_text.count(files.text_path), shard, shards)
    logger.info("shard %d of %d: rows %d to %d of %s", shard, shards, start, stop, files.text_path)
    entry = BACKENDS.get(settings.backend)
    task = compute.Task(
        text_path=files.text_path,
        shard_path=files.shard_path,
        start=start,
        stop=stop,
        rows=entry.chunk_rows if entry else 0,
        code=code,
        checked=shard == 0,
        published=list(files.published),
        model_path=files.model_path,
        settings=settings,
        openai=openai,
    )
    if not task.published:
        return _embed(task, files.speed_path)

    # Items of a published version keep their vector; the others are a shard of their own.
    rows = reuse.published_rows(files.match_path, task.published, start, stop)
    with reuse.fresh(task.text_path, start, stop, rows, files.shard_path) as (fresh_text, fresh):
        n_fresh = item_text.count(fresh_text)
        new = task._replace(text_path=fresh_text, shard_path=fresh, start=0, stop=n_fresh)
        if n_fresh or shard == 0:
            _embed(new, files.speed_path)
        else:
            _embed_nothing(new, files.speed_path)

        # Both kinds in the order of the catalogue.
        space = embedding_shards.fingerprint(fresh)
        blocks = reuse.blocks(
            files.text_path, start, stop, rows, task.published, fresh, space["dim"]
        )
        pid_type = item_text.pid_type(files.text_path)
        return embedding_shards.write(files.shard_path, pid_type, space, blocks)


def _embed(task: compute.Task, speed_path: str) -> int:
    """Embed all texts of a task."""
    pid_type = item_text.pid_type(task.text_path)
    if not task.rows:
        space, blocks, figures = _at_once(task)
        written = embedding_shards.write(task.shard_path, pid_type, space, _with_warning(blocks))
        json_report.write(speed_path, figures())
        return written

    # Chunks: by several processes of an encoder, by one of a server's client.
    is_encoder = task.settings.backend == "sentence_transformers"
    n_chunks = -(-(task.stop - task.start) // task.rows)
    processes = min(task.settings.processes if is_encoder else 1, max(n_chunks, 1))
    done = workers.run(task, processes) if processes > 1 else compute.compute(task, 0, 1)

    # The shard is put together from the chunks, which are removed once it is written.
    plan = compute.plan(task, done.fingerprint)
    blocks = _with_warning(chunks.assemble(plan, task.text_path))
    written = embedding_shards.write(task.shard_path, pid_type, done.fingerprint, blocks)
    json_report.write(speed_path, done.figures)
    chunks.clear(plan)
    return written


def _embed_nothing(task: compute.Task, speed_path: str) -> None:
    """Write an empty shard in the published space, without loading a model.

    Shard 0 is never written here: it loads the model to compare its space with the published one.
    """
    space = embedding_shards.fingerprint(task.published[0])
    embedding_shards.write(task.shard_path, item_text.pid_type(task.text_path), space, iter(()))
    figures = throughput.speed(throughput.Work(), None, rows=0, kept=0, seconds=0)
    json_report.write(speed_path, figures)


def _at_once(task: compute.Task) -> tuple[Fingerprint, Blocks, Callable[[], throughput.Figures]]:
    """Vectors of a backend without chunks, as they come; the figures once all have come."""
    loaded = compute.load_backend(task, 0)
    watch = throughput.Stopwatch()
    works: list[throughput.Work] = []
    n_rows = task.stop - task.start

    def blocks() -> Blocks:
        pids = []

        def read() -> Iterator[list[str]]:
            for table in item_text.read(task.text_path, task.start, task.stop):
                pids.append(table["pid"])
                yield table["text"].to_pylist()

        with progress.counting(n_rows, "texts") as advance:
            for encoded in loaded.stream(read(), advance):
                works.append(encoded.work)
                yield pids.pop(), encoded.vectors

    def figures() -> throughput.Figures:
        work = throughput.total(works)
        return throughput.speed(work, None, rows=n_rows, kept=0, seconds=watch.seconds())

    return loaded.fingerprint, blocks(), figures


def _with_warning(blocks: Blocks) -> Blocks:
    """Pass blocks on, and warn of vectors without a direction at the end."""
    pids_of_zeros: list[int | str] = []
    n_zeros = 0
    for pids, vectors in blocks:
        zeros = np.flatnonzero(~vectors.any(axis=1))
        n_zeros += zeros.size
        pids_of_zeros += pids.take(zeros[: NAMED_IDS - len(pids_of_zeros)]).to_pylist()
        yield pids, vectors
    if n_zeros:
        logger.warning(
            "%d texts have an all-zero vector, which the vector store refuses; first pids: %s",
            n_zeros,
            ", ".join(map(repr, pids_of_zeros)),
        )
