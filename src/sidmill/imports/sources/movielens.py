"""MovieLens: 100k (tables with bars and tabs), 1m and 10m (``::``), 20m, 25m, 32m, latest (CSV).

Files of 100k and 1m are latin-1, those of 10m and later UTF-8. Titles have their year behind them.

Source: https://grouplens.org/datasets/movielens/
"""

from collections.abc import Iterator

from sidmill.imports import rows
from sidmill.imports.content import TEXT, TEXTS, Bad, Content, Event, Item
from sidmill.imports.files import Entry, Files
from sidmill.imports.rows import Row

NO_GENRES = "(no genres listed)"
# The columns of flags of u.item, in order: README of ml-100k.
GENRES_100K = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime"),
    *("Documentary", "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance"),
    *("Sci-Fi", "Thriller", "War", "Western"),
)
MOVIES = ("movieId", "title", "genres")
RATINGS = ("userId", "movieId", "rating", "timestamp")
KEYS = rows.EventKeys("userId", "movieId", "timestamp", "rating")
FLAGGED = ("movieId", "title", "released", "video", "url", *GENRES_100K)


def open_source(files: Files) -> Content:
    """Open a MovieLens data set of any size."""
    movies = files.need_one(r"movies\.(dat|csv)|u\.item", "movies.dat, movies.csv or u.item")
    ratings = files.need_one(r"ratings\.(dat|csv)|u\.data", "ratings.dat, ratings.csv or u.data")
    return Content(
        {"title": TEXT, "genres": TEXTS},
        lambda: _items(movies),
        lambda: _events(ratings),
    )


def _read(entry: Entry, columns: tuple[str, ...]) -> Iterator[Row | Bad]:
    if entry.base.endswith(".csv"):
        return rows.csv_rows(entry, columns)
    if entry.base == "u.item":
        return rows.separated(entry, "|", FLAGGED, rows.encoding_of(entry))
    separator = "\t" if entry.base == "u.data" else "::"
    return rows.separated(entry, separator, columns, rows.encoding_of(entry))


def _items(entry: Entry) -> Iterator[Item | Bad]:
    for row in _read(entry, MOVIES):
        if isinstance(row, Bad):
            yield row
            continue
        fields = row.fields
        listed = fields.get("genres")
        if listed is None:
            genres = [name for name in GENRES_100K[1:] if fields[name] == "1"]
        else:
            genres = [] if listed == NO_GENRES else rows.texts(listed, "|")
        title = rows.text(fields["title"])
        yield Item(fields["movieId"], {"title": title, "genres": genres}, entry.name, row.number)


def _events(entry: Entry) -> Iterator[Event | Bad]:
    return rows.numbered_events(_read(entry, RATINGS), entry, KEYS)
