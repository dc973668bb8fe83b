"""Reranking and the training of both encoders on the device."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from gpu_device import DEVICE, gpu

from sidmill.formats import item_text, triples
from sidmill.formats.run_files import Run
from sidmill.settings.retrieval import Cross, Dual, Rerank

pytestmark = gpu

WORDS = ["bolt", "glove", "caliper", "drill", "pump"]
NAMES = [f"{kind} {word}" for kind in ("red", "blue", "long", "short") for word in WORDS]
COMMON = {
    "dev_share": 0.3, "batch_size": 8, "learning_rate": 2e-3, "evaluations": 2, "device": DEVICE,
}  # fmt: skip


def passage(name):
    kind, word = name.split()
    return f"Title\nthis {word} is sold in {kind}"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    import tiny_rerankers

    folder = tmp_path_factory.mktemp("retrieval")
    rows = [(n, passage(n), passage(NAMES[(i + 7) % len(NAMES)])) for i, n in enumerate(NAMES)]
    triples.write(folder / "triples.parquet", triples.TRIPLES, rows)
    pairs = [(query, one, label) for query, yes, no in rows for one, label in ((yes, 1), (no, 0))]
    triples.write(folder / "pairs.parquet", triples.PAIRS, pairs)
    texts = [passage(name) for name in NAMES]
    for name, column in (("corpus", texts), ("queries", NAMES)):
        table = pa.table({"pid": range(len(column)), "text": column})
        table = table.cast(item_text.schema(pa.int64()))
        item_text.write(folder / name, pa.int64(), [table])
    tiny_rerankers.bert(folder / "bert", NAMES + texts)
    tiny_rerankers.qwen3_reranker(folder / "qwen3")
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_reranking_orders_as_the_cpu_does(files, dtype):
    from sidmill.retrieval import rerank

    n_queries = len(NAMES)
    pids = [[str((n + shift) % n_queries) for shift in (7, 3, 0, 5)] for n in range(n_queries)]
    scores = np.tile(np.arange(4, 0, -1, np.float32), (n_queries, 1))
    run = Run([str(n) for n in range(n_queries)], pids, scores)

    def reranked(device, dtype):
        settings = Rerank(
            model=str(files / "qwen3"), depth=4, batch_size=8, max_length=400, device=device,
            dtype=dtype,
        )  # fmt: skip
        found = rerank.rerank_shard(run, files / "corpus", files / "queries", 0, 1, settings)
        return np.take_along_axis(found.scores, np.argsort(found.rows, axis=1), axis=1)

    mine, theirs = reranked(DEVICE, dtype), reranked("cpu", "float32")
    if dtype == "float32":
        np.testing.assert_allclose(mine, theirs, atol=1e-3)
    else:
        assert np.abs(mine - theirs).mean() < 0.1 * theirs.std() + 0.05


def test_an_encoder_trains_on_the_device_that_is_named(files, tmp_path, monkeypatch):
    pytest.importorskip("datasets", reason="needs the wheels datasets, dill, multiprocess")
    if DEVICE == "cpu" or torch.cuda.device_count() < 2:
        pytest.skip("needs two devices, on CUDA alone")
    from sidmill.retrieval import cross, training
    from sidmill.retrieval.training import Folders

    seen = []
    run = training.run
    monkeypatch.setattr(
        training, "run", lambda trainer, state: seen.append(trainer.args) or run(trainer, state)
    )
    for name in ("cuda:1", "cuda:0"):
        folder = tmp_path / name
        settings = Cross(
            **{**COMMON, "device": name}, model=str(files / "bert"), epochs=1, max_length=64
        )
        figures = cross.train(
            files / "pairs.parquet", Folders(folder, tmp_path / "state"), settings, 1, ""
        )
        assert torch.cuda.current_device() == int(name[-1])
        assert (seen[-1].n_gpu, str(seen[-1].device)) == (1, name)
        assert figures["steps"] == -(-figures["rows"] // COMMON["batch_size"])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_dual_encoder_trains(files, tmp_path, dtype):
    pytest.importorskip("datasets", reason="needs the wheels datasets, dill, multiprocess")
    from sidmill.retrieval import dual
    from sidmill.retrieval.training import Folders

    settings = Dual(
        **COMMON, model=str(files / "bert"), pooling="cls", dev_pool=100, epochs=4, max_length=64,
        dtype=dtype,
    )  # fmt: skip
    folders = Folders(tmp_path / "model", tmp_path / "state")
    figures = dual.train(files / "triples.parquet", folders, settings, dual.Prompts(), 1, "")
    assert (tmp_path / "model/model.safetensors").exists()
    assert figures["steps"] > 4
    measured = [value for name, value in figures.items() if name.endswith("_after")]
    assert measured
    assert np.isfinite(measured).all()


def test_a_cross_encoder_trains(files, tmp_path):
    pytest.importorskip("datasets", reason="needs the wheels datasets, dill, multiprocess")
    from sidmill.retrieval import cross
    from sidmill.retrieval.training import Folders

    settings = Cross(**COMMON, model=str(files / "bert"), epochs=4, max_length=64)
    folders = Folders(tmp_path / "model", tmp_path / "state")
    figures = cross.train(files / "pairs.parquet", folders, settings, 1, "")
    assert 0 <= figures["dev_average_precision_after"] <= 1
    assert (tmp_path / "model/model.safetensors").exists()
