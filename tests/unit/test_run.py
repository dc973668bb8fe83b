"""run.json: no row is lost unseen, each job counts once, and no secret stands in it."""

import json
import os
import runpy
import shutil
import subprocess
import tomllib
from types import SimpleNamespace
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT

from sidmill.core.atomic import write_text
from sidmill.core.checkout import commit_of
from sidmill.core.errors import SidmillError
from sidmill.core.secrets import shown_settings
from sidmill.datasets.mix import mix
from sidmill.formats import (
    benchmark_table,
    code_files,
    embedding_shards,
    item_text,
    vector_store,
)
from sidmill.io import json_report
from sidmill.items.render import render
from sidmill.report import flow, run
from sidmill.settings.datasets import Mixture
from sidmill.settings.items import Items

PRINT = {"backend": "precomputed", "model": "mine", "dim": 2}


def at(path, second):
    """Set when a file was written."""
    os.utime(path, (1e9 + second, 1e9 + second))


@pytest.fixture
def results(tmp_path):
    """Three items and a reject, through every stage to their SIDs."""
    folder = tmp_path / "results"
    rows = [{"id": n, "title": f"item {n}"} for n in (1, 2, 3)] + [{"id": 3, "title": "again"}]
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, rows)))
    asked = {"id_field": "id", "fields": ["title"], "on_bad_rows": "reject", "max_reject_share": 1}
    items = Items(path=str(tmp_path / "items.jsonl"), **asked)
    render(folder / "items/text.parquet", folder / "items/rejects.parquet", items)
    ids = pa.chunked_array([pa.array([1, 2, 3])])
    rows = np.eye(3, 2, dtype=np.float32)
    for shard, (first, last) in enumerate([(0, 1), (1, 3)]):
        part = folder / f"items/embeddings.parquet/part-{shard:05d}-of-00002.parquet"
        block = (ids.slice(first, last - first), rows[first:last])
        embedding_shards.write(part, pa.int64(), PRINT, [block])
    vector_store.write(folder / "items/vectors.npy", (3, 2), "float32", [rows])
    vector_store.write_ids(folder / "items/ids.parquet", ids, (3, 2), PRINT)
    sids = np.array([[0], [1], [2]], dtype=np.int32)
    for name, column in (("rqkmeans/codes", "codes"), ("codes", "codes"), ("pid2sid", "sid")):
        code_files.write(folder / f"{name}.parquet", column, ids, [sids], [3])
    (folder / "benchmarks").mkdir()
    for name, seconds in (("render_text", 1.5), ("embed_shard.items.00000-of-00002", 2)):
        (folder / f"benchmarks/{name}.tsv").write_text(f"s\tmax_rss\n{seconds}\t30\n")
    return folder


def test_rows_are_followed_through_every_stage(results):
    stages = {stage.name: stage for stage in flow.follow(results)}
    assert stages["read items"][1:4] == (4, 3, 1)
    assert set(stages) == {
        "read items", "embed items", "store items", "encode with rqkmeans", "resolve collisions",
    }  # fmt: skip
    assert all(stage.holds for stage in stages.values())


def rewrite(results, name, n_items):
    ids = pa.chunked_array([pa.array(range(1, n_items + 1))])
    rows = np.zeros((n_items, 1), dtype=np.int32)
    code_files.write(results / name, "codes", ids, [rows], [3])


def test_a_stage_that_lost_a_row_is_named(results):
    rewrite(results, "rqkmeans/codes.parquet", 2)
    with pytest.raises(SidmillError, match=r"'encode with rqkmeans': 3 in, but 2 out"):
        flow.follow(results)
    rewrite(results, "rqkmeans/codes.parquet", 3)
    item_text.write(results / "items/text.parquet", pa.int64(), [])
    with pytest.raises(SidmillError, match=r"'read items': 4 in, but 0 out \+ 1 rejects"):
        run.describe(results, results, {})


def test_what_a_later_run_has_yet_to_make_anew_is_stale_and_no_loss(results):
    """A resumed run was stopped after new codes: pid2sid.parquet is still of the old ones."""
    rewrite(results, "codes.parquet", 2)
    at(results / "codes.parquet", 2)
    at(results / "pid2sid.parquet", 1)
    last = flow.follow(results)[-1]
    assert (last.name, last.stale, last.holds) == ("resolve collisions", True, None)


def test_shards_of_an_unfinished_number_do_not_count(results):
    folder = results / "items/embeddings.parquet"
    shutil.copy2(folder / "part-00000-of-00002.parquet", folder / "part-00000-of-00003.parquet")
    assert all(stage.holds for stage in flow.follow(results))
    (folder / "part-00001-of-00002.parquet").unlink()
    assert "embed items" not in {stage.name for stage in flow.follow(results)}


def test_interactions_and_datasets_account_for_every_row(tmp_path):
    counts = {"read": 10, "added": 2, "written": 9, "left_out": {"no_history": 3}}
    json_report.write(tmp_path / "datasets/counts/sft_video_rec.json", counts)
    (stage,) = flow.follow(tmp_path)
    assert stage.holds
    json_report.write(tmp_path / "datasets/counts/sft_video_rec.json", counts | {"written": 8})
    with pytest.raises(SidmillError, match=r"'dataset sft_video_rec': 10 in, but 8 out"):
        flow.follow(tmp_path)


def test_a_mixture_is_told_and_held_to_nothing(tmp_path):
    rows = [{"uuid": str(UUID(int=n)), "metadata": f'{{"uid": {n}}}'} for n in range(6)]
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name / "part-00000-of-00001.parquet")
    settings = Mixture(weights={"a": 2, "b": 1})
    folders = [tmp_path / "a", tmp_path / "b"]
    counts = mix(folders, tmp_path / "train", tmp_path / "test", settings, 0)
    json_report.write(tmp_path / "datasets/counts/mixture.json", counts)
    (stage,) = flow.follow(tmp_path)
    assert stage[:3] == ("mix mixture", None, 18)
    assert stage.holds is None


def test_times_of_shards_are_summed_and_memory_is_the_largest(tmp_path):
    times = {"a.items.00000-of-00002": (1, "10"), "a.items.00001-of-00002": (2, "30"),
             "a.items.00000-of-00001": (9, "99"), "a.corpus.00000-of-00001": (4, "-"),
             "b": (5, "NA"), "c.x.y": (6, "7")}  # fmt: skip
    for second, (name, (seconds, peak)) in enumerate(times.items()):
        path = tmp_path / f"{name}.tsv"
        path.write_text(f"s\tmax_rss\n{seconds}\t{peak}\n")
        at(path, second if name != "a.items.00000-of-00001" else -1)  # left from before
    found = {(time.rule, time.what): time[2:5] for time in benchmark_table.gather(tmp_path)}
    assert found == {
        ("a", "items"): (2, 3, 30), ("a", "corpus"): (1, 4, None), ("b", ""): (1, 5, None),
        ("c", "x.y"): (1, 6, 7),
    }  # fmt: skip


def test_a_run_is_described(results, monkeypatch):
    monkeypatch.setenv("WEB_TOKEN", "0123456789")
    settings = shown_settings({"b": ["https://me:pw@host/0123456789"], "a": {"y": 1, "x": None}})
    told = run.describe(results, results, settings)
    assert list(told["settings"]) == ["a", "b"]
    assert told["settings"]["b"] == ["https://***@host/***"]
    assert told["fingerprints"] == {str(results / "items/vectors.npy"): PRINT}
    assert told["git"] is None
    assert told["versions"]["numpy"] == np.__version__
    assert told["seconds"] == 3.5
    files = {one["path"].removeprefix(f"{results}/"): one for one in told["artefacts"]}
    assert files["items/embeddings.parquet"]["files"] == 2
    assert len(files["pid2sid.parquet"]["sha256"]) == 64
    assert not any(name.startswith("benchmarks") for name in files)
    json.dumps(told, allow_nan=False)


def test_the_same_files_have_the_same_hash_and_others_another(results):
    first = {one["path"]: one["sha256"] for one in run.artefacts(results)}
    rewrite(results, "codes.parquet", 2)
    second = {one["path"]: one["sha256"] for one in run.artefacts(results)}
    assert {path for path in first if first[path] != second[path]} == {
        str(results / "codes.parquet")
    }


def test_states_of_trainings_and_hidden_files_are_no_artefacts(results):
    names = ("dual/first/model.state/checkpoint-5/trainer.json", "rqkmeans/q.safetensors.state")
    for name in (*names, ".cache/x.json", "items/.part.partial"):
        write_text(results / name, "{}")
    found = {one["path"].removeprefix(f"{results}/") for one in run.artefacts(results)}
    assert not [path for path in found if ".state" in path or "/." in path or path[0] == "."]
    assert "pid2sid.parquet" in found


def test_the_script_tells_commit_and_version_of_the_checkout(results, tmp_path):
    """It is given its folder as Snakemake gives it, with a step back in the middle."""
    checkout = tmp_path / "check out"
    for name in ("workflow/scripts/describe_run.py", "pyproject.toml", "Snakefile"):
        write_text(checkout / name, (ROOT / name).read_text(encoding="utf-8"))
    project = checkout / "pyproject.toml"
    version = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"]
    project.write_text(project.read_text().replace(f'version = "{version}"', 'version = "98.7"'))
    (checkout / "workflow/rules").mkdir()
    git(checkout, "init", "--quiet")
    git(checkout, "add", "Snakefile")
    git(checkout, "commit", "--quiet", "--message", "first")
    given = SimpleNamespace(
        rule="describe_run",
        log=[str(tmp_path / "describe_run.log")],
        input=SimpleNamespace(template=str(ROOT / "workflow/resources/runs.html.jinja")),
        output=SimpleNamespace(
            run=str(results / "run.json"),
            history=str(results / "runs.jsonl"),
            page=str(results / "runs.html"),
        ),
        params=SimpleNamespace(settings={}, explorer={"title": "Semantic IDs"}),
        scriptdir=str(checkout / "workflow/rules/../scripts"),
    )
    script = checkout / "workflow/scripts/describe_run.py"
    runpy.run_path(str(script), init_globals={"snakemake": given})
    told = json_report.read(results / "run.json")
    assert told["git"] == commit_of(checkout, "Snakefile")._asdict()
    assert told["versions"]["sidmill"] == "98.7"


def git(folder, *words):
    names = ("-c", "user.name=me", "-c", "user.email=me@host", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", folder, *names, *words], check=True, capture_output=True)


def test_the_commit_is_told_and_whether_the_tree_is_dirty(tmp_path):
    (tmp_path / "Snakefile").write_text("")
    assert commit_of(tmp_path, "Snakefile") is None
    git(tmp_path, "init", "--quiet")
    assert commit_of(tmp_path, "Snakefile") is None
    git(tmp_path, "add", "Snakefile")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    commit = commit_of(tmp_path, "Snakefile")
    assert (len(commit.commit), commit.dirty) == (40, False)
    (tmp_path / "new").write_text("untracked")
    assert not commit_of(tmp_path, "Snakefile").dirty
    (tmp_path / "Snakefile").write_text("changed")
    assert commit_of(tmp_path, "Snakefile").dirty
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy/Snakefile").write_text("")
    assert commit_of(tmp_path / "copy", "Snakefile") is None
