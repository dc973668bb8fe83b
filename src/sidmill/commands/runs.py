"""``sidmill runs``: runs and versions side by side."""

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sidmill.report.runs import Figure, Run

LONGEST_VALUE = 24  # columns
LAST = 5


@click.command()
@click.argument("folders", nargs=-1, type=click.Path())
@click.option(
    "--last",
    type=click.IntRange(min=1),
    help=f"latest runs of each folder  [default: {LAST} of one folder, 1 of each of several]",
)
@click.option("--plot", type=click.Path(dir_okay=False), help="also draw the figures: an SVG")
@click.option("--json", "as_json", is_flag=True, help="print JSON instead of a table")
def runs(folders: tuple[str, ...], last: int | None, plot: str | None, as_json: bool) -> None:
    """Compare runs: quality, recommenders, seconds, commit, and the settings that differ.

    FOLDERS: folders of results, published versions, or folders that contain such; results/ if none
    is given. Each folder of results remembers its earlier runs in runs.jsonl, which
    snakemake results/run.json continues.
    """
    from sidmill.report import runs as stage

    # Several folders: the latest run of each; one folder: its history.
    found = stage.find(folders or ("results",))
    each = last or (LAST if len(found) == 1 else 1)
    shown = [run for folder in found for run in stage.of_folder(folder, each)]
    if plot:
        from sidmill.report import runs_plot

        runs_plot.draw(shown, plot)
    if as_json:
        told = {"runs": [stage.as_json(run) for run in shown], "differing": stage.differing(shown)}
        click.echo(json.dumps(told, indent=2))
    else:
        click.echo(table(shown))


def table(shown: "list[Run]") -> str:
    """Format runs as lines for a terminal: a column per run, figures first, then settings."""
    from sidmill.core import terminal
    from sidmill.report.runs import differing, figure_names

    # Facts and figures: one row each.
    header = ["run", *(str(number) for number in range(1, len(shown) + 1))]
    rows = []
    if len({run.folder for run in shown}) > 1:
        rows.append(["folder", *(terminal.safe(run.folder, LONGEST_VALUE) for run in shown)])
    rows.append(["written, UTC", *(_minute(run.written) for run in shown)])
    rows.append(["commit", *(run.commit or "-" for run in shown)])
    rows.append(["seconds", *(_number(run.seconds, ",.0f") for run in shown)])
    rows.append(["items", *(_number(run.items, ",d") for run in shown)])
    for name in figure_names(shown):
        rows.append([name, *(_figure(run.figures.get(name)) for run in shown)])

    # Settings that differ, after an empty line.
    settings = [
        [terminal.safe(name), *(terminal.safe(_setting(value), LONGEST_VALUE) for value in values)]
        for name, values in differing(shown).items()
    ]
    lines = terminal.table([*rows, *settings], header)
    figures, rest = lines[: len(lines) - len(settings)], lines[len(lines) - len(settings) :]
    return "\n".join([*figures, "", *(rest or [_no_settings(shown)])])


def _no_settings(shown: "list[Run]") -> str:
    without = [run.folder for run in shown if not run.settings]
    if without:
        return (
            f"no run.json in {', '.join(dict.fromkeys(without))}: their settings are not known "
            f"(snakemake --cores 8 results/run.json writes it)"
        )
    return "all settings are the same" if len(shown) > 1 else "one run: nothing to compare"


def _figure(figure: "Figure | None") -> str:
    if figure is None:
        return "-"
    if figure.low is None or figure.high is None:
        return f"{figure.value:.4f}"
    return f"{figure.value:.4f} ±{(figure.high - figure.low) / 2:.4f}"


def _minute(written: str | None) -> str:
    return written[:16].replace("T", " ") if written else "-"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _setting(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
