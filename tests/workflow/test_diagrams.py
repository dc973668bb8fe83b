"""The diagrams of docs/index.md are those of the workflow and of the library as they are."""

import runpy
import tomllib

import pytest
from conftest import ROOT

pytestmark = pytest.mark.workflow

DIAGRAMS = runpy.run_path(str(ROOT / "docs/diagrams.py"))
PAGE = (ROOT / "docs/index.md").read_text(encoding="utf-8")


def test_the_page_is_what_make_docs_writes():
    assert DIAGRAMS["page"](PAGE) == PAGE
    assert "    render_text --> embed_shard\n" in PAGE
    assert "style" not in PAGE


def test_every_layer_of_the_library_is_drawn():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    modules = [name.strip() for layer in layers for name in layer.split("|")]
    drawn = DIAGRAMS["modules"]().split()
    assert {name.removeprefix("sidmill.") for name in modules} <= set(drawn)
    packages = (path.parent.name for path in (ROOT / "src/sidmill").glob("*/__init__.py"))
    assert set(packages) <= set(drawn)


def test_a_page_without_markers_is_refused():
    with pytest.raises(ValueError, match="lacks the markers"):
        DIAGRAMS["page"](PAGE.replace("<!-- end of rules -->", ""))
