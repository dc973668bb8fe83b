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

logger = logging.getLogger(__name__)

ID_BLOCK = 1 << 20  # ids of passages looked at at a time


def search_shard(
    corpus: VectorStore,
    queries: VectorStore,
    index_path: str | None,
    *,
    shard: int,
    shards: int,
    top_k: int,
    exclude_own: bool,
    search_batch: int,
    device: str,
    memory_mb: int,
    nprobe: int,
    ef_search: int,
    candidates: int,
) -> Neighbours:
    """Find the k best passages of one shard of the corpus for every query.

    Args:
        corpus: the passages.
        queries: the queries.
        index_path: faiss index of the whole corpus, or None to compare with every passage.
        shard: number of the shard, from 0.
        shards: how many there are: consecutive rows, sizes that differ by one at most.
        top_k: k.
        exclude_own: whether the passage with the query's id is left out later: one more is found.
        search_batch: queries at a time.
        device: auto, cpu or cuda, of the exact search.
        memory_mb: MiB for the blocks of the exact search.
        nprobe: lists that an inverted file looks into.
        ef_search: candidates that HNSW keeps while it walks.
        candidates: neighbours that the index names, of which exact scores choose the k best.

    Raises:
        SidmillError: if queries and passages were not embedded alike, or k is above N.
    """
    check_alike(corpus, queries)
    n_rows = len(corpus.vectors)
    top_k = wanted(top_k, n_rows, exclude_own)
    run_files.check_ids(corpus.ids.to_pylist(), "the passages")
    run_files.check_ids(queries.ids.to_pylist(), "the queries")
    asked = np.empty(queries.vectors.shape, dtype=np.float32)
    asked[:] = queries.vectors
    ranks = exact_search.id_ranks(corpus.ids)
    if index_path is None:
        start, stop = item_text.shard_bounds(n_rows, shard, shards)
        return exact_search.search(
            corpus.vectors,
            asked,
            ranks,
            start=start,
            stop=stop,
            top_k=top_k,
            search_batch=search_batch,
            device=device,
            memory_mb=memory_mb,
        )
    from sidmill.retrieval import index

    return index.search(
        index_path,
        corpus.vectors,
        asked,
        ranks,
        top_k=top_k,
        search_batch=search_batch,
        nprobe=nprobe,
        ef_search=ef_search,
        candidates=candidates,
    )


def wanted(top_k: int, n_passages: int, exclude_own: bool) -> int:
    """How many passages to find for each query: one more where its own is left out.

    Raises:
        SidmillError: if the corpus has not so many.
    """
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
    *,
    exclude_own: bool,
) -> Run:
    """Merge the shards of a search into a run of exactly k passages per query.

    Args:
        part_paths: files that :func:`search_shard`'s results were written to.
        pids: ids of the passages, in row order.
        qids: ids of the queries, in row order.
        exclude_own: leave out the passage with the query's id.

    Raises:
        SidmillError: if a query has fewer than k passages.
    """
    parts = [neighbour_lists.read(path) for path in part_paths]
    return as_run(exact_search.merge(parts, exact_search.id_ranks(pids)), pids, qids, exclude_own)


def as_run(
    found: Neighbours, pids: pa.ChunkedArray, qids: pa.ChunkedArray, exclude_own: bool
) -> Run:
    """Put ids in place of row numbers; count the queries whose id a passage has, and leave it out.

    Args:
        found: one passage more than wanted, where the own one is left out.
        pids: ids of the passages, in row order.
        qids: ids of the queries, in row order.
        exclude_own: whether the passage with the query's id is left out, else the last one.

    Raises:
        SidmillError: if a query has fewer than k passages.
    """
    names = [str(qid) for qid in qids.to_pylist()]
    short = np.flatnonzero((found.rows < 0).any(axis=1))
    if short.size:
        n_found = int((found.rows[short[0]] >= 0).sum())
        raise SidmillError(
            f"{short.size} queries have fewer than {found.rows.shape[1]} passages, first "
            f"{names[short[0]]!r} with {n_found}: raise faiss.nprobe or faiss.ef_search, or lower "
            f"retrieval.top_k"
        )
    distinct, places = np.unique(found.rows, return_inverse=True)
    words = [str(pid) for pid in pids.take(pa.array(distinct)).to_pylist()]
    lines = places.reshape(found.rows.shape).tolist()
    run = Run(names, [[words[place] for place in line] for line in lines], found.scores)

    n_own = _count_own(pids, names)
    if n_own:
        done = "is left out" if exclude_own else "may be found: retrieval.exclude_own leaves it out"
        logger.info("%d of %d queries have the id of a passage, which %s", n_own, len(names), done)
    return _without_own(run) if exclude_own else run


def _count_own(pids: pa.ChunkedArray, names: list[str]) -> int:
    """How many queries have the id of a passage, looked at a chunk at a time."""
    known = pa.array(names, pa.string())
    return sum(
        pc.sum(pc.is_in(chunk.slice(start, ID_BLOCK).cast(pa.string()), value_set=known)).as_py()
        for chunk in pids.chunks
        for start in range(0, len(chunk), ID_BLOCK)
    )


def _without_own(run: Run) -> Run:
    """Leave out the passage with the query's id, the last one where it is not among them."""
    kept = np.ones(run.scores.shape, dtype=bool)
    for row, (qid, pids) in enumerate(zip(run.qids, run.pids, strict=True)):
        kept[row, pids.index(qid) if qid in pids else -1] = False
    pids = [
        [pid for pid, stays in zip(line, row, strict=True) if stays]
        for line, row in zip(run.pids, kept.tolist(), strict=True)
    ]
    return Run(run.qids, pids, run.scores[kept].reshape(len(run.qids), -1))


def check_alike(corpus: VectorStore, queries: VectorStore) -> None:
    """Stop if queries and passages are not of one embedding space; prompts may differ.

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
            f"the queries were embedded otherwise than the passages ({facts}): delete the vectors "
            f"that are out of date and run again"
        )
