"""``metrics.csv``: the figures of metrics.json, one a line, for spreadsheets and the report.

split, ranked, method, metric, value, low, high
"""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sidmill.core.atomic import write_text
from sidmill.recommend.metrics import Entries

COLUMNS = ("split", "ranked", "method", "metric", "value", "low", "high")


def write(path: str | Path, figures: dict[str, Any]) -> None:
    """Write metrics.csv, atomically."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(COLUMNS)
    out.writerows(_rows(figures))
    write_text(path, text.getvalue())


def _rows(figures: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for split in ("valid", "test"):
        measured = figures[split]
        for method, entries in measured.get("methods", {}).items():
            yield from _entries(split, "items", method, entries)
        for when, by_sid in measured.get("sids", {}).items():
            for level in ("sid_level", "item_level"):
                yield from _entries(split, f"SIDs {when} resolution", level, by_sid[level])


def _entries(split: str, ranked: str, method: str, entries: Entries) -> Iterator[tuple[str, ...]]:
    for name, entry in entries.items():
        bounds = [f"{entry[end]:.4f}" if end in entry else "" for end in ("value", "low", "high")]
        yield split, ranked, method.replace("_", " "), name, *bounds
