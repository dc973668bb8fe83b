"""What jobs and Snakemake load until they end; that bytecode and digests stay for the next run."""

import json
import subprocess

import pytest

pytestmark = pytest.mark.workflow

TEXTS = "results/items/text.parquet"
LARGE = ("datasets", "faiss", "h5py", "matplotlib", "pandas", "scipy", "sklearn", "torch")
LOADED = {
    "embed_shard": {"scipy"},
    "fit_lsa": {"scipy"},
    "measure_quality": {"faiss"},
    "plot_quality": {"matplotlib"},
    "resolve_collisions": {"scipy"},
}
# Python imports a module of this name at its start, if there is one.
RECORD = """
import atexit, json, os, sys

def record():
    name = os.path.basename(sys.argv[0]).split(".")
    if name == ["__main__", "py"]:  # Snakemake, as the tests call it
        name = ["tmp", "snakemake", "py"]
    if len(name) == 3 and name[0].startswith("tmp"):  # a script of a job: tmpXXXX.RULE.py
        with open(os.path.join(os.environ["RECORDS"], name[1] + ".json"), "w") as file:
            json.dump([*sys.modules], file)

atexit.register(record)
"""
# An environment without the plugin for Slurm, which imports pandas.
WITHOUT_PLUGIN = """
import pkgutil

found = pkgutil.iter_modules
pkgutil.iter_modules = lambda *args: (entry for entry in found(*args) if "_slurm" not in entry.name)
"""
# The process of Snakemake does not end before its timers.
RECORD_TIMERS = """
import os, threading

class Timer(threading.Timer):
    def start(self):
        with open(os.environ["TIMERS"], "a") as file:
            file.write(f"{self.interval}\\n")
        super().start()

threading.Timer = Timer
"""


def test_jobs_and_snakemake_load_what_they_use(workflow, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(RECORD + WITHOUT_PLUGIN)
    command = workflow.command("--configfile", "tests/configs/tiny.yaml")
    command["env"] |= {"PYTHONPATH": str(tmp_path / "site"), "RECORDS": str(tmp_path)}
    command["env"].pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(**command, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr

    loaded = {
        path.stem: {*json.loads(path.read_text())} & {*LARGE, "torch._dynamo"}
        for path in tmp_path.glob("*.json")
    }
    assert len(loaded) == 13  # and Snakemake itself
    assert {rule: packages for rule, packages in loaded.items() if packages} == LOADED
    cached = {path.name.partition(".")[0] for path in workflow.folder.rglob("src/**/*.pyc")}
    assert {"rqkmeans", "job", "lsa"} <= cached
    assert (workflow.folder / ".snakemake/sidmill.sources").exists()


@pytest.mark.parametrize(
    ("options", "interval"), [((), set()), (("--max-jobs-per-timespan", "50/2s"), {"2.0"})], ids=str
)
def test_a_run_waits_for_no_timer(workflow, tmp_path, options, interval):
    """Snakemake starts some for its limit of jobs per second; one that the user gives stays."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(RECORD_TIMERS)
    command = workflow.command("--configfile", "tests/configs/tiny.yaml", *options, "--", TEXTS)
    command["env"] |= {"PYTHONPATH": str(tmp_path / "site"), "TIMERS": str(tmp_path / "timers")}
    done = subprocess.run(**command, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr

    timers = tmp_path / "timers"
    intervals = {*timers.read_text().split()} if timers.exists() else set()
    assert intervals == interval
