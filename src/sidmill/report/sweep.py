"""The tokenizers of a sweep side by side: figures, metrics of a recommender, cost, the winner.

A recommender of its own is trained on the SIDs of each tokenizer, with the same settings and seeds.
Two things make its metrics vary: which users are asked, and the seeds. Intervals of figures and of
differences are of the users, who are the same for all tokenizers. How often a tokenizer wins is
drawn over both: users with replacement, plus normal noise of the variance between seeds, pooled
over the tokenizers. From the same draws follows by how much the winner is flattered:

    optimism = mean over draws of (metric of the draw's winner in the draw - its metric in the data)

(B. Efron and R. Tibshirani, An Introduction to the Bootstrap, chapter 17).

Shapes: T tokenizers, first those that are trained, then the anchors; U users, R resamples.
"""

import csv
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from sidmill.core.atomic import write_text
from sidmill.core.errors import SidmillError
from sidmill.formats import benchmark_table, user_metrics
from sidmill.io import json_report
from sidmill.numeric import bootstrap
from sidmill.settings import sweep as sweeps
from sidmill.settings.sweep import Sweep, Tokenizer

Table = dict[str, Any]
METRICS = ("HR@10", "NDCG@10")
COLD = "cold_HR@10"
SAME = ("user", "queries")  # columns that are equal for all tokenizers
NOISE = 1  # a stream of its own: not that which draws the users
NO_COST: Table = {"seconds": None, "cpu_seconds": None, "peak_mib": None}


class Files(NamedTuple):
    """Paths, each list in the order of the tokenizers.

    Attributes:
        evaluations: evaluation.json: figures of the codes, before collisions are resolved.
        resolutions: resolution.json: what the resolution of collisions costs.
        valid: valid.json, the metrics of the recommenders.
        users: valid.parquet.
        test: test.json; None where it is not asked for.
        trainings: benchmark files of the trained tokenizers.
        recommenders: benchmark files of the recommenders, all seeds of a tokenizer after another.
    """

    evaluations: Sequence[str]
    resolutions: Sequence[str]
    valid: Sequence[str]
    users: Sequence[str]
    test: Sequence[str] | None
    trainings: Sequence[str]
    recommenders: Sequence[str]


class Cheap(NamedTuple):
    """A figure that is known before any recommender is trained.

    Attributes:
        key: its name in sweep.json.
        title: in words.
        find: gives it from evaluation.json and resolution.json; None where it was not measured.
    """

    key: str
    title: str
    find: Callable[[Table, Table], float | None]


def _of_level(level: int, key: str) -> Callable[[Table, Table], float | None]:
    def find(evaluation: Table, resolution: Table) -> float | None:
        levels = evaluation["levels"]
        value: float | None = levels[level][key] if level < len(levels) else None
        return value

    return find


def _before(key: str) -> Callable[[Table, Table], float | None]:
    def find(evaluation: Table, resolution: Table) -> float | None:
        value: float | None = evaluation[key]
        return value

    return find


def _neighbours(length: int, *, over_chance: bool = False) -> Callable[[Table, Table], Any]:
    def find(evaluation: Table, resolution: Table) -> float | None:
        share: float | None = evaluation["neighbours"].get(str(length))
        chance = evaluation["neighbours_chance"].get(str(length))
        if share is None or not over_chance:
            return share
        return share / chance if chance else None

    return find


def _consumed(length: int, key: str = "share") -> Callable[[Table, Table], float | None]:
    def find(evaluation: Table, resolution: Table) -> float | None:
        pairs = (evaluation["co_consumption"] or {}).get(str(length))
        value: float | None = pairs[key] if pairs else None
        return value

    return find


def _preserved(key: str) -> Callable[[Table, Table], float | None]:
    return lambda evaluation, resolution: evaluation["neighbour_preservation"][key]


def _mean_log_effective(evaluation: Table, resolution: Table) -> float:
    return float(np.mean([level["entropy_bits"] for level in evaluation["levels"]]))


def _least_utilisation(evaluation: Table, resolution: Table) -> float:
    return float(min(level["utilisation"] for level in evaluation["levels"]))


def _capacity_bits(evaluation: Table, resolution: Table) -> float:
    return math.log2(evaluation["capacity"])


def _moved(evaluation: Table, resolution: Table) -> float | None:
    moved = resolution.get("items_moved")
    return None if moved is None else moved / evaluation["items"]


def _added(evaluation: Table, resolution: Table) -> float | None:
    added: float | None = resolution.get("added_mse")
    return added


CHEAP = (
    Cheap("n_levels", "levels", lambda evaluation, resolution: len(evaluation["levels"])),
    Cheap("capacity_bits", "bits of the code space", _capacity_bits),
    Cheap("relative_loss", "squared error left", _before("relative_loss")),
    Cheap("mse", "squared error per value", _before("mse")),
    Cheap("relative_loss_1", "squared error left by the 1st level", _of_level(0, "relative_loss")),
    Cheap("collision_rate", "collisions, (N-distinct)/N", _before("collision_rate")),
    Cheap("colliding_items_rate", "items in a shared code", _before("colliding_items_rate")),
    Cheap("largest_collision", "items of the fullest code", _before("largest_collision")),
    Cheap("entropy_bits", "entropy of the codes, bits", _before("entropy_bits")),
    Cheap("entropy_ratio", "entropy / its bound", _before("entropy_ratio")),
    Cheap("effective_codes_1", "effective codes, 1st level", _of_level(0, "perplexity")),
    Cheap("effective_codes_last", "effective codes, last level", _of_level(-1, "perplexity")),
    Cheap("entropy_bits_level", "entropy of a level, mean bits", _mean_log_effective),
    Cheap("gini_1", "Gini coefficient, 1st level", _of_level(0, "gini")),
    Cheap("largest_share_1", "items of the fullest 1st token", _of_level(0, "largest_share")),
    Cheap("least_utilisation", "codes used, least level", _least_utilisation),
    Cheap("prefixes_2", "prefixes of 2 tokens in use", _of_level(1, "prefixes")),
    Cheap("jaccard", "neighbours: Jaccard", _preserved("jaccard")),
    Cheap("rbo", "neighbours: RBO", _preserved("rbo")),
    Cheap("neighbours_1", "neighbours: 1st token", _neighbours(1)),
    Cheap("neighbours_2", "neighbours: 2 tokens", _neighbours(2)),
    Cheap("neighbours_3", "neighbours: 3 tokens", _neighbours(3)),
    Cheap("neighbours_1_ratio", "neighbours: 1st token / chance", _neighbours(1, over_chance=True)),
    Cheap("consecutive_1", "consumed next: 1st token", _consumed(1)),
    Cheap("consecutive_2", "consumed next: 2 tokens", _consumed(2)),
    Cheap("consecutive_1_ratio", "consumed next: 1st token / chance", _consumed(1, "ratio")),
    Cheap("consecutive_2_ratio", "consumed next: 2 tokens / chance", _consumed(2, "ratio")),
    Cheap("moved", "items moved by the resolution", _moved),
    Cheap("added_mse", "squared error that the resolution adds", _added),
)


def gather(
    files: Files, settings: Sweep, *, seeds: Sequence[int], n_resamples: int, seed: int
) -> Table:
    """Gather all figures of the tokenizers, and choose the winner on valid.

    Seconds and memory are of the machine and the moment; all else is the same in every run.
    Memory: 50 bytes per user and tokenizer.

    Args:
        files: of all tokenizers.
        settings: the tokenizers, anchors, and the metric of the choice.
        seeds: of the recommenders of each tokenizer.
        n_resamples: R, of the users; 0 gives no intervals, and nothing of how often one wins.
        seed: of the draws.

    Returns:
        The content of sweep.json.

    Raises:
        SidmillError: if tokenizers are measured on other users or targets.
    """
    trained = sweeps.tokenizers(settings)
    names = [*(one.name for one in trained), *settings.anchors]
    users = [user_metrics.read(path) for path in files.users]
    for columns, path in zip(users, files.users, strict=True):
        if not all(np.array_equal(columns[key], users[0][key]) for key in SAME):
            raise SidmillError(
                f"{path}: has other users or targets than {files.users[0]}: measure both again "
                f"(--forcerun measure_recommender)"
            )

    # Every tokenizer by itself: what it is, cheap figures, metrics, cost.
    costs = [*(_cost([path]) for path in files.trainings), *([NO_COST] * len(settings.anchors))]
    entries = []
    for number, name in enumerate(names):
        evaluation, resolution = (
            json_report.read(paths[number]) for paths in (files.evaluations, files.resolutions)
        )
        own = slice(number * len(seeds), (number + 1) * len(seeds))
        described = _describe(trained[number] if number < len(trained) else None, evaluation)
        entries.append(
            {
                "name": name,
                **described,
                "figures": {one.key: one.find(evaluation, resolution) for one in CHEAP},
                "effective_codes": [level["perplexity"] for level in evaluation["levels"]],
                "valid": _metrics(files.valid[number]),
                "test": _metrics(files.test[number]) if files.test else None,
                "cost": costs[number],
                "recommender_cost": _cost(files.recommenders[own]),
            }
        )

    # Over the same users: leads over the first, and the winner among those that are trained.
    choice = _Choice(len(trained), settings.metric, n_resamples, seed)
    leads, winner = _compare(entries, users, choice)
    for entry, lead in zip(entries, leads, strict=True):
        entry |= lead
    first = json_report.read(files.valid[0])
    return {
        "metric": settings.metric,
        "seeds": list(seeds),
        **{key: first[key] for key in ("targets", "cold_targets")},
        "items": json_report.read(files.evaluations[0])["items"],
        "winner": winner,
        "tokenizers": entries,
    }


class _Choice(NamedTuple):
    """How the winner is chosen: among the first ``n_trained``, by ``metric``."""

    n_trained: int
    metric: str
    n_resamples: int
    seed: int


def _describe(tokenizer: Tokenizer | None, evaluation: Table) -> Table:
    """What a tokenizer is; None: an anchor."""
    return {
        "quantizer": tokenizer.quantizer if tokenizer else None,
        "codebook_sizes": evaluation["codebook_sizes"],
        "fuse": tokenizer.fuse if tokenizer else None,
        "fuse_weight": tokenizer.weight if tokenizer else None,
        "is_anchor": tokenizer is None,
    }


def _metrics(path: str) -> Table:
    """The metrics of one split."""
    figures = json_report.read(path)
    return {key: figures[key] for key in (*METRICS, COLD)}


def _cost(paths: Sequence[str]) -> Table:
    """Seconds and CPU seconds of some jobs together, and the memory of the largest."""
    jobs = [benchmark_table.read(path) for path in paths]
    found: Table = {}
    for key in ("seconds", "cpu_seconds"):
        known = [getattr(job, key) for job in jobs if getattr(job, key) is not None]
        found[key] = round(sum(known), 2) if known else None
    peaks = [job.peak_mib for job in jobs if job.peak_mib is not None]
    return found | {"peak_mib": max(peaks, default=None)}


def _compare(
    entries: list[Table], users: list[user_metrics.Columns], choice: _Choice
) -> tuple[list[Table], Table]:
    """Leads over the first tokenizer, shares of draws that each wins, and the winner."""
    # (T,) over all users, and (R, T) over users drawn with replacement, by metric
    n_resamples, counts = choice.n_resamples, users[0]["queries"]
    point, drawn = {}, {}
    for metric in METRICS:
        sums = np.stack([*(one[metric] for one in users), counts], axis=1).astype(np.float64)
        point[metric] = _means(sums.sum(axis=0))
        drawn[metric] = _means(bootstrap.resample(sums, n_resamples, choice.seed))
    leads: list[Table] = [
        {"difference": {metric: _lead(point, drawn, metric, number) for metric in METRICS}}
        for number in range(len(entries))
    ]

    # The winner, and what other users and other seeds would have made of the choice.
    values = point[choice.metric][: choice.n_trained]
    best = int(np.argmax(values))
    spread = _spread_of_seeds(entries, choice.metric)
    winner = {
        "name": entries[best]["name"],
        "metric": choice.metric,
        "value": float(values[best]),
        "seed_standard_deviation": spread,
        "wins": None,
        "optimism": None,
        "not_distinguished": None,
    }
    for lead in leads:
        lead["wins"] = None
    if not n_resamples:
        return leads, winner
    noise = np.random.default_rng([choice.seed, NOISE]).standard_normal((n_resamples, len(values)))
    n_seeds = len(entries[0]["valid"][choice.metric]["by_seed"])
    draws = drawn[choice.metric][:, : len(values)] + noise * (spread or 0.0) / math.sqrt(n_seeds)
    winners = draws.argmax(axis=1)
    for number in range(len(values)):
        leads[number]["wins"] = float((winners == number).mean())
    low = np.percentile(draws[:, [best]] - draws, bootstrap.INTERVAL[0], axis=0)
    others = [entries[number]["name"] for number in np.flatnonzero(low <= 0) if number != best]
    winner |= {
        "wins": leads[best]["wins"],
        "optimism": float((draws.max(axis=1) - values[winners]).mean()),
        "not_distinguished": others,
    }
    return leads, winner


def _means(sums: np.ndarray) -> np.ndarray:
    """Means (..., T) of sums and their count (..., T + 1)."""
    means: np.ndarray = sums[..., :-1] / sums[..., -1:]
    return means


def _lead(point: Table, drawn: Table, metric: str, number: int) -> dict[str, float] | None:
    """The metric of a tokenizer less that of the first, over the same users; None for the first."""
    if not number:
        return None
    entry = {"value": float(point[metric][number] - point[metric][0])}
    differences = drawn[metric][:, number] - drawn[metric][:, 0]
    if len(differences):
        low, high = np.percentile(differences, bootstrap.INTERVAL)
        entry |= {"low": float(low), "high": float(high)}
    return entry


def _spread_of_seeds(entries: list[Table], metric: str) -> float | None:
    """Standard deviation of one seed, pooled over the tokenizers; None for one seed each."""
    single = [entry["valid"][metric]["standard_deviation"] for entry in entries]
    known = [one for one in single if one is not None]
    return math.sqrt(sum(one**2 for one in known) / len(known)) if known else None


def write_table(path: str | Path, found: Table) -> None:
    """Write sweep.csv: a line per tokenizer, the best on valid first."""
    text = io.StringIO()
    rows = [_row(entry) for entry in ranked(found)]
    out = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    out.writeheader()
    out.writerows(rows)
    write_text(path, text.getvalue())


def ranked(found: Table) -> list[Table]:
    """Tokenizers by the metric of the choice on valid, the best first; equals in their order."""
    return sorted(found["tokenizers"], key=lambda one: -one["valid"][found["metric"]]["value"])


def _row(entry: Table) -> dict[str, Any]:
    """A tokenizer as a line of the table; what was not measured is empty."""
    # What it is, and the metrics of its recommender; columns of test exist on request alone.
    row = {key: entry[key] for key in ("name", "quantizer", "fuse", "fuse_weight")}
    row["codebook_sizes"] = " ".join(map(str, entry["codebook_sizes"]))
    for split in ("valid", "test"):
        for metric in (*METRICS, COLD):
            measured = (entry[split] or {}).get(metric) or {}
            for key in ("value", "low", "high", "standard_deviation"):
                if split == "valid" or entry["test"]:
                    name = f"{split} {metric}" if key == "value" else f"{split} {metric} {key}"
                    row[name] = _rounded(measured.get(key))

    # The lead over the first tokenizer.
    for metric in METRICS:
        lead = entry["difference"][metric] or {}
        for key in ("value", "low", "high"):
            name = f"valid {metric} difference"
            row[name if key == "value" else f"{name} {key}"] = _rounded(lead.get(key))
    row["wins"] = entry["wins"]

    # Cheap figures, and what all of it cost.
    row |= {key: _rounded(value) for key, value in entry["figures"].items()}
    row["effective_codes"] = " ".join(f"{codes:.1f}" for codes in entry["effective_codes"])
    row |= entry["cost"]
    row |= {f"recommender_{key}": value for key, value in entry["recommender_cost"].items()}
    return row


def _rounded(value: float | None) -> float | str:
    return "" if value is None else float(f"{value:.6g}")


def write_winner(path: str | Path, found: Table) -> None:
    """Write winner.yaml: the settings of the winner, and in a comment how sure the choice is."""
    # How sure the choice is, for the reader of the file.
    winner = found["winner"]
    (entry,) = (one for one in found["tokenizers"] if one["name"] == winner["name"])
    tokenizer = sweeps.read_name(winner["name"])
    one_seed = winner["seed_standard_deviation"] is None
    lines = [
        f"# The best of {sum(not one['is_anchor'] for one in found['tokenizers'])} tokenizers by "
        f"{winner['metric']} on valid: {winner['value']:.4f}."
    ]
    if winner["wins"] is not None:
        lines.append(
            f"# With other users {'' if one_seed else 'and seeds '}of the same kind it would win "
            f"{winner['wins']:.0%} of the time; its figure is too good by about "
            f"{winner['optimism']:.4f}."
        )
    if one_seed:
        lines.append("# One seed each: what another seed would give is not known.")
    lines.append(f"# Its first level has {entry['effective_codes'][0]:.0f} effective codes.")
    body = yaml.safe_dump(sweeps.overlay(tokenizer), sort_keys=False, default_flow_style=None)
    write_text(path, "\n".join(lines) + "\n" + body)
