"""Residual rows by blocks: read, moved to the devices, less the codewords of earlier levels.

Shapes: N items, n training rows, D dimensions, K_l codewords at level l, b rows of one block, p
rows of one piece of it.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sidmill.formats.vector_file import Streamed
from sidmill.numeric import arrays, nearest_pieces, row_blocks, row_pieces
from sidmill.numeric.arrays import Array, Device
from sidmill.numeric.process_group import ALONE, Group
from sidmill.numeric.row_pieces import Piece
from sidmill.quantize import shared_blocks
from sidmill.quantize.shared_blocks import SharedBlock

if TYPE_CHECKING:
    from sidmill.numeric.nearest_pieces import Level

HELD_SHARE = 0.5  # of a GPU's free memory: rows that fit there are read once
CACHED_VALUES = 2**16  # of rows: a core's own cache holds so many, and as many of codewords


class Source(NamedTuple):
    """Training rows and the levels already fitted."""

    vectors: np.ndarray | Streamed  # (N, D), float32 or float16
    rows: np.ndarray | None  # int64 (n,), ascending; None stands for every row
    levels: "list[list[Level]]"  # earlier codebooks, a copy of each per device
    codes: list[np.ndarray]  # (n,) per earlier level, the smallest unsigned type that holds K_l
    devices: list[Device]  # they share the rows of a block
    block_rows: int
    scale: float  # power of two by which vectors are multiplied when they are read
    held: dict[int, Array] | None = None  # residuals where they fit, by number of the piece
    group: Group = ALONE  # the processes that share the pieces of a block

    @property
    def device(self) -> Device:
        """The first device, which keeps the clusters."""
        return self.devices[0]


def count(source: Source) -> int:
    """Return n."""
    return len(source.vectors) if source.rows is None else len(source.rows)


def shared_block(source: Source, span: slice, rows: Array | None = None) -> SharedBlock:
    """How processes share a block; ``rows`` (b, D) where each of them has all of its rows."""
    return SharedBlock(source.group, span.start, span.stop, rows)


def pieces(source: Source) -> Iterator[tuple[slice, list[Piece]]]:
    """Read the residuals of the training rows, in order; of processes, each reads its pieces.

    Yields:
        Which of the n rows a block holds, and its pieces, float32 (p, D) each. The next block
        overwrites them, unless the rows are held.
    """
    if source.held is not None:
        for start in range(0, count(source), source.block_rows):
            span = slice(start, min(start + source.block_rows, count(source)))
            yield span, _held_pieces(source.held, shared_block(source, span), len(source.devices))
        return

    def divide(start: int, rows: Array, n_devices: int) -> list[Piece]:
        return shared_blocks.cut_own(shared_block(source, _block(source, start)), rows, n_devices)

    for start, block in nearest_pieces.to_devices(_own_blocks(source), source.devices, divide):
        span = _block(source, start)
        jobs = []
        own = shared_blocks.own_spans(shared_block(source, span))
        for (device_index, residuals), rows in zip(block, own, strict=True):
            levels = [level[device_index] for level in source.levels]
            codes = [codes[rows] for codes in source.codes]
            jobs.append((residuals, levels, codes, source.scale))
        nearest_pieces.run_concurrently(_subtract, jobs, [index for index, _ in block])
        yield span, block


def _block(source: Source, start: int) -> slice:
    """Which training rows the block holds that begins with row ``start``."""
    return slice(start, min(start + source.block_rows, count(source)))


def _own_blocks(source: Source) -> Iterator[tuple[int, np.ndarray]]:
    """Read the rows of each block, of processes those of this one's pieces.

    Yields:
        The row number of the block's first row, and float32 (at most b, D).
    """
    if source.group.size == 1:
        yield from row_blocks.read_blocks(source.vectors, source.block_rows, source.rows)
        return

    def rows_of(number: int) -> np.ndarray:
        span = _block(source, number * source.block_rows)
        own = shared_blocks.own_spans(shared_block(source, span))
        rows = np.concatenate([np.empty(0, np.int64), *(np.arange(s.start, s.stop) for s in own)])
        return rows if source.rows is None else source.rows[rows]

    n_blocks = -(-count(source) // source.block_rows)
    largest = min(source.block_rows, count(source))
    for number, block in enumerate(
        row_blocks.read_parts(source.vectors, largest, n_blocks, rows_of)
    ):
        yield number * source.block_rows, block


def blocks(source: Source) -> Iterator[tuple[slice, Array]]:
    """Read the residuals of every training row, in order, to the first device.

    Each of several processes reads all of them.

    Yields:
        Which of the n rows they are, and float32 (b, D), overwritten by the next block.
    """
    alone = source if source.group.size == 1 else source._replace(held=None, group=ALONE)
    for span, block in pieces(alone):
        here = [arrays.send(residuals, source.device) for _, residuals in block]
        yield span, arrays.of(here[0]).concatenate(here)


def sample(source: Source, n_rows: int, generator: np.random.Generator) -> Array:
    """Draw residual rows without replacement, in random order; each process reads all of them.

    Returns:
        float32 (n_rows, D) on the first device, a copy.
    """
    chosen = np.sort(generator.choice(count(source), size=n_rows, replace=False))
    targets = arrays.from_host(generator.permutation(n_rows), source.device)
    result = arrays.empty((n_rows, source.vectors.shape[1]), source.device)
    sampled = source._replace(
        rows=chosen if source.rows is None else source.rows[chosen],
        codes=[codes[chosen] for codes in source.codes],
        held=None,
        group=ALONE,
    )
    for span, block in pieces(sampled):
        start = span.start
        for _, residuals in block:
            chosen_rows = targets[start : start + len(residuals)]
            result[chosen_rows] = arrays.send(residuals, source.device)
            start += len(residuals)
    return result


def keep_on_devices(source: Source) -> Source:
    """Keep the residual rows on the devices, if these are GPUs with enough free memory."""
    n_bytes = row_blocks.FLOAT_BYTES * count(source) * source.vectors.shape[1] // source.group.size
    if not _fit_in_memory(source.devices, n_bytes):
        return source
    held: dict[int, Array] = {}
    for span, block in pieces(source._replace(block_rows=row_pieces.PIECE_ROWS)):
        for _, residuals in block:  # one piece, or none
            held[span.start // row_pieces.PIECE_ROWS] = arrays.copy(residuals)
    return source._replace(held=held)


def subtract_level(source: Source, level: "list[Level]", codes: np.ndarray) -> Source:
    """Subtract from every residual row its codeword: unsigned ``codes`` (n,)."""
    if source.held is not None:
        for span, block in pieces(source):
            own = shared_blocks.own_spans(shared_block(source, span))
            for (device_index, residuals), rows in zip(block, own, strict=True):
                _subtract(residuals, [level[device_index]], [codes[rows]], 1.0)
    return source._replace(levels=[*source.levels, level], codes=[*source.codes, codes])


def _held_pieces(held: dict[int, Array], shared: SharedBlock, n_devices: int) -> list[Piece]:
    found = []
    for span in shared_blocks.own_spans(shared):
        number, low = divmod(span.start, row_pieces.PIECE_ROWS)
        rows = held[number][low : low + span.stop - span.start]
        found.append(Piece(shared_blocks.device_of(shared, span, n_devices), rows))
    return found


def _subtract(
    residuals: Array,
    levels: "list[Level]",
    codes: list[np.ndarray],
    scale: float,
) -> None:
    """Scale rows (p, D), in place, and subtract the codeword of each level."""
    if scale != 1.0:
        residuals *= scale
    device = arrays.device_of(residuals)
    step = max(1, CACHED_VALUES // residuals.shape[1]) if device.type == "cpu" else len(residuals)
    for level, codes_of_level in zip(levels, codes, strict=True):
        index = arrays.from_host_early(codes_of_level.astype(np.int64), device)
        batches = zip(arrays.split(residuals, step), arrays.split(index, step), strict=True)
        for batch, labels in batches:
            batch -= arrays.take(level.codewords, labels)


def _fit_in_memory(devices: list[Device], n_bytes: int) -> bool:
    if any(device.type != "cuda" for device in devices):
        return False
    import torch

    share = n_bytes / len(set(devices))
    return all(torch.cuda.mem_get_info(device)[0] * HELD_SHARE > share for device in devices)
