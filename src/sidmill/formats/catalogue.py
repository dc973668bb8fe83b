"""The user's catalogue: JSON lines, a JSON array, CSV, TSV or parquet, row by row.

A reader yields one :class:`Row` per row of the input, good or bad, so that the caller can count
every row: a line that cannot be read is a row with a ``problem``. Where no row after it could be
found again, in a JSON array, a parquet file or behind an unclosed quote of CSV, it is an error.
"""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import ijson
import pyarrow as pa
import pyarrow.parquet as pq

from sidmill.core.errors import SidmillError
from sidmill.formats import lines

COMPRESSIONS = (".gz", ".zst")
KINDS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
SUFFIXES = tuple(kind + end for kind in KINDS for end in ("", *COMPRESSIONS))
BATCH_ROWS = 1024
NOT_UTF8 = re.compile("[\udc80-\udcff]")  # what surrogateescape makes of such bytes
DEEPEST = 5000  # brackets that an element of a JSON array leaves open


class Row(NamedTuple):
    """One row of a file.

    Attributes:
        number: number of its first line (JSON lines, CSV), or of the row (JSON array, parquet),
            from 1.
        fields: field name to value as stored, or None where the row cannot be read.
        problem: why it cannot be read, else None.
    """

    number: int
    fields: dict | None
    problem: str | None = None


def read(path: str | Path) -> Iterator[Row]:
    """Yield the rows of one file in order. Memory: one row, for parquet 1,024 rows.

    Raises:
        SidmillError: if the file as a whole cannot be read: missing, empty, damaged, or of an
            unknown kind; or if it cannot be read on from some row.
    """
    name = str(path).lower()
    base = name.removesuffix(".gz").removesuffix(".zst")
    kind = next((kind for kind in KINDS if base.endswith(kind)), None)
    if kind is None:
        raise SidmillError(
            f"{path}: unknown kind of file: take one ending in {', '.join(KINDS)}, "
            f"all but parquet also with .gz or .zst behind"
        )
    if not Path(path).is_file():
        raise SidmillError(f"{path}: no such file")
    if Path(path).stat().st_size == 0:
        raise SidmillError(f"{path}: the file is empty, wanted at least one row")
    if kind == ".parquet":
        return _read_parquet(path)
    return _read_stream(path, kind)


def is_table(path: str | Path) -> bool:
    """Whether a file is CSV or TSV, where every value is text."""
    return str(path).lower().removesuffix(".gz").removesuffix(".zst").endswith((".csv", ".tsv"))


def _read_stream(path: str | Path, kind: str) -> Iterator[Row]:
    try:
        with _open(path) as stream:
            if kind in (".csv", ".tsv"):
                yield from _read_table(path, stream, "," if kind == ".csv" else "\t")
            elif _starts_array(path):
                yield from _read_array(path, stream)
            else:
                yield from _read_lines(stream)
    except (OSError, EOFError, zlib.error, pa.ArrowInvalid) as error:
        raise SidmillError(
            f"{path}: cannot be read to its end ({error}): is it whole, and compressed as its name "
            f"says?"
        ) from None


def _open(path: str | Path) -> io.BufferedReader:
    """Open for reading bytes, decompressed, past a byte order mark."""
    if str(path).lower().endswith(".gz"):
        raw = gzip.open(path, "rb")  # noqa: SIM115 - the caller closes it
    elif str(path).lower().endswith(".zst"):
        raw = pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")
    else:
        raw = Path(path).open("rb", buffering=0)  # noqa: SIM115
    stream = io.BufferedReader(raw, 1 << 20)
    if stream.peek(3)[:3] == b"\xef\xbb\xbf":
        stream.read(3)
    return stream


def _starts_array(path: str | Path) -> bool:
    with _open(path) as stream:
        while chunk := stream.read(1 << 16):
            if start := chunk.lstrip():
                return start.startswith(b"[")
    return False


def _read_lines(stream: io.BufferedReader) -> Iterator[Row]:
    for number, line in enumerate(lines.read(stream), start=1):
        if line is None:
            yield Row(number, None, lines.TOO_LONG)
            continue
        if line.isspace():
            continue
        try:
            fields = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            yield Row(number, None, f"not UTF-8 (byte {error.start} of the line)")
            continue
        except ValueError as error:
            yield Row(number, None, f"not JSON ({error})")
            continue
        except RecursionError:
            yield Row(number, None, "JSON nested too deeply")
            continue
        if isinstance(fields, dict):
            yield Row(number, fields)
        else:
            yield Row(number, None, f"a JSON {type(fields).__name__}, wanted an object")


def _read_array(path: str | Path, stream: io.BufferedReader) -> Iterator[Row]:
    number = 0
    try:
        source = _Array(path, stream)
        for number, fields in enumerate(ijson.items(source, "item", use_float=True), start=1):
            source.element(number)
            if isinstance(fields, dict):
                yield Row(number, fields)
            else:
                yield Row(number, None, f"a JSON {type(fields).__name__}, wanted an object")
    except (ijson.JSONError, UnicodeDecodeError, RecursionError) as error:
        raise SidmillError(
            f"{path}: cannot be read past element {number} of its JSON array ({error}): mend what "
            f"follows there; integers above 64 bits belong in quotes"
        ) from None


class _Array:
    """The stream of a JSON array, which stops where an element does not end or nests too deeply.

    The parser's time grows with the square of the depth.
    """

    def __init__(self, path: str | Path, stream: io.BufferedReader) -> None:
        self.path, self.stream = path, stream
        self.element(0)

    def element(self, number: int) -> None:
        """Begin to count behind an element."""
        self.number, self.left, self.depth = number, lines.LONGEST, 0

    def read(self, size: int) -> bytes:
        """Read on.

        Raises:
            SidmillError: if the element after the last one is too long, or too deep.
        """
        chunk = self.stream.read(size)
        self.left -= len(chunk)
        self.depth += sum(map(chunk.count, (b"[", b"{"))) - sum(map(chunk.count, (b"]", b"}")))
        if self.left < 0 or self.depth > DEEPEST:
            found = "nested too deeply" if self.left >= 0 else lines.TOO_LONG
            raise SidmillError(
                f"{self.path}: what follows element {self.number} of its JSON array is {found}: "
                f"mend it"
            )
        return chunk


def _text_lines(path: str | Path, text: io.TextIOWrapper) -> Iterator[str]:
    for number, line in enumerate(iter(partial(text.readline, lines.LONGEST), ""), start=1):
        if len(line) == lines.LONGEST:
            raise SidmillError(f"{path}, line {number}: {lines.TOO_LONG}: mend it")
        yield line


def _read_table(path: str | Path, stream: io.BufferedReader, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(lines.LONGEST)
    # A byte that is not UTF-8 becomes a lone surrogate, which the check below turns into a bad row.
    text = io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape", newline="")
    rows = csv.reader(_text_lines(path, text), delimiter=delimiter, strict=True)
    try:
        header = next(rows, [])
    except csv.Error as error:
        raise SidmillError(f"{path}: the header is not CSV ({error}): mend it") from None
    _check_columns(path, header)
    while True:
        first = rows.line_num + 1
        try:
            values = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            if rows.line_num > first:
                raise SidmillError(
                    f"{path}, line {first}: a quote opened there is not closed where the field "
                    f"ends, at line {rows.line_num}: mend it; no row after it can be told apart"
                ) from None
            yield Row(first, None, f"not CSV ({error})")
            continue
        if not values:
            continue
        if len(values) != len(header):
            span = f" in lines {first} to {rows.line_num}" if rows.line_num > first else ""
            problem = f"{len(values)} columns{span}, the header has {len(header)}"
            yield Row(first, None, problem)
        elif any(map(NOT_UTF8.search, values)):
            yield Row(first, None, "not UTF-8")
        else:
            yield Row(first, dict(zip(header, values, strict=True)))


def _read_parquet(path: str | Path) -> Iterator[Row]:
    try:
        file = pq.ParquetFile(path)
        _check_columns(path, file.schema_arrow.names)
        number = 0
        for batch in file.iter_batches(batch_size=BATCH_ROWS):
            for fields in batch.to_pylist():
                number += 1
                yield Row(number, fields)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise SidmillError(
            f"{path}: not a readable parquet file ({str(error).splitlines()[0]}): write it again"
        ) from None


def _check_columns(path: str | Path, names: list[str]) -> None:
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise SidmillError(f"{path}: two columns are named {repeated!r}: rename one")
