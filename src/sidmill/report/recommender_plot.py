"""One figure of metrics.json: each method on valid and test, with its interval."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from sidmill.report.plots import (
    AFTER,
    BEFORE,
    INK,
    MUTED,
    RULE,
    WIDTH,
    page,
)

SHOWN = ("HR@10", "NDCG@10", "MRR")
NAME_WIDTH = 1.1  # inches for the names of the methods
ROW = 0.32  # inches for a method
OWN = "recommender"


def draw(metrics: dict[str, Any], path: str | Path) -> None:
    """Draw a panel per split and metric, a row per method; lines are 95 % intervals.

    Args:
        metrics: content of metrics.json.
        path: the SVG file.
    """
    # A row of panels per split that was evaluated.
    splits = [split for split in ("valid", "test") if "methods" in metrics[split]]
    methods = list(metrics[splits[0]]["methods"]) if splits else []
    key = [
        Line2D([], [], color=AFTER, marker="o", linewidth=1.6, label="this recommender"),
        Line2D([], [], color=BEFORE, marker="o", linewidth=1.6, label="baselines"),
    ]
    height = max(len(splits), 1) * (len(methods) * ROW + 0.7)
    headline = "What came next, among all items"

    # A panel per metric; methods are named on the left of each row.
    with page(path, headline, key, height=height, above=0.25) as (figure, margins):
        margins["left"] += NAME_WIDTH / WIDTH
        grid = figure.add_gridspec(max(len(splits), 1), len(SHOWN), **margins, hspace=0.5)
        for row, split in enumerate(splits):
            for column, metric in enumerate(SHOWN):
                axes = figure.add_subplot(grid[row, column])
                entries = [metrics[split]["methods"][method][metric] for method in methods]
                _panel(axes, methods, entries)
                axes.set_title(f"{metric}, {split}", loc="left", fontsize=9, color=INK)
                axes.set_yticklabels(
                    [method.replace("_", " ") for method in methods] if not column else []
                )


def _panel(axes: Axes, methods: list[str], entries: list[dict[str, Any]]) -> None:
    for row, (method, entry) in enumerate(zip(methods, entries, strict=True)):
        colour = AFTER if method == OWN else BEFORE
        low, high = entry.get("low", entry["value"]), entry.get("high", entry["value"])
        axes.plot([low, high], [row, row], color=colour, linewidth=1.6)
        axes.plot([entry["value"]], [row], "o", color=colour, markersize=5)
        axes.annotate(
            f"{entry['value']:.3f}",
            (high, row),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            color=MUTED,
        )
    axes.set_yticks(range(len(methods)))
    axes.set_ylim(len(methods) - 0.5, -0.5)
    axes.set_xlim(0, 1.25 * max(entry.get("high", entry["value"]) for entry in entries) or 1)
    axes.grid(axis="x", color=RULE, linewidth=0.6)
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)
