"""What users' tools write is read: every writer of every kind of file, in every form."""

import gzip
import json
import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from log_files import REJECTING, put, read_log

from sidmill.core.errors import SidmillError
from sidmill.formats import file_names
from sidmill.settings.interactions import InteractionsFields

HISTORIES = {"1": [5, 3, 9, 3], "2": [7], "anna": [1, 2], "7": [9, 8, 7, 6, 5, 4]}
EVENTS = [
    {"user_id": user, "item_id": item, "timestamp": 100 + time}
    for user, items in HISTORIES.items()
    for time, item in enumerate(items)
]
SEQUENCES = [{"user_id": user, "item_ids": items} for user, items in HISTORIES.items()]
ONEREC = [
    {"uid": user, "split": 0, "hist_video_pid": items[:-1], "target_video_pid": items[-1:]}
    for user, items in HISTORIES.items()
]
INTER = [
    {"user_id": user, "item_id_list": items[:-1], "item_id": items[-1]}
    for user, items in HISTORIES.items()
]
MISSREC = [
    {"user_id": user, "user_sequence": [0] * (8 - len(items)) + items}
    for user, items in HISTORIES.items()
]
FORMS = {
    "events": EVENTS, "sequences": SEQUENCES, "onerec": ONEREC, "inter": INTER, "missrec": MISSREC
}  # fmt: skip
LISTS = ("item_ids", "hist_video_pid", "target_video_pid", "item_id_list", "user_sequence")


def parquet(convert):
    """A writer of parquet that converts the ids of items, plain or in lists, before."""

    def write(rows, path):
        table = pa.Table.from_pylist(rows)
        for number, name in enumerate(table.column_names):
            table = table.set_column(number, name, convert(name, table[name].combine_chunks()))
        pq.write_table(table, path.with_suffix(".parquet"))
        return path.with_suffix(".parquet")

    return write


def values_as(kind):
    """Ids, plain or in lists, as values of another type."""

    def convert(name, array):
        if name in LISTS:
            return array.cast(pa.list_(kind))
        return array.cast(kind) if name == "item_id" else array

    return parquet(convert)


def users_as(convert):
    return parquet(lambda name, array: convert(array) if pa.types.is_string(array.type) else array)


def lists_as(make):
    return parquet(lambda name, array: array.cast(make(array)) if name in LISTS else array)


def fixed(array):
    """Lists of one length as polars' Array writes them; others stay."""
    lengths = set(array.value_lengths().to_pylist())
    return pa.list_(array.type.value_type, lengths.pop()) if len(lengths) == 1 else array.type


def by_pandas(rows, path):
    pd.DataFrame(rows).to_parquet(path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


def categorical(rows, path):
    frame = pd.DataFrame(rows)
    user = "uid" if "uid" in frame else "user_id"
    frame[user] = frame[user].astype("category")
    if "item_id" in frame:
        frame["item_id"] = frame["item_id"].astype("category")
    frame.to_parquet(path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


def table_text(delimiter, separator, suffix, quote=False, header=True, encoding="utf-8"):
    """A writer of delimited text whose lists are joined by ``separator``."""

    def cell(value):
        if isinstance(value, list):
            value = separator(value) if callable(separator) else separator.join(map(str, value))
        return f'"{value}"' if quote else str(value)

    def write(rows, path):
        lines = [delimiter.join(rows[0])] if header else []
        lines += [delimiter.join(map(cell, row.values())) for row in rows]
        data = ("\n".join(lines) + "\n").encode(encoding)
        path = path.with_name(path.name + suffix)
        path.write_bytes(gzip.compress(data, mtime=0) if suffix.endswith(".gz") else data)
        return path

    return write


def typed(rows, path):
    """A .inter file with a typed header."""
    kinds = {name: "token_seq" if isinstance(value, list) else "token" for name, value in
             rows[0].items()}  # fmt: skip
    lines = ["\t".join(f"{name}:{kind}" for name, kind in kinds.items())]
    for row in rows:
        cells = [" ".join(map(str, v)) if isinstance(v, list) else str(v) for v in row.values()]
        lines.append("\t".join(cells))
    path = path.with_suffix(".inter")
    path.write_text("\n".join(lines) + "\n")
    return path


def json_text(form, suffix):
    def write(rows, path):
        path = path.with_suffix(suffix)
        path.write_text(form(rows), encoding="utf-8")
        return path

    return write


WRITERS = {
    "JSON lines": json_text(lambda rows: "".join(json.dumps(r) + "\n" for r in rows), ".jsonl"),
    "JSON array": json_text(json.dumps, ".json"),
    "JSON array, indented": json_text(lambda rows: json.dumps(rows, indent=2), ".json"),
    "pandas": by_pandas,
    "pandas, categorical": categorical,
    "int32": values_as(pa.int32()),
    "uint64": values_as(pa.uint64()),
    "float64": values_as(pa.float64()),
    "decimal": values_as(pa.decimal128(21, 0)),
    "text ids": values_as(pa.string()),
    "large text ids": values_as(pa.large_string()),
    "text views": values_as(pa.string_view()),
    "large users": users_as(lambda users: users.cast(pa.large_string())),
    "user views": users_as(lambda users: users.cast(pa.string_view())),
    "binary users": users_as(lambda users: users.cast(pa.binary())),
    "dictionary": users_as(lambda users: users.dictionary_encode()),
    "large lists": lists_as(lambda array: pa.large_list(array.type.value_type)),
    "fixed lists": lists_as(fixed),
    "CSV": table_text(",", " ", ".csv"),
    "CSV, quoted": table_text(",", ",", ".csv", quote=True),
    "CSV, bars, gzip": table_text(",", "|", ".csv.gz"),
    "CSV, Python lists": table_text(",", str, ".csv", quote=True),
    "CSV, numpy lists": table_text(",", lambda v: f"[{' '.join(map(str, v))}]", ".csv"),
    "TSV": table_text("\t", ",", ".tsv"),
    "typed .inter": typed,
}


def stored(folder, form, name):
    """Write a form by a writer; missrec and inter say their split by their folder."""
    place = folder / "log" / ("train" if form in ("missrec", "inter") else "")
    place.mkdir(parents=True)
    return WRITERS[name](FORMS[form], place / "part-0")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", WRITERS)
def test_every_writer_is_read(tmp_path, form, name):
    stored(tmp_path, form, name)
    path = tmp_path / "log"
    users, rejects, report = read_log(tmp_path, path, split="leave_two_out")
    assert {user: row["item_ids"] for user, row in users.items()} == HISTORIES
    assert report["format"] == form
    assert not rejects
    timed = form == "events"
    assert users["1"]["timestamps"] == ([100, 101, 102, 103] if timed else None)


BAD_IDS = {"events": 1.5, "sequences": [1, 2.5], "onerec": [2.5], "inter": [1.5], "missrec": [2.5]}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["JSON lines", "JSON array", "CSV", "float64", "typed .inter"])
def test_of_1000_rows_and_a_bad_one_1000_are_read_in_every_form(tmp_path, form, name):
    field = next(key for key in (*LISTS, "item_id") if key in FORMS[form][0])
    user = next(key for key in ("uid", "user_id") if key in FORMS[form][0])
    good = [FORMS[form][1] | {user: f"u{n}"} for n in range(1000)]
    bad = good[0] | {user: "odd", field: BAD_IDS[form]}
    place = tmp_path / "log" / ("train" if form in ("missrec", "inter") else "")
    place.mkdir(parents=True)
    WRITERS[name]([*good[:700], bad, *good[700:]], place / "part-0")
    users, rejects, report = read_log(tmp_path, tmp_path / "log", **REJECTING)
    assert set(users) == {f"u{n}" for n in range(1000)}
    wanted = [3] if form == "events" else [7]
    assert all(row["item_ids"] == wanted for row in users.values())
    assert len(rejects) == report["rows"]["rejected"] == 1


# --- delimited text of other kinds


def test_files_without_a_header_and_their_message(tmp_path):
    rows = [["u1", "3", "5", "978300760"], ["u1", "4", "4", "978300761"]]
    path = tmp_path / "ratings.csv"
    path.write_text("\n".join(map(",".join, rows)) + "\n")
    with pytest.raises(SidmillError, match=r"the first line looks like data.*of its 4 columns"):
        read_log(tmp_path, path)
    columns = ["user_id", "item_id", "rating", "timestamp"]
    users, _, _ = read_log(tmp_path, path, columns=columns)
    assert users["u1"]["item_ids"] == [3, 4]
    with pytest.raises(SidmillError, match=r"row 1: 4 columns, interactions\.columns names 3"):
        read_log(tmp_path, path, columns=["user_id", "item_id", "timestamp"])
    path.write_text(",".join(columns) + "\n" + ",".join(rows[0]) + "\n")
    with pytest.raises(SidmillError, match=r"set interactions\.columns: null"):
        read_log(tmp_path, path, columns=columns)
    assert read_log(tmp_path, path)[0]["u1"]["item_ids"] == [3]
    path.write_text("1,11/15/2019 9:55:12 AM,[],[]\n")
    with pytest.raises(SidmillError, match=r"'\[\]': the first line looks like data"):
        read_log(tmp_path, path)
    with pytest.raises(SidmillError, match="'a' is listed twice"):
        read_log(tmp_path, path, columns=["a", "a"])
    lines = put(tmp_path, "a.jsonl", EVENTS)
    with pytest.raises(SidmillError, match="names the columns of delimited text"):
        read_log(tmp_path, lines, columns=columns)


@pytest.mark.parametrize("delimiter", ["::", "|", ";", "\t", r"\t", " ", "||"])
@pytest.mark.parametrize("suffix", ["dat", "txt", "data"])
def test_other_delimiters(tmp_path, delimiter, suffix):
    path = tmp_path / f"ratings.{suffix}"
    written = "\t" if delimiter == r"\t" else delimiter
    lines = [written.join(("1", str(item), "5", str(100 + item))) for item in (1, 2, 3)]
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(SidmillError, match=r"unknown kind of file: .*set interactions\.delimiter"):
        read_log(tmp_path, path)
    columns = ["user_id", "item_id", "rating", "timestamp"]
    users, _, _ = read_log(tmp_path, path, delimiter=delimiter, columns=columns)
    assert users["1"]["item_ids"] == [1, 2, 3]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16"])
def test_other_encodings_are_said_and_read(tmp_path, encoding):
    path = tmp_path / "a.csv"
    path.write_text("user_id,item_id,timestamp\nRené,1,5\nMax,2,6\n", encoding=encoding)
    with pytest.raises(SidmillError, match=r"interactions\.encoding"):
        read_log(tmp_path, path)
    users, _, _ = read_log(tmp_path, path, encoding=encoding)
    assert set(users) == {"René", "Max"}
    if encoding != "utf-16":
        users, rejects, _ = read_log(tmp_path, path, **REJECTING)
        assert (set(users), len(rejects)) == ({"Max"}, 1)
    with pytest.raises(SidmillError, match="'klingon' is no encoding"):
        read_log(tmp_path, path, encoding="klingon")


@pytest.mark.parametrize(
    ("written", "separator", "wanted"),
    [
        ("1 2 3", None, [1, 2, 3]),
        ("1|2|3", None, [1, 2, 3]),
        ("1;2;3", None, [1, 2, 3]),
        ("[1, 2, 3]", None, [1, 2, 3]),
        ("['1', '2']", None, [1, 2]),
        ("[1 2  3]", None, [1, 2, 3]),
        ("(1, 2)", None, [1, 2]),
        ("5", None, [5]),
        ("1^2^3", "^", [1, 2, 3]),
        ("1--2", "--", [1, 2]),
        ("1 , 2 ,3", None, [1, 2, 3]),
    ],
)
def test_lists_in_delimited_text(tmp_path, written, separator, wanted):
    path = put(tmp_path, "a.tsv", f"user_id\titem_ids\nu\t{written}\n")
    users, _, _ = read_log(tmp_path, path, list_separator=separator)
    assert users["u"]["item_ids"] == wanted


def test_lists_of_times_and_splits_in_delimited_text(tmp_path):
    text = "user_id,item_ids,splits,timestamps\nu,1 2 3,0 1 2,5 6 7.0\nv,4,,\n"
    users, _, _ = read_log(tmp_path, put(tmp_path, "a.csv", text), split="leave_last_out")
    assert users["u"]["timestamps"] == [5, 6, 7]
    assert users["v"]["timestamps"] is None
    kept = put(tmp_path, "a.csv", text.replace("v,4,,\n", ""))
    assert read_log(tmp_path, kept, split="given")[0]["u"]["splits"] == [0, 1, 2]


def test_lists_of_dates_in_delimited_text(tmp_path):
    text = "user_id\titem_ids\ttimestamps\nu\t1 2\t2018-07-07 22:09:11, 2018-07-07 22:09:12\n"
    users, _, _ = read_log(tmp_path, put(tmp_path, "a.tsv", text), time_unit="s")
    assert users["u"]["timestamps"] == [1531001351, 1531001352]


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_good_rows_behind_many_bad_ones_are_read(tmp_path, kind):
    bad, good = ["{", "x,y"][kind == "csv"], json.dumps(EVENTS[0])
    header = "user_id,item_id,timestamp\n" if kind == "csv" else ""
    good = "1,5,100" if kind == "csv" else good
    text = header + "\n".join([bad] * 500 + [good] * 1000) + "\n"
    users, rejects, report = read_log(tmp_path, put(tmp_path, f"a.{kind}", text), **REJECTING)
    assert (report["interactions"], len(rejects), set(users)) == (1000, 500, {"1"})


@pytest.mark.parametrize("delimiter", ['"', "\n", "\r\n"])
def test_what_cannot_part_columns_is_refused(tmp_path, delimiter):
    path = put(tmp_path, "a.dat", "1 2\n")
    with pytest.raises(SidmillError, match=r"interactions\.delimiter: .* cannot part columns"):
        read_log(tmp_path, path, delimiter=delimiter)


# --- one object of lists


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("compressed", [False, True])
def test_an_object_of_lists_is_read(tmp_path, indent, compressed):
    inters = {str(user): list(range(user % 3, user % 3 + 4)) for user in range(3000)}
    data = json.dumps(inters, indent=indent).encode()
    path = tmp_path / ("X.inter.json.gz" if compressed else "X.inter.json")
    path.write_bytes(gzip.compress(data) if compressed else data)
    items = [str(number) for number in range(6)]  # ids from 0, as texts
    users, _, report = read_log(tmp_path, path, items=items)
    assert {user: list(map(int, row["item_ids"])) for user, row in users.items()} == inters
    assert report["rows"]["read"] == 3000


def test_of_an_object_of_lists_a_bad_user_goes_alone(tmp_path):
    inters = {str(user): [1, 2, 3] for user in range(1000)} | {"odd": [1, None]}
    path = put(tmp_path, "X.inter.json", json.dumps(inters))
    users, rejects, _ = read_log(tmp_path, path, **REJECTING)
    assert (len(users), len(rejects)) == (1000, 1)
    path = put(tmp_path, "X.inter.json", json.dumps(inters)[:-9])
    with pytest.raises(SidmillError, match="cannot be read past entry 1000 of its JSON object"):
        read_log(tmp_path, path)


def test_a_message_lists_20_names_at_most(tmp_path):
    wide = {f"{'x' * 99}{number}": number for number in range(5000)}
    for path in (put(tmp_path, "a.jsonl", [wide]), put(tmp_path, "b.json", json.dumps([wide]))):
        with pytest.raises(SidmillError, match="and 4980 more, which tell none") as error:
            read_log(tmp_path, path)
        assert len(str(error.value)) < 1800


# --- splits of files


def split_logs(folder, names):
    """One event per split and user, in files of these names; which file says which split."""
    for number, name in enumerate(names):
        rows = [{"user_id": f"u{n}", "item_id": 1 + number, "timestamp": number} for n in range(3)]
        path = folder / "log" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".csv"):
            pd.DataFrame(rows).to_csv(path, index=False)
        else:
            put(folder / "log", name, rows)


@pytest.mark.parametrize(
    "names",
    [
        ("All_Beauty.train.csv", "All_Beauty.valid.csv", "All_Beauty.test.csv"),
        ("train.csv", "valid.csv", "test.csv"),
        ("train.jsonl", "dev.jsonl", "test.jsonl"),
        ("ratings_train.csv", "ratings_val.csv", "ratings_test.csv"),
        ("train/a.jsonl", "validation/a.jsonl", "test/a.jsonl"),
        ("train/2020/a.jsonl", "valid/2020/a.jsonl", "test/2020/a.jsonl"),
        ("X.train-00000-of-00001.csv", "X.valid-00000-of-00001.csv", "X.test-0.csv"),
    ],
)
@pytest.mark.parametrize("folder_is_named_test", [False, True])
def test_names_of_files_and_folders_say_splits(tmp_path, names, folder_is_named_test, caplog):
    folder = tmp_path / ("x/test/y" if folder_is_named_test else "x")
    split_logs(folder, names)
    users, _, report = read_log(tmp_path, folder / "log", split="given")
    assert {user: row["splits"] for user, row in users.items()} == {
        f"u{n}": [0, 1, 2] for n in range(3)
    }
    assert report["rows"]["with_splits"] == 9
    read_log(tmp_path, folder / "log", split="leave_last_out")
    assert "names of their files say splits" in caplog.text


def test_no_split_says_that_names_were_looked_at_and_naming_helps(tmp_path):
    path = put(tmp_path, "log/a.jsonl", EVENTS)
    with pytest.raises(SidmillError, match=r"the file's name says none either.*X\.train\.csv"):
        read_log(tmp_path, path, split="given")
    path.rename(path.with_name("a.train.jsonl"))
    users, _, _ = read_log(tmp_path, path.with_name("a.train.jsonl"), split="given")
    assert users["1"]["splits"] == [0] * 4


@pytest.mark.parametrize("value", ["0", " 1", "2", "0.0", "1.0", "train", "Valid", "TEST", "dev"])
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_splits_are_read_however_they_are_written(tmp_path, value, kind):
    wanted = {"train": 0, "valid": 1, "dev": 1, "test": 2}.get(value.lower().strip())
    wanted = int(float(value)) if wanted is None else wanted
    row = {"user_id": "u", "item_id": 1, "timestamp": 1, "split": value}
    sep = {"csv": ",", "tsv": "\t"}.get(kind)
    text = sep and f"{sep.join(row)}\n{sep.join(map(str, row.values()))}\n"
    path = put(tmp_path, f"a.{kind}", text or [row])
    assert read_log(tmp_path, path, split="given")[0]["u"]["splits"] == [wanted]


def test_a_truth_value_is_no_split(tmp_path):
    row = {"user_id": "u", "item_id": 1, "timestamp": 1, "split": True}
    with pytest.raises(SidmillError, match="split True: wanted train"):
        read_log(tmp_path, put(tmp_path, "a.jsonl", [row]), split="given")


# --- folders


def test_no_file_of_a_folder_is_lost(tmp_path):
    names = ["log.jsonl", "test/x.jsonl", "train/deep/y.jsonl", "2020/z.jsonl", "other/a.csv"]
    for number, name in enumerate(names):
        rows = [{"user_id": f"u{number}", "item_id": 1, "timestamp": 5}]
        if name.endswith(".csv"):
            put(tmp_path, f"mix/{name}", f"user_id,item_id,timestamp\nu{number},1,5\n")
        else:
            put(tmp_path, f"mix/{name}", rows)
    put(tmp_path, "mix/.hidden/a.jsonl", b"not looked at")
    put(tmp_path, "mix/_old/a.jsonl", b"not looked at")
    put(tmp_path, "mix/README.txt", b"not looked at")
    (tmp_path / "mix/loop").symlink_to(tmp_path / "mix")
    users, _, report = read_log(tmp_path, tmp_path / "mix")
    assert set(users) == {f"u{number}" for number in range(len(names))}
    assert report["files"] == len(names)


def test_files_of_different_forms_are_named(tmp_path):
    put(tmp_path, "log/a.jsonl", SEQUENCES)
    put(tmp_path, "log/b.jsonl", EVENTS)
    with pytest.raises(SidmillError, match=r"a\.jsonl holds sequences, .*b\.jsonl holds events"):
        read_log(tmp_path, tmp_path / "log")


def test_files_of_different_types_are_one_log(tmp_path):
    """A split, a time or an id of another type in one file changes nothing for the others."""
    (tmp_path / "log").mkdir()
    one = {"user_id": [1, 2], "item_id": [3, 4], "timestamp": [5, 6], "split": [0, 0]}
    pd.DataFrame(one).to_parquet(tmp_path / "log/a.parquet")
    two = {"user_id": ["1", "2"], "item_id": ["5", "6"], "timestamp": [7.0, 8.0],
           "split": ["test", "test"]}  # fmt: skip
    pd.DataFrame(two).to_parquet(tmp_path / "log/b.parquet")
    users, _, _ = read_log(tmp_path, tmp_path / "log", split="given")
    assert users["1"]["item_ids"] == [3, 5]
    assert users["1"]["splits"] == [0, 2]
    del one["split"]
    pd.DataFrame(one).to_parquet(tmp_path / "log/a.parquet")
    with pytest.raises(SidmillError, match=r"a\.parquet, row 1: no splits"):
        read_log(tmp_path, tmp_path / "log", split="given")


# --- ids that became floats


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
def test_integers_that_pandas_made_floats_are_read(tmp_path, kind, caplog):
    frame = pd.DataFrame({"user_id": [1, None, 2], "item_id": [3, 4, 5], "timestamp": [1, 2, 3]})
    frame = frame.astype({"item_id": float}).dropna()
    assert frame["user_id"].dtype == float
    path = tmp_path / f"a.{kind}"
    if kind == "csv":
        frame.to_csv(path, index=False)
    elif kind == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records", lines=True)
    users, _, report = read_log(tmp_path, path)
    assert {user: row["item_ids"] for user, row in users.items()} == {"1": [3], "2": [5]}
    assert report["rows"]["users_as_floats"] == 2
    assert "2 rows write their user as a float" in caplog.text


def test_floats_for_ids_that_are_texts_are_explained(tmp_path):
    items = ["1", "2"]
    path = put(tmp_path, "a.jsonl", [{"user_id": "u", "item_ids": [1.0]}])
    with pytest.raises(SidmillError, match=r"item 1\.0 is a float: the catalogue's ids are text, "):
        read_log(tmp_path, path, items=items)
    path = put(tmp_path, "a.csv", "user_id,item_id,timestamp\nu,1.0,5\n")
    with pytest.raises(SidmillError, match="whose ids are such as '1'"):
        read_log(tmp_path, path, items=items)
    path = put(tmp_path, "a.csv", "user_id,item_id,timestamp\nu,1,5\n")
    assert read_log(tmp_path, path, items=items)[0]["u"]["item_ids"] == ["1"]


def test_values_that_are_no_ids_do_not_stop_the_file(tmp_path):
    good = [{"user_id": f"u{n}", "item_id": 1, "timestamp": 5} for n in range(50)]
    table = pa.Table.from_pylist(good)
    names = pa.array([b"\xff\xfe", *(row["user_id"].encode() for row in good[1:])], pa.binary())
    kinds = {"text": pa.StringArray.from_buffers(50, *names.buffers()[1:]), "binary": names}
    for kind, column in kinds.items():
        path = tmp_path / f"{kind}.parquet"
        pq.write_table(table.set_column(0, "user_id", column), path)
        users, rejects, _ = read_log(tmp_path, path, **REJECTING)
        assert len(users) == 49
        assert [row["reason"] for row in rejects] == ["not UTF-8"]
    odd = {
        "struct": pa.array([{"id": 1}] * 50),
        "time of day": pa.array([5] * 50, pa.time64("ns")),
        "null": pa.nulls(50),
    }
    for kind, column in odd.items():
        path = tmp_path / f"{kind}.parquet"
        pq.write_table(table.append_column("other", column), path)
        assert len(read_log(tmp_path, path)[0]) == 50
        pq.write_table(table.set_column(1, "item_id", column), path)
        with pytest.raises(
            SidmillError, match="all of the first 50 rows, so look at the column 'i"
        ):
            read_log(tmp_path, path)


def test_a_folder_takes_the_kinds_that_the_page_names():
    assert all(re.match(r"\.(jsonl|json|csv|tsv|parquet|inter)", end) for end in file_names.LOGS)
    assert InteractionsFields().item is None
    assert np.dtype(float) == np.float64
