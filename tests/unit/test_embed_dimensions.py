"""What fewer dimensions keep of the neighbours, on vectors whose answer is known."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from sidmill.core.errors import SidmillError
from sidmill.embed import backend, dimensions, throughput
from sidmill.formats import item_text
from sidmill.settings.embedding import Embedding, Matryoshka

SETTINGS = Embedding(backend="openai", dim=None)
SAMPLE = {"sample": 1000, "neighbours": 5}


@pytest.fixture
def embedded(monkeypatch, tmp_path):
    """Let these vectors be those of the texts; return the path of text.parquet."""

    def make(vectors, lines=None):
        lines = lines or [str(n) for n in range(len(vectors))]
        rows = {line: vectors[n] for n, line in enumerate(lines)}
        table = pa.table({"pid": pa.array(range(len(lines)), pa.int64()), "text": lines})
        item_text.write(tmp_path / "text.parquet", pa.int64(), [table])

        def stream(parts, advance):
            for part in parts:
                found = np.array([rows[line] for line in part], np.float32)
                yield throughput.Encoded(found, throughput.Work())

        def choose(settings, run):
            assert settings.dim is None
            return backend.Backend(stream, {"model": "m", "dim": vectors.shape[1]})

        monkeypatch.setattr(backend, "choose", choose)
        return tmp_path / "text.parquet"

    return make


def test_dimensions_that_hold_everything_keep_every_neighbour(embedded, rng):
    vectors = np.zeros((300, 256))
    vectors[:, :64] = rng.standard_normal((300, 64))
    figures = dimensions.measure(embedded(vectors), SETTINGS, Matryoshka(**SAMPLE))
    assert list(figures["jaccard"]) == ["128", "64", "32"]
    assert figures["jaccard"]["128"] == figures["jaccard"]["64"] == 1
    assert 0.05 < figures["jaccard"]["32"] < 0.9
    assert (figures["full_dim"], figures["texts"]) == (256, 300)


def test_a_file_of_new_items_alone_is_refused_with_the_reason(tmp_path, rng):
    lines = [str(n) for n in range(40)]
    table = pa.table({"pid": pa.array(range(40), pa.int64()), "text": lines})
    item_text.write(tmp_path / "text.parquet", pa.int64(), [table])
    np.save(tmp_path / "new.npy", rng.standard_normal((5, 64)).astype(np.float32))
    np.save(tmp_path / "ids.npy", np.arange(35, 40))
    path, ids_path = str(tmp_path / "new.npy"), str(tmp_path / "ids.npy")
    own = Embedding(backend="precomputed", model="mine", dim=None, path=path, ids_path=ids_path)
    with pytest.raises(SidmillError, match=r"whole catalogue, published items too: 35 of 40 items"):
        dimensions.measure(tmp_path / "text.parquet", own, Matryoshka(**SAMPLE))


def test_own_vectors_in_the_order_of_the_catalogue(tmp_path, rng):
    """The sample takes its own rows, not the first ones."""
    lines = [str(n) for n in range(90)]
    table = pa.table({"pid": pa.array(range(90), pa.int64()), "text": lines})
    item_text.write(tmp_path / "text.parquet", pa.int64(), [table])
    vectors = rng.standard_normal((90, 64)).astype(np.float32)
    np.save(tmp_path / "own.npy", vectors)
    np.save(tmp_path / "ids.npy", np.arange(90))
    path = str(tmp_path / "own.npy")
    own = Embedding(backend="precomputed", model="mine", dim=None, path=path)
    asked = Matryoshka(sample=40, neighbours=5)
    found = [
        dimensions.measure(tmp_path / "text.parquet", replace(own, **how), asked)
        for how in ({"rows": "catalogue"}, {"rows": "ids", "ids_path": str(tmp_path / "ids.npy")})
    ]
    assert found[0] == found[1]


def test_jaccard_is_that_of_sets(embedded, rng):
    vectors = rng.standard_normal((80, 48))
    figures = dimensions.measure(embedded(vectors), SETTINGS, Matryoshka(**SAMPLE, dims=[12]))

    def nearest(rows):
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        order = np.argsort(-(unit @ unit.T - 9 * np.eye(80)), axis=1)
        return [set(row[:5]) for row in order]

    pairs = zip(nearest(vectors), nearest(vectors[:, :12]), strict=True)
    wanted = np.mean([len(a & b) / len(a | b) for a, b in pairs])
    assert figures["jaccard"]["12"] == pytest.approx(wanted)


def test_equal_texts_count_once_and_the_sample_is_spread(embedded, rng, monkeypatch):
    lines = [str(n // 2) for n in range(400)]
    path = embedded(np.repeat(rng.standard_normal((200, 40)), 2, axis=0), lines)
    figures = dimensions.measure(path, SETTINGS, Matryoshka(**SAMPLE | {"sample": 40}))
    assert 20 < figures["texts"] <= 40


@pytest.mark.parametrize(
    ("changes", "dim", "message"),
    [
        ({"dims": [41]}, None, "found 41, the model gives 40: lower it"),
        ({}, 64, r"embedding\.dim: found 64, the model gives 40"),
        ({"neighbours": 30}, None, r"a sample of 30 texts has no 30 neighbours: lower matryoshka"),
    ],
)
def test_what_cannot_be_measured(embedded, rng, changes, dim, message):
    path = embedded(rng.standard_normal((30, 40)))
    with pytest.raises(SidmillError, match=message):
        dimensions.measure(path, replace(SETTINGS, dim=dim), Matryoshka(**SAMPLE | changes))
