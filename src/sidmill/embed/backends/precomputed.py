"""Vectors that the user made elsewhere, found by item id or taken in the order of the catalogue.

Accepted: what :mod:`sidmill.io.user_arrays` reads, in a parquet file or folder with a column of
ids and one of vectors (SIDMill's own embeddings.parquet too), or in a .npy matrix beside a list of
ids in the same row order.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.core.paths import expand
from sidmill.formats import item_text
from sidmill.io import parquet, user_arrays

logger = logging.getLogger(__name__)

NAMED_IDS = 5  # ids that an error message names
FIELDS = {"pid": "pid", "embedding": "embedding"}
HINT = ": name the columns of your file in embedding.fields"
IDS = Callable[[], Iterable[pa.ChunkedArray]]


class RowGroup(NamedTuple):
    """A piece of a parquet source: rows ``first`` to ``first + rows`` of all files together."""

    path: str
    number: int
    first: int
    rows: int


def gather(
    pids: pa.Array,
    *,
    path: str | None,
    ids_path: str | None,
    dim: int | None,
    fields: dict | None = None,
    order_path: str | None = None,
) -> np.ndarray:
    """Fetch the vectors of some items.

    Rows of the source may stand in any order, and there may be more of them: vectors that are not
    asked for are not looked at. Memory: the vectors asked for, 8 bytes per id of the source, and
    one block of it (a row group, for parquet).

    Args:
        pids: int64 or string (n,), distinct.
        path: parquet file, folder or glob; or a .npy file of floats (N, D).
        ids_path: for .npy the ids of its rows: parquet with a column of ids, .npy, or .txt (UTF-8)
            with one id per line.
        dim: D that the vectors must have, or null.
        fields: names of the columns ``pid`` and ``embedding``; None: these.
        order_path: text.parquet whose items the rows of the source are, in its order; in place of
            ids. None: the source has ids.

    Returns:
        float32 (n, D), in the order of ``pids``, values as they are in the source (float64 is
        rounded).

    Raises:
        SidmillError: if an item has no vector, an id stands there twice or is null, or the files
            are not as described.
    """
    if path is None:
        raise SidmillError(
            "embedding.path is null: with embedding.backend: precomputed it names the parquet or "
            ".npy file of your vectors"
        )
    files = expand(path, (".parquet", ".npy"), "embedding.path")
    arrays = [file for file in files if file.lower().endswith(".npy")]
    if arrays and len(files) > 1:
        raise SidmillError(
            f"embedding.path: {path} holds {len(files)} files, {arrays[0]} among them: name one "
            f".npy file, or a folder that holds parquet files alone"
        )
    names = FIELDS | (fields or {})
    as_text = not pa.types.is_integer(pids.type)
    if arrays:
        if ids_path is None and order_path is None:
            raise SidmillError(
                f"embedding.ids_path is null: {path} holds no ids; name a parquet, .npy or .txt "
                f"file with the id of each row, or set embedding.rows: catalogue, if row i is that "
                f"of item i"
            )
        named = order_path or ids_path
        return _from_npy(
            pids,
            arrays[0],
            _in_order(order_path)
            or (
                lambda: user_arrays.read_ids(
                    named, names["pid"], "embedding.ids_path", as_text=as_text
                )
            ),
            named,
            dim,
        )
    if ids_path is not None:
        raise SidmillError(
            f"embedding.ids_path is {ids_path}, but {path} is parquet and holds its ids: set null"
        )
    return _from_parquet(pids, path, files, names, _in_order(order_path), dim)


def _in_order(order_path: str | None) -> IDS | None:
    """The ids of text.parquet, for a source in its order."""
    if order_path is None:
        return None
    return lambda: (table["pid"] for table in item_text.read(order_path))


def _from_npy(
    pids: pa.Array, path: str, read_ids: IDS, ids_path: str, dim: int | None
) -> np.ndarray:
    source = user_arrays.open_matrix(path, "embedding.path")
    _check_dim(path, source.shape[1], dim)
    rows, total = _locate(pids, read_ids, ids_path)
    _check_count(path, len(source), ids_path, total)
    found = np.empty((len(pids), source.shape[1]), dtype=np.float32)
    order = np.argsort(rows)  # the file is read forwards
    for start in range(0, len(order), user_arrays.BLOCK_ROWS):
        block = order[start : start + user_arrays.BLOCK_ROWS]
        found[block] = user_arrays.rows_of(source, rows[block])
    return found


def _from_parquet(
    pids: pa.Array, path: str, files: list[str], names: dict, in_order: IDS | None, dim: int | None
) -> np.ndarray:
    groups = [group for group in _row_groups(files, names["embedding"]) if group.rows]
    if not groups:
        raise SidmillError(f"{path}: no vectors in it: check embedding.path")

    def read_ids() -> Iterator[pa.ChunkedArray]:
        for file in files:
            yield from user_arrays.read_id_column(file, names["pid"], HINT)

    rows, total = _locate(pids, in_order or read_ids, path)
    if in_order:
        _check_count(path, groups[-1].first + groups[-1].rows, "the catalogue", total)
    order = np.argsort(rows)
    in_rows = rows[order]

    # The width is that of the first vector that is asked for.
    first = int(in_rows[0]) if len(in_rows) else 0
    home = next(group for group in groups if first < group.first + group.rows)
    width = _read_group(home, names["embedding"], np.array([first - home.first])).shape[1]
    _check_dim(home.path, width, dim)

    found = np.empty((len(pids), width), dtype=np.float32)
    for group in groups:
        begin, end = np.searchsorted(in_rows, (group.first, group.first + group.rows))
        if begin < end:
            block = _read_group(group, names["embedding"], in_rows[begin:end] - group.first)
            _check_dim(group.path, block.shape[1], width)
            found[order[begin:end]] = block
    return found


def _row_groups(paths: list[str], column: str) -> Iterator[RowGroup]:
    """The row groups of all files, in order; their rows are counted through all files."""
    first = 0
    for path in paths:
        metadata = parquet.open_file(path, {column: user_arrays.holds_vectors}, HINT).metadata
        for number in range(metadata.num_row_groups):
            rows = metadata.row_group(number).num_rows
            yield RowGroup(path, number, first, rows)
            first += rows


def _read_group(group: RowGroup, column: str, rows: np.ndarray) -> np.ndarray:
    """Some vectors of a row group, by their rows in it, float32 (n, D); the others are not read."""
    file = parquet.open_file(group.path, {column: user_arrays.holds_vectors}, HINT)
    found = file.read_row_group(group.number, columns=[column])[column].take(pa.array(rows))
    before = sum(
        file.metadata.row_group(number).num_rows for number in range(group.number)
    )  # in its file
    return user_arrays.vectors_of(found, group.path, rows + before)


def _locate(pids: pa.Array, read_ids: IDS, source: str) -> tuple[np.ndarray, int]:
    """Find the source row of every item.

    Args:
        pids: of the items.
        read_ids: reads the ids of the source, block by block, anew at each call.
        source: where these stand, for the message.

    Returns:
        int64 (n,), and the number of rows in the source.
    """
    index = pd.Index(
        pids.to_numpy(zero_copy_only=False), dtype="int64" if pids.type == pa.int64() else "object"
    )
    rows = np.full(len(pids), -1, dtype=np.int64)
    total = wanted = 0
    keys = []
    for ids in read_ids():
        if pa.types.is_integer(ids.type) != pa.types.is_integer(pids.type):
            raise SidmillError(
                f"{source}: ids are {ids.type}, those of the items are {pids.type}: write them as "
                f"{pids.type}, or set items.id_type"
            )
        places = index.get_indexer(pd.Index(ids.to_numpy(), dtype=index.dtype))
        hits = np.flatnonzero(places >= 0)
        rows[places[hits]] = total + hits
        total += len(ids)
        wanted += hits.size
        keys.append(user_arrays.keys_of(ids))
    user_arrays.refuse_repeats(keys, read_ids, source)
    missing = np.flatnonzero(rows < 0)
    if missing.size:
        names = ", ".join(repr(pid) for pid in index[missing[:NAMED_IDS]].tolist())
        raise SidmillError(
            f"{missing.size} of {len(pids)} items have no vector in {source}, first {names}: add "
            f"them there, or take the items out of the catalogue"
        )
    logger.info("%s: %d of %d rows belong to this shard", source, wanted, total)
    return rows, total


def _check_count(path: str | Path, rows: int, ids_path: str, ids: int) -> None:
    if rows != ids:
        raise SidmillError(
            f"{path} has {rows} rows, {ids_path} has {ids} ids: they must stand row by row"
        )


def _check_dim(path: str, found: int, wanted: int | None) -> None:
    if not found:
        raise SidmillError(f"{path}: vectors have no dimensions: their lists are empty")
    if wanted is not None and found != wanted:
        raise SidmillError(
            f"{path}: vectors have {found} dimensions, wanted {wanted}: set embedding.dim to what "
            f"your vectors have, or null"
        )
