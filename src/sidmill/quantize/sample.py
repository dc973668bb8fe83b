"""A sample of the vectors, held in memory.

Shapes: N items, n sampled, D dimensions.
"""

from typing import NamedTuple

import numpy as np

from sidmill.core.errors import SidmillError
from sidmill.numeric import row_blocks

COPIES = 4  # of the sample: as read, rotated, decoded, and the library's own


class Memory(NamedTuple):
    """The memory for a sample, and the settings that messages name."""

    memory_mb: int
    memory_key: str
    rows_key: str


def draw(
    vectors: np.ndarray, n_rows: int, generator: np.random.Generator, memory: Memory
) -> np.ndarray:
    """Draw a sample of vectors without replacement, in row order: all where there are not more.

    Args:
        vectors: float32 or float16 (N, D), finite, in memory or memory-mapped.
        n_rows: how many, at most.
        generator: draws them.
        memory: for the sample and its copies. It does not change the sample.

    Returns:
        float32 (n, D), a copy.

    Raises:
        SidmillError: if the memory is too small, a row is not finite, or out of range, or all of
            them are too short.
    """
    # The rows asked for decide the sample; memory that cannot hold them is refused.
    n_items, dim = vectors.shape
    n_rows = min(n_rows, n_items)
    needed = memory_for(n_rows, dim)
    if memory.memory_mb < needed:
        raise SidmillError(
            f"{memory.memory_key} {memory.memory_mb} is too small for a sample of {n_rows} "
            f"vectors of {dim} dimensions: raise {memory.memory_key} to at least {needed}, or "
            f"lower {memory.rows_key}"
        )

    # Read the chosen rows, block by block.
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
    """MiB that a sample of ``n_rows`` and its copies take."""
    return -(-COPIES * row_blocks.FLOAT_BYTES * dim * n_rows // row_blocks.MIB)
