"""Vectors that the user made elsewhere, found by item id or taken in the order of the catalogue.

Accepted: what :mod:`sidmill.io.user_arrays` reads, in a parquet file or folder with a column of
ids and one of vectors (SIDMill's own embeddings.parquet too), or in a .npy matrix beside a list of
ids in the same row order; and what :mod:`sidmill.io.vector_containers` reads: .npz, .pt,
.safetensors, .csv, a faiss index, a Lance table.
"""

import logging
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.core.paths import expand
from sidmill.embed import fingerprint
from sidmill.embed.backend import Backend, Run, unit_rows
from sidmill.embed.progress import Advance
from sidmill.embed.throughput import Encoded, Work
from sidmill.formats import item_text
from sidmill.io import id_lookup, parquet, user_arrays
from sidmill.io.vector_containers import numpy_files, opened
from sidmill.io.vector_containers.container import Container, Names
from sidmill.settings.embedding import Embedding

logger = logging.getLogger(__name__)

BLOCK_ROWS = 2048  # vectors of a parquet file that are read at once
NAMED_IDS = 5  # ids that an error message names
HINT = ": name the columns of your file in embedding.fields"
IDS = Callable[[], Iterable[pa.ChunkedArray]]


class Found(NamedTuple):
    """Vectors of n items: their D, and how to read them, float32 (b, D) blocks in item order."""

    dim: int
    read: Callable[[], Iterator[np.ndarray]]


class RowGroup(NamedTuple):
    """A piece of a parquet source: rows ``first`` to ``first + rows`` of all files together.

    ``before`` is the number of rows before it in its file.
    """

    path: str
    number: int
    first: int
    rows: int
    before: int


def load(settings: Embedding, run: Run) -> Backend:
    """Take vectors that the user made elsewhere.

    Args:
        settings: where the vectors are; ``model`` is a name for their embedding space.
        run: reads the ids of the texts; with ``rows: catalogue`` also text.parquet, whose order
            the rows of the source have.

    Raises:
        SidmillError: if an item has no vector, or the source is not as the settings say.
    """
    if not settings.model:
        raise SidmillError(
            "embedding.model is null: with embedding.backend: precomputed it is a name for the "
            "space of your vectors, such as qwen3-embedding-8b"
        )

    # All vectors of the texts to come, in their order.
    order_path = run.text_path if settings.rows == "catalogue" else None
    found = find(run.read_pids(), settings, order_path)

    def stream(chunks: Iterator[list[str]], advance: Advance) -> Iterator[Encoded]:
        blocks, waiting = found.read(), np.empty((0, found.dim), dtype=np.float32)
        for texts in chunks:
            vectors = np.empty((len(texts), found.dim), dtype=np.float32)
            filled = 0
            while filled < len(texts):
                if not len(waiting):
                    waiting = next(blocks)
                piece = waiting[: len(texts) - filled]
                vectors[filled : filled + len(piece)] = piece
                filled, waiting = filled + len(piece), waiting[len(piece) :]
            advance(len(texts))
            yield Encoded(
                unit_rows(vectors) if settings.normalize else vectors, Work(texts=len(texts))
            )

    space = fingerprint.make(
        settings,
        model=settings.model,
        revision=settings.revision,
        pooling="",
        dim=found.dim,
        dtype="float32",
        max_length=None,
    )
    return Backend(stream, space)


def gather(pids: pa.Array, settings: Embedding, order_path: str | None = None) -> np.ndarray:
    """Fetch the vectors of some items into memory: float32 (n, D), arguments as of :func:`find`."""
    found = find(pids, settings, order_path)
    blocks = list(found.read())
    if len(blocks) == 1:
        return blocks[0]
    return np.concatenate(blocks) if blocks else np.empty((0, found.dim), dtype=np.float32)


def find(pids: pa.Array, settings: Embedding, order_path: str | None = None) -> Found:
    """Find the vectors of some items.

    Rows of the source may stand in any order, and there may be more of them: vectors that are not
    asked for are not looked at. Memory: 8 bytes per id of the source, some 100 per item, and one
    block of the source (a row group, for parquet); and the vectors asked for, unless a parquet
    source has them in the order of the items.

    Args:
        pids: int64 or string (n,), distinct.
        settings: ``path`` is a parquet file, folder or glob, a .npy file of floats (N, D), or a
            container; ``ids_path`` for vectors without ids the ids of the rows: parquet with a
            column of ids, .npy, or .txt (UTF-8) with one id per line. ``dim``: D that the vectors
            must have, or null.
        order_path: text.parquet whose items the rows of the source are, in its order; in place of
            ids. None: the source has ids.

    Returns:
        The vectors in the order of ``pids``, values as they are in the source (float64 is rounded).

    Raises:
        SidmillError: if an item has no vector, an id is listed twice or is null, or the files
            are not as described.
    """
    if settings.path is None:
        raise SidmillError(
            "embedding.path is null: with embedding.backend: precomputed it names the parquet or "
            ".npy file of your vectors"
        )

    # One .npy, one container, or any number of parquet files.
    if opened.is_container(settings.path):
        names = Names(settings.fields.pid, settings.fields.embedding)
        container = opened.open_container(settings.path, names)
        return _in_memory(_from_container(pids, settings.path, container, settings, order_path))
    files = expand(settings.path, (".parquet", ".npy"), "embedding.path")
    arrays = [file for file in files if file.lower().endswith(".npy")]
    if arrays and len(files) > 1:
        raise SidmillError(
            f"embedding.path: {settings.path} holds {len(files)} files, {arrays[0]} among them: "
            f"name one .npy file, or a folder that holds parquet files alone"
        )
    if arrays:
        bfloat16 = numpy_files.open_npy(arrays[0])
        if bfloat16 is not None:
            return _in_memory(_from_container(pids, arrays[0], bfloat16, settings, order_path))
        return _in_memory(_from_npy(pids, arrays[0], settings, order_path))
    if settings.ids_path is not None:
        raise SidmillError(
            f"embedding.ids_path is {settings.ids_path}, but {settings.path} is parquet and holds "
            f"its ids: set null"
        )
    return _from_parquet(pids, files, settings, order_path)


def _in_memory(vectors: np.ndarray) -> Found:
    """Vectors that are read already."""
    return Found(vectors.shape[1], lambda: iter([vectors]))


def _ids_in_order(order_path: str) -> Iterator[pa.ChunkedArray]:
    """The ids of text.parquet, for a source in its order."""
    return (table["pid"] for table in item_text.read(order_path))


def _from_container(
    pids: pa.Array, path: str, source: Container, settings: Embedding, order_path: str | None
) -> np.ndarray:
    """Fetch vectors from a container, which is read once from its beginning to its end."""
    ids_path, read_own = settings.ids_path, source.read_ids
    if order_path is None and ids_path is None and read_own is None:
        raise SidmillError(
            f"{path} holds no ids named {settings.fields.pid!r}: set embedding.fields.pid to their "
            f"name, embedding.ids_path to a file with the id of each row, or embedding.rows: "
            f"catalogue, if row i is that of item i"
        )
    if ids_path is not None and read_own is not None:
        raise SidmillError(
            f"embedding.ids_path is {ids_path}, but {path} holds ids named "
            f"{settings.fields.pid!r}: set null"
        )

    def read_ids() -> Iterable[pa.ChunkedArray]:
        if read_own is not None and not order_path:
            return (_as_asked(ids, pids.type) for ids in read_own())
        return _ids_beside(pids.type, settings, order_path)

    # The row of each item, int64 (n,).
    named = order_path or ids_path or path
    _check_dim(path, source.shape[1], settings.dim)
    rows, n_ids = _locate(pids, read_ids, named)
    _check_count(path, source.shape[0], named, n_ids)

    # Their vectors, (n, D), block by block in the order of the container.
    vectors = np.empty((len(pids), source.shape[1]), dtype=np.float32)
    order = np.argsort(rows)
    ascending, first = rows[order], 0
    for block in source.read():
        begin, end = np.searchsorted(ascending, (first, first + len(block)))
        vectors[order[begin:end]] = block[ascending[begin:end] - first]
        first += len(block)
    return vectors


def _as_asked(ids: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Ids of a container that has integers only, where those of the items are text: as text."""
    return ids.cast(pa.string()) if pa.types.is_integer(ids.type) and kind == pa.string() else ids


def _ids_beside(
    kind: pa.DataType, settings: Embedding, order_path: str | None
) -> Iterable[pa.ChunkedArray]:
    """Ids of rows that have none of their own: those of the catalogue, or of ``ids_path``."""
    if order_path:
        return _ids_in_order(order_path)
    as_text = not pa.types.is_integer(kind)
    return user_arrays.read_ids(
        str(settings.ids_path), settings.fields.pid, "embedding.ids_path", as_text=as_text
    )


def _from_npy(pids: pa.Array, path: str, settings: Embedding, order_path: str | None) -> np.ndarray:
    """Fetch vectors from a matrix whose ids stand in another file."""
    named = order_path or settings.ids_path
    if named is None:
        raise SidmillError(
            f"embedding.ids_path is null: {settings.path} holds no ids; name a parquet, .npy or "
            f".txt file with the id of each row, or set embedding.rows: catalogue, if row i is "
            f"that of item i"
        )

    # The row of each item, int64 (n,).
    source = user_arrays.open_matrix(path, "embedding.path")
    _check_dim(path, source.shape[1], settings.dim)
    rows, n_ids = _locate(pids, partial(_ids_beside, pids.type, settings, order_path), named)
    _check_count(path, len(source), named, n_ids)

    # Their vectors, (n, D): the file is read forwards.
    vectors = np.empty((len(pids), source.shape[1]), dtype=np.float32)
    order = np.argsort(rows)
    for start in range(0, len(order), user_arrays.BLOCK_ROWS):
        block = order[start : start + user_arrays.BLOCK_ROWS]
        vectors[block] = user_arrays.rows_of(source, rows[block])
    return vectors


def _from_parquet(
    pids: pa.Array, files: list[str], settings: Embedding, order_path: str | None
) -> Found:
    """Find vectors from parquet files with ids, or in the order of the catalogue."""
    path, column = str(settings.path), settings.fields.embedding
    groups = [group for group in _row_groups(files, column) if group.rows]
    if not groups:
        raise SidmillError(f"{path}: no vectors in it: check embedding.path")

    def read_ids() -> Iterator[pa.ChunkedArray]:
        if order_path:
            yield from _ids_in_order(order_path)
            return
        for file in files:
            yield from user_arrays.read_id_column(file, settings.fields.pid, HINT)

    # The row of each item, int64 (n,), counted through all files.
    rows, n_ids = _locate(pids, read_ids, path)
    if order_path:
        _check_count(path, groups[-1].first + groups[-1].rows, "the catalogue", n_ids)
    order = np.argsort(rows)
    ascending = rows[order]

    # The width is that of the first vector that is asked for.
    first = int(ascending[0]) if len(ascending) else 0
    home = next(group for group in groups if first < group.first + group.rows)
    read = _read_group(_open(home.path, column), home, column, np.array([first - home.first]))
    width = next(read).shape[1]
    read.close()
    _check_dim(home.path, width, settings.dim)

    def blocks() -> Iterator[tuple[slice, np.ndarray]]:
        """Blocks of ``ascending``; row groups that hold none of them are not read."""
        file: parquet.Parquet | None = None
        for group in groups:
            begin, end = np.searchsorted(ascending, (group.first, group.first + group.rows))
            if begin < end:
                if file is None or file.path != group.path:
                    file = _open(group.path, column)
                for block in _read_group(file, group, column, ascending[begin:end] - group.first):
                    _check_dim(group.path, block.shape[1], width)
                    yield slice(begin, begin + len(block)), block
                    begin += len(block)

    # In the order of the items they are read as they are asked for.
    if (ascending == rows).all():
        return Found(width, lambda: (block for _, block in blocks()))
    vectors = np.empty((len(pids), width), dtype=np.float32)
    for span, block in blocks():
        vectors[order[span]] = block
    return _in_memory(vectors)


def _row_groups(paths: list[str], column: str) -> Iterator[RowGroup]:
    """The row groups of all files, in order; their rows are counted through all files."""
    first = 0
    for path in paths:
        metadata = _open(path, column).metadata
        before = 0
        for number in range(metadata.num_row_groups):
            rows = metadata.row_group(number).num_rows
            yield RowGroup(path, number, first, rows, before)
            first += rows
            before += rows


def _open(path: str, column: str) -> parquet.Parquet:
    return parquet.open_file(path, {column: user_arrays.holds_vectors}, HINT)


def _read_group(
    file: parquet.Parquet, group: RowGroup, column: str, rows: np.ndarray
) -> Generator[np.ndarray, None, None]:
    """Some vectors of a row group, by their rows in it, ascending: float32 (b, D) blocks.

    Those of other rows are not looked at. Memory: ``BLOCK_ROWS`` vectors.
    """
    passed = 0
    for batch in file.iter_batches(BLOCK_ROWS, row_groups=[group.number], columns=[column]):
        begin, end = np.searchsorted(rows, (passed, passed + len(batch)))
        if begin < end:
            lists = batch.column(0)
            if end - begin < len(lists):
                lists = lists.take(pa.array(rows[begin:end] - passed))
            chunked = pa.chunked_array([lists])
            yield user_arrays.vectors_of(chunked, group.path, rows[begin:end] + group.before)
        passed += len(batch)
        del batch
        pa.default_memory_pool().release_unused()  # of the batch and its pages


def _locate(pids: pa.Array, read_ids: IDS, source: str) -> tuple[np.ndarray, int]:
    """Find the source row of every item.

    Args:
        pids: of the items.
        read_ids: reads the ids of the source from the start, block by block.
        source: where the ids stand, for the message.

    Returns:
        int64 (n,), and the number of rows in the source.
    """
    # Look up each block of ids; an item that was not met keeps -1.
    lookup = id_lookup.make(pids)
    rows = np.full(len(pids), -1, dtype=np.int64)
    total = n_hits = 0
    keys = []
    for ids in read_ids():
        if pa.types.is_integer(ids.type) != pa.types.is_integer(pids.type):
            raise SidmillError(
                f"{source}: ids are {ids.type}, those of the items are {pids.type}: write them as "
                f"{pids.type}, or set items.id_type"
            )
        items = id_lookup.find(lookup, ids, source)
        hits = np.flatnonzero(items != id_lookup.ABSENT)
        rows[items[hits]] = total + hits
        total += len(ids)
        n_hits += hits.size
        keys.append(user_arrays.keys_of(ids))

    # Every id once, and one for every item.
    user_arrays.refuse_repeats(keys, read_ids, source)
    missing = np.flatnonzero(rows < 0)
    if missing.size:
        names = ", ".join(repr(pid) for pid in pids.take(pa.array(missing[:NAMED_IDS])).to_pylist())
        raise SidmillError(
            f"{missing.size} of {len(pids)} items have no vector in {source}, first {names}: add "
            f"them there, or take the items out of the catalogue"
        )
    logger.info("%s: %d of %d rows belong to this shard", source, n_hits, total)
    pa.default_memory_pool().release_unused()  # of the ids
    return rows, total


def _check_count(path: str | Path, rows: int, ids_path: str, ids: int) -> None:
    if rows != ids:
        raise SidmillError(
            f"{path} has {rows} rows, {ids_path} has {ids} ids: they must stand row by row"
        )


def _check_dim(path: str, width: int, dim: int | None) -> None:
    if not width:
        raise SidmillError(f"{path}: vectors have no dimensions: their lists are empty")
    if dim is not None and width != dim:
        raise SidmillError(
            f"{path}: vectors have {width} dimensions, wanted {dim}: set embedding.dim to what "
            f"your vectors have, or null"
        )
