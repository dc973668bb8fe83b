"""Epochs of a training that stops early, keeps its best weights, and resumes after a kill.

The weights of the epoch with the best NDCG@10 on the validation items are kept, and training stops
after ``patience`` epochs without a better one. The random numbers of a step follow from the seed
and the number of the step, so a training that resumes from its last saved state ends in the same
bytes as one that was never interrupted.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from sidmill.core.errors import SidmillError
from sidmill.recommend import checkpoint, state
from sidmill.recommend.adamw import AdamW, Optimizer
from sidmill.recommend.state import Epoch, Progress
from sidmill.recommend.windows import Batch

logger = logging.getLogger(__name__)

CLIP_NORM = 1.0
WATCHED = "NDCG@10"


class LoopSettings(Protocol):
    """Settings that the loop reads, of whichever section."""

    @property
    def learning_rate(self) -> float:
        """Of AdamW, after the warm-up."""

    @property
    def weight_decay(self) -> float:
        """Of AdamW."""

    @property
    def warmup_steps(self) -> int:
        """Steps over which the learning rate rises."""

    @property
    def max_epochs(self) -> int:
        """Passes over the histories, at most."""

    @property
    def patience(self) -> int:
        """Epochs without a better validation before training ends."""

    @property
    def save_steps(self) -> int:
        """Steps between saved states."""


class Task(Protocol):
    """What is trained: batches, the loss of one, and the validation after an epoch."""

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch: the same for the same epoch."""

    def loss(self, batch: Batch, sequence: np.random.SeedSequence) -> tuple[Tensor, int]:
        """Mean loss over the targets of a batch, and their number.

        Args:
            batch: the windows.
            sequence: source of the random numbers of the step; torch's generator is seeded by it.
        """

    def validate(self) -> float | None:
        """NDCG@10 on the validation items; None if there are none."""


class Run(NamedTuple):
    """One training.

    Attributes:
        task: what is trained.
        model: its network, changed in place.
        settings: of the loop.
        section: name of the section of config.yaml that holds them, for messages.
        source: name of the histories, for messages.
        seed: of every random draw.
        saved: the saved state.
    """

    task: Task
    model: nn.Module
    settings: LoopSettings
    section: str
    source: str
    seed: int
    saved: state.State


def run(training: Run) -> list[Epoch]:
    """Train a recommender by epochs until patience ends; leave the best weights in the model.

    Kernels are deterministic on a CPU. CUDA has no deterministic kernel for some of the gradients.

    Memory: the model, its gradients, two moments, the best weights, and a copy to save them.

    Returns:
        One entry per epoch: ``epoch``, ``loss``, ``valid`` NDCG@10.

    Raises:
        SidmillError: if there is nothing to train on, or the loss or the weights are not finite.
    """
    device = next(training.model.parameters()).device
    with _deterministic(device):
        return _run_epochs(training)


def _run_epochs(training: Run) -> list[Epoch]:
    """See :func:`run`."""
    settings, model = training.settings, training.model
    optimizer = _make_optimizer(model, settings)
    best, progress = state.restore(training.saved, model, optimizer)

    # A bar on a terminal; the log has a line per epoch.
    total, done = settings.max_epochs, progress.epoch
    with tqdm(total=total, initial=done, unit="epoch", disable=None) as bar:
        while progress.epoch < settings.max_epochs and _may_improve(progress, settings.patience):
            # A resumed epoch draws the same batches, and skips those that are done.
            n_done = progress.step
            for number, batch in enumerate(training.task.batches(progress.epoch)):
                if number < n_done:
                    continue
                step = progress.total_steps
                loss, n_targets = _take_step(training, batch, optimizer, step)
                progress = progress._replace(
                    step=number + 1,
                    total_steps=step + 1,
                    loss=progress.loss + loss * n_targets,
                    targets=progress.targets + n_targets,
                )
                bar.set_postfix_str(f"step {number + 1}, loss {loss:.3f}", refresh=False)
                bar.update(0)
                if progress.step % settings.save_steps == 0:
                    state.save(training.saved, model, optimizer, best, progress)

            if not progress.targets:
                raise SidmillError(
                    f"{training.source}: no user has two items in the split train, so there is "
                    f"nothing to learn: check interactions.split"
                )
            best, progress = _close_epoch(training, best, progress)
            bar.update()
            state.save(training.saved, model, optimizer, best, progress)

    checkpoint.fill(model, best, state.BEST)
    logger.info("best epoch %d, valid %s %.4f", progress.best_epoch, WATCHED, progress.best)
    model.eval()
    return list(progress.curve)


@contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    """Let torch use deterministic kernels on a CPU; CUDA has none for some of the gradients."""
    # ``use_deterministic_algorithms`` sets the same flag, and imports torch's compiler.
    mode_before = torch.get_deterministic_debug_mode()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.set_deterministic_debug_mode("error" if device.type == "cpu" else "default")

    # Nothing reads memory before it is written; to fill it takes a fifteenth of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode_before)
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]


def _may_improve(progress: Progress, patience: int) -> bool:
    """Whether fewer than ``patience`` epochs passed since the best one."""
    return progress.epoch - 1 - max(progress.best_epoch, 0) < patience


def _make_optimizer(model: nn.Module, settings: LoopSettings) -> Optimizer:
    """Make AdamW, whose weight decay leaves out norms and biases."""
    matrices = [weight for weight in model.parameters() if weight.ndim > 1]
    others = [weight for weight in model.parameters() if weight.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if (matrices or others)[0].is_cpu:
        return AdamW(groups, settings.learning_rate)
    return torch.optim.AdamW(groups, lr=settings.learning_rate)


def _take_step(training: Run, batch: Batch, optimizer: Optimizer, step: int) -> tuple[float, int]:
    """Take one step of the optimiser.

    Args:
        training: what is trained.
        batch: the windows.
        optimizer: whose learning rate is set here.
        step: number of the step in the whole training, from 0.

    Returns:
        The mean loss, and the number of targets.

    Raises:
        SidmillError: if the loss is not finite.
    """
    settings, model = training.settings, training.model.train()

    # All random numbers of the step follow from the seed and its number.
    sequence = np.random.SeedSequence([training.seed, step])
    torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1)))

    # Linear warm-up, then a constant rate.
    warmup = min(1.0, (step + 1) / max(settings.warmup_steps, 1))
    for group in optimizer.param_groups:
        group["lr"] = settings.learning_rate * warmup

    loss, n_targets = training.task.loss(batch, sequence)
    if not torch.isfinite(loss):
        raise SidmillError(
            f"the loss is {loss.item()} at step {step}: lower {training.section}.learning_rate, "
            f"or raise {training.section}.temperature"
        )

    optimizer.zero_grad()
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
    optimizer.step()
    return loss.item(), n_targets


def _close_epoch(
    training: Run, best: dict[str, np.ndarray], progress: Progress
) -> tuple[dict[str, np.ndarray], Progress]:
    """Validate, keep the weights if they are the best so far, and begin the next epoch.

    Raises:
        SidmillError: if the last step left weights that are not finite.
    """
    model = training.model
    if not all(weight.isfinite().all() for weight in model.parameters()):
        raise SidmillError(
            f"weights are not finite after epoch {progress.epoch}: lower "
            f"{training.section}.learning_rate (it is {training.settings.learning_rate:g})"
        )
    loss = progress.loss / progress.targets
    model.eval()
    valid = training.task.validate()
    logger.info("epoch %d: loss %.4f, valid %s %s", progress.epoch, loss, WATCHED, valid)

    # Without validation items each epoch counts as better, so the last one is kept.
    is_better = valid is None or valid > progress.best
    if is_better:
        arrays = checkpoint.arrays_of(model, state.BEST)
        best = {name: array.copy() for name, array in arrays.items()}

    entry: Epoch = {"epoch": progress.epoch, "loss": loss, "valid": valid}
    return best, progress._replace(
        epoch=progress.epoch + 1,
        step=0,
        loss=0.0,
        targets=0,
        best=valid if valid is not None and is_better else progress.best,
        best_epoch=progress.epoch if is_better else progress.best_epoch,
        curve=(*progress.curve, entry),
    )
