"""Timestamps are read as they are written, each by itself, and equal ones keep the log's order."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_files import REJECTING, put, read_log

from sidmill.core.errors import SidmillError
from sidmill.formats.log_rows import Moment
from sidmill.interactions import times
from sidmill.interactions.times import DATE, NUMBER, Clock
from sidmill.settings.interactions import InteractionsFields

PLAIN = Clock(None, "us", "error")
DATES = Clock(None, "us", "error", DATE)
INT64 = st.integers(-(2**63), 2**63 - 1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


# --- one value


@given(INT64)
def test_a_whole_number_is_exact_however_it_is_written(number):
    written = [number, str(number), f" {number} ", f"{number}.0", f"{number}.000", f"{number}e0"]
    written += [Decimal(number), Decimal(f"{number}.0")]
    if number >= 0:
        written.append(f"+{number}")
    for value in written:
        assert times.read(value, PLAIN) == number


@given(st.floats(-(2.0**62), 2.0**62))
def test_a_float_is_read_where_it_is_whole(number):
    if number.is_integer():
        assert times.read(number, PLAIN) == int(number)
        assert times.read(repr(number), PLAIN) == int(Decimal(repr(number)))
        return
    for value in (number, repr(number)):
        with pytest.raises(ValueError, match="not a whole number"):
            times.read(value, PLAIN)
        whole = times.read(value, PLAIN._replace(fractions="floor"))
        assert whole == np.floor(number)
        scaled = int((Decimal(repr(number)) * 10**6).to_integral_value("ROUND_FLOOR"))
        millionths = PLAIN._replace(fractions="millionths")
        if -(2**63) <= scaled < 2**63:
            assert times.read(value, millionths) == scaled
        else:
            with pytest.raises(ValueError, match="too large"):
                times.read(value, millionths)


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, [], {}, b"5", "", " ", "x", "1_000", "0x10", "1e999999999", "1" * 5000),
        *(float("nan"), float("inf"), 2**63, -(2**63) - 1, str(2**63), 1e300, Decimal("NaN")),
        *("2018-02-30", "2018-13-01", "2018-07-07 25:00:00", "07/08/2018", "٣", "12:30"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_no_time_is_refused_with_a_short_reason(value):
    for clock in (PLAIN, DATES):
        with pytest.raises(ValueError, match="timestamp") as error:
            times.read(value, clock)
        assert len(str(error.value)) < 150


MOMENT = datetime(2018, 7, 7, 22, 9, 11, tzinfo=UTC)
WRITTEN = {
    "2018-07-07 22:09:11": MOMENT,
    "2018-07-07T22:09:11": MOMENT,
    "2018-07-07T22:09:11Z": MOMENT,
    "2018/07/07 22:09:11": MOMENT,
    "20180707T220911Z": MOMENT,
    "2018-07-07 22:09:11 UTC": MOMENT,
    "2018-07-08T00:09:11+02:00": MOMENT,
    "2018-07-07 15:09:11-0700": MOMENT,
    "2018-07-07T22:09:11+00": MOMENT,
    "2018-07-07 22:09": MOMENT.replace(second=0),
    "2018-07-07": MOMENT.replace(hour=0, minute=0, second=0),
    "2018-07-07T22:09:11.5": MOMENT + timedelta(milliseconds=500),
    "2018-07-07T22:09:11,123456789Z": MOMENT + timedelta(microseconds=123456),
    "Sat Jul 07 15:09:11 -0700 2018": MOMENT,
    "1969-12-31T23:59:59.5Z": EPOCH - timedelta(milliseconds=500),
}


@pytest.mark.parametrize("text", WRITTEN)
def test_dates_are_read_as_iso_8601_says(text):
    wanted = WRITTEN[text]
    assert times.read(text, DATES) == (wanted - EPOCH) // timedelta(microseconds=1)
    assert times.read(text, DATES._replace(unit="s")) == (wanted - EPOCH) // timedelta(seconds=1)
    if "," in text:
        assert times.read(text, DATES._replace(unit="ns")) % 1000 == 789


@given(st.datetimes(timezones=st.just(UTC)), st.sampled_from("T "), st.integers(-14, 14))
def test_every_date_that_python_writes_is_read(moment, between, zone):
    micros = (moment - EPOCH) // timedelta(microseconds=1)
    assert times.read(moment.isoformat(between), DATES) == micros
    assert times.read(Moment(micros * 1000), DATES) == micros
    assert times.read(moment, DATES) == micros
    shifted = moment.replace(tzinfo=None).isoformat(between) + f"{zone:+03d}:00"
    assert times.read(shifted, DATES) == micros - zone * 3600 * 10**6


# --- a log: an odd row changes nothing for the others

ODD = [None, "yesterday", 1.5, "1.5", True, [3], "", "2018-07-07", 2**70, {"t": 1}, float("nan")]
BIG = 1_577_836_800_000_000_001  # nanoseconds, above 2^53


def events_of(values, bad=()):
    rows = [
        {"user_id": f"u{place}", "item_id": 1, "timestamp": value}
        for place, value in enumerate(values)
    ]
    for place, value in bad:
        rows.insert(min(place, len(rows)), {"user_id": "odd", "item_id": 1, "timestamp": value})
    return rows


NUMBERS = INT64.flatmap(lambda n: st.sampled_from([n, str(n), f"{n}.0"]))


@given(
    st.lists(NUMBERS, min_size=3, max_size=20),
    st.lists(st.tuples(st.integers(0, 20), st.sampled_from(ODD)), max_size=1),
)
@settings(max_examples=40, deadline=None)
def test_one_odd_row_goes_alone(tmp_path_factory, values, bad):
    folder = tmp_path_factory.mktemp("log")
    path = put(folder, "a.jsonl", events_of(values, bad))
    users, rejects, _ = read_log(folder, path, **REJECTING)
    assert [users[f"u{place}"]["timestamps"] for place in range(len(values))] == [
        [int(str(value).removesuffix(".0"))] for value in values
    ]
    assert len(rejects) == len(bad)
    assert len(users) == len(values)


FAULTS = {
    "item 0": {"item_id": 0},
    "item that is null": {"item_id": None},
    "item that is a list": {"item_id": [1]},
    "item unknown": {"item_id": 999},
    "no user": {"user_id": None},
    "time": {"timestamp": "soon"},
    "split": {"split": "tset"},
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv"])
@pytest.mark.parametrize("place", [0, 500, 1000])
def test_of_1000_good_rows_and_a_bad_one_1000_are_read(tmp_path, fault, kind, place):
    rows = [
        {"user_id": f"u{n % 50}", "item_id": 1 + n % 10, "timestamp": BIG + n, "split": 0}
        for n in range(1000)
    ]
    rows.insert(place, rows[0] | {"user_id": "odd"} | FAULTS[fault])
    frame = pd.DataFrame(rows, dtype=object)
    path = tmp_path / f"log.{kind}"
    if kind in ("csv", "tsv"):
        frame.to_csv(path, sep="," if kind == "csv" else "\t", index=False)
    else:
        frame.to_json(path, orient="records", lines=kind == "jsonl")
    users, rejects, report = read_log(tmp_path, path, split="given", **REJECTING)
    assert report["interactions"] == 1000
    assert len(rejects) == 1
    assert {row["user_id"] for row in users.values()} == {f"u{n}" for n in range(50)}
    assert users["u7"]["timestamps"] == [BIG + n for n in range(7, 1000, 50)]


def test_numbers_and_dates_are_not_mixed(tmp_path):
    mixed = [5, 6, 7, "2018-07-07"]
    path = put(tmp_path, "a.jsonl", events_of(mixed))
    with pytest.raises(
        SidmillError, match=r"row 4: .*is one of dates, those of the log are numbers"
    ):
        read_log(tmp_path, path)
    users, rejects, _ = read_log(tmp_path, path, **REJECTING)
    assert (len(users), len(rejects)) == (3, 1)
    table = pa.table({"user_id": ["p"], "item_id": [2], "timestamp": pa.array([MOMENT])})
    put(tmp_path, "log/a.jsonl", events_of([5, 6]))
    pq.write_table(table, tmp_path / "log/b.parquet")
    users, rejects, _ = read_log(tmp_path, tmp_path / "log", **REJECTING)
    assert [reject["file"][-9:] for reject in rejects] == ["b.parquet"]


WRITERS = {
    "pandas ns": lambda: pa.array(pd.Series([pd.Timestamp(MOMENT)])),
    "seconds": lambda: pa.array([MOMENT], pa.timestamp("s")),
    "milliseconds, zone": lambda: pa.array([MOMENT], pa.timestamp("ms", "Europe/Berlin")),
    "microseconds": lambda: pa.array([MOMENT], pa.timestamp("us")),
    "nanoseconds": lambda: pa.array([MOMENT], pa.timestamp("ns")),
    "text": lambda: pa.array(["2018-07-07 22:09:11"]),
    "dictionary": lambda: pa.array(["2018-07-07 22:09:11"]).dictionary_encode(),
    "large text": lambda: pa.array(["2018-07-07T22:09:11Z"], pa.large_string()),
    "view": lambda: pa.array(["2018-07-07T22:09:11Z"], pa.string_view()),
    "day": lambda: pa.array([date(2018, 7, 7)]),
    "day in milliseconds": lambda: pa.array([date(2018, 7, 7)], pa.date64()),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("form", ["events", "sequences"])
def test_times_of_parquet(tmp_path, name, form):
    values = WRITERS[name]()
    wanted = MOMENT.replace(hour=0, minute=0, second=0) if "day" in name else MOMENT
    columns = {"user_id": ["a"], "item_id": [1], "timestamp": values}
    if form == "sequences":
        values = values.cast(values.type.value_type) if name == "dictionary" else values
        lists = pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), values)
        columns = {"user_id": ["a"], "item_ids": [[1]], "timestamps": lists}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    users, _, _ = read_log(tmp_path, tmp_path / "a.parquet", time_unit="ms")
    assert users["a"]["timestamps"] == [int(wanted.timestamp() * 1000)]


@pytest.mark.parametrize(
    ("values", "message", "setting", "wanted"),
    [
        (
            ["11/15/2019 9:55:12 AM", "11/15/2019 1:00:00 PM"],
            "set interactions.time_format",
            {"time_format": "%m/%d/%Y %I:%M:%S %p", "time_unit": "s"},
            [1573811712, 1573822800],
        ),
        (
            ["1593878903.438", "1593878904.5"],
            "set interactions.time_fractions: millionths",
            {"time_fractions": "millionths"},
            [1593878903438000, 1593878904500000],
        ),
        (
            ["1593878903.438", "1593878904"],
            "or floor",
            {"time_fractions": "floor"},
            [1593878903, 1593878904],
        ),
    ],
)
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_column_of_another_kind_is_one_message_whose_remedy_works(
    tmp_path, values, message, setting, wanted, kind
):
    rows = events_of(values)
    path = put(tmp_path, "a.jsonl", rows)
    if kind == "csv":
        path = tmp_path / "a.csv"
        pd.DataFrame(rows).to_csv(path, index=False)
    with pytest.raises(SidmillError, match=message) as error:
        read_log(tmp_path, path)
    if ".438" in values[0] and "904.5" not in values[1]:
        assert "row 1" in str(error.value) or "row 2" in str(error.value)
    else:
        assert "all of the first 2 rows, so look at the column 'timestamp'" in str(error.value)
    users, _, _ = read_log(tmp_path, path, **setting)
    assert [users[f"u{place}"]["timestamps"][0] for place in range(2)] == wanted


def test_digits_that_are_a_date_are_read_by_the_format(tmp_path):
    path = put(tmp_path, "a.jsonl", events_of([20200705, "20200706"]))
    users, _, _ = read_log(tmp_path, path, time_format="%Y%m%d", time_unit="s")
    assert users["u1"]["timestamps"][0] - users["u0"]["timestamps"][0] == 86400
    with pytest.raises(SidmillError, match=r"interactions\.time_format: '%Q'"):
        read_log(tmp_path, path, time_format="%Q")


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_log_without_times_points_to_sequences_and_they_are_read(tmp_path, kind):
    rows = [{"user_id": "a", "item_id": item} for item in (3, 1, 2)]
    path = put(tmp_path, "a.jsonl", rows)
    if kind == "csv":
        path = tmp_path / "a.csv"
        pd.DataFrame(rows).to_csv(path, index=False)
    for changes in ({}, REJECTING):
        with pytest.raises(SidmillError, match="no timestamp in field 'timestamp'") as error:
            read_log(tmp_path, path, **changes)
        assert len(str(error.value)) < 800
    with pytest.raises(SidmillError, match=r"it has user_id, item_id\).*the form sequences"):
        read_log(tmp_path, path)
    path = put(tmp_path, "s.jsonl", [{"user_id": "a", "item_ids": [3, 1, 2]}])
    assert read_log(tmp_path, path)[0]["a"]["item_ids"] == [3, 1, 2]


# --- equal times


def test_equal_times_stand_as_in_the_log_and_are_counted(tmp_path, caplog):
    rows = [{"user_id": "a", "item_id": item, "timestamp": 1447000200} for item in (5, 2, 6, 1)] + [
        {"user_id": "b", "item_id": item, "timestamp": item} for item in (1, 2, 3)
    ]
    users, _, report = read_log(tmp_path, put(tmp_path, "a.jsonl", rows), split="leave_last_out")
    assert users["a"]["item_ids"] == [5, 2, 6, 1]
    assert users["a"]["splits"] == [0, 0, 0, 2]
    assert report["ties"] == {"users": 1, "interactions": 4, "held_out_by_order": 1}
    assert "that order chose 1 held-out interactions" in caplog.text


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 10), st.integers(0, 3), st.integers(0, 2)),
        min_size=1,
        max_size=40,
    ),
    st.sampled_from(["given", "leave_last_out", "leave_two_out"]),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_order_is_by_time_then_split_then_place_in_the_log(tmp_path_factory, rows, split, cut):
    folder = tmp_path_factory.mktemp("log")
    fields = ("user_id", "item_id", "timestamp", "split")
    objects = [dict(zip(fields, row, strict=True)) for row in rows]
    middle = len(rows) // 2 if cut else len(rows)
    put(folder, "log/a.jsonl", objects[:middle] or objects)
    if cut and middle:
        put(folder, "log/b.jsonl", objects[middle:])
    users, _, report = read_log(folder, folder / "log", split=split)
    tied = held_out = 0
    for name, row in users.items():
        own = [event for event in rows if str(event[0]) == name]
        key = (lambda event: (event[2], event[3])) if split == "given" else (lambda e: e[2])
        ordered = sorted(own, key=key)  # stable
        assert row["item_ids"] == [event[1] for event in ordered]
        if split == "given":
            assert row["splits"] == [event[3] for event in ordered]
        for place, time in enumerate(row["timestamps"]):
            same = [other for other, value in enumerate(row["timestamps"]) if value == time]
            tied += len(same) > 1
            across = len({row["splits"][other] for other in same}) > 1
            held_out += split != "given" and across and row["splits"][place] > 0
    assert report["ties"]["interactions"] == tied
    assert report["ties"]["held_out_by_order"] == held_out


def test_a_tie_does_not_put_a_test_item_before_a_valid_one(tmp_path):
    rows = [(3, 1, "train"), (6, 11, "valid"), (2, 11, "test")]
    events = [
        {"user_id": "u", "item_id": item, "timestamp": time, "split": split}
        for item, time, split in rows
    ]
    for order in (events, events[::-1]):
        users, _, report = read_log(tmp_path, put(tmp_path, "a.jsonl", order), split="given")
        assert users["u"]["item_ids"] == [3, 6, 2]
        assert users["u"]["splits"] == [0, 1, 2]
        assert not report["leakage"]["test_before_valid"]


def test_the_kind_is_that_of_most_values():
    assert times.settle(PLAIN, [1, 2, "2018-07-07", None, "x"]).kind == NUMBER
    assert times.settle(PLAIN, [1, "2018-07-07", "2018-07-08"]).kind == DATE
    assert times.settle(PLAIN, []).kind == NUMBER
    assert InteractionsFields().time is None
