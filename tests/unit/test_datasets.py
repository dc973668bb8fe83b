"""Datasets: the text of the plain loop, the same bytes for any shards, nothing lost."""

import json
import uuid
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT

from sidmill.core.errors import SidmillError
from sidmill.datasets import (
    counts,
    inputs,
    item_lookup,
    resolve,
    tasks,
    write,
)
from sidmill.formats import (
    code_files,
    dataset_rows,
    sequence_table,
    sid_text,
)
from sidmill.io import buckets
from sidmill.settings.datasets import Datasets

RESOURCES = ROOT / "workflow/resources"
TASKS = sorted(path.stem for path in (RESOURCES / "tasks").glob("*.yaml"))
RESPONSES = ("longview", "like", "follow", "forward", "not_interested")
N_ITEMS, N_USERS = 300, 700
ANY_SHARE = Datasets(max_unknown_share=1, max_left_out_share=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A OneRec metadata parquet with every column, unknown ids and empty histories among them."""
    # Items, with SIDs drawn at random.
    folder, random = tmp_path_factory.mktemp("data"), np.random.default_rng(1)
    pids = pa.chunked_array([pa.array(np.arange(N_ITEMS) * 3)])
    sids = random.integers(0, 9, (N_ITEMS, 3)).astype(np.int32)
    code_files.write(folder / "pid2sid.parquet", "sid", pids, [sids], [9, 9, 9])

    def lists(low, high):
        sizes = random.integers(low, high, N_USERS)
        return [(random.integers(0, N_ITEMS + 2, size) * 3).tolist() for size in sizes]

    # Users: histories, targets, texts, and a mask for each kind of response.
    history, target = lists(0, 30), lists(0, 14)
    profile, words = 'likes "tea"\n\\ 茶 \x01', json.dumps({"tea": [3, 6], "杯": [9]})
    columns = {
        "uid": list(range(N_USERS)),
        "split": random.integers(0, 2, N_USERS).tolist(),
        "hist_video_pid": history,
        "target_video_pid": target,
        "hist_longview_video_list": lists(0, 9),
        "hist_ad_pid": lists(0, 9),
        "target_ad_pid": lists(0, 9),
        "hist_goods_pid": lists(0, 9),
        "target_goods_pid": lists(0, 9),
        "inter_user_profile_with_sid": [profile if u % 3 else None for u in range(N_USERS)],
        "inter_keyword_to_items": [words if u % 2 else None for u in range(N_USERS)],
        "reco_gsu_caption": ["seen"] * N_USERS,
        "reco_target_caption": ["chosen"] * N_USERS,
        "reco_cot": ["because"] * N_USERS,
    }  # fmt: skip
    for response in RESPONSES:
        for side, ids in (("hist", history), ("target", target)):
            masks = [random.integers(0, 2, len(some)).tolist() for some in ids]
            columns[f"{side}_video_{response}"] = masks
    pq.write_table(pa.table(columns), folder / "users.parquet", row_group_size=100)

    # Texts of the items.
    text = {"pid": pids, "text": [f"Item {n}\nof use {n % 7}" for n in range(N_ITEMS)]}
    pq.write_table(pa.table(text), folder / "text.parquet")
    return folder


def make(data, folder, task, *, paths=None, split="train", texts=None, **changes):
    """Make a dataset in shards; ``changes`` are settings. Its folder, and the counts of shards."""
    settings = Datasets(**{"rows_per_file": 64} | changes)
    dataset, seed = tasks.Dataset(task, split, RESOURCES), 5
    declared = tasks.load(dataset.task_path)
    name = "users.parquet" if declared.reads == "users" else "text.parquet"
    paths = [str(path) for path in paths or [data / name]]
    pid2sid = data / "pid2sid.parquet"
    items = item_lookup.ItemFiles(pid2sid, pid2sid, [str(texts or data / "text.parquet")])
    shards = [inputs.Shard(number, settings.shards) for number in range(settings.shards)]
    folder.mkdir(parents=True)

    # Both passes; each shard of the second reads all of the first.
    rows = [str(folder / f"rows{shard.number}.arrow") for shard in shards]
    jsons = [str(folder / f"rows{shard.number}.json") for shard in shards]
    for path, figures, shard in zip(rows, jsons, shards, strict=True):
        resolve.resolve(path, figures, dataset, paths, items, settings, shard, seed)
    parts = [str(folder / f"parts{shard.number}") for shard in shards]
    for part, shard in zip(parts, shards, strict=True):
        resolved = write.Resolved(rows, jsons)
        write.write_parts(part, resolved, dataset, items, settings, shard, seed)
    write.gather(parts, folder / task)
    return folder / task, jsons


def bounds(unknown, left_out):
    return Datasets(max_unknown_share=unknown, max_left_out_share=left_out)


def table(folder):
    return pa.concat_tables(dataset_rows.read(folder))


def test_each_row_of_pretraining_is_that_of_a_plain_loop(data, tmp_path):
    made = table(make(data, tmp_path / "a", "pretrain_video_rec")[0])
    items = code_files.read(data / "pid2sid.parquet", "sid")
    sids = dict(zip(items.ids.to_pylist(), sid_text.render(items.codes).to_pylist(), strict=True))
    wanted = {}
    for user in pq.read_table(data / "users.parquet").to_pylist():
        history = "".join(sids.get(pid, "") for pid in user["hist_video_pid"][-512:])
        target = "".join(sids.get(pid, "") for pid in user["target_video_pid"][:10])
        if user["split"] == 0 and history and target:
            wanted[user["uid"]] = json.dumps([{"type": "text", "text": history + target}])
    found = {json.loads(row["metadata"])["uid"]: row["segments"] for row in made.to_pylist()}
    assert found == wanted
    assert list(found) != sorted(found)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_task_makes_rows_that_parse(data, tmp_path, task, language):
    made = table(make(data, tmp_path / "a", task, language=language)[0])
    assert made.num_rows
    column = dataset_rows.text_column(made)
    for row in made.to_pylist():
        parts = json.loads(row[column])
        texts = [parts[0]["text"]] if column == "segments" else [
            turn["content"][0]["text"] for turn in parts
        ]  # fmt: skip
        assert all(texts)
        assert "{" not in "".join(texts)
        assert uuid.UUID(row["uuid"]).version == 5
        assert json.loads(row["metadata"])
        if column == "messages":
            assert [turn["role"] for turn in parts][-2:] == ["user", "assistant"]


@pytest.mark.parametrize("task", ["sft_video_rec", "sft_label_pred", "sft_sid_to_title"])
def test_another_number_of_shards_makes_the_same_bytes(data, tmp_path, task):
    folders = [make(data, tmp_path / str(n), task, shards=n)[0] for n in (1, 2, 3)]
    files = [{p.name: p.read_bytes() for p in folder.iterdir()} for folder in folders]
    assert files[0] == files[1] == files[2]
    assert len(files[0]) > 1


def test_every_input_row_is_counted(data, tmp_path):
    made, jsons = make(data, tmp_path / "a", "sft_video_rec")
    whole = counts.total(jsons, "x", ANY_SHARE)
    assert whole["read"] == N_USERS
    assert whole["written"] == table(made).num_rows
    assert whole["read"] == whole["written"] + sum(whole["left_out"].values())
    assert whole["item_ids"]["history"]["unknown"] > 0
    with pytest.raises(SidmillError, match="have no SID"):
        counts.total(jsons, "x", bounds(0.001, 1))
    with pytest.raises(SidmillError, match="were left out"):
        counts.total(jsons, "x", bounds(1, 0))


def test_rows_of_broken_json_and_of_nothing_are_counted(data, tmp_path):
    users = pq.read_table(data / "users.parquet")
    good = json.dumps({"tea": [3, 6], "cup": [9]})
    words = pa.array(([good, '{"tea": [3, ', "[1]", "{}", None] * N_USERS)[:N_USERS])
    place = users.schema.get_field_index("inter_keyword_to_items")
    users = users.set_column(place, "inter_keyword_to_items", words)
    pq.write_table(users.set_column(1, "split", pa.array([0] * N_USERS)), tmp_path / "u.parquet")
    options = {"paths": [tmp_path / "u.parquet"]}
    _, jsons = make(data, tmp_path / "a", "sft_interactive_rec", **options)
    whole = counts.total(jsons, "x", ANY_SHARE)
    assert whole["left_out"]["not_json"] == 2 * N_USERS // 5
    assert whole["left_out"]["nothing_listed"] == 2 * N_USERS // 5
    assert whole["added"] == N_USERS // 5
    left_out = sum(whole["left_out"].values())
    assert whole["read"] + whole["added"] == whole["written"] + left_out
    with pytest.raises(SidmillError, match="were left out"):
        counts.total(jsons, "x", bounds(1, 0.5))


@pytest.mark.parametrize(("split", "code"), [("train", 0), ("test", 1)])
def test_onerec_metadata_has_two_splits(data, tmp_path, split, code):
    users = pq.read_table(data / "users.parquet")
    _, jsons = make(data, tmp_path / split, "pretrain_video_rec", split=split)
    whole = counts.total(jsons, "x", ANY_SHARE)
    others = users["split"].to_pylist().count(1 - code)
    assert whole["left_out"]["other_split"] == others


def test_the_chat_form_is_what_datasets_reads(data, tmp_path):
    import datasets

    folder, _ = make(data, tmp_path / "a", "sft_video_rec", form="chat")
    loaded = datasets.load_dataset("parquet", data_dir=str(folder), cache_dir=str(tmp_path / "c"))
    row = loaded["train"][0]
    assert [turn["role"] for turn in row["messages"]] == ["system", "user", "assistant"]
    assert sid_text.find(row["messages"][2]["content"], 3).sids


@pytest.mark.parametrize("windows", ["user", "item"])
def test_splits_of_sequences_keep_to_time(data, tmp_path, windows):
    # Forty users of ten items: six of training, two of validation, two of test.
    items = [[3 * n for n in range(u, u + 10)] for u in range(40)]
    rows = {
        "user_id": [f"u{u}" for u in range(40)],
        "item_ids": items,
        "splits": [[0] * 6 + [1] * 2 + [2] * 2] * 40,
        "timestamps": [None] * 40,
    }
    path = tmp_path / "sequences.parquet"
    sequence_table.write(
        path, pa.int64(), [pa.table(rows, schema=sequence_table.schema(pa.int64()))]
    )

    # History and target of each row, by split.
    sizes = Counter()
    for split in ("train", "valid", "test"):
        options = {"paths": [path], "split": split, "windows": windows}
        made = table(make(data, tmp_path / split, "sft_video_rec", **options)[0])
        sizes[split] = made.num_rows
        for row in made.to_pylist():
            turns = json.loads(row["messages"])
            asked, given = (sid_text.find(turns[n]["content"][0]["text"], 3).sids for n in (1, 2))
            seen = {"train": range(1, 6), "valid": (6, 7), "test": (8, 9)}[split]
            if windows == "item":
                assert len(given) == 1
                assert len(asked) in seen
            else:
                wanted = {"train": (3, 3), "valid": (6, 2), "test": (8, 2)}[split]
                assert (len(asked), len(given)) == wanted

    # Rows per user.
    per_user = {"user": (1, 1, 1), "item": (5, 2, 2)}[windows]
    assert tuple(sizes[s] // 40 for s in ("train", "valid", "test")) == per_user


def test_items_without_a_title_are_counted_and_left_out(data, tmp_path):
    # Every third item loses its title.
    texts = pq.read_table(data / "text.parquet").to_pydict()
    blank = {pid for place, pid in enumerate(texts["pid"]) if place % 3 == 0}
    texts["text"] = [
        " \nnothing" if pid in blank else text
        for pid, text in zip(texts["pid"], texts["text"], strict=True)
    ]
    pq.write_table(pa.table(texts), tmp_path / "text.parquet")

    # Lists of titles lack these items, and the count is that of the input.
    options = {"texts": tmp_path / "text.parquet"}
    made, jsons = make(data, tmp_path / "a", "sft_titles_to_sid", **options)
    whole = counts.total(jsons, "x", ANY_SHARE)
    histories, wanted = pq.read_table(data / "users.parquet").to_pylist(), 0
    for user in histories:
        if user["split"] == 0:
            wanted += sum(pid in blank for pid in user["hist_video_pid"][-20:])
    assert whole["item_ids"]["titles"]["without_title"] == wanted > 0
    for row in table(made).to_pylist():
        asked = json.loads(row["messages"])[-2]["content"][0]["text"]
        assert "; ;" not in asked
        assert "Item" in asked
    with pytest.raises(SidmillError, match="have no text"):
        counts.total(jsons, "x", bounds(1, 0.1))


@pytest.mark.parametrize("task", ["sft_video_rec", "sft_label_pred"])
def test_the_memory_for_rows_changes_no_byte(data, tmp_path, task, monkeypatch):
    folders, batches = [make(data, tmp_path / "a", task)[0]], []
    monkeypatch.setattr(resolve, "BUCKET_ROWS", 30)
    for number, size in enumerate((1 << 20, 100)):  # bytes of a MiB
        monkeypatch.setattr(buckets, "BYTES_PER_MB", size)
        folder, (path,) = make(data, tmp_path / f"b{number}", task)
        folders.append(folder)
        batches.append([bucket for bucket, _, _ in json.loads(Path(path).read_text())["batches"]])
    assert batches[0] == list(range(32))  # gathered from all blocks
    assert len(batches[1]) > 100
    files = [{p.name: p.read_bytes() for p in folder.iterdir()} for folder in folders]
    assert files[0] == files[1] == files[2]
