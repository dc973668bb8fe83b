"""Figures of quality.json against values worked out by hand or by brute force."""

import math

import numpy as np
import pytest

from sidmill.formats.code_files import Codes
from sidmill.formats.quantizer_file import Quantizer
from sidmill.numeric import residual_codec, row_blocks
from sidmill.settings.sids import Quality
from sidmill.sids.neighbour_agreement import nearest_items
from sidmill.sids.quality import measure

BOOKS = [np.zeros((4, 2), np.float32), np.zeros((4, 2), np.float32)]


def figures(codes, classes=None, vectors=None, books=BOOKS, **settings):
    codes = np.asarray(codes, dtype=np.int32)
    vectors = np.ones((len(codes), 2), np.float32) if vectors is None else vectors
    classes = np.arange(len(codes)) if classes is None else np.asarray(classes)
    sizes = [len(book) for book in books]
    settings = Quality(**({"neighbours": 2} | settings))
    both = [Codes(None, codes, sizes)] * 2
    return measure(*both, vectors, quantizer_of(books), classes, settings, seed=0)["before"]


def quantizer_of(books):
    return Quantizer("rqkmeans", books, {}, {})


def test_both_collision_rates():
    # 5 items, 3 codes: one shared by 3, two held by one item each
    found = figures([[0, 0], [0, 0], [0, 0], [1, 2], [3, 3]])
    assert found["collision_rate"] == pytest.approx((5 - 3) / 5)
    assert found["colliding_items_rate"] == pytest.approx(3 / 5)
    assert (found["distinct"], found["largest_collision"]) == (3, 3)


def test_benign_and_harmful_collisions():
    codes = [[0, 0], [0, 0], [1, 1], [1, 1], [1, 1], [2, 2]]
    found = figures(codes, classes=[7, 7, 1, 1, 2, 3])
    assert found["benign"] == {"sids": 1, "items": 2}
    assert found["harmful"] == {"sids": 1, "items": 3}


def test_entropy_reaches_its_bound_when_all_differ():
    found = figures([[i // 4, i % 4] for i in range(8)])
    assert found["entropy_bits"] == pytest.approx(3)
    assert found["entropy_bound_bits"] == pytest.approx(3)  # log2 of 8 items, not of 16 codes
    assert found["entropy_ratio"] == pytest.approx(1)


def test_entropy_bound_is_the_capacity_when_items_are_many():
    found = figures([[i % 4, i // 4 % 4] for i in range(64)])
    assert found["entropy_bound_bits"] == pytest.approx(4)
    assert found["entropy_ratio"] == pytest.approx(1)


def test_figures_of_a_level():
    level = figures([[0, 0], [0, 1], [0, 2], [1, 0]])["levels"][0]
    assert level["used"] == 2
    assert level["utilisation"] == pytest.approx(0.5)
    assert level["entropy_bits"] == pytest.approx(0.75 * math.log2(4 / 3) + 0.25 * 2)
    assert level["perplexity"] == pytest.approx(2 ** level["entropy_bits"])
    assert level["gini"] == pytest.approx(0.625)  # of 0 0 1 3: (-3*0 - 1*0 + 1*1 + 3*3) / (4*4)
    assert level["largest_share"] == pytest.approx(0.75)
    assert (level["prefixes"], level["largest_prefix"]) == (2, 3)
    assert level["prefix_size_histogram"] == {"1": 1, "2-3": 1}
    assert level["usage"] == [3, 1]


@pytest.mark.parametrize(("counts", "gini"), [([5, 5, 5, 5], 0.0), ([20], 0.75)])
def test_gini_of_even_and_of_collapsed_use(counts, gini):
    codes = [[code, 0] for code, count in enumerate(counts) for _ in range(count)]
    assert figures(codes)["levels"][0]["gini"] == pytest.approx(gini)


def test_errors_equal_those_of_decoded_codes(rng):
    vectors = rng.standard_normal((50, 6)).astype(np.float32)
    books = [rng.standard_normal((4, 6)).astype(np.float32) for _ in range(2)]
    codes = rng.integers(0, 4, (50, 2))
    found = figures(codes, vectors=vectors, books=books)
    for level in (1, 2):
        squares = np.square(vectors - residual_codec.decode(codes[:, :level], books)).astype(
            np.float64
        )
        assert found["levels"][level - 1]["mse"] == pytest.approx(squares.mean())
        share = squares.sum() / np.square(vectors).sum()
        assert found["levels"][level - 1]["relative_loss"] == pytest.approx(share)
    assert found["mse"] == found["levels"][1]["mse"]


def test_nearest_items_equal_brute_force(rng, monkeypatch):
    monkeypatch.setattr(row_blocks, "MAX_BLOCK_ROWS", 17)  # many blocks, the last one short
    vectors = rng.standard_normal((100, 5)).astype(np.float32)
    distances = np.square(vectors[:, None] - vectors[None]).sum(2)
    np.fill_diagonal(distances, np.inf)
    queries = np.array([3, 50, 99])
    expected = np.argsort(distances[queries], axis=1)[:, :20]
    np.testing.assert_array_equal(nearest_items(vectors, queries, 20), expected)


def test_an_item_is_never_its_own_neighbour_among_identical_vectors():
    found = nearest_items(np.ones((30, 4), np.float32), np.arange(30), 5)
    assert found.shape == (30, 5)
    assert (found != np.arange(30)[:, None]).all()


def test_neighbours_share_prefixes_when_codes_follow_the_vectors(rng):
    centres = 10 * rng.standard_normal((4, 2))
    group = np.repeat(np.arange(4), 25)
    vectors = (centres[group] + rng.standard_normal((100, 2)) / 100).astype(np.float32)
    right = np.column_stack([group, np.arange(100) % 4])
    wrong = np.column_stack([np.arange(100) % 4, group])
    assert figures(right, vectors=vectors)["neighbours"]["1"] == 1.0
    found = figures(wrong, vectors=vectors)
    assert found["neighbours"]["1"] < 0.5
    assert found["neighbours_chance"]["1"] == pytest.approx(24 / 99)


def test_one_item_has_figures():
    found = figures([[1, 2]])
    assert (found["collision_rate"], found["entropy_ratio"], found["distinct"]) == (0.0, 1.0, 1)
    assert found["neighbours"]["1"] is None


@pytest.mark.parametrize("n_items", [1, 2, 5])
@pytest.mark.parametrize("what", ["vectors", "codebooks", "both"])
def test_zeros_have_figures_and_no_error_over_nothing(n_items, what):
    """A share of the squared length is unknown where all vectors are zero; all else is known."""
    make = {True: np.zeros, False: np.ones}
    vectors = make[what != "codebooks"]((n_items, 3), np.float32)
    books = [make[what != "vectors"]((4, 3), np.float32)] * 2
    codes = np.arange(2 * n_items, dtype=np.int32).reshape(n_items, 2) % 4
    found = figures(codes, vectors=vectors, books=books)
    known = what == "codebooks"
    losses = [found["relative_loss"], *(level["relative_loss"] for level in found["levels"])]
    assert losses == ([1.0] * 3 if known else [None] * 3)
    assert found["mse"] == pytest.approx(np.square(vectors - books[0][0] - books[1][0]).mean())
    numbers = [value for key, value in found.items() if isinstance(value, float)]
    assert np.isfinite(numbers).all()


def test_figures_that_are_null_are_said_to_be():
    codes, books = np.zeros((3, 2), np.int32), BOOKS
    both = [Codes(None, codes, [4, 4])] * 2
    vectors, settings = np.zeros((3, 2), np.float32), Quality(neighbours=2)
    found = measure(*both, vectors, quantizer_of(books), np.arange(3), settings, seed=0)
    assert found["not_measured"] == {"relative_loss": "all vectors are zero"}


def test_a_suffix_does_not_change_the_error_of_the_whole(rng):
    vectors = rng.standard_normal((6, 2)).astype(np.float32)
    books = [rng.standard_normal((4, 2)).astype(np.float32) for _ in range(2)]
    codes = rng.integers(0, 4, (6, 2)).astype(np.int32)
    sids = np.column_stack([codes, np.arange(6)]).astype(np.int32)
    both = Codes(None, codes, [4, 4]), Codes(None, sids, [4, 4, 8])
    settings = Quality(neighbour_queries=3, neighbours=2)
    found = measure(*both, vectors, quantizer_of(books), np.arange(6), settings, seed=0)
    assert found["after"]["mse"] == found["before"]["mse"] == found["before"]["levels"][1]["mse"]
    assert found["after"]["levels"][2]["mse"] is None
