"""Where the item that came next stands among all items.

A rank is kept as two counts, the items that score higher and those that score the same: ties are
then counted by expectation, as if broken at random, and not by the order of the catalogue.

Shapes: Q queries, q of one block, N items, S SIDs.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sidmill.core.errors import SidmillError
from sidmill.recommend.windows import Queries

FLOAT_BYTES = 4
COPIES = 4  # of a block of scores, comparisons included
MIB = 2**20

# Scores of all items for some queries: float (q, N), higher is better.
Scorer = Callable[[Queries], Tensor]


class Ranks(NamedTuple):
    """Of Q targets: ``users``, ``higher`` and ``equal`` (the target not counted), int64 (Q,)."""

    users: np.ndarray
    higher: np.ndarray
    equal: np.ndarray


def rank(
    score: Scorer,
    parts: Iterable[Queries],
    *,
    n_items: int,
    mask_seen: bool,
    memory_mb: int,
    groups: np.ndarray | None = None,
) -> Ranks:
    """Rank the target of every query among all items.

    Memory: ``memory_mb`` for the scores of a block, and 24 bytes per query.

    Args:
        score: the method.
        parts: queries, such as those of one group of users after another.
        n_items: N.
        mask_seen: leave out the items of the history, unless the target is one of them.
        memory_mb: MiB.
        groups: int64 (N,), the SID of each item: SIDs are ranked, each by its best item. None:
            items are.

    Raises:
        SidmillError: if a score is NaN, or not one query fits into memory.
    """
    rows = rows_per_block(n_items, memory_mb)
    reduce = None if groups is None else _best_of(groups)
    found = []
    for part in parts:
        for block in split(part, rows):
            scores = score(block)
            if torch.isnan(scores).any():
                raise SidmillError(
                    "the recommender scores items with NaN: lower recommender.learning_rate and "
                    "train again"
                )
            targets = torch.from_numpy(block.numbers[block.positions].astype(np.int64))
            targets = targets.to(scores.device)[:, None]
            if mask_seen:
                hide_seen(scores, block, targets)
            if reduce is not None:
                scores, targets = reduce(scores, targets)
            own = scores.gather(1, targets)
            higher, equal = (scores > own).sum(dim=1), (scores == own).sum(dim=1) - 1
            found.append((block.users, higher.cpu().numpy(), equal.cpu().numpy()))
    columns = zip(*found, strict=True) if found else ([np.zeros(0, np.int64)],) * 3
    return Ranks(*(np.concatenate(column) for column in columns))


def rows_per_block(n_items: int, memory_mb: int) -> int:
    """How many queries a block of scores may hold.

    Raises:
        SidmillError: if not even one.
    """
    rows = memory_mb * MIB // (COPIES * FLOAT_BYTES * n_items)
    if rows < 1:
        least = -(-COPIES * FLOAT_BYTES * n_items // MIB)
        raise SidmillError(
            f"memory_mb {memory_mb} is too small for the scores of {n_items} items: raise it to "
            f"at least {least}"
        )
    return rows


def split(queries: Queries, rows: int) -> Iterator[Queries]:
    """Cut queries into blocks."""
    for start in range(0, len(queries.users), rows):
        part = slice(start, start + rows)
        yield queries._replace(
            users=queries.users[part],
            begins=queries.begins[part],
            positions=queries.positions[part],
        )


def hide_seen(scores: Tensor, block: Queries, targets: Tensor | None) -> None:
    """Put the items of each history behind all others, in place; targets (q, 1) stay."""
    lengths = block.positions - block.begins
    rows = np.repeat(np.arange(len(lengths)), lengths)
    places = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    seen = block.numbers[np.repeat(block.begins, lengths) + places].astype(np.int64)
    kept = None if targets is None else scores.gather(1, targets)
    scores[torch.from_numpy(rows), torch.from_numpy(seen)] = -torch.inf
    if kept is not None:
        scores.scatter_(1, targets, kept)


def _best_of(groups: np.ndarray) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Make a function from scores and targets of items to those of groups."""
    index = torch.from_numpy(groups.astype(np.int64))
    n_groups = int(groups.max()) + 1

    def reduce(scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        place = index.to(scores.device)
        best = scores.new_full((len(scores), n_groups), -torch.inf)
        best.scatter_reduce_(1, place.expand_as(scores), scores, "amax")
        return best, place[targets]

    return reduce
