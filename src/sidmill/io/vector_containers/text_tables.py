"""Vectors in .csv and .tsv: a header, and one row per vector.

    pid,embedding           the vector in one column, "[0.1, 0.2]" or "0.1 0.2"
    pid,0,1,2               the vector in all other columns

Read three times: for the number of rows, for the ids, and for the vectors. Memory: a block of rows.
"""

import csv
import io
import re
from collections.abc import Iterator
from functools import partial
from itertools import islice

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.io import text_lines, user_arrays
from sidmill.io.vector_containers import container
from sidmill.io.vector_containers.container import Container, Names

SEPARATORS = {".csv": ",", ".tsv": "\t"}
BRACKETS = str.maketrans("[](),;", "      ")


def open_table(path: str, names: Names) -> Container:
    """Open a table.

    Raises:
        SidmillError: if it has no header, no vectors, or a row of another length.
    """
    header = next((row for _, row in _rows(path)), [])
    columns = _vector_columns(path, header, names)
    first = next(_vectors(path, columns, len(header)), None)
    if first is None:
        raise SidmillError(f"{path}: no row behind its header")
    n_rows = sum(1 for _ in _rows(path)) - 1
    has_ids = names.pid in header
    return Container(
        (n_rows, first.shape[1]),
        partial(_vectors, path, columns, len(header)),
        partial(_ids, path, header.index(names.pid)) if has_ids else None,
    )


def _rows(path: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(text_lines.LONGEST)
    separator = SEPARATORS[re.sub(r"\.(gz|zst)$", "", path.lower())[-4:]]
    with text_lines.opened(path) as stream:
        text = io.TextIOWrapper(stream, "utf-8-sig", newline="")
        rows = csv.reader(text, delimiter=separator, strict=True)
        try:
            for row in rows:
                if row:
                    yield rows.line_num, row
        except (csv.Error, UnicodeDecodeError) as error:
            raise SidmillError(f"{path}, line {rows.line_num + 1}: not CSV ({error})") from None


def _vector_columns(path: str, header: list[str], names: Names) -> list[int]:
    """The columns of the vector: the one of that name, or all but the ids."""
    if names.embedding in header:
        return [header.index(names.embedding)]
    columns = [number for number, name in enumerate(header) if name != names.pid]
    if not columns or (all(_is_number(name) for name in header) and names.pid not in header):
        raise SidmillError(
            f"{path}: no column {names.embedding!r} in its first line ({', '.join(header):.100}): "
            f"write a header with the names, and set embedding.fields"
        )
    return columns


def _is_number(name: str) -> bool:
    return bool(re.fullmatch(r"[-+]?\d+\.\d+(e[-+]?\d+)?", name.strip(), re.IGNORECASE))


def _vectors(path: str, columns: list[int], width: int) -> Iterator[np.ndarray]:
    dim, rows = None, islice(_rows(path), 1, None)
    while block := list(islice(rows, container.BLOCK_ROWS)):
        # (b, D): one column with a list, or a column for each dimension.
        parsed = []
        for line, row in block:
            if len(row) != width:
                raise SidmillError(
                    f"{path}, line {line}: {len(row)} columns, the header has {width}"
                )
            values = [row[column] for column in columns]
            parts = values[0].translate(BRACKETS).split() if len(columns) == 1 else values
            dim = dim or len(parts)
            if len(parts) != dim:
                raise SidmillError(
                    f"{path}, line {line}: {len(parts)} dimensions, the first row has {dim}"
                )
            try:
                parsed.append(np.array(parts, dtype=np.float64))
            except ValueError as error:
                raise SidmillError(f"{path}, line {line}: {error}: wanted numbers") from None
        with np.errstate(over="ignore"):
            yield np.stack(parsed).astype(np.float32)


def _ids(path: str, column: int) -> Iterator[pa.ChunkedArray]:
    """Ids as integers where every one is written as an integer, else as text."""
    integers = all(map(_is_integer, _column(path, column)))
    cells = _column(path, column)
    while texts := list(islice(cells, user_arrays.BLOCK_ROWS)):
        if integers:
            yield pa.chunked_array([pa.array(list(map(int, texts)), pa.int64())])
        else:
            yield user_arrays.ids_of(pa.array(texts, pa.string()), path)


def _column(path: str, column: int) -> Iterator[str]:
    """The cells of a column behind the header.

    Raises:
        SidmillError: if a row lacks it.
    """
    for line, row in islice(_rows(path), 1, None):
        if column >= len(row):
            raise SidmillError(
                f"{path}, line {line}: {len(row)} columns, the ids are in column {column + 1}"
            )
        yield row[column]


def _is_integer(text: str) -> bool:
    return bool(re.fullmatch(r"0|-?[1-9][0-9]{0,17}", text))  # \d takes digits of any script
