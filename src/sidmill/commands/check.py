"""``sidmill check``: whether the files of a folder are what their documentation promises."""

import json
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sidmill.report.check import Report


@click.command()
@click.argument("folder", default="results", type=click.Path())
@click.option("--part", is_flag=True, help="read a part of large files instead of all rows")
@click.option("--json", "as_json", is_flag=True, help="print JSON instead of lines")
def check(folder: str, part: bool, as_json: bool) -> None:
    """Check all files of FOLDER, by default results: each against its format, then together.

    FOLDER may hold files that were made elsewhere, under the names of docs/formats.md. Exit code 0:
    all is as documented; 1: a line for each fault; 2: there is nothing to check.
    """
    from sidmill.report import check as stage

    report = stage.check(folder, whole=not part)
    if as_json:
        faults = [fault._asdict() for fault in report.faults]
        click.echo(json.dumps({**report._asdict(), "faults": faults}, indent=2))
    else:
        click.echo(lines(report))
    sys.exit(1 if report.faults else 0)


def lines(report: "Report") -> str:
    """A line for each fault, then what was checked."""
    from sidmill.core.terminal import safe

    faults = [f"{safe(fault.path)}: {safe(fault.says)}" for fault in report.faults]
    unknown = f"; {report.unknown} other files were not checked" if report.unknown else ""
    count = f"{len(faults)} faults" if len(faults) != 1 else "1 fault"
    return "\n".join(
        [
            *faults,
            f"{len(report.files)} files and {len(report.promises)} promises between them: "
            f"{count if faults else 'all is as documented'}{unknown}",
        ]
    )
