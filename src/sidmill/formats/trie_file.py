"""trie.safetensors: the tree of all SIDs, and the items of each, as arrays.

    tokens.{l}       int32 (n_{l+1},)      token of level l that leads to each node of depth l + 1
    first_child.{l}  int64 (n_l + 1,)      children of node v of depth l: the nodes of depth l + 1
                                           from first_child.{l}[v] up to first_child.{l}[v + 1]
    sid_of_item      int64 (N,)            number of the SID of each item, in [0, S)
    first_item       int64 (S + 1,)        items of SID s: ``items`` from first_item[s] up to
                                           first_item[s + 1]
    items            int64 (N,)            item numbers, SID by SID

Items are the rows of pid2sid.parquet. Nodes of a depth are in lexicographic order of their
prefixes, so the children of a node are adjacent and their tokens ascend. Depth 0 is the root alone
(n_0 = 1), depth L the SIDs (n_L = S): the number of a SID is its rank in lexicographic order.

Shapes: N items, S SIDs, L levels, n_l nodes of depth l, K_l tokens of level l.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

KIND, VERSION = "sid_trie", 1


@dataclass(frozen=True, eq=False)
class Trie:
    """The arrays of the module's docstring, as tensors of one device.

    Attributes:
        sizes: K_l of each level.
        tokens: L tensors int32 (n_{l+1},).
        first_child: L tensors int64 (n_l + 1,).
        sid_of_item: int64 (N,).
        first_item: int64 (S + 1,).
        items: int64 (N,), ascending within a SID unless they were ordered otherwise.
    """

    sizes: tuple[int, ...]
    tokens: tuple[Tensor, ...]
    first_child: tuple[Tensor, ...]
    sid_of_item: Tensor
    first_item: Tensor
    items: Tensor

    @property
    def n_levels(self) -> int:
        """Tokens of a SID: L."""
        return len(self.sizes)

    @property
    def n_sids(self) -> int:
        """Distinct SIDs: S."""
        return len(self.first_item) - 1

    @property
    def n_items(self) -> int:
        """Items: N."""
        return len(self.items)

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.items.device

    def to(self, device: torch.device | str) -> "Trie":
        """Return the same trie on a device; tensors that are there already are shared."""
        return Trie(
            self.sizes,
            tuple(part.to(device) for part in self.tokens),
            tuple(part.to(device) for part in self.first_child),
            self.sid_of_item.to(device),
            self.first_item.to(device),
            self.items.to(device),
        )
