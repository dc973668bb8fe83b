"""The comparison as small multiples: one panel per figure, one bar per quantizer.

The best bar of a panel is blue, the others grey; a vermilion tick says what chance would give.
"""

import math
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from sidmill.report.comparison import FIGURES, Figure, best
from sidmill.report.plots import (
    AFTER,
    BEFORE,
    INK,
    MUTED,
    REFERENCE,
    WIDTH,
    page,
)

COLUMNS = 4
BAR = 0.25  # inches of height for one quantizer
TITLE = 0.5  # inches above each panel
NAMES = 1.25  # inches for the names on the left
ROOM = 1.45  # a panel is so much wider than its longest bar: the value stands behind it


def plot(path: str | Path, compared: dict[str, Any]) -> None:
    """Draw comparison.json.

    Args:
        path: the SVG file.
        compared: content of comparison.json.
    """
    # Figures that at least one member has; a row of panels is as high as its bars.
    members = compared["members"]
    figures = [f for f in FIGURES if any(member[f.key] is not None for member in members)]
    n_rows = math.ceil(len(figures) / COLUMNS)
    height = n_rows * (BAR * len(members)) + (n_rows - 1) * TITLE
    key = [
        Patch(color=AFTER, label="best"),
        Patch(color=BEFORE, label="others"),
        Line2D([], [], color=REFERENCE, linewidth=2, label="by chance"),
    ]

    # A panel per figure; names stand on the left of each row.
    sizes = " × ".join(map(str, compared["codebook_sizes"]))
    headline = f"Quantizers side by side: {compared['items']:,} items, {sizes} codes"
    with page(path, headline, key, height=height, above=TITLE) as (figure, margins):
        margins["left"] += NAMES / WIDTH
        margins["bottom"] = 0.2 / figure.get_figheight()
        gap = TITLE / (BAR * len(members))
        grid = figure.add_gridspec(n_rows, COLUMNS, **margins, wspace=0.16, hspace=gap)
        for index, one in enumerate(figures):
            axes = figure.add_subplot(grid[divmod(index, COLUMNS)])
            _draw(axes, one, members)
            if index % COLUMNS == 0:
                axes.set_yticks(range(len(members)), [member["name"] for member in members])
                axes.tick_params(axis="y", length=0, labelcolor=INK)


def _draw(axes: Axes, figure: Figure, members: list[dict[str, Any]]) -> None:
    """One panel: a bar per quantizer."""
    # Bars with their values; the best is blue.
    values = [member[figure.key] for member in members]
    chances = [member[figure.chance] if figure.chance else None for member in members]
    first = best(members, figure)
    for row, (value, by_chance) in enumerate(zip(values, chances, strict=True)):
        if value is None:
            axes.text(0, row, " not measured", va="center", fontsize=7.5, color=MUTED)
            continue
        colour = AFTER if value == first else BEFORE
        axes.barh(row, value, 0.72, color=colour)
        if by_chance is not None:
            axes.plot([by_chance] * 2, [row - 0.36, row + 0.36], color=REFERENCE, linewidth=2)
        words = figure.words(value)
        axes.annotate(
            words,
            (max(value, by_chance or 0), row),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
            color=INK if value == first else MUTED,
            fontweight="bold" if value == first else "normal",
        )

    # The panel is wider than its longest bar, for the value behind it.
    longest = max(value for value in (*values, *chances) if value is not None)
    axes.set(xlim=(0, ROOM * longest or 1), ylim=(len(members) - 0.5, -0.5), xticks=[], yticks=[])
    axes.spines["bottom"].set_visible(False)

    # Title, and which direction is better.
    axes.annotate(
        figure.title,
        (0, 1),
        xytext=(0, 14),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=8.5,
        fontweight="bold",
    )
    axes.annotate(
        f"{figure.better} is better",
        (0, 1),
        xytext=(0, 4),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=7.5,
        color=MUTED,
    )
