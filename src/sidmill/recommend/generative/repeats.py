"""What a model adds to the scores of the items that a history has already.

Without it a model recommends what the user just had: the item that is most like a history is in
it. Whether people take an item again depends on the catalogue, so two numbers are learned: one for
the last item of a history, one for those before it. Items that share a SID count as one item.

Shapes: R rows of scores, n columns, m entries of histories.

Source: repeat consumption as a part of its own in RepeatNet, https://arxiv.org/abs/1812.02646; here
it is two numbers.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sidmill.numeric import sid_trie
from sidmill.recommend import softmax_loss

RATE = 10.0  # a step of the optimiser changes the numbers by so many learning rates


class Columns(NamedTuple):
    """Columns of scores in the order of their SIDs: ``sids`` and ``order``, int64 (n,) each."""

    sids: Tensor
    order: Tensor


class Entries(NamedTuple):
    """Items of histories.

    Attributes:
        rows: int64 (m,), the row of scores that an item belongs to.
        sids: int64 (m,), number of its SID.
        is_last: bool (m,), whether it is the last of the history.
    """

    rows: Tensor
    sids: Tensor
    is_last: Tensor


def columns(sids: Tensor) -> Columns:
    """Sort columns by their SIDs, int64 (n,)."""
    return Columns(*sids.sort(stable=True))


def of_windows(sids: Tensor, has_target: Tensor) -> Entries:
    """Items up to each position that has a target; positions are rows in the order of ``sids``.

    Args:
        sids: int64 (B, T), of the windows.
        has_target: bool (B, T); R of them are true.
    """
    length = sids.shape[1]
    is_past = torch.ones(length, length, dtype=torch.bool, device=sids.device).tril()
    users, positions, items = (has_target[:, :, None] & is_past).nonzero(as_tuple=True)
    rows = has_target.flatten().cumsum(0).view_as(has_target) - 1
    return Entries(rows[users, positions], sids[users, items], items == positions)


def of_histories(sids: Tensor, lengths: Tensor) -> Entries:
    """Items of whole histories; sids int64 (R, T), lengths (R,)."""
    positions = torch.arange(sids.shape[1], device=sids.device)
    rows, items = (positions < lengths[:, None]).nonzero(as_tuple=True)
    return Entries(rows, sids[rows, items], items == lengths[rows] - 1)


class Repeats(nn.Module):
    """The two numbers."""

    def __init__(self) -> None:
        """Start at 0: no difference between items."""
        super().__init__()
        self.scaled = nn.Parameter(torch.zeros(2))  # of the last item, of those before it

    def cells(self, n_columns: int, compared: Columns, entries: Entries) -> softmax_loss.Cells:
        """Find the scores (R, n) that they are added to: of columns that a history has.

        Args:
            n_columns: n.
            compared: the columns.
            entries: the items of the history of each row.
        """
        # All columns with the SID of an entry.
        first = torch.searchsorted(compared.sids, entries.sids)
        counts = torch.searchsorted(compared.sids, entries.sids, right=True) - first
        entry, number = sid_trie.spread(counts)
        cells = entries.rows[entry] * n_columns + compared.order[first[entry] + number]

        # Each cell once; an item that is the last one and an earlier one counts as the last.
        distinct = torch.unique(cells)
        is_last = torch.isin(distinct, cells[entries.is_last[entry]])
        return softmax_loss.Cells(distinct, (~is_last).long(), RATE * self.scaled)

    def add(self, scores: Tensor, compared: Columns, entries: Entries) -> None:
        """Add them to scores (R, n), in place; arguments as in :meth:`cells`."""
        found = self.cells(scores.shape[1], compared, entries)
        added = found.values[found.kinds].to(scores.dtype)
        scores.view(-1).scatter_add_(0, found.positions, added)
