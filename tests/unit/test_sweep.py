"""The sweep: names and settings of its tokenizers, the choice of the winner, rank correlations."""

import copy
import csv
import io
import json
import re

import numpy as np
import pyarrow as pa
import pytest
import yaml
from click.testing import CliRunner
from conftest import ROOT
from generative_data import catalogue, fit
from recommend_data import chains, write
from scipy import stats
from snakemake.utils import update_config

from sidmill.cli import commands
from sidmill.core.errors import SidmillError
from sidmill.formats import user_metrics
from sidmill.formats.code_files import Codes
from sidmill.io import json_report
from sidmill.recommend.generative import evaluate, measure, models
from sidmill.report import sweep, sweep_correlation, sweep_plot
from sidmill.settings import sweep as sweeps
from sidmill.settings.check import check
from sidmill.settings.generative import GenerativeEvaluation
from sidmill.settings.registry import QUANTIZERS, TRAINED
from sidmill.settings.sweep import Sweep
from sidmill.sids.shuffle import shuffle

CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())
MANY = Sweep(
    shapes=[[16, 16, 16], [8, 16], [4, 4, 4, 4]],
    quantizers=TRAINED,
    fuse=["none", "graph", "svd"],
    fuse_weights=[0.3, 1, 1e-5],
)


def test_every_tokenizer_has_a_name_of_its_own_that_says_what_it_is():
    every = sweeps.tokenizers(Sweep(**vars(MANY) | {"design": "all"}))
    assert len(every) == 3 * len(TRAINED) * 7
    names = [one.name for one in every]
    assert len(set(names)) == len(names)
    assert [sweeps.read_name(name) for name in names] == every
    for one in every:
        assert re.fullmatch(sweeps.SHAPE_PATTERN, "x".join(map(str, one.shape)))
        assert re.fullmatch(sweeps.FUSION_PATTERN, one.fusion)


@pytest.mark.parametrize("name", TRAINED)
def test_every_quantizer_that_is_trained_can_be_swept(name):
    rules = (ROOT / "workflow/rules/sweep.smk").read_text()
    rule = QUANTIZERS[name].rule
    assert f"use rule {rule} as sweep_{rule} with:" in rules


def test_one_at_a_time_varies_one_list_and_the_reference_is_first():
    found = sweeps.tokenizers(MANY)
    assert len(found) == len(set(found)) == 1 + 2 + (len(TRAINED) - 1) + 6
    first = found[0]
    assert first == (TRAINED[0], (16, 16, 16), "none", None)
    for one in found[1:]:
        parts = [one.quantizer != first.quantizer, one.shape != first.shape]
        assert sum([*parts, one.fusion != first.fusion]) == 1


@pytest.mark.parametrize("name", ["rqkmeans", "rqkmeans.4x.none", "rqkmeans.4.graph", "4x4.none"])
def test_a_name_of_another_form_is_refused(name):
    with pytest.raises(ValueError, match="no name of a tokenizer"):
        sweeps.read_name(name)


@pytest.mark.parametrize("one", sweeps.tokenizers(MANY), ids=lambda one: one.name)
def test_the_overlay_of_a_tokenizer_is_a_configuration_with_its_shape(one):
    config = copy.deepcopy(CONFIG)
    update_config(config, copy.deepcopy(sweeps.overlay(one)))
    check(config)
    assert config["quantizer"] == one.quantizer
    assert config["fuse"]["method"] == one.fuse
    shapes = [config["rqvae"]["codebook_sizes"]]
    if one.quantizer not in ("rqvae", "fsq"):
        shapes = [config["rqkmeans"]["codebook_size"]]
        assert config["rqkmeans"]["n_levels"] == len(one.shape)
    assert shapes == [list(one.shape)]


# Metrics on one split


def test_a_split_is_measured_as_the_evaluation_measures_it_and_no_other_is_read(tmp_path):
    rows = chains()
    path, items = write(tmp_path / "s.parquet", rows), catalogue()
    settings = GenerativeEvaluation(n_resamples=20, memory_mb=16, device="cpu", illegal_users=0)
    both, _ = fit(path, items, seeds=2, seed=3)
    models.save(tmp_path / "both", both)
    for number, one in enumerate(both):
        models.save(tmp_path / str(number), [one])
    whole = evaluate.evaluate(
        path, items, tmp_path / "both", None, settings, seed=0, users_path=tmp_path / "users"
    )
    paths = [tmp_path / "0", tmp_path / "1"]
    for split in ("valid", "test"):
        figures, users = measure.measure(path, items, paths, settings, split=split, seed=0)
        for metric in ("HR@10", "NDCG@10"):
            expected = whole[split]["methods"]["generative"][metric]
            assert {end: figures[metric][end] for end in expected} == pytest.approx(expected)
            by_seed = whole[split]["seeds"][metric]
            assert figures[metric]["by_seed"] == pytest.approx(by_seed["values"])
            assert figures[metric]["standard_deviation"] == pytest.approx(
                by_seed["standard_deviation"]
            )
            mean = users[metric].sum() / users["queries"].sum()
            assert mean == pytest.approx(figures[metric]["value"])
    expected = user_metrics.read(tmp_path / "users")
    assert all(np.allclose(users[name], expected[name]) for name in expected)

    # Other test items change nothing on valid.
    before, _ = measure.measure(path, items, paths, settings, split="valid", seed=0)
    other = write(tmp_path / "other.parquet", [[*row[:-1], 1 + row[-1] % 24] for row in rows])
    after, _ = measure.measure(other, items, paths, settings, split="valid", seed=0)
    assert after == before


def test_codes_that_are_dealt_are_the_same_codes_on_other_items(rng):
    codes = rng.integers(0, 9, (500, 3)).astype(np.int32)
    coded = Codes(pa.chunked_array([pa.array(range(500))]), codes, [9, 9, 9])
    dealt = shuffle(coded, 1)
    assert (dealt.ids, dealt.sizes) == (coded.ids, coded.sizes)
    assert sorted(map(tuple, dealt.codes)) == sorted(map(tuple, codes))
    assert (dealt.codes == codes).all(axis=1).mean() < 0.05
    assert (shuffle(coded, 1).codes == dealt.codes).all()


# The table


def evaluation(number, sizes):
    """An evaluation.json whose figures depend on a number."""
    level = {
        "entropy_bits": 3.0, "perplexity": 8.0 + number, "gini": 0.1, "largest_share": 0.1,
        "utilisation": 1.0, "prefixes": 9, "relative_loss": 0.5 - 0.01 * number,
    }  # fmt: skip
    shares = {"1": 0.1 + 0.01 * number, "2": 0.05, "3": 0.01}
    consumed = {length: {"share": share, "chance": 0.01, "ratio": share / 0.01}
                for length, share in shares.items()}  # fmt: skip
    return {
        "items": 100, "codebook_sizes": sizes, "capacity": int(np.prod(sizes)),
        "levels": [level] * len(sizes), "relative_loss": 0.3, "mse": 0.1, "collision_rate": 0.2,
        "colliding_items_rate": 0.3, "largest_collision": 4, "entropy_bits": 6.0,
        "entropy_ratio": 0.9, "neighbours": shares, "neighbours_chance": dict.fromkeys("123", 0.01),
        "neighbour_preservation": {"jaccard": 0.4, "rbo": 0.5}, "co_consumption": consumed,
    }  # fmt: skip


def files_of(folder, hits, anchors=0, sizes=(16, 16, 16)):
    """Files of tokenizers whose recommenders have ``hits`` (T, S, U), one query per user."""
    benchmark = "s\tmax_rss\tcpu_time\n2.5\t100.0\t2.0\n"
    lists = {name: [] for name in sweep.Files._fields}
    for number, by_seed in enumerate(hits):

        def path(name, number=number):
            return str(folder / f"{number}.{name}")

        means, n_users = by_seed.mean(axis=1), by_seed.shape[1]
        metric = {"value": float(means.mean()), "by_seed": means.tolist()}
        metric["standard_deviation"] = float(means.std(ddof=1)) if len(means) > 1 else None
        measured = {"targets": n_users, "cold_targets": 0, "HR@10": metric, "NDCG@10": metric}
        sums, zeros = by_seed.mean(axis=0), np.zeros(n_users)
        columns = {"user": np.arange(n_users), "queries": np.ones(n_users, np.int64)}
        columns |= {"HR@10": sums, "NDCG@10": sums, "cold_queries": zeros, "cold_HR@10": zeros}
        user_metrics.write(path("users"), columns)
        json_report.write(path("valid"), measured | {"cold_HR@10": None})
        json_report.write(path("evaluation"), evaluation(number, list(sizes)))
        resolution = {"items_moved": 5 + number, "added_mse": 0.01}
        json_report.write(path("resolution"), resolution)
        for name in ("training", *(f"seed{seed}" for seed in range(len(by_seed)))):
            (folder / f"{number}.{name}").write_text(benchmark)
        lists["evaluations"].append(path("evaluation"))
        lists["resolutions"].append(path("resolution"))
        lists["valid"].append(path("valid"))
        lists["users"].append(path("users"))
        lists["recommenders"] += [path(f"seed{seed}") for seed in range(len(by_seed))]
        if number < len(hits) - anchors:
            lists["trainings"].append(path("training"))
    return sweep.Files(**lists | {"test": None})


def gathered(folder, hits, anchors=(), **options):
    shapes = [[16, 16, 16 + number] for number in range(len(hits) - len(anchors))]
    settings = Sweep(shapes=shapes, anchors=list(anchors))
    files = files_of(folder, hits, len(anchors))
    seeds = range(hits.shape[1])
    return sweep.gather(files, settings, seeds=seeds, **{"n_resamples": 400, "seed": 0} | options)


@pytest.fixture
def hits(rng):
    """Of 4 tokenizers, 3 seeds and 400 users; the third is better by far."""
    rates = np.array([0.2, 0.22, 0.5, 0.2])[:, None, None]
    return (rng.random((4, 3, 400)) < rates).astype(float)


def test_a_clear_winner_wins_and_is_not_flattered(tmp_path, hits):
    found = gathered(tmp_path, hits)
    winner = found["winner"]
    assert winner["name"] == found["tokenizers"][2]["name"] == "rqkmeans.16x16x18.none"
    assert winner["wins"] == 1
    assert abs(winner["optimism"]) < 0.005
    assert winner["not_distinguished"] == []
    spread = hits.mean(axis=2).std(axis=1, ddof=1)
    assert winner["seed_standard_deviation"] == pytest.approx(np.sqrt((spread**2).mean()))


def test_the_difference_is_paired_and_the_cost_is_that_of_the_jobs(tmp_path, hits):
    found = gathered(tmp_path, hits)
    assert found["tokenizers"][0]["difference"] == {"HR@10": None, "NDCG@10": None}
    for number in (1, 2, 3):
        entry = found["tokenizers"][number]
        lead = entry["difference"]["HR@10"]
        differences = (hits[number] - hits[0]).mean(axis=0)
        assert lead["value"] == pytest.approx(differences.mean())
        half = 1.96 * differences.std() / np.sqrt(400)
        assert lead["high"] - lead["low"] == pytest.approx(2 * half, rel=0.15)
        assert entry["cost"] == {"seconds": 2.5, "cpu_seconds": 2.0, "peak_mib": 100.0}
        assert entry["recommender_cost"]["cpu_seconds"] == 6.0


def test_equal_tokenizers_share_the_wins_and_the_best_of_them_is_flattered(tmp_path, rng):
    hits = (rng.random((8, 2, 300)) < 0.3).astype(float)
    found = gathered(tmp_path, hits)
    wins = [entry["wins"] for entry in found["tokenizers"]]
    assert sum(wins) == pytest.approx(1)
    assert max(wins) < 0.9
    assert found["winner"]["optimism"] > 0.003
    assert len(found["winner"]["not_distinguished"]) >= 5


def test_an_anchor_is_measured_and_never_chosen(tmp_path, hits):
    found = gathered(tmp_path, hits[[0, 1, 3, 2]], anchors=["shuffled"])
    assert found["winner"]["name"] != "shuffled"
    anchor = found["tokenizers"][-1]
    assert (anchor["name"], anchor["is_anchor"], anchor["wins"]) == ("shuffled", True, None)
    assert anchor["cost"]["seconds"] is None
    assert anchor["difference"]["HR@10"]["value"] > 0.2
    assert sweep.ranked(found)[0] is anchor


def test_other_users_are_refused(tmp_path, hits):
    files = files_of(tmp_path, hits)
    columns = user_metrics.read(files.users[1])
    user_metrics.write(files.users[1], {name: column[:-1] for name, column in columns.items()})
    settings = Sweep(shapes=[[16, 16, 16 + number] for number in range(4)])
    with pytest.raises(SidmillError, match="other users or targets"):
        sweep.gather(files, settings, seeds=range(3), n_resamples=0, seed=0)


def test_the_table_has_a_line_per_tokenizer_and_the_overlay_is_that_of_the_winner(tmp_path, hits):
    found = gathered(tmp_path, hits)
    sweep.write_table(tmp_path / "sweep.csv", found)
    lines = list(csv.DictReader(io.StringIO((tmp_path / "sweep.csv").read_text())))
    assert [line["name"] for line in lines] == [one["name"] for one in sweep.ranked(found)]
    for line, entry in zip(lines, sweep.ranked(found), strict=True):
        assert float(line["valid HR@10"]) == pytest.approx(
            entry["valid"]["HR@10"]["value"], rel=1e-5
        )
        assert float(line["moved"]) == pytest.approx(entry["figures"]["moved"])
        assert "test HR@10" not in line
    sweep.write_winner(tmp_path / "winner.yaml", found)
    overlay = yaml.safe_load((tmp_path / "winner.yaml").read_text())
    assert overlay == sweeps.overlay(sweeps.read_name(found["winner"]["name"]))
    assert "win 100%" in (tmp_path / "winner.yaml").read_text()

    for name in ("one.svg", "two.svg"):
        sweep_plot.plot(tmp_path / name, found)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_one_seed_and_no_resamples_say_what_is_not_known(tmp_path, hits):
    found = gathered(tmp_path, hits[:, :1], n_resamples=0)
    assert found["winner"]["seed_standard_deviation"] is None
    assert found["winner"]["wins"] is found["winner"]["optimism"] is None
    sweep.write_winner(tmp_path / "winner.yaml", found)
    assert "another seed" in (tmp_path / "winner.yaml").read_text()
    sweep_plot.plot(tmp_path / "plot.svg", found)


# Rank correlations


@pytest.mark.parametrize("ties", [False, True])
def test_spearman_is_that_of_scipy_row_by_row(rng, ties):
    first, second = rng.standard_normal((2, 20, 15))
    if ties:
        first, second = (first * 2).round(), (second * 2).round()
    found = sweep_correlation.spearman(first, second)
    expected = [stats.spearmanr(*pair).statistic for pair in zip(first, second, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert np.isnan(sweep_correlation.spearman(np.ones(9), np.arange(9.0)))


def planted(rng, n=24, predictor=None, fused=0, n_seeds=2):
    """sweep.json of random figures, of which one may be the metric with little noise."""
    entries = []
    values = rng.standard_normal(n)
    for number in range(n):
        figures = {one.key: float(rng.standard_normal()) for one in sweep.CHEAP}
        if predictor is not None:
            figures[predictor] = -float(values[number]) + 0.05 * float(rng.standard_normal())
        single = (values[number] + 0.01 * rng.standard_normal(n_seeds)).tolist()
        metric = {"value": float(values[number]), "by_seed": single}
        entries.append(
            {
                "name": str(number),
                "is_anchor": False,
                "figures": figures,
                "fuse": "graph" if number < fused else "none",
                "cost": {"cpu_seconds": float(rng.random())},
                "valid": {"HR@10": metric, "NDCG@10": metric},
            }
        )
    return {"metric": "HR@10", "tokenizers": entries}


def correlate(found, **options):
    return sweep_correlation.correlate(
        found, **{"metric": None, "n_draws": 400, "seed": 0} | options
    )


def test_a_planted_relation_is_found_and_no_other(rng):
    found = correlate(planted(rng, predictor="rbo", fused=6))
    assert found["predictors"] == ["rbo"]
    for group in ("trained", "on_text"):
        first = found[group]["figures"][0]
        assert first["key"] == "rbo"
        assert first["rho"] < -0.9
        assert first["high"] < -0.7
        assert first["chance"] < 0.01
    assert [found[group]["tokenizers"] for group in ("trained", "on_text")] == [24, 18]
    assert found["ceiling"]["seeds"] > 0.9
    assert found["ceiling"]["reliability"] > 0.99


def test_figures_without_a_relation_predict_nothing_though_one_of_them_looks_strong():
    strongest, false = [], 0
    for seed in range(12):
        found = correlate(planted(np.random.default_rng(seed)), n_draws=200)
        strongest.append(abs(found["trained"]["figures"][0]["rho"]))
        false += bool(found["predictors"])
        assert found["trained"]["threshold"] > 0.5
    assert false <= 2
    assert np.mean(strongest) > 0.4  # above the 95 % point of a single figure


def test_a_relation_of_fused_vectors_alone_is_no_predictor(rng):
    found = planted(rng, n=24, fused=12)
    for number, entry in enumerate(found["tokenizers"]):
        value = 3.0 + number if number < 12 else float(rng.random())
        entry["valid"]["HR@10"] = {"value": value, "by_seed": [value, value]}
        entry["figures"]["consecutive_1"] = value if number < 12 else float(rng.random())
    correlated = correlate(found)
    assert correlated["trained"]["figures"][0]["key"] == "consecutive_1"
    assert correlated["trained"]["figures"][0]["rho"] > correlated["trained"]["threshold"]
    assert "consecutive_1" not in correlated["predictors"]


def test_figures_that_are_constant_or_missing_are_left_out_or_counted(rng):
    found = planted(rng, n=10)
    for number, entry in enumerate(found["tokenizers"]):
        entry["figures"]["n_levels"] = 3.0
        entry["figures"]["jaccard"] = None if number < 3 else entry["figures"]["jaccard"]
        entry["figures"]["mse"] = None if number < 5 else 1.0 * number
    by_key = {one["key"]: one for one in correlate(found)["trained"]["figures"]}
    assert "n_levels" not in by_key
    assert "mse" not in by_key
    assert by_key["jaccard"]["tokenizers"] == 7


def test_kendall_is_that_of_scipy_with_ties(rng):
    found = planted(rng, n=12)
    for entry in found["tokenizers"]:
        entry["figures"]["rbo"] = float(rng.integers(3))
    (one,) = (one for one in correlate(found)["trained"]["figures"] if one["key"] == "rbo")
    values = [entry["valid"]["HR@10"]["value"] for entry in found["tokenizers"]]
    figures = [entry["figures"]["rbo"] for entry in found["tokenizers"]]
    assert one["tau"] == pytest.approx(stats.kendalltau(figures, values).statistic)
    assert one["rho"] == pytest.approx(stats.spearmanr(figures, values).statistic)


def test_too_few_tokenizers_are_refused(rng):
    with pytest.raises(SidmillError, match="5 trained tokenizers are too few"):
        correlate(planted(rng, n=5))


@pytest.mark.parametrize(
    ("predictor", "words"),
    [("rbo", "predict HR@10 here: neighbours: RBO (less is better)"), (None, "no figure predicts")],
)
def test_the_adviser_says_what_was_found_and_nothing_else(tmp_path, rng, predictor, words):
    path = tmp_path / "sweep.json"
    path.write_text(json.dumps(planted(rng, predictor=predictor)))
    said = CliRunner().invoke(commands, ["advise", "--sweep", str(path)])
    assert said.exit_code == 0, said.output
    assert words in said.output
    assert "anchors" not in said.output


@pytest.mark.parametrize("options", [[], ["--vectors", "x.npy", "--sweep", "y.json"]])
def test_the_adviser_wants_vectors_or_a_sweep(options):
    said = CliRunner().invoke(commands, ["advise", *options])
    assert said.exit_code == 2
    assert "one of them" in said.output
