"""Loss curves of ``metrics.csv``, as SVG whose bytes depend on the numbers alone."""

import csv
from pathlib import Path
from typing import Any

from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sidmill.core.errors import SidmillError
from sidmill.report import plots

HEIGHT = 2.6  # inches
ROOM = 1.08  # a panel is so much taller than its highest point


def training(metrics: str | Path, path: str | Path) -> None:
    """Draw losses, held-out error, and collisions with unused codewords, epoch by epoch.

    Args:
        metrics: metrics.csv of a training; figures that were not measured are empty.
        path: the SVG file.

    Raises:
        SidmillError: if the file holds no epoch.
    """
    # A row per epoch; figures that were not measured are empty.
    with Path(metrics).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        raise SidmillError(f"{metrics}: holds no epoch: train the quantizer again")

    # Curves of each panel: colour, and points (epoch, value).
    used = [name for name in rows[0] if name.startswith("utilisation_")]
    panels = {
        "losses in training": {
            "reconstruction": (plots.AFTER, _column(rows, "reconstruction")),
            "commitment": (plots.BEFORE, _column(rows, "commitment")),
        },
        "relative loss of held-out items": {
            "held out": (plots.AFTER, _column(rows, "heldout_relative"))
        },
        "share of items, of codewords": {
            "colliding": (plots.AFTER, _column(rows, "collision_rate")),
            "unused": (plots.REFERENCE, _unused(rows, used)),
        },
    }
    key = [
        Line2D([], [], color=plots.AFTER, label="reconstruction, error, collisions"),
        Line2D([], [], color=plots.BEFORE, label="commitment"),
        Line2D([], [], color=plots.REFERENCE, label="unused codewords, worst level"),
    ]

    # A panel of one point shows it as a dot.
    with plots.page(path, "Training, epoch by epoch", key, height=HEIGHT, above=0.3) as (
        figure,
        margins,
    ):
        grid = figure.add_gridspec(1, len(panels), **margins, wspace=0.24)
        for index, (title, curves) in enumerate(panels.items()):
            axes = figure.add_subplot(grid[index])
            for colour, points in curves.values():
                marker = "o" if len(points) == 1 else None
                axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.3, marker=marker)
            axes.set_title(title, fontsize=9.5, loc="left")
            axes.set(xlim=(0, int(rows[-1]["epoch"])), xlabel="epoch")
            highest = max(value for _, points in curves.values() for _, value in points)
            axes.set_ylim(0, ROOM * highest or 1)
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))


def _column(rows: list[dict[str, Any]], name: str) -> list[tuple[int, float]]:
    """Points (epoch, value) where a figure was measured; the origin where it never was."""
    points = [(int(row["epoch"]), float(row[name])) for row in rows if row.get(name)]
    return points or [(0, 0.0)]


def _unused(rows: list[dict[str, Any]], names: list[str]) -> list[tuple[int, float]]:
    measured = [row for row in rows if names and row[names[0]]]
    worst = [1 - min(float(row[name]) for name in names) for row in measured]
    return [(int(row["epoch"]), share) for row, share in zip(measured, worst, strict=True)] or [
        (0, 0.0)
    ]
