"""Give clusters without members the rows that lie furthest from their centroids.

Shapes: n training rows, D dimensions, K clusters, b rows of one block.
"""

import logging

import numpy as np
import torch

from sidmill.numeric.nearest_torch import Piece
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
    empty = (clusters.counts == 0).nonzero()[:AT_ONCE, 0]
    if not len(empty):
        return

    # Collect the rows that lie furthest from their centroids, block by block.
    distances: list[torch.Tensor] = []
    rows: list[torch.Tensor] = []
    candidates: list[torch.Tensor] = []
    for span, pieces in residual_rows.pieces(source):
        shared = residual_rows.shared_block(source, span)
        distance = _distances(shared, pieces, clusters, codes)
        top = distance.topk(min(len(empty), len(distance)))
        distances.append(top.values)
        rows.append(top.indices + span.start)
        candidates.append(_rows(shared, pieces, top.indices, clusters))
        furthest = torch.cat(distances).sort(descending=True, stable=True).indices[: len(empty)]
        distances = [torch.cat(distances)[furthest]]
        rows = [torch.cat(rows)[furthest]]
        candidates = [torch.cat(candidates)[furthest]]

    # Move one row into each empty cluster.
    moved = (distances[0] > 0).nonzero()[:, 0]
    empty, vectors, rows_moved = empty[: len(moved)], candidates[0][moved], rows[0][moved].cpu()
    previous = torch.from_numpy(codes[rows_moved.numpy()].astype(np.int64)).to(source.device)
    lloyd.move(clusters, [vectors], previous, empty)
    codes[rows_moved.numpy()] = empty.cpu().numpy()
    lloyd.centre(clusters)
    logger.debug("filled %d empty clusters", len(empty))


def _distances(
    shared: SharedBlock, pieces: list[Piece], clusters: Clusters, codes: np.ndarray
) -> torch.Tensor:
    """Squared distances of a block's rows from their centroids, float32 (b,).

    They are 0 where a cluster would lose its only row.
    """
    centroids, counts = clusters.centroids, clusters.counts
    found = []
    for (_, rows), span in zip(pieces, shared_blocks.own_spans(shared), strict=True):
        index = torch.from_numpy(codes[span].astype(np.int64)).to(centroids.device)
        distance = rows.to(centroids.device) - centroids.index_select(0, index)
        found.append(distance.square_().sum(dim=1).masked_fill_(counts[index] < 2, 0.0))
    lengths = [span.stop - span.start for span in shared_blocks.piece_spans(shared)]
    return torch.cat(shared_blocks.gather(shared, found, lengths, centroids[0]))


def _rows(
    shared: SharedBlock, pieces: list[Piece], chosen: torch.Tensor, clusters: Clusters
) -> torch.Tensor:
    """Rows of a block by their numbers in it, int64 (c,), in that order: float32 (c, D)."""
    is_chosen = torch.zeros(shared.stop - shared.start, dtype=torch.bool, device=chosen.device)
    is_chosen[chosen] = True
    own = [rows for _, rows in pieces]
    ascending = torch.cat(shared_blocks.gather_rows(shared, own, is_chosen, clusters.centroids))
    return ascending[chosen.argsort().argsort()]
