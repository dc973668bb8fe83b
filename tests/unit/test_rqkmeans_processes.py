"""Residual k-means in several processes: the bytes of one, and an end together."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import process_fits
import pyarrow as pa
import pytest
import torch
from conftest import ROOT
from process_watch import eventually, running

from sidmill.core import rendezvous
from sidmill.core.errors import SidmillError
from sidmill.core.rendezvous import Member
from sidmill.formats import vector_file, vector_store
from sidmill.numeric import nearest_torch, process_group, row_blocks, row_pieces
from sidmill.numeric.process_group import Group
from sidmill.quantize import codebook_sizes, resume, rqkmeans, rqkmeans_processes, shared_blocks
from sidmill.quantize.rqkmeans_processes import Files, Run
from sidmill.quantize.shared_blocks import SharedBlock

LONG = replace(process_fits.SETTINGS, codebook_size=512, n_levels=1, n_iter=20, tolerance=0.0)


@pytest.fixture
def importable(monkeypatch):
    """Let processes import the modules of this folder."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A vector store whose training has time to be killed in."""
    folder = tmp_path_factory.mktemp("store")
    rows = np.random.default_rng(5).standard_normal((20000, 16), dtype=np.float32)
    vectors, ids = folder / "vectors.npy", folder / "ids.parquet"
    sums = vector_store.write(vectors, rows.shape, "float32", [rows])
    numbers = pa.chunked_array([pa.array(range(len(rows)))])
    vector_store.write_ids(ids, numbers, rows.shape, {}, sums)
    return Files(str(vectors), str(ids))


def same(mine, theirs):
    return len(mine.codebooks) == len(theirs.codebooks) and all(
        map(np.array_equal, mine.codebooks, theirs.codebooks)
    )


def test_two_and_four_processes_give_the_bytes_of_one(tmp_path, importable, one_thread):
    process_fits.write_vectors(tmp_path)
    alone = {
        name: process_fits.fit(tmp_path, changes) for name, changes in process_fits.CASES.items()
    }
    assert len(set(alone.values())) == len(alone)  # each case is one of its own
    arguments = {"folder": str(tmp_path)}
    for size in (2, 4):
        found = rendezvous.run("process_fits:fit_all", arguments, size, task="fit")
        assert found == [{name: alone[name] for name in process_fits.cases(size)}] * size


def forks():
    """Processes that a server forked, of servers that this process has started."""
    return [pid for server in children(os.getpid()) for pid in children(server)]


def children(parent):
    tasks = Path(f"/proc/{parent}/task").glob("*/children")
    return sorted(int(pid) for path in tasks for pid in path.read_text().split())


def test_a_killed_process_ends_all_and_the_next_run_continues(files, tmp_path, caplog, importable):
    run = Run(0, str(tmp_path / "quantizer.state"), "")
    pids, before = [], forks()

    def kill_one():
        """Kill a process as soon as there is something to continue from."""
        assert eventually(lambda: Path(run.state_path).exists(), 60)
        pids.extend(pid for pid in forks() if pid not in before)
        os.kill(pids[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    with pytest.raises(SidmillError, match=r"of the 2 that train .*quantizer failed: exit code -9"):
        rqkmeans_processes.fit(files, LONG, run, n_processes=2)
    killer.join()
    assert len(pids) == 2
    assert not any(map(running, pids))

    # The state of two processes is the state of one.
    caplog.set_level(logging.INFO)
    continued = rqkmeans_processes.fit(files, LONG, run, n_processes=1)
    assert "resuming after" in caplog.text
    resume.discard(run.state_path)
    assert same(continued, rqkmeans_processes.fit(files, LONG, run, n_processes=1))


WAITS = """
import dataclasses, json, sys
import numpy as np
from sidmill.quantize import rqkmeans_processes
from sidmill.quantize.rqkmeans_processes import Files, Run
from sidmill.settings.quantize import Rqkmeans

files, folder = json.loads(sys.argv[1]), sys.argv[2]
settings = Rqkmeans(n_levels=1, codebook_size=300, n_iter=1, device="cpu,cpu", memory_mb=64)
run = Run(0, f"{folder}/state", "")
fitted = rqkmeans_processes.fit(Files(*files), settings, run, n_processes=2)
assert not {"torch", "scipy", "sklearn", "faiss"} & {*sys.modules}
np.save(f"{folder}/codebook.npy", fitted.codebooks[0])
"""


def test_the_process_that_waits_loads_no_torch(files, tmp_path, importable):
    """Each of the others has a device of the list."""
    command = [sys.executable, "-c", WAITS, json.dumps(files), str(tmp_path)]
    subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, check=True)
    settings = replace(LONG, codebook_size=300, n_iter=1, device="cpu,cpu")
    run = Run(0, str(tmp_path / "alone"), "")
    alone = rqkmeans_processes.fit(files, settings, run, n_processes=1)
    np.testing.assert_array_equal(np.load(tmp_path / "codebook.npy"), alone.codebooks[0])


@pytest.mark.parametrize("names", ["cuda:1", "cuda:2,cuda:3", "cpu,cpu", "cpu,cpu,cpu,cpu"])
def test_a_list_of_devices_is_one_per_process_or_refused(files, tmp_path, names):
    run = Run(0, str(tmp_path / "state"), "")
    with pytest.raises(SidmillError, match=rf"names \d device\(s\), {names}, for 3 processes of"):
        rqkmeans_processes.fit(files, replace(LONG, device=names), run, n_processes=3)


def test_a_process_takes_the_device_of_its_number(monkeypatch):
    members = [Member(rank, 2, rank, "n1", 20000, False) for rank in range(3)]

    # A list names them, and too short a list is refused on a machine where that is the case.
    listed = [torch.device("cuda", 2), torch.device("cuda", 3)]
    monkeypatch.setattr(nearest_torch, "pick_devices", lambda names: listed)
    names = "cuda:2,cuda:3"
    assert [process_group.pick_device(names, each) for each in members[:2]] == listed
    with pytest.raises(SidmillError, match="process 3 of this machine has no device among cuda:2"):
        process_group.pick_device(names, members[2])

    # Of a kind, the number is chosen when the processes join; alone, a process takes the first.
    for kind in ("auto", "cuda"):
        assert process_group.pick_device(kind, members[1]) == torch.device("cuda")
    assert process_group.pick_device(names, None) == listed[0]


@pytest.mark.parametrize("codebook_size", [1, 255, 256, 512, 700, [300, 1024, 20], 1024, 5000])
def test_as_many_processes_are_asked_for_as_have_work(codebook_size):
    sizes = codebook_size if isinstance(codebook_size, list) else [codebook_size]
    on_gpus = rqkmeans.most_processes(64, sizes, is_gpu=True)
    for wanted in (1, 3, 64):
        found = codebook_sizes.processes_at_work(wanted, codebook_size)
        assert found == min(wanted, on_gpus)


def test_processes_that_have_other_vectors_are_refused(importable, caplog):
    """Blocks of 16 codewords are one piece each: the processes say that one is too many."""
    caplog.set_level(logging.INFO)
    with pytest.raises(SidmillError, match="process 1 of 2 does not have the vectors of process 0"):
        rendezvous.run("process_fits:disagree", {}, 2, task="train")
    assert "2 processes share blocks of 1 piece(s), so that 1 of them wait: lower" in caplog.text


def test_processes_that_round_otherwise_send_the_same_messages(importable):
    """k-means++ draws until it has its codewords: how often must not depend on a process's bits."""
    found = rendezvous.run("process_fits:round_otherwise", {}, 2, task="choose codewords")
    assert found[0] == found[1]
    assert len({*found[0]}) == 10


@pytest.mark.parametrize(
    ("dim", "sizes", "on_cpus", "on_gpus"),
    [
        (64, [256, 64], 1, 1),
        (64, [512], 2, 2),
        (1024, [1024] * 3, 4, 4),
        (4096, [8192] * 3, 4, 32),
        (64, [2**20], 1, 1),
    ],
)
def test_blocks_have_work_for_so_many_processes(dim, sizes, on_cpus, on_gpus):
    found = [rqkmeans.most_processes(dim, sizes, is_gpu=is_gpu) for is_gpu in (False, True)]
    assert found == [on_cpus, on_gpus]


def test_the_result_is_read_out_of_the_last_state(files, tmp_path):
    """The vectors are scaled while they are read, and the codebooks are not."""
    vectors = np.load(files.vectors)[:600] * np.float32(2.0**-40)
    settings = replace(LONG, codebook_size=16, n_iter=2)
    fitted = rqkmeans.fit(vectors, settings, seed=0, state_path=tmp_path / "state")
    assert same(resume.read_finished(tmp_path / "state"), fitted)
    assert np.abs(fitted.codebooks[0]).max() < 2.0**-36


@pytest.mark.long
def test_the_script_of_the_page_runs_under_torchrun(tmp_path, importable, one_thread):
    page = (ROOT / "docs/cluster.md").read_text()
    (tmp_path / "train.py").write_text(page.partition("```python\n")[2].partition("```")[0])
    process_fits.write_vectors(tmp_path)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    path = {"PYTHONPATH": str(ROOT / "src")}
    subprocess.run([*command, "train.py"], cwd=tmp_path, env=os.environ | path, check=True)
    settings = replace(process_fits.SETTINGS, codebook_size=600, n_iter=20)
    alone = rqkmeans.fit(np.load(tmp_path / "vectors.npy"), settings, seed=42)
    with np.load(tmp_path / "codebooks.npz") as found:
        assert all(np.array_equal(found[f"arr_{n}"], alone.codebooks[n]) for n in range(2))


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("span", [(0, 4096), (1024, 1280), (4096, 9000), (512, 5000)])
def test_each_piece_of_a_block_belongs_to_one_process(size, span):
    blocks = [SharedBlock(Group(rank, size), *span) for rank in range(size)]
    own = [shared_blocks.own_spans(each) for each in blocks]
    together = sorted((rows for spans in own for rows in spans), key=lambda rows: rows.start)
    assert together == shared_blocks.piece_spans(blocks[0])
    counts = [len(spans) for spans in own]
    assert max(counts) - min(counts) <= 1
    rows = torch.arange(*span)
    for each in blocks:
        mine = torch.cat(
            [rows[:0], *(torch.arange(s.start, s.stop) for s in shared_blocks.own_spans(each))]
        )
        pieces = shared_blocks.cut_own(each, mine, 2)
        assert [len(piece.rows) for piece in pieces] == [
            s.stop - s.start for s in shared_blocks.own_spans(each)
        ]
        assert all(len(piece.rows) <= row_pieces.PIECE_ROWS for piece in pieces)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("is_mapped", [True, False])
def test_parts_hold_the_rows_that_are_asked_for(tmp_path, dtype, is_mapped):
    rows = np.random.default_rng(2).standard_normal((300, 7)).astype(dtype)
    np.save(tmp_path / "v.npy", rows)
    vectors = np.load(tmp_path / "v.npy", mmap_mode="r") if is_mapped else rows
    parts = [slice(0, 5), np.arange(0), np.array([3, 4, 299]), slice(290, 300), np.arange(40)]
    read = row_blocks.read_parts(vectors, 40, len(parts), parts.__getitem__)
    for part, block in zip(parts, read, strict=True):
        np.testing.assert_array_equal(block, rows[part].astype("f4"))


def test_a_damaged_share_is_found_by_the_process_that_reads_it(files, tmp_path):
    """The others trust it: each byte is checked once, by one of them."""
    damaged = tmp_path / "vectors.npy"
    content = bytearray(Path(files.vectors).read_bytes())
    content[-2] ^= 1
    damaged.write_bytes(content)
    vectors = vector_store.open_store(damaged, files.ids).vectors
    with pytest.raises(SidmillError, match="are not those that were written"):
        list(row_blocks.read_blocks(vectors, 4096))
    vectors = vector_store.open_store(damaged, files.ids).vectors
    row_blocks.trust_rest(vectors)
    assert sum(len(block) for _, block in row_blocks.read_blocks(vectors, 4096)) == 20000


def test_parts_of_a_stream_are_refused():
    stream = vector_file.Streamed((600, 4), lambda: iter(()))
    with pytest.raises(TypeError, match="not from a stream"):
        next(row_blocks.read_parts(stream, 5, 1, lambda number: slice(0, 5)))


TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "n7"}
SLURM = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": "0"}
SLURM |= {"SLURM_STEP_NODELIST": "n1,n2", "SLURM_JOB_ID": "77", "SLURM_STEP_ID": "2"}


@pytest.mark.parametrize(
    ("environment", "member"),
    [
        ({}, None),
        ({**TORCHRUN, "MASTER_PORT": "29400"}, Member(3, 4, 1, "n7", 29400, False)),
        (
            {**TORCHRUN, "MASTER_PORT": "1", "TORCHELASTIC_USE_AGENT_STORE": "True"},
            Member(3, 4, 1, "n7", 1, True),
        ),
        ({"RANK": "0", "WORLD_SIZE": "1"}, None),
        (SLURM, Member(1, 2, 0, "n1", 20000 + (77 * 31 + 2) % 12000, False)),
        ({**SLURM, "MASTER_ADDR": "x", "MASTER_PORT": "9"}, Member(1, 2, 0, "x", 9, False)),
        ({**SLURM, "SLURM_STEP_NUM_TASKS": "1"}, None),  # a job that Snakemake submitted
    ],
)
def test_a_process_finds_its_place_in_the_environment(monkeypatch, environment, member):
    for name in {*TORCHRUN, *SLURM, "MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE"}:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert rendezvous.of_environment() == member


def test_a_place_without_a_meeting_point_says_so(monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(SidmillError, match="MASTER_PORT is missing: start the processes with"):
        rendezvous.of_environment()


def test_streams_are_refused_where_processes_share_the_rows(files):
    stream = vector_file.Streamed((600, 4), lambda: iter(()))
    with pytest.raises(SidmillError, match=r"2 processes cannot share a stream"):
        rqkmeans.fit(stream, replace(LONG, codebook_size=16), seed=0, group=Group(0, 2))


def test_each_process_has_a_gpu_of_its_own_or_is_refused(monkeypatch):
    second = Member(1, 2, 1, "n1", 20000, False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("SLURM_PROCID", raising=False)
    assert process_group._own_gpu(second) == torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(SidmillError, match="start at most 1 processes here"):
        process_group._own_gpu(second)

    # A task of Slurm may see its own GPU alone.
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert process_group._own_gpu(second) == torch.device("cuda", 0)
