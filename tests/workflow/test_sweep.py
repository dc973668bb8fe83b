"""The sweep in the workflow: what a run makes, what a change reruns, and the SIDs of the winner."""

import csv
import json
import re
import shutil

import pytest
import yaml

from sidmill.report.sweep import CHEAP

pytestmark = pytest.mark.workflow

TARGET = ("--", "results/sweep/sweep.json")
TINY = ("--configfile", "tests/configs/tiny.yaml")
SWEEP = {
    "sweep": {
        "shapes": [[16, 16], [8, 8, 8]],
        "fuse": ["none", "graph"],
        "anchors": ["shuffled"],
    },
    "embedding": {"shards": 1},
    "generative": {"seeds": 1, "hidden_dim": 8, "max_epochs": 1},
}
NAMES = ["rqkmeans.16x16.none", "rqkmeans.8x8x8.none", "rqkmeans.16x16.graph0.3", "shuffled"]
OF_ONE = {
    "sweep_train_rqkmeans": 1, "sweep_encode_items": 1, "sweep_evaluate_quantizer": 1,
    "sweep_resolve_quantizer": 1, "sweep_train_generative": 1,
    "measure_recommender": 1, "sweep_codebooks": 1,
}  # fmt: skip
AGAIN = {"sweep_train_generative": 4, "measure_recommender": 4, "sweep_codebooks": 1}


def changed(**sections):
    return {name: SWEEP.get(name, {}) | value for name, value in (SWEEP | sections).items()}


def jobs(workflow, settings, *options):
    """Jobs of a run by rule, without running it."""
    name = workflow.overlay("changed.yaml", json.dumps(settings))
    printed = workflow.run("--dry-run", *TINY, name, *options, *TARGET)
    table = printed.partition("Job stats:")[2].partition("\ntotal ")[0].splitlines()
    return {} if "Nothing to be done" in printed else {
        line.split()[0]: int(line.split()[1]) for line in table[3:]
    }  # fmt: skip


def test_vectors_are_fused_once_for_all_that_are_trained_on_them(workflow):
    sweep = SWEEP["sweep"] | {
        "design": "all",
        "quantizers": ["rqkmeans", "rqkmeans_plus", "opq"],
        "fuse_weights": [0.3, 1],
    }
    found = jobs(workflow, changed(sweep=sweep))
    assert found["sweep_fuse_vectors"] == 2
    assert found["sweep_train_rqkmeans"] == found["sweep_train_rqvae"] == 2 * 3
    assert found["sweep_train_generative"] == found["measure_recommender"] == 3 * 2 * 3 + 1
    assert not {"train_rqkmeans", "train_rqvae", "train_opq", "fuse_vectors"} & set(found)


def test_test_is_measured_on_request_alone(workflow):
    assert jobs(workflow, SWEEP)["measure_recommender"] == 4
    sweep = SWEEP["sweep"] | {"test": True}
    assert jobs(workflow, changed(sweep=sweep))["measure_recommender"] == 8


def test_a_sweep_without_interactions_is_refused_before_any_job(workflow):
    name = workflow.overlay("none.yaml", json.dumps(changed(interactions={"path": None})))
    done = workflow.snakemake(*TINY, name, *TARGET)
    assert done.returncode == 1
    assert "interactions.path is null, so there is nothing to train" in done.stdout + done.stderr
    assert not (workflow.folder / "results").exists()


@pytest.fixture(scope="module")
def finished(make_workflow):
    workflow = make_workflow()
    workflow.overlay("sweep.yaml", json.dumps(SWEEP))
    workflow.run(*TINY, "sweep.yaml", *TARGET)
    return workflow


@pytest.mark.long
def test_the_table_is_complete(finished):
    found = json.loads(finished.bytes("sweep/sweep.json"))
    assert [one["name"] for one in found["tokenizers"]] == NAMES
    for one in found["tokenizers"]:
        known = {key for key, value in one["figures"].items() if value is not None}
        lacking = {figure.key for figure in CHEAP} - known
        has_two_levels = "16x16" in one["name"] or one["is_anchor"]
        assert lacking == ({"neighbours_3"} if has_two_levels else set())
        assert 0 <= one["valid"]["HR@10"]["low"] <= one["valid"]["HR@10"]["high"] <= 1
        assert one["recommender_cost"]["seconds"] > 0
        assert (one["cost"]["seconds"] is None) == one["is_anchor"]
        assert one["test"] is None
    lines = list(csv.DictReader(finished.bytes("sweep/sweep.csv").decode().splitlines()))
    assert sorted(line["name"] for line in lines) == sorted(NAMES)
    assert b"Sweep of 4 tokenizers" in finished.bytes("plots/sweep.svg")
    assert finished.faults() == []


@pytest.mark.long
def test_a_second_run_does_nothing_and_a_change_runs_only_what_is_new(finished):
    assert jobs(finished, SWEEP) == {}
    sweep = SWEEP["sweep"]
    further = sweep | {"shapes": [*sweep["shapes"], [16, 32]]}
    assert jobs(finished, changed(sweep=further)) == OF_ONE
    fewer = sweep | {"shapes": sweep["shapes"][:1]}
    assert jobs(finished, changed(sweep=fewer)) == {"sweep_codebooks": 1}
    seeds = SWEEP["generative"] | {"seeds": 2}
    assert jobs(finished, changed(generative=seeds)) == AGAIN
    tested = jobs(finished, changed(sweep=sweep | {"test": True}))
    assert tested == {"measure_recommender": 4, "sweep_codebooks": 1}


@pytest.mark.long
def test_a_run_with_the_settings_of_the_winner_makes_its_sids(finished):
    winner = yaml.safe_load(finished.bytes("sweep/winner.yaml"))
    name = json.loads(finished.bytes("sweep/sweep.json"))["winner"]["name"]
    assert name in NAMES[:3]
    assert winner["quantizer"] == "rqkmeans"
    shutil.copy(finished.folder / "results/sweep/winner.yaml", finished.folder / "winner.yaml")
    finished.run(*TINY, "sweep.yaml", "winner.yaml", "--", "results/pid2sid.parquet")
    for file in ("codes.parquet", "pid2sid.parquet"):
        assert finished.bytes(file) == finished.bytes(f"sweep/{name}/{file}")
    own = finished.bytes("rqkmeans/quantizer.safetensors")
    assert own == finished.bytes(f"sweep/{name}/quantizer.safetensors")


@pytest.mark.long
def test_a_killed_run_ends_in_the_same_bytes(finished, make_workflow):
    other = make_workflow()
    other.overlay("sweep.yaml", json.dumps(SWEEP))
    model = "sweep/rqkmeans.8x8x8.none/generative/42/model.safetensors"
    other.kill_when(model, *TINY, "sweep.yaml", *TARGET)
    other.run(*TINY, "sweep.yaml", *TARGET)
    tables = r"(codes|pid2sid|valid)\.parquet|(valid|resolution)\.json"
    kinds = re.compile(rf"{tables}|\.safetensors|\.yaml")
    compared = 0
    for path in sorted((finished.folder / "results/sweep").rglob("*")):
        if path.is_file() and kinds.search(path.name):
            inside = path.relative_to(finished.folder / "results").as_posix()
            assert other.bytes(inside) == path.read_bytes(), inside
            compared += 1
    assert compared > 20
