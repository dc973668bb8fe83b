"""Give clusters without members the rows that lie furthest from their centroids.

Shapes: n training rows, D dimensions, K clusters, b rows of one block.
"""

import logging

import numpy as np
import torch

from sidmill.quantize import lloyd, residual_rows
from sidmill.quantize.lloyd import Clusters
from sidmill.quantize.residual_rows import Source

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
    for span, block in residual_rows.blocks(source):
        index = torch.from_numpy(codes[span].astype(np.int64)).to(source.device)
        distance = block - clusters.centroids.index_select(0, index)
        distance = distance.square_().sum(dim=1).masked_fill_(clusters.counts[index] < 2, 0.0)
        top = distance.topk(min(len(empty), len(block)))
        distances.append(top.values)
        rows.append(top.indices + span.start)
        candidates.append(block[top.indices])
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
