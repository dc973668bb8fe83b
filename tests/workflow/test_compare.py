"""All quantizers in a real run; SIDs of the RQ-VAE, Sinkhorn, an index of the user's name."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sidmill.formats import quantizer_file, sequence_table
from sidmill.settings import registry

pytestmark = [pytest.mark.workflow, pytest.mark.long]

MEMBERS = registry.TRAINED
OVERLAY = """
quantizer: rqvae
collisions: {strategy: sinkhorn}
index: {path: "results/for others/Tiny.index.json"}
evaluation: {neighbour_queries: 50, n_neighbours: 5, sequences: histories.parquet}
"""
TARGETS = (
    "results/comparison.json",
    "results/for others/Tiny.index.json",
    "results/quality.json",
    "results/plots/training.rqvae.svg",
)
TINY = ("--configfile", "tests/configs/tiny.yaml", "overlay.yaml")


@pytest.fixture(scope="module")
def finished(make_workflow):
    workflow = make_workflow()
    workflow.overlay("overlay.yaml", OVERLAY)
    table = pa.table(
        {
            "user_id": ["a", "b"],
            "item_ids": [list(range(1, 101)), list(range(1, 200, 2))],
            "splits": [[0] * 100, [0] * 100],
            "timestamps": [None, None],
        },
        schema=sequence_table.schema(pa.int64()),
    )
    sequence_table.write(workflow.folder / "histories.parquet", pa.int64(), [table])
    workflow.run(*TARGETS, *TINY)
    return workflow


def test_every_member_is_measured_by_one_rule(finished):
    found = json.loads(finished.bytes("comparison.json"))
    assert [member["name"] for member in found["members"]] == MEMBERS
    for member in found["members"]:
        evaluation = json.loads(finished.bytes(f"{member['name']}/evaluation.json"))
        assert member["relative_loss"] == evaluation["relative_loss"] < 1
        assert evaluation["co_consumption"]["pairs"] == 198
        assert evaluation["quantizer"] == member["name"]
        assert member["seconds"] > 0
    assert finished.bytes("plots/comparison.svg").startswith(b"<?xml")
    assert f"| | {' | '.join(MEMBERS)} |" in finished.bytes("comparison.md").decode()


def test_a_balanced_member_is_balanced_though_the_config_asks_for_none(finished):
    plain, balanced = (
        quantizer_file.read(finished.folder / f"results/{name}/quantizer.safetensors")
        for name in ("rqkmeans", "rqkmeans_balanced")
    )
    assert (plain.settings["balance"], balanced.settings["balance"]) == ("none", "capacity")
    assert (plain.kind, balanced.kind) == ("rqkmeans", "rqkmeans_balanced")
    loads = np.bincount(codes_of(finished, "rqkmeans_balanced")[:, 0])
    assert loads.max() <= balanced.settings["max_load"] * 200 / 16


def test_the_sids_are_those_of_the_rqvae(finished):
    quality = json.loads(finished.bytes("quality.json"))
    before, after = (quality[name]["collision_rate"] for name in ("before", "after"))
    found = codes_of(finished, "rqvae")
    assert 0 < before == pytest.approx(1 - len(np.unique(found, axis=0)) / 200)
    assert after == 0
    assert b"Training, epoch by epoch" in finished.bytes("plots/training.rqvae.svg")


def codes_of(finished, name):
    table = pq.read_table(finished.folder / f"results/{name}/codes.parquet")
    return np.array(table["codes"].to_pylist())


def test_sinkhorn_leaves_no_collision_and_the_index_has_the_users_name(finished):
    sids = pq.read_table(finished.folder / "results/pid2sid.parquet")["sid"].to_pylist()
    assert len({tuple(sid) for sid in sids}) == len(sids) == 200
    cost = json.loads(finished.bytes("resolution.json"))
    assert cost["strategy"] == "sinkhorn"
    assert cost["items_moved"] == cost["left_by_round"][0] > 0
    assert len(json.loads(finished.bytes("for others/Tiny.index.json"))) == 200
    assert not (finished.folder / "results/index.json").exists()


@pytest.mark.parametrize(
    ("overlay", "rerun"),
    [
        ("opq: {memory_mb: 99}", set()),
        (
            "opq: {n_iter: 7}",
            {"train_opq", "encode_items", "evaluate_quantizer", "compare_quantizers"},
        ),
        ("evaluation: {rbo_persistence: 0.8}", {"evaluate_quantizer", "compare_quantizers"}),
    ],
)
def test_a_setting_reruns_what_it_makes(finished, overlay, rerun):
    name = finished.overlay("more.yaml", overlay)
    assert finished.planned("results/comparison.json", *TINY, name) == rerun


def test_a_recommender_is_trained_on_the_sids_of_every_member_on_request(workflow):
    recommenders = {"train_generative", "evaluate_generative", "train_recommender"}
    tiny = TINY[:2]
    members = "members: [rqkmeans, opq]"
    plain = workflow.overlay("plain.yaml", f"comparison: {{{members}}}\n")
    target = ("--", "results/comparison.json")
    assert not workflow.planned(*tiny, plain, *target) & recommenders
    asked = workflow.overlay("asked.yaml", f"comparison: {{{members}, downstream: true}}\n")
    planned = workflow.snakemake("--dry-run", *tiny, asked, *target).stdout
    for rule, jobs in (
        ("train_generative_by_sids", 2),
        ("evaluate_generative_by_sids", 2),
        ("resolve_quantizer", 1),
    ):
        assert re.search(rf"^{rule} +{jobs}$", planned, re.M), planned
