"""The notebook and the pictures of README: there, small, complete, and of inputs that exist."""

import importlib.util
import re

import nbformat
import pytest
from conftest import ROOT

from sidmill.cli import commands

NOTEBOOK, IMAGES = ROOT / "docs/tour.ipynb", ROOT / "docs/images"
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_is_short_and_small(notebook):
    nbformat.validate(notebook)
    assert len(notebook.cells) <= 25
    assert NOTEBOOK.stat().st_size < 300 << 10
    for page in (README, (ROOT / "docs/index.md").read_text(encoding="utf-8")):
        assert "tour.ipynb)" in page


def test_every_cell_was_run_once_in_order_without_a_warning(notebook):
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert {output.get("name", "stdout") for output in outputs} == {"stdout"}  # not stderr
    assert "error" not in {output.output_type for output in outputs}
    pictures = [one for one in outputs if "image/png" in one.get("data", {})]
    assert len(pictures) >= 4


def test_the_notebook_knows_no_machine(notebook):
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert not re.search(r"/(tmp|home|root|work)/", text)
    assert notebook.metadata.language_info == {"name": "python"}


def test_pictures_are_named_in_readme_and_small():
    named = set(re.findall(r"\]\(docs/images/([^)]+)\)", README))
    assert named == {path.name for path in IMAGES.iterdir()}
    assert len(named) >= 3
    assert all(path.stat().st_size < 150 << 10 for path in IMAGES.iterdir())


def test_the_script_of_the_pictures_has_inputs_and_commands_that_exist():
    spec = importlib.util.spec_from_file_location("docs_pictures", ROOT / "docs/pictures.py")
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    assert all((ROOT / name).exists() for name in pictures.WORKFLOW)
    assert all(words[0] in ("snakemake", "sidmill") for words in pictures.COMMANDS)
    own = {words[1] for words in pictures.COMMANDS if words[0] == "sidmill"}
    assert own <= set(commands.commands)

    # The recording is of these commands.
    recording = (IMAGES / "run.svg").read_text(encoding="utf-8")
    assert all(f"$ {' '.join(words)}<" in recording for words in pictures.COMMANDS)
    assert "/tmp/" not in recording


def test_a_recording_shows_the_last_line_last_and_breaks_long_ones():
    spec = importlib.util.spec_from_file_location("docs_pictures", ROOT / "docs/pictures.py")
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    long = "<x>" + "y" * pictures.COLUMNS
    svg = pictures.animate([pictures.Line(0, "$ run", "p"), pictures.Line(2.0, long, "")])
    rows = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert rows == ["$ run", "&lt;x&gt;" + "y" * (pictures.COLUMNS - 3), "yyy"]
    assert f"translateY({(pictures.ROWS - 3) * pictures.LINE}px)" in svg


def test_the_recording_says_nothing_of_the_machine():
    recording = (ROOT / "docs/images/run.svg").read_text(encoding="utf-8")
    assert "Base directory: ~/sidmill" in recording  # the lines around those that are left out
    assert not re.search(r"(Host|User|Platform|Command): |/(home|root|work|Users)/", recording)
