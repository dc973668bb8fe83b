"""Hard negatives: passages that the model ranks high for a training query, though no answer.

A passage as near as the answer is often an answer that nobody marked, so those that reach
``margin`` of the answer's score are passed over.

Source: ANCE, https://arxiv.org/abs/2007.00808; the margin of NV-Retriever,
https://arxiv.org/abs/2407.15831
"""

import logging
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.formats import item_text, triples
from sidmill.formats.vector_store import VectorStore
from sidmill.numeric import exact_search, row_blocks
from sidmill.retrieval.search import check_alike

logger = logging.getLogger(__name__)


def write_pool(
    triples_path: str | Path,
    corpus_path: str | Path | None,
    pool_path: str | Path,
    queries_path: str | Path,
) -> None:
    """Write what is mined: the training queries, and the passages that negatives come from.

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
        for table in triples.read(triples_path, triples.TRIPLES):
            queries.update(dict.fromkeys(table["query"].to_pylist()))
            for name in ("positive", "negative"):
                for line in table[name].to_pylist():
                    if line is not None and (key := _digest(line)) not in seen:
                        seen.add(key)
                        yield line
        for table in item_text.read(corpus_path) if corpus_path else ():
            yield from (line for line in table["text"].to_pylist() if _digest(line) not in seen)

    item_text.write(pool_path, pa.int64(), _tables(passages()))
    item_text.write(queries_path, pa.int64(), _tables(iter(queries)))


def mine(
    triples_path: str | Path,
    pool_path: str | Path,
    queries_path: str | Path,
    pool: VectorStore,
    queries: VectorStore,
    mined_path: str | Path,
    pairs_path: str | Path,
    *,
    depth: int,
    skip: int,
    margin: float,
    negatives: int,
    search_batch: int,
    device: str,
    memory_mb: int,
) -> dict:
    """Find negatives for every training query and write them as triples and as pairs.

    Args:
        triples_path: triples.parquet: the answers.
        pool_path: text.parquet of the pool.
        queries_path: text.parquet of the training queries.
        pool: vectors of the pool.
        queries: vectors of the training queries, by the same model.
        mined_path: triples.parquet to write: each answer with each of its query's negatives, or
            with null where none is left.
        pairs_path: pairs.parquet to write: answers with label 1, negatives with label 0.
        depth: how many passages are looked at for a query.
        skip: of these, the first so many are passed over.
        margin: a negative scores less than this share of the answer's score (of the lowest one's,
            where there are several); 1 asks for less than the answer, a large number for nothing.
            Below a negative score the same distance is kept.
        negatives: per query, at most; the highest are taken.
        search_batch: queries at a time.
        device: of the search.
        memory_mb: of the search.

    Returns:
        Counts: queries, negatives, queries without any.

    Raises:
        SidmillError: if the vectors are not of these texts, or no query has a negative.
    """
    check_alike(pool, queries)
    answers = _answers(triples_path, pool_path, queries_path)  # rows of the pool, by query
    if len(answers) != len(queries.vectors):
        raise SidmillError(f"{queries_path}: not the queries of {triples_path}: run again")
    asked = np.empty(queries.vectors.shape, dtype=np.float32)
    asked[:] = queries.vectors
    found = exact_search.search(
        pool.vectors,
        asked,
        np.arange(len(pool.vectors)),
        start=0,
        stop=len(pool.vectors),
        top_k=min(depth, len(pool.vectors)),
        search_batch=search_batch,
        device=device,
        memory_mb=memory_mb,
    )
    bars = _bars(_answer_scores(pool.vectors, asked, answers), margin)
    kept = []
    for row, known in enumerate(answers):
        good = (found.scores[row] < bars[row]) & ~np.isin(found.rows[row], known)
        good[:skip] = False
        kept.append(found.rows[row][good][:negatives])
    counts = {
        "queries": len(answers),
        "negatives": sum(map(len, kept)),
        "without": sum(not len(rows) for rows in kept),
    }
    logger.info("%s", counts)
    if not counts["negatives"]:
        raise SidmillError(
            f"no passage scores below {margin} of an answer among the first {depth}: raise "
            f"mining.margin or mining.depth"
        )
    names = [line for table in item_text.read(queries_path) for line in table["text"].to_pylist()]
    words = _words(pool_path, np.unique(np.concatenate([*kept, *answers])))
    triples.write(mined_path, triples.TRIPLES, _triples(names, answers, kept, words))
    triples.write(pairs_path, triples.PAIRS, _pairs(names, answers, kept, words))
    return counts


def _bars(scores: np.ndarray, margin: float) -> np.ndarray:
    """float32 (Q,): what negatives stay below. A share of a negative score would lie above it."""
    return scores * np.where(scores < 0, 2 - margin, margin).astype(np.float32)


def _answers(
    triples_path: str | Path, pool_path: str | Path, queries_path: str | Path
) -> list[np.ndarray]:
    """Rows of the pool that answer each query, ascending, int64."""
    wanted: dict[str, set[bytes]] = {}
    for table in triples.read(triples_path, triples.TRIPLES):
        for query, positive in zip(
            table["query"].to_pylist(), table["positive"].to_pylist(), strict=True
        ):
            wanted.setdefault(query, set()).add(_digest(positive))
    rows = dict.fromkeys(set().union(*wanted.values()), -1)
    row = 0
    for table in item_text.read(pool_path):
        for line in table["text"].to_pylist():
            key = _digest(line)
            if rows.get(key) == -1:
                rows[key] = row
            row += 1
    missing = sum(place < 0 for place in rows.values())
    if missing:
        raise SidmillError(f"{pool_path} lacks {missing} answers of {triples_path}: run again")
    names = (line for table in item_text.read(queries_path) for line in table["text"].to_pylist())
    return [np.array(sorted(rows[key] for key in wanted.get(name, ())), np.int64) for name in names]


def _answer_scores(
    vectors: np.ndarray, queries: np.ndarray, answers: list[np.ndarray]
) -> np.ndarray:
    """float32 (Q,): the score of each query's lowest answer."""
    lowest = np.full(len(queries), np.inf, dtype=np.float32)
    query = np.repeat(np.arange(len(queries)), [len(rows) for rows in answers])
    rows = np.concatenate(answers)
    wanted, place = np.unique(rows, return_inverse=True)
    order = np.argsort(place, kind="stable")
    for start, block in row_blocks.read_blocks(vectors, exact_search.PAIRS, wanted):
        low, high = np.searchsorted(place[order], (start, start + len(block)))
        part = order[low:high]
        scores = exact_search.score(queries[query[part]], block[place[part] - start])
        np.minimum.at(lowest, query[part], scores)
    return lowest


def _triples(
    names: list[str], answers: list[np.ndarray], kept: list[np.ndarray], words: dict[int, str]
) -> Iterator[tuple]:
    for name, known, negatives in zip(names, answers, kept, strict=True):
        for row in known.tolist():
            for other in negatives.tolist() or [None]:
                yield name, words[row], None if other is None else words[other]


def _pairs(
    names: list[str], answers: list[np.ndarray], kept: list[np.ndarray], words: dict[int, str]
) -> Iterator[tuple]:
    for name, known, negatives in zip(names, answers, kept, strict=True):
        yield from ((name, words[row], 1) for row in known.tolist())
        yield from ((name, words[row], 0) for row in negatives.tolist())


def _words(path: str | Path, rows: np.ndarray) -> dict[int, str]:
    """The texts of some rows. Memory: these, and a row group."""
    found, first = {}, 0
    for table in item_text.read(path):
        begin, end = np.searchsorted(rows, (first, first + table.num_rows))
        lines = table["text"].take(rows[begin:end] - first).to_pylist()
        found.update(zip(rows[begin:end].tolist(), lines, strict=True))
        first += table.num_rows
    return found


def _tables(lines: Iterator[str]) -> Iterator[pa.Table]:
    number, waiting = 0, []
    for line in lines:
        waiting.append(line)
        if len(waiting) == 1024:
            yield pa.table({"pid": np.arange(number, number + 1024), "text": waiting})
            number, waiting = number + 1024, []
    if waiting:
        yield pa.table({"pid": np.arange(number, number + len(waiting)), "text": waiting})


def _digest(line: str) -> bytes:
    return blake2b(line.encode(), digest_size=16).digest()
