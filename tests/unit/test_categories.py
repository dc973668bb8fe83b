"""Reading categories: values of the catalogue, and the rows that they belong to."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sidmill.core.errors import SidmillError
from sidmill.formats import category_file
from sidmill.items import categories, render
from sidmill.items.clean import UnreadableError
from sidmill.settings.category_level import CategoryLevel
from sidmill.settings.items import Items


@pytest.mark.parametrize(
    ("value", "separator", "depth", "expected"),
    [
        ("Tools", None, 1, "Tools"),
        ("  Tools &amp;  Home ", None, 1, "Tools & Home"),
        ("Tools > Saws", None, 1, "Tools > Saws"),
        ("Tools > Saws", " > ", 1, "Tools"),
        ("Tools &gt; Saws > Blades", " > ", 2, "Tools > Saws"),
        ("Tools|Saws", "|", 5, "Tools > Saws"),
        (["Tools", "Saws"], None, 1, "Tools"),
        (["Tools", "Saws"], None, 2, "Tools > Saws"),
        (["", None, "Saws"], None, 1, "Saws"),
        ([["Tools", "Saws"], ["Garden"]], None, 2, "Tools > Saws"),
        ('["Tools", "Saws"]', None, 2, "Tools > Saws"),
        ("[closed", None, 1, "[closed"),
        (17, None, 1, "17"),
        ("", None, 1, None),
        ("  ", " > ", 1, None),
        ([], None, 1, None),
        ([[]], None, 1, None),
        (None, None, 1, None),
        (float("nan"), None, 1, None),
    ],
)
def test_a_value_is_a_name_or_a_path(value, separator, depth, expected):
    assert categories.name_of(value, separator, depth) == expected


def test_a_binary_value_has_no_name():
    with pytest.raises(UnreadableError, match="binary"):
        categories.name_of(b"x", None, 1)


def read(tmp_path, rows, settings, suffix="jsonl", **options):
    """Write a catalogue, render it, and read its categories."""
    path = tmp_path / f"items.{suffix}"
    if suffix == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    items = Items(path=str(path), fields=["title"], **options)
    files = [str(tmp_path / name) for name in ("text.parquet", "rejects.parquet")]
    render.render(*files, items)
    found = categories.read(str(tmp_path / "categories.parquet"), *files, items, settings)
    table = pq.read_table(tmp_path / "categories.parquet")
    names = dict(zip(table["pid"].to_pylist(), table["category"].to_pylist(), strict=True))
    assert found == sum(name is not None for name in names.values())
    assert list(names) == pq.read_table(files[0])["pid"].to_pylist()
    return names


ROWS = [
    {"item_id": 1, "title": "one", "kind": "A"},
    {"item_id": 2, "title": "", "kind": "rejected: no text"},
    {"item_id": 3, "title": "three"},
    {"item_id": 1, "title": "one again", "kind": "rejected: repeated"},
    {"item_id": 2, "title": "two", "kind": "B"},
    {"item_id": 4, "title": "four", "kind": None},
]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_categories_are_those_of_the_rows_that_gave_the_items(tmp_path, suffix):
    names = read(
        tmp_path, ROWS, CategoryLevel(field="kind"), suffix,
        on_bad_rows="reject", max_reject_share=1.0,
    )  # fmt: skip
    assert names == {1: "A", 3: None, 2: "B", 4: None}


def test_a_field_that_no_item_has_is_refused(tmp_path):
    rows = [{"item_id": 1, "title": "one", "brand": "x"}]
    with pytest.raises(SidmillError, match=r"no item has a field 'kind'.*brand"):
        read(tmp_path, rows, CategoryLevel(field="kind"))
    assert not (tmp_path / "categories.parquet").exists()


def test_another_catalogue_is_refused(tmp_path):
    level = CategoryLevel(field="kind")
    good = [{"item_id": number, "title": "t", "kind": "A"} for number in range(3)]
    read(tmp_path, good, level)
    files = [str(tmp_path / name) for name in ("text.parquet", "rejects.parquet")]
    for rows in (good[:2], [*good, good[0] | {"item_id": 9}]):
        path = tmp_path / "items.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        with pytest.raises(SidmillError, match="made from another catalogue"):
            categories.read(str(tmp_path / "c"), *files, Items(path=str(path)), level)


def test_a_column_is_looked_for_before_any_job(tmp_path):
    table, level = tmp_path / "items.csv", CategoryLevel(field="kind")
    table.write_text("item_id,title,brand\n1,one,x\n")
    items = Items(path=str(table))
    with pytest.raises(SidmillError, match=r"no file .* has a column 'kind'.*brand"):
        categories.check_field([str(table)], items, level)
    categories.check_field([str(table)], items, CategoryLevel(field="brand"))
    lines = tmp_path / "items.jsonl"
    lines.write_text('{"item_id": 1, "title": "one"}\n')
    categories.check_field([str(lines)], Items(path=str(lines)), level)  # only its rows can tell


def test_categories_are_looked_up_by_id(tmp_path):
    path, ids = tmp_path / "categories.parquet", pa.chunked_array([pa.array(["a", "b", "c"])])
    table = pa.table([ids, pa.array(["A", None, "C"])], schema=category_file.schema(pa.string()))
    category_file.write(path, pa.string(), [table])
    assert category_file.of_ids(path, ids).to_pylist() == ["A", None, "C"]
    some = pa.chunked_array([pa.array(["c", "a"])])
    assert category_file.of_ids(path, some).to_pylist() == ["C", "A"]
    assert category_file.of_ids([], ids) is None
    other = pa.chunked_array([pa.array(["c", "z"])])
    with pytest.raises(SidmillError, match="lacks 1 of 2 items, first 'z'"):
        category_file.of_ids(path, other)
    assert np.array_equal(category_file.of_ids(path, ids).is_null(), [False, True, False])
