"""Scores of a trained recommender: vectors of items and of users, and their products.

Shapes: N items, D dimensions, H of the model, q queries, T positions.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sidmill.recommend import sequence_model
from sidmill.recommend.checkpoint import Fitted
from sidmill.recommend.item_features import Items, Whitening, gather
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


def inputs(
    model: sequence_model.Recommender,
    whitening: Whitening | None,
    items: Items,
    numbers: np.ndarray,
) -> Inputs:
    """Read what the model needs of some items, onto its device."""
    shape = model.shape
    device = model.item_norm.weight.device
    rows = torch.from_numpy(numbers.astype(np.int64)).to(device)
    if shape.features == "id" and not shape.n_interests:
        return Inputs(torch.zeros(len(numbers), 0, device=device), rows, None)
    vectors = torch.from_numpy(gather(items, whitening, numbers)).to(device)
    clusters = nearest(vectors, model.interest_vectors) if shape.n_interests else None
    return Inputs(vectors, rows, clusters)


def nearest(vectors: Tensor, centres: Tensor) -> Tensor:
    """Number of the nearest centre, int64 (n,)."""
    return (centres.square().sum(dim=1) - 2 * vectors @ centres.T).argmin(dim=1)


@torch.no_grad()
def item_blocks(fitted: Fitted, items: Items) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield item vectors float32 (n, H), not of unit length, and their interests, in order."""
    n_items = len(items.vectors)
    for start in range(0, n_items, ITEM_BLOCK):
        numbers = np.arange(start, min(start + ITEM_BLOCK, n_items))
        read = inputs(fitted.model, fitted.whitening, items, numbers)
        yield fitted.model.items(read.vectors, read.numbers), read.clusters


class Catalogue(NamedTuple):
    """All items, as input and as answer.

    Attributes:
        made: float32 (N, H).
        answers: float32 (N, H), the same at unit length.
        clusters: int64 (N,), or None.
    """

    made: Tensor
    answers: Tensor
    clusters: Tensor | None


def catalogue(fitted: Fitted, items: Items) -> Catalogue:
    """Make the vectors of all items. Memory: 8 N H bytes."""
    blocks = list(item_blocks(fitted, items))
    made = torch.cat([block for block, _ in blocks])
    clusters = torch.cat([part for _, part in blocks]) if fitted.model.shape.n_interests else None
    return Catalogue(made, sequence_model.unit(made), clusters)


@torch.no_grad()
def user_vectors(fitted: Fitted, known: Catalogue, queries: Queries) -> Tensor:
    """Say what each query's user looks for: float32 (q, H), of unit length.

    The last ``max_length`` items of a history are read, as in training.
    """
    max_length = fitted.settings["max_length"]
    device = known.made.device
    begins = np.maximum(queries.begins, queries.positions - max_length)
    order = np.argsort(queries.positions - begins, kind="stable")  # little padding
    found = known.made.new_empty(len(order), known.made.shape[1])
    for start in range(0, len(order), USER_BLOCK):
        taken = order[start : start + USER_BLOCK]
        rows, lengths = pad(queries.numbers, begins[taken], queries.positions[taken])
        history = torch.from_numpy(rows.astype(np.int64)).to(device)
        clusters = None if known.clusters is None else known.clusters[history]
        states = fitted.model.users(known.made[history], clusters)
        last = torch.from_numpy(lengths - 1).to(device)
        found[torch.from_numpy(taken).to(device)] = states[torch.arange(len(taken)), last]
    return found


def scorer(fitted: Fitted, known: Catalogue) -> Callable[[Queries], Tensor]:
    """Make the function from queries to the cosines of all items, float32 (q, N)."""

    def score(queries: Queries) -> Tensor:
        return user_vectors(fitted, known, queries) @ known.answers.T

    return score
