"""Batches: every text once, the budget held, little padding; unit length; progress lines."""

import logging

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sidmill.embed import progress
from sidmill.embed.backend import unit_rows
from sidmill.embed.batches import by_token_budget

LENGTHS = st.lists(st.integers(0, 600), max_size=200).map(np.array)
BUDGETS = st.integers(1, 4096)


@given(LENGTHS, BUDGETS)
def test_every_text_is_in_one_batch(lengths, budget):
    rows = [row for batch in by_token_budget(lengths, budget) for row in batch]
    assert sorted(rows) == list(range(len(lengths)))


@given(LENGTHS, BUDGETS)
def test_a_batch_keeps_to_the_budget_or_holds_one_text(lengths, budget):
    for batch in by_token_budget(lengths, budget):
        assert len(batch) == 1 or len(batch) * lengths[batch].max() <= budget


@given(LENGTHS, BUDGETS)
def test_no_batch_could_take_the_next_text(lengths, budget):
    batches = by_token_budget(lengths, budget)
    for batch in batches[:-1]:
        assert (len(batch) + 1) * max(lengths[batch[0]], 1) > budget


@given(LENGTHS, BUDGETS)
def test_longest_first_and_ties_in_row_order(lengths, budget):
    rows = [row for batch in by_token_budget(lengths, budget) for row in batch]
    assert rows == sorted(rows, key=lambda row: (-lengths[row], row))


def test_a_tenth_of_the_padding_of_row_order(rng):
    lengths = np.minimum(rng.lognormal(4, 1, 5000).astype(int) + 2, 512)

    def padding(batches):
        padded = sum(len(batch) * lengths[batch].max() for batch in batches)
        return 1 - lengths.sum() / padded

    sorted_batches = by_token_budget(lengths, 16384)
    in_row_order = np.array_split(np.arange(5000), len(sorted_batches))
    assert padding(sorted_batches) < 0.1 * padding(in_row_order)


def test_unit_rows_are_unit_and_a_second_time_changes_no_bit(rng):
    vectors = rng.standard_normal((50, 300), dtype=np.float32) * 100
    once = unit_rows(vectors)
    np.testing.assert_allclose(np.linalg.norm(once.astype(np.float64), axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(unit_rows(once), once)
    cosine = (once * vectors).sum(axis=1) / np.linalg.norm(vectors, axis=1)
    np.testing.assert_allclose(cosine, 1, rtol=1e-6)


def test_vectors_that_were_normalised_in_float32_keep_their_bits(rng):
    vectors = rng.standard_normal((500, 300), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_array_equal(unit_rows(vectors), vectors)


def test_rows_without_direction_are_left_to_the_gate():
    vectors = np.array([[0, 0], [np.nan, 1], [np.inf, 1]], dtype=np.float32)
    np.testing.assert_array_equal(unit_rows(vectors), vectors)


def test_progress_says_rate_and_time_left_every_half_minute(monkeypatch, caplog):
    clock = iter([0, 10, 31, 40, 62, 70])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with caplog.at_level(logging.INFO), progress.counting(400, "texts") as advance:
        for _ in range(4):
            advance(100)
    assert caplog.messages == [
        "200 of 400 texts, 6.5 per second, 0:00:31 left",
        "400 of 400 texts, 6.5 per second, 0:00:00 left",
        "400 of 400 texts in 70.0 s, 5.7 per second",
    ]
