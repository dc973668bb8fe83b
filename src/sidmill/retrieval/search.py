"""Vectors of passages and queries -> the k best passages of each query.

Letters: N passages, Q queries, D dimensions, k neighbours.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.formats import neighbours, text
from sidmill.formats.neighbours import Neighbours
from sidmill.formats.runs import Run
from sidmill.formats.vectors import VectorStore
from sidmill.retrieval import exact

logger = logging.getLogger(__name__)


def search_shard(
    corpus: VectorStore,
    queries: VectorStore,
    index_path: str | None,
    *,
    shard: int,
    shards: int,
    top_k: int,
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
    if top_k > n_rows:
        raise SidmillError(
            f"retrieval.top_k is {top_k}, the corpus has {n_rows} passages: lower it to at most "
            f"{n_rows}"
        )
    asked = np.empty(queries.vectors.shape, dtype=np.float32)
    asked[:] = queries.vectors
    ranks = exact.id_ranks(corpus.ids)
    if index_path is None:
        start, stop = text.shard_bounds(n_rows, shard, shards)
        return exact.search(
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


def merge_shards(
    part_paths: Sequence[str | Path], pids: pa.ChunkedArray, qids: pa.ChunkedArray
) -> Run:
    """Merge the shards of a search into a run of exactly k passages per query.

    Args:
        part_paths: files that :func:`search_shard`'s results were written to.
        pids: ids of the passages, in row order.
        qids: ids of the queries, in row order.

    Raises:
        SidmillError: if a query has fewer than k passages.
    """
    parts = [neighbours.read(path) for path in part_paths]
    return as_run(exact.merge(parts, exact.id_ranks(pids)), pids, qids)


def as_run(found: Neighbours, pids: pa.ChunkedArray, qids: pa.ChunkedArray) -> Run:
    """Put ids in place of row numbers.

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
    return Run(names, [[words[place] for place in line] for line in lines], found.scores)


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
