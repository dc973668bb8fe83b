"""Ids and vectors as other tools write them: one reader for each shape, whoever asks.

    ids      integers of any width, whole numbers that pandas made floats, decimals, text of any
             kind, dictionaries of these; in parquet, .npy or lines of text
    vectors  lists (large, fixed-size, views, tensors) of float16, float32 or float64, in parquet;
             matrices of these in any byte order and layout, in .npy

What is read is int64 or string without nulls, and float32. Nothing is changed beyond rounding to
float32; what does not fit is refused with the row where it stands. These files are the user's: no
message advises to delete one.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sidmill.core.errors import SidmillError
from sidmill.io import parquet, text_lines

logger = logging.getLogger(__name__)

BLOCK_ROWS = 8192
INT64 = range(-(2**63), 2**63)
VALUES = (pa.float16(), pa.float32(), pa.float64())
HALF_BYTES = pa.binary(2)  # polars before 1.36 writes its Float16 as plain bytes
# What numpy raises for a damaged .npy, by the part of it that is damaged.
UNREADABLE = (ValueError, EOFError, OSError, OverflowError, SyntaxError)


def id_type(kind: pa.DataType) -> pa.DataType | None:
    """The type that ids of a column are read as, int64 or string; None if it can hold none."""
    kind = _stored(kind)
    if _is_text(kind):
        return pa.string()
    whole = pa.types.is_decimal(kind) and kind.scale == 0
    return pa.int64() if whole or pa.types.is_integer(kind) or pa.types.is_floating(kind) else None


def holds_ids(kind: pa.DataType) -> bool:
    """Whether a column of this type can hold ids."""
    return id_type(kind) is not None


def holds_vectors(kind: pa.DataType) -> bool:
    """Whether a column of this type can hold vectors."""
    kind = _stored(kind)
    return _is_list(kind) and kind.value_type in (*VALUES, HALF_BYTES)


def ids_of(column: pa.Array | pa.ChunkedArray, path: str | Path, row: int = 0) -> pa.ChunkedArray:
    """Read ids from a column that another tool wrote.

    Args:
        column: of a type that :func:`holds_ids`.
        path: where it stands, for the message.
        row: the file's row of its first value.

    Returns:
        int64 or string (n,), without nulls.

    Raises:
        SidmillError: if one is null, no whole number, or does not fit in 64 signed bits.
    """
    # The values behind dictionaries and extensions, none of them null.
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    kind = _stored(column.type)
    target_type = id_type(column.type)
    decoded = pa.chunked_array([_decoded(chunk) for chunk in chunks], kind)
    if decoded.null_count:
        at = row + pc.index(decoded.is_null(), True).as_py()
        raise SidmillError(f"{path}: the id at row {at} is null: every row needs one")

    # Text has to be UTF-8, a float a whole number.
    if _is_text(kind):
        try:
            decoded.validate(full=True)  # other tools write any bytes as text
        except pa.ArrowInvalid:
            raise SidmillError(
                f"{path}: an id from row {row} on is not UTF-8: write the ids as such"
            ) from None
    if pa.types.is_floating(kind):
        values = decoded.to_numpy()
        exact = 2.0 ** (np.finfo(values.dtype).nmant + 1)  # up to here every whole number is one
        with np.errstate(invalid="ignore"):
            odd = np.flatnonzero(
                ~((np.abs(values.astype(np.float64)) <= exact) & (values == np.floor(values)))
            )
        if odd.size:
            raise SidmillError(
                f"{path}: the id {values[odd[0]]} at row {row + odd[0]} is a float and no whole "
                f"number that floats hold exactly: write the ids as integers or as text"
            )
        return pa.chunked_array([values.astype(np.int64)])

    # Integers of any width become int64, texts of any kind string.
    try:
        return decoded.cast(target_type)
    except pa.ArrowInvalid:
        huge = _first(decoded, lambda one: one.as_py() not in INT64)
        raise SidmillError(
            f"{path}: id {decoded[huge]} at row {row + huge} does not fit in int64: make the ids "
            f"text, and set items.id_type: string"
        ) from None


def vectors_of(
    column: pa.Array | pa.ChunkedArray,
    path: str | Path,
    rows: int | np.ndarray = 0,
    *,
    remedy: str = "give every row a vector of the same length",
) -> np.ndarray:
    """Read vectors from a column that another tool wrote.

    Args:
        column: of a type that :func:`holds_vectors`, not empty.
        path: where it stands, for the message.
        rows: the file's row of its first value, or of each.
        remedy: what to do about a vector that is missing or of another length.

    Returns:
        float32 (n, D); float64 is rounded.

    Raises:
        SidmillError: if a vector or a value is null, or they differ in length.
    """
    # One array of n lists, and the file's row of each.
    lists = _decoded(column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column)
    if isinstance(lists, pa.ChunkedArray):
        lists = pa.concat_arrays(lists.chunks)
    row_of = rows if isinstance(rows, np.ndarray) else range(rows, rows + len(lists))

    # Every list has the same length D.
    lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    missing = np.flatnonzero(np.isnan(lengths)) if lists.null_count else np.empty(0, np.int64)
    if missing.size:
        raise SidmillError(f"{path}: row {row_of[missing[0]]} has no vector: {remedy}")
    odd = np.flatnonzero(lengths != lengths[0])
    if odd.size:
        raise SidmillError(
            f"{path}: row {row_of[odd[0]]} has {lengths[odd[0]]} dimensions, row {row_of[0]} has "
            f"{lengths[0]}: {remedy}"
        )

    # The values, n D of them, as float32 (n, D).
    flat, dim = lists.flatten(), int(lengths[0])
    if flat.null_count:
        at = pc.index(flat.is_null(), True).as_py() // dim
        raise SidmillError(f"{path}: the vector of row {row_of[at]} holds a null: {remedy}")
    if flat.type == HALF_BYTES:
        flat = np.frombuffer(flat.buffers()[1], "<f2")[flat.offset : flat.offset + len(flat)]
    else:
        flat = flat.to_numpy()
    with np.errstate(over="ignore"):
        vectors: np.ndarray = flat.astype(np.float32, copy=False).reshape(len(lists), dim)
    return vectors


def check_distinct(ids: pa.ChunkedArray, path: str | Path) -> None:
    """Refuse ids of which one is there twice. Memory: 16 bytes per id while it runs.

    Raises:
        SidmillError: naming the first of them.
    """
    refuse_repeats([keys_of(ids)], lambda: [ids], path)


def refuse_repeats(
    keys: list[np.ndarray], read: Callable[[], Iterable[pa.ChunkedArray]], path: str | Path
) -> None:
    """Refuse ids of which one is there twice. Memory: 8 bytes per id while it runs.

    Args:
        keys: of all ids, as of :func:`keys_of`.
        read: yields the ids once more, should two keys be equal.
        path: where they stand, for the message.

    Raises:
        SidmillError: naming the first of them.
    """
    sorted_keys = np.sort(np.concatenate(keys)) if keys else np.empty(0, np.uint64)
    twice = np.unique(sorted_keys[1:][sorted_keys[1:] == sorted_keys[:-1]])
    if not twice.size:
        return
    known = set()  # texts are told apart by what they are, their keys only find them
    for ids in read():
        for one in ids.filter(pa.array(np.isin(keys_of(ids), twice))).to_pylist():
            if one in known:
                raise SidmillError(
                    f"{path}: id {one!r} is there more than once: keep one vector per id"
                )
            known.add(one)


def open_npy(path: str | Path, setting: str) -> np.ndarray:
    """Map a .npy of the user read-only, never unpickling; its caller checks what it holds.

    Raises:
        SidmillError: if it is missing, damaged, or no .npy, naming the ``setting`` it is of.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise SidmillError(f"{path}: no such file: check {setting}") from None
    except Exception as error:
        if not isinstance(error, UNREADABLE) and type(error).__name__ != "TokenError":
            raise
        raise SidmillError(f"{path}: not a readable .npy file ({error}): check {setting}") from None
    if not isinstance(array, np.ndarray):
        raise SidmillError(f"{path}: holds several arrays (.npz), wanted one: check {setting}")
    return array


def open_matrix(path: str | Path, setting: str) -> np.ndarray:
    """Map a .npy of vectors: floats (N, D) of any width, byte order and layout.

    Raises:
        SidmillError: if it is of another kind.
    """
    array = open_npy(path, setting)
    native = array.dtype.newbyteorder("=")
    if array.ndim != 2 or native not in (np.float16, np.float32, np.float64):
        raise SidmillError(
            f"{path}: holds {array.dtype} of shape {array.shape}, wanted floats (N, D): save the "
            f"vectors as such"
        )
    return array


def is_plain(array: np.ndarray) -> bool:
    """Whether every stage can map an array as it is: float32 or float16, native, by rows."""
    native = array.dtype in (np.float32, np.float16) and array.dtype.isnative
    return native and array.flags.c_contiguous


def rows_of(array: np.ndarray, rows: slice | np.ndarray) -> np.ndarray:
    """Some rows of :func:`open_matrix`, float32 (n, D), in memory."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array[rows], dtype=np.float32)


def read_ids(
    path: str | Path, column: str, setting: str, *, as_text: bool
) -> Iterator[pa.ChunkedArray]:
    """Yield the ids of a file in its order, block by block.

    Args:
        path: .parquet, .npy, or .txt (UTF-8, an id per line).
        column: of the parquet.
        setting: that names the file, for the message.
        as_text: whether lines of a .txt are text; else they are integers.

    Raises:
        SidmillError: if there is no such file, or what it holds are no ids.
    """
    kind = Path(path).suffix.lower()
    if kind == ".parquet":
        yield from read_id_column(path, column)
    elif kind == ".npy":
        yield from _array_ids(path, setting)
    elif kind == ".txt":
        ids_read = _lines(path, setting, as_text=as_text)
        while block := list(islice(ids_read, BLOCK_ROWS)):
            yield pa.chunked_array([block], pa.string() if as_text else pa.int64())
    else:
        raise SidmillError(f"{setting} is {path}: it must end in .parquet, .npy or .txt")


def read_id_column(path: str | Path, column: str, hint: str = "") -> Iterator[pa.ChunkedArray]:
    """Yield the ids of a parquet of any name, by row groups; ``hint`` ends some messages."""
    file = parquet.open_file(path, {column: holds_ids}, hint)
    row = 0
    for table in parquet.read_rows(file, [column], 0, file.metadata.num_rows):
        yield ids_of(table[column], path, row)
        row += table.num_rows


def _array_ids(path: str | Path, setting: str) -> Iterator[pa.ChunkedArray]:
    ids = open_npy(path, setting)
    if ids.ndim != 1 or ids.dtype.kind not in "iufUS":
        raise SidmillError(
            f"{path}: holds {ids.dtype} of shape {ids.shape}, wanted integers or text (N,)"
        )
    for row in range(0, len(ids), BLOCK_ROWS):
        block = ids[row : row + BLOCK_ROWS].astype(ids.dtype.newbyteorder("="))
        if block.dtype.kind == "S":
            block = pa.array(block.tolist(), pa.binary()).view(pa.string())
        yield ids_of(pa.array(block), path, row)


def _lines(path: str | Path, setting: str, *, as_text: bool) -> Iterator[int | str]:
    """Yield the ids of a text file, past a byte order mark and one blank line at the end.

    White space around an id is part of a text, as it is in a catalogue.
    """
    if not Path(path).is_file():
        raise SidmillError(f"{path}: no such file: check {setting}")
    blank = None
    with Path(path).open("rb") as file:
        for number, line in enumerate(text_lines.read(file), start=1):
            if blank:
                raise SidmillError(f"{path}, line {blank}: blank, where every vector wants an id")
            if line is None:
                raise SidmillError(f"{path}, line {number}: {text_lines.TOO_LONG}, wanted an id")
            try:
                pid = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError:
                raise SidmillError(f"{path}, line {number}: not UTF-8: save it as such") from None
            if not pid.strip():
                blank = number
            elif as_text:
                yield pid
            else:
                yield _integer(pid.strip(), f"{path}, line {number}")


def are_integers(path: str | Path) -> bool:
    """Whether every line of a .txt, but for a blank last one, is an integer of 64 bits."""
    with suppress(SidmillError):
        for _ in _lines(path, "", as_text=False):
            pass
        return True
    return False


def _integer(pid: str, where: str) -> int:
    """Read an integer written as str() writes it: "01" is another id than 1."""
    with suppress(ValueError):
        if str(int(pid)) == pid and int(pid) in INT64:
            return int(pid)
    raise SidmillError(
        f"{where}: {pid!r:.80} is no 64-bit integer, as the ids of the items are: write it as they "
        f"are, or set items.id_type: string"
    )


def _stored(kind: pa.DataType) -> pa.DataType:
    """The type behind dictionaries and extensions."""
    while True:
        if isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        elif pa.types.is_dictionary(kind):
            kind = kind.value_type
        else:
            return kind


def _decoded(array: pa.Array) -> pa.Array:
    """The values behind dictionaries and extensions."""
    while True:
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        elif pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        else:
            return array


def _is_list(kind: pa.DataType) -> bool:
    plain = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    views = pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind)
    return bool(plain or views or pa.types.is_fixed_size_list(kind))


def _is_text(kind: pa.DataType) -> bool:
    plain = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return bool(plain or pa.types.is_string_view(kind))


def keys_of(ids: pa.ChunkedArray) -> np.ndarray:
    """64 bits per id, in one process the same for the same id: uint64 (n,)."""
    if pa.types.is_integer(ids.type):
        values: np.ndarray = ids.to_numpy()
        return values.view(np.uint64)
    # Python's own hash: another one in each process, so no file can be made to hold equal keys.
    return np.fromiter(map(hash, ids.to_pylist()), np.int64, len(ids)).view(np.uint64)


def _first(column: pa.ChunkedArray, is_wanted: Callable[[pa.Scalar], bool]) -> int:
    return next(row for row, one in enumerate(column) if is_wanted(one))
