"""docs/recipes/snakemake.md: right blocks run again where they must, obvious ones still do not."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import recipe_pages

ROOT = Path(__file__).resolve().parents[2]
PAGE = "snakemake.md"
RULES = recipe_pages.sections(PAGE, "snakemake")
OVERLAYS = recipe_pages.sections(PAGE, "yaml")
COMMANDS = recipe_pages.sections(PAGE, "bash")
PARAMS, ORDER, FOLDERS, CODE = (
    "Params: dictionaries with names",
    "The order of inputs: name it in params",
    "Folders: list their files",
    "Code: name the files that a rule imports",
)
LOGS = "Logs: keep those of failed attempts"
RERUN = {PARAMS: "train", ORDER: "join", FOLDERS: "count", CODE: "fit"}
KINDS = ("right", "wrong")


def block(blocks, kind):
    """The block of a section that begins with this word."""
    (found,) = [code for code in blocks if code.startswith(f"# {kind}")]
    return found


def snakemake(folder, *words):
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1", *words],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def planned(folder, *words):
    """The number of jobs of each rule that would run."""
    told = snakemake(folder, "--dry-run", *words)
    return {rule: int(n) for rule, n in re.findall(r"^(\w+) +(\d+)$", told, flags=re.MULTILINE)}


@pytest.fixture(scope="module", params=KINDS)
def changed(request, tmp_path_factory):
    """All small rules of one kind: run once, then everything that they depend on is changed."""
    folder = tmp_path_factory.mktemp(request.param)
    rules = [block(RULES[heading], request.param) for heading in (*RERUN, LOGS)]
    targets = ["model.txt", "joined.txt", "count.txt", "fit.txt", "flaky.txt"]
    (folder / "Snakefile").write_text("\n".join(rules))
    (folder / "parts").mkdir()
    for name in ("a.txt", "b.txt", "parts/1.txt"):
        (folder / name).write_text(f"{name}\n")
    (folder / "steps.py").write_text("RATE = 1\n")
    config = ["--config", "width=64", "depth=2", "files=[a.txt,b.txt]"]
    snakemake(folder, *targets, *config)
    made = {name: (folder / name).read_text() for name in targets}

    (folder / "parts/1.txt").write_text("one\ntwo\n")
    (folder / "steps.py").write_text("RATE = 2\n")
    config = ["--config", "width=2", "depth=64", "files=[b.txt,a.txt]"]
    return request.param, folder, made, planned(folder, *targets, *config)


@pytest.mark.parametrize("heading", RERUN)
def test_a_rule_runs_again_as_the_page_writes_it_and_not_in_the_obvious_way(heading, changed):
    kind, _, made, jobs = changed
    assert made["model.txt"] == "64 2\n"
    assert (RERUN[heading] in jobs) == (kind == "right")


def test_both_attempts_are_in_the_file_beside_the_log_and_one_is_in_the_log(changed):
    kind, folder, _, _ = changed
    log = folder / ("flaky.log.all" if kind == "right" else "flaky.log")
    assert (folder / "tried").is_dir()
    assert log.read_text().splitlines() == ["attempt"] * (2 if kind == "right" else 1)


@pytest.mark.parametrize("kind", KINDS)
def test_settings_reach_sidmill_as_the_page_writes_it_and_not_in_the_obvious_way(kind, tmp_path):
    (tmp_path / "SIDMill").symlink_to(ROOT)
    (overlay,) = OVERLAYS["SIDMill as a module"]
    (tmp_path / "mine.yaml").write_text(overlay)
    (tmp_path / "Snakefile").write_text(block(RULES["SIDMill as a module"], kind))
    jobs = planned(tmp_path)
    assert jobs["count_collisions"] == jobs["sidmill_resolve_collisions"] == 1
    assert jobs["sidmill_embed_shard"] == {"right": 3, "wrong": 2}[kind]


PRINT = """
from pathlib import Path
Path("seen.txt").write_text(repr({}))
rule nothing:
    shell: "true"
"""


@pytest.mark.parametrize(("kind", "seen"), [("right", "None"), ("wrong", "'keep'")])
def test_an_overlay_with_null_for_each_key_empties_a_section(kind, seen, tmp_path):
    show = PRINT.format('config["stage"].get("cache")')
    (tmp_path / "Snakefile").write_text(f'configfile: "base.yaml"\n{show}')
    (tmp_path / "base.yaml").write_text("stage: {path: a, cache: keep}")
    (tmp_path / "first.yaml").write_text(block(OVERLAYS["Overlays: null for each key"], kind))
    (tmp_path / "next.yaml").write_text("stage: {path: b}")
    snakemake(tmp_path, "--dry-run", "--configfile", "first.yaml", "next.yaml")
    assert (tmp_path / "seen.txt").read_text() == seen


@pytest.mark.parametrize(("kind", "seen"), [("right", "64"), ("wrong", "'64'")])
def test_numbers_of_the_command_line(kind, seen, tmp_path):
    (tmp_path / "Snakefile").write_text(
        PRINT.format('config["batch"] if "batch" in config else config["mine"]["batch"]')
    )
    command = block(COMMANDS["Numbers on the command line"], kind).splitlines()[1]
    snakemake(tmp_path, "--dry-run", *shlex.split(command)[1:])
    assert (tmp_path / "seen.txt").read_text() == seen


def test_the_page_names_the_versions_that_were_run():
    assert recipe_pages.outdated(PAGE) == []
