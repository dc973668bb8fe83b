"""SIDs that exist, through the whole workflow; what users put into results/ stays theirs."""

import json
import re
import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.workflow

TINY = ("--configfile", "tests/configs/tiny.yaml")
N_ITEMS = 200


def sids_of(pid):
    return [pid % 7, pid % 5, pid % 11]  # some are shared


def write_index(path, ids, offset=0):
    path.parent.mkdir(exist_ok=True)
    index = {
        str(pid - offset): [
            f"<{letter}_{code}>" for letter, code in zip("abc", sids_of(pid), strict=True)
        ]
        for pid in ids
    }
    path.write_text(json.dumps(index))


def read_sids(workflow, name="pid2sid.parquet", column="sid"):
    table = pq.read_table(workflow.folder / "results" / name)
    return dict(zip(table["pid"].to_pylist(), table[column].to_pylist(), strict=True))


@pytest.fixture(scope="module")
def finished(make_workflow):
    """A run of given SIDs: everything that a plain run makes, and datasets."""
    workflow = make_workflow()
    workflow.run(*TINY, "--", "results/items/text.parquet")
    ids = pq.read_table(workflow.folder / "results/items/text.parquet")["pid"].to_pylist()
    workflow.ids = ids
    write_index(workflow.folder / "given/index.json", ids, offset=1)
    workflow.overlay(
        "given.yaml",
        "quantizer: given\ngiven: {path: given/index.json, id_offset: 1}\n"
        "collisions: {strategy: none}\ndatasets: {tasks: [sft_video_rec, sft_sid_to_title]}\n"
        "comparison: {members: [rqkmeans, given]}\n",
    )
    workflow.given = (*TINY, "given.yaml")
    return workflow


def test_given_sids_make_everything_and_nothing_is_embedded(finished):
    targets = ("results/datasets/report.json", "results/version.json")
    planned = finished.planned(*finished.given, "--", "all", *targets)
    unneeded = {"fit_lsa", "embed_shard", "store_vectors", "train_rqkmeans", "encode_items"}
    assert "import_given" in planned
    assert not planned & unneeded
    finished.run(*finished.given, "--", "all", *targets)

    assert read_sids(finished) == {pid: sids_of(pid) for pid in finished.ids}
    index = json.loads(finished.bytes("index.json"))
    assert index[str(finished.ids[0])][0] == f"<a_{sids_of(finished.ids[0])[0]}>"
    quality = json.loads(finished.bytes("quality.json"))
    assert quality["quantizer"] == "given"
    assert quality["resolution"]["items_moved"] == 0
    assert quality["after"]["mse"] is quality["after"]["relative_loss"] is None
    assert set(quality["not_measured"]) == {"mse, relative_loss", "dim, neighbours"}
    assert quality["after"]["distinct"] == len(set(map(tuple, read_sids(finished).values())))
    assert b"not measured" not in finished.bytes("plots/code_usage.svg")
    assert (finished.folder / "results/explorer.html").stat().st_size > 10_000
    report = json.loads(finished.bytes("datasets/report.json"))
    assert all(one["written"] for one in report["datasets"].values())
    assert finished.planned(*finished.given, "--", "all", *targets) == set()


def test_given_sids_are_compared_with_others(finished):
    name = finished.overlay("budget.yaml", "rqkmeans: {codebook_size: 16}\n")
    finished.run(*finished.given, name, "--", "results/comparison.json")
    compared = json.loads(finished.bytes("comparison.json"))
    ours, theirs = compared["members"]
    assert (ours["name"], theirs["name"]) == ("rqkmeans", "given")
    for key in ("relative_loss", "jaccard", "rbo", "seconds", "peak_mib"):
        assert theirs[key] is None
        assert key == "peak_mib" or ours[key] is not None
    assert theirs["neighbours_1"] is not None
    assert "–" in (finished.folder / "results/comparison.md").read_text()


def test_a_version_of_given_sids_goes_on(finished):
    """Published SIDs stay; the next file brings those of the new items."""
    finished.run(*finished.given, "--", "results/version.json")
    publish = [sys.executable, "-m", "sidmill", "publish", "versions/1"]
    done = subprocess.run(
        publish, **{key: finished.command()[key] for key in ("cwd", "text")},
        env=finished.command()["env"] | {"PYTHONPATH": str(finished.folder / "src")},
        capture_output=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    onward = finished.overlay("onward.yaml", "published: {path: versions/1, removed: release}\n")
    finished.run(*finished.given, onward, "--", "results/churn.json", "results/plots/churn.svg")
    churn = json.loads(finished.bytes("churn.json"))
    assert churn["items"]["unchanged"] == N_ITEMS
    assert churn["drift"]["levels"][0]["relative_loss"]["all"] is None

    other = finished.snakemake(*TINY, onward, "-n")
    assert other.returncode
    assert "set quantizer: given" in other.stdout + other.stderr


def test_what_users_put_into_results_is_never_written_over(make_workflow):
    """Fault, message, what it says to do, and it works."""
    workflow = make_workflow()
    workflow.run(*TINY, "--", "results/items/text.parquet")
    ids = pq.read_table(workflow.folder / "results/items/text.parquet")["pid"].to_pylist()
    path = workflow.folder / "results/pid2sid.parquet"
    pq.write_table(pa.table({"pid": ids, "sid": [sids_of(pid) for pid in ids]}), path)
    before = path.read_bytes()
    done = workflow.snakemake(*TINY, "--", "results/quality.json")
    said = done.stdout + done.stderr
    assert done.returncode
    assert "results/pid2sid.parquet: this run would write there" in said
    assert path.read_bytes() == before
    assert not (workflow.folder / "results/items/vectors.npy").exists()

    command = re.search(r"for instance: (.*?)\. To work", said)[1]
    subprocess.run(command, shell=True, cwd=workflow.folder, check=True)
    setting = re.search(r"set (quantizer: given) and given\.path: (\S+)", said)
    overlay = f"{setting[1]}\ngiven: {{path: {setting[2]}}}\ncollisions: {{strategy: none}}\n"
    given = (*TINY, workflow.overlay("given.yaml", overlay))
    workflow.run(*given, "--", "results/quality.json")
    assert read_sids(workflow) == {pid: sids_of(pid) for pid in ids}

    # What a run made is made again without a word, any other file that a user puts there is not.
    path.unlink()
    workflow.run(*given, "--", "results/quality.json")
    workflow.run(*given, "--forcerun", "resolve_collisions", "--", "results/pid2sid.parquet")
    made = path.read_bytes()
    shutil.copy(workflow.folder / setting[2], path)
    done = workflow.snakemake(
        *given, "--forcerun", "resolve_collisions", "--", "results/index.json"
    )
    assert "results/pid2sid.parquet: this run would write there" in done.stdout + done.stderr
    path.write_bytes(made)
    workflow.run(*given, "--forcerun", "resolve_collisions", "--", "results/index.json")
    shutil.copy(workflow.folder / setting[2], workflow.folder / "results/ledger.parquet")
    done = workflow.snakemake(*given, "--forceall", "--", "results/ledger.parquet")
    assert "results/ledger.parquet: this run would write there" in done.stdout + done.stderr
