"""``sidmill status``: what is done, what is not, and why."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sidmill.commands.plan import Job, Plan

WIDTH = 80
NAME_WIDTH = 30
SHARDED = ("shard", "shards")  # jobs that differ in these alone are one line
COLOURS = {"done": "green", "failed": "red", "interrupted": "red", "running": "cyan"}
MEANINGS = {
    "done": "up to date",
    "gone": "not needed now",
    "running": "running",
    "failed": "failed",
    "interrupted": "interrupted",
    "stale": "out of date",
    "missing": "not made yet",
    "waiting": "waiting",
}


@click.command()
@click.argument("targets", nargs=-1)
@click.option("--configfile", multiple=True, help="overlay, as given to snakemake; repeat it")
@click.option("--directory", help="folder of the run, as given to snakemake; default: this one")
@click.option(
    "--snakefile", help="Snakefile of the workflow; default: of this folder, or of this checkout"
)
@click.option("--code", metavar="RULE", help="list the modules whose change reruns RULE, and stop")
@click.option("--json", "as_json", is_flag=True, help="print JSON instead of a table")
def status(
    targets: tuple[str, ...],
    configfile: tuple[str, ...],
    directory: str | None,
    snakefile: str | None,
    code: str | None,
    as_json: bool,
) -> None:
    """Show which jobs are done, which jobs have to run, and why.

    TARGETS are files or rules; without any, the default target is used. Snakemake decides, by a dry
    run. Exit code 0: everything is up to date; 1: some jobs have to run; 2: the state cannot be
    determined, for example because the configuration is wrong.
    """
    from sidmill.commands.plan import ask, find_snakefile

    if code:
        from sidmill.commands import code_identity

        modules = code_identity.modules_of(code, find_snakefile(snakefile))
        identity = {"rule": code, "modules": [module._asdict() for module in modules]}
        click.echo(
            json.dumps(identity, indent=2) if as_json else code_identity.lines(code, modules)
        )
        return

    plan = ask(list(targets), list(configfile), snakefile, directory)
    waiting = any(job.state not in ("done", "gone") for job in plan.jobs)
    if as_json:
        summary = {"up_to_date": not waiting, "locked": plan.locked}
        jobs = [job._asdict() for job in plan.jobs]
        click.echo(json.dumps(summary | {"states": counts(plan.jobs), "jobs": jobs}, indent=2))
    else:
        is_local = find_snakefile(snakefile) == Path("Snakefile").absolute()
        options = [] if is_local else ["--snakefile", str(find_snakefile(snakefile))]
        options += ["--directory", directory] if directory else []
        click.echo(table(plan, configfile, targets, options))
    sys.exit(1 if waiting else 0)


def counts(jobs: "list[Job]") -> dict[str, int]:
    """Jobs by state, without states that none has."""
    totals = {state: sum(job.state == state for job in jobs) for state in MEANINGS}
    return {state: count for state, count in totals.items() if count}


def table(
    plan: "Plan",
    configfiles: tuple[str, ...],
    targets: tuple[str, ...],
    options: Sequence[str] = (),
) -> str:
    """Format the plan of a run for a terminal: a line for jobs of one rule in one state.

    Args:
        plan: what is behind the targets.
        configfiles: overlays that were given.
        targets: targets that were given.
        options: further words that a run needs, for the command at the end.
    """
    from sidmill.core.terminal import columns, cut, padded

    groups: dict[tuple[str, str, tuple[str, ...]], int] = {}
    totals: dict[str, int] = {}
    for job in plan.jobs:
        key = (_name(job), job.state, tuple(_why(job)))
        groups[key] = groups.get(key, 0) + 1
        totals[key[0]] = totals.get(key[0], 0) + 1
    width = min(max((columns(name) + 9 for name, *_ in groups), default=0), NAME_WIDTH)
    lines = []
    for (name, state, why), count in groups.items():
        of = "" if count == totals[name] else f" of {totals[name]}"
        jobs = "" if totals[name] == 1 else f" ({count}{of})"
        shown = cut(name, width - columns(jobs)) + jobs
        first, *others = _wrapped(why, WIDTH - width - 15) or [""]
        label = click.style(f"{state:<11}" if first else state, fg=COLOURS.get(state, "yellow"))
        lines.append(f"{padded(shown, width)}  {label}{'  ' * bool(first)}{first}")
        lines += [" " * (width + 15) + other for other in others]
    return "\n".join([*lines, "", *_verdict(plan, configfiles, targets, options)])


def _name(job: "Job") -> str:
    from sidmill.core.terminal import safe

    values = [value for name, value in job.wildcards.items() if name not in SHARDED and value]
    return safe(" ".join([job.rule, *values]))


def _why(job: "Job") -> list[str]:
    from sidmill.core.secrets import masker

    if job.state == "gone":
        return ["not needed now"]
    return list(map(masker(), (reason for reason in job.why if reason != "not made yet")))


def _wrapped(reasons: tuple[str, ...], width: int) -> list[str]:
    from textwrap import wrap

    from sidmill.core.terminal import safe

    lines = [line for reason in reasons for line in wrap(safe(reason), width)]
    return lines if len(lines) <= 4 else [*lines[:3], "..."]


def _verdict(
    plan: "Plan",
    configfiles: tuple[str, ...],
    targets: tuple[str, ...],
    options: Sequence[str],
) -> list[str]:
    from shlex import join

    totals = counts(plan.jobs)
    summary = ", ".join(f"{count} {MEANINGS[state]}" for state, count in totals.items())
    lines = [f"{len(plan.jobs)} jobs: {summary or 'none'}"]
    if plan.locked:
        lines.append("locked: a run is in progress")
    if set(totals) - {"done", "gone"}:
        files = ["--configfile", *configfiles] if configfiles else []
        rest = ["--", *targets] if targets and configfiles else list(targets)
        lines.append(f"to continue: {join(['snakemake', '--cores', '8', *options, *files, *rest])}")
    return lines
