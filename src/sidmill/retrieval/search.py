"""Vectors of passages and queries -> the k best passages of each query.

Letters: N passages, Q queries, D dimensions, k neighbours.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sidmill.core.errors import SidmillError
from sidmill.formats import item_text, neighbour_lists, run_files
from sidmill.formats.neighbour_lists import Neighbours
from sidmill.formats.run_files import Run
from sidmill.formats.vector_store import VectorStore
from sidmill.numeric import exact_search
from sidmill.settings.retrieval import Faiss, Retrieval

logger = logging.getLogger(__name__)

ID_BLOCK = 1 << 20  # ids of passages that are compared at a time


def search_shard(
    corpus: VectorStore,
    queries: VectorStore,
    index_path: str | Path | None,
    shard: int,
    shards: int,
    settings: Retrieval,
    faiss: Faiss,
) -> Neighbours:
    """Find the k best passages of one shard of the corpus for every query.

    Args:
        corpus: the passages.
        queries: the queries.
        index_path: faiss index of the whole corpus, or None for exact search.
        shard: number of the shard, from 0.
        shards: number of shards: consecutive rows, sizes that differ by one at most.
        settings: section ``retrieval``: ``top_k`` is k; with ``exclude_own`` one more is found,
            since the merge drops one; machine settings of the exact search.
        faiss: section ``faiss``, for the search in an index.

    Raises:
        SidmillError: if queries and passages were not embedded alike, or k is above N.
    """
    # Everything that is wrong with the inputs is said before the search.
    check_alike(corpus, queries)
    n_rows = len(corpus.vectors)
    top_k = n_to_find(settings, n_rows)
    run_files.check_ids(corpus.ids.to_pylist(), "the passages")
    run_files.check_ids(queries.ids.to_pylist(), "the queries")

    query_vectors = np.empty(queries.vectors.shape, dtype=np.float32)
    query_vectors[:] = queries.vectors
    ranks = exact_search.id_ranks(corpus.ids)
    if index_path is None:
        rows = range(*item_text.shard_bounds(n_rows, shard, shards))
        return exact_search.search(
            corpus.vectors, query_vectors, top_k, settings, ranks=ranks, rows=rows
        )

    from sidmill.retrieval import index

    return index.search(index_path, corpus.vectors, query_vectors, ranks, top_k, faiss)


def n_to_find(settings: Retrieval, n_passages: int) -> int:
    """Passages to find for each query: one more where its own is left out.

    Raises:
        SidmillError: if the corpus has fewer.
    """
    top_k, exclude_own = settings.top_k, settings.exclude_own
    most = n_passages - exclude_own
    if top_k > most:
        besides = " and retrieval.exclude_own leaves one out" * exclude_own
        raise SidmillError(
            f"retrieval.top_k is {top_k}, the corpus has {n_passages} passages{besides}: lower it "
            f"to at most {most}"
        )
    return top_k + exclude_own


def merge_shards(
    part_paths: Sequence[str | Path],
    pids: pa.ChunkedArray,
    qids: pa.ChunkedArray,
    settings: Retrieval,
) -> Run:
    """Merge the shards of a search into a run of exactly k passages per query.

    Args:
        part_paths: files of the results of :func:`search_shard`.
        pids: ids of the passages, in row order.
        qids: ids of the queries, in row order.
        settings: section ``retrieval``: whether ``exclude_own`` leaves a query's own passage out.

    Raises:
        SidmillError: if a query has fewer than k passages.
    """
    parts = [neighbour_lists.read(path) for path in part_paths]
    merged = exact_search.merge(parts, exact_search.id_ranks(pids))
    return as_run(merged, pids, qids, settings.exclude_own)


def as_run(
    neighbours: Neighbours, pids: pa.ChunkedArray, qids: pa.ChunkedArray, exclude_own: bool
) -> Run:
    """Make a run of the neighbours that a search found: ids for row numbers, own passage left out.

    Also counts the queries that have the id of a passage.

    Args:
        neighbours: k passages, and one more where the own passage is left out.
        pids: ids of the passages, in row order.
        qids: ids of the queries, in row order.
        exclude_own: whether to leave out the passage with the query's id, or else the last one.

    Raises:
        SidmillError: if a query has fewer than k passages.
    """
    names = [str(qid) for qid in qids.to_pylist()]
    short = np.flatnonzero((neighbours.rows < 0).any(axis=1))
    if short.size:
        n_found = int((neighbours.rows[short[0]] >= 0).sum())
        raise SidmillError(
            f"{short.size} queries have fewer than {neighbours.rows.shape[1]} passages, first "
            f"{names[short[0]]!r} with {n_found}: raise faiss.nprobe or faiss.ef_search, or lower "
            f"retrieval.top_k"
        )

    # Each distinct row becomes a string once.
    distinct, inverse = np.unique(neighbours.rows, return_inverse=True)
    shape = neighbours.rows.shape
    texts = [str(pid) for pid in pids.take(pa.array(distinct)).to_pylist()]
    lines = [[texts[at] for at in line] for line in inverse.reshape(shape)]
    run = Run(names, lines, neighbours.scores)

    n_own = _count_own(pids, names)
    if n_own:
        done = "is left out" if exclude_own else "may be found: retrieval.exclude_own leaves it out"
        logger.info("%d of %d queries have the id of a passage, which %s", n_own, len(names), done)
    return _without_own(run) if exclude_own else run


def _count_own(pids: pa.ChunkedArray, names: list[str]) -> int:
    """Number of queries that have the id of a passage. Memory: a block of ids."""
    queries = pa.array(names, pa.string())
    return sum(
        pc.sum(pc.is_in(chunk.slice(start, ID_BLOCK).cast(pa.string()), value_set=queries)).as_py()
        for chunk in pids.chunks
        for start in range(0, len(chunk), ID_BLOCK)
    )


def _without_own(run: Run) -> Run:
    """Leave out the passage with the query's id, or the last one where it was not found."""
    is_kept = np.ones(run.scores.shape, dtype=bool)
    for row, (qid, line) in enumerate(zip(run.qids, run.pids, strict=True)):
        is_kept[row, line.index(qid) if qid in line else -1] = False
    flags: list[list[bool]] = is_kept.tolist()
    pids = [
        [pid for pid, stays in zip(line, row, strict=True) if stays]
        for line, row in zip(run.pids, flags, strict=True)
    ]
    return Run(run.qids, pids, run.scores[is_kept].reshape(len(run.qids), -1))


def check_alike(corpus: VectorStore, queries: VectorStore) -> None:
    """Refuse a search with queries and passages of different embedding spaces; prompts may differ.

    Raises:
        SidmillError: naming what differs.
    """
    ours, theirs = queries.fingerprint, corpus.fingerprint
    differing = [
        key for key in sorted({*ours, *theirs} - {"prompt"}) if ours.get(key) != theirs.get(key)
    ]
    if differing:
        facts = ", ".join(f"{key} {ours.get(key)!r}, not {theirs.get(key)!r}" for key in differing)
        raise SidmillError(
            f"the queries were embedded with other settings than the passages ({facts}): delete "
            f"the vectors that are out of date and run again"
        )
