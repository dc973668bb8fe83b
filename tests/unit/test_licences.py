"""Every package that SIDMill asks for stands in docs/licences.md, and none that it does not."""

import re
import tomllib

from conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_table_names_every_direct_dependency():
    extras = PROJECT["optional-dependencies"].values()
    wanted = [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]
    page = (ROOT / "docs/licences.md").read_text()
    named = re.findall(r"(?m)^\| (?!package)([\w-]+) \| \w.* \| \w.* \|$", page.replace("`", ""))
    # two extras may name a package, the table does so once
    assert sorted(named) == sorted({re.match(r"[\w-]+", line)[0] for line in wanted})
