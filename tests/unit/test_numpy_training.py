"""Residual k-means in NumPy and in torch: one algorithm, chosen by size, with results alike."""

import logging
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_resume import cut_after, fit, same
from threadpoolctl import threadpool_info, threadpool_limits

from sidmill.core import threads
from sidmill.numeric import arrays, nearest_pieces, residual_codec, row_pieces
from sidmill.numeric.process_group import ALONE
from sidmill.quantize import rqkmeans, training_devices
from sidmill.settings.quantize import Rqkmeans

SETTINGS = Rqkmeans(n_levels=2, codebook_size=12, n_iter=5, device="cpu", memory_mb=64)
WAYS = "numpy", "torch"


def fit_both(vectors, chosen, known=None, seed=0):
    """Codebooks of NumPy and of torch."""
    found = {}
    for way in WAYS:
        with pytest.MonkeyPatch.context() as patch:
            is_numpy = way == "numpy"
            patch.setattr(training_devices, "suits_numpy", lambda *_, chosen=is_numpy: chosen)
            found[way] = rqkmeans.fit(vectors, chosen, seed=seed, known=known).codebooks
    return found.values()


def codes_and_error(vectors, codebooks):
    blocks = residual_codec.encode(vectors, codebooks, device="cpu", memory_mb=64)
    codes = np.concatenate(list(blocks))
    residuals = vectors - residual_codec.decode(codes, codebooks)
    return codes, np.square(residuals).mean(dtype=np.float64)


def planted(rng, n_rows, dim, n_groups, noise):
    centres = 10 * rng.standard_normal((n_groups, dim))
    rows = centres[np.arange(n_rows) % n_groups] + noise * rng.standard_normal((n_rows, dim))
    return rows.astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_rows=st.integers(30, 1500),
    dim=st.integers(1, 40),
    size=st.integers(1, 30),
)
def test_both_ways_reach_one_error_from_one_start(seed, n_rows, dim, size):
    """Known codes are a start without a draw; what remains is the rounding of products."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((n_rows, dim), dtype=np.float32)
    known = rng.integers(-1, size, (n_rows, 1), dtype=np.int32)
    chosen = replace(SETTINGS, n_levels=1, codebook_size=size)
    errors = [
        codes_and_error(vectors, books)[1] for books in fit_both(vectors, chosen, known=known)
    ]
    little = 0.01 * float(np.square(vectors).mean())
    assert errors[0] == pytest.approx(errors[1], rel=0.03, abs=little)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_groups=st.integers(1, 12),
    dim=st.integers(2, 50),
    per_group=st.integers(1, 80),
)
def test_both_ways_group_rows_alike_where_groups_are_apart(seed, n_groups, dim, per_group):
    rng = np.random.default_rng(seed)
    vectors = planted(rng, n_groups * per_group, dim, n_groups, noise=1e-3)
    chosen = replace(SETTINGS, n_levels=1, codebook_size=n_groups)
    mine, theirs = (
        codes_and_error(vectors, books)[0][:, 0] for books in fit_both(vectors, chosen, seed=seed)
    )
    pairs = set(zip(mine.tolist(), theirs.tolist(), strict=True))
    assert len(pairs) == len({*mine}) == len({*theirs}) == n_groups


@pytest.mark.parametrize("kind", ["clusters", "noise", "duplicates", "nearly N codewords"])
def test_errors_of_both_ways_differ_by_little(kind, rng):
    """Means of three seeds: the draws of the two ways differ."""
    vectors = {
        "clusters": lambda: planted(rng, 4000, 24, 90, noise=2.0),
        "noise": lambda: rng.standard_normal((4000, 24), dtype=np.float32),
        "duplicates": lambda: np.repeat(rng.standard_normal((400, 24), dtype=np.float32), 8, 0),
        "nearly N codewords": lambda: rng.standard_normal((70, 24), dtype=np.float32),
    }[kind]()
    chosen = replace(SETTINGS, codebook_size=64, n_iter=20)
    fits = [fit_both(vectors, chosen, seed=seed) for seed in range(3)]
    mine, theirs = (
        np.mean([codes_and_error(vectors, books)[1] for books in each])
        for each in zip(*fits, strict=True)
    )
    nothing = 1e-3 * float(
        np.square(vectors).mean()
    )  # with as many codewords as rows hardly any is left
    assert mine == pytest.approx(theirs, rel=0.02, abs=nothing)


@pytest.mark.parametrize("n_threads", [2, 5])
def test_any_number_of_threads_gives_the_same_bytes(n_threads, rng, monkeypatch):
    """Lanes compute, and each product in them takes one core."""
    vectors = rng.standard_normal((1231, 12), dtype=np.float32)
    chosen = replace(SETTINGS, codebook_size=[150, 40])
    monkeypatch.setattr(row_pieces, "PIECE_ROWS", 64)
    monkeypatch.setattr(threads, "granted", lambda: 1)
    alone = rqkmeans.fit(vectors, chosen, seed=0)

    lanes, cores = set(), set()
    score = nearest_pieces.score

    def record(*arguments):
        lanes.add(threading.current_thread().name)
        cores.update(info["num_threads"] for info in threadpool_info() if is_blas_of_numpy(info))
        return score(*arguments)

    monkeypatch.setattr(nearest_pieces, "score", record)
    monkeypatch.setattr(threads, "granted", lambda: n_threads)
    with threadpool_limits(3, user_api="blas"):
        assert same(rqkmeans.fit(vectors, chosen, seed=0), alone)
        after = {info["num_threads"] for info in threadpool_info() if is_blas_of_numpy(info)}
    assert 1 <= sum(name.startswith("lane") for name in lanes) <= n_threads
    assert (cores, after) == ({1}, {3})


def is_blas_of_numpy(info):
    return info["user_api"] == "blas" and "numpy" in info["filepath"]


def test_a_cut_training_continues_in_numpy_alone(tmp_path, monkeypatch, rng, caplog):
    """The state of one way is not that of the other."""
    caplog.set_level(logging.INFO)
    vectors = rng.standard_normal((400, 12), dtype=np.float32)
    path = tmp_path / "state"
    assert cut_after(monkeypatch, 3, vectors, path)
    with monkeypatch.context() as patch:
        patch.setattr(training_devices, "suits_numpy", lambda *_: False)
        fit(vectors, path)
        assert "belongs to another training" in caplog.text
    path.unlink()
    assert cut_after(monkeypatch, 3, vectors, path)
    caplog.clear()
    assert same(fit(vectors, path), fit(vectors, None))
    assert "resuming after" in caplog.text


def devices_of(shape, sizes, **changes):
    return training_devices.pick(replace(SETTINGS, **changes), shape, sizes, ALONE)


def test_size_balance_and_device_choose_and_the_log_says_so(caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(training_devices, "NUMPY_PRODUCTS", 10**6)
    monkeypatch.setattr(training_devices, "NUMPY_CODEBOOK", 500)
    monkeypatch.setattr(training_devices, "NUMPY_SIZE", 90)
    assert devices_of((1000, 10), [100, 50]) == [arrays.HOST]
    assert "NumPy computes on cpu: 1000 x 10 vectors, up to 100 codewords" in caplog.text
    cpu = [torch.device("cpu")]
    assert devices_of((1001, 10), [50, 100]) == cpu
    assert "torch computes on cpu: 1001 x 10 vectors" in caplog.text
    assert devices_of((10**6, 10), [50]) == [arrays.HOST]
    assert devices_of((10**6, 10), [50, 51]) == cpu
    assert devices_of((10**6, 5), [90]) == [arrays.HOST]
    assert devices_of((10**6, 5), [90, 91]) == cpu
    assert devices_of((1000, 10), [100], balance="capacity") == cpu
    assert devices_of((1000, 10), [100], device="cpu,cpu") == cpu * 2
    assert devices_of((1000, 10), [100], memory_mb=2000, processes=2) == [arrays.HOST]


@pytest.mark.parametrize("has_driver", [False, True])
def test_without_a_gpu_auto_is_the_cpu_with_a_driver_or_not(has_driver, monkeypatch):
    monkeypatch.setattr("sidmill.numeric.gpu_driver.is_there", lambda: has_driver)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices_of((1000, 10), [100], device="auto") == [arrays.HOST]


def test_a_small_training_loads_none_of_the_large_packages():
    program = """
import sys
import numpy as np
from sidmill.quantize import rqkmeans
from sidmill.settings.quantize import Rqkmeans
vectors = np.random.default_rng(0).standard_normal((900, 8), dtype=np.float32)
rqkmeans.fit(vectors, Rqkmeans(codebook_size=200, device="cpu", memory_mb=64), seed=0)
print(*({"torch", "scipy", "pandas", "sklearn"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == []


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_rows=st.integers(0, 200),
    n_codes=st.integers(1, 40),
    dim=st.integers(1, 9),
    dtype=st.sampled_from(["float32", "float64"]),
    sign=st.sampled_from([1, -1]),
    crowd=st.floats(0, 1),
)
def test_rows_are_added_to_the_bit_as_torch_adds_them(
    seed, n_rows, n_codes, dim, dtype, sign, crowd
):
    """Each total gets its rows in their order, whether few of them share it or most."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n_rows, dim), dtype=np.float32)
    codes = np.where(rng.random(n_rows) < crowd, 0, rng.integers(0, n_codes, n_rows))
    totals = rng.standard_normal((n_codes, dim)).astype(dtype)
    wanted = torch.from_numpy(totals.copy())
    arrays.add_rows(wanted, torch.from_numpy(rows), torch.from_numpy(codes), sign)
    found = arrays.add_rows(totals, rows, codes, sign)
    assert found is totals
    np.testing.assert_array_equal(found, wanted.numpy())


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=5),
    n_codes=st.integers(1, 40),
    dtype=st.sampled_from(["float32", "float64"]),
    crowd=st.floats(0, 1),
)
def test_rows_move_to_the_bit_as_if_one_after_the_other(seed, lengths, n_codes, dtype, crowd):
    """Piece by piece: first all rows join their new totals, then they leave the old ones."""
    rng = np.random.default_rng(seed)
    pieces = [rng.standard_normal((length, 3), dtype=np.float32) for length in lengths]
    before, after = (
        np.where(rng.random(sum(lengths)) < crowd, 0, rng.integers(0, n_codes, sum(lengths)))
        for _ in range(2)
    )
    totals = rng.standard_normal((n_codes, 3)).astype(dtype)
    wanted, first = totals.copy(), 0
    for rows in pieces:
        for row, code in zip(rows, after[first:], strict=False):
            wanted[code] += row
        for row, code in zip(rows, before[first:], strict=False):
            wanted[code] -= row
        first += len(rows)
    of_torch = torch.from_numpy(totals.copy())
    arrays.move_rows(totals, pieces, before, after)
    np.testing.assert_array_equal(totals, wanted)
    both = torch.from_numpy(before), torch.from_numpy(after)
    arrays.move_rows(of_torch, [torch.from_numpy(rows) for rows in pieces], *both)
    np.testing.assert_array_equal(of_torch.numpy(), wanted)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8", "bool"])
def test_values_of_any_type_are_sorted_as_torch_sorts_them(dtype, rng):
    """Also those that have no negative ones, and those that are no number."""
    values = rng.integers(0, 4, 100).astype(dtype)
    if dtype.startswith("float"):
        values[::7], values[::11], values[::13] = np.nan, np.inf, -0.0
    for some in (values, values[:1], values[:0]):
        wanted = arrays.descending(torch.from_numpy(some.copy())).numpy()
        np.testing.assert_array_equal(arrays.descending(some), wanted, strict=True)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n_rows=st.integers(1, 60), width=st.integers(1, 9))
def test_what_differs_between_numpy_and_torch_gives_the_same(seed, n_rows, width):
    """Whole numbers, so that ties occur; where torch leaves their order open, values count."""
    rng = np.random.default_rng(seed)
    table = rng.integers(-3, 4, (n_rows, width)).astype(np.float32)
    there = torch.from_numpy(table.copy())
    rows = rng.integers(0, n_rows, 5)
    lengths = [n_rows // 2, 0, n_rows - n_rows // 2]
    for mine, theirs in (
        (arrays.descending(table[:, 0]), arrays.descending(there[:, 0])),
        (
            arrays.largest(table[:, 0], 1 + n_rows // 2)[0],
            arrays.largest(there[:, 0], 1 + n_rows // 2)[0],
        ),
        (arrays.highest(table)[0], arrays.highest(there)[0]),
        (arrays.positions(table[:, 0]), arrays.positions(there[:, 0])),
        (arrays.take(table, rows), arrays.take(there, torch.from_numpy(rows))),
        (arrays.square_norms(table), arrays.square_norms(there)),
        (arrays.directions(table), arrays.directions(there)),
        (arrays.largest_values(table), torch.from_numpy(arrays.largest_values(there))),
        (arrays.cast(table, "float64"), arrays.cast(there, "float64")),
        *zip(arrays.split(table, lengths), arrays.split(there, lengths), strict=True),
        *zip(arrays.split(table, 7), there.split(7), strict=True),
        *zip(arrays.split(table[:0], 7), there[:0].split(7), strict=True),
    ):
        assert str(mine.dtype) == str(theirs.dtype).removeprefix("torch.")
        np.testing.assert_allclose(mine, theirs.numpy(), rtol=1e-6)
    assert arrays.sum_of_squares(table) == pytest.approx(arrays.sum_of_squares(there))
    for mine, theirs in ((arrays.copy(table), table), (arrays.copy(there), there)):
        mine[:] = 9
        assert (theirs != 9).all()
