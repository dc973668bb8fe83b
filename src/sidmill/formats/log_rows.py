"""The rows of an interaction log: JSON, delimited text or parquet, by rows or by blocks of them.

    .jsonl, .json     rows as objects, or one object: user id to the list of their item ids
    .csv, .tsv        delimited text; .inter is the same with a typed header (user_id:token)
    any other ending  delimited text, where a delimiter is named
    .parquet          any integers, strings, lists, dictionaries, dates and times

All but parquet also with .gz or .zst behind. A row that cannot be read is a row with a problem;
what stops a file as a whole is an error. Numbers and ids come as stored, times of parquet as
:class:`Moment`.

Sources: the typed header is that of atomic files, https://recbole.io/atomic_files.html; the object
of lists that of https://github.com/zhengbw0324/LC-Rec
"""

import codecs
import io
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import ijson
import pyarrow as pa
import pyarrow.compute as pc

from sidmill.core.errors import SidmillError
from sidmill.formats import catalogue, catalogue_blocks
from sidmill.formats.catalogue_blocks import Block, Row
from sidmill.io import delimited_text, text_lines
from sidmill.io.delimited_text import Columns, LineBlock, RecordBlock

DELIMITERS = {".csv": ",", ".tsv": "\t", ".inter": "\t"}
BATCH_ROWS = 1024
FLAT_BATCH_ROWS = 8192  # of a parquet file without lists
MOST_NAMES = 20  # names that a message lists
PROBED_KEYS = 20  # of a JSON object, to tell one user's row from a table of all users
UNUSABLE = ('"', "\n", "\r", "\r\n", "\0")
NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
ENCODING = "interactions.encoding"
TYPED_NAME = re.compile(r"(.+):(token|token_seq|float|float_seq)")
LIST_SEPARATORS = (",", ";", "|")  # the first of them that a list has parts it; else blanks do
DATA_LIKE = re.compile(r"[-+]?\d[\d.,:/ T-]*(Z|[AP]M)?|\[.*\]|\d+(\s\d+)+", re.DOTALL)


class Moment(NamedTuple):
    """A point in time, as nanoseconds since 1970 in UTC: what a date or time of parquet is."""

    nanoseconds: int


class Dialect(NamedTuple):
    """How delimited text is written.

    Attributes:
        columns: names of the columns of files without a header line, or None.
        delimiter: what parts columns; blank for any run of blanks; None: by the file's ending.
        encoding: a codec of Python.
        list_separator: what parts the entries of a list; None: decided list by list.
        lists: names of the columns that hold lists.
    """

    columns: tuple[str, ...] | None
    delimiter: str | None
    encoding: str
    list_separator: str | None
    lists: frozenset[str]


def check(dialect: Dialect) -> None:
    """Refuse an encoding or delimiter that no interaction log can have.

    Raises:
        SidmillError: naming the setting.
    """
    try:
        codecs.lookup(dialect.encoding)
    except (LookupError, ValueError):
        raise SidmillError(
            f"interactions.encoding: {dialect.encoding!r} is no encoding that Python knows: write "
            f"utf-8, latin-1, cp1252, utf-16 or another of its codecs"
        ) from None
    if dialect.delimiter in UNUSABLE:
        raise SidmillError(
            f"interactions.delimiter: {dialect.delimiter!r} cannot part columns: name what stands "
            f"between two of them, such as '::' or '|'"
        )
    names = dialect.columns or ()
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SidmillError(f"interactions.columns: {twice!r} is listed twice: rename one")


def read(path: str | Path, dialect: Dialect, field_names: set[str]) -> Iterator[Row]:
    """Yield the rows of one file of an interaction log. Memory: one of :func:`blocks`.

    Args:
        path: the file.
        dialect: how delimited text is written; nothing to the other kinds.
        field_names: names of fields that rows have: an object with one of them is a row, and no
            object of lists, whose rows have the fields ``user_id`` and ``item_ids``.

    Raises:
        SidmillError: if the file as a whole cannot be read, or not from some row on.
    """
    return chain.from_iterable(
        block.all_rows() for block in blocks(path, dialect, field_names, None)
    )


def blocks(
    path: str | Path, dialect: Dialect, field_names: set[str], fields: Collection[str] | None
) -> Iterator[Block]:
    """Yield the rows of one file of an interaction log, as blocks.

    A row of parquet is one with a problem if any field of it is no text, also one that is not used.
    Memory: 8,192 rows of parquet, 1,024 where it has lists; some hundred kB of text, or one row
    where that is larger.

    Args:
        path: the file.
        dialect: as of :func:`read`.
        field_names: as of :func:`read`.
        fields: the fields that the columns of a block hold, as far as the file has them; a block
            with a list in one of them has no columns. None: no block has columns.

    Raises:
        SidmillError: as :func:`read`.
    """
    kind = _kind(path)
    if kind in (".json", ".jsonl"):
        if _is_object_of_lists(path, field_names):
            return _read_object(path)
        return catalogue.blocks(path, fields)
    if kind == ".parquet":
        _require_content(path)
        return _read_parquet(path, fields)
    delimiter = dialect.delimiter or DELIMITERS.get(kind)
    if delimiter is None:
        raise SidmillError(
            f"{path}: unknown kind of file: take one ending in .jsonl, .json, .csv, .tsv, .inter "
            f"(also with .gz or .zst behind) or .parquet, or set interactions.delimiter to what "
            f"parts its columns, as in '::'"
        )
    _require_content(path)
    return _read_table(path, delimiter, dialect, fields)


def is_table(path: str | Path) -> bool:
    """Whether a file is delimited text, where every value is text."""
    return _kind(path) not in (".json", ".jsonl", ".parquet")


def shown(names: list[str] | set[str]) -> str:
    """Names for a message, 20 at most, none of any length."""
    listed = [f"{name!s:.40}" for name in islice(names, MOST_NAMES)]
    more = len(names) - len(listed)
    return ", ".join(listed) + (f" and {more} more" if more else "")


def looks_like_data(names: list[str]) -> bool:
    """Whether a header line holds values and not names: numbers, dates, lists, nothing."""
    return any(DATA_LIKE.fullmatch(name) for name in map(str, names))


def _kind(path: str | Path) -> str:
    base = str(path).lower().removesuffix(".gz").removesuffix(".zst")
    return Path(base).suffix


def _require_content(path: str | Path) -> None:
    if not Path(path).is_file():
        raise SidmillError(f"{path}: no such file")
    if Path(path).stat().st_size == 0:
        raise SidmillError(f"{path}: the file is empty, wanted at least one row")


def _past_mark(stream: io.BufferedReader) -> io.BufferedReader:
    """Skip a byte order mark of UTF-8."""
    if stream.peek(3)[:3] == codecs.BOM_UTF8:
        stream.read(3)
    return stream


# Delimited text


def _read_table(
    path: str | Path, delimiter: str, dialect: Dialect, fields: Collection[str] | None
) -> Iterator[Block]:
    try:
        with text_lines.opened(path) as stream:
            is_utf8 = codecs.lookup(dialect.encoding).name == "utf-8"
            if is_utf8 and stream.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
                raise SidmillError(
                    f"{path}: begins with the mark of UTF-16: set interactions.encoding: utf-16"
                )
            source = _past_mark(stream) if is_utf8 else stream
            # A byte that is no text becomes a lone surrogate, which makes its row a bad one.
            text = io.TextIOWrapper(source, dialect.encoding, "surrogateescape", newline="")
            yield from _table_blocks(path, text, delimiter, dialect, fields)
    except UnicodeError as error:
        raise SidmillError(
            f"{path}: cannot be read to its end ({error}): is it written in interactions.encoding "
            f"({dialect.encoding})?"
        ) from None


def _table_blocks(
    path: str | Path,
    text: io.TextIOWrapper,
    delimiter: str,
    dialect: Dialect,
    fields: Collection[str] | None,
) -> Iterator[Block]:
    """Yield the rows of delimited text, whose lists are cut into their entries."""
    records: Iterator[RecordBlock | LineBlock]
    if len(delimiter) > 1 or delimiter == " " or _kind(path) == ".inter":  # no quotes in these
        separator = None if delimiter == " " else delimiter
        records = delimited_text.plain_blocks(str(path), text, separator)
    else:
        records = delimited_text.quoted_blocks(str(path), text, delimiter)

    # The names of the columns: as set, or the first line, which may have types, too.
    not_text = f"not {dialect.encoding.upper()}: is it latin-1? set {ENCODING}"
    columns = Columns(dialect.columns, "interactions.columns", not_text)
    names, table, problem = delimited_text.table_blocks(str(path), records, columns)
    lists = set(dialect.lists)
    if dialect.columns is None:
        names, typed_lists = _header(path, names)
        lists |= typed_lists
    lists &= set(names)

    # Columns are text, so a field that holds a list has none.
    wanted = set(fields or ())
    has_columns = not wanted.isdisjoint(names) and wanted.isdisjoint(lists)
    cut = partial(_with_lists, lists, dialect.list_separator)
    for lines in table:
        block = catalogue_blocks.of_records(lines, names, wanted, problem)
        yield _converted(block, cut, has_columns)


def _converted(
    block: Block, convert: Callable[[Iterator[Row]], Iterator[Row]], has_columns: bool
) -> Block:
    """A block whose rows are converted, and that may have to be read by rows."""
    return Block(
        block.columns if has_columns else lambda: None,
        lambda: convert(block.all_rows()),
        lambda positions: convert(block.rows(positions)),
        block.numbers,
    )


def _with_lists(lists: set[str], separator: str | None, rows: Iterator[Row]) -> Iterator[Row]:
    """The same rows, with lists in place of the texts that stand for lists."""
    for row in rows:
        fields = row.fields
        if fields is not None:
            fields.update((name, _listed(fields[name], separator)) for name in lists)
        yield row


def _header(path: str | Path, values: list[str]) -> tuple[list[str], set[str]]:
    """Names of the columns, without their types, and the names of those that hold lists."""
    matches = [match for match in map(TYPED_NAME.fullmatch, values) if match]
    lists: set[str] = set()
    if values and len(matches) == len(values):
        lists = {match[1] for match in matches if match[2].endswith("_seq")}
        values = [match[1] for match in matches]
    repeated = delimited_text.repeated(values)
    if repeated is not None:
        hint = (
            f": the first line looks like data, so name the {len(values)} columns in "
            f"interactions.columns"
            if looks_like_data(values)
            else ": rename one"
        )
        raise SidmillError(f"{path}: two columns are named {repeated!r:.60}{hint}")
    return values, lists


def _listed(value: str, separator: str | None) -> list[str] | None:
    """The entries of a list that is written as text; None where nothing is written.

    Brackets and quotes around are taken off. Without a separator, entries are parted by commas;
    where there is none by semicolons, then by bars, then by white space.
    """
    text = value.strip()
    if not text:
        return None
    if separator is not None:
        return [part.strip() for part in text.split(separator) if part.strip()]
    if text[0] + text[-1] in ("[]", "()"):
        text = text[1:-1].strip()
    parts = text.split(next((mark for mark in LIST_SEPARATORS if mark in text), None))
    return [part.strip().strip("'\"") for part in parts if part.strip()]


# One JSON object


def _is_object_of_lists(path: str | Path, field_names: set[str]) -> bool:
    """Whether a JSON file is one object whose every value is a list, as far as its first keys."""
    if not Path(path).is_file():
        return False
    # Read events of the first keys, never the whole file.
    seen = 0
    try:
        with text_lines.opened(path) as stream:
            events = ijson.basic_parse(_Guarded(path, _past_mark(stream)), use_float=True)
            if next(events, (None, None))[0] != "start_map":
                return False
            for event, name in events:
                if event == "end_map" or seen == PROBED_KEYS:
                    return seen > 0
                if event != "map_key" or name in field_names or next(events)[0] != "start_array":
                    return False

                # A list of lists, or of objects, is no list of ids.
                while (inner := next(events))[0] != "end_array":
                    if inner[0].startswith(("start", "map", "end")):
                        return False
                seen += 1
    except (ijson.JSONError, UnicodeDecodeError, StopIteration, SidmillError):
        return False  # the reader of rows says what is wrong
    return False


def _read_object(path: str | Path) -> Iterator[Block]:
    number = 0
    try:
        with text_lines.opened(path) as stream:
            source = _Guarded(path, _past_mark(stream))
            pairs = ijson.kvitems(source, "", use_float=True)
            for number, (user, items) in enumerate(pairs, start=1):
                source.begin(number)
                yield catalogue_blocks.of_rows([Row(number, {"user_id": user, "item_ids": items})])
    except (ijson.JSONError, UnicodeDecodeError, RecursionError) as error:
        raise SidmillError(
            f"{path}: cannot be read past entry {number} of its JSON object ({error}): correct "
            f"what follows there; integers above 64 bits belong in quotes"
        ) from None


class _Guarded:
    """A stream of JSON that stops where an entry is too long."""

    def __init__(self, path: str | Path, stream: io.BufferedReader) -> None:
        self.path, self.stream = path, stream
        self.begin(0)

    def begin(self, number: int) -> None:
        """Begin to count behind an entry."""
        self.number, self.left = number, text_lines.LONGEST

    def read(self, size: int) -> bytes:
        """Read on.

        Raises:
            SidmillError: if what follows the last entry is too long.
        """
        chunk = self.stream.read(size)
        self.left -= len(chunk)
        if self.left < 0:
            raise SidmillError(
                f"{self.path}: what follows entry {self.number} is {text_lines.TOO_LONG}: "
                f"correct it"
            )
        return chunk


# Parquet


def _read_parquet(path: str | Path, fields: Collection[str] | None) -> Iterator[Block]:
    with catalogue.reading_parquet(path):
        file = catalogue.open_parquet(path)
        schema = file.schema_arrow
        has_columns = fields is not None and all(map(_is_readable, schema.types))
        n_rows = BATCH_ROWS if any(map(_is_list, schema.types)) else FLAT_BATCH_ROWS
        number = 1
        for batch in file.iter_batches(batch_size=n_rows):
            yield _batch_block(batch, number, has_columns)
            number += batch.num_rows


def _batch_block(batch: pa.RecordBatch, first: int, has_columns: bool) -> Block:
    """A block of a parquet file.

    Args:
        batch: the rows.
        first: number of the first row, from 1.
        has_columns: whether it may be read by columns.
    """
    numbers = range(first, first + batch.num_rows)

    def columns() -> pa.RecordBatch | None:
        return batch if has_columns and _is_text(batch) else None

    def rows(positions: Sequence[int]) -> Iterator[Row]:
        for position in positions:
            yield from _batch_rows(batch.slice(position, 1), first + position)

    return Block(columns, lambda: _batch_rows(batch, first), rows, lambda: numbers)


def _batch_rows(batch: pa.RecordBatch, first: int) -> Iterator[Row]:
    bad: set[int] = set()
    names = batch.schema.names
    columns = [_values(column, bad) for column in batch.columns]
    for row, values in enumerate(zip(*columns, strict=True)):
        if row in bad:
            yield Row(first + row, None, "not UTF-8")
        else:
            yield Row(first + row, dict(zip(names, values, strict=True)))


def _is_readable(kind: pa.DataType) -> bool:
    """Whether Python has all values of a type, but for text that is not UTF-8."""
    if pa.types.is_dictionary(kind):
        return _is_readable(kind.value_type)
    if _is_list(kind):
        inner = kind.value_type
        return not _is_list(inner) and not _is_binary(inner) and _is_readable(inner)
    tests = (
        pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal,
        pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, _is_binary,
        pa.types.is_timestamp, pa.types.is_date,
    )  # fmt: skip
    return any(test(kind) for test in tests)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_text(batch: pa.RecordBatch) -> bool:
    """Whether all text of a batch, in any column, is UTF-8: else some row is a bad one."""
    try:
        batch.validate(full=True)
        for column in batch.columns:
            values = column.dictionary if pa.types.is_dictionary(column.type) else column
            if _is_binary(values.type):
                values.cast(pa.large_string())  # which checks the bytes
    except pa.ArrowInvalid:
        return False
    return True


def _values(column: pa.Array, bad: set[int]) -> list[Any]:
    """The values of a column as Python has them; ``bad`` takes the rows that are no text.

    Times of any unit become :class:`Moment`, binary columns text where they hold it: some writers
    store strings so.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _values(column.dictionary_decode(), bad)
    if pa.types.is_timestamp(kind):
        return _moments(column.cast(pa.int64()), NS[kind.unit])
    if pa.types.is_date32(kind):
        return _moments(column.cast(pa.int32()), 86400 * NS["s"])
    if pa.types.is_date64(kind):
        return _moments(column.cast(pa.int64()), NS["ms"])
    if (pa.types.is_nested(kind) and not _is_list(kind)) or pa.types.is_time(kind):
        return list(column)  # no id and no timestamp: its row is refused where it is looked at
    if _is_list(kind) and not pa.types.is_integer(kind.value_type):
        return _nested(column, bad)
    if _is_binary(kind):
        return _each(column, lambda value: value.as_py().decode(), bad)
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        return _each(column, lambda value: value.as_py(), bad)


def _is_list(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _moments(numbers: pa.Array, factor: int) -> list[Moment | None]:
    return [None if value is None else Moment(value * factor) for value in numbers.to_pylist()]


def _nested(column: pa.Array, bad: set[int]) -> list[list[Any] | None]:
    """Lists of values that are no plain integers: the values at once, then cut into lists."""
    sizes = pc.fill_null(pc.list_value_length(column), 0).to_pylist()
    bad_values: set[int] = set()
    values = _values(column.drop_null().flatten(), bad_values)
    lists, begin = [], 0
    for place, (size, is_there) in enumerate(
        zip(sizes, column.is_valid().to_pylist(), strict=True)
    ):
        lists.append(values[begin : begin + size] if is_there else None)
        if bad_values and not bad_values.isdisjoint(range(begin, begin + size)):
            bad.add(place)
        begin += size
    return lists


def _each(column: pa.Array, convert: Callable[[pa.Scalar], object], bad: set[int]) -> list[Any]:
    """Convert value by value, where a whole column at once does not go."""
    found = []
    for place, value in enumerate(column):
        try:
            found.append(convert(value) if value.is_valid else None)
        except UnicodeDecodeError:
            found.append(None)
            bad.add(place)
    return found
