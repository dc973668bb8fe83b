"""``sidmill inspect``: what a file is, and whether it is valid."""

import json
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sidmill.report.inspect.facts import Check, Description

WIDTH = 80
LONGEST_NAME = 22
COUNTS = ("rows", "rows_read", "items", "queries", "lines", "files", "distinct")
UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


@click.command()
@click.argument("file")
@click.option("--rows", default=3, show_default=True, help="number of rows shown")
@click.option("--all", "whole", is_flag=True, help="check all rows instead of a part")
@click.option("--json", "as_json", is_flag=True, help="print JSON instead of text")
def inspect(file: str, rows: int, whole: bool, as_json: bool) -> None:
    """Describe any file of SIDMill, and check it.

    The form follows from the name and the content of FILE: metadata, figures, checks, first rows. A
    folder of parquet files or of a model is described as one. Exit code 0: sound; 1: a check
    failed; 2: damaged, or of no known form.
    """
    from sidmill.report import inspect as stage

    description = stage.describe(file, rows, whole)
    if as_json:
        click.echo(json.dumps(description.as_json(), indent=2, default=str))
    else:
        click.echo(lines(description))
    sys.exit(0 if description.sound else 1)


def lines(description: "Description") -> str:
    """Format the description of a file as lines for a terminal, 80 columns wide."""
    from sidmill.core.terminal import safe

    shown = [safe(description.path), f"{safe(description.kind)}, {size(description.bytes)}", ""]
    entries = {**description.facts, **description.figures}
    width = min(max((len(str(key)) for key in entries), default=0), LONGEST_NAME)
    for key, value in entries.items():
        shown += _entry(str(key), value, width)
    if description.checks:
        shown += ["", "checks", *map(_check, description.checks)]
    if description.sample:
        shown += ["", "first rows", *(f"  {_row(row)}" for row in description.sample)]
    return "\n".join(shown)


def size(count: int) -> str:
    """Bytes in words."""
    amount, unit = float(count), 0
    while amount >= 1024 and unit < len(UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{count:,} {UNITS[0]}" if not unit else f"{amount:,.1f} {UNITS[unit]}"


def _entry(key: str, value: object, width: int) -> list[str]:
    """A fact on one line; a dictionary on a line for each entry."""
    from sidmill.core.terminal import padded, safe

    name, width_left = padded(safe(key, width), width), WIDTH - width - 2
    if key in COUNTS and isinstance(value, int):
        return [f"{name}  {value:,}"]
    if not isinstance(value, dict):
        return [f"{name}  {safe(_value(value), width_left)}".rstrip()]
    inner_width = min(max((len(str(inner)) for inner in value), default=0), width_left // 2)
    entries = [
        f"{padded(safe(inner, inner_width), inner_width)}  "
        f"{safe(_value(entry), width_left - inner_width - 2)}".rstrip()
        for inner, entry in value.items()
    ] or ["none"]
    return [f"{name}  {entries[0]}", *(f"{'':{width}}  {entry}" for entry in entries[1:])]


def _value(value: object, digits: int = 6) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)  # an id, a code, a setting; a comma would part it
    if isinstance(value, float):
        return f"{value:.{digits}g}"
    if isinstance(value, list | tuple):
        inner = ", ".join(_value(entry, digits) for entry in value)
        return f"({inner})"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_value(entry)}" for key, entry in value.items())
    return str(value)


def _check(check: "Check") -> str:
    from sidmill.core.terminal import padded, safe

    label = {True: "ok", False: "FAILED", None: "-"}[check.ok]
    says = f" ({safe(check.says)})" if check.says else ""
    return f"  {padded(label, 6)}  {check.what}{says}"


def _row(row: object) -> str:
    from sidmill.core.terminal import safe

    width = WIDTH - 2
    if isinstance(row, dict):
        cells = [f"{key}: {_cell(value)}" for key, value in row.items()]
        return safe("  ".join(cells), width)
    return safe(_value(row, 4), width)


def _cell(value: object) -> str:
    if isinstance(value, list) and len(value) > 6:
        return f"{_value([*value[:6], '...'], 4)} of {len(value)}"
    return _value(value, 4)
