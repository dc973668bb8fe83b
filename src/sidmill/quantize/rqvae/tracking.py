"""Every figure of a training: always a CSV, with ``rqvae.tracking`` also in a tracker.

The CSV has one row per epoch; figures that are measured every ``eval_step`` epochs are empty in
between. A training that resumes after a kill writes no row twice.
"""

import csv
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sidmill.core.atomic import replacing
from sidmill.core.errors import SidmillError
from sidmill.quantize.rqvae.train import FIGURES

METRICS = "metrics.csv"

Row = dict[str, float]  # figures of an epoch by column
Log = Callable[[list[Row]], None]  # takes the rows of some epochs


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
def opened(
    folder: Path, n_levels: int, done: int, tracking: str, settings: Mapping[str, Any]
) -> Iterator[Log]:
    """Give the function that logs figures of an RQ-VAE; rows of epochs after ``done`` go first.

    Args:
        folder: of metrics.csv and of the tracker's files.
        n_levels: L.
        done: epochs that stay.
        tracking: ``none``, ``tensorboard`` or ``wandb``.
        settings: of the training, for the tracker.

    Raises:
        SidmillError: if the tracker is not installed.
    """
    path, names = folder / METRICS, columns(n_levels)
    _cut(path, names, done)
    with _tracker(folder, tracking, done, settings) as track:

        def log(rows: list[Row]) -> None:
            with path.open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, names, restval="", lineterminator="\n").writerows(rows)
            for row in rows:
                track(row)

        yield log


def _cut(path: Path, names: list[str], done: int) -> None:
    """Write metrics.csv with its header and the rows of the first ``done`` epochs alone."""
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
    folder: Path, tracking: str, done: int, settings: Mapping[str, Any]
) -> Iterator[Callable[[Row], None]]:
    """Give the function that takes one row: of TensorBoard, of wandb, or one that does nothing."""
    # optional packages are imported where they are asked for
    if tracking == "tensorboard":
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise SidmillError(_missing("tensorboard")) from None
        with SummaryWriter(str(folder / "tensorboard"), purge_step=done + 1) as writer:

            def write_scalars(row: Row) -> None:
                for name, value in row.items():
                    if name != "epoch":
                        writer.add_scalar(name, value, row["epoch"])

            yield write_scalars

    elif tracking == "wandb":
        try:
            import wandb
        except ImportError:
            raise SidmillError(_missing("wandb")) from None
        project = os.environ.get("WANDB_PROJECT", "sidmill")
        with wandb.init(project=project, dir=str(folder), config=dict(settings)) as run:
            yield lambda row: run.log(row, step=int(row["epoch"]))

    else:
        yield lambda row: None


def _missing(name: str) -> str:
    return f"rqvae.tracking is {name}, which is not installed: pip install {name}, or set none"
