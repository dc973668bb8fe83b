"""Protect results and files of the user from a run in the same folder.

A run without its overlay must not replace the results of a catalogue by those of the demo. A run
must not replace a file that the user put where the run writes: Snakemake would delete it without a
message. Snakemake records the files that it made. A killed run leaves files without a record: a
list of the outputs that it began with tells these from files of the user. For files of SIDs, which
users bring most often, a digest tells a user's file from one that a run made.
"""

import json
import shlex
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path
from typing import Any

from sidmill.core import checksums
from sidmill.core.atomic import write_text
from sidmill.core.errors import SidmillError

# Files in Snakemake's folder of state.
NAME = "sidmill.catalogue"  # the catalogue of the results
MAKING = "sidmill.making"  # outputs of runs that were killed
DIGESTS = "sidmill.sids"  # SHA-256 of the files of SIDs that runs made
_begun: set[Path] = set()  # folders of state in which this process began a run
SHOWN = 20  # names in a message
SID_FILES = ("pid2sid.parquet", "codes.parquet", "index.json")
DEMO = "results/demo/items.jsonl"


def note(state: Path, catalogue: str) -> None:
    """Record the catalogue that the results in the folder of ``state`` are made from."""
    write_text(state / NAME, catalogue)


def refuse_demo(state: Path, catalogue: str) -> None:
    """Stop a run of the demo over the results of another catalogue.

    Args:
        state: Snakemake's folder of state, ``.snakemake``.
        catalogue: ``items.path`` of this run.

    Raises:
        SidmillError: if it is the demo's and ``results/`` has items of another catalogue.
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
    """Stop a run that would write over files that no run made; else record its outputs.

    Args:
        state: Snakemake's folder of state, ``.snakemake``.
        outputs: paths that the run will make.
        recorded: whether Snakemake has a record of making a path.

    Raises:
        SidmillError: naming these files, and what to do with them.
    """
    planned, unfinished = set(outputs), set(_read_paths(state))
    digests = _read_digests(state)

    def is_foreign(path: str) -> bool:
        if not Path(path).exists():
            return Path(path).is_symlink()
        is_replaced = path in digests and checksums.of_file(path) != digests[path]
        return not recorded(path) or is_replaced

    foreign = sorted(path for path in planned - unfinished if is_foreign(path))
    if foreign:
        raise SidmillError(_foreign(foreign))
    write_text(state / MAKING, json.dumps(sorted(planned | unfinished)))
    _begun.add(state.absolute())


def end(state: Path, recorded: Callable[[str], bool]) -> None:
    """Record what a run made, and what it left without a record of Snakemake, when it ends.

    A run that was refused at its start records nothing: another run may be at work.

    Args:
        state: Snakemake's folder of state, ``.snakemake``.
        recorded: whether Snakemake has a record of making a path.
    """
    if state.absolute() not in _begun:
        return
    present = [path for path in _read_paths(state) if Path(path).exists()]
    made = [path for path in present if recorded(path) and path.endswith(SID_FILES)]
    digests = _read_digests(state)
    digests |= {path: checksums.of_file(path) for path in made if Path(path).is_file()}
    write_text(state / DIGESTS, json.dumps(digests, indent=0, sort_keys=True))
    write_text(state / MAKING, json.dumps([path for path in present if not recorded(path)]))


def _read_paths(state: Path) -> list[str]:
    """Outputs of runs that were killed; none where no list can be read."""
    paths = _read(state / MAKING)
    return paths if isinstance(paths, list) else []


def _read_digests(state: Path) -> dict[str, str]:
    """SHA-256 of the files of SIDs that runs made; none where no list can be read."""
    digests = _read(state / DIGESTS)
    return digests if isinstance(digests, dict) else {}


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _foreign(paths: list[str]) -> str:
    """The message about files that no run made, with a command that moves one of them away."""
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    sids = next((path for path in paths if path.endswith(SID_FILES)), None)
    first = sids or paths[0]

    # A folder in which no file of that name exists.
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
