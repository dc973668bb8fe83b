"""Checkpoints: the state that a killed training continues from, and the models worth keeping.

    last.safetensors               model, optimizer, moving averages, and the progress
    epoch-000010.safetensors       the model after epoch 10; the newest ``save_limit`` of them
    best_loss.safetensors          lowest reconstruction error of held-out rows
    best_collision.safetensors     lowest collision rate of those within 2 % of the lowest error
    best_utilisation.safetensors   most codewords in use, at the level where they are fewest
    front-000010.safetensors       candidate for best_collision; removed when another one beats it

``last`` is written after all others, and files that it does not name are removed after that:
whenever a training is killed, every file that ``last`` names exists. Models hold the weights alone.
"""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from sidmill.core.atomic import replacing
from sidmill.core.errors import SidmillError
from sidmill.io import tensors
from sidmill.quantize.rqvae.train import State
from sidmill.settings.quantize import Rqvae

logger = logging.getLogger(__name__)

TOLERATED = 1.02  # times the lowest error: best_collision is chosen among models up to it
MAX_NAMES = 20  # in a message
KINDS = ("best_loss", "best_collision", "best_utilisation")

Figures = dict[str, float]


class Progress(NamedTuple):
    """How far a training is.

    Attributes:
        epoch: epochs done.
        quantizing: whether the codebooks were set: a saved fact, they are never set again.
        best: per kind, the figures of its checkpoint, with their ``epoch``.
        front: figures of the models that no other beats in both error and collision rate, among
            those within 2 % of the lowest error.
        recent: epochs of the newest models.
    """

    epoch: int
    quantizing: bool
    best: dict[str, Figures]
    front: list[Figures]
    recent: list[int]


NOTHING = Progress(0, False, {}, [], [])


def load(
    folder: Path, state: State, identity: dict[str, Any], settings: Rqvae, *, is_first: bool
) -> Progress:
    """Restore ``state`` of an RQ-VAE from an earlier run of the same training.

    Checkpoints of another training, or with a damaged file, are removed. So are those of a training
    that a fresh one of ``settings.epochs`` would not pass through: one that went further, or that
    ended between two measurements.

    Args:
        folder: of the checkpoints.
        state: changed in place.
        identity: names the training.
        settings: of the training.
        is_first: whether this process removes files: the first of all that train.
    """
    # continue only if the checkpoint is whole and one that this training passes
    path = folder / "last.safetensors"
    if path.exists():
        try:
            arrays, facts = tensors.read(path, "checkpoint")
            difference = _difference(facts.pop("identity", None), identity)
            progress = Progress(**facts)
        except (SidmillError, TypeError) as error:
            logger.warning("%s; the training starts from epoch 0", error)
        else:
            obstacle = difference or _obstacle(folder, progress, settings)
            if not obstacle:
                _restore(state, arrays)
                logger.info("continuing after epoch %d", progress.epoch)
                return progress
            logger.info(
                "%s is of another training (%s); this one starts from epoch 0", path, obstacle
            )

    # otherwise nothing of the folder counts
    if is_first:
        _remove_others(folder, set())
    return NOTHING


def save(
    folder: Path,
    state: State,
    progress: Progress,
    figures: Figures | None,
    identity: dict[str, Any],
    save_limit: int,
) -> Progress:
    """Save a checkpoint of an RQ-VAE after ``progress.epoch`` epochs; return the new progress.

    Args:
        folder: of the checkpoints.
        state: of the training.
        progress: before these figures.
        figures: of :func:`sidmill.quantize.rqvae.measure.measure`, or None before the codebooks
            are set.
        identity: names the training.
        save_limit: how many recent models stay.
    """
    # models worth keeping: the best ones, and the newest ones
    if figures is not None:
        levels = [value for name, value in figures.items() if name.startswith("utilisation")]
        now = {
            "epoch": progress.epoch,
            "error": figures["heldout_mse"],
            "collision": figures["collision_rate"],
            "utilisation": min(levels),
        }
        model = _model_arrays(state.model)
        progress = _keep_best(folder, model, progress, now)
        recent = [*progress.recent, progress.epoch]
        if save_limit:
            tensors.write(_epoch_path(folder, "epoch", progress.epoch), model, {"figures": now})
        progress = progress._replace(recent=recent[-save_limit:] if save_limit else [])

    # the state, then the removal of what it does not name
    facts = {"identity": identity, **progress._asdict()}
    tensors.write(folder / "last.safetensors", _state_arrays(state), facts)
    _remove_others(folder, {"last.safetensors", *_named(progress)})
    return progress


def load_chosen(folder: Path, kind: str, model: torch.nn.Module) -> Figures:
    """Load the checkpoint that becomes the quantizer into an RQ-VAE; return its figures.

    Raises:
        SidmillError: if it is damaged; the training has to be repeated.
    """
    path, last = folder / f"{kind}.safetensors", folder / "last.safetensors"
    try:
        arrays, facts = tensors.read(path, "checkpoint")
    except SidmillError:
        raise SidmillError(
            f"{path}: not a readable checkpoint of the finished training (a damaged disk or copy): "
            f"delete {last} and run again, which repeats the training; or choose another "
            f"checkpoint in rqvae.choose"
        ) from None
    _load_model(model, arrays)
    figures: Figures = facts.get("figures", {})
    return figures


def _difference(stored: Any, identity: dict[str, Any]) -> str:
    """Name what two trainings differ in; empty where they are the same."""
    if not isinstance(stored, dict):
        return "it does not state its identity"
    one, other = _flat(stored), _flat(identity)
    names = [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)]
    return f"other {', '.join(names[:MAX_NAMES])}" if names else ""


def _flat(identity: dict[str, Any]) -> dict[str, Any]:
    return {**identity, **(identity.get("settings") or {}), "settings": None}


def _obstacle(folder: Path, progress: Progress, settings: Rqvae) -> str:
    """Say why a fresh training would not pass through this state; empty where it would."""
    epochs = settings.epochs
    if progress.epoch > epochs:
        return f"it has {progress.epoch} epochs, this one {epochs}"
    if progress.epoch < epochs and progress.epoch % settings.eval_step:
        return f"it ended after epoch {progress.epoch}, which {epochs} epochs do not measure"
    missing = sorted(name for name in _named(progress) if not (folder / name).exists())
    return f"{', '.join(missing[:MAX_NAMES])} is missing" if missing else ""


def _named(progress: Progress) -> set[str]:
    """Files that a progress names, except ``last``."""
    names = {f"{kind}.safetensors" for kind in progress.best}
    names |= {_epoch_path(Path(), "epoch", epoch).name for epoch in progress.recent}
    return names | {_epoch_path(Path(), "front", one["epoch"]).name for one in progress.front}


def _keep_best(
    folder: Path, model: dict[str, np.ndarray], progress: Progress, now: Figures
) -> Progress:
    """Write the model wherever it is the best so far; return the new progress."""
    best = dict(progress.best)
    facts = {"figures": now}

    # lowest error, and most codewords in use (then the lower error)
    if "best_loss" not in best or now["error"] < best["best_loss"]["error"]:
        best["best_loss"] = now
        tensors.write(folder / "best_loss.safetensors", model, facts)
    if "best_utilisation" not in best or _usage(now) > _usage(best["best_utilisation"]):
        best["best_utilisation"] = now
        tensors.write(folder / "best_utilisation.safetensors", model, facts)

    # the front: the limit falls with the lowest error, so that any of its models may be chosen yet
    limit = TOLERATED * best["best_loss"]["error"]
    front = [one for one in progress.front if one["error"] <= limit]
    if now["error"] <= limit and not any(_beats(one, now) for one in front):
        front = [one for one in front if not _beats(now, one)] + [now]
        tensors.write(_epoch_path(folder, "front", now["epoch"]), model, facts)

    # fewest collisions on the front
    chosen = min(front, key=lambda one: (one["collision"], one["error"], one["epoch"]))
    if best.get("best_collision") != chosen:
        best["best_collision"] = chosen
        with replacing(folder / "best_collision.safetensors") as temporary:
            shutil.copyfile(_epoch_path(folder, "front", chosen["epoch"]), temporary)
    return progress._replace(best=best, front=front)


def _usage(one: Figures) -> tuple[float, float]:
    return one["utilisation"], -one["error"]


def _beats(one: Figures, other: Figures) -> bool:
    return one["error"] <= other["error"] and one["collision"] <= other["collision"]


def _epoch_path(folder: Path, name: str, epoch: float) -> Path:
    return folder / f"{name}-{int(epoch):06d}.safetensors"


def _remove_others(folder: Path, names: set[str]) -> None:
    for path in folder.glob("*.safetensors"):
        if path.name not in names:
            path.unlink(missing_ok=True)


def _model_arrays(model: torch.nn.Module) -> dict[str, np.ndarray]:
    return {f"model.{name}": part.cpu().numpy() for name, part in model.state_dict().items()}


def _state_arrays(state: State) -> dict[str, np.ndarray]:
    """Everything that a step changes, by the name of its tensor in the file."""
    arrays = _model_arrays(state.model)
    for number, parts in state.optimizer.state_dict()["state"].items():
        for name, part in parts.items():
            if isinstance(part, torch.Tensor):
                arrays[f"optimizer.{number}.{name}"] = part.cpu().numpy()
    for level, averages in enumerate(state.averages):
        arrays[f"average.{level}.counts"] = averages.counts.cpu().numpy()
        arrays[f"average.{level}.sums"] = averages.sums.cpu().numpy()
    return {name: np.ascontiguousarray(part) for name, part in arrays.items()}


def _restore(state: State, arrays: Mapping[str, np.ndarray]) -> None:
    """Bring model, optimizer and averages to what :func:`_state_arrays` gave."""
    _load_model(state.model, arrays)

    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, part in arrays.items():
        kind, _, rest = name.partition(".")
        if kind == "optimizer":
            number, _, key = rest.partition(".")
            moments.setdefault(int(number), {})[key] = torch.from_numpy(part)
    groups = state.optimizer.state_dict()["param_groups"]
    state.optimizer.load_state_dict({"state": moments, "param_groups": groups})

    for level, averages in enumerate(state.averages):
        averages.counts.copy_(torch.from_numpy(arrays[f"average.{level}.counts"]))
        averages.sums.copy_(torch.from_numpy(arrays[f"average.{level}.sums"]))


def _load_model(model: torch.nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    start = "model."
    weights = {
        name.removeprefix(start): torch.from_numpy(part)
        for name, part in arrays.items()
        if name.startswith(start)
    }
    model.load_state_dict(weights)
