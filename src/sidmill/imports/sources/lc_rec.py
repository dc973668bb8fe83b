"""LC-Rec, also MiniOneRec and LETTER: X.item.json, X.inter.json, X.emb-*.npy, X.index.json.

    X.item.json    {"0": {"title", "description", "brand", "categories"}}: ids count from 0
    X.inter.json   {"0": [ids of items, oldest first]}: no times
    X.emb-*.npy    floats (N, D), row i is item i
    X.index.json   {"0": ["<a_12>", "<b_7>", "<c_200>"]}: SIDs

The overlay reads the embeddings where they are, and a comment in it says how to take the SIDs.

Source: https://github.com/zhengbw0324/LC-Rec
"""

from collections.abc import Iterator

from sidmill.core.errors import SidmillError
from sidmill.imports import rows
from sidmill.imports.content import TEXT, Bad, Content, Event, Item
from sidmill.imports.files import Entry, Files

FIELDS = ("title", "brand", "categories", "description")


def open_source(files: Files) -> Content:
    """Open the files of one data set."""
    items = _one(files.need(r".+\.item\.json", "X.item.json"))
    log = _one(files.need(r".+\.inter\.json", "X.inter.json"))
    vectors = [entry for entry in files.find(r".+\.emb.*\.npy") if entry.local]
    indices = [entry for entry in files.find(r".+\.index\.json") if entry.local]

    # Rows of the vectors are those of the catalogue only if all items are written in order.
    notes, overlay = [], {}
    if len(vectors) == 1 and _is_in_order(items):
        overlay["embedding"] = {
            "backend": "precomputed",
            "model": vectors[0].base.removesuffix(".npy"),
            "path": str(vectors[0].local),
            "rows": "catalogue",
            "dim": None,
        }
    elif vectors:
        notes.append(
            f"the overlay does not name {', '.join(entry.base for entry in vectors)}: it takes one "
            f"file, beside an item.json with the ids 0, 1, 2, ... in this order"
        )
    for entry in indices:
        notes.append(
            f"SIDs that exist: quantizer: given, given: {{path: {entry.local}}}, and "
            f"collisions: {{strategy: none}}"
        )
    return Content(
        dict.fromkeys(FIELDS, TEXT),
        lambda: _items(items),
        lambda: _events(log),
        notes=tuple(notes),
        overlay=overlay,
    )


def _one(entries: list[Entry]) -> Entry:
    if len(entries) > 1:
        names = ", ".join(entry.name for entry in entries)
        raise SidmillError(f"{names}: {len(entries)} data sets: name the folder of one")
    return entries[0]


def _is_in_order(entry: Entry) -> bool:
    """Whether the ids of the items are 0, 1, 2, ..."""
    found = enumerate(rows.json_object(entry))
    return all(not isinstance(one, Bad) and one[1] == str(number) for number, one in found)


def _items(entry: Entry) -> Iterator[Item | Bad]:
    for row in rows.json_object(entry):
        if isinstance(row, Bad):
            yield row
            continue
        number, key, value = row
        if not isinstance(value, dict):
            yield Bad(entry.name, number, f"a {type(value).__name__}, wanted an object")
            continue
        named = {name: ", ".join(rows.texts(value.get(name))) or None for name in FIELDS}
        yield Item(key, named, entry.name, number)


def _events(entry: Entry) -> Iterator[Event | Bad]:
    for row in rows.json_object(entry):
        if isinstance(row, Bad):
            yield row
            continue
        number, user, items = row
        if not isinstance(items, list):
            yield Bad(entry.name, number, f"a {type(items).__name__}, wanted a list of items")
            continue
        for position, item in enumerate(items):
            if isinstance(item, bool) or not isinstance(item, int | str):
                yield Bad(entry.name, number, f"item {item!r:.40} is no id")
                continue
            # Times are not known: the position in the list says the order.
            yield Event(user, str(item), None, None, -1, entry.name, number, position, position)
