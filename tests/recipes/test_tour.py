"""docs/tour.ipynb runs, in a kernel of Jupyter, and shows what is stored in it.

Skipped without a kernel: ``make recipes`` installs it.
"""

import importlib.util
import os
import re
import sys

import nbformat
import pytest
from conftest import ROOT

pytest.importorskip("nbclient", reason="make recipes installs it")
pytest.importorskip("ipykernel", reason="make recipes installs it")

# What the text of the notebook claims, as cells of their own at its end.
CLAIMS = """
import collections
assert len(set(map(tuple, sids))) == len(catalogue)
assert explained == sorted(explained) and 0.5 < explained[0] < explained[-1] < 1
assert (table.max() > 0.9).mean() > 0.5, "most codes belong to one department"
assert losses[-1] < 0.8 * np.log(len(sids))
assert rates["random"] < rates["popular products"] < rates["SIDs"] / 3
assert not set(best.indices.tolist()) & set(known[user])
"""


def shown(notebook):
    """The kinds of output of each cell, and the text that it printed; counts vary with the CPU."""
    return [
        [
            (
                output.output_type,
                sorted(output.get("data", {})),
                re.sub(r"\d+", "N", output.get("text", "")),
            )
            for output in cell.outputs
        ]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def test_it_runs_and_shows_what_is_stored(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("docs_tour", ROOT / "docs/tour.py")
    tour = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tour)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    stored = nbformat.read(tour.PATH, as_version=4)
    again = nbformat.read(tour.PATH, as_version=4)
    again.cells.append(nbformat.v4.new_code_cell(CLAIMS))
    tour.run(again)
    assert shown(again)[:-1] == shown(stored), "run docs/tour.py"
