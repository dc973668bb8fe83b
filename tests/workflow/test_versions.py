"""A catalogue grows, changes and shrinks: published SIDs stay, only other items are embedded."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from sidmill.formats import embedding_shards

pytestmark = pytest.mark.workflow

TINY = ("--configfile", "tests/configs/tiny.yaml")
AIMS = ("--", "results/churn.json", "results/version.json", "results/plots/churn.svg")


@pytest.fixture(scope="module")
def folder(make_workflow):
    """Version 1 of 190 of the demo's items, published."""
    workflow = make_workflow()
    workflow.run(*TINY, "--", "results/demo/items.jsonl")
    lines = workflow.bytes("demo/items.jsonl").decode().splitlines()
    items = [json.loads(line) for line in lines]
    catalogue(workflow, items[:190])
    overlay(workflow, None)
    workflow.run(*TINY, "own.yaml", "--", "results/version.json")
    publish(workflow, "versions/1")
    workflow.items = items
    return workflow


def catalogue(workflow, items):
    workflow.overlay("items.jsonl", "".join(json.dumps(item) + "\n" for item in items))


def overlay(workflow, path, **embedding):
    settings = {
        "items": {"path": "items.jsonl"},
        "published": {"path": path},
        "embedding": embedding,
    }
    workflow.overlay("own.yaml", json.dumps(settings))


def publish(workflow, name):
    environment = os.environ | {"PYTHONPATH": str(workflow.folder / "src")}
    words = [sys.executable, "-m", "sidmill", "publish", name]
    return subprocess.run(words, cwd=workflow.folder, env=environment, check=True)


def sids(folder):
    table = pq.read_table(folder / "pid2sid.parquet")
    return dict(zip(table["pid"].to_pylist(), map(tuple, table["sid"].to_pylist()), strict=True))


def vectors(folder):
    paths = sorted((folder / "embeddings.parquet").glob("part-*"))
    blocks = [block for path in paths for block in embedding_shards.read(path)]
    ids = [pid for pids, _ in blocks for pid in pids.to_pylist()]
    return dict(zip(ids, np.concatenate([part for _, part in blocks]), strict=True))


def embedded(workflow):
    """How many items the shards of the last run kept and embedded."""
    logs = workflow.folder.glob("results/logs/embed_shard.items.*.log")
    lines = "".join(path.read_text() for path in logs)
    found = re.findall(r"(\d+) items keep their published vector, (\d+) are embedded", lines)
    return np.array(found, dtype=int).sum(axis=0).tolist()


@pytest.mark.long
def test_versions_of_a_catalogue(folder):
    """Version 2: ten new, two changed, five removed. Version 3: two are back, in other shards."""
    items, first = folder.items, sids(folder.folder / "versions/1")
    changed = [item | {"description": "of quite another kind"} for item in items[20:22]]
    catalogue(folder, [*items[195:], *changed, *items[5:20], *items[22:195]])
    overlay(folder, "versions/1")
    assert not folder.planned(*TINY, "own.yaml", *AIMS) & {"train_rqkmeans", "fit_lsa"}
    folder.run(*TINY, "own.yaml", *AIMS)
    second = sids(folder.folder / "results")
    assert len(second) == len(set(second.values())) == 195
    assert all(second[pid] == sid for pid, sid in first.items() if pid in second)
    assert embedded(folder) == [183, 12]
    old = vectors(folder.folder / "versions/1")
    new = vectors(folder.folder / "results/items")
    same = {item["item_id"] for item in [*items[5:20], *items[22:190]]}
    assert all(old[pid].tobytes() == new[pid].tobytes() for pid in same)
    report = json.loads(folder.bytes("churn.json"))
    counts = {"unchanged": 183, "new": 10, "changed": 2, "returned": 0, "removed": 5}
    assert {name: report["items"][name] for name in counts} == counts
    assert (report["sids"]["moved"], report["sids"]["reserved"]) == (0, 5)
    assert report["retrain"] in ("due", "not due")
    assert pq.read_table(folder.folder / "results/churn.parquet").num_rows == 17
    assert folder.planned(*TINY, "own.yaml", *AIMS) == set()

    publish(folder, "versions/2")
    catalogue(folder, items[3:])
    overlay(folder, "versions/2", shards=3)
    folder.run(*TINY, "own.yaml", *AIMS)
    third = sids(folder.folder / "results")
    assert all(third[pid] == sid for pid, sid in {**first, **second}.items() if pid in third)
    gone = {first[item["item_id"]] for item in items[:3]}
    assert gone.isdisjoint(third.values())
    report = json.loads(folder.bytes("churn.json"))
    assert (report["items"]["returned"], report["items"]["changed"]) == (2, 2)
    assert json.loads(folder.bytes("version.json"))["version"] == 3


def test_a_refresh_that_does_not_fit_a_version_is_refused_before_any_job(folder):
    own = {
        "items": {"path": "items.jsonl"},
        "published": {"path": "versions/1", "refresh": "align"},
    }
    for changed, words in (
        ({"rqkmeans": {"n_levels": 4}}, "has 4 levels, that of the version 3"),
        ({"rqkmeans": {"codebook_size": [16, 8, 16]}}, "level 2 has 8 codes, in the version 16"),
        ({"quantizer": "fsq", "fsq": {"steps": [3, 4]}}, "level 1 has 12 codes, in the version 16"),
    ):
        folder.overlay("own.yaml", json.dumps(own | changed))
        done = folder.snakemake(*TINY, "own.yaml", "--dry-run")
        assert done.returncode != 0
        assert words in done.stdout + done.stderr
    folder.overlay("own.yaml", json.dumps(own | {"rqkmeans": {"codebook_size": [16, 16, 32]}}))
    assert {"align_quantizer", "train_rqkmeans"} <= folder.planned(*TINY, "own.yaml", *AIMS)


def test_what_does_not_fit_a_version_is_refused(folder):
    shard = "results/items/embeddings.parquet/part-00000-of-00002.parquet"
    overlay(folder, "versions/1", normalize=False)
    done = folder.snakemake(*TINY, "own.yaml", "--", shard)
    assert done.returncode != 0
    assert "was embedded with other settings (normalize: True in the published version, " in (
        done.stdout + done.stderr
    )
    overlay(folder, "versions/9")
    done = folder.snakemake(*TINY, "own.yaml", "--dry-run")
    assert "published.path: no manifest.json in versions/9" in done.stdout + done.stderr
    ledger = folder.folder / "versions/1/ledger.parquet"
    content = ledger.read_bytes()
    ledger.unlink()
    ledger.write_bytes(content[:-1] + b"!")
    overlay(folder, "versions/1")
    done = folder.snakemake(*TINY, "own.yaml", "--", "results/published/match.parquet")
    assert "ledger.parquet" in done.stdout + done.stderr
    assert "was changed after it was published" in done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.parametrize("refresh", ["warm_start", "align"])
def test_a_version_is_refreshed_and_continued(make_workflow, refresh):
    """Publish, grow, refresh, publish; a run that is killed in between ends in the same bytes."""
    workflow = make_workflow()
    workflow.run(*TINY, "--", "results/demo/items.jsonl")
    lines = workflow.bytes("demo/items.jsonl").decode().splitlines()
    items = [json.loads(line) for line in lines]
    catalogue(workflow, items[:160])
    overlay(workflow, None)
    workflow.run(*TINY, "own.yaml", "--", "results/version.json")
    publish(workflow, "versions/1")
    first = sids(workflow.folder / "versions/1")

    # Forty more, five fewer; the run is killed once the quantizer is trained.
    catalogue(workflow, items[5:])
    settings = {"items": {"path": "items.jsonl"}, "published": {"path": "versions/1"}}
    settings["published"]["refresh"] = refresh
    workflow.overlay("own.yaml", json.dumps(settings))
    trained = "rqkmeans_warm_start" if refresh == "warm_start" else "rqkmeans"
    workflow.kill_when(f"{trained}/quantizer.safetensors", *TINY, "own.yaml", *AIMS)
    workflow.run("--unlock", *TINY, "own.yaml")
    workflow.run("--rerun-incomplete", *TINY, "own.yaml", *AIMS)
    assert workflow.planned(*TINY, "own.yaml", *AIMS) == set()
    second = sids(workflow.folder / "results")
    report = json.loads(workflow.bytes("churn.json"))
    stay = sum(second[pid] == sid for pid, sid in first.items() if pid in second)
    assert stay == report["sids"]["kept"] == report["refresh"]["with_alignment"]["sids"]
    assert report["refresh"]["published_items"] == 155
    assert report["refresh"]["without_alignment"]["sids"] < stay
    assert report["sids"]["moved"] == report["sids"]["left"] == 155 - stay
    assert len(set(second.values())) == 195
    gone = {first[item["item_id"]] for item in items[:5]}
    assert gone.isdisjoint(second.values())
    if refresh == "warm_start":
        assert stay > 0.6 * 155
    whole = workflow.bytes("pid2sid.parquet"), workflow.bytes("refreshed/quantizer.safetensors")
    workflow.run("--forceall", *TINY, "own.yaml", "--", "results/pid2sid.parquet")
    again = workflow.bytes("pid2sid.parquet"), workflow.bytes("refreshed/quantizer.safetensors")
    assert again == whole

    # The refreshed version is continued like any other: nothing moves, and items return.
    workflow.run(*TINY, "own.yaml", *AIMS)
    publish(workflow, "versions/2")
    catalogue(workflow, items)
    overlay(workflow, "versions/2")
    workflow.run(*TINY, "own.yaml", *AIMS)
    third = sids(workflow.folder / "results")
    assert all(third[pid] == sid for pid, sid in second.items())
    assert all(third[item["item_id"]] == first[item["item_id"]] for item in items[:5])
