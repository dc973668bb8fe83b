"""Scores of a trained recommender: vectors of items and of users, and their products.

Shapes: N items, D dimensions, H of the model, q queries, T positions.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sidmill.recommend import sequence_model
from sidmill.recommend.checkpoint import Fitted
from sidmill.recommend.item_features import Items, Whitening, gather
from sidmill.recommend.rank import RowScores, Scorer, products
from sidmill.recommend.windows import Queries, pad

ITEM_BLOCK = 8192
USER_BLOCK = 256


class Inputs(NamedTuple):
    """What the model reads of some items.

    Attributes:
        vectors: float32 (n, D); (n, 0) where the model reads no text.
        numbers: int64 (n,), in [0, N).
        clusters: int64 (n,), the interest of each; None without interests.
    """

    vectors: Tensor
    numbers: Tensor
    clusters: Tensor | None


def read_inputs(
    model: sequence_model.SequenceModel,
    whitening: Whitening | None,
    items: Items,
    numbers: np.ndarray,
) -> Inputs:
    """Read what the model needs of some items, and move it to the model's device."""
    shape = model.shape
    device = model.item_norm.weight.device
    rows = torch.from_numpy(numbers.astype(np.int64)).to(device)
    if shape.features == "id" and not shape.n_interests:
        return Inputs(torch.zeros(len(numbers), 0, device=device), rows, None)
    vectors = torch.from_numpy(gather(items, whitening, numbers)).to(device)
    clusters = nearest(vectors, model.interest_vectors) if shape.n_interests else None
    return Inputs(vectors, rows, clusters)


def nearest(vectors: Tensor, centroids: Tensor) -> Tensor:
    """Number of the nearest centroid, int64 (n,)."""
    return (centroids.square().sum(dim=1) - 2 * vectors @ centroids.T).argmin(dim=1)


@torch.no_grad()
def item_blocks(fitted: Fitted, items: Items) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield item vectors float32 (n, H), not of unit length, and their interests, in order."""
    n_items = len(items.vectors)
    for start in range(0, n_items, ITEM_BLOCK):
        numbers = np.arange(start, min(start + ITEM_BLOCK, n_items))
        inputs = read_inputs(fitted.model, fitted.whitening, items, numbers)
        yield fitted.model.items(inputs.vectors, inputs.numbers), inputs.clusters


class Catalogue(NamedTuple):
    """Vectors of all items, as inputs and as targets.

    Attributes:
        inputs: float32 (N, H).
        targets: float32 (N, H), the same at unit length.
        clusters: int64 (N,), or None.
    """

    inputs: Tensor
    targets: Tensor
    clusters: Tensor | None


def catalogue(fitted: Fitted, items: Items) -> Catalogue:
    """Compute the vectors of all items. Memory: 8 N H bytes."""
    blocks = list(item_blocks(fitted, items))
    inputs = torch.cat([vectors for vectors, _ in blocks])
    interests = [clusters for _, clusters in blocks if clusters is not None]
    clusters = torch.cat(interests) if fitted.model.shape.n_interests else None
    return Catalogue(inputs, sequence_model.unit(inputs), clusters)


@torch.no_grad()
def user_vectors(fitted: Fitted, known: Catalogue, queries: Queries) -> Tensor:
    """Predict what the user of each query takes next: float32 (q, H), of unit length.

    The last ``max_length`` items of a history are read, as in training.
    """
    max_length = fitted.settings["max_length"]
    device = known.inputs.device

    # Histories of similar length share a block, so that there is little padding.
    begins = np.maximum(queries.begins, queries.positions - max_length)
    order = np.argsort(queries.positions - begins, kind="stable")

    vectors = known.inputs.new_empty(len(order), known.inputs.shape[1])
    for start in range(0, len(order), USER_BLOCK):
        rows = order[start : start + USER_BLOCK]
        numbers, lengths = pad(queries.numbers, begins[rows], queries.positions[rows])  # (b, T)
        history = torch.from_numpy(numbers.astype(np.int64)).to(device)
        clusters = None if known.clusters is None else known.clusters[history]
        states = fitted.model.users(known.inputs[history], clusters)  # (b, T, H)

        # The state after the last item of each history, not after its padding.
        last = torch.from_numpy(lengths - 1).to(device)
        vectors[torch.from_numpy(rows).to(device)] = states[torch.arange(len(rows)), last]
    return vectors


def scorer(fitted: Fitted, known: Catalogue) -> Scorer:
    """Make the function from queries to the cosines of all items."""

    def prepare(queries: Queries) -> RowScores:
        users = user_vectors(fitted, known, queries)
        return lambda rows: products(users[rows], known.targets.T)

    return prepare
