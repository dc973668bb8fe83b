"""Ids and texts of many rows at once, from the columns of a block of the catalogue.

They are those that ``render.py`` makes row by row. Each value that may need more than a look is
made by the function that rows take, and each row that may give no item is left to it.
"""

from collections.abc import Sequence
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as is_type

from sidmill.io import plain_columns
from sidmill.items.clean import UnreadableError, plain_text

# What clean.plain_text may change in text of ASCII: entities, tags, JSON, controls, white space.
MAY_CHANGE = r"&[#A-Za-z0-9]+;|<|^[\[{]|  |^ | $|[\x00-\x1f\x7f]"
LETTER_OR_DIGIT = "[A-Za-z0-9]"
VISIBLE = "[!-~]"  # text with such a character is not blank
SHORT_INTEGER = "^[1-9][0-9]{0,17}$"  # as str() writes it; 64 bits hold it


def ids(values: pa.Array | None, *, as_integers: bool, strict: bool) -> pa.Array | None:
    """Ids of rows: int64 (n,) or string (n,), null where the row has to be read by itself.

    Args:
        values: of the field of the id, (n,); None where there is none.
        as_integers: whether ids are integers.
        strict: whether values of another type are no ids.

    Returns:
        None where all rows have to be read by themselves.
    """
    if values is None:
        return None
    if is_type.is_integer(values.type) and values.type != pa.uint64():
        if not as_integers and strict:
            return None
        return values.cast(pa.int64() if as_integers else pa.string())
    if not is_type.is_string(values.type) or (as_integers and strict):
        return None
    usual = pc.match_substring_regex(values, SHORT_INTEGER if as_integers else VISIBLE)
    values = pc.if_else(usual, values, pa.scalar(None, pa.string()))
    return values.cast(pa.int64()) if as_integers else values


def texts(columns: pa.RecordBatch, fields: Sequence[str]) -> pa.Array | None:
    """Texts of fields joined by line feeds: string (n,), null where the row gives no text.

    Returns:
        None where rows have to be read by themselves.
    """
    # Each field as clean text, null where it has none.
    try:
        found = (plain_columns.of_field(columns, name, binary_is_text=False) for name in fields)
        parts = [_clean(values) for values in found if values is not None]
    except (UnreadableError, RecursionError, pa.ArrowException, ValueError, OverflowError):
        return None
    if not parts:
        return None

    # Arrow drops a row of nulls alone from what it joins: such a row gets an empty text.
    is_empty = reduce(pc.and_, (part.is_null() for part in parts))
    parts[0] = pc.if_else(is_empty, "", parts[0])
    joined = pc.binary_join_element_wise(*parts, "\n", null_handling="skip")

    # Rows with a letter or a digit: of ASCII mostly, else as Python counts them.
    is_text = pc.match_substring_regex(joined, LETTER_OR_DIGIT)
    others = pc.invert(is_text)
    if pc.any(others).as_py():
        says = [any(map(str.isalnum, text)) for text in joined.filter(others).to_pylist()]
        is_text = pc.replace_with_mask(is_text, others, pa.array(says, pa.bool_()))
    return pc.if_else(is_text, joined, pa.scalar(None, pa.string()))


def _clean(values: pa.Array) -> pa.Array:
    """What ``clean.plain_text`` makes of values: string (n,), null in place of an empty one.

    Raises:
        UnreadableError, RecursionError, ValueError, OverflowError, pa.ArrowException: if there is
            a value that has no text, or that Python does not have.
    """
    if is_type.is_null(values.type):
        return values.cast(pa.string())
    if is_type.is_integer(values.type):
        return values.cast(pa.string())
    if not is_type.is_string(values.type):
        made = map(plain_text, values.to_pylist(maps_as_pydicts="lossy"))
        return pa.array([text or None for text in made], pa.string())

    # Text: values that cleaning may change are cleaned by themselves.
    may_change = pc.or_(
        pc.match_substring_regex(values, MAY_CHANGE), pc.invert(pc.string_is_ascii(values))
    )
    may_change = pc.fill_null(may_change, False)
    if pc.any(may_change).as_py():
        made = map(plain_text, values.filter(may_change).to_pylist())
        values = pc.replace_with_mask(values, may_change, pa.array(made, pa.string()))
    return pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.string()), values)


def positions(is_chosen: pa.Array) -> list[int]:
    """Positions of the true values of bool (n,) without nulls."""
    chosen: list[int] = np.flatnonzero(is_chosen.to_numpy(zero_copy_only=False)).tolist()
    return chosen
