"""Where a training starts: scale, weights, and codewords that are already of some use.

Shapes: N rows, n training rows, D dimensions, d latent dimensions, K_l codewords at level l.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import xxhash

from sidmill.core.errors import SidmillError
from sidmill.formats import vector_store
from sidmill.numeric import row_blocks
from sidmill.quantize import rqkmeans
from sidmill.quantize.rqvae import data, nearest, residual_quantizer
from sidmill.quantize.rqvae.autoencoder import Autoencoder
from sidmill.quantize.rqvae.data import Rows
from sidmill.quantize.rqvae.trials import Settings
from sidmill.settings.quantize import Rqkmeans

logger = logging.getLogger(__name__)

KMEANS_TOLERANCE = 0.0003
GRID_SPREAD = 0.58  # standard deviation of what fills -1 to 1 evenly


@torch.no_grad()
def scale(model: Autoencoder, rows: Rows, held: np.ndarray, device: torch.device) -> str:
    """Learn centre and scale of the training rows, and with ``skip: pca`` their main directions.

    Memory: one block, with ``pca`` a float64 (D, D). Every row is read once.

    Returns:
        The digest of all rows, in order, those held out included.

    Raises:
        SidmillError: if a row is not finite, or all rows are one.
    """
    n_rows, dim = 0, rows.shape[1]
    total = torch.zeros(dim, dtype=torch.float64, device=device)
    products = torch.zeros((dim, dim) if model.skip == "pca" else (), dtype=torch.float64)
    products = products.to(device)
    squares = 0.0
    digest = xxhash.xxh3_128()
    for start, block in data.blocks(rows, device):
        found = np.ascontiguousarray(block.cpu().numpy())
        row_blocks.require_finite(found, start)
        digest.update(found.data)
        block = block[torch.from_numpy(~held[start : start + len(block)]).to(device)].double()
        n_rows += len(block)
        total += block.sum(dim=0)
        squares += float(block.square().sum())
        if model.skip == "pca":
            products.addmm_(block.T, block)
    mean = total / n_rows
    spread = squares / n_rows - float(mean.square().sum())
    if not spread > 1e-12 * squares / n_rows:
        raise SidmillError("all training vectors are one and the same: check the embeddings")
    model.mean.copy_(mean)
    model.scale.fill_((spread / dim) ** 0.5)
    if model.skip == "pca":
        _, axes = torch.linalg.eigh(products / n_rows - torch.outer(mean, mean))
        axes = axes.flip(1)[:, : len(model.shortcut.weight)].T
        model.shortcut.weight.copy_(axes)
        model.way_back.weight.copy_(axes.T)
    return digest.hexdigest()


@torch.no_grad()
def copy_codewords(
    model: Autoencoder,
    codebooks: list[np.ndarray],
    rows: Rows,
    held: np.ndarray,
    device: torch.device,
) -> None:
    """Start from codebooks of the vectors' own space, in place of latents.

    They learned from every row. Each codeword moves to the mean of the training rows that choose
    it, level by level, so that what is held out has not taught it. Memory: one block.
    """
    for level, (words, given) in enumerate(zip(model.codebooks, codebooks, strict=True)):
        given = torch.from_numpy(given).to(words.device)
        words.copy_((given - model.mean if level == 0 else given) / model.scale)
        counts, sums = torch.zeros(len(words), device=device), torch.zeros_like(words)
        for start, block in data.blocks(rows, device):
            taught = torch.from_numpy(~held[start : start + len(block)]).to(device)
            left = model.encode(model.scaled(block[taught]))
            for earlier in model.codebooks[:level]:
                left = left - earlier[nearest.nearest(left, earlier)]
            found = residual_quantizer.count_and_sum(left, nearest.nearest(left, words), len(words))
            counts += found[0]
            sums += found[1]
        chosen = counts > 0
        words[chosen] = sums[chosen] / counts[chosen, None]


@torch.no_grad()
def lay_grid(
    model: Autoencoder,
    cells: list[np.ndarray],
    rows: Rows,
    held: np.ndarray,
    device: torch.device,
) -> None:
    """Take the cells of a grid as codewords; with ``skip: pca`` spread latents evenly over it.

    Each latent dimension starts with standard deviation ``GRID_SPREAD``. Memory: one block.
    """
    for words, given in zip(model.codebooks, cells, strict=True):
        words.copy_(torch.from_numpy(given))
    if model.skip != "pca":
        return
    squares = torch.zeros(len(model.shortcut.weight), dtype=torch.float64, device=device)
    for start, block in data.blocks(rows, device):
        taught = torch.from_numpy(~held[start : start + len(block)]).to(device)
        squares += model.shortcut(model.scaled(block[taught])).double().square().sum(dim=0)
    stretch = (GRID_SPREAD / (squares / (~held).sum()).sqrt().clamp(min=1e-6)).float()
    model.shortcut.weight.mul_(stretch[:, None])
    model.way_back.weight.div_(stretch)


@torch.no_grad()
def fit_codewords(
    model: Autoencoder,
    rows: Rows,
    training: np.ndarray,
    settings: Settings,
    scratch: str | Path,
    device: torch.device,
    memory_mb: int,
) -> None:
    """Set the codebooks by residual k-means over latents, as ``kmeans_init`` says.

    There must be a row for each codeword: ``settings.check_rows`` has seen to it.

    Args:
        model: its encoder as far as it is trained.
        rows: all N.
        training: int64, rows to take the latents of, ascending.
        settings: of the training.
        scratch: folder for the latents meanwhile: 4 n d bytes.
        device: of the model.
        memory_mb: MiB for k-means.
    """
    if settings.kmeans_init == "none":
        return
    if settings.kmeans_init == "first_batch":
        order = data.epoch_order(len(training), settings.seed, 0)
        training = np.sort(training[order[: settings.batch_size]])
    path = Path(scratch, "latents.npy")
    model.eval()
    vector_store.write(
        path, (len(training), settings.e_dim), "float32", _latents(model, rows, training, device)
    )
    model.train()
    fitted = rqkmeans.fit(
        vector_store.open_npy(path),
        Rqkmeans(
            n_levels=len(settings.codebook_sizes),
            codebook_size=settings.codebook_sizes,
            n_iter=settings.kmeans_iters,
            tolerance=KMEANS_TOLERANCE,
            device=str(device),
            memory_mb=memory_mb,
        ),
        seed=settings.seed,
    )
    path.unlink()
    for words, found in zip(model.codebooks, fitted.codebooks, strict=True):
        words.copy_(torch.from_numpy(found))
    logger.info("codebooks set by residual k-means over %d latents", len(training))


def _latents(
    model: Autoencoder, rows: Rows, training: np.ndarray, device: torch.device
) -> Iterator[np.ndarray]:
    for start in range(0, len(training), data.BLOCK_ROWS):
        block = data.take(rows, training[start : start + data.BLOCK_ROWS], device)
        yield model.encode(model.scaled(block)).cpu().numpy()
