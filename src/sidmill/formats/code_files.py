"""``codes.parquet`` and ``pid2sid.parquet``: a list of int32 per item; and ``index.json``.

    codes.parquet    pid, codes list<int32>         of the quantizer
    pid2sid.parquet  pid, sid list<int32>, tokens   of the item, collisions resolved
    index.json       {"pid": ["<a_0>", "<b_12>", "<c_7>"]}   the LC-Rec and MiniOneRec form

The two parquet files carry the size of each level in their schema metadata. ``tokens`` is the SID
as models write it (:mod:`sidmill.formats.sid_text`): a string is equal to itself in every software,
which does not hold for lists. Nothing of SIDMill reads it, and files of earlier versions lack it.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from sidmill.core.atomic import replacing
from sidmill.core.errors import SidmillError
from sidmill.formats import sid_text
from sidmill.io import parquet
from sidmill.io.remedy import remedy

SIZES_KEY = "sidmill.codebook_sizes"
BLOCK_ROWS = 65536
INT32_MAX = 2**31 - 1
INTEGERS = (pa.int32(), pa.int64())


class Codes(NamedTuple):
    """Codes of N items: ``ids`` (N,), ``codes`` int32 (N, L), ``sizes`` K_l per level."""

    ids: pa.ChunkedArray
    codes: np.ndarray
    sizes: list[int]


def write(
    path: str | Path,
    column: str,
    ids: pa.ChunkedArray,
    blocks: Iterable[np.ndarray],
    sizes: list[int],
) -> None:
    """Write codes block by block, atomically. Memory: 20 MiB besides the arguments.

    Args:
        path: the parquet file.
        column: ``codes``, or ``sid``, which gets a column of ``tokens`` beside it.
        ids: int64 or string (N,).
        blocks: int32 (n, L) in row order, N rows in all.
        sizes: K_l per level.

    Raises:
        SidmillError: if a code is outside [0, K_l), or there are not N rows.
    """
    has_tokens = column == "sid"
    schema = pa.schema(
        [("pid", ids.type), (column, pa.list_(pa.int32()))]
        + [("tokens", pa.string())] * has_tokens,
        metadata={SIZES_KEY: json.dumps([int(size) for size in sizes])},
    )

    def tables() -> Iterator[pa.Table]:
        row = 0
        for block in _cut(blocks):
            _check_range(path, block, sizes, row)
            lists = pa.FixedSizeListArray.from_arrays(
                np.ascontiguousarray(block, dtype=np.int32).ravel(), len(sizes)
            )
            columns = [ids.slice(row, len(block)), lists.cast(pa.list_(pa.int32()))]
            if has_tokens:
                columns.append(sid_text.render(block).cast(pa.string()))
            row += len(block)
            yield pa.table(columns, schema=schema)
        if row != len(ids):
            raise SidmillError(f"{path}: {row} rows of codes for {len(ids)} ids")

    parquet.write(path, schema, tables())


def read(path: str | Path, column: str, advice: str | None = None) -> Codes:
    """Read codes, whichever kind of list they are.

    Memory: 4 L bytes per item, the ids, and one row group.

    Args:
        path: the parquet file.
        column: ``codes`` or ``sid``.
        advice: what mends the file, for messages; None for what :func:`remedy` says.

    Raises:
        SidmillError: if the file lacks a column, rows differ in length, or a code is out of range.
    """
    advice = advice or remedy(path)
    file = parquet.open_file(path, {"pid": parquet.is_pid, column: parquet.is_list_of(*INTEGERS)})
    ids = file.read(columns=["pid"])["pid"]
    if ids.null_count:
        raise SidmillError(f"{path}: {ids.null_count} rows without a pid: {advice}")
    stored: list[Any] = list(parquet.metadata_json(file, SIZES_KEY))

    # Block by block: files of other software have no sizes, and any int32 from 0 on will do.
    codes, row = np.empty((0, len(stored)), dtype=np.int32), 0
    for block in parquet.matrices(file, column, advice):
        n_levels = block.shape[1]
        if not row:
            codes = np.empty((len(ids), n_levels), dtype=np.int32)
            if stored and (len(stored) != n_levels or not all(map(np.isreal, stored))):
                raise SidmillError(
                    f"{path}: its metadata says sizes {stored} for {n_levels} levels: {advice}"
                )
        _check_range(path, block, stored or [INT32_MAX + 1] * n_levels, row)
        codes[row : row + len(block)] = block
        row += len(block)

    pa.default_memory_pool().release_unused()  # of the row groups

    # The sizes as they were written; without them, those of the codes in use.
    sizes = stored or (codes.max(axis=0).astype(np.int64) + 1 if row else [])
    return Codes(parquet.pids(ids), codes, [int(size) for size in sizes])


def write_index(ids: pa.ChunkedArray, codes: np.ndarray, *, path: str | Path) -> None:
    """Write index.json, one item a line, in row order. Memory: one block of rows.

    Args:
        ids: int64 or string (N,); JSON keys are strings.
        codes: int32 (N, L).
        path: the JSON file.
    """
    # A token needs no escapes; a name that is an integer neither.
    letters = [chr(ord("a") + level) for level in range(codes.shape[1])]
    tokens = "[" + ", ".join(f'"<{letter}_%d>"' for letter in letters) + "]"
    name = '"{}"'.format if pa.types.is_integer(ids.type) else json.dumps
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as out:
        separator = "{\n"
        for start in range(0, len(codes), BLOCK_ROWS):
            names = map(name, ids.slice(start, BLOCK_ROWS).to_pylist())
            rows = map(tokens.__mod__, map(tuple, codes[start : start + BLOCK_ROWS].tolist()))
            out.write(separator + ",\n".join(map(": ".join, zip(names, rows, strict=True))))
            separator = ",\n"
        out.write("\n}\n" if len(codes) else "{}\n")


def _cut(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The same rows in blocks of ``BLOCK_ROWS`` at most, which bounds what writing them takes."""
    for block in blocks:
        for start in range(0, len(block), BLOCK_ROWS):
            yield block[start : start + BLOCK_ROWS]


def _check_range(path: str | Path, block: np.ndarray, sizes: list[int], row: int) -> None:
    outside = np.argwhere((block < 0) | (block >= np.asarray(sizes)))
    if len(outside):
        item, level = outside[0]
        raise SidmillError(
            f"{path}: code {block[item, level]} of row {row + item}, level {level}, is outside "
            f"[0, {sizes[level]})"
        )
