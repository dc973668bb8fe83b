"""The items of the catalogue, and finding them by id.

Letters: N items of the catalogue; an item's number is its row in text.parquet.
"""

import re
import reprlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.formats import ids as id_rows
from sidmill.formats import vectors

UNKNOWN = id_rows.ABSENT


class KnownItems(NamedTuple):
    """The catalogue's ``ids``, int64 or string (N,) in row order, and the table to find them."""

    ids: pa.Array
    lookup: id_rows.Lookup

    @property
    def integer(self) -> bool:
        """Whether ids are integers."""
        return self.ids.type == pa.int64()


def load(text_path: str | Path) -> KnownItems:
    """Read the ids of text.parquet, or of another parquet with a ``pid``.

    Memory: that of :func:`sidmill.formats.ids.make`, and the ids.

    Raises:
        SidmillError: if an integer id is 0, which is padding, or negative; if one stands twice.
    """
    ids = vectors.read_pids(text_path).combine_chunks()
    if ids.type != pa.int64():
        ids = ids.cast(pa.string())
    elif (lowest := ids.to_numpy().min()) < 1:
        raise SidmillError(
            f"{text_path}: item id {lowest}: histories are padded with 0, so integer ids "
            f"begin at 1: number the catalogue from 1, or set items.id_type: string"
        )
    return KnownItems(ids, id_rows.make(ids))


def numbers_of(known: KnownItems, wanted: pa.Array) -> np.ndarray:
    """Find items by id.

    Args:
        known: the catalogue.
        wanted: ids (n,), of the catalogue's type, without nulls.

    Returns:
        int32 (n,): numbers, ``UNKNOWN`` for ids that the catalogue lacks.
    """
    return id_rows.find(known.lookup, wanted)


def as_id(known: KnownItems, value: object) -> int | str:
    """Write one id as the catalogue has its ids: 7 and "7" are the same, "007" is another.

    Raises:
        ValueError: if it cannot be one; the message says why.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"item {reprlib.repr(value)} is a {type(value).__name__}")
    if not known.integer:
        if isinstance(value, str) and value != value.encode(errors="replace").decode():
            raise ValueError("an item id holds half a character (a lone surrogate)")
        return str(value)
    if isinstance(value, str):
        if not re.fullmatch(r"0|-?[1-9][0-9]{0,18}", value):
            raise ValueError(f"item {value!r:.40} is no integer, as the catalogue's ids are")
        value = int(value)
    if value < 1:
        raise ValueError(f"item id {value}: {'0 is padding' if value == 0 else 'negative'}")
    if value >= 2**63:
        raise ValueError(f"item id {value} does not fit in 64 bits")
    return value
