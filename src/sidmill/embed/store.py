"""Embedding shards -> vectors.npy and ids.parquet, through the gate.

The gate stops the run on a NaN, an infinity, a zero vector, a wrong dimension, an id that is
missing, repeated or out of order, and on shards of different embedding spaces. It repairs nothing.

Shapes: N items, D dimensions.
"""

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.embed.fingerprint import Fingerprint
from sidmill.formats import embedding_shards, item_text, vector_store
from sidmill.settings.embedding import Store

logger = logging.getLogger(__name__)


def store(
    shard_paths: list[str],
    text_path: str,
    vectors_path: str,
    ids_path: str,
    settings: Store,
) -> tuple[int, int]:
    """Write the vectors of all shards into one memory map, in the row order of text.parquet.

    Memory: one row group of vectors, and the ids.

    Args:
        shard_paths: the shards of embeddings.parquet, in order.
        text_path: text.parquet, whose ids the shards have, in this order.
        vectors_path: vectors.npy to write.
        ids_path: ids.parquet to write.
        settings: the type on disk.

    Returns:
        N and D.

    Raises:
        SidmillError: if the gate finds anything.
    """
    # What all shards have in common: the space, the ids in order, the width.
    fingerprint = _one_fingerprint(shard_paths)
    ids = pa.chunked_array([table["pid"].combine_chunks() for table in item_text.read(text_path)])
    _check_unique(ids, text_path)
    dim = _dimension(shard_paths, text_path)
    shape = (len(ids), dim)

    # The vectors through the gate, then the ids with their digests.
    blocks = _gate(shard_paths, ids, dim, settings.dtype)
    sums = vector_store.write(vectors_path, shape, settings.dtype, blocks)
    vector_store.write_ids(ids_path, ids, shape, fingerprint, sums)
    _remove_other_shards(shard_paths)
    logger.info("%d vectors of %d dimensions, %s", *shape, settings.dtype)
    return shape


def _gate(
    shard_paths: list[str], ids: pa.ChunkedArray, dim: int, dtype: str
) -> Iterator[np.ndarray]:
    """Yield the vectors of all shards as they will be stored, each block checked."""
    row = 0
    for path, pids, block in _blocks(shard_paths):
        _check_ids(path, pids, ids.slice(row, len(pids)), row)
        if block.shape[1] != dim:
            raise SidmillError(
                f"{path}: vectors of {block.shape[1]} dimensions, {shard_paths[0]} has {dim}: "
                f"delete the shards of the old width and run again"
            )
        with np.errstate(over="ignore"):
            rounded = block.astype(dtype)
        check_values(rounded, path, pids, dtype)
        yield rounded
        row += len(rounded)


def check_values(block: np.ndarray, path: str, pids: pa.ChunkedArray, dtype: str) -> None:
    """Refuse vectors that are not finite, or zero.

    Args:
        block: float (n, D), as it will be stored.
        path: where it comes from, for the message.
        pids: their ids (n,).
        dtype: the type on disk, for the message: float16 ends at 65,504.

    Raises:
        SidmillError: naming the first such item, and how many there are.
    """
    broken = np.flatnonzero(~np.isfinite(block).all(axis=1))
    if broken.size:
        raise SidmillError(
            f"{path}: {broken.size} vectors hold a NaN or an infinity as {dtype}, first "
            f"that of pid {pids[broken[0]].as_py()!r}: embed "
            f"in bfloat16 or float32 (float16 overflows), and store as float32"
        )
    zero = np.flatnonzero(~block.any(axis=1))
    if zero.size:
        raise SidmillError(
            f"{path}: {zero.size} vectors are all zeros, first that of pid "
            f"{pids[zero[0]].as_py()!r}: its text holds nothing that the embedder knows; give it "
            f"more text, or leave it out of the catalogue"
        )


def _blocks(shard_paths: list[str]) -> Iterator[tuple[str, pa.ChunkedArray, np.ndarray]]:
    for path in shard_paths:
        for pids, block in embedding_shards.read(path):
            yield path, pids, block


def _remove_other_shards(shard_paths: list[str]) -> None:
    """Leave no shard of another shard count in the folder: it is read as one table."""
    names = {Path(path).name for path in shard_paths}
    for folder in sorted({Path(path).parent for path in shard_paths}):
        for stale in sorted(folder.glob("part-*.parquet")):
            if stale.name not in names:
                logger.info("removing %s, left from another number of shards", stale)
                stale.unlink()
        for stale in sorted(folder.glob(".part-*.parquet.chunks")):
            logger.info("removing %s, left by an interrupted run", stale)
            shutil.rmtree(stale, ignore_errors=True)


def _one_fingerprint(shard_paths: list[str]) -> Fingerprint:
    """The fingerprint that all shards have.

    Raises:
        SidmillError: naming a shard of another space, and each fact that differs.
    """
    first: Fingerprint = embedding_shards.fingerprint(shard_paths[0])
    for path in shard_paths[1:]:
        other = embedding_shards.fingerprint(path)
        differing = [key for key in sorted({*first, *other}) if first.get(key) != other.get(key)]
        if differing:
            facts = ", ".join(
                f"{key} {other.get(key)!r}, not {first.get(key)!r}" for key in differing
            )
            raise SidmillError(
                f"{path} was embedded otherwise than {shard_paths[0]} ({facts}): delete the shards "
                f"that are out of date and run again"
            )
    return first


def _dimension(shard_paths: list[str], text_path: str) -> int:
    for _, _, block in _blocks(shard_paths):
        return int(block.shape[1])
    raise SidmillError(f"{text_path}: holds no item, so there is nothing to store")


def _check_unique(ids: pa.ChunkedArray, text_path: str) -> None:
    """Refuse a repeated id. Memory: 8 bytes per integer, some 100 per string, given back."""
    if pa.types.is_integer(ids.type):
        ordered = np.sort(ids.to_numpy())  # a table of integers takes ten times as much
        is_repeated = bool((ordered[1:] == ordered[:-1]).any())
    else:
        is_repeated = len(ids.unique()) != len(ids)
        pa.default_memory_pool().release_unused()
    if is_repeated:
        counts = ids.value_counts()
        repeated = next(entry["values"].as_py() for entry in counts if entry["counts"].as_py() > 1)
        raise SidmillError(f"{text_path}: pid {repeated!r} is listed more than once")


def _check_ids(path: str, pids: pa.ChunkedArray, expected: pa.ChunkedArray, row: int) -> None:
    """Compare ids of a shard with those of the catalogue from ``row`` on."""
    if pids.equals(expected):
        return
    pairs = zip(pids.to_pylist(), expected.to_pylist(), strict=False)
    first = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(pids), len(expected)))
    found = pids[first].as_py() if first < len(pids) else None
    wanted = expected[first].as_py() if first < len(expected) else None
    raise SidmillError(
        f"{path}: pid {found!r} where the catalogue has {wanted!r} (row {row + first}): the shard "
        f"is of another catalogue; delete it and run again"
    )
