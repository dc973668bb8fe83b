"""What a container of vectors gives: rows in order, and ids where it has them.

Letters: N vectors of D dimensions.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError

BLOCK_ROWS = 4096
FLOATS = "floats of 16, 32 or 64 bits, or bfloat16"


class Names(NamedTuple):
    """What the arrays, columns or tensors are called: ``embedding.fields``.

    Attributes:
        pid: of the ids.
        embedding: of the vectors.
    """

    pid: str = "pid"
    embedding: str = "embedding"


class Container(NamedTuple):
    """Opened vectors.

    Attributes:
        shape: N and D.
        read: yields float32 (b, D) from the first row on, N rows in all.
        read_ids: yields the ids, int64 or string, N in all; None where it has none.
    """

    shape: tuple[int, int]
    read: Callable[[], Iterator[np.ndarray]]
    read_ids: Callable[[], Iterator[pa.ChunkedArray]] | None


def choose(path: str, wanted: str, names: Sequence[str], setting: str) -> str:
    """The array that is meant: the one of the wanted name, or the only one there is.

    Args:
        path: the file, for the message.
        wanted: the name in the settings.
        names: of the arrays of the right shape.
        setting: key of the settings, for the message.

    Raises:
        SidmillError: if there are several, or none.
    """
    if wanted in names:
        return wanted
    if len(names) == 1:
        return names[0]
    listed = ", ".join(names[:20]) or "none"
    raise SidmillError(
        f"{path}: no vectors named {wanted!r}; arrays (N, D) of {FLOATS}: {listed}: set {setting}"
    )


def blocks(n_rows: int, cut: Callable[[int, int], np.ndarray]) -> Iterator[np.ndarray]:
    """Read rows block by block.

    Args:
        n_rows: N.
        cut: reads the rows from a start to a stop, float32 (b, D).
    """
    for start in range(0, n_rows, BLOCK_ROWS):
        yield cut(start, min(start + BLOCK_ROWS, n_rows))


def from_bfloat16(halves: np.ndarray) -> np.ndarray:
    """The float32 that bfloat16 stands for: its upper half.

    Args:
        halves: any array of 2-byte values that hold bfloat16.
    """
    wide = halves.view(np.uint16).astype(np.uint32) << np.uint32(16)
    return wide.view(np.float32)
