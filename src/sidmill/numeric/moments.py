"""Mean and covariance of rows that are read block by block.

Shapes: n rows, D dimensions, b rows of one block. All sums are float64.
"""

from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from sidmill.formats.vector_file import Streamed
from sidmill.numeric import row_blocks

if TYPE_CHECKING:
    import torch

Array = TypeVar("Array", np.ndarray, "torch.Tensor")


class Moments(Generic[Array]):
    """Sums over rows, from which mean and covariance follow.

    The sums are numpy arrays, or tensors of one device; blocks are of the same kind. Blocks of the
    same sizes in the same order give the same bytes on the same machine and thread count.

    Args:
        total: float64 (D,), zeros: the sum of the rows.
        products: float64 (D, D), zeros: the sum of their outer products; None leaves it out, where
            no covariance is needed.
    """

    def __init__(self, total: Array, products: Array | None) -> None:
        """Start from zeros."""
        self.n_rows = 0
        self.total: Array = total
        self.products: Array | None = products
        self.squares = 0.0

    def add(self, block: Array) -> None:
        """Add the rows of a float64 (b, D) block; the block is not kept."""
        self.n_rows += len(block)
        self.total += block.sum(0)
        self.squares += float((block * block).sum())
        if self.products is None:
            return
        if isinstance(self.products, np.ndarray):
            self.products += block.T @ block
        else:
            self.products.addmm_(block.T, block)

    def mean(self) -> Array:
        """Mean of the rows, float64 (D,)."""
        mean: Array = self.total / self.n_rows
        return mean

    def mean_square(self) -> float:
        """Mean squared length of the rows."""
        return self.squares / self.n_rows

    def covariance(self) -> Array:
        """Covariance of the rows, divided by n: float64 (D, D)."""
        if self.products is None:
            raise ValueError("moments without products have no covariance")
        mean = self.mean()
        covariance: Array = self.products / self.n_rows - mean[:, None] * mean
        return covariance


def measure(vectors: np.ndarray | Streamed) -> "Moments[np.ndarray]":
    """Measure mean and covariance of all rows. Memory: two blocks of rows, two float64 (D, D).

    Args:
        vectors: float32 or float16 (N, D), in memory, memory-mapped or streamed.

    Raises:
        SidmillError: if a row is not finite or too long.
    """
    dim = vectors.shape[1]
    moments = Moments(np.zeros(dim), np.zeros((dim, dim)))
    for start, block in row_blocks.read_blocks(vectors, row_blocks.MAX_BLOCK_ROWS):
        row_blocks.require_finite(block, start)
        moments.add(block.astype(np.float64))
    return moments


def principal_axes(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Principal axes of a covariance, largest variance first.

    Args:
        covariance: float64 (D, D).

    Returns:
        Variances, float64 (D,), falling, none negative; and axes, float64 (D, D), as columns, the
        sign of each such that its largest value is positive.
    """
    variances, axes = np.linalg.eigh(covariance)
    axes *= np.where(axes[np.abs(axes).argmax(axis=0), range(len(axes))] < 0, -1, 1)
    return np.maximum(variances[::-1], 0.0), axes[:, ::-1]
