"""The comparison: figures gathered, one budget, a table and a plot whose words are true."""

import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from sidmill.core.errors import SidmillError
from sidmill.formats import benchmark_table, quantizer_file, user_metrics
from sidmill.recommend import metrics
from sidmill.recommend.generative.evaluate import _by_user
from sidmill.report import comparison, comparison_downstream, comparison_plot
from sidmill.settings.sids import Comparison, Evaluation
from sidmill.sids.evaluate import evaluate

SIZES = [4, 4]


def evaluation(loss, *, sizes=SIZES, consumed=None):
    level = {"relative_loss": loss, "utilisation": 0.75}
    return {
        "items": 50,
        "dim": 8,
        "codebook_sizes": sizes,
        "relative_loss": loss,
        "collision_rate": 0.25,
        "colliding_items_rate": 0.4,
        "largest_collision": 3,
        "entropy_bits": 3.0,
        "entropy_bound_bits": 4.0,
        "entropy_ratio": 0.75,
        "neighbours": {"1": 0.5, "2": 0.25},
        "neighbours_chance": {"1": 0.2, "2": 0.01},
        "neighbour_preservation": {
            "queries": 9, "neighbours": 5, "jaccard": 0.3, "rbo": 0.35, "rbo_persistence": 0.9,
        },
        "co_consumption": consumed,
        "levels": [level, {**level, "utilisation": 1.0}],
    }  # fmt: skip


CONSUMED = {
    "pairs": 7,
    "1": {"share": 0.3, "chance": 0.1, "ratio": 3.0},
    "2": {"share": 0.2, "chance": 0.01, "ratio": 20.0},
}


@pytest.fixture
def gather(tmp_path):
    def gather(evaluations, tsv="s\tmax_rss\n2.5\t100.0\n", downstream=None):
        paths, benchmarks = [], []
        for name, figures in evaluations.items():
            paths.append(tmp_path / f"{name}.json")
            paths[-1].write_text(json.dumps(figures))
            benchmarks.append(tmp_path / f"{name}.tsv")
            benchmarks[-1].write_text(tsv)
        members = list(evaluations)
        downstream = downstream or [None] * len(members)
        return comparison.compare(paths, benchmarks, Comparison(members=members), SIZES, downstream)

    return gather


def test_figures_come_from_the_evaluations(gather):
    found = gather({"rqkmeans": evaluation(0.5), "opq": evaluation(0.75, consumed=CONSUMED)})
    one, two = found["members"]
    assert (one["name"], one["relative_loss"], one["seconds"]) == ("rqkmeans", 0.5, 2.5)
    assert (one["least_utilisation"], one["utilisation"]) == (0.75, [0.75, 1.0])
    assert (one["consecutive_1"], two["consecutive_1"]) == (None, 0.3)
    assert (found["items"], found["neighbours"]) == (50, 5)


@pytest.mark.parametrize("sizes", [[4], [4, 4, 4], [4, 5]])
def test_another_budget_is_refused(gather, sizes):
    with pytest.raises(SidmillError, match=r"opq has codebooks of .*others may use \[4, 4\]"):
        gather({"rqkmeans": evaluation(0.5), "opq": evaluation(0.5, sizes=sizes)})


def test_fewer_codes_are_allowed_and_said(gather, tmp_path):
    found = gather({"pca_grid": evaluation(0.5, sizes=[4, 3])})
    comparison.write_table(tmp_path / "t.md", found)
    assert "| codes | 4 3 |" in (tmp_path / "t.md").read_text()


def test_the_table_marks_the_best_and_names_chance(gather, tmp_path):
    found = gather({"rqkmeans": evaluation(0.5), "opq": evaluation(0.75, consumed=CONSUMED)})
    comparison.write_table(tmp_path / "t.md", found)
    rows = dict(
        re.match(r"\| ([^|]*?) \| (.*) \|$", line).groups()
        for line in (tmp_path / "t.md").read_text().splitlines()
        if line.startswith("| ") and "rqkmeans" not in line
    )
    assert rows["squared error left (lower is better)"] == "**50%** | 75%"
    assert rows["consumed next: 1st token (higher is better)"] == "– | **30%** (10%)"
    lines = [line for line in (tmp_path / "t.md").read_text().splitlines() if line[:1] == "|"]
    assert len({line.count("|") for line in lines}) == 1


def test_without_histories_there_is_no_row_and_no_panel(gather, tmp_path):
    found = gather({"rqkmeans": evaluation(0.5)})
    comparison.write_table(tmp_path / "t.md", found)
    comparison_plot.plot(tmp_path / "p.svg", found)
    assert "consumed next" not in (tmp_path / "t.md").read_text()
    assert "consumed next" not in (tmp_path / "p.svg").read_text()


@pytest.mark.parametrize("n_members", [1, 6])
def test_the_plot_says_every_value_and_has_the_same_bytes(gather, tmp_path, n_members):
    members = {f"q{i}": evaluation((1 + i) / 8, consumed=CONSUMED) for i in range(n_members)}
    found = gather(members)
    for name in ("one.svg", "two.svg"):
        comparison_plot.plot(tmp_path / name, found)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    ElementTree.parse(tmp_path / "one.svg")
    words = re.findall(r"<!-- (.*?) -->", (tmp_path / "one.svg").read_text(), flags=re.DOTALL)
    for figure in comparison.FIGURES:
        assert figure.title in words
        for member in found["members"]:
            assert figure.words(member[figure.key]) in words


def test_benchmark_files(tmp_path):
    path = tmp_path / "b.tsv"
    path.write_text("s\th:m:s\tmax_rss\n0.02\t0:00:00\t-\n")
    assert benchmark_table.read(path) == (0.02, None, None)
    path.write_text("s\tmax_rss\tcpu_time\n2.5\t100.5\t1.25\n")
    assert benchmark_table.read(path) == (2.5, 100.5, 1.25)
    for text in ("", "s\tmax_rss\n", "x\n1\n", "s\tmax_rss\nNaN?\t1\n"):
        path.write_text(text)
        with pytest.raises(SidmillError, match="no benchmark of Snakemake"):
            benchmark_table.read(path)


N_USERS, PER_USER, N_SEEDS = 400, 3, 3
RESAMPLES = {"n_resamples": 300, "seed": 7}
USERS = np.repeat(np.arange(N_USERS), PER_USER)
IS_COLD = np.arange(N_USERS * PER_USER) % 5 == 0


def recommended(rng, chance):
    """Metrics of each query, float64 (Q, M): hits at random, with a chance per query."""
    hits = rng.random(len(USERS)) < chance
    return metrics.Values(USERS, np.repeat(hits[:, None] * 1.0, len(metrics.NAMES), axis=1))


def put(folder, name, values, *, is_cold=IS_COLD, n_seeds=N_SEEDS):
    """Leave what evaluate_generative leaves of a member."""
    table = metrics.table({"generative": values}, **RESAMPLES)
    by_target = {"in_training": {"targets": int((~is_cold).sum())}}
    if is_cold.any():
        cold = metrics.Values(values.users[is_cold], values.values[is_cold])
        entries = metrics.table({"generative": cold}, **RESAMPLES)
        by_target["never_in_training"] = {"targets": int(is_cold.sum()), **entries}
    seeds = {
        key: {"values": [0.1] * n_seeds, "standard_deviation": 0.0125} for key in metrics.NAMES
    }
    figures = {
        "protocol": {"model": "causal", "seeds": list(range(n_seeds))},
        "test": {
            "targets": len(is_cold), **table, "seeds": seeds, "by_target": {"training": by_target}
        },
    }  # fmt: skip
    paths = folder / f"{name}.metrics.json", folder / f"{name}.parquet"
    paths[0].write_text(json.dumps(figures))
    user_metrics.write(paths[1], _by_user(values, is_cold))
    return paths


def downstream(*paths):
    """What the comparison says of recommenders that left these files."""
    members = [f"q{number}" for number in range(len(paths))]
    return comparison_downstream.gather(
        members, [one for one, _ in paths], [two for _, two in paths], **RESAMPLES
    )


def test_figures_of_the_recommender_are_those_of_its_metrics(rng, tmp_path):
    values = recommended(rng, 0.3)
    (found,) = downstream(put(tmp_path, "one", values))
    own = metrics.table({"generative": values}, **RESAMPLES)["methods"]["generative"]
    for key in ("HR@10", "NDCG@10"):
        assert {name: found[key][name] for name in ("value", "low", "high")} == own[key]
        assert found[key]["standard_deviation"] == 0.0125
        assert found[key]["difference"] is None
    assert found["cold_HR@10"]["value"] == pytest.approx(values.values[IS_COLD, 0].mean())
    assert (found["targets"], found["cold_targets"]) == (len(USERS), IS_COLD.sum())


def test_a_planted_difference_is_found_and_a_copy_has_none(rng, tmp_path):
    """Both members find it hard for the same users: only the paired interval tells them apart."""
    easy = np.repeat(rng.random(N_USERS), PER_USER)
    first = recommended(rng, easy)
    better = first.values.copy()
    missed = np.flatnonzero((better[:, 0] == 0) & ~IS_COLD)
    better[rng.choice(missed, 20, replace=False)] = 1.0
    better = metrics.Values(USERS, better)
    paths = [
        put(tmp_path, name, one) for name, one in zip("abc", (first, first, better), strict=True)
    ]
    one, copy, other = downstream(*paths)
    for key in ("HR@10", "NDCG@10"):
        assert copy[key]["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
        found = other[key]["difference"]
        assert found["value"] == pytest.approx(20 / len(USERS))
        assert 0 < found["low"] < found["value"] < found["high"]
        assert one[key]["high"] > other[key]["low"]  # single intervals overlap
    assert other["cold_HR@10"]["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_differences_are_the_leads_of_methods_of_one_file(rng, tmp_path):
    """An oracle: the same two rankings as methods of one metrics.json, with the same draws."""
    one, two = recommended(rng, 0.3), recommended(rng, 0.35)
    lead = metrics.table({"two": two, "one": one}, **RESAMPLES)["lead"]["one"]
    _, found = downstream(put(tmp_path, "one", one), put(tmp_path, "two", two))
    for key in ("HR@10", "NDCG@10"):
        assert found[key]["difference"] == pytest.approx(lead[key])


def test_the_interval_of_a_difference_covers_it_about_as_often_as_it_says(tmp_path):
    """Members of equal chance: 0 is outside of about 5 % of the intervals."""
    outside = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        paths = [put(tmp_path, name, recommended(rng, 0.3)) for name in "ab"]
        found = downstream(*paths)[1]["HR@10"]["difference"]
        outside += not found["low"] <= 0 <= found["high"]
    assert outside <= 9  # at 5 %, more than 9 of 60 have a chance of 0.1 %


def test_without_cold_targets_seeds_or_resamples_nothing_is_made_up(rng, gather, tmp_path):
    no_cold = np.zeros_like(IS_COLD)
    paths = [
        put(tmp_path, name, recommended(rng, 0.3), is_cold=no_cold, n_seeds=1) for name in "ab"
    ]
    for path, _ in paths:
        figures = json.loads(path.read_text())
        for entry in figures["test"]["methods"]["generative"].values():
            del entry["low"], entry["high"]
        path.write_text(json.dumps(figures))
    found = comparison_downstream.gather(
        ["a", "b"], [one for one, _ in paths], [two for _, two in paths], n_resamples=0, seed=1
    )
    assert found[1]["cold_HR@10"] is None
    assert found[1]["HR@10"]["standard_deviation"] is None
    assert found[1]["HR@10"]["difference"].keys() == {"value"}
    compared = gather({"a": evaluation(0.5), "b": evaluation(0.5)}, downstream=found)
    comparison.write_table(tmp_path / "t.md", compared)
    comparison_plot.plot(tmp_path / "p.svg", compared)
    assert "cold targets" not in (tmp_path / "t.md").read_text()
    assert "±" not in (tmp_path / "t.md").read_text()


def test_table_and_plot_show_the_recommender(rng, gather, tmp_path):
    chances = {"opq": 0.2, "rqkmeans": 0.5}
    paths = [put(tmp_path, name, recommended(rng, chance)) for name, chance in chances.items()]
    found = downstream(*paths)
    compared = gather({name: evaluation(0.5) for name in chances}, downstream=found)
    comparison.write_table(tmp_path / "t.md", compared)
    text = (tmp_path / "t.md").read_text()
    best = found[1]["HR@10"]
    interval = f"[{best['low']:.4f}, {best['high']:.4f}]"
    assert f"**{best['value']:.4f}** {interval} ± 0.0125" in text
    assert f"less that of opq | – | +{best['difference']['value']:.4f} [+" in text
    assert len({line.count("|") for line in text.splitlines() if line[:1] == "|"}) == 1
    for name in ("one.svg", "two.svg"):
        comparison_plot.plot(tmp_path / name, compared)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    drawn = re.findall(r"<!-- (.*?) -->", (tmp_path / "one.svg").read_text(), flags=re.DOTALL)
    assert {f"{best['value']:.4f}", f"{best['difference']['value']:+.4f}"} <= set(drawn)
    assert {metric.title for metric in comparison_downstream.METRICS} <= set(drawn)


def test_files_that_cannot_be_compared_are_named(rng, tmp_path):
    one, two = (put(tmp_path, name, recommended(rng, 0.3)) for name in "ab")
    columns = user_metrics.read(two[1])
    user_metrics.write(two[1], {key: column[1:] for key, column in columns.items()})
    with pytest.raises(SidmillError, match=r"b\.parquet: has other users or targets than .*a\."):
        downstream(one, two)
    two[1].unlink()
    with pytest.raises(SidmillError, match=r"b\.parquet: no such file"):
        downstream(one, two)
    two[0].unlink()
    with pytest.raises(SidmillError, match=r"b\.metrics\.json"):
        downstream(one, two)
    figures = json.loads(one[0].read_text())
    one[0].write_text(json.dumps(figures | {"test": {"targets": 0}}))
    with pytest.raises(SidmillError, match=r"no interaction to predict.*interactions.split"):
        downstream(one)


def test_users_of_an_empty_split_are_no_users(tmp_path):
    assert user_metrics.write(tmp_path / "u.parquet", user_metrics.empty()) == 0
    found = user_metrics.read(tmp_path / "u.parquet")
    assert {key: len(column) for key, column in found.items()} == dict.fromkeys(found, 0)


def test_given_sids_are_compared_without_vectors(rng, gather, tmp_path):
    fitted = quantizer_file.Quantizer("given", [], {"codebook_sizes": SIZES}, {})
    codes = rng.integers(4, size=(50, 2)).astype(np.int32)
    figures = evaluate(fitted, None, codes, None, Evaluation(), seed=1)
    distinct = len(np.unique(codes, axis=0))
    assert figures["collision_rate"] == pytest.approx(1 - distinct / 50)
    found = downstream(put(tmp_path, "given", recommended(rng, 0.3)))
    compared = gather({"given": figures}, downstream=found)
    comparison.write_table(tmp_path / "t.md", compared)
    comparison_plot.plot(tmp_path / "p.svg", compared)
    text = (tmp_path / "t.md").read_text()
    assert text.startswith("50 items, without vectors, 4 x 4 codes")
    assert "neighbours" not in text
    assert "recommender: HR@10 (higher" in text
    assert "less that of" not in text
