"""Fused item vectors in the workflow: who reads them, what a change reruns, and published SIDs."""

import json
import os
import random
import re
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from sidmill.formats import quantizer_file

pytestmark = pytest.mark.workflow

TINY = ("--configfile", "tests/configs/tiny.yaml")
VERSION = ("--", "results/version.json", "results/churn.json")
TEXT, FUSED = "results/items/vectors.npy", "results/items/fused.npy"
PLAIN = {"fuse": {"method": "none"}}
OF_SIDS = {"use": "sids", "whiten": 0, "folds": 1}
GRAPH = {"fuse": {"method": "graph", **OF_SIDS}}
# What a run of the demo makes without fusion, from vectors.npy on.
AFTER_VECTORS = {
    "train_rqkmeans", "encode_items", "choose_codes", "resolve_collisions", "measure_quality",
    "plot_quality", "explore_sids", "all",
}  # fmt: skip
OF_FUSED = {"train_rqkmeans", "encode_items", "resolve_collisions", "measure_quality"}


def overlay(workflow, settings, name="own.yaml"):
    return workflow.overlay(name, json.dumps(settings))


def inputs(workflow, *arguments):
    """Inputs of every rule of a run, by name, from Snakemake's graph of files."""
    graph = workflow.snakemake("--filegraph", *arguments)
    assert graph.returncode == 0, graph.stderr
    found = {}
    for node in graph.stdout.split("label=<<table")[1:]:
        rule = re.search(r'<font point-size="18">(\w+)</font>', node)[1]
        files = node.partition("output &rarr;")[0]
        found[rule] = set(re.findall(r'<font face="monospace">(results/[^<]+)</font>', files))
    return found


def read_by_jobs(workflow):
    """Files that the jobs of all runs so far have read, by rule, from Snakemake's records."""
    found = {}
    for path in (workflow.folder / ".snakemake/metadata").rglob("*"):
        if path.is_file():
            record = json.loads(path.read_text())
            found.setdefault(record["rule"], set()).update(record["input"] or [])
    return found


def sids(workflow):
    table = pq.read_table(workflow.folder / "results/pid2sid.parquet")
    return dict(zip(table["pid"].to_pylist(), map(tuple, table["sid"].to_pylist()), strict=True))


def test_quantizers_read_fused_vectors_and_readers_of_text_do_not(workflow):
    plain = inputs(workflow, *TINY)
    assert not {"fuse_vectors", "train_similarity", "read_interactions"} & set(plain)
    assert {rule for rule in plain if TEXT in plain[rule]} == OF_FUSED
    none = overlay(workflow, {"fuse": {"method": "none", "weight": 0.5}})
    assert inputs(workflow, *TINY, none) == plain

    # With a fusion the same rules read fused.npy, and nothing but the fusion reads vectors.npy.
    graph = overlay(workflow, GRAPH)
    fused = inputs(workflow, *TINY, graph)
    assert set(fused) == set(plain) | {"fuse_vectors", "read_interactions"}
    pair = {FUSED, "results/items/fused_ids.parquet"}
    assert {rule for rule in fused if pair <= fused[rule]} == OF_FUSED
    assert [rule for rule in fused if TEXT in fused[rule]] == ["fuse_vectors"]

    # Every member of a comparison is trained on them and measured by them.
    members = ["rqkmeans", "rqvae", "opq", "pca_grid"]
    settings = overlay(workflow, GRAPH | {"comparison": {"members": members}})
    compared = inputs(workflow, *TINY, settings, "--", "results/comparison.json")
    trained = {f"train_{member}" for member in members}
    assert {rule for rule in compared if pair <= compared[rule]} == trained | {
        "encode_items",
        "evaluate_quantizer",
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"interactions": {"path": None}}, "fuse.method: found graph, but interactions.path is"),
        ({"items": {"path": None}}, "fuse.method: found graph, but items.path is null"),
        ({"fuse": {"method": "graph", "weight": 0}}, "fuse.weight: found 0, wanted more than 0"),
        ({"fuse": {"method": "lightgcn"}}, "fuse.method: found 'lightgcn'"),
    ],
)
def test_what_cannot_be_fused_is_refused_before_any_job(workflow, settings, message):
    done = workflow.snakemake("--dry-run", *TINY, overlay(workflow, GRAPH | settings))
    assert done.returncode != 0
    assert message in done.stdout + done.stderr


def test_a_fused_run_its_reruns_and_its_versions(workflow):
    # Version 1: 190 of the 200 items, and what was consumed of them.
    workflow.run(*TINY, "--", "results/demo/items.jsonl", "results/demo/interactions.jsonl")
    lines = workflow.bytes("demo/items.jsonl").decode().splitlines()
    log = workflow.bytes("demo/interactions.jsonl").decode().splitlines()
    workflow.overlay("items.jsonl", "\n".join(lines[:190]) + "\n")
    plain = [
        json.dumps({key: row[key] for key in ("user_id", "item_ids")})
        for row in map(json.loads, log)
    ]
    workflow.overlay("log.jsonl", "\n".join(plain) + "\n")
    own = {
        "items": {"path": "items.jsonl"},
        "interactions": {"path": "log.jsonl", "on_unknown_items": "reject"},
        **GRAPH,
    }
    name = overlay(workflow, own)
    workflow.run(*TINY, name)
    assert workflow.planned(*TINY, name) == set()

    # Whoever reads text as text reads vectors.npy.
    workflow.run(*TINY, name, "--", "results/opq/pid2sid.parquet", "results/mmap/mmap.json")
    read = read_by_jobs(workflow)
    assert {rule for rule, files in read.items() if FUSED in files} == OF_FUSED | {
        "train_opq",
        "resolve_quantizer",
    }
    assert {rule for rule, files in read.items() if TEXT in files} == {"fuse_vectors", "write_mmap"}

    # A change of a science setting reruns the fusion and what follows, another reruns nothing.
    weight = overlay(workflow, own | {"fuse": GRAPH["fuse"] | {"weight": 0.4}}, "weight.yaml")
    assert workflow.planned(*TINY, weight) == {"fuse_vectors"} | AFTER_VECTORS
    memory = overlay(workflow, own | {"fuse": GRAPH["fuse"] | {"memory_mb": 99}}, "mb.yaml")
    assert workflow.planned(*TINY, memory) == set()

    workflow.run(*TINY, name, "--", "results/version.json")
    environment = os.environ | {"PYTHONPATH": str(workflow.folder / "src")}
    words = [sys.executable, "-m", "sidmill", "publish", "versions/1"]
    subprocess.run(words, cwd=workflow.folder, env=environment, check=True)
    before = sids(workflow)

    # Version 2: all items and a longer log. New items get vectors and SIDs, old SIDs stay.
    workflow.overlay("items.jsonl", "\n".join(lines) + "\n")
    workflow.overlay("log.jsonl", "\n".join([*plain, *more_users(plain)]) + "\n")
    own["published"] = {"path": "versions/1"}
    workflow.run(*TINY, overlay(workflow, own), *VERSION)
    after = sids(workflow)
    assert {pid: after[pid] for pid in before} == before
    assert len(after) == 200
    assert len(set(after.values())) == 200

    # The published quantizer is of that fusion and no other.
    for fuse in ({"method": "none"}, {"method": "graph", "weight": 0.4}, {"method": "svd"}):
        other = overlay(workflow, own | {"fuse": OF_SIDS | fuse})
        refused = workflow.snakemake(*TINY, other, "--", "results/pid2sid.parquet")
        assert refused.returncode != 0
        assert "was trained on other embeddings (" in refused.stdout + refused.stderr
        assert "fuse." in refused.stdout + refused.stderr


def more_users(log):
    """The histories of the log once more, backwards, of other users."""
    rows = [json.loads(line) for line in log]
    return [
        json.dumps({"user_id": 1000 + row["user_id"], "item_ids": row["item_ids"][::-1]})
        for row in rows
    ]


TRAINED = ("--", "results/generative/rqkmeans/training.json")


def test_training_reads_the_codes_of_folds_and_measuring_does_not(workflow):
    folds = {"fuse": GRAPH["fuse"] | {"folds": 3}}
    without = inputs(workflow, *TINY, overlay(workflow, GRAPH), *TRAINED)
    found = inputs(workflow, *TINY, overlay(workflow, folds, "folds.yaml"), *TRAINED)
    assert set(found) == set(without) | {"fuse_folds", "encode_folds"}
    assert "results/items/fused_folds.npy" in found["encode_folds"]

    # What is trained reads them; a change of their number reruns that alone.
    name = overlay(workflow, folds | {"generative": {"seeds": 1, "max_epochs": 1}}, "folds.yaml")
    lists = ("--", "results/generative/rqkmeans/topk.parquet", *TRAINED[1:])
    workflow.run(*TINY, name, *lists)
    assert workflow.faults() == []
    read = read_by_jobs(workflow)
    codes = "results/rqkmeans/fold_codes.parquet"
    assert {rule for rule, files in read.items() if codes in files} == {"train_generative"}
    assert pq.read_metadata(workflow.folder / codes).num_rows == 3 * 200
    more = {"fuse": GRAPH["fuse"] | {"folds": 4}, "generative": {"seeds": 1, "max_epochs": 1}}
    assert workflow.planned(*TINY, overlay(workflow, more, "more.yaml"), *lists) == {
        "fuse_folds",
        "encode_folds",
        "train_generative",
        "recommend_generative",
    }

    # Without fusion the fused files remain, and are no fault; the lists are of SIDs that are gone.
    workflow.run(*TINY, overlay(workflow, {"fuse": {"method": "none"}}, "none.yaml"))
    assert (workflow.folder / FUSED).exists()
    assert [fault.partition(":")[0] for fault in workflow.faults()] == [lists[1][len("results/") :]]


SMALL = {"generative": {"seeds": 1, "max_epochs": 1}}
OF_SIMILARITY = {"train_similarity", "encode_similarity", "encode_similarity_folds"}


def test_sids_of_the_default_are_those_without_fusion(workflow):
    """Snakemake finds no reason to run a job again: the same inputs, settings and code."""
    files = (
        "--",
        "all",
        "results/version.json",
        "results/comparison.json",
        "results/mmap/mmap.json",
    )
    members = overlay(workflow, {"comparison": {"members": ["rqkmeans", "opq"]}}, "members.yaml")
    workflow.run(*TINY, members, overlay(workflow, PLAIN), *files)
    assert workflow.planned(*TINY, members, *files) == set()
    read = quantizer_file.read(workflow.folder / "results/rqkmeans/quantizer.safetensors")
    assert not [key for key in read.fingerprint if key.startswith("fuse")]


@pytest.mark.parametrize(
    ("settings", "target"),
    [
        ({"generative": {"model": "tiger", "head_dim": 4}}, "generative/rqkmeans/topk.parquet"),
        ({"generative": {"similarity": False}}, "generative/rqkmeans/topk.parquet"),
        ({"generative": {"features": "sid+text"}}, "generative/rqkmeans/topk.parquet"),
        (
            {
                "items": {"path": None},
                "quantizer": "given",
                "given": {"path": "given.json"},
                "collisions": {"strategy": "none"},
            },
            "generative/given/topk.parquet",
        ),
        ({"interactions": {"path": None}}, "pid2sid.parquet"),
    ],
)
def test_where_no_codes_are_compared_the_default_is_a_run_without_fusion(
    workflow, settings, target
):
    workflow.overlay("given.json", json.dumps({"1": ["<a_0>", "<b_0>"]}))
    own, plain = overlay(workflow, settings), overlay(workflow, PLAIN, "plain.yaml")
    found = inputs(workflow, *TINY, own, "--", f"results/{target}")
    assert found == inputs(workflow, *TINY, own, plain, "--", f"results/{target}")
    assert not {"fuse_vectors", *OF_SIMILARITY} & set(found)


def test_recommenders_of_a_comparison_have_files_of_their_own(workflow):
    """They compare items by SIDs: no fusion is asked for, and the recommender for lists stays."""
    compared = {"comparison": {"members": ["rqkmeans", "opq"], "downstream": True}}
    own, plain = overlay(workflow, compared), overlay(workflow, PLAIN, "plain.yaml")
    found = inputs(workflow, *TINY, own, "--", "results/comparison.json")
    assert not {"fuse_vectors", "train_generative", *OF_SIMILARITY} & set(found)
    assert "train_generative_by_sids" in found
    same = inputs(workflow, *TINY, own, plain, "--", "results/comparison.json")
    assert "train_generative_by_sids" not in same
    assert found["train_generative_by_sids"] == same["train_generative"]
    lists = ("--", "results/generative/rqkmeans/topk.parquet")
    assert inputs(workflow, *TINY, own, *lists) == inputs(workflow, *TINY, *lists)


def test_one_user_and_fewer_items_than_codewords_are_served(workflow):
    """Given SIDs ask for no codebooks of this size, and one user fills one fold of four."""
    texts = ["red tea pot", "blue tea cup", "green lamp", "steel lamp", "oak chair", "pine desk"]
    items = [json.dumps({"item_id": n, "title": text}) for n, text in enumerate(texts, 1)]
    workflow.overlay("items.jsonl", "\n".join(items) + "\n")
    workflow.overlay("log.jsonl", json.dumps({"user_id": 1, "item_ids": [1, 2, 4, 3]}) + "\n")
    sids = {str(n): [f"<a_{n % 2}>", f"<b_{n}>"] for n in range(1, 7)}
    workflow.overlay("given.json", json.dumps(sids))
    own = {
        "items": {"path": "items.jsonl", "fields": ["title"]},
        "interactions": {"path": "log.jsonl", "split": "leave_two_out"},
        "quantizer": "given",
        "given": {"path": "given.json"},
        "collisions": {"strategy": "none"},
        "embedding": {"dim": 4},
        **SMALL,
        "generative_topk": {"k": 3},
    }
    lists = ("--", "results/generative/given/topk.parquet")
    workflow.run(*TINY, overlay(workflow, own), *lists)
    assert pq.read_metadata(workflow.folder / "results/similarity/codes.parquet").num_rows == 6
    read = quantizer_file.read(workflow.folder / "results/similarity/quantizer.safetensors")
    assert [len(book) for book in read.codebooks] == [6, 6, 6]

    # Sizes that were asked for are not lowered.
    own["fuse"] = {"codebook_sizes": [16, 16]}
    refused = workflow.snakemake(*TINY, overlay(workflow, own), *lists)
    assert refused.returncode != 0
    assert "6 vectors cannot fill 16 codewords" in refused.stdout + refused.stderr


def test_compared_codes_are_of_fused_vectors_and_sids_of_text(workflow):
    similar = (*TINY, overlay(workflow, SMALL))
    plain = inputs(workflow, *TINY, overlay(workflow, PLAIN, "plain.yaml"), *TRAINED)
    found = inputs(workflow, *similar, *TRAINED)
    assert set(found) == set(plain) | {"fuse_vectors", "fuse_folds"} | OF_SIMILARITY
    assert {rule for rule in found if FUSED in found[rule]} == {
        "train_similarity",
        "encode_similarity",
    }
    of_text = {rule for rule in plain if TEXT in plain[rule]}
    assert {rule for rule in found if TEXT in found[rule]} == of_text | {
        "fuse_vectors",
        "fuse_folds",
    }
    more = overlay(workflow, {"generative": {"identifiers": ["opq"]}}, "more.yaml")
    members = inputs(workflow, *TINY, more, "--", "results/generative/opq/metrics.json")
    assert set(members) >= OF_SIMILARITY
    assert TEXT in members["train_opq"]

    # Lists are of a model that compares these codes; folds are read in training alone.
    lists = ("--", "results/generative/rqkmeans/topk.parquet", *TRAINED[1:])
    workflow.run(*similar, *lists)
    assert workflow.planned(*similar, *lists) == set()
    read = read_by_jobs(workflow)
    codes = {"results/similarity/codes.parquet", "results/similarity/quantizer.safetensors"}
    folds = "results/similarity/fold_codes.parquet"
    assert codes <= read["train_generative"] & read["recommend_generative"]
    assert {rule for rule, files in read.items() if folds in files} == {"train_generative"}
    quantizer = quantizer_file.read(workflow.folder / "results/similarity/quantizer.safetensors")
    assert quantizer.fingerprint["fuse.method"] == "contrastive"
    assert workflow.faults() == []

    # What is compared costs no token: other sizes of it leave SIDs and vectors alone.
    sizes = overlay(workflow, SMALL | {"fuse": {"codebook_sizes": [8, 8, 8, 8]}}, "sizes.yaml")
    assert workflow.planned(*TINY, sizes, *lists) == {
        *OF_SIMILARITY,
        "train_generative",
        "recommend_generative",
    }


def test_given_sids_have_a_similarity_where_items_have_text(workflow):
    given = {
        "quantizer": "given",
        "given": {"path": "given.json"},
        "collisions": {"strategy": "none"},
    }
    workflow.overlay("given.json", json.dumps({"1": ["<a_0>", "<b_0>"]}))
    target = ("--", "results/generative/given/training.json")
    found = inputs(workflow, *TINY, overlay(workflow, given), *target)
    assert {"import_given", "train_generative"} | OF_SIMILARITY <= set(found)


@pytest.mark.long
def test_published_sids_stay_while_compared_codes_follow_the_log(workflow):
    """With fuse.use: sids this fusion is refused for another log; SIDs of text do not know it."""
    workflow.run(*TINY, "--", "results/demo/items.jsonl", "results/demo/interactions.jsonl")
    lines = workflow.bytes("demo/items.jsonl").decode().splitlines()
    rows = map(json.loads, workflow.bytes("demo/interactions.jsonl").decode().splitlines())
    log = [json.dumps({key: row[key] for key in ("user_id", "item_ids")}) for row in rows]
    workflow.overlay("items.jsonl", "\n".join(lines[:190]) + "\n")
    workflow.overlay("log.jsonl", "\n".join(log) + "\n")
    own = {
        "items": {"path": "items.jsonl"},
        "interactions": {"path": "log.jsonl", "on_unknown_items": "reject"},
        **SMALL,
    }
    topk = "results/generative/rqkmeans/topk.parquet"
    workflow.run(*TINY, overlay(workflow, own), "--", "results/version.json", topk)
    environment = os.environ | {"PYTHONPATH": str(workflow.folder / "src")}
    words = [sys.executable, "-m", "sidmill", "publish", "versions/1"]
    subprocess.run(words, cwd=workflow.folder, env=environment, check=True)
    before, compared = sids(workflow), workflow.bytes("similarity/codes.parquet")

    # All items and a longer log.
    workflow.overlay("items.jsonl", "\n".join(lines) + "\n")
    workflow.overlay("log.jsonl", "\n".join([*log, *more_users(log)]) + "\n")
    own["published"] = {"path": "versions/1"}
    workflow.run(*TINY, overlay(workflow, own), *VERSION, topk)
    after = sids(workflow)
    assert {pid: after[pid] for pid in before} == before
    assert len(set(after.values())) == len(after) == 200
    assert workflow.bytes("similarity/codes.parquet") != compared
    ids = pq.read_table(workflow.folder / "results/similarity/codes.parquet")["pid"]
    assert ids.to_pylist() == list(after)


@pytest.mark.long
@pytest.mark.parametrize("text_says_groups", [False, True])
def test_a_planted_catalogue_from_text_to_recommendations(make_workflow, text_says_groups):
    """Users have items of one of 12 groups; texts are random words, or words of the group."""
    rng = random.Random(0)
    words = [f"w{number}" for number in range(240)]
    groups = {item: item % 12 for item in range(1, 145)}
    items, log = [], []
    for item, group in groups.items():
        own = words[20 * group : 20 * group + 20] if text_says_groups else words
        text = " ".join(rng.choices(own, k=12))
        items.append(json.dumps({"item_id": item, "title": text, "description": ""}))
    for user in range(160):
        members = [item for item, group in groups.items() if group == user % 12]
        log.append(json.dumps({"user_id": user, "item_ids": rng.sample(members, 6)}))

    found = {}
    fused = {"use": "sids", "shrinkage": 3}
    for name, fuse in {
        "none": {"method": "none"},
        "graph": {"method": "graph", "whiten": 0, **fused},
        "contrastive": fused,
    }.items():
        workflow = make_workflow()
        workflow.overlay("items.jsonl", "\n".join(items) + "\n")
        workflow.overlay("log.jsonl", "\n".join(log) + "\n")
        own = {
            "items": {"path": "items.jsonl", "fields": ["title"]},
            "interactions": {"path": "log.jsonl", "split": "leave_two_out"},
            "generative": {"seeds": 2, "hidden_dim": 32, "max_epochs": 15, "warmup_steps": 5,
                           "learning_rate": 0.01, "batch_users": 16, "dropout": 0.2},
            "fuse": fuse,
        }  # fmt: skip
        workflow.run(*TINY, overlay(workflow, own), *TRAINED)
        curves = json.loads(workflow.bytes("generative/rqkmeans/training.json"))
        best = [max(epoch["valid"] for epoch in one["epochs"]) for one in curves["seeds"]]
        found[name] = sum(best) / len(best)
    if text_says_groups:
        assert found["none"] > 0.2, found
        assert min(found.values()) > 0.9 * found["none"], found
    else:
        assert min(found["graph"], found["contrastive"]) > found["none"] + 0.04, found
