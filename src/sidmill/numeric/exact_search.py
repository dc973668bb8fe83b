"""Exact inner-product search through vectors on disk: no index, and memory that N does not change.

Letters: N rows of the corpus, Q queries, D dimensions, k neighbours, b rows of one block.

The score of a query and a row is defined by one expression, ``(query * row).sum()`` in float32, as
NumPy adds up a contiguous row: an order that depends on D alone. A matrix product only picks the
candidates: every row that comes, within the product's rounding, as near as the k-th best so far.
Equal scores go to the lower rank of the id. So the result depends neither on blocks, shards,
threads nor the device.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from threadpoolctl import threadpool_limits

from sidmill.core.errors import SidmillError
from sidmill.formats.neighbour_lists import Neighbours
from sidmill.numeric import nearest_torch, row_blocks
from sidmill.numeric.nearest_numpy import EPSILON, MARGIN
from sidmill.numeric.topk_heap import Best

logger = logging.getLogger(__name__)

BLOCK_ROWS = 4096  # on a CPU: the scores of 1,000 queries stay in its last cache
DEVICE_ROWS = 65536
MIN_ROWS = 256  # of a block: fewer are not worth a thread
CHUNK = 16  # scores that are looked at through their maximum
PAIRS = 1024  # candidates whose score is computed at a time: they stay in a core's own cache
BLOCKS_PER_MESSAGE = 1000
LOWEST = np.finfo(np.float32).min


class Asked(NamedTuple):
    """The queries: float32 (Q, D) twice, and their norms, float32 (Q,)."""

    rows: np.ndarray
    on_device: torch.Tensor
    norms: np.ndarray


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

    The corpus is read once, block by block. Each thread reads and searches blocks of its own, so
    that one reads while another computes. Memory: ``memory_mb``, 24 k bytes per query, 8 per row.

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
        SidmillError: if the dimensions differ, a vector is not finite, or a score may overflow.
    """
    if vectors.shape[1] != queries.shape[1]:
        raise SidmillError(
            f"queries have {queries.shape[1]} dimensions, passages {vectors.shape[1]}: embed both "
            f"with one model"
        )

    # Share the memory among the workers: one block and one table of scores each.
    place = nearest_torch.pick_device(device)
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    row_blocks.require_finite(queries, 0)
    batch = min(search_batch, max(len(queries), 1))
    workers, n_rows = _share(vectors.shape[1], batch, memory_mb, place)
    best = Best(len(queries), top_k, ranks)
    spares: SimpleQueue[torch.Tensor] = SimpleQueue()
    for _ in range(workers):
        spares.put(torch.empty(batch * (n_rows + CHUNK), device=place))

    # Search the blocks in parallel; the heap orders what they find by score and rank.
    firsts = range(start, stop, n_rows)
    parts = [vectors[first : min(first + n_rows, stop)] for first in firsts]
    asked = Asked(queries, torch.from_numpy(queries).to(place), np.linalg.norm(queries, axis=1))
    work = partial(_search_block, asked, batch, spares, best)
    with (
        threadpool_limits(1, user_api="blas"),  # a worker is one thread
        ThreadPoolExecutor(workers) as pool,
    ):
        nearest_torch.share_cores(pool, workers, 1)
        for number, stopped in enumerate(pool.map(work, firsts, parts), start=1):
            if number % BLOCKS_PER_MESSAGE == 0:
                logger.info("%d of %d rows searched", stopped - start, stop - start)
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


def score(queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Score pairs by the deciding expression: float32 (n, D) twice -> float32 (n,)."""
    result: np.ndarray = (queries * rows).sum(axis=1)
    return result


def id_ranks(ids: pa.ChunkedArray) -> np.ndarray:
    """Place of each id in sorted order, int64 (N,): integers by value, strings by code point."""
    ranks = np.empty(len(ids), dtype=np.int64)
    ranks[pc.array_sort_indices(ids.combine_chunks()).to_numpy()] = np.arange(len(ids))
    return ranks


def _search_block(
    asked: Asked,
    batch: int,
    spares: "SimpleQueue[torch.Tensor]",
    best: Best,
    first: int,
    part: np.ndarray,
) -> int:
    """Search one block, and return the row after its last.

    Args:
        asked: the queries.
        batch: queries at a time.
        spares: a tensor for the scores, for each worker.
        best: what was found so far.
        first: row of the block in the store.
        part: float32 or float16 (b, D), in memory or memory-mapped.
    """
    (_, block) = next(row_blocks.read_blocks(part, len(part)))
    # as in nearest_numpy: eight times what rounding was seen to do, in units of eps sqrt(D)
    with np.errstate(over="ignore", invalid="ignore"):
        longest = float(np.sqrt(np.vecdot(block, block).max()))
        slack = MARGIN * EPSILON * block.shape[1] ** 0.5 * longest * asked.norms
        if not np.isfinite(longest * asked.norms).all():
            row_blocks.require_finite(block, first)
            raise SidmillError(
                f"scores of the rows from {first} on overflow float32: normalise the embeddings"
            )

    # Products propose candidates, batch by batch; exact scores enter the heap.
    rows = torch.from_numpy(block).to(asked.on_device.device)
    spare = spares.get()
    try:
        for low in range(0, len(asked.rows), batch):
            some = slice(low, low + batch)
            scores = _multiply(asked.on_device[some], rows, spare)
            query, column = _candidates(scores, best.worst[some], slack[some], best.top_k)
            _offer(best, asked.rows, block, query + low, column, first)
    finally:
        spares.put(spare)
    return first + len(block)


def _offer(
    best: Best,
    queries: np.ndarray,
    block: np.ndarray,
    query: np.ndarray,
    column: np.ndarray,
    first: int,
) -> None:
    """Score candidates by the deciding expression, and keep those that are good enough.

    Args:
        best: what was found so far.
        queries: float32 (Q, D).
        block: float32 (b, D).
        query: int64 (c,), query of each candidate.
        column: int64 (c,), its row in the block.
        first: row of the block in the store.
    """
    scores = np.empty(len(query), dtype=np.float32)
    for low in range(0, len(query), PAIRS):
        part = slice(low, low + PAIRS)
        scores[part] = score(queries.take(query[part], axis=0), block.take(column[part], axis=0))
    good = scores >= best.worst[query]
    best.add(query[good], column[good] + first, scores[good])


def _multiply(queries: torch.Tensor, rows: torch.Tensor, spare: torch.Tensor) -> torch.Tensor:
    """float32 (q, D) and (b, D) -> (q, CHUNK, b / CHUNK rounded up), ended by -inf, in ``spare``.

    On a CPU NumPy's product is the faster one.
    """
    width = -(-len(rows) // CHUNK) * CHUNK
    scores = spare[: len(queries) * width].view(-1, width)
    scores[:, len(rows) :] = -torch.inf
    out = scores[:, : len(rows)]
    if out.device.type == "cpu":
        np.matmul(queries.numpy(), rows.numpy().T, out=out.numpy())
    else:
        torch.mm(queries, rows.T, out=out)
    result: torch.Tensor = scores.unflatten(1, (CHUNK, -1))  # type: ignore[no-untyped-call]
    return result


def _candidates(
    scores: torch.Tensor, worst: np.ndarray, slack: np.ndarray, top_k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Queries and columns whose product score may be among the k best.

    Args:
        scores: float32 (q, CHUNK, c), of the matrix product: c chunks, whose columns lie apart.
        worst: float32 (q,), the k-th best exact score so far, or -inf.
        slack: float (q,), how far a product may be off.
        top_k: k.
    """
    maxima = scores.amax(dim=1).cpu().numpy()
    floor = worst - slack
    if np.isneginf(worst).any() and scores[0].numel() >= top_k:
        # what k of these reach, the k best do
        some = maxima if maxima.shape[1] >= top_k else scores.flatten(1).cpu().numpy()
        own = np.partition(some, -top_k, axis=1)[:, -top_k]
        floor = np.maximum(floor, own - 2 * slack)
    floor = np.nextafter(floor.astype(np.float32), -np.inf).clip(LOWEST)[:, None]
    query, chunk = _places(maxima >= floor)
    held = scores.numpy() if scores.device.type == "cpu" else scores  # NumPy picks faster too
    picked = torch.as_tensor(held[query, :, chunk]).cpu().numpy()
    hit, inside = _places(picked >= floor[query])
    return query[hit], inside * maxima.shape[1] + chunk[hit]


def _places(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lines and columns that are true, ten times as fast as ``mask.nonzero()``."""
    return np.divmod(np.flatnonzero(mask), mask.shape[1])


def _share(dim: int, batch: int, memory_mb: int, place: torch.device) -> tuple[int, int]:
    """How many workers share the memory, and rows of a block of each.

    A row costs itself, a copy on the device and what is gathered of it, and its scores twice.
    """
    row_bytes = row_blocks.FLOAT_BYTES * (3 * dim + 2 * batch)
    fit = memory_mb * row_blocks.MIB // row_bytes - CHUNK  # by so many the scores are padded
    if fit < 1:
        raise SidmillError(
            f"memory_mb {memory_mb} is too small for {batch} queries and {dim} dimensions: raise "
            f"retrieval.memory_mb, or lower retrieval.search_batch"
        )
    on_cpu = place.type == "cpu"
    threads = torch.get_num_threads() if on_cpu else 2  # one reads while the other computes
    workers = max(1, min(threads, fit // MIN_ROWS))
    return workers, min(fit // workers, BLOCK_ROWS if on_cpu else DEVICE_ROWS)
