"""Give clusters without members the rows that lie furthest from their centroids.

Shapes: n training rows, D dimensions, K clusters, b rows of one block.
"""

import logging

import numpy as np

from sidmill.numeric import arrays
from sidmill.numeric.arrays import Array
from sidmill.numeric.row_pieces import Piece
from sidmill.quantize import lloyd, residual_rows, shared_blocks
from sidmill.quantize.lloyd import Clusters
from sidmill.quantize.residual_rows import Source
from sidmill.quantize.shared_blocks import SharedBlock

logger = logging.getLogger(__name__)

AT_ONCE = 64  # further empty clusters wait for the next pass


def fill_empty(source: Source, clusters: Clusters, codes: np.ndarray) -> None:
    """Move the furthest rows into empty clusters, one each; reads every row if there are any.

    A row that equals its centroid does not move: with fewer distinct rows than clusters, some
    clusters stay empty.

    Args:
        source: the training rows.
        clusters: updated in place, centroids included.
        codes: unsigned integers (n,), the assignment; updated in place.
    """
    empty = arrays.positions(clusters.counts == 0)[:AT_ONCE]
    if not len(empty):
        return

    # Collect the rows that lie furthest from their centroids, block by block.
    distances: list[Array] = []
    rows: list[Array] = []
    candidates: list[Array] = []
    for span, pieces in residual_rows.pieces(source):
        shared = residual_rows.shared_block(source, span)
        distance = _distances(shared, pieces, clusters, codes)
        values, numbers = arrays.largest(distance, min(len(empty), len(distance)))
        distances.append(values)
        rows.append(numbers + span.start)
        candidates.append(_rows(shared, pieces, numbers, clusters))
        concatenate = arrays.of(distance).concatenate
        furthest = arrays.descending(concatenate(distances))[: len(empty)]
        distances = [concatenate(distances)[furthest]]
        rows = [concatenate(rows)[furthest]]
        candidates = [concatenate(candidates)[furthest]]

    # Move one row into each empty cluster.
    moved = arrays.positions(distances[0] > 0)
    empty, vectors = empty[: len(moved)], candidates[0][moved]
    rows_moved = arrays.to_host(rows[0][moved])
    previous = arrays.from_host(codes[rows_moved].astype(np.int64), source.device)
    lloyd.move(clusters, [vectors], previous, empty)
    codes[rows_moved] = arrays.to_host(empty)
    lloyd.centre(clusters)
    logger.debug("filled %d empty clusters", len(empty))


def _distances(
    shared: SharedBlock, pieces: list[Piece], clusters: Clusters, codes: np.ndarray
) -> Array:
    """Squared distances of a block's rows from their centroids, float32 (b,).

    They are 0 where a cluster would lose its only row.
    """
    centroids, counts = clusters.centroids, clusters.counts
    device = arrays.device_of(centroids)
    found = []
    for (_, rows), span in zip(pieces, shared_blocks.own_spans(shared), strict=True):
        index = arrays.from_host(codes[span].astype(np.int64), device)
        difference = arrays.send(rows, device) - arrays.take(centroids, index)
        difference *= difference
        distance = difference.sum(axis=1)
        distance[counts[index] < 2] = 0.0
        found.append(distance)
    lengths = [span.stop - span.start for span in shared_blocks.piece_spans(shared)]
    return arrays.of(centroids).concatenate(
        shared_blocks.gather(shared, found, lengths, centroids[0])
    )


def _rows(shared: SharedBlock, pieces: list[Piece], chosen: Array, clusters: Clusters) -> Array:
    """Rows of a block by their numbers in it, int64 (c,), in that order: float32 (c, D)."""
    is_chosen = arrays.zeros([shared.stop - shared.start], arrays.device_of(chosen), "bool")
    is_chosen[chosen] = True
    own = [rows for _, rows in pieces]
    gathered = shared_blocks.gather_rows(shared, own, is_chosen, clusters.centroids)
    ascending = arrays.of(chosen).concatenate(gathered)
    return ascending[chosen.argsort().argsort()]
