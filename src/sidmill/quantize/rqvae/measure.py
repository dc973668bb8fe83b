"""Figures of a model over all rows, in eval mode.

Shapes: N rows, D dimensions, L levels.
"""

import numpy as np
import torch

from sidmill.quantize.rqvae import data, residual_quantizer
from sidmill.quantize.rqvae.autoencoder import Autoencoder
from sidmill.quantize.rqvae.data import Rows


@torch.no_grad()
def measure(
    model: Autoencoder, rows: Rows, held_out: np.ndarray, device: torch.device
) -> tuple[dict[str, float], np.ndarray]:
    """Measure an RQ-VAE: codes over all rows, reconstruction over those that never train.

    Without held-out rows the reconstruction is that of all. Memory: one block, and 4 L bytes a row.

    Args:
        model: set to eval mode and back.
        rows: all N.
        held_out: bool (N,), rows held out.
        device: of the model.

    Returns:
        ``heldout_mse`` per component and ``heldout_relative`` to the squared length, in the space
        of the vectors (left out where all those rows are zeros: there is no length);
        ``collision_rate`` (N - distinct) / N; ``utilisation_{l}``, l from 1. And the codes, int32
        (N, L).
    """
    model.eval()
    codes = np.empty((rows.shape[0], len(model.codebooks)), dtype=np.int32)
    judged = held_out if held_out.any() else ~held_out
    error = energy = 0.0

    for start, block in data.blocks(rows, device):
        # codes of all rows of the block
        latents = residual = model.encode(model.scaled(block))
        for level, codebook in enumerate(model.codebooks):
            code = residual_quantizer.nearest(residual, codebook)
            codes[start : start + len(block), level] = code.cpu().numpy()
            residual = residual - codebook[code]

        # reconstruction of the judged rows
        chosen = torch.from_numpy(judged[start : start + len(block)]).to(device)
        if chosen.any():
            target = block[chosen]
            output = model.decode((latents - residual)[chosen]) * model.scale + model.mean
            error += float((output.double() - target).square().sum())
            energy += float(target.double().square().sum())  # float32 squares end at 3e38
    model.train()

    n_used = [len(np.unique(column)) for column in codes.T]
    figures = {
        "heldout_mse": error / (int(judged.sum()) * rows.shape[1]),
        **({"heldout_relative": error / energy} if energy else {}),
        "collision_rate": 1 - len(np.unique(codes, axis=0)) / len(codes),
        **{
            f"utilisation_{level + 1}": used / len(model.codebooks[level])
            for level, used in enumerate(n_used)
        },
    }
    return figures, codes
