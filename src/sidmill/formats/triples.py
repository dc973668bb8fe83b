"""Training data of the encoders: passages that answer a query, and passages that do not.

    triples.parquet  query, positive, negative (strings; negative may be null)
    pairs.parquet    query, passage (strings), label (int64, 0 or 1)

and the files of RocketQA, tab-separated without a header:

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


# Values in the order of the schema: query, positive, negative; or query, passage, label.
Row = tuple[str, str, str | None] | tuple[str, str, int]


class Line(NamedTuple):
    """One line of a training file: its values in the order of the schema, or a ``problem``."""

    row: int
    values: Row | None
    problem: str | None = None


def read_dual(path: str | Path) -> Iterator[Line]:
    """Yield the triples of a dual.train.tsv."""
    for row, line, problem in read_lines(path):
        columns = [column.strip() for column in line.split("\t")]
        if problem is None and len(columns) not in (5, 6):
            problem = f"{len(columns)} columns, wanted 6 (query, title, positive, title, negative)"
        elif problem is None and not (columns[0] and columns[2]):
            problem = "no query, or no positive passage"
        if problem:
            yield Line(row, None, problem)
        else:
            query, title, positive, other_title, other = columns[:5]
            negative = join_title(other_title, other) if other else None
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


def write(path: str | Path, schema: pa.Schema, rows: Iterable[Row]) -> int:
    """Write rows of ``TRIPLES`` or ``PAIRS`` and return their number. Memory: two row groups."""
    return parquet.write(path, schema, _tables(schema, rows))


def read(path: str | Path, schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield tables of ``TRIPLES`` or ``PAIRS``, a row group at a time."""
    file = parquet.open_file(path, {field.name: field.type.equals for field in schema})
    return parquet.read_rows(file, schema.names, 0, file.metadata.num_rows)


def _tables(schema: pa.Schema, rows: Iterable[Row]) -> Iterator[pa.Table]:
    batch = []
    for row in rows:
        batch.append(dict(zip(schema.names, row, strict=True)))
        if len(batch) == parquet.ROWS_PER_GROUP:
            yield pa.Table.from_pylist(batch, schema)
            batch = []
    yield pa.Table.from_pylist(batch, schema)
