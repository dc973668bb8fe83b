"""The first passages of a run, put in the order of a cross encoder.

Letters: Q queries, k passages each, of which the first d are read again.
"""

import logging
from pathlib import Path

import numpy as np
import torch

from sidmill.core.errors import SidmillError
from sidmill.formats import text
from sidmill.formats.runs import Run
from sidmill.retrieval import cross

logger = logging.getLogger(__name__)

PAIRS_AT_ONCE = 8192  # sorted by length together


def rerank(
    run: Run,
    corpus_path: str | Path,
    queries_path: str | Path,
    *,
    model: str,
    revision: str | None,
    instruction: str | None,
    depth: int,
    batch_size: int,
    max_length: int,
    dtype: str,
    device: str,
) -> Run:
    """Read the first d passages of each query again; the others follow in their old order.

    Pairs are sorted by length, so that little of a batch is padding. Equal scores keep the order of
    the run. Memory: the texts of the run's first d passages, and a batch.

    Args:
        run: the run.
        corpus_path: text.parquet of the passages.
        queries_path: text.parquet of the queries.
        model: folder or hub id of a cross encoder.
        revision: of a hub model.
        instruction: for a language model, what a passage is wanted for; null: the model's own.
        depth: d; more than k is k.
        batch_size: pairs per batch.
        max_length: tokens per pair.
        dtype: float32 or bfloat16.
        device: auto, cpu or cuda.

    Returns:
        The same passages; those not read again score 1, 2, ... below the last that was.

    Raises:
        SidmillError: if a text is missing, the model gives a NaN, or a batch does not fit.
    """
    depth = min(depth, run.scores.shape[1])
    pids = sorted({pid for line in run.pids for pid in line[:depth]})
    passages = _texts(corpus_path, set(pids))
    queries = _texts(queries_path, set(run.qids))
    reader = cross.load(model, revision, max_length, dtype, device, "rerank.model")
    scores = np.empty((len(run.qids), depth), dtype=np.float32)
    lines = max(1, PAIRS_AT_ONCE // depth)
    for low in range(0, len(run.qids), lines):
        pairs = [
            (queries[qid], passages[pid])
            for qid, found in zip(run.qids[low : low + lines], run.pids[low:], strict=False)
            for pid in found[:depth]
        ]
        scores[low : low + lines] = _score(reader, pairs, instruction, batch_size).reshape(
            -1, depth
        )
        logger.info("%d of %d queries", min(low + lines, len(run.qids)), len(run.qids))
    if not np.isfinite(scores).all():
        raise SidmillError(f"{model} gives scores that are not finite: set rerank.dtype: float32")
    order = np.argsort(-scores, axis=1, kind="stable")
    scores = np.take_along_axis(scores, order, axis=1)
    rest = np.arange(1, run.scores.shape[1] - depth + 1, dtype=np.float32)
    new = [
        [found[place] for place in places] + found[depth:]
        for found, places in zip(run.pids, order, strict=True)
    ]
    return Run(run.qids, new, np.hstack([scores, scores[:, -1:] - rest]))


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
    """The texts of some ids, as strings. Memory: these, and a row group."""
    found = {}
    for table in text.read(path):
        for pid, line in zip(table["pid"].to_pylist(), table["text"].to_pylist(), strict=True):
            if str(pid) in wanted:
                found[str(pid)] = line
    missing = wanted - found.keys()
    if missing:
        raise SidmillError(
            f"{path} lacks {len(missing)} ids of the run, such as {min(missing)!r}: make the run "
            f"again"
        )
    return found
