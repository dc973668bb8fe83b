"""Item ids of sequences.parquet -> the integers that other tools know the items by.

Letters: N items of the catalogue.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.formats import item_index, vector_store
from sidmill.io import id_lookup


class ItemNumbers(NamedTuple):
    """The table to find an item's row by its id, and ``numbers`` int64 (N,) by row."""

    lookup: id_lookup.Lookup
    numbers: np.ndarray


def make(ids: pa.Array, numbers: np.ndarray) -> ItemNumbers:
    """Number the items of a catalogue.

    Args:
        ids: int64 or string (N,), none twice.
        numbers: int64 (N,).
    """
    return ItemNumbers(id_lookup.make(ids), numbers)


def as_indexed(text_path: str | Path, source: str | Path) -> ItemNumbers:
    """Number the items of text.parquet for exported histories, as item_index.parquet does.

    Args:
        text_path: text.parquet, or another parquet with a ``pid``.
        source: the file to be numbered, for messages.

    Raises:
        SidmillError: if an integer id is below 1.
    """
    ids = vector_store.read_pids(text_path).combine_chunks()
    ids = ids if pa.types.is_integer(ids.type) else ids.cast(pa.string())
    return make(ids, item_index.number(pa.chunked_array([ids]), source))


def find(items: ItemNumbers, ids: pa.Array, source: str | Path) -> np.ndarray:
    """Look up the integers that item_index.parquet gives items.

    Args:
        items: the catalogue.
        ids: (n,), of the catalogue's type.
        source: the file that holds them, for messages.

    Returns:
        int64 (n,).

    Raises:
        SidmillError: if the catalogue lacks an item.
    """
    rows = id_lookup.find(items.lookup, ids, str(source))
    if (rows == id_lookup.ABSENT).any():
        missing = ids[int(rows.argmin())].as_py()
        raise SidmillError(f"{source}: item {missing!r} is not in the catalogue: make it again")
    return np.asarray(items.numbers[rows])
