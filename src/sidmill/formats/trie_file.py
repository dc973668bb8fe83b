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

The metadata key ``sidmill`` holds, as JSON, ``kind`` (sid_trie), ``version`` of this format,
``sizes`` (K_l of each level), ``forms`` (how a token and a SID are written, see
:mod:`sidmill.formats.sid_text`) and ``pid2sid``, the SHA-256 of the file whose rows are the items.

Shapes: N items, S SIDs, L levels, n_l nodes of depth l, K_l tokens of level l.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sidmill.core import checksums
from sidmill.core.errors import SidmillError
from sidmill.formats import sid_text
from sidmill.io import tensors
from sidmill.io.remedy import remedy

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


def write(path: str | Path, trie: Trie, pid2sid_path: str | Path) -> None:
    """Write trie.safetensors atomically. Memory: the trie twice more.

    Args:
        path: the file.
        trie: the trie, on any device.
        pid2sid_path: pid2sid.parquet, whose rows are the items.
    """
    single = {
        "sid_of_item": trie.sid_of_item,
        "first_item": trie.first_item,
        "items": trie.items,
    }
    levels = {f"tokens.{level}": part for level, part in enumerate(trie.tokens)}
    levels |= {f"first_child.{level}": part for level, part in enumerate(trie.first_child)}
    facts = {
        "kind": KIND,
        "version": VERSION,
        "sizes": list(trie.sizes),
        "forms": {name: form._asdict() for name, form in sid_text.FORMS.items()},
        "pid2sid": checksums.of_file(pid2sid_path),
    }
    arrays = {name: part.cpu().numpy() for name, part in (single | levels).items()}
    tensors.write(path, arrays, facts)


def read(path: str | Path, pid2sid_path: str | Path | None = None) -> Trie:
    """Read trie.safetensors, on the CPU. Every array is checked: a damaged trie is refused.

    Args:
        path: the file.
        pid2sid_path: pid2sid.parquet that the trie has to be of; None for no such check.

    Raises:
        SidmillError: if it is missing, damaged, of a newer SIDMill, no such trie, or one of another
            pid2sid.parquet.
    """
    # Facts first: a file of another kind or version has other arrays.
    arrays, facts = tensors.read(path, "trie of SIDs")
    if facts.get("kind") != KIND:
        raise SidmillError(f"{path}: holds no trie of SIDs: take results/trie.safetensors of a run")
    if facts.get("version") != VERSION:
        raise SidmillError(
            f"{path}: its format is version {facts.get('version')!r:.20}, this SIDMill reads "
            f"{VERSION}: {remedy(path)}"
        )
    if pid2sid_path is not None and facts.get("pid2sid") != checksums.of_file(pid2sid_path):
        raise SidmillError(
            f"{path}: was not made of {pid2sid_path}: its items would be others: {remedy(path)}"
        )

    # Arrays, of the dtypes and shapes that the module's docstring says.
    sizes: list[int] = facts.get("sizes", [])
    wanted = _dtypes(sizes)
    found = {name: (part.dtype, part.ndim) for name, part in arrays.items()}
    if not wanted or found != {name: (np.dtype(dtype), 1) for name, dtype in wanted.items()}:
        raise SidmillError(f"{path}: its arrays are not those of a trie of SIDs: {remedy(path)}")
    if fault := _fault(arrays, sizes):
        raise SidmillError(f"{path}: {fault}: {remedy(path)}")
    parts = {name: torch.from_numpy(part) for name, part in arrays.items()}
    return Trie(
        tuple(sizes),
        tuple(parts[f"tokens.{level}"] for level in range(len(sizes))),
        tuple(parts[f"first_child.{level}"] for level in range(len(sizes))),
        parts["sid_of_item"],
        parts["first_item"],
        parts["items"],
    )


def _dtypes(sizes: Any) -> dict[str, type[np.generic]]:
    """Dtype of each array by name; empty where ``sizes`` are no sizes."""
    if not (isinstance(sizes, list) and sizes and all(type(one) is int for one in sizes)):
        return {}
    wanted: dict[str, type[np.generic]] = {}
    for level in range(len(sizes)):
        wanted |= {f"tokens.{level}": np.int32, f"first_child.{level}": np.int64}
    return wanted | dict.fromkeys(("sid_of_item", "first_item", "items"), np.int64)


def _fault(arrays: dict[str, np.ndarray], sizes: list[int]) -> str | None:
    """What is wrong with the arrays, None for nothing. Memory: some N bytes."""
    # Each level: every node has children, and their tokens ascend.
    n_nodes = 1
    for level, size in enumerate(sizes):
        tokens, offsets = arrays[f"tokens.{level}"], arrays[f"first_child.{level}"]
        if not _are_offsets(offsets, n_nodes, len(tokens)):
            return f"first_child.{level} are not the offsets of {n_nodes} nodes"
        ascends = np.diff(tokens) > 0
        ascends[offsets[1:-1] - 1] = True  # from the last child of a node to the next node's first
        if tokens.min() < 0 or tokens.max() >= size or not ascends.all():
            return f"tokens.{level} do not ascend below each node, or leave [0, {size})"
        n_nodes = len(tokens)

    # Each item is in the list of its SID, once.
    first_item, items = arrays["first_item"], arrays["items"]
    if len(arrays["sid_of_item"]) != len(items) or not _are_offsets(
        first_item, n_nodes, len(items)
    ):
        return f"first_item are not the offsets of {n_nodes} SIDs"
    if items.min() < 0 or items.max() >= len(items):
        return f"items leave [0, {len(items)})"
    if (np.bincount(items, minlength=len(items)) != 1).any():
        return "items does not hold each item once"
    owners = np.repeat(np.arange(n_nodes), np.diff(first_item))
    if (arrays["sid_of_item"][items] != owners).any():
        return "sid_of_item and items differ"
    return None


def _are_offsets(offsets: np.ndarray, n_rows: int, n_values: int) -> bool:
    """Whether they cut ``n_values`` into ``n_rows`` rows of at least one value."""
    return bool(
        len(offsets) == n_rows + 1
        and offsets[0] == 0
        and offsets[-1] == n_values
        and (np.diff(offsets) > 0).all()
    )
