"""Runs side by side: what each was made with, how good its SIDs are, what it took.

A run is a folder of results, or a version that ``sidmill publish`` made. A folder of results also
has a history: ``run.json`` describes the latest run, and each run has a line in ``runs.jsonl``.
"""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, StrictUndefined

from sidmill.core.atomic import write_text
from sidmill.core.errors import SidmillError
from sidmill.io import json_report

HISTORY = "runs.jsonl"
REMEDY = "delete the file: the next snakemake results/run.json begins a new one"
MARKS = ("run.json", "quality.json", "pid2sid.parquet", "manifest.json")  # one of them: a run
CODES = ("collision rate, quantized", "collision rate", "relative error")  # lower is better
CUTOFFS = ("HR@10", "NDCG@10")
SPLITS = ("valid", "test")
KEPT = 200  # lines of runs.jsonl


class Figure(NamedTuple):
    """A figure of a run; ``low`` and ``high`` are its 95 % interval, None where it has none."""

    value: float
    low: float | None = None
    high: float | None = None


class Run(NamedTuple):
    """One run.

    Attributes:
        folder: of its files; earlier runs of a folder have the folder of the latest.
        written: when run.json was written, ISO 8601 in UTC; None without a run.json.
        commit: of the workflow, its first 12 digits, ``+`` behind it if files differed from it.
        seconds: of all jobs, as run.json counts them.
        items: with a SID.
        figures: by name, in the order of the table.
        settings: by ``section.name``.
    """

    folder: str
    written: str | None
    commit: str | None
    seconds: float | None
    items: int | None
    figures: dict[str, Figure]
    settings: dict[str, Any]


def describe(folder: str | Path) -> Run:
    """Read what a folder of results, or a published version, says of itself.

    Files that are missing are left out: a run may have neither run.json nor a recommender.

    Raises:
        SidmillError: if the folder is no run, or a file of it is damaged.
    """
    # One of the files that make a folder a run; each of them may be missing.
    folder = Path(folder)
    if not _is_run(folder):
        raise SidmillError(
            f"{folder}: no run: wanted a folder of results or a published version, with one of "
            f"{', '.join(MARKS)}"
        )
    run = _read(folder / "run.json")
    version = _read(folder / "manifest.json")
    quality = _read(folder / "quality.json")
    settings = _flat(run.get("settings") or {})

    # Figures of other programs' files may have other names.
    try:
        figures = _figures(folder, quality)
    except (KeyError, TypeError, AttributeError) as error:
        raise SidmillError(
            f"{folder}: quality.json or a metrics.json has another form ({error!r}): sidmill check "
            f"{folder} names the file; delete it, and run snakemake again"
        ) from None
    return Run(
        folder=str(folder),
        written=run.get("written"),
        commit=_short(run.get("git")),
        seconds=run.get("seconds"),
        items=quality.get("items") or version.get("items"),
        figures=figures,
        settings=settings,
    )


def find(folders: Iterable[str | Path]) -> list[Path]:
    """List the runs in folders: the folder itself if it is one, else the runs directly in it.

    Raises:
        SidmillError: if a folder is none and has none.
    """
    found: list[Path] = []
    for folder in map(Path, folders):
        if _is_run(folder):
            found.append(folder)
            continue
        inside = sorted(folder.iterdir(), key=_in_numbers) if folder.is_dir() else []
        runs = [path for path in inside if not path.name.startswith(".") and _is_run(path)]
        if not runs:
            raise SidmillError(
                f"{folder}: neither a run nor a folder of runs: name a folder of results, or of "
                f"versions that sidmill publish made"
            )
        found += runs
    return found


def remember(folder: str | Path, path: str | Path) -> list[Run]:
    """Add the run that a folder of results describes to its history.

    A run with the settings, the commit and the figures of the latest line replaces that line: it
    was described again. The newest 200 lines are kept.

    Args:
        folder: of the results, with run.json.
        path: runs.jsonl, which may not exist yet.

    Returns:
        All runs of the history, the latest last.
    """
    latest = describe(folder)
    runs = history(path) if Path(path).is_file() else []
    if runs and _identity(runs[-1]) == _identity(latest):
        runs.pop()
    runs = [*runs, latest][-KEPT:]
    write_text(path, "".join(json.dumps(as_json(run), ensure_ascii=False) + "\n" for run in runs))
    return runs


def history(path: str | Path) -> list[Run]:
    """Read runs.jsonl, the latest run last.

    Raises:
        SidmillError: if a line is not a run.
    """
    runs = []
    lines = Path(path).read_bytes().splitlines()  # of a str it would also cut at U+2028 in settings
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line.decode("utf-8"))
            figures = {name: Figure(**figure) for name, figure in entry["figures"].items()}
            runs.append(Run(**{**entry, "figures": figures}))
        except (ValueError, TypeError, KeyError, AttributeError):
            raise SidmillError(f"{path}: line {number} is not a run: {REMEDY}") from None
    return runs


def of_folder(folder: str | Path, last: int) -> list[Run]:
    """List the latest runs of a folder, the latest last.

    The history is used where there is one; results that were changed since its last line add one
    more run.
    """
    latest = describe(folder)
    path = Path(folder, HISTORY)
    runs = history(path) if path.is_file() else []
    if runs and _identity(runs[-1]) == _identity(latest):
        runs.pop()
    return [*(run._replace(folder=str(folder)) for run in runs), latest][-last:]


def differing(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """List the settings that are not the same in all runs that state settings.

    Returns:
        By ``section.name`` the value of each run; None for a run that does not have it.
    """
    stated = [run for run in runs if run.settings]
    names = sorted({name for run in stated for name in run.settings})
    return {
        name: [run.settings.get(name) for run in runs]
        for name in names
        if len({json.dumps(run.settings.get(name), sort_keys=True) for run in stated}) > 1
    }


def as_json(run: Run) -> dict[str, Any]:
    """A run as JSON."""
    figures = {name: figure._asdict() for name, figure in run.figures.items()}
    return {**run._asdict(), "figures": figures}


def write_page(
    path: str | Path, template: str | Path, runs: Sequence[Run], *, title: str, last: int
) -> None:
    """Write the page that compares the latest runs, atomically; it needs no network.

    Args:
        path: the page.
        template: Jinja template of the page.
        runs: the latest last.
        title: heading.
        last: number of runs shown, the latest first.
    """
    shown = list(runs)[-last:]
    before = [*([None] if len(shown) == len(runs) else [runs[-last - 1]]), *shown[:-1]]
    rows = [
        {"run": run, "changed": _changed(previous, run)}
        for previous, run in zip(before, shown, strict=True)
    ]
    names = figure_names(shown)
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    page = environment.from_string(Path(template).read_text(encoding="utf-8")).render(
        title=title, rows=rows[::-1], names=names, total=len(runs), best=_best(shown, names)
    )
    write_text(path, page)


def figure_names(runs: Sequence[Run]) -> list[str]:
    """Names of the figures that some run has: those of the codes, then those of recommenders."""
    names = dict.fromkeys(name for run in runs for name in run.figures)
    return [
        *(name for name in CODES if name in names),
        *(name for name in names if name not in CODES),
    ]


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in MARKS)


def _figures(folder: Path, quality: dict[str, Any]) -> dict[str, Figure]:
    """Figures of the codes, then of each recommender: valid, by which one chooses, before test."""
    figures: dict[str, Figure] = {}
    if quality:
        before, after = quality["before"], quality["after"]
        values = (before["collision_rate"], after["collision_rate"], before.get("relative_loss"))
        figures = {
            name: Figure(value)
            for name, value in zip(CODES, values, strict=True)
            if value is not None
        }

    # The recommender over items, then a generative one for each quantizer.
    own = [("recommender", "recommender", folder / "recommender/metrics.json")]
    for path in sorted(folder.glob("generative/**/metrics.json")):
        quantizer = path.parent.relative_to(folder / "generative").as_posix()
        own.append((f"generative {quantizer}", "generative", path))
    for label, method, path in own:
        metrics = _read(path)
        for split in SPLITS:
            measured = metrics.get(split, {}).get("methods", {}).get(method, {})
            for cutoff in CUTOFFS:
                if cutoff in measured:
                    figures[f"{label}, {cutoff} {split}"] = Figure(**measured[cutoff])
    return figures


def _in_numbers(path: Path) -> list[tuple[bool, int, str]]:
    """Sort key of a folder: versions/9 comes before versions/10."""
    parts = re.split(r"([0-9]+)", path.name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def _read(path: Path) -> dict[str, Any]:
    return json_report.read(path) if path.is_file() else {}


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """``section.name`` of each setting; a value that is no section has its own name."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": entry for inner, entry in value.items()}
        else:
            flat[name] = value
    return flat


def _short(git: dict[str, Any] | None) -> str | None:
    return git["commit"][:12] + ("+" if git["dirty"] else "") if git else None


def _identity(run: Run) -> str:
    """What tells two runs of one folder apart: not when or how long."""
    kept = {**as_json(run), "folder": None, "written": None, "seconds": None}
    return json.dumps(kept, sort_keys=True)


def _changed(previous: Run | None, run: Run) -> list[tuple[str, str, str]]:
    """Settings that differ from the run before: name, old and new value as JSON."""
    if previous is None:
        return []
    return [
        (name, json.dumps(old, ensure_ascii=False), json.dumps(new, ensure_ascii=False))
        for name, (old, new) in differing([previous, run]).items()
    ]


def _best(runs: Sequence[Run], names: Sequence[str]) -> dict[str, float | None]:
    """The best value of each figure; None if all runs have the same."""
    best: dict[str, float | None] = {}
    for name in names:
        values = [run.figures[name].value for run in runs if name in run.figures]
        best[name] = None
        if len(set(values)) > 1:
            best[name] = min(values) if name in CODES else max(values)
    return best
