"""What a published data set contains, item by item and interaction by interaction.

A module in ``sidmill.imports.sources`` has one function ``open_source(files)`` that returns a
:class:`Content`. Its functions yield what they read, good or bad, so that every row is counted.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pyarrow as pa

TEXT = pa.string()
TEXTS = pa.list_(pa.string())
SPLITS = {"train": 0, "valid": 1, "test": 2}


class Item(NamedTuple):
    """One item of a catalogue: its id, and its fields by name (text, or a list of texts)."""

    id: str
    fields: dict[str, Any]
    file: str
    row: int


class Event(NamedTuple):
    """One interaction.

    Attributes:
        user: id of the user.
        item: id of the item.
        time: a whole number in the unit of the data set; None if it is not known, which sorts
            before all times of the user.
        value: rating, share of a video that was watched, or another strength; None if there is
            none.
        split: 0 train, 1 valid, 2 test; -1 where the data set has no splits.
        file: file that it is in.
        row: its row there, from 1.
        position: index in a history that several rows of one user repeat; -1 for all others.
        occurrence: how many times the same item is earlier in that history.
    """

    user: str
    item: str
    time: int | None
    value: float | None
    split: int
    file: str
    row: int
    position: int = -1
    occurrence: int = 0


class Bad(NamedTuple):
    """A row that gives nothing, or that stands for so many interactions which are not used."""

    file: str
    row: int
    reason: str
    interactions: int = 1


class Content(NamedTuple):
    """A data set, ready to be read.

    Attributes:
        fields: type of each field of an item, in the order in which its text is made of them.
        items: reads the items.
        events: reads the interactions.
        has_splits: whether the interactions have published splits.
        notes: what a user should know: files that are not read, choices that were made.
        overlay: settings for vectors in the order of all items; dropped where an item is left out.
    """

    fields: dict[str, pa.DataType]
    items: Callable[[], Iterator[Item | Bad]]
    events: Callable[[], Iterator[Event | Bad]]
    has_splits: bool = False
    notes: tuple[str, ...] = ()
    overlay: dict[str, dict[str, Any]] | None = None
