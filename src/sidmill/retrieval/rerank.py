"""Reranking: a cross encoder orders the first passages of each query of a run.

Letters: Q queries, k passages each, of which the first d are reranked; n pairs.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sentence_transformers.cross_encoder import CrossEncoder

from sidmill.core.errors import SidmillError
from sidmill.formats import item_text, neighbour_lists
from sidmill.formats.neighbour_lists import Neighbours
from sidmill.formats.run_files import Run
from sidmill.retrieval import cross
from sidmill.settings.retrieval import Rerank

logger = logging.getLogger(__name__)

PAIRS_AT_ONCE = 2048  # one portion: its pairs are sorted by length; shards hold whole portions


def rerank_shard(
    run: Run,
    corpus_path: str | Path,
    queries_path: str | Path,
    shard: int,
    shards: int,
    settings: Rerank,
) -> Neighbours:
    """Score the first d passages of each query of a shard.

    Pairs are sorted by length to avoid padding, in portions that do not depend on the number of
    shards, so the scores do not depend on it either. Equal scores keep the order of the run.
    Another device, or number of threads, may change the last bits of the scores. Memory: the texts
    of the shard's first d passages, and a batch.

    Args:
        run: the whole run.
        corpus_path: text.parquet of the passages.
        queries_path: text.parquet of the queries.
        shard: number of the shard, from 0.
        shards: number of shards.
        settings: section ``rerank``; a depth above k counts as k.

    Returns:
        For each query of the shard, the positions of its passages in the run, from 0, best first,
        and their scores, (q, d).

    Raises:
        SidmillError: if a text is missing, the model gives a NaN, or a batch does not fit.
    """
    # The queries of the shard: whole portions of the run.
    depth = min(settings.depth, run.scores.shape[1])
    portion = max(1, PAIRS_AT_ONCE // depth)  # queries
    n_portions = -(-len(run.qids) // portion)
    start, stop = (
        min(bound * portion, len(run.qids))
        for bound in item_text.shard_bounds(n_portions, shard, shards)
    )
    if start == stop:
        return Neighbours(np.empty((0, depth), np.int64), np.empty((0, depth), np.float32))

    pids = {pid for line in run.pids[start:stop] for pid in line[:depth]}
    passages = _read_texts(corpus_path, pids)
    queries = _read_texts(queries_path, set(run.qids[start:stop]))
    reader = cross.load(settings)

    # A portion at a time: (q, d) scores.
    scores = np.empty((stop - start, depth), dtype=np.float32)
    for low in range(start, stop, portion):
        high = min(low + portion, stop)
        pairs = [
            (queries[qid], passages[pid])
            for qid, line in zip(run.qids[low:high], run.pids[low:high], strict=True)
            for pid in line[:depth]
        ]
        scores[low - start : high - start] = _score(reader, pairs, settings).reshape(-1, depth)
        logger.info("%d of %d queries", high - start, stop - start)
    if not np.isfinite(scores).all():
        raise SidmillError(
            f"{settings.model} gives scores that are not finite: set rerank.dtype: float32"
        )

    order = np.argsort(-scores, axis=1, kind="stable")
    return Neighbours(order, np.take_along_axis(scores, order, axis=1))


def merge(run: Run, part_paths: Sequence[str | Path]) -> Run:
    """Put a run in the order of its reranked shards.

    Args:
        run: the run that was reranked.
        part_paths: files of the results of :func:`rerank_shard`, in order.

    Returns:
        The same passages; those below depth d follow in their old order, with scores 1, 2, ...
        below the last reranked one.

    Raises:
        SidmillError: if the shards are not of this run.
    """
    parts = [neighbour_lists.read(path) for path in part_paths]
    positions, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
    if len(positions) != len(run.qids):
        raise SidmillError(
            f"{len(positions)} queries were reranked, the run has {len(run.qids)}: delete the "
            f"shards of results/retrieval/cross and run again"
        )
    depth = positions.shape[1]
    rest = np.arange(1, run.scores.shape[1] - depth + 1, dtype=np.float32)
    pids = [
        [line[position] for position in order] + line[depth:]
        for line, order in zip(run.pids, positions.tolist(), strict=True)
    ]
    return Run(run.qids, pids, np.hstack([scores, scores[:, -1:] - rest]))


def _score(reader: CrossEncoder, pairs: list[tuple[str, str]], settings: Rerank) -> np.ndarray:
    """float32 (n,), without a sigmoid, which would make high scores equal."""
    try:
        scores: np.ndarray = reader.predict(
            pairs,
            prompt=settings.instruction,
            batch_size=settings.batch_size,
            show_progress_bar=False,
            activation_fn=torch.nn.Identity(),
        )
        return scores
    except torch.OutOfMemoryError:
        raise SidmillError(
            f"a batch of {settings.batch_size} of {len(pairs)} pairs does not fit the device: "
            f"lower rerank.batch_size (now {settings.batch_size})"
        ) from None


def _read_texts(path: str | Path, ids: set[str]) -> dict[str, str]:
    texts = item_text.find(path, ids)
    missing = ids - texts.keys()
    if missing:
        raise SidmillError(
            f"{path} lacks {len(missing)} ids of the run, such as {min(missing)!r}: make the run "
            f"again"
        )
    return texts
