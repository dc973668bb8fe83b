"""Rank of the target of a query among all items.

A rank is two counts: items with a higher score, and items with the same score. Ties therefore count
by expectation, as if broken at random, and not by the order of the catalogue.

Shapes: Q queries, q of one block, N items, S SIDs, H of the model.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sidmill.core.errors import SidmillError
from sidmill.numeric.wide_products import fill_up, multiply
from sidmill.recommend.windows import Queries, seen, select, split

FLOAT_BYTES = 4
COPIES = 4  # of a block of scores, comparisons included
MIB = 2**20
CHUNK = 8192  # queries that a method prepares at a time
# Rows of one matrix product. BLAS rounds a row by the number of rows beside it, so that products
# of one size give the same scores whatever memory_mb allows.
TILE = 16
SMALLEST_SPREAD = 1e-12  # of scores that are all equal

# A method prepares some queries, and then scores any rows of them: float (q, N), higher is better.
RowScores = Callable[[slice], Tensor]
Scorer = Callable[[Queries], RowScores]


class Ranks(NamedTuple):
    """Of Q targets: ``users``, ``higher`` and ``equal`` (the target not counted), int64 (Q,)."""

    users: np.ndarray
    higher: np.ndarray
    equal: np.ndarray


def rank(
    scorer: Scorer,
    parts: Iterable[Queries],
    n_items: int,
    *,
    mask_seen: bool,
    memory_mb: int,
    groups: np.ndarray | None = None,
) -> Ranks:
    """Rank the target of every query among all items.

    The ranks do not depend on ``memory_mb``.

    Memory: ``memory_mb`` for the scores of a block, what the method prepares for CHUNK queries, and
    24 bytes per query.

    Args:
        scorer: the method.
        parts: queries, such as those of one group of users after another.
        n_items: N.
        mask_seen: leave out the items of the history, unless the target is one of them.
        memory_mb: MiB.
        groups: int64 (N,), the SID of each item: SIDs are ranked, each by its best item. None:
            items are.

    Raises:
        SidmillError: if a score is NaN, or ``memory_mb`` is too small.
    """
    (ranks,) = rank_sums(
        [scorer], [None], parts, n_items, mask_seen=mask_seen, memory_mb=memory_mb, groups=groups
    )
    return ranks


def rank_sums(
    scorers: Sequence[Scorer],
    weightings: Sequence[Sequence[float] | None],
    parts: Iterable[Queries],
    n_items: int,
    *,
    mask_seen: bool,
    memory_mb: int,
    groups: np.ndarray | None = None,
    standardise: bool = True,
) -> list[Ranks]:
    """Rank the target of every query by weighted sums of scores, all sums in one pass.

    Scores of different methods have different units. With ``standardise`` each is brought to mean 0
    and standard deviation 1 over the items of a query; logits of softmaxes need none. An item that
    a method does not reach (-inf) counts as its lowest.

    Memory: as :func:`rank`; ``memory_mb`` is shared by the scores of all methods.

    Args:
        scorers: the methods.
        weightings: per sum, a weight for each method; None: the scores of the first, as they are.
        parts: queries.
        n_items: N.
        mask_seen: as in :func:`rank`.
        memory_mb: MiB.
        groups: as in :func:`rank`.
        standardise: whether scores have different units.

    Returns:
        The ranks by each sum.

    Raises:
        SidmillError: if a score is NaN, or ``memory_mb`` is too small.
    """
    n_rows = rows_per_block(n_items * len(scorers), memory_mb)
    reduce = None if groups is None else _best_of(groups)
    blocks: list[list[tuple[np.ndarray, ...]]] = [[] for _ in weightings]
    for chunk in (chunk for part in parts for chunk in split(part, CHUNK)):
        prepared = [scorer(chunk) for scorer in scorers]
        for start in range(0, len(chunk.users), n_rows):
            rows = slice(start, start + n_rows)
            block, scored = select(chunk, rows), [score_rows(rows) for score_rows in prepared]
            if any(torch.isnan(scores).any() for scores in scored):
                raise SidmillError(
                    "a recommender scores items with NaN: lower its learning_rate (section "
                    "recommender or generative) and train it again"
                )

            # Each sum is ranked by itself: (q, N).
            terms = [_fill(scores) for scores in scored] if any(weightings) else []
            if standardise:
                terms = [_standardise(scores) for scores in terms]
            for found, weights in zip(blocks, weightings, strict=True):
                scores = scored[0] if weights is None else _weighted_sum(terms, weights)
                found.append(_count(block, scores, mask_seen, reduce))
    empty = [(np.zeros(0, np.int64),) * 3]
    return [
        Ranks(*(np.concatenate(column) for column in zip(*(found or empty), strict=True)))
        for found in blocks
    ]


def _fill(scores: Tensor) -> Tensor:
    """Scores (q, N) with the lowest of a row in place of -inf."""
    is_reached = scores.isfinite()
    lowest = scores.masked_fill(~is_reached, torch.inf).amin(dim=1, keepdim=True)
    return torch.where(is_reached, scores, lowest)


def _standardise(scores: Tensor) -> Tensor:
    """Scores (q, N) with mean 0 and standard deviation 1 in each row."""
    centred = scores - scores.mean(dim=1, keepdim=True)
    return centred / centred.square().mean(dim=1, keepdim=True).sqrt().clamp(min=SMALLEST_SPREAD)


def _weighted_sum(terms: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    total = torch.zeros_like(terms[0])
    for scores, weight in zip(terms, weights, strict=True):
        total += weight * scores
    return total


def _count(
    block: Queries,
    scores: Tensor,
    mask_seen: bool,
    reduce: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Users of a block, and how many scores (q, N) are above and equal to the target's."""
    # (q, 1), the number of each target: an item, or with groups a SID.
    targets = torch.from_numpy(block.numbers[block.positions].astype(np.int64))
    targets = targets.to(scores.device)[:, None]
    if mask_seen:
        hide_seen(scores, block, targets)
    if reduce is not None:
        scores, targets = reduce(scores, targets)

    target_scores = scores.gather(1, targets)
    higher = _count_true(scores > target_scores)
    equal = _count_true(scores == target_scores) - 1
    return block.users, higher, equal


def _count_true(mask: Tensor) -> np.ndarray:
    """Count the true values of each row of a mask (q, N): int64 (q,)."""
    if not mask.is_cpu:
        return np.asarray(mask.sum(dim=1).cpu())

    # four times faster than the sum of torch, which adds integers of 8 bytes
    return np.asarray(np.count_nonzero(mask.numpy(), axis=1), dtype=np.int64)


def rows_per_block(n_items: int, memory_mb: int) -> int:
    """How many queries a block of scores may hold: a multiple of TILE.

    Raises:
        SidmillError: if not even TILE.
    """
    bytes_per_tile = TILE * COPIES * FLOAT_BYTES * n_items
    n_tiles = memory_mb * MIB // bytes_per_tile
    if n_tiles < 1:
        raise SidmillError(
            f"memory_mb {memory_mb} is too small for the scores of {n_items} items: raise it to "
            f"at least {-(-bytes_per_tile // MIB)}"
        )
    return n_tiles * TILE


def products(rows: Tensor, columns: Tensor) -> Tensor:
    """Products float (q, N) of ``rows`` (q, H) with ``columns`` (H, N), TILE rows at a time."""
    out = rows.new_empty(len(rows), columns.shape[1])
    for start in range(0, len(rows), TILE):
        tile = slice(start, start + TILE)
        out[tile] = multiply(fill_up(rows[tile], TILE), columns.T)[: len(rows[tile])]
    return out


def hide_seen(scores: Tensor, block: Queries, targets: Tensor) -> None:
    """Give the items of each history the score -inf, in place, but for the targets (q, 1)."""
    rows, items = seen(block)
    target_scores = scores.gather(1, targets)
    scores[torch.from_numpy(rows), torch.from_numpy(items)] = -torch.inf
    scores.scatter_(1, targets, target_scores)


def _best_of(groups: np.ndarray) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Make a function from scores and targets of items to those of groups."""
    index = torch.from_numpy(groups.astype(np.int64))
    n_groups = int(groups.max()) + 1

    def reduce(scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        group_of = index.to(scores.device)
        best = scores.new_full((len(scores), n_groups), -torch.inf)
        best.scatter_reduce_(1, group_of.expand_as(scores), scores, "amax")
        return best, group_of[targets]

    return reduce
