"""The benchmarks run, at a small size: their ratios mean nothing here, that they come out does."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.parametrize(
    ("name", "size"), [("rqkmeans", "--codes=16"), ("encode", "--codes=16"), ("search", "--k=5")]
)
def test_a_benchmark_ends_in_one_line_of_ratios(name, size, tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, f"benchmarks/{name}.py", "--rows=2000", "--dim=16", size),
            f"--folder={tmp_path}",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    for ratio in ("time_ratio", "memory_ratio", "quality_ratio"):
        assert figures[ratio] > 0
    assert figures["rows"] == 2000
    assert not list(tmp_path.iterdir())


def test_the_benchmark_of_the_hdf5_loader_compares_equal_samples(tmp_path):
    words = ["--users=60", "--items=90", "--repeats=1", f"--folder={tmp_path}"]
    figures = last_line("h5_loader", words)
    assert figures["quality_ratio"] == 1
    assert figures["rate_ratio"] > 0
    assert not list(tmp_path.iterdir())


def test_the_benchmark_of_processes_starts_them_both_ways():
    figures = last_line("process_start", ["--module=sidmill.formats.vector_store", "--processes=2"])
    assert figures["forks_cpu_seconds"] > 0
    assert figures["each_cpu_seconds"] > 0


def test_the_benchmark_of_a_log_counts_what_went_through(tmp_path):
    words = ["--users=500", "--items=300", "--mean-length=8", f"--folder={tmp_path}"]
    figures = last_line("interactions", words)
    assert figures["users"] == 500
    assert figures["epoch_seconds"] > 0
    assert not list(tmp_path.iterdir())


def test_the_benchmark_of_the_rqvae_ends_where_the_plain_loop_did(tmp_path):
    words = ["--rows=600", "--dim=32", "--codes=16", "--epochs=2", "--layers=[16, 8]"]
    figures = last_line("rqvae", [*words, "--batch-size=128", f"--folder={tmp_path}"])
    assert figures["sidmill_heldout_mse"] <= figures["plain_heldout_mse"]
    assert figures["sidmill_collision_rate"] <= figures["plain_collision_rate"]
    assert figures["time_ratio"] > 0
    assert not list(tmp_path.iterdir())


def test_the_benchmark_of_datasets_writes_the_rows_of_the_plain_loop(tmp_path):
    words = ["--rows=300", "--history=20", "--items=500", "--repeats=1", f"--folder={tmp_path}"]
    figures = last_line("datasets", words)
    assert figures["quality_ratio"] == 1
    assert figures["time_ratio"] > 0
    assert not list(tmp_path.iterdir())


def test_the_benchmark_of_the_pipeline_measures_whole_trees_of_processes(tmp_path):
    words = ["--rows", "1500", "--dim=8", "--codes=16", "--memory-mb=64", f"--folder={tmp_path}"]
    figures = last_line("pipeline", [*words, "--iterations=5"])
    assert figures["rows"] == 1500
    assert figures["sidmill_collisions_in_3_tokens"] == 0
    assert figures["script_collisions_in_3_tokens"] > 0
    assert figures["script_tokens"] == figures["sidmill_tokens"] + 1
    assert {"train_rqkmeans", "resolve_collisions", "measure_quality"} <= set(
        figures["job_seconds"]
    )
    assert figures["sidmill_peak_mb"] > max(
        figures["job_mb"].values()
    )  # Snakemake is there as well
    for side in ("sidmill", "script"):
        assert figures[f"{side}_cpu_seconds"] > 0
        assert figures[f"{side}_written_mb"] >= 0
    assert figures["quality_ratio"] < 1.2
    assert not list(tmp_path.iterdir())


def test_the_tree_of_a_benchmark_counts_processes_of_processes(monkeypatch):
    """A child that starts a child: the memory of both at once, and the time of both."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import _paired

    inner = "import time; x = bytearray(120 << 20); e = time.process_time() + 0.4\n"
    inner += "while time.process_time() < e: pass"
    outer = "import subprocess, sys; y = bytearray(80 << 20); "
    tree = _paired.run_tree(["-c", f"{outer}subprocess.run([sys.executable, '-c', {inner!r}])"])
    assert 200 < tree.peak_mb < 300
    assert tree.cpu_seconds > 0.4
    with pytest.raises(SystemExit):
        _paired.run_tree(["-c", "raise SystemExit(3)"])


def last_line(name, words):
    done = subprocess.run(
        [sys.executable, f"benchmarks/{name}.py", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
