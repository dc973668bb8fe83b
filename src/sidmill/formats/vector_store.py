"""``vectors.npy`` with ``ids.parquet``: the memory map that every later stage reads.

    vectors.npy   float32 or float16 (N, D)
    ids.parquet   pid (int64 or string), in row order of vectors.npy

``fused.npy`` with ``fused_ids.parquet`` is such a pair too.

ids.parquet carries N, D, the embedding fingerprint and digests of vectors.npy in its schema
metadata, so that the two files are held against each other whenever they are opened.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sidmill.core.atomic import replacing
from sidmill.core.errors import SidmillError
from sidmill.formats.embedding_shards import FINGERPRINT_KEY
from sidmill.io import parquet, row_digests
from sidmill.io.remedy import remedy

SHAPE_KEY = "sidmill.shape"
DIGESTS_KEY = "sidmill.digests"
DTYPES = ("float32", "float16")
# Files of vectors, and the name of their ids in the same folder.
IDS_BESIDE = {
    "vectors.npy": "ids.parquet",
    "fused.npy": "fused_ids.parquet",
    "residuals.npy": "residual_ids.parquet",
    "fused_folds.npy": "fused_folds_ids.parquet",
}
# What numpy raises for a damaged .npy, by the part of it that is damaged.
UNREADABLE = (ValueError, EOFError, OSError, OverflowError, SyntaxError, TokenError)


class StoredVectors(np.memmap):
    """A read-only map of vectors.npy whose bytes are checked against their digests when first read.

    :mod:`sidmill.numeric.row_blocks` reads through ``checked``, so that a file is read once and a
    damaged portion is refused before a number of it is used. Rows that are indexed are checked too,
    their portions whole. A slice is a view that is checked when it is read. What makes an array of
    the whole map (``np.asarray``) is not checked: use ``row_blocks.read_all``.
    """

    checked: row_digests.CheckedFile | None

    def __array_finalize__(self, source: object) -> None:
        """Give a view the file of its source."""
        super().__array_finalize__(source)
        is_mapped = getattr(self, "_mmap", None) is not None
        self.checked = getattr(source, "checked", None) if is_mapped else None

    def __getitem__(self, index: Any) -> Any:
        """Check the rows that are copied or computed with; slices stay views."""
        found = super().__getitem__(index)
        if self.checked is None or isinstance(index, slice):
            return found

        # The rows that the first index names; all of them for a mask of values, or an ellipsis.
        key = index[0] if isinstance(index, tuple) else index
        rows = np.arange(len(self))
        if isinstance(key, slice) or np.ndim(key) == 1 or isinstance(key, int | np.integer):
            rows = np.atleast_1d(rows[key])
        row_bytes = self.strides[0]
        first = self.ctypes.data - self._root().ctypes.data + self.offset
        self.checked.check(first + rows * row_bytes, row_bytes)
        return np.asarray(found) if isinstance(found, np.ndarray) else found

    def _root(self) -> np.ndarray:
        """The map of the whole file."""
        root: np.ndarray = self
        while isinstance(root.base, np.ndarray):
            root = root.base
        return root


class VectorStore(NamedTuple):
    """An opened pair.

    Attributes:
        vectors: read-only memory map (N, D); bytes are checked as they are read.
        ids: int64 or string (N,).
        fingerprint: names the embedding space.
    """

    vectors: np.ndarray
    ids: pa.ChunkedArray
    fingerprint: dict[str, Any]


class Vectors(NamedTuple):
    """An opened pair without its ids; both as in :class:`VectorStore`."""

    vectors: np.ndarray
    fingerprint: dict[str, Any]


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
            out.write(np.ascontiguousarray(block, dtype=dtype).data)
            rows += len(block)
        if rows != shape[0]:
            raise SidmillError(f"{path}: {rows} vectors for {shape[0]} items: embed them again")
    return out.digests()


def write_ids(
    path: str | Path,
    ids: pa.ChunkedArray,
    shape: tuple[int, int],
    fingerprint: dict[str, Any],
    sums: Sequence[str] = (),
) -> None:
    """Write ids.parquet, with shape, fingerprint and digests of the vectors in its metadata."""
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
    """The ids written with vectors.npy or fused.npy; None for an array of another name."""
    name = IDS_BESIDE.get(Path(path).name)
    ids_path = Path(path).with_name(name) if name else None
    return ids_path if ids_path and ids_path.exists() else None


def is_own_ids(path: str | Path) -> bool:
    """Whether a file is an ids.parquet that was written with a vectors.npy, by its metadata."""
    if Path(path).suffix.lower() != ".parquet":
        return False
    with parquet.naming(path):
        return SHAPE_KEY.encode() in (pq.read_schema(path).metadata or {})


def open_store(vectors_path: str | Path, ids_path: str | Path) -> VectorStore:
    """Open the pair read-only, without reading a vector.

    Vectors are checked as they are read, see :class:`StoredVectors`: a byte that has changed is
    refused there. Memory: the ids, and 8 MiB once vectors are read; vectors stay on disk.

    Raises:
        SidmillError: if a file is unreadable, or the two disagree in shape or size.
    """
    opened, file = _open(vectors_path, ids_path)
    return VectorStore(opened.vectors, read_ids(file), opened.fingerprint)


def open_vectors(vectors_path: str | Path, ids_path: str | Path) -> Vectors:
    """:func:`open_store` without the ids, which take 8 bytes per item, or the strings."""
    return _open(vectors_path, ids_path)[0]


def _open(vectors_path: str | Path, ids_path: str | Path) -> tuple[Vectors, pq.ParquetFile]:
    """Open both files, and hold them against each other."""
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
    checked = _checked(vectors_path, vectors, parquet.metadata_json(file, DIGESTS_KEY))
    return Vectors(checked, parquet.metadata_json(file, FINGERPRINT_KEY)), file


def open_if_any(vectors_path: str | Path, ids_path: str | Path) -> VectorStore | None:
    """:func:`open_store`; None where ``vectors_path`` is empty: this run has no vectors."""
    return open_store(vectors_path, ids_path) if vectors_path else None


def vectors_if_any(vectors_path: str | Path, ids_path: str | Path) -> np.ndarray | None:
    """Those of :func:`open_vectors`; None where ``vectors_path`` is empty."""
    return open_vectors(vectors_path, ids_path).vectors if vectors_path else None


def _checked(path: str | Path, vectors: np.ndarray, stored: dict[str, Any]) -> np.ndarray:
    """Let a map check its bytes; one without digests stays as it is."""
    digests = stored.get("xxh3_64", [])
    if not digests:
        return vectors
    # Views look for it at the map of the whole file.
    checked = row_digests.CheckedFile(path, digests, int(stored["portion"]))
    setattr(vectors, "checked", checked)  # noqa: B010
    return vectors.view(StoredVectors)


def open_npy(path: str | Path) -> np.ndarray:
    """Map a two-dimensional float32 or float16 .npy file read-only, never unpickling.

    Raises:
        SidmillError: if it is missing, truncated, or of another kind.
    """
    try:
        vectors: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
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
