"""The training's plot: drawn from the CSV, same bytes for the same numbers."""

from xml.etree import ElementTree

import pytest

from sidmill.core.errors import SidmillError
from sidmill.report import curves

HEAD = "epoch,reconstruction,commitment,heldout_relative,collision_rate,utilisation_1\n"


@pytest.mark.parametrize("rows", ["1,0.9,0,,,\n2,0.8,0.1,0.5,0.2,0.9\n", "1,0.9,0.1,0.5,0.2,1\n"])
def test_curves_are_drawn(tmp_path, rows):
    (tmp_path / "m.csv").write_text(HEAD + rows)
    for name in ("one.svg", "two.svg"):
        curves.training(tmp_path / "m.csv", tmp_path / name)
        ElementTree.parse(tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_an_empty_file_is_named(tmp_path):
    (tmp_path / "m.csv").write_text(HEAD)
    with pytest.raises(SidmillError, match="holds no epoch"):
        curves.training(tmp_path / "m.csv", tmp_path / "x.svg")
