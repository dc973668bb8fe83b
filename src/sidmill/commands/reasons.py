"""The reasons of a dry run, parsed from Snakemake's own sentences.

Snakemake's logging interface gives the reason of a job as one English sentence, in the words of
``snakemake.jobs.Reason``; there is no documented form for programs. All that depends on these words
stands here. They were seen with the version that tests/unit/test_status.py names; that test fails
with another version until somebody has looked at the sentences again.
"""

import ast
import re
from contextlib import suppress
from typing import Any

from sidmill.core.listing import some

CODE, TASK = "code", "task"  # parameters that name what stands in files of the workflow
SHOWN_FILES = 2
PARAMS = "Params have changed since last execution"
REASONS = {
    "Missing output files": "missing",
    "Incomplete output files": "incomplete",
    "Updated input files": "input",
    "Input files updated by another job": "upstream",
    "Set of input files has changed since last execution": "input set",
    "Code has changed since last execution": "code",
    PARAMS: "params",
    "Software environment definition has changed since last execution": "environment",
    "Forced execution": "forced",
}
SPLIT = re.compile(rf"(?:^|; )({'|'.join(map(re.escape, REASONS))})(?:: |(?=; |$))")


def explain(reason: str, makers: dict[str, str]) -> dict[str, str]:
    """Parse a reason of Snakemake: its kinds, each with a short text for the user.

    Args:
        reason: in Snakemake's words.
        makers: the rule that makes a file.
    """
    before, params, rest = reason.partition(f"{PARAMS}: ")  # settings may hold any text
    pieces = SPLIT.split(before.removesuffix("; "))[1:] + ([PARAMS, rest] if params else [])
    parsed = {}
    for name, rest in zip(pieces[::2], pieces[1::2], strict=True):
        kind = REASONS[name]
        files = [path.strip() for path in rest.split(",") if path.strip()]
        parsed[kind] = {
            "missing": "not made yet",
            "incomplete": "a run was killed while it was written",
            "input": f"{name_files(files)} changed",
            "upstream": f"after {name_files(list(dict.fromkeys(makers.get(f, f) for f in files)))}",
            "input set": "other input files than last time",
            "code": "code changed",
            "params": _changed(rest),
            "environment": "conda environment changed",
            "forced": "a run that was forced to remake it ended early",
        }[kind]
    return parsed or {"other": reason}


def name_files(paths: list[str]) -> str:
    """The first files by name, and how many more there are."""
    more = len(paths) - SHOWN_FILES
    return ", ".join(paths[:SHOWN_FILES]) + (f" and {more} more" if more > 0 else "")


def _changed(rest: str) -> str:
    """Which settings are others, or whether the code is: from Snakemake's sets of parameters."""
    before, _, now = rest.partition("before: ")[2].partition(" now: ")
    old, new = (_settings(side) for side in (before, now))
    keys = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
    changes = [
        f"{key} {old.get(key)!r} -> {new.get(key)!r}" for key in keys if key not in (CODE, TASK)
    ]
    changes += ["task or prompts changed"] if TASK in keys else []
    changes += ["code changed"] if CODE in keys else []
    return some(changes) or f"settings changed: {before.strip()} -> {now.strip()}"


def _settings(side: str) -> dict[str, Any]:
    """Keys and values of all dictionaries of a set of parameters."""
    parsed: dict[str, Any] = {}
    for start in (position for position, letter in enumerate(side) if letter == "{"):
        for end in (position for position, letter in enumerate(side) if letter == "}"):
            with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
                one = ast.literal_eval(side[start : end + 1]) if end > start else None
                if isinstance(one, dict):
                    parsed |= one
                    break
    return parsed
