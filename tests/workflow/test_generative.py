"""The generative recommender of the demo: its table, killed and resumed, and from public SIDs."""

import json
import os
import random
import shutil
import signal
import subprocess
import time

import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.workflow

TINY = ("--configfile", "tests/configs/tiny.yaml")
FILES = (
    "--",
    "results/plots/generative.rqkmeans.svg",
    "results/generative/rqkmeans/topk.parquet",
    "results/recommender/metrics.json",
)
MADE = ("model.safetensors", "training.json", "metrics.json", "metrics.csv", "topk.parquet")


@pytest.fixture(scope="module")
def finished(make_workflow):
    workflow = make_workflow()
    workflow.run(*TINY, *FILES)
    return workflow


def artefacts(workflow):
    return {name: workflow.bytes(f"generative/rqkmeans/{name}") for name in MADE}


def test_it_leaves_a_table_and_lists_and_does_nothing_again(finished):
    figures = json.loads(finished.bytes("generative/rqkmeans/metrics.json"))
    assert figures["test"]["targets"] == 40
    assert list(figures["test"]["methods"]) == [
        "generative", "fused", "recommender", "sum_of_baselines", "popularity", "item_knn",
        "text_knn",
    ]  # fmt: skip
    assert figures["protocol"]["seeds"] == [42, 43]
    assert figures["unconstrained"]["illegal"] == 0
    spread = figures["test"]["seeds"]["HR@10"]
    mean = figures["test"]["methods"]["generative"]["HR@10"]["value"]
    assert sum(spread["values"]) / 2 == pytest.approx(mean)
    for kind in figures["test"]["by_target"].values():
        assert sum(group["targets"] for group in kind.values()) == 40

    # The recommender and the baselines have the figures that its own table gives them.
    own = json.loads(finished.bytes("recommender/metrics.json"))
    for method in ("recommender", "popularity", "item_knn", "text_knn"):
        here, there = (each["test"]["methods"][method] for each in (figures, own))
        assert here.keys() == there.keys()
        assert all(here[metric] == pytest.approx(there[metric]) for metric in here)

    lists = pq.read_table(finished.folder / "results/generative/rqkmeans/topk.parquet")
    assert lists.num_rows == 40
    assert {len(items) for items in lists["item_ids"].to_pylist()} == {20}
    assert finished.planned(*TINY, *FILES) == set()
    assert not list((finished.folder / "results").rglob("*.state"))


ALL = {"train_generative", "evaluate_generative", "plot_generative", "recommend_generative"}


@pytest.mark.parametrize(
    ("overlay", "rerun"),
    [
        ("generative: {device: cpu, memory_mb: 99, save_steps: 7}", set()),
        ("generative_topk: {k: 5}", {"recommend_generative"}),
        (
            "generative_evaluation: {mask_seen: true}",
            {"evaluate_generative", "plot_generative"},
        ),
        ("generative: {dropout: 0.2}", ALL),
        (
            "generative: {identifiers: [opq]}",
            {*ALL, "train_opq", "encode_items", "resolve_quantizer"},
        ),
    ],
)
def test_a_setting_reruns_what_it_makes_and_what_follows(finished, overlay, rerun):
    name = finished.overlay("overlay.yaml", overlay + "\n")
    assert finished.planned(*TINY, name, *FILES) == rerun


def test_public_sids_take_its_place_without_text(make_workflow, finished):
    """An index.json and a log of interactions are all that there is."""
    workflow = make_workflow()
    index = json.loads(finished.bytes("index.json"))
    folder = workflow.folder / "given"
    folder.mkdir()
    (folder / "index.json").write_text(json.dumps(index))
    rows = pq.read_table(finished.folder / "results/interactions/sequences.parquet").to_pylist()
    names = {0: "train", 1: "valid", 2: "test"}
    lines = [
        json.dumps(
            {
                "user_id": row["user_id"],
                "item_ids": row["item_ids"],
                "splits": [names[split] for split in row["splits"]],
            }
        )
        for row in rows
    ]
    (folder / "log.jsonl").write_text("\n".join(lines) + "\n")
    overlay = workflow.overlay(
        "given.yaml",
        "quantizer: given\ngiven: {path: given/index.json}\nitems: {path: null}\n"
        "interactions: {path: given/log.jsonl, split: given}\ncollisions: {strategy: none}\n",
    )
    target = "results/generative/given/metrics.json"
    planned = workflow.planned(*TINY, overlay, "--", target)
    assert not {"render_text", "embed_shard", "train_recommender"} & planned
    workflow.run(*TINY, overlay, "--", target)
    figures = json.loads(workflow.bytes("generative/given/metrics.json"))
    assert list(figures["test"]["methods"]) == [
        "generative", "sum_of_baselines", "popularity", "item_knn"
    ]  # fmt: skip
    assert figures["test"]["targets"] == 40


def test_the_encoder_decoder_of_configs_runs_at_small_sizes(make_workflow, finished):
    workflow = make_workflow()
    shutil.copytree(
        finished.folder / "results",
        workflow.folder / "results",
        ignore=shutil.ignore_patterns("generative"),
    )
    small = workflow.overlay(
        "small.yaml",
        "generative: {seeds: 1, hidden_dim: 8, n_layers: 1, n_heads: 2, head_dim: 4, "
        "feed_forward_dim: 16, max_epochs: 1}\n",
    )
    files = [f"results/generative/rqkmeans/{name}" for name in ("metrics.json", "topk.parquet")]
    workflow.run(*TINY, "configs/tiger.yaml", small, "--", *files)
    figures = json.loads(workflow.bytes("generative/rqkmeans/metrics.json"))
    assert figures["protocol"]["model"] == "tiger"
    assert figures["test"]["targets"] == 40
    lists = pq.read_table(workflow.folder / "results/generative/rqkmeans/topk.parquet")
    assert {len(items) for items in lists["item_ids"].to_pylist()} == {20}


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_killed_ten_times_while_it_trains_and_evaluates_it_ends_in_the_same_bytes(finished):
    """The whole process group dies at once, at drawn moments; nobody unlocks anything."""
    overlay = finished.overlay("save.yaml", "generative: {save_steps: 1}\n")
    arguments = (*TINY, overlay, *FILES)
    before = artefacts(finished)
    shutil.rmtree(finished.folder / "results/generative")
    began = time.monotonic()
    finished.run(*arguments)
    seconds = time.monotonic() - began
    assert artefacts(finished) == before

    moments, kills = random.Random(11), 0
    while kills < 10:
        shutil.rmtree(finished.folder / "results/generative")
        for _ in range(5):
            process = finished.start(*arguments)
            try:
                assert process.wait(moments.uniform(0.3, 0.9) * seconds) == 0
                break
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
        finished.run(*arguments)
        assert artefacts(finished) == before
        assert not list((finished.folder / "results").rglob("*.state"))
