"""Events read by columns leave, byte for byte, what events read row by row leave."""

import datetime
import json
import logging

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidmill.core.errors import SidmillError
from sidmill.formats import item_text, log_rows
from sidmill.interactions import catalogue_ids, column_events, times, validate
from sidmill.interactions.read import read
from sidmill.interactions.rows import BadRowError, _user, is_missing
from sidmill.interactions.times import DATE, NUMBER, Clock
from sidmill.io import delimited_text, id_lookup, text_lines
from sidmill.settings.interactions import Interactions

INTEGERS, TEXTS = list(range(1, 8)), [*"1234567", "x", "é", "1.0", " 2"]
BLANK = ["", " ", "\u00a0", "\t", "\u2003"]
USERS = st.one_of(
    st.integers(-2, 4).map(str),
    st.sampled_from(
        [
            *BLANK, "7.0", "7.00", "7.", "-7.0", "-0.0", "07.0", "7.5", "nan", "a", "é", "不锈",
            "😀", "\u0660.0", "a\nb", "7.0\n", "\x00", 'a"b', "a,b", "  a", "\u200b", "!", "9" * 30,
        ]
    ),
)  # fmt: skip
ITEMS = st.one_of(
    st.integers(-1, 9).map(str),
    st.sampled_from(
        [
            *BLANK, "1.0", "2.000", "3.", "1.5", "007", "+1", "-1", " 2", "2\n", "x", "é", "0.0",
            str(2**63 - 1), str(2**63), "9" * 19, "9" * 18, "1e0", "\u0661", "nan",
        ]
    ),
)  # fmt: skip
NUMBERS = st.one_of(
    st.integers(0, 5).map(str),
    st.sampled_from(
        [
            *BLANK, "0", "-0", "-5", "+5", "05", "5.", "5.0", "5.50", "-5.5", ".5", "1.5e3", "1e30",
            "1593878903.438", " 5 ", "5\n", str(2**63 - 1), str(2**63), str(-(2**63)), "nan", "inf",
            "9" * 18, "-" + "9" * 18, "9223372036854.775807", "9223372036855", "5,0", "\u0665",
        ]
    ),
)  # fmt: skip
DATES = st.one_of(
    st.datetimes(datetime.datetime(1969, 12, 30), datetime.datetime(1970, 1, 3)).map(str),
    st.datetimes().map(datetime.datetime.isoformat),
    st.sampled_from(
        [
            *BLANK, "2023-05-01", "2023-05-01T10:00:00", "2023-05-01 10:00:00Z", "20230501",
            "2023-05-01T10:00:00.5", "2023-05-01T10:00:00.123456789Z", "2023-05-01T10:00:00.Z",
            "2023-05-01T10:00:00.1234567891", "2023-05-01T10:00:00+02:00", "2023-02-31T10:00:00",
            "2024-02-29 23:59:59", "2023-02-29 23:59:59", "2023-05-01T24:00:00", "2023-05-01T10:00",
            "2023-05-01T10:00:60", "2023-13-01T10:00:00", "2023/05/01 10:00:00", "1677-01-01",
            "2023-05-01t10:00:00z", "2023-05-01T10:00:00 UTC", "0000-01-01T00:00:00", "yesterday",
            "1969-12-31T23:59:59.75", "2199-12-31T23:59:59.999999999", "2300-01-01T00:00:00",
            "Thu Mar 30 17:20:04 -0700 2017", "2023-05-01T10:00:00Z\n", "1593878903", "2023-05-00",
        ]
    ),
)  # fmt: skip
SPLITS = st.sampled_from(["train", "valid", "test", "0", "1.0", "2", " Test ", "dev", *BLANK, "x"])
CHANGES = st.fixed_dictionaries(
    {
        "on_bad_rows": st.sampled_from(["reject"] * 4 + ["error"]),
        "on_unknown_items": st.sampled_from(["reject"] * 4 + ["error"]),
        "split": st.sampled_from(["leave_two_out", "given", "time"]),
        "time_unit": st.sampled_from(["s", "ms", "us", "ns"]),
        "time_fractions": st.sampled_from(["error", "floor", "millionths"]),
        "time_format": st.sampled_from([None] * 5 + ["%Y-%m-%dT%H:%M:%S", "%Y%m%d", "%H"]),
    }
)
NAMES = st.sampled_from(["log", "log.train"])
CATALOGUES = st.sampled_from([INTEGERS, TEXTS])
SIZES = st.tuples(st.sampled_from([1, 40, 1 << 18]), st.sampled_from([1, 3, 5, 1 << 18]))


def outcome(folder, path, changed):
    """The bytes of both files, the report and what is logged; or the message that stopped it."""
    outputs = [folder / "sequences.parquet", folder / "rejects.parquet"]
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("sidmill.interactions.read")
    logger.addHandler(handler)
    try:
        chosen = Interactions(path=str(path), format="events", **changed)
        report = read(folder / "text.parquet", *outputs, chosen)
    except SidmillError as error:
        return str(error)
    finally:
        logger.removeHandler(handler)
    return [path.read_bytes() for path in outputs], report, messages


def assert_columns_give_what_rows_give(folder, name, content, ids, sizes, changed):
    """Both ways on one file, with small blocks; any number of rows may be read by themselves."""
    kind = pa.int64() if ids is INTEGERS else pa.string()
    texts = [f"item {one}" for one in ids]
    item_text.write(
        folder / "text.parquet", kind, [pa.table({"pid": pa.array(ids, kind), "text": texts})]
    )
    path = folder / name
    path.write_bytes(content)
    chunk, block = sizes
    with pytest.MonkeyPatch.context() as patch:
        for lines in (text_lines, delimited_text):
            patch.setattr(lines, "CHUNK", chunk)
        for batch in ("BATCH_ROWS", "FLAT_BATCH_ROWS"):
            patch.setattr(log_rows, batch, 4)
        patch.setattr(validate, "BLOCK_ITEMS", block)
        patch.setattr(column_events, "MOST_BY_ROW", 1)
        by_columns = outcome(folder, path, changed)
        patch.setattr(validate, "_events", lambda *_: None)
        assert outcome(folder, path, changed) == by_columns


def quoted(text):
    return '"' + text.replace('"', '""') + '"'


@st.composite
def text_rows(draw):
    """Rows of text, most of them good, with times of mostly one kind."""
    time = draw(st.sampled_from([NUMBERS, DATES]))
    good = st.tuples(
        st.sampled_from("abc"), st.integers(1, 7).map(str), time, st.sampled_from(["train", "2"])
    )
    return draw(st.lists(good | st.tuples(USERS, ITEMS, time, SPLITS), min_size=1, max_size=12))


@given(
    text_rows(),
    st.lists(st.tuples(st.integers(0, 11), st.sampled_from(
        ["", " ", "1,2", "1,2,3,4,5", '"', 'a"b,1,2,test', "\udcff,1,2,test", "1,\udcff,2,test"]
    )), max_size=2),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    NAMES, CATALOGUES, SIZES, CHANGES,
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_csv(tmp_path_factory, rows, others, end, has_split, name, ids, sizes, changed):
    width = 4 if has_split else 3
    lines = [",".join(map(quoted, row[:width])) for row in rows]
    for at, line in others:
        lines.insert(at, line)
    header = ",".join(["user_id", "item_id", "timestamp", "split"][:width])
    data = end.join([header, *lines]).encode(errors="surrogateescape")
    folder = tmp_path_factory.mktemp("csv")
    assert_columns_give_what_rows_give(folder, f"{name}.csv", data, ids, sizes, changed)


@given(text_rows(), st.sampled_from([" ", "::", None]), CATALOGUES, SIZES, CHANGES)
@settings(max_examples=25, deadline=None)
def test_tables_without_quotes(tmp_path_factory, rows, delimiter, ids, sizes, changed):
    separator = delimiter or "\t"
    names = ["user_id:token", "item_id:token", "timestamp:float", "tags:token_seq"]
    lines = [separator.join(row) for row in [names, *rows]]
    data = "\n".join(lines).encode()
    folder = tmp_path_factory.mktemp("inter")
    name = "log.inter" if delimiter is None else "log.dat"
    changed = changed | {"delimiter": delimiter}
    assert_columns_give_what_rows_give(folder, name, data, ids, sizes, changed)


@given(text_rows(), st.sampled_from(["latin-1", "utf-16", "cp1252"]), SIZES)
@settings(max_examples=20, deadline=None)
def test_encodings(tmp_path_factory, rows, encoding, sizes):
    lines = ["user_id,item_id,timestamp"]
    lines += [",".join(map(quoted, row[:3])) for row in rows]
    data = "\n".join(lines).encode(encoding, errors="replace")
    changed = {"encoding": encoding, "on_bad_rows": "reject", "on_unknown_items": "reject"}
    folder = tmp_path_factory.mktemp("encoded")
    assert_columns_give_what_rows_give(folder, "log.csv", data, TEXTS, sizes, changed)


ANY = st.none() | st.booleans() | st.floats() | st.integers(-2, 2**64) | st.lists(st.integers(1, 3))


@st.composite
def objects(draw):
    """JSON objects whose fields are of one type, as columns have them, but for some."""
    kinds = [
        draw(st.sampled_from([USERS, st.integers(-2, 9)])),
        draw(st.sampled_from([ITEMS, st.integers(-1, 9)])),
        draw(st.sampled_from([NUMBERS, DATES, st.integers(0, 9), st.floats(0, 9)])),
        draw(st.sampled_from([SPLITS, st.integers(0, 3)])),
    ]
    names = ["user_id", "item_id", "timestamp", "split"]
    usual = st.fixed_dictionaries(dict(zip(names, kinds, strict=True)))
    odd = st.fixed_dictionaries({}, optional=dict.fromkeys([*names, "more"], ANY))
    return draw(st.lists(usual | usual | usual | odd, min_size=1, max_size=10))


@given(objects(), st.booleans(), NAMES, CATALOGUES, SIZES, CHANGES)
@settings(max_examples=50, deadline=None)
def test_lines_of_json(tmp_path_factory, rows, is_ascii, name, ids, sizes, changed):
    data = "\n".join(json.dumps(row, ensure_ascii=is_ascii) for row in rows)
    folder = tmp_path_factory.mktemp("json")
    assert_columns_give_what_rows_give(folder, f"{name}.jsonl", data.encode(), ids, sizes, changed)


FLOATS = st.one_of(
    st.integers(-1, 8).map(float),
    st.sampled_from(
        [1.5, -0.0, float("nan"), float("inf"), -float("inf"), 2.0**53, 2.0**53 - 1, 2.0**62,
         2.0**63, -(2.0**63), 1593878903.438, 0.1, -0.5, 5e-324, 9223372036854.775]
    ),
)  # fmt: skip
WIDE = st.integers(0, 8) | st.sampled_from([-1, 2**53, 2**63 - 1, -(2**63), 9223372036854])
KINDS = {
    pa.string(): None,
    pa.large_string(): None,
    pa.string_view(): None,
    pa.dictionary(pa.int8(), pa.string()): None,
    pa.binary(): None,
    pa.int8(): st.integers(-1, 8),
    pa.int64(): WIDE,
    pa.uint64(): st.integers(0, 8) | st.sampled_from([2**63 - 1, 2**63, 2**64 - 1]),
    pa.float32(): FLOATS,
    pa.float64(): FLOATS,
    pa.dictionary(pa.int8(), pa.int64()): WIDE,
    pa.bool_(): st.booleans(),
    pa.null(): st.none(),
    pa.date32(): st.integers(-800_000, 3_000_000),
    pa.date64(): st.integers(-100, 30_000).map(lambda days: days * 86_400_000),
    pa.timestamp("s"): st.integers(0, 8) | st.integers(-(10**15), 10**15),
    pa.timestamp("ms", "Europe/Berlin"): WIDE | st.integers(-(10**12), 10**12),
    pa.timestamp("us"): WIDE | st.integers(-(10**15), 10**15),
    pa.timestamp("ns"): WIDE | st.integers(-(10**18), 10**18),
    pa.decimal128(6, 2): st.decimals(0, 9, places=2),
    pa.list_(pa.int64()): st.lists(st.integers(1, 3), max_size=2),
    pa.list_(pa.string()): st.lists(st.text(max_size=1) | st.none(), max_size=2),
    pa.list_(pa.binary()): st.lists(st.binary(max_size=1), max_size=2),
    pa.list_(pa.decimal128(6, 2)): st.lists(st.decimals(0, 9, places=2), max_size=2),
    pa.struct([("a", pa.string())]): st.fixed_dictionaries({"a": st.text(max_size=1)}),
    pa.time32("s"): st.integers(0, 9),
}
LIKELY = {
    "user_id": [pa.string(), pa.int64(), pa.float64()],
    "item_id": [pa.string(), pa.int64(), pa.float64()],
    "timestamp": [pa.int64(), pa.float64(), pa.string(), pa.timestamp("ms", "Europe/Berlin")],
    "split": [pa.string(), pa.int8()],
    "more": [pa.string(), pa.binary(), pa.float64()],
}
TEXT_OF = {"user_id": USERS, "item_id": ITEMS, "timestamp": NUMBERS | DATES, "split": SPLITS}


def _column(values, kind):
    if kind == pa.binary():
        return pa.array([None if value is None else value.encode() for value in values], kind)
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, OverflowError):
        return pa.array([None] * len(values), kind)


@st.composite
def tables(draw):
    n_rows = draw(st.integers(1, 12))
    columns = {}
    for name in draw(st.sampled_from([[*LIKELY][:3], [*LIKELY], [*LIKELY][1:]])):
        kind = draw(st.sampled_from(LIKELY[name] * 6 + [*KINDS]))
        value = TEXT_OF.get(name, st.text(max_size=2)) if KINDS[kind] is None else KINDS[kind]
        value = value if draw(st.booleans()) else value | st.none()
        values = draw(st.lists(value, min_size=n_rows, max_size=n_rows))
        columns[name] = _column(values, kind)
    return pa.table(columns)


@given(tables(), NAMES, CATALOGUES, SIZES, CHANGES)
@settings(max_examples=80, deadline=None)
def test_parquet_of_any_type(tmp_path_factory, table, name, ids, sizes, changed):
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    folder = tmp_path_factory.mktemp("parquet")
    data = sink.getvalue().to_pybytes()
    assert_columns_give_what_rows_give(folder, f"{name}.parquet", data, ids, sizes, changed)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), pa.binary()])
@pytest.mark.parametrize("broken_name", ["user_id", "more"])
def test_text_in_parquet_that_is_not_utf8(tmp_path, kind, broken_name):
    """The row is a bad one, whether the text is used or not."""
    texts = pa.array([b"a", b"\xff", b"b", b"c", b"d"], pa.binary())
    broken = texts.cast(pa.large_binary()) if kind == pa.large_string() else texts
    if kind == pa.string_view():
        broken = broken.view(pa.string()).cast(kind)
    elif kind != pa.binary():
        broken = broken.view(kind)
    columns = {"user_id": pa.array(list("aabbc")), "more": pa.array(list("xyzxy"))}
    columns |= {"item_id": [1, 2, 3, 4, 5], "timestamp": [1, 2, 3, 4, 5], broken_name: broken}
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    data = (tmp_path / "log.parquet").read_bytes()
    changed = {"on_bad_rows": "reject"}
    folder = tmp_path / "both"
    folder.mkdir()
    assert_columns_give_what_rows_give(
        folder, "log.parquet", data, INTEGERS, (1 << 18, 1 << 18), changed
    )
    rejects = pq.read_table(folder / "rejects.parquet").to_pylist()
    assert [(line["row"], line["reason"]) for line in rejects] == [(2, "not UTF-8")]


@pytest.mark.parametrize("name", ["log.csv", "log.jsonl", "log.parquet"])
def test_plain_events_are_read_by_columns(tmp_path, monkeypatch, name):
    """Only the row in question is parsed by itself."""
    rows = [{"user_id": f"u{n % 5}", "item_id": 1 + n % 7, "timestamp": n} for n in range(40)]
    rows[17]["user_id"] = ""
    table = pa.Table.from_pylist(rows)
    path = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(table, path)
    elif name.endswith("jsonl"):
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        lines = [",".join(map(str, row.values())) for row in rows]
        path.write_text("\n".join(["user_id,item_id,timestamp", *lines]))
    parsed = []
    parse = validate._piece
    monkeypatch.setattr(
        validate, "_piece", lambda row, *rest: parsed.append(row.number) or parse(row, *rest)
    )
    item_text.write(
        tmp_path / "text.parquet",
        pa.int64(),
        [pa.table({"pid": INTEGERS, "text": [f"item {one}" for one in INTEGERS]})],
    )
    _, report, _ = outcome(tmp_path, path, {"on_bad_rows": "reject"})
    assert parsed == [19 if name == "log.csv" else 18]
    assert report["rows"]["read"] == 40
    assert report["interactions_accounted_for"]["written"] == 39


MEANING = column_events.Meaning(
    {"user": "u", "item": "i", "time": "t", "split": "s"}, pa.int64(), Clock(None, "us", "error"),
    False,
)  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "values", "by_row"),
    [
        (NUMBER, ["5", "5.0", "1e3", "x"], [3]),
        (DATE, ["2023-05-01T10:00:00Z", "1970-01-01", "2023-02-31 10:00:00", "7"], [2, 3]),
    ],
)
def test_values_that_need_more_than_a_look(monkeypatch, kind, values, by_row):
    """Unusual times are read one by one; only what is no time leaves its row to be refused."""
    monkeypatch.setattr(column_events, "MOST_BY_ROW", 1)
    columns = pa.RecordBatch.from_pydict({"u": [1, 2, 3, 4], "i": [1, 2, 3, 4], "t": values})
    meaning = MEANING._replace(clock=MEANING.clock._replace(kind=kind))
    events = column_events.read(columns, np.arange(1, 5), meaning, None)
    assert events.by_row == by_row


EDGES = [0, 1, -1, 999, -999, 1001, 2**53, 2**62, 2**63 - 1, -(2**63), 9223372036854, 9223372036855]
EDGES += [-9223372036854, -9223372036855, 10**15, -(10**15), 123456789012345]
SMALL = [value for value in EDGES if abs(value) < 10**16]
BIG_FLOATS = [2.0**62, 2.0**63, -(2.0**63), 2.0**64, 9223372036854.0, 9223372036855.0, 9e12 + 0.5]
TEXT_TIMES = [
    *map(str, EDGES),
    "5.0",
    "5.50",
    "-5.5",
    "1e3",
    " 5 ",
    "",
    "x",
    "9223372036854.775807",
]
TEXT_DATES = [
    "2023-05-01", "2023-05-01T10:00:00.123456789Z", "1969-12-31T23:59:59.75", "2024-02-29 00:00:00",
    "1900-01-01T00:00:00.000000001", "2199-12-31T23:59:59.999999999Z", "2023-05-01T10:00:00+02:00",
    "2023-05-01T24:00:00", "20230501", "0000-01-01T00:00:00", "2300-01-01 00:00:00.5", "x", "",
]  # fmt: skip
TIME_COLUMNS = [
    pa.array(EDGES, pa.int64()),
    pa.array([*range(-3, 4)], pa.int16()),
    pa.array([0.0, -0.0, 1.0, -1.0, 1.5, -1.5, 0.1, 1593878903.438, *BIG_FLOATS, float("nan")]),
    pa.array([0.5, 1.25, 16777216.0, 3e38], pa.float32()),
    pa.array(TEXT_TIMES),
    pa.array(TEXT_DATES),
    pa.array([*TEXT_DATES, "2023-02-31 10:00:00"]),
    pa.array(["2023-05-01T10:00:00Z", "2023-02-28 10:00:00"]),
    pa.array(SMALL, pa.timestamp("s")),
    pa.array(EDGES, pa.timestamp("ms", "Europe/Berlin")),
    pa.array(EDGES, pa.timestamp("us")),
    pa.array(EDGES, pa.timestamp("ns")),
    pa.array([-800_000, -1, 0, 1, 106_751, 106_752, 3_000_000], pa.date32()),
    pa.array([-86_400_000, 0, 86_400_000], pa.date64()),
]
CLOCKS = [
    Clock(form, unit, fractions, kind)
    for form in (None, "%Y%m%d")
    for unit in ("s", "ms", "us", "ns")
    for fractions in ("error", "floor", "millionths")
    for kind in (NUMBER, DATE)
]


def by_value(values, read_one):
    """What each value of a column is as rows have it, None where it is refused."""
    results = []
    for value in log_rows._values(values, set()):
        try:
            results.append(read_one(value))
        except (ValueError, BadRowError):
            results.append(None)
    return results


def by_column(name, values, monkeypatch, meaning=MEANING):
    """What each value is as its column has it, None where its row is read by itself."""
    monkeypatch.setattr(column_events, "MOST_BY_ROW", 1)
    good = dict.fromkeys("uit", [1] * len(values))
    columns = pa.RecordBatch.from_pydict(good | {name: values})
    events = column_events.read(columns, np.arange(len(values)), meaning, None)
    if events is None:
        return [None] * len(values)
    results = events.table[{"u": "user", "i": "item", "t": "time"}[name]].to_pylist()
    return [None if at in events.by_row else result for at, result in enumerate(results)]


@pytest.mark.parametrize("values", TIME_COLUMNS, ids=lambda values: str(values.type))
def test_times_are_those_of_single_values(monkeypatch, values):
    """Whatever the clock; and what rows can read, columns can, but for the ends of 64 bits."""
    n_read = n_by_column = 0
    for clock in CLOCKS:
        meaning = MEANING._replace(clock=clock)
        expected = by_value(values, lambda value, clock=clock: times.read(value, clock))
        results = by_column("t", values, monkeypatch, meaning)
        for value, right, result in zip(values.to_numpy(False), expected, results, strict=True):
            assert result in (right, None), (value, clock)
            n_read += right is not None
            n_by_column += result is not None
    assert n_read * 0.9 <= n_by_column <= n_read


ID_COLUMNS = [
    pa.array(EDGES, pa.int64()),
    pa.array([0, 1, 2**63 - 1, 2**63, 2**64 - 1], pa.uint64()),
    pa.array([*range(-3, 4)], pa.int8()),
    pa.array([0.0, -0.0, 1.0, -1.0, 1.5, 2.0**53 - 1, 2.0**53, -(2.0**53), *BIG_FLOATS, None]),
    pa.array([float("nan"), float("inf"), -float("inf"), 7.0]),
    pa.array([
        "7", "007", "7.0", "7.00", "7.", "-7.0", "0", "0.0", "+7", " 7", "7\n", "7.0\n", "", " ",
        "\u00a0", "\u2003", "\u200b", "é", "不锈", "\u0667", "\u0667.0", "a b", "9" * 18, "9" * 19,
        str(2**63), "1e3", "nan", "😀", "!", "\x00", "\x1f", None,
    ]),
]  # fmt: skip


@pytest.mark.parametrize("values", ID_COLUMNS, ids=lambda values: str(values.type))
def test_ids_are_those_of_single_values(monkeypatch, values):
    for ids in (INTEGERS, TEXTS):
        kind = pa.int64() if ids is INTEGERS else pa.string()
        known = catalogue_ids.CatalogueIds(pa.array(ids, kind), id_lookup.make(pa.array(ids, kind)))

        def item_of(value, known=known):
            return None if is_missing(value) else catalogue_ids.as_id(known, value)

        meaning = MEANING._replace(id_type=kind)
        results = by_column("i", values, monkeypatch, meaning)
        for right, result in zip(by_value(values, item_of), results, strict=True):
            assert result in (right, None)

    def user_of(value):
        return _user({"user": value}, "user")

    results = by_column("u", values, monkeypatch)
    for right, result in zip(by_value(values, user_of), results, strict=True):
        assert result in (right, None)


def test_blocks_end_where_rows_end_them(tmp_path):
    """Unknown items of a full block are listed before what is wrong with a later row."""
    rows = [f"a,{item},{time}" for time, item in enumerate([1, 9, 2, 9, 3, "", 9, 4])]
    data = "\n".join(["user_id,item_id,timestamp", *rows]).encode()
    changed = {"on_bad_rows": "reject", "on_unknown_items": "reject"}
    in_order, one_later, all_later = [3, 5, 7, 8], [3, 7, 5, 8], [7, 3, 5, 8]
    for block, listed in {2: in_order, 3: one_later, 5: in_order, 6: all_later}.items():
        sizes = (1 << 18, block)
        assert_columns_give_what_rows_give(tmp_path, "log.csv", data, INTEGERS, sizes, changed)
        rejects = pq.read_table(tmp_path / "rejects.parquet")["row"].to_pylist()
        assert rejects == listed


@pytest.mark.parametrize("large_first", [True, False])
def test_unknown_items_are_listed_by_row(tmp_path, large_first):
    """Also where every other one is too large to be read by its column."""
    items = [9, 2**63 - 1, 8, 2**63 - 1, 9] if not large_first else [2**63 - 1, 9, 2**63 - 1, 9, 8]
    rows = [f"a,{item},{time}" for time, item in enumerate([*items, 1])]
    data = "\n".join(["user_id,item_id,timestamp", *rows]).encode()
    sizes = (1 << 18, 1 << 18)
    changed = {"on_unknown_items": "reject"}
    assert_columns_give_what_rows_give(tmp_path, "log.csv", data, INTEGERS, sizes, changed)
    rejects = pq.read_table(tmp_path / "rejects.parquet").to_pylist()
    assert [(line["row"], line["item_id"]) for line in rejects] == [
        (row, str(item)) for row, item in enumerate(items, start=2)
    ]
    stopped = outcome(tmp_path, tmp_path / "log.csv", {"on_unknown_items": "error"})
    assert f"row 2: user 'a' has item {items[0]}," in stopped


def test_many_rows_in_question_are_read_with_the_others():
    columns = pa.RecordBatch.from_pydict({"u": ["", "", "a"], "i": [1, 2, 3], "t": [1, 2, 3]})
    assert column_events.read(columns, np.arange(1, 4), MEANING, None) is None
