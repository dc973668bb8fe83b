"""What a recommender does with the SIDs of each member of the comparison.

metrics.json of a member has the interval of each of its own figures. Whether two members differ is
another question: the members are measured on the same users, who are easy or hard for all of them.
The difference is therefore computed in each resample of the users, for both members of the same
draw. Its interval is of the users alone: the models of the seeds are the same in every resample.

Shapes: U users, M members, R resamples.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sidmill.core.errors import SidmillError
from sidmill.formats import user_metrics
from sidmill.io import json_report
from sidmill.numeric import bootstrap

Table = dict[str, Any]
METHOD = "generative"
SAME = ("user", "queries", "cold_queries")  # columns that are equal for all members


class Metric(NamedTuple):
    """One metric of the test split.

    Attributes:
        key: its name in comparison.json and its column in users.parquet.
        counted: the column of users.parquet with the number of its queries.
        title: in words.
    """

    key: str
    counted: str
    title: str


METRICS = (
    Metric("HR@10", "queries", "HR@10"),
    Metric("NDCG@10", "queries", "NDCG@10"),
    Metric("cold_HR@10", "cold_queries", "HR@10, cold targets"),
)


def gather(
    members: Sequence[str],
    metrics_paths: Sequence[str | Path],
    users_paths: Sequence[str | Path],
    *,
    n_resamples: int,
    seed: int,
) -> list[Table | None]:
    """Gather the figures of the recommender of each member, and its lead over the first.

    Memory: 48 bytes per user and member.

    Args:
        members: names of the quantizers.
        metrics_paths: metrics.json of each; empty: no recommender is compared.
        users_paths: users.parquet of each.
        n_resamples: R, of the users; 0 gives no intervals.
        seed: of the draws.

    Returns:
        Per member None where no recommender is compared, else ``model``, ``seeds``, ``targets``,
        ``cold_targets``, and by metric ``value``, ``low``, ``high``, ``standard_deviation`` over
        the seeds, and ``difference`` to the first member with ``value``, ``low``, ``high``. A
        metric without targets is None.

    Raises:
        SidmillError: if the test split has no target, or members are measured on other users.
    """
    if not metrics_paths:
        return [None] * len(members)

    # Each file is of the same users, or differences have no meaning.
    measured = [_read(path) for path in metrics_paths]
    users = [user_metrics.read(path) for path in users_paths]
    for columns, path in zip(users, users_paths, strict=True):
        if not all(np.array_equal(columns[key], users[0][key]) for key in SAME):
            raise SidmillError(
                f"{path}: has other users or targets than {users_paths[0]}: measure both again "
                f"(--forcerun evaluate_generative)"
            )

    # Figures of each member, with its lead over the first.
    leads = {metric.key: _differences(users, metric, n_resamples, seed) for metric in METRICS}
    return [
        _member(figures, {key: lead[number] for key, lead in leads.items()})
        for number, figures in enumerate(measured)
    ]


def _read(path: str | Path) -> Table:
    """Read metrics.json.

    Raises:
        SidmillError: if its test split has no target.
    """
    figures: Table = json_report.read(path)
    if "methods" not in figures["test"]:
        raise SidmillError(
            f"{path}: the test split has no interaction to predict, so recommenders cannot be "
            f"compared: change interactions.split, or set comparison.downstream: false"
        )
    return figures


def _member(figures: Table, leads: dict[str, Table | None]) -> Table:
    """The figures of one member, under the names of comparison.json."""
    # How it was measured. Without cold targets there is no such group.
    test = figures["test"]
    cold = test["by_target"]["training"].get("never_in_training")
    member = {
        "model": figures["protocol"]["model"],
        "seeds": figures["protocol"]["seeds"],
        "targets": test["targets"],
        "cold_targets": cold["targets"] if cold else 0,
    }

    # Figures with their intervals; the spread over seeds is known for all targets together.
    for key in ("HR@10", "NDCG@10"):
        spread = test["seeds"][key]
        is_known = len(spread["values"]) > 1  # one seed says nothing about others
        member[key] = {
            **test["methods"][METHOD][key],
            "standard_deviation": spread["standard_deviation"] if is_known else None,
            "difference": leads[key],
        }
    member["cold_HR@10"] = cold and {
        **cold["methods"][METHOD]["HR@10"],
        "standard_deviation": None,
        "difference": leads["cold_HR@10"],
    }
    return member


def _differences(
    users: list[user_metrics.Columns], metric: Metric, n_resamples: int, seed: int
) -> list[Table | None]:
    """The lead of each member over the first, None for the first and where there is no target."""
    # (U, M + 1), sums of the metric by member and the number of queries, of users who have any
    counts = users[0][metric.counted]
    asked = counts > 0
    if not asked.any():
        return [None] * len(users)
    columns = [*(columns[metric.key] for columns in users), counts]
    sums = np.stack([column[asked] for column in columns], axis=1).astype(np.float64)

    # (M,) over all users, and (R, M) over users drawn with replacement
    point, drawn = _leads(sums.sum(axis=0)), _leads(bootstrap.resample(sums, n_resamples, seed))
    found: list[Table | None] = [None]
    for member in range(1, len(users)):
        entry = {"value": float(point[member])}
        if n_resamples:
            low, high = np.percentile(drawn[:, member], bootstrap.INTERVAL)
            entry |= {"low": float(low), "high": float(high)}
        found.append(entry)
    return found


def _leads(sums: np.ndarray) -> np.ndarray:
    """Means less that of the first member (..., M), from sums and their count (..., M + 1)."""
    means: np.ndarray = sums[..., :-1] / sums[..., -1:]
    leads: np.ndarray = means - means[..., :1]
    return leads


def table_rows(members: list[Table]) -> list[tuple[str, list[str]]]:
    """Rows of comparison.md: a title, and a cell per member; none where none was measured."""
    if members[0]["downstream"] is None:
        return []
    rows = []
    for metric in METRICS:
        entries = [member["downstream"][metric.key] for member in members]
        if entries[0] is None:
            continue
        highest = max(entry["value"] for entry in entries)
        cells = [figure_words(entry, is_best=entry["value"] == highest) for entry in entries]
        rows.append((f"recommender: {metric.title} (higher is better)", cells))
        if len(members) > 1:
            differences = [difference_words(entry["difference"]) for entry in entries]
            title = f"recommender: {metric.title} less that of {members[0]['name']}"
            rows.append((title, differences))
    return rows


def describe(members: list[Table]) -> str:
    """Describe the recommender figures for the reader of comparison.md; empty without any."""
    found = members[0]["downstream"]
    if found is None:
        return ""
    n_seeds = len(found["seeds"])
    spread = ", ± standard deviation over the seeds" if n_seeds > 1 else ""
    return (
        f" Recommender: the generative one (`{found['model']}`, mean of {n_seeds} seeds) on the "
        f"SIDs **after** collisions are resolved; test split, {found['targets']:,} targets, of "
        f"which {found['cold_targets']:,} cold (no user has them in train); [95 % interval over "
        f"users]{spread}. Differences are of the same users."
    )


def figure_words(entry: Table, *, is_best: bool) -> str:
    """Write a recommender figure with its interval and its spread over seeds."""
    value = f"{entry['value']:.4f}"
    words = f"**{value}**" if is_best else value
    if "low" in entry:
        words += f" [{entry['low']:.4f}, {entry['high']:.4f}]"
    if entry["standard_deviation"] is not None:
        words += f" ± {entry['standard_deviation']:.4f}"
    return words


def difference_words(entry: Table | None) -> str:
    """Write a difference of recommender figures with its interval, with signs."""
    if entry is None:
        return "–"
    words = f"{entry['value']:+.4f}"
    if "low" in entry:
        words += f" [{entry['low']:+.4f}, {entry['high']:+.4f}]"
    return words
