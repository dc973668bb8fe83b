"""The catalogue in every accepted form gives the same texts, and every row is accounted for."""

import csv
import gzip
import io
import json
import time
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidmill.core.errors import SidmillError
from sidmill.formats import catalogue
from sidmill.items import render as module
from sidmill.items.clean import INVISIBLE, _is_plain, clean, plain_text
from sidmill.items.render import Ids, _find_repeated, render
from sidmill.settings.items import Items

PLAIN = {"id_field": "id", "fields": ["title", "brand"], "max_reject_share": 0.5}
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
    pq.write_table(rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


FORMS = {
    "a.jsonl": lines(ROWS),
    "bom.jsonl": b"\xef\xbb\xbf" + lines(ROWS),
    "crlf.jsonl": lines(ROWS).replace(b"}\n", b"}\r\n"),
    "a.jsonl.gz": gzip.compress(lines(ROWS), mtime=0),
    "a.jsonl.zst": compress_zst(lines(ROWS)),
    "lines.json": lines(ROWS),
    "array.json": json.dumps(ROWS, indent=1).encode(),
    "late.json": b" \n" * 5000 + json.dumps(ROWS).encode(),
    "a.csv": as_csv(ROWS),
    "bom.csv": b"\xef\xbb\xbf" + as_csv(ROWS),
    "a.tsv.gz": gzip.compress(as_csv(ROWS, "\t"), mtime=0),
    "a.parquet": as_parquet(ROWS),
}


BROKEN_GZIP = gzip.compress(lines(ROWS), mtime=0)[:10] + b"\xff" * 40
REPEATED_COLUMN = as_parquet(pa.table([[1], ["x"], ["y"]], names=["id", "title", "title"]))


def run(folder, path, **settings):
    counts = render(
        str(folder / "out/text.parquet"),
        str(folder / "out/rejects.parquet"),
        Items(path=str(path), **(PLAIN | settings)),
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


@pytest.mark.parametrize(
    ("ids", "kept"),
    [
        (["007", "8"], ["007", "8"]),
        (["1", "B2", "007"], ["1", "B2", "007"]),
        (["1", "9223372036854775808"], ["1", "9223372036854775808"]),
        (["1", "+2"], ["1", "+2"]),
        (["-1", "9223372036854775807"], [-1, 2**63 - 1]),
    ],
)
def test_ids_of_a_table_are_integers_if_all_are_written_so(tmp_path, ids, kept):
    data = "id,title,brand\n" + "".join(f"{pid},x,y\n" for pid in ids)
    _, text, _ = run(tmp_path, write(tmp_path, "a.csv", data.encode()))
    assert text["pid"].to_pylist() == kept


def test_rows_without_an_id_do_not_decide_its_type(tmp_path):
    rows = [{"id": " \u3000", "title": "x", "brand": "y"}, *ROWS]
    _, text, rejects = run(tmp_path, write(tmp_path, "a.jsonl", rows), on_bad_rows="reject")
    assert text["pid"].to_pylist() == [3, 1, 2]
    assert rejects[0]["reason"] == "no id in field 'id'"
    table = b"id,title,brand\n ,x,y\n5,x,y\n"
    _, text, rejects = run(tmp_path, write(tmp_path, "a.csv", table), on_bad_rows="reject")
    assert text["pid"].to_pylist() == [5]
    assert rejects[0]["reason"] == "no id in field 'id'"


def test_a_row_of_a_table_has_the_number_of_its_first_line(tmp_path):
    table = b'id,title,brand\n\n1,"two\nlines",x\n2,"two\nmore",x,y\n3,a,b\n,c,d\n'
    _, text, rejects = run(tmp_path, write(tmp_path, "a.csv", table), on_bad_rows="reject")
    assert text["text"].to_pylist() == ["two lines\nx", "a\nb"]
    assert [(row["row"], row["reason"]) for row in rejects] == [
        (5, "4 columns in lines 5 to 6, the header has 3"),
        (8, "no id in field 'id'"),
    ]


@pytest.mark.parametrize(
    ("tail", "last"), [(b'3,x,y\n4,"z",w\n5,a,b\n', 5), (b"3,x,y\n4,z,w\n", 5)]
)
def test_a_quote_left_open_stops_even_where_rejects_are_wanted(tmp_path, tail, last):
    path = write(tmp_path, "a.csv", b'id,title,brand\n1,a,b\n2,"open,d\n' + tail)
    with pytest.raises(
        SidmillError, match=rf"a\.csv, line 3: a quote .* at line {last}: correct it"
    ):
        run(tmp_path, path, on_bad_rows="reject")


def test_template(tmp_path):
    path = write(tmp_path, "a.jsonl", ROWS)
    _, text, _ = run(tmp_path, path, template="{title} by {brand}")
    assert text["text"].to_pylist()[0] == "Steel kettle by Norrvik"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("Caf&eacute;&nbsp;&amp;amp; bar", "Café & bar"),
        ("a<br/>b<P class='x'>c</p>", "a b c"),
        ("<img src='a b.png' alt=\"x > y\" width=3/>a<a href=/q?id=1&amp;n=2>b</a >", "a b"),
        ("5 < 6 and 7 > 6", "5 < 6 and 7 > 6"),
        ("a<b and c>d", "a<b and c>d"),
        ("p<q r='s t>u", "p<q r='s t>u"),
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


@pytest.mark.parametrize(
    "piece", ["<a ", "<a x=", '<a x="', "<a x='<a y=\"", ' x="<a y=1" ', "x", " ", "=", "a = 'b'"]
)
def test_cleaning_takes_time_in_proportion_to_the_text(piece):
    started = time.process_time()
    clean("<a " + piece * (100_000 // len(piece)))
    assert time.process_time() - started < 1


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
    "white space for an id": ({"id": " \t", "title": "x"}, "no id in field 'id'"),
    "no letter": (
        {"id": 9, "title": "???", "brand": "\u200e"},
        "no letter or digit in title, brand",
    ),
    "half a character": ({"id": 9, "title": "x\ud800", "brand": None}, "lone surrogate"),
    "not JSON": (b'{"id": 9, "title": \n', "not JSON"),
    "not UTF-8": (b'{"id": 9, "title": "caf\xe9"}\n', "not UTF-8"),
    "a list": (b"[9]\n", "a JSON list, wanted an object"),
    "a number": (b"9\n", "a JSON int, wanted an object"),
    "nested value": (b'{"id": 9, "title": ' + b"[" * 900 + b"]" * 900 + b"}\n", "too deeply"),
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


def test_more_rejects_than_a_block_and_no_item(tmp_path):
    path = write(tmp_path, "a.jsonl", [{"id": n, "title": "", "brand": ""} for n in range(8192)])
    with pytest.raises(SidmillError, match=r"no row .* first: .*a\.jsonl, row 1: no text in title"):
        run(tmp_path, path, on_bad_rows="reject")


@pytest.mark.parametrize("field", ["title", "id", "other"])
def test_a_value_of_an_array_nested_too_deeply_is_a_bad_row(tmp_path, field):
    deep = b'"title": "x", "%b": %b' % (field.encode(), b"[" * 3000 + b"]" * 3000)
    array = b'[{"id": 1, "title": "x", "brand": "y"}, {"id": 2, %b}]' % deep
    counts, _, rejects = run(tmp_path, write(tmp_path, "a.json", array), on_bad_rows="reject")
    assert counts == (2, 1, 1)
    assert "nested too deeply" in rejects[0]["reason"]


def test_repeated_ids_are_found_in_the_memory_it_states(monkeypatch):
    n = 30_000
    monkeypatch.setattr(
        "sidmill.items.render._readable_ids",
        lambda *_: (1_000_000 + 7 * number % (n - 1) for number in range(n)),
    )
    tracemalloc.start()
    repeated = _find_repeated([], Ids("id", integer=True, strict=True))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert repeated == {1_000_000}
    assert peak / n < 10


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
    counts, text, rejects = run(folder, path, on_bad_rows="reject", max_reject_share=1.0)
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
        ("a.jsonl.gz", gzip.compress(lines(ROWS), mtime=0)[:-20], {}, "cannot be read to its end"),
        ("a.jsonl.zst", compress_zst(lines(ROWS))[:-5], {}, "cannot be read to its end"),
        ("a.json", b'[{"id": 1, "title": "x"}, {"id"', {}, "past element 1 of its JSON"),
        ("a.jsonl.gz", BROKEN_GZIP, {}, "cannot be read to its end"),
        ("a.csv", b"id,title,title\n1,a,b\n", {}, "two columns are named 'title'"),
        ("a.parquet", REPEATED_COLUMN, {}, "two columns are named 'title'"),
        ("a.csv", b'id,"t"x\n1,a\n', {}, "the header is not CSV"),
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


IDS = st.one_of(
    st.integers(-2, 6),
    st.sampled_from(
        ["1", "2", "3", "12", "007", "1.0", "2.0", "-0", "+4", " 5", "x", "", "9" * 25]
    ),
    st.none(),
    st.sampled_from([1.0, 2.5, float("nan"), True, [1]]),
)
TITLES = st.sampled_from(
    ["cup", "  two  spaces ", "a&amp;b", "<b>bold</b>", "{}", "\u00ad", "", "x\ty"]
)


def outcome(tmp_path, name, content, **settings):
    """Bytes of both files, or the message."""
    path = write(tmp_path, name, content)
    paths = [tmp_path / "text.parquet", tmp_path / "rejects.parquet"]
    for one in paths:
        one.unlink(missing_ok=True)
    try:
        counts = render(*map(str, paths), Items(path=str(path), **(PLAIN | settings)))
    except SidmillError as error:
        assert not any(one.exists() for one in paths)
        return str(error)
    return counts, [one.read_bytes() for one in paths]


def assert_same_in_one_pass(tmp_path, name, content, **changed):
    """The second way never guesses: it reads all ids first, as if every guess had failed."""
    found = outcome(tmp_path, name, content, **changed)
    decide = module._decide_ids

    def never_by_first(source, id_type, by_first=False):
        if by_first:
            raise module._AnotherPassError
        return decide(source, id_type)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_decide_ids", never_by_first)
        assert outcome(tmp_path, name, content, **changed) == found


@pytest.mark.parametrize("bad", ["reject", "error"])
@pytest.mark.parametrize("last", ["2", "2.0", "x", "-0", "007", "1", "9" * 25, " 2", "", "+2"])
def test_an_id_that_is_not_like_the_first_is_read_as_if_all_had_been_read_before(
    tmp_path, last, bad
):
    content = f"id,title,brand\n1,cup,b\n7,tea,b\n{last},pot,b\n".encode()
    assert_same_in_one_pass(tmp_path, "a.csv", content, on_bad_rows=bad)


@given(
    st.lists(st.tuples(IDS, TITLES), min_size=1, max_size=12),
    st.sampled_from(["jsonl", "csv", "keyed"]),
    st.sampled_from(["reject", "error"]),
    st.sampled_from(["auto", "int", "string"]),
)
@settings(max_examples=100, deadline=None)
def test_one_pass_gives_what_passes_over_all_ids_before_it_give(
    tmp_path_factory, rows, form, bad, kind
):
    tmp_path = tmp_path_factory.mktemp("render")
    if form == "csv":
        text = io.StringIO()
        csv.writer(text).writerows(
            [["id", "title", "brand"], *([one, two, "b"] for one, two in rows)]
        )
        name, content = "a.csv", text.getvalue().encode()
    elif form == "keyed":
        entries = {str(one): {"title": two, "brand": "b"} for one, two in rows}
        name, content = "a.json", json.dumps(entries).encode()
    else:
        name = "a.jsonl"
        content = lines([{"id": one, "title": two, "brand": "b"} for one, two in rows])
    changed = {"on_bad_rows": bad, "id_type": kind, "max_reject_share": 1.0}
    assert_same_in_one_pass(tmp_path, name, content, **changed)


@pytest.mark.parametrize(("name", "passes"), [("a.csv", 2), ("a.jsonl", 2), ("b.csv", 6)])
def test_a_catalogue_without_surprises_is_read_once(tmp_path, monkeypatch, name, passes):
    """Each decision on the ids opens the file for the first id, too."""
    rows = [{"id": number, "title": f"cup {number}", "brand": "b"} for number in range(1, 21)]
    if name == "b.csv":
        rows[-1]["id"] = "x"  # ids are text after all
    content = as_csv(rows) if name.endswith("csv") else lines(rows)
    blocks, opened = catalogue.blocks, []

    def counted(*arguments):
        opened.append(arguments)
        return blocks(*arguments)

    monkeypatch.setattr(catalogue, "blocks", counted)
    counts, _, _ = run(tmp_path, write(tmp_path, name, content))
    assert counts.items == 20
    assert len(opened) == passes


@pytest.mark.parametrize(
    "value", [" a", "a ", "a  b", "a\tb", "a\u00a0b", "a&amp;b", "a<br>b", "[1]", "{}"]
)
def test_the_short_way_is_taken_only_where_cleaning_changes_nothing(value):
    assert not _is_plain(value)
    assert _is_plain("a b, c-d; \u00e9 \u4e0d 1 [x")
    assert plain_text("a b, c-d; \u00e9 \u4e0d 1 [x") == clean("a b, c-d; \u00e9 \u4e0d 1 [x")


@given(st.text())
@settings(max_examples=300, deadline=None)
def test_a_text_that_is_plain_is_its_own_clean_text(text):
    if _is_plain(text):
        assert " ".join(text.translate(INVISIBLE).split()) == text == clean(text)
