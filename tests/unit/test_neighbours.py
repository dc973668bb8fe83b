"""Neighbour lists by code, Jaccard and rank-biased overlap, against brute force."""

from functools import partial

import numpy as np
import pytest

from sidmill.numeric import list_overlap, residual_codec, row_blocks
from sidmill.sids import neighbour_agreement


def lists(rng, n_queries=40, k=8, n_items=15):
    return np.stack([rng.permutation(n_items)[:k] for _ in range(n_queries)])


def test_jaccard_equals_sets(rng):
    one, other = lists(rng), lists(rng)
    expected = np.mean(
        [len({*a} & {*b}) / len({*a} | {*b}) for a, b in zip(one.tolist(), other.tolist())]  # noqa: B905
    )
    assert list_overlap.jaccard(one, other) == pytest.approx(expected)
    assert list_overlap.jaccard(one, one) == 1.0
    assert list_overlap.jaccard(one, one + 100) == 0.0


@pytest.mark.parametrize("p", [0.1, 0.9, 0.98])
def test_rank_biased_overlap_equals_its_definition(rng, p):
    """(1 - p) sum of p^(d-1) |A_d and B_d| / d, cut at k and divided by what equal lists have."""
    one, other = lists(rng), lists(rng)
    k = one.shape[1]

    def overlap(a, b):
        depths = range(1, k + 1)
        return (1 - p) * sum(p ** (d - 1) * len({*a[:d]} & {*b[:d]}) / d for d in depths)

    pairs = zip(one.tolist(), other.tolist(), strict=True)
    expected = np.mean([overlap(a, b) / overlap(a, a) for a, b in pairs])
    assert list_overlap.rank_biased_overlap(one, other, p) == pytest.approx(expected)
    assert list_overlap.rank_biased_overlap(one, one, p) == pytest.approx(1)


def test_the_top_of_a_list_weighs_more(rng):
    truth = np.arange(10)[None]
    top_right = np.r_[0:5, 20:25][None]
    top_wrong = np.r_[20:25, 0:5][None]
    found = [
        list_overlap.rank_biased_overlap(truth, guess, 0.9) for guess in (top_right, top_wrong)
    ]
    assert found[0] > found[1] > 0


def test_nearest_by_code_equals_brute_force_where_codes_differ(rng, monkeypatch):
    monkeypatch.setattr(row_blocks, "MAX_BLOCK_ROWS", 11)
    books = [rng.standard_normal((8, 5)).astype(np.float32) / 2**level for level in range(3)]
    codes = np.unique(rng.integers(0, 8, (90, 3)), axis=0).astype(np.int32)
    decoded = residual_codec.decode(codes, books)
    distances = np.square(decoded[:, None] - decoded[None]).sum(2)
    np.fill_diagonal(distances, np.inf)
    queries = np.array([0, 7, 40])
    found = neighbour_agreement.nearest_by_code(
        codes, [8] * 3, partial(residual_codec.decode, codebooks=books), queries, 6, seed=0
    )
    np.testing.assert_array_equal(found, distances[queries].argsort(axis=1)[:, :6])


def test_items_of_one_code_come_first_in_an_order_that_the_seed_draws(rng):
    books = [np.eye(4, dtype=np.float32)]
    codes = np.repeat([0, 1, 2, 3], 10)[:, None].astype(np.int32)
    decode = partial(residual_codec.decode, codebooks=books)
    queries = np.arange(40)
    found = neighbour_agreement.nearest_by_code(codes, [4], decode, queries, 12, seed=0)
    assert (codes[found[:, :9], 0] == codes[queries]).all()  # the nine others of its code
    assert (codes[found[:, 9:], 0] != codes[queries]).all()
    assert (found != queries[:, None]).all()
    assert all(len(set(row)) == 12 for row in found.tolist())
    again = neighbour_agreement.nearest_by_code(codes, [4], decode, queries, 12, seed=1)
    assert (found != again).any()
