"""Threads: as many as there are cores, asleep while they wait, and what the user sets wins."""

import math
import os
import subprocess
import sys

import pytest

from sidmill.core import threads

NAMES = (*threads.SPINS, threads.BLAS_SPINS, *threads.LIMITS)
LOADED = "torch.ones(600, 600)", "np.ones((600, 600), np.float32)"


def run(program: str, **variables: str) -> str:
    """What a program prints that is started without a word about threads but ``variables``."""
    plain = {name: value for name, value in os.environ.items() if name not in NAMES}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=plain | variables, check=True, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    return done.stdout.strip()


def set_by_the_import(**variables: str) -> dict[str, str]:
    program = (
        "import os; before = dict(os.environ); import sidmill\n"
        "print(*(f'{k}={v}' for k, v in os.environ.items() if before.get(k) != v))"
    )
    return dict(pair.split("=") for pair in run(program, **variables).split())


@pytest.mark.parametrize("matrix", LOADED)
def test_threads_that_wait_use_no_cpu(matrix):
    """Two threads multiply, then nobody has work: pools that spin use 0.1 s or more."""
    program = (
        "import sidmill, time, torch, numpy as np; torch.set_num_threads(2)\n"
        f"a, idle = {matrix}, 0\n"
        "for _ in range(20):\n"
        "    a @ a; began = time.process_time(); time.sleep(0.05)\n"
        "    idle += time.process_time() - began\n"
        "print(idle)"
    )
    assert float(run(program)) < 0.03


def test_an_affinity_mask_of_one_core_gives_one_thread():
    program = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from sidmill.core import threads; import numpy, torch, faiss\n"
        "from threadpoolctl import threadpool_info\n"
        "print(threads.granted(), torch.get_num_threads(), faiss.omp_get_max_threads(),\n"
        "      *(pool['num_threads'] for pool in threadpool_info()))"
    )
    assert {*run(program).split()} == {"1"}


def test_what_the_user_sets_wins():
    assert set_by_the_import() == {"OMP_WAIT_POLICY": "passive", threads.BLAS_SPINS: "4"}
    assert set_by_the_import(OMP_WAIT_POLICY="active") == {threads.BLAS_SPINS: "4"}
    assert set_by_the_import(GOMP_SPINCOUNT="1000") == {threads.BLAS_SPINS: "4"}
    assert set_by_the_import(OPENBLAS_THREAD_TIMEOUT="20") == {"OMP_WAIT_POLICY": "passive"}
    assert (
        run("from sidmill.core import threads; print(threads.granted())", OMP_NUM_THREADS="7")
        == "7"
    )


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Writes the quotas of cgroups, and where this process is among them."""
    monkeypatch.setattr(threads, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(threads, "PROC_CGROUP", tmp_path / "self")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {*range(8)})

    def write(membership: str, **files: str) -> None:
        (tmp_path / "self").write_text(membership)
        for name, text in files.items():
            path = tmp_path / "cgroup" / name.replace("__", "/").replace("cpu_max", "cpu.max")
            path = path.with_name(path.name.replace("cfs_quota", "cpu.cfs_quota_us"))
            path = path.with_name(path.name.replace("cfs_period", "cpu.cfs_period_us"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        threads._quota.cache_clear()

    yield write
    threads._quota.cache_clear()


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("200000 100000", 2), ("150000 100000", 2), ("1000 100000", 1), ("max 100000", 8)],
)
def test_a_quota_counts_in_whole_cores(groups, quota, expected):
    groups("0::/\n", cpu_max=quota)
    assert threads.cores() == expected


def test_the_tightest_of_nested_quotas_counts(groups):
    groups("0::/a/b\n", a__cpu_max="300000 100000", a__b__cpu_max="max 100000")
    assert threads.cores() == 3


def test_quotas_of_version_1(groups):
    line = "3:memory:/m\n2:cpu,cpuacct:/pod\n0::/\n"
    groups(line, cpu__pod__cfs_quota="-1\n", cpu__pod__cfs_period="100000\n")
    assert threads.cores() == 8
    groups(line, cpu__pod__cfs_quota="250000\n", cpu__pod__cfs_period="100000\n")
    assert threads.cores() == 3


@pytest.mark.parametrize("text", ["", "garbage", "1 0", "x y"])
def test_a_quota_that_cannot_be_read_limits_nothing(groups, text):
    groups("0::/\n", cpu_max=text)
    assert threads.cores() == 8
    assert threads._quota() == math.inf


def test_a_quota_becomes_the_number_of_threads(groups, monkeypatch):
    groups("0::/\n", cpu_max="200000 100000")
    for before, after in ({}, "2"), ({"OMP_NUM_THREADS": "5"}, "5"):
        monkeypatch.setattr(os, "environ", dict(before))
        threads.prepare()
        assert os.environ["OMP_NUM_THREADS"] == after
