"""Yelp Open Dataset: JSON lines, in a .tar or as files.

    yelp_academic_dataset_business.json     business_id, name, city, state, categories (a text)
    yelp_academic_dataset_review.json       user_id, business_id, stars, date (2018-07-07 22:09:11)

Dates have no zone and are taken as UTC.

Source: https://business.yelp.com/data/resources/open-dataset/
"""

from collections.abc import Iterator

from sidmill.imports import rows, times
from sidmill.imports.content import TEXT, TEXTS, Bad, Content, Event, Item
from sidmill.imports.files import Entry, Files

KEYS = rows.EventKeys("user_id", "business_id", "date", "stars")


def open_source(files: Files) -> Content:
    """Open the data set."""
    business = files.need_one(r".*business\.json", "yelp_academic_dataset_business.json")
    reviews = files.need_one(r".*review\.json", "yelp_academic_dataset_review.json")
    return Content(
        {"name": TEXT, "categories": TEXTS, "city": TEXT, "state": TEXT},
        lambda: _items(business),
        lambda: _events(reviews),
    )


def _items(entry: Entry) -> Iterator[Item | Bad]:
    for row in rows.json_lines(entry):
        if isinstance(row, Bad):
            yield row
            continue
        named: dict[str, object] = {
            name: rows.text(row.fields.get(name)) for name in ("name", "city", "state")
        }
        named["categories"] = rows.texts(row.fields.get("categories"), ",")
        yield Item(rows.text(row.fields.get("business_id")) or "", named, entry.name, row.number)


def _events(entry: Entry) -> Iterator[Event | Bad]:
    return rows.dated_events(rows.json_lines(entry), entry, KEYS, times.iso)
