"""Residual rows by blocks: read, moved to the devices, and rid of what earlier levels explain.

Shapes: N items, n training rows, D dimensions, K_l codewords at level l, b rows of one block, p
rows of one piece of it.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from sidmill.formats.vector_file import Streamed
from sidmill.numeric import nearest_torch, row_blocks
from sidmill.numeric.nearest_torch import Piece

HELD_SHARE = 0.5  # of a GPU's free memory: rows that fit there are read once
CACHED_ROWS = 64  # of 1,024 dimensions a core's own cache holds so many, and as many codewords


class Source(NamedTuple):
    """Training rows and the levels already fitted."""

    vectors: np.ndarray | Streamed  # (N, D), float32 or float16
    rows: np.ndarray | None  # int64 (n,), ascending; None stands for every row
    levels: list[list[nearest_torch.Level]]  # earlier codebooks, a copy of each per device
    codes: list[np.ndarray]  # (n,) per earlier level, the smallest unsigned type that holds K_l
    devices: list[torch.device]  # they share the rows of a block
    block_rows: int
    scale: float  # power of two by which vectors are multiplied when they are read
    held: list[torch.Tensor] | None = None  # residuals where they fit: PIECE_ROWS rows in each

    @property
    def device(self) -> torch.device:
        """The first device, which keeps the clusters."""
        return self.devices[0]


def count(source: Source) -> int:
    """Return n."""
    return len(source.vectors) if source.rows is None else len(source.rows)


def pieces(source: Source) -> Iterator[tuple[slice, list[Piece]]]:
    """Read every training row, in order.

    Yields:
        Which of the n rows a block holds, and its pieces, float32 (p, D) each. The next block
        overwrites them, unless the rows are held.
    """
    if source.held is not None:
        for start in range(0, count(source), source.block_rows):
            part = slice(start, min(start + source.block_rows, count(source)))
            yield part, _held_pieces(source.held, part, source.devices)
        return
    stream = row_blocks.read_blocks(source.vectors, source.block_rows, source.rows)
    for start, block in nearest_torch.to_devices(stream, source.devices):
        stop = start
        jobs = []
        for place, left in block:
            part = slice(stop, stop + len(left))
            levels = [level[place] for level in source.levels]
            codes = [codes[part] for codes in source.codes]
            jobs.append((left, levels, codes, source.scale))
            stop = part.stop
        nearest_torch.at_once(_subtract, jobs)
        yield slice(start, stop), block


def blocks(source: Source) -> Iterator[tuple[slice, torch.Tensor]]:
    """Read every training row, in order, to the first device.

    Yields:
        Which of the n rows they are, and float32 (b, D), overwritten by the next block.
    """
    for part, block in pieces(source):
        yield part, torch.cat([left.to(source.device) for _, left in block])


def sample(source: Source, n_rows: int, generator: np.random.Generator) -> torch.Tensor:
    """Draw rows without replacement, in random order.

    Returns:
        float32 (n_rows, D) on the first device, a copy.
    """
    chosen = np.sort(generator.choice(count(source), size=n_rows, replace=False))
    places = torch.from_numpy(generator.permutation(n_rows)).to(source.device)
    drawn = torch.empty((n_rows, source.vectors.shape[1]), device=source.device)
    part_of = source._replace(
        rows=chosen if source.rows is None else source.rows[chosen],
        codes=[codes[chosen] for codes in source.codes],
        held=None,
    )
    for part, block in pieces(part_of):
        start = part.start
        for _, left in block:
            drawn[places[start : start + len(left)]] = left.to(source.device)
            start += len(left)
    return drawn


def hold(source: Source) -> Source:
    """Keep the rows on the devices, if these are GPUs that have room for them."""
    n_bytes = row_blocks.FLOAT_BYTES * count(source) * source.vectors.shape[1]
    if not _have_room(source.devices, n_bytes):
        return source
    held = []
    for _, block in pieces(source._replace(block_rows=nearest_torch.PIECE_ROWS)):
        held += [left.clone() for _, left in block]
    return source._replace(held=held)


def explain(source: Source, level: list[nearest_torch.Level], codes: np.ndarray) -> Source:
    """Take from every row the codeword that it has: unsigned ``codes`` (n,)."""
    if source.held is not None:
        for part, block in pieces(source):
            start = part.start
            for place, left in block:
                _subtract(left, [level[place]], [codes[start : start + len(left)]], 1.0)
                start += len(left)
    return source._replace(levels=[*source.levels, level], codes=[*source.codes, codes])


def _held_pieces(held: list[torch.Tensor], part: slice, devices: list[torch.device]) -> list[Piece]:
    pieces, start = [], part.start
    while start < part.stop:
        number, low = divmod(start, nearest_torch.PIECE_ROWS)
        residual = held[number][low : low + part.stop - start]
        pieces.append(Piece(number % len(devices), residual))
        start += len(residual)
    return pieces


def _subtract(
    left: torch.Tensor, levels: list[nearest_torch.Level], codes: list[np.ndarray], scale: float
) -> None:
    """Scale rows (p, D), in place, and take the codewords away that each level gave them."""
    if scale != 1.0:
        left.mul_(scale)
    step = CACHED_ROWS if left.device.type == "cpu" else len(left)
    for level, had in zip(levels, codes, strict=True):
        index = torch.from_numpy(had.astype(np.int64))
        if left.device.type == "cuda":
            index = index.pin_memory()  # from pageable memory a copy would wait for the stream
        index = index.to(left.device, non_blocking=True)
        for some, own in zip(left.split(step), index.split(step), strict=True):  # type: ignore[no-untyped-call]
            some -= level.words.index_select(0, own)


def _have_room(devices: list[torch.device], n_bytes: int) -> bool:
    return all(
        device.type == "cuda"
        and torch.cuda.mem_get_info(device)[0] * HELD_SHARE > n_bytes / len(set(devices))
        for device in devices
    )
