"""The tests of GPUs and their benchmark run here too, with the CPU as the device."""

import json
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
from importlib.metadata import Distribution, PackageNotFoundError

# Packages that are asked for by name of their module, and those by name of their distribution.
absent = {ABSENT!r}
find, from_name = PathFinder.find_spec, Distribution.from_name


def distribution(cls, name):
    if name.replace("-", "_") in absent:
        raise PackageNotFoundError(name)
    return from_name(name)


Distribution.from_name = classmethod(distribution)
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


@pytest.mark.long
@pytest.mark.model
def test_the_tests_of_gpus_pass_on_the_cpu_without_packages_that_an_image_lacks():
    printed = run("pytest", "tests/gpu", "-rs")
    assert " passed" in printed
    reasons = [line for line in printed.splitlines() if line.startswith("SKIPPED")]
    for reason in reasons:  # two need CUDA, the others a wheel that is named
        assert "needs the wheel" in reason or "on CUDA alone" in reason


@pytest.mark.parametrize(
    "file",
    [
        "search",
        pytest.param("quantize", marks=pytest.mark.long),
        pytest.param("rqvae", marks=pytest.mark.long),
        pytest.param("embed", marks=[pytest.mark.long, pytest.mark.model]),
        pytest.param("retrieval", marks=[pytest.mark.long, pytest.mark.model]),
        pytest.param("recommend", marks=pytest.mark.long),
    ],
)
def test_the_tests_of_gpus_pass_on_two_simulated_devices(file):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", f"tests/gpu/test_gpu_{file}.py", "-rs"],
        cwd=ROOT,
        env={**os.environ, "SIDMILL_TEST_DEVICE": "simulated", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    reasons = [line for line in done.stdout.splitlines() if line.startswith("SKIPPED")]
    assert all("on CUDA" in reason for reason in reasons), reasons


def test_the_benchmark_of_gpus_writes_the_figures_of_each_section(tmp_path):
    output = tmp_path / "gpu.json"
    words = ["--small", "--device=cpu", "--sections=rates,rqkmeans,encode,search"]
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu.py", *words, f"--output={output}"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(output.read_text())
    assert all(section["exit"] == 0 for section in figures.values()), done.stderr
    assert figures["rates"]["bf16_per_second"] > 0
    assert figures["rqkmeans"]["held_share_of_bf16_rate"] > 0
    assert figures["rqkmeans"]["streamed_has_the_same_bytes"]
    assert figures["encode"]["same_as_the_cpu"] == 1
    assert figures["search"]["same_ids_as_the_cpu"] == 1
