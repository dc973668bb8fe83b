"""Exact inner-product search through vectors on disk: no index, and memory that N does not change.

Letters: N rows of the corpus, Q queries, D dimensions, k neighbours, b rows of one block.

The score of a query and a row is defined by one expression, ``(query * row).sum()`` in float32, as
NumPy adds up a contiguous row: an order that depends on D alone. A matrix product only picks the
candidates: every row whose product score reaches the k-th best so far, less the rounding error of
the product. Of equal scores the one with the lower rank of its id is first. So the result does not
depend on blocks, shards, threads or the device.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from threadpoolctl import threadpool_limits

from sidmill.core.errors import SidmillError
from sidmill.formats.neighbour_lists import Neighbours
from sidmill.numeric import mlp, nearest_torch, row_blocks
from sidmill.numeric.nearest_numpy import EPSILON, MARGIN
from sidmill.numeric.topk_heap import Best

logger = logging.getLogger(__name__)

BLOCK_ROWS = 4096  # on a CPU: the scores of 1,000 queries stay in its last cache
DEVICE_ROWS = 65536
DEVICE_WORKERS = 8  # a GPU multiplies a block faster than a thread of the host reads it
MIN_ROWS = 256  # of a block: fewer are not worth a thread
CHUNK = 16  # scores that are compared by their maximum first
PAIRS = 1024  # candidates whose score is computed at a time: they stay in a core's own cache
BLOCKS_PER_MESSAGE = 1000
LOWEST = np.finfo(np.float32).min


class SearchSettings(Protocol):
    """Settings of the machine, which do not change the result; section ``retrieval`` has them."""

    @property
    def search_batch(self) -> int:
        """Queries per matrix product."""

    @property
    def device(self) -> str:
        """``auto``, ``cpu`` or ``cuda``."""

    @property
    def memory_mb(self) -> int:
        """MiB for the blocks and their scores."""


class Queries(NamedTuple):
    """The queries: float32 (Q, D) twice, and their norms, float32 (Q,)."""

    rows: np.ndarray
    on_device: torch.Tensor
    norms: np.ndarray


class Block(NamedTuple):
    """Rows of the corpus in memory: float32 (b, D), and the number of the first in the store."""

    rows: np.ndarray
    first: int


def search(
    vectors: np.ndarray,
    queries: np.ndarray,
    top_k: int,
    settings: SearchSettings,
    *,
    ranks: np.ndarray | None = None,
    rows: range | None = None,
) -> Neighbours:
    """Find the k best of consecutive rows for every query.

    The corpus is read once, block by block. Each thread reads and searches blocks of its own, so
    that one reads while another computes. Memory: ``memory_mb``, 24 k bytes per query, 8 per row.

    Args:
        vectors: float32 or float16 (N, D), in memory or memory-mapped.
        queries: float32 (Q, D).
        top_k: k.
        settings: see :class:`SearchSettings`.
        ranks: int64 (N,), position of each row's id in the order that decides ties; None: the
            order of the rows.
        rows: the rows to search, of the whole store; None: all.

    Returns:
        Rows of the whole store with their scores, best first, (Q, k); row -1 with score -inf where
        ``rows`` has fewer than k rows.

    Raises:
        SidmillError: if the dimensions differ, a vector is not finite, or a score may overflow.
    """
    if vectors.shape[1] != queries.shape[1]:
        raise SidmillError(
            f"queries have {queries.shape[1]} dimensions, passages {vectors.shape[1]}: embed both "
            f"with one model"
        )

    rows = range(len(vectors)) if rows is None else rows
    ranks = np.arange(len(vectors)) if ranks is None else ranks

    # The queries, in memory and on the device.
    device = nearest_torch.pick_device(settings.device)
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    row_blocks.require_finite(queries, 0)
    query_set = Queries(
        queries, torch.from_numpy(queries).to(device), np.linalg.norm(queries, axis=1)
    )

    # The memory is divided among the workers; each takes a score buffer while it computes.
    batch = min(settings.search_batch, max(len(queries), 1))
    workers, block_rows = _divide_memory(vectors.shape[1], batch, settings.memory_mb, device)
    buffers: SimpleQueue[torch.Tensor] = SimpleQueue()
    for _ in range(workers):
        buffers.put(torch.empty(batch * (block_rows + CHUNK), device=device))

    # Blocks in any order: the k best are the same.
    best = Best(len(queries), top_k, ranks)
    firsts = range(rows.start, rows.stop, block_rows)
    blocks = [vectors[first : min(first + block_rows, rows.stop)] for first in firsts]
    search_block = partial(_search_block, query_set, batch, buffers, best)
    with (
        mlp.exact_products(),  # whatever the caller allowed: the slack is that of float32
        threadpool_limits(1, user_api="blas"),  # a worker is one thread
        ThreadPoolExecutor(workers) as pool,
    ):
        nearest_torch.share_cores(pool, workers, 1)
        for number, stop in enumerate(pool.map(search_block, firsts, blocks), start=1):
            if number % BLOCKS_PER_MESSAGE == 0:
                logger.info("%d of %d rows searched", stop - rows.start, len(rows))
    return best.result()


def merge(parts: Sequence[Neighbours], ranks: np.ndarray) -> Neighbours:
    """Merge the results of the shards of one search, in any order.

    Args:
        parts: (Q, k) each, of different rows.
        ranks: int64 (N,), as given to :func:`search`.
    """
    n_queries, top_k = parts[0].rows.shape
    best = Best(n_queries, top_k, ranks)
    for part in parts:
        is_row = part.rows.ravel() >= 0
        query = np.repeat(np.arange(n_queries), top_k)[is_row]
        best.add(query, part.rows.ravel()[is_row], part.scores.ravel()[is_row])
    return best.result()


def score(queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Score pairs by the deciding expression: float32 (n, D) twice -> float32 (n,)."""
    scores: np.ndarray = (queries * rows).sum(axis=1)
    return scores


def id_ranks(ids: pa.ChunkedArray) -> np.ndarray:
    """Position of each id in sorted order, int64 (N,): integers by value, strings by code point."""
    ranks = np.empty(len(ids), dtype=np.int64)
    ranks[pc.array_sort_indices(ids.combine_chunks()).to_numpy()] = np.arange(len(ids))
    return ranks


def _search_block(
    queries: Queries,
    batch: int,
    buffers: SimpleQueue[torch.Tensor],
    best: Best,
    first: int,
    part: np.ndarray,
) -> int:
    """Search one block, and return the row after its last.

    Args:
        queries: the queries.
        batch: queries per matrix product.
        buffers: a tensor for the scores, for each worker.
        best: the k best so far.
        first: row of the block in the store.
        part: float32 or float16 (b, D), in memory or memory-mapped.
    """
    (_, values) = next(row_blocks.read_blocks(part, len(part)))
    block = Block(values, first)
    slack = _slack(queries, block)  # float32 (Q,)

    # A buffer is taken after the block was read, so that reading does not hold it.
    rows = torch.from_numpy(block.rows).to(queries.on_device.device)
    buffer = buffers.get()
    try:
        for low in range(0, len(queries.rows), batch):
            batch_rows = slice(low, low + batch)
            scores = _multiply(queries.on_device[batch_rows], rows, buffer)
            query, column = _candidates(
                scores, best.worst[batch_rows], slack[batch_rows], best.top_k
            )
            _add_candidates(best, queries.rows, block, query + low, column)
    finally:
        buffers.put(buffer)
    return first + len(block.rows)


def _slack(queries: Queries, block: Block) -> np.ndarray:
    """How far a matrix product may be from the score of a pair, for each query, float (Q,).

    As in nearest_numpy: eight times the rounding that was measured, in units of eps sqrt(D).

    Raises:
        SidmillError: if a vector is not finite, or a score may overflow.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        longest = float(np.sqrt(np.vecdot(block.rows, block.rows).max()))
        slack: np.ndarray = MARGIN * EPSILON * block.rows.shape[1] ** 0.5 * longest * queries.norms
        if not np.isfinite(longest * queries.norms).all():
            row_blocks.require_finite(block.rows, block.first)
            raise SidmillError(
                f"scores of the rows from {block.first} on overflow float32: normalise the "
                f"embeddings"
            )
    return slack


def _add_candidates(
    best: Best, queries: np.ndarray, block: Block, query: np.ndarray, column: np.ndarray
) -> None:
    """Score candidates by the deciding expression, and add those that may be among the k best.

    Args:
        best: the k best so far.
        queries: float32 (Q, D).
        block: rows of the corpus.
        query: int64 (c,), query of each candidate.
        column: int64 (c,), its row in the block.
    """
    scores = np.empty(len(query), dtype=np.float32)
    for low in range(0, len(query), PAIRS):
        part = slice(low, low + PAIRS)
        scores[part] = score(
            queries.take(query[part], axis=0), block.rows.take(column[part], axis=0)
        )
    is_good = scores >= best.worst[query]
    best.add(query[is_good], column[is_good] + block.first, scores[is_good])


def _multiply(queries: torch.Tensor, rows: torch.Tensor, buffer: torch.Tensor) -> torch.Tensor:
    """float32 (q, D) and (b, D) -> (q, CHUNK, b / CHUNK rounded up), in ``buffer``.

    The columns beyond b are -inf. On a CPU NumPy's product is faster than torch's.
    """
    width = -(-len(rows) // CHUNK) * CHUNK
    scores = buffer[: len(queries) * width].view(-1, width)
    scores[:, len(rows) :] = -torch.inf
    out = scores[:, : len(rows)]
    if out.device.type == "cpu":
        np.matmul(queries.numpy(), rows.numpy().T, out=out.numpy())
    else:
        torch.mm(queries, rows.T, out=out)
    return scores.view(len(queries), CHUNK, width // CHUNK)


def _candidates(
    scores: torch.Tensor, worst: np.ndarray, slack: np.ndarray, top_k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Queries and columns whose product score may be among the k best.

    Args:
        scores: float32 (q, CHUNK, c), of the matrix product: c chunks, whose columns lie c apart.
        worst: float32 (q,), the k-th best exact score so far, or -inf.
        slack: float (q,), how far a product may be from the score.
        top_k: k.
    """
    if scores.device.type != "cpu":
        return _candidates_on_device(scores, worst, slack, top_k)

    # A row of the k best reaches the k-th best so far, and the k-th best of this block.
    maxima = scores.amax(dim=1).numpy()  # (q, c)
    floor = worst - slack
    if np.isneginf(worst).any() and scores[0].numel() >= top_k:
        values = maxima if maxima.shape[1] >= top_k else scores.flatten(1).numpy()
        kth_best = np.partition(values, -top_k, axis=1)[:, -top_k]
        floor = np.maximum(floor, kth_best - 2 * slack)
    floor = np.nextafter(floor.astype(np.float32), -np.inf).clip(LOWEST)[:, None]  # (q, 1)

    # First the chunks whose maximum reaches the floor, then their columns.
    query, chunk = _nonzero(maxima >= floor)
    picked = scores.numpy()[query, :, chunk]  # (chunks, CHUNK); NumPy indexes faster than torch
    hit, inside = _nonzero(picked >= floor[query])
    return query[hit], inside * maxima.shape[1] + chunk[hit]


def _candidates_on_device(
    scores: torch.Tensor, worst: np.ndarray, slack: np.ndarray, top_k: int
) -> tuple[np.ndarray, np.ndarray]:
    """As :func:`_candidates`, but only the candidates leave the device.

    A copy of the maxima of all chunks would be a sixteenth of the scores.
    """
    maxima = scores.amax(dim=1)  # (q, c)
    floor = worst - slack
    if np.isneginf(worst).any() and scores[0].numel() >= top_k:
        values = maxima if maxima.shape[1] >= top_k else scores.flatten(1)
        kth_best = values.topk(top_k, dim=1).values[:, -1].cpu().numpy()
        floor = np.maximum(floor, kth_best - 2 * slack)
    floor = np.nextafter(floor.astype(np.float32), -np.inf).clip(LOWEST)
    lowest = torch.from_numpy(floor).to(scores.device)[:, None]  # (q, 1)

    # First the chunks whose maximum reaches the floor, then their columns.
    query, chunk = (maxima >= lowest).nonzero(as_tuple=True)
    hit, inside = (scores[query, :, chunk] >= lowest[query]).nonzero(as_tuple=True)
    columns = inside * maxima.shape[1] + chunk[hit]
    found = torch.stack([query[hit], columns]).cpu().numpy()  # one copy, so one wait
    return found[0], found[1]


def _nonzero(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns that are true, ten times as fast as ``mask.nonzero()``."""
    row, column = np.divmod(np.flatnonzero(mask), mask.shape[1])
    return row, column


def _divide_memory(dim: int, batch: int, memory_mb: int, device: torch.device) -> tuple[int, int]:
    """Number of workers, and rows of a block of each.

    A row costs itself, a copy on the device and the gathered candidates, and its scores twice.

    Raises:
        SidmillError: if the memory holds no block.
    """
    row_bytes = row_blocks.FLOAT_BYTES * (3 * dim + 2 * batch)
    fit = memory_mb * row_blocks.MIB // row_bytes - CHUNK  # the scores are padded by up to CHUNK
    if fit < 1:
        raise SidmillError(
            f"memory_mb {memory_mb} is too small for {batch} queries and {dim} dimensions: raise "
            f"retrieval.memory_mb, or lower retrieval.search_batch"
        )
    if device.type == "cpu":
        workers = max(1, min(torch.get_num_threads(), fit // MIN_ROWS))
        return workers, min(fit // workers, BLOCK_ROWS)

    # On a GPU one reads while another computes; more than two where each has a whole block.
    most = min(DEVICE_WORKERS, torch.get_num_threads(), fit // DEVICE_ROWS)
    workers = max(1, min(max(2, most), fit // MIN_ROWS))
    return workers, min(fit // workers, DEVICE_ROWS)
