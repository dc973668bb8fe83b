"""One figure of churn.json: error, divergence and displacement of items since training."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from sidmill.report.plots import (
    AFTER,
    BEFORE,
    DASHED,
    INK,
    MUTED,
    REFERENCE,
    RULE,
    page,
)

HEIGHT = 2.6  # inches
BAR = 0.27
# Behind words on a line.
PAPER: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}


def churn(figures: dict[str, Any], path: str | Path) -> None:
    """Draw relative error and divergence per level, and each criterion against its limit.

    Args:
        figures: content of churn.json.
        path: the SVG file.
    """
    # Key and headline.
    levels = figures["drift"]["levels"]
    key = [
        Patch(color=BEFORE, label="items the quantizer was trained on; chance"),
        Patch(color=AFTER, label="items since training"),
        Patch(color=REFERENCE, label="of these, items of this version"),
    ]
    items = figures["items"]
    headline = (
        f"Version {figures['version']}: {items['new']} new, {items['changed']} changed, "
        f"{items['removed']} removed; retraining is {figures['retrain']}"
    )

    # Three panels: error, divergence, and the criteria.
    with page(path, headline, key, height=HEIGHT, above=0.3) as (figure, margins):
        grid = figure.add_gridspec(1, 3, **margins, wspace=0.35)
        losses = [
            [level["relative_loss"][name] for level in levels]
            for name in ("trained", "since", "fresh")
        ]
        _bars(figure.add_subplot(grid[0, 0]), "Relative error after each token", losses)
        bits = [[level["divergence"][name] for level in levels] for name in ("chance_bits", "bits")]
        _bars(figure.add_subplot(grid[0, 1]), "Divergence of each token, bits", bits)
        _criteria(figure.add_subplot(grid[0, 2]), figures["criteria"])


def _bars(axes: Axes, title: str, series: list[list[float | None]]) -> None:
    """Bars side by side, one per series, at each level; what is not known has no bar."""
    positions = np.arange(len(series[0]))
    for number, (values, colour) in enumerate(
        zip(series, (BEFORE, AFTER, REFERENCE), strict=False)
    ):
        known = [value or 0.0 for value in values]
        shift = (number - (len(series) - 1) / 2) * BAR
        axes.bar(positions + shift, known, width=BAR, color=colour, linewidth=0)
    axes.set_title(title, loc="left", fontsize=9, color=INK)
    axes.set_xticks(positions, [str(position + 1) for position in positions])
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    axes.tick_params(length=0)


def _criteria(axes: Axes, criteria: list[dict[str, Any]]) -> None:
    """Each value as a share of its limit; the dashed line is the limit."""
    shares = [
        (one["value"] or 0.0) / one["limit"] if one["limit"] else float(one["exceeded"])
        for one in criteria
    ]
    colours = [AFTER if one["judged"] else BEFORE for one in criteria]
    axes.barh(range(len(criteria)), np.clip(shares, 0, None), color=colours, height=0.5)
    axes.axvline(1.0, **DASHED)
    for row, one in enumerate(criteria):
        value = "unknown" if one["value"] is None else f"{one['value']:.3g}"
        words = f"{one['name'].replace('_', ' ')}: {value}, limit {one['limit']:g}"
        axes.annotate(words, (0, row - 0.36), fontsize=7.5, color=MUTED, bbox=PAPER)
    axes.set_ylim(len(criteria) - 0.5, -0.7)
    axes.set_xlim(0, max(1.15, *shares))
    axes.set_title("Criteria, as a share of their limits", loc="left", fontsize=9, color=INK)
    axes.set_yticks([])
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)
