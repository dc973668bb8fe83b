"""Vectors as a user has them: a .npy, with or without ids, or a folder of embedding shards."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.core.paths import expand
from sidmill.formats import embeddings, vectors

GIB = 1 << 30


@contextmanager
def open_vectors(
    path: str, ids_path: str | None, scratch: str | None
) -> Iterator[vectors.VectorStore]:
    """Open vectors read-only; ids are empty and the fingerprint is {} where none is known.

    Shards are copied to a temporary .npy of 4 N D bytes, so that memory stays at one row group. A
    vectors.npy with an ``ids.parquet`` beside it takes that one.

    Args:
        path: a .npy, one parquet of embeddings, or a folder of such.
        ids_path: ids.parquet of a .npy, or None.
        scratch: an existing folder for the copy; None for the system's temporary one.

    Raises:
        SidmillError: if there is no such file, or it is of another form; if ``scratch`` has no
            room for the copy.
    """
    if path.endswith(".npy"):
        if ids := ids_path or vectors.ids_beside(path):
            yield vectors.open_store(path, ids)
        else:
            yield vectors.VectorStore(vectors.open_npy(path), pa.chunked_array([pa.nulls(0)]), {})
        return
    if ids_path:
        raise SidmillError(f"{path} holds its own ids: leave out {ids_path}")
    with tempfile.TemporaryDirectory(prefix="sidmill-", dir=scratch) as folder:
        yield _copy_shards(expand(path, (".parquet",), "--vectors"), Path(folder) / "vectors.npy")


def _copy_shards(shards: list[str], target: Path) -> vectors.VectorStore:
    counts = [sum(embeddings.group_sizes(shard)) for shard in shards]
    fingerprint = embeddings.fingerprint(shards[0])
    for shard in shards[1:]:
        if embeddings.fingerprint(shard) != fingerprint:
            raise SidmillError(f"{shard} and {shards[0]} are of different embeddings")
    rows = chain.from_iterable(embeddings.read(shard) for shard in shards)
    first = next(rows, None)
    if first is None:
        raise SidmillError(f"{shards[0]}: holds no embedding")
    shape = (sum(counts), first[1].shape[1])
    wanted, free = 4 * shape[0] * shape[1], shutil.disk_usage(target.parent).free
    if wanted > free:
        raise SidmillError(
            f"{target.parent.parent} has {free / GIB:.1f} GiB free, a copy of {shape[0]} vectors "
            f"of {shape[1]} takes {wanted / GIB:.1f}: name a folder with room by --scratch"
        )
    ids: list[pa.ChunkedArray] = []

    def vectors_alone() -> Iterator[np.ndarray]:
        for pids, block in chain([first], rows):
            ids.append(pids)
            yield block

    vectors.write(target, shape, "float32", vectors_alone())
    chunks = [chunk for pids in ids for chunk in pids.chunks]
    if len({chunk.type for chunk in chunks}) > 1:
        raise SidmillError(
            f"{shards[0]}: ids are integers in one file of its folder and text in another: write "
            f"all of them as one"
        )
    return vectors.VectorStore(vectors.open_npy(target), pa.chunked_array(chunks), fingerprint)
