"""The tests of GPUs and their benchmark run here too, with the CPU as the device."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

# What a bare image for CUDA may lack: nothing under test may import it without need.
ABSENT = ("faiss", "datasets", "jsonschema", "ijson", "jieba", "ir_measures", "snakemake")
WITHOUT = f"""
import runpy
import sys
from importlib.machinery import PathFinder

find = PathFinder.find_spec
absent = {ABSENT!r}
PathFinder.find_spec = classmethod(
    lambda cls, name, *others: None if name.partition(".")[0] in absent else find(name, *others)
)
sys.argv = sys.argv[1:]
sys.path.insert(0, "")
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def run(*words):
    environment = {
        **os.environ,
        "SIDMILL_TEST_DEVICE": "cpu",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT / "src"),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.model
def test_the_tests_of_gpus_pass_on_the_cpu_without_packages_that_an_image_lacks():
    printed = run("pytest", "tests/gpu", "-rs")
    assert " passed" in printed
    reasons = [line for line in printed.splitlines() if line.startswith("SKIPPED")]
    for reason in reasons:  # two need CUDA, the others a wheel that is named
        assert "needs the wheel" in reason or "on CUDA alone" in reason
