"""Latent semantic analysis: TF-IDF and a truncated SVD. No weights to fetch, same text same vector.

Letters: n texts, V vocabulary, D dimensions.

Source: Deerwester et al., Indexing by Latent Semantic Analysis, 1990,
https://doi.org/10.1002/(SICI)1097-4571(199009)41:6%3C391::AID-ASI1%3E3.0.CO;2-9, with the values of
https://scikit-learn.org/stable/modules/generated/sklearn.decomposition.TruncatedSVD.html
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix

from sidmill.core.errors import SidmillError
from sidmill.embed import fingerprint
from sidmill.embed.backend import Backend, Run, unit_rows
from sidmill.embed.backends import tfidf
from sidmill.embed.progress import Advance
from sidmill.embed.throughput import Encoded, Work
from sidmill.formats import item_text
from sidmill.io import tensors
from sidmill.settings.embedding import Embedding

logger = logging.getLogger(__name__)


class LsaModel(NamedTuple):
    """A fitted model.

    Attributes:
        vocabulary: V tokens, sorted.
        idf: float32 (V,), inverse document frequency of each.
        components: float32 (D, V), directions of the SVD.
    """

    vocabulary: list[str]
    idf: np.ndarray
    components: np.ndarray


def load(settings: Embedding, run: Run) -> Backend:
    """Load a fitted model as a backend.

    Args:
        settings: ``dim`` is that of the model, or null.
        run: the path of the model.

    Raises:
        SidmillError: if the file holds no model, or one of another width.
    """
    if run.model_path is None:
        raise ValueError("backend lsa needs the path of a fitted model")

    # The width is that of the fit.
    model = read(run.model_path)
    dim = len(model.components)
    if settings.dim is not None and settings.dim != dim:
        raise SidmillError(
            f"{run.model_path} has {dim} dimensions, embedding.dim is {settings.dim}: set "
            f"embedding.dim to {dim}"
        )

    def stream(chunks: Iterator[list[str]], advance: Advance) -> Iterator[Encoded]:
        for texts in chunks:
            vectors = encode(model, texts, normalize=settings.normalize)
            advance(len(texts))
            yield Encoded(vectors, Work(texts=len(texts)))

    space = fingerprint.make(
        settings,
        model="lsa",
        revision=fingerprint.file_digest(run.model_path),
        pooling="tfidf-svd",
        dim=dim,
        dtype="float32",
        max_length=None,
    )
    return Backend(stream, space)


def fit(text_path: str | Path, settings: Embedding, seed: int) -> LsaModel:
    """Fit the model to texts.

    Args:
        text_path: text.parquet.
        settings: ``dim`` is D. Of more than ``lsa_sample`` texts a uniform sample is drawn; the
            ``lsa_features`` most frequent words are kept. Memory: the texts of the sample, and
            about 4 * (D + 10) * (texts + V) bytes.
        seed: draws the sample, and the vector that ARPACK starts from.

    Raises:
        SidmillError: if the texts hold no word, or are too few to span D dimensions.
    """
    if settings.dim is None:
        raise SidmillError("embedding.dim is null: LSA has no width of its own: set a number")

    from threadpoolctl import threadpool_limits

    # Weights of words: sparse (n, V).
    texts = _sample(text_path, settings.lsa_sample, seed)
    vocabulary, idf, weights = tfidf.fit(texts, settings.lsa_features)
    if not vocabulary:
        raise SidmillError(
            f"{text_path}: {len(texts)} texts hold no word to fit an LSA on: check items.fields"
        )

    # ARPACK finds one direction less than there are texts, and than there are words.
    largest = min(weights.shape) - 1
    if not largest:
        raise SidmillError(
            f"{text_path}: {weights.shape[0]} texts, {weights.shape[1]} different words: LSA needs "
            f"at least 2 of each: embed more items, or choose another embedding.backend"
        )
    if settings.dim > largest:
        raise SidmillError(
            f"{weights.shape[0]} texts with {weights.shape[1]} different words cannot span "
            f"{settings.dim} dimensions: lower embedding.dim to at most {largest}, or embed more "
            f"items"
        )

    # ARPACK finds the exact directions, so the seed hardly matters; the randomised solver is no
    # faster and its directions move MRR on Cranfield by 0.01 from one seed to the next. ARPACK's
    # products are small: one thread is several times as fast as two, and gives the same bytes on
    # any number of cores.
    with threadpool_limits(1, user_api="blas"):
        components, singular_values = _directions(weights, settings.dim, seed)
    kept = np.square(singular_values).sum() / np.square(weights.data).sum()
    logger.info(
        "fitted %d dimensions to %d texts and %d words; they keep %.1f %% of the squared weights",
        settings.dim,
        *weights.shape,
        100 * kept,
    )
    return LsaModel(vocabulary, idf, np.ascontiguousarray(components, dtype=np.float32))


def encode(model: LsaModel, texts: list[str], *, normalize: bool) -> np.ndarray:
    """Turn texts into vectors, each by itself: neighbours in the list make no difference.

    Args:
        model: the fitted model.
        texts: n texts.
        normalize: scale to unit length.

    Returns:
        float32 (n, D); zero for a text without a word of the vocabulary.
    """
    columns = {word: column for column, word in enumerate(model.vocabulary)}
    vectors = tfidf.transform(texts, columns, model.idf) @ model.components.T
    return unit_rows(vectors) if normalize else np.ascontiguousarray(vectors)


def write(path: str | Path, model: LsaModel) -> None:
    """Write an LSA model as safetensors, atomically; equal models are equal bytes.

    The vocabulary is stored as JSON in a uint8 tensor.
    """
    vocabulary = json.dumps(model.vocabulary, ensure_ascii=False).encode()
    arrays = {
        "components": model.components,
        "idf": model.idf,
        "vocabulary": np.frombuffer(vocabulary, dtype=np.uint8),
    }
    tensors.write(path, arrays, {"kind": "lsa"})


def read(path: str | Path) -> LsaModel:
    """Read an LSA model.

    Raises:
        SidmillError: if the file is missing, damaged, or holds something else.
    """
    arrays, facts = tensors.read(path, "LSA model")
    if facts.get("kind") != "lsa":
        raise SidmillError(f"{path}: holds no LSA model: fit one with this workflow")
    vocabulary = json.loads(arrays["vocabulary"].tobytes())
    model = LsaModel(vocabulary, arrays["idf"], arrays["components"])
    if len(vocabulary) != model.idf.shape[0] or len(vocabulary) != model.components.shape[1]:
        raise SidmillError(
            f"{path}: {len(vocabulary)} words, idf {model.idf.shape} and components "
            f"{model.components.shape} do not belong together: take "
            f"another copy of a published one, or delete it and run again"
        )
    return model


def _directions(weights: csr_matrix, dim: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Decompose weights (n, V), as scikit-learn's ``TruncatedSVD`` with ARPACK does, bit for bit.

    Returns:
        float32 (D, V), directions by falling singular value, the largest entry of each positive,
        and float32 (D,), the singular values.
    """
    from scipy.sparse.linalg import svds  # encoding needs no solver

    start = np.random.RandomState(seed).uniform(-1, 1, min(weights.shape))
    _, singular_values, rows = svds(weights, k=dim, v0=start)
    directions = rows[::-1]
    largest = np.abs(directions).argmax(axis=1)
    signs = np.sign(directions[np.arange(dim), largest])
    return directions * signs[:, None], singular_values[::-1]


def _sample(text_path: str | Path, size: int, seed: int) -> list[str]:
    """Read all texts, or ``size`` of them drawn without replacement, in row order."""
    # Which rows: ascending, int64.
    total = item_text.count(text_path)
    if total > size:
        rng = np.random.default_rng(seed)
        rows = np.sort(rng.choice(total, size, replace=False, shuffle=False))
        logger.info("fitting on a sample of %d of %d texts", size, total)
    else:
        rows = np.arange(total)

    # Their texts, one row group at a time.
    texts: list[str] = []
    first = 0
    for table in item_text.read(text_path):
        begin, end = np.searchsorted(rows, (first, first + table.num_rows))
        texts += table["text"].take(rows[begin:end] - first).to_pylist()
        first += table.num_rows
    return texts
