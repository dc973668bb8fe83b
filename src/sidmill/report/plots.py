"""Three figures of quality.json, as SVG whose bytes depend on the numbers alone.

Each function takes the dictionary of quality.json. Blue is the final SIDs, collisions resolved;
grey is the codes of the quantizer, where those differ. The colours differ in every common form of
colour blindness (blue and vermilion of https://jfly.uni-koeln.de/color/).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from sidmill.core.atomic import replacing

BEFORE, AFTER, REFERENCE = "#a3aeb9", "#0072b2", "#d55e00"
INK, MUTED, RULE = "#1f2933", "#5b6672", "#d5dbe1"
DASHED: dict[str, Any] = {"color": REFERENCE, "linewidth": 1.2, "linestyle": (0, (4, 2))}
ABOVE: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
STYLE = {
    "svg.hashsalt": "sidmill",
    "svg.fonttype": "path",  # the same letters on every machine
    "font.size": 8.5,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
}
WIDTH = 9.6  # inches: 921 CSS pixels
LEFT, RIGHT, HEAD, FOOT = 0.7, 0.25, 0.68, 0.55  # inches around the panels
ROW_LABEL = 1.75  # inches for the words before a row of the prefix figure
MAX_STEPS = 512  # of a usage curve: more than a panel has pixels
CROWDED = 12  # bins of prefix sizes with room for two labelled bars each
LABELLED = 10  # bins of prefix sizes with room for both ends in words
SAME_SCALE = 4  # panels share the y axis while their peaks differ by at most this factor


def code_usage(quality: dict[str, Any], path: str | Path) -> None:
    """Draw the items per code of each level, codes sorted by use.

    The dashed line is the even share N / K: a curve that lies flat along it wastes no code. Levels
    of one codebook size share the y axis unless their peaks are far apart.

    Args:
        quality: content of quality.json.
        path: the SVG file.
    """
    # Levels share the y axis while their even shares are one and their peaks are near.
    n_items, levels = quality["items"], quality["after"]["levels"]
    quantized, changed = quality["before"]["levels"], _before(quality, "usage")
    evens = [n_items / level["codebook_size"] for level in levels]
    peaks = [
        max(even, level["usage"][0], *(early or [])[:1])
        for even, level, early in zip(evens, levels, changed, strict=True)
    ]
    one_scale = len(set(evens)) == 1 and max(peaks) <= SAME_SCALE * min(peaks)

    # A panel per level, four in a row.
    n_columns = min(len(levels), 4)
    n_rows = math.ceil(len(levels) / n_columns)
    key = [*_key(quality, changed), Line2D([], [], **DASHED, label="even share: items / codes")]
    with page(path, "Items per code, codes sorted by use", key, height=2.7 * n_rows, above=0.7) as (
        figure,
        margins,
    ):
        grid = figure.add_gridspec(n_rows, n_columns, **margins, wspace=0.24, hspace=0.65)
        for index, level in enumerate(levels):
            row, column = divmod(index, n_columns)
            axes = figure.add_subplot(grid[row, column])
            _draw_usage(axes, level, evens[index])
            if changed[index] is not None:
                axes.stairs(*_steps(quantized[index]), color=BEFORE, linewidth=1.3, baseline=None)
            if index >= len(quantized):
                axes.annotate("suffix", (1, 1), xytext=(0, 42), ha="right", color=MUTED, **ABOVE)
            axes.set_ylim(0, 1.06 * (max(peaks) if one_scale else peaks[index]))
            axes.set_ylabel("items" if column == 0 else "")
            axes.set_xlabel("code, by use" if index + n_columns >= len(levels) else "")


def prefix_sizes(quality: dict[str, Any], path: str | Path) -> None:
    """Draw how many items share a prefix, for prefixes of 1 to L tokens.

    A bar is a share of the prefixes of that length; sizes are binned by powers of two.

    Args:
        quality: content of quality.json.
        path: the SVG file.
    """
    # Bars of each panel: as quantized, where that differs, and after resolution.
    quantized, levels = quality["before"]["levels"], quality["after"]["levels"]
    changed = _before(quality, "prefix_size_histogram")
    panels = [
        ([] if before is None else [(BEFORE, _shares(quantized[index]))])
        + [(AFTER, _shares(levels[index]))]
        for index, before in enumerate(changed)
    ]
    n_bins = max(len(shares) for panel in panels for _, shares in panel)
    top = max(max(shares) for panel in panels for _, shares in panel)

    # A row per prefix length; the last one names the bins.
    with page(
        path,
        "Items under a prefix of each length",
        _key(quality, changed),
        height=0.9 * len(levels),
        above=0,
    ) as (figure, margins):
        margins["left"] += ROW_LABEL / WIDTH
        grid = figure.add_gridspec(len(levels), 1, **margins, hspace=0.25)
        for index, panel in enumerate(panels):
            axes = figure.add_subplot(grid[index])
            for size in range(n_bins):
                bars = [(colour, sum(shares[size : size + 1]) or None) for colour, shares in panel]
                _draw_bars(axes, size, bars, 0.84, _whole_percent, crowded=n_bins > CROWDED)
            _describe_row(axes, levels[index], quantized[index] if len(panel) == 2 else None)
            axes.set(xlim=(-0.6, n_bins - 0.4), ylim=(0, 1.3 * top), yticks=[])
            axes.set_xticks(range(n_bins), [])
            axes.tick_params(length=0)
            axes.spines["left"].set_visible(False)
        axes.set_xticks(range(n_bins), _bin_labels(n_bins))
        axes.set_xlabel("items under one prefix (bars: share of the prefixes of that length)")


def reconstruction(quality: dict[str, Any], path: str | Path) -> None:
    """Draw the relative loss that is left after each level, before and after resolution.

    A level without a loss is named, not drawn: a suffix, which describes no part of the vector, or
    any level of given SIDs, which have no codebooks, or of vectors that are all zero.

    Args:
        quality: content of quality.json.
        path: the SVG file.
    """
    # The highest bar of any level sets the y axis.
    losses = [level["relative_loss"] for level in quality["after"]["levels"]]
    before = _before(quality, "relative_loss")
    top = max((loss for loss in losses + before if loss is not None), default=0)
    n_quantized = len(quality["before"]["levels"])

    # Bars per level, or words where there is no loss.
    with page(
        path, "Relative loss left after each level", _key(quality, before), height=2.6, above=0
    ) as (figure, margins):
        margins["right"] -= (margins["right"] - margins["left"]) * max(0, 1 - len(losses) / 4)
        axes = figure.add_subplot(figure.add_gridspec(1, 1, **margins)[0])
        for index, loss in enumerate(losses):
            if loss is None:
                suffix = index >= n_quantized
                words = "suffix: not part\nof the vector" if suffix else "not measured"
                _label(axes, index, 0, words, MUTED)
            else:
                bars = [(BEFORE, before[index])] if before[index] is not None else []
                bars.append((AFTER, loss))
                _draw_bars(axes, index, bars, 0.76, lambda share: _percent(share, 3), crowded=False)
        axes.set_xticks(range(len(losses)), [f"level {index + 1}" for index in range(len(losses))])
        axes.set(xlim=(-0.5, len(losses) - 0.5), ylim=(0, 1.12 * top or 1), yticks=[])
        axes.spines["left"].set_visible(False)
        axes.tick_params(length=0)


def _before(quality: dict[str, Any], figure: str) -> list[Any]:
    """A figure as quantized, for each level of the SIDs; None where it is the same as after."""
    quantized = [level[figure] for level in quality["before"]["levels"]]
    final = [level[figure] for level in quality["after"]["levels"]]
    quantized += [None] * (len(final) - len(quantized))
    return [None if early == late else early for early, late in zip(quantized, final, strict=True)]


def _key(quality: dict[str, Any], before: list[Any]) -> list[Artist]:
    """Key of the two colours, or of blue alone where nothing in ``before`` differs."""
    strategy = quality["resolution"]["strategy"]
    key: list[Artist] = [Patch(color=AFTER, label=f"final SIDs (collisions: {strategy})")]
    if any(figure is not None for figure in before):
        key.append(Patch(color=BEFORE, label="as quantized, where that differs"))
    return key


@contextmanager
def page(
    path: str | Path, headline: str, key: Sequence[Artist], *, height: float, above: float
) -> Iterator[tuple[Figure, dict[str, float]]]:
    """Set up a plot with its headline, key and margins of the panels; save it at the end.

    Args:
        path: the SVG file.
        headline: what is drawn.
        key: artists with labels.
        height: of the panels, in inches.
        above: room for the titles of the first row of panels, in inches.
    """
    # Inches to shares of the figure.
    total = HEAD + above + height + FOOT
    margins = {
        "left": LEFT / WIDTH,
        "right": 1 - RIGHT / WIDTH,
        "top": 1 - (HEAD + above) / total,
        "bottom": FOOT / total,
    }

    # Headline and key, then the panels of the caller, then the file.
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(WIDTH, total))
        figure.text(margins["left"], 1 - 0.3 / total, headline, fontsize=13, fontweight="bold")
        figure.legend(
            handles=key,
            loc="upper left",
            bbox_to_anchor=(margins["left"], 1 - 0.4 / total),
            ncols=len(key),
            frameon=False,
            borderaxespad=0,
            borderpad=0,
            handlelength=1.4,
            handleheight=0.7,
            columnspacing=2,
            labelcolor=MUTED,
        )
        yield figure, margins
        metadata = {"Title": headline, "Creator": "SIDMill", "Date": None}
        with replacing(path) as temporary:
            figure.savefig(temporary, format="svg", metadata=metadata)


def _draw_usage(axes: Axes, level: dict[str, Any], even: float) -> None:
    """One panel of the usage figure."""
    # Items per code, and the even share.
    size, used = level["codebook_size"], level["used"]
    axes.stairs(*_steps(level), fill=True, color=AFTER, linewidth=0)
    axes.axhline(even, **DASHED)
    axes.set_xlim(0, size)
    first, last = axes.set_xticks([0, size], ["1", f"{size:,}"])
    first.label1.set_horizontalalignment("left")
    last.label1.set_horizontalalignment("right")
    axes.tick_params(axis="x", length=0)
    axes.yaxis.set_major_locator(MaxNLocator(4, min_n_ticks=2))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))

    # Title and figures above the panel.
    title = f"level {level['level']}"
    axes.annotate(title, (0, 1), xytext=(0, 42), fontsize=9.5, fontweight="bold", **ABOVE)
    axes.annotate(
        f"{used:,} of {size:,} codes used ({_percent(level['utilisation'], 3)})\n"
        f"perplexity {level['perplexity']:,.0f}, Gini {level['gini']:.2f}\n"
        f"most used: {level['usage'][0]:,} items ({_percent(level['largest_share'], 2)})",
        (0, 1),
        xytext=(0, 7),
        fontsize=8,
        color=MUTED,
        **ABOVE,
    )


def _steps(level: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Heights (n,) and edges (n + 1,) of a usage curve, n <= ``MAX_STEPS``."""
    usage = np.asarray(level["usage"], dtype=np.float64)
    kept = np.linspace(0, len(usage) - 1, min(len(usage), MAX_STEPS)).round().astype(int)
    return usage[kept], np.linspace(0, level["used"], len(kept) + 1)


def _shares(level: dict[str, Any]) -> list[float]:
    """Share of a level's prefixes in each bin of their number of items, from the first bin on."""
    histogram = {_bin(size): number for size, number in level["prefix_size_histogram"].items()}
    return [histogram.get(size, 0) / level["prefixes"] for size in range(1 + max(histogram))]


def _describe_row(axes: Axes, level: dict[str, Any], before: dict[str, Any] | None) -> None:
    """Say on the left of a row which prefixes it shows: ``before → after`` where the two differ."""
    prefixes, largest = (
        " → ".join(dict.fromkeys(f"{state[figure]:,}" for state in (before or level, level)))
        for figure in ("prefixes", "largest_prefix")
    )
    at_left: dict[str, Any] = {
        "xycoords": ("figure fraction", "axes fraction"),
        "textcoords": "offset points",
        "annotation_clip": False,
    }
    foot = (LEFT / WIDTH, 0)
    tokens = "1 token" if level["level"] == 1 else f"{level['level']} tokens"
    axes.annotate(tokens, foot, xytext=(0, 29), fontsize=9.5, fontweight="bold", **at_left)
    words = f"{prefixes} prefixes\nlargest: {largest}"
    axes.annotate(words, foot, xytext=(0, 2), fontsize=8, color=MUTED, **at_left)


def _draw_bars(
    axes: Axes,
    x: float,
    bars: list[tuple[str, float | None]],
    width: float,
    words: Callable[[float], str],
    *,
    crowded: bool,
) -> None:
    """Draw (colour, height) bars side by side around ``x``, each with its height in words.

    None keeps its place and draws nothing. Where it is crowded, only final bars of some height
    have words.
    """
    each = width / len(bars)
    for index, (colour, height) in enumerate(bars):
        if height is None:
            continue
        middle = x + each * (index - (len(bars) - 1) / 2)
        axes.bar(middle, height, 0.95 * each, color=colour)
        if not crowded or (colour == AFTER and height >= 0.05):
            _label(axes, middle, height, words(height), INK if colour == AFTER else MUTED)


def _label(axes: Axes, x: float, y: float, words: str, colour: str) -> None:
    axes.annotate(
        words,
        (x, y),
        xytext=(0, 2.5),
        textcoords="offset points",
        ha="center",
        fontsize=7.5,
        color=colour,
    )


def _percent(share: float, significant: int) -> str:
    """A share in per cent; at most 4 decimals, and never rounded to 0 % or 100 %."""
    if 0 < share < 1e-6:
        return "<0.0001%"
    decimals = significant - 1 - math.floor(math.log10(100 * share)) if share else 0
    decimals = min(max(decimals, 0), 4)
    while share < 1 and float(f"{100 * share:.{decimals}f}") >= 100 and decimals < 4:
        decimals += 1
    return f"{100 * share:.{decimals}f}%"


def _whole_percent(share: float) -> str:
    if share < 0.01:
        return "<1%"
    return ">99%" if 0.99 < share < 1 else f"{100 * share:.0f}%"


def _short(number: float) -> str:
    """A number for an axis: 0.5, 300, 12k, 1.5M."""
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= 10 * unit or (number >= unit and unit > 1e3):
            return f"{number / unit:.4g}{letter}"
    return f"{number:,.4g}" if number < 1000 else f"{number:,.0f}"


def _bin(size: str) -> int:
    """Number of a bin of the histogram: "1" is 0, "2-3" is 1, "4-7" is 2."""
    return int(size.partition("-")[0]).bit_length() - 1


def _bin_labels(n_bins: int) -> list[str]:
    """Words for the bins: 1, 2–3, 4–7; where it is crowded, 1, 2+, 4+, ..., 1k+, ..., 1M+."""
    if n_bins <= LABELLED:
        return ["1", *(f"{2**size}–{2 ** (size + 1) - 1}" for size in range(1, n_bins))]
    units = ["", "k", "M", "G"]  # of 1,024
    labels = ["1", *(f"{2 ** (size % 10)}{units[size // 10]}+" for size in range(1, n_bins))]
    step = math.ceil(n_bins / 20)
    return [label if size % step == 0 else "" for size, label in enumerate(labels)]
