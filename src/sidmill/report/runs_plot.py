"""Runs side by side as small multiples: one panel per figure, one row per run, 95 % lines."""

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sidmill.core.errors import SidmillError
from sidmill.report.plots import AFTER, BEFORE, INK, RULE, WIDTH, page
from sidmill.report.recommender_plot import draw_interval
from sidmill.report.runs import Run, figure_names

COLUMNS = 3
ROW = 0.3  # inches for a run
TITLE = 0.5  # inches above each panel
NAMES = 1.4  # inches for the names on the left
LONGEST_NAME = 24


def draw(runs: Sequence[Run], path: str | Path) -> None:
    """Plot the figures of runs.

    The latest run is blue. A run without a figure has an empty row in its panel.

    Args:
        runs: in the order of the rows.
        path: the SVG file.

    Raises:
        SidmillError: if no run has a figure.
    """
    names = figure_names(runs)
    if not names:
        raise SidmillError(
            f"{', '.join(dict.fromkeys(run.folder for run in runs))}: no figures to plot: "
            f"run snakemake --cores 8 results/quality.json first"
        )
    n_rows = math.ceil(len(names) / COLUMNS)
    height = n_rows * ROW * len(runs) + (n_rows - 1) * TITLE
    key = [
        Line2D([], [], color=AFTER, marker="o", linewidth=1.6, label="latest run"),
        Line2D([], [], color=BEFORE, marker="o", linewidth=1.6, label="other runs"),
    ]

    # A panel per figure; runs are named on the left of each row.
    with page(path, "Runs side by side", key, height=height, above=0.3) as (figure, margins):
        margins["left"] += NAMES / WIDTH
        space = TITLE / (ROW * len(runs))
        grid = figure.add_gridspec(n_rows, COLUMNS, **margins, hspace=space, wspace=0.15)
        for index, name in enumerate(names):
            row, column = divmod(index, COLUMNS)
            axes = figure.add_subplot(grid[row, column])
            _panel(axes, runs, name)
            axes.set_title(name, loc="left", fontsize=9, color=INK)
            axes.set_yticklabels(_labels(runs) if not column else [])


def _panel(axes: Axes, runs: Sequence[Run], name: str) -> None:
    highest = 0.0
    for row, run in enumerate(runs):
        entry = run.figures.get(name)
        if entry is None:
            continue
        known = {key: value for key, value in entry._asdict().items() if value is not None}
        colour = AFTER if row == len(runs) - 1 else BEFORE
        draw_interval(axes, row, known, f"{entry.value:.4f}", colour)
        highest = max(highest, entry.value, entry.high or 0)
    axes.set_yticks(range(len(runs)))
    axes.set_ylim(len(runs) - 0.5, -0.5)
    axes.set_xlim(0, 1.45 * highest or 1)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.grid(axis="x", color=RULE, linewidth=0.6)
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)


def _labels(runs: Sequence[Run]) -> list[str]:
    """Folders where they tell the runs apart, else times."""
    if len({run.folder for run in runs}) == len(runs):
        return [
            run.folder if len(run.folder) <= LONGEST_NAME else "…" + run.folder[1 - LONGEST_NAME :]
            for run in runs
        ]
    return [(run.written or run.folder)[:16].replace("T", " ") for run in runs]
