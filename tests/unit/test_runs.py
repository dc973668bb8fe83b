"""Runs side by side: what differs is shown, what is described twice counts once."""

import json

import pytest
from click.testing import CliRunner
from conftest import ROOT

from sidmill.cli import commands
from sidmill.core.atomic import write_text
from sidmill.core.errors import SidmillError
from sidmill.io import json_report
from sidmill.report import runs, runs_plot

TEMPLATE = ROOT / "workflow/resources/runs.html.jinja"
FULL = "generative rqkmeans, HR@10 valid"


def make_run(folder, *, codes=256, rate=0.25, hit=None, written="2026-01-02T03:04:05+00:00"):
    """A folder of results with figures, as the rules leave them."""
    folder.mkdir(parents=True, exist_ok=True)
    side = {"collision_rate": rate, "relative_loss": 0.125}
    json_report.write(
        folder / "quality.json",
        {"items": 1234, "before": side, "after": side | {"collision_rate": 0.0}},
    )
    settings = {"rqkmeans": {"codebook_sizes": [codes] * 3}, "run": {"seed": 42}}
    git = {"commit": "0123456789abcdef", "dirty": True}
    json_report.write(
        folder / "run.json",
        {"written": written, "git": git, "seconds": 12.5, "settings": settings},
    )
    if hit is not None:
        entry = {"value": hit, "low": hit - 0.01, "high": hit + 0.01}
        methods = {"generative": {"HR@10": entry, "NDCG@10": entry}, "popularity": {"HR@10": entry}}
        write_text(
            folder / "generative/rqkmeans/metrics.json",
            json.dumps({"valid": {"methods": methods}, "test": {"asked": 0}}),
        )
    return folder


def test_figures_and_settings_of_a_run(tmp_path):
    run = runs.describe(make_run(tmp_path / "a", hit=0.1))
    assert (run.items, run.seconds, run.commit) == (1234, 12.5, "0123456789ab+")
    assert run.figures["collision rate, quantized"] == (0.25, None, None)
    assert run.figures[FULL] == pytest.approx((0.1, 0.09, 0.11))
    assert not [name for name in run.figures if "test" in name]  # no methods were measured there
    assert run.settings == {"rqkmeans.codebook_sizes": [256, 256, 256], "run.seed": 42}


def test_settings_that_differ_are_listed_and_no_others(tmp_path):
    several = [runs.describe(make_run(tmp_path / str(codes), codes=codes)) for codes in (64, 256)]
    assert runs.differing(several) == {"rqkmeans.codebook_sizes": [[64] * 3, [256] * 3]}
    assert runs.differing([several[0], several[0]]) == {}


def test_a_version_without_settings_hides_no_difference(tmp_path):
    """Versions state no settings: they neither differ nor make other settings look the same."""
    make_run(tmp_path / "version")
    (tmp_path / "version/run.json").unlink()
    several = [
        runs.describe(tmp_path / "version"),
        *(runs.describe(make_run(tmp_path / str(codes), codes=codes)) for codes in (64, 256)),
    ]
    assert runs.differing(several) == {"rqkmeans.codebook_sizes": [None, [64] * 3, [256] * 3]}
    assert runs.differing(several[:2]) == {}


def test_what_is_described_again_is_one_run(tmp_path):
    folder, path = tmp_path / "results", tmp_path / "results/runs.jsonl"
    make_run(folder)
    assert len(runs.remember(folder, path)) == 1
    make_run(folder, written="2026-01-02T09:00:00+00:00")
    (again,) = runs.remember(folder, path)
    assert again.written.startswith("2026-01-02T09")
    make_run(folder, rate=0.5)
    make_run(folder, codes=64)
    assert len(runs.remember(folder, path)) == 2
    make_run(folder)
    first, second, third = runs.remember(folder, path)
    assert (first.settings, first.figures) == (third.settings, third.figures)
    assert second.settings != third.settings


def test_the_history_reads_back_and_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "KEPT", 3)
    folder, path = tmp_path / "r", tmp_path / "r/runs.jsonl"
    for codes in (2, 4, 8, 16, 32):
        written = runs.remember(make_run(folder, codes=codes, hit=0.5), path)
    assert runs.history(path) == written
    kept = [run.settings["rqkmeans.codebook_sizes"][0] for run in written]
    assert kept == [8, 16, 32]


@pytest.mark.parametrize("separator", ["\x85", "\u2028", "\r\n"])
def test_a_setting_may_have_any_line_separator(separator, tmp_path):
    folder, path = make_run(tmp_path / "r"), tmp_path / "r/runs.jsonl"
    run = json_report.read(folder / "run.json")
    prompt = f"first{separator}second"
    json_report.write(folder / "run.json", run | {"settings": {"embedding": {"prompt": prompt}}})
    runs.remember(folder, path)
    assert [one.settings["embedding.prompt"] for one in runs.history(path)] == [prompt]


def test_a_history_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "runs.jsonl"
    path.write_bytes(b"\xff\xfe\n")
    with pytest.raises(SidmillError, match=r"runs\.jsonl: line 1 is not a run: delete the file"):
        runs.history(path)


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"figures": {"a": {"worth": 1}}}', '"x"'])
def test_a_damaged_history_is_named_by_line(line, tmp_path):
    folder, path = make_run(tmp_path / "r"), tmp_path / "r/runs.jsonl"
    runs.remember(folder, path)
    write_text(path, path.read_text(encoding="utf-8") + line + "\n")
    with pytest.raises(SidmillError, match=r"runs\.jsonl: line 2 is not a run: delete the file"):
        runs.remember(folder, path)
    path.unlink()  # the remedy of the message
    assert len(runs.remember(folder, path)) == 1


def test_results_changed_since_the_last_description_are_a_run_of_their_own(tmp_path):
    folder, path = make_run(tmp_path / "r"), tmp_path / "r/runs.jsonl"
    runs.remember(folder, path)
    assert len(runs.of_folder(folder, 10)) == 1
    make_run(folder, rate=0.75)
    assert [
        run.figures["collision rate, quantized"].value for run in runs.of_folder(folder, 10)
    ] == [0.25, 0.75]
    assert len(runs.of_folder(folder, 1)) == 1


def test_folders_of_runs_are_found_and_others_are_refused(tmp_path):
    make_run(tmp_path / "runs/b"), make_run(tmp_path / "runs/a"), (tmp_path / "runs/empty").mkdir()
    make_run(tmp_path / "runs/.1.partial")
    assert [path.name for path in runs.find([tmp_path / "runs", tmp_path / "runs/b"])] == [
        "a",
        "b",
        "b",
    ]
    for folder in (tmp_path / "runs/empty", tmp_path / "absent"):
        with pytest.raises(SidmillError, match="neither a run nor a folder of runs: name a folder"):
            runs.find([folder])


@pytest.mark.parametrize("content", ['{"items": 3}', '{"items": 3, "before": [], "after": {}}'])
def test_figures_of_another_form_are_refused(content, tmp_path):
    write_text(make_run(tmp_path / "r") / "quality.json", content)
    with pytest.raises(SidmillError, match=r"quality.json or a metrics.json has another form"):
        runs.describe(tmp_path / "r")


def test_versions_are_in_the_order_of_their_numbers(tmp_path):
    for version in ("10", "9", "2"):
        make_run(tmp_path / version)
    assert [path.name for path in runs.find([tmp_path])] == ["2", "9", "10"]


def test_the_command_prints_the_table_json_and_a_plot(tmp_path):
    for codes in (64, 256):
        make_run(tmp_path / f"runs/{codes}", codes=codes, hit=codes / 1000)
    words = ["runs", str(tmp_path / "runs"), "--plot", str(tmp_path / "runs.svg")]
    shown = CliRunner().invoke(commands, words, catch_exceptions=False).output
    assert "0.0640 ±0.0100" in shown
    assert "0.2560 ±0.0100" in shown
    assert "rqkmeans.codebook_sizes" in shown
    assert "run.seed" not in shown
    told = json.loads(CliRunner().invoke(commands, [*words, "--json"]).output)
    assert [run["figures"][FULL]["value"] for run in told["runs"]] == [0.064, 0.256]
    assert list(told["differing"]) == ["rqkmeans.codebook_sizes"]
    assert "<svg" in (tmp_path / "runs.svg").read_text(encoding="utf-8")


def test_one_folder_shows_its_history_several_their_latest(tmp_path):
    for name in ("a", "b"):
        for codes in (64, 128, 256):
            folder = make_run(tmp_path / name, codes=codes)
            runs.remember(folder, folder / "runs.jsonl")

    def shown(*words):
        done = CliRunner().invoke(commands, ["runs", *words, "--json"], catch_exceptions=False)
        return len(json.loads(done.output)["runs"])

    assert shown(str(tmp_path / "a")) == 3
    assert shown(str(tmp_path)) == 2
    assert shown(str(tmp_path), "--last", "2") == 4


def test_the_page_shows_the_latest_ten_and_what_changed(tmp_path):
    folder, path = tmp_path / "r", tmp_path / "r/runs.jsonl"
    for codes in range(12):
        known = runs.remember(make_run(folder, codes=codes, hit=0.1), path)
    page = tmp_path / "runs.html"
    runs.write_page(page, TEMPLATE, known, title="<b>shop</b>", last=10)
    text = page.read_text(encoding="utf-8")
    assert text.count('scope="row"') == 10
    assert "&lt;b&gt;shop&lt;/b&gt;" in text
    assert "<b>" not in text
    assert "[1, 1, 1] → [2, 2, 2]" in text
    assert "[0, 0, 0] → [1, 1, 1]" not in text
    assert text.index("[11, 11, 11]") < text.index("[3, 3, 3]")
    assert "http:" not in text
    assert "https:" not in text


def test_a_plot_without_figures_says_what_to_run(tmp_path):
    write_text(tmp_path / "pid2sid.parquet", "")
    with pytest.raises(SidmillError, match="no figures to plot: run snakemake"):
        runs_plot.draw([runs.describe(tmp_path)], tmp_path / "x.svg")
