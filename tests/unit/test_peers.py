"""The files of other recommenders, read back in the few lines with which those read them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from log_files import put, read_log

from sidmill.core.errors import SidmillError
from sidmill.formats import (
    item_index,
    item_text,
    sequence_table,
    vector_store,
)
from sidmill.interactions import peers

N_ITEMS, DIM = 30, 4
KINDS = {
    "integers": list(range(11, 11 + N_ITEMS)),
    "integers with gaps": [1 + 7 * place for place in range(N_ITEMS)],
    "texts": [f"B{place:03d}é" for place in range(N_ITEMS)],
    "digits": [str(place) for place in range(N_ITEMS)],
}
LENGTHS = (1, 2, 3, 4, 9, 60, 160)


@pytest.fixture(params=KINDS)
def made(request, tmp_path):
    """A catalogue, its vectors, and histories of several lengths with the last two held out."""
    ids = KINDS[request.param]
    kind = pa.int64() if isinstance(ids[0], int) else pa.string()
    lines = [f"title {place}\nabout {place}\nmore" for place in range(N_ITEMS)]
    table = pa.table({"pid": pa.array(ids, kind), "text": lines})
    item_text.write(tmp_path / "text.parquet", kind, [table])
    values = np.random.default_rng(0).standard_normal((N_ITEMS, DIM)).astype(np.float32)
    np.save(tmp_path / "vectors.npy", values)
    write_ids(tmp_path, pa.array(ids, kind))
    rng = np.random.default_rng(1)
    histories = {
        str(100 + user): [ids[place] for place in rng.integers(0, N_ITEMS, length)]
        for user, length in enumerate(LENGTHS)
    }
    splits = [
        [0] * (len(items) - 2) + [1, 2] if len(items) > 2 else [0] * len(items)
        for items in histories.values()
    ]
    columns = [list(histories), list(histories.values()), splits, [None] * len(histories)]
    path = tmp_path / "sequences.parquet"
    sequence_table.write(path, kind, [pa.table(columns, schema=sequence_table.schema(kind))])
    return tmp_path, ids, values, histories


def write_ids(folder, ids):
    vector_store.write_ids(folder / "ids.parquet", pa.chunked_array([ids]), (N_ITEMS, DIM), {})


def three(folder, pattern):
    return [str(folder / pattern.format(split)) for split in ("train", "valid", "test")]


def read_inter(path):
    """As recommenders of this family read it: pandas, tabs, a typed header."""
    frame = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    assert list(frame.columns) == ["user_id:token", "item_id_list:token_seq", "item_id:token"]
    return [(user, before.split(" "), item) for user, before, item in frame.itertuples(index=False)]


def targets_of(histories):
    """User, the 50 items before, item, and split of every item that something goes before."""
    for user, items in histories.items():
        for place in range(1, len(items)):
            held_out = place - len(items) + 2 if len(items) > 2 else -1
            yield user, items[max(0, place - 50) : place], items[place], max(held_out + 1, 0)


def test_lcrec(made):
    folder, ids, _, histories = made
    counts = peers.write_lcrec(
        folder / "sequences.parquet", folder / "text.parquet",
        folder / "X.inter.json", folder / "X.item.json",
    )  # fmt: skip
    inter = json.loads((folder / "X.inter.json").read_text(encoding="utf-8"))
    assert inter == {user: items for user, items in histories.items() if len(items) > 2}
    assert counts == {"users": 5, "left_out": 2, "other_splits": 0}
    items = json.loads((folder / "X.item.json").read_text(encoding="utf-8"))
    assert list(items) == [str(item) for item in ids]
    assert items[str(ids[3])] == {"title": "title 3", "description": "about 3 more"}
    # And our own reader takes it, as of LC-Rec.
    users, _, report = read_log(folder / "back", folder / "X.inter.json", items=ids)
    assert {user: row["item_ids"] for user, row in users.items()} == inter
    assert report["format"] == "sequences"


def test_inter_files_have_a_row_per_target(made):
    folder, _, _, histories = made
    paths = three(folder, "X.{}.inter")
    counts = peers.write_inter(folder / "sequences.parquet", paths)
    wanted = list(targets_of(histories))
    for split, path in enumerate(paths):
        rows = [
            (user, [str(item) for item in before], str(item))
            for user, before, item, of in wanted
            if of == split
        ]
        assert read_inter(path) == rows
    assert sum(counts.values()) == sum(map(len, histories.values()))


def test_missrec_finds_the_vector_of_each_item_by_its_token(made):
    folder, ids, values, histories = made
    paths = three(folder, "X.{}.inter")
    peers.write_missrec(
        folder / "sequences.parquet", folder / "vectors.npy", folder / "ids.parquet",
        paths, folder / "X.feat1CLS", folder / "item_index.parquet",
    )  # fmt: skip
    features = np.fromfile(folder / "X.feat1CLS", dtype=np.float32).reshape(-1, DIM)
    assert not features[0].any()
    place = {item: number for number, item in enumerate(ids)}
    rows = [row for path in paths for row in read_inter(path)]
    wanted = sorted(targets_of(histories), key=lambda row: row[3])
    for (user, before, item), (name, history, target, _) in zip(rows, wanted, strict=True):
        assert user == name
        np.testing.assert_array_equal(features[int(item)], values[place[target]])
        np.testing.assert_array_equal(
            features[[int(token) for token in before]], values[[place[item] for item in history]]
        )
    pids, numbers = item_index.read(folder / "item_index.parquet")
    assert dict(zip(pids.to_pylist(), numbers.tolist(), strict=True)) == {
        item: number + 1 for item, number in place.items()
    }


def test_user_sequences_are_padded_and_lose_no_item(made):
    folder, ids, _, histories = made
    paths = three(folder, "{}/part-00000.jsonl")
    peers.write_user_sequences(folder / "sequences.parquet", folder / "text.parquet", paths)
    numbers = {item: item if isinstance(item, int) else place for place, item in enumerate(ids, 1)}
    for split, path in enumerate(paths):
        rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
        assert {len(row["user_sequence"]) for row in rows} == {50}
        for user, items in histories.items():
            own = [[x for x in row["user_sequence"] if x] for row in rows if row["user_id"] == user]
            items = [numbers[item] for item in items]
            held_out = 2 if len(items) > 2 else 0
            if split:
                wanted = [items[: len(items) - 2 + split][-50:]] if held_out else []
                assert own == wanted
                continue
            train = items[: len(items) - held_out]
            joined = own[0]
            for row in own[1:]:
                assert row[0] == joined[-1]
                joined = joined + row[1:]
            assert joined == train


def test_onerec_metadata_has_the_columns_and_rows_that_its_scripts_take(made):
    folder, ids, _, histories = made
    counts = peers.write_onerec(folder / "sequences.parquet", folder / "metadata.parquet")
    frame = pd.read_parquet(folder / "metadata.parquet")
    assert list(frame.columns) == ["uid", "split", "hist_video_pid", "target_video_pid"]
    assert frame["uid"].dtype == np.int64
    for row in frame.itertuples(index=False):
        items = histories[str(row.uid)]
        train = items[:-2] if len(items) > 2 else items
        past, targets = row.hist_video_pid.tolist(), row.target_video_pid.tolist()
        if row.split == 0:
            assert past + targets == train
            assert len(targets) == min(len(train) // 2, 10)
        else:
            assert (past, targets) == (items[:-1], items[-1:])
    assert counts == {"train": 5, "test": 5, "left_out": 1}
    assert isinstance(
        frame["hist_video_pid"].iloc[-1][0].item()
        if isinstance(ids[0], int)
        else frame["hist_video_pid"].iloc[-1][0],
        type(ids[0]),
    )
    # And our own reader takes it.
    users, _, _ = read_log(folder / "back", folder / "metadata.parquet", items=ids, split="given")
    for user, row in users.items():
        assert row["item_ids"] == histories[user]


def test_users_that_are_no_integers_stay_texts(tmp_path):
    kind = pa.int64()
    table = pa.table(
        [["7", "anna"], [[1, 2, 3]] * 2, [[0, 1, 2]] * 2, [None] * 2],
        schema=sequence_table.schema(kind),
    )
    sequence_table.write(tmp_path / "s.parquet", kind, [table])
    peers.write_onerec(tmp_path / "s.parquet", tmp_path / "m.parquet")
    assert pd.read_parquet(tmp_path / "m.parquet")["uid"].tolist() == ["7", "anna"]


def test_ids_with_blanks_are_refused_and_nothing_is_left(tmp_path):
    kind = pa.string()
    table = pa.table([["a"], [["x y", "z"]], [[0, 0]], [None]], schema=sequence_table.schema(kind))
    sequence_table.write(tmp_path / "s.parquet", kind, [table])
    with pytest.raises(SidmillError, match="'x y' holds a blank"):
        peers.write_inter(tmp_path / "s.parquet", three(tmp_path, "X.{}.inter"))
    assert [path.name for path in tmp_path.iterdir()] == ["s.parquet"]


def test_our_reader_takes_inter_files_with_their_splits(tmp_path):
    header = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
    for split, (before, item) in {
        "train": ("1 2", 3), "valid": ("1 2 3", 4), "test": ("1 2 3 4", 5)
    }.items():  # fmt: skip
        put(tmp_path, f"log/X.{split}.inter", f"{header}u 1\t{before}\t{item}\n")
    users, _, report = read_log(tmp_path, tmp_path / "log", split="given")
    assert report["format"] == "inter"
    assert users["u 1"]["item_ids"] == [1, 2, 3, 4, 5]
    assert users["u 1"]["splits"] == [0, 0, 0, 1, 2]
