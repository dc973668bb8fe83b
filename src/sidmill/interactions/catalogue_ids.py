"""The items of the catalogue, and finding them by id.

Letters: N items of the catalogue; an item's number is its row in text.parquet.
"""

import re
import reprlib
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.formats import vector_store
from sidmill.io import id_lookup

UNKNOWN = id_lookup.ABSENT
EXACT = 2**53  # from here on float64 has not every integer
LONGEST_DIGITS = 28  # of a decimal number; 64 bits have 19
WHOLE = re.compile(r"(0|-?[1-9][0-9]{0,18})(?:\.0+)?", re.ASCII)


class CatalogueIds(NamedTuple):
    """The catalogue's ``ids``, int64 or string (N,) in row order, and the table to find them."""

    ids: pa.Array
    lookup: id_lookup.Lookup

    @property
    def integer(self) -> bool:
        """Whether ids are integers."""
        return bool(self.ids.type == pa.int64())


def load(text_path: str | Path) -> CatalogueIds:
    """Read the ids of the catalogue's items, from text.parquet or another parquet with a ``pid``.

    Memory: that of :func:`sidmill.io.id_lookup.make`, and the ids.

    Raises:
        SidmillError: if an integer id is 0, which is padding, or negative; if one stands twice.
    """
    ids = vector_store.read_pids(text_path).combine_chunks()
    if ids.type != pa.int64():
        ids = ids.cast(pa.string())
    elif (lowest := ids.to_numpy().min()) < 1:
        raise SidmillError(
            f"{text_path}: item id {lowest}: histories are padded with 0, so integer ids "
            f"begin at 1: number the catalogue from 1, or set items.id_type: string"
        )
    return CatalogueIds(ids, id_lookup.make(ids))


def numbers_of(catalogue: CatalogueIds, ids: pa.Array) -> np.ndarray:
    """Find items by id.

    Args:
        catalogue: the catalogue's ids.
        ids: (n,), of the catalogue's type, without nulls.

    Returns:
        int32 (n,): numbers, ``UNKNOWN`` for ids that the catalogue lacks.
    """
    return id_lookup.find(catalogue.lookup, ids)


def as_id(catalogue: CatalogueIds, value: object) -> int | str:
    """Write one id as the catalogue has its ids: 7 and "7" are the same, "007" is another.

    Where the catalogue's ids are integers, 7.0 and "7.0" are 7 too, up to 2^53: a column of
    integers becomes one of floats where a value is missing.

    Raises:
        ValueError: if it cannot be one; the message says why.
    """
    # A float that pandas made of an integer is that integer again, as far as it is exact.
    if isinstance(value, float | Decimal) and catalogue.integer and _is_whole(value):
        if isinstance(value, float) and abs(value) >= EXACT:
            raise ValueError(f"item {value!r} is a float too large to be exact")
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        kind = type(value).__name__
        hint = ""
        if isinstance(value, float) and not catalogue.integer and value.is_integer():
            hint = (
                f": the catalogue's ids are text, such as {catalogue.ids[0].as_py()!r}; pandas "
                f"makes floats of integers where a value is missing, so write the column as text"
            )
        raise ValueError(f"item {reprlib.repr(value)} is a {kind}{hint}")

    # Ids as text.
    if not catalogue.integer:
        if isinstance(value, str) and value != value.encode(errors="replace").decode():
            raise ValueError("an item id holds half a character (a lone surrogate)")
        return str(value)

    # Ids as integers of 64 bits above 0.
    number = value
    if isinstance(value, str):
        whole = WHOLE.fullmatch(value)
        if not whole:
            raise ValueError(
                f"item {value!r:.40} is no integer, as the catalogue's ids are (such as "
                f"{catalogue.ids[0].as_py()})"
            )
        number = int(whole[1])
    if not isinstance(number, int) or number < 1:
        raise ValueError(f"item id {number}: {'0 is padding' if number == 0 else 'negative'}")
    if number >= 2**63:
        raise ValueError(f"item id {number} does not fit in 64 bits")
    return number


def _is_whole(value: float | Decimal) -> bool:
    if isinstance(value, float):
        return value.is_integer()
    small = value.is_finite() and value.adjusted() < LONGEST_DIGITS
    return small and value == value.to_integral_value()


def padding(catalogue: CatalogueIds) -> tuple[int | str, ...]:
    """What pads the histories of missrec: 0, and "0" where that is no item of the catalogue."""
    if catalogue.integer or numbers_of(catalogue, pa.array(["0"]))[0] == UNKNOWN:
        return (0, "0")
    return (0,)
