"""One file against its form (:mod:`sidmill.formats.schemas`)."""

import json
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jsonschema import Draft202012Validator, ValidationError

from sidmill.core.errors import SidmillError
from sidmill.core.listing import some
from sidmill.formats import quantizer_file
from sidmill.formats.schemas import Array, Column, Json, Table, Tensors
from sidmill.io import json_report, parquet, tensors
from sidmill.report import inspect
from sidmill.report.inspect.tables import parts_of

BATCH_ROWS = 65536
OPTIONAL = ("price.*",)  # tensors that a file need not have


def fault(path: Path, form: Table | Array | Tensors | Json, *, whole: bool) -> str | None:
    """Say the first thing in which a file breaks its form; None if it keeps it.

    Args:
        path: the file, or the folder of parts.
        form: what it should be.
        whole: read all rows; else of large files a part.
    """
    try:
        if isinstance(form, Table):
            return _table(path, form) or _inspected(path, whole)
        if isinstance(form, Array):
            return _inspected(path, whole) or _array(path, form)
        if isinstance(form, Tensors):
            return _tensors(path, form) or _inspected(path, whole)
        return _json(path, form)
    except SidmillError as error:
        return str(error).removeprefix(f"{path}: ")


def _inspected(path: Path, whole: bool) -> str | None:
    """The first check of ``sidmill inspect`` that fails."""
    for check in inspect.describe(str(path), 0, whole).checks:
        if check.ok is False:
            return f"not so: {check.what}" + (f" ({check.says})" if check.says else "")
    return None


def _table(path: Path, form: Table) -> str | None:
    # Columns and metadata of each part.
    parts = parts_of(path) if path.is_dir() else [path]
    opened = []
    for part in parts:
        with parquet.naming(part):
            opened.append(parquet.Parquet(part))
    for part, file in zip(parts, opened, strict=True):
        says = _columns(file.schema_arrow, form)
        if says:
            return says if part == path else f"{part.name}: {says}"

    # Values, batch by batch. Whether ids are unique is a check of ``inspect``.
    present = opened[0].schema_arrow.names if opened else []
    for column in form.columns:
        if column.optional and column.name not in present:
            continue
        row, seen = 0, []
        for part, file in zip(parts, opened, strict=True):
            with parquet.naming(part):
                for batch in file.iter_batches(BATCH_ROWS, columns=[column.name]):
                    says = _values(batch.column(0), column, row)
                    if says:
                        return says
                    row += batch.num_rows
                    seen += [batch.column(0)] if column.unique and column.name != "pid" else []
        repeated = row - len(pc.unique(pa.chunked_array(seen))) if seen else 0
        if repeated:
            return f"{repeated:,} values of {column.name!r} repeat"
    return None


def _columns(schema: pa.Schema, form: Table) -> str | None:
    for column in form.columns:
        count = len(schema.get_all_field_indices(column.name))
        if column.optional and not count:
            continue
        if count != 1:
            return (
                f"{count} columns {column.name!r}, wanted one of type "
                f"{' or '.join(column.types)}; the file has {some(schema.names)}"
            )
        kind = _type(schema.field(column.name).type)
        if kind not in column.types:
            return f"column {column.name!r} has type {kind}, wanted {' or '.join(column.types)}"
    stored = {key.decode(errors="replace") for key in schema.metadata or {}}
    missing = [key for key in form.metadata if key not in stored]
    # A table of other software has no metadata at all, and is read without.
    if missing and any(key.startswith("sidmill.") for key in stored):
        return f"metadata {some(missing)} is missing"
    return None


def _type(kind: pa.DataType) -> str:
    """Name of an Arrow type; all kinds of lists, and of strings, have one name."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return f"list<{_type(kind.value_type)}>"
    return "string" if pa.types.is_large_string(kind) else str(kind)


def _values(values: pa.Array, column: Column, first: int) -> str | None:
    """The first fault of a batch of one column; ``first`` is the number of its first row."""
    if values.null_count and not column.nullable:
        row = first + int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0])
        return f"row {row} has no {column.name!r}"

    # The values inside of lists.
    inner = values
    while pa.types.is_nested(inner.type):
        inner = inner.flatten()
        if inner.null_count:
            return f"a list of {column.name!r} lacks a value"
    if pa.types.is_floating(inner.type) and not pc.all(pc.is_finite(inner), min_count=0).as_py():
        return f"{column.name!r} has values that are not finite"
    if column.name == "text" and pc.any(pc.equal(inner, ""), min_count=0).as_py():
        return "a text is empty"
    return _range(inner, column)


def _range(values: pa.Array, column: Column) -> str | None:
    if column.minimum is None and column.maximum is None:
        return None
    extremes = pc.min_max(values)
    low, high = extremes["min"].as_py(), extremes["max"].as_py()
    if low is not None and column.minimum is not None and low < column.minimum:
        return f"{column.name!r} has the value {low}, wanted {column.minimum} or more"
    if high is not None and column.maximum is not None and high > column.maximum:
        return f"{column.name!r} has the value {high}, wanted {column.maximum} or less"
    return None


def _array(path: Path, form: Array) -> str | None:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.dtype.name not in form.dtypes or array.ndim != len(form.axes):
        wanted = f"{' or '.join(form.dtypes)} ({', '.join(form.axes)})"
        return f"holds {array.dtype.name} of shape {array.shape}, wanted {wanted}"
    return None


def _tensors(path: Path, form: Tensors) -> str | None:
    # A star stands for one or more names. SIDs that were given have no codebooks.
    arrays, facts = tensors.read(path, "file of tensors")
    missing = [key for key in form.metadata if key not in facts]
    if missing:
        return f"metadata {some(missing)} is missing"
    for pattern, dtype in form.tensors.items():
        names = [name for name in arrays if fnmatch(name, pattern)]
        if not names and pattern not in OPTIONAL and facts["kind"] != quantizer_file.GIVEN:
            return f"no tensor {pattern!r}"
        for name in names:
            if arrays[name].dtype.name != dtype:
                return f"tensor {name!r} has dtype {arrays[name].dtype.name}, wanted {dtype}"
    return None


def _json(path: Path, form: Json) -> str | None:
    errors: Iterator[ValidationError] = Draft202012Validator(form.schema).iter_errors(
        json_report.read(path)
    )
    for error in errors:
        where = "".join(f"[{json.dumps(key)}]" for key in error.absolute_path)
        return f"{where + ': ' if where else ''}{error.message:.200}"
    return None
