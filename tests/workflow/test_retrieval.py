"""Retrieval from end to end: Cranfield by LSA, and the DuReader sample through every training."""

import json

import pyarrow.parquet as pq
import pytest
import tiny_qwen3
import tiny_rerankers

pytestmark = pytest.mark.workflow


@pytest.mark.long
def test_cranfield_by_lsa(workflow, real_data):
    """The figures that the data set is handed out with, and both baselines beside them."""
    folder = real_data / "cranfield"
    names = {"corpus": "corpus.jsonl", "queries": "queries.jsonl", "qrels": "qrels.tsv"}
    paths = {key: str(folder / name) for key, name in names.items()}
    paths["shards"] = 3
    training = {"form": "qrels", "dual": paths["qrels"], "queries": paths["queries"]}
    training["on_bad_rows"] = "reject"
    settings = f"retrieval: {json.dumps(paths)}\ntraining: {json.dumps(training)}\n"
    name = workflow.overlay("overlay.yaml", settings)
    targets = ("results/plots/retrieval.svg", "results/retrieval/res.topk")
    learned = "results/training/dual.parquet"
    workflow.run("--configfile", "tests/configs/cranfield.yaml", name, "--", *targets, learned)
    assert pq.read_table(workflow.folder / learned).num_rows == 1611  # one answer has no text
    figures = json.loads(workflow.bytes("retrieval/metrics.json"))
    dual = figures["runs"]["dual"]
    assert figures["queries"] == 225
    assert dual["MRR@10"] == pytest.approx(0.543, abs=0.01)
    assert dual["Recall@1"] == pytest.approx(0.356, abs=0.01)
    assert dual["Recall@50"] == pytest.approx(0.951, abs=0.01)
    assert set(figures["runs"]) == {"dual", "bm25", "fused"}
    assert set(figures["differences"]) == {"bm25 - dual", "fused - dual"}
    rejects = pq.read_table(workflow.folder / "results/corpus/rejects.parquet")
    assert rejects.num_rows == 2
    assert pq.read_table(workflow.folder / "results/corpus/text.parquet").num_rows == 1398
    answers = json.loads(workflow.bytes("retrieval/dual_res.json"))
    assert {len(set(pids)) for pids in answers.values()} == {50}
    assert workflow.bytes("retrieval/res.topk") == workflow.bytes("retrieval/dual/res.topk")
    assert len(pq.read_table(workflow.folder / "results/retrieval/per_query.parquet")) == 3 * 225
    # an index of faiss takes the place of the exact search
    index = workflow.overlay("index.yaml", "retrieval: {index: hnsw}\n")
    files = ("tests/configs/cranfield.yaml", name, index)
    targets = ("results/retrieval/index.json", "results/retrieval/dual/res.topk")
    workflow.run("--configfile", *files, "--", *targets)
    assert json.loads(workflow.bytes("retrieval/index.json"))["recall"] > 0.95


def test_items_are_answers_with_their_sids(workflow):
    workflow.overlay("queries.jsonl", '{"_id": "q1", "text": "steel bolt"}\n')
    text = "retrieval: {corpus: items, queries: queries.jsonl, top_k: 5}\n"
    name = workflow.overlay("overlay.yaml", text)
    target = "results/retrieval/answers.parquet"
    workflow.run("--configfile", "tests/configs/tiny.yaml", name, "--", target)
    answers = pq.read_table(workflow.folder / target).to_pylist()
    assert [row["rank"] for row in answers] == [1, 2, 3, 4, 5]
    sids = pq.read_table(workflow.folder / "results/pid2sid.parquet").to_pylist()
    known = {str(row["pid"]): row["sid"] for row in sids}
    assert all(row["sid"] == known[row["pid"]] for row in answers)


@pytest.fixture
def dureader(workflow, real_data):
    """The training file as a corpus: its passages, its queries, its answers; and tiny models."""
    source = real_data / "dureader-sample"
    lines = (source / "dual.train.tsv").read_text(encoding="utf-8").splitlines()
    queries, passages, answers = {}, {}, set()
    for line in lines:
        query, _, positive, _, negative, _ = line.split("\t")
        queries.setdefault(query, len(queries))
        for text in (positive, negative):
            passages.setdefault(text, len(passages))
        answers.add((queries[query], passages[positive]))
    workflow.overlay("corpus.tsv", "".join(f"-\t{text}\n" for text in passages))
    workflow.overlay("queries.tsv", "".join(f"{query}\t-\t-\t0\n" for query in queries))
    ids = json.dumps({str(row): f"p{row}" for row in range(len(passages))})
    workflow.overlay("passage2id.map.json", ids)
    workflow.overlay("q2qid.json", json.dumps({query: f"q{row}" for query, row in queries.items()}))
    judged = {}
    for query, passage in sorted(answers):
        judged.setdefault(f"q{query}", []).append({"paragraph_id": f"p{passage}"})
    entries = ({"question_id": qid, "answer_paragraphs": found} for qid, found in judged.items())
    workflow.overlay("dev.json", "".join(json.dumps(entry) + "\n" for entry in entries))
    tiny_qwen3.build(workflow.folder / "qwen3")
    tiny_rerankers.bert(workflow.folder / "bert", [*queries, *passages])
    train = {kind: str(source / f"{kind}.train.tsv") for kind in ("dual", "cross")}
    workflow.overlay("dureader.yaml", f"""
retrieval: {{corpus: corpus.tsv, corpus_ids: passage2id.map.json, queries: queries.tsv,
  query_ids: q2qid.json, qrels: dev.json, top_k: 50, query_prompt: "问:"}}
training: {json.dumps(train)}
embedding: {{backend: sentence_transformers, model: qwen3, dim: null, max_length: 96, shards: 1}}
dual: {{model: qwen3, dev_share: 0, epochs: 10, batch_size: 16, learning_rate: 0.003,
  max_length: 96, evaluations: 2}}
mining: {{depth: 50, margin: 2.0}}
cross: {{source: mined, model: bert, dev_share: 0, epochs: 1, learning_rate: 0.001,
  max_length: 128}}
rerank: {{depth: 10, shards: 2, max_length: 128}}
retrieval_metrics: {{runs: [dual, bm25, cross]}}
""")  # fmt: skip
    return workflow


@pytest.mark.long
def test_the_dureader_sample_through_every_training(dureader):
    """Training lifts MRR@10 on its own queries; mining, the second round and reranking run."""
    before = ("results/retrieval/metrics.json", "results/training/cross.parquet")
    one = dureader.overlay("one.yaml", "retrieval_metrics: {runs: [dual]}\n")
    dureader.run("--configfile", "dureader.yaml", one, "--", *before)
    untrained = json.loads(dureader.bytes("retrieval/metrics.json"))["runs"]["dual"]["MRR@10"]
    assert pq.read_table(dureader.folder / "results/training/cross.parquet").num_rows == 100
    trained = dureader.overlay("two.yaml", "embedding: {model: results/dual/second/model}\n")
    dureader.run("--configfile", "dureader.yaml", trained, "--", "results/plots/retrieval.svg")
    runs = json.loads(dureader.bytes("retrieval/metrics.json"))["runs"]
    assert runs["dual"]["MRR@10"] > untrained + 0.2
    assert runs["dual"]["Recall@50"] == runs["cross"]["Recall@50"]
    for run, kind in (("dual", "results/dual/second"), ("cross", "results/cross")):
        answers = json.loads(dureader.bytes(f"retrieval/{run}_res.json"))
        assert {len(set(pids)) for pids in answers.values()} == {50}
        assert (dureader.folder / kind / "model/model.safetensors").exists()
    mined = pq.read_table(dureader.folder / "results/mining/triples.parquet").to_pylist()
    known = {(row["query"], row["positive"]) for row in mined}
    assert not [row for row in mined if (row["query"], row["negative"]) in known]
    assert not list((dureader.folder / "results").rglob("*.state"))
    files = ("dureader.yaml", trained)
    planned = dureader.planned("--configfile", *files, "--", "results/plots/retrieval.svg")
    assert planned == set()
