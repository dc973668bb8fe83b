"""A compressed trie of SIDs, built and searched without a loop over items.

:class:`Trie` says what its arrays mean (:mod:`sidmill.formats.trie_file`). The layout is that of
compressed sparse rows, one matrix of offsets per level.

Shapes: N items, S SIDs, L levels, K_l tokens of level l, n_l nodes of depth l.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sidmill.core.errors import SidmillError
from sidmill.formats.trie_file import Trie

__all__ = ["Trie", "build", "codes_of", "find", "find_child", "order_items", "spread", "step"]


def build(codes: np.ndarray, sizes: Sequence[int] | None = None) -> Trie:
    """Build the trie of the SIDs of all items, on the CPU.

    Memory: the codes, and about 65 bytes per item at the peak, of which 36 stay where each item has
    a SID of its own.

    Args:
        codes: integers (N, L), row i is the SID of item i; items may share one.
        sizes: K_l of each level; the largest code of the level plus 1 if None.

    Raises:
        SidmillError: if there is no item or no level, or a code is outside [0, K_l).
    """
    # Check the codes against the sizes.
    n_items, n_levels = codes.shape
    if not n_items or not n_levels:
        raise SidmillError(f"{n_items} SIDs of {n_levels} levels: there is nothing to make a trie")
    sizes = tuple(int(size) for size in (codes.max(axis=0) + 1 if sizes is None else sizes))
    if len(sizes) != n_levels:
        raise SidmillError(f"{len(sizes)} sizes for SIDs of {n_levels} levels: give one per level")
    for level, size in enumerate(sizes):
        low, high = int(codes[:, level].min()), int(codes[:, level].max())
        if low < 0 or high >= size:
            raise SidmillError(
                f"code {low if low < 0 else high} of level {level} is outside [0, {size}): "
                f"are these codes and sizes of one quantizer?"
            )

    # Sort the items by SID; the sort is stable, so items of a SID ascend.
    items = np.lexsort(codes.T[::-1])  # (N,)

    # A row begins a node of depth l + 1 where one of its first l + 1 tokens differs from the row
    # before it.
    begins = np.zeros(n_items, dtype=bool)
    begins[0] = True
    first_rows = np.zeros(1, dtype=np.int64)  # (n_l,), first row of each node
    tokens: list[Tensor] = []
    first_child: list[Tensor] = []
    for level in range(n_levels):
        column = codes[items, level]
        begins[1:] |= column[1:] != column[:-1]
        parents, first_rows = first_rows, np.flatnonzero(begins)
        offsets = np.append(np.searchsorted(first_rows, parents), len(first_rows))
        tokens.append(torch.from_numpy(column[first_rows].astype(np.int32)))
        first_child.append(torch.from_numpy(offsets.astype(np.int64, copy=False)))
    del column

    # The rows of a leaf are the items of its SID.
    sid_of_item = np.empty(n_items, dtype=np.int64)
    sid_of_item[items] = np.cumsum(begins, dtype=np.int64) - 1
    first_item = np.append(first_rows, n_items).astype(np.int64, copy=False)
    return Trie(
        sizes,
        tuple(tokens),
        tuple(first_child),
        torch.from_numpy(sid_of_item),
        torch.from_numpy(first_item),
        torch.from_numpy(items.astype(np.int64, copy=False)),
    )


def step(trie: Trie, level: int, nodes: Tensor, tokens: Tensor) -> Tensor:
    """Follow one token from each node of the trie.

    Args:
        trie: the trie.
        level: l; the nodes have depth l.
        nodes: int64, any shape; -1 is no node.
        tokens: int64, the same shape; any value.

    Returns:
        int64, the same shape: nodes of depth l + 1, or -1.
    """
    size = trie.sizes[level]
    return find_child(trie.first_child[level], trie.tokens[level], nodes, tokens, size)


def find_child(
    first_child: Tensor, tokens: Tensor, nodes: Tensor, wanted: Tensor, most: int
) -> Tensor:
    """Find the child of each node of the trie that a token leads to, by binary search.

    Args:
        first_child: int64 (V + 1,), offsets of the children of V nodes.
        tokens: int32 (E,), E above 0, the token of each child, ascending below each node.
        nodes: int64, any shape, in [0, V); -1 is no node.
        wanted: int64, the same shape, a token for each node; any value.
        most: the most children that a node can have.

    Returns:
        int64, the same shape: offset of the child, or -1.
    """
    # Narrow [low, high) down to the first child whose token is not below the wanted one.
    is_node, last = nodes >= 0, len(tokens) - 1
    parents = nodes.clamp(min=0)
    low, end = first_child[parents], first_child[parents + 1]
    high = end
    for _ in range(most.bit_length()):
        middle = (low + high) // 2
        is_open = low < high
        below = (tokens[middle.clamp(max=last)] < wanted) & is_open
        low, high = torch.where(below, middle + 1, low), torch.where(below, high, middle)

    # The search ended at another token, or after the last child, where no child has the wanted one.
    found = is_node & (low < end) & (tokens[low.clamp(max=last)] == wanted)
    return torch.where(found, low, -1)


def find(trie: Trie, sids: Tensor) -> Tensor:
    """Find the numbers of SIDs in the trie.

    Args:
        trie: the trie.
        sids: int64 (..., L), tokens.

    Returns:
        int64 (...,): the number of each SID in [0, S), or -1 where no item has it.
    """
    nodes = torch.zeros(sids.shape[:-1], dtype=torch.int64, device=sids.device)
    for level in range(trie.n_levels):
        nodes = step(trie, level, nodes, sids[..., level])
    return nodes


def codes_of(trie: Trie, sids: Tensor) -> Tensor:
    """Return the codes of SIDs, given by their numbers in the trie.

    Args:
        trie: the trie.
        sids: int64 (...,), numbers of SIDs; -1 is none.

    Returns:
        int64 (..., L); -1 in all levels for none.
    """
    nodes, columns = sids.clamp(min=0), []
    for level in reversed(range(trie.n_levels)):
        columns.append(trie.tokens[level][nodes].long())
        nodes = torch.searchsorted(trie.first_child[level], nodes, right=True) - 1
    codes = torch.stack(columns[::-1], dim=-1)
    return torch.where((sids >= 0).unsqueeze(-1), codes, -1)


def order_items(trie: Trie, order: Tensor) -> Trie:
    """Return the trie with the items of each SID in another order.

    Args:
        trie: the trie.
        order: int64 (N,), a rank per item, the lowest first; equal ranks: lower item number first.
    """
    by_rank = order.argsort(stable=True)
    items = by_rank[trie.sid_of_item[by_rank].argsort(stable=True)]
    return replace(trie, items=items)


def spread(counts: Tensor) -> tuple[Tensor, Tensor]:
    """List the values of ragged rows one after the other.

    Args:
        counts: int64 (n,), values of each row, T in all.

    Returns:
        int64 (T,) and (T,): the row of each value, and its number within the row.
    """
    rows = torch.repeat_interleave(counts)
    starts = counts.cumsum(dim=0) - counts
    return rows, torch.arange(len(rows), device=counts.device) - starts[rows]
