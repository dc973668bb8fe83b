"""Baselines of a recommender: popularity, neighbours by behaviour, neighbours by text.

Each is a method of ``rank``: from queries to the scores of all items, fitted to the items of the
split train.

Shapes: U users, N items, D dimensions, q queries.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from sidmill.numeric.row_blocks import read_blocks, require_finite
from sidmill.recommend.item_features import Items
from sidmill.recommend.rank import TILE, RowScores, Scorer
from sidmill.recommend.windows import (
    Queries,
    read_groups,
    training_split,
)

BLOCK_ROWS = 4096


def training_matrix(path: str | Path, items: Items) -> sparse.csr_matrix:
    """Which user has which item in training: float32 (U, N) of ones.

    Memory: 8 bytes per interaction.
    """
    numbers, bounds = [], [np.zeros(1, np.int64)]
    for group in read_groups(path, items):
        train = training_split(group)
        numbers.append(train.numbers)
        bounds.append(bounds[-1][-1] + train.bounds[1:])
    columns, ends = np.concatenate(numbers), np.concatenate(bounds)
    shape = (len(ends) - 1, len(items.vectors))

    # An item that a user has several times counts once.
    matrix = sparse.csr_matrix((np.ones(len(columns), np.float32), columns, ends), shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix


def popularity(counts: np.ndarray) -> Scorer:
    """Score an item by the number of users who have it in training, the same for every query."""
    scores = torch.from_numpy(counts.astype(np.float32))

    def prepare(queries: Queries) -> RowScores:
        return lambda rows: scores.repeat(len(queries.users[rows]), 1)

    return prepare


def item_knn(matrix: sparse.csr_matrix, shrinkage: float, decay: float) -> Scorer:
    """Score an item by its cosine with the items of the history, over the users they share.

    An item is its own nearest neighbour, so items of the history may be recommended again.
    Memory: 8 bytes per pair of items that share a user.

    Args:
        matrix: of :func:`training_matrix`.
        shrinkage: added to the denominator, so that few shared users count less.
        decay: weight of an item of the history against the one after it.
    """
    counts = np.asarray(matrix.sum(axis=0)).ravel()
    shared = (matrix.T @ matrix).tocoo()
    cosines = shared.data / (np.sqrt(counts[shared.row] * counts[shared.col]) + shrinkage)
    near = sparse.csr_matrix((cosines, (shared.row, shared.col)), shape=shared.shape)

    def prepare(queries: Queries) -> RowScores:
        histories = histories_of(queries, decay, matrix.shape[1])
        return lambda rows: torch.from_numpy((histories[rows] @ near).toarray())

    return prepare


def text_knn(items: Items, decay: float) -> Scorer:
    """Score an item by the cosine of its text embedding with those of the history, weighted alike.

    Memory: the scores, a sum of embeddings per query, and a block of embeddings. All embeddings are
    read once per chunk of queries, and once per block of scores.
    """
    n_items, dim = items.vectors.shape

    def prepare(queries: Queries) -> RowScores:
        # (q, D), the weighted sum of the embeddings of each history
        histories = histories_of(queries, decay, n_items).tocsc()
        sums = np.zeros((histories.shape[0], dim), np.float32)
        for start, block in _unit_blocks(items):
            part = histories[:, start : start + len(block)]
            if part.nnz:
                sums += part @ block

        def score(rows: slice) -> Tensor:
            users = sums[rows]
            scores = np.empty((len(users), n_items), np.float32)
            for start, block in _unit_blocks(items):
                for first in range(0, len(users), TILE):
                    tile = slice(first, first + TILE)
                    scores[tile, start : start + len(block)] = users[tile] @ block.T
            return torch.from_numpy(scores)

        return score

    return prepare


def _unit_blocks(items: Items) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the first row of a block, and embeddings of length 1, float32 (b, D)."""
    for start, block in read_blocks(items.vectors, BLOCK_ROWS):
        require_finite(block, start)
        lengths = np.linalg.norm(block, axis=1, keepdims=True)
        yield start, block / np.maximum(lengths, np.finfo(np.float32).tiny)


def histories_of(queries: Queries, decay: float, n_items: int) -> sparse.csr_matrix:
    """Histories as rows float32 (q, N): weight 1 for the latest item, ``decay`` per step back."""
    # Age 0 is the latest item of a history.
    lengths = queries.positions - queries.begins
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    ages = np.repeat(bounds[1:], lengths) - 1 - np.arange(bounds[-1])

    offsets = np.repeat(queries.positions, lengths) - 1 - ages
    weights = (decay**ages).astype(np.float32)
    shape = (len(lengths), n_items)
    return sparse.csr_matrix((weights, queries.numbers[offsets], bounds), shape=shape)
