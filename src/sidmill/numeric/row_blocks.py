"""Rows of a matrix larger than memory, block by block.

Shapes: N rows, D dimensions, K codewords, b rows of one block.
"""

import mmap
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from sidmill.core.errors import SidmillError
from sidmill.formats.vector_file import Streamed
from sidmill.io.row_digests import CheckedFile

MIB = 2**20
FLOAT_BYTES = 4
GAP_BYTES = 2**15  # between two rows: reading them with what lies between costs less than a call
SPAN_BYTES = 2**21  # of rows with gaps that are read at once
MAX_BLOCK_ROWS = 4096  # smaller and larger blocks were slower: docs/log.md
# Lengths of vectors whose squared distances float32 holds with full precision.
LONGEST = 1e18
SHORTEST = 1e-12
PLAIN_EXPONENTS = 20  # values of 2**-20 to 2**20: the fourth powers that fits take are in range


def rows_per_block(dim: int, n_codes: int, memory_mb: int) -> int:
    """Return how many rows a block may hold: see :func:`block_bytes`.

    Args:
        dim: D.
        n_codes: the largest K.
        memory_mb: MiB that one block with all its temporaries may take.

    Raises:
        SidmillError: if not even one row fits.
    """
    row_bytes = block_bytes(1, dim, n_codes)
    rows = memory_mb * MIB // row_bytes
    if rows < 1:
        raise SidmillError(
            f"memory_mb {memory_mb} is too small for one row of {dim} dimensions and "
            f"{n_codes} codewords: raise it to at least {-(-row_bytes // MIB)}"
        )
    return rows


def block_bytes(n_rows: int, dim: int, n_codes: int) -> int:
    """Return the bytes that a block takes with its temporaries.

    A row costs itself twice, since the next block is read meanwhile, its residual, one spare of the
    same size, and K distances twice.
    """
    return FLOAT_BYTES * (4 * dim + 2 * n_codes) * n_rows


def read_blocks(
    vectors: np.ndarray | Streamed, n_rows: int, rows: np.ndarray | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Read blocks of rows; the next one is read while the one before it is worked on.

    A memory map is read through its file and not through its pages, which would count as this
    process's memory for as long as the map lives. Bytes of a vector store are checked as they are
    read, see :class:`sidmill.formats.vector_store.StoredVectors`. Memory: two blocks, plus one in
    float16, and 8 MiB for a store.

    Args:
        vectors: float32 or float16 (N, D), in memory, memory-mapped or streamed.
        n_rows: rows of a block; the last one may be shorter.
        rows: which rows, ascending; None reads all of them.

    Yields:
        How many rows came before this block, and float32 (b, D). The array is overwritten by the
        next block.

    Raises:
        SidmillError: if ``vectors`` is no float16 or float32 matrix, or its file is too short.
        IndexError: if a row is negative, or past the last one.
    """
    if isinstance(vectors, Streamed):
        yield from _gather(vectors, n_rows, rows)
        return
    _require_rows(vectors, rows)
    total = len(vectors) if rows is None else len(rows)

    def rows_of(number: int) -> slice | np.ndarray:
        start = number * n_rows
        return slice(start, min(start + n_rows, total)) if rows is None else rows[start:][:n_rows]

    parts = read_parts(vectors, min(n_rows, total), -(-total // n_rows), rows_of)
    for number, block in enumerate(parts):
        yield number * n_rows, block


def read_parts(
    vectors: np.ndarray | Streamed,
    largest: int,
    n_parts: int,
    rows_of: Callable[[int], slice | np.ndarray],
) -> Iterator[np.ndarray]:
    """Read some parts of a matrix; the next one is read while the one before it is worked on.

    Args:
        vectors: float32 or float16 (N, D), in memory or memory-mapped, as in :func:`read_blocks`.
        largest: rows of the largest part.
        n_parts: how many parts.
        rows_of: gives the rows of a part by its number: a slice, or ascending row numbers.

    Yields:
        float32 (b, D) of each part, b may be 0. The array is overwritten by the next part.

    Raises:
        SidmillError: if the file of the memory map is too short.
        TypeError: if the vectors are streamed: a stream has no rows that can be chosen.
    """
    if isinstance(vectors, Streamed):
        raise TypeError("parts of vectors are read from a matrix, not from a stream")

    # Two buffers: one is filled while the other is worked on.
    shape = largest, vectors.shape[1]
    buffers = [np.empty(shape, dtype=np.float32) for _ in range(min(2, n_parts))]
    raw = np.empty(shape, dtype=np.float16) if vectors.dtype == np.float16 else None
    region = _file_of(vectors)
    file = os.open(region.path, os.O_RDONLY) if region else -1

    def fill(number: int) -> np.ndarray:
        chosen = rows_of(number)
        n_rows = chosen.stop - chosen.start if isinstance(chosen, slice) else len(chosen)
        block = buffers[number % 2][:n_rows]
        into = block if raw is None else raw[:n_rows]
        if not n_rows:
            return block
        if region:
            _read_rows(file, into, region, chosen)
        else:
            np.copyto(into, vectors[chosen])
        if raw is not None:
            np.copyto(block, into)
        return block

    try:
        yield from _ahead(fill, n_parts)
    finally:
        if region:
            os.close(file)


def trust_rest(vectors: np.ndarray) -> None:
    """Take the bytes of a vector store that were not read yet for checked: others read them."""
    region = _file_of(vectors)
    if region and region.checked is not None:
        region.checked.trust_rest()


def _require_rows(vectors: np.ndarray, rows: np.ndarray | None) -> None:
    """Refuse what is no matrix of vectors, and rows that it does not have."""
    if vectors.ndim != 2 or vectors.dtype not in (np.float32, np.float16):
        raise SidmillError(
            f"vectors are {vectors.dtype} {vectors.shape}, wanted float32 or float16 (N, D): "
            "convert the vector store"
        )
    if rows is not None and len(rows) and not 0 <= rows[0] <= rows[-1] < len(vectors):
        raise IndexError(f"rows {rows[0]} to {rows[-1]} of {len(vectors)}")


def _ahead(fill: Callable[[int], np.ndarray], n_parts: int) -> Iterator[np.ndarray]:
    """Yield what ``fill`` gives for each number; a thread fills the next one meanwhile."""
    if n_parts < 2:
        yield from map(fill, range(n_parts))
        return
    with ThreadPoolExecutor(1, thread_name_prefix="reader") as reader:
        coming = reader.submit(fill, 0)
        for number in range(n_parts):
            block = coming.result()
            if number + 1 < n_parts:
                coming = reader.submit(fill, number + 1)
            yield block


def read_all(vectors: np.ndarray | Streamed) -> np.ndarray:
    """Read all rows into memory, checked where they are those of a vector store: float32 (N, D)."""
    rows = np.empty(vectors.shape, dtype=np.float32)
    for start, block in read_blocks(vectors, MAX_BLOCK_ROWS):
        rows[start : start + len(block)] = block
    return rows


def take(vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Copy some rows of a matrix larger than memory, in any order: float32 (m, D).

    Read through the file too: a row taken from a memory map brings in up to a MiB around it.
    """
    order = np.argsort(rows, kind="stable")
    result = np.empty((len(rows), vectors.shape[1]), dtype=np.float32)
    for start, block in read_blocks(vectors, MAX_BLOCK_ROWS, rows[order]):
        result[order[start : start + len(block)]] = block
    return result


def require_finite(block: np.ndarray, start: int) -> None:
    """Stop at the first row with a NaN or an infinity, or with a squared length out of range.

    Args:
        block: float32 (b, D).
        start: row number of its first row, for the message.

    Raises:
        SidmillError: naming the row.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if np.vdot(block, block) <= LONGEST**2:  # one pass; most blocks end here
            return
    bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
    if bad.size:
        raise SidmillError(
            f"vectors are not finite, first at row {start + bad[0]}: re-embed that item"
        )
    lengths = np.sqrt(np.einsum("ij,ij->i", block, block, dtype=np.float64))
    long = np.flatnonzero(lengths > LONGEST)
    if long.size:
        raise SidmillError(
            f"vectors are too long for squared distances in float32, first at row "
            f"{start + long[0]}, whose length is {lengths[long[0]]:.3g}: re-embed that item, or "
            f"normalise the embeddings, or divide all of them by one number: none may be longer "
            f"than {LONGEST:g}"
        )


def require_squares(largest: float) -> None:
    """Stop where the squares of all vectors vanish in float32; zeros alone are no fault.

    Args:
        largest: the largest absolute value of all vectors.

    Raises:
        SidmillError: saying what to multiply by.
    """
    if 0 < largest < SHORTEST:
        raise SidmillError(
            f"vectors are too short for squared distances in float32: no value is above "
            f"{largest:.3g}. Multiply all vectors by one number so that the largest value is at "
            f"least {SHORTEST:g}"
        )


def largest_values(block: np.ndarray) -> np.ndarray:
    """Largest absolute value of each row of float32 (b, D), without a copy: float32 (b,)."""
    result: np.ndarray = np.maximum(block.max(axis=1), -block.min(axis=1))
    return result


def exponents(largest: np.ndarray) -> np.ndarray:
    """Binary exponents of the positive values of float32 (b,): int32, at most b of them."""
    result: np.ndarray = np.frexp(largest[largest > 0])[1]
    return result


def safe_scale(exponent: float) -> float:
    """Power of two that brings values of such a binary exponent near 1.

    Multiplying by it is exact. It is 1 for ordinary values, whose fourth powers are in range too.
    """
    return 1.0 if abs(exponent) <= PLAIN_EXPONENTS else 2.0 ** -round(exponent)


def _gather(
    vectors: Streamed, n_rows: int, rows: np.ndarray | None
) -> Iterator[tuple[int, np.ndarray]]:
    """Regroup a stream into blocks of ``n_rows``; every row is read, those of ``rows`` are kept."""
    # Fill the buffer with the chosen rows of each batch; yield it when it is full.
    total = len(vectors) if rows is None else len(rows)
    buffer = np.empty((min(n_rows, total), vectors.shape[1]), dtype=np.float32)
    passed = start = filled = 0
    for batch in vectors.read():
        kept = batch
        if rows is not None:
            low, high = np.searchsorted(rows, [passed, passed + len(batch)])
            kept = batch[rows[low:high] - passed]
        passed += len(batch)
        while len(kept):
            piece = kept[: n_rows - filled]
            buffer[filled : filled + len(piece)] = piece
            filled, kept = filled + len(piece), kept[len(piece) :]
            if filled == n_rows:
                yield start, buffer
                start, filled = start + n_rows, 0

    # A stream that changed is no shorter stream.
    if passed != len(vectors):
        raise SidmillError(
            f"{passed} vectors where {len(vectors)} were counted: did the files change meanwhile?"
        )
    if filled:
        yield start, buffer[:filled]


class _FileRegion(NamedTuple):
    """The file and the offset of a memory map's bytes."""

    path: str
    offset: int
    checked: CheckedFile | None = None


def _file_of(vectors: np.ndarray) -> _FileRegion | None:
    """Find the file behind a memory map, or behind consecutive whole rows of one."""
    root = vectors
    while isinstance(root.base, np.ndarray):
        root = root.base
    if not isinstance(root, np.memmap) or not isinstance(root.base, mmap.mmap):
        return None
    if root.filename is None or root.mode != "r" or not vectors.flags.c_contiguous:
        return None
    offset = root.offset + vectors.ctypes.data - root.ctypes.data
    return _FileRegion(str(root.filename), offset, getattr(root, "checked", None))


def _read_rows(
    file: int, block: np.ndarray, region: _FileRegion, rows_to_read: slice | np.ndarray
) -> None:
    """Fill ``block`` with the rows of a slice, or with ascending rows, those near in one read."""
    row_bytes = block.strides[0]
    if isinstance(rows_to_read, slice):
        _read_exactly(file, block, region, rows_to_read.start * row_bytes)
        return

    # Runs of rows that follow each other within a few pages, of at most SPAN_BYTES.
    steps = np.diff(rows_to_read)
    edges = [0, *(np.flatnonzero(steps > max(GAP_BYTES // row_bytes, 1)) + 1).tolist()]
    span_rows = max(SPAN_BYTES // row_bytes, 1)
    spare = np.empty((0, block.shape[1]), dtype=block.dtype)
    for start, end in zip(edges, [*edges[1:], len(rows_to_read)], strict=True):
        while start < end:
            first = int(rows_to_read[start])
            stop = start + int(np.searchsorted(rows_to_read[start:end], first + span_rows))
            wanted = rows_to_read[start:stop] - first
            n_rows = int(wanted[-1]) + 1
            if (np.diff(wanted) == 1).all():
                _read_exactly(file, block[start:stop], region, first * row_bytes)
            else:
                if len(spare) < n_rows:
                    spare = np.empty((n_rows, block.shape[1]), dtype=block.dtype)
                _read_exactly(file, spare[:n_rows], region, first * row_bytes)
                np.take(spare, wanted, axis=0, out=block[start:stop], mode="clip")
            start = stop


def _read_exactly(file: int, block: np.ndarray, region: _FileRegion, offset: int) -> None:
    view = block.data.cast("B")
    if region.checked is not None:
        region.checked.read(file, region.offset + offset, view)
        return
    done = 0
    while done < len(view):
        n_bytes = os.preadv(file, [view[done:]], region.offset + offset + done)
        if n_bytes == 0:
            raise SidmillError(f"{region.path} is shorter than its header says: write it again")
        done += n_bytes
