"""The items of the catalogue, and finding them by id.

Letters: N items of the catalogue; an item's number is its row in text.parquet.
"""

import re
import reprlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sidmill.core.errors import SidmillError
from sidmill.formats import text

UNKNOWN = -1
DENSE_SLACK = 8  # a direct table may be so many times longer than the catalogue


class KnownItems(NamedTuple):
    """The catalogue's ids.

    Attributes:
        ids: int64 or string (N,), in row order.
        table: for integer ids close together, int32 (largest id + 1,): id to number, else None.
        ranked: for other integer ids, int64 (N,) rising, else None.
        numbers: int64 (N,), the number of each of ``ranked``, else None.
    """

    ids: pa.Array
    table: np.ndarray | None
    ranked: np.ndarray | None
    numbers: np.ndarray | None

    @property
    def integer(self) -> bool:
        """Whether ids are integers."""
        return self.ids.type == pa.int64()


def load(text_path: str | Path) -> KnownItems:
    """Read the ids of text.parquet. Memory: 8 to 40 bytes per item, or the strings.

    Raises:
        SidmillError: if an integer id is 0, which is padding, or negative.
    """
    column = pa.chunked_array([table["pid"].combine_chunks() for table in text.read(text_path)])
    ids = column.combine_chunks()
    if ids.type != pa.int64():
        return KnownItems(ids.cast(pa.string()), None, None, None)
    values = ids.to_numpy()
    if values.min() < 1:
        raise SidmillError(
            f"{text_path}: item id {values.min()}: histories are padded with 0, so integer ids "
            f"begin at 1: number the catalogue from 1, or set items.id_type: string"
        )
    if values.max() < DENSE_SLACK * len(values):
        table = np.full(values.max() + 1, UNKNOWN, dtype=np.int32)
        table[values] = np.arange(len(values), dtype=np.int32)
        return KnownItems(ids, table, None, None)
    numbers = np.argsort(values, kind="stable")
    return KnownItems(ids, None, values[numbers], numbers)


def numbers_of(known: KnownItems, wanted: pa.Array) -> np.ndarray:
    """Find items by id.

    Args:
        known: the catalogue.
        wanted: ids (n,), of the catalogue's type, without nulls; integers above 0.

    Returns:
        int32 (n,): numbers, ``UNKNOWN`` for ids that the catalogue lacks.
    """
    if known.table is not None:
        values = wanted.to_numpy()
        inside = values < len(known.table)
        return np.where(inside, known.table[np.where(inside, values, 0)], UNKNOWN)
    if known.ranked is not None:
        values = wanted.to_numpy()
        place = np.minimum(np.searchsorted(known.ranked, values), len(known.ranked) - 1)
        found = known.ranked[place] == values
        return np.where(found, known.numbers[place], UNKNOWN).astype(np.int32)
    found = pc.index_in(wanted, value_set=known.ids)
    return pc.fill_null(found, UNKNOWN).to_numpy(zero_copy_only=False).astype(np.int32)


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
