"""The section on RO-Crates in docs/observability.md: a crate of a run, as the plugin writes it.

Skipped without the plugin: ``make recipes`` installs it.
"""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

plugin = pytest.importorskip("snakemake_report_plugin_fairscape", reason="make recipes installs it")

pytestmark = pytest.mark.workflow

TINY = ("--configfile", "tests/configs/tiny.yaml")
LINE = re.search(
    r"^    (snakemake .*--reporter fairscape.*)$",
    (ROOT / "docs/observability.md").read_text(encoding="utf-8"),
    re.M,
)[1]


@pytest.fixture(scope="module")
def run(make_workflow):
    """A finished run, its folder, and the entities of its crate by id."""
    workflow = make_workflow()
    workflow.run(*TINY)
    command = workflow.command(*TINY, *shlex.split(LINE)[1:], cores=())
    packages = str(Path(plugin.__file__).parents[1])
    command["env"]["PYTHONPATH"] = packages + os.pathsep + os.environ.get("PYTHONPATH", "")
    done = subprocess.run(**command, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    crate = json.loads((workflow.folder / "ro-crate-metadata.json").read_text(encoding="utf-8"))
    return workflow.folder, {entity["@id"]: entity for entity in crate["@graph"]}


def of_kind(entities, kind):
    return [one for one in entities.values() if any(kind in each for each in one["@type"])]


def test_files_have_the_sizes_that_they_have(run):
    folder, entities = run
    files = [one for one in of_kind(entities, "EVI#Dataset") if "contentUrl" in one]
    results = [one for one in files if one["contentUrl"].startswith("results/")]
    assert {"pid2sid.parquet", "quality.json"} <= {one["name"] for one in results}
    for one in results:
        path = folder / one["contentUrl"]  # paths are relative to the crate
        if path.is_file():
            assert int(one["contentSize"]) == path.stat().st_size, one["name"]
    assert sum((folder / one["contentUrl"]).is_file() for one in results) >= 12


def test_sids_lead_back_to_the_catalogue_job_by_job(run):
    _, entities = run
    (start,) = (one for one in entities.values() if one.get("name") == "pid2sid.parquet")
    seen, jobs, open_files = set(), set(), [start["@id"]]
    while open_files:
        entity = entities[open_files.pop()]
        for made in listed(entity.get("generatedBy")):
            jobs.add(entities[made["@id"]]["name"].partition(" ")[0])
            for used in listed(entities[made["@id"]].get("usedDataset")):
                if used["@id"] not in seen:
                    seen.add(used["@id"])
                    open_files.append(used["@id"])
    assert {"write_demo", "render_text", "train_rqkmeans", "resolve_collisions"} <= jobs
    assert "measure_quality" not in jobs  # which reads SIDs
    assert "items.jsonl" in {entities[one]["name"] for one in seen}


def listed(value):
    return value if isinstance(value, list) else [] if value is None else [value]


def test_jobs_have_their_settings_and_who_ran_them_is_what_was_given(run):
    _, entities = run
    jobs = of_kind(entities, "EVI#Computation")
    (training,) = (one for one in jobs if one["name"].startswith("train_rqkmeans"))
    assert any("'codebook_size': 16" in one for one in training["parameter"])
    assert {one["runBy"] for one in jobs} == {"NAME"}
    (root,) = (one for one in of_kind(entities, "EVI#ROCrate"))
    assert root["license"] == "https://spdx.org/licenses/CC0-1.0"
