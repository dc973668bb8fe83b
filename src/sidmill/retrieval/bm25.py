"""BM25, the baseline that a dense retriever has to beat, with jieba's words for Chinese.

Letters: N passages, Q queries, T distinct words of the queries, n passages of one block, p its
postings (pairs of a passage and a word), k passages per query.

An index of the whole corpus would have to be in memory. So passages are indexed block by block,
with the word frequencies and the mean length of the whole corpus; each block is searched and
dropped. Every score is, to the last bit, the one that an index of all passages gives. Only words of
the queries are indexed. The corpus is cut into words once; the postings wait in a temporary file,
because the frequencies are known only at the end.

Source: https://github.com/xhluca/bm25s (Lucene's form of BM25), https://github.com/fxsjy/jieba
"""

import logging
import math
from array import array
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, NamedTuple

import jieba
import numpy as np
from scipy.sparse import csc_matrix

from sidmill.core.errors import SidmillError
from sidmill.core.words import words
from sidmill.formats import item_text, run_files, vector_store
from sidmill.formats.run_files import Run
from sidmill.numeric import exact_search
from sidmill.numeric.topk_heap import Best
from sidmill.retrieval.search import as_run, n_to_find
from sidmill.settings.retrieval import Bm25, Retrieval

logger = logging.getLogger(__name__)

POSTINGS_PER_BLOCK = 2_000_000  # about 60 bytes each while they are counted
PASSAGES_PER_BLOCK = 1 << 18


class Block(NamedTuple):
    """The words of the queries in some consecutive passages.

    Attributes:
        lengths: int32 (n,), words of each passage.
        rows: int32 (p,), passage of each posting, from 0, ascending.
        terms: int32 (p,), its word.
        counts: int32 (p,), occurrences of the word in the passage.
    """

    lengths: np.ndarray
    rows: np.ndarray
    terms: np.ndarray
    counts: np.ndarray


class Corpus(NamedTuple):
    """Figures of the whole corpus: weight of each word, float32 (T,), and words per passage."""

    weights: np.ndarray
    mean_length: float


def search(
    corpus_path: str | Path,
    queries_path: str | Path,
    spool_path: str | Path,
    retrieval: Retrieval,
    settings: Bm25,
) -> Run:
    """Find the k best passages of every query; ties go by id.

    A query gets k passages even where fewer share a word with it: the others score 0.
    Memory: a block of at most ``POSTINGS_PER_BLOCK`` postings, 16 bytes and the id per passage,
    24 k bytes per query.

    Args:
        corpus_path: text.parquet of the passages.
        queries_path: text.parquet of the queries.
        spool_path: temporary file, 12 bytes per posting, removed at the end.
        retrieval: section ``retrieval``: ``top_k`` is k; ``exclude_own`` leaves out the passage
            with the query's id.
        settings: section ``bm25``.

    Raises:
        SidmillError: if k is above N, or no passage holds a word.
    """
    # Everything that is wrong with the ids is said before the search.
    pids, qids = vector_store.read_pids(corpus_path), vector_store.read_pids(queries_path)
    top_k = n_to_find(retrieval, len(pids))
    run_files.check_ids(pids.to_pylist(), str(corpus_path))
    run_files.check_ids(qids.to_pylist(), str(queries_path))

    # Words of the queries, numbered in the order of their first occurrence.
    vocabulary: dict[str, int] = {}
    queries = [
        np.array([vocabulary.setdefault(word, len(vocabulary)) for word in _words(line)], np.int32)
        for table in item_text.read(queries_path)
        for line in table["text"].to_pylist()
    ]

    best = Best(len(queries), top_k, exact_search.id_ranks(pids))
    try:
        with Path(spool_path).open("w+b") as spool:
            corpus, n_blocks = _spool_blocks(spool, corpus_path, vocabulary, len(pids))
            spool.seek(0)
            first = 0
            for block in (_read(spool) for _ in range(n_blocks)):
                _search_block(_index(block, corpus, settings), queries, first, best)
                first += len(block.lengths)
    finally:
        Path(spool_path).unlink(missing_ok=True)
    return as_run(best.result(), pids, qids, retrieval.exclude_own)


def _words(line: str) -> list[str]:
    """The words of a text; jieba cuts runs of Chinese characters."""
    return words(line, _cutter().cut)


def _spool_blocks(
    spool: BinaryIO, corpus_path: str | Path, vocabulary: dict[str, int], n_passages: int
) -> tuple[Corpus, int]:
    """Write all blocks of the corpus; return its figures and the number of blocks.

    Raises:
        SidmillError: if no passage holds a word.
    """
    n_blocks, n_words = 0, 0
    frequencies = np.zeros(len(vocabulary), dtype=np.int64)  # passages that hold each word
    for block in _blocks(corpus_path, vocabulary):
        n_words += int(block.lengths.sum(dtype=np.int64))
        frequencies += np.bincount(block.terms, minlength=len(vocabulary))
        _write(spool, block)
        n_blocks += 1
    if not n_words:
        raise SidmillError(f"{corpus_path}: no passage holds a word: check retrieval.corpus")

    logger.info("%d passages of %d words in all", n_passages, n_words)
    weights = [math.log(1 + (n_passages - n + 0.5) / (n + 0.5)) for n in frequencies.tolist()]
    return Corpus(np.array(weights, dtype=np.float32), n_words / n_passages), n_blocks


def _blocks(corpus_path: str | Path, vocabulary: dict[str, int]) -> Iterator[Block]:
    """Yield the passages as blocks, all of them in row order."""
    lengths, sizes, terms = array("i"), array("i"), array("i")
    for table in item_text.read(corpus_path):
        for line in table["text"].to_pylist():
            found = _words(line)
            shared = [vocabulary[word] for word in found if word in vocabulary]
            lengths.append(len(found))
            sizes.append(len(shared))
            terms.extend(shared)
            if len(terms) >= POSTINGS_PER_BLOCK or len(sizes) >= PASSAGES_PER_BLOCK:
                yield _block(lengths, sizes, terms, len(vocabulary))
                lengths, sizes, terms = array("i"), array("i"), array("i")
    if sizes:
        yield _block(lengths, sizes, terms, len(vocabulary))


def _block(lengths: "array[int]", sizes: "array[int]", terms: "array[int]", n_terms: int) -> Block:
    """Count each word of each passage; ``sizes`` has the number of ``terms`` of a passage."""
    rows = np.repeat(np.arange(len(sizes)), sizes)
    pairs, counts = np.unique(rows * n_terms + np.asarray(terms), return_counts=True)
    columns = (lengths, *np.divmod(pairs, max(n_terms, 1)), counts)
    return Block(*(np.asarray(column, dtype=np.int32) for column in columns))


def _write(spool: BinaryIO, block: Block) -> None:
    for column in block:
        np.save(spool, column, allow_pickle=False)


def _read(spool: BinaryIO) -> Block:
    return Block(*(np.load(spool, allow_pickle=False) for _ in Block._fields))


def _index(block: Block, corpus: Corpus, settings: Bm25) -> csc_matrix:
    """Postings of a block by word, float32 (n, T): the term of each in the score of its passage."""
    k1, b = settings.k1, settings.b
    length = block.lengths[block.rows].astype(np.float64)
    counts = block.counts.astype(np.float32)
    saturation = counts / (k1 * ((1 - b) + b * length / corpus.mean_length) + counts)
    values = (corpus.weights[block.terms] * saturation).astype(np.float32)
    shape = (len(block.lengths), len(corpus.weights))
    return csc_matrix((values, (block.rows, block.terms)), shape=shape)


def _scores(postings: csc_matrix, terms: np.ndarray) -> np.ndarray:
    """Sum the postings of a query's words, in its order: float32 (n,)."""
    scores = np.zeros(postings.shape[0], dtype=np.float32)
    for term in terms:
        part = slice(postings.indptr[term], postings.indptr[term + 1])
        scores[postings.indices[part]] += postings.data[part]
    return scores


def _search_block(postings: csc_matrix, queries: list[np.ndarray], first: int, best: Best) -> None:
    """Add the best passages of a block.

    Args:
        postings: float32 (n, T), of :func:`_index`.
        queries: words of each query, int32.
        first: row of the block in the corpus.
        best: the k best so far.
    """
    n_rows, k = postings.shape[0], best.top_k
    by_rank = np.argsort(best.ranks[first : first + n_rows])[:k]  # the first where all score 0
    for query, terms in enumerate(queries):
        scores = _scores(postings, terms)
        floor = max(best.worst[query], np.float32(0))
        if n_rows > k:
            floor = max(floor, np.partition(scores, n_rows - k)[n_rows - k])

        # Passages that score 0 fill up by id; of them only the first k can be needed.
        rows = np.flatnonzero(scores >= floor) if floor > 0 else np.flatnonzero(scores)
        if floor == 0:
            rows = np.union1d(rows, by_rank)
        best.add(np.full(len(rows), query), rows + first, scores[rows])


@cache
def _cutter() -> jieba.Tokenizer:
    """Jieba with the dictionary of its package.

    By default jieba loads a cache from the shared folder for temporary files, where another user
    may have put it. Here that folder is a new one.
    """
    jieba.setLogLevel(logging.WARNING)
    cutter = jieba.Tokenizer()
    with TemporaryDirectory() as folder:
        cutter.tmp_dir = folder
        cutter.initialize()
    return cutter
