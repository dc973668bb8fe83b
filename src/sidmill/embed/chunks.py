"""Chunks of a shard, kept on disk until the shard is whole, so that a killed job resumes.

A chunk is a fixed number of rows. Its file holds the vectors of the texts that stand in the shard
for the first time, so identical texts are computed once. The file is named after everything its
bytes follow from: the embedding space, the code, and all texts up to its end. A file of another
name is not used. A second file, written after it, holds digests of its bytes: a resumed run
computes a chunk again whose bytes have changed, and a shard is put together only from chunks whose
bytes have not.

Shapes: n rows of the shard, C chunks, D dimensions.
"""

import json
import logging
import shutil
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.formats import item_text, vector_store
from sidmill.io import json_report, row_digests

logger = logging.getLogger(__name__)


class Plan(NamedTuple):
    """Which texts each chunk computes.

    Attributes:
        folder: folder of the chunks until the shard is written.
        start: first row of the shard in text.parquet.
        rows: rows per chunk.
        first: int64 (n,), the row of the shard in which each row's text stands first.
        keys: name of each chunk, C of them.
    """

    folder: Path
    start: int
    rows: int
    first: np.ndarray
    keys: list[str]

    def bounds(self, chunk: int) -> tuple[int, int]:
        """First row of a chunk in the shard, and the row after its last."""
        return chunk * self.rows, min((chunk + 1) * self.rows, len(self.first))

    def new(self, chunk: int) -> np.ndarray:
        """Rows of the shard whose text a chunk computes, int64."""
        begin, end = self.bounds(chunk)
        return begin + np.flatnonzero(self.first[begin:end] == np.arange(begin, end))

    def path(self, chunk: int) -> Path:
        """File of a chunk: float32 (texts that it computes, D)."""
        return self.folder / f"{chunk:06d}-{self.keys[chunk]}.npy"

    def sums_path(self, chunk: int) -> Path:
        """File of the digests of that file."""
        return self.path(chunk).with_suffix(".json")


def folder_of(shard_path: str | Path) -> Path:
    """Folder of a shard's chunks, next to it; readers of the shards skip hidden names."""
    path = Path(shard_path)
    return path.with_name(f".{path.name}.chunks")


def plan(
    text_path: str, shard_path: str, start: int, stop: int, *, rows: int, identity: dict[str, Any]
) -> Plan:
    """Read the texts of a shard once, and assign each different text to a chunk.

    Memory: about 80 bytes per row while it runs, 8 afterwards.

    Args:
        text_path: text.parquet.
        shard_path: the shard's file; its chunks lie next to it.
        start: first row of the shard.
        stop: row after its last.
        rows: rows per chunk.
        identity: what vectors follow from besides their text, JSON.
    """
    # The name of a chunk follows from all texts up to its end.
    digests = item_text.digests(text_path, start, stop)
    running = blake2b(json.dumps([identity, rows], sort_keys=True).encode(), digest_size=12)
    keys = []
    for begin in range(0, len(digests), rows):
        running.update(digests[begin : begin + rows].tobytes())
        keys.append(running.copy().hexdigest())

    # For each row the row in which its text stands first, int64 (n,).
    _, first, text = np.unique(digests, return_index=True, return_inverse=True)
    return Plan(folder_of(shard_path), start, rows, first[text], keys)


def done(plan: Plan, chunk: int, dim: int) -> bool:
    """Tell whether the file of a chunk exists, with the bytes that were written, in its shape."""
    if not plan.sums_path(chunk).exists():
        return False
    try:
        return _open(plan, chunk).shape == (len(plan.new(chunk)), dim)
    except SidmillError as error:
        logger.warning("computed again: %s", error)
        return False


def texts(plan: Plan, text_path: str, chunk: int) -> list[str]:
    """The texts that a chunk computes, in row order."""
    begin, end = plan.bounds(chunk)
    tables = item_text.read(text_path, plan.start + begin, plan.start + end)
    column = pa.chunked_array([array for t in tables for array in t["text"].chunks], pa.string())
    new: list[str] = column.take(plan.new(chunk) - begin).to_pylist()
    return new


def keep(plan: Plan, chunk: int, vectors: np.ndarray) -> None:
    """Write the vectors of a chunk, atomically, then their digests."""
    plan.sums_path(chunk).unlink(missing_ok=True)
    sums = vector_store.write(plan.path(chunk), vectors.shape, "float32", [vectors])
    json_report.write(plan.sums_path(chunk), {"xxh3_64": sums})


def assemble(plan: Plan, text_path: str) -> Iterator[tuple[pa.ChunkedArray, np.ndarray]]:
    """Yield the ids of the shard with their vectors, chunk by chunk, from the chunks' files.

    Memory: one chunk; vectors of texts that stood in earlier chunks come from their maps.

    Raises:
        SidmillError: naming a chunk whose bytes are not those that were written.
    """
    # How many different texts there are up to each row, and before each chunk.
    maps = [_open(plan, chunk) for chunk in range(len(plan.keys))]
    is_new = plan.first == np.arange(len(plan.first))
    n_new = np.cumsum(is_new)
    n_before = np.concatenate([[0], n_new])[np.arange(len(plan.keys)) * plan.rows]

    for chunk in range(len(plan.keys)):
        # (b, D): each row from the chunk that computed its text.
        begin, end = plan.bounds(chunk)
        firsts = plan.first[begin:end]
        homes = firsts // plan.rows
        block = np.empty((end - begin, maps[chunk].shape[1]), dtype=np.float32)
        for home in np.unique(homes):
            rows = homes == home
            block[rows] = maps[home][n_new[firsts[rows]] - 1 - n_before[home]]

        # Their ids.
        tables = item_text.read(text_path, plan.start + begin, plan.start + end)
        pids = [array for table in tables for array in table["pid"].chunks]
        yield pa.chunked_array(pids), block


def _open(plan: Plan, chunk: int) -> np.ndarray:
    """Map the vectors of a chunk once all of its bytes are checked."""
    path = plan.path(chunk)
    sums = json_report.read(plan.sums_path(chunk)).get("xxh3_64", [])
    vectors = vector_store.open_npy(path)
    if len(sums) != -(-path.stat().st_size // row_digests.PORTION):
        raise SidmillError(f"{plan.sums_path(chunk)}: not the digests of {path}: delete both")
    row_digests.check(path, sums, range(len(sums)), row_digests.PORTION)
    return vectors


def clear(plan: Plan) -> None:
    """Remove the chunks of a shard that is written."""
    shutil.rmtree(plan.folder, ignore_errors=True)
