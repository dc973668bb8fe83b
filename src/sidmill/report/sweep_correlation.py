"""Does a cheap figure of a tokenizer predict what a recommender does with its SIDs?

Rank correlation of each figure of sweep.json with a metric of the recommenders, over tokenizers.
Spearman's rho is the correlation of ranks, Kendall's tau-b counts pairs; ties have mean ranks. The
interval draws tokenizers with replacement. Many figures are tried, so the largest |rho| is large by
chance: the threshold is the 95 % point of the largest |rho| of all figures when the metric is
permuted among the tokenizers (P. Westfall and S. Young, Resampling-Based Multiple Testing, 1993).

A figure *predicts* if its |rho| over the trained tokenizers exceeds the threshold, its interval
excludes 0, and, where some tokenizers have fused vectors, so does the interval of those on text,
with the same sign: figures of fused vectors are of another space. Anchors decide nothing, since
SIDs that are dealt at random differ from all others in every figure of meaning.

Shapes: T tokenizers, F figures, R draws.
"""

import math
from typing import Any

import numpy as np
from scipy import stats

from sidmill.core.errors import SidmillError
from sidmill.numeric.bootstrap import INTERVAL
from sidmill.report.sweep import CHEAP

Table = dict[str, Any]
LEAST = 6  # tokenizers: fewer have no rank correlation worth a number
LEVEL = 95  # per cent of permutations whose largest |rho| is below the threshold
COSTS = {"cost_cpu_seconds": "CPU seconds to train the tokenizer"}
GROUPS = ("trained", "on_text", "with_anchors")


def correlate(found: Table, *, metric: str | None, n_draws: int, seed: int) -> Table:
    """Correlate every figure with a metric, over several groups of tokenizers.

    Args:
        found: content of sweep.json.
        metric: HR@10 or NDCG@10 of valid; None: that by which the winner was chosen.
        n_draws: R, resamples and permutations each.
        seed: of both.

    Returns:
        ``metric``, ``ceiling``, and by group ``tokenizers``, ``threshold`` and ``figures``: each
        with ``key``, ``title``, ``tokenizers``, ``rho``, ``low``, ``high``, ``tau`` and
        ``chance`` (share of permutations whose largest |rho| reaches this one), the largest
        |rho| first. A group of fewer than 6 tokenizers is None. ``predictors`` names the figures
        that predict.

    Raises:
        SidmillError: if fewer than 6 tokenizers are trained.
    """
    # Anchors are no tokenizers that one would choose.
    metric = metric or found["metric"]
    every = found["tokenizers"]
    trained = [one for one in every if not one["is_anchor"]]
    if len(trained) < LEAST:
        raise SidmillError(
            f"{len(trained)} trained tokenizers are too few for a rank correlation, wanted {LEAST} "
            f"or more: add entries to sweep.shapes, sweep.quantizers or sweep.fuse"
        )

    # The groups, and the correlations of each.
    members = {
        "trained": trained,
        "on_text": [one for one in trained if one["fuse"] == "none"],
        "with_anchors": every,
    }
    groups: dict[str, Table | None] = {
        name: _group(members[name], metric, n_draws, seed) if len(members[name]) >= LEAST else None
        for name in GROUPS
    }
    is_mixed = len(members["on_text"]) < len(trained)
    return {
        "metric": metric,
        "ceiling": ceiling(trained, metric),
        "predictors": _predictors(groups, is_mixed=is_mixed),
        **groups,
    }


def _group(entries: list[Table], metric: str, n_draws: int, seed: int) -> Table:
    """Correlations over some tokenizers."""
    values = np.array([entry["valid"][metric]["value"] for entry in entries])
    columns = _columns(entries)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(values), size=(n_draws, len(values)))
    permuted = rng.permuted(np.tile(values, (n_draws, 1)), axis=1)  # (R, T)

    # Each figure by itself, over the tokenizers that have it; (R,) by chance for the threshold.
    figures: list[Table] = []
    by_chance: list[np.ndarray] = []
    for key, title, column in columns:
        known = np.isfinite(column)
        if known.sum() < LEAST or len(np.unique(column[known])) < 2:
            continue
        rho = float(spearman(column[known], values[known]))
        draws = spearman(column[drawn], values[drawn])  # NaN where a draw has a missing value
        draws = draws[np.isfinite(draws)]
        low, high = np.percentile(draws, INTERVAL) if len(draws) else (math.nan, math.nan)
        tiled = np.tile(column[known], (n_draws, 1))
        by_chance.append(np.abs(spearman(tiled, permuted[:, known])))
        tau = stats.kendalltau(column[known], values[known]).statistic
        figures.append(
            {
                "key": key,
                "title": title,
                "tokenizers": int(known.sum()),
                "rho": rho,
                "low": _finite(low),
                "high": _finite(high),
                "tau": float(tau),
            }
        )

    # One threshold for all figures.
    largest = np.max(by_chance, axis=0) if by_chance else np.zeros(1)
    for figure in figures:
        figure["chance"] = float((largest >= abs(figure["rho"]) - 1e-12).mean())
    figures.sort(key=lambda figure: -abs(figure["rho"]))
    return {
        "tokenizers": len(entries),
        "threshold": float(np.percentile(largest, LEVEL)),
        "figures": figures,
    }


def _columns(entries: list[Table]) -> list[tuple[str, str, np.ndarray]]:
    """Key, title and values (T,) of each figure; NaN where a tokenizer lacks it."""

    def column(values: list[float | None]) -> np.ndarray:
        return np.array([math.nan if value is None else value for value in values], np.float64)

    cheap = [
        (one.key, one.title, column([entry["figures"][one.key] for entry in entries]))
        for one in CHEAP
    ]
    costs = [
        (key, title, column([entry["cost"]["cpu_seconds"] for entry in entries]))
        for key, title in COSTS.items()
    ]
    return [*cheap, *costs]


def spearman(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's rho of (..., n) with (..., n), along the last axis; NaN where one is constant.

    Ties have mean ranks. A missing value gives NaN.
    """
    ranks = [stats.rankdata(one, axis=-1, nan_policy="propagate") for one in (first, second)]
    centred = [one - one.mean(axis=-1, keepdims=True) for one in ranks]
    products = (centred[0] * centred[1]).sum(axis=-1)
    lengths = np.sqrt(np.square(centred[0]).sum(axis=-1) * np.square(centred[1]).sum(axis=-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        rho: np.ndarray = products / lengths
    return rho


def ceiling(entries: list[Table], metric: str) -> Table | None:
    """How well the metric agrees with itself: no figure can be expected to agree better.

    Returns:
        ``seeds``: Spearman's rho between the tokenizers' values with one seed and with another,
        mean over pairs of seeds; ``reliability``: share of the variance of the means over seeds
        that is not noise of the seeds. None for one seed.
    """
    single = np.array([entry["valid"][metric]["by_seed"] for entry in entries])  # (T, S)
    n_seeds = single.shape[1]
    if n_seeds < 2:
        return None
    pairs = [
        float(spearman(single[:, one], single[:, other]))
        for one in range(n_seeds)
        for other in range(one)
    ]
    noise = float(single.var(axis=1, ddof=1).mean()) / n_seeds
    total = float(single.mean(axis=1).var(ddof=1))
    return {
        "seeds": _finite(float(np.mean(pairs))),
        "reliability": max(1 - noise / total, 0.0) if total else 0.0,
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _excludes_zero(figure: Table) -> bool:
    low, high = figure["low"], figure["high"]
    return low is not None and (low > 0 or high < 0)


def _predictors(groups: dict[str, Table | None], *, is_mixed: bool) -> list[str]:
    """Keys of the figures that predict; see the top of this file."""
    trained, on_text = groups["trained"], groups["on_text"]
    by_key = {} if on_text is None else {one["key"]: one for one in on_text["figures"]}
    found: list[str] = []
    if trained is None:
        return found
    for figure in trained["figures"]:
        strong = abs(figure["rho"]) > trained["threshold"] and _excludes_zero(figure)
        if strong and is_mixed:
            same = by_key.get(figure["key"])
            strong = same is not None and _excludes_zero(same) and same["rho"] * figure["rho"] > 0
        if strong:
            found.append(figure["key"])
    return found
