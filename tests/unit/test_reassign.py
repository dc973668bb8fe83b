"""Reassignment: everyone gets a code, the fewest move, at the least error."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidmill import codec
from sidmill.core.errors import SidmillError
from sidmill.sids import reassign as module
from sidmill.sids.resolve import resolve

PLAIN = {
    "strategy": "reassign",
    "identical_text": "separate",
    "suffix_size": 8,
    "sinkhorn_epsilon": 0.003,
    "sinkhorn_iterations": 50,
    "sinkhorn_rounds": 20,
}


def problem(rng, n_items, sizes, dim=4, crowding=0.5):
    """Vectors, codebooks and greedy codes with collisions."""
    vectors = rng.standard_normal((n_items, dim)).astype(np.float32)
    vectors[rng.random(n_items) < crowding] = vectors[0]
    codebooks = [
        (rng.standard_normal((size, dim)) / 2**level).astype(np.float32)
        for level, size in enumerate(sizes)
    ]
    codes = np.concatenate(list(codec.encode(vectors, codebooks, device="cpu", memory_mb=64)))
    return vectors, codebooks, codes


def run(vectors, codebooks, codes, classes=None, **settings):
    sizes = [len(book) for book in codebooks]
    classes = np.arange(len(codes)) if classes is None else classes
    return resolve(codes, sizes, vectors, codebooks, classes, **(PLAIN | settings))


def fewest_moves(codes):
    """An item must move exactly if another one keeps its code."""
    return len(codes) - len(np.unique(codes, axis=0))


def error(vectors, codebooks, codes):
    return np.square(vectors.astype(np.float64) - codec.decode(codes, codebooks)).sum()


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
@settings(max_examples=60, deadline=None)
def test_all_distinct_in_range_and_fewest_moves(seed, sizes, data):
    n_items = data.draw(st.integers(1, int(np.prod(sizes))))
    vectors, codebooks, codes = problem(np.random.default_rng(seed), n_items, sizes)
    sids = run(vectors, codebooks, codes).sids
    assert len(np.unique(sids, axis=0)) == n_items
    assert ((sids >= 0) & (sids < sizes)).all()
    assert (codes != sids).any(axis=1).sum() == fewest_moves(codes)


@pytest.mark.parametrize("seed", range(8))
def test_least_error_among_all_ways_with_the_fewest_moves(seed):
    """Oracle: try every assignment of last codes under one prefix."""
    rng = np.random.default_rng(seed)
    vectors, codebooks, codes = problem(rng, 5, [1, 7], dim=3, crowding=0.4)
    costs = [[error(v[None], codebooks, [[0, k]]) for k in range(7)] for v in vectors]
    best = min(
        sum(costs[item][code] for item, code in enumerate(last))
        for last in itertools.permutations(range(7), 5)
        if (codes[:, 1] != last).sum() == fewest_moves(codes)
    )
    sids = run(vectors, codebooks, codes).sids
    assert error(vectors, codebooks, sids) == pytest.approx(best, rel=1e-6)


def test_nobody_leaves_a_prefix_that_has_room(rng):
    vectors, codebooks, codes = problem(rng, 60, [4, 4, 16])
    sids = run(vectors, codebooks, codes).sids
    for prefix in np.unique(codes[:, :2], axis=0):
        inside = (codes[:, :2] == prefix).all(axis=1)
        stayed = (sids[inside, :2] == prefix).all(axis=1).sum()
        assert stayed == min(inside.sum(), 16)


def test_a_single_holder_of_a_code_keeps_it(rng):
    vectors, codebooks, codes = problem(rng, 100, [4, 4, 8])
    _, member, count = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    alone = count[member] == 1
    assert alone.any()
    np.testing.assert_array_equal(run(vectors, codebooks, codes).sids[alone], codes[alone])


def test_the_reported_cost_is_what_it_cost(rng):
    vectors, codebooks, codes = problem(rng, 100, [4, 4, 8])
    sids, _, cost = run(vectors, codebooks, codes)
    added = error(vectors, codebooks, sids) - error(vectors, codebooks, codes)
    assert cost["added_mse"] == pytest.approx(added / vectors.size)
    assert cost["items_moved"] == fewest_moves(codes) == sum(cost["moved_by_level"])


def test_many_items_of_one_code_are_placed_in_portions(rng, monkeypatch):
    monkeypatch.setattr(module, "EXACT_ITEMS", 7)
    vectors, codebooks, codes = problem(rng, 120, [4, 4, 8], crowding=0.8)
    sids = run(vectors, codebooks, codes).sids
    assert len(np.unique(sids, axis=0)) == 120
    assert (codes != sids).any(axis=1).sum() == fewest_moves(codes)


def test_a_collapsed_codebook_is_resolved_in_reasonable_time(rng):
    """All items on one code: most must leave their prefix. It took 35 ms an item once."""
    codebooks = [rng.standard_normal((64, 8)).astype(np.float32) / 2**level for level in range(3)]
    began = time.perf_counter()
    for vectors in (np.ones((900, 8), np.float32), rng.standard_normal((300, 8), np.float32)):
        codes = np.zeros((len(vectors), 3), dtype=np.int32)
        sids = run(vectors, codebooks, codes).sids
        assert len(np.unique(sids, axis=0)) == len(vectors)
        assert (codes != sids).any(axis=1).sum() == len(vectors) - 1
    assert time.perf_counter() - began < 8


def test_same_input_same_sids(rng):
    vectors, codebooks, codes = problem(rng, 100, [4, 4, 8])
    np.testing.assert_array_equal(
        run(vectors, codebooks, codes).sids, run(vectors, codebooks, codes).sids
    )


def test_a_catalogue_larger_than_the_code_space_says_both_numbers(rng):
    vectors, codebooks, codes = problem(rng, 9, [2, 2, 2])
    with pytest.raises(SidmillError, match=r"9 items .* 2 x 2 x 2 make 8 codes"):
        run(vectors, codebooks, codes)


def test_identical_text_shares_one_sid_when_asked(rng):
    vectors, codebooks, codes = problem(rng, 40, [4, 4, 4], crowding=0)
    classes = np.arange(40)
    classes[[7, 9]] = 3
    vectors[[7, 9]] = vectors[3]
    codes[[7, 9]] = codes[3]
    sids = run(vectors, codebooks, codes, classes, identical_text="share").sids
    assert (sids[[7, 9]] == sids[3]).all()
    assert len(np.unique(sids, axis=0)) == 38
    assert len(np.unique(run(vectors, codebooks, codes, classes).sids, axis=0)) == 40


def test_suffix_numbers_the_sharers_from_zero_in_row_order():
    codes = np.array([[1, 2], [0, 0], [1, 2], [1, 2]], dtype=np.int32)
    books = [np.zeros((3, 2), np.float32)] * 2
    result = resolve(
        codes,
        [3, 3],
        np.ones((4, 2), np.float32),
        books,
        np.arange(4),
        **(PLAIN | {"strategy": "suffix"}),
    )
    assert result.sids.tolist() == [[1, 2, 0], [0, 0, 0], [1, 2, 1], [1, 2, 2]]
    assert result.sizes == [3, 3, 8]


def test_suffix_never_leaves_its_vocabulary():
    codes = np.zeros((9, 2), dtype=np.int32)
    books = [np.zeros((3, 2), np.float32)] * 2
    with pytest.raises(SidmillError, match=r"9 items share .* raise it to at least 9"):
        resolve(
            codes,
            [3, 3],
            np.ones((9, 2), np.float32),
            books,
            np.arange(9),
            **(PLAIN | {"strategy": "suffix"}),
        )


def test_none_changes_nothing(rng):
    vectors, codebooks, codes = problem(rng, 50, [4, 4])
    result = run(vectors, codebooks, codes, strategy="none")
    np.testing.assert_array_equal(result.sids, codes)
    assert result.cost["items_moved"] == 0
