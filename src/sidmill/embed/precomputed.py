"""Vectors that the user made elsewhere, found by item id.

Accepted: a parquet file or folder with columns ``pid`` and ``embedding`` (SIDMill's own
embeddings.parquet too), or a .npy matrix beside a list of ids in the same row order.
"""

import logging
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.core.paths import expand
from sidmill.formats import embeddings, parquet, vectors

logger = logging.getLogger(__name__)

BLOCK_ROWS = 8192
NAMED_IDS = 5  # ids that an error message names


class RowGroup(NamedTuple):
    """A piece of a parquet source: rows ``first`` to ``first + rows`` of all files together."""

    path: str
    number: int
    first: int
    rows: int


def gather(
    pids: pa.Array, *, path: str | None, ids_path: str | None, dim: int | None
) -> np.ndarray:
    """Fetch the vectors of some items.

    Rows of the source may stand in any order, and there may be more of them. Memory: the vectors
    asked for, their ids, and one block of the source (a row group, for parquet).

    Args:
        pids: int64 or string (n,), distinct.
        path: parquet file, folder or glob; or a .npy file, float32 or float16 (N, D).
        ids_path: for .npy the ids of its rows: parquet with a column ``pid``, .npy, or .txt with
            one id per line.
        dim: D that the vectors must have, or null.

    Returns:
        float32 (n, D), in the order of ``pids``, values as they are in the source.

    Raises:
        SidmillError: if an item has no vector or two, or the files are not as described.
    """
    if path is None:
        raise SidmillError(
            "embedding.path is null: with embedding.backend: precomputed it names the parquet or "
            ".npy file of your vectors"
        )
    if path.lower().endswith(".npy"):
        return _from_npy(pids, path, ids_path, dim)
    if ids_path is not None:
        raise SidmillError(
            f"embedding.ids_path is {ids_path}, but {path} is parquet and holds its ids: set null"
        )
    return _from_parquet(pids, path, dim)


def _from_npy(pids: pa.Array, path: str, ids_path: str | None, dim: int | None) -> np.ndarray:
    if ids_path is None:
        raise SidmillError(
            f"embedding.ids_path is null: {path} holds no ids; name a parquet, .npy or .txt file "
            f"with the id of each row"
        )
    source = vectors.open_npy(path)
    _check_dim(path, source.shape[1], dim)
    rows, total = _locate(pids, _read_ids(ids_path, pids.type), ids_path)
    if total != len(source):
        raise SidmillError(
            f"{path} has {len(source)} rows, {ids_path} has {total} ids: they must stand row by row"
        )
    found = np.empty((len(pids), source.shape[1]), dtype=np.float32)
    order = np.argsort(rows)  # the file is read forwards
    for start in range(0, len(order), BLOCK_ROWS):
        block = order[start : start + BLOCK_ROWS]
        found[block] = source[rows[block]]
    return found


def _from_parquet(pids: pa.Array, path: str, dim: int | None) -> np.ndarray:
    files = expand(path, (".parquet",), "embedding.path")
    ids = chain.from_iterable(embeddings.pids(file) for file in files)
    rows, total = _locate(pids, (_comparable(chunk, pids.type, path) for chunk in ids), path)
    if not total:
        raise SidmillError(f"{path}: no vectors in it: check embedding.path")
    groups = [group for group in _row_groups(files) if group.rows]
    first = embeddings.read_group(groups[0].path, groups[0].number)
    _check_dim(path, first.shape[1], dim)
    found = np.empty((len(pids), first.shape[1]), dtype=np.float32)
    order = np.argsort(rows)
    in_order = rows[order]
    for group in groups:
        begin, end = np.searchsorted(in_order, (group.first, group.first + group.rows))
        if begin < end:
            block = embeddings.read_group(group.path, group.number)
            _check_dim(group.path, block.shape[1], found.shape[1])
            found[order[begin:end]] = block[in_order[begin:end] - group.first]
    return found


def _row_groups(paths: list[str]) -> Iterator[RowGroup]:
    first = 0
    for path in paths:
        for number, rows in enumerate(embeddings.group_sizes(path)):
            yield RowGroup(path, number, first, rows)
            first += rows


def _locate(
    pids: pa.Array, chunks: Iterable[pa.ChunkedArray], source: str
) -> tuple[np.ndarray, int]:
    """Find the source row of every item.

    Only ids that are asked for are remembered, so an id that is there twice is found by the shard
    that needs it.

    Returns:
        int64 (n,), and the number of rows in the source.
    """
    index = pd.Index(
        pids.to_numpy(zero_copy_only=False), dtype="int64" if pids.type == pa.int64() else "object"
    )
    rows = np.full(len(pids), -1, dtype=np.int64)
    total = wanted = 0
    for chunk in chunks:
        if chunk.null_count:
            raise SidmillError(f"{source}: an id after row {total} is null: every vector wants one")
        places = index.get_indexer(pd.Index(chunk.to_numpy(), dtype=index.dtype))
        hits = np.flatnonzero(places >= 0)
        taken, counts = np.unique(places[hits], return_counts=True)
        again = taken[(counts > 1) | (rows[taken] >= 0)]
        if again.size:
            raise SidmillError(
                f"{source}: id {index[again].tolist()[0]!r} is there more than once: keep one "
                f"vector per id"
            )
        rows[places[hits]] = total + hits
        total += len(chunk)
        wanted += hits.size
    missing = np.flatnonzero(rows < 0)
    if missing.size:
        names = ", ".join(repr(pid) for pid in index[missing[:NAMED_IDS]].tolist())
        raise SidmillError(
            f"{missing.size} of {len(pids)} items have no vector in {source}, first {names}: add "
            f"them there, or take the items out of the catalogue"
        )
    logger.info("%s: %d of %d rows belong to this shard", source, wanted, total)
    return rows, total


def _read_ids(path: str, wanted: pa.DataType) -> Iterator[pa.ChunkedArray]:
    """Yield the ids that go with a .npy, block by block."""
    kind = Path(path).suffix.lower()
    if kind == ".parquet":
        file = parquet.open_file(path, {"pid": parquet.is_pid})
        for table in parquet.read_rows(file, ["pid"], 0, file.metadata.num_rows):
            yield _comparable(table["pid"], wanted, path)
    elif kind == ".npy":
        ids = _open_id_array(path)
        for start in range(0, len(ids), BLOCK_ROWS):
            yield _comparable(pa.chunked_array([ids[start : start + BLOCK_ROWS]]), wanted, path)
    elif kind == ".txt":
        yield from _read_id_lines(path, wanted)
    else:
        raise SidmillError(f"embedding.ids_path is {path}: it must end in .parquet, .npy or .txt")


def _open_id_array(path: str) -> np.ndarray:
    try:
        ids = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise SidmillError(f"{path}: no such file: check embedding.ids_path") from None
    except (ValueError, EOFError, OSError) as error:
        raise SidmillError(f"{path}: not a readable .npy file of ids ({error})") from None
    if ids.ndim != 1 or ids.dtype.kind not in "iuU":
        raise SidmillError(
            f"{path}: holds {ids.dtype} of shape {ids.shape}, wanted integers or text (N,)"
        )
    return ids


def _read_id_lines(path: str, wanted: pa.DataType) -> Iterator[pa.ChunkedArray]:
    with Path(path).open(encoding="utf-8") as file:
        while lines := [line.strip() for line in islice(file, BLOCK_ROWS)]:
            try:
                yield pa.chunked_array([pa.array(lines, pa.string()).cast(wanted)])
            except pa.ArrowInvalid as error:
                raise SidmillError(
                    f"{path}: an id is no {wanted}, as in the items: {error}"
                ) from None


def _comparable(ids: pa.ChunkedArray, wanted: pa.DataType, source: str) -> pa.ChunkedArray:
    """Give ids the type of the items' ids, where that changes no id."""
    if pa.types.is_integer(ids.type) != pa.types.is_integer(wanted):
        raise SidmillError(
            f"{source}: ids are {ids.type}, those of the items are {wanted}: write them as "
            f"{wanted}, or set items.id_type"
        )
    return ids.cast(wanted)


def _check_dim(path: str, found: int, wanted: int | None) -> None:
    if wanted is not None and found != wanted:
        raise SidmillError(
            f"{path}: vectors have {found} dimensions, wanted {wanted}: set embedding.dim to what "
            f"your vectors have, or null"
        )
