"""Overlapping rows of one user give the history back, in any order and in linear time."""

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from log_files import put, read_log

from sidmill.interactions.histories import (
    NOT_SAID,
    carried,
    held_out,
    merge,
)
from sidmill.interactions.rows import parser
from sidmill.settings.interactions import InteractionsFields


def windows(history, width, stride):
    """Windows of one width over a history, the last at its end."""
    starts = [*range(0, max(len(history) - width, 0), stride), max(len(history) - width, 0)]
    return [history[start : start + width] for start in starts]


@given(
    st.permutations(range(1, 31)),
    st.integers(4, 30),
    st.integers(2, 9),
    st.data(),
)
@settings(max_examples=150, deadline=None)
def test_windows_in_any_order_give_the_history_back(items, length, width, data):
    stride = data.draw(st.integers(1, width - 1))
    history = list(items[:length])
    rows = windows(history, width, stride)
    shuffled = data.draw(st.permutations(rows))
    merged = merge([(row, [0] * len(row), False) for row in shuffled])
    assert not merged.misfits
    assert merged.items == history
    assert merged.splits == [0] * length


@given(st.lists(st.integers(1, 3), min_size=4, max_size=30), st.integers(3, 8))
@settings(max_examples=150, deadline=None)
def test_windows_in_order_give_a_history_of_few_items_back(history, width):
    """Where an item comes again and again, rows that stand in order still say everything."""
    rows = windows(history, width, 1)
    merged = merge([(row, [0] * len(row), False) for row in rows])
    assert not merged.misfits
    joined = "".join(map(str, merged.items))
    assert all("".join(map(str, row)) in joined for row in rows)
    if len(history) <= width:
        assert merged.items == history


@pytest.mark.parametrize("order", ["as they are", "reversed", "shuffled"])
@pytest.mark.parametrize("stride", [1, 7])
@pytest.mark.parametrize("distinct", [True, False])
def test_the_time_does_not_grow_with_the_square_of_the_windows(order, stride, distinct):
    """Seconds for 4,000 windows of 50 items, where comparing each with the history took 12."""
    history = [place if distinct else place % 7 for place in range(4000 * stride + 49)]
    rows = windows(history, 50, stride)
    if order == "reversed":
        rows = rows[::-1]
    if order == "shuffled":
        random.Random(0).shuffle(rows)
    begin = time.process_time()
    merged = merge([(row, [0] * 50, False) for row in rows])
    assert time.process_time() - begin < 2.5
    if distinct:
        assert merged.items == history


def test_missrec_rows_may_come_in_any_order(tmp_path):
    history = list(range(1, 13))
    train, valid, test = history[:-2], history[:-1], history
    rows = windows(train, 4, 1)
    for name, order in (("ordered", rows), ("reversed", rows[::-1])):
        folder = tmp_path / name
        put(folder, "log/train/a.jsonl", [{"user_id": 1, "user_sequence": row} for row in order])
        put(folder, "log/valid/a.jsonl", [{"user_id": 1, "user_sequence": valid[-4:]}])
        put(folder, "log/test/a.jsonl", [{"user_id": 1, "user_sequence": test[-4:]}])
        users, rejects, _ = read_log(
            folder, folder / "log", items=range(1, 20), split="given", on_bad_rows="error"
        )
        assert not rejects
        assert users["1"]["item_ids"] == history
        assert users["1"]["splits"] == [0] * 10 + [1, 2]


# --- what only validation and test rows show


SHARDS = st.tuples(st.integers(0, 6), st.integers(0, 4), st.integers(0, 4))


@given(st.lists(SHARDS.filter(any), min_size=1, max_size=6), st.integers(3, 20))
@settings(max_examples=40, deadline=None)
def test_training_gets_what_training_rows_show_and_nothing_else(tmp_path_factory, users, width):
    """A user's valid and test rows add any number of items: none of them is trained on."""
    folder = tmp_path_factory.mktemp("shards")
    files = {"train": [], "valid": [], "test": []}
    trained, only_shown = {}, 0
    for user, (n_train, n_valid, n_test) in enumerate(users):
        history = list(range(1, 1 + n_train + n_valid + n_test))
        ends = {"train": n_train, "valid": n_train + n_valid, "test": len(history)}
        for (split, end), added in zip(ends.items(), (n_train, n_valid, n_test), strict=True):
            if added:
                row = history[:end]
                padded = [0] * (width - len(row)) + row if len(row) < width else row
                files[split].append({"user_id": user, "user_sequence": padded})
        trained[str(user)] = history[:n_train]
        only_shown += max(n_valid - 1, 0) + max(n_test - 1, 0)
    for split, rows in files.items():
        if rows:
            put(folder, f"log/{split}/a.jsonl", rows)
    found, _, report = read_log(folder, folder / "log", items=range(1, 30), split="given")
    for name, row in found.items():
        kept = zip(row["item_ids"], row["splits"], strict=True)
        assert [item for item, split in kept if split == 0] == trained[name]
    assert report["history_only"]["interactions"] == only_shown
    assert report["leakage"]["held_out_before_train"] == 0


@pytest.mark.parametrize("setting", ["hold_out", "train"])
def test_the_setting_says_what_becomes_of_them(tmp_path, setting, caplog):
    for split, row in (("train", [0, 1, 2]), ("test", [1, 2, 3, 4])):
        put(tmp_path, f"log/{split}/a.jsonl", [{"user_id": 1, "user_sequence": row}])
    users, _, report = read_log(tmp_path, tmp_path / "log", split="given", history_only=setting)
    assert users["1"]["splits"] == [0, 0, 2 if setting == "hold_out" else 0, 2]
    assert report["history_only"] == {"interactions": 1, "users": 1}
    assert f"interactions.history_only: {setting}" in caplog.text


def test_a_test_row_without_a_known_target_trains_nothing(tmp_path):
    rows = [
        {"uid": 1, "split": 0, "hist_video_pid": [1], "target_video_pid": [2]},
        {"uid": 1, "split": 1, "hist_video_pid": [1, 2, 3], "target_video_pid": [99]},
        {"uid": 2, "split": 1, "hist_video_pid": [4, 5], "target_video_pid": []},
    ]
    path = put(tmp_path, "a.jsonl", rows)
    users, _, _ = read_log(tmp_path, path, split="given", on_unknown_items="reject")
    assert users["1"]["item_ids"], users["1"]["splits"] == ([1, 2, 3], [0, 0, 2])
    assert users["2"]["splits"] == [2, 2]


@pytest.mark.parametrize("form", ["onerec", "inter"])
@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_a_file_name_says_the_split_of_rows_with_targets(form, split):
    number = ("train", "valid", "test").index(split)
    usual = {"onerec": ("uid", "hist_video_pid", "target_video_pid")}
    user, past, target = usual.get(form, ("user_id", "item_id_list", "item_id"))
    piece = parser(form, InteractionsFields())({user: "a", past: [1, 2], target: 3}, number)
    assert piece.items == [1, 2, 3]
    assert piece.splits == [NOT_SAID - number] * 2 + [number]


def test_what_is_said_is_kept_by_both_settings():
    import numpy as np

    offsets = np.array([0, 4])
    splits = np.array([-1, 0, -1, 2], dtype=np.int8)
    shown = np.array([0, 0, 1, 2], dtype=np.int8)
    assert carried(offsets, splits).tolist() == [0, 0, 0, 2]
    assert held_out(offsets, splits, shown).tolist() == [0, 0, 1, 2]
