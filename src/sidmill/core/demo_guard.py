"""Whose results a folder holds, so that no run replaces those of others.

A forgotten overlay does not replace the results of a catalogue by the demo. And a file that lies
where a run writes, though no run made it, is its owner's: Snakemake would delete it in silence.
Snakemake records what it made; what a run left without a record, since it was killed, is told from
files that users put there by a list of what that run was about to make. Of files of SIDs, which
users bring most, a digest is kept as well: it tells another file from the one that a run made.
"""

import json
import shlex
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path

from sidmill.core import checksums
from sidmill.core.atomic import write_text
from sidmill.core.errors import SidmillError

NAME = "sidmill.catalogue"  # in Snakemake's folder of state
MAKING = "sidmill.making"  # the same: outputs of runs that did not end by themselves
DIGESTS = "sidmill.sids"  # the same: SHA-256 of the files of SIDs that runs made
_begun: set[Path] = set()  # folders of state in which this process began a run
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
            "--configfile of that run again; or make the demo in another folder: --directory NAME"
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
    outputs, left = set(outputs), set(_read(state / MAKING, []))
    sums = _read(state / DIGESTS, {})

    def is_foreign(path: str) -> bool:
        if not Path(path).exists():
            return Path(path).is_symlink()
        return not recorded(path) or (path in sums and checksums.of_file(path) != sums[path])

    foreign = sorted(path for path in outputs - left if is_foreign(path))
    if foreign:
        raise SidmillError(_foreign(foreign))
    write_text(state / MAKING, json.dumps(sorted(outputs | left)))
    _begun.add(state.absolute())


def end(state: Path, recorded: Callable[[str], bool]) -> None:
    """Note what a run left without a record, and what it made, as it ends by itself.

    A run that was refused as it began notes nothing: another one may be at work.

    Args:
        state: Snakemake's folder of state, ``.snakemake``.
        recorded: whether Snakemake has a record of making a path.
    """
    if state.absolute() not in _begun:
        return
    there = [path for path in _read(state / MAKING, []) if Path(path).exists()]
    sums = _read(state / DIGESTS, {})
    made = [path for path in there if recorded(path) and path.endswith(SID_FILES)]
    sums |= {path: checksums.of_file(path) for path in made if Path(path).is_file()}
    write_text(state / DIGESTS, json.dumps(sums, indent=0, sort_keys=True))
    write_text(state / MAKING, json.dumps([path for path in there if not recorded(path)]))


def _read(path: Path, otherwise: list | dict) -> list | dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return otherwise


def _foreign(paths: list[str]) -> str:
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    sids = next((path for path in paths if path.endswith(SID_FILES)), None)
    first = sids or paths[0]
    folders = (f"given-{number}" if number > 1 else "given" for number in count(1))
    folder = next(name for name in folders if not Path(name, Path(first).name).exists())
    target = f"{folder}/{Path(first).name}"
    remedy = f"move them, for instance: mkdir -p {folder} && mv {shlex.quote(first)} {folder}/"
    if sids:
        remedy += (
            f". To work with the SIDs of this file, set quantizer: given and given.path: {target} "
            f"(docs/given-sids.md)"
        )
    return (
        f"{', '.join(paths[:SHOWN])}{more}: this run would write there, and no run in this folder "
        f"has made what is there now: nothing is overwritten; {remedy}"
    )
