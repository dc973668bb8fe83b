"""One row of an interaction log, in any of the four forms, as a piece of one user's history.

    missrec    user_id, user_sequence        left-padded with zeros; the folder says the split
    sequences  user_id, item_ids             and, one per item, splits and timestamps
    events     user_id, item_id, timestamp
    onerec     uid, split, hist_video_pid, target_video_pid

Sources: https://github.com/gimpong/MM23-MISSRec, https://github.com/Kuaishou-OneRec/OpenOneRec
"""

import math
import reprlib
from collections.abc import Callable
from typing import NamedTuple

from sidmill.formats.interactions import ONEREC_SPLITS, SPLITS, TEST, TRAIN, VALID
from sidmill.interactions.files import SPLIT_NAMES

NOT_SAID = -1  # the split of an item that a row shows as history, not as a target
SPLIT_VALUES = {**SPLIT_NAMES, TRAIN: TRAIN, VALID: VALID, TEST: TEST}
ONEREC_NAMES = {**SPLIT_NAMES, **ONEREC_SPLITS}
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
}


class BadRowError(Exception):
    """A row that gives nothing; the message is the reason.

    Attributes:
        interactions: how many are lost with it, 0 where that cannot be told.
    """

    def __init__(self, reason: str, interactions: int = 0) -> None:
        """Say why, and how many interactions go."""
        super().__init__(reason)
        self.interactions = interactions


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
    items: list
    splits: list[int] | None
    times: list | None
    whole: bool


Parser = Callable[[dict, int | None], Piece]


def parser(form: str, fields: dict[str, str | None]) -> Parser:
    """Make the function that reads a row of ``form``.

    Args:
        form: missrec, sequences, events or onerec.
        fields: other names of the fields than the usual ones; None for the usual name.

    Returns:
        A function of a row's fields and of the split that its file name says. It raises
        BadRowError.
    """
    names = {key: fields[key] or usual for key, usual in USUAL_FIELDS[form].items()}
    read = {"missrec": _missrec, "sequences": _sequence, "events": _event, "onerec": _onerec}[form]
    return lambda row, file_split: read(row, names, file_split)


def _missrec(row: dict, names: dict[str, str], file_split: int | None) -> Piece:
    user = _user(row, names["user"])
    if file_split is None:
        raise BadRowError("the file is in no folder train, valid or test, nor named so")
    padded = _list(row, names["item"])
    start = next((place for place, item in enumerate(padded) if item != 0), len(padded))
    items = padded[start:]
    if not items:
        raise BadRowError("empty history: padding alone")
    past = TRAIN if file_split == TRAIN else NOT_SAID
    return Piece(user, items, [past] * (len(items) - 1) + [file_split], None, start > 0)


def _sequence(row: dict, names: dict[str, str], _: int | None) -> Piece:
    user = _user(row, names["user"])
    items = _list(row, names["item"])
    if not items:
        raise BadRowError("empty history")
    said, times = row.get(names["split"]), row.get(names["time"])
    for name, values in ((names["split"], said), (names["time"], times)):
        if values is not None and (not isinstance(values, list) or len(values) != len(items)):
            found = len(values) if isinstance(values, list) else type(values).__name__
            raise BadRowError(f"{len(items)} items, but {name}: {found}", len(items))
    splits = None if said is None else [_split(value, SPLIT_VALUES) for value in said]
    return Piece(user, items, splits, times, True)


def _event(row: dict, names: dict[str, str], _: int | None) -> Piece:
    user = _user(row, names["user"])
    item, time, said = (row.get(names[key]) for key in ("item", "time", "split"))
    if _is_missing(item):
        raise BadRowError(f"no item in field {names['item']!r}")
    if _is_missing(time):
        raise BadRowError(f"no timestamp in field {names['time']!r}")
    splits = None if said is None else [_split(said, SPLIT_VALUES)]
    return Piece(user, [item], splits, [time], False)


def _onerec(row: dict, names: dict[str, str], file_split: int | None) -> Piece:
    user = _user(row, names["user"])
    said = row.get(names["split"], file_split)
    split = _split(said, ONEREC_NAMES)
    past = _list(row, names["history"]) if row.get(names["history"]) is not None else []
    target = _list(row, names["target"]) if row.get(names["target"]) is not None else []
    if not past and not target:
        raise BadRowError("empty history")
    splits = [NOT_SAID] * len(past) + [split] * len(target)
    return Piece(user, past + target, splits, None, False)


def _user(row: dict, field: str) -> str:
    value = row.get(field)
    if _is_missing(value):
        raise BadRowError(f"no user in field {field!r}")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise BadRowError(f"user {reprlib.repr(value)} is a {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRowError("the user holds half a character (a lone surrogate)") from None
    return value


def _list(row: dict, field: str) -> list:
    value = row.get(field)
    if not isinstance(value, list):
        found = "missing" if value is None else f"a {type(value).__name__}"
        raise BadRowError(f"{field!r} is {found}, wanted a list")
    return value


def _split(value: object, known: dict) -> int:
    try:
        return known[value.lower() if isinstance(value, str) else value]
    except (KeyError, TypeError):
        numbers = ", ".join(f"{key} ({SPLITS[known[key]]})" for key in known if key in (0, 1, 2))
        raise BadRowError(
            f"split {reprlib.repr(value)}: wanted train, valid, test, {numbers}"
        ) from None


def _is_missing(value: object) -> bool:
    """Whether a value says nothing: null, NaN, or nothing but white space."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))
