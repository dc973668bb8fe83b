"""Steam reviews and games: lines that Python printed, ``{u'username': u'...', ...}``.

    steam_games.json.gz     id, app_name, title, genres, tags, specs, developer, publisher
    steam_reviews.json.gz   username, product_id, date (2017-12-17), hours, and the text

The lines are no JSON; they are read as literals of Python, which runs nothing. The user is
``username``, as in SASRec: only some reviews have a ``user_id``. Times are days.

Source: https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data
"""

from collections.abc import Iterator

from sidmill.imports import rows, times
from sidmill.imports.content import TEXT, TEXTS, Bad, Content, Event, Item
from sidmill.imports.files import Entry, Files

LISTS = ("genres", "tags", "specs")

KEYS = rows.EventKeys("username", "product_id", "date", "hours")


def open_source(files: Files) -> Content:
    """Open the data set."""
    games = files.need_one(r"steam_games\.json", "steam_games.json.gz")
    reviews = files.need_one(r"steam_(new|reviews)\.json", "steam_reviews.json.gz")
    fields = {"title": TEXT, "genres": TEXTS, "tags": TEXTS, "specs": TEXTS, "developer": TEXT}
    return Content(fields, lambda: _items(games), lambda: _events(reviews))


def _items(entry: Entry) -> Iterator[Item | Bad]:
    for row in rows.literal_lines(entry):
        if isinstance(row, Bad):
            yield row
            continue
        fields = row.fields
        named: dict[str, object] = {name: rows.texts(fields.get(name)) for name in LISTS}
        named["title"] = rows.text(fields.get("title")) or rows.text(fields.get("app_name"))
        named["developer"] = rows.text(fields.get("developer"))
        yield Item(rows.text(fields.get("id")) or "", named, entry.name, row.number)


def _events(entry: Entry) -> Iterator[Event | Bad]:
    return rows.dated_events(rows.literal_lines(entry), entry, KEYS, times.iso)
