"""Ranks and metrics against ir_measures, brute force, and what a bootstrap promises."""

import ir_measures
import numpy as np
import pytest
import torch
from ir_measures import RR, R, nDCG
from recommend_data import catalogue, write

from sidmill.core.errors import SidmillError
from sidmill.recommend import (
    baselines,
    metrics,
    rank,
    windows,
)

N_ITEMS = 60
IR = {f"HR@{k}": R @ k for k in metrics.CUTOFFS}
IR |= {f"NDCG@{k}": nDCG @ k for k in metrics.CUTOFFS} | {"MRR": RR}


@pytest.fixture
def asked(rng):
    numbers = rng.integers(N_ITEMS, size=300).astype(np.int32)
    positions = np.arange(5, 300, 3)
    return windows.Queries(
        np.arange(len(positions)) // 2, np.maximum(positions - 6, 0), positions, numbers, 0
    )


def ranked(scores, asked, **others):
    table = torch.from_numpy(scores)
    return rank.rank(
        lambda part: (
            lambda rows: table[np.searchsorted(asked.positions, part.positions[rows])].clone()
        ),
        [asked],
        N_ITEMS,
        **({"mask_seen": False, "memory_mb": 1} | others),
    )


def test_metrics_are_those_of_ir_measures(rng, asked):
    scores = rng.random((len(asked.users), N_ITEMS), dtype=np.float32)
    targets = asked.numbers[asked.positions]
    values = metrics.of(ranked(scores, asked)).values
    qrels = [ir_measures.Qrel(str(q), str(target), 1) for q, target in enumerate(targets)]
    run = [
        ir_measures.ScoredDoc(str(q), str(item), float(score))
        for q, row in enumerate(scores)
        for item, score in enumerate(row)
    ]
    found = ir_measures.calc_aggregate(list(IR.values()), qrels, run)
    for name, mean in zip(metrics.NAMES, values.mean(axis=0), strict=True):
        assert mean == pytest.approx(found[IR[name]], abs=1e-9), name


def test_ties_count_as_if_broken_at_random(rng):
    ranks = rank.Ranks(np.zeros(1), np.array([3]), np.array([4]))
    drawn = [
        metrics.of(rank.Ranks(np.zeros(1), np.array([3 + place]), np.zeros(1, int))).values
        for place in range(5)
    ]
    np.testing.assert_allclose(metrics.of(ranks).values, np.mean(drawn, axis=0))


def test_masked_items_leave_the_ranking_but_never_the_target(rng, asked):
    scores = rng.random((len(asked.users), N_ITEMS), dtype=np.float32)
    found = ranked(scores, asked, mask_seen=True)
    for q, (begin, position) in enumerate(zip(asked.begins, asked.positions, strict=True)):
        target = asked.numbers[position]
        left = set(range(N_ITEMS)) - set(asked.numbers[begin:position].tolist()) - {target}
        assert found.higher[q] == sum(scores[q, item] > scores[q, target] for item in left)


def test_a_sid_ranks_by_its_best_item(rng, asked):
    scores = rng.random((len(asked.users), N_ITEMS), dtype=np.float32)
    groups = rng.integers(7, size=N_ITEMS)
    groups[:7] = np.arange(7)
    found = ranked(scores, asked, groups=groups)
    best = np.stack([scores[:, groups == group].max(axis=1) for group in range(7)], axis=1)
    own = best[np.arange(len(best)), groups[asked.numbers[asked.positions]]]
    assert found.higher.tolist() == (best > own[:, None]).sum(axis=1).tolist()


def test_items_with_a_sid_each_have_no_inflation(rng, asked):
    scores = rng.random((len(asked.users), N_ITEMS), dtype=np.float32)
    alone = ranked(scores, asked, groups=rng.permutation(N_ITEMS))
    np.testing.assert_array_equal(alone.higher, ranked(scores, asked).higher)


def test_scores_that_are_nan_stop_the_run(asked):
    with pytest.raises(SidmillError, match="NaN: lower its learning_rate"):
        ranked(np.full((len(asked.users), N_ITEMS), np.nan, np.float32), asked)


def test_too_little_memory_says_how_much_is_wanted():
    with pytest.raises(SidmillError, match="raise it to at least 2442"):
        rank.rows_per_block(10_000_000, 100)
    assert rank.rows_per_block(10_000_000, 2442) == rank.TILE


@pytest.mark.parametrize(("dim", "n_items"), [(1, 1), (16, 24), (64, 1000), (48, 4099)])
def test_products_do_not_depend_on_the_rows_of_a_block(dim, n_items):
    torch.manual_seed(0)
    rows, columns = torch.randn(93, dim), torch.randn(n_items, dim).T
    whole = rank.products(rows, columns)
    torch.testing.assert_close(whole, rows @ columns)
    for n_tiles in (1, 2, 3, 9):
        size = n_tiles * rank.TILE
        blocks = [rank.products(block, columns) for block in torch.split(rows, size)]
        assert torch.equal(torch.cat(blocks), whole)


def test_intervals_hold_the_mean_and_the_lead_of_a_method_over_itself_is_nothing(rng):
    values = metrics.Values(np.arange(400) // 2, rng.random((400, len(metrics.NAMES))))
    found = metrics.table({"one": values, "same": values}, n_resamples=200, seed=0)
    for name, mean in zip(metrics.NAMES, values.values.mean(axis=0), strict=True):
        entry = found["methods"]["one"][name]
        assert entry["low"] < entry["value"] < entry["high"]
        assert entry["value"] == pytest.approx(mean)
        assert list(found["lead"]["same"][name].values()) == pytest.approx([0, 0, 0], abs=1e-12)


def test_intervals_are_as_wide_as_the_spread_of_the_mean(rng):
    values = metrics.Values(np.arange(5000), rng.standard_normal((5000, len(metrics.NAMES))))
    entry = metrics.table({"one": values}, n_resamples=800, seed=0)["methods"]["one"]["MRR"]
    assert (entry["high"] - entry["low"]) / 2 == pytest.approx(1.96 / np.sqrt(5000), rel=0.15)


def test_baselines_are_what_they_say(tmp_path, rng):
    rows = [list(map(int, rng.integers(1, 13, size=9))) for _ in range(30)]
    known = catalogue(12)
    path = write(tmp_path / "s.parquet", rows)
    had = baselines.training_matrix(path, known)
    dense = np.zeros((30, 12))
    for user, row in enumerate(rows):
        dense[user, [item - 1 for item in row[:-2]]] = 1
    np.testing.assert_array_equal(had.toarray(), dense)
    (group,) = windows.read_groups(path, known)
    asked = windows.queries(group, 2)
    counts = dense.sum(axis=0)
    popular = baselines.popularity(counts)(asked)(slice(None)).numpy()
    np.testing.assert_array_equal(popular, np.tile(counts, (30, 1)))
    cosines = dense.T @ dense / (np.sqrt(np.outer(counts, counts)) + 2.0)
    weights = 0.5 ** np.arange(7, -1, -1)
    expected = [weights @ cosines[np.array(row[:-1]) - 1] for row in rows]
    found = baselines.item_knn(had, 2.0, 0.5)(asked)(slice(None)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5)
