"""A block of rows in pieces: one product each, whatever the number of devices and processes.

Where pieces end depends on the rows alone, and results are put together in row order, so that the
result is the same for any number of devices.

Shapes: D dimensions, b rows of one block, p rows of one piece of it.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from sidmill.numeric.arrays import Array

PIECE_ROWS = 1024  # rows of one product, whatever the number of devices


class Piece(NamedTuple):
    """A part of a block, on the device that works on it."""

    device_index: int  # position of its device in the list
    rows: Array  # float32 (p, D), p at most PIECE_ROWS


def piece_spans(start: int, stop: int) -> list[slice]:
    """Cut the rows of a block at row numbers that PIECE_ROWS divides."""
    first = start + PIECE_ROWS - start % PIECE_ROWS
    edges = [start, *range(first, stop, PIECE_ROWS), stop]
    return [slice(low, high) for low, high in pairwise(edges)]


def cut(start: int, block: Array, n_devices: int) -> list[Piece]:
    """Cut a block (b, D) into pieces; nothing is copied or moved yet.

    Args:
        start: row number of its first row.
        block: float32 (b, D).
        n_devices: pieces are distributed round-robin over so many devices.
    """
    return [
        Piece(span.start // PIECE_ROWS % n_devices, block[span.start - start : span.stop - start])
        for span in piece_spans(start, start + len(block))
    ]


def rounds(pieces: list[Piece], n_devices: int) -> Iterator[list[Piece]]:
    """Group pieces that different devices hold."""
    return (pieces[first : first + n_devices] for first in range(0, len(pieces), n_devices))
