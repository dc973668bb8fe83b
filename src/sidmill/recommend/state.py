"""What an unfinished training keeps: weights, the optimiser's moments, the best so far, progress.

The file lies beside the checkpoint until that is written. It names the training it belongs to;
the state of another one, or a damaged file, is not used.
"""

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from sidmill.core.errors import SidmillError
from sidmill.io import tensors
from sidmill.recommend import checkpoint, sequence_model

logger = logging.getLogger(__name__)

MODEL, BEST, MOMENTS = "model.", "best.", "optimizer."


class Progress(NamedTuple):
    """Where a training stands, all of it JSON.

    Attributes:
        epoch: the one at hand.
        step: batches of it that are done.
        total_steps: batches done in all.
        loss: sum over the targets of the epoch, and ``targets`` their number.
        best: the highest valid NDCG@10 so far; -1 before the first.
        best_epoch: where it was reached.
        curve: one entry per finished epoch.
    """

    epoch: int = 0
    step: int = 0
    total_steps: int = 0
    loss: float = 0.0
    targets: int = 0
    best: float = -1.0
    best_epoch: int = -1
    curve: tuple[dict, ...] = ()


class State(NamedTuple):
    """Where the state lies, and the training it belongs to; no path keeps nothing."""

    path: str | Path | None
    training: dict


def save(
    state: State,
    network: sequence_model.Recommender,
    optimizer: torch.optim.Optimizer,
    best: dict[str, np.ndarray],
    progress: Progress,
) -> None:
    """Keep everything, atomically."""
    if state.path is None:
        return
    moments = {
        f"{MOMENTS}{number}.{name}": value.cpu().numpy()
        for number, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }
    arrays = checkpoint.arrays_of(network, MODEL) | best | moments
    tensors.write(state.path, arrays, {"training": state.training, **progress._asdict()})


def restore(
    state: State, network: sequence_model.Recommender, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, np.ndarray], Progress]:
    """Put what was kept into the network and the optimiser.

    Returns:
        The best weights so far, and the progress; nothing and a fresh start where nothing was kept.
    """
    if state.path is None or not Path(state.path).exists():
        return {}, Progress()
    try:
        arrays, facts = tensors.read(state.path, "state of a training")
    except SidmillError as error:
        logger.warning("%s; training starts anew", error)
        return {}, Progress()
    if facts.pop("training", None) != state.training:
        logger.info("%s belongs to another training; this one starts anew", state.path)
        return {}, Progress()
    checkpoint.fill(network, arrays, MODEL)
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in arrays.items():
        if name.startswith(MOMENTS):
            number, _, field = name.removeprefix(MOMENTS).partition(".")
            moments.setdefault(int(number), {})[field] = torch.from_numpy(value)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    progress = Progress(**{**facts, "curve": tuple(facts["curve"])})
    logger.info("going on at epoch %d, step %d", progress.epoch, progress.step)
    best = {name: value for name, value in arrays.items() if name.startswith(BEST)}
    return best, progress


def discard(path: str | Path) -> None:
    """Remove the state of a training whose result is written."""
    Path(path).unlink(missing_ok=True)
