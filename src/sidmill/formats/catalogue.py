"""The user's catalogue: JSON, tables of text, or parquet, by rows or by blocks of them.

    .jsonl, .json   JSON lines, an array of objects, an object of objects (its names are the ids, as
                    LC-Rec's item.json has them), or objects one after another
    .csv, .tsv      a table with a header; other tables as the dialect says (MovieLens, MIND)
    .parquet

A reader yields one :class:`Row` per row of the input, good or bad, so that the caller can count
every row: a row that cannot be read has a ``problem``. Where no row after it could be found again,
as behind an unclosed quote of CSV, it is an error.
"""

import io
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from sidmill.core.errors import SidmillError
from sidmill.formats import catalogue_blocks
from sidmill.formats.catalogue_blocks import Block, Row
from sidmill.formats.file_names import KINDS
from sidmill.io import delimited_text, encodings, json_values, text_lines
from sidmill.io.delimited_text import Columns

TABLES = {".csv": ",", ".tsv": "\t"}
BATCH_ROWS = 1024
VALUES = "values"  # the field of a list in an object of lists
# A header cell that no one would write: nothing, a number, a list, an object, an address, a text.
DATA_CELL = re.compile(r"\s*(?:[+-]?\d[\d.,:/ -]*|\[.*|\{.*|https?://.*|.{80,})?", re.DOTALL)


class Dialect(NamedTuple):
    """How files of text are written.

    Attributes:
        encoding: ``auto`` (UTF-8, or as the byte order mark says) or its name in Python.
        separator: what parts the columns of a table, one or more characters; None: as the name of
            the file says. Files of any name are tables then, but for JSON and parquet.
        columns: names of the columns of a table without a header; None: the first line has them.
        quoted: whether a field of a table may stand in double quotes; not where the separator has
            several characters.
        section: section of the config that holds these settings, for messages; None: they cannot
            be set.
    """

    encoding: str = encodings.AUTO
    separator: str | None = None
    columns: tuple[str, ...] | None = None
    quoted: bool = True
    section: str | None = None

    def named(self, key: str) -> str | None:
        """The config key of a setting."""
        return f"{self.section}.{key}" if self.section else None


PLAIN = Dialect()


def read(
    path: str | Path, fields: Collection[str] | None = None, dialect: Dialect = PLAIN
) -> Iterator[Row]:
    """Yield the rows of one catalogue file in order. Memory: one of :func:`blocks`.

    Args:
        path: the file.
        fields: the fields that are used: others of a parquet file are not decoded. None: all.
        dialect: how a file of text is written.

    Raises:
        SidmillError: if the file as a whole cannot be read: missing, empty, damaged, or of an
            unknown kind; or if it cannot be read on from some row.
    """
    for block in blocks(path, fields, dialect):
        yield from block.all_rows()


def blocks(
    path: str | Path, fields: Collection[str] | None = None, dialect: Dialect = PLAIN
) -> Iterator[Block]:
    """Yield the rows of one catalogue file in order, as blocks.

    Memory: 1,024 rows of parquet, some hundred kB of text, or one row where that is larger.

    Args:
        path: the file.
        fields: the fields that are used: others may be missing in the rows. None: all.
        dialect: how a file of text is written.

    Raises:
        SidmillError: as :func:`read`.
    """
    kind = _readable_kind(path, dialect)
    if kind == ".parquet":
        return _read_parquet(path, fields)
    return _read_text(path, kind, fields, dialect)


def is_table(path: str | Path, dialect: Dialect = PLAIN) -> bool:
    """Whether a file is a table of text, where every value is text."""
    return _kind(path, dialect) in TABLES


def field_names(path: str | Path, dialect: Dialect = PLAIN) -> list[str]:
    """Names of the fields of a catalogue file: its header, schema, or first readable row."""
    if _readable_kind(path, dialect) == ".parquet":
        with reading_parquet(path):
            schema = pq.read_schema(path)
            index = _range_index(schema)
            return [*schema.names, index.name] if index else schema.names
    return list(next((row.fields for row in read(path, None, dialect) if row.fields), ()))


def about_header(path: str | Path, dialect: Dialect = PLAIN) -> str:
    """A hint for messages about fields that are missing: nothing, or that the header is data."""
    if not is_table(path, dialect) or dialect.columns is not None:
        return ""
    return _header_hint(field_names(path, dialect), dialect)


def encoding_of(path: str | Path, dialect: Dialect = PLAIN) -> str:
    """The encoding that a file is read in; that of a parquet file is UTF-8."""
    if _readable_kind(path, dialect) == ".parquet":
        return encodings.UTF8
    with text_lines.opened(path) as stream:
        return encodings.name_of(stream, dialect.encoding)


def holds_utf8(path: str | Path) -> bool:
    """Whether a line of a file holds letters beyond ASCII that are UTF-8."""
    with text_lines.opened(path) as stream:
        for line in text_lines.read(stream):
            if line is not None and not line.isascii():
                try:
                    line.decode()
                except UnicodeDecodeError:
                    continue
                return True
    return False


def _readable_kind(path: str | Path, dialect: Dialect) -> str:
    """The kind of a file that is there and holds something (a pipe would be waited for)."""
    kind = _kind(path, dialect)
    if not Path(path).is_file():
        raise SidmillError(f"{path}: no such file")
    if Path(path).stat().st_size == 0:
        raise SidmillError(f"{path}: the file is empty, wanted at least one row")
    return kind


def _kind(path: str | Path, dialect: Dialect) -> str:
    name = str(path).lower()
    base = name.removesuffix(".gz").removesuffix(".zst")
    kind = next((kind for kind in KINDS if base.endswith(kind)), None)
    if kind is None and dialect.separator is not None:
        return ".csv"
    if kind is None or (kind == ".parquet" and base != name):
        hint = dialect.named("separator")
        raise SidmillError(
            f"{path}: unknown kind of file: take one ending in {', '.join(KINDS)}, "
            f"all but parquet also with .gz or .zst behind"
            + (f"; for a table under another name set {hint}, such as '::'" if hint else "")
        )
    return kind


def _read_text(
    path: str | Path, kind: str, fields: Collection[str] | None, dialect: Dialect
) -> Iterator[Block]:
    with text_lines.opened(path) as raw:
        stream = encodings.as_utf8(raw, dialect.encoding)
        if kind in TABLES:
            yield from _read_table(path, stream, dialect.separator or TABLES[kind], fields, dialect)
            return
        with text_lines.opened(path) as again:
            form = json_values.shape(encodings.as_utf8(again, dialect.encoding))
        if form == "lines":
            yield from _read_lines(stream, fields, dialect)
            return
        rows = _read_values(path, stream, form)
        while block := list(islice(rows, BATCH_ROWS)):
            yield catalogue_blocks.of_rows(block)


def _bad_encoding(dialect: Dialect) -> str:
    """What is said of a row that is not in the encoding it is read in."""
    encoding = dialect.encoding
    return "not UTF-8" if encoding == encodings.AUTO else f"not {encoding}"


def _read_lines(
    stream: io.BufferedReader, fields: Collection[str] | None, dialect: Dialect
) -> Iterator[Block]:
    read, number = partial(_read_line, dialect), 1
    for data in text_lines.blocks(stream):
        if data is None:
            yield catalogue_blocks.of_rows([Row(number, None, text_lines.TOO_LONG)])
            number += 1
            continue
        yield catalogue_blocks.of_lines(data, number, fields, read)
        number += data.count(b"\n")


def _read_line(dialect: Dialect, number: int, line: bytes) -> Row | None:
    """The row in a line of JSON; None of a blank line."""
    if line.isspace():
        return None
    try:
        return _row(number, json_values.parse(line.decode("utf-8")))
    except UnicodeDecodeError as error:
        return Row(number, None, f"{_bad_encoding(dialect)} (byte {error.start} of the line)")
    except ValueError as error:
        hint = _literal_hint(line.decode("utf-8"))
        return Row(number, None, f"not JSON ({error}){hint}")
    except RecursionError:
        return Row(number, None, json_values.TOO_DEEP)


def _read_values(path: str | Path, stream: io.BufferedReader, form: str) -> Iterator[Row]:
    for number, found in enumerate(json_values.read(path, stream, form), start=1):
        if found.problem:
            yield Row(number, None, found.problem, found.key)
        elif found.key is not None and isinstance(found.value, list):
            yield Row(number, {VALUES: found.value}, None, found.key)
        else:
            yield _row(number, found.value)._replace(key=found.key)


def _row(number: int, value: object) -> Row:
    if isinstance(value, dict):
        return Row(number, value)
    return Row(number, None, f"a JSON {type(value).__name__}, wanted an object")


def _literal_hint(line: str) -> str:
    """Say so where a line holds what Python prints of a dictionary."""
    if re.match(r"\s*\{\s*u?'", line):
        return (
            "; it looks like a dictionary that Python printed: read it with ast.literal_eval and "
            "write it with json.dumps"
        )
    return ""


def _read_table(
    path: str | Path,
    stream: io.BufferedReader,
    separator: str,
    fields: Collection[str] | None,
    dialect: Dialect,
) -> Iterator[Block]:
    # A byte that is not UTF-8 becomes a lone surrogate, which makes its row a bad one.
    text = io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape", newline="")
    if dialect.quoted and len(separator) == 1:
        records = delimited_text.quoted_blocks(str(path), text, separator)
    else:
        records = delimited_text.plain_blocks(str(path), text, separator)

    # The names of the columns: as set, or the first line.
    columns = Columns(dialect.columns, dialect.named("columns"), _bad_encoding(dialect))
    names, rows, problem = delimited_text.table_blocks(str(path), records, columns)
    if any(map(delimited_text.NOT_TEXT.search, names)):
        raise SidmillError(
            f"{path}: the header is {_bad_encoding(dialect)}: "
            f"{encodings.remedy(path, dialect.named('encoding'), dialect.encoding)}"
        )
    _check_columns(path, names, _header_hint(names, dialect) if dialect.columns is None else "")

    for block in rows:
        yield catalogue_blocks.of_records(block, names, fields, problem)


def _header_hint(names: list[str], dialect: Dialect) -> str:
    """Say so where the first line of a table does not look like names of columns."""
    if not any(map(DATA_CELL.fullmatch, names)):
        return ""
    setting = dialect.named("columns")
    advice = f"set {setting} to the names of its columns, or " if setting else ""
    return f"; the first line looks like data: if the file has no header, {advice}write one into it"


@contextmanager
def reading_parquet(path: str | Path) -> Iterator[None]:
    """Turn pyarrow's errors on a catalogue or log in parquet into messages that name the file.

    Raises:
        SidmillError: if the file cannot be read.
    """
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise SidmillError(
            f"{path}: not a readable parquet file ({str(error).splitlines()[0]}): write it again"
        ) from None


def open_parquet(path: str | Path) -> pq.ParquetFile:
    """Open a catalogue or log in parquet, with any column names; inside :func:`reading_parquet`.

    Raises:
        SidmillError: if two columns have one name.
    """
    file = pq.ParquetFile(path)
    _check_columns(path, file.schema_arrow.names)
    return file


def _read_parquet(path: str | Path, fields: Collection[str] | None) -> Iterator[Block]:
    with reading_parquet(path):
        file = open_parquet(path)
        names = file.schema_arrow.names
        columns = None if fields is None else [name for name in names if name in fields]
        index = _range_index(file.schema_arrow)
        number = 1
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns):
            if columns is not None:
                batch = batch.select(columns)  # "a" names the column "a.b" to pyarrow, too
            yield catalogue_blocks.of_batch(batch, number, index)
            number += batch.num_rows


class _Index(NamedTuple):
    """An index of pandas that counts, which stands in the metadata in place of a column."""

    name: str
    start: int
    step: int


def _range_index(schema: pa.Schema) -> _Index | None:
    for index in (schema.pandas_metadata or {}).get("index_columns", ()):
        if isinstance(index, dict) and index.get("kind") == "range":
            found = _Index(index["name"], index["start"], index["step"])
            if found.name is not None and found.name not in schema.names:
                return found
    return None


def _check_columns(path: str | Path, names: list[str], hint: str = "") -> None:
    name = delimited_text.repeated(names)
    if name is not None:
        raise SidmillError(f"{path}: two columns are named {name!r:.80}: rename one{hint}")
