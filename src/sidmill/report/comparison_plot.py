"""The comparison as small multiples: one panel per figure, one bar per quantizer.

The best bar of a panel is blue, the others grey; a vermilion tick says what chance would give.
Below, with a recommender on the SIDs of each: points with 95 % intervals, and the difference to the
first quantizer over the same users.
"""

import math
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from sidmill.report.comparison import FIGURES, Figure, best
from sidmill.report.comparison_downstream import METRICS, difference_words
from sidmill.report.plots import (
    AFTER,
    BEFORE,
    INK,
    MUTED,
    REFERENCE,
    RULE,
    WIDTH,
    page,
)
from sidmill.report.recommender_plot import draw_interval

COLUMNS = 4
BAR = 0.25  # inches of height for one quantizer
TITLE = 0.5  # inches above each panel
NAMES = 1.25  # inches for the names on the left
DIFFERENCE = METRICS[1]  # whose difference to the first quantizer has a panel
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
    metrics = _downstream_panels(members)
    n_bars = math.ceil(len(figures) / COLUMNS)  # rows of panels with bars
    n_rows = n_bars + bool(metrics)
    height = n_rows * (BAR * len(members)) + (n_rows - 1) * TITLE
    key = [
        Patch(color=AFTER, label="best"),
        Patch(color=BEFORE, label="others"),
        Line2D([], [], color=REFERENCE, linewidth=2, label="by chance"),
    ]
    if metrics:
        key.append(Line2D([], [], color=BEFORE, marker="o", label="recommender, 95 % interval"))

    # A panel per figure, then those of the recommender; names stand on the left of each row.
    sizes = " × ".join(map(str, compared["codebook_sizes"]))
    headline = f"Quantizers side by side: {compared['items']:,} items, {sizes} codes"
    with page(path, headline, key, height=height, above=TITLE) as (figure, margins):
        margins["left"] += NAMES / WIDTH
        margins["bottom"] = (0.4 if metrics else 0.2) / figure.get_figheight()
        gap = TITLE / (BAR * len(members))
        grid = figure.add_gridspec(n_rows, COLUMNS, **margins, wspace=0.16, hspace=gap)
        for index, one in enumerate(figures):
            axes = figure.add_subplot(grid[divmod(index, COLUMNS)])
            _draw(axes, one, members)
            if index % COLUMNS == 0:
                _name_rows(axes, members)
        for column, (title, note, entries) in enumerate(metrics):
            axes = figure.add_subplot(grid[n_bars, column])
            _draw_intervals(axes, title, note, entries)
            if column == 0:
                _name_rows(axes, members)


def _name_rows(axes: Axes, members: list[dict[str, Any]]) -> None:
    axes.set_yticks(range(len(members)), [member["name"] for member in members])
    axes.tick_params(axis="y", length=0, labelcolor=INK)


def _downstream_panels(
    members: list[dict[str, Any]],
) -> list[tuple[str, str, list[dict[str, Any] | None]]]:
    """Title, note and entries of each panel of the recommender; none where it was not measured."""
    if members[0]["downstream"] is None:
        return []
    found = [member["downstream"] for member in members]
    panels = [
        (metric.title, "recommender; higher is better", [one[metric.key] for one in found])
        for metric in METRICS
        if found[0][metric.key] is not None
    ]
    if len(members) > 1:
        leads = [one[DIFFERENCE.key]["difference"] for one in found]
        panels.append((f"{DIFFERENCE.title}: difference", f"to {members[0]['name']}", leads))
    return panels


def _draw_intervals(
    axes: Axes, title: str, note: str, entries: list[dict[str, Any] | None]
) -> None:
    """One panel: a point with its interval per quantizer; None has a line at zero."""
    # Points with their values; the best is blue.
    shown = [entry for entry in entries if entry is not None]
    highest = max(entry["value"] for entry in shown)
    is_difference = len(shown) < len(entries)
    for row, entry in enumerate(entries):
        if entry is not None:
            is_best = entry["value"] == highest and (not is_difference or highest > 0)
            words = difference_words({"value": entry["value"]}) if is_difference else None
            words = words or f"{entry['value']:.4f}"
            draw_interval(axes, row, entry, words, AFTER if is_best else BEFORE)
    if is_difference:
        axes.axvline(0, color=REFERENCE, linewidth=1.2)

    # Points need no zero: the panel spans the intervals, with room for the value behind them.
    low = min(entry.get("low", entry["value"]) for entry in shown)
    high = max(entry.get("high", entry["value"]) for entry in shown)
    if is_difference:
        low, high = min(low, 0), max(high, 0)
    span = (high - low) or abs(high) or 1
    axes.set(xlim=(low - 0.1 * span, high + 0.6 * span), ylim=(len(entries) - 0.5, -0.5), yticks=[])
    axes.xaxis.set_major_locator(MaxNLocator(2))
    axes.grid(axis="x", color=RULE, linewidth=0.6)
    axes.tick_params(length=0)
    _put_title(axes, title, note)


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

    _put_title(axes, figure.title, f"{figure.better} is better")


def _put_title(axes: Axes, title: str, note: str) -> None:
    """Title of a panel, and a note below it."""
    axes.annotate(
        title,
        (0, 1),
        xytext=(0, 14),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=8.5,
        fontweight="bold",
    )
    axes.annotate(
        note,
        (0, 1),
        xytext=(0, 4),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=7.5,
        color=MUTED,
    )
