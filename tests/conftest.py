"""What all tests share."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parents[1]
# A machine that others use too is slow at times, which is no fault of what is tested.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as the workflow sets it
WORKFLOW = ("Snakefile", "config.yaml", "workflow", "profiles", "configs", "envs", "src")


def pytest_collection_modifyitems(items):
    if not os.environ.get("SIDMILL_LONG"):
        skipped = pytest.mark.skip(reason="takes a minute or more: SIDMILL_LONG=1 runs it")
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(skipped)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def real_data():
    """Folder of the real data sets; tests that need them are skipped where they are missing."""
    folder = Path(os.environ.get("SIDMILL_DATA", ROOT.parent / "shared/data"))
    if not (folder / "amazon-industrial").is_dir():
        pytest.skip(f"no real data in {folder}: set SIDMILL_DATA to its folder")
    return folder.resolve()


@pytest.fixture(scope="session")
def resident_kib():
    """Ask what the pages of a mapped file count for in this process's resident memory."""

    def ask(path: Path) -> int:
        _, *found = Path("/proc/self/smaps").read_text().split(f" {path}\n")
        assert found
        return sum(int(facts.partition("Rss:")[2].split()[0]) for facts in found)

    return ask


class Workflow:
    """A copy of the workflow in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in (*WORKFLOW, "tests/configs"):
            source, target = ROOT / name, folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, target)

    def command(self, *arguments: str, cores: tuple[str, ...] = ("--cores", "2")) -> dict:
        """What subprocess.run and Popen take to run Snakemake in this folder."""
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        words = [sys.executable, "-m", "snakemake", *cores, *arguments]
        return {"args": words, "cwd": self.folder, "env": environment, "text": True}

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(**self.command(*arguments), capture_output=True, timeout=600)

    def start(self, *arguments: str) -> subprocess.Popen:
        """Start a run as a group of processes of its own."""
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(**self.command(*arguments), **quiet, start_new_session=True)

    def kill_when(self, name: str, *arguments: str) -> None:
        """Start a run and kill all of its processes at once when a file of results appears."""
        process = self.start(*arguments)
        deadline = time.monotonic() + 300
        while not (self.folder / "results" / name).exists():
            assert process.poll() is None, "the run ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def run(self, *arguments: str) -> str:
        """Run, expect success, and return what was printed."""
        done = self.snakemake(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def planned(self, *arguments: str) -> set[str]:
        """Names of the rules that a run would execute."""
        printed = self.run("--dry-run", *arguments)
        if "Nothing to be done" in printed:
            return set()
        table = printed.partition("Job stats:")[2].partition("\ntotal ")[0].splitlines()
        return {line.split()[0] for line in table[3:]}

    def faults(self) -> list[str]:
        """What ``sidmill check`` finds in the results."""
        from sidmill.report import check

        return [f"{one.path}: {one.says}" for one in check.check(self.folder / "results").faults]

    def overlay(self, name: str, text: str) -> str:
        (self.folder / name).write_text(text, encoding="utf-8")
        return name

    def bytes(self, name: str) -> bytes:
        return (self.folder / "results" / name).read_bytes()


@pytest.fixture
def workflow(tmp_path):
    return Workflow(tmp_path / "work flow")  # a space, as users have them


@pytest.fixture(scope="session")
def make_workflow(tmp_path_factory):
    return lambda: Workflow(tmp_path_factory.mktemp("work flow"))


@pytest.fixture
def one_thread():
    """Small matrices: threads of torch would only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
