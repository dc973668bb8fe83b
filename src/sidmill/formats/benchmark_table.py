"""What Snakemake writes of a job's time and memory: a TSV with ``s`` and ``max_rss`` in MiB.

https://snakemake.readthedocs.io/en/stable/tutorial/additional_features.html#benchmarking
"""

import csv
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from sidmill.core.errors import SidmillError


class Benchmark(NamedTuple):
    """Wall seconds, peak resident MiB, CPU seconds: None where none ran or it was too short."""

    seconds: float | None
    peak_mib: float | None
    cpu_seconds: float | None = None


class RuleTime(NamedTuple):
    """What the jobs of one rule took, each in its last run.

    Attributes:
        rule: its name.
        what: its wildcards but for the shard, as file names have them; empty without any.
        jobs: how many; shards are one job each.
        seconds: of all jobs together.
        peak_mib: of the largest; None where all were too short to tell.
        ended: when the last of them ended, UTC.
    """

    rule: str
    what: str
    jobs: int
    seconds: float
    peak_mib: float | None
    ended: str


# {rule}.tsv, {rule}.{what}.tsv, {rule}.{what}.{shard}-of-{shards}.tsv
NAME = re.compile(r"(\w+?)(?:\.(?!\d{5}-of-)(.+?))?(?:\.\d{5}-of-(\d{5}))?")


def gather(folder: str | Path, left_out: tuple[str, ...] = ()) -> list[RuleTime]:
    """Sum up the benchmark files of a folder by rule and wildcards, in the order they ended.

    Of shards, the number that ran last counts: files of another number are left from before.

    Args:
        folder: of the .tsv files.
        left_out: rules to pass over.

    Raises:
        SidmillError: if a file is of another form.
    """
    jobs: dict[tuple[str, str], dict[str, list[Path]]] = {}
    for path in sorted(Path(folder).glob("*.tsv")):
        rule, what, shards = _parts(path.stem)
        if rule not in left_out:
            jobs.setdefault((rule, what), {}).setdefault(shards, []).append(path)
    ended_times = []
    for (rule, what), sets in jobs.items():
        ended, files = max((max(map(_ended, files)), files) for files in sets.values())
        times = [read(path) for path in files]
        peaks = [time.peak_mib for time in times if time.peak_mib is not None]
        stamp = datetime.fromtimestamp(ended, UTC).isoformat(timespec="seconds")
        seconds = round(sum(time.seconds or 0.0 for time in times), 4)
        peak = max(peaks, default=None)
        ended_times.append((ended, RuleTime(rule, what, len(times), seconds, peak, stamp)))
    return [time for _, time in sorted(ended_times)]


def read(path: str | Path) -> Benchmark:
    """Read the first run of a benchmark file.

    Raises:
        SidmillError: if the file is missing or of another form.
    """
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            row = next(csv.DictReader(file, delimiter="\t"))
        return Benchmark(
            float(row["s"]), _number(row["max_rss"]), _number(row.get("cpu_time") or "")
        )
    except FileNotFoundError:
        raise SidmillError(f"{path}: no such file") from None
    except (StopIteration, KeyError, ValueError, TypeError):
        raise SidmillError(f"{path}: no benchmark of Snakemake: run its rule again") from None


def _parts(stem: str) -> tuple[str, str, str]:
    match = NAME.fullmatch(stem)
    return (match[1], match[2] or "", match[3] or "") if match else (stem, "", "")


def _ended(path: Path) -> float:
    return path.stat().st_mtime


def _number(text: str) -> float | None:
    return None if text in ("-", "NA", "") else float(text)
