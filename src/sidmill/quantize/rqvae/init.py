"""The beginning of a training: scale, weights, and the first codebooks.

Shapes: N rows, n training rows, D dimensions, d latent dimensions, K_l codewords at level l.
"""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import xxhash

from sidmill.core.errors import SidmillError
from sidmill.formats import quantizer_file, vector_store
from sidmill.numeric import moments, row_blocks
from sidmill.quantize import rqkmeans
from sidmill.quantize.rqvae import data, fsq, residual_quantizer
from sidmill.quantize.rqvae.autoencoder import Autoencoder, Kind
from sidmill.quantize.rqvae.data import Rows
from sidmill.quantize.rqvae.train import Training
from sidmill.settings.quantize import Rqkmeans, Rqvae

logger = logging.getLogger(__name__)

KMEANS_TOLERANCE = 0.0003
GRID_SPREAD = 0.58  # standard deviation of an even distribution between -1 and 1


class Start(NamedTuple):
    """What a training begins from.

    Attributes:
        kind: of the autoencoder.
        codebooks: float32 (K_l, d) per level, of another quantizer or of a grid; else empty.
        settings: of the training, with what those codebooks decide.
        grid_steps: steps of the grid, or None.
    """

    kind: Kind
    codebooks: list[np.ndarray]
    settings: Rqvae
    grid_steps: list[int] | None = None


def find_start(settings: Rqvae, warm_start: str | None, grid_steps: list[int] | None) -> Start:
    """Read or make the codebooks that an RQ-VAE training begins from, if there are any.

    Args:
        settings: of the config.
        warm_start: a quantizer.safetensors without encoder, or None.
        grid_steps: steps of finite scalar quantization, or None.
    """
    if warm_start:
        quantizer = quantizer_file.read(warm_start)
        codebooks = quantizer.codebooks[quantizer.categories is not None :]
        sizes = [len(codebook) for codebook in codebooks]
        adapted = replace(settings, codebook_sizes=sizes, e_dim=codebooks[0].shape[1])
        return Start("warm", codebooks, adapted)
    if grid_steps:
        grid = fsq.codebooks(steps=grid_steps, n_levels=len(settings.codebook_sizes))
        return Start("grid", grid, fsq.adapted(settings, grid), grid_steps)
    return Start("learned", [], settings)


def set_codebooks(
    model: Autoencoder, start: Start, rows: Rows, held_out: np.ndarray, device: torch.device
) -> None:
    """Put the codebooks that a training begins from into the RQ-VAE."""
    if start.kind == "warm":
        copy_codebooks(model, start.codebooks, rows, held_out, device)
    if start.kind == "grid":
        set_grid(model, start.codebooks, rows, held_out, device)


@torch.no_grad()
def scale(model: Autoencoder, rows: Rows, held_out: np.ndarray, device: torch.device) -> str:
    """Initialise centre and scale of an RQ-VAE from its rows; with ``skip: pca`` their main axes.

    Memory: one block, with ``pca`` a float64 (D, D). Every row is read once.

    Returns:
        The digest of all rows, in order, those held out included.

    Raises:
        SidmillError: if a row is not finite, or all rows are equal.
    """
    dim = rows.shape[1]
    total = torch.zeros(dim, dtype=torch.float64, device=device)
    products = None
    if model.skip == "pca":
        products = torch.zeros((dim, dim), dtype=torch.float64, device=device)
    measured = moments.Moments(total, products)
    digest = xxhash.xxh3_128()

    # one pass: the digest of all rows, sums of those to train on
    for start, block in data.blocks(rows, device):
        values = np.ascontiguousarray(block.cpu().numpy())
        row_blocks.require_finite(values, start)
        digest.update(values.data)
        measured.add(block[_trained_rows(held_out, start, block)].double())

    # centre and scale
    mean, mean_square = measured.mean(), measured.mean_square()
    variance = mean_square - float(mean.square().sum())  # of all dimensions together
    if not variance > 1e-12 * mean_square:
        raise SidmillError("all training vectors are equal: check the embeddings")
    model.mean.copy_(mean)
    model.scale.fill_((variance / dim) ** 0.5)

    # the d directions of largest variance, (d, D)
    if model.skip == "pca":
        _, axes = torch.linalg.eigh(measured.covariance())
        axes = axes.flip(1)[:, : len(model.shortcut.weight)].T
        model.shortcut.weight.copy_(axes)
        model.way_back.weight.copy_(axes.T)
    return digest.hexdigest()


@torch.no_grad()
def copy_codebooks(
    model: Autoencoder,
    codebooks: list[np.ndarray],
    rows: Rows,
    held_out: np.ndarray,
    device: torch.device,
) -> None:
    """Start an RQ-VAE from codebooks in the space of the vectors, which latents then share.

    They were fitted to every row. Each codeword moves to the mean of the training rows that choose
    it, level by level, so that no held-out row counts. Memory: one block.
    """
    for level, (codebook, copied) in enumerate(zip(model.codebooks, codebooks, strict=True)):
        # to the scale of the model's input; the first level carries the centre
        given = torch.from_numpy(copied).to(codebook.device)
        codebook.copy_((given - model.mean if level == 0 else given) / model.scale)

        # one step of k-means on the training rows
        counts, sums = torch.zeros(len(codebook), device=device), torch.zeros_like(codebook)
        for start, block in data.blocks(rows, device):
            residual = model.encode(model.scaled(block[_trained_rows(held_out, start, block)]))
            for earlier in model.codebooks[:level]:
                residual = residual - earlier[residual_quantizer.nearest(residual, earlier)]
            code = residual_quantizer.nearest(residual, codebook)
            more = residual_quantizer.count_and_sum(residual, code, len(codebook))
            counts += more[0]
            sums += more[1]
        chosen = counts > 0
        codebook[chosen] = sums[chosen] / counts[chosen, None]


@torch.no_grad()
def set_grid(
    model: Autoencoder,
    grid: list[np.ndarray],
    rows: Rows,
    held_out: np.ndarray,
    device: torch.device,
) -> None:
    """Take the cells of a grid as codewords; with ``skip: pca`` spread latents evenly over it.

    Each latent dimension starts with standard deviation ``GRID_SPREAD``. Memory: one block.
    """
    for codebook, cells in zip(model.codebooks, grid, strict=True):
        codebook.copy_(torch.from_numpy(cells))
    if model.skip != "pca":
        return

    # mean square of each latent dimension over the training rows, (d,)
    squares = torch.zeros(len(model.shortcut.weight), dtype=torch.float64, device=device)
    for start, block in data.blocks(rows, device):
        trained = model.scaled(block[_trained_rows(held_out, start, block)])
        squares += model.shortcut(trained).double().square().sum(dim=0)
    deviations = (squares / (~held_out).sum()).sqrt()
    stretch = (GRID_SPREAD / deviations.clamp(min=1e-6)).float()
    model.shortcut.weight.mul_(stretch[:, None])
    model.way_back.weight.div_(stretch)


@torch.no_grad()
def fit_codebooks(model: Autoencoder, training: Training, scratch: str | Path) -> None:
    """Set the codebooks by residual k-means over latents, as ``kmeans_init`` says.

    There must be a row for each codeword: ``fit.check_rows`` has checked it.

    Args:
        model: its encoder as far as it is trained.
        training: data and settings.
        scratch: folder for the latents meanwhile: 4 n d bytes.
    """
    settings = training.settings
    if settings.kmeans_init == "none":
        return
    rows = training.training_rows
    if settings.kmeans_init == "first_batch":
        order = data.epoch_order(len(rows), training.seed, 0)
        rows = np.sort(rows[order[: settings.batch_size]])

    # latents go through a file: they may be larger than memory
    path = Path(scratch, "latents.npy")
    model.eval()
    latents = _latents(model, training, rows)
    vector_store.write(path, (len(rows), settings.e_dim), "float32", latents)
    model.train()

    fitted = rqkmeans.fit(
        vector_store.open_npy(path),
        Rqkmeans(
            n_levels=len(settings.codebook_sizes),
            codebook_size=settings.codebook_sizes,
            n_iter=settings.kmeans_iters,
            tolerance=KMEANS_TOLERANCE,
            device=str(training.device),
            memory_mb=rqkmeans.memory_needed(len(rows), settings.e_dim, settings.codebook_sizes),
        ),
        seed=training.seed,
        known=None if training.known is None else training.known[rows],
    )
    path.unlink()
    for codebook, values in zip(model.codebooks, fitted.codebooks, strict=True):
        codebook.copy_(torch.from_numpy(values))
    logger.info("codebooks set by residual k-means over %d latents", len(rows))


def _trained_rows(held_out: np.ndarray, start: int, block: torch.Tensor) -> torch.Tensor:
    """Return which rows of a block are trained on: bool (b,)."""
    return torch.from_numpy(~held_out[start : start + len(block)]).to(block.device)


def _latents(model: Autoencoder, training: Training, rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), data.BLOCK_ROWS):
        chosen = rows[start : start + data.BLOCK_ROWS]
        block = data.take(training.rows, chosen, training.device)
        yield model.encode(model.scaled(block)).cpu().numpy()
