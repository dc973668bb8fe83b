"""BM25, the baseline that a dense retriever has to beat, by bm25s, with jieba's words for Chinese.

Letters: N passages, T their tokens, k passages per query.

Source: https://github.com/xhluca/bm25s (Lucene's form of BM25), https://github.com/fxsjy/jieba
"""

import logging
import re
import unicodedata
from functools import cache
from pathlib import Path

import bm25s
import jieba
import numpy as np

from sidmill.core.errors import SidmillError
from sidmill.formats import text, vectors
from sidmill.formats.neighbours import Neighbours
from sidmill.formats.runs import Run
from sidmill.retrieval import exact
from sidmill.retrieval.search import as_run

logger = logging.getLogger(__name__)

HAN = "々〇㐀-䶿一-鿿豈-\ufaff\U00020000-\U000323af"
RUNS = re.compile(rf"([{HAN}]+)|([^\W{HAN}]+)")


def search(
    corpus_path: str | Path, queries_path: str | Path, *, top_k: int, k1: float, b: float
) -> Run:
    """Index the passages and find the k best of every query; ties go by id.

    A query has k passages even where fewer share a word with it: the rest scores 0.
    Memory: about 8 bytes per token of the corpus for its words, and as much again for the index.

    Args:
        corpus_path: text.parquet of the passages.
        queries_path: text.parquet of the queries.
        top_k: k.
        k1: how soon a repeated word stops counting; 0 counts it once.
        b: how far long passages are marked down, from 0 to 1.

    Raises:
        SidmillError: if k is above N, or no passage holds a word.
    """
    pids, qids = vectors.read_pids(corpus_path), vectors.read_pids(queries_path)
    if top_k > len(pids):
        raise SidmillError(
            f"retrieval.top_k is {top_k}, the corpus has {len(pids)} passages: lower it to at "
            f"most {len(pids)}"
        )
    vocabulary: dict[str, int] = {}
    passages = [
        np.array([vocabulary.setdefault(word, len(vocabulary)) for word in words(line)], np.int32)
        for table in text.read(corpus_path)
        for line in table["text"].to_pylist()
    ]
    if not vocabulary:
        raise SidmillError(f"{corpus_path}: no passage holds a word: check retrieval.corpus")
    logger.info("%d passages, %d different words", len(passages), len(vocabulary))
    model = bm25s.BM25(k1=k1, b=b, method="lucene")
    model.index((passages, vocabulary), create_empty_token=False, show_progress=False)
    ranks = exact.id_ranks(pids)
    found = [
        best_of(_scores(model, vocabulary, line, len(pids)), ranks, top_k)
        for table in text.read(queries_path)
        for line in table["text"].to_pylist()
    ]
    rows, scores = (np.stack(part) for part in zip(*found, strict=True))
    return as_run(Neighbours(rows, scores), pids, qids)


def words(line: str) -> list[str]:
    """Cut a text into lower-case words; runs of Chinese characters as jieba does."""
    found = []
    for han, word in RUNS.findall(unicodedata.normalize("NFKC", line).lower()):
        found += _cutter().cut(han) if han else [word]
    return found


def best_of(scores: np.ndarray, ranks: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the k highest scores and these, ties by rank: (N,) -> int64 (k,), float32 (k,)."""
    bar = np.partition(scores, len(scores) - k)[len(scores) - k]
    rows = np.flatnonzero(scores >= bar)
    order = np.lexsort((ranks[rows], -scores[rows]))[:k]
    return rows[order], scores[rows[order]]


def _scores(model: bm25s.BM25, vocabulary: dict[str, int], line: str, n_rows: int) -> np.ndarray:
    known = [vocabulary[word] for word in words(line) if word in vocabulary]
    return model.get_scores(known) if known else np.zeros(n_rows, dtype=np.float32)


@cache
def _cutter() -> jieba.Tokenizer:
    """Jieba with its own dictionary, read from the package.

    Left to itself it would load a cache from the folder for temporary files, where anybody may
    have put it.
    """
    cutter = jieba.Tokenizer()
    cutter.FREQ, cutter.total = cutter.gen_pfdict(cutter.get_dict_file())
    cutter.initialized = True
    return cutter
