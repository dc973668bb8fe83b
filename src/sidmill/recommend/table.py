"""``metrics.csv``: the figures of metrics.json, one line each, for spreadsheets and the report.

split, ranked, method, metric, value, low, high
"""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from sidmill.core.atomic import write_text

COLUMNS = ("split", "ranked", "method", "metric", "value", "low", "high")


def write(path: str | Path, figures: dict) -> None:
    """Write metrics.csv, atomically."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(COLUMNS)
    out.writerows(_rows(figures))
    write_text(path, text.getvalue())


def _rows(figures: dict) -> Iterator[tuple]:
    for split in ("valid", "test"):
        found = figures[split]
        for method, entries in found.get("methods", {}).items():
            yield from _entries(split, "items", method, entries)
        for when, by_sid in found.get("sids", {}).items():
            for level in ("sid_level", "item_level"):
                yield from _entries(split, f"SIDs {when} resolution", level, by_sid[level])


def _entries(split: str, ranked: str, method: str, entries: dict) -> Iterator[tuple]:
    for name, entry in entries.items():
        bounds = [f"{entry[end]:.4f}" if end in entry else "" for end in ("value", "low", "high")]
        yield split, ranked, method.replace("_", " "), name, *bounds
