"""The comparison: figures gathered, one budget, a table and a plot whose words are true."""

import json
import re
from xml.etree import ElementTree

import pytest

from sidmill.core.errors import SidmillError
from sidmill.formats import benchmark_table
from sidmill.report import comparison, comparison_plot
from sidmill.settings.sids import Comparison

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
    def gather(evaluations, tsv="s\tmax_rss\n2.5\t100.0\n"):
        paths, benchmarks = [], []
        for name, figures in evaluations.items():
            paths.append(tmp_path / f"{name}.json")
            paths[-1].write_text(json.dumps(figures))
            benchmarks.append(tmp_path / f"{name}.tsv")
            benchmarks[-1].write_text(tsv)
        members = list(evaluations)
        return comparison.compare(paths, benchmarks, Comparison(members=members), SIZES)

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
    assert benchmark_table.read(path) == (0.02, None)
    for text in ("", "s\tmax_rss\n", "x\n1\n", "s\tmax_rss\nNaN?\t1\n"):
        path.write_text(text)
        with pytest.raises(SidmillError, match="no benchmark of Snakemake"):
            benchmark_table.read(path)
