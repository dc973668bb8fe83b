"""The catalogue in every accepted form gives the same texts, and every row is accounted for."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidmill.core.errors import SidmillError
from sidmill.items.render import clean, plain_text, render

PLAIN = {
    "id_field": "id",
    "id_type": "auto",
    "fields": ["title", "brand"],
    "template": None,
    "on_bad_rows": "error",
}
ROWS = [
    {"id": 3, "title": "Steel kettle", "brand": "Norrvik"},
    {"id": 1, "title": "不锈钢水壶", "brand": None},
    {"id": 2, "title": 'Tea "cup",\nsmall', "brand": ""},
]
TEXTS = ["Steel kettle\nNorrvik", "不锈钢水壶", 'Tea "cup", small']


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def compress_zst(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(data)
    return sink.getvalue().to_pybytes()


def as_csv(rows, delimiter=","):
    quote = lambda value: '"' + str(value or "").replace('"', '""') + '"'  # noqa: E731
    table = [["id", "title", "brand"], *([row[key] for key in row] for row in rows)]
    return "\r\n".join(delimiter.join(map(quote, row)) for row in table).encode()


def as_parquet(rows):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


FORMS = {
    "a.jsonl": lines(ROWS),
    "bom.jsonl": b"\xef\xbb\xbf" + lines(ROWS),
    "crlf.jsonl": lines(ROWS).replace(b"}\n", b"}\r\n"),
    "a.jsonl.gz": gzip.compress(lines(ROWS)),
    "a.jsonl.zst": compress_zst(lines(ROWS)),
    "lines.json": lines(ROWS),
    "array.json": json.dumps(ROWS, indent=1).encode(),
    "a.csv": as_csv(ROWS),
    "bom.csv": b"\xef\xbb\xbf" + as_csv(ROWS),
    "a.tsv.gz": gzip.compress(as_csv(ROWS, "\t")),
    "a.parquet": as_parquet(ROWS),
}


def run(folder, path, **settings):
    counts = render(
        str(folder / "out/text.parquet"),
        str(folder / "out/rejects.parquet"),
        path=str(path),
        **(PLAIN | settings),
    )
    text = pq.read_table(folder / "out/text.parquet")
    rejects = pq.read_table(folder / "out/rejects.parquet").to_pylist()
    return counts, text, rejects


def write(folder, name, data):
    (folder / name).write_bytes(data if isinstance(data, bytes) else lines(data))
    return folder / name


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_items(tmp_path, name):
    counts, text, _ = run(tmp_path, write(tmp_path, name, FORMS[name]))
    assert text["pid"].to_pylist() == [3, 1, 2]
    assert text["text"].to_pylist() == TEXTS
    assert text.schema.field("pid").type == pa.int64()
    assert counts == (3, 3, 0)


@pytest.mark.parametrize("path", ["parts", "parts/*.jsonl", "parts/**/p*.jsonl"])
def test_a_folder_or_a_glob_is_read_in_sorted_order(tmp_path, path):
    (tmp_path / "parts").mkdir()
    write(tmp_path, "parts/p2.jsonl", ROWS[2:])
    write(tmp_path, "parts/p1.jsonl", ROWS[:2])
    write(tmp_path, "parts/.hidden.jsonl", b"not read")
    _, text, _ = run(tmp_path, tmp_path / path)
    assert text["pid"].to_pylist() == [3, 1, 2]


@pytest.mark.parametrize(
    ("ids", "id_type", "kept"),
    [
        (["007", "8", "a"], "auto", ["007", "8", "a"]),
        ([7, 2**62], "auto", [7, 2**62]),
        ([7, "8"], "string", ["7", "8"]),
        ([7, "8"], "int", [7, 8]),
        (["B00 1", " x "], "auto", ["B00 1", " x "]),
    ],
)
def test_ids_are_kept_as_they_are(tmp_path, ids, id_type, kept):
    path = write(tmp_path, "a.jsonl", [{"id": pid, "title": "x", "brand": "y"} for pid in ids])
    _, text, _ = run(tmp_path, path, id_type=id_type)
    assert text["pid"].to_pylist() == kept


def test_csv_ids_with_leading_zeros_stay_text(tmp_path):
    _, text, _ = run(tmp_path, write(tmp_path, "a.csv", b"id,title,brand\n007,x,y\n8,x,y\n"))
    assert text["pid"].to_pylist() == ["007", "8"]


def test_template(tmp_path):
    path = write(tmp_path, "a.jsonl", ROWS)
    _, text, _ = run(tmp_path, path, template="{title} by {brand}")
    assert text["text"].to_pylist()[0] == "Steel kettle by Norrvik"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("Caf&eacute;&nbsp;&amp;amp; bar", "Café & bar"),
        ("a<br/>b<P class='x'>c</p>", "a b c"),
        ("5 < 6 and 7 > 6", "5 < 6 and 7 > 6"),
        ("  a \t\u00a0\u3000 b\u200b\ufeff\x00 ", "a b"),
        (float("nan"), ""),
        (None, ""),
        (["a", None, ["b", "c "]], "a, b, c"),
        ({"size": "L", "none": None}, "size: L"),
        (1.5, "1.5"),
    ],
)
def test_values_become_clean_text(value, text):
    assert plain_text(value) == text


@given(st.text())
def test_cleaning_twice_changes_white_space_no_more(value):
    once = clean(value)
    assert once == " ".join(once.split())


BAD = {
    "repeated id": ({"id": 3, "title": "again", "brand": "x"}, "id 3 stands already at .*row 1"),
    "missing id": ({"title": "no id", "brand": "x"}, "no id in field 'id'"),
    "null id": ({"id": None, "title": "x"}, "no id in field 'id'"),
    "float id": ({"id": 4.5, "title": "x"}, r"id 4\.5 is a float"),
    "boolean id": ({"id": True, "title": "x"}, "id True is a bool"),
    "string among integers": ({"id": "B4", "title": "x"}, "id 'B4' is not an integer"),
    "huge id": ({"id": 2**64, "title": "x"}, "does not fit in 64 bits"),
    "no text": ({"id": 9, "title": " &nbsp; ", "brand": None}, "no text in title, brand"),
    "half a character": ({"id": 9, "title": "\ud800", "brand": None}, "lone surrogate"),
    "not JSON": (b'{"id": 9, "title": \n', "not JSON"),
    "not UTF-8": (b'{"id": 9, "title": "caf\xe9"}\n', "not UTF-8"),
    "a list": (b"[9]\n", "a JSON list, wanted an object"),
    "a number": (b"9\n", "a JSON int, wanted an object"),
    "deep": (b"[" * 100_000 + b"\n", "nested too deeply|not JSON"),
}


def bad_file(folder, row):
    row = row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n"
    return write(folder, "bad.jsonl", lines(ROWS) + row + lines([{"id": 8, "title": "ok"}]))


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_stops_naming_file_and_line_and_leaves_nothing(tmp_path, name):
    row, reason = BAD[name]
    with pytest.raises(SidmillError, match=rf"bad\.jsonl, row 4: .*({reason})"):
        run(tmp_path, bad_file(tmp_path, row))
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_listed_when_rejects_are_wanted(tmp_path, name):
    row, _ = BAD[name]
    counts, text, rejects = run(tmp_path, bad_file(tmp_path, row), on_bad_rows="reject")
    assert counts == (5, 4, 1)
    assert text["pid"].to_pylist() == [3, 1, 2, 8]
    (reject,) = rejects
    assert (reject["row"], reject["file"][-9:]) == (4, "bad.jsonl")


@given(
    st.lists(
        st.one_of(
            st.fixed_dictionaries(
                {"id": st.integers(-3, 9)}, optional={"title": st.none() | st.text(max_size=3)}
            ),
            st.integers(),
            st.just({}),
        ),
        max_size=30,
    )
)
@settings(max_examples=50, deadline=None)
def test_rows_read_are_items_plus_rejects(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("rows")
    first = {"id": 100, "title": "first", "brand": "x"}
    path = write(folder, "a.jsonl", [first, *rows])
    counts, text, rejects = run(folder, path, on_bad_rows="reject")
    assert counts.rows == len(rows) + 1 == text.num_rows + len(rejects)
    assert len(set(text["pid"].to_pylist())) == text.num_rows
    assert all(text["text"].to_pylist())


@pytest.mark.parametrize(
    ("name", "data", "settings", "message"),
    [
        ("a.jsonl", ROWS, {"fields": ["titel"]}, "no text in titel: the row has id, ti"),
        ("a.jsonl", ROWS, {"fields": ["title", "colour"]}, "no row .* has 'colour': the first row"),
        ("a.jsonl", ROWS, {"id_field": "asin"}, "no row .* has a field 'asin'"),
        ("a.jsonl", ROWS, {"template": "{title"}, "items.template"),
        ("a.jsonl", ROWS, {"template": "{title.x}"}, "plain field name"),
        ("a.jsonl", ROWS, {"template": "fixed"}, "names no field"),
        ("a.jsonl", b"", {}, "the file is empty"),
        ("a.txt", ROWS, {}, "unknown kind of file"),
        ("a.jsonl.gz", lines(ROWS), {}, "cannot be read to its end"),
        ("a.jsonl.gz", gzip.compress(lines(ROWS))[:-20], {}, "cannot be read to its end"),
        ("a.jsonl.zst", compress_zst(lines(ROWS))[:-5], {}, "cannot be read to its end"),
        ("a.json", b'[{"id": 1, "title": "x"}, {"id"', {}, "not JSON after element 1"),
        ("a.csv", b"id,title,title\n1,a,b\n", {}, "'title' stands twice"),
        ("a.csv", b"id,title,brand\n1,a,b\n2,a\n", {}, "row 3: 2 columns, the header has 3"),
        ("a.csv", b"id,title,brand\n1,caf\xe9,b\n", {}, "row 2: not UTF-8"),
        ("a.csv", b'id,title,brand\n1,"a"b,c\n', {}, "row 2: not CSV"),
        ("a.parquet", b"PAR1 not really", {}, "not a readable parquet file"),
        ("a.parquet", as_parquet(ROWS)[:-9], {}, "not a readable parquet file"),
    ],
)
def test_a_file_that_cannot_be_used_says_why_and_leaves_nothing(
    tmp_path, name, data, settings, message
):
    with pytest.raises(SidmillError, match=message):
        run(tmp_path, write(tmp_path, name, data), **settings)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_glob_that_matches_nothing_says_so(tmp_path):
    with pytest.raises(SidmillError, match=r"items\.path: no file matches"):
        run(tmp_path, tmp_path / "*.jsonl")
