"""What the HDF5 formats share: atomic writing, and opening with every dataset checked.

https://docs.h5py.org; nothing is pickled, and no filter is used that a plain h5py lacks.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from sidmill.core.atomic import replacing
from sidmill.core.errors import SidmillError

CHUNK_BYTES = 1 << 20
CACHE_BYTES = 16 << 20


class DatasetSpec(NamedTuple):
    """Specification of a dataset: ``kind`` a dtype, ``"vlen int64"`` or ``"vlen str"``."""

    name: str
    kind: str
    shape: tuple[int | str, ...]  # a letter stands for any size, the same one everywhere
    optional: bool = False


@contextmanager
def writing(path: str | Path) -> Iterator[h5py.File]:
    """Open a new file that appears under ``path`` only when the block ends well."""
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        yield file


def chunk_rows(row_bytes: int, n_rows: int) -> int:
    """Rows of a chunk of about 1 MiB, at least one and no more than there are."""
    return max(1, min(CHUNK_BYTES // max(row_bytes, 1), n_rows))


def vlen_int64() -> np.dtype:
    """The type of lists of int64."""
    kind: np.dtype = h5py.vlen_dtype(np.int64)
    return kind


def text() -> np.dtype:
    """The type of UTF-8 strings of any length."""
    kind: np.dtype = h5py.string_dtype()
    return kind


def write_lists(dataset: h5py.Dataset, start: int, lists: np.ndarray) -> None:
    """Write lists to rows of an HDF5 file, from ``start`` on.

    h5py's own assignment takes lists of one length for a matrix, and fails.

    Args:
        dataset: of lists, one dimension.
        start: the first row.
        lists: object (b,), arrays of the dataset's value type.
    """
    if not len(lists):
        return
    space = dataset.id.get_space()
    space.select_hyperslab((start,), (len(lists),))
    memory = h5py.h5s.create_simple((len(lists),))
    kind = h5py.h5t.py_create(dataset.dtype)
    dataset.id.write(memory, space, lists.astype(dataset.dtype), kind)


def open_checked(path: str | Path, specs: list[DatasetSpec], attributes: list[str]) -> h5py.File:
    """Open an HDF5 file for reading after checking datasets, shapes and types.

    Raises:
        SidmillError: naming file, dataset, shape and dtype, found and expected.
    """
    if not Path(path).is_file():
        raise SidmillError(f"{path}: no such file")
    try:
        file = h5py.File(path, "r", rdcc_nbytes=CACHE_BYTES)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise SidmillError(f"{path}: not a whole HDF5 file ({reason}): make it again") from None
    try:
        _check(path, file, specs)
        missing = [name for name in attributes if name not in file.attrs]
        if missing:
            raise SidmillError(
                f"{path}: lacks the attribute {', '.join(missing)}; it has "
                f"{', '.join(file.attrs) or 'none'}"
            )
    except BaseException:
        file.close()
        raise
    return file


def _check(path: str | Path, file: h5py.File, specs: list[DatasetSpec]) -> None:
    sizes: dict[str, tuple[int, str]] = {}
    for name, kind, shape, optional in specs:
        stored = file.get(name)
        if stored is None and optional:
            continue

        # Its name, type and number of dimensions.
        if not isinstance(stored, h5py.Dataset):
            raise SidmillError(
                f"{path}: no dataset {name!r}, wanted {kind} {_shape(shape)}; it has "
                f"{', '.join(file) or 'none'}"
            )
        is_kind = kind_of(stored.dtype)
        if is_kind != kind or len(stored.shape) != len(shape):
            raise SidmillError(
                f"{path}: dataset {name!r} is {is_kind} {stored.shape}, wanted {kind} "
                f"{_shape(shape)}"
            )

        # A letter stands for the same size in all datasets.
        for letter, size in zip(shape, stored.shape, strict=True):
            expected, first = sizes.setdefault(str(letter), (size, name))
            if expected != size:
                raise SidmillError(
                    f"{path}: dataset {name!r} is {is_kind} {stored.shape}, but {letter} is "
                    f"{expected} in {first!r}: the two do not belong together"
                )


def check_attribute(path: str | Path, file: h5py.File, name: str, expected: int) -> None:
    """Check a number that an attribute of an HDF5 file states against the datasets.

    Raises:
        SidmillError: if it is another, or no number.
    """
    stored = file.attrs[name]
    if not isinstance(stored, int | np.number) or stored != expected:
        raise SidmillError(
            f"{path}: attribute {name} says {stored!s:.80}, the datasets {expected}: make it again"
        )


def kind_of(dtype: np.dtype) -> str:
    """Name a type as :class:`DatasetSpec` does."""
    values = h5py.check_vlen_dtype(dtype)
    if h5py.check_string_dtype(dtype) is not None:
        return "vlen str" if h5py.check_string_dtype(dtype).length is None else str(dtype)
    return f"vlen {np.dtype(values).name}" if values is not None else dtype.name


def _shape(shape: tuple[int | str, ...]) -> str:
    return f"({', '.join(map(str, shape))}{',' * (len(shape) == 1)})"
