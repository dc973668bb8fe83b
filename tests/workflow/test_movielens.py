"""docs/movielens.md as it stands: its commands, in order, on a small MovieLens of the same form."""

import json
import os
import re
import shlex
import subprocess
import sys
import zipfile

import movielens_files
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import ROOT

pytestmark = pytest.mark.workflow

PAGE = (ROOT / "docs/movielens.md").read_text(encoding="utf-8")
N_USERS, N_MOVIES, N_RATINGS = 300, 250, 9000


@pytest.fixture(scope="module")
def done(make_workflow):
    """The folder after all commands, and what each printed."""
    workflow = make_workflow()
    source = movielens_files.write(workflow.folder / "ml-1m", N_USERS, N_MOVIES, N_RATINGS)
    (workflow.folder / "data").mkdir()
    with zipfile.ZipFile(workflow.folder / "data/ml-1m.zip", "w") as archive:
        for path in source.iterdir():
            archive.write(path, f"ml-1m/{path.name}")
    overlay = re.search(r"```yaml\n# (\S+)\n(.+?)```", PAGE, re.S)
    workflow.overlay(overlay[1], overlay[2])

    printed = {}
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    for line in commands():
        module, *words = shlex.split(line)
        ran = subprocess.run(
            [sys.executable, "-m", module, *words],
            cwd=workflow.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert ran.returncode == 0, f"{line}\n{ran.stdout}{ran.stderr}"
        printed[line] = ran.stdout
    return workflow, printed


def commands():
    """Every command in a block of the page, but the one that activates the environment."""
    blocks = re.findall(r"(?s)```sh\n(.+?)```", PAGE)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line for line in lines if not line.startswith("source ")]


def test_the_page_has_a_command_for_each_step():
    assert [line.split()[0] for line in commands()] == [
        *("sidmill", "snakemake", "sidmill", "snakemake"),
        *("snakemake", "sidmill", "sidmill", "sidmill"),
    ]


def test_every_movie_has_a_sid_and_every_rating_is_in_a_history(done):
    workflow, printed = done
    movies = (workflow.folder / "ml-1m/movies.dat").read_text(encoding="latin-1").splitlines()
    sids = pq.read_table(workflow.folder / "results/pid2sid.parquet")
    assert sids["pid"].to_pylist() == [line.partition("::")[0] for line in movies]
    assert len(set(map(tuple, sids["sid"].to_pylist()))) == N_MOVIES
    texts = pq.read_table(workflow.folder / "results/items/text.parquet")["text"].to_pylist()
    assert texts[0].startswith(movies[0].split("::")[1])  # latin-1, with its accents
    histories = pq.read_table(workflow.folder / "results/interactions/sequences.parquet")
    assert len(histories) == N_USERS
    assert sum(map(len, histories["item_ids"].to_pylist())) == N_RATINGS
    assert f"{N_USERS} users" in printed[commands()[0]]


def test_training_data_and_a_table_of_recommenders_are_there(done):
    workflow, printed = done
    rows = workflow.folder / "results/datasets/sft_video_rec"
    assert len(pq.read_table(rows)) == N_USERS
    metrics = json.loads(workflow.bytes("recommender/metrics.json"))
    methods = ["recommender", "popularity", "item_knn", "text_knn"]
    assert list(metrics["test"]["methods"]) == methods
    (shown,) = (text for text in printed.values() if "metrics of recommenders" in text)
    assert all(re.search(rf"\b{name} +HR@10 0\.\d{{4}}", shown) for name in methods)
    overlay = yaml.safe_load((workflow.folder / "imported/ml-1m/overlay.yaml").read_text())
    assert overlay["items"]["fields"] == ["title", "genres"]
