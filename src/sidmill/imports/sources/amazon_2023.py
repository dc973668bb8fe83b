"""Amazon Reviews 2023: metadata and reviews as JSON lines, benchmark files as CSV.

    meta_All_Beauty.jsonl.gz        parent_asin, title, store, categories, features, description
    All_Beauty.jsonl.gz             user_id, parent_asin, rating, timestamp (ms), and texts
    All_Beauty.csv.gz               rating_only: user_id, parent_asin, rating, timestamp
    All_Beauty.train.csv.gz         last_out, timestamp: the same by split; *_w_his: and history

The item of a review is its ``parent_asin``; ``asin`` is the variant. The column ``history`` repeats
earlier rows and is not read. Benchmark files are 5-core over all categories' own reviews, and keep
the earliest review of each user and item.

Source: https://amazon-reviews-2023.github.io/
"""

from collections.abc import Iterator

from sidmill.imports import rows, times
from sidmill.imports.content import SPLITS, TEXT, TEXTS, Bad, Content, Event, Item
from sidmill.imports.files import Entry, Files, refuse_repeated
from sidmill.imports.rows import Row

META = r"meta_(.+)\.jsonl"
REVIEWS = r"(?!meta_).+\.jsonl"
BENCHMARK = r".+\.(train|valid|test)\.csv"
RATINGS = r"(?!.+\.(train|valid|test)\.csv).+\.csv"
COLUMNS = ("user_id", "parent_asin", "rating", "timestamp")


def open_source(files: Files) -> Content:
    """Open the files of one or more categories: benchmark splits if there are any, else reviews."""
    meta = files.need(META, "meta_CATEGORY.jsonl.gz")
    wanted = "CATEGORY.train.csv.gz, CATEGORY.csv.gz or CATEGORY.jsonl.gz"
    groups = [files.find(pattern) for pattern in (BENCHMARK, RATINGS, REVIEWS)]
    logs = next((group for group in groups if group), None) or files.need(REVIEWS, wanted)
    for group in (meta, logs):
        refuse_repeated(group)

    # Of several kinds of files the first is read: they contain the same reviews.
    unread = [entry.base for group in groups if group is not logs for entry in group]
    notes = (f"not read, since {logs[0].base} is: {', '.join(unread)}",) if unread else ()
    fields = {
        "title": TEXT,
        "store": TEXT,
        "categories": TEXTS,
        "features": TEXTS,
        "description": TEXTS,
    }
    return Content(
        fields,
        lambda: _items(meta),
        lambda: _events(logs),
        has_splits=logs is groups[0],
        notes=notes,
    )


def _items(entries: list[Entry]) -> Iterator[Item | Bad]:
    for entry in entries:
        for row in rows.json_lines(entry):
            if isinstance(row, Bad):
                yield row
                continue
            fields = row.fields
            yield Item(
                rows.text(fields.get("parent_asin")) or "",
                {
                    "title": rows.text(fields.get("title")),
                    "store": rows.text(fields.get("store")),
                    "categories": rows.texts(fields.get("categories")),
                    "features": rows.texts(fields.get("features")),
                    "description": rows.texts(fields.get("description")),
                },
                entry.name,
                row.number,
            )


def _events(entries: list[Entry]) -> Iterator[Event | Bad]:
    for entry in entries:
        split = next((SPLITS[part] for part in entry.base.split(".") if part in SPLITS), -1)
        for row in _read(entry):
            if isinstance(row, Bad):
                yield row
                continue
            fields = row.fields
            user, item = rows.text(fields.get("user_id")), rows.text(fields.get("parent_asin"))
            try:
                time = times.whole(fields.get("timestamp"))
            except ValueError as error:
                yield Bad(entry.name, row.number, str(error))
                continue
            if user is None or item is None or time is None:
                yield Bad(entry.name, row.number, "no user_id, parent_asin or timestamp")
                continue
            value = rows.number(fields.get("rating"))
            yield Event(user, item, time, value, split, entry.name, row.number)


def _read(entry: Entry) -> Iterator[Row | Bad]:
    if entry.base.endswith(".csv"):
        return rows.csv_rows(entry, COLUMNS)
    return rows.json_lines(entry)
