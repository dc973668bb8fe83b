"""The grid: orthogonal even steps, chosen axis by axis, coarse to fine."""

import re
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidmill.core.errors import SidmillError
from sidmill.numeric import residual_codec
from sidmill.quantize import pca_grid
from sidmill.settings.quantize import PcaGrid


def fit(vectors, sizes, **changes):
    return pca_grid.fit(vectors, PcaGrid(**changes), codebook_sizes=sizes, seed=0)


@pytest.fixture
def vectors(rng):
    rotation = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    scales = 3 * 0.8 ** np.arange(12)
    return (rng.standard_normal((2000, 12)) * scales @ rotation + 2).astype(np.float32)


def encode(vectors, books):
    return np.concatenate(list(residual_codec.encode(vectors, books, device="cpu", memory_mb=64)))


def error(vectors, books):
    return np.square(vectors - residual_codec.decode(encode(vectors, books), books)).sum()


def test_every_level_lowers_the_error_and_stays_within_its_codes(vectors):
    books = fit(vectors, [16, 30, 256])
    assert all(len(book) <= size for book, size in zip(books, [16, 30, 256], strict=True))
    errors = [error(vectors, books[:level]) for level in (1, 2, 3)]
    assert errors[0] < np.square(vectors - vectors.mean(0)).sum()
    assert errors == sorted(errors, reverse=True)


def test_the_nearest_word_is_the_nearest_step_on_every_axis(vectors):
    """Oracle: round each coordinate on its own, in the basis of the principal axes."""
    (book,) = fit(vectors, [64])
    mean = vectors.mean(axis=0, dtype=np.float64)
    _, _, axes = np.linalg.svd(vectors - mean, full_matrices=False)
    own, words = (vectors - mean) @ axes.T, (book - mean) @ axes.T
    rounded = np.zeros_like(own)
    for axis in range(12):
        steps = np.unique(np.round(words[:, axis], 4))
        assert len(steps) < 3 or np.allclose(np.diff(steps), np.diff(steps)[0], atol=1e-3)
        rounded[:, axis] = steps[np.abs(own[:, axis, None] - steps).argmin(axis=1)]
    expected = np.square(own - rounded).sum()
    assert error(vectors, [book]) == pytest.approx(expected, rel=1e-3)


def test_one_axis_and_few_steps_come_near_the_best_known_even_quantizer(rng):
    """Max 1960, table II: even steps for a Gaussian leave 0.3634, 0.1188, 0.03744 of variance."""
    vectors = rng.standard_normal((50_000, 1)).astype(np.float32)
    for count, left in ((2, 0.3634), (4, 0.1188), (8, 0.03744)):
        books = fit(vectors, [count], sample=50_000)
        assert error(vectors, books) / np.square(vectors).sum() == pytest.approx(left, rel=0.03)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=8), st.integers(1, 300))
@settings(max_examples=60, deadline=None)
def test_steps_are_shared_out_within_the_size_to_axes_of_variance(variances, size):
    counts = pca_grid._share_out(np.array(variances), size)
    assert 1 <= counts.prod() <= size
    assert (counts[np.array(variances) == 0] == 1).all()
    by_variance = counts[np.argsort(variances, kind="stable")]
    assert size < 4 or len(set(variances)) < len(variances) or (np.diff(by_variance) >= 0).all()


def test_same_seed_same_bytes_and_constant_vectors(vectors):
    one, two = (fit(vectors, [16, 16], sample=500) for _ in range(2))
    assert [book.tobytes() for book in one] == [book.tobytes() for book in two]
    constant = np.ones((50, 3), np.float32)
    books = fit(constant, [4, 4])
    np.testing.assert_allclose(residual_codec.decode(encode(constant, books), books), constant)


@pytest.mark.parametrize("sample", [500, 10_000])
def test_memory_changes_no_byte_and_too_little_is_refused_with_the_number(vectors, sample):
    wide = np.tile(vectors, (1, 20))
    with pytest.raises(SidmillError, match="memory_mb 1 is too small for a sample of") as error:
        fit(wide, [16, 16], sample=sample, memory_mb=1)
    enough = int(re.search(r"pca_grid\.memory_mb to at least (\d+)", str(error.value)).group(1))
    one, two, three = (
        fit(wide, [16, 16], sample=sample, memory_mb=memory_mb) for memory_mb in (enough, 64, 4096)
    )
    np.testing.assert_array_equal(np.stack(one), np.stack(two))
    np.testing.assert_array_equal(np.stack(one), np.stack(three))
    # the other remedy: fewer rows
    assert len(fit(wide, [16, 16], sample=200, memory_mb=1)) == 2


def test_many_steps_on_one_axis_take_no_table_of_rows_and_steps(rng):
    """All variance on one axis: it gets every cell, here 4,096 for 8,192 rows."""
    vectors = np.zeros((8192, 3), np.float32)
    vectors[:, 1] = rng.standard_normal(8192)
    tracemalloc.start()
    (book,) = fit(vectors, [4096], sample=8192)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(book) == 4096
    assert peak < 16 * 2**20  # the table alone would be 256 MiB
