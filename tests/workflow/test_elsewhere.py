"""A run in another folder than the workflow's, with --directory or --snakefile."""

import json
import os
import shlex
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
import yaml

from sidmill.items import demo
from sidmill.settings.items import Demo

pytestmark = pytest.mark.workflow

OVERLAY = """
items: {path: data/items.jsonl, id_field: item_id, fields: [title, brand, description]}
embedding: {dim: 16, shards: 1}
rqkmeans: {codebook_size: 16, n_iter: 5}
quality: {neighbour_queries: 50, neighbours: 5}
"""


@pytest.fixture
def places(workflow, tmp_path):
    """The workflow, a folder to call it from with an overlay, and one with data to work in."""
    caller, work = tmp_path / "call er", tmp_path / "work here"
    for folder in (caller, work / "data"):
        folder.mkdir(parents=True)
    (caller / "my.yaml").write_text(OVERLAY)
    sizes = Demo(n_items=200, n_users=10)
    demo.write(work / "data/items.jsonl", work / "data/log.jsonl", sizes, seed=1)
    return workflow.folder, caller, work


def call(folder, program, *words):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if program == "sidmill":  # it is not installed in every environment of the tests
        environment["PYTHONPATH"] = words[0]
        words = words[1:]
    return subprocess.run(
        [sys.executable, "-m", program, *words],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_the_default_target_runs_reports_and_is_told_of_in_another_folder(places):
    """Paths in overlays are relative to it; the workflow's own files are found from anywhere."""
    root, caller, work = places
    snakefile, source = str(root / "Snakefile"), str(root / "src")
    before = {path.name for path in root.iterdir()}
    apart = ("--snakefile", snakefile, "--directory", str(work))

    done = call(caller, "snakemake", "--cores", "2", *apart, "--configfile", "my.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert pq.read_table(work / "results/pid2sid.parquet").num_rows == 200
    assert (work / "results/explorer.html").is_file()
    assert {path.name for path in root.iterdir()} - before <= {".snakemake"}
    assert not (root / "results").exists()
    assert sorted(path.name for path in caller.iterdir()) == ["my.yaml"]

    # The same run from within the folder, and from the workflow's, has nothing to do.
    inside = ("--snakefile", snakefile, "--configfile", "../call er/my.yaml")
    own = ("--directory", str(work), "--configfile", str(caller / "my.yaml"))
    for folder, words in ((work, inside), (root, own)):
        again = call(folder, "snakemake", "--cores", "1", "--dry-run", *words)
        assert "Nothing to be done" in again.stdout + again.stderr, again.stdout + again.stderr

    report = call(caller, "snakemake", *apart, "--configfile", "my.yaml", "--report", "r.html")
    assert report.returncode == 0, report.stderr
    assert "SID explorer" in (work / "r.html").read_text(encoding="utf-8")

    # `status` follows, and its last line is a command that works where it is given.
    told = call(caller, "sidmill", source, "status", "--json", *apart, "--configfile", "my.yaml")
    assert set(json.loads(told.stdout)["states"]) == {"done"}, told.stdout + told.stderr
    (work / "results/explorer.html").unlink()
    lines = call(work, "sidmill", source, "status", *inside[2:])
    assert lines.returncode == 1
    command = lines.stdout.strip().rpartition("to continue: ")[2]
    done = call(work, "snakemake", *shlex.split(command)[1:])
    assert done.returncode == 0, done.stdout + done.stderr
    assert (work / "results/explorer.html").is_file()

    # A file that no run made is not replaced; one that a run made is.
    def run(index):
        (caller / "index.yaml").write_text(f"index: {{path: {index}}}\n")
        words = ("--cores", "2", *apart, "--force", "results/pid2sid.parquet")
        return call(caller, "snakemake", *words, "--configfile", "my.yaml", "index.yaml")

    mine = work / "mine.json"
    mine.write_text('{"1": ["<a_1>"]}')
    refused = run("mine.json")
    assert refused.returncode != 0
    assert "mine.json: this run would write there, and no run in this folder" in refused.stderr
    assert mine.read_text() == '{"1": ["<a_1>"]}'
    assert run("new.json").returncode == run("new.json").returncode == 0
    assert len(json.loads((work / "new.json").read_text())) == 200
    mine.rename(work / "moved.json")
    assert run("mine.json").returncode == 0


MODULE = """
import yaml
from snakemake.utils import update_config

configfile: "mine.yaml"

with open("{root}/config.yaml") as file:
    settings = yaml.safe_load(file)
update_config(settings, config["sidmill"])

module sidmill:
    snakefile: "{root}/Snakefile"
    config: settings

use rule * from sidmill as sidmill_*

rule copy:
    default_target: True
    input: "results/pid2sid.parquet"
    output: "copy.parquet"
    shell: "cp {{input}} {{output}}"
"""


def test_rules_run_as_a_module_of_another_workflow_and_leave_what_they_leave_alone(places):
    """Settings reach the rules and their scripts; the workflow itself then has nothing to do."""
    root, caller, work = places
    settings = {"sidmill": yaml.safe_load(OVERLAY), "threshold": 0.5}
    (work / "mine.yaml").write_text(yaml.safe_dump(settings))
    (work / "Snakefile").write_text(MODULE.format(root=root))
    done = call(work, "snakemake", "--cores", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert pq.read_table(work / "copy.parquet").num_rows == 200

    apart = ("--snakefile", str(root / "Snakefile"), "--configfile", str(caller / "my.yaml"))
    again = call(work, "snakemake", "--dry-run", "results/pid2sid.parquet", *apart)
    assert "Nothing to be done" in again.stdout + again.stderr, again.stdout + again.stderr


TABLE = """
import pandas as pd

rule table:
    output: "table.txt"
    params: table=pd.DataFrame({{"n": [{values}]}})
    script: "table.py"
"""


def test_another_workflow_may_have_tables_among_its_params(places):
    """A job gets the table, and another table is a reason to rerun."""
    root, _, work = places
    (work / "mine.yaml").write_text(yaml.safe_dump({"sidmill": yaml.safe_load(OVERLAY)}))
    (work / "table.py").write_text(
        "with open(snakemake.output[0], 'w') as file:\n"
        "    table = snakemake.params.table\n"
        "    file.write(f'{type(table).__name__} {table.n.sum()}')\n"
    )
    asked = ("snakemake", "--cores", "1", "--rerun-triggers", "params", "--", "table.txt")
    for values in ("1, 2", "1, 2", "1, 3"):
        (work / "Snakefile").write_text(MODULE.format(root=root) + TABLE.format(values=values))
        done = call(work, *asked)
        assert done.returncode == 0, done.stdout + done.stderr
        total = sum(map(int, values.split(", ")))
        assert (work / "table.txt").read_text() == f"DataFrame {total}"
    assert call(work, *asked).stderr.count("Nothing to be done") == 1
