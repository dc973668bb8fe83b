"""The first passages of a run, put in the order of a cross encoder.

Letters: Q queries, k passages each, of which the first d are read again.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from sidmill.core.errors import SidmillError
from sidmill.formats import item_text, neighbour_lists
from sidmill.formats.neighbour_lists import Neighbours
from sidmill.formats.run_files import Run
from sidmill.retrieval import cross

logger = logging.getLogger(__name__)

PAIRS_AT_ONCE = 2048  # sorted by length together; shards are made of whole such portions


def rerank_shard(
    run: Run,
    corpus_path: str | Path,
    queries_path: str | Path,
    *,
    shard: int,
    shards: int,
    model: str,
    revision: str | None,
    instruction: str | None,
    depth: int,
    batch_size: int,
    max_length: int,
    dtype: str,
    device: str,
) -> Neighbours:
    """Read the first d passages of each query of a shard again.

    Pairs are sorted by length, so that little of a batch is padding, in portions that are the same
    for any number of shards: so are the scores. Equal scores keep the order of the run. Memory: the
    texts of the shard's first d passages, and a batch.

    Args:
        run: the whole run.
        corpus_path: text.parquet of the passages.
        queries_path: text.parquet of the queries.
        shard: number of the shard, from 0.
        shards: how many there are.
        model: folder or hub id of a cross encoder.
        revision: of a hub model.
        instruction: for a language model, what a passage is wanted for; null: the model's own.
        depth: d; more than k is k.
        batch_size: pairs per batch.
        max_length: tokens per pair.
        dtype: float32 or bfloat16.
        device: auto, cpu or cuda.

    Returns:
        For each query of the shard, the places in its line of the run, from 0, best first, and
        their scores, (q, d).

    Raises:
        SidmillError: if a text is missing, the model gives a NaN, or a batch does not fit.
    """
    depth = min(depth, run.scores.shape[1])
    lines = max(1, PAIRS_AT_ONCE // depth)
    portions = item_text.shard_bounds(-(-len(run.qids) // lines), shard, shards)
    start, stop = (min(portion * lines, len(run.qids)) for portion in portions)
    if start == stop:
        return Neighbours(np.empty((0, depth), np.int64), np.empty((0, depth), np.float32))
    passages = _texts(corpus_path, {pid for line in run.pids[start:stop] for pid in line[:depth]})
    queries = _texts(queries_path, set(run.qids[start:stop]))
    reader = cross.load(model, revision, max_length, dtype, device, "rerank.model")
    scores = np.empty((stop - start, depth), dtype=np.float32)
    for low in range(start, stop, lines):
        some = slice(low, min(low + lines, stop))
        pairs = [
            (queries[qid], passages[pid])
            for qid, found in zip(run.qids[some], run.pids[some], strict=True)
            for pid in found[:depth]
        ]
        found = _score(reader, pairs, instruction, batch_size)
        scores[low - start : some.stop - start] = found.reshape(-1, depth)
        logger.info("%d of %d queries", some.stop - start, stop - start)
    if not np.isfinite(scores).all():
        raise SidmillError(f"{model} gives scores that are not finite: set rerank.dtype: float32")
    order = np.argsort(-scores, axis=1, kind="stable")
    return Neighbours(order, np.take_along_axis(scores, order, axis=1))


def merge(run: Run, part_paths: Sequence[str | Path]) -> Run:
    """Put a run in the order that the shards of its reranking found.

    Args:
        run: the run that was reranked.
        part_paths: files that :func:`rerank_shard`'s results were written to, in order.

    Returns:
        The same passages; those not read again follow in their old order and score 1, 2, ... below
        the last that was.

    Raises:
        SidmillError: if the shards are not of this run.
    """
    parts = [neighbour_lists.read(path) for path in part_paths]
    places, scores = (np.concatenate(column) for column in zip(*parts, strict=True))
    if len(places) != len(run.qids):
        raise SidmillError(
            f"{len(places)} queries were reranked, the run has {len(run.qids)}: delete the shards "
            f"of results/retrieval/cross and run again"
        )
    depth = places.shape[1]
    rest = np.arange(1, run.scores.shape[1] - depth + 1, dtype=np.float32)
    pids = [
        [found[place] for place in line] + found[depth:]
        for found, line in zip(run.pids, places.tolist(), strict=True)
    ]
    return Run(run.qids, pids, np.hstack([scores, scores[:, -1:] - rest]))


def _score(
    reader: cross.CrossEncoder,
    pairs: list[tuple[str, str]],
    instruction: str | None,
    batch_size: int,
) -> np.ndarray:
    """float32 (n,), before any sigmoid, which would make ties of sure answers."""
    try:
        return reader.predict(
            pairs,
            prompt=instruction,
            batch_size=batch_size,
            show_progress_bar=False,
            activation_fn=torch.nn.Identity(),
        )
    except torch.OutOfMemoryError:
        raise SidmillError(
            f"a batch of {len(pairs)} pairs does not fit the device: lower rerank.batch_size (now "
            f"{batch_size})"
        ) from None


def _texts(path: str | Path, wanted: set[str]) -> dict[str, str]:
    found = item_text.find(path, wanted)
    missing = wanted - found.keys()
    if missing:
        raise SidmillError(
            f"{path} lacks {len(missing)} ids of the run, such as {min(missing)!r}: make the run "
            f"again"
        )
    return found
