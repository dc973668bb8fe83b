"""Every figure of a training: a CSV always, TensorBoard or Weights & Biases if wanted.

The CSV has one row per epoch; figures that are measured every ``eval_step`` epochs are empty in
between. A training that goes on after a kill writes no row twice.
"""

import csv
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sidmill.core.atomic import replacing
from sidmill.core.errors import SidmillError
from sidmill.quantize.rqvae.training import FIGURES

METRICS = "metrics.csv"

# Takes the rows of some epochs: column -> value.
Log = Callable[[list[dict]], None]


def columns(n_levels: int) -> list[str]:
    """Columns of metrics.csv."""
    measured = ["heldout_mse", "heldout_relative", "collision_rate"]
    levels = [f"utilisation_{level + 1}" for level in range(n_levels)]
    return ["epoch", "lr", *FIGURES, "restarted", *measured, *levels]


def publish(folder: str | Path, path: str | Path) -> None:
    """Copy the metrics.csv of a finished training to where the pipeline keeps it."""
    with replacing(path) as temporary:
        shutil.copyfile(Path(folder, METRICS), temporary)


@contextmanager
def opened(folder: Path, n_levels: int, done: int, tracking: str, settings: dict) -> Iterator[Log]:
    """Give the function that logs; rows of epochs after ``done`` are removed first.

    Args:
        folder: metrics.csv goes here, and what the trackers keep.
        n_levels: L.
        done: epochs that stay.
        tracking: ``none``, ``tensorboard`` or ``wandb``.
        settings: of the training, for the trackers.

    Raises:
        SidmillError: if the tracker is not installed.
    """
    path, names = folder / METRICS, columns(n_levels)
    _cut(path, names, done)
    with _tracker(folder, tracking, done, settings) as track:

        def log(rows: list[dict]) -> None:
            with path.open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, names, restval="", lineterminator="\n").writerows(rows)
            for row in rows:
                track(row)

        yield log


def _cut(path: Path, names: list[str], done: int) -> None:
    kept = []
    if done and path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            kept = [row for row in csv.DictReader(file) if row.get("epoch", "").isdigit()]
        kept = [row for row in kept if int(row["epoch"]) <= done and None not in row.values()]
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)


@contextmanager
def _tracker(
    folder: Path, tracking: str, done: int, settings: dict
) -> Iterator[Callable[[dict], None]]:
    if tracking == "tensorboard":
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise SidmillError(_missing("tensorboard")) from None
        with SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1) as writer:
            yield lambda row: [
                writer.add_scalar(name, value, row["epoch"])
                for name, value in row.items()
                if name != "epoch"
            ]
    elif tracking == "wandb":
        try:
            import wandb
        except ImportError:
            raise SidmillError(_missing("wandb")) from None
        project = os.environ.get("WANDB_PROJECT", "sidmill")
        with wandb.init(project=project, dir=str(folder), config=settings) as run:
            yield lambda row: run.log(row, step=row["epoch"])
    else:
        yield lambda row: None


def _missing(name: str) -> str:
    return f"rqvae.tracking is {name}, which is not installed: pip install {name}, or set none"
