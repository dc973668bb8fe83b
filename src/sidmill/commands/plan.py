"""What Snakemake would do and why, from a dry run of Snakemake.

The plugin in ``workflow/loggers`` writes the plan as JSON lines, with the reasons in Snakemake's
words (:mod:`sidmill.commands.reasons`). How a job went last time is read from the
JSON lines that it left beside its log (:mod:`sidmill.core.job`).
"""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from contextlib import chdir, suppress
from pathlib import Path
from typing import Any, NamedTuple

from sidmill.commands import reasons
from sidmill.core.errors import SidmillError

PLUGINS = "workflow/loggers"  # beside the Snakefile
CHECKOUT = Path(__file__).parents[3]  # where the library lies beside the workflow, unless installed
TAIL_BYTES = 1 << 16


class Job(NamedTuple):
    """One job of the plan.

    Attributes:
        rule: its rule.
        wildcards: name to value.
        output: its files.
        state: ``done``, ``gone`` (a file that nothing needs was removed), ``missing``, ``stale``,
            ``waiting`` (only because of jobs before it), ``failed``, ``interrupted``, ``running``.
        why: a reason, or several; empty where it is done.
    """

    rule: str
    wildcards: dict[str, str]
    output: list[str]
    state: str
    why: list[str]


class Plan(NamedTuple):
    """What is behind a target.

    Attributes:
        jobs: each after those that it needs.
        locked: whether a run holds the folder.
    """

    jobs: list[Job]
    locked: bool


def ask(
    targets: list[str],
    configfiles: list[str],
    snakefile: str | None = None,
    directory: str | None = None,
) -> Plan:
    """Ask Snakemake what a run would do.

    Args:
        targets: files or rules; none for the default target.
        configfiles: overlays, as given to Snakemake.
        snakefile: of the workflow; None: see :func:`find_snakefile`.
        directory: where the run works and has its ``results``; None: this folder.

    Raises:
        SidmillError: if there is no workflow, or Snakemake refuses to plan; with its words.
    """
    snakefile_path = find_snakefile(snakefile)
    with tempfile.TemporaryDirectory(prefix="sidmill-") as folder:
        path = Path(folder) / "plan.jsonl"
        options = ["--logger", "plan", "--logger-plan-path", str(path), "--debug-dag"]
        options += ["--snakefile", str(snakefile_path)]
        options += ["--directory", directory] if directory else []
        options += ["--configfile", *configfiles] if configfiles else []
        command = [sys.executable, "-m", "snakemake", "--dry-run", "--cores", "1", "--nocolor"]
        command += ["--rerun-incomplete", *options, "--", *targets]

        # Snakemake finds the plugin on the Python path alone.
        paths = [str(snakefile_path.parent / PLUGINS), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        completed = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False
        )
        if completed.returncode or not path.is_file():
            raise SidmillError(
                f"Snakemake cannot plan:\n{_complaint(completed.stderr + completed.stdout)}"
            )
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    with chdir(directory or "."):  # paths of the plan are relative to it
        return read(lines)


def find_snakefile(given: str | None) -> Path:
    """The Snakefile of SIDMill: the one given, of this folder, or of the checkout of the library.

    Raises:
        SidmillError: if there is none.
    """
    candidates = [Path(given)] if given else [Path("Snakefile"), CHECKOUT / "Snakefile"]
    for candidate in candidates:
        path = candidate.absolute()
        if path.is_file() and (path.parent / PLUGINS).is_dir():
            return path
    raise SidmillError(
        f"{given or Path.cwd()}: no Snakefile of SIDMill: run this in the folder of the workflow, "
        "or name its Snakefile with --snakefile"
    )


def read(lines: list[dict[str, Any]]) -> Plan:
    """Read the jobs that the logger plugin wrote during a dry run of Snakemake."""
    reasons_by_output = {
        tuple(line["output"]): line["reason"] for line in lines if line["what"] == "to_run"
    }
    locked = any(line["what"] == "locked" for line in lines)
    makers = {path: line["rule"] for line in lines for path in line.get("output", ())}
    jobs = {}
    for line in lines:
        output = tuple(line.get("output", ()))
        if line["what"] == "job" and output and output not in jobs:
            jobs[output] = _job(line, reasons_by_output.get(output), makers, locked)
    return Plan(list(jobs.values()), locked)


def _job(line: dict[str, Any], reason: str | None, makers: dict[str, str], locked: bool) -> Job:
    rule, wildcards, output = line["rule"], line["wildcards"], line["output"]
    absent = [path for path in output if not Path(path).exists()]
    state, explanation = last_time(line["log"][0] if line["log"] else "", locked)
    if reason is None and absent and state:
        return Job(rule, wildcards, output, state, [explanation])
    if reason is None:
        why = [f"{reasons.name_files(absent)} removed; nothing needs it"] if absent else []
        return Job(rule, wildcards, output, "gone" if absent else "done", why)
    parsed = reasons.explain(reason, makers)
    if state == "running" or (state and {"missing", "incomplete"} & set(parsed)):
        return Job(rule, wildcards, output, state, [explanation])
    if "incomplete" in parsed:
        state = "interrupted"
    elif len(absent) == len(output):
        state = "missing"
    else:
        state = "waiting" if set(parsed) == {"upstream"} else "stale"
    return Job(rule, wildcards, output, state, list(parsed.values()))


def last_time(log: str, locked: bool) -> tuple[str, str]:
    """Tell how the last attempt of a job ended, from the JSON lines beside its log.

    Args:
        log: its log.
        locked: whether a run holds the folder: then a job of another machine is taken to run.

    Returns:
        ``failed``, ``running`` or ``interrupted`` with words for it; empty if it went well, or is
        not known.
    """
    path = Path(log).with_suffix(".jsonl") if log else None
    if path is None or not path.is_file():
        return "", ""
    lines = []
    for line in _tail(path):
        with suppress(ValueError):
            lines.append(json.loads(line))
    ended = next((line["message"] for line in lines[-1:]), "")
    if ended == "finished":
        return "", ""
    if ended == "failed":
        errors = [line["message"] for line in lines if line["level"] == "ERROR"]
        return "failed", errors[-1] if errors else f"see {log}"
    began = lines[0] if lines else {}
    fields = began.get("fields", {})
    elsewhere = fields.get("host", socket.gethostname()) != socket.gethostname()
    if locked if elsewhere else _alive(fields):
        return "running", f"since {began['time']}, on {fields['host']}, process {fields['pid']}"
    return "interrupted", "the run ended while this job ran"


def _tail(path: Path) -> list[str]:
    """The first line, and the last ones: a log may be long."""
    with path.open("rb") as file:
        first = file.readline()
        file.seek(max(file.seek(0, os.SEEK_END) - TAIL_BYTES, len(first)))
        rest = file.read().splitlines()
    return [line.decode(errors="replace") for line in (first, *rest)]


def _alive(fields: dict[str, Any]) -> bool:
    """Whether the process of this machine that wrote a line is alive.

    A process that was killed keeps its number until its parent has asked how it ended.
    """
    try:
        os.kill(int(fields["pid"]), 0)
    except (OSError, KeyError, ValueError, OverflowError):
        return False
    try:
        state = Path(f"/proc/{int(fields['pid'])}/stat").read_text(errors="replace")
    except OSError:  # a system without /proc
        return True
    return state.rpartition(")")[2].split()[0] not in "ZX"


def _complaint(text: str) -> str:
    """What Snakemake says from its first error on."""
    lines = [line for line in text.splitlines() if line.strip() and '  File "' not in line]
    first = next((n for n, line in enumerate(lines) if re.search(r"Error|Exception", line)), 0)
    return "\n".join(f"  {line}" for line in lines[first:][:40])
