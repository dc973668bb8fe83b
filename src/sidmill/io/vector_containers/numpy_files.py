"""Vectors in .npz, and in .npy of bfloat16, as numpy writes them; never unpickled.

    .npz    arrays by name: vectors (N, D), and ids (N,) if they are there
    .npy    bfloat16 of the package ml_dtypes, which numpy stores as two bytes without a type

Memory: the arrays of a .npz whole, since they are compressed or not aligned.
Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

import re
import zipfile
import zlib
from collections.abc import Iterator
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

OBJECT_IDS = (
    "{path}: {name!r} holds ids as Python objects, which can run any code when they are read, and "
    "is refused. If you trust the file, save the ids as text with these lines of Python, and name "
    "the new file:\n"
    "import numpy; found = dict(numpy.load({path!r}, allow_pickle=True))\n"
    "found[{name!r}] = found[{name!r}].astype(str); numpy.savez({new!r}, **found)"
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
                    if name == names.pid:
                        raise SidmillError(
                            OBJECT_IDS.format(path=path, name=name, new=_plain_name(path, "npz"))
                        ) from None
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

    def read_ids() -> Iterator[pa.ChunkedArray]:
        yield user_arrays.ids_of(pa.array(_text(path, arrays[names.pid])), path)

    return Container(
        vectors.shape,
        lambda: container.blocks(len(vectors), partial(cut, vectors)),
        None if ids is None else read_ids,
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
    return OBJECTS.format(path=path, new=_plain_name(path, "npy"), member=member)


def _plain_name(path: str, kind: str) -> str:
    """The name of a converted file."""
    return f"{path.rpartition('.')[0]}.plain.{kind}"


def _text(path: str, ids: np.ndarray) -> np.ndarray:
    """Ids that pyarrow reads: bytes become text.

    Raises:
        SidmillError: if the bytes are not UTF-8.
    """
    if ids.dtype.kind != "S":
        return ids
    try:
        return np.char.decode(ids, "utf-8")
    except UnicodeDecodeError as error:
        raise SidmillError(f"{path}: ids that are not UTF-8 ({error}): write them so") from None
