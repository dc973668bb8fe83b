"""OPQ as residual codebooks chooses and decodes as product quantization does."""

import faiss
import numpy as np
import pytest

from sidmill import codec
from sidmill.core.errors import SidmillError
from sidmill.quantize import opq

SETTINGS = {"n_iter": 5, "max_points_per_centroid": 256, "seed": 0, "memory_mb": 64}


@pytest.fixture(scope="module")
def vectors():
    """Correlated dimensions, so that the rotation matters."""
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((16, 16)) * 0.7 ** np.arange(16)[:, None]
    return (rng.standard_normal((1500, 16)) @ mix).astype(np.float32)


def encode(vectors, books):
    return np.concatenate(list(codec.encode(vectors, books, device="cpu", memory_mb=64)))


@pytest.fixture
def learned(monkeypatch):
    """The rotation and the words of each part, as they were learned."""
    found = []
    for name in ("_rotation", "_codewords"):
        learn = getattr(opq, name)

        def keep(*arguments, learn=learn):
            found.append(learn(*arguments).astype(np.float64))
            return found[-1].astype(np.float32)

        monkeypatch.setattr(opq, name, keep)
    return found


@pytest.mark.parametrize("offset", [0, 100, 3000])
@pytest.mark.parametrize("sizes", [[16, 16], [16, 16, 16], [20, 9]])
def test_residual_encoding_is_the_exact_product_assignment(vectors, learned, sizes, offset):
    """Oracle: rotate, cut into parts, take the nearest of each part's words, add up."""
    vectors = vectors + np.float32(offset)
    books = opq.fit(vectors, codebook_sizes=sizes, **SETTINGS)
    assert [len(book) for book in books] == sizes
    codes, decoded = encode(vectors, books), np.zeros(vectors.shape)
    parts = np.split(learned[0], len(sizes))
    rounding = 20 * np.finfo(np.float32).eps * offset  # of vectors and words
    for level, (part, words) in enumerate(zip(parts, learned[1:], strict=True)):
        own = vectors @ part.T
        distances = np.sqrt(np.square(own[:, None] - words[None]).sum(2))
        chosen = distances[np.arange(len(vectors)), codes[:, level]]
        np.testing.assert_allclose(chosen, distances.min(axis=1), rtol=1e-5, atol=1e-5 + rounding)
        decoded += words[codes[:, level]] @ part
    mean = vectors.mean(axis=0, dtype=np.float64)
    decoded += mean - learned[0].T @ (learned[0] @ mean)  # of dimensions that no part has
    np.testing.assert_allclose(codec.decode(codes, books), decoded, atol=1e-4 + rounding)


def test_the_words_of_two_parts_are_orthogonal(vectors):
    """All but their means, which the first part holds."""
    books = opq.fit(vectors + 5, codebook_sizes=[8, 8, 8], **SETTINGS)
    assert all(np.abs(book.mean(axis=0)).max() < 1e-5 for book in books[1:])
    one, two, three = (book - book.mean(axis=0) for book in books)
    for a, b in ((one, two), (one, three), (two, three)):
        scale = np.linalg.norm(a, axis=1).max() * np.linalg.norm(b, axis=1).max()
        assert np.abs(a @ b.T).max() < 1e-5 * scale


def test_as_good_as_opq_of_faiss(vectors):
    books = opq.fit(vectors, codebook_sizes=[16, 16], **(SETTINGS | {"n_iter": 20}))
    ours = np.square(vectors - codec.decode(encode(vectors, books), books)).sum()
    index = faiss.index_factory(16, "OPQ2,PQ2x4np")
    index.train(vectors)
    theirs = np.square(vectors - index.sa_decode(index.sa_encode(vectors))).sum()
    assert ours < 1.05 * theirs


def test_better_than_product_quantization_without_rotation(vectors):
    books = opq.fit(vectors, codebook_sizes=[16, 16], **SETTINGS)
    plain = faiss.ProductQuantizer(16, 2, 4)
    plain.train(vectors)
    without = np.square(vectors - plain.decode(plain.compute_codes(vectors))).sum()
    assert np.square(vectors - codec.decode(encode(vectors, books), books)).sum() < without


def test_same_seed_same_bytes_whatever_the_threads(vectors):
    one = opq.fit(vectors, codebook_sizes=[16, 16], **SETTINGS)
    threads = faiss.omp_get_max_threads()
    try:
        faiss.omp_set_num_threads(1)
        two = opq.fit(vectors, codebook_sizes=[16, 16], **SETTINGS)
    finally:
        faiss.omp_set_num_threads(threads)
    assert faiss.omp_get_max_threads() == threads
    assert [book.tobytes() for book in one] == [book.tobytes() for book in two]


def test_a_sample_that_memory_cuts_says_what_to_raise(vectors):
    with pytest.raises(SidmillError, match=r"1500 of 1500 vectors cannot fill 2000 codewords"):
        opq.fit(vectors, codebook_sizes=[2000, 2], **SETTINGS)
    with pytest.raises(SidmillError, match="17 parts"):
        opq.fit(vectors, codebook_sizes=[2] * 17, **SETTINGS)
