"""What a recommender leaves: vectors that score as it does, lists, and an honest table."""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from recommend_data import catalogue, chains, fit, write

from sidmill.core.errors import SidmillError
from sidmill.formats import code_files, id_vectors
from sidmill.io import id_lookup
from sidmill.recommend import (
    baselines,
    checkpoint,
    evaluate,
    infer,
    rank,
    score,
    table,
    topk,
    windows,
)
from sidmill.report import recommender_plot
from sidmill.settings import base
from sidmill.settings.recommend import RecommenderEvaluation, RecommenderTopk

EVALUATION = RecommenderEvaluation(n_resamples=50, device="cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A trained recommender, its folder, its items and its histories."""
    folder = tmp_path_factory.mktemp("recommender")
    items = catalogue(ids=[f"item {i:02d}" for i in range(24)])
    rows = [[f"item {i - 1:02d}" for i in row] for row in chains()]
    path = write(folder / "sequences.parquet", rows, pid_type=pa.string())
    fitted, _ = fit(path, items, max_epochs=6, n_interests=3)
    checkpoint.save(folder / "model.safetensors", fitted)
    return folder, items, path


@pytest.fixture
def inferred(run, tmp_path, monkeypatch):
    folder, items, path = run
    monkeypatch.setattr(id_vectors, "ROWS_PER_FILE", 25)
    names = [str(tmp_path / f"{n}") for n in ("items.parquet", "users.parquet", "embeddings.json")]
    files = infer.Files(tmp_path, *names)
    (tmp_path / "all_user_embedding_7.npy").touch()  # of an earlier, larger run
    infer.infer(path, items, folder / "model.safetensors", files, "cpu")
    return files


def sids(items, columns):
    ids = pa.chunked_array([items.ids])
    return code_files.Codes(ids, np.asarray(columns, np.int32), [int(np.max(columns)) + 1])


def test_the_files_score_as_the_model_does(run, inferred):
    folder, items, path = run
    listing = json.loads(Path(inferred.listing).read_text())
    assert listing["users"] == {
        "files": [f"all_user_embedding_{k}.npy" for k in range(3)],
        "rows": 60,
        "first_column": "id",
    }
    assert not (inferred.folder / "all_user_embedding_7.npy").exists()
    users = [np.load(inferred.folder / name) for name in listing["users"]["files"]]
    assert [len(part) for part in users] == [25, 25, 10]
    users, known = np.concatenate(users), np.load(inferred.folder / "all_item_embedding.npy")
    assert users.dtype == known.dtype == np.float32
    assert users[:, 0].tolist() == list(range(60))
    assert listing["items"]["first_column"] == "row"
    assert known[:, 0].tolist() == list(range(24))
    assert pq.read_table(inferred.item_ids)["pid"].to_pylist() == items.ids.to_pylist()
    fitted = checkpoint.load(folder / "model.safetensors", torch.device("cpu"))
    (group,) = windows.read_groups(path, items)
    scored = score.scorer(fitted, score.catalogue(fitted, items))(windows.latest(group))(
        slice(None)
    )
    np.testing.assert_allclose(users[:, 1:] @ known[:, 1:].T, scored, atol=1e-5)


@pytest.mark.parametrize(
    ("ids", "kind"),
    [
        ([0, 5, 2**24], "id"),
        ([1, 2**24 + 1], "row"),
        ([-1, 3], "row"),
        (["12", "7"], "id"),
        (["007", "7"], "row"),
        (["a"], "row"),
        (["16777217"], "row"),
    ],
)
def test_the_first_column_is_the_id_where_float32_holds_it(ids, kind):
    column = id_vectors.first_column(pa.array(ids))
    assert column.kind == kind
    wanted = [int(i) for i in ids] if kind == "id" else list(range(len(ids)))
    assert column.values.astype(np.float32).astype(np.int64).tolist() == wanted


def test_too_few_vectors_leave_no_file(tmp_path):
    with pytest.raises(SidmillError, match="3 vectors for 5 ids"):
        id_vectors.write_users(tmp_path, 2, np.arange(5), [np.zeros((3, 2), np.float32)])
    assert not list(tmp_path.iterdir())


def test_vectors_of_other_histories_are_refused(run, inferred, tmp_path):
    _, items, path = run
    table = pq.read_table(path)
    other = tmp_path / "other.parquet"
    pq.write_table(table.take(pa.array(np.arange(len(table))[::-1])), other)  # as many users
    named = sids(items, np.arange(48).reshape(24, 2))
    with pytest.raises(SidmillError, match="of other histories"):
        topk.recommend(
            inferred.listing, other, inferred.item_ids, named, tmp_path / "topk.parquet",
            RecommenderTopk(),
        )  # fmt: skip


def test_neighbours_by_text_are_the_same_in_blocks(run, monkeypatch):
    _, items, path = run
    asked = windows.queries(next(iter(windows.read_groups(path, items))), 2)
    whole = baselines.text_knn(items, 0.8)(asked)(slice(None)).numpy()
    unit = items.vectors / np.linalg.norm(items.vectors, axis=1, keepdims=True)
    taste = baselines.histories_of(asked, 0.8, len(unit)) @ unit
    np.testing.assert_allclose(whole, taste @ unit.T, atol=1e-5)
    longest = 0

    def watched(*arguments):
        nonlocal longest
        for start, block in read_blocks(*arguments):
            longest = max(longest, len(block))
            yield start, block

    read_blocks = baselines.read_blocks
    monkeypatch.setattr(baselines, "read_blocks", watched)
    monkeypatch.setattr(baselines, "BLOCK_ROWS", 7)
    np.testing.assert_allclose(
        baselines.text_knn(items, 0.8)(asked)(slice(None)).numpy(), whole, atol=1e-5
    )
    assert longest == 7


@pytest.mark.parametrize("mask_seen", [False, True])
@pytest.mark.parametrize("index", ["flat", "hnsw"])
def test_lists_are_the_best_items_in_order(run, inferred, tmp_path, mask_seen, index):
    _, items, path = run
    named = sids(items, np.arange(48).reshape(24, 2))
    out = tmp_path / "topk.parquet"
    settings = RecommenderTopk(k=5, mask_seen=mask_seen, index=index)
    topk.recommend(inferred.listing, path, inferred.item_ids, named, out, settings)
    found = pq.read_table(out).to_pylist()
    users = np.concatenate(
        [np.load(inferred.folder / f"all_user_embedding_{k}.npy") for k in range(3)]
    )
    scores = users[:, 1:] @ np.load(inferred.folder / "all_item_embedding.npy")[:, 1:].T
    for user, row in enumerate(pq.read_table(path).to_pylist()):
        wanted = np.argsort(-scores[user])
        if mask_seen:
            had = set(id_lookup.find(items.numbers, pa.array(row["item_ids"])))
            wanted = [item for item in wanted if item not in had]
        assert found[user]["user_id"] == row["user_id"]
        assert found[user]["item_ids"] == [items.ids[int(item)].as_py() for item in wanted[:5]]
        assert found[user]["sids"] == [[2 * item, 2 * item + 1] for item in wanted[:5]]
        np.testing.assert_allclose(found[user]["scores"], scores[user][wanted[:5]], atol=1e-5)


def test_the_table_compares_counts_and_tells_sids_from_items(run, tmp_path):
    folder, items, path = run
    named = {
        "before": sids(items, np.arange(24)[:, None] // 3),
        "after": sids(items, np.arange(24)[:, None]),
    }
    checkpoint_path = folder / "model.safetensors"
    figures = evaluate.evaluate(path, items, checkpoint_path, named, EVALUATION, seed=0)
    test = figures["test"]
    assert test["asked"] == {
        "users": 60,
        "targets": 60,
        "without_history": 0,
        "never_in_training": test["asked"]["never_in_training"],
        "had_before": 0,
    }
    assert list(test["methods"]) == ["recommender", "popularity", "item_knn", "text_knn"]
    own = {name: entry["value"] for name, entry in test["methods"]["recommender"].items()}
    assert own["HR@5"] > test["methods"]["popularity"]["HR@5"]["high"]
    assert test["lead"]["popularity"]["HR@5"]["low"] > 0
    n_cold = test["asked"]["never_in_training"]
    counts = {"in_training": 60 - n_cold, "never_in_training": n_cold}
    parts = {kind: test["by_target"][kind] for kind, count in counts.items() if count}
    assert parts.keys() == test["by_target"].keys()
    for name, value in own.items():
        found = {kind: part["methods"]["recommender"][name] for kind, part in parts.items()}
        joined = sum(counts[kind] * entry["value"] for kind, entry in found.items()) / 60
        assert joined == pytest.approx(value)
        assert all(entry["low"] <= entry["high"] for entry in found.values())
    after, before = test["sids"]["after"], test["sids"]["before"]
    for name, value in own.items():
        assert after["item_level"][name]["value"] == pytest.approx(value)
        assert after["inflation"].get(name, 0) == 0
        assert before["sid_level"][name]["value"] >= value - 1e-12
        assert before["inflation"][name] == pytest.approx(2)  # three items a SID
    assert (before["n_sids"], before["targets_sharing"]) == (8, 1.0)
    table.write(tmp_path / "metrics.csv", figures)
    lines = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert len(lines) == 2 * (4 + 4) * 11
    for name in ("one.svg", "two.svg"):
        recommender_plot.draw(figures, tmp_path / name, own=["recommender"])
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_memory_for_scores_changes_no_figure(run, monkeypatch):
    folder, items, path = run
    monkeypatch.setattr(rank, "MIB", 2**9)  # blocks of 16, 48 and all rows
    named = {"before": sids(items, np.arange(24)[:, None] // 3)}
    made = set()
    for memory_mb in (16, 40, 1024):
        settings = dataclasses.replace(EVALUATION, memory_mb=memory_mb)
        figures = evaluate.evaluate(
            path, items, folder / "model.safetensors", named, settings, seed=0
        )
        made.add(json.dumps(figures))
    assert len(made) == 1
    assert base.machine_keys(RecommenderEvaluation) == ["device", "memory_mb"]
    assert not base.machine_keys(RecommenderTopk)


def test_an_item_without_a_sid_is_named(run):
    _, items, _ = run
    with pytest.raises(SidmillError, match=r"1 items have no SID, first 'item 23'"):
        evaluate.number_sids(
            items, sids(items._replace(ids=items.ids[:23]), np.arange(23)[:, None]), "codes"
        )
