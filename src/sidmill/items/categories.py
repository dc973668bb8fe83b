"""Catalogue -> categories.parquet: the category of each item of text.parquet, in its order.

A value is a text, or a path from the top of a tree: a list of names, a list of such paths, of which
the first counts, or a text with a separator. The first ``depth`` names are the category.
"""

import json
import logging
import math
from collections.abc import Iterator
from itertools import chain

import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.formats import catalogue, category_file, item_text
from sidmill.io import parquet
from sidmill.items import render
from sidmill.items.clean import UnreadableError, plain_text
from sidmill.settings.category_level import CategoryLevel
from sidmill.settings.items import Items

logger = logging.getLogger(__name__)

JOIN = " > "  # between the names of a category of several


def read(
    path: str, text_path: str, rejects_path: str, items: Items, settings: CategoryLevel
) -> int:
    """Write categories.parquet. Memory: one block of rows.

    Args:
        path: categories.parquet to write.
        text_path: text.parquet of the catalogue.
        rejects_path: its rejects.parquet, which says which rows gave no item.
        items: how the catalogue is read.
        settings: the field, and what of it is the category.

    Returns:
        How many items have a category.

    Raises:
        SidmillError: if no row has the field, a value has no text, or the catalogue is not the one
            that text.parquet was made from.
    """
    source = render.open_source(items)
    pid_type = item_text.pid_type(text_path)
    counts = {"items": 0, "with": 0}

    def tables() -> Iterator[pa.Table]:
        found = _values(source, rejects_path, settings)
        for block in item_text.read(text_path):
            values = [next(found, None) for _ in range(block.num_rows)]
            if None in values:
                raise SidmillError(_other_catalogue(text_path))
            names = [name for (name,) in filter(None, values)]
            counts["items"] += len(names)
            counts["with"] += sum(name is not None for name in names)
            column = pa.array(names, pa.string())
            schema = category_file.schema(pid_type)
            yield pa.table([block["pid"], column], schema=schema)
        if next(found, None) is not None:
            raise SidmillError(_other_catalogue(text_path))

    category_file.write(path, pid_type, tables())
    logger.info("%d of %d items have a category", counts["with"], counts["items"])
    return counts["with"]


def name_of(value: object, separator: str | None, depth: int) -> str | None:
    """The category that a value of the catalogue says; None for an empty one.

    Args:
        value: a text, a number, or a path: names in a list, or a list of paths. A text that is a
            JSON array is read as that.
        separator: between the names of a path in a text, or None.
        depth: names that make the category.

    Raises:
        UnreadableError: if it is binary.
    """
    if isinstance(value, float) and math.isnan(value):
        return None
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = _json_list(value)
    while isinstance(value, list | tuple) and value and isinstance(value[0], list | tuple):
        value = value[0]
    if isinstance(value, list | tuple):
        parts = list(value)
    else:
        text = plain_text(value)
        if separator and isinstance(value, str) and separator not in text:
            text = value  # one that is white space, or a tag, is gone from the plain text
        parts = text.split(separator) if separator else [text]
    names = [name for name in (plain_text(part).strip() for part in parts) if name]
    return JOIN.join(names[:depth]) or None


def _json_list(value: str) -> object:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _values(
    source: render.Source, rejects_path: str, settings: CategoryLevel
) -> Iterator[tuple[str | None]]:
    """Categories of the rows that gave an item, in order, each as a tuple of one.

    Raises:
        SidmillError: if no row has the field, or a value has no text.
    """
    # Rows that gave no item are listed in the same order.
    rejected = _rejected(rejects_path)
    following = next(rejected, None)
    field, is_there = str(settings.field), False

    # The others are items; the readers of text.parquet stop where their numbers differ.
    for file, row in source.rows({field}):
        if following == (file, row.number):
            following = next(rejected, None)
            continue
        fields = row.fields or {}
        is_there |= field in fields
        try:
            yield (name_of(fields.get(field), settings.path_separator, settings.depth),)
        except UnreadableError as error:
            raise SidmillError(
                f"{file}, row {row.number}: category_level.field: {field}: {error}: correct the "
                f"row, or name another field"
            ) from None
    if not is_there:
        raise SidmillError(
            f"category_level.field: no item has a field {field!r}{render.known_fields(source)}: "
            f"name another field, or set category_level.field: null"
        )


def _rejected(path: str) -> Iterator[tuple[str, int]]:
    """File and row number of each reject."""
    file = parquet.open_file(path, {"file": pa.types.is_string, "row": pa.types.is_int64})
    tables = parquet.read_rows(file, ["file", "row"], 0, file.metadata.num_rows)
    return chain.from_iterable(
        zip(table["file"].to_pylist(), table["row"].to_pylist(), strict=True) for table in tables
    )


def check_field(files: list[str], items: Items, settings: CategoryLevel) -> None:
    """Refuse a field that the header of a table, or the schema of a parquet file, does not have.

    JSON has no header: a field that its rows lack is found by :func:`read`.

    Raises:
        SidmillError: naming the fields that there are.
    """
    source = render.open_source(items)
    for file in files:
        is_tabular = catalogue.is_table(file, source.dialect) or file.endswith(".parquet")
        if not is_tabular:
            return
        if settings.field in catalogue.field_names(file, source.dialect):
            return
    raise SidmillError(
        f"category_level.field: no file of the catalogue has a column {settings.field!r}"
        f"{render.known_fields(source)}: name another one, or set category_level.field: null"
    )


def _other_catalogue(text_path: str) -> str:
    return (
        f"{text_path} was made from another catalogue than the one of items.path: delete it and "
        f"run again"
    )
