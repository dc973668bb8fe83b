"""Blocks of rows of a catalogue: as columns where the file allows it, else row by row.

Columns take a fraction of the time of rows. They hold exactly what the rows hold: a block that has
a row in question (a value of another type, half a character, another number of cells, JSON that
Python's parser could read in another way) has no columns, and its rows are read one by one.
"""

import io
import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.json as pj

from sidmill.io import json_values
from sidmill.io.delimited_text import LineBlock, Record, RecordBlock

LEADING_LINES = 8  # lines of JSON that decide the types of its columns
MOST_OPENED = 200  # brackets that a line may open: Python's parser refuses deep nesting
OPENING = np.frombuffer(b"[{", dtype=np.uint8)
LINE_END = ord("\n")


class Row(NamedTuple):
    """One row of a file.

    Attributes:
        number: number of its first line (JSON lines, tables), or of the row (JSON arrays and
            objects, parquet), from 1.
        fields: field name to value as stored, or None where the row cannot be read.
        problem: why it cannot be read, else None.
        key: its name in an object of objects or of lists (whose list is field ``VALUES``).
    """

    number: int
    fields: dict[str, Any] | None
    problem: str | None = None
    key: str | None = None


class Block(NamedTuple):
    """Some consecutive rows of a file; nothing is converted before it is asked for.

    Attributes:
        columns: gives the fields that were asked for and that the file has, as columns with a value
            for each row; None where some row has to be read by itself.
        all_rows: gives all rows, in order.
        rows: gives the rows at some positions of the columns, in their order, from 0.
        numbers: gives the number of each row of the columns, (n,).
    """

    columns: Callable[[], pa.RecordBatch | None]
    all_rows: Callable[[], Iterator[Row]]
    rows: Callable[[Sequence[int]], Iterator[Row]]
    numbers: Callable[[], Sequence[int]]


def of_rows(rows: list[Row]) -> Block:
    """A block of rows that have been read one by one."""
    return Block(
        lambda: None,
        lambda: iter(rows),
        lambda positions: (rows[at] for at in positions),
        lambda: [row.number for row in rows],
    )


def of_batch(batch: pa.RecordBatch, first: int, index: tuple[str, int, int] | None) -> Block:
    """A block of a parquet file.

    Args:
        batch: the rows.
        first: number of the first row, from 1.
        index: name, start and step of a counted index of pandas, which is a field like the others.
    """

    def columns() -> pa.RecordBatch | None:
        try:
            batch.validate(full=True)
        except pa.ArrowInvalid:
            return None  # text that is not UTF-8 makes its row a bad one
        if not index:
            return batch
        name, start, step = index
        steps = np.arange(first - 1, first - 1 + batch.num_rows, dtype=np.int64)
        return batch.append_column(name, pa.array(start + steps * step))

    def rows_of(chosen: pa.RecordBatch, numbers: Iterable[int]) -> Iterator[Row]:
        for number, (values, problem) in zip(numbers, _batch_rows(chosen), strict=True):
            if index and values is not None:
                name, start, step = index
                values[name] = start + (number - 1) * step
            yield Row(number, values, problem)

    def rows(positions: Sequence[int]) -> Iterator[Row]:
        for position in positions:  # few: Arrow does not gather all types
            yield from rows_of(batch.slice(position, 1), [first + position])

    numbers = range(first, first + batch.num_rows)
    return Block(columns, lambda: rows_of(batch, numbers), rows, lambda: numbers)


def _batch_rows(batch: pa.RecordBatch) -> Iterator[tuple[dict[str, Any] | None, str | None]]:
    """The rows of a batch as dictionaries; a row with a value that Python has not says so."""
    if not batch.num_columns:
        yield from (({}, None) for _ in range(batch.num_rows))
        return
    try:
        yield from ((fields, None) for fields in batch.to_pylist(maps_as_pydicts="lossy"))
        return
    except (pa.ArrowException, ValueError, OverflowError):
        pass  # one value spoils them all: find it
    for row in range(batch.num_rows):
        try:
            yield batch.slice(row, 1).to_pylist(maps_as_pydicts="lossy")[0], None
        except (pa.ArrowException, ValueError, OverflowError) as error:
            yield None, f"a value that cannot be read ({str(error).splitlines()[0]})"


def of_records(
    block: RecordBlock | LineBlock,
    names: list[str],
    fields: Collection[str] | None,
    problem: Callable[[Record], str | None],
) -> Block:
    """A block of a table of text.

    Args:
        block: the records.
        names: of the columns.
        fields: the columns that are used; None: all.
        problem: says why a record cannot be read, if so.
    """
    split = cache(lambda: block.split() if isinstance(block, LineBlock) else block)

    def columns() -> pa.RecordBatch | None:
        wanted = [name for name in names if fields is None or name in fields]
        if isinstance(block, LineBlock) and wanted:
            return block.columns(names, wanted)
        return _record_columns(split(), names, wanted)

    def rows(positions: Iterable[int]) -> Iterator[Row]:
        for position in positions:
            records = split()
            first, values = records.firsts[position], records.values[position]
            found = problem(Record(first, records.lasts[position], values, records.problem))
            yield Row(first, None if found else dict(zip(names, values, strict=True)), found)

    def all_rows() -> Iterator[Row]:
        return rows(range(len(split().values)))

    def numbers() -> Sequence[int]:
        if isinstance(block, LineBlock):
            return range(block.first, block.first + block.n_lines)
        return block.firsts

    return Block(columns, all_rows, rows, numbers)


def _record_columns(
    records: RecordBlock, names: list[str], wanted: list[str]
) -> pa.RecordBatch | None:
    """The wanted columns of a table, if all of its records have all columns and hold text."""
    if records.problem or set(map(len, records.values)) != {len(names)}:
        return None
    try:
        "".join(map("".join, records.values)).encode()
    except UnicodeEncodeError:
        return None  # a byte that is no text, in any column, makes its row a bad one
    columns = [
        pa.array(map(operator.itemgetter(names.index(name)), records.values), pa.string())
        for name in wanted
    ]
    return pa.RecordBatch.from_arrays(columns, wanted)


def of_lines(
    data: bytes,
    first: int,
    fields: Collection[str] | None,
    read: Callable[[int, bytes], Row | None],
) -> Block:
    """A block of a file of JSON lines.

    Args:
        data: whole lines; the last one may lack its end.
        first: number of the first line, from 1.
        fields: the fields that are used; None: all.
        read: makes a row of the number of a line and the line; None of a blank line.
    """
    lines = cache(lambda: io.BytesIO(data).readlines())

    def rows(positions: Sequence[int]) -> Iterator[Row]:
        found = (read(first + position, lines()[position]) for position in positions)
        return (row for row in found if row is not None)

    n_lines = data.count(b"\n") + (not data.endswith(b"\n"))
    return Block(
        partial(_json_columns, data, fields),
        lambda: rows(range(n_lines)),
        rows,
        lambda: range(first, first + n_lines),
    )


def _json_columns(data: bytes, fields: Collection[str] | None) -> pa.RecordBatch | None:
    """The wanted fields of lines of JSON, if each line is one object that Arrow reads as Python."""
    if fields is None:
        return None

    # One object a line: no object goes on over lines that begin and end with braces.
    body = data.removesuffix(b"\n").removesuffix(b"\r")
    is_crlf = body[: body.find(b"\n")].endswith(b"\r")
    end = b"}\r\n{" if is_crlf else b"}\n{"
    n_rows = body.count(b"\n") + 1
    if not (body.startswith(b"{") and body.endswith(b"}") and body.count(end) == n_rows - 1):
        return None
    if b"\0" in body or _most_opened(body) > MOST_OPENED or not _is_utf8(body):
        return None

    # The types, by the first lines. Text and integers are the same in Arrow; floats keep a zero.
    schema = _json_schema(io.BytesIO(body), fields)
    if schema is None:
        return None
    parsing = pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    reading = pj.ReadOptions(use_threads=False, block_size=len(body) + 1)
    try:
        pool = pa.system_memory_pool()  # gives back what each block took
        table = pj.read_json(pa.BufferReader(body), reading, parsing, pool).combine_chunks()
    except (pa.ArrowException, UnicodeDecodeError):
        return None
    is_whole = table.num_rows == n_rows and table.num_columns == len(schema)
    return table.to_batches()[0] if is_whole else None


def _json_schema(stream: io.BytesIO, fields: Collection[str]) -> pa.Schema | None:
    """Text, integers or lists of text for each field; None where there are others."""
    kinds: dict[str, set[type]] = {name: set() for name in fields}
    for _, line in zip(range(LEADING_LINES), stream, strict=False):
        try:
            row = json_values.parse(line.decode())
        except (ValueError, RecursionError):
            return None
        if not isinstance(row, dict):
            return None
        for name, found in kinds.items():
            found.add(type(row.get(name)))
    types = {str: pa.string(), int: pa.int64(), list: pa.list_(pa.string())}
    known = {name: found - {type(None)} for name, found in kinds.items()}
    if any(len(found) > 1 or not found <= types.keys() for found in known.values()):
        return None
    try:
        return pa.schema([(name, types[next(iter(found), str)]) for name, found in known.items()])
    except UnicodeEncodeError:  # a field's name with half a surrogate pair: no line has it
        return None


def _most_opened(body: bytes) -> int:
    """The largest number of brackets that one line opens, or a bound of it."""
    n_lines, n_opened = body.count(b"\n") + 1, body.count(b"{") + body.count(b"[")
    if n_opened - n_lines < MOST_OPENED:  # each line opens one at least
        return n_opened - n_lines + 1
    letters = np.frombuffer(body, dtype=np.uint8)
    starts = np.concatenate([[0], np.flatnonzero(letters == LINE_END) + 1])
    opened = (letters == OPENING[0]) | (letters == OPENING[1])
    return int(np.add.reduceat(opened, starts, dtype=np.int32).max())


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
