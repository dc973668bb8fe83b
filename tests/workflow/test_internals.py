"""What the workflow uses of Snakemake beyond its documented interface is in one file."""

import re
from importlib.metadata import version

import pytest
from conftest import ROOT

pytestmark = pytest.mark.workflow
PRIVATE = re.compile(r"workflow\.(?:dag|persistence|scheduler|_\w+)|\bjob\.dag\b|\.rule\._")


def test_private_attributes_stand_in_one_file():
    files = [ROOT / "Snakefile", *sorted((ROOT / "workflow").rglob("*.smk"))]
    using = [path.name for path in files if PRIVATE.search(path.read_text())]
    assert using == ["common_internals.smk"]


def test_they_were_seen_with_the_version_that_is_installed():
    """With another version: run test_crash.py and test_given.py beside this, then name it here."""
    assert version("snakemake") == "9.27.1"
