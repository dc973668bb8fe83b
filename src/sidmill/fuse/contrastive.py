"""A linear map of text vectors, learned so that items consumed together point the same way.

    mapped_i = |t_i| a_i,   a_i = (u_i + M u_i) / |u_i + M u_i|,   u_i = t_i / |t_i|

t_i is the text vector of item i. M starts at zero and learns from pairs of items that are consumed
together: the direction of an item should be nearer to that of its partner than to those of the
other partners of the batch, by a softmax of cosines over ``TEMPERATURE``. A partner is drawn as
often as it is consumed, so the logarithm of its users is subtracted from its scores. The map has
D x D numbers whatever the number of items, and it maps items that nobody consumed too.

Source: the loss of https://arxiv.org/abs/1807.03748, with the correction of sampled softmax as in
https://doi.org/10.1145/3298689.3346996; AdamW without decay is Adam, https://arxiv.org/abs/1412.6980.

Letters: N items, D dimensions, P pairs, p pairs of one batch.
"""

import logging
from collections.abc import Iterator

import numpy as np

from sidmill.fuse.cooccurrence import Neighbours
from sidmill.fuse.graph import lengths_of
from sidmill.numeric.row_blocks import read_blocks, require_finite, take
from sidmill.settings.fuse import Fuse

logger = logging.getLogger(__name__)

MOST_PAIRS = 1_000_000  # sampled from all; a map of a few hundred dimensions needs no more
MOST_USERS = 5  # that a pair counts for
BATCH = 1024
TEMPERATURE = 0.1
LEARNING_RATE = 0.001
BETAS, EPSILON = (0.9, 0.999), 1e-8
BLOCK_ROWS = 8192
SHORTEST = np.finfo(np.float32).tiny


def fit(
    vectors: np.ndarray,
    found: Iterator[Neighbours],
    users: np.ndarray,
    settings: Fuse,
    seed: int,
) -> np.ndarray:
    """Learn the map M: float32 (D, D), zeros where no items are consumed together.

    The same input and seed give the same bytes on the same machine and thread count.

    Memory: 24 bytes per sampled pair, the neighbours of one range, and a batch.

    Args:
        vectors: float32 or float16 (N, D), a read-only map.
        found: of :func:`sidmill.fuse.cooccurrence.find`.
        users: int64 (N,), users who have each item.
        settings: epochs.
        seed: of the sample and of the order of pairs.

    Raises:
        SidmillError: if a vector is not finite.
    """
    for start, block in read_blocks(vectors, BLOCK_ROWS):
        require_finite(block, start)
    rng = np.random.default_rng(seed)
    pairs = _sample(found, rng)
    dim = vectors.shape[1]
    matrix = np.zeros((dim, dim), np.float32)
    moments = np.zeros((2, dim, dim), np.float32)
    popularity = np.log(np.maximum(users, 1)).astype(np.float32)

    # Adam, one step per batch of pairs.
    step = 0
    for epoch in range(settings.epochs):
        losses = []
        for rows in np.split(order := rng.permutation(len(pairs)), range(BATCH, len(order), BATCH)):
            if len(rows) < 2:
                continue
            batch = pairs[rows]
            loss, gradient = _gradient(matrix, vectors, batch, popularity)
            step += 1
            for moment, beta, value in zip(moments, BETAS, (gradient, gradient**2), strict=True):
                moment += (1 - beta) * (value - moment)
            first, second = (
                moment / (1 - beta**step) for moment, beta in zip(moments, BETAS, strict=True)
            )
            matrix -= LEARNING_RATE * first / (np.sqrt(second) + EPSILON)
            losses.append(loss)
        logger.info("epoch %d: loss %.4f of %d pairs", epoch, np.mean(losses or [0]), len(pairs))
    return matrix


def _sample(found: Iterator[Neighbours], rng: np.random.Generator) -> np.ndarray:
    """Draw pairs, each as often as users consumed it, ``MOST_USERS`` times at most: int64 (P, 2).

    A pair is there in both directions. A sample is the pairs with the lowest random numbers, which
    are drawn in the order of rows, so the ranges of ``found`` do not matter.
    """
    pairs, keys = np.empty((0, 2), np.int64), np.empty(0)
    for lists in found:
        items = lists.first + np.repeat(np.arange(len(lists.bounds) - 1), np.diff(lists.bounds))
        times = np.minimum(lists.counts, MOST_USERS)
        added = np.repeat(np.stack([items, lists.rows], axis=1), times, axis=0)
        pairs = np.concatenate([pairs, added])
        keys = np.concatenate([keys, rng.random(len(added))])
        if len(keys) > MOST_PAIRS:
            kept = np.sort(np.argpartition(keys, MOST_PAIRS)[:MOST_PAIRS])
            pairs, keys = pairs[kept], keys[kept]
    return pairs


def _gradient(
    matrix: np.ndarray, vectors: np.ndarray, batch: np.ndarray, popularity: np.ndarray
) -> tuple[float, np.ndarray]:
    """Loss of a batch of pairs int64 (p, 2), and its gradient by the map: float32 (D, D)."""
    rows, places = np.unique(batch, return_inverse=True)
    text = take(vectors, rows)
    text /= np.maximum(lengths_of(text), SHORTEST)
    sums = text + text @ matrix
    lengths = np.maximum(lengths_of(sums), SHORTEST)
    units = sums / lengths

    # (p, p), scores of all partners; the same item again is neither partner nor rival.
    anchor, partner = places.reshape(batch.shape).T
    scores = units[anchor] @ units[partner].T / TEMPERATURE - popularity[rows[partner]]
    is_same = (partner[:, None] == partner) | (anchor[:, None] == partner)
    np.fill_diagonal(is_same, False)
    scores[is_same] = -np.inf
    scores -= scores.max(axis=1, keepdims=True)
    shares = np.exp(scores)
    totals = shares.sum(axis=1, keepdims=True)
    loss = float(np.mean(np.log(totals[:, 0]) - np.diag(scores)))

    # Back through the softmax, the unit lengths and the map.
    errors = shares / totals
    errors[np.diag_indices(len(batch))] -= 1
    errors /= len(batch) * TEMPERATURE
    slopes = np.zeros_like(units)
    np.add.at(slopes, anchor, errors @ units[partner])
    np.add.at(slopes, partner, errors.T @ units[anchor])
    slopes -= units * (slopes * units).sum(axis=1, keepdims=True)
    return loss, text.T @ (slopes / lengths)


def blocks(vectors: np.ndarray, matrix: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the mapped vectors of all items in order: float32 (b, D), as long as those of the text.

    A map of zeros, which learned nothing, keeps every bit. Memory: three blocks.

    Args:
        vectors: float32 or float16 (N, D), a read-only map.
        matrix: float32 (D, D), of :func:`fit`.
    """
    for _, text in read_blocks(vectors, BLOCK_ROWS):
        if not matrix.any():
            yield text
            continue
        mapped = text + text @ matrix
        yield mapped * (lengths_of(text) / np.maximum(lengths_of(mapped), SHORTEST))
