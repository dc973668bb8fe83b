"""Users and items of any writer: the same values give the same rows, odd ones are counted."""

import json

import numpy as np
import pyarrow as pa
import pytest
from dataset_run import N_ITEMS, TEXTS, answer, facts, run, write_items

from sidmill.core.errors import SidmillError
from sidmill.io import id_lookup, plain_columns

N_USERS = 12
USERS = {
    "uid": list(range(N_USERS)),
    "split": ["train", "test"] * (N_USERS // 2),
    "hist_video_pid": [[u, u + 1, u + 2] for u in range(N_USERS)],
    "target_video_pid": [[u + 3, u + 4, u + 5] for u in range(N_USERS)],
    "target_video_longview": [[1, 0, u % 2] for u in range(N_USERS)],
} | {
    f"hist_video_{name}": [[1, u % 2, 0] for u in range(N_USERS)]
    for name in ("longview", "like", "follow", "forward", "not_interested")
}
CODES = {"train": 0, "test": 1}
VALUES = [1, 0, 1]


def as_type(values, kind):
    """The values as one writer types them."""
    if pa.types.is_dictionary(kind):
        return pa.array(values).cast(kind.value_type).dictionary_encode()
    if pa.types.is_run_end_encoded(kind):
        return pa.compute.run_end_encode(pa.array(values, kind.value_type))
    if pa.types.is_decimal(kind) or pa.types.is_boolean(kind):
        return pa.array(values).cast(kind)
    return pa.array(values, kind)


def users(**columns):
    made = {name: pa.array(values) for name, values in USERS.items()}
    return pa.table(made | columns)


SPLIT_TEXTS = [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(),
               pa.binary_view(), pa.dictionary(pa.int32(), pa.string()),
               pa.dictionary(pa.int32(), pa.large_string())]  # fmt: skip
SPLIT_NUMBERS = [pa.int8(), pa.uint8(), pa.int64(), pa.uint64(), pa.float32(), pa.float64(),
                 pa.bool_(), pa.decimal128(19, 0)]  # fmt: skip
UIDS = [pa.int8(), pa.int32(), pa.uint16(), pa.uint64(), pa.float64(), pa.decimal128(20, 0),
        pa.dictionary(pa.int32(), pa.int64())]  # fmt: skip
MARKS = [pa.int8(), pa.uint8(), pa.int32(), pa.bool_(), pa.float32(), pa.float64()]
LISTS = [pa.list_, pa.large_list, lambda kind: pa.list_(kind, 3)]
IDS = [pa.int32(), pa.uint32(), pa.uint64(), pa.float64()]


def cases():
    for kind in SPLIT_TEXTS:
        yield f"split {kind}", {"split": as_type(USERS["split"], kind)}
    for kind in SPLIT_NUMBERS:
        yield f"split {kind}", {"split": as_type([CODES[s] for s in USERS["split"]], kind)}
    yield "split digits", {"split": pa.array([str(CODES[s]) for s in USERS["split"]])}
    for kind in UIDS:
        yield f"uid {kind}", {"uid": as_type(USERS["uid"], kind)}
    for lists in LISTS:
        for kind in IDS:
            name = "target_video_pid"
            yield f"{lists(kind)} of ids", {name: pa.array(USERS[name], lists(kind))}
        for kind in MARKS:
            names = ("target_video_longview", "hist_video_like")
            made = {}
            for name in names:
                marks = pa.array(USERS[name], pa.list_(pa.int64())).cast(pa.list_(kind))
                made[name] = marks.cast(lists(kind))
            yield f"{lists(kind)} of marks", made


@pytest.mark.parametrize(("name", "columns"), list(cases()), ids=[name for name, _ in cases()])
def test_the_type_of_a_column_changes_no_row(tmp_path, name, columns):
    wanted = run(tmp_path / "a", "sft_label_pred", users())
    assert run(tmp_path / "b", "sft_label_pred", users(**columns)) == wanted
    assert len(wanted[0]) == 3 * N_USERS // 2


def test_pandas_writes_what_is_read(tmp_path):
    frame = users().to_pandas()
    plain_text = run(tmp_path / "a", "sft_video_rec", users())
    for number, kind in enumerate([None, "category", "string"]):
        changed = frame if kind is None else frame.assign(split=frame["split"].astype(kind))
        changed.to_parquet(tmp_path / f"{number}.parquet")
        table = pa.parquet.read_table(tmp_path / f"{number}.parquet")
        assert run(tmp_path / str(number), "sft_video_rec", table) == plain_text


def test_files_of_one_input_may_differ_in_width(tmp_path):
    wide = users().slice(0, 6), users().slice(6)
    narrow = users(
        uid=pa.array(USERS["uid"], pa.int32()),
        split=as_type(USERS["split"], pa.dictionary(pa.int32(), pa.string())),
        target_video_pid=pa.array(USERS["target_video_pid"], pa.large_list(pa.int16())),
    ).slice(6)
    empty = users(uid=pa.nulls(N_USERS)).slice(0, 0)
    wanted = run(tmp_path / "a", "sft_video_rec", *wide)
    assert run(tmp_path / "b", "sft_video_rec", wide[0], narrow) == wanted
    assert run(tmp_path / "c", "sft_video_rec", empty, wide[0], narrow) == wanted


def test_sequences_of_any_writer_are_read(tmp_path):
    columns = {"user_id": [f"u{u}" for u in range(6)], "item_ids": [[u, 3, 4, 5] for u in range(6)],
               "splits": [[0, 0, 0, 2]] * 6}  # fmt: skip
    wanted = run(tmp_path / "a", "sft_video_rec", pa.table(columns))
    wide = pa.large_string(), pa.large_list(pa.int32())
    narrow = pa.string_view(), pa.list_(pa.uint8(), 4)
    for number, (text, lists) in enumerate([wide, narrow]):
        kinds = [text, lists, lists]
        arrays = [
            pa.array(values, kind) for values, kind in zip(columns.values(), kinds, strict=True)
        ]
        table = pa.table(arrays, list(columns))
        assert run(tmp_path / str(number), "sft_video_rec", table) == wanted
    for splits in ([0, 0, 2], [0, 0, 0, 3]):
        table = pa.table(columns | {"splits": [splits] * 6})
        with pytest.raises(SidmillError, match="splits"):
            run(tmp_path / "c", "sft_video_rec", table)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("column", ["split", "uid", "target_video_pid"])
def test_a_column_that_one_file_lacks_stops_before_the_first_row(tmp_path, order, column):
    files = [users().slice(0, 6), users().slice(6).drop_columns(column)][::order]
    with pytest.raises(SidmillError, match=f"1 of 2 files have no column '{column}'"):
        run(tmp_path / "a", "sft_video_rec", *files)
    assert not (tmp_path / "a/rows.arrow").exists()
    if column == "split":  # the remedy: the same columns in all files
        mended = [table.select([n for n in table.column_names if n != "split"]) for table in files]
        assert len(run(tmp_path / "b", "sft_video_rec", *mended)[0]) == N_USERS


@pytest.mark.parametrize(
    ("column", "values"),
    [("uid", [f"u{u}" for u in range(N_USERS)]), ("split", [0, 1] * (N_USERS // 2)),
     ("target_video_pid", ["12"] * N_USERS)],
)  # fmt: skip
def test_a_column_of_another_kind_in_one_file_is_named(tmp_path, column, values):
    files = users().slice(0, 6), users(**{column: pa.array(values)}).slice(6)
    with pytest.raises(SidmillError, match=rf"input1\.parquet: column '{column}' is .*input0"):
        run(tmp_path / "a", "sft_video_rec", *files)


def test_rows_of_no_split_are_counted_apart(tmp_path):
    split = pa.array(["train", "test", None, "dev", "2", ""] * 2)
    made, whole = run(tmp_path / "a", "sft_video_rec", users(split=split))
    assert len(made) == 2
    assert whole["left_out"] == {"no_split": 8, "other_split": 2}


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("hist_video_pid", ["[1, 2]"] * N_USERS, "the task needs a list"),
        ("uid", [u + 0.5 for u in range(N_USERS)], "write ids as integers or as text"),
        ("uid", pa.array([2**63] * N_USERS, pa.uint64()), "write it as text"),
        ("hist_video_pid", [["a"]] * N_USERS, "items.id_type"),
        ("hist_video_pid", [[1.5]] * N_USERS, "write ids as integers or as text"),
    ],
)
def test_a_column_that_cannot_be_read_is_named(tmp_path, column, values, message):
    with pytest.raises(SidmillError, match=message) as error:
        run(tmp_path / "a", "sft_video_rec", users(**{column: pa.array(values)}))
    assert column in str(error.value)


# Masks and labels: only 1 and 0 say something.


def marks_of(value):
    marks = [[1, 0, 1] for _ in range(N_USERS)]
    marks[0] = [1, value, 0]
    return users(split=pa.array(["train"] * N_USERS), target_video_longview=pa.array(marks))


@pytest.mark.parametrize("value", [2, -1, 7, 0.5, None, float("nan"), 255])
def test_a_label_that_is_neither_yes_nor_no_gives_no_row(tmp_path, value):
    made, whole = run(tmp_path / "a", "sft_label_pred", marks_of(value))
    assert all(answer(row) in ("Yes", "No") for row in made)
    assert len(made) == 3 * N_USERS - 1
    assert whole["left_out"] == {"no_label": 1}
    is_null = value is None or value != value  # NaN
    assert whole["marks_of_other_value"] == (0 if is_null else 1)
    assert {type(facts(row)["label"]) for row in made} == {int}


@pytest.mark.parametrize("kind", [pa.int64(), pa.float64(), pa.bool_()])
def test_marks_beside_lists_of_another_length_mark_nothing(tmp_path, kind):
    rows = pa.array([[1, 0, 1]] * (N_USERS - 1) + [[1]])
    marks = rows.cast(pa.list_(kind))
    table = users(split=pa.array(["train"] * N_USERS), target_video_longview=marks)
    made, whole = run(tmp_path / "a", "sft_label_pred", table)
    assert len(made) == 3 * (N_USERS - 1)
    assert whole["masks_of_other_length"] == 1
    assert whole["left_out"] == {"no_label": 3}


def test_masks_of_text_are_named(tmp_path):
    with pytest.raises(SidmillError, match=r"hist_video_like.*write 0 and 1"):
        run(tmp_path / "a", "sft_label_pred", users(hist_video_like=pa.array([["x"] * 3] * 12)))


# Searches and what was chosen after them.

ENTRIES = [{"tea": [3, 6], "杯": [9]}, {}, {"cup": [1]}, None, {"tea": [2], "mug": [5, 4]}]


def searches(column):
    return pa.table({"uid": range(len(column)), "inter_user_profile_with_sid": ["p"] * len(column),
                     "inter_keyword_to_items": column})  # fmt: skip


def as_map(key, values):
    rows = [None if row is None else list(row.items()) for row in ENTRIES]
    return pa.array(rows, pa.map_(key, values))


FORMS = {
    "json": pa.array([None if row is None else json.dumps(row) for row in ENTRIES]),
    "json in large text": pa.array(["" if r is None else json.dumps(r) for r in ENTRIES],
                                   pa.large_string()),
    "json in bytes": pa.array([json.dumps(r or {}).encode() for r in ENTRIES]),
    "json with texts": pa.array([json.dumps({k: list(map(str, v)) for k, v in (r or {}).items()})
                                 for r in ENTRIES]),
    "json with floats": pa.array([json.dumps({k: list(map(float, v)) for k, v in (r or {}).items()})
                                  for r in ENTRIES]),
    "map": as_map(pa.string(), pa.list_(pa.int64())),
    "map of large ones": as_map(pa.large_string(), pa.large_list(pa.int32())),
    "struct": pa.array(ENTRIES, pa.struct([(key, pa.list_(pa.int64()))
                                           for key in ("tea", "杯", "cup", "mug")])),
}  # fmt: skip


@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize("texts", [False, True])
def test_the_form_of_a_mapping_changes_no_row(tmp_path, form, texts):
    pids = [str(pid) for pid in range(N_ITEMS)] if texts else range(N_ITEMS)
    items = write_items(tmp_path / "items.parquet", pids)
    made, whole = run(tmp_path / "a", "sft_interactive_rec", searches(FORMS[form]), items=items)
    found = {(facts(row)["uid"], facts(row)["keyword"]): answer(row) for row in made}
    wanted = {
        (user, word): "".join(TEXTS[pid] for pid in pids)
        for user, row in enumerate(ENTRIES)
        for word, pids in (row or {}).items()
    }
    assert found == wanted
    assert whole["left_out"] == {"nothing_listed": 2}


BAD = ["5", '"tea"', "true", "{}x", "[1.5]", "[[1]]", '[{"a": 1}]', f"[{2**64}]", f"[{-(2**64)}]",
       "[3, null]", "[true]", '["x"]', "[1e400]", "[NaN]"]  # fmt: skip


@pytest.mark.parametrize("value", BAD)
def test_a_bad_entry_is_left_out_alone(tmp_path, value):
    texts = ['{"good": [1]}', f'{{"good": [2], "bad": {value}}}', f'{{"bad": {value}}}']
    made, whole = run(tmp_path / "a", "sft_interactive_rec", searches(pa.array(texts)))
    broken = value == "{}x"  # no JSON, so the row is lost
    assert [facts(row)["uid"] for row in made].count(0) == 1
    assert len(made) == (1 if broken else 2)
    assert whole["left_out"] == ({"not_json": 2} if broken else {"bad_entry": 2})


def test_a_key_that_stands_twice_and_half_a_character_lose_nothing_else(tmp_path):
    texts = ['{"a": [1], "a": [2], "\\ud800": [3], "b": null, "c": []}', "[" * 5000]
    made, whole = run(tmp_path / "a", "sft_interactive_rec", searches(pa.array(texts)))
    assert sorted(answer(row) for row in made) == [TEXTS[1], TEXTS[2]]
    assert whole["left_out"] == {"bad_entry": 1, "no_target": 2, "not_json": 1}


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint64(), pa.float64(), pa.decimal128(19, 0),
                                  pa.dictionary(pa.int8(), pa.int64())])  # fmt: skip
def test_ids_of_any_width_are_found(kind):
    lookup = id_lookup.make(pa.array([4, 9, 7]))
    wanted = as_type([7, 8, 4], kind)
    assert id_lookup.find(lookup, wanted).tolist() == [2, id_lookup.ABSENT, 0]
    assert id_lookup.find(id_lookup.make(wanted), pa.array([4, 7])).tolist() == [2, 0]


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.binary(),
                                  pa.dictionary(pa.int8(), pa.string())])  # fmt: skip
def test_ids_of_any_text_are_found(kind):
    lookup = id_lookup.make(pa.array(["a", "b"]))
    assert id_lookup.find(lookup, as_type(["b", "c", "a"], kind)).tolist() == [
        1,
        id_lookup.ABSENT,
        0,
    ]
    assert id_lookup.find(lookup, pa.nulls(2)).tolist() == [id_lookup.ABSENT] * 2


@pytest.mark.parametrize("kind", [pa.list_, pa.large_list, pa.list_view, pa.large_list_view])
@pytest.mark.parametrize("values", [pa.int64(), pa.string_view(), pa.uint64(), pa.float32()])
def test_a_plain_column_holds_the_same_values(kind, values):
    rows = [[1, 2], None, [], [3]]
    if values == pa.string_view():
        rows = [["a", None], None, [], ["b"]]
    column = plain_columns.plain(pa.array(rows, kind(values)), "x")
    assert column.to_pylist() == rows
    assert column.type == plain_columns.kind_of(kind(values), "x")
    cut = plain_columns.plain(pa.chunked_array([pa.array(rows, kind(values)).slice(1)]), "x")
    assert cut.to_pylist() == rows[1:]
    assert plain_columns.plain(column, "x") is column


def test_a_null_among_ids_is_no_item():
    lookup = id_lookup.make(pa.array([-1, 0]))
    assert id_lookup.find(lookup, pa.array([None, -1, 0])).tolist() == [id_lookup.ABSENT, 0, 1]


def test_a_null_in_a_list_is_no_item(tmp_path):
    items = write_items(tmp_path / "items.parquet", [-1, *range(1, N_ITEMS)])
    histories = pa.array([[None, 3]] * N_USERS, pa.list_(pa.uint8()))
    made, whole = run(tmp_path / "a", "sft_video_rec", users(hist_video_pid=histories), items=items)
    assert whole["item_ids"]["history"] == {"seen": N_USERS, "unknown": N_USERS // 2}
    assert np.all([TEXTS[0] not in row["messages"] for row in made])
