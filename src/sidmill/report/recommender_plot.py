"""One figure of metrics.json: each method on valid and test, with its interval."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

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


def draw(metrics: dict[str, Any], path: str | Path, *, own: Collection[str]) -> None:
    """Plot metrics of recommenders: a panel per split and metric, a row per method, 95 % lines.

    Args:
        metrics: content of metrics.json.
        path: the SVG file.
        own: names of the methods that metrics.json is about; they have a colour of their own.
    """
    # A row of panels per split that was evaluated.
    splits = [split for split in ("valid", "test") if "methods" in metrics[split]]
    methods = list(metrics[splits[0]]["methods"]) if splits else []
    shown = " and ".join(words(method) for method in methods if method in own)
    key = [
        Line2D([], [], color=AFTER, marker="o", linewidth=1.6, label=shown or "none measured"),
        Line2D([], [], color=BEFORE, marker="o", linewidth=1.6, label="other methods"),
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
                colours = [AFTER if method in own else BEFORE for method in methods]
                _panel(axes, entries, colours)
                axes.set_title(f"{metric}, {split}", loc="left", fontsize=9, color=INK)
                axes.set_yticklabels([words(method) for method in methods] if not column else [])


def words(method: str) -> str:
    """Name of a method in words."""
    return method.replace("_", " ")


def draw_interval(axes: Axes, row: int, entry: dict[str, Any], label: str, colour: str) -> None:
    """Draw a point with its interval as a line, and a label behind it.

    Args:
        axes: the panel.
        row: y of the point.
        entry: ``value``, and with an interval ``low`` and ``high``.
        label: the value in words.
        colour: of point and line.
    """
    low, high = entry.get("low", entry["value"]), entry.get("high", entry["value"])
    axes.plot([low, high], [row, row], color=colour, linewidth=1.6)
    axes.plot([entry["value"]], [row], "o", color=colour, markersize=5)
    axes.annotate(
        label,
        (high, row),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        color=MUTED,
    )


def _panel(axes: Axes, entries: list[dict[str, Any]], colours: list[str]) -> None:
    for row, (entry, colour) in enumerate(zip(entries, colours, strict=True)):
        draw_interval(axes, row, entry, f"{entry['value']:.3f}", colour)
    axes.set_yticks(range(len(entries)))
    axes.set_ylim(len(entries) - 0.5, -0.5)
    axes.set_xlim(0, 1.25 * max(entry.get("high", entry["value"]) for entry in entries) or 1)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.grid(axis="x", color=RULE, linewidth=0.6)
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)
