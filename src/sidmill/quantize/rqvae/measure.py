"""What a state of the training is worth: figures over all rows, in eval mode.

Shapes: N rows, D dimensions, L levels.
"""

import numpy as np
import torch

from sidmill.quantize.rqvae import data, nearest
from sidmill.quantize.rqvae.autoencoder import Autoencoder
from sidmill.quantize.rqvae.data import Rows


@torch.no_grad()
def measure(
    model: Autoencoder, rows: Rows, held: np.ndarray, device: torch.device
) -> tuple[dict[str, float], np.ndarray]:
    """Measure codes over all rows, and reconstruction over those that never trained.

    Without held-out rows the reconstruction is that of all. Memory: one block, and 4 L bytes a row.

    Args:
        model: set to eval mode and back.
        rows: all N.
        held: bool (N,), rows held out.
        device: of the model.

    Returns:
        ``heldout_mse`` per component and ``heldout_relative`` to the squared length, in the space
        of the vectors (left out where all those rows are zeros: there is no length);
        ``collision_rate`` (N - distinct) / N; ``utilisation_{l}``, l from 1. And the codes, int32
        (N, L).
    """
    model.eval()
    codes = np.empty((rows.shape[0], len(model.codebooks)), dtype=np.int32)
    judged = held if held.any() else ~held
    error = energy = 0.0
    for start, block in data.blocks(rows, device):
        left = latents = model.encode(model.scaled(block))
        for level, words in enumerate(model.codebooks):
            code = nearest.nearest(left, words)
            codes[start : start + len(block), level] = code.cpu().numpy()
            left = left - words[code]
        wanted = torch.from_numpy(judged[start : start + len(block)]).to(device)
        if wanted.any():
            goal = block[wanted]
            found = model.decode((latents - left)[wanted]) * model.scale + model.mean
            error += float((found.double() - goal).square().sum())
            energy += float(goal.double().square().sum())  # float32 squares end at 3e38
    model.train()
    used = [len(np.unique(column)) for column in codes.T]
    figures = {
        "heldout_mse": error / (int(judged.sum()) * rows.shape[1]),
        **({"heldout_relative": error / energy} if energy else {}),
        "collision_rate": 1 - len(np.unique(codes, axis=0)) / len(codes),
        **{
            f"utilisation_{level + 1}": n_used / len(model.codebooks[level])
            for level, n_used in enumerate(used)
        },
    }
    return figures, codes
