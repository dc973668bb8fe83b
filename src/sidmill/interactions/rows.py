"""One row of an interaction log, in any of its forms, as a piece of one user's history.

    missrec    user_id, user_sequence        left-padded with zeros; the folder says the split
    sequences  user_id, item_ids             and, one per item, splits and timestamps
    events     user_id, item_id, timestamp
    onerec     uid, split, hist_video_pid, target_video_pid
    inter      user_id, item_id_list, item_id     the history, and what came next

Where a row of events, sequences, onerec or inter says no split, its file's name may say it.

Sources: https://github.com/gimpong/MM23-MISSRec, https://github.com/Kuaishou-OneRec/OpenOneRec
"""

import math
import re
import reprlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from sidmill.formats.sequence_table import (
    ONEREC_SPLITS,
    SPLITS,
    TEST,
    TRAIN,
    VALID,
)
from sidmill.interactions.files import SPLIT_NAMES
from sidmill.settings.interactions import InteractionsFields

# What a row says of an item that it shows as history, not as a target: this, less the row's own
# split, so that -1, -2 and -3 are the history of train, valid and test rows.
NOT_SAID = -1
SPLIT_VALUES = dict[object, int]([*SPLIT_NAMES.items(), *((n, n) for n in (TRAIN, VALID, TEST))])
ONEREC_NAMES = dict[object, int]([*SPLIT_NAMES.items(), *ONEREC_SPLITS.items()])
WHOLE_FLOAT = re.compile(r"(-?\d+)\.0+", re.ASCII)  # what an integer becomes beside a missing one
EXACT = 2**53  # from here on float64 has not every integer
USUAL_FIELDS = {
    "missrec": {"user": "user_id", "item": "user_sequence"},
    "sequences": {
        "user": "user_id",
        "item": "item_ids",
        "time": "timestamps",
        "split": "splits",
    },
    "events": {"user": "user_id", "item": "item_id", "time": "timestamp", "split": "split"},
    "onerec": {
        "user": "uid",
        "split": "split",
        "history": "hist_video_pid",
        "target": "target_video_pid",
    },
    "inter": {
        "user": "user_id",
        "split": "split",
        "history": "item_id_list",
        "target": "item_id",
    },
}


# Fields of a form whose values are lists.
LISTS = {
    "missrec": ("item",),
    "sequences": ("item", "time", "split"),
    "events": (),
    "onerec": ("history", "target"),
    "inter": ("history", "target"),
}


CORRECT_ROW = "correct the row"


class BadRowError(Exception):
    """A row that gives nothing; the message is the reason.

    Attributes:
        interactions: how many are lost with it, 0 where that is unknown.
        role: what the fault is in (``user``, ``item``, ``time``, ``split``), where it may be that
            of a whole column.
        remedy: what corrects a column of such values.
    """

    def __init__(
        self,
        reason: str,
        interactions: int = 0,
        role: str | None = None,
        remedy: str = CORRECT_ROW,
    ) -> None:
        """Say why, how many interactions go, and what helps."""
        super().__init__(reason)
        self.interactions = interactions
        self.role = role
        self.remedy = remedy


class Piece(NamedTuple):
    """Part of one user's history, or all of it.

    Attributes:
        user: user id as text.
        items: item ids as the row has them, unchecked, oldest first.
        splits: one per item, ``NOT_SAID`` allowed; or None.
        times: one per item, unchecked; or None.
        whole: whether the history begins with the first of ``items``.
    """

    user: str
    items: list[Any]
    splits: list[int] | None
    times: list[Any] | None
    whole: bool


NO_TIME = (
    "name the field of the times in interactions.fields.time; for a log without times, write one "
    "row per user with the list item_ids, oldest first (the form sequences)"
)

Row = dict[str, Any]  # field name to value
Parser = Callable[[dict[str, Any], int | None], Piece]


def names_of(form: str, fields: InteractionsFields) -> dict[str, str]:
    """Names of the fields of a form by their role: the user's own, or the usual ones."""
    return {key: getattr(fields, key) or usual for key, usual in USUAL_FIELDS[form].items()}


def list_names(form: str, fields: InteractionsFields) -> frozenset[str]:
    """Names of the fields of a form whose values are lists."""
    names = names_of(form, fields)
    return frozenset(names[role] for role in LISTS[form])


def parser(form: str, fields: InteractionsFields, padding: tuple[int | str, ...] = (0,)) -> Parser:
    """Make the function that reads a row of an interaction log of the form ``form``.

    Args:
        form: missrec, sequences, events, onerec or inter.
        fields: other names of the fields than the usual ones; None for the usual name.
        padding: what missrec rows are padded with.

    Returns:
        A function of a row's fields and of the split that its file name says. It raises
        BadRowError.
    """
    names = names_of(form, fields)
    readers: dict[str, Callable[[Row, dict[str, str], int | None], Piece]] = {
        "missrec": partial(_missrec, padding),
        "sequences": _sequence,
        "events": _event,
        "onerec": _onerec,
        "inter": _inter,
    }
    read = readers[form]
    return lambda row, file_split: read(row, names, file_split)


def _missrec(
    padding: tuple[int | str, ...], row: Row, names: dict[str, str], file_split: int | None
) -> Piece:
    user = _user(row, names["user"])
    if file_split is None:
        raise BadRowError("the file is in no folder train, valid or test, nor named so")
    padded = _list(row, names["item"])
    start = next((index for index, item in enumerate(padded) if item not in padding), len(padded))
    items = padded[start:]
    if not items:
        raise BadRowError("empty history: padding alone")
    past = TRAIN if file_split == TRAIN else NOT_SAID - file_split
    return Piece(user, items, [past] * (len(items) - 1) + [file_split], None, start > 0)


def _sequence(row: Row, names: dict[str, str], file_split: int | None) -> Piece:
    user = _user(row, names["user"])
    items = _list(row, names["item"])
    if not items:
        raise BadRowError("empty history")
    said, times = row.get(names["split"]), row.get(names["time"])
    for name, values in ((names["split"], said), (names["time"], times)):
        if values is not None and (not isinstance(values, list) or len(values) != len(items)):
            found = len(values) if isinstance(values, list) else type(values).__name__
            raise BadRowError(f"{len(items)} items, but {name}: {found}", len(items))
    splits = None if file_split is None else [file_split] * len(items)
    if said is not None:
        splits = [split_number(value, SPLIT_VALUES) for value in said]
    return Piece(user, items, splits, times, True)


def _event(row: Row, names: dict[str, str], file_split: int | None) -> Piece:
    user = _user(row, names["user"])
    item, time, said = (row.get(names[key]) for key in ("item", "time", "split"))
    if is_missing(item):
        raise BadRowError(f"no item in field {names['item']!r}", 0, "item")
    if is_missing(time):
        raise BadRowError(f"no timestamp in field {names['time']!r}", 0, "time", NO_TIME)
    split = file_split if is_missing(said) else split_number(said, SPLIT_VALUES)
    return Piece(user, [item], None if split is None else [split], [time], False)


def _onerec(row: Row, names: dict[str, str], file_split: int | None) -> Piece:
    return _targeted(row, names, file_split, ONEREC_NAMES)


def _inter(row: Row, names: dict[str, str], file_split: int | None) -> Piece:
    return _targeted(row, names, file_split, SPLIT_VALUES)


def _targeted(
    row: Row, names: dict[str, str], file_split: int | None, split_numbers: Mapping[object, int]
) -> Piece:
    """A history, and targets that came after it."""
    user = _user(row, names["user"])
    said = row.get(names["split"])
    split = file_split if is_missing(said) else split_number(said, split_numbers)
    if split is None:
        raise BadRowError(
            f"no split in field {names['split']!r}, and the file is in no folder train, valid or "
            f"test, nor named so",
            0,
            "split",
        )
    past = _list(row, names["history"]) if row.get(names["history"]) is not None else []
    target = row.get(names["target"])
    target = [] if target is None else target if isinstance(target, list) else [target]
    if not past and not target:
        raise BadRowError("empty history")
    splits = [NOT_SAID - split] * len(past) + [split] * len(target)
    return Piece(user, past + target, splits, None, False)


def _user(row: Row, field: str) -> str:
    value = row.get(field)
    if is_missing(value):
        raise BadRowError(f"no user in field {field!r}", 0, "user")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        return str(int(value))
    if not isinstance(value, str):
        raise BadRowError(f"user {reprlib.repr(value)} is a {type(value).__name__}", 0, "user")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRowError("the user holds half a character (a lone surrogate)") from None
    whole = WHOLE_FLOAT.fullmatch(value)
    return whole[1] if whole else value


def _list(row: Row, field: str) -> list[Any]:
    value = row.get(field)
    if not isinstance(value, list):
        found = "missing" if value is None else f"a {type(value).__name__}"
        raise BadRowError(f"{field!r} is {found}, wanted a list", 0, "item")
    return value


def split_number(value: object, numbers: Mapping[object, int]) -> int:
    """The split that a value says: a name, or a number however it is written."""
    key = value
    if isinstance(value, str):
        key = value.strip().lower()
        whole = WHOLE_FLOAT.fullmatch(key)
        digits = whole[1] if whole else key
        key = int(digits) if digits in ("0", "1", "2") else key
    try:
        if isinstance(value, bool):
            raise KeyError(value)
        return numbers[key]
    except (KeyError, TypeError):
        shown = ", ".join(f"{key} ({SPLITS[numbers[key]]})" for key in numbers if key in (0, 1, 2))
        raise BadRowError(
            f"split {reprlib.repr(value)}: wanted train, valid, test, {shown}", 0, "split"
        ) from None


def is_missing(value: object) -> bool:
    """Whether a value says nothing: null, NaN, or nothing but white space."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))
