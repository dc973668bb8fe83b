"""One epoch of the training: batches, losses, steps, and codewords that nothing chose.

Shapes: N rows, n training rows, D dimensions, d latent dimensions, K_l codewords at level l.

Every random draw comes from the seed and the number of the epoch, so an epoch can be done again
and ends in the same bytes.
"""

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from sidmill.quantize.rqvae import (
    data,
    distributed,
    losses,
    residual_quantizer,
)
from sidmill.quantize.rqvae.autoencoder import Autoencoder
from sidmill.quantize.rqvae.data import Rows
from sidmill.quantize.rqvae.distributed import Team
from sidmill.quantize.rqvae.residual_quantizer import Averages, Quantized
from sidmill.quantize.rqvae.trials import Settings

OPTIMIZERS = {
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


class State(NamedTuple):
    """What a step changes; all of it in place."""

    model: Autoencoder
    optimizer: torch.optim.Optimizer
    averages: list[Averages]  # per level, with EMA codebooks


class NotFiniteError(Exception):
    """A loss became NaN or infinite; ``args[0]`` is the step, counted from 1 within the epoch."""


def make_state(model: Autoencoder, settings: Settings) -> State:
    """Put an optimizer beside a model whose codebooks are set."""
    for words in model.codebooks:
        words.requires_grad_(settings.codebook_update == "gradient")
    taught = [part for part in model.parameters() if part.requires_grad]
    more = {"momentum": MOMENTUM} if settings.optimizer == "sgd" else {}
    more |= {"fused": True} if settings.optimizer in FUSED else {}
    optimizer = OPTIMIZERS[settings.optimizer](
        taught, lr=settings.lr, weight_decay=settings.weight_decay, **more
    )
    averages = [
        Averages(torch.ones(len(words), device=words.device), words.detach().clone())
        for words in (model.codebooks if settings.codebook_update == "ema" else [])
    ]
    return State(model, optimizer, averages)


def restart_averages(state: State) -> None:
    """Make EMA codebooks start from the codewords as they stand."""
    for words, averages in zip(state.model.codebooks, state.averages, strict=False):
        averages.counts.fill_(1)
        averages.sums.copy_(words)


def rate(settings: Settings, epoch: float) -> float:
    """Learning rate at a moment of the training, counted in epochs."""
    if epoch < settings.warmup_epochs:
        return settings.lr * epoch / settings.warmup_epochs
    passed = (epoch - settings.warmup_epochs) / (settings.epochs - settings.warmup_epochs)
    if settings.schedule == "linear":
        return settings.lr * (1 - passed)
    if settings.schedule == "cosine":
        return settings.lr * (1 + math.cos(math.pi * passed)) / 2
    return settings.lr


def run_epoch(
    state: State,
    settings: Settings,
    rows: Rows,
    training: np.ndarray,
    pairs: np.ndarray | None,
    colliding: np.ndarray,
    *,
    epoch: int,
    quantizing: bool,
    device: torch.device,
    crew: Team,
) -> dict[str, float]:
    """Train on every training row once.

    Args:
        state: changed in place.
        settings: of the training.
        rows: all N.
        training: int64 (n,), the rows to train on, ascending.
        pairs: int64 (P, 2), rows of items consumed together, or None.
        colliding: int64 (C, 2), rows of items that share all codes.
        epoch: its number, from 0.
        quantizing: False trains the autoencoder alone.
        device: of the model.
        crew: this process among all that train.

    Returns:
        The mean of each of ``FIGURES``, and ``restarted``, how many codewords began anew.

    Raises:
        NotFiniteError: at the first step whose loss is NaN or infinite, or that leaves such a
            weight at the end of the epoch.
    """
    torch.manual_seed(_number(settings.seed, epoch, crew.rank))  # dropout
    order = training[data.epoch_order(len(training), settings.seed, epoch)]
    bounds = data.batch_bounds(len(order), settings.batch_size, crew.size).tolist()
    n_steps = len(bounds) - 1
    drawer = np.random.default_rng([settings.seed, 2, epoch])
    used = [torch.zeros(len(words), device=device) for words in state.model.codebooks]
    figures = []
    quantized = None
    for step, (first, last) in enumerate(pairwise(bounds)):
        batch = np.sort(order[first:last])
        mine = distributed.share(batch, crew)
        partners = clashing = None
        if pairs is not None:
            partners = _draw(pairs, settings.batch_size, drawer, rows, device, crew)
        if settings.repulsion_weight and len(colliding):
            n_pairs = math.ceil(len(colliding) * len(batch) / len(order))  # each once an epoch
            n_pairs = max(n_pairs, crew.size)
            clashing = _draw(colliding, n_pairs, drawer, rows, device, crew)
        for group in state.optimizer.param_groups:
            group["lr"] = rate(settings, epoch + (step + 1) / n_steps)
        vectors = state.model.scaled(data.take(rows, mine, device))
        parts, quantized = _losses(
            state.model, vectors, partners, clashing, settings, quantizing, crew
        )
        _move(state, parts["loss"] * (len(mine) / len(batch)), settings, crew)
        figures.append(torch.stack([parts[name].detach() for name in FIGURES]))
        if quantized:
            for code, counts in zip(quantized.codes, used, strict=True):
                counts += torch.bincount(code, minlength=len(counts))
            if state.averages:
                _average(state, quantized, settings, crew)
    table = torch.stack(figures).cpu()
    bad = (~table[:, 0].isfinite()).nonzero()
    if len(bad):
        raise NotFiniteError(int(bad[0]) + 1)
    if not all(part.isfinite().all() for part in state.model.parameters()):
        raise NotFiniteError(n_steps)  # the last step's loss was finite, what it did was not
    restarted = 0
    if quantized and settings.restart:
        restarted = _restart(state, quantized, used, settings, epoch, crew)
    means = table.double().mean(dim=0).tolist()
    return dict(zip(FIGURES, means, strict=True)) | {"restarted": restarted}


def _losses(
    model: Autoencoder,
    vectors: torch.Tensor,
    partners: tuple[torch.Tensor, torch.Tensor] | None,
    clashing: tuple[torch.Tensor, torch.Tensor] | None,
    settings: Settings,
    quantizing: bool,
    crew: Team,
) -> tuple[dict[str, torch.Tensor], Quantized | None]:
    """Losses of a step. Pairs are encoded with the batch, so batch norm counts them as well."""
    device = vectors.device.type
    half = settings.precision == "bfloat16" or (settings.precision == "auto" and device == "cuda")
    none = torch.zeros((), device=vectors.device)
    parts = dict.fromkeys(FIGURES, none)
    groups = [vectors, *(model.scaled(rows) for rows in (*(clashing or ()), *(partners or ())))]
    with torch.autocast(device, torch.bfloat16, enabled=half):
        encoded = model.encode(torch.cat(groups))
    latents, *others = encoded.float().split([len(rows) for rows in groups])
    quantized = None
    if quantizing:
        quantized = residual_quantizer.quantize(
            latents,
            list(model.codebooks),
            sk_epsilons=settings.sk_epsilons,
            sk_iters=settings.sk_iters,
            estimator=settings.estimator,
        )
        parts |= {"commitment": quantized.commitment, "codebook": quantized.codebook}
    with torch.autocast(device, torch.bfloat16, enabled=half):
        found = model.decode(quantized.latents if quantized else latents)
    shift = model.mean / model.scale if settings.loss == "cosine" else none
    parts["reconstruction"] = losses.reconstruction(
        found.float() + shift, vectors + shift, settings.loss
    )
    total = parts["reconstruction"]
    if quantized:
        learned = parts["codebook"] if settings.codebook_update == "gradient" else none
        total = total + settings.quant_loss_weight * (learned + settings.beta * parts["commitment"])
    if settings.diversity_weight:
        parts["diversity"] = losses.diversity(latents)
        total = total + settings.diversity_weight * parts["diversity"]
    if quantized and settings.repulsion_weight:  # in every process, with pairs or without
        missed = torch.stack([quantized.missed * len(vectors), none + len(vectors)])
        distributed.add_up([missed], crew)
    if clashing and quantized:
        parts["repulsion"] = losses.repulsion(*others[:2], missed[0] / missed[1]) / len(vectors)
        total = total + settings.repulsion_weight * parts["repulsion"]
    if partners:
        parts["contrastive"] = losses.contrastive(*others[-2:], settings.contrastive_temperature)
        total = total + settings.contrastive_weight * parts["contrastive"]
    parts["loss"] = total
    return parts, quantized


def _move(state: State, loss: torch.Tensor, settings: Settings, crew: Team) -> None:
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    taught = [part for group in state.optimizer.param_groups for part in group["params"]]
    moved = [part for part in taught if part.grad is not None]

    # one message: the sums of gradients, and the means of what batch norm counted
    counted = state.model.running_statistics()
    for part in counted:
        part.div_(crew.size)
    distributed.add_up([*(part.grad for part in moved), *counted], crew)

    if settings.clip:
        torch.nn.utils.clip_grad_norm_(moved, settings.clip)
    state.optimizer.step()


@torch.no_grad()
def _average(state: State, quantized: Quantized, settings: Settings, crew: Team) -> None:
    for words, averages, code, left in zip(
        state.model.codebooks, state.averages, quantized.codes, quantized.left, strict=True
    ):
        counts, sums = residual_quantizer.count_and_sum(left, code, len(words))
        distributed.add_up((counts, sums), crew)
        residual_quantizer.average(words, averages, counts, sums, settings.ema_decay)


@torch.no_grad()
def _restart(
    state: State,
    quantized: Quantized,
    used: list[torch.Tensor],
    settings: Settings,
    epoch: int,
    crew: Team,
) -> int:
    """Put codewords that no row chose in this epoch on rows of the last batch far from theirs."""
    distributed.add_up(used, crew)
    n_restarted = 0
    for level, words in enumerate(state.model.codebooks):
        dead = (used[level] == 0).nonzero()[:, 0]
        n_restarted += len(dead)
        if not len(dead):
            continue
        left = quantized.left[level]
        apart = (left - words[quantized.codes[level]]).square().sum(dim=1).cpu().double() + 1e-12
        generator = torch.Generator().manual_seed(_number(settings.seed, epoch, level))
        rows = torch.multinomial(
            apart, len(dead), replacement=len(dead) > len(apart), generator=generator
        )
        words[dead] = left[rows.to(left.device)]
        distributed.follow([words.data], crew)
        for part in state.optimizer.state.get(words, {}).values():
            if isinstance(part, torch.Tensor) and part.shape == words.shape:
                part[dead] = 0
        if state.averages:
            state.averages[level].counts[dead] = 1
            state.averages[level].sums[dead] = words[dead]
    return n_restarted


def _draw(
    pairs: np.ndarray,
    n_pairs: int,
    drawer: np.random.Generator,
    rows: Rows,
    device: torch.device,
    crew: Team,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw pairs, with replacement: two tensors float32 (b, D), row for row partners."""
    chosen = distributed.share(pairs[drawer.integers(len(pairs), size=n_pairs)], crew)
    found = []
    for column in chosen.T:
        known, back = np.unique(column, return_inverse=True)
        found.append(data.take(rows, known, device)[torch.from_numpy(back).to(device)])
    return found[0], found[1]


def _number(*parts: int) -> int:
    return int(np.random.default_rng([3, *parts]).integers(2**63))
