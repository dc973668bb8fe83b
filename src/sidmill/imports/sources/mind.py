"""MIND: news.tsv and behaviors.tsv, tab-separated, without header and without quotes.

    news.tsv        id, category, subcategory, title, abstract, address, title and abstract entities
    behaviors.tsv   impression, user, time, history (ids, oldest first), impressions (N1-0 N2-1)

A user's interactions are the history, whose times are not known, and after it the clicks (``-1``)
with the time of their impression. Every row of a user repeats the history; it counts once. The
test set of the large version has no labels: its impressions and histories are not read.

Source: https://msnews.github.io/
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath

from sidmill.imports import rows, times
from sidmill.imports.content import SPLITS, TEXT, Bad, Content, Event, Item
from sidmill.imports.files import Entry, Files, refuse_several

NEWS = ("id", "category", "subcategory", "title", "abstract", "url", "in_title", "in_abstract")
BEHAVIORS = ("impression", "user", "time", "history", "impressions")

SPLIT_NAME = re.compile(r"(?<![a-z])(dev|valid|test)(?![a-z])")
SPLIT_NAMES = {"dev": "valid", "valid": "valid", "test": "test"}


def open_source(files: Files) -> Content:
    """Open MIND: one folder or archive for each of train and dev."""
    news = sorted(files.need(r"news\.tsv", "news.tsv"), key=_split)  # train first
    logs = files.need(r"behaviors\.tsv", "behaviors.tsv")
    splits = {entry.path: _split(entry) for entry in logs}
    read = [entry for entry in logs if splits[entry.path] != SPLITS["test"]]
    for split in set(splits.values()):
        refuse_several([entry for entry in logs if splits[entry.path] == split])
    unread = [entry.path for entry in logs if entry not in read]
    notes = (f"not read, since the test set has no labels: {', '.join(unread)}",) if unread else ()
    fields = dict.fromkeys(("title", "category", "subcategory", "abstract"), TEXT)
    has_splits = len({splits[entry.path] for entry in read}) > 1
    return Content(
        fields,
        lambda: _items(news),
        lambda: _events(read, splits, has_splits=has_splits),
        has_splits=has_splits,
        notes=notes,
    )


def _split(entry: Entry) -> int:
    """train, valid (dev) or test, by the folder or archive of a file."""
    inner, whole = PurePosixPath(entry.path), PurePosixPath(entry.name)
    folders = inner.parts[:-1] or whole.parts[-2:-1]  # the source itself may be that folder
    named = SPLIT_NAME.search(" ".join(folders).lower())
    return SPLITS[SPLIT_NAMES[named[1]] if named else "train"]


def _items(entries: list[Entry]) -> Iterator[Item | Bad]:
    seen: set[int] = set()  # hashes of all lines: train and dev list the same news
    for entry in entries:
        for row in rows.separated(entry, "\t", NEWS):
            if isinstance(row, Bad):
                yield row
                continue
            fields = row.fields
            key = hash(tuple(fields.values()))
            if key in seen:
                continue
            seen.add(key)
            named = {name: rows.text(fields[name]) for name in NEWS[1:5]}
            yield Item(fields["id"], named, entry.name, row.number)


def _events(
    entries: list[Entry], splits: dict[str, int], *, has_splits: bool
) -> Iterator[Event | Bad]:
    for entry in entries:
        split = splits[entry.path] if has_splits else -1
        past = SPLITS["train"] if has_splits else -1
        for row in rows.separated(entry, "\t", BEHAVIORS):
            if isinstance(row, Bad):
                yield row
                continue
            user, history = row.fields["user"], row.fields["history"].split()
            clicks = _clicks(row.fields["impressions"])
            try:
                time = times.american(row.fields["time"])
            except ValueError as error:
                yield Bad(entry.name, row.number, str(error), len(history) + len(clicks))
                continue

            # The history, whose items may occur in it more than once.
            earlier: Counter[str] = Counter()
            for position, item in enumerate(history):
                place = (position, earlier[item])
                earlier[item] += 1
                yield Event(user, item, None, None, past, entry.name, row.number, *place)
            for item in clicks:
                yield Event(user, item, time, None, split, entry.name, row.number)


def _clicks(impressions: str) -> list[str]:
    """Ids of the news that were clicked: ``N1-0 N2-1`` -> ``N2``."""
    return [name[:-2] for name in impressions.split() if name.endswith("-1")]
