"""Reassignment: everyone gets a code, the fewest move, at the least error."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidmill.core.errors import SidmillError
from sidmill.numeric import residual_codec
from sidmill.settings.sids import Collisions
from sidmill.sids import crowds, listed, space
from sidmill.sids import reassign as module
from sidmill.sids.resolve import resolve

SUFFIX = Collisions(strategy="suffix", suffix_size=8)


def problem(rng, n_items, sizes, dim=4, crowding=0.5):
    """Vectors, codebooks and greedy codes with collisions."""
    vectors = rng.standard_normal((n_items, dim)).astype(np.float32)
    vectors[rng.random(n_items) < crowding] = vectors[0]
    codebooks = [
        (rng.standard_normal((size, dim)) / 2**level).astype(np.float32)
        for level, size in enumerate(sizes)
    ]
    codes = np.concatenate(
        list(residual_codec.encode(vectors, codebooks, device="cpu", memory_mb=64))
    )
    return vectors, codebooks, codes


def run(vectors, codebooks, codes, classes=None, **settings):
    sizes = [len(book) for book in codebooks]
    classes = np.arange(len(codes)) if classes is None else classes
    return resolve(codes, sizes, vectors, codebooks, classes, Collisions(**settings))


def fewest_moves(codes):
    """An item must move exactly if another one keeps its code."""
    return len(codes) - len(np.unique(codes, axis=0))


def error(vectors, codebooks, codes):
    return np.square(vectors.astype(np.float64) - residual_codec.decode(codes, codebooks)).sum()


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
    for one in (module, crowds, listed):
        monkeypatch.setattr(one, "EXACT_ITEMS", 7)
    vectors, codebooks, codes = problem(rng, 120, [4, 4, 8], crowding=0.8)
    sids = run(vectors, codebooks, codes).sids
    assert len(np.unique(sids, axis=0)) == 120
    assert (codes != sids).any(axis=1).sum() == fewest_moves(codes)


def test_a_collapsed_codebook_is_resolved_in_reasonable_time(rng):
    """All items on one code: most must leave their prefix. It took 35 ms an item once."""
    codebooks = [rng.standard_normal((64, 8)).astype(np.float32) / 2**level for level in range(3)]
    began = time.process_time()
    for vectors in (np.ones((900, 8), np.float32), rng.standard_normal((300, 8), np.float32)):
        codes = np.zeros((len(vectors), 3), dtype=np.int32)
        sids = run(vectors, codebooks, codes).sids
        assert len(np.unique(sids, axis=0)) == len(vectors)
        assert (codes != sids).any(axis=1).sum() == len(vectors) - 1
    assert time.process_time() - began < 8


@pytest.mark.parametrize("strategy", ["reassign", "sinkhorn"])
@pytest.mark.parametrize("n_levels", [2, 3, 4])
def test_codebooks_are_converted_once_however_many_items_move_or_leave(
    rng, monkeypatch, strategy, n_levels
):
    """Each prefix, item and round that converts a codebook costs seconds where it is large."""
    sizes = [4] * (n_levels - 1) + [8]
    codebooks = [rng.standard_normal((size, 4)).astype(np.float32) for size in sizes]
    vectors = rng.standard_normal((28, 4)).astype(np.float32)
    codes = np.zeros((28, n_levels), dtype=np.int32)
    codes[20:, 0] = 1  # a second crowded prefix
    converted, convert = [], space.in_double
    monkeypatch.setattr(space, "in_double", lambda book: converted.append(1) or convert(book))
    monkeypatch.setattr(module, "OUTSIDE_ITEMS", 3)
    assert len(np.unique(run(vectors, codebooks, codes, strategy=strategy).sids, axis=0)) == 28
    assert len(converted) <= n_levels * (2 if strategy == "sinkhorn" else 1)


@pytest.mark.parametrize("most_moves", [64, 0])
def test_prefixes_share_passes_over_the_codebook(rng, monkeypatch, most_moves):
    """A product of a few items with a large codebook costs as much as one of a thousand."""
    vectors = rng.standard_normal((40, 4)).astype(np.float32)
    codebooks = [rng.standard_normal((size, 4)).astype(np.float32) for size in (20, 8)]
    codes = np.column_stack([np.arange(40) // 2, np.zeros(40)]).astype(np.int32)
    passes, distances, listing = [], space.squared_distances, listed._list
    monkeypatch.setattr(
        space, "squared_distances", lambda *both: passes.append(1) or distances(*both)
    )
    monkeypatch.setattr(listed, "_list", lambda *all_: passes.append(1) or listing(*all_))
    monkeypatch.setattr(listed, "MOST_MOVES", most_moves)
    together = run(vectors, codebooks, codes).sids
    assert len(passes) == 1
    for one in (crowds, listed):
        monkeypatch.setattr(one, "EXACT_ITEMS", 4)  # two prefixes at a time
    np.testing.assert_array_equal(run(vectors, codebooks, codes).sids, together)
    assert len(passes) == 1 + 10


@pytest.mark.parametrize("together", [64, 200])
def test_what_leaves_does_not_depend_on_how_many_are_searched_together(rng, monkeypatch, together):
    vectors, codebooks, _ = problem(rng, 60, [4, 5, 6], crowding=0)
    codes = np.zeros((60, 3), dtype=np.int32)
    alone = run(vectors, codebooks, codes).sids
    monkeypatch.setattr(module, "EXACT_ITEMS", together)
    np.testing.assert_array_equal(run(vectors, codebooks, codes).sids, alone)


@pytest.mark.parametrize("n_items", [2, 3, 5, 9, 16, 33])
@pytest.mark.parametrize("n_codes", [40, 17])
@pytest.mark.parametrize("dim", [1, 3, 64])
def test_of_equal_items_the_first_stays_and_the_others_take_codes_in_order(
    rng, n_items, n_codes, dim
):
    codebooks = [rng.standard_normal((size, dim)).astype(np.float32) for size in (3, n_codes)]
    vectors = np.tile(rng.standard_normal(dim).astype(np.float32), (n_items, 1))
    codes = np.tile(np.array([[1, 4]], np.int32), (n_items, 1))
    sids = run(vectors, codebooks, codes).sids
    cost = np.square(vectors.astype(np.float64) - residual_codec.decode(sids, codebooks)).sum(1)
    inside = np.flatnonzero(sids[:, 0] == 1)
    assert sids[0].tolist() == [1, 4]
    assert len(inside) == min(n_items, n_codes)
    assert inside.tolist() == list(range(len(inside)))  # the highest rows leave
    assert (np.diff(cost[inside[1:]]) >= 0).all()  # lower rows move less far
    assert (np.diff(cost[len(inside) :]) >= 0).all()


@pytest.mark.parametrize("seed", range(40))
def test_of_all_ways_that_cost_the_same_the_lower_rows_stay(seed):
    """Oracle: every way to share out the codes, over whole numbers, where ties are exact."""
    rng = np.random.default_rng(seed)
    n_codes, dim, limit = int(rng.integers(4, 7)), int(rng.integers(1, 3)), int(rng.integers(1, 4))
    n_items = int(rng.integers(2, 5))
    words = rng.integers(-limit, limit + 1, (n_codes, dim)).astype(np.float32)
    codebooks = [np.zeros((1, dim), np.float32), words]
    vectors = rng.integers(-limit, limit + 1, (n_items, dim)).astype(np.float32)
    own = rng.integers(0, 2, n_items)
    codes = np.column_stack([np.zeros(n_items), own]).astype(np.int32)
    cost = np.square(vectors[:, None] - words).sum(2)

    def stayers(last):
        return [list(last).index(code) for code in np.unique(own)]

    ways = [
        (cost[range(n_items), last].sum(), stayers(last))
        for last in itertools.permutations(range(n_codes), n_items)
        if (np.array(last) != own).sum() == fewest_moves(codes)
    ]
    last = run(vectors, codebooks, codes).sids[:, 1].tolist()
    assert (cost[range(n_items), last].sum(), stayers(last)) == min(ways)


def test_of_equal_codewords_the_lowest_are_taken(rng):
    word = rng.standard_normal(3).astype(np.float32)
    codebooks = [np.zeros((1, 3), np.float32), np.tile(word, (12, 1))]
    vectors = rng.standard_normal((6, 3)).astype(np.float32)
    codes = np.column_stack([np.zeros(6), np.full(6, 2)]).astype(np.int32)
    assert run(vectors, codebooks, codes).sids[:, 1].tolist() == [2, 0, 1, 3, 4, 5]


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
        SUFFIX,
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
            SUFFIX,
        )


def test_none_changes_nothing(rng):
    vectors, codebooks, codes = problem(rng, 50, [4, 4])
    result = run(vectors, codebooks, codes, strategy="none")
    np.testing.assert_array_equal(result.sids, codes)
    assert result.cost["items_moved"] == 0
