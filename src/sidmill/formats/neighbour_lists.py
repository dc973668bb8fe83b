"""Neighbours of queries among the rows of a vector store, as one shard of a search found them.

rows int64 (Q, k) and scores float32 (Q, k), best first, in one safetensors file. Where a shard has
fewer than k rows, the rest is row -1 with score -inf. A shard of a reranking is of the same form:
its rows are positions in the run of the query, from 0.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from sidmill.core.errors import SidmillError
from sidmill.io import tensors


class Neighbours(NamedTuple):
    """rows int64 (Q, k), scores float32 (Q, k)."""

    rows: np.ndarray
    scores: np.ndarray


def write(path: str | Path, neighbours: Neighbours) -> None:
    """Write neighbours atomically."""
    tensors.write(path, neighbours._asdict(), {"kind": "neighbours"})


def read(path: str | Path) -> Neighbours:
    """Read the neighbours that one shard of a search found.

    Raises:
        SidmillError: if the file is damaged or holds something else.
    """
    arrays, facts = tensors.read(path, "neighbours")
    if facts.get("kind") != "neighbours":
        raise SidmillError(f"{path}: holds no neighbours: delete it and run again")
    return Neighbours(arrays["rows"], arrays["scores"])
