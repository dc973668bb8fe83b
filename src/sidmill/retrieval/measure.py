"""Metrics of runs: MRR@10, Recall@1 and @50 as DuReader-retrieval defines them, nDCG@10, MAP.

Recall@k is the share of queries with an answer among the first k (success at k), not the share of
the answers found. Queries without any answer are left out, as the DuReader-retrieval evaluation
does; a query that the run lacks counts as 0. ir_measures computes them from ranks in place of
scores, so that ties keep the order of the run.

Source: https://github.com/PaddlePaddle/RocketQA, https://ir-measur.es
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import ir_measures
import numpy as np
import pyarrow as pa
from ir_measures import AP, RR, Success, nDCG

from sidmill.core.errors import SidmillError
from sidmill.formats import item_text
from sidmill.formats.run_files import Run
from sidmill.io import parquet
from sidmill.settings.retrieval import RetrievalMetrics

logger = logging.getLogger(__name__)

METRICS = {
    "MRR@10": (RR @ 10, 10),
    "Recall@1": (Success @ 1, 1),
    "Recall@50": (Success @ 50, 50),
    "nDCG@10": (nDCG @ 10, 10),
    "MAP": (AP, 1),
}
RESAMPLES_AT_ONCE = 256


def measure(
    runs: Mapping[str, Run],
    qrels: dict[str, dict[str, int]],
    corpus_path: str | None,
    settings: RetrievalMetrics,
    seed: int,
) -> tuple[dict[str, Any], pa.Table]:
    """Measure retrieval runs, and the difference of each to the first one.

    The interval of a difference is the middle 95 % of its mean over resampled queries (paired
    bootstrap); p is twice the share of resamples whose mean has the other sign.

    Args:
        runs: by name; they should have the same queries, which is not checked.
        qrels: labels by qid and pid.
        corpus_path: text.parquet of the passages, to count answers that no run can find because
            the corpus lacks them. None: not counted.
        settings: section ``retrieval_metrics``: resamples of the bootstrap.
        seed: of the bootstrap.

    Returns:
        Figures for metrics.json, and a table ``run``, ``qid`` and a column per metric. A metric
        with a cut-off above the k of a run is left out.

    Raises:
        SidmillError: if no query has an answer, or a run has none of the judged queries.
    """
    # Queries with an answer alone.
    answered = {
        qid: labels for qid, labels in qrels.items() if any(label > 0 for label in labels.values())
    }
    if not answered:
        raise SidmillError("no judgement is above 0: check retrieval.qrels")
    qids = sorted(answered)
    logger.info("%d queries, %d of them judged", len(qrels), len(qids))

    # Metrics that every run is deep enough for: (Q, metrics) of each run.
    depth = min(run.scores.shape[1] for run in runs.values())
    metrics = {name: metric for name, (metric, cut) in METRICS.items() if cut <= depth}
    values = {
        name: _per_query(name, run, answered, qids, list(metrics.values()))
        for name, run in runs.items()
    }

    figures = {
        "queries": len(qids),
        "judgements": _judgements(answered, runs, corpus_path),
        "depth": depth,
        "runs": {
            run: dict(zip(metrics, found.mean(axis=0).tolist(), strict=True))
            for run, found in values.items()
        },
        "differences": _differences(values, list(metrics), settings.resamples, seed),
    }
    return figures, _table(values, qids, list(metrics))


def _judgements(
    answered: dict[str, dict[str, int]], runs: Mapping[str, Run], corpus_path: str | None
) -> dict[str, int | None]:
    """Count answers that no run can find: the corpus lacks them, or the runs lack their query."""
    answers = [(qid, pid) for qid, labels in answered.items() for pid in labels if labels[pid] > 0]
    qids = {qid for run in runs.values() for qid in run.qids}
    counts: dict[str, int | None] = {
        "answers": len(answers),
        "answers_without_passage": None,
        "answers_without_query": sum(qid not in qids for qid, _ in answers),
    }

    # Ids of the corpus are read only where they are compared.
    if corpus_path is not None:
        present = item_text.find_ids(corpus_path, {pid for _, pid in answers})
        lacking = [(qid, pid) for qid, pid in answers if pid not in present]
        counts["answers_without_passage"] = len(lacking)
        if lacking:
            logger.warning(
                "%d of %d answers are passages that the corpus lacks, such as %r of query %r: no "
                "run can find them", len(lacking), len(answers), lacking[0][1], lacking[0][0],
            )  # fmt: skip
    return counts


def write_table(path: str, table: pa.Table) -> None:
    """Write per_query.parquet."""
    parquet.write(path, table.schema, [table])


def _per_query(
    name: str,
    run: Run,
    qrels: dict[str, dict[str, int]],
    qids: list[str],
    metrics: Sequence[ir_measures.Measure],
) -> np.ndarray:
    """float64 (Q, metrics)."""
    run_qids = set(run.qids)
    missing = sum(qid not in run_qids for qid in qids)
    if missing == len(qids):
        raise SidmillError(
            f"run {name}: none of its queries, such as {run.qids[0]!r}, is judged; judged is "
            f"{qids[0]!r}: check retrieval.queries, retrieval.query_ids and retrieval.qrels"
        )
    if missing:
        logger.warning(
            "run %s lacks %d of %d judged queries, counted as 0", name, missing, len(qids)
        )

    # Ranks in place of scores: ties keep the order of the run.
    ranked = {
        qid: {pid: -float(rank) for rank, pid in enumerate(pids)}
        for qid, pids in zip(run.qids, run.pids, strict=True)
        if qid in qrels
    }
    columns = {metric: column for column, metric in enumerate(metrics)}
    rows = {qid: row for row, qid in enumerate(qids)}
    values = np.zeros((len(qids), len(metrics)))
    for found in ir_measures.iter_calc(metrics, qrels, ranked):
        values[rows[found.query_id], columns[found.measure]] = found.value
    return values


def _differences(
    values: dict[str, np.ndarray], metrics: list[str], resamples: int, seed: int
) -> dict[str, dict[str, dict[str, float]]]:
    """The difference of each run to the first one: per metric its mean, interval and p."""
    first, *others = values
    return {
        f"{other} - {first}": {
            metric: dict(zip(("mean", "low", "high", "p"), interval, strict=True))
            for metric, interval in zip(
                metrics, _bootstrap(values[other] - values[first], resamples, seed), strict=True
            )
        }
        for other in others
    }


def _bootstrap(gains: np.ndarray, resamples: int, seed: int) -> list[list[float]]:
    """Mean, low and high end of the interval, p, for each column of (Q, metrics)."""
    rng = np.random.default_rng(seed)
    blocks = []
    for start in range(0, resamples, RESAMPLES_AT_ONCE):
        n = min(RESAMPLES_AT_ONCE, resamples - start)
        drawn = rng.multinomial(len(gains), np.full(len(gains), 1 / len(gains)), size=n)
        blocks.append(drawn @ gains / len(gains))
    means = np.concatenate(blocks)  # (resamples, metrics)

    low, high = np.quantile(means, (0.025, 0.975), axis=0)
    sides = np.minimum((means <= 0).mean(axis=0), (means >= 0).mean(axis=0))
    p = np.minimum(1, 2 * np.maximum(sides, 1 / resamples))
    intervals: list[list[float]] = np.stack([gains.mean(axis=0), low, high, p], axis=1).tolist()
    return intervals


def _table(values: dict[str, np.ndarray], qids: list[str], metrics: list[str]) -> pa.Table:
    return pa.concat_tables(
        pa.table(
            {
                "run": pa.array([run] * len(qids), pa.string()),
                "qid": pa.array(qids, pa.string()),
                **{metric: found[:, column] for column, metric in enumerate(metrics)},
            }
        )
        for run, found in values.items()
    )
