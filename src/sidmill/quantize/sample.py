"""A sample of the vectors that fits in memory.

Shapes: N items, n sampled, D dimensions.
"""

import numpy as np

from sidmill.numeric import row_blocks

COPIES = 4  # of the sample: as read, rotated, decoded, and the library's own


def draw(
    vectors: np.ndarray, n_rows: int, generator: np.random.Generator, memory_mb: int
) -> np.ndarray:
    """Draw rows without replacement, in row order: all of them where they fit.

    Args:
        vectors: float32 or float16 (N, D), finite, in memory or memory-mapped.
        n_rows: how many, at most.
        generator: draws them.
        memory_mb: MiB for the sample and what is made of it.

    Returns:
        float32 (n, D), a copy.

    Raises:
        SidmillError: if a row is not finite, or out of range, or all of them are too short.
    """
    n_items, dim = vectors.shape
    n_rows = min(
        n_rows, n_items, memory_mb * row_blocks.MIB // (COPIES * row_blocks.FLOAT_BYTES * dim)
    )
    chosen = None
    if n_rows < n_items:
        chosen = np.sort(generator.choice(n_items, size=n_rows, replace=False))
    sample = np.empty((n_rows, dim), dtype=np.float32)
    for start, block in row_blocks.read_blocks(vectors, row_blocks.MAX_BLOCK_ROWS, chosen):
        row_blocks.require_finite(block, start)
        sample[start : start + len(block)] = block
    if len(sample):
        row_blocks.require_squares(float(row_blocks.largest_values(sample).max()))
    return sample


def memory_for(n_rows: int, dim: int) -> int:
    """MiB that a sample of so many rows and what is made of it take."""
    return -(-COPIES * row_blocks.FLOAT_BYTES * dim * n_rows // row_blocks.MIB)
