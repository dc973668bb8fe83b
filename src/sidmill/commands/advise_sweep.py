"""``sidmill advise --sweep``: which cheap figures of a sweep predict its recommenders, in words."""

import json
from typing import Any

from sidmill.io import json_report
from sidmill.report import sweep_correlation

N_DRAWS, SEED = 2000, 0
TITLES = {
    "trained": "trained tokenizers",
    "on_text": "of these on text vectors alone",
    "with_anchors": "with the anchors, which decide nothing",
}


def advise(path: str, metric: str | None, *, as_json: bool) -> str:
    """Correlate the figures of sweep.json with its metric.

    Args:
        path: sweep.json.
        metric: HR@10 or NDCG@10; None: that of the sweep.
        as_json: all figures as JSON, in place of tables in Markdown.

    Raises:
        SidmillError: if the file is unreadable, or has too few tokenizers.
    """
    found = json_report.read(path)
    correlated = sweep_correlation.correlate(found, metric=metric, n_draws=N_DRAWS, seed=SEED)
    if as_json:
        return json.dumps(correlated, indent=2)

    # A table per group, then what follows.
    lines = []
    for name, title in TITLES.items():
        group = correlated[name]
        if group is not None and (name != "with_anchors" or _has_anchors(correlated)):
            lines += [*_table(group, title, correlated["metric"]), ""]
    return "\n".join([*lines, *_verdict(correlated)])


def _has_anchors(correlated: dict[str, Any]) -> bool:
    return bool(correlated["with_anchors"]["tokenizers"] > correlated["trained"]["tokenizers"])


def _table(group: dict[str, Any], title: str, metric: str) -> list[str]:
    """The figures of a group as a table in Markdown."""
    lines = [
        f"{group['tokenizers']} {title}, valid {metric}; largest |rho| of all figures by chance "
        f"(95 %): {group['threshold']:.2f}",
        "",
        "| figure | rho | 95 % | tau | as large by chance |",
        "|---|---|---|---|---|",
    ]
    for one in group["figures"]:
        interval = "" if one["low"] is None else f"{one['low']:+.2f} to {one['high']:+.2f}"
        lines.append(
            f"| {one['title']} | {one['rho']:+.2f} | {interval} | {one['tau']:+.2f} | "
            f"{one['chance']:.3f} |"
        )
    return lines


def _verdict(correlated: dict[str, Any]) -> list[str]:
    """What was found, and nothing that was not."""
    # The figures that predict.
    titles = {one["key"]: one for one in correlated["trained"]["figures"]}
    if correlated["predictors"]:
        named = "; ".join(
            f"{titles[key]['title']} ({'more' if titles[key]['rho'] > 0 else 'less'} is better)"
            for key in correlated["predictors"]
        )
        lines = [f"predict {correlated['metric']} here: {named}"]
    else:
        lines = [
            f"no figure predicts {correlated['metric']} here: train a recommender on the SIDs of "
            f"each candidate to choose among them"
        ]

    # How far the metric can be predicted at all.
    found = correlated["ceiling"]
    if found is None:
        lines.append("one seed each: how well the metric agrees with itself is not known")
    elif found["seeds"] is not None:
        lines.append(
            f"the metric of one seed with that of another: rho {found['seeds']:+.2f}; share of the "
            f"variance between tokenizers that is not noise of seeds: {found['reliability']:.2f}"
        )
    return lines
