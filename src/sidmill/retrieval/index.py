"""Approximate search: a faiss index of the passages, and exact scores for what it names.

Letters: N passages, Q queries, D dimensions, k neighbours, C candidates.

The index only names candidates; the scores and the order are those of ``exact``, so a coarse index
loses passages, never their order. Building is deterministic: faiss is, except for HNSW and OPQ on
several threads, which are therefore built on one, unless ``repeatable`` is off.

Source: https://github.com/facebookresearch/faiss/wiki/The-index-factory
"""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np

from sidmill.core.atomic import replacing
from sidmill.core.errors import SidmillError
from sidmill.formats.neighbour_lists import Neighbours
from sidmill.formats.vector_store import VectorStore
from sidmill.numeric import exact_search, row_blocks, training_sizes
from sidmill.numeric.topk_heap import Best

logger = logging.getLogger(__name__)

BLOCK_ROWS = 65536
OPQ_BITS = 8  # of a part's codebook while a rotation is learned, as faiss has it
UNREPEATABLE = ("HNSW", "NSG", "OPQ")  # with several threads


def build(
    vectors: np.ndarray,
    path: str | Path,
    *,
    index: str,
    lists: int | None,
    code_bytes: int,
    links: int,
    ef_construction: int,
    train_sample: int,
    repeatable: bool,
    seed: int,
) -> str:
    """Train an index on a sample, add all passages block by block, and write it.

    Memory: the index (for ``ivf_flat`` and ``hnsw`` it holds the vectors), the training sample,
    and a block of 65,536 rows.

    Args:
        vectors: float32 or float16 (N, D).
        path: file to write.
        index: ivf_flat, hnsw, ivfpq, opq, or a factory string of faiss.
        lists: cells of an inverted file, or None for 4 sqrt(N).
        code_bytes: bytes per passage of a product quantizer.
        links: neighbours per passage of HNSW.
        ef_construction: candidates while HNSW is built.
        train_sample: rows to train on, at most.
        repeatable: build HNSW, and train OPQ, on one thread. On several, passages are linked in the
            order in which threads come to them: as good a graph, but another one each time.
        seed: of the sample and of faiss' k-means.

    Returns:
        The factory string.

    Raises:
        SidmillError: if faiss does not know the string, or cannot train it on these vectors:
            there are too few of them.
    """
    n_rows, dim = vectors.shape
    rows = _sample(n_rows, train_sample, seed)
    recipe = factory(index, n_rows, len(rows), lists, code_bytes, links)
    alone = repeatable and any(name in recipe for name in UNREPEATABLE)
    with _threads(1 if alone else None):
        try:
            built = faiss.index_factory(dim, recipe, faiss.METRIC_INNER_PRODUCT)
            parts = list(_parts(built, len(rows), n_rows))
            _require_rows(recipe, parts, n_rows)
            kept = _prepare(built, ef_construction, seed)
            if not built.is_trained:
                built.train(row_blocks.take(vectors, rows))
            del kept
            for start, block in row_blocks.read_blocks(vectors, BLOCK_ROWS):
                row_blocks.require_finite(block, start)
                built.add(block)
                logger.info("%d of %d passages added", start + len(block), n_rows)
        except RuntimeError as error:
            raise SidmillError(
                f"faiss cannot make {recipe!r} of {n_rows} vectors of {dim} dimensions "
                f"({_reason(error)}): change retrieval.index or the section faiss"
            ) from None
    with replacing(path) as temporary:
        faiss.write_index(built, str(temporary))
    return recipe


def factory(
    index: str, n_rows: int, n_sample: int, lists: int | None, code_bytes: int, links: int
) -> str:
    """Factory string of a kind of index; any other string is taken for one."""
    if lists is None:
        lists = max(1, min(round(4 * math.sqrt(n_rows)), n_sample // training_sizes.FEW_ROWS))
    kinds = {
        "ivf_flat": f"IVF{lists},Flat",
        "hnsw": f"HNSW{links},Flat",
        "ivfpq": f"IVF{lists},PQ{code_bytes}",
        "opq": f"OPQ{code_bytes},IVF{lists},PQ{code_bytes}",
    }
    return kinds.get(index, index)


def search(
    path: str | Path,
    vectors: np.ndarray,
    queries: np.ndarray,
    ranks: np.ndarray,
    *,
    top_k: int,
    search_batch: int,
    nprobe: int,
    ef_search: int,
    candidates: int,
) -> Neighbours:
    """Find about the k best passages of every query.

    The index is mapped, not read, where faiss can (inverted files). Memory: what is not mapped,
    and 20 C bytes per query of a batch.

    Args:
        path: the index.
        vectors: float32 or float16 (N, D), for the exact scores.
        queries: float32 (Q, D).
        ranks: int64 (N,), the order of ids that decides ties.
        top_k: k.
        search_batch: queries at a time.
        nprobe: cells that a query looks into.
        ef_search: candidates that HNSW keeps.
        candidates: C, at least k.

    Raises:
        SidmillError: if C < k, or the index is of other vectors.
    """
    if candidates < top_k:
        raise SidmillError(
            f"faiss.candidates is {candidates}, below retrieval.top_k {top_k}: raise it"
        )
    opened = _open(path, nprobe, ef_search)
    if (opened.ntotal, opened.d) != vectors.shape:
        raise SidmillError(
            f"{path} holds {opened.ntotal} vectors of {opened.d} dimensions, the corpus has "
            f"{vectors.shape}: delete it and run again"
        )
    best = Best(len(queries), top_k, ranks)
    for low in range(0, len(queries), search_batch):
        part = queries[low : low + search_batch]
        _, named = opened.search(part, min(candidates, len(vectors)))  # int64 (q, C), -1 for none
        query, place = np.nonzero(named >= 0)
        for begin, rows, scores in _exact_scores(vectors, part, query, named[query, place]):
            best.add(begin + low, rows, scores)
    return best.result()


def measure(
    path: str | Path,
    corpus: VectorStore,
    queries: np.ndarray,
    *,
    top_k: int,
    search_batch: int,
    memory_mb: int,
    device: str,
    nprobe: int,
    ef_search: int,
    candidates: int,
    measured_queries: int,
    seed: int,
) -> dict:
    """Compare an index with exact search on a sample of queries.

    Args:
        path: the index.
        corpus: the passages.
        queries: float32 or float16 (Q, D).
        top_k: k.
        search_batch: queries at a time.
        memory_mb: MiB of the exact search.
        device: of the exact search.
        nprobe: as of :func:`search`.
        ef_search: as of :func:`search`.
        candidates: as of :func:`search`.
        measured_queries: size of the sample, at most.
        seed: of the sample.

    Returns:
        ``queries``, ``top_k``, ``recall`` (share of the exact neighbours that were found),
        ``milliseconds_per_query`` of both, ``bytes``.
    """
    rows = _sample(len(queries), measured_queries, seed)
    asked = np.ascontiguousarray(queries[rows], dtype=np.float32)
    ranks = exact_search.id_ranks(corpus.ids)
    began = time.perf_counter()
    wanted = exact_search.search(
        corpus.vectors,
        asked,
        ranks,
        start=0,
        stop=len(corpus.vectors),
        top_k=top_k,
        search_batch=search_batch,
        device=device,
        memory_mb=memory_mb,
    )
    between = time.perf_counter()
    found = search(
        path,
        corpus.vectors,
        asked,
        ranks,
        top_k=top_k,
        search_batch=search_batch,
        nprobe=nprobe,
        ef_search=ef_search,
        candidates=candidates,
    )
    took = time.perf_counter() - between
    return {
        "queries": len(asked),
        "top_k": top_k,
        "recall": recall(found.rows, wanted.rows),
        "milliseconds_per_query": round(1000 * took / len(asked), 4),
        "exact_milliseconds_per_query": round(1000 * (between - began) / len(asked), 4),
        "bytes": Path(path).stat().st_size,
    }


def recall(found: np.ndarray, wanted: np.ndarray) -> float:
    """Share of ``wanted`` rows (Q, k) that are in the same line of ``found``."""
    hits = sum(np.isin(line, other).sum() for line, other in zip(wanted, found, strict=True))
    return float(hits / wanted.size)


def _exact_scores(
    vectors: np.ndarray, queries: np.ndarray, query: np.ndarray, rows: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Score pairs of query and row, reading each row once, in the order of the file."""
    order = np.argsort(rows, kind="stable")
    query, rows = query[order], rows[order]
    wanted, begins = np.unique(rows, return_index=True)
    begins = np.append(begins, len(rows))
    for start, block in row_blocks.read_blocks(vectors, exact_search.PAIRS, wanted):
        first, last = begins[start], begins[start + len(block)]
        for low in range(first, last, exact_search.PAIRS):
            part = slice(low, min(low + exact_search.PAIRS, last))
            column = np.searchsorted(wanted[start : start + len(block)], rows[part])
            yield query[part], rows[part], exact_search.score(queries[query[part]], block[column])


def _open(path: str | Path, nprobe: int, ef_search: int) -> faiss.Index:
    try:
        opened = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
    except RuntimeError as error:
        raise SidmillError(
            f"{path}: not a readable index ({_reason(error)}): delete it and run again"
        ) from None
    cells = faiss.try_extract_index_ivf(opened)
    if cells is not None:
        cells.nprobe = min(nprobe, cells.nlist)
    for graph in _graphs(opened):
        graph.hnsw.efSearch = ef_search
    return opened


class _Part(NamedTuple):
    """What a part of an index is trained on, and what it needs."""

    name: str
    rows: int  # that it gets
    needed: int
    centroids: int  # that it finds by clustering, or 0
    cut: bool  # whether these are the training sample, so that it may be larger


def _parts(index: faiss.Index, n_sample: int, n_rows: int) -> Iterator[_Part]:
    """List what is trained in an index, before it is.

    Args:
        index: as the factory makes it.
        n_sample: rows that it is to be trained on.
        n_rows: rows that it is to hold.
    """
    for inner, cells in _walk(index):
        rows, cut = cells or n_sample, not cells
        if isinstance(inner, faiss.IndexIDMap | faiss.IndexIDMap2):
            raise SidmillError(
                "retrieval.index has an IDMap, but passages are named by their rows here: leave "
                "IDMap out of the string"
            )
        if isinstance(inner, faiss.OPQMatrix):
            needed = training_sizes.opq_rows(inner.d_in, inner.d_out, OPQ_BITS)
            yield _Part("rotation", rows, needed, 2**OPQ_BITS, cut)
        elif isinstance(inner, faiss.LinearTransform) and not inner.is_trained:
            needed = training_sizes.rotation_rows(inner.d_in, inner.d_out)
            yield _Part(type(inner).__name__, rows, needed, 0, cut)
        if isinstance(inner, faiss.IndexIVF):
            yield _Part("inverted file", rows, inner.nlist, inner.nlist, cut)
        if isinstance(inner, faiss.IndexNSG):
            yield _Part("graph", n_rows, inner.GK + 1, 0, False)
        if isinstance(inner, faiss.Index) and hasattr(inner, "pq"):
            yield _Part("product quantizer", rows, inner.pq.ksub, inner.pq.ksub, cut)
        if hasattr(inner, "aq"):
            n_codes = 2 ** int(faiss.vector_to_array(inner.aq.nbits).max())
            yield _Part("additive quantizer", rows, n_codes, n_codes, cut)


def _walk(
    index: faiss.Index, rows: int = 0
) -> Iterator[tuple[faiss.Index | faiss.VectorTransform, int]]:
    """Go through an index and all that it is made of.

    Yields:
        An index or a transform, and of how many cells of another index it is trained on the
        centroids; 0 for the training sample.
    """
    index = faiss.downcast_index(index)
    yield index, rows
    if isinstance(index, faiss.IndexPreTransform):
        for number in range(index.chain.size()):
            yield faiss.downcast_VectorTransform(index.chain.at(number)), rows
    cells = index.nlist if isinstance(index, faiss.IndexIVF) else rows
    for name in ("index", "base_index", "refine_index", "storage", "quantizer"):
        inner = getattr(index, name, None)
        if isinstance(inner, faiss.Index):
            yield from _walk(inner, cells if name == "quantizer" else rows)


def _require_rows(recipe: str, parts: list[_Part], n_rows: int) -> None:
    """Stop before faiss is given too few rows; say it once where they are few.

    Args:
        recipe: the factory string, for the message.
        parts: what is trained.
        n_rows: rows of the corpus.

    Raises:
        SidmillError: naming the first part that lacks rows.
    """
    for part in parts:
        if part.rows < part.needed:
            remedy = "set retrieval.index to flat or hnsw, which need no training"
            if part.cut and part.needed <= n_rows:
                remedy = f"raise faiss.train_sample to at least {part.needed}"
            raise SidmillError(
                f"retrieval.index {recipe!r}: its {part.name} needs {part.needed} passages to "
                f"train on and gets {part.rows} of {n_rows}: {remedy}"
            )
    scarce = [part for part in parts if training_sizes.are_few(part.rows, part.centroids)]
    if scarce:
        part = max(scarce, key=lambda part: part.centroids / part.rows)
        logger.warning(
            "%d passages are few to find the %d centroids of the %s by: faiss asks for %d",
            part.rows,
            part.centroids,
            part.name,
            training_sizes.FEW_ROWS * part.centroids,
        )


def _prepare(built: faiss.Index, ef_construction: int, seed: int) -> list:
    """Set what is to be trained; the result has to live as long as the training."""
    kept = []
    for inner, _ in _walk(built):
        if isinstance(inner, faiss.IndexIVF):
            inner.cp.min_points_per_centroid = 1  # _require_rows has warned already
        if isinstance(inner, faiss.OPQMatrix):
            product = faiss.ProductQuantizer(inner.d_out, inner.M, OPQ_BITS)
            product.cp.min_points_per_centroid = 1
            inner.pq = product
            kept.append(product)
        if hasattr(inner, "rq"):
            inner.rq.cp.min_points_per_centroid = 1
        if isinstance(inner, faiss.Index) and hasattr(inner, "pq"):
            inner.pq.cp.min_points_per_centroid = 1
        if hasattr(inner, "do_polysemous_training"):
            # serves a Hamming filter that is not used here, and took most of the training
            inner.do_polysemous_training = False
    cells = faiss.try_extract_index_ivf(built)
    if cells is not None:
        cells.cp.seed = seed % 2**31
    for graph in _graphs(built):
        graph.hnsw.efConstruction = ef_construction
    return kept


def _graphs(opened: faiss.Index) -> list[faiss.IndexHNSW]:
    """The HNSW graph that answers, or that chooses the cells of an inverted file."""
    inner = faiss.downcast_index(opened)
    while isinstance(inner, faiss.IndexPreTransform):
        inner = faiss.downcast_index(inner.index)
    if isinstance(inner, faiss.IndexIVF):
        inner = faiss.downcast_index(inner.quantizer)
    return [inner] if isinstance(inner, faiss.IndexHNSW) else []


def _sample(total: int, size: int, seed: int) -> np.ndarray:
    """Ascending rows, int64, drawn without replacement; all of them where there are no more."""
    if total <= size:
        return np.arange(total)
    rng = np.random.default_rng(seed)
    return np.sort(rng.choice(total, size, replace=False, shuffle=False))


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(number or before)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _reason(error: RuntimeError) -> str:
    """The last line of faiss' message, without the place in its source."""
    return str(error).strip().splitlines()[-1]
