"""Catalogues as other programs write them: JSON of every shape, tables, encodings, parquet.

Each table of cases gives the same items by another way, or one odd row beside good ones.
"""

import gzip
import itertools
import json
import logging
import math
import subprocess
import uuid
from decimal import Decimal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidmill.core.errors import SidmillError
from sidmill.formats import catalogue, catalogue_blocks
from sidmill.formats.catalogue import Dialect
from sidmill.io import encodings, json_values
from sidmill.items.render import render
from sidmill.settings.items import Items

USUAL = {"id_field": "id", "fields": ["title"]}
TITLES = ["Le garçon", "Töpfe", "水壶 steel", "plain"]
ROWS = [{"id": number, "title": title} for number, title in enumerate(TITLES, start=1)]


def put(folder, name, content):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / name


def items(folder, path, **changes):
    """Pids to texts, and the rejects."""
    out = folder / "text.parquet", folder / "rejects.parquet"
    render(*map(str, out), Items(path=str(path), **USUAL | changes))
    table = pq.read_table(out[0])
    texts = dict(zip(table["pid"].to_pylist(), table["text"].to_pylist(), strict=True))
    return texts, pq.read_table(out[1]).to_pylist()


WANTED = dict(enumerate(TITLES, start=1))
KEYED = {str(row["id"]): {"title": row["title"]} for row in ROWS}
CSV = "id,title\n" + "".join(f"{row['id']},{row['title']}\n" for row in ROWS)
LATIN_CSV = CSV.replace("水壶", "ë")
SHAPES = {
    "lines": "".join(json.dumps(row) + "\n" for row in ROWS),
    "one line after another, indented": "\n".join(json.dumps(row, indent=2) for row in ROWS),
    "array": json.dumps(ROWS),
    "array, indented": json.dumps(ROWS, indent=4),
    "array, a row a line": "[" + ",\n".join(map(json.dumps, ROWS)) + "]",
    "keyed": json.dumps(KEYED),
    "keyed, indented": json.dumps(KEYED, indent=4),
    "keyed, a row a line": "{" + ",\n".join(json.dumps(KEYED)[1:-1].split(", ")) + "}",
    "keyed, after blank lines": "\n \n" + json.dumps(KEYED) + "\n\n",
}


@pytest.mark.parametrize("look_ahead", [1 << 20, 60])
@pytest.mark.parametrize("shape", SHAPES)
def test_json_of_every_shape_gives_the_same_items(tmp_path, monkeypatch, shape, look_ahead):
    if look_ahead < 1 << 20 and "one" in shape:
        pytest.skip("told by a whole object")
    monkeypatch.setattr(json_values, "LOOK_AHEAD", look_ahead)
    monkeypatch.setattr(json_values, "CHUNK", 7)
    assert items(tmp_path, put(tmp_path, "i.json", SHAPES[shape]))[0] == WANTED


@pytest.mark.parametrize("count", [1, 2, 1000])
def test_ids_of_an_object_of_objects(tmp_path, count):
    """LC-Rec's item.json: ids from 0; any text where one is no integer; own fields come first."""
    found = {str(number): {"title": f"thing {number}"} for number in range(count)}
    for indent in (None, 4):
        path = put(tmp_path, "i.item.json", json.dumps(found, indent=indent))
        assert list(items(tmp_path, path)[0]) == list(range(count))
        assert list(items(tmp_path, path, id_type="string")[0]) == list(map(str, range(count)))
    path = put(tmp_path, "i.item.json", json.dumps(found | {"B01": {"title": "x"}}))
    assert list(items(tmp_path, path)[0]) == [*map(str, range(count)), "B01"]
    path = put(tmp_path, "i.item.json", json.dumps({"a": {"title": "x", "id": "own"}}))
    assert list(items(tmp_path, path)[0]) == ["own"]


def test_an_object_of_lists_keeps_its_names(tmp_path):
    histories = {"u1": [1, 2], "u2": [3]}
    for indent in (None, 2):
        path = put(tmp_path, "i.inter.json", json.dumps(histories, indent=indent))
        rows = list(catalogue.read(path))
        assert {row.key: row.fields[catalogue.VALUES] for row in rows} == histories
    one = put(tmp_path, "one.jsonl", json.dumps({"user": [1], "item_ids": [1, 2]}))
    assert [row.key for row in catalogue.read(one)] == [None]


ODD_VALUES = {
    "NaN": "NaN", "Infinity": "-Infinity", "100 bits": str(2**100), "5,000 digits": "9" * 5000,
    "half a character": '"\\ud800"', "a NUL": '"\\u0000"', "deep": "[" * 60 + "]" * 60,
    "brackets in text": '"]},{[ \\" \\\\"', "1e999": "1e999",
}  # fmt: skip


@pytest.mark.parametrize("name", ODD_VALUES)
@pytest.mark.parametrize("shape", ["lines", "array", "keyed"])
def test_a_field_that_nobody_asked_for_may_hold_anything(tmp_path, shape, name):
    row = '{"id": 7, "title": "odd", "other": ' + ODD_VALUES[name] + "}"
    good = ['{"id": 6, "title": "before"}', row, '{"id": 8, "title": "after"}']
    content = {
        "lines": "\n".join(good),
        "array": f"[{', '.join(good)}]",
        "keyed": "{" + ", ".join(f'"k{n}": {one}' for n, one in enumerate(good)) + "}",
    }[shape]
    texts, _ = items(tmp_path, put(tmp_path, "i.json", content))
    assert texts == {6: "before", 7: "odd", 8: "after"}


ODD_ROWS = {
    "no JSON value": '{"id": 7, "title": tru}',
    "a comma too many": '{"id": 7, "title": "x",}',
    "no comma": '{"id": 7 "title": "x"}',
    "a row of Python": "{'id': 7, 'title': 'x'}",
    "a number": "7",
    "null": "null",
    "a list": "[1, [2]]",
    "an empty object": "{}",
    "a lone surrogate": '{"id": 7, "title": "\\ud800"}',
    "too deep": '{"id": 7, "title": ' + "[" * 3000 + "]" * 3000 + "}",
    "no id": '{"title": "x"}',
    "an id of more than 64 bits": '{"id": 18446744073709551616, "title": "x"}',
    "a float for an id": '{"id": 7.0, "title": "x"}',
    "not UTF-8": b'{"id": 7, "title": "\xff"}',
}


@pytest.mark.parametrize("name", ODD_ROWS)
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("shape", ["lines", "array"])
def test_one_odd_row_changes_nothing_about_the_others(tmp_path, shape, place, name):
    odd = ODD_ROWS[name]
    good = [b'{"id": 1, "title": "caf\xc3\xa9"}', b'{"id": 2, "title": "b"}']
    good.insert(place, odd if isinstance(odd, bytes) else odd.encode())
    content = b"\n".join(good) if shape == "lines" else b"[" + b",\n".join(good) + b"]"
    path = put(tmp_path, "i.json", content)
    texts, rejects = items(tmp_path, path, on_bad_rows="reject")
    assert texts == {1: "café", 2: "b"}
    assert [reject["row"] for reject in rejects] == [place + 1]
    with pytest.raises(SidmillError, match=rf"row {place + 1}: "):
        items(tmp_path, path)


json_rows = st.lists(
    st.dictionaries(
        st.text(max_size=3),
        st.recursive(
            st.none() | st.floats() | st.integers() | st.text(max_size=6),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
            max_leaves=6,
        ),
        max_size=4,
    ),
    max_size=6,
)


@settings(max_examples=25, deadline=None)
@given(rows=json_rows, chunk=st.integers(1, 40), indent=st.sampled_from([None, 1]))
def test_arrays_and_objects_are_what_the_standard_library_reads(
    tmp_path_factory, rows, chunk, indent
):
    folder = tmp_path_factory.mktemp("json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_values, "CHUNK", chunk)
        for content in (rows, {f"k{n}": row for n, row in enumerate(rows)}):
            path = put(folder, "i.json", json.dumps(content, indent=indent))
            if not rows and isinstance(content, dict):
                continue
            found = [repr(row.fields) for row in catalogue.read(path)]
            assert found == [repr(row) for row in json.loads(path.read_text()) and rows]


@pytest.mark.parametrize("chunk", range(1, 9))
def test_values_are_whole_wherever_the_text_is_cut(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(json_values, "CHUNK", chunk)
    values = [123456, -1.5e10, True, None, "é\\u00e9", 7, [], {"a": 12345}, 890]
    path = put(tmp_path, "i.json", json.dumps(values))
    with path.open("rb") as stream:
        found = [value.value for value in json_values.read(path, stream, "array")]
    assert found == values


@pytest.mark.parametrize(
    "content",
    [
        '[{"id": 1, "title": "a"}, {"id": 2',
        '[{"id": 1, "title": "a"} {"id": 2}]',
        '[{"id": 1, "title": "a"}] more',
        '[{"id": 1, "title": "a}, {"id": 2, "title": "b"}, {"id": 3, "title": "c"}]',
        '[{"id": 1, "title": "a}, {"u": "}, {"id": 3, "title": "c"}]',
        '{"a": {"title": "x"}, "b": {"title": "y"',
        '{"a": {"title": "x"}, b: {}}',
    ],
)
def test_json_whose_rows_cannot_be_told_apart_stops_even_under_reject(tmp_path, content):
    """A missing quote turns text and marks around: what follows would be guessed."""
    path = put(tmp_path, "i.json", content)
    for on_bad_rows in ("error", "reject"):
        with pytest.raises(SidmillError, match=r"i\.json: cannot be read past element \d|not JSON"):
            items(tmp_path, path, on_bad_rows=on_bad_rows)


# --- encodings


@pytest.mark.parametrize("name", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
@pytest.mark.parametrize("kind", ["i.csv", "i.jsonl", "i.json"])
def test_unicode_of_every_width_is_told_and_said(tmp_path, caplog, name, kind):
    content = {"i.csv": CSV, "i.jsonl": SHAPES["lines"], "i.json": SHAPES["keyed, indented"]}[kind]
    caplog.set_level(logging.INFO)
    assert items(tmp_path, put(tmp_path, kind, content.encode(name)))[0] == WANTED
    assert ("is read as utf-" in caplog.text) == (name != "utf-8-sig")


@pytest.mark.parametrize("name", ["latin-1", "cp1252", "gb18030", "shift_jis", "koi8-r", "utf-16"])
def test_an_encoding_that_is_named(tmp_path, name):
    title = {"shift_jis": "ケトル", "gb18030": "水壶", "koi8-r": "чайник"}.get(name, "thé")
    for kind, content in (("i.csv", f"id,title,{title}\n1,{title},x\n"),
                          ("i.jsonl", json.dumps(ROWS[0] | {"title": title}, ensure_ascii=False)),
                          ("i.json", json.dumps([{"id": 1, "title": title}], ensure_ascii=False)),
                          ):  # fmt: skip
        path = put(tmp_path, kind, content.encode(name))
        assert items(tmp_path, path, encoding=name)[0] == {1: title}


def test_a_byte_that_the_named_encoding_lacks_is_a_bad_row(tmp_path):
    rows = "id,title\n1,水壶\n2,水\n3,cup\n".encode("gb18030").replace(
        "水\n".encode("gb18030"), b"\xff\n"
    )
    path = put(tmp_path, "i.csv", rows)
    texts, rejects = items(tmp_path, path, encoding="gb18030", on_bad_rows="reject")
    assert texts == {1: "水壶", 3: "cup"}
    assert [reject["reason"] for reject in rejects] == ["not gb18030"]


@pytest.mark.parametrize("name", ["latin1x", "base64", "rot13", ""])
def test_a_name_that_is_no_encoding_of_text(tmp_path, name):
    with pytest.raises(SidmillError, match=r"items\.encoding: no encoding is named"):
        items(tmp_path, put(tmp_path, "i.csv", CSV), encoding=name)


LATIN = {
    "a header, compressed": ("i t.csv.gz", "id,título\n1,foo\n", {"fields": ["título"]}),
    "a header": ("i.csv", "id,título\n1,foo\n", {"fields": ["título"]}),
    "rows": ("i.csv", "id,title\n1,foo\n2,thé\n3,á\n", {}),
    "rows of JSON": ("i.jsonl", '{"id": 1, "title": "thé"}\n{"id": 2, "title": "á"}\n', {}),
    "rows of an array": ("i.json", '[{"id": 1, "title": "thé"}, {"id": 2, "title": "á"}]', {}),
    "a few of many": ("i.csv", "id,title\n" + "".join(
        f"{n},{'thé' if n % 40 == 0 else 'tea'}\n" for n in range(1, 120)), {}),
}  # fmt: skip


@pytest.mark.parametrize("on_bad_rows", ["error", "reject"])
@pytest.mark.parametrize("case", LATIN)
def test_a_file_in_another_encoding_stops_and_both_remedies_work(tmp_path, case, on_bad_rows):
    """Even where rejects are wanted: those rows would be lost though nothing is wrong with them."""
    name, content, changes = LATIN[case]
    data = content.encode("latin-1")
    path = put(tmp_path, name, gzip.compress(data) if name.endswith(".gz") else data)
    with pytest.raises(SidmillError, match="not UTF-8") as error:
        items(tmp_path, path, on_bad_rows=on_bad_rows, **changes)
    message = str(error.value)
    message.encode()
    assert "items.encoding" in message
    named, _ = items(tmp_path, path, encoding="latin-1", **changes)
    start = message.index("iconv -f")
    start = message.index("zcat") if "zcat" in message else start
    new = tmp_path / f"new.{name.split('.')[1]}"
    command = message[start:].split("NEW_FILE")[0] + str(new)
    subprocess.run(command, shell=True, check=True)
    converted, rejects = items(tmp_path, new, **changes)
    assert named == converted
    assert not rejects


# --- many rows of one fault


@pytest.mark.parametrize(
    ("bad", "good", "stops"), [(0, 9, False), (1, 1, False), (2, 6, False), (3, 6, True)]
)
def test_a_cause_that_takes_a_large_share_stops_and_its_remedy_works(tmp_path, bad, good, stops):
    rows = [{"id": n, "title": ""} for n in range(bad)]
    rows += [{"id": 100 + n, "title": "x"} for n in range(good)]
    path = put(tmp_path, "i.jsonl", "\n".join(map(json.dumps, rows)))
    if stops:
        share = rf"{bad} of {bad + good} rows \({bad / (bad + good):.1%}\).* no text in title"
        with pytest.raises(SidmillError, match=share) as error:
            items(tmp_path, path, on_bad_rows="reject")
        raised = float(str(error.value).split(") to ")[1])
        texts, rejects = items(tmp_path, path, on_bad_rows="reject", max_reject_share=raised)
    else:
        texts, rejects = items(tmp_path, path, on_bad_rows="reject")
    assert (len(texts), len(rejects)) == (good, bad)


def test_the_share_of_each_cause_is_logged(tmp_path, caplog):
    rows = [{"id": n % 90, "title": "x" if n % 10 else ""} for n in range(100)]
    path = put(tmp_path, "i.jsonl", "\n".join(map(json.dumps, rows)))
    items(tmp_path, path, on_bad_rows="reject")
    assert "10 of 100 rows (10.0%) have one fault: no text in title" in caplog.text
    assert "of 100 rows (9.0%) have one fault: id ... stands already at" in caplog.text


# --- tables without a header, with another separator


@pytest.mark.parametrize(
    ("name", "separator", "quoted"),
    [("m.dat", "::", True), ("u.item", "|", False), ("m.csv", ";", True), ("m.txt", "\t", False),
     ("m.tsv", None, True), ("m.csv", "::", True), ("m.csv", "\x01", False)],
)  # fmt: skip
def test_movielens_and_its_like(tmp_path, name, separator, quoted):
    between = separator or "\t"
    rows = [["1", "Le Garçon mal élevé (1994)", "Comedy"], ["2", 'Say "Amen"', "Drama"]]
    if not quoted:
        rows.append(["3", '"Quoted" at its start', "Crime"])
    path = put(tmp_path, name, "\n".join(map(between.join, rows)).encode("latin-1"))
    texts, _ = items(
        tmp_path, path, encoding="latin-1", separator=separator, quoted=quoted,
        columns=["id", "title", "genres"], fields=["title", "genres"],
    )  # fmt: skip
    assert texts == {int(pid): f"{title}\n{genres}" for pid, title, genres in rows}


HEADERLESS = {
    "MIND": "N1\tlifestyle\tbrands\tThe \"Queen\"\tabstract\thttps://x.y/z\t[]\t[]\n"
            "N2\thealth\tweight\tTips\t\thttps://x.y/w\t[{\"Label\": \"q\"}]\t[]\n",
    "numbers": "1\tToy Story\n2\tJumanji\n",
    "a gap": "a\t\tToy Story\nb\tx\tJumanji\n",
}  # fmt: skip


@pytest.mark.parametrize("case", HEADERLESS)
def test_a_table_without_a_header_is_told_and_its_remedy_works(tmp_path, case):
    path = put(tmp_path, "news.tsv", HEADERLESS[case])
    with pytest.raises(SidmillError, match=r"looks like data.*set items\.columns to the names"):
        items(tmp_path, path)
    width = HEADERLESS[case].splitlines()[0].count("\t") + 1
    names = ["id", *(f"c{n}" for n in range(1, width - 1)), "title"]
    if case == "MIND":
        names = ["id", "category", "sub", "title", "abstract", "url", "e1", "e2"]
    assert len(items(tmp_path, path, columns=names, quoted=False)[0]) == 2
    with_header = put(tmp_path, "h.tsv", "\t".join(names) + "\n" + HEADERLESS[case])
    assert len(items(tmp_path, with_header, quoted=False)[0]) == 2
    with pytest.raises(SidmillError, match=r"first line is a header: set items\.columns: null"):
        items(tmp_path, with_header, columns=names)


def test_a_header_of_words_is_not_called_data(tmp_path):
    path = put(tmp_path, "i.csv", "item id,product name,price 2\nx,y,1\n")
    with pytest.raises(SidmillError, match="no row of") as error:
        items(tmp_path, path)
    assert "looks like data" not in str(error.value)


def test_rows_that_the_columns_do_not_fit_are_bad(tmp_path):
    path = put(tmp_path, "i.csv", "1,a\n2,b,c\n3,d\n4,e\n5,f\n")
    changes = {"columns": ["id", "title"], "on_bad_rows": "reject"}
    texts, rejects = items(tmp_path, path, **changes)
    assert list(texts) == [1, 3, 4, 5]
    assert rejects[0]["reason"] == "3 columns, items.columns names 2"


def test_messages_list_at_most_20_names(tmp_path):
    wide = {f"field{n}": "x" for n in range(5000)}
    for name, content in (("i.jsonl", json.dumps(wide)), ("i.json", json.dumps([wide])),
                          ("i.csv", ",".join(wide) + "\n" + "x," * 4999 + "x\n")):  # fmt: skip
        path = put(tmp_path, name, content)
        for changes in (
            {},
            {"id_field": "field1"},
            {"id_field": "field1", "fields": ["field2", "y"]},
        ):
            with pytest.raises(SidmillError) as error:
                items(tmp_path, path, **changes)
            assert len(str(error.value)) < 1500
            assert "and 4,980 more" in str(error.value)


# --- ids


@pytest.mark.parametrize("written", ["csv", "jsonl", "parquet"])
def test_ids_that_pandas_made_floats_are_told_and_both_remedies_work(tmp_path, written):
    frame = pd.DataFrame({"id": [1.0, 2.0, 30.0], "title": ["a", "b", "c"]})
    write = {
        "csv": lambda frame, path: frame.to_csv(path, index=False),
        "jsonl": lambda frame, path: path.write_text(
            "".join(json.dumps(row) + "\n" for row in frame.to_dict("records"))
        ),
        "parquet": lambda frame, path: frame.to_parquet(path),
    }[written]
    path = tmp_path / f"i.{written}"
    write(frame, path)
    for on_bad_rows in ("error", "reject"):
        with pytest.raises(SidmillError, match=r"every id in 'id' .*pandas makes integers floats"):
            items(tmp_path, path, on_bad_rows=on_bad_rows)
    wanted = {1: "a", 2: "b", 30: "c"}
    assert items(tmp_path, path, id_type="int")[0] == wanted
    frame["id"] = frame["id"].astype("Int64")
    write(frame, path)
    assert items(tmp_path, path)[0] == wanted


@pytest.mark.parametrize("ids", [["1.0", "2"], ["1.0", "x"], ["1.50"], ["v1.0", "v2.0"], ["01.0"]])
def test_ids_that_only_look_like_floats_stay_text(tmp_path, ids):
    path = put(tmp_path, "i.csv", "id,title\n" + "".join(f"{pid},t\n" for pid in ids))
    assert list(items(tmp_path, path)[0]) == ids


@pytest.mark.parametrize("pid", [2**63, 2**64 - 1, 12345678901234567890123, -(2**63) - 1])
def test_ids_above_63_bits_are_told_and_the_remedy_works(tmp_path, pid):
    paths = [put(tmp_path, "i.jsonl", json.dumps({"id": pid, "title": "x"})),
             put(tmp_path, "i.json", json.dumps([{"id": pid, "title": "x"}]))]  # fmt: skip
    if 0 < pid < 2**64:
        table = pa.table({"id": pa.array([pid], pa.uint64()), "title": ["x"]})
        pq.write_table(table, tmp_path / "i.parquet")
        paths.append(tmp_path / "i.parquet")
    for path in paths:
        with pytest.raises(SidmillError, match=r"64 bits: set items\.id_type: string"):
            items(tmp_path, path)
        assert items(tmp_path, path, id_type="string")[0] == {str(pid): "x"}


def test_a_message_about_types_says_what_helps(tmp_path):
    for rows in ([("a", 1), (5, 2)], [(5, 1), ("a", 2)]):
        content = "\n".join(json.dumps({"id": pid, "title": "x"}) for pid, _ in rows)
        path = put(tmp_path, "i.jsonl", content)
        with pytest.raises(SidmillError, match=r"set items\.id_type: string"):
            items(tmp_path, path)
        assert list(items(tmp_path, path, id_type="string")[0]) == [str(pid) for pid, _ in rows]


# --- parquet as its writers write it


def string_columns(values):
    """Columns of text in every type that a writer may choose."""
    plain = pa.array(values, pa.string())
    return {
        "string": plain,
        "large_string (pandas 3)": plain.cast(pa.large_string()),
        "string_view (polars)": plain.cast(pa.string_view()),
        "dictionary (categorical)": plain.dictionary_encode(),
        "dictionary of large_string": plain.cast(pa.large_string()).dictionary_encode(),
    }


ID_COLUMNS = {
    **{str(kind): pa.array([1, 2], kind) for kind in (
        pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(),
        pa.uint64(), pa.decimal128(38, 0), pa.dictionary(pa.int8(), pa.int64()))},
    **string_columns(["a", "b"]),
}  # fmt: skip
LISTED = [["red", "round"], []]
VALUE_COLUMNS = {
    **{name: (column, ["x", "y"]) for name, column in string_columns(["x", "y"]).items()},
    "list": (pa.array(LISTED), ["red, round", ""]),
    "large_list": (pa.array(LISTED, pa.large_list(pa.large_string())), ["red, round", ""]),
    "list_view": (pa.array(LISTED, pa.list_view(pa.string())), ["red, round", ""]),
    "Array (polars)": (
        pa.array([["a", "b"], ["c", "d"]], pa.list_(pa.string(), 2)), ["a, b", "c, d"]),
    "struct": (pa.array([{"Brand": "N", "Size": None}, {"Brand": "M", "Size": 3}]),
               ["Brand: N", "Brand: M, Size: 3"]),
    "map": (pa.array([[("Brand", "N")], []], pa.map_(pa.string(), pa.string())), ["Brand: N", ""]),
    "timestamp": (pa.array([0, 1], pa.timestamp("s")),
                  ["1970-01-01 00:00:00", "1970-01-01 00:00:01"]),
    "decimal": (pa.array([Decimal("9.50"), None]), ["9.50", ""]),
    "half": (pa.array([1.5, math.nan], pa.float16()), ["1.5", ""]),
    "null": (pa.nulls(2), ["", ""]),
    "bool": (pa.array([True, None]), ["True", ""]),
}  # fmt: skip


@pytest.mark.parametrize("name", ID_COLUMNS)
def test_ids_of_every_writer(tmp_path, name):
    column = ID_COLUMNS[name]
    pq.write_table(pa.table({"id": column, "title": ["x", "y"]}), tmp_path / "i.parquet")
    wanted = [1, 2] if column[0].as_py() != "a" else ["a", "b"]
    assert list(items(tmp_path, tmp_path / "i.parquet")[0]) == wanted


def test_uuids_are_ids(tmp_path):
    known = [uuid.UUID(int=n) for n in (1, 2)]
    column = pa.array([one.bytes for one in known], pa.uuid())
    pq.write_table(pa.table({"id": column, "title": ["x", "y"]}), tmp_path / "i.parquet")
    assert list(items(tmp_path, tmp_path / "i.parquet")[0]) == list(map(str, known))


@pytest.mark.parametrize("name", VALUE_COLUMNS)
def test_values_of_every_writer(tmp_path, name):
    column, texts = VALUE_COLUMNS[name]
    table = pa.table({"id": [1, 2], "title": ["t", "u"], "more": column})
    pq.write_table(table, tmp_path / "i.parquet")
    found, _ = items(tmp_path, tmp_path / "i.parquet", fields=["title", "more"])
    wanted = zip(["t", "u"], texts, strict=True)
    assert list(found.values()) == ["\n".join(filter(None, pair)) for pair in wanted]


@pytest.mark.parametrize("dtype", ["str", "object", "string", "category"])
def test_frames_of_pandas(tmp_path, dtype):
    frame = pd.DataFrame({"id": [1, 2], "title": pd.Series(["x", "y"], dtype=dtype)})
    for write, name in (
        (lambda path: frame.to_parquet(path), "i.parquet"),
        (lambda path: frame.set_index("id").to_parquet(path), "indexed.parquet"),
        (lambda path: frame.to_csv(path, index=False), "i.csv"),
        (lambda path: frame.to_csv(path), "i.csv.gz"),
        (lambda path: frame.to_json(path, orient="records"), "i.json"),
        (lambda path: frame.to_json(path, orient="records", lines=True), "i.jsonl"),
        (lambda path: frame.set_index("id").to_json(path, orient="index"), "index.json"),
    ):
        write(tmp_path / name)
        assert items(tmp_path, tmp_path / name)[0] == {1: "x", 2: "y"}, name


def test_only_the_columns_that_are_wanted_are_decoded(tmp_path, monkeypatch):
    """A column that nobody asked for costs nothing, and may hold what Python cannot."""
    n = 50
    table = pa.table(
        {
            "id": range(n),
            "title": ["x"] * n,
            "title.long": ["y"] * n,
            "vector": [[1.0] * 64] * n,
            "far": pa.array([10**15] * n, pa.timestamp("s")),
        }
    )
    pq.write_table(table, tmp_path / "i.parquet")
    decoded = []
    whole = catalogue_blocks.of_batch
    monkeypatch.setattr(
        catalogue_blocks,
        "of_batch",
        lambda batch, *others: decoded.append(batch.schema.names) or whole(batch, *others),
    )
    assert len(items(tmp_path, tmp_path / "i.parquet")[0]) == n
    assert set(itertools.chain(*decoded)) == {"id", "title"}
    monkeypatch.undo()
    found, _ = items(tmp_path, tmp_path / "i.parquet", fields=["title", "title.long"])
    assert found[0] == "x\ny"


def test_one_value_that_python_lacks_is_one_bad_row(tmp_path):
    table = pa.table(
        {"id": [1, 2, 3, 4, 5], "title": pa.array([0, 1, 10**15, 2, 3], pa.timestamp("s"))}
    )
    pq.write_table(table, tmp_path / "i.parquet")
    texts, rejects = items(tmp_path, tmp_path / "i.parquet", on_bad_rows="reject")
    assert list(texts) == [1, 2, 4, 5]
    assert [reject["row"] for reject in rejects] == [3]


def test_a_file_of_python_literals_is_told(tmp_path):
    path = put(tmp_path, "i.json", "{u'id': 1, u'title': u'x'}\n{'id': 2, 'title': 'y'}\n")
    with pytest.raises(SidmillError, match=r"Python printed: read it with ast\.literal_eval"):
        items(tmp_path, path)


@pytest.mark.parametrize("head", [b"", b"a", b"ab", b"\xef\xbb\xbf", b"\0\0\0\0", b'{"a"'])
def test_first_bytes_that_tell_nothing_are_utf8(head):
    assert encodings.detect(head) == encodings.UTF8


def test_a_dialect_without_a_section_names_no_setting(tmp_path):
    path = put(tmp_path, "i.csv", "título\n1\n".encode("latin-1"))
    with pytest.raises(SidmillError) as error:
        list(catalogue.read(path))
    assert "None" not in str(error.value)
    assert Dialect().named("encoding") is None
