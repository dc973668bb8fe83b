"""What encode() and decode() promise, against the plain float32 rule written out in NumPy."""

import os
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sidmill.core import threads
from sidmill.core.errors import SidmillError
from sidmill.formats.quantizer_file import Network
from sidmill.numeric import (
    lanes,
    nearest_numpy,
    nearest_torch,
    residual_codec,
    row_blocks,
)


def encode(vectors, codebooks, memory_mb=64):
    return np.concatenate(
        list(residual_codec.encode(vectors, codebooks, device="cpu", memory_mb=memory_mb))
    )


def plain(vectors, codebooks):
    left, columns = np.array(vectors, dtype=np.float32), []
    for words in codebooks:
        distances = np.square(left[:, None] - words[None]).sum(axis=-1)
        columns.append(distances.argmin(axis=1))  # the first of equal ones
        left = left - words[columns[-1]]
    return np.stack(columns, axis=1)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("n_threads", [1, 3, 8])
@pytest.mark.parametrize("n_rows", [1, 70, 1000])
def test_threads_change_no_code_and_all_of_them_work(n_threads, n_rows, monkeypatch):
    """Whatever K is: also where the scores of a whole block fit in the cache."""
    monkeypatch.setattr(threads, "granted", lambda: n_threads)
    n_lanes, run = [], lanes.run

    def counted(work, jobs, numbers):
        n_lanes.append(len(set(numbers)))
        return run(work, jobs, numbers)

    monkeypatch.setattr(lanes, "run", counted)
    vectors, codebooks = normal(4, n_rows, 12), [normal(1, 33, 12), normal(2, 8, 12) / 2]
    np.testing.assert_array_equal(encode(vectors, codebooks), plain(vectors, codebooks))
    assert n_lanes == [min(n_threads, -(-n_rows // residual_codec.MIN_ROWS))]


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=6),
    n_threads=st.integers(1, 5),
    at_once=st.integers(1, 200),
)
def test_blocks_of_any_sizes_follow_each_other(sizes, n_threads, at_once):
    """Threads keep their memory from block to block."""
    vectors, codebooks = normal(6, sum(sizes), 5), [normal(1, 13, 5), normal(2, 8, 5) / 2]
    blocks = iter(np.split(vectors.copy(), np.cumsum(sizes)[:-1]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threads, "granted", lambda: n_threads)
        patch.setattr(residual_codec, "MIN_ROWS", 7)
        patch.setattr(residual_codec, "SCORES_AT_ONCE", 13 * at_once)
        found = list(residual_codec._encode_here(blocks, [(book, None) for book in codebooks]))
    assert [len(codes) for codes in found] == sizes
    np.testing.assert_array_equal(np.concatenate(found), plain(vectors, codebooks))


@pytest.mark.parametrize("dim", [1, 7, 64, 300])
def test_codes_are_those_of_the_plain_rule(dim):
    vectors, codebooks = normal(dim, 700, dim), [normal(1, 33, dim), normal(2, 8, dim) / 2]
    np.testing.assert_array_equal(encode(vectors, codebooks), plain(vectors, codebooks))


def test_near_ties_are_decided_by_the_plain_rule():
    """Codewords one rounding apart: a matrix product orders them at random."""
    base = normal(0, 1, 64) + 10
    words = np.repeat(base, 40, axis=0)
    for row in range(1, len(words)):
        words[row, row] = np.nextafter(words[row, row], np.float32(np.inf))
    vectors = base + np.float32(1e-3) * normal(1, 200, 64)
    np.testing.assert_array_equal(encode(vectors, [words]), plain(vectors, [words]))


def collapsed(seed, n_codes, dim, spread):
    return (normal(seed, 1, dim) + np.float32(spread) * normal(seed + 1, n_codes, dim)).astype("f4")


@pytest.mark.parametrize("device", ["cpu", "cpu,cpu"])
@pytest.mark.parametrize("pairs", [1, 100, 2**18])
@pytest.mark.parametrize("dim", [1, 5, 64])
@pytest.mark.parametrize("spread", [0, 1e-7, 1e-6, 1e-3])
def test_collapsed_codebooks_are_decided_by_the_plain_rule(device, pairs, dim, spread, monkeypatch):
    """Many or all codewords lie within rounding of the nearest, in portions of any size."""
    monkeypatch.setattr(nearest_numpy, "PAIRS_AT_ONCE", pairs)
    monkeypatch.setattr(nearest_numpy, "VALUES_AT_ONCE", pairs)
    vectors = normal(7, 60, dim)
    books = [collapsed(8, 90, dim, spread), np.float32(spread) * normal(9, 70, dim)]
    books[0][40:60] = normal(10, 20, dim)  # and some rows have few candidates
    found = np.concatenate(list(residual_codec.encode(vectors, books, device=device, memory_mb=64)))
    np.testing.assert_array_equal(found, plain(vectors, books))


def test_a_collapsed_codebook_takes_no_more_memory_than_another():
    """Every pair of a row and a codeword is a candidate: 16 million of them."""
    words = collapsed(0, 8192, 8, 1e-7)
    level = nearest_numpy.search_level(words)
    left, spare = normal(2, 2048, 8), np.empty(2048 * 8192, np.float32)
    tracemalloc.start()
    codes = nearest_numpy.nearest(left, level, spare)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 24 * 2**20
    np.testing.assert_array_equal(codes[:20], plain(left[:20], [words])[:, 0])


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_repeated_codewords_with_prices_go_by_the_plain_rule(data):
    """Prices of equal words differ by less, or by more, than the cost can hold."""
    random = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    n_codes, dim = data.draw(st.integers(2, 12)), data.draw(st.integers(1, 4))
    scale = np.float32(data.draw(st.sampled_from([0.1, 1, 30])))
    words = (
        scale * random.standard_normal((3, dim), dtype=np.float32)[random.integers(3, size=n_codes)]
    )
    steps = random.integers(0, 4, size=n_codes)
    prices = (steps * np.float32(data.draw(st.sampled_from([1e-12, 1e-8, 1e-7, 0.1])))).astype("f4")
    vectors = scale * random.standard_normal((30, dim), dtype=np.float32)
    wanted = (np.square(vectors[:, None] - words).sum(axis=2) + prices).argmin(axis=1)
    for device in ("cpu", "cpu,cpu"):
        found = residual_codec.encode(vectors, [words], [prices], device=device, memory_mb=64)
        np.testing.assert_array_equal(np.concatenate(list(found))[:, 0], wanted)


@pytest.mark.parametrize("allowed", ["highest", "high", "medium"])
def test_codes_are_the_same_whatever_products_the_caller_allows(allowed, monkeypatch):
    """Products see full float32 factors while codes are searched; the caller's choice stays."""
    seen = []
    for name in ("addmm",):
        plainly = getattr(torch, name)

        def spying(*arguments, plainly=plainly, **keywords):
            seen.append((torch.backends.mkldnn.matmul.fp32_precision,
                         torch.backends.cuda.matmul.fp32_precision))  # fmt: skip
            return plainly(*arguments, **keywords)

        monkeypatch.setattr(torch, name, spying)
    encoder = Network([normal(1, 4, 6)], [normal(2, 4)], None)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(allowed)
        was = torch.backends.mkldnn.matmul.fp32_precision
        for part in residual_codec.encode(normal(3, 3000, 6), [normal(4, 9, 4)], encoder=encoder,
                                 device="cpu,cpu", memory_mb=1):  # fmt: skip
            assert len(part)
            assert torch.get_float32_matmul_precision() == allowed  # between two blocks too
        assert torch.backends.mkldnn.matmul.fp32_precision == was
    finally:
        torch.set_float32_matmul_precision(before)
    assert len(seen) > 3
    assert set(seen) == {("ieee", "ieee")}


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_ties_go_to_the_lower_code(data):
    """Small integers: every distance is exact, so equal ones are common and truly equal."""
    dim = data.draw(st.integers(1, 4))
    n_rows, n_codes = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 12))
    random = np.random.default_rng(data.draw(st.integers(0, 1000)))
    vectors = random.integers(-2, 3, size=(n_rows, dim)).astype(np.float32)
    codebooks = [random.integers(-2, 3, size=(n_codes, dim)).astype(np.float32) for _ in "ab"]
    np.testing.assert_array_equal(encode(vectors, codebooks), plain(vectors, codebooks))


def test_block_size_and_thread_count_change_no_code():
    vectors, codebooks = normal(3, 9000, 32), [normal(4, 64, 32), normal(5, 64, 32)]
    whole = encode(vectors, codebooks, memory_mb=512)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        np.testing.assert_array_equal(encode(vectors, codebooks, memory_mb=1), whole)
    finally:
        torch.set_num_threads(threads)


def test_permuting_rows_permutes_codes():
    vectors, codebooks = normal(6, 500, 16), [normal(7, 20, 16), normal(8, 20, 16)]
    order = np.random.default_rng(0).permutation(500)
    np.testing.assert_array_equal(
        encode(vectors[order], codebooks), encode(vectors, codebooks)[order]
    )


def test_duplicates_share_codes():
    vectors, codebooks = normal(9, 50, 16), [normal(10, 20, 16), normal(11, 20, 16)]
    codes = encode(np.concatenate([vectors, vectors]), codebooks)
    np.testing.assert_array_equal(codes[:50], codes[50:])


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_reads_a_memory_map_and_parts_of_it(tmp_path, dtype):
    vectors, codebooks = normal(12, 400, 16).astype(dtype), [normal(13, 20, 16)]
    np.save(tmp_path / "v.npy", vectors)
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    expected = plain(vectors, codebooks)
    for part in (slice(None), slice(7, 300), slice(0, 400, 3)):
        np.testing.assert_array_equal(encode(mapped[part], codebooks), expected[part])
    rows = np.array([0, 5, 6, 7, 30, 399])
    found = [block.copy() for _, block in row_blocks.read_blocks(mapped, 4, rows)]
    np.testing.assert_array_equal(np.concatenate(found), vectors[rows].astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_block_rests_while_the_next_one_is_read(tmp_path, monkeypatch, dtype):
    vectors = normal(18, 4000, 64).astype(dtype)
    np.save(tmp_path / "v.npy", vectors)
    started = []
    read = row_blocks._read_rows
    monkeypatch.setattr(
        row_blocks,
        "_read_rows",
        lambda *given: (started.append(1), read(*given), started.append(2)),
    )
    for start, block in row_blocks.read_blocks(np.load(tmp_path / "v.npy", mmap_mode="r"), 1500):
        deadline = time.monotonic() + 120
        while len(started) < min(6, 2 * (start // 1500 + 2)):  # begins and ends, of the next too
            assert time.monotonic() < deadline
            time.sleep(0.001)
        np.testing.assert_array_equal(block, vectors[start : start + 1500].astype(np.float32))


def test_who_reads_one_block_only_leaves_no_thread_and_no_file_behind(tmp_path):
    np.save(tmp_path / "v.npy", normal(20, 400, 16))
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    before = set(threading.enumerate()), len(list(Path("/proc/self/fd").iterdir()))
    stream = row_blocks.read_blocks(mapped, 100)
    next(stream)
    stream.close()
    assert (set(threading.enumerate()), len(list(Path("/proc/self/fd").iterdir()))) == before


@pytest.mark.parametrize("rows", [[-1, 2], [0, 400]])
def test_rows_that_do_not_exist_are_no_bytes_from_beside_the_file(tmp_path, rows):
    np.save(tmp_path / "v.npy", normal(21, 400, 16))
    with pytest.raises(IndexError):
        row_blocks.take(np.load(tmp_path / "v.npy", mmap_mode="r"), np.array(rows))


def test_what_stops_the_reader_stops_who_reads(tmp_path):
    np.save(tmp_path / "v.npy", normal(19, 400, 16))
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    os.truncate(tmp_path / "v.npy", 20_000)
    with pytest.raises(SidmillError, match="shorter than its header"):
        list(row_blocks.read_blocks(mapped, 100))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_rows_taken_in_any_order_leave_no_page_of_the_map_behind(tmp_path, dtype, resident_kib):
    """One row of a map of a large file brings in up to a MiB, which counts as this process's."""
    vectors = normal(17, 4000, 64).astype(dtype)
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    rows = np.array([3999, 0, 17, 17, 2048, 16])
    np.testing.assert_array_equal(row_blocks.take(mapped, rows), vectors[rows].astype(np.float32))
    assert row_blocks.take(mapped, rows[:0]).shape == (0, 64)
    assert resident_kib(tmp_path / "vectors.npy") == 0
    mapped[rows]
    assert resident_kib(tmp_path / "vectors.npy") > 0


def test_codes_are_int32_blocks_in_row_order():
    vectors, codebooks = normal(14, 5000, 64), [normal(15, 30, 64)]
    parts = list(residual_codec.encode(vectors, codebooks, device="cpu", memory_mb=1))
    assert len(parts) > 1
    assert {block.dtype for block in parts} == {np.dtype(np.int32)}
    np.testing.assert_array_equal(np.concatenate(parts), plain(vectors, codebooks))


def test_decode_adds_the_chosen_words_of_a_prefix():
    codebooks = [normal(16, 5, 8), normal(17, 4, 8)]
    codes = np.array([[4, 0], [1, 3]], dtype=np.int32)
    both = codebooks[0][[4, 1]] + codebooks[1][[0, 3]]
    np.testing.assert_array_equal(residual_codec.decode(codes, codebooks), both)
    np.testing.assert_array_equal(
        residual_codec.decode(codes[:, :1], codebooks), codebooks[0][[4, 1]]
    )
    assert residual_codec.decode(codes[:, :0], codebooks).tolist() == np.zeros((2, 8)).tolist()
    assert residual_codec.decode(codes, codebooks).dtype == np.float32


def test_decode_refuses_what_is_not_of_its_codebooks():
    codebooks = [normal(18, 5, 8)]
    with pytest.raises(SidmillError, match="level 0 reach from 5 to 5, but its codebook has 5"):
        residual_codec.decode(np.array([[5]]), codebooks)
    with pytest.raises(SidmillError, match="do not fit 1 codebooks"):
        residual_codec.decode(np.array([[0, 0]]), codebooks)


def test_encode_says_what_is_wrong():
    vectors, codebooks = normal(19, 20, 8), [normal(20, 5, 8)]
    with pytest.raises(SidmillError, match="dimension 8"):
        encode(normal(21, 20, 9), codebooks)
    vectors[13, 2] = np.inf
    with pytest.raises(SidmillError, match="first at row 13"):
        encode(vectors, codebooks)
    with pytest.raises(SidmillError, match="too small for one row"):
        row_blocks.rows_per_block(400_000, 1, 1)


def test_large_values_are_no_infinities():
    """The squares of a block overflow together, and those of no row."""
    vectors = np.full((4096, 4), 2.0**58, dtype=np.float32)
    row_blocks.require_finite(vectors, 0)


def test_a_truncated_file_is_named(tmp_path):
    np.save(tmp_path / "v.npy", normal(22, 100, 64))
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    with (tmp_path / "v.npy").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(SidmillError, match="shorter than its header says"):
        encode(mapped, [normal(23, 4, 64)])


def test_pick_device():
    assert nearest_torch.pick_device("cpu") == torch.device("cpu")
    assert nearest_torch.pick_device("auto").type == (
        "cuda" if torch.cuda.is_available() else "cpu"
    )
    with pytest.raises(SidmillError, match="unknown device 'warp'"):
        nearest_torch.pick_device("warp")


@pytest.mark.parametrize("learned", [False, True])
def test_memory_changes_no_code(rng, learned):
    """Blocks of 31 rows, of 496 and of all: with an encoder too."""
    vectors = rng.standard_normal((1500, 1000), dtype=np.float32)
    width = 24 if learned else 1000
    books = [rng.standard_normal((size, width), dtype=np.float32) for size in (2000, 9)]
    encoder = None
    if learned:
        weights = [rng.standard_normal(shape, dtype=np.float32) for shape in ((40, 1000), (24, 40))]
        encoder = Network(weights, [np.zeros(len(weight), np.float32) for weight in weights], None)
    found = [
        np.concatenate(
            list(residual_codec.encode(vectors, books, (), encoder, device="cpu", memory_mb=memory))
        )
        for memory in (1, 16, 1024)
    ]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
