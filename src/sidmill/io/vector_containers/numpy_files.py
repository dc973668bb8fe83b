"""Vectors in .npz, and in .npy of bfloat16, as numpy writes them; never unpickled.

    .npz    arrays by name: vectors (N, D), and ids (N,) if they are there
    .npy    bfloat16 of the package ml_dtypes, which numpy stores as two bytes without a type

Memory: the arrays of a .npz whole, since they are compressed or not aligned.
Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

import re
import zipfile
import zlib
from functools import partial

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.io import user_arrays
from sidmill.io.vector_containers import container
from sidmill.io.vector_containers.container import Container, Names

TWO_BYTES = np.dtype("V2")
OBJECTS = (
    "{path}: holds Python objects, which can run any code when they are read, and is refused. If "
    "you trust the file, save its numbers with these lines of Python, and name the new file:\n"
    "import numpy; found = numpy.load({path!r}, allow_pickle=True)\n"
    "numpy.save({new!r}, numpy.stack(list(found{member})).astype('float32'))"
)


def open_npz(path: str, names: Names) -> Container:
    """Open a .npz.

    Raises:
        SidmillError: if it is damaged, has no vectors, or holds objects.
    """
    arrays = {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            for name in archive.files:
                try:
                    arrays[name] = archive[name]
                except ValueError as error:
                    if "allow_pickle" not in str(error):
                        raise
                    if name in (names.embedding, *archive.files[:1]):
                        raise SidmillError(refusal(path, f"[{name!r}]")) from None
    except FileNotFoundError:
        raise SidmillError(f"{path}: no such file: check embedding.path") from None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise SidmillError(f"{path}: not a readable .npz ({error}): write it again") from None

    # The vectors, and the ids beside them.
    matrices = [name for name, array in arrays.items() if array.ndim == 2 and is_float(array.dtype)]
    name = container.choose(path, names.embedding, matrices, "embedding.fields.embedding")
    vectors = arrays[name]
    ids = arrays.get(names.pid)
    if ids is not None and (ids.ndim != 1 or len(ids) != len(vectors)):
        raise SidmillError(
            f"{path}: {names.pid!r} is of shape {ids.shape}, {name!r} of {vectors.shape}: wanted "
            f"an id for each row"
        )
    return Container(
        vectors.shape,
        lambda: container.blocks(len(vectors), partial(cut, vectors)),
        None if ids is None else lambda: iter([user_arrays.ids_of(pa.array(_text(ids)), path)]),
    )


def open_npy(path: str) -> Container | None:
    """Open a .npy of bfloat16; None where it is of another kind, which can be mapped as it is.

    Raises:
        SidmillError: if it holds objects.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # user_arrays.open_npy says what else is wrong
        if isinstance(error, ValueError) and re.search("allow_pickle|Python objects", str(error)):
            raise SidmillError(refusal(path, "")) from None
        return None
    if not isinstance(array, np.ndarray):
        return None
    if array.dtype.newbyteorder("=") != TWO_BYTES or array.ndim != 2:
        return None
    return Container(array.shape, lambda: container.blocks(len(array), partial(cut, array)), None)


def is_float(dtype: np.dtype) -> bool:
    """Whether values of this type are read: floats, and the two bytes of bfloat16."""
    native = dtype.newbyteorder("=")
    return native == TWO_BYTES or native in (np.float16, np.float32, np.float64)


def cut(array: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Some rows as float32."""
    rows = array[start:stop]
    if rows.dtype.newbyteorder("=") == TWO_BYTES:
        return container.from_bfloat16(np.ascontiguousarray(rows))
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(rows, dtype=np.float32)


def refusal(path: str, member: str) -> str:
    """Say why arrays of objects are refused, and how to convert them."""
    new = path.rpartition(".")[0] + ".plain.npy"
    return OBJECTS.format(path=path, new=new, member=member)


def _text(ids: np.ndarray) -> np.ndarray:
    """Ids that pyarrow reads: bytes become text."""
    return np.char.decode(ids, "utf-8") if ids.dtype.kind == "S" else ids
