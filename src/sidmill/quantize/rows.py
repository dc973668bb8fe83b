"""Residual rows by blocks: read, moved to the device, and rid of what earlier levels explain.

Shapes: N items, n training rows, D dimensions, K_l codewords at level l, b rows of one block.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from sidmill import blocks as storage
from sidmill import torch_search


class Source(NamedTuple):
    """Training rows and the levels already fitted."""

    vectors: np.ndarray  # (N, D), float32 or float16, in memory or memory-mapped
    rows: np.ndarray | None  # int64 (n,), ascending; None stands for every row
    levels: list[torch_search.Level]  # earlier codebooks, on the device
    codes: list[np.ndarray]  # (n,) per earlier level, the smallest unsigned type that holds K_l
    device: torch.device
    block_rows: int


def count(source: Source) -> int:
    """Return n."""
    return len(source.vectors) if source.rows is None else len(source.rows)


def blocks(source: Source) -> Iterator[tuple[slice, torch.Tensor]]:
    """Read every training row, in order.

    Yields:
        Which of the n rows they are, and float32 (b, D) on the device. The tensor is overwritten
        by the next block.
    """
    yield from _explained(source, source.rows, None)


def sample(source: Source, n_rows: int, generator: np.random.Generator) -> torch.Tensor:
    """Draw rows without replacement, in random order.

    Returns:
        float32 (n_rows, D) on the device, a copy.
    """
    n_items = count(source)
    chosen = np.sort(generator.choice(n_items, size=n_rows, replace=False))
    places = torch.from_numpy(generator.permutation(n_rows)).to(source.device)
    drawn = torch.empty((n_rows, source.vectors.shape[1]), device=source.device)
    rows = chosen if source.rows is None else source.rows[chosen]
    for part, block in _explained(source, rows, chosen):
        drawn[places[part]] = block
    return drawn


def _explained(
    source: Source, rows: np.ndarray | None, chosen: np.ndarray | None
) -> Iterator[tuple[slice, torch.Tensor]]:
    for start, block in storage.read_blocks(source.vectors, source.block_rows, rows):
        left = torch.from_numpy(block).to(source.device)  # (b, D)
        part = slice(start, start + len(block))
        for level, codes in zip(source.levels, source.codes, strict=True):
            picked = codes[part] if chosen is None else codes[chosen[part]]
            index = torch.from_numpy(picked.astype(np.int64)).to(source.device)
            left -= level.words.index_select(0, index)
        yield part, left
