"""``vectors.npy`` with ``ids.parquet``: the memory map that every later stage reads.

    vectors.npy   float32 or float16 (N, D)
    ids.parquet   pid (int64 or string), in row order of vectors.npy

ids.parquet carries N, D, the embedding fingerprint and digests of vectors.npy in its schema
metadata, so that the two files are held against each other whenever they are opened.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sidmill.core.atomic import replacing
from sidmill.core.errors import SidmillError
from sidmill.formats.embedding_shards import FINGERPRINT_KEY
from sidmill.formats.item_text import shard_bounds
from sidmill.io import parquet, row_digests
from sidmill.io.remedy import remedy

SHAPE_KEY = "sidmill.shape"
DIGESTS_KEY = "sidmill.digests"
DTYPES = ("float32", "float16")
# What numpy raises for a damaged .npy, by the part of it that is damaged.
UNREADABLE = (ValueError, EOFError, OSError, OverflowError, SyntaxError, TokenError)


class VectorStore(NamedTuple):
    """An opened pair: ``vectors`` is a read-only memory map (N, D), ``ids`` has N rows."""

    vectors: np.ndarray
    ids: pa.ChunkedArray
    fingerprint: dict


def write(
    path: str | Path, shape: tuple[int, int], dtype: str, blocks: Iterable[np.ndarray]
) -> list[str]:
    """Write vectors.npy block by block, atomically.

    The file is written in order, not through a map, so memory is one block whatever N.

    Args:
        path: the .npy file.
        shape: N and D, known beforehand because they stand in the header.
        dtype: float32 or float16.
        blocks: float (n, D) in row order, N rows in all.

    Returns:
        Digests of the file, for :func:`write_ids`.

    Raises:
        SidmillError: if ``dtype`` is another one, or the blocks do not hold N rows of D.
    """
    if dtype not in DTYPES:
        raise SidmillError(f"store.dtype is {dtype!r}: choose one of {', '.join(DTYPES)}")
    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": tuple(shape)}
    rows = 0
    with replacing(path) as temporary, temporary.open("wb") as file:
        out = row_digests.Summing(file)
        np.lib.format.write_array_header_1_0(out, header)
        for block in blocks:
            if block.shape[1:] != (shape[1],):
                raise SidmillError(f"{path}: a block of {block.shape} for vectors of {shape[1]}")
            out.write(np.ascontiguousarray(block, dtype=dtype))
            rows += len(block)
        if rows != shape[0]:
            raise SidmillError(f"{path}: {rows} vectors for {shape[0]} items: embed them again")
    return out.digests()


def write_ids(
    path: str | Path,
    ids: pa.ChunkedArray,
    shape: tuple[int, int],
    fingerprint: dict,
    sums: Sequence[str] = (),
) -> None:
    """Write ids.parquet, with shape, fingerprint and digests of the vectors beside it."""
    schema = pa.schema(
        [("pid", ids.type)],
        metadata={
            SHAPE_KEY: json.dumps(shape),
            DIGESTS_KEY: json.dumps({"xxh3_64": list(sums), "portion": row_digests.PORTION}),
            FINGERPRINT_KEY: json.dumps(fingerprint, sort_keys=True, ensure_ascii=False),
        },
    )
    parquet.write(path, schema, [pa.table({"pid": ids}, schema=schema)])


def ids_beside(path: str | Path) -> Path | None:
    """The ids.parquet that was written with a vectors.npy; None for an array of another name."""
    beside = Path(path).with_name("ids.parquet")
    return beside if Path(path).name == "vectors.npy" and beside.exists() else None


def is_own_ids(path: str | Path) -> bool:
    """Whether a file is an ids.parquet that was written with a vectors.npy, by its metadata."""
    if Path(path).suffix.lower() != ".parquet":
        return False
    with parquet.naming(path):
        return SHAPE_KEY.encode() in (pq.read_schema(path).metadata or {})


def open_store(
    vectors_path: str | Path, ids_path: str | Path, shard: tuple[int, int] = (0, 1)
) -> VectorStore:
    """Open the pair read-only, and read the vectors once to see that no byte of them has changed.

    Memory: the ids, and 64 MiB; vectors stay on disk.

    Args:
        vectors_path: vectors.npy.
        ids_path: ids.parquet.
        shard: number and count: only rows of this shard are read to be checked.

    Raises:
        SidmillError: if a file is unreadable, the two disagree in shape, or bytes have changed.
    """
    file = parquet.open_file(ids_path, {"pid": parquet.is_pid})
    vectors = open_npy(vectors_path)
    shape = tuple(parquet.metadata_json(file, SHAPE_KEY))
    if not shape:
        raise SidmillError(
            f"{ids_path}: was not written with a vectors.npy: name the ids.parquet of the run that "
            f"made {vectors_path}"
        )
    if vectors.shape != shape:
        raise SidmillError(
            f"{vectors_path} has shape {vectors.shape}, {ids_path} was written for {shape}, so "
            f"they do not belong together: {remedy(vectors_path)}"
        )
    _check_bytes(vectors_path, vectors, parquet.metadata_json(file, DIGESTS_KEY), shard)
    return VectorStore(vectors, read_ids(file), parquet.metadata_json(file, FINGERPRINT_KEY))


def open_if_any(vectors_path: str | Path, ids_path: str | Path) -> VectorStore | None:
    """:func:`open_store`; None where ``vectors_path`` is empty: this run has no vectors."""
    return open_store(vectors_path, ids_path) if vectors_path else None


def _check_bytes(
    path: str | Path, vectors: np.ndarray, stored: dict, shard: tuple[int, int]
) -> None:
    sums = stored.get("xxh3_64", [])
    if not sums or stored["portion"] != row_digests.PORTION:
        return
    rows = shard_bounds(len(vectors), *shard)
    header = Path(path).stat().st_size - vectors.nbytes
    first, last = (header + row * vectors.strides[0] for row in rows)
    row_digests.check(
        path, sums, range(first // row_digests.PORTION, -(-last // row_digests.PORTION))
    )


def open_npy(path: str | Path) -> np.ndarray:
    """Map a two-dimensional float32 or float16 .npy file read-only, never unpickling.

    Raises:
        SidmillError: if it is missing, truncated, or of another kind.
    """
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise SidmillError(f"{path}: no such file") from None
    except UNREADABLE as error:
        raise SidmillError(f"{path}: not a readable .npy file ({error}): {remedy(path)}") from None
    if getattr(vectors, "ndim", 0) != 2 or vectors.dtype.name not in DTYPES:
        raise SidmillError(
            f"{path}: holds {getattr(vectors, 'dtype', type(vectors))} of shape "
            f"{getattr(vectors, 'shape', None)}, wanted float32 or float16 (N, D)"
        )
    return vectors


def read_ids(file: pq.ParquetFile) -> pa.ChunkedArray:
    """Read the whole ``pid`` column. Memory: 8 bytes per item, or the strings."""
    return parquet.pids(file.read(columns=["pid"])["pid"])


def read_pids(ids_path: str | Path) -> pa.ChunkedArray:
    """Read the ids alone, from ids.parquet or any other parquet with a ``pid``."""
    return read_ids(parquet.open_file(ids_path, {"pid": parquet.is_pid}))
