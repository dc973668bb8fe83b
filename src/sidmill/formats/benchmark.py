"""What Snakemake writes of a job's time and memory: a TSV with ``s`` and ``max_rss`` in MiB.

https://snakemake.readthedocs.io/en/stable/tutorial/additional_features.html#benchmarking
"""

import csv
from pathlib import Path
from typing import NamedTuple

from sidmill.core.errors import SidmillError


class Benchmark(NamedTuple):
    """Wall seconds, and peak resident MiB or None where the job was too short to tell."""

    seconds: float
    peak_mib: float | None


def read(path: str | Path) -> Benchmark:
    """Read the first run of a benchmark file.

    Raises:
        SidmillError: if the file is missing or of another form.
    """
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            row = next(csv.DictReader(file, delimiter="\t"))
        return Benchmark(float(row["s"]), _number(row["max_rss"]))
    except FileNotFoundError:
        raise SidmillError(f"{path}: no such file") from None
    except (StopIteration, KeyError, ValueError, TypeError):
        raise SidmillError(f"{path}: no benchmark of Snakemake: run its rule again") from None


def _number(text: str) -> float | None:
    return None if text in ("-", "NA", "") else float(text)
