"""Items that several processes encode: the codes of one, and nothing left behind."""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sidmill.core.errors import SidmillError
from sidmill.core.processes import Launcher
from sidmill.core.rendezvous import Member
from sidmill.formats import quantizer_file, vector_store
from sidmill.numeric import nearest_torch, row_blocks
from sidmill.quantize import encode_processes
from sidmill.quantize.encode_processes import Files
from sidmill.settings.quantize import Encoding

SETTINGS = Encoding(device="cpu", memory_mb=64)
# As srun: starts tasks that are named in their environment, and gives each the whole of its input.
FAKE_SRUN = """
import os, subprocess, sys
request = sys.stdin.buffer.readline()
n_tasks, *command = sys.argv[1:]
common = {**os.environ, "SLURM_STEP_NUM_TASKS": n_tasks, "SLURM_STEP_NODELIST": "n1"}
common["SLURM_JOB_ID"] = "1"
tasks = [
    subprocess.Popen(
        command, stdin=subprocess.PIPE, env={**common, "SLURM_PROCID": str(rank)}
    )
    for rank in range(int(n_tasks))
]
for task in tasks:
    task.stdin.write(request)
    task.stdin.flush()
sys.exit(max(task.wait() for task in tasks))
"""


@pytest.fixture
def files(tmp_path, monkeypatch):
    """9,000 items, which are three blocks of which the last one is short, and a quantizer."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    random = np.random.default_rng(0)
    rows = random.standard_normal((9000, 6), dtype=np.float32)
    sums = vector_store.write(tmp_path / "vectors.npy", rows.shape, "float32", [rows])
    ids = pa.chunked_array([pa.array(range(len(rows)))])
    vector_store.write_ids(tmp_path / "ids.parquet", ids, rows.shape, {}, sums)
    books = [random.standard_normal((size, 6), dtype=np.float32) for size in (7, 5)]
    quantizer_file.write(
        tmp_path / "q.safetensors", quantizer_file.Quantizer("rqkmeans", books, {}, {})
    )
    return Files(
        *(str(tmp_path / name) for name in ("q.safetensors", "vectors.npy", "ids.parquet"))
    )


def codes_of(files, n_processes):
    output = Path(files.vectors).with_name("codes.parquet")
    blocks = list(encode_processes.encode(files, SETTINGS, output, n_processes))
    assert all(len(block) <= row_blocks.MAX_BLOCK_ROWS for block in blocks)
    return np.concatenate(blocks)


@pytest.mark.parametrize("n_processes", [2, 4])
def test_processes_give_the_codes_of_one(files, n_processes):
    """Of four processes one has no item."""
    alone = codes_of(files, 1)
    assert alone.shape == (9000, 2)
    stale = Path(files.vectors).with_name(f"{encode_processes.FOLDER}stale")
    stale.mkdir()
    found = codes_of(files, n_processes)
    assert (found.tobytes(), found.dtype) == (alone.tobytes(), alone.dtype)
    assert not list(stale.parent.glob(f"{encode_processes.FOLDER}*"))


def test_tasks_of_a_launcher_find_their_items(files, tmp_path, monkeypatch):
    """``srun`` starts them, and their environment names them."""
    launcher = tmp_path / "launcher.py"
    launcher.write_text(FAKE_SRUN)
    command = [sys.executable, str(launcher), "2"]
    monkeypatch.setattr(encode_processes.rendezvous, "srun", lambda n: Launcher(command, n))
    found = codes_of(files, 2)
    monkeypatch.undo()
    assert found.tobytes() == codes_of(files, 1).tobytes()


@pytest.mark.parametrize("by_launcher", [False, True])
def test_a_process_that_refuses_ends_all_with_its_message(
    files, tmp_path, monkeypatch, by_launcher
):
    rows = np.load(files.vectors)
    rows[8999, 2] = np.nan
    vectors = Path(files.vectors)
    vector_store.write(vectors, rows.shape, "float32", [rows])
    ids = vector_store.read_pids(files.ids)
    vector_store.write_ids(files.ids, ids, rows.shape, {})
    who = "process 1 of the 2 that"
    if by_launcher:
        launcher = tmp_path / "launcher.py"
        launcher.write_text(FAKE_SRUN)
        command = [sys.executable, str(launcher), "2"]
        monkeypatch.setattr(encode_processes.rendezvous, "srun", lambda n: Launcher(command, n))
        who = "one of the 2 processes that"
    with pytest.raises(SidmillError, match=rf"{who} encode .* failed: vectors are not finite"):
        codes_of(files, 2)
    assert not list(vectors.parent.glob(f"{encode_processes.FOLDER}*"))


def test_outside_of_slurm_there_is_no_srun(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert encode_processes.rendezvous.srun(2) is None


def test_a_container_without_the_programs_of_slurm_starts_its_own_processes(monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert encode_processes.rendezvous.srun(2) is None


@pytest.mark.parametrize(
    ("n_tasks", "n_cpus", "starts"),
    [(1, 16, False), (2, 16, True), (3, 24, True), (4, 4, False), (16, 15, False)],
)
def test_srun_starts_no_more_tasks_than_the_job_has(monkeypatch, tmp_path, n_tasks, n_cpus, starts):
    """Nor does it ask for more CPUs, which it would refuse."""
    shown = json.dumps(f"JobId=7 JobName=x NumNodes=1 NumCPUs={n_cpus} NumTasks={n_tasks}")
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f"#!/bin/sh\necho {shown}\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    found = encode_processes.rendezvous.srun(2)
    assert (found is not None) == starts
    if found:
        assert {"srun", "--ntasks=2", "--cpus-per-task=8"} <= set(found.command)


def test_gpus_are_dealt_out_to_the_processes_of_a_machine(monkeypatch):
    """Tasks of ``srun`` take one each."""
    n_gpus, own = 4, encode_processes._own_devices
    monkeypatch.setattr(encode_processes.gpu_driver, "is_there", lambda: n_gpus > 0)
    monkeypatch.setattr(
        nearest_torch, "pick_devices", lambda names: [f"cuda:{n}" for n in range(n_gpus)]
    )

    def here(size):
        members = [Member(n, size, n, "127.0.0.1", 1, False, listener=3) for n in range(size)]
        return [own("auto", member) for member in members]

    assert here(2) == ["cuda:0,cuda:2", "cuda:1,cuda:3"]
    assert here(3) == ["cuda:0,cuda:3", "cuda:1", "cuda:2"]
    assert here(5) == ["cuda:0", "cuda:1", "cuda:2", "cuda:3", "cuda:0"]
    tasks = [Member(4 + n, 8, n, "n1", 1, False) for n in range(2)]
    assert [own("auto", task) for task in tasks] == ["cuda:0", "cuda:1"]

    # Without a GPU nothing is dealt out, and torch is not asked.
    n_gpus = 0
    assert [own(names, tasks[1]) for names in ("auto", "cpu")] == ["auto", "cpu"]
