"""All items in the space that a quantizer's codebooks are in.

Shapes: N rows, D dimensions of the vectors, d of the codebooks.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from sidmill.formats import vector_store
from sidmill.formats.quantizer_file import Network, Quantizer
from sidmill.numeric import mlp, row_blocks


@contextmanager
def projected(
    vectors: np.ndarray,
    quantizer: Quantizer,
    codes: np.ndarray,
    folder: str | Path,
    *,
    device: str,
    memory_mb: int,
) -> Iterator[np.ndarray]:
    """Give the latents of all rows; without an encoder these are the vectors themselves.

    Memory: one block. Disk: 4 N d bytes while the block of code runs.

    Args:
        vectors: float32 or float16 (N, D), in memory or memory-mapped.
        quantizer: its encoder, from D to d, or none. With categories the encoder takes vectors less
            the codewords of the first level, and the first codebook says where the latents lie.
        codes: int32 (N, L), of the quantizer.
        folder: where the latents lie meanwhile.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        memory_mb: MiB for one block with its temporaries.

    Yields:
        float32 (N, d), a memory map; without an encoder ``vectors``.

    Raises:
        SidmillError: if a row is not finite, or ``memory_mb`` is too small.
    """
    if quantizer.encoder is None:
        yield vectors
        return
    shape = (len(vectors), len(quantizer.encoder.weights[-1]))
    with tempfile.TemporaryDirectory(prefix=".latents-", dir=folder) as scratch:
        path = Path(scratch, "latents.npy")
        rows = of_items(vectors, quantizer, codes, device, memory_mb)
        vector_store.write(path, shape, "float32", rows)
        yield vector_store.open_npy(path)


def of_items(
    vectors: np.ndarray, quantizer: Quantizer, codes: np.ndarray, device: str, memory_mb: int
) -> Iterator[np.ndarray]:
    """Yield the latents of all items in order, float32 (b, d); see :func:`projected`."""
    if quantizer.encoder is None:
        raise TypeError("a quantizer without an encoder has no latents")
    if quantizer.categories is None:
        yield from blocks(vectors, quantizer.encoder, device, memory_mb)
        return
    row = 0
    own = codes[:, 0]
    codewords = quantizer.categories.codewords
    for latents in blocks(vectors, quantizer.encoder, device, memory_mb, (own, codewords)):
        yield latents + quantizer.codebooks[0][own[row : row + len(latents)]]
        row += len(latents)


def blocks(
    vectors: np.ndarray,
    encoder: Network,
    device: str,
    memory_mb: int,
    first: tuple[np.ndarray, np.ndarray] | None = None,
) -> Iterator[np.ndarray]:
    """Yield the latents of all rows in order, float32 (b, d); overwritten by the next block.

    ``first`` has codes (N,) and codewords (K, D) that are taken off the rows, or is None.
    """
    from sidmill.numeric import nearest_torch

    project = mlp.load(encoder, nearest_torch.pick_devices(device)[0])
    n_rows = row_blocks.rows_per_block(max(vectors.shape[1], encoder.width), 0, memory_mb)
    for start, block in row_blocks.read_blocks(vectors, min(n_rows, row_blocks.MAX_BLOCK_ROWS)):
        row_blocks.require_finite(block, start)
        if first is not None:
            block = block - first[1][first[0][start : start + len(block)]]
        yield project(block).cpu().numpy()
