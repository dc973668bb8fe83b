"""KuaiRec 2.0: watches of videos as CSV, and the captions and categories of the videos.

    big_matrix.csv                  user_id, video_id, timestamp (fractions of seconds), watch_ratio
    small_matrix.csv                the same, every user with every video: for evaluation
    kuairec_caption_category.csv    video_id, manual_cover_text, caption, topic_tag, and the names
                                    of three levels of categories; UNKNOWN where there is none

Times become milliseconds. Some captions contain carriage returns, and some rows of small_matrix.csv
have no time. The strength of an interaction is ``watch_ratio``; ids count from 0.

Source: https://kuairec.com
"""

import re
from collections.abc import Iterator

from sidmill.imports import rows
from sidmill.imports.content import TEXT, TEXTS, Bad, Content, Event, Item
from sidmill.imports.files import Entry, Files

UNKNOWN = "UNKNOWN"
LEVELS = tuple(f"{level}_level_category_name" for level in ("first", "second", "third"))
COLUMNS = ("user_id", "video_id", "timestamp", "watch_ratio")
KEYS = rows.EventKeys(*COLUMNS)


def open_source(files: Files) -> Content:
    """Open the data set: the big matrix, or the small one where that is the only one."""
    name = "kuairec_caption_category.csv"
    captions = files.need_one(re.escape(name), name)
    small = files.find(r"small_matrix\.csv")
    is_small = small and not files.find(r"big_matrix\.csv")
    log = files.need_one(r"small_matrix\.csv" if is_small else r"big_matrix\.csv", "big_matrix.csv")
    notes = ("small_matrix.csv is not read: it is a full matrix for evaluation",)
    return Content(
        {"caption": TEXT, "cover": TEXT, "topics": TEXTS, "categories": TEXTS},
        lambda: _items(captions),
        lambda: _events(log),
        notes=notes if small and not is_small else (),
    )


def _items(entry: Entry) -> Iterator[Item | Bad]:
    for row in rows.csv_rows(entry, ("video_id", "caption")):
        if isinstance(row, Bad):
            yield row
            continue
        fields = row.fields
        if not fields["video_id"].isdecimal():
            reason = f"video_id {fields['video_id']!r:.40} is no number"
            yield Bad(entry.name, row.number, f"{reason}: the row before it may be cut")
            continue
        named = {
            "caption": _known(fields["caption"]),
            "cover": _known(fields.get("manual_cover_text", "")),
            "topics": rows.texts(fields.get("topic_tag", "").strip("[] ").replace('"', ""), ","),
            "categories": [name for level in LEVELS if (name := _known(fields.get(level, "")))],
        }
        yield Item(fields["video_id"], named, entry.name, row.number)


def _known(value: str) -> str | None:
    return None if value.strip() == UNKNOWN else rows.text(value)


def _events(entry: Entry) -> Iterator[Event | Bad]:
    return rows.numbered_events(rows.csv_rows(entry, COLUMNS), entry, KEYS, factor=1000)
