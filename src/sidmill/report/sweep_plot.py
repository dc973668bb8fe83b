"""The sweep as a plot: the metric of each tokenizer with its interval and seeds, and its cost."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sidmill.report.plots import AFTER, BEFORE, INK, MUTED, REFERENCE, RULE, WIDTH, page
from sidmill.report.sweep import ranked

Table = dict[str, Any]
ROW = 0.24  # inches of height for one tokenizer
LEAST = 3.0  # inches of height of the panels, at least
NAMES = 2.3  # inches for the names on the left
TITLE = 0.4  # inches above the panels
GAP = 0.28  # between the panels, as a share of their width
SEED_SIZE = 2.5  # points


def plot(path: str | Path, found: Table) -> None:
    """Draw sweep.json: on the left the metric by tokenizer, on the right against CPU seconds.

    Args:
        path: the SVG file.
        found: content of sweep.json.
    """
    rows, metric, winner = ranked(found), found["metric"], found["winner"]["name"]
    key = [
        Line2D([], [], color=AFTER, marker="o", label="best of the trained"),
        Line2D([], [], color=BEFORE, marker="o", label="others"),
        Line2D([], [], color=REFERENCE, marker="o", label="anchors"),
        Line2D([], [], color=INK, marker=".", linestyle="", label="a single seed"),
    ]
    headline = f"Sweep of {len(rows)} tokenizers: {metric} on valid"
    height = max(ROW * len(rows), LEAST)
    with page(path, headline, key, height=height, above=TITLE) as (figure, margins):
        margins["left"] += NAMES / WIDTH
        grid = figure.add_gridspec(1, 2, **margins, wspace=GAP, width_ratios=(3, 2))
        _draw_metrics(figure.add_subplot(grid[0, 0]), rows, metric, winner)
        _draw_costs(figure.add_subplot(grid[0, 1]), rows, metric, winner)


def _colour(entry: Table, winner: str) -> str:
    if entry["is_anchor"]:
        return REFERENCE
    return AFTER if entry["name"] == winner else BEFORE


def _draw_metrics(axes: Axes, rows: list[Table], metric: str, winner: str) -> None:
    """A point with its interval per tokenizer, and a dot per seed."""
    for row, entry in enumerate(rows):
        measured, colour = entry["valid"][metric], _colour(entry, winner)
        low, high = (measured.get(end, measured["value"]) for end in ("low", "high"))
        axes.plot([low, high], [row, row], color=colour, linewidth=1.6)
        axes.plot(measured["value"], row, "o", color=colour, markersize=5)
        single = measured["by_seed"]
        axes.plot(single, [row] * len(single), ".", color=INK, markersize=SEED_SIZE)
    axes.set_yticks(range(len(rows)), [entry["name"] for entry in rows])
    axes.set(ylim=(len(rows) - 0.5, -0.5), xlabel=f"{metric}, 95 % interval over users")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="x", color=RULE, linewidth=0.6)
    axes.tick_params(length=0)
    axes.tick_params(axis="y", labelcolor=INK)


def _draw_costs(axes: Axes, rows: list[Table], metric: str, winner: str) -> None:
    """The metric against the CPU seconds of the training of the tokenizer; anchors have none."""
    shown = [entry for entry in rows if entry["cost"]["cpu_seconds"]]
    for entry in shown:
        measured = entry["valid"][metric]
        colour, seconds = _colour(entry, winner), entry["cost"]["cpu_seconds"]
        low, high = (measured.get(end, measured["value"]) for end in ("low", "high"))
        axes.plot([seconds, seconds], [low, high], color=colour, linewidth=1)
        axes.plot(seconds, measured["value"], "o", color=colour, markersize=5)
    if shown:
        axes.set_xscale("log")
    else:
        axes.text(0.5, 0.5, "cost not measured", color=MUTED, transform=axes.transAxes, ha="center")
    axes.set(xlabel="CPU seconds to train the tokenizer", ylabel=metric)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.grid(color=RULE, linewidth=0.6)
    axes.tick_params(length=0, which="both")
