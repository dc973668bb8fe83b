"""All items in the space that a quantizer's codebooks are in.

Shapes: N rows, D dimensions of the vectors, d of the codebooks.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from sidmill.formats import vector_store
from sidmill.formats.quantizer_file import Network
from sidmill.numeric import mlp, row_blocks


@contextmanager
def projected(
    vectors: np.ndarray, encoder: Network | None, folder: str | Path, *, device: str, memory_mb: int
) -> Iterator[np.ndarray]:
    """Give the latents of all rows; without an encoder these are the vectors themselves.

    Memory: one block. Disk: 4 N d bytes while the block of code runs.

    Args:
        vectors: float32 or float16 (N, D), in memory or memory-mapped.
        encoder: from D to d, or None.
        folder: where the latents lie meanwhile.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        memory_mb: MiB for one block with its temporaries.

    Yields:
        float32 (N, d), a memory map; without an encoder ``vectors``.

    Raises:
        SidmillError: if a row is not finite, or ``memory_mb`` is too small.
    """
    if encoder is None:
        yield vectors
        return
    shape = (len(vectors), len(encoder.weights[-1]))
    with tempfile.TemporaryDirectory(prefix=".latents-", dir=folder) as scratch:
        path = Path(scratch, "latents.npy")
        vector_store.write(path, shape, "float32", blocks(vectors, encoder, device, memory_mb))
        yield vector_store.open_npy(path)


def blocks(
    vectors: np.ndarray, encoder: Network, device: str, memory_mb: int
) -> Iterator[np.ndarray]:
    """Yield the latents of all rows in order, float32 (b, d); overwritten by the next block."""
    from sidmill.numeric import nearest_torch

    project = mlp.load(encoder, nearest_torch.pick_devices(device)[0])
    n_rows = row_blocks.rows_per_block(max(vectors.shape[1], encoder.width), 0, memory_mb)
    for start, block in row_blocks.read_blocks(vectors, min(n_rows, row_blocks.MAX_BLOCK_ROWS)):
        row_blocks.require_finite(block, start)
        yield project(block).cpu().numpy()
