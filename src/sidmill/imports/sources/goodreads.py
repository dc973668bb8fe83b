"""Goodreads (UCSD Book Graph), whole or by genre: JSON lines.

    goodreads_books*.json.gz                book_id, title, authors, description, publisher
    goodreads_book_authors.json.gz          author_id, name: not needed
    goodreads_interactions*.json.gz         user_id, book_id, rating (0: none), is_read, date_added
    goodreads_reviews*.json.gz              the same, for books that were reviewed

goodreads_interactions.csv has other ids and no times, and is not read. The time of an interaction
is ``date_added``, when the book was put on a shelf.

Source: https://cseweb.ucsd.edu/~jmcauley/datasets/goodreads.html
"""

from collections.abc import Iterator

from sidmill.imports import rows, times
from sidmill.imports.content import TEXT, Bad, Content, Event, Item
from sidmill.imports.files import Entry, Files, refuse_repeated

BOOKS = r"goodreads_books.*\.json"
LOGS = (r"goodreads_interactions.*\.json", r"goodreads_reviews(?!_spoiler).*\.json")
FIELDS = ("title", "description", "publisher", "format")

KEYS = rows.EventKeys("user_id", "book_id", "date_added", "rating")


def open_source(files: Files) -> Content:
    """Open the books, and the interactions if they are there, else the reviews."""
    books = files.need(BOOKS, "goodreads_books.json.gz or goodreads_books_GENRE.json.gz")
    found = [files.find(pattern) for pattern in LOGS]
    wanted = "goodreads_interactions_dedup.json.gz (the .csv has no times)"
    logs = next((group for group in found if group), None) or files.need(LOGS[0], wanted)
    for group in (books, logs):
        refuse_repeated(group)
    unread = [entry.base for group in found if group is not logs for entry in group]
    notes = (f"not read, since {logs[0].base} is: {', '.join(unread)}",) if unread else ()
    return Content(
        dict.fromkeys(FIELDS, TEXT), lambda: _items(books), lambda: _events(logs), notes=notes
    )


def _items(entries: list[Entry]) -> Iterator[Item | Bad]:
    for entry in entries:
        for row in rows.json_lines(entry):
            if isinstance(row, Bad):
                yield row
                continue
            named = {name: rows.text(row.fields.get(name)) for name in FIELDS}
            book = rows.text(row.fields.get("book_id")) or ""
            yield Item(book, named, entry.name, row.number)


def _events(entries: list[Entry]) -> Iterator[Event | Bad]:
    for entry in entries:
        yield from rows.dated_events(rows.json_lines(entry), entry, KEYS, times.ctime)
