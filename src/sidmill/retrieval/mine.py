"""Hard negatives: passages that rank high for a training query and do not answer it.

A passage as near as the answer is often an answer without a label, so passages whose score reaches
the share ``margin`` of the answer's score are skipped.

Letters: P passages of the pool, Q training queries, D dimensions.

Source: ANCE, https://arxiv.org/abs/2007.00808; the margin of NV-Retriever,
https://arxiv.org/abs/2407.15831
"""

import logging
from collections.abc import Iterator
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.formats import item_text, triples
from sidmill.formats.vector_store import VectorStore
from sidmill.numeric import exact_search, row_blocks
from sidmill.retrieval.search import check_alike
from sidmill.settings.retrieval import Mining, Retrieval

logger = logging.getLogger(__name__)

TABLE_ROWS = 1024


class Texts(NamedTuple):
    """Files to mine from: triples.parquet, and text.parquet of the pool and of the queries."""

    triples: str | Path
    pool: str | Path
    queries: str | Path


class Mined(NamedTuple):
    """What was found, by query.

    Attributes:
        names: texts of the queries.
        answers: rows of the pool that answer each query, ascending, int64.
        negatives: rows of the pool that are its negatives, best first, int64.
        texts: texts of all these rows.
    """

    names: list[str]
    answers: list[np.ndarray]
    negatives: list[np.ndarray]
    texts: dict[int, str]


def write_pool(
    triples_path: str | Path,
    corpus_path: str | Path | None,
    pool_path: str | Path,
    queries_path: str | Path,
) -> None:
    """Write the training queries, and the pool of passages that negatives come from.

    The pool is every passage of the training file, then those of the corpus with another text.
    Ids are row numbers. Memory: about 100 bytes per training passage.

    Args:
        triples_path: triples.parquet.
        corpus_path: text.parquet of the corpus, or None for the training passages alone.
        pool_path: text.parquet to write.
        queries_path: text.parquet to write.
    """
    queries: dict[str, None] = {}
    seen: set[bytes] = set()

    def passages() -> Iterator[str]:
        # The training passages, each text once.
        for table in triples.read(triples_path, triples.TRIPLES):
            queries.update(dict.fromkeys(table["query"].to_pylist()))
            for name in ("positive", "negative"):
                for line in table[name].to_pylist():
                    if line is not None and (key := _digest(line)) not in seen:
                        seen.add(key)
                        yield line

        # Passages of the corpus with equal texts are all in the pool.
        for table in item_text.read(corpus_path) if corpus_path else ():
            yield from (line for line in table["text"].to_pylist() if _digest(line) not in seen)

    item_text.write(pool_path, pa.int64(), _tables(passages()))
    item_text.write(queries_path, pa.int64(), _tables(iter(queries)))


def mine(
    files: Texts,
    pool: VectorStore,
    queries: VectorStore,
    mined_path: str | Path,
    pairs_path: str | Path,
    settings: Mining,
    search: Retrieval,
) -> dict[str, int]:
    """Find negatives for every training query and write them as triples and as pairs.

    Args:
        files: texts of the pool and of the queries, and the triples that hold the answers.
        pool: vectors of the pool, (P, D).
        queries: vectors of the training queries, (Q, D), by the same model.
        mined_path: triples.parquet to write: each answer with each of its query's negatives, or
            with null where the query has none.
        pairs_path: pairs.parquet to write: answers with label 1, negatives with label 0.
        settings: section ``mining``. Of the first ``depth`` passages of a query, ``skip`` are
            skipped. A negative scores less than the share ``margin`` of the answer's score (the
            lowest one, if there are several); 1 asks for less than the answer, a large number for
            nothing. Below a negative score the distance is the same.
        search: section ``retrieval``: machine settings of the search.

    Returns:
        Counts: queries, negatives, queries without any.

    Raises:
        SidmillError: if the vectors are not of these texts, or no query has a negative.
    """
    check_alike(pool, queries)
    answers = _answers(files)
    if len(answers) != len(queries.vectors):
        raise SidmillError(f"{files.queries}: not the queries of {files.triples}: run again")

    # The nearest passages of each query, and the score that a negative stays below.
    query_vectors = np.empty(queries.vectors.shape, dtype=np.float32)
    query_vectors[:] = queries.vectors
    depth = min(settings.depth, len(pool.vectors))
    nearest = exact_search.search(pool.vectors, query_vectors, depth, search)
    lowest = _answer_scores(pool.vectors, query_vectors, answers)
    thresholds = _thresholds(lowest, settings.margin)

    negatives = []
    for row, own in enumerate(answers):
        is_good = (nearest.scores[row] < thresholds[row]) & ~np.isin(nearest.rows[row], own)
        is_good[: settings.skip] = False
        negatives.append(nearest.rows[row][is_good][: settings.negatives])

    counts = {
        "queries": len(answers),
        "negatives": sum(map(len, negatives)),
        "without": sum(not len(rows) for rows in negatives),
    }
    logger.info("%s", counts)
    if not counts["negatives"]:
        raise SidmillError(
            f"no passage scores below {settings.margin} of an answer among the first "
            f"{settings.depth}: raise mining.margin or mining.depth"
        )

    texts = _texts_of_rows(files.pool, np.unique(np.concatenate([*negatives, *answers])))
    mined = Mined(list(_lines(files.queries)), answers, negatives, texts)
    triples.write(mined_path, triples.TRIPLES, _triples(mined))
    triples.write(pairs_path, triples.PAIRS, _pairs(mined))
    return counts


def _thresholds(scores: np.ndarray, margin: float) -> np.ndarray:
    """float32 (Q,): negatives score less. A share of a negative score would be above that score."""
    return scores * np.where(scores < 0, 2 - margin, margin).astype(np.float32)


def _answers(files: Texts) -> list[np.ndarray]:
    """Rows of the pool that answer each query, ascending, int64."""
    # Digests of the answers of each query.
    digests: dict[str, set[bytes]] = {}
    for table in triples.read(files.triples, triples.TRIPLES):
        queries, positives = (table[name].to_pylist() for name in ("query", "positive"))
        for query, positive in zip(queries, positives, strict=True):
            digests.setdefault(query, set()).add(_digest(positive))

    # The first row of the pool with each digest.
    rows = dict.fromkeys(set().union(*digests.values()), -1)
    for row, line in enumerate(_lines(files.pool)):
        key = _digest(line)
        if rows.get(key) == -1:
            rows[key] = row
    missing = sum(row < 0 for row in rows.values())
    if missing:
        raise SidmillError(f"{files.pool} lacks {missing} answers of {files.triples}: run again")

    return [
        np.array(sorted(rows[key] for key in digests.get(name, ())), np.int64)
        for name in _lines(files.queries)
    ]


def _answer_scores(
    vectors: np.ndarray, queries: np.ndarray, answers: list[np.ndarray]
) -> np.ndarray:
    """float32 (Q,): the score of each query's lowest answer."""
    # Pairs of query and answer, by the row of the answer.
    query = np.repeat(np.arange(len(queries)), [len(rows) for rows in answers])
    distinct, inverse = np.unique(np.concatenate(answers), return_inverse=True)
    order = np.argsort(inverse, kind="stable")

    lowest = np.full(len(queries), np.inf, dtype=np.float32)
    for start, block in row_blocks.read_blocks(vectors, exact_search.PAIRS, distinct):
        low, high = np.searchsorted(inverse[order], (start, start + len(block)))
        pairs = order[low:high]
        scores = exact_search.score(queries[query[pairs]], block[inverse[pairs] - start])
        np.minimum.at(lowest, query[pairs], scores)
    return lowest


def _triples(mined: Mined) -> Iterator[tuple[str, str, str | None]]:
    rows = zip(mined.names, mined.answers, mined.negatives, strict=True)
    for name, answers, negatives in rows:
        for row in answers.tolist():
            for other in negatives.tolist() or [None]:
                yield name, mined.texts[row], None if other is None else mined.texts[other]


def _pairs(mined: Mined) -> Iterator[tuple[str, str, int]]:
    rows = zip(mined.names, mined.answers, mined.negatives, strict=True)
    for name, answers, negatives in rows:
        yield from ((name, mined.texts[row], 1) for row in answers.tolist())
        yield from ((name, mined.texts[row], 0) for row in negatives.tolist())


def _texts_of_rows(path: str | Path, rows: np.ndarray) -> dict[int, str]:
    """The texts of some ascending rows. Memory: these, and a row group."""
    texts: dict[int, str] = {}
    first = 0
    for table in item_text.read(path):
        begin, end = np.searchsorted(rows, (first, first + table.num_rows))
        lines = table["text"].take(rows[begin:end] - first).to_pylist()
        texts.update(zip(rows[begin:end].tolist(), lines, strict=True))
        first += table.num_rows
    return texts


def _lines(path: str | Path) -> Iterator[str]:
    """The texts of a text.parquet, in row order."""
    for table in item_text.read(path):
        yield from table["text"].to_pylist()


def _tables(lines: Iterator[str]) -> Iterator[pa.Table]:
    """Tables of row numbers and texts, for text.parquet."""
    first = 0
    while batch := list(islice(lines, TABLE_ROWS)):
        yield pa.table({"pid": np.arange(first, first + len(batch)), "text": batch})
        first += len(batch)


def _digest(line: str) -> bytes:
    return blake2b(line.encode(), digest_size=16).digest()
