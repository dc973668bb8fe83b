"""Give clusters without members the rows that lie furthest from their codewords.

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

    A row that equals its codeword moves nowhere: fewer distinct rows than codewords leave
    clusters empty.

    Args:
        source: the training rows.
        clusters: updated in place, words included.
        codes: unsigned integers (n,), the assignment; updated in place.
    """
    hollow = (clusters.counts == 0).nonzero()[:AT_ONCE, 0]
    if not len(hollow):
        return

    # Collect the rows that lie furthest from their codewords, block by block.
    apart: list[torch.Tensor] = []
    places: list[torch.Tensor] = []
    found: list[torch.Tensor] = []
    for part, block in residual_rows.blocks(source):
        index = torch.from_numpy(codes[part].astype(np.int64)).to(source.device)
        away = block - clusters.words.index_select(0, index)
        away = away.square_().sum(dim=1).masked_fill_(clusters.counts[index] < 2, 0.0)
        top = away.topk(min(len(hollow), len(block)))
        apart.append(top.values)
        places.append(top.indices + part.start)
        found.append(block[top.indices])
        best = torch.cat(apart).sort(descending=True, stable=True).indices[: len(hollow)]
        apart = [torch.cat(apart)[best]]
        places = [torch.cat(places)[best]]
        found = [torch.cat(found)[best]]

    # Move one row into each empty cluster.
    moving = (apart[0] > 0).nonzero()[:, 0]
    hollow, vectors, rows_moved = hollow[: len(moving)], found[0][moving], places[0][moving].cpu()
    before = torch.from_numpy(codes[rows_moved.numpy()].astype(np.int64)).to(source.device)
    lloyd.move(clusters, [vectors], before, hollow)
    codes[rows_moved.numpy()] = hollow.cpu().numpy()
    lloyd.centre(clusters)
    logger.debug("filled %d empty clusters", len(hollow))
