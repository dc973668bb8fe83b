"""Every form of log gives the same histories; interactions are written, rejected or restated."""

import gzip
import json
import re
from collections import defaultdict

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidmill.core.errors import SidmillError
from sidmill.formats import item_text
from sidmill.interactions import histories, splits
from sidmill.interactions.histories import NOT_SAID, merge
from sidmill.interactions.read import read
from sidmill.io import buckets
from sidmill.settings.interactions import Interactions, InteractionsFields

REJECTING = {"on_unknown_items": "reject", "on_bad_rows": "reject"}
HISTORIES = {"1": [5, 3, 9, 3], "2": [7], "anna": [1, 2], "7": [9, 8, 7, 6, 5, 4]}
ITEMS = list(range(1, 11))


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def log(folder, name, data):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else lines(data))
    return path


def run(folder, path, items=ITEMS, **changes):
    folder.mkdir(exist_ok=True)
    kind = pa.int64() if isinstance(items[0], int) else pa.string()
    table = pa.table({"pid": pa.array(items, kind), "text": [f"item {item}" for item in items]})
    item_text.write(folder / "text.parquet", kind, [table])
    out = folder / "out"
    report = read(
        folder / "text.parquet",
        out / "sequences.parquet",
        out / "rejects.parquet",
        Interactions(path=str(path), **{"max_history": 1000, "memory_mb": 64, **changes}),
    )
    assert json.loads(json.dumps(report)) == report
    rows = pq.read_table(out / "sequences.parquet").to_pylist()
    rejects = pq.read_table(out / "rejects.parquet").to_pylist()
    counts = report["interactions_accounted_for"]
    assert counts["read"] == counts["written"] + counts["rejected"] + counts["restated"]
    assert counts["written"] == sum(len(row["item_ids"]) for row in rows)
    assert counts["rejected"] == sum(row["interactions"] for row in rejects)
    assert report["users"] == len(rows)
    assert not list(out.glob(".*"))
    return {row["user_id"]: row for row in rows}, rejects, report


def items_of(users):
    return {user: row["item_ids"] for user, row in users.items()}


def events(histories=None):
    return [
        {"user_id": user, "item_id": item, "timestamp": 100 + time}
        for user, items in (histories or HISTORIES).items()
        for time, item in enumerate(items)
    ]


def as_parquet(rows):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


def padded(items, width=8):
    return [0] * (width - len(items)) + items


def missrec(histories, width=8):
    """Leave-two-out as MISSRec has it: a train, a valid and a test row, windows of ``width``."""
    files = defaultdict(list)
    for user, items in histories.items():
        cuts = {"train": len(items) - 2, "valid": len(items) - 1, "test": len(items)}
        for split, end in cuts.items():
            if end > 0:
                row = padded(items[max(0, end - width) : end], width)
                files[split].append({"user_id": user, "user_sequence": row})
    return files


FORMS = {
    "a.jsonl": [{"user_id": user, "item_ids": items} for user, items in HISTORIES.items()],
    "text.json": json.dumps(
        [{"user_id": u, "item_ids": list(map(str, i))} for u, i in HISTORIES.items()]
    ).encode(),
    "integers.jsonl.gz": gzip.compress(
        lines(
            {"user_id": int(u) if u.isdigit() else u, "item_ids": items}
            for u, items in HISTORIES.items()
        ),
        mtime=0,
    ),
    "events.jsonl": events(),
    "backwards.jsonl": events()[::-1],
    "events.csv": ("user_id,item_id,timestamp\n" + "".join(
        f"{row['user_id']},{row['item_id']},{row['timestamp']}\n" for row in events()
    )).encode(),
    "events.parquet": as_parquet(events()),
    "onerec.parquet": as_parquet(
        [
            {"uid": u, "split": 0, "hist_video_pid": i[:-1], "target_video_pid": i[-1:]}
            for u, i in HISTORIES.items()
        ]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_histories(tmp_path, name):
    users, rejects, report = run(tmp_path, log(tmp_path, name, FORMS[name]))
    assert items_of(users) == HISTORIES
    assert not rejects
    assert users["1"]["splits"] == [0, 0, 1, 2]
    assert users["7"]["splits"] == [0, 0, 0, 0, 1, 2]
    assert users["2"]["splits"] == [0]
    assert users["anna"]["splits"] == [0, 0]
    timed = report["format"] == "events"
    assert users["1"]["timestamps"] == ([100, 101, 102, 103] if timed else None)


def test_missrec_rows_become_one_history_with_their_splits(tmp_path):
    histories = {**HISTORIES, "long": [1 + n * n % 10 for n in range(30)]}
    for split, rows in missrec(histories).items():
        log(tmp_path / "log", f"{split}/part-0.jsonl", rows[::2])
        log(tmp_path / "log", f"{split}/part-1.jsonl", rows[1::2])
    users, rejects, report = run(tmp_path, tmp_path / "log", split="given")
    assert report["format"] == "missrec"
    assert not rejects
    assert items_of(users) == HISTORIES | {"long": users["long"]["item_ids"]}
    # of the long one no row holds the beginning
    assert users["long"]["item_ids"] == histories["long"][20:]
    assert users["long"]["splits"] == [0] * 8 + [1, 2]
    assert users["1"]["splits"] == [0, 0, 1, 2]
    assert users["anna"]["splits"] == [1, 2]
    assert not any(report["leakage"][name] for name in report["leakage"] if "also_in" not in name)


@pytest.mark.parametrize(
    ("pieces", "items", "said", "misfits"),
    [
        # prefixes of one history, as augmented training rows are
        ([([1], [0], True), ([1, 2], [0, 0], True)], [1, 2], [0, 0], []),
        # windows that do not reach the beginning
        ([([3, 4, 5], [0, 0, 0], False), ([4, 5, 6], [-1, -1, 2], False)], [3, 4, 5, 6],
         [0, 0, 0, 2], []),
        # the train row knows the target: it stays a training one
        ([([1, 2], [0, 0], True), ([1, 2], [-1, 2], True)], [1, 2], [0, 0], []),
        # two beginnings that differ
        ([([1, 2], [0, 0], True), ([3, 4, 5], [-1, -1, 2], True)], [1, 2], [0, 0], [1]),
        # a window that overlaps nowhere
        ([([1, 2], [0, 0], False), ([3, 4], [-1, 2], False)], [1, 2], [0, 0], [1]),
        # history that no row has as a target
        ([([1, 2, 3], [-1, -1, 2], True)], [1, 2, 3], [-1, -1, 2], []),
    ],
)  # fmt: skip
def test_overlapping_rows_are_laid_over_each_other(pieces, items, said, misfits):
    merged = merge(pieces)
    assert (merged.items, merged.splits, merged.misfits) == (items, said, misfits)


@given(st.lists(st.integers(1, 4), min_size=3, max_size=25), st.integers(3, 9), st.randoms())
@settings(deadline=None)
def test_prefix_rows_give_the_history_back_whatever_their_order(history, width, random):
    rows = [(history[:end], [0] * (end - 1) + [0], True) for end in range(1, len(history) - 1)]
    rows += [(history[:-1], [NOT_SAID] * (len(history) - 2) + [1], True)]
    rows += [(history, [NOT_SAID] * (len(history) - 1) + [2], True)]
    random.shuffle(rows)
    merged = merge(rows)
    assert merged.items == history
    assert merged.splits == [0] * (len(history) - 2) + [1, 2]
    assert not merged.misfits


def test_train_rows_that_know_a_target_are_reported(tmp_path):
    log(tmp_path / "log", "train/a.jsonl", [{"user_id": 1, "user_sequence": [0, 1, 2, 3]}])
    log(tmp_path / "log", "test/a.jsonl", [{"user_id": 1, "user_sequence": [0, 1, 2, 3]}])
    users, _, report = run(tmp_path, tmp_path / "log", split="given")
    assert users["1"]["splits"] == [0, 0, 0]
    assert report["leakage"]["held_out_also_train_target"] == 1


def test_onerec_splits_and_other_columns(tmp_path):
    rows = [
        {"uid": 4, "split": 0, "hist_ad_pid": [1, 2], "target_ad_pid": [3]},
        {"uid": 4, "split": 1, "hist_ad_pid": [1, 2, 3], "target_ad_pid": [4, 5]},
        {"uid": 5, "split": 1, "hist_ad_pid": [9], "target_ad_pid": [8]},
    ]
    fields = InteractionsFields(history="hist_ad_pid", target="target_ad_pid")
    path = log(tmp_path, "a.parquet", as_parquet(rows))
    users, _, report = run(tmp_path, path, split="given", fields=fields)
    assert report["format"] == "onerec"
    assert items_of(users) == {"4": [1, 2, 3, 4, 5], "5": [9, 8]}
    assert users["4"]["splits"] == [0, 0, 0, 2, 2]
    assert users["5"]["splits"] == [2, 2]
    assert report["history_only"] == {"interactions": 1, "users": 1}
    asked = {"split": "given", "fields": fields, "history_only": "train"}
    users, _, report = run(tmp_path / "train", path, **asked)
    assert users["5"]["splits"] == [0, 2]
    assert report["history_only"] == {"interactions": 1, "users": 1}


def test_given_splits_are_kept_and_leakage_is_counted(tmp_path):
    rows = [
        {"user_id": "a", "item_ids": [1, 2, 3], "splits": ["train", "valid", "test"]},
        {"user_id": "b", "item_ids": [4, 4, 5], "splits": [2, 0, 0], "timestamps": [1, 1, 2]},
    ]
    users, _, report = run(tmp_path, log(tmp_path, "a.jsonl", rows), split="given")
    assert users["a"]["splits"] == [0, 1, 2]
    assert users["b"]["splits"] == [2, 0, 0]
    leaks = report["leakage"]
    assert leaks["held_out_before_train"] == leaks["users_with_held_out_before_train"] == 1
    assert leaks["test_also_in_train_of_user"] == 1
    assert leaks["same_user_item_time"] == 1
    assert report["cold"]["test"] == {
        "items": 2,
        "items_unseen_in_train": 1,
        "items_unseen_share": 0.5,
        "interactions_unseen_share": 0.5,
    }
    assert report["items"] == {"in_catalogue": 10, "never_seen": 5, "never_in_train": 7}


def test_split_by_time_holds_out_the_latest_of_all_users(tmp_path):
    rows = [
        {"user_id": user, "item_id": 1 + (user + time) % 10, "timestamp": time}
        for time in range(20)
        for user in range(5)
    ]
    users, _, report = run(tmp_path, log(tmp_path, "a.jsonl", rows), split="time")
    for row in users.values():
        assert row["splits"] == [0] * 16 + [1] * 2 + [2] * 2
    assert report["splits"]["test"]["first_and_last_timestamp"] == [18, 19]


def test_what_is_refused_moves_no_cut_in_time(tmp_path):
    kept = [{"user_id": user, "item_ids": [1] * 20, "timestamps": [*range(20)]} for user in "abcde"]
    again = [{"user_id": "a", "item_ids": [2] * 20, "timestamps": [90] * 20}] * 3
    path = log(tmp_path, "sequences.jsonl", kept + again)
    clean = run(tmp_path / "clean", log(tmp_path, "clean.jsonl", kept), split="time")[0]
    assert run(tmp_path / "again", path, split="time", **REJECTING)[0] == clean
    robot = [{"user_id": "robot", "item_id": 3, "timestamp": 50 + time} for time in range(100)]
    rows = [
        {"user_id": user, "item_id": 1, "timestamp": time} for user in "abcde" for time in range(20)
    ]
    path = log(tmp_path, "events.jsonl", rows + robot)
    found = run(tmp_path / "robot", path, split="time", max_history=50, **REJECTING)[0]
    assert found == clean
    assert clean["a"]["splits"] == [0] * 16 + [1] * 2 + [2] * 2


@given(
    st.lists(st.integers(-(2**62), 2**62) | st.integers(0, 50), min_size=1, max_size=200),
    st.floats(0, 0.4),
    st.floats(0.01, 0.4),
)
@example([2**62, -(2**62)], 0.0, 0.25)
@settings(deadline=None)
def test_cuts_are_order_statistics(values, valid, test):
    blocks = [pa.array(values[start : start + 7]).to_numpy() for start in range(0, len(values), 7)]
    cuts = splits.find_cuts(lambda: blocks, valid, test)
    ranked = sorted(values)
    last = len(values) - 1
    assert cuts.test == ranked[min(int(len(values) * (1 - test)), last)]
    assert cuts.valid == ranked[min(int(len(values) * (1 - test - valid)), last)]


def test_files_shards_and_memory_change_no_byte(tmp_path, monkeypatch):
    rows = [
        {"user_id": f"u{n % 97}", "item_id": 1 + n * 7 % 10, "timestamp": n * 31 % 400}
        for n in range(3000)
    ]
    whole = log(tmp_path, "whole.jsonl", rows)
    first, _, report = run(tmp_path / "a", whole)
    for shard in range(5):
        log(tmp_path / "shards", f"s{shard}.jsonl", rows[shard::5][::-1])
    second, _, _ = run(tmp_path / "b", tmp_path / "shards")
    # a budget of a few kB: several runs, many tables
    monkeypatch.setattr(buckets, "BYTES_PER_MB", 2000)
    monkeypatch.setattr("sidmill.interactions.validate.BLOCK_ITEMS", 50)
    third, _, small = run(tmp_path / "c", whole)
    assert list(first) == list(second) == list(third)
    written = [(tmp_path / name / "out/sequences.parquet").read_bytes() for name in "abc"]
    assert written[0] == written[1] == written[2]
    assert small == report
    expected = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row["timestamp"], row["item_id"])):
        expected[row["user_id"]].append(row["item_id"])
    assert items_of(first) == expected


BAD = {
    "padding as an item": ({"user_id": "x", "item_ids": [1, 0, 2]}, "item id 0: 0 is padding", 3),
    "negative id": ({"user_id": "x", "item_ids": [1, -4]}, "item id -4: negative", 2),
    "empty history": ({"user_id": "x", "item_ids": []}, "empty history", 0),
    "no history": ({"user_id": "x"}, "'item_ids' is missing", 0),
    "history as text": ({"user_id": "x", "item_ids": "1,2"}, "'item_ids' is a str", 0),
    "float item": ({"user_id": "x", "item_ids": [1, 2.5]}, "item 2.5 is a float", 2),
    "boolean item": ({"user_id": "x", "item_ids": [True]}, "item True is a bool", 1),
    "null item": ({"user_id": "x", "item_ids": [None, 1]}, "item None is a NoneType", 2),
    "item that is no integer": ({"user_id": "x", "item_ids": ["B1"]}, "item 'B1' is no integer", 1),
    "huge item": ({"user_id": "x", "item_ids": [2**70]}, "does not fit in 64 bits", 1),
    "no user": ({"item_ids": [1]}, "no user in field 'user_id'", 0),
    "white space for a user": ({"user_id": " ", "item_ids": [1]}, "no user in field", 0),
    "list for a user": ({"user_id": [1], "item_ids": [1]}, r"user \[1\] is a list", 0),
    "half a character": ({"user_id": "\ud800", "item_ids": [1]}, "half a character", 0),
    "too many timestamps": (
        {"user_id": "x", "item_ids": [1, 2], "timestamps": [1]},
        "2 items, but timestamps: 1",
        2,
    ),
    "out of order": (
        {"user_id": "x", "item_ids": [1, 2], "timestamps": [5, 4]},
        "timestamps out of order: 4 after 5",
        2,
    ),
    "half a second": (
        {"user_id": "x", "item_ids": [1], "timestamps": [1.5]},
        "timestamp 1.5 is not a whole number",
        1,
    ),
    "over-long": ({"user_id": "x", "item_ids": [1] * 1001}, "1001 interactions, more than", 1001),
    "unknown split": (
        {"user_id": "x", "item_ids": [1], "splits": ["tset"]},
        "split 'tset': wanted train, valid, test",
        0,
    ),
    "user again": ({"user_id": "1", "item_ids": [4]}, "the user has an earlier row", 1),
    "not JSON": (b'{"user_id": \n', "not JSON", 0),
    "not UTF-8": (b'{"user_id": "caf\xe9"}\n', "not UTF-8", 0),
    "a list": (b"[1]\n", "a JSON list", 0),
}
ROWS = FORMS["a.jsonl"]


def bad_log(folder, row):
    row = row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n"
    return log(folder, "bad.jsonl", lines(ROWS[:2]) + row + lines(ROWS[2:]))


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_stops_naming_file_and_line_and_leaves_nothing(tmp_path, name):
    row, reason, _ = BAD[name]
    with pytest.raises(SidmillError, match=rf"bad\.jsonl, row 3: .*{reason}"):
        run(tmp_path, bad_log(tmp_path, row))
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_listed_when_rejects_are_wanted(tmp_path, name):
    row, reason, size = BAD[name]
    users, rejects, report = run(tmp_path, bad_log(tmp_path, row), **REJECTING)
    assert items_of(users) == HISTORIES
    assert (report["rows"]["read"], report["rows"]["rejected"]) == (5, 1)
    (reject,) = rejects
    assert (reject["row"], reject["interactions"], reject["position"]) == (3, size, None)
    assert re.search(reason, reject["reason"])


@pytest.mark.parametrize("items", [ITEMS, [n * 10**12 for n in ITEMS], [f"B{n}" for n in ITEMS]])
def test_unknown_items_go_one_by_one(tmp_path, items):
    lost = type(items[0])(10**14) if isinstance(items[0], int) else "B99"
    rows = [
        {"user_id": "a", "item_ids": [items[0], lost, items[1], lost], "timestamps": [1, 2, 3, 4]},
        {"user_id": "b", "item_ids": [lost], "splits": [0]},
        {"user_id": "c", "item_ids": [items[2]]},
    ]
    path = log(tmp_path, "a.jsonl", rows)
    with pytest.raises(SidmillError, match=r"a\.jsonl, row 1: user 'a' has item .* not in the cat"):
        run(tmp_path, path, items)
    users, rejects, report = run(tmp_path, path, items, on_unknown_items="reject")
    assert items_of(users) == {"a": items[:2], "c": [items[2]]}
    assert users["a"]["timestamps"] == [1, 3]
    assert users["c"]["timestamps"] is None
    assert [(row["row"], row["position"], row["item_id"]) for row in rejects] == [
        (1, 1, str(lost)),
        (1, 3, str(lost)),
        (2, 0, str(lost)),
    ]
    assert report["interactions_accounted_for"]["rejected_as_unknown_items"] == 3


def test_a_target_that_is_unknown_makes_no_other_item_a_target(tmp_path):
    log(tmp_path / "log", "train/a.jsonl", [{"user_id": 1, "user_sequence": [0, 1, 2]}])
    log(tmp_path / "log", "test/a.jsonl", [{"user_id": 1, "user_sequence": [0, 1, 2, 99]}])
    users, _, _ = run(tmp_path, tmp_path / "log", split="given", on_unknown_items="reject")
    assert users["1"]["item_ids"] == [1, 2]
    assert users["1"]["splits"] == [0, 0]


def test_a_user_too_long_only_when_put_together_goes_whole(tmp_path):
    rows = events({"robot": [1] * 20, "2": [7]})
    users, rejects, report = run(
        tmp_path, log(tmp_path, "a.jsonl", rows), max_history=10, on_bad_rows="reject"
    )
    assert items_of(users) == {"2": [7]}
    assert [(row["user_id"], row["interactions"]) for row in rejects] == [("robot", 20)]
    assert report["rows"]["rejected"] == 20


def test_missrec_rows_that_fit_nowhere_are_bad_rows(tmp_path):
    log(tmp_path / "log", "train/a.jsonl", [{"user_id": 1, "user_sequence": [0, 1, 2]}])
    log(tmp_path / "log", "test/a.jsonl", [{"user_id": 1, "user_sequence": [0, 8, 9, 7]}])
    with pytest.raises(SidmillError, match=r"test/a\.jsonl, row 1: user '1': does not continue"):
        run(tmp_path, tmp_path / "log", split="given")
    users, rejects, _ = run(tmp_path, tmp_path / "log", split="given", on_bad_rows="reject")
    assert items_of(users) == {"1": [1, 2]}
    assert rejects[0]["interactions"] == 3


ROW = st.one_of(
    st.fixed_dictionaries(
        {},
        optional={
            "user_id": st.sampled_from(["a", "b", 3, None, " "]),
            "item_ids": st.lists(st.integers(-1, 12) | st.just("4") | st.none(), max_size=4),
            "timestamps": st.none() | st.lists(st.integers(0, 3), max_size=4),
            "splits": st.none() | st.lists(st.sampled_from([0, 1, "test"]), max_size=4),
        },
    ),
    st.integers(),
)


@given(st.lists(ROW, max_size=20), st.sampled_from(["leave_last_out", "leave_two_out"]))
@settings(max_examples=50, deadline=None)
def test_nothing_vanishes(tmp_path_factory, rows, split):
    """run() holds read = written + rejected + restated against the files for any log."""
    folder = tmp_path_factory.mktemp("log")
    path = log(folder, "a.jsonl", [{"user_id": "first", "item_ids": [1]}, *rows])
    users, rejects, report = run(folder, path, split=split, **REJECTING)
    assert users["first"]["item_ids"] == [1]
    assert report["rows"]["read"] == len(rows) + 1
    whole = [reject for reject in rejects if reject["position"] is None]
    assert report["rows"]["rejected"] == len(whole)
    said = sum(len(row["item_ids"]) for row in rows if isinstance(row, dict) and "item_ids" in row)
    assert report["interactions_accounted_for"]["read"] <= said + 1


@pytest.mark.parametrize(
    ("name", "data", "changes", "message"),
    [
        ("a.jsonl", b"", {}, "the file is empty"),
        ("a.jsonl.gz", gzip.compress(lines(ROWS), mtime=0)[:-12], {}, "cannot be read to its end"),
        ("a.jsonl", [{"who": 1}], {}, "which tell none of the forms"),
        ("a.jsonl", [{"user_id": 1, "item_ids": []}], REJECTING, "none of 0 interactions"),
        ("a.jsonl", ROWS, {"split": "given"}, "no splits, which interactions.split: given"),
        ("a.jsonl", ROWS, {"split": "time"}, "no timestamps, which interactions.split: time"),
        ("a.jsonl", [{"user_id": 1, "user_sequence": [1]}], {}, "no folder train, valid or test"),
        (
            "test/a.jsonl",
            [{"user_id": 1, "user_sequence": [1]}],
            {"split": "time"},
            "missrec has not",
        ),
        ("a.txt", ROWS, {}, "unknown kind of file"),
    ],
)
def test_a_log_that_cannot_be_used_says_why_and_leaves_nothing(
    tmp_path, name, data, changes, message
):
    with pytest.raises(SidmillError, match=message):
        run(tmp_path, log(tmp_path, name, data), **changes)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_catalogue_with_item_0_is_refused(tmp_path):
    with pytest.raises(SidmillError, match=r"item id 0: .*number the catalogue from 1"):
        run(tmp_path, log(tmp_path, "a.jsonl", ROWS), items=[0, *ITEMS])


def test_the_real_log(tmp_path, real_data):
    ids = [
        json.loads(line)["item_id"]
        for line in (real_data / "amazon-industrial/items.jsonl").open(encoding="utf-8")
    ]
    path = real_data / "amazon-industrial/interactions.jsonl"
    users, rejects, report = run(tmp_path, path, ids, split="given")
    assert not rejects
    assert report["splits"]["valid"]["interactions"] == 4532
    assert report["splits"]["test"]["interactions"] == 4533
    assert report["interactions"] == 22743
    for line in path.open():
        row = json.loads(line)
        assert users[str(row["user_id"])]["item_ids"] == row["item_ids"]


def rows_of_events():
    return [
        {
            **{"user_id": f"u{row % 997}", "item_id": row % 10 + 1, "timestamp": row * 7919 % 5000},
            "split": ("train", "valid", "test")[row % 3],
        }
        for row in range(20_000)
    ]


def rows_of_sequences():
    """Users of two rows, and users with too many interactions, among others."""
    return [
        {"user_id": f"u{row % 900}", "item_ids": [row % 10 + 1] * (3 if row % 7 else 40)}
        for row in range(1000)
    ]


def rows_of_inter():
    """Rows that continue each other; some fit nowhere, some make a history that is too long."""
    rows = []
    for user in range(600):
        length = 42 if user % 3 == 0 else 8
        chain = [step**3 // 7 % 10 + 1 for step in range(user, user + length)]
        windows = [chain[end - 6 : end] for end in range(6, length + 1)]
        windows += [[9, 9, 9]] * (user % 5 == 0)
        rows += [
            {"user_id": f"u{user}", "item_id_list": past, "item_id": item, "split": "train"}
            for *past, item in windows
        ]
    return rows


@pytest.mark.parametrize(
    ("rows", "split"),
    [
        (rows_of_events, "leave_two_out"),
        (rows_of_events, "time"),
        (rows_of_events, "given"),
        (rows_of_sequences, "leave_last_out"),
        (rows_of_inter, "given"),
    ],
)
def test_memory_changes_no_byte(tmp_path, monkeypatch, rows, split):
    monkeypatch.setattr("sidmill.interactions.validate.BLOCK_ITEMS", 500)
    monkeypatch.setattr("sidmill.io.buckets.BYTES_PER_MB", 1 << 13)
    unknown = {"user_id": "u1", "item_id": 99, "timestamp": 1, "split": "train"}
    path = log(tmp_path, "a.jsonl", rows() + [unknown] * (rows is rows_of_events))
    blocks, group = [], histories.group
    monkeypatch.setattr(histories, "group", lambda *given: blocks.append(1) or group(*given))
    asked = {**REJECTING, "split": split, "max_history": 35}
    made, n_blocks = [], []
    for memory_mb in (16, 48, 1024):
        blocks.clear()
        _, rejects, report = run(tmp_path / "run", path, memory_mb=memory_mb, **asked)
        files = sorted((tmp_path / "run/out").iterdir())
        made.append([report, *(file.read_bytes() for file in files)])
        n_blocks.append(len(blocks))
    assert rejects
    assert made[0] == made[1] == made[2]
    assert n_blocks[0] > n_blocks[2]
