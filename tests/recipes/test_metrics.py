"""docs/recipes/metrics.md: its lines give our figures in five libraries, the obvious ones do not.

Skipped without the libraries: ``make recipes`` installs them.
"""

import builtins
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from recommend_data import catalogue, chains, fit
from sklearn.metrics import ndcg_score

from sidmill.formats import code_files, qrels, run_files
from sidmill.interactions.read import read
from sidmill.recommend import checkpoint, evaluate, infer, metrics, rank, topk
from sidmill.retrieval import measure
from sidmill.settings.interactions import Interactions
from sidmill.settings.recommend import RecommenderEvaluation, RecommenderTopk
from sidmill.settings.retrieval import RetrievalMetrics

for package in ("rectools", "cornac", "torch_rechub", "beir"):
    pytest.importorskip(package, reason="make recipes installs it")

PAGE = Path(__file__).parents[2] / "docs/recipes/metrics.md"
LIBRARIES = ("rectools", "cornac", "rechub", "by_ir_measures", "beir")
TEXT = PAGE.read_text(encoding="utf-8")
FROM_FILES, WITHOUT_TEST, SIDMILL, *OTHERS, EXAMPLE, RETRIEVAL = re.findall(
    r"```python\n(.*?)```", TEXT, re.DOTALL
)
# Rows of the table: the line, what it gives, what SIDMill gives.
OBVIOUS = re.findall(r"^\| `(.+?)` \| ([^|]+) \| ([\d.]+) \| [^|]+ \|$", TEXT, re.MULTILINE)
ROUNDED = 5e-5  # torch-rechub gives four decimals
pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries, about their own dependencies


def run_blocks(*blocks):
    names = {}
    for block in blocks:
        exec(block, names)
    return names


@pytest.fixture(scope="module")
def example():
    return run_blocks(SIDMILL, *OTHERS, EXAMPLE)


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_right_lines_give_our_figures(example, library):
    ours = example["sidmill"](example["answers"], example["targets"], 5)
    assert ours == pytest.approx({"HR": 0.6, "NDCG": 0.3861, "MRR": 0.3167}, abs=ROUNDED)
    found = example[library](example["answers"], example["targets"], 5)
    assert found == pytest.approx(ours, abs=ROUNDED)


def test_repeated_answers_are_those_that_the_page_says(example):
    ours = example["sidmill"](example["twice"], example["targets"], 5)
    assert ours == pytest.approx({"HR": 0.4, "NDCG": 0.2774, "MRR": 0.24}, abs=ROUNDED)
    dropped = {query: list(dict.fromkeys(items)) for query, items in example["twice"].items()}
    assert dropped == example["answers"]


@pytest.mark.parametrize(("line", "gives", "ours"), OBVIOUS)
def test_the_obvious_line_still_gives_another_figure(example, line, gives, ours):
    if gives.endswith("Error"):
        with pytest.raises(getattr(builtins, gives)):
            eval(line, example)
        return
    found = eval(line, example)
    if isinstance(found, str):
        assert found == gives
        found = float(found.split(": ")[1])
    else:
        assert found == pytest.approx(float(gives), abs=ROUNDED)
    assert abs(found - float(ours)) > 100 * ROUNDED


def test_every_library_has_an_obvious_line_that_is_wrong():
    for name in ("of_rectools", "of_cornac", "topk_metrics", "ir_measures", "EvaluateRetrieval"):
        assert any(line.startswith(name) for line, _, _ in OBVIOUS), name
    ours = {float(ours) for _, _, ours in OBVIOUS}
    assert ours <= {0.6, 0.3861, 0.3167, 0.4, 0.2774, 0.24, 0, 0.5, 1}


def test_the_functions_of_the_page_are_our_metrics(rng, example):
    places = np.array([0, 3, 4, 9, 40, 5, 0])
    answers = {f"q{row}": list(range(50)) for row in range(len(places))}
    targets = {f"q{row}": int(place) for row, place in enumerate(places)}
    ranks = rank.Ranks(np.arange(len(places)), places, np.zeros_like(places))
    for k in (1, 5, 10):
        found = example["sidmill"](answers, targets, k)
        assert found["HR"] == pytest.approx(metrics.mean(ranks, f"HR@{k}"))
        assert found["NDCG"] == pytest.approx(metrics.mean(ranks, f"NDCG@{k}"))
    assert example["sidmill"](answers, targets, 50)["MRR"] == pytest.approx(
        metrics.mean(ranks, "MRR")
    )


def test_scikit_learn_counts_equal_scores_by_expectation_as_we_do(rng):
    scores = rng.integers(0, 6, (20, 40))
    targets = rng.integers(0, 40, 20)
    own = scores[np.arange(20), targets][:, None]
    higher, equal = (scores > own).sum(axis=1), (scores == own).sum(axis=1) - 1
    ours = metrics.mean(rank.Ranks(np.arange(20), higher, equal), "NDCG@10")
    assert (equal > 3).any()
    assert ndcg_score(np.eye(40)[targets], scores, k=10) == pytest.approx(ours)


def lists_of(sequences, items, sids, model, **changes):
    """Write top-k lists of the histories of a file, where the page reads them."""
    folder = Path("results/recommender")
    folder.mkdir(parents=True, exist_ok=True)
    names = [str(folder / name) for name in ("items.parquet", "users.parquet", "embeddings.json")]
    files = infer.Files(folder, *names)
    infer.infer(sequences, items, model, files, "cpu")
    settings = RecommenderTopk(**{"k": 10} | changes)
    path = folder / "topk.parquet"
    topk.recommend(files.listing, sequences, files.item_ids, sids, path, settings)


def test_a_recommender_is_scored_alike_by_metrics_json_and_by_five_libraries(tmp_path, monkeypatch):
    """Lists of a log without its test part, by the lines of the page, are the figures of test."""
    monkeypatch.chdir(tmp_path)
    Path("results/interactions").mkdir(parents=True)
    items = catalogue()
    pq.write_table(pa.table({"pid": items.ids, "text": ["text"] * len(items.ids)}), "text.parquet")
    rows = [{"user_id": user, "item_ids": row} for user, row in enumerate(chains())]
    pq.write_table(pa.Table.from_pylist(rows), "log.parquet")
    whole = tmp_path / "results/interactions/sequences.parquet"
    read("text.parquet", whole, "rejects.parquet", Interactions(path="log.parquet"))
    model = tmp_path / "model.safetensors"
    sids = code_files.Codes(
        pa.chunked_array([items.ids]), np.arange(48, dtype=np.int32).reshape(24, 2), [48, 48]
    )

    # The figures of test.
    fitted, _ = fit(whole, items, max_epochs=6)
    checkpoint.save(model, fitted)
    settings = RecommenderEvaluation(n_resamples=0, device="cpu")
    named = {"codes": sids, "resolved": sids}
    figures = evaluate.evaluate(whole, items, model, named, settings, seed=0)
    ours = figures["test"]["methods"]["recommender"]

    # The log of a second run: the same training and valid parts, so the same model.
    run_blocks(WITHOUT_TEST)
    monkeypatch.chdir("without-test")
    overlay = yaml.safe_load(re.search(r"```yaml\n(.*?)```", TEXT, re.DOTALL)[1])
    cut = tmp_path / "cut.parquet"
    read("../text.parquet", cut, "rejects.parquet", Interactions(**overlay["interactions"]))
    again, _ = fit(cut, items, max_epochs=6)
    checkpoint.save(tmp_path / "again.safetensors", again)
    assert Path("../again.safetensors").read_bytes() == model.read_bytes()

    # Its lists.
    lists_of(cut, items, sids, tmp_path / "again.safetensors")
    made = run_blocks(FROM_FILES, SIDMILL, *OTHERS)
    for k in (5, 10):
        wanted = {"HR": ours[f"HR@{k}"]["value"], "NDCG": ours[f"NDCG@{k}"]["value"]}
        assert 0 < wanted["NDCG"] < wanted["HR"] < 1
        for library in ("sidmill", *LIBRARIES):
            found = made[library](made["answers"], made["targets"], k)
            assert {name: found[name] for name in wanted} == pytest.approx(wanted, abs=ROUNDED)

    # All items in each list: MRR.
    lists_of(cut, items, sids, model, k=24)
    made = run_blocks(FROM_FILES, SIDMILL)
    found = made["sidmill"](made["answers"], made["targets"], 24)
    assert found["MRR"] == pytest.approx(ours["MRR"]["value"])

    # The obvious way: lists that already know the test items.
    for mask_seen, is_too_high in ((False, True), (True, False)):
        lists_of(whole, items, sids, model, mask_seen=mask_seen)
        made = run_blocks(FROM_FILES, SIDMILL)
        found = made["sidmill"](made["answers"], made["targets"], 10)
        assert (found["HR"] > ours["HR@10"]["value"]) == is_too_high
        assert (found["HR"] == 0) == mask_seen


@pytest.fixture
def retrieval(tmp_path, monkeypatch):
    """A run with equal scores, a query without an answer and a query that the run lacks."""
    monkeypatch.chdir(tmp_path)
    Path("results/retrieval/dual").mkdir(parents=True)
    rng = np.random.default_rng(0)
    qids = [f"query {number}" for number in range(30)]  # white space: run.trec stays empty
    pids = [[str(pid) for pid in rng.permutation(60)[:50]] for _ in qids]
    scores = -np.sort(-rng.integers(0, 5, (30, 50)), axis=1).astype(np.float32)
    judged = [
        qrels.Judgement("", 0, qid, str(pid), int(label))
        for qid in [*qids[:25], "missing"]
        for pid, label in zip(rng.permutation(60)[:4], (1, 2, 0, 1), strict=True)
    ]
    judged.append(qrels.Judgement("", 0, qids[27], "3", 0))
    qrels.write("results/retrieval/qrels.parquet", judged)
    run = run_files.Run(qids, pids, scores)
    folder = Path("results/retrieval/dual")
    names = [str(folder / name) for name in ("res.topk", "run.trec", "dual_res.json")]
    run_files.write(*names, run, "dual")
    labels = qrels.read("results/retrieval/qrels.parquet")
    figures, _ = measure.measure({"dual": run}, labels, None, RetrievalMetrics(resamples=100), 0)
    return figures["runs"]["dual"]


def test_a_retrieval_run_is_scored_as_metrics_json_says(retrieval):
    made = run_blocks(FROM_FILES.splitlines()[0], *OTHERS, RETRIEVAL)
    found = {str(measure): value for measure, value in made["figures"].items()}
    assert found == pytest.approx(
        {
            "RR@10": retrieval["MRR@10"],
            "Success@1": retrieval["Recall@1"],
            "nDCG@10": retrieval["nDCG@10"],
            "AP": retrieval["MAP"],
        }
    )


@pytest.mark.parametrize(
    ("right", "obvious", "name"),
    [
        ("-int(rank)) for qid, pid, rank, _", "float(score)) for qid, pid, _, score", "RR@10"),
        ("Success @ 1", "R @ 1", "R@1"),
        (' if row["qid"] in with_answer', "", "AP"),
    ],
)
def test_the_obvious_ways_of_retrieval_still_change_the_figures(retrieval, right, obvious, name):
    assert right in RETRIEVAL
    block = RETRIEVAL.replace(right, obvious).replace("import AP,", "import AP, R,")
    made = run_blocks(FROM_FILES.splitlines()[0], *OTHERS, block)
    found = {str(measure): value for measure, value in made["figures"].items()}[name]
    ours = {"RR@10": "MRR@10", "R@1": "Recall@1", "AP": "MAP"}[name]
    assert found != pytest.approx(retrieval[ours], abs=1e-6)
