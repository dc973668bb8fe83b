"""Checkpoints: the state that a killed training goes on from, and the models worth keeping.

    last.safetensors               model, optimizer, moving averages, and how far the training is
    epoch-000010.safetensors       the model after epoch 10; the newest ``save_limit`` of them
    best_loss.safetensors          lowest reconstruction error of held-out rows
    best_collision.safetensors     lowest collision rate of those within 2 % of the lowest error
    best_utilisation.safetensors   most codewords in use, at the level where they are fewest
    front-000010.safetensors       may still become best_collision; removed when that is settled

``last`` is written after all others, and what it does not need is removed after that: whenever a
training is killed, ``last`` finds what it names. Models hold the weights alone.
"""

import logging
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from sidmill.core.atomic import replacing
from sidmill.core.errors import SidmillError
from sidmill.io import tensors
from sidmill.quantize.rqvae.training import State

logger = logging.getLogger(__name__)

WITHIN = 1.02  # times the lowest error: what best_collision is chosen among
MAX_NAMES = 20  # in a message
KINDS = ("best_loss", "best_collision", "best_utilisation")


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
    best: dict[str, dict]
    front: list[dict]
    recent: list[int]


NOTHING = Progress(0, False, {}, [], [])


def load(
    folder: Path,
    state: State,
    identity: dict,
    device: torch.device,
    *,
    epochs: int,
    eval_step: int,
    sweep: bool,
) -> Progress:
    """Bring ``state`` to where an earlier run of the same training left it.

    A folder of another training, or a damaged file, is emptied of checkpoints. So is that of a
    training which a fresh one of ``epochs`` would not pass through: one that went further, or that
    ended between two measurements.

    Args:
        folder: of the checkpoints.
        state: changed in place.
        identity: names the training.
        device: of the model.
        epochs: of the whole training.
        eval_step: epochs from one measurement to the next.
        sweep: whether this process removes files: one of all that train.
    """
    path = folder / "last.safetensors"
    if path.exists():
        try:
            arrays, facts = tensors.read(path, "checkpoint")
            differing = _differing(facts.pop("identity", None), identity)
            progress = Progress(**facts)
        except (SidmillError, TypeError) as error:
            logger.warning("%s; training starts anew", error)
        else:
            obstacle = differing or _off_the_way(folder, progress, epochs, eval_step)
            if not obstacle:
                _restore(state, arrays, device)
                logger.info("going on after epoch %d", progress.epoch)
                return progress
            logger.info("%s is of another training (%s); this one starts anew", path, obstacle)
    if sweep:
        _sweep(folder, set())
    return NOTHING


def _differing(found: dict | None, wanted: dict) -> str:
    """Name what two trainings differ in; empty where they are one."""
    if not isinstance(found, dict):
        return "it does not say which"
    flat = [{**one, **(one.get("settings") or {}), "settings": None} for one in (found, wanted)]
    names = sorted({*flat[0], *flat[1]})
    differing = [name for name in names if flat[0].get(name) != flat[1].get(name)]
    return f"other {', '.join(differing[:MAX_NAMES])}" if differing else ""


def _off_the_way(folder: Path, progress: Progress, epochs: int, eval_step: int) -> str:
    """Say why a fresh training of ``epochs`` would not pass through this state; or nothing."""
    if progress.epoch > epochs:
        return f"of {progress.epoch} epochs, wanted {epochs}"
    if progress.epoch < epochs and progress.epoch % eval_step:
        return f"it ended after epoch {progress.epoch}, which {epochs} epochs do not measure"
    missing = sorted(name for name in _named(progress) if not (folder / name).exists())
    return f"{', '.join(missing[:MAX_NAMES])} is missing" if missing else ""


def _named(progress: Progress) -> set[str]:
    """Files that a progress names, besides ``last``."""
    names = {f"{kind}.safetensors" for kind in progress.best}
    names |= {_epoch_path(Path(), "epoch", epoch).name for epoch in progress.recent}
    return names | {_epoch_path(Path(), "front", one["epoch"]).name for one in progress.front}


def save(
    folder: Path,
    state: State,
    progress: Progress,
    figures: dict[str, float] | None,
    identity: dict,
    save_limit: int,
) -> Progress:
    """Keep what the training needs after ``progress.epoch`` epochs; return the new progress.

    Args:
        folder: of the checkpoints.
        state: of the training.
        progress: before these figures.
        figures: of :func:`sidmill.quantize.rqvae.measure.measure`, or None before the codebooks
            are set.
        identity: names the training.
        save_limit: how many recent models stay.
    """
    if figures is not None:
        now = {
            "epoch": progress.epoch,
            "error": figures["heldout_mse"],
            "collision": figures["collision_rate"],
            "utilisation": min(v for name, v in figures.items() if name.startswith("utilisation")),
        }
        model = _arrays(state.model)
        progress = _keep_best(folder, model, progress, now)
        recent = [*progress.recent, progress.epoch]
        if save_limit:
            tensors.write(_epoch_path(folder, "epoch", progress.epoch), model, {"figures": now})
        progress = progress._replace(recent=recent[-save_limit:] if save_limit else [])
    tensors.write(
        folder / "last.safetensors", _pack(state), {"identity": identity, **progress._asdict()}
    )
    _sweep(folder, {"last.safetensors", *_named(progress)})
    return progress


def restore_chosen(folder: Path, kind: str, state: State, device: torch.device) -> dict:
    """Load the checkpoint that becomes the quantizer into ``state.model``; return its figures.

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
    if kind == "last":
        _restore(state, arrays, device)
        return {}
    _load_model(state, arrays, device)
    return facts["figures"]


def _keep_best(folder: Path, model: dict, progress: Progress, now: dict) -> Progress:
    best = dict(progress.best)
    facts = {"figures": now}
    if "best_loss" not in best or now["error"] < best["best_loss"]["error"]:
        best["best_loss"] = now
        tensors.write(folder / "best_loss.safetensors", model, facts)
    if "best_utilisation" not in best or (now["utilisation"], -now["error"]) > (
        best["best_utilisation"]["utilisation"],
        -best["best_utilisation"]["error"],
    ):
        best["best_utilisation"] = now
        tensors.write(folder / "best_utilisation.safetensors", model, facts)
    limit = WITHIN * best["best_loss"]["error"]
    front = [one for one in progress.front if one["error"] <= limit]
    if now["error"] <= limit and not any(_beats(one, now) for one in front):
        front = [one for one in front if not _beats(now, one)] + [now]
        tensors.write(_epoch_path(folder, "front", now["epoch"]), model, facts)
    chosen = min(front, key=lambda one: (one["collision"], one["error"], one["epoch"]))
    if best.get("best_collision") != chosen:
        best["best_collision"] = chosen
        with replacing(folder / "best_collision.safetensors") as temporary:
            shutil.copyfile(_epoch_path(folder, "front", chosen["epoch"]), temporary)
    return progress._replace(best=best, front=front)


def _beats(one: dict, other: dict) -> bool:
    return one["error"] <= other["error"] and one["collision"] <= other["collision"]


def _epoch_path(folder: Path, name: str, epoch: int) -> Path:
    return folder / f"{name}-{epoch:06d}.safetensors"


def _sweep(folder: Path, wanted: set[str]) -> None:
    for path in folder.glob("*.safetensors"):
        if path.name not in wanted:
            path.unlink(missing_ok=True)


def _arrays(model: torch.nn.Module) -> dict[str, np.ndarray]:
    return {f"model.{name}": part.cpu().numpy() for name, part in model.state_dict().items()}


def _pack(state: State) -> dict[str, np.ndarray]:
    arrays = _arrays(state.model)
    for number, parts in state.optimizer.state_dict()["state"].items():
        for name, part in parts.items():
            if isinstance(part, torch.Tensor):
                arrays[f"optimizer.{number}.{name}"] = part.cpu().numpy()
    for level, averages in enumerate(state.averages):
        arrays[f"average.{level}.counts"] = averages.counts.cpu().numpy()
        arrays[f"average.{level}.sums"] = averages.sums.cpu().numpy()
    return {name: np.ascontiguousarray(part) for name, part in arrays.items()}


def _restore(state: State, arrays: dict[str, np.ndarray], device: torch.device) -> None:
    _load_model(state, arrays, device)
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


def _load_model(state: State, arrays: dict[str, np.ndarray], device: torch.device) -> None:
    start = "model."
    weights = {
        name.removeprefix(start): torch.from_numpy(part).to(device)
        for name, part in arrays.items()
        if name.startswith(start)
    }
    state.model.load_state_dict(weights)
