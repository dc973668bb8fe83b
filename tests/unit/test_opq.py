"""OPQ as residual codebooks chooses and decodes as product quantization does."""

import re
from dataclasses import replace

import faiss
import numpy as np
import pytest

from sidmill.core.errors import SidmillError
from sidmill.numeric import residual_codec, training_sizes
from sidmill.quantize import opq
from sidmill.settings.quantize import Opq

SETTINGS = Opq(n_iter=5)


def fit(vectors, sizes, **changes):
    return opq.fit(vectors, replace(SETTINGS, **changes), codebook_sizes=sizes, seed=0)


@pytest.fixture(scope="module")
def vectors():
    """Correlated dimensions, so that the rotation matters."""
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((16, 16)) * 0.7 ** np.arange(16)[:, None]
    return (rng.standard_normal((1500, 16)) @ mix).astype(np.float32)


def encode(vectors, books):
    return np.concatenate(list(residual_codec.encode(vectors, books, device="cpu", memory_mb=64)))


@pytest.mark.parametrize("sizes", [[16, 16], [16, 16, 16], [20, 9]])
def test_residual_encoding_is_the_exact_product_assignment(vectors, sizes):
    """Oracle: rotate, cut into parts, take the nearest of each part's words, add up."""
    books = fit(vectors, sizes)
    assert [len(book) for book in books] == sizes
    codes, mean = encode(vectors, books), vectors.mean(axis=0)
    total = residual_codec.decode(codes, books)
    vectors, decoded = vectors - mean, np.zeros_like(vectors)
    books[0] = books[0] - mean  # the first level holds the offset of all
    for level, book in enumerate(books):
        _, _, rows = np.linalg.svd(book.astype(np.float64))
        part = rows[: 16 // len(sizes)]  # the space of this level's words, float64 (d, D)
        own, words = vectors @ part.T, book @ part.T
        distances = np.square(own[:, None] - words[None]).sum(2)
        chosen = distances[np.arange(len(vectors)), codes[:, level]]
        np.testing.assert_allclose(chosen, distances.min(axis=1), rtol=1e-4, atol=1e-5)
        decoded += words[codes[:, level]] @ part
    np.testing.assert_allclose(total, decoded + mean, atol=1e-4)


def test_the_words_of_two_parts_are_orthogonal(vectors):
    one, two, three = fit(vectors, [8, 8, 8])
    one = one - vectors.mean(axis=0)
    for a, b in ((one, two), (one, three), (two, three)):
        scale = np.linalg.norm(a, axis=1).max() * np.linalg.norm(b, axis=1).max()
        assert np.abs(a @ b.T).max() < 1e-5 * scale


def test_as_good_as_opq_of_faiss(vectors):
    books = fit(vectors, [16, 16], n_iter=20)
    ours = np.square(vectors - residual_codec.decode(encode(vectors, books), books)).sum()
    index = faiss.index_factory(16, "OPQ2,PQ2x4np")
    index.train(vectors)
    theirs = np.square(vectors - index.sa_decode(index.sa_encode(vectors))).sum()
    assert ours < 1.05 * theirs


def test_better_than_product_quantization_without_rotation(vectors):
    books = fit(vectors, [16, 16])
    plain = faiss.ProductQuantizer(16, 2, 4)
    plain.train(vectors)
    without = np.square(vectors - plain.decode(plain.compute_codes(vectors))).sum()
    assert np.square(vectors - residual_codec.decode(encode(vectors, books), books)).sum() < without


def test_same_seed_same_bytes_whatever_the_threads(vectors):
    one = fit(vectors, [16, 16])
    threads = faiss.omp_get_max_threads()
    try:
        faiss.omp_set_num_threads(1)
        two = fit(vectors, [16, 16])
    finally:
        faiss.omp_set_num_threads(threads)
    assert faiss.omp_get_max_threads() == threads
    assert [book.tobytes() for book in one] == [book.tobytes() for book in two]


def test_too_few_rows_say_what_to_change_and_that_helps(vectors):
    """The catalogue is too small, or the memory."""
    with pytest.raises(SidmillError, match=r"1500 of 1500 vectors cannot fill 2000") as error:
        fit(vectors, [2000, 2])
    size = int(re.search(r"codebook_size to at most (\d+)", str(error.value)).group(1))
    assert len(fit(vectors, [size, 2])[0]) == size
    wide = np.tile(vectors, (4, 16))  # 6,000 of 256 dimensions
    with pytest.raises(
        SidmillError, match=r"memory_mb 1 is too small for a sample of 6000"
    ) as error:
        fit(wide, [300, 2], memory_mb=1, n_iter=1)
    enough = int(re.search(r"opq\.memory_mb to at least (\d+)", str(error.value)).group(1))
    assert len(fit(wide, [300, 2], memory_mb=enough, n_iter=1)[0]) == 300
    # the other remedy: fewer rows
    assert len(fit(wide, [300, 2], memory_mb=2, n_iter=1, max_points_per_centroid=1)[0]) == 300


@pytest.mark.parametrize("max_points", [3, 256])
def test_memory_changes_no_byte(vectors, max_points):
    one, two, three = (
        fit(vectors, [16, 16], memory_mb=memory_mb, max_points_per_centroid=max_points)
        for memory_mb in (1, 64, 4096)
    )
    np.testing.assert_array_equal(np.stack(one), np.stack(two))
    np.testing.assert_array_equal(np.stack(one), np.stack(three))


def test_more_parts_than_dimensions_are_refused(vectors):
    with pytest.raises(SidmillError, match="17 parts"):
        fit(vectors, [2] * 17)


@pytest.mark.parametrize("offset", [0, 1, 30, 1000])
def test_an_offset_of_all_vectors_changes_no_assignment(vectors, offset):
    """Oracle: the nearest words of each part, in float64, from the centred vectors."""
    moved = (vectors + np.float32(offset)).astype(np.float32)
    books = fit(moved, [16, 16])
    codes = encode(moved, books)
    mean = moved.mean(axis=0, dtype=np.float64)
    for level, book in enumerate(books):
        words = book.astype(np.float64) - (mean if level == 0 else 0)
        _, _, rows = np.linalg.svd(words)
        own = (moved - mean) @ rows[:8].T
        distances = np.square(own[:, None] - (words @ rows[:8].T)[None]).sum(2)
        chosen = distances[np.arange(len(moved)), codes[:, level]]
        # words near 1000 are held to 3e-5
        assert (chosen <= distances.min(axis=1) + 1e-4 * (1 + offset / 10)).all()
        assert (codes[:, level] != distances.argmin(axis=1)).mean() <= (0.01 if offset > 100 else 0)


SIZES = [1, 2, 3, 7, 12, 40, 64, 100, 257, 1000, 5000]


@pytest.mark.parametrize("dim", SIZES)
def test_a_rotation_always_gets_more_rows_than_it_has_dimensions(dim):
    """What is handed over, for every shape: plain arithmetic, nothing is trained."""
    for n_rows in SIZES:
        for n_bits in (1, 4, 8):
            wanted = training_sizes.opq_rows(dim, dim, n_bits)
            assert wanted >= max(2 * dim, 2**n_bits)
            given = len(opq._repeated(np.broadcast_to(np.float32(0), (n_rows, 1)), wanted))
            assert given >= wanted
            assert given == n_rows or given < wanted + n_rows


@pytest.mark.parametrize(
    ("n_rows", "dim", "size"), [(1, 8, 1), (2, 6, 2), (5, 40, 4), (30, 33, 20), (64, 64, 16)]
)
def test_fewer_rows_than_dimensions_are_repeated(n_rows, dim, size, monkeypatch):
    vectors = np.random.default_rng(1).standard_normal((n_rows, dim), dtype=np.float32)
    seen = []
    repeated = opq._repeated
    monkeypatch.setattr(opq, "_repeated", lambda *given: seen.append(repeated(*given)) or seen[-1])
    books = fit(vectors, [size, size])
    assert len(seen[0]) >= 2 * dim
    error = np.square(vectors - residual_codec.decode(encode(vectors, books), books)).sum()
    assert error <= np.square(vectors - vectors.mean(axis=0)).sum() + 1e-4


def test_a_sample_cut_below_the_dimensions():
    wide = np.random.default_rng(0).standard_normal((400, 128), dtype=np.float32)
    books = fit(wide, [2, 2], max_points_per_centroid=20)
    assert [book.shape for book in books] == [(2, 128)] * 2
