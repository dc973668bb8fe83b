"""Train an RQ-VAE from files of vectors to codebooks, encoder and decoder.

Shapes: N items, D dimensions, d latent dimensions, L levels, K_l codewords at level l.

Source: the RQ-VAE of TIGER, https://arxiv.org/abs/2305.05065. First the autoencoder alone, for
``autoencoder_epochs``; then codebooks by residual k-means over all its latents; then everything
together. docs/rqvae.md says how to choose the settings, docs/log.md what they gain.
"""

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from sidmill.core.errors import SidmillError
from sidmill.formats import quantizer_file
from sidmill.formats.quantizer_file import Network
from sidmill.numeric import nearest_torch
from sidmill.quantize.rqvae import (
    checkpoints,
    colliding_pairs,
    consumption_pairs,
    data,
    distributed,
    fsq,
    init,
    measure,
    tracking,
    training,
    workers,
)
from sidmill.quantize.rqvae.autoencoder import Autoencoder
from sidmill.quantize.rqvae.checkpoints import Progress
from sidmill.quantize.rqvae.data import Rows
from sidmill.quantize.rqvae.distributed import Team
from sidmill.quantize.rqvae.training import State
from sidmill.quantize.rqvae.trials import Settings, check_rows, checked

logger = logging.getLogger(__name__)


class Trained(NamedTuple):
    """Codebooks float32 (K_l, d), the ways there and back, and the figures of the checkpoint."""

    codebooks: list[np.ndarray]
    encoder: Network
    decoder: Network
    figures: dict


class Place(NamedTuple):
    """Where a training happens."""

    folder: Path
    scratch: Path
    device: torch.device
    memory_mb: int
    crew: Team
    processes: int


def fit(
    paths: list[str],
    *,
    data_paths: list[str],
    codebook_sizes: list[int],
    e_dim: int,
    layers: list[int],
    dropout: float,
    batch_norm: bool,
    skip: str,
    loss: str,
    quant_loss_weight: float,
    beta: float,
    codebook_update: str,
    ema_decay: float,
    estimator: str,
    sk_epsilons: list[float],
    sk_iters: int,
    restart: bool,
    diversity_weight: float,
    repulsion_weight: float,
    contrastive_weight: float,
    contrastive_temperature: float,
    pairs_path: str | None,
    autoencoder_epochs: int,
    kmeans_init: str,
    kmeans_iters: int,
    optimizer: str,
    lr: float,
    weight_decay: float,
    schedule: str,
    warmup_epochs: int,
    epochs: int,
    batch_size: int,
    eval_step: int,
    clip: float,
    precision: str,
    test_ratio: float,
    choose: str,
    save_limit: int,
    tracking: str,
    device: str,
    memory_mb: int,
    processes: int,
    seed: int,
    folder: str,
    code: str,
    fingerprint: dict,
    warm_start: str | None,
    grid_steps: list[int] | None,
    ids_path: str | None,
    sequences_path: str | None,
) -> Trained:
    """Train, or go on with a training that was cut short.

    The same files, settings, seed, thread count and number of processes give the same bytes on the
    same kind of machine, interrupted or not. Memory: the vectors where they fit in ``memory_mb``,
    otherwise one block and one batch; the network four times (weights, gradients, two moments);
    about 20 bytes per row.

    Args:
        paths: vectors, float32 or float16 (N, D): .npy, .h5 (item_data.h5) or parquet.
        data_paths: train on these in place of ``paths``; all of one D.
        codebook_sizes: K_l per level.
        e_dim: d.
        layers: widths of the encoder's hidden layers; the decoder has them in reverse.
        dropout: share of values dropped before each layer.
        batch_norm: between the layers.
        skip: what goes past the layers: ``none``, or ``pca``: the main directions, to begin with.
        loss: ``mse``, ``l1`` or ``cosine``.
        quant_loss_weight: of the quantizer's losses against the reconstruction.
        beta: of the commitment within them.
        codebook_update: ``gradient`` or ``ema``.
        ema_decay: with ``ema``, share of the past that stays at each step.
        estimator: ``straight_through`` or ``rotation``.
        sk_epsilons: per level, entropy of a balanced assignment in training; 0 the nearest.
        sk_iters: rounds of it.
        restart: put codewords that an epoch did not use on rows that are badly explained.
        diversity_weight: of the loss that spreads latents.
        repulsion_weight: of the loss that parts items which shared all codes when last measured.
        contrastive_weight: of the loss on pairs of items consumed together; 0 needs no pairs.
        contrastive_temperature: of that loss.
        pairs_path: parquet of pairs, or None for the neighbours in ``sequences_path``.
        autoencoder_epochs: epochs before anything is quantized.
        kmeans_init: ``none``, ``first_batch`` or ``full``.
        kmeans_iters: passes over the latents per level, at most.
        optimizer: a name of ``training.OPTIMIZERS``.
        lr: highest learning rate.
        weight_decay: of the optimizer.
        schedule: ``constant``, ``linear`` or ``cosine``.
        warmup_epochs: epochs over which the learning rate rises from 0.
        epochs: passes over the training rows.
        batch_size: rows per step, over all processes together.
        eval_step: epochs from one measurement, and one checkpoint, to the next.
        clip: largest norm of the gradient; 0 clips nothing.
        precision: ``auto`` (bfloat16 on GPUs), ``bfloat16`` or ``float32``.
        test_ratio: share of rows that only measure.
        choose: the checkpoint that is returned: ``best_collision``, ``best_loss``,
            ``best_utilisation`` or ``last``.
        save_limit: recent models that stay.
        tracking: ``none``, ``tensorboard`` or ``wandb``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        memory_mb: MiB for vectors held in memory, and for k-means.
        processes: processes that share the work, one GPU each.
        seed: covers every random draw.
        folder: of the checkpoints and metrics.csv; stays after the training.
        code: names the code; checkpoints of other code are not used.
        fingerprint: of ``paths``; ``data_paths`` must have the same, if any.
        warm_start: a quantizer.safetensors without encoder: start from its codebooks, with an
            encoder that is the identity. ``codebook_sizes``, ``e_dim``, ``skip`` and
            ``kmeans_init`` are then its.
        grid_steps: steps of each dimension of a level: finite scalar quantization, on as many
            levels as ``codebook_sizes`` has. What is said of codebooks then counts for nothing.
        ids_path: ids.parquet of ``paths``, for the pairs.
        sequences_path: sequences.parquet, for the pairs, or None.

    Raises:
        SidmillError: if settings or files do not fit, or the loss is no longer finite.
    """
    arguments = dict(locals())
    settings = checked(Settings(**{name: arguments[name] for name in Settings._fields}))
    if processes > 1 and not distributed.is_member():
        workers.run(processes, arguments, Path(folder))
    if not distributed.is_member():
        for left in Path(folder).glob(".scratch-*"):  # of a run that was killed
            shutil.rmtree(left, ignore_errors=True)
    with (
        distributed.joined(nearest_torch.pick_device(device)) as (crew, own_device),
        _repeatable(own_device),
    ):
        scratch = Path(folder, f".scratch-{crew.rank}")
        place = Place(Path(folder), scratch, own_device, memory_mb, crew, max(processes, crew.size))
        place.scratch.mkdir(parents=True, exist_ok=True)
        try:
            files = data.find(data_paths, fingerprint) or paths
            if data.dimension(files[0]) != data.dimension(paths[0]):
                raise SidmillError(
                    f"{files[0]} has {data.dimension(files[0])} dimensions, the items have "
                    f"{data.dimension(paths[0])}: name vectors of the same model in "
                    f"rqvae.data_paths"
                )
            rows = data.open_rows(files, place.scratch, own_device, memory_mb)
            together = _pairs(
                contrastive_weight, pairs_path or sequences_path, ids_path, data_paths
            )
            return _train(
                rows,
                together,
                settings,
                place,
                warm_start,
                grid_steps,
                code,
                choose,
                save_limit,
                tracking,
            )
        finally:
            shutil.rmtree(place.scratch)


@contextmanager
def _repeatable(device: torch.device) -> Iterator[None]:
    """Make gradients of rows that are taken twice add up in one order, on a CPU of many threads.

    On a GPU torch sorts before it adds them, and what else adds rows up here has an order of its
    own: the mode would ask for settings of cuBLAS that only the environment can make.
    """
    before = torch.are_deterministic_algorithms_enabled()
    fills = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(before or device.type == "cpu")
    torch.utils.deterministic.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.utils.deterministic.fill_uninitialized_memory = fills


def _pairs(
    weight: float, path: str | None, ids_path: str | None, data_paths: list[str]
) -> np.ndarray | None:
    if not weight:
        return None
    if path is None or ids_path is None or data_paths:
        raise SidmillError(
            "rqvae.contrastive_weight needs pairs of the items that are trained on: name them in "
            "rqvae.pairs_path or interactions.path, and leave rqvae.data_paths empty"
        )
    return consumption_pairs.load(path, ids_path)


def _train(
    rows: Rows,
    together: np.ndarray | None,
    settings: Settings,
    place: Place,
    warm_start: str | None,
    grid_steps: list[int] | None,
    code: str,
    choose: str,
    save_limit: int,
    tracker: str,
) -> Trained:
    given = quantizer_file.read(warm_start).codebooks if warm_start else None
    if given:
        settings = settings._replace(
            codebook_sizes=[len(words) for words in given],
            e_dim=given[0].shape[1],
            skip="identity",
        )
    cells = None
    if grid_steps:
        cells = fsq.codebooks(steps=grid_steps, n_levels=len(settings.codebook_sizes))
        settings = fsq.suited(settings, cells)
    n_rows, dim = rows.shape
    if given and settings.e_dim != dim:
        raise SidmillError(
            f"{warm_start} has codewords of {settings.e_dim} dimensions, the vectors to train on "
            f"have {dim}: start from a quantizer of these vectors"
        )
    if settings.e_dim > dim and settings.skip == "pca":
        raise SidmillError(
            f"{settings.e_dim} latent dimensions, and the vectors have {dim}: lower rqvae.e_dim "
            "(with fsq the number of fsq.steps), or set rqvae.skip to none"
        )
    held = data.held_out(n_rows, settings.test_ratio, settings.seed)
    training_rows = np.flatnonzero(~held)
    check_rows(settings, len(training_rows), n_rows, place.processes, needs_kmeans=given is None)
    torch.manual_seed(settings.seed)
    model = Autoencoder(dim, settings).to(place.device)
    rows_digest = init.scale(model, rows, held, place.device)
    if given:
        init.copy_codewords(model, given, rows, held, place.device)
    if cells:
        init.lay_grid(model, cells, rows, held, place.device)
    distributed.follow(model.state_dict().values(), place.crew)
    identity = {
        "settings": _identity(settings),
        "code": code,
        "data": [n_rows, dim, rows_digest],
        "pairs": None if together is None else [len(together), data.digest([together])],
        "grid": grid_steps,
        "warm_start": data.digest(given) if given else None,
        "processes": place.processes,
    }
    state = training.make_state(model, settings)
    progress = checkpoints.load(
        place.folder,
        state,
        identity,
        place.device,
        epochs=settings.epochs,
        eval_step=settings.eval_step,
        sweep=place.crew.rank == 0,
    )
    distributed.wait(place.crew)
    if given and not progress.epoch:
        progress = progress._replace(quantizing=True)
    if progress.epoch < settings.epochs:  # else other processes trained, or an earlier run
        log_to = (
            tracking.opened(
                place.folder, len(model.codebooks), progress.epoch, tracker, settings._asdict()
            )
            if place.crew.rank == 0
            else nullcontext(_log_nothing)
        )
        with log_to as log:
            _run(
                state,
                settings,
                rows,
                training_rows,
                held,
                together,
                place,
                progress,
                identity,
                save_limit,
                log,
            )
    distributed.wait(place.crew)
    figures = checkpoints.restore_chosen(place.folder, choose, state, place.device)
    model.eval()
    logger.info("%s becomes the quantizer: %s", choose, figures)
    return Trained(*model.exported(), figures)


def _run(
    state: State,
    settings: Settings,
    rows: Rows,
    training_rows: np.ndarray,
    held: np.ndarray,
    together: np.ndarray | None,
    place: Place,
    progress: Progress,
    identity: dict,
    save_limit: int,
    log: tracking.Log,
) -> None:
    """Run the epochs that are left; measure, log and save every ``eval_step`` of them."""
    first = place.crew.rank == 0
    waiting: list[dict] = []
    began, n_before = time.perf_counter(), progress.epoch
    colliding = colliding_pairs.NONE
    if progress.quantizing and progress.epoch:
        colliding = _colliding(state, settings, rows, held, place)
    bar = tqdm(
        total=settings.epochs, initial=progress.epoch, unit="epoch", disable=None if first else True
    )
    for epoch in range(progress.epoch, settings.epochs):
        if not progress.quantizing and epoch >= settings.autoencoder_epochs:
            init.fit_codewords(
                state.model,
                rows,
                training_rows,
                settings,
                place.scratch,
                place.device,
                place.memory_mb,
            )
            distributed.follow([words.data for words in state.model.codebooks], place.crew)
            training.restart_averages(state)
            progress = progress._replace(quantizing=True)
            colliding = _colliding(state, settings, rows, held, place)
        try:
            row = training.run_epoch(
                state,
                settings,
                rows,
                training_rows,
                together,
                colliding,
                epoch=epoch,
                quantizing=progress.quantizing,
                device=place.device,
                crew=place.crew,
            )
        except training.NotFiniteError as error:
            raise SidmillError(
                _not_finite(error.args[0], epoch + 1, settings, progress, place)
            ) from None
        row = {"epoch": epoch + 1, "lr": training.rate(settings, epoch + 1), **row}
        waiting.append(row)
        bar.update()
        if (epoch + 1) % settings.eval_step and epoch + 1 < settings.epochs:
            continue
        progress = progress._replace(epoch=epoch + 1)
        figures = None
        if progress.quantizing:
            figures, codes = measure.measure(state.model, rows, held, place.device)
            colliding = colliding_pairs.pairs(codes, ~held)
            row.update(figures)
            bar.set_postfix(
                loss=f"{row['loss']:.4f}", collisions=f"{figures['collision_rate']:.4f}"
            )
        if first:
            log(waiting)
            progress = checkpoints.save(
                place.folder, state, progress, figures, identity, save_limit
            )
            _say(row, (epoch + 1 - n_before) / (time.perf_counter() - began))
        waiting = []
    bar.close()


def _colliding(
    state: State, settings: Settings, rows: Rows, held: np.ndarray, place: Place
) -> np.ndarray:
    """Pairs of training rows that share all codes, int64 (C, 2), where they are to be parted."""
    if not settings.repulsion_weight:
        return colliding_pairs.NONE
    _, codes = measure.measure(state.model, rows, held, place.device)
    return colliding_pairs.pairs(codes, ~held)


def _not_finite(step: int, epoch: int, settings: Settings, progress: Progress, place: Place) -> str:
    """Say what a loss that is not finite leaves, and which settings are still to be changed."""
    kept = "no checkpoint was saved before it"
    if progress.epoch:
        kept = (
            f"the last good checkpoint is {place.folder / 'last.safetensors'} of epoch "
            f"{progress.epoch}"
        )
    clip = "" if 0 < settings.clip <= 1 else ", or set rqvae.clip to 1"
    return (
        f"the loss is not finite at step {step} of epoch {epoch}: {kept}; lower rqvae.lr "
        f"(it is {settings.lr:g}){clip}"
    )


def _say(row: dict, speed: float) -> None:
    shown = ("loss", "reconstruction", "heldout_relative", "collision_rate", "restarted")
    figures = ", ".join(f"{name} {row[name]:.4g}" for name in shown if name in row)
    logger.info("epoch %d: %s, %.2f epochs/s", row["epoch"], figures, speed)


def _identity(settings: Settings) -> dict:
    """Settings that the weights depend on.

    A training of constant rate is the beginning of a longer one: ``checkpoints.load`` tells whether
    its checkpoint is on the way of that.
    """
    facts = settings._asdict()
    if settings.schedule == "constant":
        del facts["epochs"]
    return facts


def _log_nothing(rows: list[dict]) -> None:
    """Take rows of a process that does not log."""
