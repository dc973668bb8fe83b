"""The encoders learn, go on where they were cut short, and a reranker puts answers first."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tiny_qwen3
import tiny_rerankers

from sidmill.core.errors import SidmillError
from sidmill.formats import item_text, neighbour_lists, triples
from sidmill.formats.run_files import Run
from sidmill.settings.embedding import Embedding
from sidmill.settings.retrieval import Cross, Dual, Mining, Rerank, Retrieval, Training

pytestmark = pytest.mark.model

WORDS = ["bolt", "glove", "caliper", "drill", "pump", "valve", "lamp", "tape"]
KINDS = ["red", "blue", "long", "short", "small"]
DUAL = {
    "dev_share": 0.2, "dev_pool": 100, "epochs": 6, "batch_size": 8, "learning_rate": 2e-3,
    "max_length": 64, "evaluations": 3, "device": "cpu",
}  # fmt: skip
CROSS = {
    "dev_share": 0.2, "epochs": 6, "batch_size": 8, "learning_rate": 2e-3, "max_length": 400,
    "evaluations": 2, "device": "cpu",
}  # fmt: skip
RERANK = {"batch_size": 8, "max_length": 400, "device": "cpu"}
NAMES = [f"{kind} {word}" for kind in KINDS for word in WORDS]


def passage(name):
    kind, word = name.split()
    return f"Title\nthis {word} is sold in {kind}"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    rows = [
        (name, passage(name), passage(NAMES[(n + 7) % len(NAMES)])) for n, name in enumerate(NAMES)
    ]
    triples.write(folder / "triples.parquet", triples.TRIPLES, rows)
    pairs = [(query, one, label) for query, yes, no in rows for one, label in ((yes, 1), (no, 0))]
    triples.write(folder / "pairs.parquet", triples.PAIRS, pairs)
    tiny_rerankers.bert(folder / "bert", NAMES + [passage(name) for name in NAMES])
    tiny_qwen3.build(folder / "qwen3")
    tiny_rerankers.qwen3_reranker(folder / "qwen3-reranker")
    return folder


def train_dual(files, folder, model="bert", pooling="cls", seed=1, **changes):
    from sidmill.retrieval import dual
    from sidmill.retrieval.training import Folders

    return dual.train(
        files / "triples.parquet",
        Folders(folder / "model", folder / "state"),
        Dual(**{**DUAL, "model": str(files / model), "pooling": pooling, **changes}),
        dual.Prompts(),
        seed,
        "",
    )


def train_cross(pairs, folder, model, seed=1, **changes):
    from sidmill.retrieval import cross
    from sidmill.retrieval.training import Folders

    settings = Cross(**{**CROSS, "model": str(model), **changes})
    return cross.train(pairs, Folders(folder / "model", folder / "state"), settings, seed, "")


def reader_of(model, **changes):
    """A cross encoder that reranks."""
    from sidmill.retrieval import cross

    return cross.load(Rerank(model=str(model), **{**RERANK, "max_length": 64, **changes}))


def test_rows_without_a_negative_take_the_answer_of_another_query(files, tmp_path):
    from sidmill.retrieval import dual

    rows = [(name, passage(name), None if n % 3 else "?") for n, name in enumerate(NAMES)]
    rows.append((NAMES[0], passage(NAMES[1]), None))  # whose neighbours answer it, too
    shutil.copytree(files / "bert", tmp_path / "bert")
    triples.write(tmp_path / "triples.parquet", triples.TRIPLES, rows)
    table = next(iter(triples.read(tmp_path / "triples.parquet", triples.TRIPLES)))
    filled = dual.fill_negatives(table)["negative"].to_pylist()
    assert filled[0] == "?"
    assert filled[1] == passage(NAMES[2])
    assert filled[-1] == passage(NAMES[2])
    with pytest.raises(SidmillError, match="every passage answers it"):
        dual.fill_negatives(table.take([0, 40]))
    assert train_dual(tmp_path, tmp_path, epochs=1)["steps"] > 3


@pytest.mark.parametrize("n_rows", [1, 8, 9])
def test_a_last_batch_of_one_row_trains(files, tmp_path, n_rows):
    shutil.copytree(files / "bert", tmp_path / "bert")
    rows = [(name, passage(name), None) for name in NAMES[:n_rows]]
    triples.write(tmp_path / "triples.parquet", triples.TRIPLES, rows)
    settings = {"epochs": 1, "dev_share": 0.0}
    assert train_dual(tmp_path, tmp_path, **settings)["steps"] == -(-n_rows // 8)


def test_weights_that_are_not_finite_are_no_model(files, tmp_path):
    """The trainer goes on with a loss that is NaN, and does not log it."""
    with pytest.raises(
        SidmillError, match=r"NaN or infinite .* lower learning_rate \(it is 1e\+38"
    ):
        train_dual(files, tmp_path, learning_rate=1e38, warmup=0.0, epochs=1)
    assert not (tmp_path / "model").exists()
    train_dual(files, tmp_path, learning_rate=1e-3, epochs=1)
    assert (tmp_path / "model/model.safetensors").exists()


def test_judgements_of_cranfield_train_both_encoders_for_a_few_steps(tmp_path, real_data):
    """BEIR's files as they are: a dual encoder, mined negatives, and a cross encoder of them."""
    from sidmill.embed.backends import sentence_transformers
    from sidmill.formats.vector_store import VectorStore
    from sidmill.retrieval import (
        mine,
        read,
        training_data,
    )

    folder = real_data / "cranfield"
    corpus, queries, rejects = (tmp_path / name for name in ("corpus", "queries", "rejects"))
    reject = {"on_bad_rows": "reject", "max_reject_share": 1.0}
    settings = Retrieval(corpus=str(folder / "corpus.jsonl"), **reject)
    read.read_corpus(corpus, rejects, settings)
    read.read_queries(queries, rejects, Retrieval(queries=str(folder / "queries.jsonl")))
    some = (folder / "qrels.tsv").read_text().splitlines(keepends=True)[:200]
    (tmp_path / "train.tsv").write_text("".join(some))
    settings = Training(form="qrels", dual=str(tmp_path / "train.tsv"), **reject)
    out = tmp_path / "triples.parquet"
    files = out, rejects, corpus, queries
    assert training_data.read_training(*files, "dual", settings) > 190
    lines = [line for table in item_text.read(corpus) for line in table["text"].to_pylist()]
    tiny_rerankers.bert(tmp_path / "bert", lines)
    figures = train_dual(
        tmp_path, tmp_path, max_rows=96, epochs=1, batch_size=16, dev_share=0.4, evaluations=1
    )
    assert figures["steps"] >= 3
    mine.write_pool(out, None, tmp_path / "pool", tmp_path / "asked")
    own = {"model": str(tmp_path / "model"), "max_length": 64, "dtype": "float32", "device": "cpu"}
    encoder = sentence_transformers.load(Embedding(**own, dim=None))

    def embed(name):
        (found,) = [table["text"].to_pylist() for table in item_text.read(tmp_path / name)]
        return VectorStore(encoder.encode(found, lambda n: None), np.arange(len(found)), {})

    mined = mine.mine(
        mine.Texts(out, tmp_path / "pool", tmp_path / "asked"), embed("pool"), embed("asked"),
        tmp_path / "mined.parquet", tmp_path / "pairs.parquet",
        Mining(depth=30, margin=2.0, negatives=2), Retrieval(),
    )  # fmt: skip
    assert mined["negatives"] > 20
    shutil.move(tmp_path / "mined.parquet", out)
    again = {
        "max_rows": 96,
        "dev_share": 0.4,
        "seed": 5,
        "epochs": 1,
        "batch_size": 16,
        "evaluations": 1,
    }
    assert train_dual(tmp_path, tmp_path / "second", **again)["steps"] >= 3
    figures = train_cross(
        tmp_path / "pairs.parquet", tmp_path / "cross", tmp_path / "bert", max_length=128, **again
    )
    assert figures["steps"] >= 3


def weights(folder):
    return (folder / "model/model.safetensors").read_bytes()


@pytest.mark.parametrize(("model", "pooling", "mini"), [("bert", "cls", None), ("qwen3", None, 4)])
def test_a_dual_encoder_learns_and_loads_as_an_embedder(files, tmp_path, model, pooling, mini):
    from sidmill.embed.backends import sentence_transformers

    figures = train_dual(files, tmp_path, model, pooling, mini_batch=mini)
    assert figures["dev_mrr_10_after"] > figures["dev_mrr_10_before"] + 0.1
    assert json.loads((tmp_path / "model/training.json").read_text()) == figures
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
    own = {"model": str(tmp_path / "model"), "max_length": 64, "dtype": "float32", "device": "cpu"}
    encoder = sentence_transformers.load(Embedding(**own, dim=None))
    vectors = encoder.encode(NAMES[:3], lambda n: None)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)


def test_training_cut_short_goes_on_to_the_same_weights(files, tmp_path, monkeypatch):
    from transformers import Trainer

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train_dual(files, whole)
    train_dual(files, tmp_path / "again")
    assert weights(tmp_path / "again") == weights(whole)
    step = Trainer.training_step
    done = []

    def stop(self, *arguments, **others):
        done.append(None)
        if len(done) == 17:
            raise KeyboardInterrupt
        return step(self, *arguments, **others)

    monkeypatch.setattr(Trainer, "training_step", stop)
    with pytest.raises(KeyboardInterrupt):
        train_dual(files, cut)
    assert not (cut / "model").exists()
    assert list((cut / "state").glob("checkpoint-*"))
    before = len(done)
    train_dual(files, cut)
    total = json.loads((whole / "model/training.json").read_text())["steps"]
    assert 0 < len(done) - before < total
    assert weights(cut) == weights(whole)
    # checkpoints of another training are not gone on from
    train_dual(files, cut, seed=2)
    assert weights(cut) != weights(whole)


@pytest.mark.parametrize("kind", ["dual", "cross"])
def test_checkpoints_of_other_code_or_other_weights_are_not_gone_on_from(
    files, tmp_path, monkeypatch, kind
):
    from sidmill.retrieval import cross, dual, training

    model = tmp_path / "base"
    shutil.copytree(files / "bert", model)
    state = tmp_path / "state"
    folders = training.Folders(tmp_path / "model", state)

    def stop(trainer, state_dir):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "run", stop)

    def train(code):
        if kind == "dual":
            settings = Dual(**DUAL, model=str(model), pooling="cls")
            dual.train(files / "triples.parquet", folders, settings, dual.Prompts(), 1, code)
        else:
            settings = Cross(**CROSS, model=str(model))
            cross.train(files / "pairs.parquet", folders, settings, 1, code)

    def goes_on(code=""):
        with pytest.raises(KeyboardInterrupt):
            train(code)
        kept = (state / "checkpoint-1").exists()
        (state / "checkpoint-1").mkdir(exist_ok=True)
        return kept

    assert [goes_on(), goes_on()] == [False, True]
    (model / ".snakemake_timestamp").touch()
    assert goes_on()
    assert [goes_on(code="mended"), goes_on(code="mended")] == [False, True]
    weights = model / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1  # another model of the same path, names and sizes
    weights.write_bytes(content)
    assert [goes_on(code="mended"), goes_on(code="mended")] == [False, True]


def test_a_model_that_does_not_say_how_to_pool_is_refused(files, tmp_path):
    with pytest.raises(SidmillError, match=r"dual\.pooling"):
        train_dual(files, tmp_path, pooling=None)
    with pytest.raises(SidmillError, match="cannot be loaded"):
        train_dual(files, tmp_path, model="nowhere")


def test_a_hub_model_that_does_not_say_how_to_pool_is_refused_unread(files, tmp_path, monkeypatch):
    """What the hub has of it loads; only modules.json is missing."""
    from huggingface_hub.errors import EntryNotFoundError
    from sentence_transformers import SentenceTransformer

    from sidmill.io import hf_hub
    from sidmill.retrieval import dual

    read = []

    def download(model, name, revision):
        raise EntryNotFoundError(f"{model} has no {name}")

    def load(model, **others):
        read.append(model)
        return SentenceTransformer(str(files / "bert"), device="cpu")

    monkeypatch.setattr(hf_hub, "hf_hub_download", download)
    monkeypatch.setattr(dual, "SentenceTransformer", load)
    with pytest.raises(SidmillError, match=r"does not say how to pool.*dual\.pooling"):
        dual.load(Dual(model="some/bert", device="cpu"))
    assert not read


@pytest.mark.parametrize("model", ["bert", "qwen3-reranker"])
def test_a_cross_encoder_learns_and_reranks(files, tmp_path, monkeypatch, model):
    import torch

    from sidmill.retrieval import rerank

    figures = train_cross(files / "pairs.parquet", tmp_path, files / model)
    learned = model == "bert"  # the other one is too small to learn this in a few seconds
    assert figures["dev_average_precision_after"] > (0.6 if learned else 0.4)
    schema = item_text.schema(pa.int64())
    lines = [passage(name) for name in NAMES]
    ids = range(len(NAMES))
    for name, column in (("corpus", lines), ("queries", NAMES)):
        table = pa.table({"pid": ids, "text": column}, schema=schema)
        item_text.write(tmp_path / name, pa.int64(), [table])
    # the answer stands last among those read again; what is not read again keeps its place
    found = [[str((n + shift) % 40) for shift in (7, 13, 0, 5, 6)] for n in ids]
    run = Run([str(n) for n in ids], found, np.tile(np.arange(5, 0, -1, np.float32), (40, 1)))
    monkeypatch.setattr(rerank, "PAIRS_AT_ONCE", 30)  # portions of ten queries

    def reranked(shards, **changes):
        given = {"model": str(tmp_path / "model"), "depth": 3, **RERANK, **changes}
        paths = [tmp_path / f"{shard}-of-{shards}" for shard in range(shards)]
        for shard, path in enumerate(paths):
            texts = tmp_path / "corpus", tmp_path / "queries"
            part = rerank.rerank_shard(run, *texts, shard, shards, Rerank(**given))
            neighbour_lists.write(path, part)
        return rerank.merge(run, paths), paths

    runs = [reranked(1)[0], reranked(1, batch_size=3)[0]]
    # names of one device give the same bytes; a GPU may differ in the last bits
    cpu = "cpu" if torch.cuda.is_available() else "auto"
    for device in (cpu, "cpu"):
        assert reranked(1, device=device)[0].scores.tobytes() == runs[0].scores.tobytes()
    # more shards than portions, and of uneven size: the same bytes
    for shards in (3, 6):
        sharded, paths = reranked(shards)
        assert sharded.pids == runs[0].pids
        assert sharded.scores.tobytes() == runs[0].scores.tobytes()
    with pytest.raises(SidmillError, match="the run has 40"):
        rerank.merge(run, paths[:-1])
    for line, old in zip(runs[0].pids, found, strict=True):
        assert set(line) == set(old)
        assert line[3:] == old[3:]
    assert (np.diff(runs[0].scores, axis=1) <= 0).all()
    first = np.mean([line[0] == qid for qid, line in zip(run.qids, runs[0].pids, strict=True)])
    assert first > (0.5 if learned else 0.2)  # by chance a third
    np.testing.assert_allclose(runs[0].scores, runs[1].scores, atol=1e-4)


def test_the_yes_and_no_score_is_what_the_language_model_says(files):
    """Against the bare model: the log odds of yes after the prompt of Qwen3-Reranker."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = str(files / "qwen3-reranker")
    pairs = [("red bolt", "this bolt is red"), ("blue glove", "a lamp")]
    reader = reader_of(folder, max_length=512)
    found = reader.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    yes, no = tokenizer.convert_tokens_to_ids(["yes", "no"])
    for (query, document), score in zip(pairs, found, strict=True):
        prompt = (
            "<|im_start|>system\nJudge whether the Document meets the requirements based on the "
            "Query and the Instruct provided. Note that the answer can only be "
            '"yes" or "no".<|im_end|>\n'
            "<|im_start|>user\n<Instruct>: Given a web search query, retrieve relevant passages "
            f"that answer the query\n<Query>: {query}\n<Document>: {document}<|im_end|>\n"
            "<|im_start|>assistant\n<think>\n\n</think>\n\n"
        )
        ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logits = model(ids).logits[0, -1]
        assert score == pytest.approx(float(logits[yes] - logits[no]), abs=1e-4)


def test_the_split_keeps_whole_queries_and_needs_both_sides(files):
    from sidmill.retrieval import training

    rows = training.load_rows(files / "pairs.parquet", triples.PAIRS, None)
    kept, dev = training.split(rows, 0.3, 0)
    assert kept.num_rows + dev.num_rows == 80
    assert not set(kept["query"].to_pylist()) & set(dev["query"].to_pylist())
    assert training.load_rows(files / "pairs.parquet", triples.PAIRS, 5).num_rows == 5
    with pytest.raises(SidmillError, match="change dev_share"):
        training.split(rows.slice(0, 1), 0.5, 0)
    assert Path(files / "pairs.parquet").exists()


def classifier(files, folder, n_labels):
    """A BERT with a head of its own."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    path = str(files / "bert")
    AutoTokenizer.from_pretrained(path).save_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=n_labels)
    model.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("bare", "no weights for classifier.bias, classifier.weight"),
        ("embeds", "embeds texts and scores no pairs"),
        ("two labels", "has 2 outputs"),
        ("no language model", "no weights for score.weight"),
    ],
)
def test_a_model_without_a_scoring_head_is_refused_and_trained_to_one(
    files, tmp_path, kind, message
):
    """Its scores would be random, and others in each shard; training gives it the head it lacks."""
    from transformers import AutoModel, AutoTokenizer

    from sidmill.retrieval import dual

    model = str(tmp_path / "model")
    if kind == "bare":
        model = str(files / "bert")
    elif kind == "embeds":
        settings = Dual(**DUAL, model=str(files / "bert"), pooling="cls")
        dual.load(settings).save_pretrained(model)
    elif kind == "two labels":
        model = classifier(files, tmp_path / "model", 2)
    else:
        AutoTokenizer.from_pretrained(files / "qwen3-reranker").save_pretrained(model)
        AutoModel.from_pretrained(files / "qwen3-reranker").save_pretrained(model)
    with pytest.raises(SidmillError, match=message) as error:
        reader_of(model)
    assert "train one (cross.model)" in str(error.value)
    if kind in ("bare", "two labels"):
        small = {"max_rows": 16, "epochs": 0.5, "dev_share": 0.0}
        train_cross(files / "pairs.parquet", tmp_path / "trained", model, **small)
        reader_of(tmp_path / "trained/model")


def test_a_classifier_of_one_output_scores_as_it_was_saved(files, tmp_path):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = classifier(files, tmp_path / "one", 1)
    pairs = [("red bolt", "this bolt"), ("blue lamp", "a lamp that is blue")]
    found = [
        reader_of(model).predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
        for _ in range(2)
    ]
    np.testing.assert_array_equal(*found)
    inputs = AutoTokenizer.from_pretrained(model)(*zip(*pairs, strict=True), padding=True,
                                                  return_tensors="pt")  # fmt: skip
    with torch.no_grad():
        logits = AutoModelForSequenceClassification.from_pretrained(model)(**inputs).logits[:, 0]
    np.testing.assert_allclose(found[0], logits.numpy(), atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_text_above_the_positions_of_a_model_is_cut_there(files, tmp_path, caplog, kind):
    """RoBERTa counts positions from behind its padding: 514 of them hold 512 tokens."""
    import torch
    from transformers import AutoTokenizer, RobertaConfig, RobertaForSequenceClassification

    from sidmill.retrieval import dual

    model, positions = classifier(files, tmp_path / "model", 1), 256
    if kind == "roberta":
        tokenizer = AutoTokenizer.from_pretrained(model, model_max_length=10**6)
        tokenizer.save_pretrained(model)
        config = RobertaConfig(
            vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=16, max_position_embeddings=34, num_labels=1, pad_token_id=1,
        )  # fmt: skip
        RobertaForSequenceClassification(config).save_pretrained(model)
        positions = 32
    reader = reader_of(model, max_length=512)
    assert f"rerank.max_length is 512, the model has {positions} positions" in caplog.text
    scores = reader.predict([("red", "bolt " * 400)], show_progress_bar=False)
    assert np.isfinite(scores).all()
    if kind == "bert":
        long = {**DUAL, "max_length": 512}
        encoder = dual.load(Dual(**long, model=str(files / "bert"), pooling="cls"))
        with torch.no_grad():
            assert np.isfinite(encoder.encode(["bolt " * 400])).all()


@pytest.mark.parametrize("kind", ["dual", "cross"])
def test_the_device_setting_changes_no_byte_of_a_model(files, tmp_path, kind):
    """Every name that is the CPU here; another device may differ in the last bits."""
    import torch

    cpu = "cpu" if torch.cuda.is_available() else "auto"
    short = {"epochs": 1, "evaluations": 1, "max_rows": 24}
    found = []
    for number, device in enumerate(("cpu", cpu, "cpu")):
        folder = tmp_path / str(number)
        if kind == "dual":
            train_dual(files, folder, device=device, **short)
        else:
            train_cross(files / "pairs.parquet", folder, files / "bert", device=device, **short)
        found.append(
            {
                path.relative_to(folder): path.read_bytes()
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            }
        )
    assert found[0] == found[1] == found[2]


def test_the_identity_of_a_training_is_its_science(files, tmp_path, monkeypatch):
    """A machine setting resumes; a science setting, a prompt or a seed does not."""
    from sidmill.retrieval import dual, training

    seen = []
    monkeypatch.setattr(training, "begin", lambda folder, identity: seen.append(identity))

    def identity(prompts, seed, **changes):
        settings = Dual(**{**DUAL, "model": str(files / "bert"), **changes})
        training.prepare(
            files / "triples.parquet", triples.TRIPLES, tmp_path, settings, seed, "x",
            {"query_prompt": prompts.query, "prompt": prompts.passage, "code": ""},
        )  # fmt: skip
        return seen[-1]

    first = identity(dual.Prompts(), 1)
    assert identity(dual.Prompts(), 1, device="auto") == first
    others = [
        identity(dual.Prompts("q"), 1),
        identity(dual.Prompts("", "p"), 1),
        identity(dual.Prompts(), 2),
        identity(dual.Prompts(), 1, temperature=0.07),
    ]
    assert all(other != first for other in others)


@pytest.mark.parametrize("fails", ["save_pretrained", "replace_folder", None])
def test_a_model_stays_until_the_next_one_has_its_name(tmp_path, monkeypatch, fails):
    """Where saving or the exchange fails, the old model is whole, and checkpoints stay."""
    from sidmill.retrieval import training

    def fail(*paths):
        raise OSError("injected")

    class Model:
        def save_pretrained(self, path, create_model_card):
            Path(path).mkdir()
            (Path(path) / "model.safetensors").write_text("new")
            if fails == "save_pretrained":
                fail()

    folders = training.Folders(tmp_path / "model", tmp_path / "state")
    folders.model.mkdir()
    folders.state.mkdir()
    weights = folders.model / "model.safetensors"
    weights.write_text("old")
    if fails == "replace_folder":
        monkeypatch.setattr(training, fails, fail)
    if fails:
        with pytest.raises(OSError, match="injected"):
            training.finish(Model(), folders, {"steps": 1})
        assert weights.read_text() == "old"
        assert folders.state.exists()
        return
    training.finish(Model(), folders, {"steps": 1})
    assert weights.read_text() == "new"
    assert json.loads((folders.model / "training.json").read_text()) == {"steps": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
