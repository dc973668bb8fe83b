"""The recommender of the demo: from text and from memory maps, killed and resumed."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

pytestmark = pytest.mark.workflow

TINY = ("--configfile", "tests/configs/tiny.yaml")
FILES = ("--", "results/plots/recommender.svg", "results/recommender/topk.parquet")
MADE = ("model.safetensors", "metrics.json", "topk.parquet", "all_user_embedding_0.npy")


@pytest.fixture(scope="module")
def finished(make_workflow):
    workflow = make_workflow()
    workflow.run(*TINY, *FILES)
    return workflow


def recommender(workflow):
    return {name: workflow.bytes(f"recommender/{name}") for name in MADE}


def test_it_leaves_a_table_and_lists_and_does_nothing_again(finished):
    figures = json.loads(finished.bytes("recommender/metrics.json"))
    assert figures["test"]["asked"]["targets"] == 40
    assert set(figures["test"]["methods"]) == {
        "recommender", "popularity", "item_knn", "text_knn"
    }  # fmt: skip
    assert not any(figures["test"]["sids"]["after"]["inflation"].values())
    lists = pq.read_table(finished.folder / "results/recommender/topk.parquet")
    assert lists.num_rows == 40
    assert {len(items) for items in lists["item_ids"].to_pylist()} == {20}
    assert finished.planned(*TINY, *FILES) == set()
    left = list((finished.folder / "results").rglob("*.state"))
    assert not left


@pytest.mark.parametrize(
    ("overlay", "rerun"),
    [
        ("recommender: {device: cpu, memory_mb: 99, save_steps: 7, train_from: text}", set()),
        ("recommender_topk: {k: 5}", {"recommend_topk"}),
        ("recommender_evaluation: {mask_seen: true}", {"evaluate_recommender", "plot_recommender"}),
        (
            "recommender: {dropout: 0.2}",
            {
                "train_recommender",
                "infer_recommender",
                "evaluate_recommender",
                "plot_recommender",
                "recommend_topk",
            },
        ),
    ],
)
def test_a_setting_reruns_what_it_makes_and_what_follows(finished, overlay, rerun):
    name = finished.overlay("overlay.yaml", overlay + "\n")
    assert finished.planned(*TINY, name, *FILES) == rerun


@pytest.mark.long
def test_killed_or_from_memory_maps_it_is_the_same_recommender(finished, workflow):
    overlay = workflow.overlay("maps.yaml", "recommender: {train_from: mmap, save_steps: 1}\n")
    arguments = (*TINY, overlay, *FILES)
    workflow.kill_when("recommender/model.safetensors.state", *arguments)
    workflow.run(*arguments)
    assert recommender(workflow) == recommender(finished)


# Last: it leaves another model in the shared folder.
@pytest.mark.parametrize("source", ["text", "mmap"])
def test_training_starts_from_a_checkpoint(finished, source):
    weights = finished.bytes("recommender/model.safetensors")
    start = finished.folder / "start.safetensors"
    start.write_bytes(weights)
    settings = f"load: start.safetensors, train_from: {source}, max_epochs: 1"
    overlay = finished.overlay("load.yaml", f"recommender: {{{settings}, learning_rate: 1.0e-9}}\n")
    finished.run(*TINY, overlay, "--", "results/recommender/training.json")
    began = load_file(start)
    ended = load_file(finished.folder / "results/recommender/model.safetensors")
    assert all(np.allclose(ended[name], began[name], atol=1e-6) for name in began)
    inside = overlay_of(finished, "results/recommender/model.safetensors")
    done = finished.snakemake(*TINY, inside, "--", "results/recommender/training.json")
    assert "copy it to another folder, and name the copy" in done.stdout + done.stderr


def overlay_of(workflow, path):
    return workflow.overlay("inside.yaml", f"recommender: {{load: {path}}}\n")
