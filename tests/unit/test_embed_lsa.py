"""LSA: what it retrieves, that it is what the formula says, and that nothing else moves it."""

import csv
import json
import os
import subprocess
import sys
import warnings
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from conftest import ROOT

from sidmill.core.errors import SidmillError
from sidmill.core.words import words
from sidmill.embed.backends import lsa
from sidmill.formats import item_text
from sidmill.io import tensors
from sidmill.settings.embedding import Embedding

SEED = 42
WORDS = [f"word{n}" for n in range(60)]
PARTS = ("steel bolt", "brass nut", "rubber glove", "paper towel", "glass beaker", "copper wire")


@pytest.fixture
def write_text(tmp_path):
    def write(texts):
        pids = pa.array(range(len(texts)), pa.int64())
        item_text.write(
            tmp_path / "text.parquet", pa.int64(), [pa.table({"pid": pids, "text": texts})]
        )
        return tmp_path / "text.parquet"

    return write


@pytest.fixture
def products(rng):
    """150 texts, some words far more frequent than others."""
    odds = 0.9 ** np.arange(len(WORDS))
    return [" ".join(rng.choice(WORDS, size=12, p=odds / odds.sum())) for _ in range(150)]


def test_vectors_are_what_the_formula_says(write_text, products):
    model = lsa.fit(write_text(products), Embedding(dim=8), SEED)
    known = sorted({word for line in products for word in line.split()})
    counts = np.array([[line.split().count(word) for word in known] for line in products])
    idf = np.log((1 + len(products)) / (1 + (counts > 0).sum(axis=0))) + 1
    weights = np.where(counts > 0, 1 + np.log(np.maximum(counts, 1)), 0) * idf
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    directions = np.linalg.svd(weights)[2][:8]
    expected = weights @ directions.T
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert model.vocabulary == known
    found = lsa.encode(model, products, normalize=True)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-4)
    plain = lsa.encode(model, products, normalize=False)
    np.testing.assert_allclose(
        plain @ plain.T, (weights @ directions.T) @ (weights @ directions.T).T, atol=1e-4
    )


def test_a_text_has_the_same_bits_alone_and_in_company(write_text, products):
    model = lsa.fit(write_text(products), Embedding(dim=16), SEED)
    together = lsa.encode(model, products, normalize=True)
    alone = np.concatenate([lsa.encode(model, [line], normalize=True) for line in products])
    np.testing.assert_array_equal(alone, together)


def test_same_seed_same_bytes(write_text, products, tmp_path):
    path = write_text(products)
    for name in ("a", "b"):
        lsa.write(tmp_path / name, lsa.fit(path, Embedding(dim=16, lsa_sample=50), SEED))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_seed_moves_no_similarity(write_text, products):
    path = write_text(products)
    grams = []
    for seed in (1, 2):
        vectors = lsa.encode(lsa.fit(path, Embedding(dim=8), seed), products, normalize=True)
        grams.append(vectors @ vectors.T)
    np.testing.assert_allclose(*grams, atol=1e-3)


def test_saved_model_encodes_the_same(write_text, products, tmp_path):
    model = lsa.fit(write_text([*products, "不锈钢 螺栓"]), Embedding(dim=16), SEED)
    lsa.write(tmp_path / "lsa.safetensors", model)
    np.testing.assert_array_equal(
        lsa.encode(lsa.read(tmp_path / "lsa.safetensors"), products, normalize=True),
        lsa.encode(model, products, normalize=True),
    )


def test_a_sample_is_drawn_from_all_rows(write_text):
    path = write_text([f"word{n} common" for n in range(1000)])
    model = lsa.fit(path, Embedding(dim=8, lsa_sample=200), SEED)
    rows = sorted(int(word[4:]) for word in model.vocabulary if word.startswith("word"))
    assert len(rows) == 200
    assert 400 < np.mean(rows) < 600  # 500 +- 5 standard errors
    other = lsa.fit(path, Embedding(dim=8, lsa_sample=200), 1)
    assert other.vocabulary != model.vocabulary


def test_features_are_the_most_frequent(write_text, products):
    model = lsa.fit(write_text(products), Embedding(dim=4, lsa_features=6), SEED)
    counts = Counter(" ".join(products).split())
    assert model.vocabulary == sorted(word for word, _ in counts.most_common(6))


def test_chinese_neighbours(write_text):
    shelves = {
        "boots": ["男士冬季防水雪地靴", "女士冬季雪地靴加绒", "防水登山靴男", "加绒防滑短靴女"],
        "pans": ["不粘锅平底煎锅", "麦饭石不粘炒锅", "电磁炉通用平底锅", "家用炒锅不粘"],
        "paint": ["水彩颜料套装", "儿童水彩画颜料", "固体水彩颜料二十四色", "丙烯颜料套装"],
    }
    texts = [line for shelf in shelves.values() for line in shelf]
    shelf_of = [name for name, shelf in shelves.items() for _ in shelf]
    vectors = lsa.encode(lsa.fit(write_text(texts), Embedding(dim=6), SEED), texts, normalize=True)
    near = vectors @ vectors.T - 2 * np.eye(len(texts))
    assert [shelf_of[n] for n in near.argmax(axis=1)] == shelf_of


def test_unknown_words_give_zero(write_text, products):
    model = lsa.fit(write_text(products), Embedding(dim=4), SEED)
    assert not lsa.encode(model, ["zzz 陌生"], normalize=True).any()


def test_cranfield(write_text, real_data):
    folder = real_data / "cranfield"
    corpus, queries = (
        [json.loads(line) for line in (folder / name).read_text().splitlines()]
        for name in ("corpus.jsonl", "queries.jsonl")
    )
    with (folder / "qrels.tsv").open() as lines:
        relevant = {
            (row["query-id"], row["corpus-id"]) for row in csv.DictReader(lines, delimiter="\t")
        }
    texts = [f"{document['title']} {document['text']}".strip() for document in corpus]
    model = lsa.fit(write_text(texts), Embedding(dim=256), SEED)
    documents = lsa.encode(model, texts, normalize=True)
    scores = lsa.encode(model, [query["text"] for query in queries], normalize=True) @ documents.T
    top = np.argsort(-scores, axis=1, kind="stable")[:, :50]
    hits = np.array(
        [
            [(query["_id"], corpus[n]["_id"]) in relevant for n in row]
            for query, row in zip(queries, top, strict=True)
        ]
    )
    first = hits[:, :10].argmax(axis=1)
    mrr = np.where(hits[:, :10].any(axis=1), 1 / (first + 1), 0).mean()
    assert mrr == pytest.approx(0.549, abs=0.01)
    assert hits[:, 0].mean() == pytest.approx(0.356, abs=0.01)
    assert hits.any(axis=1).mean() == pytest.approx(0.951, abs=0.01)


@pytest.mark.parametrize(
    ("texts", "dim", "message"),
    [
        (PARTS, 6, r"6 texts with 12 .* span 6 .* lower embedding\.dim to at most 5"),
        (["a b c d"] * 50, 256, r"lower embedding\.dim to at most 3"),
        (["a b"], 1, "1 texts, 2 different words: LSA needs at least 2 of each: embed more"),
        (["a"] * 50, 1, r"50 texts, 1 different words: .* another embedding\.backend"),
        (["...", "--"], 2, "2 texts hold no word"),
        ([], 2, "0 texts hold no word"),
    ],
)
def test_texts_that_cannot_be_fitted(write_text, texts, dim, message):
    with pytest.raises(SidmillError, match=message):
        lsa.fit(write_text(list(texts)), Embedding(dim=dim), SEED)


def test_largest_dimension_works(write_text):
    model = lsa.fit(write_text(list(PARTS)), Embedding(dim=5), SEED)
    assert model.components.shape == (5, 12)


@pytest.mark.parametrize(
    ("texts", "dim"), [(["a b", "c d"], 1), (["a b c d"] * 50, 1), (["a b c d"] * 50, 3)]
)
def test_the_fewest_and_the_same_texts_fit_without_a_warning(write_text, texts, dim):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vectors = lsa.encode(
            lsa.fit(write_text(texts), Embedding(dim=dim), SEED), texts, normalize=True
        )
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_files_that_are_no_model(write_text, products, tmp_path):
    path = tmp_path / "lsa.safetensors"
    with pytest.raises(SidmillError, match="no such file"):
        lsa.read(path)
    path.write_bytes(b"not safetensors at all")
    with pytest.raises(SidmillError, match="not a readable LSA model"):
        lsa.read(path)
    tensors.write(path, {"x": np.zeros(2)}, {"kind": "another"})
    with pytest.raises(SidmillError, match="holds no LSA model"):
        lsa.read(path)
    model = lsa.fit(write_text(products), Embedding(dim=4), SEED)
    lsa.write(path, model._replace(idf=model.idf[:-1]))
    with pytest.raises(SidmillError, match="do not belong together"):
        lsa.read(path)
    lsa.write(path, model)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(SidmillError, match="not a readable LSA model"):
        lsa.read(path)


@pytest.mark.parametrize("are_words_left_out", [False, True])
def test_bits_are_those_of_scikit_learn(write_text, products, are_words_left_out):
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    # Given: texts of several scripts and lengths, one without a word.
    texts = [*products, "不锈钢 螺栓 m8", "Größe Größe 10", "...", *(line[:9] for line in products)]

    # Words that are left out are less frequent: scikit-learn keeps any of equal counts.
    n_kept = 1000
    if are_words_left_out:
        counted = Counter(word for text in texts for word in words(text)).most_common()
        n_kept = next(n for n in range(25, 8, -1) if counted[n - 1][1] > counted[n][1])

    # When: both fit and encode.
    model = lsa.fit(write_text(texts), Embedding(dim=8, lsa_features=n_kept), SEED)
    vectorizer = TfidfVectorizer(
        analyzer=words, sublinear_tf=True, max_features=n_kept, dtype=np.float32
    )
    weights = vectorizer.fit_transform(texts)
    svd = TruncatedSVD(8, algorithm="arpack", random_state=SEED).fit(weights)
    reader = TfidfVectorizer(
        analyzer=words, sublinear_tf=True, vocabulary=model.vocabulary, dtype=np.float32
    )
    reader.idf_ = vectorizer.idf_

    # Then: every bit is the same.
    assert model.vocabulary == vectorizer.get_feature_names_out().tolist()
    np.testing.assert_array_equal(model.idf, vectorizer.idf_)
    np.testing.assert_array_equal(model.components, svd.components_)
    np.testing.assert_array_equal(
        lsa.encode(model, texts[::-1], normalize=False),
        reader.transform(texts[::-1]) @ svd.components_.T,
    )


@pytest.mark.parametrize("features", ["", "X86_V4 AVX512_ICL AVX512_SPR", "X86_V3 X86_V4"])
def test_words_that_are_kept_do_not_depend_on_the_cpu(features, rng):
    """Most words at the limit are as frequent as others; NumPy sorts by what the CPU can do."""
    texts = [" ".join(f"w{n:04d}" for n in rng.integers(0, 3000, 6)) for _ in range(600)]
    counts = Counter(" ".join(texts).split())
    wanted = sorted(sorted(counts, key=lambda word: (-counts[word], word))[:1000])
    code = "import sys; from sidmill.embed.backends import tfidf; "
    code += "print(*tfidf.fit(sys.stdin.read().splitlines(), 1000).vocabulary)"
    environment = os.environ | {"NPY_DISABLE_CPU_FEATURES": features}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=environment | {"PYTHONPATH": str(ROOT / "src")},
        input="\n".join(texts),
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == wanted
