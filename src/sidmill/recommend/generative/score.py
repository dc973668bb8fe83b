"""Scores of a generative recommender for queries, as :mod:`sidmill.recommend.rank` asks for them.

Shapes: N items, q queries, T positions.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from sidmill.recommend.generative.model import Scores
from sidmill.recommend.generative.models import Network
from sidmill.recommend.rank import RowScores, Scorer
from sidmill.recommend.windows import Queries, pad, select

USER_BLOCK = 256


def scorer(network: Network, max_length: int, scores: Scores | None = None) -> Scorer:
    """Make the scorer of a model with its present weights, or with scores that it made before."""
    scores = scores or network.scores()

    def prepare(queries: Queries) -> RowScores:
        # Histories of similar length share a block, so that there is little padding.
        order = np.argsort(queries.positions - queries.begins, kind="stable")
        blocks = histories(select(queries, order), max_length, network.device)
        states = torch.cat([scores.encode(*batch) for batch in blocks])
        joined = states[torch.from_numpy(np.argsort(order)).to(states.device)]

        def score(rows: slice) -> Tensor:
            return scores.item_scores(joined[rows])

        return score

    return prepare


def with_history(other: Scorer, network: Network, max_length: int, scores: Scores) -> Scorer:
    """Make a scorer that adds to scores of another model what this one adds for the history."""

    def prepare(queries: Queries) -> RowScores:
        score_rows = other(queries)

        def score(rows: slice) -> Tensor:
            found = score_rows(rows)
            blocks = histories(select(queries, rows), max_length, network.device)
            for number, batch in enumerate(blocks):
                start = number * USER_BLOCK
                scores.add_history(found[start : start + USER_BLOCK], *batch)
            return found

        return score

    return prepare


def without_boost(scores: Scores) -> Scorer:
    """Make a scorer that takes the boost of new items away: the same for every query."""

    def prepare(queries: Queries) -> RowScores:
        return lambda rows: (-scores.boost).repeat(len(queries.users[rows]), 1)

    return prepare


def histories(
    queries: Queries, max_length: int, device: torch.device
) -> list[tuple[Tensor, Tensor]]:
    """The latest items of each query, in blocks: int64 (b, T), padded with item 0, and lengths."""
    begins = np.maximum(queries.begins, queries.positions - max_length)
    blocks: list[tuple[Any, Any]] = []
    for start in range(0, len(begins), USER_BLOCK):
        rows = slice(start, start + USER_BLOCK)
        numbers, lengths = pad(queries.numbers, begins[rows], queries.positions[rows])
        blocks.append(
            (
                torch.from_numpy(numbers.astype(np.int64)).to(device),
                torch.from_numpy(lengths).to(device),
            )
        )
    return blocks
