"""docs/recipes/other-engines.md: embeddings that Dask computes give the SIDs of a plain loop.

Skipped without Dask: ``make recipes`` installs it.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import ROOT

dask = pytest.importorskip("dask", reason="make recipes installs it")
pytest.importorskip("partd", reason="make recipes installs it")

PAGE = ROOT / "docs/recipes/other-engines.md"
TINY = ("--configfile", "tests/configs/tiny.yaml")
# The script's own function, in one process and without Dask.
LOOP = """
import pandas as pd, pyarrow as pa, pyarrow.parquet as pq
from embed_with_dask import SCHEMA, embed
texts = pd.read_parquet("results/items/text.parquet")
pq.write_table(pa.Table.from_pandas(embed(texts), SCHEMA, preserve_index=False), "one.parquet")
"""


def block(language: str) -> str:
    """The one block of the page in a language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    return found


def python(folder, *arguments):
    path = os.pathsep.join([str(Path(dask.__file__).parents[1]), str(folder)])
    command = [sys.executable, *arguments]
    subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, check=True)


def test_embeddings_of_dask_give_the_sids_of_a_loop(workflow):
    folder = workflow.folder
    workflow.run("results/items/text.parquet", *TINY)
    (folder / "embed_with_dask.py").write_text(block("python"))
    overlay = workflow.overlay("dask-embeddings.yaml", block("yaml"))
    python(folder, "embed_with_dask.py")
    python(folder, "-c", LOOP)
    assert len(list((folder / "embeddings").glob("*.parquet"))) == 4

    found = []
    for path in ("embeddings", "one.parquet"):
        own = workflow.overlay("own.yaml", f"embedding: {{path: {path}}}")
        workflow.run("results/pid2sid.parquet", *TINY, overlay, own)
        found.append(workflow.bytes("pid2sid.parquet"))
        items = pq.read_table(folder / "results/pid2sid.parquet")
    assert found[0] == found[1]
    assert items.num_rows == 200
