"""A published data set through the workflow: imported from a setting, then SIDs and histories."""

import json
import random

import pyarrow.parquet as pq
import pytest
from published_files import beir, write

pytestmark = pytest.mark.workflow

OVERLAY = "results/imported/movielens/overlay.yaml"
N_MOVIES = 60


@pytest.fixture(scope="module")
def imported(make_workflow):
    workflow = make_workflow()
    source = random.Random(0)
    words = [f"{a}{b}" for a in ("Red", "Blue", "Old", "New") for b in ("Sea", "Moon", "Road")]
    movies = "".join(
        f"{n}::{' '.join(source.sample(words, 4))} ({1950 + n % 50})::Drama|Crime\n"
        for n in range(1, N_MOVIES + 1)
    )
    ratings = "".join(
        f"{user}::{movie}::5::{978300000 + 100 * user + at}\n"
        for user in range(1, 31)
        for at, movie in enumerate(source.sample(range(1, N_MOVIES + 3), 8))
    )
    write(workflow.folder / "ml-1m/movies.dat", movies, "latin-1")
    write(workflow.folder / "ml-1m/ratings.dat", ratings)
    workflow.overlay("import.yaml", "imported: {path: ml-1m, min_user: 5}\n")
    workflow.run("--configfile", "import.yaml", "--", OVERLAY)
    return workflow


def test_the_overlay_runs_as_it_is_and_the_import_is_not_repeated(imported):
    targets = ("results/pid2sid.parquet", "results/interactions/sequences.parquet")
    planned = imported.planned("--configfile", OVERLAY, "--", *targets)
    assert "import_dataset" not in planned
    imported.run("--configfile", OVERLAY, "--", *targets)
    results = imported.folder / "results"
    sids = pq.read_table(results / "pid2sid.parquet")
    assert sids["pid"].to_pylist() == [str(n) for n in range(1, N_MOVIES + 1)]
    report = json.loads((results / "imported/movielens/import.json").read_text())
    assert pq.read_metadata(results / "interactions/sequences.parquet").num_rows == 30
    assert report["log"]["interactions"] == sum(
        map(len, pq.read_table(results / "interactions/sequences.parquet")["item_ids"].to_pylist())
    )
    assert imported.planned("--configfile", OVERLAY, "--", *targets) == set()


def test_a_limit_of_the_log_imports_again_and_a_machine_setting_does_not(imported):
    imported.overlay("more.yaml", "imported: {memory_mb: 99}\n")
    arguments = (
        "--configfile",
        OVERLAY,
        "more.yaml",
        "--",
        "results/imported/movielens/import.json",
    )
    assert imported.planned(*arguments) == set()
    imported.overlay("more.yaml", "imported: {min_item: 2}\n")
    assert imported.planned(*arguments) == {"import_dataset"}


def test_what_is_missing_is_said_before_a_job_runs(imported):
    other = ("--", "results/imported/mind/overlay.yaml")
    for path, words in (
        ("null", "imported.path is null"),
        ("nowhere", "no such file or folder: nowhere"),
    ):
        imported.overlay("none.yaml", f"imported: {{path: {path}}}\n")
        done = imported.snakemake("--configfile", OVERLAY, "none.yaml", *other)
        assert done.returncode == 1
        assert words in done.stdout + done.stderr


def test_a_collection_is_imported_once_and_is_what_retrieval_reads(make_workflow):
    workflow = make_workflow()
    (workflow.folder / "tiny").mkdir()
    beir(workflow.folder / "tiny")
    workflow.overlay("import.yaml", "imported: {path: tiny, max_reject_share: 0.9}\n")
    overlay = "results/imported/beir/overlay.yaml"
    workflow.run("--configfile", "import.yaml", "--", overlay)
    targets = ("results/retrieval/qrels.parquet", "results/corpus/text.parquet")
    assert "import_collection" not in workflow.planned("--configfile", overlay, "--", *targets)
    workflow.run("--configfile", overlay, "--", *targets)
    assert pq.read_metadata(workflow.folder / "results/corpus/text.parquet").num_rows == 2
    assert pq.read_metadata(workflow.folder / "results/retrieval/qrels.parquet").num_rows == 2
