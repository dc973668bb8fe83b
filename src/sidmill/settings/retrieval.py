"""Settings of retrieval."""

from typing import Literal

from sidmill.settings.base import machine, science, section


@section(
    "retrieval",
    ("search over passages, or over the items; not part of the default target: docs/retrieval.md"),
)
class Retrieval:
    """Dense retrieval over passages or items."""

    corpus: str | None = science(
        None,
        "items | passages: a BEIR corpus.jsonl or RocketQA columns; a file, a folder or a glob",
    )
    corpus_ids: str | None = science(
        None, "RocketQA: passage2id.map.json; null: line numbers from 0"
    )
    queries: str | None = science(None, "a BEIR queries.jsonl or RocketQA columns")
    query_ids: str | None = science(None, "RocketQA: q2qid.dev.json; null: line numbers from 0")
    qrels: str | None = science(
        None, "judgements: BEIR qrels.tsv, TREC, or DuReader-retrieval dev.json"
    )
    form: Literal["auto", "rocketqa", "msmarco"] = science(
        "auto",
        (
            "form of tab-separated corpus and queries. auto: detected by the first lines | "
            "rocketqa (without ids) | msmarco (ids first)"
        ),
    )
    on_bad_rows: Literal["error", "reject"] = science(
        "error", "error: stop at the first bad line | reject: list bad lines in rejects.parquet"
    )
    max_reject_share: float = science(
        0.25,
        "with reject: stop if more than this share of the lines has the same fault",
        minimum=0,
        maximum=1,
    )
    query_prompt: str = science(
        "",
        'text put before every query; Qwen3-Embedding: "Instruct: {task}\\nQuery:"',
        may_be_empty=True,
    )
    index: str = science(
        "flat", "flat (exact) | ivf_flat | hnsw | ivfpq | opq | a factory string of faiss"
    )
    shards: int = science(
        1,
        "jobs that search at the same time, for index: flat; no number changes the result",
        minimum=1,
        maximum=99999,
    )
    top_k: int = science(50, "passages per query", minimum=1)
    exclude_own: bool = science(
        False,
        (
            "true: leave out the passage that has the id of the query (ArguAna, Quora, items "
            "similar to an item)"
        ),
    )
    search_batch: int = machine(
        1000, "exact search: queries at a time; halve it when memory runs out", minimum=1
    )
    device: str = machine(
        "auto", "exact search: auto | cpu | cuda", pattern="^(auto|cpu|cuda(:[0-9]+)?)$"
    )
    memory_mb: int = machine(
        512, "exact search: MiB for the blocks of passages that are read", minimum=16
    )
    answer: Literal["dual", "bm25", "fused", "cross"] = science(
        "dual", "the run that becomes res.topk: dual | bm25 | fused | cross"
    )
    topk_names: Literal["ids", "dureader"] = science(
        "ids",
        (
            "columns 1 and 2 of res.topk: ids | dureader (query text and line number, for "
            "DuReader-retrieval's converter)"
        ),
    )


@section("faiss", "for every retrieval.index except flat")
class Faiss:
    """Approximate search with faiss."""

    lists: int | None = science(None, "cells of an inverted file; null: 4 sqrt(N)", minimum=1)
    code_bytes: int = science(
        32, "ivfpq, opq: bytes per passage; a divisor of the dimensions", minimum=1
    )
    links: int = science(32, "hnsw: neighbours per passage; memory grows with it", minimum=2)
    ef_construction: int = science(
        100, "hnsw: candidates while the index is built; larger: slower, better results", minimum=1
    )
    train_sample: int = science(200000, "passages that the index is trained on, at most", minimum=1)
    repeatable: bool = science(
        True,
        (
            "hnsw, opq: true: build on one thread, the same bytes each time | false: build "
            "on all threads"
        ),
    )
    nprobe: int = science(
        32, "cells that are searched per query; larger: slower, better results", minimum=1
    )
    ef_search: int = science(
        128, "hnsw: candidates in a search; larger: slower, better results", minimum=1
    )
    candidates: int = science(
        200, "passages that the index proposes; exact scores choose top_k of them", minimum=1
    )
    measured_queries: int = science(
        1000, "queries that measure_index compares with exact search, at most", minimum=1
    )


@section("bm25", "the run bm25: a baseline without a model")
class Bm25:
    """The BM25 baseline."""

    k1: float = science(
        1.5, "how much repetitions of a word count; 0: a word counts once", minimum=0
    )
    b: float = science(
        0.75, "how much long passages are penalised, from 0 (not at all) to 1", minimum=0, maximum=1
    )


@section("fusion", "the run fused: reciprocal-rank fusion")
class Fusion:
    """Reciprocal-rank fusion of runs."""

    runs: list[Literal["dual", "bm25"]] = science(
        ["dual", "bm25"], "runs that are fused", unique=True
    )
    constant: float = science(60, "larger: the first ranks count less", minimum=0)


@section("training", "what the encoders learn from")
class Training:
    """Training data of the encoders."""

    form: Literal["rocketqa", "qrels"] = science(
        "rocketqa",
        (
            "rocketqa: lines with the texts | qrels: judgements (BEIR, TREC, dev.json) of "
            "retrieval.corpus"
        ),
    )
    dual: str | None = science(
        None,
        (
            "rocketqa: dual.train.tsv (query, title, positive, title, negative) | qrels: "
            "qrels/train.tsv"
        ),
    )
    cross: str | None = science(
        None,
        (
            "rocketqa: cross.train.tsv (query, title, passage, label) | qrels: judgements, "
            "some of which must be 0"
        ),
    )
    queries: str | None = science(
        None,
        (
            "qrels: queries of the judgements, as BEIR's queries.jsonl; null: those of "
            "retrieval.queries"
        ),
    )
    on_bad_rows: Literal["error", "reject"] = science(
        "error",
        ("error: stop at the first bad line | reject: list bad lines in a file next to the result"),
    )
    max_reject_share: float = science(
        0.25,
        "with reject: stop if more than this share of the lines has the same fault",
        minimum=0,
        maximum=1,
    )


@section(
    "dual",
    ("trains results/dual/first/model; to use it, set embedding.model: results/dual/first/model"),
)
class Dual:
    """Training of a dual encoder."""

    model: str | None = science(None, "hub id or folder of an encoder to start from")
    revision: str | None = science(None, "commit or tag of the hub model")
    pooling: Literal["cls", "mean", "lasttoken"] | None = science(
        None,
        "for a model whose files name no pooling: cls (BERT, ERNIE) | mean | lasttoken (Qwen3)",
    )
    max_rows: int | None = science(
        None, "train on this number of first rows; 64 is a trial on a CPU; null: all", minimum=1
    )
    dev_share: float = science(
        0.01,
        ("share of the queries held out to choose the best checkpoint; 0: use the last checkpoint"),
        minimum=0,
        below=1,
    )
    dev_pool: int = science(
        10000, "passages of other queries that the held-out queries are searched among", minimum=1
    )
    epochs: float = science(3, "passes over the rows", above=0)
    batch_size: int = science(
        128,
        (
            "rows per step; each query is compared with the passages of all of them, so more "
            "is better"
        ),
        minimum=1,
    )
    mini_batch: int | None = science(
        None, "rows on the device at a time, by gradient caching; null: the whole batch", minimum=1
    )
    learning_rate: float = science(
        0.00002, "peak of the learning rate; 2e-5 suits BERT, 1e-5 or less larger models", above=0
    )
    warmup: float = science(
        0.1, "share of the steps before the peak of the learning rate", minimum=0, below=1
    )
    temperature: float = science(0.05, "similarities are divided by this number", above=0)
    max_length: int = science(384, "tokens after which a text is cut", minimum=1)
    dtype: Literal["float32", "bfloat16"] = science(
        "float32", "float32 | bfloat16 (on GPUs), of the arithmetic"
    )
    evaluations: int = science(
        10,
        "number of evaluations; each writes a checkpoint from which training can resume",
        minimum=1,
    )
    device: str = machine("auto", "auto | cpu | cuda", pattern="^(auto|cpu|cuda(:[0-9]+)?)$")


@section("mining", "hard negatives of results/dual/first/model, for results/dual/second/model")
class Mining:
    """Hard negatives."""

    pool: Literal["training", "corpus"] = science(
        "training",
        (
            "passages that negatives come from: training (those of the training data) | "
            "corpus (and all others)"
        ),
    )
    depth: int = science(100, "nearest passages of a query that are considered", minimum=1)
    skip: int = science(0, "number of nearest passages that are skipped", minimum=0)
    margin: float = science(
        0.95, "a negative scores below this share of the answer's score", above=0
    )
    negatives: int = science(4, "per query, at most", minimum=1)


@section("cross", "trains results/cross/model")
class Cross:
    """Training of a cross encoder."""

    source: Literal["file", "mined"] = science(
        "file", "training data: file (training.cross) | mined (the mined negatives)"
    )
    model: str | None = science(
        None, "hub id or folder to start from: BERT, ERNIE, or a Qwen3-Reranker"
    )
    revision: str | None = science(None, "commit or tag of the hub model")
    max_rows: int | None = science(None, "train on this number of first rows; null: all", minimum=1)
    dev_share: float = science(
        0.01,
        ("share of the queries held out to choose the best checkpoint; 0: use the last checkpoint"),
        minimum=0,
        below=1,
    )
    epochs: float = science(2, "passes over the rows", above=0)
    batch_size: int = science(32, "pairs per step", minimum=1)
    learning_rate: float = science(0.00001, "peak of the learning rate", above=0)
    warmup: float = science(
        0.1, "share of the steps before the peak of the learning rate", minimum=0, below=1
    )
    max_length: int = science(512, "tokens per pair after which the passage is cut", minimum=1)
    dtype: Literal["float32", "bfloat16"] = science(
        "float32", "float32 | bfloat16 (on GPUs), of the arithmetic"
    )
    evaluations: int = science(
        5,
        "number of evaluations; each writes a checkpoint from which training can resume",
        minimum=1,
    )
    device: str = machine("auto", "auto | cpu | cuda", pattern="^(auto|cpu|cuda(:[0-9]+)?)$")


@section("rerank", "the run cross")
class Rerank:
    """Reranking by a cross encoder."""

    run: Literal["dual", "bm25", "fused"] = science(
        "dual", "the run that is reranked: dual | bm25 | fused"
    )
    shards: int = science(
        1,
        (
            "jobs that rerank at the same time; finished ones are kept after a kill; no number "
            "changes the result"
        ),
        minimum=1,
        maximum=99999,
    )
    model: str = science("results/cross/model", "hub id or folder of a cross encoder")
    revision: str | None = science(None, "commit or tag of the hub model")
    instruction: str | None = science(
        None,
        "Qwen3-Reranker: the purpose of a passage; null: the instruction of the model",
        may_be_empty=True,
    )
    depth: int = science(50, "passages of each query that are reranked", minimum=1)
    batch_size: int = science(64, "pairs per batch; halve it when memory runs out", minimum=1)
    max_length: int = science(512, "tokens per pair after which the passage is cut", minimum=1)
    dtype: Literal["float32", "bfloat16"] = science(
        "float32", "float32 | bfloat16 (on GPUs), of the weights"
    )
    device: str = machine("auto", "auto | cpu | cuda", pattern="^(auto|cpu|cuda(:[0-9]+)?)$")


@section("retrieval_metrics", "results/retrieval/metrics.json")
class RetrievalMetrics:
    """Metrics of the runs."""

    runs: list[Literal["dual", "bm25", "fused", "cross"]] = science(
        ["dual"],
        "measured and compared: dual, bm25, fused, cross; the first is the baseline",
        unique=True,
    )
    resamples: int = science(10000, "resamples of the paired bootstrap", minimum=100)
