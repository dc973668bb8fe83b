"""Several devices share the rows, and give the same bytes as one; CPUs stand in for GPUs."""

import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from test_resume import SETTINGS, cut_after, fit, same

from sidmill.core.errors import SidmillError
from sidmill.formats.quantizer_file import Network
from sidmill.numeric import (
    arrays,
    nearest_pieces,
    nearest_torch,
    residual_codec,
    row_pieces,
)
from sidmill.quantize import lloyd, residual_rows, rqkmeans, training_devices

LARGE = replace(SETTINGS, codebook_size=[150, 40, 9], n_iter=4)


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch):
    monkeypatch.setattr(row_pieces, "PIECE_ROWS", 64)


@pytest.fixture(autouse=True)
def _torch(monkeypatch):
    """GPUs compute with torch, so their stand-in does; `cpu` alone would be NumPy."""
    monkeypatch.setattr(training_devices, "suits_numpy", lambda *_: False)


@pytest.fixture
def on_threads():
    """A function that sets how many threads torch has, until the test ends."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def vectors():
    """So many rows that blocks of 256 and pieces of 64 are left uneven."""
    return np.random.default_rng(0).standard_normal((1231, 12), dtype=np.float32)


@pytest.fixture(scope="module")
def on_one(vectors):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_pieces, "PIECE_ROWS", 64)
        patch.setattr(training_devices, "suits_numpy", lambda *_: False)
        return rqkmeans.fit(vectors, LARGE, seed=0)


def test_a_cpu_shares_pieces_among_its_cores(on_threads):
    """One lane per core, but none without a piece; a GPU stays as it is."""
    cpu = [torch.device("cpu")]
    on_threads(3)
    assert [len(nearest_pieces.expand_cpu(cpu, n_rows)) for n_rows in (1, 64, 128, 640)] == [
        1,
        1,
        2,
        3,
    ]
    assert nearest_pieces.expand_cpu(cpu * 2, 640) == cpu * 2
    assert nearest_pieces.expand_cpu([torch.device("cuda:0")], 640) == [torch.device("cuda:0")]


def test_lanes_work_at_once_on_one_core_each_and_leave_the_rest_alone(on_threads):
    """Each waits for the other two: alone, or in turn, they would never meet."""
    on_threads(3)
    meeting = threading.Barrier(3, timeout=120)

    def work(rows, add):
        meeting.wait()
        return int(rows.sum()) + add, torch.get_num_threads()

    rows = torch.ones(4)
    jobs = [(rows, add) for add in range(6)]
    found = nearest_torch.run_concurrently(work, jobs, [0, 1, 2, 0, 1, 2])
    assert found == [(4 + add, 1) for add in range(6)]
    assert torch.get_num_threads() == 3
    seen = []
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert seen == [3]


def test_a_lane_that_cannot_start_keeps_nobody_waiting(on_threads, monkeypatch):
    """Else the others would wait for it when the program ends, and it would never end."""
    on_threads(5)
    before = set(threading.enumerate())
    start = threading.Thread.start

    def refuse(thread):
        if len(set(threading.enumerate()) - before) == 2:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    pool = ThreadPoolExecutor(5)
    with pytest.raises(RuntimeError, match="start new thread"):
        nearest_torch.share_cores(pool, 5, 1)
    assert torch.get_num_threads() == 5
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()


def test_a_child_process_has_lanes_of_its_own(on_threads):
    on_threads(2)
    jobs = [(torch.ones(1),)] * 2
    nearest_torch.run_concurrently(torch.sum, jobs, [0, 1])
    child = os.fork()
    if not child:
        signal.alarm(20)
        os._exit(len(nearest_torch.run_concurrently(torch.sum, jobs, [0, 1])))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2


@pytest.mark.parametrize("ones", [np.ones, torch.ones])
def test_a_lane_does_its_jobs_in_order_beside_the_others(on_threads, ones):
    """The two lanes meet in each of their jobs; no job of one lane begins before its last one."""
    on_threads(2)
    meeting, log = threading.Barrier(2, timeout=120), []

    def work(rows, lane, number):
        log.append((lane, number, "begins"))
        meeting.wait()
        log.append((lane, number, "ends"))
        return lane, number

    lanes = [0, 1, 1, 0, 1, 0]
    jobs = [(ones(1), lane, number) for number, lane in enumerate(lanes)]
    found = nearest_pieces.run_concurrently(work, jobs, lanes)
    assert found == [(lane, number) for number, lane in enumerate(lanes)]
    for lane in 0, 1:
        own = [event[1:] for event in log if event[0] == lane]
        numbers = [number for number, each in enumerate(lanes) if each == lane]
        assert own == [(number, what) for number in numbers for what in ("begins", "ends")]


@pytest.mark.parametrize("ones", [np.ones, torch.ones])
@pytest.mark.parametrize("failing", [0, 1])
def test_what_fails_in_a_lane_is_said_when_the_others_have_ended(on_threads, ones, failing):
    """They write to memory that the caller uses again."""
    on_threads(2)
    ended, has_failed = [], threading.Event()

    def work(rows, lane):
        if lane == failing:
            has_failed.set()
            raise SidmillError("no")
        assert has_failed.wait(120)
        time.sleep(0.05)
        ended.append(lane)

    with pytest.raises(SidmillError, match="no"):
        nearest_pieces.run_concurrently(work, [(ones(1), lane) for lane in (0, 1)], [0, 1])
    assert ended == [1 - failing]


@pytest.mark.parametrize("ones", [np.ones, torch.ones])
def test_no_jobs_and_one_lane(ones):
    assert nearest_pieces.run_concurrently(len, [], []) == []
    assert nearest_pieces.run_concurrently(len, [(ones(3),), (ones(2),)], [4, 4]) == [3, 2]


@pytest.mark.parametrize("device", ["cpu,cpu", "cpu, cpu, cpu", ",".join(["cpu"] * 20)])
def test_any_number_of_devices_fits_the_same_bytes(vectors, on_one, device):
    assert same(rqkmeans.fit(vectors, replace(LARGE, device=device), seed=0), on_one)


@pytest.mark.parametrize("change", [{"balance": "capacity"}, {"max_points_per_centroid": 5}])
def test_so_it_is_with_a_balance_and_a_sample(vectors, change):
    many = rqkmeans.fit(vectors, replace(LARGE, **change, device="cpu,cpu,cpu"), seed=0)
    assert same(many, rqkmeans.fit(vectors, replace(LARGE, **change), seed=0))


@pytest.mark.parametrize("change", [{}, {"balance": "capacity"}, {"max_points_per_centroid": 5}])
def test_rows_held_on_the_devices_give_the_same_bytes(vectors, monkeypatch, change):
    streamed = rqkmeans.fit(vectors, replace(LARGE, **change), seed=0)
    monkeypatch.setattr(residual_rows, "_fit_in_memory", lambda devices, n_bytes: True)
    kept = vectors.copy()
    assert same(rqkmeans.fit(vectors, replace(LARGE, **change, device="cpu,cpu"), seed=0), streamed)
    np.testing.assert_array_equal(vectors, kept)


def test_cut_short_on_one_device_and_finished_on_two(tmp_path, monkeypatch, vectors, on_one):
    for n_saves in (2, 6):
        path = tmp_path / f"{n_saves}.state"
        assert cut_after(monkeypatch, n_saves, vectors, path, LARGE)
        finished = fit(vectors, path, LARGE, device="cpu,cpu")
        assert same(finished, on_one)


@pytest.mark.parametrize("learned", [False, True])
def test_encoding_on_devices_is_encoding_on_one(vectors, rng, learned):
    books = [rng.standard_normal((size, 6 if learned else 12), dtype=np.float32) for size in (9, 5)]
    prices = [rng.random(len(words), dtype=np.float32) for words in books]
    encoder = None
    if learned:
        weights = [rng.standard_normal(shape, dtype=np.float32) for shape in ((8, 12), (6, 8))]
        encoder = Network(weights, [np.zeros(len(weight), np.float32) for weight in weights], None)
    found = [
        np.concatenate(
            list(residual_codec.encode(vectors, books, prices, encoder, device=device, memory_mb=1))
        )
        for device in ("cpu", "cpu,cpu", "cpu,cpu,cpu")
    ]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 700), st.integers(1, 9))
def test_pieces_are_the_block_and_end_where_rows_say(start, n_rows, n_devices):
    block = torch.arange(start, start + n_rows, dtype=torch.float32)[:, None]
    pieces = row_pieces.cut(start, block, n_devices)
    assert torch.equal(torch.cat([part for _, part in pieces]), block)
    assert all(0 < len(part) <= 64 for _, part in pieces)
    assert all(int(part[0]) % 64 == 0 for _, part in pieces[1:])
    for together in row_pieces.rounds(pieces, n_devices):
        assert len({place for place, _ in together}) == len(together)


def test_sums_that_gpus_take_are_those_of_a_cpu(rng):
    vectors = torch.from_numpy(rng.standard_normal((500, 7), dtype=np.float32))
    codes = torch.from_numpy(rng.integers(1, 20, size=500))  # 0 and 20 stay without rows
    wanted = torch.zeros((21, 7)).index_add_(0, codes, vectors)
    torch.testing.assert_close(arrays.segment_sums(vectors, codes, 21), wanted)


def test_pick_devices():
    assert nearest_torch.pick_devices("cpu") == [torch.device("cpu")]
    assert nearest_torch.pick_devices("cpu, cpu") == [torch.device("cpu")] * 2
    n_gpus = torch.cuda.device_count()
    assert len(nearest_torch.pick_devices("auto")) == max(1, n_gpus)
    with pytest.raises(SidmillError, match="of two kinds"):
        nearest_torch.pick_devices("cpu,meta")
    with pytest.raises(SidmillError, match="unknown device ''"):
        nearest_torch.pick_devices("cpu,")
    with pytest.raises(SidmillError, match="CPUs and CUDA devices alone"):
        nearest_torch.pick_devices("meta")


@pytest.mark.parametrize("n_gpus", [1, 2, 8])
def test_a_gpu_that_is_not_there_is_named(n_gpus, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)
    assert len(nearest_torch.pick_devices(f"cuda:0,cuda:{n_gpus - 1}")) == 2
    for names in (f"cuda:{n_gpus}", f"cuda:0,cuda:{n_gpus + 3}"):
        with pytest.raises(SidmillError, match=rf"the last is cuda:{n_gpus - 1}: set"):
            nearest_torch.pick_devices(names)


def test_auto_takes_every_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert [str(device) for device in nearest_torch.pick_devices("auto")] == [
        *("cuda:0", "cuda:1", "cuda:2")
    ]


@pytest.mark.parametrize("section", ["rqkmeans", "encoding"])
def test_the_config_takes_what_pick_devices_takes(section):
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
    pattern = schema["properties"][section]["properties"]["device"]["pattern"]
    for good in ("auto", "cpu", "cuda", "cuda:1", "cuda:0,cuda:1", "cpu,cpu"):
        assert re.search(pattern, good), good
    for bad in ("", "gpu", "cpu,cuda:0", "cuda:0,", "auto,cuda:0", "cuda:0;cuda:1"):
        assert not re.search(pattern, bad), bad


def error_of(vectors, fitted):
    blocks = residual_codec.encode(vectors, fitted.codebooks, device="cpu", memory_mb=64)
    found = residual_codec.decode(np.concatenate(list(blocks)), fitted.codebooks)
    return np.square(vectors - found).mean()


def test_rows_of_a_block_that_one_gpu_selects_at_once_are_the_same(vectors, on_one, monkeypatch):
    """What one GPU does to wait once per block: the CPU has the same bytes from it."""
    settings = replace(LARGE, device="cpu,cpu")
    monkeypatch.setattr(lloyd, "_is_one_gpu", lambda buffers: True)
    assert same(rqkmeans.fit(vectors, settings, seed=0), on_one)

    # Sums over a whole block are in another order.
    monkeypatch.setattr(lloyd, "_joined", lambda pieces: [torch.cat(pieces)])
    joined = error_of(vectors, rqkmeans.fit(vectors, settings, seed=0))
    assert joined == pytest.approx(error_of(vectors, on_one), rel=0.02)


def test_products_in_bfloat16_fit_codebooks_of_the_same_error(vectors, on_one, monkeypatch):
    """The arithmetic of GPUs: factors are rounded, sums are float32."""
    monkeypatch.setattr(nearest_torch, "rounded", lambda words: words.to(torch.bfloat16))
    monkeypatch.setattr(
        nearest_torch, "_wide_sums", lambda rows, words: rows.float() @ words.float().T
    )
    rounded = rqkmeans.fit(vectors, LARGE, seed=0)

    assert not same(rounded, on_one)
    assert error_of(vectors, rounded) == pytest.approx(error_of(vectors, on_one), rel=0.02)


def test_codewords_are_rounded_on_gpus_alone_and_in_rough_products_alone():
    words = torch.ones(3, 4)
    assert nearest_torch.rounded(words) is words
    with nearest_torch.rough_products():
        assert nearest_torch.rounded(words) is words
