"""faiss's OpenBLAS: kernels that fit the CPU, named for it alone."""

import ast
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from sidmill.core import cpu_facts, faiss_library

FLAGS = cpu_facts.flags(cpu_facts.first_core())
ZEN_5 = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 26\nflags\t\t: fpu avx2 fma\n\n"
NUMPY_ALONE = """
import numpy
from threadpoolctl import threadpool_info
print(*(pool["architecture"] for pool in threadpool_info() if "numpy" in pool["filepath"]))
"""
PROGRAM = """
import os, pathlib, sys
from sidmill.core import cpu_facts
cpu_facts.CPUINFO = pathlib.Path(sys.argv[1], "cpuinfo")
from sidmill.core.faiss_library import faiss
import numpy as np
from threadpoolctl import threadpool_info
rows = np.eye(8, dtype=np.float32)
assert (faiss.knn(rows, rows, 1)[1][:, 0] == np.arange(8)).all()
pools = [pool for pool in threadpool_info() if pool["internal_api"] == "openblas"]
for library in "faiss", "numpy":
    print(*(pool["architecture"] for pool in pools if library in pool["filepath"]))
print(os.environ.get("OPENBLAS_CORETYPE"))
"""


def loaded(program: str, *arguments: str, **variables: str) -> list[str]:
    """What a program prints where nobody has named kernels but ``variables``."""
    environment = {key: value for key, value in os.environ.items() if "OPENBLAS" not in key}
    environment["PYTHONPATH"] = str(ROOT / "src")
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment | variables, check=True, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    return done.stdout.split()


@pytest.mark.skipif(not {"avx2", "fma"} <= FLAGS, reason="this CPU has no AVX2")
def test_a_cpu_that_is_newer_than_the_library_gets_kernels_with_avx2(tmp_path):
    (tmp_path / "cpuinfo").write_text(ZEN_5)
    of_numpy = loaded(NUMPY_ALONE)
    assert loaded(PROGRAM, str(tmp_path)) == ["Haswell", *of_numpy, "None"]
    found = loaded(PROGRAM, str(tmp_path), OPENBLAS_CORETYPE="Nehalem")
    assert found == ["Nehalem", "Nehalem", "Nehalem"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("AuthenticAMD", "GenuineIntel"),
        ("26", "25"),
        ("26", "?"),
        (" avx2", ""),
        ("vendor_id", "CPU implementer"),
        ("cpu family\t: 26", "cpu family"),
    ],
)
def test_other_cpus_choose_themselves(tmp_path, monkeypatch, old, new):
    monkeypatch.setattr(cpu_facts, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    (tmp_path / "cpuinfo").write_text(ZEN_5)
    with faiss_library.fitting_kernels():
        assert os.environ["OPENBLAS_CORETYPE"] == "Haswell"
    (tmp_path / "cpuinfo").write_text(ZEN_5.replace(old, new))
    with faiss_library.fitting_kernels():
        assert "OPENBLAS_CORETYPE" not in os.environ
    (tmp_path / "cpuinfo").unlink()
    with faiss_library.fitting_kernels():
        assert "OPENBLAS_CORETYPE" not in os.environ


def test_the_first_core_decides_and_the_others_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(cpu_facts, "CPUINFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text(ZEN_5 + ZEN_5.replace("26", "25"))
    assert faiss_library._is_unknown_cpu()


def test_faiss_is_imported_in_one_place():
    importing = [
        path.name
        for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "workflow").rglob("*.py")]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Import) and any(a.name.startswith("faiss") for a in node.names))
        or (isinstance(node, ast.ImportFrom) and str(node.module).startswith("faiss"))
    ]
    assert importing == ["faiss_library.py"]
