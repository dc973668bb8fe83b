"""Runs side by side: the plot and the table of metrics.json."""

import csv
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.figure import Figure

from sidmill.core.atomic import replacing
from sidmill.report.plots import (
    AFTER,
    BEFORE,
    INK,
    MUTED,
    REFERENCE,
    STYLE,
)

COLOURS = (BEFORE, AFTER, REFERENCE, INK)  # the baseline is grey
WIDTH, ROOM, BAR = 9.6, 1.1, 0.26  # inches: of the figure, around the bars, of one bar


def plot(figures: dict[str, Any], path: str | Path) -> None:
    """Plot retrieval metrics: a bar per metric and run; runs in the order of evaluation.runs.

    Args:
        figures: content of metrics.json.
        path: the SVG file.
    """
    # A group of bars per metric, a bar per run, and an empty line between groups.
    runs = figures["runs"]
    metrics = list(next(iter(runs.values())))
    rows = len(metrics) * (len(runs) + 1)
    with matplotlib.style.context(["default", STYLE]):
        height = ROOM + BAR * rows
        figure = Figure(figsize=(WIDTH, height))
        axes = figure.add_axes((0.12, 0.3 / height, 0.82, 1 - ROOM / height))
        for index, (run, values) in enumerate(runs.items()):
            heights = [values[metric] for metric in metrics]
            lines = [line * (len(runs) + 1) + index for line in range(len(metrics))]
            axes.barh(lines, heights, 0.9, color=COLOURS[index], label=run)
            for line, value in zip(lines, heights, strict=True):
                axes.annotate(f"{value:.3f}", (value, line), xytext=(3, 0), color=MUTED,
                              textcoords="offset points", va="center", fontsize=7.5)  # fmt: skip

        # Metrics are named at the middle of their group.
        middles = [line * (len(runs) + 1) + (len(runs) - 1) / 2 for line in range(len(metrics))]
        axes.set_yticks(middles, metrics)
        axes.invert_yaxis()
        axes.set(xlim=(0, 1.05), xticks=[])
        axes.tick_params(length=0)
        axes.spines["bottom"].set_visible(False)
        top = 1 - 0.3 / height
        figure.text(0.12, top, "Retrieval, run by run", fontsize=13, fontweight="bold")
        figure.legend(loc="upper right", ncols=len(runs), frameon=False, labelcolor=MUTED)
        with replacing(path) as temporary:
            metadata = {"Title": "Retrieval", "Creator": "SIDMill", "Date": None}
            figure.savefig(temporary, format="svg", metadata=metadata)


def table(figures: dict[str, Any], path: str | Path) -> None:
    """Write retrieval metrics: a line per run, and per difference to the first, with 95 % interval.

    Args:
        figures: content of metrics.json.
        path: the TSV file.
    """
    runs, metrics = figures["runs"], list(next(iter(figures["runs"].values())))
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as out:
        lines = csv.writer(out, delimiter="\t", lineterminator="\n")
        lines.writerow(["run", *metrics])
        for run, values in runs.items():
            lines.writerow([run, *(f"{values[metric]:.4f}" for metric in metrics)])
        for name, gains in figures["differences"].items():
            cells = (gains[metric] for metric in metrics)
            lines.writerow(
                [name, *(f"{c['mean']:+.4f} [{c['low']:+.4f}, {c['high']:+.4f}]" for c in cells)]
            )
