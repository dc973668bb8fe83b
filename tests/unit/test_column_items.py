"""Items made of whole columns are, byte for byte, the items that rows make one by one."""

import datetime
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidmill.core.errors import SidmillError
from sidmill.formats import catalogue, catalogue_blocks
from sidmill.io import delimited_text, text_lines
from sidmill.items import render as module
from sidmill.items.column_items import texts
from sidmill.items.render import render
from sidmill.settings.items import Items

PLAIN = {"id_field": "id", "fields": ["title", "brand", "n"], "max_reject_share": 1.0}

NASTY_TEXT = st.one_of(
    st.text(max_size=6),
    st.sampled_from(
        [
            "", " ", "cup", " cup", "cup ", "a  b", "a\tb", "R&D", "a &amp; b", "&#65;", "a<br>b",
            "[Blue] cup", '["a", 1]', "{}", '{"k": "v"}', '["\\ud800"]', "!", "--", "é", "不锈",
            "a\u00a0b", "\u200bx", "\x00", "a\nb", "a\r\nb", "a\u2028b", 'say "hi"', "a,b", "²",
            "[" * 3000 + "]" * 3000,
        ]
    ),
)  # fmt: skip
IDS = st.one_of(
    st.integers(-3, 12),
    st.sampled_from(
        [2**63 - 1, 2**63, "7", "007", "-0", "+2", " 2", "2.0", "x", "é", "", " ", "9" * 19, "1e3"]
    ),
)


def outcome(folder, name, content, **changed):
    """Counts and bytes of both files, or the message of the error that stopped them.

    Content is that of a file, or of each file of a folder by its name.
    """
    if isinstance(content, dict):
        (folder / name).mkdir(exist_ok=True)
        for file, data in content.items():
            (folder / name / file).write_bytes(data)
    else:
        (folder / name).write_bytes(content)
    paths = [folder / "text.parquet", folder / "rejects.parquet"]
    for path in paths:
        path.unlink(missing_ok=True)
    try:
        counts = render(*map(str, paths), Items(path=str(folder / name), **(PLAIN | changed)))
    except SidmillError as error:
        return str(error)
    return counts, [path.read_bytes() for path in paths]


def assert_columns_give_what_rows_give(folder, name, content, chunk, **changed):
    with pytest.MonkeyPatch.context() as patch:
        for lines in (text_lines, delimited_text):
            patch.setattr(lines, "CHUNK", chunk)
        patch.setattr(catalogue, "BATCH_ROWS", 3)
        by_columns = outcome(folder, name, content, **changed)
        patch.setattr(module._Renderer, "columns", lambda *_: None)
        patch.setattr(module, "_column_ids", lambda *_: None)
        assert outcome(folder, name, content, **changed) == by_columns


CHANGES = st.fixed_dictionaries(
    {
        "on_bad_rows": st.sampled_from(["reject", "error"]),
        "id_type": st.sampled_from(["auto", "int", "string"]),
        "fields": st.sampled_from([["title"], ["title", "brand", "n"], ["n", "id"]]),
    }
)
CHUNKS = st.sampled_from([1, 60, 1 << 18])

VALUES = st.one_of(
    NASTY_TEXT, st.integers(-2, 2**64), st.none(), st.booleans(), st.floats(),
    st.lists(NASTY_TEXT | st.none(), max_size=3), st.dictionaries(st.text(max_size=2), NASTY_TEXT),
)  # fmt: skip
OBJECTS = st.fixed_dictionaries(
    {"id": IDS}, optional={"title": NASTY_TEXT, "brand": NASTY_TEXT | st.none(), "n": VALUES}
)
JSON_LINES = st.one_of(
    OBJECTS.map(lambda row: json.dumps(row).encode()),
    OBJECTS.map(lambda row: json.dumps(row, ensure_ascii=False).encode(errors="surrogatepass")),
    st.sampled_from(
        [
            b"", b" ", b"[1]", b"{}", b'{"id": 1}{"id": 2}', b'{"id": 1, "title": "a"', b"}", b"{",
            b'{"id": 5, "title": "a", "title": "b"}', b'{"id": 6, "title": "\xff"}',
            b'{"id": 7, "title": "a", "x\xff": 1}', b'{"id": 8, "title": "\\ud800"}',
            b'{"id": 8.0, "title": "a"}', b'{"id": NaN, "title": "a"}', b'{"id": 1e2, "n": "a"}',
            b'{"id": -0, "title": "a"}', b'{"id": 9, "title": "a\tb"}', b'{"id": 9, "n": 1.50}',
            b'{"id": 3, "title": "a\x00"}', b'{"id": 3, "title": "a"}\r', b'{"id":3,\r"title":"a"}',
            b"{'id': 3}", b'{"id": 10, "deep": ' + b"[" * 2000 + b"]" * 2000 + b"}",
            b'{"\\u0069d": 4, "title": "a\\u0000\\/"}', b'{"id": 0012, "title": "a"}',
            b'{"id": 2, "title": "a", "x": -}', b'{"id": 2, "title": "a",}', b'{"a": 1}\n{"b": 2}',
        ]
    ),
)  # fmt: skip


@given(st.lists(JSON_LINES, max_size=9), st.sampled_from([b"\n", b"\r\n"]), CHUNKS, CHANGES)
@example([b'{"id": 1}{"id": 2}', b"", b'{"id": 3, "title": "a"}'], b"\n", 1 << 18, {})
@settings(max_examples=60, deadline=None)
def test_lines_of_json(tmp_path_factory, rows, end, chunk, changed):
    content = end.join([b'{"id": 11, "title": "tea", "brand": "b", "n": "c"}', *rows])
    folder = tmp_path_factory.mktemp("json")
    assert_columns_give_what_rows_give(folder, "a.jsonl", content, chunk, **changed)


@given(
    st.lists(OBJECTS.filter(lambda row: "title" in row), min_size=4, max_size=9), CHUNKS, CHANGES
)
@settings(max_examples=30, deadline=None)
def test_lines_of_json_of_one_kind(tmp_path_factory, rows, chunk, changed):
    """Whole files that have columns: ids are integers, and fields are text or missing."""
    content = "\n".join(
        json.dumps({"id": number % 7, "title": row["title"], "brand": row.get("brand")})
        for number, row in enumerate(rows)
    )
    folder = tmp_path_factory.mktemp("json")
    changed["fields"] = ["title", "brand"]
    assert_columns_give_what_rows_give(folder, "a.jsonl", content.encode(), chunk, **changed)


CELLS = NASTY_TEXT.map(lambda text: '"' + text.replace('"', '""') + '"') | st.sampled_from(
    ["", "cup", " cup", "1", "1.5", 'a"b', '"a"b', '"', "a\rb", "x" * 70]
)
CSV_LINES = st.one_of(
    st.tuples(IDS.map(str), CELLS, CELLS, CELLS).map(",".join),
    st.sampled_from(["", " ", ",", "1,2,3", "1,a,b,c,d", '"', "5,\udcff,b,c", "5,a,b,\udcff"]),
)


@given(
    st.lists(CSV_LINES, max_size=9),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),
    CHUNKS,
    CHANGES,
)
@settings(max_examples=60, deadline=None)
def test_tables_of_text(tmp_path_factory, rows, end, quoted, chunk, changed):
    content = end.join(["id,title,brand,n", "11,tea,b,c", *rows])
    folder = tmp_path_factory.mktemp("csv")
    changed["quoted"] = quoted
    data = content.encode(errors="surrogateescape" if content.isprintable() else "replace")
    assert_columns_give_what_rows_give(folder, "a.csv", data, chunk, **changed)


def _column(values, kind):
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        return pa.array([None] * len(values), kind)


KINDS = {
    pa.string(): NASTY_TEXT,
    pa.large_string(): NASTY_TEXT,
    pa.string_view(): NASTY_TEXT,
    pa.dictionary(pa.int8(), pa.string()): NASTY_TEXT,
    pa.int8(): st.integers(-128, 127),
    pa.int64(): st.integers(-3, 2**63 - 1),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.float32(): st.floats(width=32),
    pa.float64(): st.floats(),
    pa.bool_(): st.booleans(),
    pa.decimal128(6, 2): st.decimals(-99, 99, places=2),
    pa.binary(): st.binary(max_size=2),
    pa.null(): st.none(),
    pa.list_(pa.string()): st.lists(NASTY_TEXT | st.none(), max_size=3),
    pa.struct([("a", pa.string())]): st.fixed_dictionaries({"a": NASTY_TEXT}),
    pa.timestamp("s"): st.sampled_from([0, 10**9, 10**15]),
    pa.date32(): st.just(datetime.date(2026, 1, 2)),
}


@st.composite
def tables(draw):
    n_rows = draw(st.integers(1, 9))
    columns = {}
    for name in draw(st.sampled_from([["id", "title"], ["id", "title", "brand", "n"], ["title"]])):
        kind = draw(st.sampled_from([pa.int64(), pa.string(), *KINDS]))
        value = IDS.map(str) if name == "id" and kind == pa.string() else KINDS[kind]
        values = draw(st.lists(st.none() | value, min_size=n_rows, max_size=n_rows))
        columns[name] = _column(values, kind)
    return pa.table(columns)


@given(tables(), CHANGES)
@settings(max_examples=60, deadline=None)
def test_parquet_of_any_type(tmp_path_factory, table, changed):
    folder = tmp_path_factory.mktemp("parquet")
    assert_columns_give_what_rows_give(folder, "a.parquet", _stored(table), 1, **changed)


def _stored(table):
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


FILES = st.one_of(
    st.tuples(
        st.just("jsonl"),
        st.lists(JSON_LINES, max_size=4).map(
            lambda rows: b"\n".join([b'{"id": 11, "title": "tea", "brand": "b", "n": "c"}', *rows])
        ),
    ),
    st.tuples(
        st.just("csv"),
        st.lists(CSV_LINES, max_size=4).map(
            lambda rows: "\n".join(["id,title,brand,n", "12,tea,b,c", *rows]).encode(
                errors="replace"
            )
        ),
    ),
    st.tuples(st.just("parquet"), tables().map(_stored)),
)


@given(st.lists(FILES, min_size=2, max_size=3), CHUNKS, CHANGES)
@settings(max_examples=25, deadline=None)
def test_files_of_other_kinds_and_types_in_one_folder(tmp_path_factory, files, chunk, changed):
    """Ids may repeat or change their type from one file to the next."""
    content = {f"{number}.{kind}": data for number, (kind, data) in enumerate(files)}
    folder = tmp_path_factory.mktemp("files")
    assert_columns_give_what_rows_give(folder, "catalogue", content, chunk, **changed)


def test_text_in_parquet_that_is_not_utf8(tmp_path):
    broken = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"a\xff")]
    )
    table = pa.table({"id": [1, 2], "title": broken})
    pq.write_table(table, tmp_path / "b.parquet")
    content = (tmp_path / "b.parquet").read_bytes()
    changed = {"on_bad_rows": "reject", "fields": ["title"]}
    assert_columns_give_what_rows_give(tmp_path, "a.parquet", content, 1, **changed)
    assert outcome(tmp_path, "a.parquet", content, **changed)[0] == (2, 1, 1)


def test_an_index_that_pandas_counts_is_an_id(tmp_path):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(
        {"title": ["a", "b", "!", "d"]}, index=pd.RangeIndex(10, 50, 10, name="id")
    )
    frame.to_parquet(tmp_path / "f.parquet")
    content = (tmp_path / "f.parquet").read_bytes()
    changed = {"on_bad_rows": "reject", "fields": ["title"]}
    assert_columns_give_what_rows_give(tmp_path, "a.parquet", content, 1, **changed)
    assert pq.read_table(tmp_path / "text.parquet")["pid"].to_pylist() == [10, 20, 40]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_plain_rows_are_not_read_one_by_one(tmp_path, monkeypatch, name):
    """What the columns are for: only the row without an item is read by itself."""
    rows = [{"id": n, "title": f"cup &amp; {n}", "brand": "b", "n": n} for n in range(1, 40)]
    rows[20]["title"], rows[20]["brand"], rows[20]["n"] = "!", "", None
    if name == "a.jsonl":
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    elif name == "a.csv":
        cells = [",".join("" if value is None else str(value) for value in row.values())
                 for row in rows]  # fmt: skip
        content = "\n".join(["id,title,brand,n", *cells]).encode()
    else:
        content = _stored(pa.Table.from_pylist(rows))
    read = []
    item = module._Renderer.item
    monkeypatch.setattr(
        module._Renderer, "item", lambda self, file, row: read.append(row) or item(self, file, row)
    )
    counts, _ = outcome(tmp_path, name, content, on_bad_rows="reject")
    assert counts == (39, 38, 1)
    assert [row.fields["title"] for row in read] == ["!"]


def test_lines_of_a_table_are_not_split_for_columns(tmp_path, monkeypatch):
    """Only the first lines are: once for the first id, and once for the header."""
    monkeypatch.setattr(delimited_text, "CHUNK", 200)
    split, n_split = delimited_text.LineBlock.split, []
    monkeypatch.setattr(
        delimited_text.LineBlock, "split", lambda block: n_split.append(block) or split(block)
    )
    lines = [f'{n},"cup, ""small"" {n}",b,{n}' for n in range(1, 200)]
    content = "\r\n".join(["id,title,brand,n", *lines]).encode()
    assert outcome(tmp_path, "a.csv", content)[0] == (199, 199, 0)
    assert len(n_split) == 2


def test_an_object_over_two_lines_has_no_columns():
    """Two objects in one line and one over two lines are as many as the lines."""
    data = b'{"id": 1, "t": "a"}{"id": 2, "t": "b"}\n{"id": 3,\n"t": "c"}\n'
    assert catalogue_blocks._json_columns(data, {"id", "t"}) is None


def test_rows_of_nulls_keep_their_place():
    columns = pa.record_batch({"a": ["x", None, "", None], "b": [None, None, "", "y"]})
    assert texts(columns, ["a", "b"]).to_pylist() == ["x", None, None, "y"]
