"""Vectors of a published version, for the items whose text is as it was there.

Only the other items are embedded. What is reused has the bytes that were published.

Shapes: n rows of a shard, D dimensions.
"""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.core.listing import differences
from sidmill.embed import fingerprint
from sidmill.embed.fingerprint import Fingerprint
from sidmill.formats import catalogue_match, embedding_shards, item_text
from sidmill.io import parquet

logger = logging.getLogger(__name__)

NONE = catalogue_match.NEW
Blocks = Iterator[tuple[pa.ChunkedArray, np.ndarray]]


def published_rows(
    match_path: str | None, published: list[str], start: int, stop: int
) -> np.ndarray:
    """Row of the published embeddings whose vector each item keeps, ``NONE`` for none: int64 (n,).

    Args:
        match_path: match.parquet, or None where nothing is published.
        published: the published shards of embeddings, in order.
        start: first row of the shard.
        stop: the row after its last.
    """
    if match_path is None:
        return np.full(stop - start, NONE, dtype=np.int64)
    match = catalogue_match.read(match_path, start, stop)
    n_vectors = sum(sum(embedding_shards.group_sizes(path)) for path in published)
    # Items that were removed once stand after the others: their vectors are gone.
    return np.where(match.changed | (match.rows >= n_vectors), NONE, match.rows)


@contextmanager
def fresh(
    text_path: str, start: int, stop: int, rows: np.ndarray, shard_path: str
) -> Iterator[tuple[str, str]]:
    """Write the texts without a published vector to a file of their own.

    Memory: one row group.

    Args:
        text_path: text.parquet.
        start: first row of the shard.
        stop: row after its last.
        rows: int64 (n,), as of :func:`published_rows`.
        shard_path: the shard's file; the two files lie hidden in its folder and vanish with the
            block.

    Yields:
        Path of those texts, and a path for their embeddings.
    """
    reused = rows != NONE
    n_reused = int(reused.sum())
    n_fresh = len(rows) - n_reused
    logger.info("%d items keep their published vector, %d are embedded", n_reused, n_fresh)
    shard = Path(shard_path)
    paths = [shard.with_name(f".{shard.name}.fresh-{what}") for what in ("text", "embeddings")]
    try:
        tables = _without(item_text.read(text_path, start, stop), reused)
        item_text.write(paths[0], item_text.pid_type(text_path), tables)
        yield str(paths[0]), str(paths[1])
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


def blocks(
    text_path: str,
    start: int,
    stop: int,
    rows: np.ndarray,
    published: list[str],
    fresh_shard: str,
    dim: int,
) -> Blocks:
    """Yield ids and vectors of a shard in its order, published vectors where they are reused.

    Memory: two blocks of vectors, and 25 bytes per row. Disk: 4 n D bytes in the folder of the
    shard while it runs, which vanish with the process: the order of the published rows is any.

    Args:
        text_path: text.parquet.
        start: first row of the shard.
        stop: row after its last.
        rows: int64 (n,), as of :func:`published_rows`.
        published: its shards of embeddings, in order.
        fresh_shard: embeddings of the other texts, in order.
        dim: D.
    """
    is_reused = rows != NONE
    fresh_blocks = (vectors for _, vectors in embedding_shards.read(fresh_shard))
    with tempfile.TemporaryFile(dir=Path(fresh_shard).parent) as spill:
        # Published vectors in the order of the shard.
        _copy(published, rows, dim, spill)
        spill.seek(0)

        # Block by block: (b, D), each row from one of the two.
        spare: list[np.ndarray] = []
        begin = 0
        for table in item_text.read(text_path, start, stop):
            reused = is_reused[begin : begin + table.num_rows]
            vectors = np.empty((len(reused), dim), dtype=np.float32)
            stored = spill.read(int(reused.sum()) * dim * vectors.itemsize)
            vectors[reused] = np.frombuffer(stored, dtype=np.float32).reshape(-1, dim)
            vectors[~reused] = _take(fresh_blocks, spare, int((~reused).sum()), dim)
            begin += len(reused)
            yield table["pid"], vectors


def continued_space(space: Fingerprint, published: list[str], model: str | None) -> Fingerprint:
    """The fingerprint to embed new items with: that of the published vectors they are added to.

    Args:
        space: the fingerprint of the model at hand.
        published: shards of the published version.
        model: a folder, a hub id, or None.

    Raises:
        SidmillError: if it is another space.
    """
    before: Fingerprint = embedding_shards.fingerprint(published[0])
    differs_in_revision = space | {"revision": before.get("revision")} == before != space

    # Older programs named a model folder by a digest of the ends of its files.
    folder = model if model is not None and Path(model).is_dir() else None
    if folder and differs_in_revision and fingerprint.ends_digest(folder) == before["revision"]:
        logger.warning(
            "%s was published with a digest of the ends of the model's files alone, which are "
            "those of %s: it is taken for the same model",
            published[0],
            model,
        )
        return before
    check(space, published)
    return space


def check(space: Fingerprint, published: list[str]) -> None:
    """Refuse to reuse published vectors of another embedding space.

    Raises:
        SidmillError: naming each fact that differs.
    """
    names = "in the published version", "in this run"
    differing = differences(embedding_shards.fingerprint(published[0]), space, names)
    if differing:
        raise SidmillError(
            f"published.path: {published[0]} was embedded with other settings ({differing}): set "
            f"the embedding as it was, or set published.path: null, which gives every item a new "
            f"SID"
        )


def _without(tables: Iterator[pa.Table], reused: np.ndarray) -> Iterator[pa.Table]:
    """The rows that are not reused, in tables as large as those that a shard is read in."""
    waiting: list[pa.Table] = []
    start = 0
    for table in tables:
        waiting.append(table.filter(pa.array(~reused[start : start + table.num_rows])))
        start += table.num_rows
        if sum(table.num_rows for table in waiting) >= parquet.ROWS_PER_GROUP:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, parquet.ROWS_PER_GROUP)
            waiting = [whole.slice(parquet.ROWS_PER_GROUP)]
    last = pa.concat_tables(waiting) if waiting else None
    if last is not None and last.num_rows:
        yield last


def _copy(published: list[str], rows: np.ndarray, dim: int, spill: BinaryIO) -> None:
    """Write the reused rows of the published vectors to a file, in the order of the shard.

    Row groups that hold none of them are not read.
    """
    # Ascending published rows, and the rank of each in the file.
    reused = rows[rows != NONE]
    ranks = np.argsort(reused, kind="stable")
    ascending = reused[ranks]

    # One row group at a time.
    first = 0
    for path in published:
        for group, size in enumerate(embedding_shards.group_sizes(path)):
            begin, end = np.searchsorted(ascending, [first, first + size])
            if begin < end:
                vectors = embedding_shards.read_group(path, group)
                if vectors.shape[1] != dim:
                    raise SidmillError(
                        f"{path}: vectors of {vectors.shape[1]} dimensions, wanted {dim}: take "
                        f"another copy of that version"
                    )
                _scatter(spill, ranks[begin:end], vectors[ascending[begin:end] - first])
            first += size


def _scatter(spill: BinaryIO, ranks: np.ndarray, vectors: np.ndarray) -> None:
    """Write each vector at its rank in the file, runs of consecutive ranks at once."""
    by_rank = np.argsort(ranks)
    runs = np.flatnonzero(np.diff(ranks[by_rank], prepend=-2) != 1)
    for run in np.split(by_rank, runs[1:]):
        spill.seek(int(ranks[run[0]]) * vectors.shape[1] * vectors.itemsize)
        spill.write(np.ascontiguousarray(vectors[run], dtype=np.float32).data)


def _take(
    blocks: Iterator[np.ndarray], spare: list[np.ndarray], n_rows: int, dim: int
) -> np.ndarray:
    """The next rows of the blocks, float32 (n_rows, D); ``spare`` keeps the rest of a block."""
    while sum(map(len, spare)) < n_rows:
        spare.append(next(blocks))
    together = np.concatenate([np.empty((0, dim), dtype=np.float32), *spare])
    spare[:] = [together[n_rows:]]
    return together[:n_rows]
