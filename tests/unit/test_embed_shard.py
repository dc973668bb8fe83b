"""Shards: together they are the one table, however many there are."""

import logging
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from sidmill.core.errors import SidmillError
from sidmill.embed.backends import lsa
from sidmill.embed.shard import ShardFiles, embed_shard
from sidmill.formats import embedding_shards, item_text
from sidmill.settings.embedding import Embedding, Openai

N_ITEMS = 9000  # more than one row group


def make_text(path, n_items, pid_type):
    rng = np.random.default_rng(0)
    odds = 0.9 ** np.arange(40)
    words = rng.choice([f"w{n}" for n in range(40)], (n_items, 6), p=odds / odds.sum())
    pids = pa.array(np.arange(n_items) * 3 + 1).cast(pid_type)
    texts = [" ".join(row) for row in words]
    item_text.write(path, pid_type, [pa.table({"pid": pids, "text": texts})])
    return str(path)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Paths of text.parquet and of a model fitted to it."""
    folder = tmp_path_factory.mktemp("embed")
    text_path = make_text(folder / "text.parquet", N_ITEMS, pa.int64())
    model = lsa.fit(text_path, Embedding(dim=8, lsa_sample=500), 42)
    lsa.write(folder / "lsa.safetensors", model)
    return text_path, str(folder / "lsa.safetensors")


def embed(folder, text_path, model_path, shards, **changes):
    """Embed all shards and return ids and vectors in order of file name."""
    ids, blocks = [], []
    for shard in range(shards):
        path = folder / f"part-{shard:05d}-of-{shards:05d}.parquet"
        files = ShardFiles(text_path, str(path), str(folder / "speed.json"), model_path)
        settings = Embedding(**{"dim": 8} | changes)
        rows = embed_shard(files, settings, Openai(), shard=shard, shards=shards, code="1")
        read = list(embedding_shards.read(path))
        assert rows == sum(len(pids) for pids, _ in read)
        ids += [pid for pids, _ in read for pid in pids.to_pylist()]
        blocks += [vectors for _, vectors in read]
    return ids, np.concatenate(blocks)


def test_shards_together_are_the_one_shard(source, tmp_path):
    ids, vectors = embed(tmp_path / "one", *source, 1)
    assert ids == [n * 3 + 1 for n in range(N_ITEMS)]
    assert (vectors.dtype, vectors.shape) == (np.float32, (N_ITEMS, 8))
    for shards in (2, 7):
        more_ids, more_vectors = embed(tmp_path / str(shards), *source, shards)
        assert more_ids == ids
        np.testing.assert_array_equal(more_vectors, vectors)


def test_second_run_writes_the_same_bytes(source, tmp_path):
    for name in ("a", "b"):
        embed(tmp_path / name, *source, 2)
    for part in (tmp_path / "a").glob("part-*"):
        assert part.read_bytes() == (tmp_path / "b" / part.name).read_bytes()


def test_fingerprint_names_the_fit_and_no_path(source, tmp_path):
    embed(tmp_path, *source, 1)
    facts = embedding_shards.fingerprint(tmp_path / "part-00000-of-00001.parquet")
    assert len(facts.pop("revision")) == 12
    assert facts == {
        "backend": "lsa",
        "model": "lsa",
        "pooling": "tfidf-svd",
        "prompt": "",
        "normalize": True,
        "dim": 8,
        "dtype": "float32",
        "max_length": None,
    }


def test_more_shards_than_items(source, tmp_path):
    text_path = make_text(tmp_path / "text.parquet", 2, pa.int64())
    ids, _ = embed(tmp_path / "out", text_path, source[1], 3)
    assert ids == [1, 4]
    facts = [
        embedding_shards.fingerprint(path) for path in sorted((tmp_path / "out").glob("part-*"))
    ]
    assert facts[0] == facts[1] == facts[2]


def test_string_ids_stay_strings(source, tmp_path):
    text_path = make_text(tmp_path / "text.parquet", 5, pa.string())
    assert embed(tmp_path / "out", text_path, source[1], 1)[0] == ["1", "4", "7", "10", "13"]


def test_texts_of_unknown_words_are_warned_of(source, tmp_path, caplog):
    table = pa.table({"pid": ["a", "b", "c"], "text": ["w1 w2", "unheard", "of"]})
    item_text.write(tmp_path / "text.parquet", pa.string(), [table])
    with caplog.at_level(logging.WARNING):
        _, vectors = embed(tmp_path / "out", str(tmp_path / "text.parquet"), source[1], 1)
    assert not vectors[1:].any()
    assert "2 texts have an all-zero vector" in caplog.text
    assert "first pids: 'b', 'c'" in caplog.text


def test_precomputed_takes_own_shards_back_bit_for_bit(source, tmp_path):
    ids, vectors = embed(tmp_path / "first", *source, 3)
    own = {"backend": "precomputed", "model": "mine", "path": str(tmp_path / "first"), "dim": None}
    again_ids, again = embed(tmp_path / "again", source[0], None, 2, **own)
    assert again_ids == ids
    np.testing.assert_array_equal(again, vectors)
    facts = embedding_shards.fingerprint(tmp_path / "again/part-00001-of-00002.parquet")
    assert (facts["backend"], facts["model"], facts["dim"]) == ("precomputed", "mine", 8)


def test_normalize_scales_precomputed_vectors_or_leaves_them(source, tmp_path):
    ids = np.arange(N_ITEMS) * 3 + 1
    vectors = np.random.default_rng(0).standard_normal((N_ITEMS, 4)).astype(np.float32) * 9
    np.save(tmp_path / "v.npy", vectors)
    np.save(tmp_path / "ids.npy", ids)
    own = {
        "backend": "precomputed",
        "model": "mine",
        "path": str(tmp_path / "v.npy"),
        "ids_path": str(tmp_path / "ids.npy"),
        "dim": 4,
    }
    _, plain = embed(tmp_path / "plain", source[0], None, 2, **own, normalize=False)
    np.testing.assert_array_equal(plain, vectors)
    _, unit = embed(tmp_path / "unit", source[0], None, 2, **own)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(unit, vectors / lengths, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backend": "glove"}, r"embedding\.backend is 'glove': choose lsa"),
        ({"prompt": "query: "}, "means nothing to backend lsa"),
        ({"backend": "precomputed", "prompt": "x"}, "means nothing to backend precomputed"),
        ({"backend": "precomputed"}, r"embedding\.model is null"),
        ({"dim": 9}, r"has 8 dimensions, embedding\.dim is 9: set embedding\.dim to 8"),
    ],
)
def test_settings_that_do_not_fit(source, tmp_path, changes, message):
    with pytest.raises(SidmillError, match=message):
        embed(tmp_path, *source, 1, **changes)
    assert not list(tmp_path.iterdir())


def test_lsa_does_not_pay_for_torch():
    code = (
        "import sys; import sidmill.embed.shard; "
        "import sidmill.embed.backends.lsa, sidmill.embed.backends.precomputed; "
        "sys.exit(bool({'torch', 'sentence_transformers', 'transformers'} & {*sys.modules}))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0
