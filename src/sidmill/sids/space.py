"""What the errors of items are measured with: vectors, codebooks, squared distances.

Shapes: N items, L levels, K_l codes at level l, D dimensions, m items at once.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from sidmill.numeric import residual_codec, row_blocks

VALUES_AT_ONCE = 2**15  # of differences between residuals and codewords: they stay in the cache


class Codebook(NamedTuple):
    """A codebook as distances need it: codewords float64 (K, D), their squared norms (K,)."""

    codewords: np.ndarray
    squares: np.ndarray


@dataclass(frozen=True)
class Space:
    """What an item's error is measured with; ``rows[i]`` is the row of ``vectors`` of item i.

    Attributes:
        vectors: float (M, D), may be a memory map.
        rows: int64 (N,).
        codebooks: float32 (K_l, D) per level.
    """

    vectors: np.ndarray
    rows: np.ndarray
    codebooks: list[np.ndarray]
    _in_double: dict[int, Codebook] = field(default_factory=dict)

    def residuals(self, items: np.ndarray, prefix: np.ndarray) -> np.ndarray:
        """Residuals of items after a prefix, one for all or one each: float64 (m, D)."""
        target = row_blocks.take(self.vectors, self.rows[items]).astype(np.float64)
        residuals: np.ndarray = target - residual_codec.decode(
            np.atleast_2d(prefix), self.codebooks
        )
        return residuals

    def codebook(self, level: int) -> Codebook:
        """The codebook of a level in float64, converted once: that costs more than a few items."""
        if level not in self._in_double:
            self._in_double[level] = in_double(self.codebooks[level])
        return self._in_double[level]

    def distances(self, residuals: np.ndarray, level: int) -> tuple[np.ndarray, np.ndarray]:
        """Squared distances float64 (m, K) of residuals float64 (m, D) to a level's codewords.

        Equal rows have equal distances, which a matrix product does not promise: its rounding may
        depend on the position of a row. The second array, int64 (m,), has equal numbers for equal
        rows.
        """
        first, kind = kinds(residuals)
        if len(first) == len(residuals):
            return squared_distances(residuals, self.codebook(level)), kind
        return squared_distances(residuals[first], self.codebook(level))[kind], kind


def kinds(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the distinct rows by first occurrence: where each is first, and the number of all."""
    known: dict[bytes, int] = {}
    contiguous = np.ascontiguousarray(rows)
    kind = np.array([known.setdefault(row.tobytes(), len(known)) for row in contiguous], dtype=int)
    return np.unique(kind, return_index=True)[1], kind


def in_double(codewords: np.ndarray) -> Codebook:
    """Codewords float32 (K, D) as :func:`squared_distances` needs them."""
    values = codewords.astype(np.float64)
    return Codebook(values, np.square(values).sum(1))


def squared_distances(residuals: np.ndarray, codebook: Codebook) -> np.ndarray:
    """Squared distances float64 (m, K) of residuals float64 (m, D) to codewords."""
    norms = np.square(residuals).sum(1)[:, None]
    squares = norms + codebook.squares - 2.0 * residuals @ codebook.codewords.T
    distances: np.ndarray = np.maximum(squares, 0.0)
    return distances


def pair_errors(
    residuals: np.ndarray, codewords: np.ndarray, item: np.ndarray, code: np.ndarray
) -> np.ndarray:
    """Squared distances of pairs of a residual and a codeword: float64 (P,).

    Summed over the dimensions in an order that depends on D alone: pairs of equal residuals and
    codewords have equal distances.

    Args:
        residuals: float64 (m, D).
        codewords: float32 (K, D).
        item: int64 (P,), rows of ``residuals``.
        code: int64 (P,), rows of ``codewords``.
    """
    errors = np.empty(len(item))
    step = max(1, VALUES_AT_ONCE // codewords.shape[1])
    for start in range(0, len(item), step):
        batch = slice(start, start + step)
        differences = residuals[item[batch]]
        differences -= codewords[code[batch]]
        np.square(differences, out=differences).sum(axis=1, out=errors[batch])
    return errors
