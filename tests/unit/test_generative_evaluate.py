"""Metrics of the generative recommender: plain loops say the same; weights are picked on valid."""

import itertools

import numpy as np
import pytest
import torch
from generative_data import catalogue, fit, identifier
from recommend_data import chains, write
from recommend_data import fit as fit_recommender

from sidmill.core.errors import SidmillError
from sidmill.formats import user_metrics
from sidmill.formats.sequence_table import TEST, VALID
from sidmill.recommend import checkpoint, metrics, rank, windows
from sidmill.recommend import score as item_score
from sidmill.recommend.generative import evaluate, models, repeats, score
from sidmill.settings.generative import GenerativeEvaluation

SETTINGS = GenerativeEvaluation(n_resamples=20, memory_mb=16, device="cpu", illegal_users=10)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Two seeds, a recommender, and their figures."""
    folder = tmp_path_factory.mktemp("measured")
    path = write(folder / "s.parquet", chains())
    items = catalogue(text_dim=8)
    fitted, _ = fit(path, items, seeds=2, seed=3)
    models.save(folder / "model", fitted)
    recommender, _ = fit_recommender(path, items.items)
    checkpoint.save(folder / "recommender", recommender)
    beside = (items.items, folder / "recommender")
    figures = evaluate.evaluate(path, items, folder / "model", beside, SETTINGS, seed=0)
    return folder, path, items, fitted, figures


def scores_of(path, items, fitted, split):
    """Scores (Q, N) of a model, targets and users, all queries at once."""
    parts = [windows.queries(group, split) for group in windows.read_groups(path, items.items)]
    (part,) = parts
    scores = score.scorer(fitted.network, 6)(part)(slice(None))
    return scores.numpy(), part.numbers[part.positions], part


def ndcg(scores, targets):
    ranks = (scores > scores[np.arange(len(targets)), targets][:, None]).sum(axis=1)
    return np.where(ranks < 10, 1 / np.log2(ranks + 2), 0)


def test_figures_are_those_of_a_plain_loop(measured):
    _, path, items, fitted, figures = measured
    for name, split in (("valid", VALID), ("test", TEST)):
        by_seed = [ndcg(*scores_of(path, items, one, split)[:2]) for one in fitted]
        found = figures[name]
        assert found["methods"]["generative"]["NDCG@10"]["value"] == pytest.approx(np.mean(by_seed))
        seeds = found["seeds"]["NDCG@10"]
        assert seeds["values"] == pytest.approx([one.mean() for one in by_seed])
        expected = np.std([one.mean() for one in by_seed], ddof=1)
        assert seeds["standard_deviation"] == pytest.approx(expected)

        # By length of the history, which are all of the queries together.
        _, _, part = scores_of(path, items, fitted[0], split)
        lengths = part.positions - part.begins
        kinds = found["by_target"]["history_length"]
        for kind, (low, high) in evaluate.HISTORY_LENGTHS.items():
            rows = (lengths >= low) & (lengths <= (high or 99))
            assert (kind in kinds) == rows.any()
            if rows.any():
                value = np.mean([one[rows] for one in by_seed])
                entry = kinds[kind]["methods"]["generative"]["NDCG@10"]
                assert entry["value"] == pytest.approx(value)


def test_the_fused_score_is_the_weighted_sum_of_the_logits(measured, tmp_path):
    folder, path, items, _, _ = measured

    # Some items are new: ``fused`` leaves their boost out.
    fitted = models.load(folder / "model", items, torch.device("cpu"))
    for one in fitted:
        one.network.model.is_new[3:9] = True
    models.save(tmp_path / "model", fitted)
    beside = (items.items, folder / "recommender")
    figures = evaluate.evaluate(path, items, tmp_path / "model", beside, SETTINGS, seed=0)
    weights = figures["weights"]["fused"]
    assert sum(weights.values()) == pytest.approx(1)
    assert figures["weights"]["picked_on"] == "valid"

    recommender = checkpoint.load(folder / "recommender", torch.device("cpu"))
    other = item_score.scorer(recommender, item_score.catalogue(recommender, items.items))
    values = []
    for one in fitted:
        scores, targets, part = scores_of(path, items, one, TEST)
        model = one.network.model
        boost = one.settings.new_item_boost * model.is_new.numpy()
        assert boost.any()
        total = weights["generative"] * (scores - boost)
        logits = other(part)(slice(None)).numpy() / recommender.settings["temperature"]

        # The recommender knows nothing of repeats: it gets what the generative model learned.
        last, earlier = (repeats.RATE * one.network.model.repeats.scaled).tolist()
        for row, (begin, end) in enumerate(zip(part.begins, part.positions, strict=True)):
            history = part.numbers[begin:end][-6:]
            logits[row, history] += earlier
            logits[row, history[-1]] += last - earlier
        total += weights["recommender"] * logits
        values.append(ndcg(total, targets).mean())
    entry = figures["test"]["methods"]["fused"]["NDCG@10"]
    assert entry["value"] == pytest.approx(np.mean(values), abs=1e-6)


def test_weights_do_not_see_the_test_items(measured, tmp_path):
    folder, _, items, _, figures = measured
    changed = [[*row[:-1], row[0]] for row in chains()]
    path = write(tmp_path / "s.parquet", changed)
    beside = (items.items, folder / "recommender")
    other = evaluate.evaluate(path, items, folder / "model", beside, SETTINGS, seed=0)
    assert other["weights"] == figures["weights"]
    assert other["valid"] == figures["valid"]
    assert other["test"] != figures["test"]


def test_without_validation_items_the_weights_are_equal(measured, tmp_path):
    folder, _, items, _, _ = measured
    rows = chains()
    splits = [[0] * (len(row) - 1) + [2] for row in rows]
    path = write(tmp_path / "s.parquet", rows, splits)
    beside = (items.items, folder / "recommender")
    figures = evaluate.evaluate(path, items, folder / "model", beside, SETTINGS, seed=0)
    assert figures["valid"] == {"targets": 0}
    assert figures["weights"]["picked_on"] is None
    assert set(figures["weights"]["fused"].values()) == {0.5}
    assert set(figures["weights"]["sum_of_baselines"].values()) == {1.0}


def test_memory_changes_no_figure(measured):
    folder, path, items, _, figures = measured
    beside = (items.items, folder / "recommender")
    large = GenerativeEvaluation(n_resamples=20, memory_mb=512, device="cpu", illegal_users=10)
    assert evaluate.evaluate(path, items, folder / "model", beside, large, seed=0) == figures


def test_items_that_share_a_sid_count_once_at_sid_level(tmp_path):
    items = catalogue(identifiers=[identifier(shared=6)])
    path = write(tmp_path / "s.parquet", chains())
    fitted, _ = fit(path, items)
    models.save(tmp_path / "model", fitted)
    figures = evaluate.evaluate(path, items, tmp_path / "model", None, SETTINGS, seed=0)
    sids = figures["test"]["sids"]["after"]
    assert sids["n_sids"] == 18
    assert 0 < sids["targets_sharing"] < 1
    assert sids["item_level"]["HR@10"]["value"] < sids["sid_level"]["HR@10"]["value"]
    assert "recommender" not in figures["test"]["methods"]
    assert figures["unconstrained"]["illegal"] == 0
    assert figures["unconstrained"]["answers"] > 0


def test_answers_are_counted_once_per_user(tmp_path):
    rows = chains(n_users=5)
    path = write(tmp_path / "s.parquet", rows, [[0] * (len(row) - 2) + [2, 2] for row in rows])
    items = catalogue()
    models.save(tmp_path / "model", fit(path, items, max_epochs=1)[0])
    for limit, n_users in ((3, 3), (10, 5), (0, 0)):
        settings = GenerativeEvaluation(
            n_resamples=0, memory_mb=16, device="cpu", illegal_users=limit, beam_width=4
        )
        figures = evaluate.evaluate(path, items, tmp_path / "model", None, settings, seed=0)
        assert figures["test"]["targets"] == 10
        assert figures["unconstrained"]["users"] == n_users
        assert figures["unconstrained"]["answers"] == 4 * n_users


def test_items_by_other_numbers_have_the_same_scores():
    order = np.random.default_rng(0).permutation(24)
    here = catalogue().items
    there = catalogue(ids=np.arange(1, 25)[order]).items

    def there_scores(queries):
        """The score of an item is its id, plus 100 if it is the latest of the history."""
        ids = torch.tensor(there.ids.to_pylist(), dtype=torch.float32)
        latest = queries.numbers[queries.positions - 1]

        def score_rows(rows):
            chosen = torch.from_numpy(latest[rows].astype(np.int64))
            scores = ids.repeat(len(chosen), 1)
            scores[torch.arange(len(chosen)), chosen] += 100
            return scores

        return score_rows

    queries = windows.Queries(
        np.arange(2), np.array([0, 2]), np.array([2, 3]), np.array([4, 7, 11], np.int32), 0
    )
    scores = evaluate.renumbered(there_scores, here, there)(queries)(slice(None)).numpy()
    expected = np.tile(np.arange(1, 25, dtype=np.float32), (2, 1))
    expected[0, 7] += 100
    expected[1, 11] += 100
    assert np.array_equal(scores, expected)
    with pytest.raises(SidmillError, match="24 items have SIDs and 23 have embeddings"):
        evaluate.renumbered(there_scores, here, catalogue(23).items)
    with pytest.raises(SidmillError, match=r"the embeddings: lacks 1 items .* first 1: make both"):
        evaluate.renumbered(there_scores, here, catalogue(ids=np.arange(2, 26)).items)


def test_sums_rank_as_a_plain_loop_does_and_lists_that_end_count_last():
    rng = np.random.default_rng(1)
    scores = [rng.standard_normal((5, 24)).astype(np.float32) for _ in range(2)]
    scores[1][:, 12:] = -np.inf  # what no beam reached
    part = windows.Queries(
        np.arange(5), np.arange(5), np.arange(5) + 1, np.arange(6, dtype=np.int32) * 4, 0
    )
    scorers = [lambda _, one=one: lambda rows: torch.from_numpy(one[rows].copy()) for one in scores]
    weightings = [(1.0, 0.0), (0.3, 0.7), None]
    found = rank.rank_sums(scorers, weightings, [part], 24, mask_seen=False, memory_mb=16)
    lowest = [one.min(axis=1, where=np.isfinite(one), initial=9)[:, None] for one in scores]
    filled = [np.maximum(one, low) for one, low in zip(scores, lowest, strict=True)]
    units = [(one - one.mean(1, keepdims=True)) / one.std(1, keepdims=True) for one in filled]
    targets = part.numbers[part.positions]
    sums = [units[0], 0.3 * units[0] + 0.7 * units[1], scores[0]]
    for ranks, total in zip(found, sums, strict=True):
        own = total[np.arange(5), targets][:, None]
        assert np.array_equal(ranks.higher, (total > own + 1e-6).sum(axis=1))
    assert metrics.mean(found[0], "MRR") == pytest.approx(metrics.mean(found[2], "MRR"))


def test_sums_of_users_are_the_figures_of_the_test_split(measured, tmp_path):
    folder, path, items, fitted, figures = measured
    target = tmp_path / "users.parquet"
    beside = (items.items, folder / "recommender")
    again = evaluate.evaluate(
        path, items, folder / "model", beside, SETTINGS, seed=0, users_path=target
    )
    assert again == figures
    users = user_metrics.read(target)
    scores = [scores_of(path, items, one, TEST) for one in fitted]
    by_query = np.mean([ndcg(*one[:2]) for one in scores], axis=0)
    part = scores[0][2]
    for user, queries, total in zip(users["user"], users["queries"], users["NDCG@10"], strict=True):
        rows = part.users == user
        assert queries == rows.sum() > 0
        assert total == pytest.approx(by_query[rows].sum())
    assert users["queries"].sum() == figures["test"]["targets"]
    groups = figures["test"]["by_target"]["training"]
    assert users["cold_queries"].sum() == groups.get("never_in_training", {"targets": 0})["targets"]


def test_weights_of_sums_have_every_ratio_once():
    """Every combination is a multiple of exactly one that is kept, and none of those of another."""
    kept = [np.array(one) for one in evaluate.weight_ratios(3)]
    combinations = list(itertools.product(evaluate.SUM_WEIGHTS, repeat=3))[1:]
    for one in combinations:
        multiples = [other for other in kept if np.allclose(other / other.max() * max(one), one)]
        assert len(multiples) == 1
    assert len(kept) < len(combinations)
    assert all(tuple(one) in combinations for one in kept)
