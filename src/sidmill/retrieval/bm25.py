"""BM25, the baseline that a dense retriever has to beat, by bm25s, with jieba's words for Chinese.

Letters: N passages, Q queries, n passages of one block, p its postings, k passages per query.

An index of bm25s is in memory while it is built. So passages are indexed block by block, with the
frequencies and the mean length of the whole corpus, and each block is searched and dropped: every
score is the one that an index of all passages gives. Only words of the queries are indexed. The
corpus is cut into words once; what was found waits in a file, because the frequencies are known at
the end alone.

Source: https://github.com/xhluca/bm25s (Lucene's form of BM25), https://github.com/fxsjy/jieba
"""

import logging
import math
from array import array
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import bm25s
import jieba
import numpy as np
from scipy.sparse import csc_matrix

from sidmill.core.errors import SidmillError
from sidmill.core.words import words
from sidmill.formats import item_text, run_files, vector_store
from sidmill.formats.run_files import Run
from sidmill.numeric import exact_search
from sidmill.numeric.topk_heap import Best
from sidmill.retrieval.search import as_run, wanted

logger = logging.getLogger(__name__)

POSTINGS_PER_BLOCK = 2_000_000  # some 60 bytes each while they are counted
PASSAGES_PER_BLOCK = 1 << 18


class Block(NamedTuple):
    """What some passages hold of the words of the queries.

    Attributes:
        lengths: int32 (n,), words of each passage.
        rows: int32 (p,), passage of each posting, from 0, ascending.
        terms: int32 (p,), its word.
        counts: int32 (p,), how often it stands there.
    """

    lengths: np.ndarray
    rows: np.ndarray
    terms: np.ndarray
    counts: np.ndarray


def search(
    corpus_path: str | Path,
    queries_path: str | Path,
    spool_path: str | Path,
    *,
    top_k: int,
    exclude_own: bool,
    k1: float,
    b: float,
) -> Run:
    """Find the k best passages of every query; ties go by id.

    A query has k passages even where fewer share a word with it: the rest scores 0.
    Memory: a block of at most ``POSTINGS_PER_BLOCK`` postings, 16 bytes and the id per passage,
    24 k bytes per query.

    Args:
        corpus_path: text.parquet of the passages.
        queries_path: text.parquet of the queries.
        spool_path: file that is written meanwhile, 12 bytes per posting, and removed at the end.
        top_k: k.
        exclude_own: leave out the passage with the query's id.
        k1: how soon a repeated word stops counting; 0 counts it once.
        b: how far long passages are marked down, from 0 to 1.

    Raises:
        SidmillError: if k is above N, or no passage holds a word.
    """
    pids, qids = vector_store.read_pids(corpus_path), vector_store.read_pids(queries_path)
    top_k = wanted(top_k, len(pids), exclude_own)
    run_files.check_ids(pids.to_pylist(), str(corpus_path))
    run_files.check_ids(qids.to_pylist(), str(queries_path))
    vocabulary: dict[str, int] = {}
    asked = [
        np.array([vocabulary.setdefault(word, len(vocabulary)) for word in _words(line)], np.int32)
        for table in item_text.read(queries_path)
        for line in table["text"].to_pylist()
    ]
    n_words, frequencies = 0, np.zeros(len(vocabulary), dtype=np.int64)
    best = Best(len(asked), top_k, exact_search.id_ranks(pids))
    try:
        with Path(spool_path).open("w+b") as spool:
            n_blocks = 0
            for block in _cut(corpus_path, vocabulary):
                n_words += int(block.lengths.sum(dtype=np.int64))
                frequencies += np.bincount(block.terms, minlength=len(vocabulary))
                _write(spool, block)
                n_blocks += 1
            if not n_words:
                raise SidmillError(
                    f"{corpus_path}: no passage holds a word: check retrieval.corpus"
                )
            logger.info("%d passages of %d words in all", len(pids), n_words)
            weights = np.array(
                [math.log(1 + (len(pids) - n + 0.5) / (n + 0.5)) for n in frequencies.tolist()],
                dtype=np.float32,
            )
            spool.seek(0)
            first = 0
            for block in (_read(spool) for _ in range(n_blocks)):
                model = _index(block, weights, n_words / len(pids), k1, b)
                _search_block(model, asked, first, best)
                first += len(block.lengths)
    finally:
        Path(spool_path).unlink(missing_ok=True)
    return as_run(best.result(), pids, qids, exclude_own)


def _words(line: str) -> list[str]:
    """The words of a text; jieba cuts runs of Chinese characters."""
    return words(line, _cutter().cut)


def _cut(corpus_path: str | Path, vocabulary: dict[str, int]) -> Iterator[Block]:
    """Yield the passages as blocks, all of them in row order."""
    lengths, sizes, terms = array("i"), array("i"), array("i")
    for table in item_text.read(corpus_path):
        for line in table["text"].to_pylist():
            found = _words(line)
            known = [vocabulary[word] for word in found if word in vocabulary]
            lengths.append(len(found))
            sizes.append(len(known))
            terms.extend(known)
            if len(terms) >= POSTINGS_PER_BLOCK or len(sizes) >= PASSAGES_PER_BLOCK:
                yield _block(lengths, sizes, terms, len(vocabulary))
                lengths, sizes, terms = array("i"), array("i"), array("i")
    if sizes:
        yield _block(lengths, sizes, terms, len(vocabulary))


def _block(lengths: array, sizes: array, terms: array, n_terms: int) -> Block:
    """Count each word of each passage; ``sizes`` says how many of ``terms`` a passage has."""
    rows = np.repeat(np.arange(len(sizes)), sizes)
    pairs, counts = np.unique(rows * n_terms + np.asarray(terms), return_counts=True)
    columns = (lengths, *np.divmod(pairs, max(n_terms, 1)), counts)
    return Block(*(np.asarray(column, dtype=np.int32) for column in columns))


def _write(spool: BinaryIO, block: Block) -> None:
    for column in block:
        np.save(spool, column, allow_pickle=False)


def _read(spool: BinaryIO) -> Block:
    return Block(*(np.load(spool, allow_pickle=False) for _ in Block._fields))


def _index(
    block: Block, weights: np.ndarray, mean_length: float, k1: float, b: float
) -> bm25s.BM25:
    """A block as bm25s searches it: postings by word, each with its share of a score.

    Args:
        block: the block.
        weights: float32, of each word, over the whole corpus.
        mean_length: words per passage, over the whole corpus.
        k1: as of :func:`search`.
        b: as of :func:`search`.
    """
    length = block.lengths[block.rows].astype(np.float64)
    counts = block.counts.astype(np.float32)
    share = counts / (k1 * ((1 - b) + b * length / mean_length) + counts)
    shape = (len(block.lengths), len(weights))
    data = (weights[block.terms] * share).astype(np.float32)
    postings = csc_matrix((data, (block.rows, block.terms)), shape=shape)
    model = bm25s.BM25(k1=k1, b=b, method="lucene")
    model.scores = {
        "data": postings.data,
        "indices": postings.indices,
        "indptr": postings.indptr,
        "num_docs": len(block.lengths),
    }
    model.nonoccurrence_array = None  # Lucene's form has none
    return model


def _search_block(model: bm25s.BM25, asked: Iterable[np.ndarray], first: int, best: Best) -> None:
    """Take in the best passages of a block.

    Args:
        model: the block.
        asked: words of each query, int32.
        first: row of the block in the corpus.
        best: what was found so far.
    """
    n_rows, k = model.scores["num_docs"], best.top_k
    by_rank = np.argsort(best.ranks[first : first + n_rows])[:k]  # first where all score 0
    for query, terms in enumerate(asked):
        scores = model.get_scores_from_ids(terms) if len(terms) else np.zeros(n_rows, np.float32)
        floor = max(best.worst[query], np.float32(0))
        if n_rows > k:
            floor = max(floor, np.partition(scores, n_rows - k)[n_rows - k])
        rows = np.flatnonzero(scores >= floor) if floor > 0 else np.flatnonzero(scores)
        if floor == 0:
            rows = np.union1d(rows, by_rank)
        best.add(np.full(len(rows), query), rows + first, scores[rows])


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
