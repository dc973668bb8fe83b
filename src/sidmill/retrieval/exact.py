"""Exact inner-product search through vectors on disk: no index, and memory that N does not change.

Letters: N rows of the corpus, Q queries, D dimensions, k neighbours, b rows of one block.

The score of a query and a row is defined by one expression, ``(query * row).sum()`` in float32, as
NumPy adds up a contiguous row: an order that depends on D alone. A matrix product only picks the
candidates: every row that comes, within the product's rounding, as near as the k-th best so far.
Equal scores go to the lower rank of the id. So the result depends neither on blocks, shards,
threads nor the device.
"""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from sidmill import blocks as storage
from sidmill import torch_search
from sidmill.core.errors import SidmillError
from sidmill.formats.neighbours import Neighbours
from sidmill.search import EPSILON, MARGIN

logger = logging.getLogger(__name__)

MAX_BLOCK_ROWS = 8192
CHUNK = 64  # columns of scores that are looked at through their maximum
PAIRS = 8192  # candidates whose score is computed at a time
LAST = np.iinfo(np.int64).max


def search(
    vectors: np.ndarray,
    queries: np.ndarray,
    ranks: np.ndarray,
    *,
    start: int,
    stop: int,
    top_k: int,
    search_batch: int,
    device: str,
    memory_mb: int,
) -> Neighbours:
    """Find the k best of the rows ``start`` to ``stop`` for every query.

    The corpus is read once, block by block, the next block while one is searched. Memory:
    ``memory_mb``, and 20 k bytes per query.

    Args:
        vectors: float32 or float16 (N, D), in memory or memory-mapped.
        queries: float32 (Q, D).
        ranks: int64 (N,), the place of each row's id in the order that decides ties.
        start: first row.
        stop: row after the last.
        top_k: k.
        search_batch: queries per matrix product, at most.
        device: auto, cpu, cuda or cuda:1.
        memory_mb: MiB for blocks and scores.

    Returns:
        Rows of the whole store with their scores, best first, (Q, k); row -1 with score -inf where
        the range has fewer than k rows.

    Raises:
        SidmillError: if the dimensions differ, or a vector is not finite.
    """
    if vectors.shape[1] != queries.shape[1]:
        raise SidmillError(
            f"queries have {queries.shape[1]} dimensions, passages {vectors.shape[1]}: embed both "
            f"with one model"
        )
    place = torch_search.pick_device(device)
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    storage.require_finite(queries, 0)
    batch = min(search_batch, max(len(queries), 1))
    n_rows = _rows_per_block(vectors.shape[1], batch, memory_mb)
    on_place = torch.from_numpy(queries).to(place)
    norms = np.linalg.norm(queries, axis=1)
    best = Best(len(queries), top_k, ranks)
    spare = torch.empty(batch * n_rows, device=place)
    for first, block in _read_ahead(vectors, start, stop, n_rows):
        storage.require_finite(block, first)
        # as in sidmill.search: eight times what rounding was seen to do, in units of eps sqrt(D)
        longest = float(np.sqrt(np.einsum("ij,ij->i", block, block).max()))
        slack = MARGIN * EPSILON * vectors.shape[1] ** 0.5 * longest * norms
        rows = torch.from_numpy(block).to(place)
        for low in range(0, len(queries), batch):
            part = slice(low, low + batch)
            scores = spare[: len(queries[part]) * len(block)].view(-1, len(block))
            _multiply(on_place[part], rows, scores)
            found = _candidates(scores, best.worst[part], slack[part], top_k)
            best.offer(queries, block, found[0] + low, found[1], first)
        if (first // n_rows) % 100 == 99:
            logger.info("%d of %d rows searched", first + len(block) - start, stop - start)
    return best.result()


def merge(parts: Sequence[Neighbours], ranks: np.ndarray) -> Neighbours:
    """Merge what the shards of one search found; the order of the shards makes no difference.

    Args:
        parts: (Q, k) each, of different rows.
        ranks: int64 (N,), as given to :func:`search`.
    """
    n_queries, top_k = parts[0].rows.shape
    best = Best(n_queries, top_k, ranks)
    for part in parts:
        held = part.rows.ravel() >= 0
        query = np.repeat(np.arange(n_queries), top_k)[held]
        best.add(query, part.rows.ravel()[held], part.scores.ravel()[held])
    return best.result()


class Best:
    """The k best rows of every query so far; what is new waits until a merge pays."""

    def __init__(self, n_queries: int, top_k: int, ranks: np.ndarray) -> None:
        """Begin with nothing: row -1, score -inf, the last rank."""
        self.ranks = ranks
        self.rows = np.full((n_queries, top_k), -1, dtype=np.int64)
        self.scores = np.full((n_queries, top_k), -np.inf, dtype=np.float32)
        self.waiting: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.n_waiting = 0
        self.begun = False

    @property
    def worst(self) -> np.ndarray:
        """float32 (Q,), the k-th best score of each query at the last merge."""
        return self.scores[:, -1]

    def offer(
        self,
        queries: np.ndarray,
        block: np.ndarray,
        query: np.ndarray,
        column: np.ndarray,
        first: int,
    ) -> None:
        """Score candidates of a block by the deciding expression, and take them in.

        Args:
            queries: float32 (Q, D).
            block: float32 (b, D).
            query: int64 (c,), query of each candidate.
            column: int64 (c,), its row in the block.
            first: row of the block in the store.
        """
        for low in range(0, len(query), PAIRS):
            part = slice(low, low + PAIRS)
            scores = score(queries[query[part]], block[column[part]])
            new = scores >= self.worst[query[part]]
            self.add(query[part][new], column[part][new] + first, scores[new])

    def add(self, query: np.ndarray, rows: np.ndarray, scores: np.ndarray) -> None:
        """Take in scored rows."""
        self.waiting.append((query, rows, scores))
        self.n_waiting += len(query)
        if self.n_waiting > (self.rows.size // 2 if self.begun else self.rows.size):
            self.merge()

    def merge(self) -> None:
        """Keep the k best of what is held and what waits: higher score, then lower rank."""
        parts, self.waiting, self.n_waiting = self.waiting, [], 0
        if not parts:
            return
        query, rows, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
        touched, query = np.unique(query, return_inverse=True)
        n, k = len(touched), self.rows.shape[1]
        query = np.concatenate([np.repeat(np.arange(n), k), query])
        rows = np.concatenate([self.rows[touched].ravel(), rows])
        scores = np.concatenate([self.scores[touched].ravel(), scores])
        ranks = np.where(rows >= 0, self.ranks[rows], LAST)
        order = np.lexsort((ranks, -scores, query))
        begins = np.searchsorted(query[order], np.arange(n))
        kept = order[begins[:, None] + np.arange(k)]  # (n, k): every query has at least k entries
        self.rows[touched], self.scores[touched] = rows[kept], scores[kept]
        self.begun = True

    def result(self) -> Neighbours:
        """Return what was found."""
        self.merge()
        return Neighbours(self.rows, self.scores)


def score(queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Score pairs by the deciding expression: float32 (n, D) twice -> float32 (n,)."""
    return (queries * rows).sum(axis=1)


def id_ranks(ids: pa.ChunkedArray) -> np.ndarray:
    """Place of each id in sorted order, int64 (N,): integers by value, strings by code point."""
    ranks = np.empty(len(ids), dtype=np.int64)
    ranks[pc.array_sort_indices(ids.combine_chunks()).to_numpy()] = np.arange(len(ids))
    return ranks


def _multiply(queries: torch.Tensor, rows: torch.Tensor, out: torch.Tensor) -> None:
    """float32 (q, D) and (b, D) -> (q, b). On a CPU NumPy's product is the faster one."""
    if out.device.type == "cpu":
        np.matmul(queries.numpy(), rows.numpy().T, out=out.numpy())
    else:
        torch.mm(queries, rows.T, out=out)


def _candidates(
    scores: torch.Tensor, worst: np.ndarray, slack: np.ndarray, top_k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Queries and columns whose product score may be among the k best.

    Args:
        scores: float32 (q, b), of the matrix product.
        worst: float32 (q,), the k-th best exact score so far, or -inf.
        slack: float (q,), how far a product may be off.
        top_k: k.
    """
    floor = worst - slack
    if scores.shape[1] >= top_k and np.isneginf(worst).any():
        own = torch.topk(scores, top_k, dim=1, sorted=False).values.amin(dim=1).cpu().numpy()
        floor = np.maximum(floor, own - 2 * slack)
    floor = torch.from_numpy(np.nextafter(floor.astype(np.float32), -np.inf)).to(scores.device)
    width = scores.shape[1]
    whole = width - width % CHUNK
    chunks = scores[:, :whole].unflatten(1, (-1, CHUNK)) if whole else scores.new_empty(0, 0, CHUNK)
    pairs = []
    if whole:
        query, chunk = (chunks.amax(dim=2) >= floor[:, None]).nonzero(as_tuple=True)
        hit, inside = (chunks[query, chunk] >= floor[query, None]).nonzero(as_tuple=True)
        pairs.append((query[hit], chunk[hit] * CHUNK + inside))
    if whole < width:
        query, inside = (scores[:, whole:] >= floor[:, None]).nonzero(as_tuple=True)
        pairs.append((query, inside + whole))
    return tuple(torch.cat(part).cpu().numpy() for part in zip(*pairs, strict=True))


def _rows_per_block(dim: int, batch: int, memory_mb: int) -> int:
    """Rows of a block: three blocks in memory (read, searched, copied), and the scores twice."""
    rows = memory_mb * storage.MIB // (storage.FLOAT_BYTES * (3 * dim + 2 * batch))
    if rows < 1:
        raise SidmillError(
            f"memory_mb {memory_mb} is too small for {batch} queries and {dim} dimensions: raise "
            f"retrieval.memory_mb, or lower retrieval.search_batch"
        )
    return min(rows, MAX_BLOCK_ROWS)


def _read_ahead(
    vectors: np.ndarray, start: int, stop: int, n_rows: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield first row and float32 (b, D), reading the next block in a thread meanwhile."""

    def read(first: int) -> np.ndarray:
        part = vectors[first : min(first + n_rows, stop)]
        return next(storage.read_blocks(part, len(part)))[1]

    starts = range(start, stop, n_rows)
    with ThreadPoolExecutor(1) as reader:
        waiting = reader.submit(read, start) if starts else None
        for first in starts:
            block = waiting.result()
            if first + n_rows < stop:
                waiting = reader.submit(read, first + n_rows)
            yield first, block
