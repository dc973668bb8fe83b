"""Training data of the encoders: who answers what, and what does not.

    triples.parquet  query, positive, negative (strings; negative may be null)
    pairs.parquet    query, passage (strings), label (int64, 0 or 1)

and the files of RocketQA they come from, tab-separated without a header:

    dual.train.tsv   query, title, positive, title, negative, a last column that is not used
    cross.train.tsv  query, title, passage, label

Source: https://github.com/PaddlePaddle/RocketQA
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from sidmill.formats.passages import join_title, read_lines
from sidmill.io import parquet

TRIPLES = pa.schema([("query", pa.string()), ("positive", pa.string()), ("negative", pa.string())])
PAIRS = pa.schema([("query", pa.string()), ("passage", pa.string()), ("label", pa.int64())])


class Line(NamedTuple):
    """One line of a training file: its values in the order of the schema, or a ``problem``."""

    row: int
    values: tuple | None
    problem: str | None = None


def read_dual(path: str | Path) -> Iterator[Line]:
    """Yield the triples of a dual.train.tsv."""
    for row, line, problem in read_lines(path):
        columns = line.split("\t")
        if problem is None and len(columns) not in (5, 6):
            problem = f"{len(columns)} columns, wanted 6 (query, title, positive, title, negative)"
        if problem is None:
            query, title, positive, other, negative = (column.strip() for column in columns[:5])
            if not query or not positive:
                problem = "no query, or no positive passage"
        if problem:
            yield Line(row, None, problem)
        else:
            negative = join_title(other, negative) if negative else None
            yield Line(row, (query, join_title(title, positive), negative))


def read_cross(path: str | Path) -> Iterator[Line]:
    """Yield the pairs of a cross.train.tsv."""
    for row, line, problem in read_lines(path):
        columns = line.split("\t")
        if problem is None and len(columns) != 4:
            problem = f"{len(columns)} columns, wanted 4 (query, title, passage, label)"
        elif problem is None and columns[3].strip() not in ("0", "1"):
            problem = f"the label is {columns[3]!r}, wanted 0 or 1"
        elif problem is None and not (columns[0].strip() and columns[2].strip()):
            problem = "no query, or no passage"
        if problem:
            yield Line(row, None, problem)
        else:
            query, title, passage, label = columns
            yield Line(row, (query.strip(), join_title(title, passage), int(label)))


def write(path: str | Path, schema: pa.Schema, rows: Iterable[tuple]) -> int:
    """Write rows of ``TRIPLES`` or ``PAIRS`` and return how many. Memory: two row groups."""
    return parquet.write(path, schema, _tables(schema, rows))


def read(path: str | Path, schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield tables of ``TRIPLES`` or ``PAIRS``, a row group at a time."""
    file = parquet.open_file(path, {field.name: field.type.equals for field in schema})
    return parquet.read_rows(file, schema.names, 0, file.metadata.num_rows)


def _tables(schema: pa.Schema, rows: Iterable[tuple]) -> Iterator[pa.Table]:
    waiting = []
    for row in rows:
        waiting.append(dict(zip(schema.names, row, strict=True)))
        if len(waiting) == parquet.ROWS_PER_GROUP:
            yield pa.Table.from_pylist(waiting, schema)
            waiting = []
    yield pa.Table.from_pylist(waiting, schema)
