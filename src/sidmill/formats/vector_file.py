"""Vectors of one catalogue as users have them: .npy, item_data.h5, or parquet.

    .npy      float32 or float16 (N, D); ids of a ``vectors.npy`` from the
              ``ids.parquet`` beside it, if there is one
    .h5       item_data.h5
    .parquet  a file, a folder or a glob: a list column, float16, float32 or float64, every list D
              long; ids from ``pid``, if there is such a column

Without ids the rows are numbered from 0. What is no .npy is read in order, as often as one likes,
and never as a whole.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sidmill.core.errors import SidmillError
from sidmill.core.paths import expand
from sidmill.formats import embeddings, parquet, vectors
from sidmill.formats.item_data import open_item_data

BATCH_ROWS = 4096
BUFFER_BYTES = 2**20  # read at once; by default pyarrow reads a column of a row group whole


@dataclass(frozen=True)
class Streamed:
    """Vectors that can be read in order alone.

    Attributes:
        shape: N and D.
        read: starts anew; yields float32 (b, D), N rows in all.
    """

    shape: tuple[int, int]
    read: Callable[[], Iterator[np.ndarray]]

    def __len__(self) -> int:
        """Return N."""
        return self.shape[0]


class VectorFile(NamedTuple):
    """Opened vectors: ``ids`` has N rows, ``fingerprint`` is {} where none is known."""

    vectors: np.ndarray | Streamed
    ids: pa.ChunkedArray
    fingerprint: dict


def open_vectors(path: str | Path, column: str = "embedding") -> VectorFile:
    """Open vectors. Memory: the ids; one batch of rows while they are read.

    Args:
        path: one .npy, .h5 or parquet file, or a folder or glob of parquet files.
        column: of the parquet files.

    Raises:
        SidmillError: if there is no such file or column, the files differ in dimension or
            fingerprint, or hold no row.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".npy":
        return _open_npy(Path(path))
    if suffix == ".h5":
        return _open_h5(path)
    return _open_parquet(expand(str(path), (".parquet",), "vectors"), column)


def _open_npy(path: Path) -> VectorFile:
    if ids := vectors.ids_beside(path):
        return VectorFile(*vectors.open_store(path, ids))
    mapped = vectors.open_npy(path)
    return VectorFile(mapped, _numbered(len(mapped)), {})


def _open_h5(path: str | Path) -> VectorFile:
    data = open_item_data(path)
    with data.file:
        shape = data.embeddings.shape
    return VectorFile(Streamed(shape, partial(_read_h5, path)), _ids(data.item_ids), {})


def _open_parquet(paths: list[str], column: str) -> VectorFile:
    first = next(_read_parquet(paths, column), None)
    if first is None:
        raise SidmillError(f"{paths[0]}: holds no vector")
    files = [parquet.open_file(path, {column: embeddings.LISTS}) for path in paths]
    prints = [parquet.metadata_json(file, embeddings.FINGERPRINT_KEY) for file in files]
    for path, found in zip(paths, prints, strict=True):
        if found != prints[0]:
            raise SidmillError(f"{path} and {paths[0]} are of different embeddings: take one out")
    n_rows = sum(file.metadata.num_rows for file in files)
    named = ["pid" in file.schema_arrow.names for file in files]
    if any(named) and not all(named):
        raise SidmillError(f"{paths[named.index(False)]} has no column 'pid', others have: add it")
    ids = (
        [chunk for path in paths for chunk in vectors.read_pids(path).chunks] if all(named) else []
    )
    if len({chunk.type for chunk in ids}) > 1:
        raise SidmillError(f"{paths[0]}: ids are integers in one file and text in another")
    return VectorFile(
        Streamed((n_rows, first.shape[1]), partial(_read_parquet, paths, column)),
        pa.chunked_array(ids) if ids else _numbered(n_rows),
        prints[0],
    )


def _read_h5(path: str | Path) -> Iterator[np.ndarray]:
    data = open_item_data(path)
    with data.file:
        for start in range(0, len(data.embeddings), BATCH_ROWS):
            yield data.embeddings[start : start + BATCH_ROWS]


def _read_parquet(paths: list[str], column: str) -> Iterator[np.ndarray]:
    dim = None
    for path in paths:
        parquet.open_file(path, {column: embeddings.LISTS})
        by_pages = {"buffer_size": BUFFER_BYTES, "pre_buffer": False}
        with parquet.naming(path), pq.ParquetFile(path, **by_pages) as file:
            row = 0
            for batch in file.iter_batches(BATCH_ROWS, columns=[column], use_threads=False):
                if not len(batch):
                    continue
                block = embeddings.vectors_of(batch[column], path, row)
                dim = dim or block.shape[1]
                if block.shape[1] != dim:
                    raise SidmillError(
                        f"{path}: row {row} has {block.shape[1]} dimensions, the rows before it "
                        f"have {dim}: take vectors of one model"
                    )
                yield block
                row += len(block)


def _numbered(n_rows: int) -> pa.ChunkedArray:
    return _ids(np.arange(n_rows))


def _ids(values: np.ndarray) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, pa.int64())])
