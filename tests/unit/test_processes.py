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
from sidmill.core.processes import Inherited
from sidmill.quantize import rqkmeans_processes

FUNCTIONS = """
import atexit, os, subprocess, sys, time
from pathlib import Path
from sidmill.core.errors import SidmillError

Path(__file__).with_name(f"import-{os.getpid()}").touch()
print("a line of the import")


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


def kill_server(number):
    if number:
        os.kill(os.getppid(), 9)
    time.sleep(600)


def leave_program(folder, number):
    if number:
        raise SidmillError("enough") if Path(folder, "pid").exists() else time.sleep(600)
    program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(folder, "pid").write_text(str(program.pid))
    raise SidmillError("enough")


def leave_early(number):
    print("a library ends the process")
    sys.exit(0)


def leave_running(folder, number):
    program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(folder, f"pid-{number}").write_text(str(program.pid))


def listens(member):
    import socket
    with socket.socket(fileno=os.dup(member["listener"])) as listener:
        return listener.getsockname()[1] == member["port"]


def read(descriptor):
    return os.pread(descriptor, 100, 0).decode(), "json" in sys.modules, "calendar" in sys.modules


def multiply(size):
    import numpy as np
    values = np.ones((size, size))
    return float((values @ values).sum())
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


def test_modules_are_imported_once_and_files_stay_open(functions, tmp_path, caplog):
    """By the server; what an import prints is a line of the log."""
    (tmp_path / "text").write_text("some words")
    with caplog.at_level(logging.INFO), (tmp_path / "text").open() as file:
        inherited = Inherited(["some_functions", "calendar"], [file.fileno()])
        arguments = [{"descriptor": file.fileno()}] * 3
        found = processes.run(f"{functions}read", arguments, task="read", inherited=inherited)
    assert found == [["some words", True, True]] * 3
    assert len(list(tmp_path.glob("import-*"))) == 1
    assert caplog.text.count("server of the processes: a line of the import") == 1


def test_an_import_that_fails_is_a_failure_with_its_lines(functions, caplog):
    with caplog.at_level(logging.INFO), pytest.raises(SidmillError, match="exit code 1, see"):
        processes.run("no_such_module:function", [{}, {}], task="try")
    assert "ModuleNotFoundError: No module named 'no_such_module'" in caplog.text


def test_processes_end_with_their_server(functions):
    start = time.monotonic()
    with pytest.raises(SidmillError, match="of the 2 that try failed: exit code -9"):
        processes.run(f"{functions}kill_server", [{"number": 0}, {"number": 1}], task="try")
    assert time.monotonic() - start < 300


def test_a_program_that_a_process_started_ends_as_well(functions, tmp_path):
    arguments = [{"folder": str(tmp_path), "number": number} for number in range(2)]
    with pytest.raises(SidmillError, match="enough"):
        processes.run(f"{functions}leave_program", arguments, task="try")
    pid = int((tmp_path / "pid").read_text())
    assert eventually(lambda: not running(pid), 10)


def test_programs_that_are_left_running_hold_up_the_result_once(functions, tmp_path, monkeypatch):
    """And not once per process: each keeps a pipe open that lines of its process come through."""
    monkeypatch.setattr(processes, "DRAIN_S", 2)
    arguments = [{"folder": str(tmp_path), "number": number} for number in range(6)]
    start = time.monotonic()
    try:
        assert processes.run(f"{functions}leave_running", arguments, task="try") == [None] * 6
        assert time.monotonic() - start < 100
    finally:
        for path in tmp_path.glob("pid-*"):
            os.kill(int(path.read_text()), 9)


def test_a_process_that_ends_without_a_result_is_a_failure(functions, caplog):
    message = "process 0 of the 2 that try failed: it ended without a result, see its lines above"
    with caplog.at_level(logging.INFO), pytest.raises(SidmillError, match=message):
        processes.run(f"{functions}leave_early", [{"number": 0}, {"number": 1}], task="try")
    assert "process 0: a library ends the process" in caplog.text


def run_elsewhere(tmp_path, code, redirection=""):
    """Run code in a new process; return its exit code and the lines of its standard error."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{tmp_path}"}
    command = f'"$0" -c "$1" {redirection}'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, code],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("closed", ["<&-", "<&- >&-"])
def test_standard_streams_may_be_closed(functions, tmp_path, closed):
    """As some programs leave them that start jobs: no pipe or socket takes their place."""
    code = "from sidmill.core import rendezvous\n"
    code += f"assert rendezvous.run('{functions}listens', {{}}, 2, task='try') == [True, True]"
    assert run_elsewhere(tmp_path, code, closed) == (0, "")


def test_a_process_that_ends_is_noticed_where_the_parent_ignores_the_signal(functions, tmp_path):
    """Some programs that start jobs ignore SIGCHLD, and what they start does so, too."""
    code = "import signal\nfrom sidmill.core import processes\n"
    code += "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
    code += f"processes.run('{functions}die', [{{'number': 0}}, {{'number': 1}}], task='try')"
    _, lines = run_elsewhere(tmp_path, code)
    assert "process 0 of the 2 that try failed: exit code -9" in lines


def test_products_of_several_threads_run_in_forks(functions, monkeypatch):
    """Libraries whose threads started with their import have them in each process again."""
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    inherited = Inherited(["numpy"])
    arguments = [{"size": 300}] * 2
    found = processes.run(f"{functions}multiply", arguments, task="try", inherited=inherited)
    assert found == [300.0**3] * 2


@pytest.mark.parametrize(
    "modules",
    [
        (*rqkmeans_processes.MODULES, "sidmill.quantize.rqvae.fit"),
        pytest.param(["sidmill.embed.backends.sentence_transformers"], marks=pytest.mark.long),
    ],
)
def test_no_thread_runs_and_no_gpu_is_in_use_where_processes_are_forked(modules):
    """But the thread by which Arrow's allocator frees memory: it has hooks for forks.

    Asking CUDA how many GPUs there are would be use enough: the forks could not begin with it.
    """
    code = "import importlib, os, sys, torch\n"
    code += "torch.cuda.is_available = torch.cuda.device_count = lambda: sys.exit('asked')\n"
    code += "for name in sys.argv[1:]: importlib.import_module(name)\n"
    code += "assert not torch.cuda.is_initialized()\n"
    code += "tasks = os.listdir('/proc/self/task')\n"
    code += "print({open(f'/proc/self/task/{task}/comm').read().strip() for task in tasks\n"
    code += "    if task != str(os.getpid())})"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *modules]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.strip() in ("set()", "{'jemalloc_bg_thd'}")


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
