"""Co-consumption: pairs counted by hand, chance against a simulation."""

import numpy as np
import pyarrow as pa
import pytest

from sidmill.formats import sequence_table
from sidmill.sids.alignment import align, chance

INT64 = pa.int64()


def write(path, users, kind=INT64):
    """Histories: lists of (item, split)."""
    table = pa.table(
        {
            "user_id": [str(user) for user in range(len(users))],
            "item_ids": pa.array([[item for item, _ in user] for user in users], pa.list_(kind)),
            "splits": pa.array([[s for _, s in user] for user in users], pa.list_(pa.int8())),
            "timestamps": pa.nulls(len(users), pa.list_(pa.int64())),
        },
        schema=sequence_table.schema(kind),
    )
    sequence_table.write(path, kind, [table])
    return path


def test_pairs_are_counted_within_users_and_the_training_part(tmp_path):
    # items 10 20 30 40 have codes [0 0] [0 1] [0 0] [1 0]
    codes = np.array([[0, 0], [0, 1], [0, 0], [1, 0]], dtype=np.int32)
    users = [
        [(10, 0), (20, 0), (40, 0), (30, 1)],  # 10-20 shares 1, 20-40 shares 0; 30 is valid
        [(30, 0), (10, 0), (10, 0), (99, 0), (20, 0)],  # 30-10 shares 2; 10-10 and 99 do not count
        [(40, 2)],
    ]
    path = write(tmp_path / "sequences.parquet", users)
    found = align(path, pa.chunked_array([[10, 20, 30, 40]]), codes, [2, 2])
    assert (found["pairs"], found["pairs_of_unknown_items"]) == (3, 2)
    assert found["1"]["share"] == pytest.approx(2 / 3)
    assert found["2"]["share"] == pytest.approx(1 / 3)
    assert found["1"]["ratio"] == pytest.approx(found["1"]["share"] / found["1"]["chance"])


def test_ids_may_be_strings(tmp_path):
    path = write(tmp_path / "s.parquet", [[("a", 0), ("b", 0)]], pa.string())
    found = align(path, pa.chunked_array([["b", "a"]]), np.zeros((2, 1), np.int32), [1])
    assert (found["pairs"], found["1"]["share"], found["1"]["chance"]) == (1, 1.0, 1.0)
    assert "2" not in found  # one level has no prefix of two


def test_no_pairs_no_figures(tmp_path):
    path = write(tmp_path / "s.parquet", [[(1, 0)], [(2, 0)]])
    found = align(path, pa.chunked_array([[1, 2]]), np.zeros((2, 1), np.int32), [1])
    assert found["1"] == {"share": None, "chance": None, "ratio": None}


def test_chance_equals_a_simulation(rng):
    popularity = rng.integers(0, 50, 30)
    numbers = rng.integers(0, 5, 30)
    drawn = rng.choice(30, (2, 400_000), p=popularity / popularity.sum())
    one, other = drawn[:, drawn[0] != drawn[1]]
    simulated = (numbers[one] == numbers[other]).mean()
    assert chance(numbers, popularity) == pytest.approx(simulated, abs=0.004)


def test_histories_without_taste_are_at_chance(rng, tmp_path):
    """Items drawn by popularity, whatever their codes: the ratio is about 1."""
    weights = rng.dirichlet(np.ones(200))
    users = [[(int(i), 0) for i in rng.choice(200, 50, p=weights)] for _ in range(400)]
    codes = np.column_stack([np.arange(200) % 7, np.arange(200) % 3]).astype(np.int32)
    path = write(tmp_path / "s.parquet", users)
    found = align(path, pa.chunked_array([np.arange(200)]), codes, [7, 3])
    assert found["1"]["ratio"] == pytest.approx(1, abs=0.06)
