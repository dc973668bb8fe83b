"""The user's vectors as a memory map, because commands read rows in any order."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from sidmill.core.errors import SidmillError
from sidmill.formats import vector_file, vector_store

GIB = 1 << 30


@contextmanager
def open_vectors(
    path: str,
    ids_path: str | None,
    scratch: str | None,
    *,
    column: str = "embedding",
    id_column: str = "pid",
) -> Iterator[vector_file.VectorFile]:
    """Open vectors read-only, all of them as a map.

    What cannot be mapped as it is (parquet, HDF5, a .npy of float64 or of another machine) is
    copied to a temporary .npy of 4 N D bytes, so that memory stays at one block.

    Args:
        path: see :func:`sidmill.formats.vector_file.open_vectors`, as ``column``, ``id_column``.
        ids_path: ids of a .npy, or None.
        scratch: an existing folder for the copy; None for the system's temporary one.
        column: of a parquet, with the vectors.
        id_column: of a parquet, with the ids.

    Raises:
        SidmillError: if there is no such file, or it is of another form; if ``scratch`` has no
            room for the copy.
    """
    opened = vector_file.open_vectors(path, column, id_column=id_column, ids_path=ids_path)
    if not isinstance(opened.vectors, vector_file.Streamed):
        yield opened
        return
    with tempfile.TemporaryDirectory(prefix="sidmill-", dir=scratch) as folder:
        copy = _copy(opened.vectors, Path(folder) / "vectors.npy")
        yield opened._replace(vectors=copy)


def _copy(streamed: vector_file.Streamed, target: Path) -> np.ndarray:
    """Write what can be read in order alone to a .npy, and map that."""
    n_rows, dim = streamed.shape
    needed, free = 4 * n_rows * dim, shutil.disk_usage(target.parent).free
    if needed > free:
        raise SidmillError(
            f"{target.parent.parent} has {free / GIB:.1f} GiB free, a copy of {n_rows} vectors "
            f"of {dim} takes {needed / GIB:.1f}: name a folder with room by --scratch"
        )
    vector_store.write(target, streamed.shape, "float32", streamed.read())
    return vector_store.open_npy(target)
