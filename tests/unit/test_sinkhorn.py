"""Sinkhorn: the plan agrees with a plain reference, and a round never makes a collision."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from test_reassign import error, fewest_moves, problem, run

from sidmill.settings.sids import Collisions
from sidmill.sids import sinkhorn
from sidmill.sids import space as module


def plain_transport(cost, capacity, epsilon, iterations):
    """Sinkhorn-Knopp as in the textbooks: scaling factors, float64, no logarithms."""
    kernel = np.exp(-cost.astype(np.float64) / epsilon)
    u = 1 / kernel.sum(axis=1)
    for _ in range(iterations):
        v = np.minimum(1, capacity / (kernel.T @ u))
        u = 1 / (kernel @ v)
    return u[:, None] * kernel * v


@pytest.mark.parametrize("shape", [(2, 3), (5, 40), (7, 7), (1, 4)])
@pytest.mark.parametrize("epsilon", [0.05, 1.0])
def test_the_plan_equals_a_float64_reference(rng, shape, epsilon):
    cost, capacity = rng.uniform(-1, 1, shape), np.ones(shape[1])
    plan = np.exp(sinkhorn.transport(cost, capacity, epsilon, 50))
    np.testing.assert_allclose(plan, plain_transport(cost, capacity, epsilon, 50), rtol=1e-9)


def test_the_plan_places_every_item_and_overfills_no_code(rng):
    capacity = np.array([2.0, 1, 1, 1, 1, 1, 1])
    plan = np.exp(sinkhorn.transport(rng.uniform(-1, 1, (6, 7)), capacity, 0.1, 2000))
    np.testing.assert_allclose(plan.sum(axis=1), 1)
    assert (plan.sum(axis=0) <= capacity * (1 + 1e-6)).all()


def test_the_plan_nears_the_best_assignment_as_epsilon_falls(rng):
    """Oracle: the Hungarian method."""
    cost = rng.uniform(-1, 1, (6, 9))
    best = cost[linear_sum_assignment(cost)].sum()
    plans = [np.exp(sinkhorn.transport(cost, np.ones(9), e, 20_000)) for e in (0.3, 0.03, 0.003)]
    gaps = [(plan * cost).sum() - best for plan in plans]
    assert gaps == sorted(gaps, reverse=True)
    assert abs(gaps[-1]) < 0.01


def test_a_tiny_epsilon_neither_under_nor_overflows(rng):
    cost = rng.uniform(-1, 1, (4, 6))
    with np.errstate(all="ignore"):
        assert not np.isfinite(plain_transport(cost, np.ones(6), 1e-4, 50)).all()
    assert np.isfinite(np.exp(sinkhorn.transport(cost, np.ones(6), 1e-4, 50))).all()


def spread(vectors, codebooks, codes, **changed):
    space = module.Space(vectors, np.arange(len(codes)), codebooks)
    return sinkhorn.spread(codes, [len(b) for b in codebooks], space, Collisions(**changed))


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
@settings(max_examples=40, deadline=None)
def test_no_round_makes_a_collision_and_moves_are_the_fewest(seed, sizes, data):
    n_items = data.draw(st.integers(1, int(np.prod(sizes))))
    vectors, codebooks, codes = problem(np.random.default_rng(seed), n_items, sizes)
    found = spread(vectors, codebooks, codes)
    moved = (found.codes != codes).any(axis=1)
    where, holders = np.unique(found.codes, axis=0, return_counts=True)
    held_by_a_mover = {tuple(code) for code in found.codes[moved]}
    assert all(
        count == 1
        for code, count in zip(where, holders, strict=True)
        if tuple(code) in held_by_a_mover
    )
    assert (found.codes[:, :-1] == codes[:, :-1]).all()  # only the last token moves
    assert moved.sum() == found.colliding_by_round[0] - found.colliding_by_round[-1]
    assert found.colliding_by_round == sorted(found.colliding_by_round, reverse=True)
    sids = run(vectors, codebooks, codes, strategy="sinkhorn").sids
    assert len(np.unique(sids, axis=0)) == n_items
    assert (codes != sids).any(axis=1).sum() == fewest_moves(codes)


def test_what_the_rounds_leave_is_reported_and_placed(rng):
    vectors, codebooks, codes = problem(rng, 60, [4, 4, 16], crowding=0.6)
    sids, _, cost = run(vectors, codebooks, codes, strategy="sinkhorn", sinkhorn_rounds=2)
    assert cost["left_by_round"][0] == fewest_moves(codes)
    assert cost["left_to_reassign"] == cost["left_by_round"][-1] > 0
    assert len(cost["left_by_round"]) <= 3
    assert len(np.unique(sids, axis=0)) == 60
    added = error(vectors, codebooks, sids) - error(vectors, codebooks, codes)
    assert cost["added_mse"] == pytest.approx(added / vectors.size)
    assert cost["items_moved"] == fewest_moves(codes)


def test_the_exact_placement_never_costs_more_while_nobody_leaves_a_prefix(rng):
    vectors, codebooks, codes = problem(rng, 60, [4, 64], crowding=0.2)
    exact = run(vectors, codebooks, codes).cost
    rounds = run(vectors, codebooks, codes, strategy="sinkhorn").cost
    assert exact["moved_by_level"][0] == rounds["moved_by_level"][0] == 0
    assert exact["added_mse"] <= rounds["added_mse"] + 1e-12


def test_same_input_same_codes(rng):
    problem_ = problem(rng, 100, [4, 4, 8])
    np.testing.assert_array_equal(spread(*problem_).codes, spread(*problem_).codes)


def test_the_codebook_is_passed_over_once_per_prefix_not_once_per_code(rng, monkeypatch):
    codes = np.column_stack([np.arange(64) // 32, np.arange(64) % 16]).astype(np.int32)
    vectors, codebooks, _ = problem(rng, 64, [2, 64])
    passes, distances = [], module.squared_distances
    monkeypatch.setattr(
        module, "squared_distances", lambda *both: passes.append(1) or distances(*both)
    )
    together = spread(vectors, codebooks, codes, sinkhorn_rounds=1)
    assert len(passes) == 2  # 16 codes are shared under either prefix
    monkeypatch.setattr(sinkhorn, "EXACT_ITEMS", 6)  # three codes of two items at a time
    portions = spread(vectors, codebooks, codes, sinkhorn_rounds=1)
    assert len(passes) == 2 + 2 * 6
    np.testing.assert_array_equal(portions.codes, together.codes)


def test_nothing_shared_nothing_done(rng):
    vectors, codebooks, _ = problem(rng, 8, [4, 4])
    codes = np.column_stack([np.arange(8) // 4, np.arange(8) % 4]).astype(np.int32)
    found = spread(vectors, codebooks, codes)
    np.testing.assert_array_equal(found.codes, codes)
    assert found.colliding_by_round == [0]
