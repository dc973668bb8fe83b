"""Every command of the operator's page, in order, in one folder with a small catalogue.

A command that is new on the page has to be added to STEPS; its order and its words are held.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from conftest import ROOT

pytestmark = pytest.mark.workflow

PAGE = (ROOT / "docs/operating.md").read_text(encoding="utf-8")
SMALL = {  # the fields of the demo, and sizes as in tests/configs/tiny.yaml
    "items": {
        "path": "data/items.jsonl",
        "id_field": "item_id",
        "fields": ["title", "brand", "description"],
    },
    "embedding": {"dim": 16, "shards": 1},
    "rqkmeans": {"codebook_size": 16, "n_iter": 5},
    "quality": {"neighbour_queries": 50, "neighbours": 5},
}
N_ITEMS, N_LATER = 260, 5  # `advise` wants four items for each of 64 codes
OWN = "--configfile my-catalogue.yaml"
SLURM = "--profile profiles/slurm --workflow-profile none"


def nothing(folder: Path) -> None:
    """Nothing is to be done by hand before the command."""


@dataclass(frozen=True)
class Step:
    """A command of the page.

    Attributes:
        command: as it stands there.
        before: what the page has the operator do by hand, or what went wrong.
        leaves: a file that is there after it.
        instead: what runs in its place, where the command itself cannot.
        why: the reason for it.
    """

    command: str
    before: Callable[[Path], None] = nothing
    leaves: str = "config.yaml"
    instead: str | None = None
    why: str = ""


def name_the_catalogue(folder: Path) -> None:
    """Change the lines of the copied example, add what keeps this small, and put items there."""
    path = folder / "my-catalogue.yaml"
    settings = yaml.safe_load(path.read_text())
    for section, values in SMALL.items():
        settings[section] = settings.get(section, {}) | values
    path.write_text(yaml.safe_dump(settings))
    (folder / "data").mkdir()
    write_items(folder, N_ITEMS)


def write_items(folder: Path, n_items: int) -> None:
    from sidmill.items import demo
    from sidmill.settings.items import Demo

    made = folder / "data/demo"
    made.mkdir(exist_ok=True)
    files = made / "items.jsonl", made / "interactions.jsonl"
    demo.write(*files, Demo(n_items=N_ITEMS + N_LATER, n_users=20), seed=1)
    lines = files[0].read_text().splitlines(keepends=True)[:n_items]
    (folder / "data/items.jsonl").write_text("".join([*lines, '{"item_id": 0}\n']))  # without text


def write_own_embeddings(folder: Path) -> None:
    """Take the overlay from the page; its files need only be there."""
    overlay = re.search(r"^```yaml\n(# my-embeddings.yaml\n.*?)^```$", PAGE, re.M | re.S)[1]
    (folder / "my-embeddings.yaml").write_text(overlay)
    shard = "results/items/embeddings.parquet/part-00000-of-00001.parquet"
    shutil.copy2(folder / shard, folder / "data/embeddings.parquet")


def lose_a_file(folder: Path) -> None:
    (folder / "results/explorer.html").unlink()


def put_another_catalogue_beside(folder: Path) -> None:
    (folder.parent / "second/data").mkdir(parents=True)
    shutil.copy2(folder / "data/items.jsonl", folder.parent / "second/data")


def go_on_from_the_version(folder: Path) -> None:
    path = folder / "my-catalogue.yaml"
    path.write_text(path.read_text() + "published: {path: versions/1}\n")
    write_items(folder, N_ITEMS + N_LATER)


STEPS = [
    Step(
        "source .venv/bin/activate",
        instead="true",
        why="the tests run in an environment already; `make run` in a clean clone is another check",
    ),
    Step("cp configs/own-catalogue.yaml my-catalogue.yaml", leaves="my-catalogue.yaml"),
    Step(f"snakemake --cores 8 {OWN} --dry-run", before=name_the_catalogue),
    Step(
        f"snakemake --cores 8 results/items/text.parquet {OWN}",
        leaves="results/items/text.parquet",
    ),
    Step("sidmill inspect results/items/text.parquet --rows 5"),
    Step(f"snakemake --cores 8 {OWN}", leaves="results/explorer.html"),
    Step(
        f"snakemake {OWN} --report results/report.html",
        leaves="results/report.html",
    ),
    Step(
        "snakemake --cores 8 --configfile my-embeddings.yaml --dry-run", before=write_own_embeddings
    ),
    Step("sidmill advise --vectors results/items/vectors.npy --target 0.01"),
    Step(f"snakemake --cores 8 results/run.json {OWN}", leaves="results/run.json"),
    Step(f"snakemake --cores 8 {OWN} configs/qwen3-embedding-8b.yaml --dry-run"),
    Step(
        "make .venv/slurm.stamp",
        instead="true",
        why="the tests run in an environment with the plugin, which a test finds in its lock",
    ),
    Step(f"snakemake {SLURM} {OWN} --dry-run"),
    Step(
        f"snakemake {SLURM} {OWN}",
        instead="true",
        why="it needs a Slurm: tests/cluster submits to one; its plan is the line above",
    ),
    Step(f"sidmill status {OWN}"),
    Step("sidmill inspect results/pid2sid.parquet"),
    Step(
        "sidmill evaluate --quantizer results/rqkmeans/quantizer.safetensors "
        "--vectors results/items/vectors.npy"
    ),
    Step(f"snakemake --cores 8 {OWN}", before=lose_a_file, leaves="results/explorer.html"),
    Step(f"snakemake --unlock {OWN}"),
    Step(f"snakemake --cores 8 {OWN} --forcerun measure_quality"),
    Step(
        f"snakemake --cores 8 --directory ../second {OWN} --dry-run",
        before=put_another_catalogue_beside,
        leaves="../second/data/items.jsonl",
    ),
    Step(f"snakemake --cores 8 results/version.json {OWN}", leaves="results/version.json"),
    Step("sidmill publish versions/1", leaves="versions/1/manifest.json"),
    Step(
        f"snakemake --cores 8 {OWN}",
        before=go_on_from_the_version,
        instead=f"snakemake --cores 8 {OWN} --dry-run",
        why="test_versions.py runs catalogues that grow, and counts what moves: nothing",
    ),
    Step("sidmill diff versions/1/pid2sid.parquet results/pid2sid.parquet"),
]


def commands() -> list[str]:
    """Every line of every ``sh`` block of the page."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.M | re.S)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def test_the_page_has_the_commands_that_run_here():
    assert commands() == [step.command for step in STEPS]
    assert all(bool(step.instead) == bool(step.why) for step in STEPS)
    assert not re.findall(r"^(?: {4}|\t)\w", PAGE, re.M), "commands stand in sh blocks"


@pytest.fixture(scope="module")
def folder(make_workflow):
    """Where the commands run: ``snakemake`` and ``sidmill`` are those of this environment."""
    folder = make_workflow().folder
    tools = folder / ".tools"
    tools.mkdir()
    for name in ("snakemake", "sidmill"):
        tool = tools / name
        tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {name} "$@"\n')
        tool.chmod(0o755)
    return folder


@pytest.mark.long
def test_every_command_runs_in_the_order_of_the_page(folder):
    path = [str(folder / ".tools"), str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = os.environ | {"PATH": os.pathsep.join(path), "PYTHONPATH": str(folder / "src")}
    for step in STEPS:
        step.before(folder)
        done = subprocess.run(
            shlex.split(step.instead or step.command),
            cwd=folder, env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        told = f"{step.command}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == 0, told
        assert (folder / step.leaves).exists(), told
        if step.before is go_on_from_the_version:
            assert {"import_published", "measure_churn"} <= set(re.findall(r"\w+", done.stdout))
    assert pq.read_table(folder / "versions/1/pid2sid.parquet").num_rows == N_ITEMS
    assert pq.read_table(folder / "results/items/rejects.parquet").num_rows == 1
