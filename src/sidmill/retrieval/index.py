"""Approximate search: a faiss index of the passages, and exact scores of its candidates.

Letters: N passages, Q queries, D dimensions, k neighbours, C candidates.

The index only proposes candidates; the scores and the order are those of ``exact_search``, so a
coarse index loses passages, never their order. Building is deterministic: faiss is, except for
HNSW, NSG and OPQ on several threads, which are therefore built on one, unless ``repeatable`` is
off.

Source: https://github.com/facebookresearch/faiss/wiki/The-index-factory
"""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sidmill.core.atomic import replacing
from sidmill.core.errors import SidmillError
from sidmill.core.faiss_library import faiss
from sidmill.formats.neighbour_lists import Neighbours
from sidmill.formats.vector_store import VectorStore
from sidmill.numeric import exact_search, row_blocks, training_sizes
from sidmill.numeric.topk_heap import Best
from sidmill.settings.retrieval import Faiss, Retrieval

logger = logging.getLogger(__name__)

BLOCK_ROWS = 65536
QUERY_ROWS = 1000  # per call of faiss, whose rounding depends on their number: no machine setting
OPQ_BITS = 8  # of the codebook of a subspace while a rotation is learned, as in faiss
UNREPEATABLE = ("HNSW", "NSG", "OPQ")  # with several threads


def build(vectors: np.ndarray, path: str | Path, index: str, settings: Faiss, seed: int) -> str:
    """Train an index on a sample, add all passages block by block, and write it.

    Memory: the index (for ``ivf_flat`` and ``hnsw`` it holds the vectors), the training sample,
    and a block of 65,536 rows.

    Args:
        vectors: float32 or float16 (N, D).
        path: file to write.
        index: ivf_flat, hnsw, ivfpq, opq, or a factory string of faiss.
        settings: section ``faiss``. With ``repeatable`` HNSW is built, and OPQ trained, on one
            thread: on several, passages are linked in the order in which the threads reach them,
            which gives another graph each time, of the same quality.
        seed: of the sample and of faiss' k-means.

    Returns:
        The factory string.

    Raises:
        SidmillError: if faiss does not know the string, or cannot train it on these vectors,
            because they are too few.
    """
    n_rows, dim = vectors.shape
    rows = _sample(n_rows, settings.train_sample, seed)
    recipe = factory(index, n_rows, len(rows), settings)
    on_one_thread = settings.repeatable and any(name in recipe for name in UNREPEATABLE)
    with _threads(1 if on_one_thread else None):
        try:
            built = faiss.index_factory(dim, recipe, faiss.METRIC_INNER_PRODUCT)

            # faiss crashes or warns where the sample is too small: check it before.
            parts = list(_parts(built, len(rows), n_rows))
            _require_rows(recipe, parts, n_rows)

            kept_alive = _prepare(built, settings.ef_construction, seed)
            if not built.is_trained:
                built.train(row_blocks.take(vectors, rows))
            del kept_alive

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


def factory(index: str, n_rows: int, n_sample: int, settings: Faiss) -> str:
    """Factory string of a kind of index; any other string is returned as it is."""
    lists, code_bytes = settings.lists, settings.code_bytes
    if lists is None:
        lists = max(1, min(round(4 * math.sqrt(n_rows)), n_sample // training_sizes.FEW_ROWS))
    kinds = {
        "ivf_flat": f"IVF{lists},Flat",
        "hnsw": f"HNSW{settings.links},Flat",
        "ivfpq": f"IVF{lists},PQ{code_bytes}",
        "opq": f"OPQ{code_bytes},IVF{lists},PQ{code_bytes}",
    }
    return kinds.get(index, index)


def search(
    path: str | Path,
    vectors: np.ndarray,
    queries: np.ndarray,
    ranks: np.ndarray,
    top_k: int,
    settings: Faiss,
) -> Neighbours:
    """Find about the k best passages of every query.

    The index is memory-mapped, not read, where faiss can (inverted files). Memory: the part that is
    not mapped, and 20 C bytes for each of ``QUERY_ROWS`` queries.

    Args:
        path: the index.
        vectors: float32 or float16 (N, D), for the exact scores.
        queries: float32 (Q, D).
        ranks: int64 (N,), the order of ids that decides ties.
        top_k: k.
        settings: section ``faiss``; ``candidates`` is C, at least k.

    Raises:
        SidmillError: if C < k, or the index is of other vectors.
    """
    if settings.candidates < top_k:
        raise SidmillError(
            f"faiss.candidates is {settings.candidates}, below retrieval.top_k {top_k}: raise it"
        )
    opened = _open(path, settings)
    if (opened.ntotal, opened.d) != vectors.shape:
        raise SidmillError(
            f"{path} holds {opened.ntotal} vectors of {opened.d} dimensions, the corpus has "
            f"{vectors.shape}: delete it and run again"
        )

    # Candidates of faiss, then their exact scores.
    best = Best(len(queries), top_k, ranks)
    n_candidates = min(settings.candidates, len(vectors))
    for low in range(0, len(queries), QUERY_ROWS):
        part = queries[low : low + QUERY_ROWS]
        _, candidates = opened.search(part, n_candidates)  # int64 (q, C), -1 for none
        query, column = np.nonzero(candidates >= 0)
        pairs = _exact_scores(vectors, part, query, candidates[query, column])
        for scored_query, rows, scores in pairs:
            best.add(scored_query + low, rows, scores)
    return best.result()


def measure(
    path: str | Path,
    corpus: VectorStore,
    queries: np.ndarray,
    settings: Retrieval,
    faiss_settings: Faiss,
    seed: int,
) -> dict[str, Any]:
    """Compare an index with exact search on a sample of queries.

    Args:
        path: the index.
        corpus: the passages.
        queries: float32 or float16 (Q, D).
        settings: section ``retrieval``: k, and machine settings of the exact search.
        faiss_settings: section ``faiss``: of the search in the index, and the size of the sample.
        seed: of the sample.

    Returns:
        ``queries``, ``top_k``, ``recall`` (share of the exact neighbours that the index found),
        ``milliseconds_per_query`` of both, ``bytes``.
    """
    rows = _sample(len(queries), faiss_settings.measured_queries, seed)
    sample = np.ascontiguousarray(queries[rows], dtype=np.float32)  # (q, D)
    ranks, top_k = exact_search.id_ranks(corpus.ids), settings.top_k

    # Both searches, timed.
    start = time.perf_counter()
    exact = exact_search.search(corpus.vectors, sample, top_k, settings, ranks=ranks)
    between = time.perf_counter()
    found = search(path, corpus.vectors, sample, ranks, top_k, faiss_settings)
    end = time.perf_counter()

    return {
        "queries": len(sample),
        "top_k": top_k,
        "recall": recall(found.rows, exact.rows),
        "milliseconds_per_query": round(1000 * (end - between) / len(sample), 4),
        "exact_milliseconds_per_query": round(1000 * (between - start) / len(sample), 4),
        "bytes": Path(path).stat().st_size,
    }


def recall(found: np.ndarray, exact: np.ndarray) -> float:
    """Share of the ``exact`` rows (Q, k) that are in the same line of ``found``."""
    hits = sum(np.isin(line, other).sum() for line, other in zip(exact, found, strict=True))
    return float(hits / exact.size)


def _exact_scores(
    vectors: np.ndarray, queries: np.ndarray, query: np.ndarray, rows: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Score pairs of query and row, reading each row once, in the order of the file."""
    order = np.argsort(rows, kind="stable")
    query, rows = query[order], rows[order]
    distinct, starts = np.unique(rows, return_index=True)  # rows, and the first pair of each
    starts = np.append(starts, len(rows))
    for start, block in row_blocks.read_blocks(vectors, exact_search.PAIRS, distinct):
        first, last = starts[start], starts[start + len(block)]
        for low in range(first, last, exact_search.PAIRS):
            part = slice(low, min(low + exact_search.PAIRS, last))
            column = np.searchsorted(distinct[start : start + len(block)], rows[part])
            yield query[part], rows[part], exact_search.score(queries[query[part]], block[column])


def _open(path: str | Path, settings: Faiss) -> faiss.Index:
    try:
        opened = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
    except RuntimeError as error:
        raise SidmillError(
            f"{path}: not a readable index ({_reason(error)}): delete it and run again"
        ) from None
    cells = faiss.try_extract_index_ivf(opened)
    if cells is not None:
        cells.nprobe = min(settings.nprobe, cells.nlist)
    for graph in _graphs(opened):
        graph.hnsw.efSearch = settings.ef_search
    return opened


class _Part(NamedTuple):
    """The rows that a part of an index is trained on, and the rows that it needs.

    Attributes:
        name: the part, for messages.
        rows: rows that it is trained on.
        needed: rows that it needs.
        centroids: number that k-means finds, or 0.
        is_sampled: whether ``rows`` is the training sample, which a setting enlarges.
    """

    name: str
    rows: int
    needed: int
    centroids: int
    is_sampled: bool


def _parts(index: faiss.Index, n_sample: int, n_rows: int) -> Iterator[_Part]:
    """List the parts of an index that are trained, before they are.

    Args:
        index: as the factory makes it.
        n_sample: rows of the training sample.
        n_rows: rows that the index is to hold.
    """
    for inner, cells in _walk(index):
        rows, is_sampled = cells or n_sample, not cells
        if isinstance(inner, faiss.IndexIDMap | faiss.IndexIDMap2):
            raise SidmillError(
                "retrieval.index has an IDMap, but passages are named by their rows here: leave "
                "IDMap out of the string"
            )

        # Transforms of the vectors.
        if isinstance(inner, faiss.OPQMatrix):
            needed = training_sizes.opq_rows(inner.d_in, inner.d_out, OPQ_BITS)
            yield _Part("rotation", rows, needed, 2**OPQ_BITS, is_sampled)
        elif isinstance(inner, faiss.LinearTransform) and not inner.is_trained:
            needed = training_sizes.rotation_rows(inner.d_in, inner.d_out)
            yield _Part(type(inner).__name__, rows, needed, 0, is_sampled)

        # Cells, graphs and codebooks.
        if isinstance(inner, faiss.IndexIVF):
            yield _Part("inverted file", rows, inner.nlist, inner.nlist, is_sampled)
        if isinstance(inner, faiss.IndexNSG):
            yield _Part("graph", n_rows, inner.GK + 1, 0, False)
        if isinstance(inner, faiss.Index) and hasattr(inner, "pq"):
            yield _Part("product quantizer", rows, inner.pq.ksub, inner.pq.ksub, is_sampled)
        if hasattr(inner, "aq"):
            n_codes = 2 ** int(faiss.vector_to_array(inner.aq.nbits).max())
            yield _Part("additive quantizer", rows, n_codes, n_codes, is_sampled)


def _walk(index: Any, rows: int = 0) -> Iterator[tuple[Any, int]]:
    """Go through an index and all indexes and transforms inside it.

    Yields:
        An index or a transform, and the number of cells whose centroids it is trained on; 0 for
        the training sample.
    """
    index = faiss.downcast_index(index)
    yield index, rows
    if isinstance(index, faiss.IndexPreTransform):
        chain: Any = index.chain
        for number in range(chain.size()):
            yield faiss.downcast_VectorTransform(chain.at(number)), rows
    cells = index.nlist if isinstance(index, faiss.IndexIVF) else rows
    for name in ("index", "base_index", "refine_index", "storage", "quantizer"):
        inner = getattr(index, name, None)
        if isinstance(inner, faiss.Index):
            yield from _walk(inner, cells if name == "quantizer" else rows)


def _require_rows(recipe: str, parts: list[_Part], n_rows: int) -> None:
    """Refuse a sample that is too small for faiss; warn once where it is small.

    Args:
        recipe: the factory string, for the message.
        parts: the parts that are trained.
        n_rows: rows of the corpus.

    Raises:
        SidmillError: naming the first part that lacks rows.
    """
    for part in parts:
        if part.rows < part.needed:
            remedy = "set retrieval.index to flat or hnsw, which need no training"
            if part.is_sampled and part.needed <= n_rows:
                remedy = f"raise faiss.train_sample to at least {part.needed}"
            raise SidmillError(
                f"retrieval.index {recipe!r}: its {part.name} needs {part.needed} passages to "
                f"train on and gets {part.rows} of {n_rows}: {remedy}"
            )

    # The part with the fewest rows per centroid stands for all.
    scarce = [part for part in parts if training_sizes.are_few(part.rows, part.centroids)]
    if scarce:
        part = max(scarce, key=lambda part: part.centroids / part.rows)
        logger.warning(
            "%d passages are few to find the %d centroids of the %s: faiss asks for %d",
            part.rows,
            part.centroids,
            part.name,
            training_sizes.FEW_ROWS * part.centroids,
        )


def _prepare(built: faiss.Index, ef_construction: int, seed: int) -> list[Any]:
    """Set the training parameters; the result has to stay referenced during the training."""
    kept_alive = []
    for inner, _ in _walk(built):
        # _require_rows has already warned of few rows: faiss need not do it for each clustering.
        if isinstance(inner, faiss.IndexIVF):
            inner.cp.min_points_per_centroid = 1
        if isinstance(inner, faiss.OPQMatrix):
            product = faiss.ProductQuantizer(inner.d_out, inner.M, OPQ_BITS)
            product.cp.min_points_per_centroid = 1
            inner.pq = product
            kept_alive.append(product)
        if hasattr(inner, "rq"):
            inner.rq.cp.min_points_per_centroid = 1
        if isinstance(inner, faiss.Index) and hasattr(inner, "pq"):
            inner.pq.cp.min_points_per_centroid = 1

        # This training is for a Hamming filter, which is not used here; it took most of the time.
        if hasattr(inner, "do_polysemous_training"):
            inner.do_polysemous_training = False

    cells = faiss.try_extract_index_ivf(built)
    if cells is not None:
        cells.cp.seed = seed % 2**31
    for graph in _graphs(built):
        graph.hnsw.efConstruction = ef_construction
    return kept_alive


def _graphs(opened: faiss.Index) -> list[faiss.IndexHNSW]:
    """The HNSW graph of an index, or the one that chooses the cells of its inverted file."""
    inner = faiss.downcast_index(opened)
    while isinstance(inner, faiss.IndexPreTransform):
        inner = faiss.downcast_index(inner.index)
    if isinstance(inner, faiss.IndexIVF):
        inner = faiss.downcast_index(inner.quantizer)
    return [inner] if isinstance(inner, faiss.IndexHNSW) else []


def _sample(total: int, size: int, seed: int) -> np.ndarray:
    """Ascending rows, int64, drawn without replacement; all of them if there are no more."""
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
    """The last line of faiss' message, without the line of its source."""
    return str(error).strip().splitlines()[-1]
