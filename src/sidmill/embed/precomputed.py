"""Vectors that the user made elsewhere, found by item id.

Accepted: a parquet file or folder with columns ``pid`` and ``embedding`` (SIDMill's own
embeddings.parquet too), or a .npy matrix beside a list of ids in the same row order.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from sidmill.core.errors import SidmillError
from sidmill.core.paths import expand
from sidmill.formats import embeddings, lines, parquet, vectors

logger = logging.getLogger(__name__)

BLOCK_ROWS = 8192
INT64 = range(-(2**63), 2**63)
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
        path: parquet file, folder or glob; or a .npy file of floats (N, D).
        ids_path: for .npy the ids of its rows: parquet with a column ``pid``, .npy, or .txt (UTF-8)
            with one id per line. Integers may have any width.
        dim: D that the vectors must have, or null.

    Returns:
        float32 (n, D), in the order of ``pids``, values as they are in the source (float64 is
        rounded).

    Raises:
        SidmillError: if an item has no vector or two, or the files are not as described.
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
    if arrays:
        return _from_npy(pids, arrays[0], ids_path, dim)
    if ids_path is not None:
        raise SidmillError(
            f"embedding.ids_path is {ids_path}, but {path} is parquet and holds its ids: set null"
        )
    return _from_parquet(pids, path, files, dim)


def _from_npy(pids: pa.Array, path: str, ids_path: str | None, dim: int | None) -> np.ndarray:
    if ids_path is None:
        raise SidmillError(
            f"embedding.ids_path is null: {path} holds no ids; name a parquet, .npy or .txt file "
            f"with the id of each row"
        )
    source = _open_npy(path, "embedding.path")
    if source.ndim != 2 or source.dtype.kind != "f":
        raise SidmillError(
            f"{path}: holds {source.dtype} of shape {source.shape}, wanted floats (N, D)"
        )
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


def _from_parquet(pids: pa.Array, path: str, files: list[str], dim: int | None) -> np.ndarray:
    groups = [group for group in _row_groups(files) if group.rows]
    if not groups:
        raise SidmillError(f"{path}: no vectors in it: check embedding.path")
    ids = chain.from_iterable(_read_id_column(file, pids.type) for file in files)
    rows, _ = _locate(pids, ids, path)
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
        yield from _read_id_column(path, wanted)
    elif kind == ".npy":
        yield from _read_id_array(path, wanted)
    elif kind == ".txt":
        lines = _id_lines(path, pa.types.is_integer(wanted))
        while block := list(islice(lines, BLOCK_ROWS)):
            yield pa.chunked_array([block], wanted)
    else:
        raise SidmillError(f"embedding.ids_path is {path}: it must end in .parquet, .npy or .txt")


def _read_id_column(path: str, wanted: pa.DataType) -> Iterator[pa.ChunkedArray]:
    file = parquet.open_file(path, {"pid": _is_foreign_pid})
    row = 0
    for table in parquet.read_rows(file, ["pid"], 0, file.metadata.num_rows):
        yield _comparable(table["pid"], wanted, path, row)
        row += table.num_rows


def _is_foreign_pid(kind: pa.DataType) -> bool:
    """Whether a column can hold ids in a file that SIDMill did not write: any integers or text."""
    return parquet.is_pid(kind) or pa.types.is_integer(kind)


def _read_id_array(path: str, wanted: pa.DataType) -> Iterator[pa.ChunkedArray]:
    ids = _open_npy(path, "embedding.ids_path")
    if ids.ndim != 1 or ids.dtype.kind not in "iuU":
        raise SidmillError(
            f"{path}: holds {ids.dtype} of shape {ids.shape}, wanted integers or text (N,)"
        )
    for row in range(0, len(ids), BLOCK_ROWS):
        block = ids[row : row + BLOCK_ROWS].astype(ids.dtype.newbyteorder("="))
        yield _comparable(pa.chunked_array([block]), wanted, path, row)


def _open_npy(path: str, setting: str) -> np.ndarray:
    """Map an array of the user read-only, never unpickling; its caller checks what it holds."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise SidmillError(f"{path}: no such file: check {setting}") from None
    except vectors.UNREADABLE as error:
        raise SidmillError(f"{path}: not a readable .npy file ({error}): check {setting}") from None
    if not isinstance(array, np.ndarray):
        raise SidmillError(f"{path}: holds several arrays (.npz), wanted one: check {setting}")
    return array


def _id_lines(path: str, integer: bool) -> Iterator[int | str]:
    """Yield the ids of a text file, past a byte order mark and one blank line at the end."""
    if not Path(path).is_file():
        raise SidmillError(f"{path}: no such file: check embedding.ids_path")
    blank = None
    with Path(path).open("rb") as file:
        for number, line in enumerate(lines.read(file), start=1):
            if blank:
                raise SidmillError(f"{path}, line {blank}: blank, where every vector wants an id")
            if line is None:
                raise SidmillError(f"{path}, line {number}: {lines.TOO_LONG}, wanted an id")
            try:
                pid = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError:
                raise SidmillError(f"{path}, line {number}: not UTF-8: save it as such") from None
            if not pid:
                blank = number
            elif integer:
                yield _integer(pid, f"{path}, line {number}")
            else:
                yield pid


def _integer(pid: str, place: str) -> int:
    """Read an integer written as str() writes it: "01" is another id than 1."""
    with suppress(ValueError):
        if str(int(pid)) == pid and int(pid) in INT64:
            return int(pid)
    raise SidmillError(
        f"{place}: {pid!r:.80} is no 64-bit integer, as the ids of the items are: write it as they "
        f"are, or set items.id_type: string"
    )


def _comparable(ids: pa.ChunkedArray, wanted: pa.DataType, path: str, row: int) -> pa.ChunkedArray:
    """Give ids, the first of them at ``row``, the type of the items' ids, where that changes none.

    Raises:
        SidmillError: if these are text and integers, or one does not fit in 64 signed bits.
    """
    if pa.types.is_integer(ids.type) != pa.types.is_integer(wanted):
        raise SidmillError(
            f"{path}: ids are {ids.type}, those of the items are {wanted}: write them as "
            f"{wanted}, or set items.id_type"
        )
    if ids.type == pa.uint64():
        huge = pc.index(pc.greater(ids, pa.scalar(INT64.stop - 1, pa.uint64())), True).as_py()
        if huge >= 0:
            raise SidmillError(
                f"{path}: id {ids[huge]} at row {row + huge} does not fit in int64: make the ids "
                f"text, and set items.id_type: string"
            )
    return ids.cast(wanted)


def _check_dim(path: str, found: int, wanted: int | None) -> None:
    if not found:
        raise SidmillError(f"{path}: vectors have no dimensions: their lists are empty")
    if wanted is not None and found != wanted:
        raise SidmillError(
            f"{path}: vectors have {found} dimensions, wanted {wanted}: set embedding.dim to what "
            f"your vectors have, or null"
        )
