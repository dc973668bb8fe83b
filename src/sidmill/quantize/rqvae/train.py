"""One epoch of the training: batches, losses, steps, and restarts of unused codewords.

Shapes: N rows, n training rows, D dimensions, d latent dimensions, K_l codewords at level l, b rows
of a batch in this process, P pairs consumed together, C pairs that collide.

Every random draw comes from the seed and the number of the epoch, so a repeated epoch ends in the
same bytes.
"""

import math
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch

from sidmill.numeric.process_group import Group
from sidmill.quantize.rqvae import data, distributed, losses, residual_quantizer
from sidmill.quantize.rqvae.autoencoder import Autoencoder
from sidmill.quantize.rqvae.data import Rows
from sidmill.quantize.rqvae.residual_quantizer import Averages, Quantized
from sidmill.settings.quantize import Rqvae

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}
FUSED = ("adamw", "adam", "adagrad", "sgd")  # one pass over the weights; the others have none
MOMENTUM = 0.9  # of sgd
FIGURES = (
    *("loss", "reconstruction", "commitment", "codebook"),
    *("diversity", "repulsion", "contrastive"),
)

Pairs = tuple[torch.Tensor, torch.Tensor]  # float32 (b, D) twice, row for row partners


class Training(NamedTuple):
    """What stays the same from the first epoch to the last.

    Attributes:
        settings: of the training, as codebooks that are given or a grid adapt them.
        seed: behind every random draw.
        rows: all N.
        held_out: bool (N,), rows that only measure.
        pairs: int64 (P, 2), rows of items consumed together, or None.
        device: of the model.
        group: this process among all that train.
        known: int32 (N, L), codes that the rows have of an earlier quantizer, -1 where a row has
            none; None: the codebooks do not start from codes.
    """

    settings: Rqvae
    seed: int
    rows: Rows
    held_out: np.ndarray
    pairs: np.ndarray | None
    device: torch.device
    group: Group
    known: np.ndarray | None = None

    @property
    def training_rows(self) -> np.ndarray:
        """int64 (n,), the rows to train on, ascending."""
        return np.flatnonzero(~self.held_out)


class State(NamedTuple):
    """What a step changes; all of it in place."""

    model: Autoencoder
    optimizer: torch.optim.Optimizer
    averages: list[Averages]  # per level, with EMA codebooks


class Batch(NamedTuple):
    """The rows of one step in this process, as they lie in the files."""

    vectors: torch.Tensor  # float32 (b, D)
    colliding: Pairs | None  # items that share all codes
    partners: Pairs | None  # items consumed together
    n_rows: int  # of the batch in all processes


class NotFiniteError(Exception):
    """A loss became NaN or infinite; ``args[0]`` is the step, counted from 1 within the epoch."""


def make_state(model: Autoencoder, settings: Rqvae) -> State:
    """Make the optimizer and the moving averages of an RQ-VAE whose codebooks are set."""
    # codebooks learn by gradients, by averages, or not at all
    has_gradient = settings.codebook_update == "gradient" and not model.is_grid
    has_averages = settings.codebook_update == "ema" and not model.is_grid
    for codebook in model.codebooks:
        codebook.requires_grad_(has_gradient)
    averages = [
        Averages(torch.ones(len(codebook), device=codebook.device), codebook.detach().clone())
        for codebook in (model.codebooks if has_averages else [])
    ]

    options: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    options |= {"momentum": MOMENTUM} if settings.optimizer == "sgd" else {}
    options |= {"fused": True} if settings.optimizer in FUSED else {}
    trained = [part for part in model.parameters() if part.requires_grad]
    return State(model, OPTIMIZERS[settings.optimizer](trained, **options), averages)


def restart_averages(state: State) -> None:
    """Make EMA codebooks start from the codewords that stand in the model."""
    for codebook, averages in zip(state.model.codebooks, state.averages, strict=False):
        averages.counts.fill_(1)
        averages.sums.copy_(codebook)


def learning_rate(settings: Rqvae, epoch: float) -> float:
    """Learning rate of an RQ-VAE at a moment of the training, counted in epochs."""
    if epoch < settings.warmup_epochs:
        return settings.lr * epoch / settings.warmup_epochs
    progress = (epoch - settings.warmup_epochs) / (settings.epochs - settings.warmup_epochs)
    if settings.schedule == "linear":
        return settings.lr * (1 - progress)
    if settings.schedule == "cosine":
        return settings.lr * (1 + math.cos(math.pi * progress)) / 2
    return settings.lr


def run_epoch(
    state: State, training: Training, colliding: np.ndarray, *, epoch: int, quantizing: bool
) -> dict[str, float]:
    """Train an RQ-VAE for one epoch, on every training row once.

    Args:
        state: changed in place.
        training: data and settings.
        colliding: int64 (C, 2), rows of items that share all codes.
        epoch: its number, from 0.
        quantizing: False trains the autoencoder alone.

    Returns:
        The mean of each of ``FIGURES``, and ``restarted``, the number of restarted codewords.

    Raises:
        NotFiniteError: at the first step whose loss is NaN or infinite, or that leaves such a
            weight at the end of the epoch.
    """
    settings, group, device = training.settings, training.group, training.device
    torch.manual_seed(_number(training.seed, epoch, group.rank))  # dropout
    order = training.training_rows
    order = order[data.epoch_order(len(order), training.seed, epoch)]
    bounds = data.batch_bounds(len(order), settings.batch_size, group.size).tolist()
    generator = np.random.default_rng([training.seed, 2, epoch])
    used = [torch.zeros(len(codebook), device=device) for codebook in state.model.codebooks]
    figures = []
    quantized = None

    for step, (first, last) in enumerate(pairwise(bounds)):
        # the rows of this process, and the learning rate at the end of the step
        rows = np.sort(order[first:last])
        batch = _read_batch(rows, len(order), colliding, training, generator)
        for parameters in state.optimizer.param_groups:
            parameters["lr"] = learning_rate(settings, epoch + (step + 1) / (len(bounds) - 1))

        # one step; with EMA the codebooks follow it
        parts, quantized = _losses(state.model, batch, training, quantizing)
        _step(state, parts["loss"] * (len(batch.vectors) / batch.n_rows), training)
        figures.append(torch.stack([parts[name].detach() for name in FIGURES]))
        if quantized:
            for code, counts in zip(quantized.codes, used, strict=True):
                counts += torch.bincount(code, minlength=len(counts))
            if state.averages:
                _update_averages(state, quantized, training)

    # losses are looked at once per epoch: on a GPU each look waits for the device
    table = torch.stack(figures).cpu()  # (steps, figures)
    bad = (~table[:, 0].isfinite()).nonzero()
    if len(bad):
        raise NotFiniteError(int(bad[0]) + 1)
    if not all(part.isfinite().all() for part in state.model.parameters()):
        raise NotFiniteError(len(bounds) - 1)  # the last step had a finite loss and spoiled weights

    n_restarted = 0
    if quantized and settings.restart:
        n_restarted = _restart_codewords(state, quantized, used, training, epoch)
    means = table.double().mean(dim=0).tolist()
    return dict(zip(FIGURES, means, strict=True)) | {"restarted": n_restarted}


def _read_batch(
    rows: np.ndarray,
    n_training: int,
    colliding: np.ndarray,
    training: Training,
    generator: np.random.Generator,
) -> Batch:
    """Read a batch, and draw the pairs that go with it.

    Args:
        rows: int64, rows of the batch in all processes, ascending.
        n_training: n.
        colliding: int64 (C, 2).
        training: data and settings.
        generator: of this epoch, in the same state in all processes.
    """
    group = training.group
    partners = colliding_rows = None
    if training.pairs is not None:
        partners = _draw(training.pairs, training.settings.batch_size, training, generator)
    if training.settings.repulsion_weight and len(colliding):
        n_pairs = math.ceil(len(colliding) * len(rows) / n_training)  # each once an epoch
        colliding_rows = _draw(colliding, max(n_pairs, group.size), training, generator)
    local = distributed.local_rows(rows, group)
    vectors = data.take(training.rows, local, training.device)
    return Batch(vectors, colliding_rows, partners, len(rows))


def _draw(
    pairs: np.ndarray, n_pairs: int, training: Training, generator: np.random.Generator
) -> Pairs:
    """Draw pairs, with replacement: two tensors float32 (b, D), row for row partners."""
    drawn = pairs[generator.integers(len(pairs), size=n_pairs)]
    local = distributed.local_rows(drawn, training.group)
    sides = []
    for column in local.T:
        distinct, positions = np.unique(column, return_inverse=True)
        vectors = data.take(training.rows, distinct, training.device)
        sides.append(vectors[torch.from_numpy(positions).to(training.device)])
    return sides[0], sides[1]


def _losses(
    model: Autoencoder, batch: Batch, training: Training, quantizing: bool
) -> tuple[dict[str, torch.Tensor], Quantized | None]:
    """Losses of a step. Pairs are encoded with the batch, so batch norm counts them as well."""
    settings = training.settings
    device = batch.vectors.device.type
    is_half = settings.precision == "bfloat16" or (
        settings.precision == "auto" and device == "cuda"
    )
    zero = torch.zeros((), device=batch.vectors.device)
    parts = dict.fromkeys(FIGURES, zero)

    # encode the batch and its pairs in one pass
    pair_rows = (*(batch.colliding or ()), *(batch.partners or ()))
    vectors, *others = [model.scaled(rows) for rows in (batch.vectors, *pair_rows)]
    with torch.autocast(device, torch.bfloat16, enabled=is_half):
        encoded = model.encode(torch.cat([vectors, *others]))
    sizes = [len(rows) for rows in (vectors, *others)]
    latents, *pair_latents = torch.split(encoded.float(), sizes)  # each (b, d)

    # quantize and decode the batch
    quantized = None
    if quantizing:
        quantized = residual_quantizer.quantize(latents, list(model.codebooks), settings)
        parts |= {"commitment": quantized.commitment, "codebook": quantized.codebook}
    with torch.autocast(device, torch.bfloat16, enabled=is_half):
        output = model.decode(quantized.latents if quantized else latents)

    # the cosine is that of the vectors themselves, not of the centred ones
    shift = model.mean / model.scale if settings.loss == "cosine" else zero
    parts["reconstruction"] = losses.reconstruction(
        output.float() + shift, vectors + shift, settings.loss
    )
    total = parts["reconstruction"]
    if quantized:
        learned = parts["codebook"] if settings.codebook_update == "gradient" else zero
        total = total + settings.quant_loss_weight * (learned + settings.beta * parts["commitment"])
    if settings.diversity_weight:
        parts["diversity"] = losses.diversity(latents)
        total = total + settings.diversity_weight * parts["diversity"]

    # the margin of the repulsion is that of the batch in all processes, with pairs or without
    if quantized and settings.repulsion_weight:
        errors = torch.stack([quantized.error * len(vectors), zero + len(vectors)])
        distributed.all_reduce([errors], training.group)
        if batch.colliding:
            pushed = losses.repulsion(pair_latents[0], pair_latents[1], errors[0] / errors[1])
            parts["repulsion"] = pushed / len(vectors)
            total = total + settings.repulsion_weight * parts["repulsion"]
    if batch.partners:
        one, other = pair_latents[-2:]
        parts["contrastive"] = losses.contrastive(one, other, settings.contrastive_temperature)
        total = total + settings.contrastive_weight * parts["contrastive"]

    parts["loss"] = total
    return parts, quantized


def _step(state: State, loss: torch.Tensor, training: Training) -> None:
    """Move the weights by the gradients of all processes."""
    state.optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    trained = [part for group in state.optimizer.param_groups for part in group["params"]]
    moved = [part for part in trained if part.grad is not None]

    # one message: the sums of gradients, and the means of what batch norm counted
    statistics = state.model.running_statistics()
    for part in statistics:
        part.div_(training.group.size)
    distributed.all_reduce([*(part.grad for part in moved), *statistics], training.group)

    if training.settings.clip:
        torch.nn.utils.clip_grad_norm_(moved, training.settings.clip)
    state.optimizer.step()


@torch.no_grad()
def _update_averages(state: State, quantized: Quantized, training: Training) -> None:
    """Move EMA codebooks towards the rows that chose them, in all processes."""
    for codebook, averages, code, residual in zip(
        state.model.codebooks, state.averages, quantized.codes, quantized.residuals, strict=True
    ):
        counts, sums = residual_quantizer.count_and_sum(residual, code, len(codebook))
        distributed.all_reduce((counts, sums), training.group)
        residual_quantizer.average(codebook, averages, counts, sums, training.settings.ema_decay)


@torch.no_grad()
def _restart_codewords(
    state: State,
    quantized: Quantized,
    used: list[torch.Tensor],
    training: Training,
    epoch: int,
) -> int:
    """Put codewords that no row chose in this epoch on rows of the last batch far from theirs."""
    distributed.all_reduce(used, training.group)
    n_restarted = 0
    for level, codebook in enumerate(state.model.codebooks):
        dead = (used[level] == 0).nonzero()[:, 0]
        n_restarted += len(dead)
        if not len(dead):
            continue

        # draw rows by their squared distance to their codeword, as k-means++ does
        residual = quantized.residuals[level]
        differences = residual - codebook[quantized.codes[level]]
        weights = differences.square().sum(dim=1).cpu().double() + 1e-12
        generator = torch.Generator().manual_seed(_number(training.seed, epoch, level))
        rows = torch.multinomial(
            weights, len(dead), replacement=len(dead) > len(weights), generator=generator
        )
        codebook[dead] = residual[rows.to(residual.device)]
        distributed.broadcast([codebook.data], training.group)

        # optimizer and averages forget the old codewords
        for part in state.optimizer.state.get(codebook, {}).values():
            if isinstance(part, torch.Tensor) and part.shape == codebook.shape:
                part[dead] = 0
        if state.averages:
            state.averages[level].counts[dead] = 1
            state.averages[level].sums[dead] = codebook[dead]
    return n_restarted


def _number(*parts: int) -> int:
    """Return a seed that ``parts`` decide."""
    return int(np.random.default_rng([3, *parts]).integers(2**63))
