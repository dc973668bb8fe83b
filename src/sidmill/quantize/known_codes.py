"""The first assignment of a level of residual k-means, from codes that rows have already.

Codes that an earlier quantizer gave to the rows stand in for k-means++: each cluster begins at the
mean of the rows that have its code. The space of the vectors may be another one than that of the
earlier quantizer, since only the grouping of the rows counts.

Shapes: n training rows, D dimensions, K clusters, L levels, b rows of one block.
"""

import logging

import numpy as np

from sidmill.core.errors import SidmillError
from sidmill.numeric import arrays, nearest_pieces, row_pieces
from sidmill.numeric.arrays import Array
from sidmill.quantize import lloyd, reseed_empty, residual_rows
from sidmill.quantize.lloyd import Clusters
from sidmill.quantize.residual_rows import Source

logger = logging.getLogger(__name__)

UNKNOWN = -1  # the code of a row that the earlier quantizer did not encode


def of_level(known: np.ndarray, earlier: list[np.ndarray]) -> np.ndarray:
    """Codes of one level that still mean the same, int32 (n,); ``UNKNOWN`` for the other rows.

    A codeword of a level is a mean of residuals. The residual of a row is comparable with that of
    the earlier quantizer only where all codes before the level are the same.

    Args:
        known: int32 (n, L), of the earlier quantizer; ``UNKNOWN`` for rows without codes.
        earlier: (n,) per finished level, codes of this training.
    """
    level = len(earlier)
    if level >= known.shape[1]:
        return np.full(len(known), UNKNOWN, dtype=np.int32)
    agree = known[:, level] != UNKNOWN
    for number, codes in enumerate(earlier):
        agree &= known[:, number] == codes
    return np.where(agree, known[:, level], UNKNOWN).astype(np.int32)


def begin(source: Source, size: int, known: np.ndarray) -> tuple[Clusters, np.ndarray] | None:
    """Assign every training row: those with a code to it, the others to the nearest mean.

    Clusters that no row has a code of take the rows that are furthest from their means. Memory:
    one block. The rows are read twice, by each process where there are several, and once more for
    each 64 clusters without members.

    Args:
        source: the training rows.
        size: K.
        known: int32 (n,), below K; ``UNKNOWN`` where a row has no code.

    Returns:
        The clusters, and the assignment (n,); None where no row has a code.

    Raises:
        SidmillError: if a code is not below K.
    """
    if known.max(initial=UNKNOWN) >= size:
        raise SidmillError(
            f"the items have codes up to {known.max()}, and a level has {size} codewords: raise "
            f"its codebook size to at least {known.max() + 1}, or set published.refresh: align"
        )
    if (known == UNKNOWN).all():
        return None

    # Each cluster begins at the mean of the rows that have its code.
    zeros = arrays.zeros((size, source.vectors.shape[1]), source.device)
    clusters = lloyd.empty(zeros)
    codes = np.zeros(len(known), dtype=np.min_scalar_type(size - 1))
    for span, block in residual_rows.blocks(source):
        _join(clusters, block, known[span], known[span] != UNKNOWN)
    lloyd.centre(clusters)

    # The other rows join the nearest of these means: (b,) per block.
    occupied = arrays.positions(clusters.counts)
    means = clusters.centroids[occupied]
    halves = arrays.square_norms(means) / 2
    for span, block in residual_rows.blocks(source):
        labels = [
            nearest_pieces.lowest(nearest_pieces.score(piece, means, halves, None))
            for piece in arrays.split(block, row_pieces.PIECE_ROWS)
        ]
        nearest = arrays.to_host(occupied[arrays.of(means).concatenate(labels)])
        is_new = known[span] == UNKNOWN
        _join(clusters, block, nearest, is_new)
        codes[span] = np.where(is_new, nearest, known[span])
    lloyd.centre(clusters)

    # Clusters without members, while there are rows to move.
    for _ in range(-(-size // reseed_empty.AT_ONCE)):
        reseed_empty.fill_empty(source, clusters, codes)
    logger.info(
        "%d of %d rows begin at the code they have, in %d of %d clusters",
        (known != UNKNOWN).sum(),
        len(known),
        len(occupied),
        size,
    )
    return clusters, codes


def _join(clusters: Clusters, block: Array, codes: np.ndarray, chosen: np.ndarray) -> None:
    """Add the ``chosen`` (b,) rows of a block to sums and counts; centroids stay."""
    device, counts = arrays.device_of(block), clusters.counts
    rows = arrays.from_host(np.flatnonzero(chosen), device)
    labels = arrays.from_host(codes[chosen].astype(np.int64), device)
    arrays.add_rows(clusters.sums, arrays.take(block, rows), labels)
    counts += arrays.of(counts).bincount(labels, minlength=len(counts))
