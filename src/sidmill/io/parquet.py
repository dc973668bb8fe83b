"""What the parquet formats share: atomic writing by blocks, reading by batches, strict columns."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sidmill.core.atomic import replacing
from sidmill.core.errors import SidmillError
from sidmill.io.remedy import remedy

ROWS_PER_GROUP = 8192
BUFFER_BYTES = 2**20  # of a column that are read at once
NAMED = 20  # columns that a message lists
PID_TYPES = (pa.int64(), pa.string())
SHOWN_TYPES = (*PID_TYPES, *map(pa.list_, (*PID_TYPES, pa.int8(), pa.int32(), pa.float32())))


class Parquet(pq.ParquetFile):  # type: ignore[misc]  # pyarrow has no types
    """A parquet file that names itself where a page of it is damaged, by the page's checksum.

    Row groups and batches are read on one thread.
    """

    def __init__(self, path: str | Path) -> None:
        """Open it."""
        super().__init__(
            path, page_checksum_verification=True, pre_buffer=False, buffer_size=BUFFER_BYTES
        )
        self.path = path

    def read(self, *arguments: Any, **options: Any) -> pa.Table:
        """Read all of some columns."""
        with naming(self.path):
            return super().read(*arguments, **options)

    def read_row_group(self, *arguments: Any, **options: Any) -> pa.Table:
        """Read a row group of some columns."""
        with naming(self.path):
            return super().read_row_group(*arguments, use_threads=False, **options)

    def iter_batches(self, *arguments: Any, **options: Any) -> Iterator[pa.RecordBatch]:
        """Read some columns by batches."""
        with naming(self.path):
            yield from super().iter_batches(*arguments, use_threads=False, **options)


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Say which file it is that pyarrow cannot read.

    Raises:
        SidmillError: in place of what pyarrow raises.
    """
    try:
        yield
    except FileNotFoundError:
        raise SidmillError(f"{path}: no such file") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last: of a column name
        raise SidmillError(
            f"{path}: not a readable parquet file ({str(error).splitlines()[0]}): {remedy(path)}"
        ) from None


@contextmanager
def writer(
    path: str | Path, schema: pa.Schema, vectors: str | None = None
) -> Iterator[pq.ParquetWriter]:
    """Open a parquet writer whose file appears under ``path`` only when the block ends well.

    The column ``vectors`` gets no dictionary of its values, which hardly repeat: for a row group of
    8,192 x 128 it takes 25 MiB, and is thrown away. Other columns are no lists where it is given.
    """
    with_dictionary = [name for name in schema.names if name != vectors]
    with (
        replacing(path) as temporary,
        pq.ParquetWriter(
            temporary,
            schema,
            compression="zstd",
            write_page_checksum=True,
            use_dictionary=with_dictionary if vectors else True,
        ) as parquet,
    ):
        yield parquet


@contextmanager
def row_writer(path: str | Path, schema: pa.Schema) -> Iterator[Callable[[Sequence[object]], None]]:
    """Give a function that adds a row to a parquet file, which appears when the block ends well.

    A row has the values of the columns in the order of ``schema``. Memory: one row group.
    """
    waiting: list[Sequence[object]] = []
    with writer(path, schema) as out:

        def flush() -> None:
            columns = zip(*waiting, strict=True)
            arrays = [
                pa.array(column, kind) for column, kind in zip(columns, schema.types, strict=True)
            ]
            out.write_table(pa.table(arrays, schema=schema))
            waiting.clear()

        def add(row: Sequence[object]) -> None:
            waiting.append(row)
            if len(waiting) == ROWS_PER_GROUP:
                flush()

        yield add
        if waiting:
            flush()


def write(
    path: str | Path,
    schema: pa.Schema,
    tables: Iterable[pa.Table],
    *,
    vectors: str | None = None,
) -> int:
    """Write tables of ``schema`` as one atomic parquet file and return its number of rows.

    Every row group but the last holds ``ROWS_PER_GROUP`` rows, however the tables are cut, so
    the bytes depend on the rows alone. Memory: two row groups. ``vectors`` as in :func:`writer`.
    """
    rows = 0
    with writer(path, schema, vectors) as parquet:
        for table in _regroup(tables, schema):
            pa.default_memory_pool().release_unused()  # of what was read, before more is taken
            parquet.write_table(table, row_group_size=ROWS_PER_GROUP)
            pa.default_memory_pool().release_unused()
            rows += table.num_rows
    return rows


def _regroup(tables: Iterable[pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
    """Cut a stream of tables into tables of ``ROWS_PER_GROUP`` rows, the last one shorter."""
    waiting = schema.empty_table()
    for table in tables:
        table = table.cast(schema)
        waiting = pa.concat_tables([waiting, table]) if waiting.num_rows else table
        while waiting.num_rows >= ROWS_PER_GROUP:
            yield waiting.slice(0, ROWS_PER_GROUP).combine_chunks()
            waiting = waiting.slice(ROWS_PER_GROUP)
    if waiting.num_rows:
        yield waiting.combine_chunks()


def open_file(
    path: str | Path, columns: dict[str, Callable[[pa.DataType], bool]], hint: str = ""
) -> Parquet:
    """Open a parquet file after checking that it has the columns that its format wants.

    Args:
        path: one parquet file.
        columns: for each wanted column a test of its type.
        hint: what to do about a column that is missing, at the end of the message.

    Raises:
        SidmillError: if the file is not parquet, lacks a column, repeats one, or has one of a
            type that the format refuses.
    """
    with naming(path):
        parquet = Parquet(path)
    schema = parquet.schema_arrow
    for name, accepts in columns.items():
        matches = schema.get_all_field_indices(name)
        if len(matches) != 1:
            raise SidmillError(
                f"{path}: {len(matches)} columns named {name!r}, wanted one; the file has "
                f"{_listed(schema.names)}{hint}"
            )
        if not accepts(schema.field(name).type):
            raise SidmillError(
                f"{path}: column {name!r} has type {schema.field(name).type}, wanted "
                f"{' or '.join(str(kind) for kind in SHOWN_TYPES if accepts(kind))}: write it so"
            )
    return parquet


def _listed(names: list[str]) -> str:
    """Some names for a message, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(f"{name:.80}" for name in names[:NAMED]) + more


def read_rows(
    parquet: pq.ParquetFile, columns: list[str], start: int, stop: int
) -> Iterator[pa.Table]:
    """Yield rows ``start`` to ``stop`` in order, at most one row group at a time."""
    first = 0
    for group in range(parquet.num_row_groups):
        rows = parquet.metadata.row_group(group).num_rows
        begin, end = max(start - first, 0), min(stop - first, rows)
        if begin < end:
            yield parquet.read_row_group(group, columns=columns).slice(begin, end - begin)
        first += rows


def is_pid(kind: pa.DataType) -> bool:
    """Whether a column of this type can hold item ids: int64 or string."""
    return kind in PID_TYPES or kind == pa.large_string()


def is_list_of(*values: pa.DataType) -> Callable[[pa.DataType], bool]:
    """Make a test for list columns (large and fixed-size ones too) of one of these value types."""

    def accepts(kind: pa.DataType) -> bool:
        lists = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        return (lists or pa.types.is_fixed_size_list(kind)) and kind.value_type in values

    return accepts


def pids(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Ids as every part of SIDMill holds them, int64 or string, whichever kind of string it was."""
    return column.cast(pa.string()) if column.type == pa.large_string() else column


def plain_lists(table: pa.Table) -> pa.Table:
    """The same rows, with ``list`` in place of other kinds of list: readers ask for offsets."""
    for index, field in enumerate(table.schema):
        if pa.types.is_large_list(field.type) or pa.types.is_fixed_size_list(field.type):
            plain = table.column(index).cast(pa.list_(field.type.value_type))
            table = table.set_column(index, field.name, plain)
    return table


def matrix(path: str | Path, column: pa.ChunkedArray, name: str, advice: str) -> np.ndarray:
    """Lists of integers of one length as int64 (N, L), whichever kind of list they are.

    Memory: 16 L bytes per row while it runs.

    Args:
        path: the file, for the message.
        column: lists, large lists or lists of fixed size of any type of integer.
        name: of the column, for the message.
        advice: what mends the file, for the message.

    Raises:
        SidmillError: if a list is missing or of another length than the first, or lacks a value.
    """
    try:
        lists = column.cast(pa.large_list(pa.int64())).combine_chunks()
    except pa.ArrowInvalid as error:  # a uint64 above 2**63
        raise SidmillError(f"{path}: {name!r}: {str(error).splitlines()[0]}: {advice}") from None
    if lists.null_count:
        row = int(np.flatnonzero(lists.is_null().to_numpy(zero_copy_only=False))[0])
        raise SidmillError(
            f"{path}: {lists.null_count} rows without {name!r}, first row {row}: {advice}"
        )

    lengths = np.diff(lists.offsets.to_numpy())
    uneven = np.flatnonzero(lengths != lengths[:1])
    if len(uneven):
        raise SidmillError(
            f"{path}: rows of {name!r} differ in length: row 0 has {lengths[0]} values, row "
            f"{uneven[0]} has {lengths[uneven[0]]}: {advice}"
        )

    flat = lists.flatten()
    n_columns = int(lengths[0]) if len(lengths) else 0
    if flat.null_count:
        index = int(np.flatnonzero(flat.is_null().to_numpy(zero_copy_only=False))[0])
        raise SidmillError(f"{path}: row {index // n_columns} of {name!r} lacks a value: {advice}")
    values: np.ndarray = flat.to_numpy().reshape(len(lists), n_columns)
    return values


def matrices(parquet: Parquet, name: str, advice: str) -> Iterator[np.ndarray]:
    """Read a column of lists as :func:`matrix` does, by row groups: int64 (n, L), n above 0.

    Memory: 40 L bytes per row of a row group.

    Args:
        parquet: the file.
        name: of the column.
        advice: how to repair the file, for the message.

    Raises:
        SidmillError: as :func:`matrix`; rows are counted through the whole file.
    """

    def whole_column() -> np.ndarray:
        return matrix(parquet.path, parquet.read(columns=[name])[name], name, advice)

    n_columns = -1
    for group in range(parquet.num_row_groups):
        try:
            column = parquet.read_row_group(group, columns=[name])[name]
            block = matrix(parquet.path, column, name, advice)
        except SidmillError:
            whole_column()  # names the row by its number in the file
            raise
        if not len(block):
            continue
        if n_columns not in (-1, block.shape[1]):
            whole_column()
        n_columns = block.shape[1]
        yield block


def metadata_json(parquet: Parquet, key: str) -> dict[str, Any]:
    """Return the JSON stored in the file's schema metadata under ``key``, or ``{}``.

    Raises:
        SidmillError: if it is no JSON.
    """
    stored = parquet.schema_arrow.metadata or {}
    try:
        facts: dict[str, Any] = json.loads(stored.get(key.encode(), b"{}"))
    except (ValueError, RecursionError) as error:
        raise SidmillError(
            f"{parquet.path}: its metadata {key!r} is no JSON ({error}): make it again"
        ) from None
    return facts
