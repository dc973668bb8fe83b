"""Train an RQ-VAE from files of vectors to codebooks, encoder and decoder.

Shapes: N items, D dimensions, d latent dimensions, L levels, K_l codewords at level l, P pairs of
items consumed together, C pairs that collide.

Source: the RQ-VAE of TIGER, https://arxiv.org/abs/2305.05065. First the autoencoder alone, for
``autoencoder_epochs``; then codebooks by residual k-means over all its latents; then everything
together. docs/rqvae.md says how to choose the settings, docs/log.md what they gain.
"""

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from sidmill.core import rendezvous
from sidmill.core.errors import SidmillError
from sidmill.core.rendezvous import Member
from sidmill.formats import catalogue_match
from sidmill.formats.quantizer_file import Network
from sidmill.numeric import nearest_torch, process_group
from sidmill.quantize.rqvae import (
    checkpoints,
    data,
    distributed,
    init,
    measure,
    tracking,
    train,
)
from sidmill.quantize.rqvae.autoencoder import Autoencoder
from sidmill.quantize.rqvae.checkpoints import Figures, Progress
from sidmill.quantize.rqvae.init import Start
from sidmill.quantize.rqvae.train import State, Training
from sidmill.settings import base
from sidmill.settings.quantize import Rqvae

logger = logging.getLogger(__name__)

WORKER = "sidmill.quantize.rqvae.fit:train_worker"

# Settings that no weight depends on: what was trained on is named by its digest, processes apart.
NO_WEIGHTS = ("data_paths", "pairs_path", "choose", "save_limit", "tracking", "processes")


class Inputs(NamedTuple):
    """What a training reads, in addition to ``rqvae.data_paths`` and ``rqvae.pairs_path``.

    Attributes:
        vectors: of the items, float32 or float16 (N, D): .npy, .h5 (item_data.h5) or parquet.
        fingerprint: of the vectors; ``rqvae.data_paths`` must have the same, if any.
        ids: ids.parquet of the vectors, for the pairs.
        sequences: sequences.parquet, for the pairs, or None.
        warm_start: a quantizer.safetensors without encoder: start from its codebooks, with an
            encoder that is the identity. Codebook sizes, e_dim, skip and kmeans_init do not count.
        grid_steps: steps of each dimension of a level: finite scalar quantization, on as many
            levels as ``rqvae.codebook_sizes`` has. Settings of codebooks do not count.
        match: match.parquet, to start the codebooks from published codes of the items, or None.
        ledger: ledger.parquet with these codes, or None.
    """

    vectors: list[str]
    fingerprint: dict[str, Any]
    ids: str | None = None
    sequences: str | None = None
    warm_start: str | None = None
    grid_steps: list[int] | None = None
    match: str | None = None
    ledger: str | None = None


class Run(NamedTuple):
    """One run of a training.

    Attributes:
        folder: of the checkpoints and metrics.csv; stays after the training.
        seed: covers every random draw.
        code: names the code; checkpoints of other code are not used.
    """

    folder: str
    seed: int
    code: str


class Trained(NamedTuple):
    """Codebooks float32 (K_l, d), both networks, and the figures of the checkpoint."""

    codebooks: list[np.ndarray]
    encoder: Network
    decoder: Network
    figures: Figures


class Loop(NamedTuple):
    """What the epochs of a training have in common: data, folders, identity, log."""

    training: Training
    folder: Path
    scratch: Path
    identity: dict[str, Any]
    log: tracking.Log


def fit(inputs: Inputs, settings: Rqvae, run: Run) -> Trained:
    """Train an RQ-VAE, or continue an interrupted training.

    The same files, settings, seed and thread count give the same bytes on the same kind of machine,
    interrupted or not, for any ``memory_mb``. A GPU adds floats in another order than a CPU does,
    and with ``precision: auto`` it multiplies in bfloat16: the weights of the network differ there.

    Memory: the vectors where they fit in ``memory_mb``, otherwise one block and one batch; the
    network four times (weights, gradients, two moments); about 20 bytes per row; k-means over the
    latents takes what its codebooks need, at most ``init.KMEANS_MEMORY_MB``.

    Args:
        inputs: files, and the codebooks to begin from.
        settings: section ``rqvae``.
        run: folder, seed and code.

    Raises:
        SidmillError: if settings or files do not fit, or the loss is no longer finite.
    """
    check_settings(settings)
    _remove_scratch(run)  # of a run that was killed
    if settings.processes == 1:
        _train(inputs, settings, run, None)
    else:
        _train_in_processes(inputs, settings, run)
    return _read_trained(inputs, settings, run)


def train_worker(
    inputs: dict[str, Any],
    settings: dict[str, Any],
    run: dict[str, Any],
    member: dict[str, Any] | None,
) -> None:
    """Train in one process of several, or alone; the arguments are JSON."""
    section = base.read(Rqvae, settings)
    _train(Inputs(**inputs), section, Run(**run), Member(**member) if member else None)


def check_settings(settings: Rqvae) -> None:
    """Refuse settings that no RQ-VAE can be fitted with, because they contradict each other.

    Raises:
        SidmillError: naming the setting.
    """
    n_levels = len(settings.codebook_sizes)
    if len(settings.sk_epsilons) not in (0, n_levels):
        raise SidmillError(
            f"rqvae.sk_epsilons lists {len(settings.sk_epsilons)} numbers for {n_levels} levels: "
            "give one per level (0 for the nearest codeword), or [] for none"
        )
    if settings.warmup_epochs >= settings.epochs:
        raise SidmillError(
            f"rqvae.warmup_epochs is {settings.warmup_epochs} of {settings.epochs} epochs: the "
            "learning rate would never be reached; lower it"
        )
    if settings.autoencoder_epochs >= settings.epochs:
        raise SidmillError(
            f"rqvae.autoencoder_epochs is {settings.autoencoder_epochs} of {settings.epochs} "
            "epochs: nothing would be quantized; lower it"
        )


def check_rows(settings: Rqvae, n_training: int, n_rows: int, *, needs_kmeans: bool) -> None:
    """Refuse an RQ-VAE training that would run out of rows, before anything is trained.

    Args:
        settings: of the training.
        n_training: rows to train on.
        n_rows: rows in all.
        needs_kmeans: whether the codebooks begin at k-means, which needs a row per codeword.

    Raises:
        SidmillError: naming the setting to change, and to what.
    """
    # rows: losses compare those of a batch with each other, in each process
    n_processes = settings.processes
    least = data.MIN_BATCH_ROWS * n_processes
    if n_training < data.MIN_BATCH_ROWS:
        remedy = "" if n_rows < data.MIN_BATCH_ROWS else ", or set rqvae.test_ratio to 0"
        raise SidmillError(
            f"{n_training} of {n_rows} vectors to train on, and a training needs "
            f"{data.MIN_BATCH_ROWS}: embed more items{remedy}"
        )
    if n_training < least:
        raise SidmillError(
            f"{n_training} of {n_rows} vectors to train on for {n_processes} processes, each of "
            f"which needs {data.MIN_BATCH_ROWS} of a batch: lower rqvae.processes to at most "
            f"{n_training // data.MIN_BATCH_ROWS}"
        )
    if settings.batch_size < least:
        raise SidmillError(
            f"rqvae.batch_size is {settings.batch_size} for {n_processes} processes, each of which "
            f"needs {data.MIN_BATCH_ROWS} rows of a batch: raise it to at least {least}"
        )

    # codewords: k-means begins with a row for each
    largest = max(settings.codebook_sizes)
    if not needs_kmeans or settings.kmeans_init == "none":
        return
    if n_training < largest:
        raise SidmillError(
            f"{n_training} of {n_rows} vectors to train on cannot fill {largest} codewords: lower "
            f"rqvae.codebook_sizes to at most {n_training}, or set rqvae.kmeans_init to none"
        )
    if settings.kmeans_init == "first_batch" and settings.batch_size < largest:
        raise SidmillError(
            f"a first batch of {settings.batch_size} vectors cannot start {largest} codewords: "
            f"lower rqvae.codebook_sizes to at most {settings.batch_size}, or set "
            f"rqvae.kmeans_init to full"
        )


def _train_in_processes(inputs: Inputs, settings: Rqvae, run: Run) -> None:
    """Train in ``settings.processes`` processes; the checkpoints stay in ``run.folder``."""
    distributed.check_devices(settings.processes, settings.device)
    arguments = {
        "inputs": inputs._asdict(),
        "settings": asdict(settings),
        "run": run._asdict(),
    }
    try:
        rendezvous.run(WORKER, arguments, settings.processes, task=f"train {run.folder}")
    finally:
        _remove_scratch(run)  # of processes that were ended because another one failed


def _remove_scratch(run: Run) -> None:
    for scratch in Path(run.folder).glob(".scratch-*"):
        shutil.rmtree(scratch, ignore_errors=True)


def _train(inputs: Inputs, settings: Rqvae, run: Run, member: Member | None) -> None:
    """Train in this process, the only one or one of several; everything stays in checkpoints."""
    scratch = Path(run.folder, f".scratch-{member.rank if member else 0}")
    scratch.mkdir(parents=True, exist_ok=True)

    # One of several processes takes the GPU of its number.
    device = nearest_torch.pick_device(settings.device)
    if member:
        device = torch.device(device.type)
    try:
        with (
            process_group.joined(member, device, distributed.TIMEOUT) as group,
            _deterministic(device),
        ):
            start = init.find_start(settings, inputs.warm_start, inputs.grid_steps)
            rows = data.open_rows(
                _files(inputs, settings), scratch, group.device, settings.memory_mb
            )
            held_out = data.held_out(rows.shape[0], settings.test_ratio, run.seed)
            pairs = _read_pairs(inputs, settings)
            known = catalogue_match.published_codes(inputs.match, inputs.ledger)
            training = Training(
                start.settings, run.seed, rows, held_out, pairs, device, group, known
            )
            _check_start(start, training, inputs)
            _train_from(start, training, run, scratch)
    finally:
        shutil.rmtree(scratch)


def _read_trained(inputs: Inputs, settings: Rqvae, run: Run) -> Trained:
    """Read the checkpoint of a finished training that becomes the quantizer."""
    start = init.find_start(settings, inputs.warm_start, inputs.grid_steps)
    dim = data.dimension(_files(inputs, settings)[0])
    model = Autoencoder(dim, start.settings, start.kind)
    figures = checkpoints.load_chosen(Path(run.folder), settings.choose, model)
    model.eval()
    logger.info("%s becomes the quantizer: %s", settings.choose, figures)
    return Trained(*model.exported(), figures)


@contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    """Make a CPU of many threads sum the gradients of repeated rows in one order.

    On a GPU torch sorts before it sums them, and all other sums of rows here have an order of their
    own: the mode would ask for settings of cuBLAS that only the environment can make.
    """
    mode: Any = torch.utils.deterministic
    before, fills = torch.are_deterministic_algorithms_enabled(), mode.fill_uninitialized_memory
    torch.use_deterministic_algorithms(before or device.type == "cpu")
    mode.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        mode.fill_uninitialized_memory = fills


def _files(inputs: Inputs, settings: Rqvae) -> list[str]:
    """List the files of vectors to train on: ``rqvae.data_paths``, or the items' own."""
    files = data.find_files(settings.data_paths, inputs.fingerprint) or inputs.vectors
    dim, items_dim = data.dimension(files[0]), data.dimension(inputs.vectors[0])
    if dim != items_dim:
        raise SidmillError(
            f"{files[0]} has {dim} dimensions, the items have {items_dim}: name vectors of the "
            f"same model in rqvae.data_paths"
        )
    return files


def _read_pairs(inputs: Inputs, settings: Rqvae) -> np.ndarray | None:
    """Read pairs of items consumed together, int64 (P, 2), where a loss needs them."""
    if not settings.contrastive_weight:
        return None
    path = settings.pairs_path or inputs.sequences
    if path is None or inputs.ids is None or settings.data_paths:
        raise SidmillError(
            "rqvae.contrastive_weight needs pairs of the items that are trained on: name them in "
            "rqvae.pairs_path or interactions.path, and leave rqvae.data_paths empty"
        )
    return data.read_pairs(path, inputs.ids)


def _check_start(start: Start, training: Training, inputs: Inputs) -> None:
    """Refuse vectors that the first codebooks do not fit."""
    settings = start.settings
    n_rows, dim = training.rows.shape
    if start.kind == "warm" and settings.e_dim != dim:
        raise SidmillError(
            f"{inputs.warm_start} has codewords of {settings.e_dim} dimensions, the vectors to "
            f"train on have {dim}: start from a quantizer of these vectors"
        )
    if start.kind != "warm" and settings.e_dim > dim and settings.skip == "pca":
        raise SidmillError(
            f"{settings.e_dim} latent dimensions, and the vectors have {dim}: lower rqvae.e_dim "
            "(with fsq the number of fsq.steps), or set rqvae.skip to none"
        )
    needs_kmeans = start.kind != "warm"
    check_rows(settings, len(training.training_rows), n_rows, needs_kmeans=needs_kmeans)


def _train_from(start: Start, training: Training, run: Run, scratch: Path) -> None:
    """Make the model, load an earlier run's checkpoint, and run the epochs that remain."""
    settings, group, device = training.settings, training.group, training.device
    rows, held_out = training.rows, training.held_out

    # the model of epoch 0, the same in all processes
    torch.manual_seed(training.seed)
    model = Autoencoder(rows.shape[1], settings, start.kind).to(device)
    rows_digest = init.scale(model, rows, held_out, device)
    init.set_codebooks(model, start, rows, held_out, device)
    distributed.broadcast(model.state_dict().values(), group)
    state = train.make_state(model, settings)

    # an earlier run of the same training
    folder = Path(run.folder)
    identity = _identity(start, training, run, rows_digest)
    is_first = group.rank == 0
    progress = checkpoints.load(folder, state, identity, settings, is_first=is_first)
    distributed.barrier(group)
    if start.kind == "warm" and not progress.epoch:
        progress = progress._replace(quantizing=True)

    # the epochs that remain
    if progress.epoch < settings.epochs:
        log_to: AbstractContextManager[tracking.Log] = nullcontext(_log_nothing)
        if is_first:
            n_levels, facts = len(model.codebooks), identity["settings"]
            log_to = tracking.opened(folder, n_levels, progress.epoch, settings.tracking, facts)
        with log_to as log:
            loop = Loop(training, folder, scratch, identity, log)
            _run_epochs(state, progress, loop)
    distributed.barrier(group)


def _run_epochs(state: State, progress: Progress, loop: Loop) -> None:
    """Run the epochs that remain; measure, log and save every ``eval_step`` of them."""
    training, settings = loop.training, loop.training.settings
    is_first = training.group.rank == 0
    unlogged: list[tracking.Row] = []
    start_time, start_epoch = time.perf_counter(), progress.epoch
    colliding = data.NO_PAIRS
    if progress.quantizing and progress.epoch:
        colliding = _find_colliding(state, training)
    bar = tqdm(
        total=settings.epochs,
        initial=progress.epoch,
        unit="epoch",
        disable=None if is_first else True,
    )

    for epoch in range(progress.epoch, settings.epochs):
        # the first codebooks, once the autoencoder is trained
        if not progress.quantizing and epoch >= settings.autoencoder_epochs:
            init.fit_codebooks(state.model, training, loop.scratch)
            codebooks = [codebook.data for codebook in state.model.codebooks]
            distributed.broadcast(codebooks, training.group)
            train.restart_averages(state)
            progress = progress._replace(quantizing=True)
            colliding = _find_colliding(state, training)

        try:
            figures = train.run_epoch(
                state, training, colliding, epoch=epoch, quantizing=progress.quantizing
            )
        except train.NotFiniteError as error:
            message = _not_finite(error.args[0], epoch + 1, progress, loop)
            raise SidmillError(message) from None
        row = {"epoch": epoch + 1, "lr": train.learning_rate(settings, epoch + 1), **figures}
        unlogged.append(row)
        bar.update()
        if (epoch + 1) % settings.eval_step and epoch + 1 < settings.epochs:
            continue

        # measure in all processes: each needs the pairs that collide
        progress = progress._replace(epoch=epoch + 1)
        measured = None
        if progress.quantizing:
            measured, codes = measure.measure(
                state.model, training.rows, training.held_out, training.device
            )
            colliding = data.colliding_pairs(codes, ~training.held_out)
            row.update(measured)
            bar.set_postfix(
                loss=f"{row['loss']:.4f}", collisions=f"{measured['collision_rate']:.4f}"
            )

        # log and save in the first process
        if is_first:
            loop.log(unlogged)
            progress = checkpoints.save(
                loop.folder, state, progress, measured, loop.identity, settings.save_limit
            )
            _log_row(row, (epoch + 1 - start_epoch) / (time.perf_counter() - start_time))
        unlogged = []
    bar.close()


def _find_colliding(state: State, training: Training) -> np.ndarray:
    """Return training rows that share all codes, int64 (C, 2), where a loss separates them."""
    if not training.settings.repulsion_weight:
        return data.NO_PAIRS
    _, codes = measure.measure(state.model, training.rows, training.held_out, training.device)
    return data.colliding_pairs(codes, ~training.held_out)


def _not_finite(step: int, epoch: int, progress: Progress, loop: Loop) -> str:
    """Say what remains after a loss that is not finite, and which settings to change."""
    settings = loop.training.settings
    kept = "no checkpoint was saved before it"
    if progress.epoch:
        kept = (
            f"the last good checkpoint is {loop.folder / 'last.safetensors'} of epoch "
            f"{progress.epoch}"
        )
    clip = "" if 0 < settings.clip <= 1 else ", or set rqvae.clip to 1"
    return (
        f"the loss is not finite at step {step} of epoch {epoch}: {kept}; lower rqvae.lr "
        f"(it is {settings.lr:g}){clip}"
    )


def _log_row(row: tracking.Row, speed: float) -> None:
    shown = ("loss", "reconstruction", "heldout_relative", "collision_rate", "restarted")
    figures = ", ".join(f"{name} {row[name]:.4g}" for name in shown if name in row)
    logger.info("epoch %d: %s, %.2f epochs/s", row["epoch"], figures, speed)


def _identity(start: Start, training: Training, run: Run, rows_digest: str) -> dict[str, Any]:
    """Name everything that the weights depend on.

    A training of constant rate is the beginning of a longer one: ``checkpoints.load`` checks
    whether its checkpoint is one that the longer one passes.
    """
    settings = base.identity(start.settings) | {"seed": run.seed}
    settings = {key: value for key, value in settings.items() if key not in NO_WEIGHTS}
    if start.kind == "warm":
        settings["skip"] = "identity"
    if start.kind == "grid":
        settings["codebook_update"] = "none"
    if start.settings.schedule == "constant":
        del settings["epochs"]

    pairs = training.pairs
    return {
        "settings": settings,
        "code": run.code,
        "data": [*training.rows.shape, rows_digest],
        "pairs": None if pairs is None else [len(pairs), data.digest([pairs])],
        "grid": start.grid_steps,
        "warm_start": data.digest(start.codebooks) if start.kind == "warm" else None,
        "known": None if training.known is None else data.digest([training.known]),
        "processes": training.group.size,
    }


def _log_nothing(rows: list[tracking.Row]) -> None:
    """Take rows of a process that does not log."""
