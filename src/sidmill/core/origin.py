"""Whose results a folder holds, so that no run replaces those of others.

A forgotten overlay does not replace the results of a catalogue by the demo. And a file that lies
where a run writes, though no run made it, is its owner's: Snakemake would delete it in silence.
Snakemake records what it made; what a run left without a record, since it was killed, is told from
files that users put there by a list of what that run was about to make.
"""

import json
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path

from sidmill.core.atomic import write_text
from sidmill.core.errors import SidmillError

NAME = "sidmill.catalogue"  # in Snakemake's folder of state
MAKING = "sidmill.making"  # the same: outputs of runs that did not end by themselves
SHOWN = 20  # names in a message
SID_FILES = ("pid2sid.parquet", "codes.parquet", "index.json")
DEMO = "results/demo/items.jsonl"


def note(state: Path, catalogue: str) -> None:
    """Write down which catalogue the results beside ``state`` are made from."""
    write_text(state / NAME, catalogue)


def refuse_demo(state: Path, catalogue: str) -> None:
    """Stop a run of the demo over the results of another catalogue.

    Args:
        state: Snakemake's folder of state, ``.snakemake``.
        catalogue: ``items.path`` of this run.

    Raises:
        SidmillError: if that is the demo's and ``results/`` has items of another one.
    """
    record, made = state / NAME, state.absolute().parent / "results/items/text.parquet"
    if catalogue != DEMO or not record.exists() or not made.exists():
        return
    before = record.read_text(encoding="utf-8")
    if before != DEMO:
        raise SidmillError(
            f"results/ is made from {before}, and the demo would take its place: give the "
            "--configfile of that run again; or make the demo in another folder, with --directory"
        )


def begin(state: Path, outputs: Iterable[str], recorded: Callable[[str], bool]) -> None:
    """Stop where a run would write over files that no run made; else note what it will make.

    Args:
        state: Snakemake's folder of state, ``.snakemake``.
        outputs: paths that the run is going to make.
        recorded: whether Snakemake has a record of making a path.

    Raises:
        SidmillError: naming such files, and what to do with them.
    """
    outputs, left = set(outputs), _making(state)
    foreign = sorted(
        path
        for path in outputs - left
        if (Path(path).exists() or Path(path).is_symlink()) and not recorded(path)
    )
    if foreign:
        raise SidmillError(_foreign(foreign))
    write_text(state / MAKING, json.dumps(sorted(outputs | left)))


def end(state: Path, recorded: Callable[[str], bool]) -> None:
    """Note what a run left without a record, as it ends by itself.

    Args:
        state: Snakemake's folder of state, ``.snakemake``.
        recorded: whether Snakemake has a record of making a path.
    """
    left = [path for path in sorted(_making(state)) if Path(path).exists() and not recorded(path)]
    write_text(state / MAKING, json.dumps(left))


def _making(state: Path) -> set[str]:
    try:
        return set(json.loads((state / MAKING).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return set()


def _foreign(paths: list[str]) -> str:
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    sids = next((path for path in paths if path.endswith(SID_FILES)), None)
    first = sids or paths[0]
    target = f"given/{Path(first).name}"
    remedy = f"move them, for instance: mkdir -p given && mv {shlex.quote(first)} given/"
    if sids:
        remedy += (
            f". To work with the SIDs of this file, set quantizer: given and given.path: {target} "
            f"(docs/given-sids.md)"
        )
    return (
        f"{', '.join(paths[:SHOWN])}{more}: this run would write there, and no run in this folder "
        f"has made what is there: nothing is overwritten; {remedy}"
    )
