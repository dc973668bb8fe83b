"""What a recommender has to beat: popularity, neighbours by behaviour, neighbours by text.

Each is a function from queries to the scores of all items, fitted to the items of the split train.

Shapes: U users, N items, D dimensions, q queries.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from sidmill.numeric.row_blocks import read_blocks, require_finite
from sidmill.recommend.item_features import BLOCK_ROWS, Items
from sidmill.recommend.rank import Scorer
from sidmill.recommend.windows import Queries, read_groups, training_part


def training_matrix(path: str | Path, items: Items) -> sparse.csr_matrix:
    """Who had what in training: float32 (U, N) of ones. Memory: 8 bytes per interaction."""
    numbers, bounds = [], [np.zeros(1, np.int64)]
    for group in read_groups(path, items):
        part = training_part(group)
        numbers.append(part.numbers)
        bounds.append(bounds[-1][-1] + part.bounds[1:])
    places, ends = np.concatenate(numbers), np.concatenate(bounds)
    shape = (len(ends) - 1, len(items.vectors))
    had = sparse.csr_matrix((np.ones(len(places), np.float32), places, ends), shape=shape)
    had.sum_duplicates()
    had.data[:] = 1.0
    return had


def popularity(counts: np.ndarray) -> Scorer:
    """Score an item by how many users had it in training, whoever asks."""
    scores = torch.from_numpy(counts.astype(np.float32))
    return lambda asked: scores.repeat(len(asked.users), 1)


def item_knn(had: sparse.csr_matrix, shrinkage: float, decay: float) -> Scorer:
    """Score an item by its cosine with the items of the history, over the users they share.

    An item is its own nearest neighbour, so what was had may come again. Memory: 8 bytes per pair
    of items that a user had both of.

    Args:
        had: of :func:`training_matrix`.
        shrinkage: added to the denominator: few shared users count less.
        decay: weight of an item against the one had after it.
    """
    counts = np.asarray(had.sum(axis=0)).ravel()
    shared = (had.T @ had).tocoo()
    cosines = shared.data / (np.sqrt(counts[shared.row] * counts[shared.col]) + shrinkage)
    near = sparse.csr_matrix((cosines, (shared.row, shared.col)), shape=shared.shape)
    return lambda asked: torch.from_numpy(
        (histories_of(asked, decay, had.shape[1]) @ near).toarray()
    )


def text_knn(items: Items, decay: float) -> Scorer:
    """Score an item by the cosine of its text embedding with those of the history, weighted alike.

    Memory: the scores, and a block of embeddings, which are read twice for a block of queries.
    """
    n_items, dim = items.vectors.shape

    def score(asked: Queries) -> Tensor:
        had = histories_of(asked, decay, n_items).tocsc()
        taste = np.zeros((had.shape[0], dim), np.float32)
        for start, block in _unit_blocks(items):
            part = had[:, start : start + len(block)]
            if part.nnz:
                taste += part @ block
        scores = np.empty((len(taste), n_items), np.float32)
        for start, block in _unit_blocks(items):
            scores[:, start : start + len(block)] = taste @ block.T
        return torch.from_numpy(scores)

    return score


def _unit_blocks(items: Items) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the first row of a block, and embeddings of length 1, float32 (b, D)."""
    for start, block in read_blocks(items.vectors, BLOCK_ROWS):
        require_finite(block, start)
        lengths = np.linalg.norm(block, axis=1, keepdims=True)
        yield start, block / np.maximum(lengths, np.finfo(np.float32).tiny)


def histories_of(asked: Queries, decay: float, n_items: int) -> sparse.csr_matrix:
    """Histories as rows float32 (q, N): the latest item weighs 1, one before it ``decay`` times."""
    lengths = asked.positions - asked.begins
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    ages = np.repeat(bounds[1:], lengths) - 1 - np.arange(bounds[-1])
    places = np.repeat(asked.positions, lengths) - 1 - ages
    weights = (decay**ages).astype(np.float32)
    shape = (len(lengths), n_items)
    return sparse.csr_matrix((weights, asked.numbers[places], bounds), shape=shape)
