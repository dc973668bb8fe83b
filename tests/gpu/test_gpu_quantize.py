"""Residual k-means and encoding on the device: the codes and errors of the CPU."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gpu_device import DEVICE, SEARCH_DEVICE, agreement, gpu, planted

from sidmill.formats.quantizer_file import Network
from sidmill.formats.vector_file import Streamed
from sidmill.numeric import arrays, nearest_torch, residual_codec
from sidmill.quantize import residual_rows, resume, rqkmeans
from sidmill.settings.quantize import Opq, Rqkmeans

pytestmark = gpu

SETTINGS = Rqkmeans(n_levels=2, codebook_size=16, device=SEARCH_DEVICE, memory_mb=64)


def codes_of(vectors, fitted, device="cpu"):
    blocks = residual_codec.encode(
        vectors, fitted.codebooks, fitted.prices, device=device, memory_mb=64
    )
    return np.concatenate(list(blocks))


def error_of(vectors, fitted):
    codes = codes_of(vectors, fitted)
    return np.square(vectors - residual_codec.decode(codes, fitted.codebooks)).mean()


def same(one, other):
    pairs = zip([*one.codebooks, *one.prices], [*other.codebooks, *other.prices], strict=True)
    return all(mine.tobytes() == theirs.tobytes() for mine, theirs in pairs)


@pytest.fixture(scope="module")
def vectors():
    return planted()


@pytest.fixture(scope="module")
def on_cpu(vectors):
    return rqkmeans.fit(vectors, replace(SETTINGS, device="cpu"), seed=0)


@pytest.fixture(scope="module")
def on_device(vectors):
    return rqkmeans.fit(vectors, SETTINGS, seed=0)


def test_codes_and_errors_are_those_of_the_cpu(vectors, on_cpu, on_device):
    assert error_of(vectors, on_device) == pytest.approx(error_of(vectors, on_cpu), rel=1e-4)
    mine, theirs = codes_of(vectors, on_device), codes_of(vectors, on_cpu)
    for level in range(2):
        assert agreement(mine[:, level], theirs[:, level]) > 0.999
        assert agreement(theirs[:, level], mine[:, level]) > 0.999


def test_twice_the_same_bytes_held_on_the_device_or_streamed(vectors, on_device, monkeypatch):
    assert same(rqkmeans.fit(vectors, SETTINGS, seed=0), on_device)
    held = []
    monkeypatch.setattr(residual_rows, "_fit_in_memory", lambda *_: held.append(False))
    assert same(rqkmeans.fit(vectors, SETTINGS, seed=0), on_device)
    stream = Streamed(vectors.shape, lambda: iter(np.array_split(vectors, 7)))
    assert same(rqkmeans.fit(stream, SETTINGS, seed=0), on_device)
    assert len(held) == 2


def test_cut_short_it_ends_in_the_same_bytes(vectors, on_device, tmp_path, monkeypatch):
    def run(path):
        return rqkmeans.fit(vectors, SETTINGS, seed=0, state_path=str(path))

    real = resume.start
    for n_saves in (1, 3):
        path, left = tmp_path / f"{n_saves}.state", [n_saves]

        def start(*arguments, left=left, **keywords):
            saved, save = real(*arguments, **keywords)

            def save_and_die(*state):
                save(*state)
                left[0] -= 1
                if not left[0]:
                    raise KeyboardInterrupt

            return saved, save_and_die

        with monkeypatch.context() as patch:
            patch.setattr(resume, "start", start)
            with pytest.raises(KeyboardInterrupt):
                run(path)
        assert same(run(path), on_device)


@pytest.mark.parametrize("balance", ["capacity", "sinkhorn"])
def test_a_balance_holds_the_loads(vectors, balance):
    settings = replace(SETTINGS, balance=balance, max_load=1.3)
    mine = rqkmeans.fit(vectors, settings, seed=0)
    theirs = rqkmeans.fit(vectors, replace(settings, device="cpu"), seed=0)
    assert same(rqkmeans.fit(vectors, settings, seed=0), mine)
    for one, other in zip(mine.balance, theirs.balance, strict=True):
        assert one["max_load_after"] <= max(1.3, other["max_load_after"] * 1.01)
    # Rows move at prices that rounding decides, so errors are alike, not equal.
    assert error_of(vectors, mine) == pytest.approx(error_of(vectors, theirs), rel=0.05)


def test_many_codes_leave_no_structure_to_find_and_the_error_is_alike():
    """More codes than planted: which local optimum is found depends on roundings."""
    rows = np.random.default_rng(3).standard_normal((4000, 24), dtype=np.float32)
    settings = replace(SETTINGS, codebook_size=200)
    mine = rqkmeans.fit(rows, settings, seed=0)
    theirs = rqkmeans.fit(rows, replace(settings, device="cpu"), seed=0)
    assert error_of(rows, mine) == pytest.approx(error_of(rows, theirs), rel=0.01)


def test_all_gpus_together_find_what_one_finds(vectors, on_device, monkeypatch):
    """Rows divided over devices: held there, streamed, and encoded."""
    if DEVICE == "cpu" or torch.cuda.device_count() < 2:
        pytest.skip("needs two devices, on CUDA alone")
    both = "cuda:0,cuda:1"
    settings = replace(SETTINGS, device=both)
    mine = rqkmeans.fit(vectors, settings, seed=0)
    assert same(rqkmeans.fit(vectors, settings, seed=0), mine)
    monkeypatch.setattr(residual_rows, "_fit_in_memory", lambda *_: False)
    assert same(rqkmeans.fit(vectors, settings, seed=0), mine)
    assert error_of(vectors, mine) == pytest.approx(error_of(vectors, on_device), rel=1e-4)
    np.testing.assert_array_equal(codes_of(vectors, mine, both), codes_of(vectors, mine))

    # Prices of a balance, and the second device alone.
    for changes in ({"balance": "capacity", "max_load": 1.3}, {"device": "cuda:1"}):
        changed = replace(settings, **changes)
        assert same(rqkmeans.fit(vectors, changed, seed=0), rqkmeans.fit(vectors, changed, seed=0))


def test_sums_of_rows_are_the_same_on_every_call():
    rng = np.random.default_rng(0)
    rows = torch.from_numpy(rng.standard_normal((5000, 33), dtype=np.float32)).to(DEVICE)
    codes = torch.from_numpy(rng.integers(50, size=5000)).to(DEVICE)
    first = arrays.add_rows(torch.zeros(64, 33, device=DEVICE), rows, codes)
    for _ in range(5):
        again = arrays.add_rows(torch.zeros(64, 33, device=DEVICE), rows, codes)
        assert torch.equal(first, again)
    wanted = torch.zeros(64, 33).index_add_(0, codes.cpu(), rows.cpu())
    torch.testing.assert_close(first.cpu(), wanted, rtol=1e-5, atol=1e-4)
    again = arrays.add_rows(first.clone(), rows[:0], codes[:0])
    assert torch.equal(first, again)


def test_products_in_bfloat16_are_near_those_in_float32():
    rng = np.random.default_rng(0)
    rows, words = (
        torch.from_numpy(rng.standard_normal((n, 256), dtype=np.float32)).to(DEVICE)
        for n in (1024, 300)
    )
    halves = arrays.square_norms(words) / 2
    wanted = nearest_torch.score(rows, words, halves, None)
    with nearest_torch.rough_products():
        rounded = nearest_torch.rounded(words)
        found = nearest_torch.score(rows, rounded, halves, None)
    assert rounded.dtype == (torch.float32 if DEVICE == "cpu" else torch.bfloat16)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=0, atol=0.02 * 256**0.5)
    assert nearest_torch.rounded(words) is words


BOOKS = {
    "random": lambda rng, size, dim: rng.standard_normal((size, dim), dtype=np.float32),
    "ties": lambda rng, size, dim: rng.integers(-1, 2, (size, dim)).astype(np.float32),
}


@pytest.mark.parametrize("kind", BOOKS)
@pytest.mark.parametrize("is_priced", [False, True])
@pytest.mark.parametrize("n_rows", [1, 1023, 5000])
def test_codes_are_exact_also_where_distances_tie(kind, is_priced, n_rows):
    rng = np.random.default_rng(n_rows)
    books = [BOOKS[kind](rng, size, 12) for size in (40, 17)]
    books[0][7] = books[0][3]  # a repeat
    prices = [rng.integers(0, 3, len(book)).astype(np.float32) for book in books]
    vectors = BOOKS[kind](rng, n_rows, 12)
    vectors[::5] = (books[0][0] + books[0][1]) / 2
    found = [
        np.concatenate(
            list(
                residual_codec.encode(
                    vectors, books, prices if is_priced else [], device=device, memory_mb=1
                )
            )
        )
        for device in ("cpu", SEARCH_DEVICE)
    ]
    np.testing.assert_array_equal(*found)


def test_codes_of_many_codewords_are_exact():
    rng = np.random.default_rng(0)
    books = [rng.standard_normal((2000, 96), dtype=np.float32) for _ in range(2)]
    vectors = rng.standard_normal((3000, 96), dtype=np.float32)
    found = [
        np.concatenate(list(residual_codec.encode(vectors, books, device=device, memory_mb=64)))
        for device in ("cpu", SEARCH_DEVICE)
    ]
    np.testing.assert_array_equal(*found)


def test_codes_of_latents_are_those_of_the_cpu_but_for_rows_between_two():
    rng = np.random.default_rng(0)
    shapes = ((20, 32), (6, 20))
    encoder = Network(
        [rng.standard_normal(shape, dtype=np.float32) for shape in shapes],
        [np.zeros(shape[0], np.float32) for shape in shapes],
        None,
    )
    books = [rng.standard_normal((30, 6), dtype=np.float32) * 5 for _ in range(2)]
    vectors = rng.standard_normal((4000, 32), dtype=np.float32)
    mine, theirs = (
        np.concatenate(
            list(residual_codec.encode(vectors, books, (), encoder, device=device, memory_mb=4))
        )
        for device in (SEARCH_DEVICE, "cpu")
    )
    assert (mine == theirs).all(axis=1).mean() > 0.999


def test_codes_of_opq_are_exact(vectors):
    pytest.importorskip("faiss", reason="needs the wheel faiss-cpu")
    from sidmill.quantize import opq

    books = opq.fit(vectors, Opq(n_iter=3), codebook_sizes=[16, 16], seed=0)
    found = [
        np.concatenate(list(residual_codec.encode(vectors, books, device=device, memory_mb=16)))
        for device in ("cpu", SEARCH_DEVICE)
    ]
    np.testing.assert_array_equal(*found)


def test_a_block_may_be_overwritten_while_the_next_one_is_copied():
    """The reader fills one buffer again and again, as ``row_blocks`` does."""
    buffer = np.empty((3000, 8), np.float32)

    def stream():
        for start in range(0, 30_000, 3000):
            buffer[:] = np.arange(start, start + 3000)[:, None]
            yield start, buffer

    devices = nearest_torch.pick_devices(SEARCH_DEVICE)
    for start, pieces in nearest_torch.to_devices(stream(), devices):
        rows = torch.cat([rows.cpu() for _, rows in pieces])
        np.testing.assert_array_equal(rows[:, 0], np.arange(start, start + 3000))
