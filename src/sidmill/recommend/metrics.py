"""Full-sort metrics from ranks, with bootstrap intervals over users.

Each query has one target, so HR@k is Recall@k, and NDCG@k is 1 / log2(1 + rank). A target that ties
with e other items takes each of the e + 1 ranks equally often: the metrics are the exact
expectation over random tie-breaking.

Shapes: Q queries, U users, M metrics, R resamples.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from sidmill.numeric import bootstrap
from sidmill.recommend.rank import Ranks

CUTOFFS = (1, 5, 10, 20, 50)
NAMES = (*(f"HR@{k}" for k in CUTOFFS), *(f"NDCG@{k}" for k in CUTOFFS), "MRR")


# The metrics of a method by name, each with ``value`` and, with resamples, ``low`` and ``high``.
Entries = dict[str, dict[str, float]]


class Values(NamedTuple):
    """Metrics of each query: ``users`` int64 (Q,), ``values`` float64 (Q, M) in order of NAMES."""

    users: np.ndarray
    values: np.ndarray


def of(ranks: Ranks, weights: np.ndarray | None = None) -> Values:
    """Compute all metrics of every query from its rank. Memory: 88 bytes per query.

    Args:
        ranks: of the targets.
        weights: float (Q,), of a hit; None: 1.
    """
    # Of the e + 1 ranks that a target may take, some are within the cutoff.
    tied = ranks.equal + 1
    columns = [np.clip(cutoff - ranks.higher, 0, tied) / tied for cutoff in CUTOFFS]
    for cutoff in CUTOFFS:
        gains = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, cutoff + 2)))])
        first, last = np.minimum(ranks.higher, cutoff), np.minimum(ranks.higher + tied, cutoff)
        columns.append((gains[last] - gains[first]) / tied)
    columns.append((_harmonic(ranks.higher + tied) - _harmonic(ranks.higher)) / tied)

    values = np.stack(columns, axis=1)
    return Values(ranks.users, values if weights is None else values * weights[:, None])


def describe(n_items: int, *, mask_seen: bool, n_resamples: int) -> dict[str, Any]:
    """How figures are measured, for the reader of metrics.json.

    Args:
        n_items: N.
        mask_seen: whether items of the history are left out.
        n_resamples: R.
    """
    return {
        "history": "all interactions of the user before the target, of any split",
        "ranked": "all items that the user did not have" if mask_seen else "all items",
        "n_items": n_items,
        "ties": "expectation over random order",
        "intervals": f"95 %, {n_resamples} bootstrap resamples of the users",
    }


def _harmonic(counts: np.ndarray) -> np.ndarray:
    """1 + 1/2 + ... + 1/n for each n: float64. Memory: 8 bytes per rank up to the highest."""
    sums: np.ndarray = np.concatenate(
        [[0.0], np.cumsum(1 / np.arange(1, counts.max(initial=0) + 1))]
    )
    return np.take(sums, counts)


def mean(ranks: Ranks, name: str) -> float:
    """One metric, as a plain mean over queries."""
    return float(of(ranks).values[:, NAMES.index(name)].mean())


def table(
    methods: dict[str, Values], *, n_resamples: int, seed: int
) -> dict[str, dict[str, Entries]]:
    """Means over queries and their intervals, for methods that ranked the same queries.

    Users are drawn with replacement, each with all of its queries, the same users for every
    method: differences of methods are paired.

    Args:
        methods: by name; the others are compared with the first.
        n_resamples: R; 0 gives no intervals.
        seed: of the draws.

    Returns:
        Under ``methods``, the metrics of each method, each with ``value``, ``low``, ``high``; under
        ``lead``, the first method's metrics minus those of each other method, in the same form.
    """
    # (U, methods x M + 1), sums of the metrics over the queries of each user, and their number
    names = list(methods)
    users, rows = np.unique(methods[names[0]].users, return_inverse=True)
    totals = [_sums(rows, methods[name].values, len(users)) for name in names]
    counts = np.bincount(rows, minlength=len(users)).astype(np.float64)
    joined = np.concatenate([*totals, counts[:, None]], axis=1)

    # (methods, M) over all users, and (R, methods, M) over users drawn with replacement
    point = _means(joined.sum(axis=0)[None], len(names))[0]
    drawn = _means(bootstrap.resample(joined, n_resamples, seed), len(names))

    tables = {name: _entries(point[m], drawn[:, m]) for m, name in enumerate(names)}
    lead = {
        name: _entries(point[0] - point[m], drawn[:, 0] - drawn[:, m])
        for m, name in enumerate(names)
        if m
    }
    return {"methods": tables, "lead": lead}


def _sums(rows: np.ndarray, values: np.ndarray, n_users: int) -> np.ndarray:
    """Sums of the metrics over the queries of each user: float64 (U, M)."""
    columns = [np.bincount(rows, weights=column, minlength=n_users) for column in values.T]
    return np.stack(columns, axis=1)


def _means(sums: np.ndarray, n_methods: int) -> np.ndarray:
    """Sums (R, methods x M + 1), the last their count, as means (R, methods, M)."""
    means: np.ndarray = sums[:, :-1] / sums[:, -1:]
    return means.reshape(len(sums), n_methods, len(NAMES))


def _entries(values: np.ndarray, drawn: np.ndarray) -> Entries:
    """Metrics (M,) with the percentiles of ``drawn`` (R, M); without intervals where R is 0."""
    entries = {name: {"value": float(value)} for name, value in zip(NAMES, values, strict=True)}
    if len(drawn):
        bounds = np.percentile(drawn, bootstrap.INTERVAL, axis=0)
        for name, low, high in zip(NAMES, *bounds, strict=True):
            entries[name] |= {"low": float(low), "high": float(high)}
    return entries


def share(values: Sequence[bool] | np.ndarray) -> float:
    """Share of true values; 0 of none."""
    return float(np.mean(values)) if len(values) else 0.0
