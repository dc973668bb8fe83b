"""Amazon review data of 2018, and of 2014: metadata and reviews by line, ratings as CSV.

    meta_All_Beauty.json.gz     asin, title, brand, category (2014: categories), description
    All_Beauty.json.gz          reviewerID, asin, overall, unixReviewTime (s); All_Beauty_5: 5-core
    All_Beauty.csv              2018, no header: item, user, rating, timestamp
    ratings_Beauty.csv          2014, no header: user, item, rating, timestamp

Lines of 2018 are JSON, lines of 2014 Python literals. Some titles of 2018 are scripts of the page
(``getTime``), as the publisher's notebook says; those rows give no item.

Source: https://nijianmo.github.io/amazon/, https://jmcauley.ucsd.edu/data/amazon/
"""

from collections.abc import Iterator
from functools import partial

from sidmill.imports import rows, times
from sidmill.imports.content import TEXT, TEXTS, Bad, Content, Event, Item
from sidmill.imports.files import Entry, Files, refuse_repeated

META = r"meta_.+\.json"
REVIEWS = r"(?!meta_).+\.json"
RATINGS = r".+\.csv"
COLUMNS_2018 = ("item", "user", "rating", "timestamp")
COLUMNS_2014 = ("user", "item", "rating", "timestamp")
SCRIPT = "getTime"
MARKUP = "</span>"


def open_source(files: Files) -> Content:
    """Open the files of one or more categories: ratings if there are any, else reviews."""
    meta = files.need(META, "meta_CATEGORY.json.gz")
    ratings, reviews = files.find(RATINGS), files.find(REVIEWS)
    if not ratings and not reviews:
        files.need(REVIEWS, "CATEGORY.json.gz, CATEGORY_5.json.gz or CATEGORY.csv")
    for group in (meta, ratings or _by_category(reviews)):
        refuse_repeated(group)
    unread = [entry.base for entry in reviews] if ratings else []
    notes = (f"not read, since {ratings[0].base} is: {', '.join(unread)}",) if unread else ()
    fields = {
        "title": TEXT,
        "brand": TEXT,
        "categories": TEXTS,
        "features": TEXTS,
        "description": TEXTS,
    }
    read = partial(_ratings, ratings) if ratings else partial(_reviews, reviews)
    return Content(fields, lambda: _items(meta), read, notes=notes)


def _by_category(entries: list[Entry]) -> list[Entry]:
    """Reviews under the name of their category: those of X_5 are in X, too."""
    return [entry._replace(path=entry.path.replace("_5.json", ".json")) for entry in entries]


def _items(entries: list[Entry]) -> Iterator[Item | Bad]:
    for entry in entries:
        for row in rows.literal_lines(entry):
            if isinstance(row, Bad):
                yield row
                continue

            # Fields of 2018, or their names of 2014.
            fields = row.fields
            title = rows.text(fields.get("title"))
            if title and SCRIPT in title:
                yield Bad(entry.name, row.number, "the title is a script of the page")
                continue
            listed = rows.texts(fields.get("category") or fields.get("categories"))
            brand = (rows.text(fields.get("brand")) or "").replace("by\n", "").strip()
            yield Item(
                rows.text(fields.get("asin")) or "",
                {
                    "title": title,
                    "brand": brand or None,
                    "categories": _before_markup(listed),
                    "features": rows.texts(fields.get("feature")),
                    "description": rows.texts(fields.get("description")),
                },
                entry.name,
                row.number,
            )


def _before_markup(categories: list[str]) -> list[str]:
    """Categories up to the first that has markup: from there on they are parts of the page."""
    marked = next((n for n, name in enumerate(categories) if MARKUP in name), len(categories))
    return categories[:marked]


def _reviews(entries: list[Entry]) -> Iterator[Event | Bad]:
    for entry in entries:
        for row in rows.literal_lines(entry):
            if isinstance(row, Bad):
                yield row
                continue
            fields = row.fields
            names = ("reviewerID", "asin", "unixReviewTime", "overall")
            yield _event(entry, row.number, *(fields.get(name) for name in names))


def _ratings(entries: list[Entry]) -> Iterator[Event | Bad]:
    for entry in entries:
        columns = COLUMNS_2014 if entry.base.startswith("ratings_") else COLUMNS_2018
        for row in rows.separated(entry, ",", columns):
            if isinstance(row, Bad):
                yield row
                continue
            names = ("user", "item", "timestamp", "rating")
            yield _event(entry, row.number, *(row.fields[name] for name in names))


def _event(
    entry: Entry, number: int, user: object, item: object, said: object, rating: object
) -> Event | Bad:
    try:
        time = times.whole(said)
    except ValueError as error:
        return Bad(entry.name, number, str(error))
    who, what = rows.text(user), rows.text(item)
    if who is None or what is None or time is None:
        return Bad(entry.name, number, "no user, item or time")
    return Event(who, what, time, rows.number(rating), -1, entry.name, number)
