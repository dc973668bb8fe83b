"""The category level in the workflow: SIDs, datasets, explorer, reruns, and published versions."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from sidmill.formats import quantizer_file

pytestmark = pytest.mark.workflow

TINY = ("--configfile", "tests/configs/tiny.yaml")
LEVEL = {"field": "categories", "depth": 2, "size": 24}
AFTER_LEVEL = {
    "train_rqkmeans", "encode_items", "choose_codes", "resolve_collisions", "measure_quality",
    "plot_quality", "explore_sids", "all",
}  # fmt: skip


def overlay(workflow, settings, name="own.yaml"):
    return workflow.overlay(name, json.dumps(settings))


def column(workflow, name, values):
    table = pq.read_table(workflow.folder / "results" / name)
    return dict(zip(table["pid"].to_pylist(), table[values].to_pylist(), strict=True))


def owners_of_codes(categories):
    """The number of the category of each code."""
    names = [re.sub(r" \(\d+ of \d+\)$", "", name) for name in categories.code_names()]
    return [categories.names.index(name) for name in names]


def test_no_field_makes_no_rule_of_the_level(workflow):
    planned = workflow.planned(*TINY)
    assert not planned & {"read_categories", "fit_categories"}
    own = overlay(workflow, {"category_level": {"size": 3, "depth": 2, "min_load": 0.0}})
    assert workflow.planned(*TINY, own) == planned
    own = overlay(workflow, {"category_level": LEVEL})
    assert workflow.planned(*TINY, own) == planned | {"read_categories", "fit_categories"}


def test_a_column_that_the_catalogue_lacks_is_refused_before_any_job(workflow):
    workflow.overlay("items.csv", "item_id,title,brand\n1,one,x\n2,two,y\n")
    own = {"items": {"path": "items.csv"}, "category_level": {"field": "kind"}}
    done = workflow.snakemake("--dry-run", *TINY, overlay(workflow, own))
    assert done.returncode != 0
    assert "has a column 'kind': the first row has item_id, title, brand" in (
        done.stdout + done.stderr
    )


def test_a_killed_fit_ends_in_the_same_bytes(workflow):
    files = ("items/category_level.safetensors", "items/residuals.npy")
    log = "logs/fit_categories.log"
    asked = (*TINY, overlay(workflow, {"category_level": LEVEL}), "--", f"results/{files[0]}")
    workflow.run(*asked)
    before = [workflow.bytes(file) for file in files]
    for file in (*files, "items/residual_ids.parquet", log):
        (workflow.folder / "results" / file).unlink()
    workflow.kill_when(log, *asked)
    workflow.run(*asked)
    assert [workflow.bytes(file) for file in files] == before
    assert not list((workflow.folder / "results").rglob(".*partial"))


def test_a_run_with_categories_its_reruns_and_its_versions(workflow):
    # Version 1: 190 of the 200 items, through SIDs, explorer, datasets and a comparison.
    workflow.run(*TINY, "--", "results/demo/items.jsonl", "results/demo/interactions.jsonl")
    rows = [json.loads(line) for line in workflow.bytes("demo/items.jsonl").splitlines()]

    def write(chosen):
        workflow.overlay("items.jsonl", "".join(json.dumps(row) + "\n" for row in chosen))

    write(rows[:190])
    members = ["rqkmeans", "rqkmeans_plus", "opq", "pca_grid"]
    own = {
        "items": {"path": "items.jsonl"},
        "interactions": {
            "path": "results/demo/interactions.jsonl", "on_unknown_items": "reject"
        },
        "category_level": LEVEL,
        "comparison": {"members": members},
    }  # fmt: skip
    name = overlay(workflow, own)
    workflow.run(*TINY, name)
    workflow.run(
        *TINY, name, "--", "results/datasets/sft_video_rec", "results/trie.safetensors",
        "results/comparison.json",
    )  # fmt: skip
    assert workflow.planned(*TINY, name) == set()
    assert workflow.faults() == []

    # The first token says the category; the others come after it, for every quantizer.
    fitted = quantizer_file.read(workflow.folder / "results/rqkmeans/quantizer.safetensors")
    names = column(workflow, "items/categories.parquet", "category")
    assert names[1] == " > ".join(rows[0]["categories"][:2])
    owners, codes = owners_of_codes(fitted.categories), column(workflow, "codes.parquet", "codes")
    sids = column(workflow, "pid2sid.parquet", "sid")
    for pid, code in codes.items():
        assert owners[code[0]] == fitted.categories.numbers[names[pid]]
        assert sids[pid][0] == code[0]
    assert len(set(map(tuple, sids.values()))) == 190
    compared = json.loads(workflow.bytes("comparison.json"))
    assert compared["codebook_sizes"] == [24, 16, 16, 16]
    for member in compared["members"]:
        assert member["codebook_sizes"][0] == len(fitted.codebooks[0])
        others = column(workflow, f"{member['name']}/codes.parquet", "codes")
        assert {pid: code[0] for pid, code in others.items()} == {
            pid: code[0] for pid, code in codes.items()
        }
        losses = member["relative_loss_by_level"]
        assert losses[-1] < losses[0] < 1

    # Readers of SIDs know nothing of the level but its names.
    page = workflow.bytes("explorer.html").decode()
    found = json.loads(re.search(r'"first_names":(\[.*?\])', page)[1])
    assert found == fitted.categories.code_names()
    text = (workflow.folder / "results/datasets/sft_video_rec").glob("*.parquet")
    sample = pq.read_table(sorted(text)[0]).slice(0, 1).to_pylist()[0]
    tokens = re.findall(r"<s_a_(\d+)><s_b_\d+><s_c_\d+><s_d_\d+>", str(sample))
    assert tokens
    assert {int(token) for token in tokens} <= set(range(len(fitted.codebooks[0])))

    # A change of a science setting reruns what follows, another one nothing.
    def changed(**settings):
        return overlay(workflow, own | {"category_level": LEVEL | settings}, "changed.yaml")

    assert workflow.planned(*TINY, changed(memory_mb=99)) == set()
    assert workflow.planned(*TINY, changed(size=20)) == {"fit_categories"} | AFTER_LEVEL
    assert "read_categories" in workflow.planned(*TINY, changed(depth=1))

    workflow.run(*TINY, name, "--", "results/version.json")
    environment = os.environ | {"PYTHONPATH": str(workflow.folder / "src")}
    words = [sys.executable, "-m", "sidmill", "publish", "versions/1"]
    subprocess.run(words, cwd=workflow.folder, env=environment, check=True)

    # Version 2: of the ten new items some have an unknown category, some have none.
    new = [dict(row) for row in rows[190:]]
    for row in new[:3]:
        row["categories"] = ["Never", "Seen"]
    for row in new[3:6]:
        del row["categories"]
    write([*rows[:190], *new])
    own["published"] = {"path": "versions/1"}
    workflow.run(*TINY, overlay(workflow, own), "--", "results/version.json")
    after = column(workflow, "pid2sid.parquet", "sid")
    assert {pid: after[pid] for pid in sids} == sids
    assert len(set(map(tuple, after.values()))) == 200
    later = column(workflow, "codes.parquet", "codes")
    vectors = np.load(workflow.folder / "results/items/vectors.npy")
    for number, row in enumerate(new):
        owner = owners[later[row["item_id"]][0]]
        if number >= 6:
            assert owner == fitted.categories.numbers[" > ".join(row["categories"][:2])]
        else:
            distances = np.square(fitted.categories.means - vectors[190 + number]).sum(axis=1)
            assert owner == distances.argmin()

    # Another level than the published one is refused before any job.
    for level in ({"field": None}, LEVEL | {"field": "brand"}, LEVEL | {"depth": 1}):
        other = overlay(workflow, own | {"category_level": level})
        refused = workflow.snakemake("--dry-run", *TINY, other)
        assert refused.returncode != 0
        told = refused.stdout + refused.stderr
        assert "than that of published.path: versions/1 (" in told
        (key,) = [key for key in ("field", "depth") if level.get(key) != LEVEL[key]][:1]
        assert f"{key}: {LEVEL[key]!r} in that version, {level.get(key)!r} in the conf" in told
