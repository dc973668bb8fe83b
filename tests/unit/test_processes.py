"""Processes that share a task: results, failures, threads, and an end together."""

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from process_watch import eventually, running

from sidmill.core import processes, threads
from sidmill.core.errors import SidmillError

FUNCTIONS = """
import atexit, os, time
from pathlib import Path
from sidmill.core.errors import SidmillError


def double(number):
    print("a line that a library prints")
    return {"number": 2 * number, "threads": os.environ["OMP_NUM_THREADS"]}


def long(size):
    return "é" * size


def refuse(number):
    time.sleep(0 if number == 1 else 600)
    raise SidmillError("rqvae.lr is 7: lower it")


def crash(number):
    time.sleep(0 if number == 1 else 600)
    raise KeyError("a bug")


def die(number):
    time.sleep(0 if number == 0 else 600)
    os.kill(os.getpid(), 9)


def refuse_slowly(number):
    if number == 1:
        atexit.register(time.sleep, 30)
        raise SidmillError("rqvae.lr is 7: lower it")
    time.sleep(0.5)
    os._exit(7)


def sleep(folder):
    Path(folder, str(os.getpid())).touch()
    time.sleep(600)
"""


@pytest.fixture
def functions(tmp_path, monkeypatch):
    """Make the functions above importable in processes; give the prefix of their names."""
    (tmp_path / "some_functions.py").write_text(FUNCTIONS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "some_functions:"


def test_each_process_gets_its_arguments_and_returns_its_result(functions, monkeypatch, caplog):
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    arguments = [{"number": number} for number in (3, 1, 2)]
    with caplog.at_level(logging.INFO):
        results = processes.run(f"{functions}double", arguments, task="double numbers")
    assert results == [{"number": number, "threads": "2"} for number in (6, 2, 4)]
    assert "process 2: a line that a library prints" in caplog.text


def test_requests_and_replies_may_be_larger_than_a_pipe(functions):
    (reply,) = processes.run(f"{functions}long", [{"size": 10**6}], task="write")
    assert reply == "é" * 10**6
    with pytest.raises(SidmillError):
        processes.run(f"{functions}long", [{"size": 1, "no such": "x" * 10**6}], task="write")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("refuse", r"process 1 of the 2 that try failed: rqvae\.lr is 7: lower it; what is done"),
        ("crash", r"process 1 of the 2 that try failed: exit code 1, see its lines above"),
        ("die", r"process 0 of the 2 that try failed: exit code -9"),
    ],
)
def test_the_first_process_that_fails_ends_the_others(functions, caplog, name, message):
    start = time.monotonic()
    with caplog.at_level(logging.INFO), pytest.raises(SidmillError, match=message):
        processes.run(f"{functions}{name}", [{"number": 0}, {"number": 1}], task="try")
    assert time.monotonic() - start < 300
    if name == "refuse":
        assert "process 1: ERROR sidmill.core.processes: rqvae.lr is 7" in caplog.text
    if name == "crash":
        assert "process 1: KeyError: 'a bug'" in caplog.text


def test_the_cause_is_named_where_a_process_that_failed_because_of_it_ends_first(functions):
    """As where one process of a training leaves the others without an answer."""
    with pytest.raises(SidmillError, match=r"process 1 .* lower it"):
        processes.run(f"{functions}refuse_slowly", [{"number": 0}, {"number": 1}], task="try")


@pytest.mark.parametrize("signal", [9, 15])
def test_processes_end_with_the_one_that_started_them_however_it_dies(functions, tmp_path, signal):
    folder = tmp_path / "pids"
    folder.mkdir()
    code = "import sys; from sidmill.core import processes; "
    code += "processes.run(sys.argv[1], [{'folder': sys.argv[2]}] * 2, task='sleep')"
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{tmp_path}"}
    command = [sys.executable, "-c", code, f"{functions}sleep", str(folder)]
    parent = subprocess.Popen(command, env=environment)
    try:
        assert eventually(lambda: len(list(folder.iterdir())) == 2)
        pids = [int(path.name) for path in folder.iterdir()]
        assert all(map(running, pids))
        assert not any(
            str(folder) in Path(f"/proc/{pid}/cmdline").read_text() for pid in pids
        )  # arguments are on no command line
    finally:
        parent.send_signal(signal)
        parent.wait()
    assert eventually(lambda: not any(map(running, pids)), 10)


@pytest.mark.parametrize("n_processes", [1, 2, 3, 16])
@pytest.mark.parametrize("limit", ["8", "1", None, "2,1"])
def test_processes_share_the_threads_of_the_job(monkeypatch, limit, n_processes):
    """Whatever variables the job has set for itself."""
    for name in threads.LIMITS:
        monkeypatch.delenv(name, raising=False)
        if limit is not None:
            monkeypatch.setenv(name, limit)
    n_threads = int(limit.partition(",")[0]) if limit else len(os.sched_getaffinity(0))
    environment = processes.worker_environment(n_processes)
    shares = {environment[name] for name in threads.LIMITS}
    assert shares == {str(max(1, n_threads // n_processes))}
