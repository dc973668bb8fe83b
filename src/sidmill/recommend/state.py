"""Saved state of an unfinished training: weights, moments of the optimiser, best weights, progress.

The file lies beside the checkpoint until that is written. It names the training that it belongs to;
the state of another training, or a damaged file, is not used.
"""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from sidmill.core.errors import SidmillError
from sidmill.io import tensors
from sidmill.recommend import checkpoint
from sidmill.recommend.adamw import Optimizer

logger = logging.getLogger(__name__)

MODEL, BEST, MOMENTS = "model.", "best.", "optimizer."

# What is reported of an epoch: its number, the mean loss, NDCG@10 on the validation items.
Epoch = dict[str, float | None]


class Progress(NamedTuple):
    """How far a training is, all of it JSON.

    Attributes:
        epoch: the current one.
        step: finished batches of it.
        total_steps: finished batches of all epochs.
        loss: sum over the targets of the epoch.
        targets: number of these targets.
        best: the highest valid NDCG@10 so far; -1 before the first.
        best_epoch: the epoch that reached it.
        curve: one entry per finished epoch.
    """

    epoch: int = 0
    step: int = 0
    total_steps: int = 0
    loss: float = 0.0
    targets: int = 0
    best: float = -1.0
    best_epoch: int = -1
    curve: tuple[Epoch, ...] = ()


class State(NamedTuple):
    """Path of the saved state, and the identity of its training; without a path none is saved."""

    path: str | Path | None
    training: dict[str, Any]


def save(
    state: State,
    model: nn.Module,
    optimizer: Optimizer,
    best: dict[str, np.ndarray],
    progress: Progress,
) -> None:
    """Save the state of a recommender's unfinished training, atomically."""
    if state.path is None:
        return
    moments = {
        f"{MOMENTS}{number}.{name}": value.cpu().numpy()
        for number, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }
    arrays = checkpoint.arrays_of(model, MODEL) | best | moments
    tensors.write(state.path, arrays, {"training": state.training, **progress._asdict()})


def restore(
    state: State, model: nn.Module, optimizer: Optimizer
) -> tuple[dict[str, np.ndarray], Progress]:
    """Restore a saved state of a recommender's training into the model and the optimiser.

    Returns:
        The best weights so far, and the progress; no weights and the start of a training where no
        state of this training is saved.
    """
    # A state that is missing, damaged, or of another training is no error: training starts over.
    if state.path is None or not Path(state.path).exists():
        return {}, Progress()
    try:
        arrays, facts = tensors.read(state.path, "state of a training")
    except SidmillError as error:
        logger.warning("%s; training starts from the beginning", error)
        return {}, Progress()
    if facts.pop("training", None) != state.training:
        logger.info(
            "%s belongs to another training: this one starts from the beginning", state.path
        )
        return {}, Progress()

    checkpoint.fill(model, arrays, MODEL)
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in arrays.items():
        if name.startswith(MOMENTS):
            number, _, field = name.removeprefix(MOMENTS).partition(".")
            moments.setdefault(int(number), {})[field] = torch.from_numpy(value)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})

    progress = Progress(**{**facts, "curve": tuple(facts["curve"])})
    logger.info("resuming at epoch %d, step %d", progress.epoch, progress.step)
    best = {name: value for name, value in arrays.items() if name.startswith(BEST)}
    return best, progress


def discard(path: str | Path) -> None:
    """Remove the state of a training whose result is written."""
    Path(path).unlink(missing_ok=True)
