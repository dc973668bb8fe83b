"""Vectors of one catalogue as users have them: .npy, item_data.h5, or parquet.

    .npy      float16, float32 or float64 (N, D); ids from a file that is named, or of a
              ``vectors.npy`` from the ``ids.parquet`` beside it, if there is one
    .h5       item_data.h5
    .parquet  a file, a folder or a glob: a column of vectors, every one D long; ids from another
              column, if there is one
    others    .npz, .pt, .safetensors, .csv, .faiss, .lance: sidmill.io.vector_containers

What other tools write is read by :mod:`sidmill.io.user_arrays`. Without ids the rows are numbered
from 0. Vectors that cannot be mapped are read in order, any number of times, and never as a whole.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sidmill.core.errors import SidmillError
from sidmill.core.paths import expand
from sidmill.formats import embedding_shards, vector_store
from sidmill.io import parquet, user_arrays
from sidmill.io.vector_containers import numpy_files, opened
from sidmill.io.vector_containers.container import Container, Names

BATCH_ROWS = 4096
BUFFER_BYTES = 2**20  # read at once; by default pyarrow reads a column of a row group whole


@dataclass(frozen=True)
class Streamed:
    """Vectors that can be read in order alone.

    Attributes:
        shape: N and D.
        read: starts from the first row; yields float32 (b, D), N rows in all.
    """

    shape: tuple[int, int]
    read: Callable[[], Iterator[np.ndarray]]

    def __len__(self) -> int:
        """Return N."""
        return self.shape[0]


class VectorFile(NamedTuple):
    """Opened vectors.

    Attributes:
        vectors: N rows of D.
        ids: int64 or string (N,), each once; the rows' numbers where none is known.
        fingerprint: {} where none is known.
        has_ids: whether ids are known.
    """

    vectors: np.ndarray | Streamed
    ids: pa.ChunkedArray
    fingerprint: dict[str, Any]
    has_ids: bool


def open_vectors(
    path: str | Path,
    column: str = "embedding",
    *,
    id_column: str = "pid",
    ids_path: str | Path | None = None,
) -> VectorFile:
    """Open vectors. Memory: the ids, twice; one batch of rows while they are read.

    Args:
        path: one .npy, .h5 or parquet file, a folder or glob of parquet files, or a container.
        column: of the parquet files, with the vectors.
        id_column: of the parquet files, with the ids.
        ids_path: of a .npy: its ids in the same order, .parquet, .npy or .txt.

    Raises:
        SidmillError: if there is no such file or column, the files differ in dimension or
            fingerprint, or hold no row; if an id is null or there twice.
    """
    suffix = Path(path).suffix.lower()
    if opened.is_container(path):
        container = opened.open_container(path, Names(id_column, column))
        return _open_container(path, container, ids_path, id_column)
    if suffix == ".npy":
        bfloat16 = numpy_files.open_npy(str(path))
        if bfloat16 is not None:
            return _open_container(path, bfloat16, ids_path, id_column)
        return _open_npy(Path(path), ids_path, id_column)
    if ids_path:
        raise SidmillError(f"{path} holds its own ids: leave out {ids_path}")
    if suffix == ".h5":
        return _open_h5(path)
    return _open_parquet(str(path), column, id_column)


def open_rows(path: str | Path, column: str = "embedding") -> np.ndarray | Streamed:
    """Open the vectors of one file alone: what ids it has, or whether any, makes no difference.

    Args:
        path: .npy, .h5 or parquet.
        column: of a parquet.

    Raises:
        SidmillError: if there is no such file or column, or it holds no row.
    """
    suffix = Path(path).suffix.lower()
    if opened.is_container(path):
        container = opened.open_container(path, Names(embedding=column))
        return Streamed(container.shape, container.read)
    if suffix == ".h5":
        return _open_h5(path).vectors
    if suffix == ".npy":
        ids_path = vector_store.ids_beside(path)
        if ids_path and vector_store.is_own_ids(ids_path):
            return vector_store.open_store(path, ids_path).vectors
        return _plain_or_cut(user_arrays.open_matrix(path, "its name"))
    file = parquet.open_file(path, {column: user_arrays.holds_vectors})
    first = next(_read_parquet([str(path)], column), None)
    if first is None:
        raise SidmillError(f"{path}: holds no vector")
    shape = (file.metadata.num_rows, first.shape[1])
    return Streamed(shape, partial(_read_parquet, [str(path)], column))


def fingerprint_of(path: str | Path) -> dict[str, Any]:
    """The fingerprint that a parquet carries, or the ids.parquet beside a vectors.npy; else {}."""
    if Path(path).suffix.lower() == ".parquet":
        return parquet.metadata_json(parquet.open_file(path, {}), embedding_shards.FINGERPRINT_KEY)
    ids = vector_store.ids_beside(path)
    return (
        vector_store.open_store(path, ids).fingerprint
        if ids and vector_store.is_own_ids(ids)
        else {}
    )


def _plain_or_cut(mapped: np.ndarray) -> np.ndarray | Streamed:
    """A map that every stage can take, or its rows as they are read."""
    return mapped if user_arrays.is_plain(mapped) else Streamed(mapped.shape, partial(_cut, mapped))


def _open_npy(path: Path, ids_path: str | Path | None, id_column: str) -> VectorFile:
    ids_path = ids_path or vector_store.ids_beside(path)
    if ids_path and vector_store.is_own_ids(ids_path):
        return VectorFile(*vector_store.open_store(path, ids_path), has_ids=True)
    mapped = user_arrays.open_matrix(path, "its name")
    source = _plain_or_cut(mapped)
    if not ids_path:
        return VectorFile(source, _numbered(len(mapped)), {}, has_ids=False)
    ids = _ids_of_file(ids_path, id_column)
    if len(ids) != len(mapped):
        raise SidmillError(
            f"{path} has {len(mapped)} rows, {ids_path} has {len(ids)} ids: they must stand row by "
            f"row"
        )
    return VectorFile(source, ids, {}, has_ids=True)


def _open_container(
    path: str | Path, container: Container, ids_path: str | Path | None, id_column: str
) -> VectorFile:
    source = Streamed(container.shape, container.read)
    if ids_path and container.read_ids is not None:
        raise SidmillError(f"{path} holds its own ids: leave out {ids_path}")
    if ids_path:
        ids = _ids_of_file(ids_path, id_column)
    elif container.read_ids is not None:
        ids = _joined(container.read_ids(), path)
    else:
        return VectorFile(source, _numbered(len(source)), {}, has_ids=False)
    if len(ids) != len(source):
        raise SidmillError(
            f"{path} has {len(source)} rows, {ids_path or path} has {len(ids)} ids: they must "
            f"stand row by row"
        )
    return VectorFile(source, ids, {}, has_ids=True)


def _ids_of_file(path: str | Path, column: str) -> pa.ChunkedArray:
    """All ids of a file; lines of a .txt are integers if all of them are."""
    read = partial(user_arrays.read_ids, path, column, "the file of ids")
    if Path(path).suffix.lower() == ".txt" and not user_arrays.are_integers(path):
        return _joined(read(as_text=True), path)
    return _joined(read(as_text=False), path)


def _joined(blocks: Iterator[pa.ChunkedArray], path: str | Path) -> pa.ChunkedArray:
    """Join blocks of ids and refuse one that is there twice."""
    chunks = [chunk for block in blocks for chunk in block.chunks]
    if len({chunk.type for chunk in chunks}) > 1:
        raise SidmillError(
            f"{path}: ids are integers in one file and text in another: write them alike"
        )
    ids = pa.chunked_array(chunks) if chunks else _ids(np.empty(0, np.int64))
    user_arrays.check_distinct(ids, path)
    return ids


def _open_h5(path: str | Path) -> VectorFile:
    from sidmill.formats.item_data import open_item_data  # other files need no h5py

    data = open_item_data(path)
    with data.file:
        shape = data.embeddings.shape
    return VectorFile(
        Streamed(shape, partial(_read_h5, path)), _ids(data.item_ids), {}, has_ids=True
    )


def _open_parquet(name: str, column: str, id_column: str) -> VectorFile:
    # All files have the column of vectors, and one embedding space.
    paths = expand(name, (".parquet",), "vectors")
    hint = f": name the column of the vectors (column {column!r} is looked for)"
    files = [parquet.open_file(path, {column: user_arrays.holds_vectors}, hint) for path in paths]
    first = next(_read_parquet(paths, column), None)
    if first is None:
        raise SidmillError(f"{paths[0]}: holds no vector")
    prints = [parquet.metadata_json(file, embedding_shards.FINGERPRINT_KEY) for file in files]
    for path, found in zip(paths, prints, strict=True):
        if found != prints[0]:
            raise SidmillError(f"{path} and {paths[0]} are of different embeddings: take one out")

    # All files have ids, or none has.
    n_rows = sum(file.metadata.num_rows for file in files)
    named = [id_column in file.schema_arrow.names for file in files]
    if any(named) and not all(named):
        lacking = paths[named.index(False)]
        raise SidmillError(f"{lacking} has no column {id_column!r}, others have: add it")

    # (N, D), read in order; ids by row number where no file has any.
    source = Streamed((n_rows, first.shape[1]), partial(_read_parquet, paths, column))
    if not all(named):
        if id_column != "pid":
            raise SidmillError(
                f"{paths[0]} has no column {id_column!r}: name the one that holds the ids"
            )
        return VectorFile(source, _numbered(n_rows), prints[0], has_ids=False)
    blocks = (block for path in paths for block in user_arrays.read_id_column(path, id_column))
    return VectorFile(source, _joined(blocks, name), prints[0], has_ids=True)


def _cut(array: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(array), BATCH_ROWS):
        yield user_arrays.rows_of(array, slice(start, start + BATCH_ROWS))


def _read_h5(path: str | Path) -> Iterator[np.ndarray]:
    from sidmill.formats.item_data import open_item_data

    data = open_item_data(path)
    with data.file:
        for start in range(0, len(data.embeddings), BATCH_ROWS):
            yield data.embeddings[start : start + BATCH_ROWS]


def _read_parquet(paths: list[str], column: str) -> Iterator[np.ndarray]:
    dim = None
    for path in paths:
        by_pages = {"buffer_size": BUFFER_BYTES, "pre_buffer": False}
        with parquet.naming(path), pq.ParquetFile(path, **by_pages) as file:
            row = 0
            for batch in file.iter_batches(BATCH_ROWS, columns=[column], use_threads=False):
                if not len(batch):
                    continue
                block = user_arrays.vectors_of(batch[column], path, row)
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
