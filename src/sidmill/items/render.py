"""Catalogue -> text.parquet and rejects.parquet: one clean text per item, every row accounted for.

Each value is unescaped from HTML, stripped of HTML tags and of invisible characters, and its white
space is folded to single spaces; fields are joined by line feeds, so the first line is the first
field. Selecting and joining fields follows ``selected_keys`` of MISSRec,
https://github.com/gimpong/MM23-MISSRec.
"""

import html
import logging
import math
import re
import reprlib
import string
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sidmill.core.errors import SidmillError
from sidmill.core.paths import expand
from sidmill.formats import catalogue, given, parquet, text

logger = logging.getLogger(__name__)

INT64 = range(-(2**63), 2**63)
TAGS = re.compile(
    r"</?(?:a|b|big|blockquote|body|br|center|code|dd|div|dl|dt|em|font|h[1-6]|head|hr|html|i|img|"
    r"li|ol|p|pre|q|script|small|span|strong|style|sub|sup|table|tbody|td|th|thead|tr|tt|u|ul)"
    r"""(?:\s++[\w:.-]++\s*+=\s*+(?:"[^"<]*+"|'[^'<]*+'|[^\s"'<>]++))*+\s*+/?>""",
    re.IGNORECASE,
)
INVISIBLE = dict.fromkeys([0xAD, 0x200B, 0x2060, 0xFEFF, *range(0x00, 0x09), *range(0x0E, 0x20)])


NO_CATALOGUE = (
    "items.path: null, so items have no text, and what was asked for is made of it: name the "
    "catalogue in items.path, or ask for a target that needs no text (docs/given-sids.md)"
)


class Counts(NamedTuple):
    """How many rows were read, and where they went: rows = items + rejects."""

    rows: int
    items: int
    rejects: int


class Ids(NamedTuple):
    """How ids are read: the field, and whether as integers; ``strict`` takes no other kind."""

    field: str
    integer: bool
    strict: bool


class BadRowError(Exception):
    """A row that gives no item; the message is the reason."""


class NoSidError(BadRowError):
    """A row of an item that has none of the given SIDs: no fault of the row."""


def render(
    text_path: str,
    rejects_path: str,
    sids: tuple[str, int] | None = None,
    *,
    path: str | None,
    id_field: str,
    id_type: str,
    fields: list[str],
    template: str | None,
    on_bad_rows: str,
) -> Counts:
    """Write one text per item of the catalogue, in the order of the catalogue.

    The catalogue is read twice, first for repeated ids; CSV and TSV under ``auto`` once more, for
    the type of the ids. Memory: one block of rows, and in the pass for repeated ids 9.5 bytes per
    item.

    Args:
        text_path: text.parquet to write.
        rejects_path: rejects.parquet to write.
        sids: a file of SIDs that exist and the offset of its ids: items without a SID are listed in
            rejects.parquet, whatever ``on_bad_rows`` says. None: all items are taken.
        path: file, folder or glob of the catalogue; None has no text, and is refused.
        id_field: field that holds the item id.
        id_type: ``int``, ``string``, or ``auto``: as the first item has it (in CSV and TSV, where
            all is text, integers if every id is written as one).
        fields: names of the fields to join, in this order. Missing and null ones are passed over.
        template: in place of ``fields``, a text with field names in braces, or None.
        on_bad_rows: ``error`` stops at the first bad row, ``reject`` lists them in rejects.parquet.

    Raises:
        SidmillError: for a bad row under ``error``; if no row gives an item; if a field is in no
            row; if a file cannot be read to its end.
    """
    if path is None:
        raise SidmillError(NO_CATALOGUE)
    files = expand(path, catalogue.SUFFIXES, "items.path")
    ids = _decide_ids(files, id_field, id_type)
    pieces = _parse_template(template) if template else _joined(fields)
    unseen = {field for _, field in pieces if field}
    repeated = _find_repeated(files, ids)
    first_place: dict[int | str, str] = {}  # of repeated ids only
    counts = {"rows": 0, "items": 0, "rejects": 0}
    first_reject = ""
    have_sids = None if sids is None else set(given.read(*sids, ids.integer).ids.to_pylist())

    def item(file: str, row: catalogue.Row) -> tuple[int | str, str]:
        if row.problem:
            raise BadRowError(row.problem)
        pid = _read_id(row.fields, ids)
        if pid in first_place:
            raise BadRowError(f"id {pid!r:.80} stands already at {first_place[pid]}")
        if have_sids is not None and pid not in have_sids:
            raise NoSidError("no SID in given.path")
        words = _fill(pieces, row.fields)
        if pid in repeated:
            first_place[pid] = f"{file}, row {row.number}"
        return pid, words

    def good_rows(rejects: pq.ParquetWriter) -> Iterator[pa.Table]:
        nonlocal first_reject
        good, bad = [], []
        for file, row in _rows(files):
            counts["rows"] += 1
            unseen.difference_update(row.fields or ())
            try:
                good.append(item(file, row))
            except BadRowError as reason:
                if on_bad_rows == "error" and not isinstance(reason, NoSidError):
                    raise SidmillError(
                        f"{file}, row {row.number}: {reason}: mend the row, or set "
                        f"items.on_bad_rows: reject to list such rows in rejects.parquet"
                    ) from None
                first_reject = first_reject or f"{file}, row {row.number}: {reason}"
                bad.append((_shown_id(row.fields, id_field), file, row.number, str(reason)))
            if len(good) == parquet.ROWS_PER_GROUP:
                counts["items"] += len(good)
                yield _table(good, schema)
                good = []
            if len(bad) == parquet.ROWS_PER_GROUP:
                counts["rejects"] += len(bad)
                rejects.write_table(_table(bad, text.REJECTS_SCHEMA))
                bad = []
        counts["items"] += len(good)
        counts["rejects"] += len(bad)
        _check_outcome(files, unseen, counts["items"], first_reject)
        yield _table(good, schema)
        rejects.write_table(_table(bad, text.REJECTS_SCHEMA))

    schema = text.schema(pa.int64() if ids.integer else pa.string())
    with parquet.writer(rejects_path, text.REJECTS_SCHEMA) as rejects:
        text.write(text_path, schema.field("pid").type, good_rows(rejects))
        rejects.add_key_value_metadata({text.ROWS_READ_KEY: str(counts["rows"])})
    logger.info("%(rows)d rows: %(items)d items, %(rejects)d rejects", counts)
    return Counts(**counts)


def clean(value: str) -> str:
    """Unescape HTML, drop its tags and invisible characters, fold white space to single spaces."""
    plain = (
        TAGS.sub(" ", html.unescape(html.unescape(value)))
        if "&" in value or "<" in value
        else value
    )
    return " ".join(plain.translate(INVISIBLE).split())


def plain_text(value: object) -> str:
    """Write any value of a catalogue as clean text; null and NaN as nothing, lists with commas."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, bytes):
        raise BadRowError(f"{value!r:.40} is binary, wanted text")
    if isinstance(value, dict):
        pairs = ((plain_text(key), plain_text(entry)) for key, entry in value.items())
        return ", ".join(f"{key}: {entry}" for key, entry in pairs if entry)
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, map(plain_text, value)))
    return clean(str(value))


def _rows(files: list[str]) -> Iterator[tuple[str, catalogue.Row]]:
    for file in files:
        for row in catalogue.read(file):
            yield file, row


def _decide_ids(files: list[str], field: str, id_type: str) -> Ids:
    """Settle on one type of id for the whole catalogue.

    It comes from the setting, or from the first id; where that is text of a table, from all ids.
    """
    if id_type != "auto":
        return Ids(field, id_type == "int", strict=False)
    trouble = ""
    for file, row in _rows(files):
        if row.problem and not trouble:
            trouble = f"; {file}, row {row.number}: {row.problem}"
        value = (row.fields or {}).get(field)
        if _is_missing(value):
            continue
        if not catalogue.is_table(file):
            return Ids(field, isinstance(value, int), strict=True)
        values = ((row.fields or {}).get(field) for _, row in _rows(files))
        integer = all(_is_integer(value) for value in values if not _is_missing(value))
        return Ids(field, integer, strict=False)
    raise SidmillError(
        f"items.id_field: no row of {files[0]}{' and the others' * (len(files) > 1)} has a field "
        f"{field!r}{_known_fields(files)}{trouble}"
    )


def _is_missing(value: object) -> bool:
    """Whether a value is no id: null, NaN, or nothing but white space."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def _is_integer(value: object) -> bool:
    """Whether an id is a 64-bit integer, a text only as str() writes it: no plus, zeros, spaces."""
    if isinstance(value, str) and re.fullmatch(r"0|-?[1-9][0-9]{0,18}", value):
        value = int(value)
    return isinstance(value, int) and value in INT64


def _read_id(fields: dict, ids: Ids) -> int | str:
    value = fields.get(ids.field)
    if _is_missing(value):
        raise BadRowError(f"no id in field {ids.field!r}")
    if isinstance(value, int) and not isinstance(value, bool):
        if not ids.integer and ids.strict:
            raise BadRowError(
                f"id {value} is an integer, the first one is a string: set items.id_type"
            )
        if value not in INT64:
            raise BadRowError(f"id {value} does not fit in 64 bits: set items.id_type: string")
        return value if ids.integer else str(value)
    if not isinstance(value, str):
        raise BadRowError(
            f"id {reprlib.repr(value)} is a {type(value).__name__}, wanted an integer or a string"
        )
    if not ids.integer:
        return _encodable(value, "the id")
    if ids.strict or not _is_integer(value):
        raise BadRowError(
            f"id {value!r:.80} is not an integer like the first: set items.id_type: string"
        )
    return int(value)


def _shown_id(fields: dict | None, id_field: str) -> str | None:
    value = (fields or {}).get(id_field)
    if value is None:
        return None
    shown = value if isinstance(value, str) else reprlib.repr(value)  # repr() may nest too deeply
    return shown.encode(errors="replace").decode()


def _find_repeated(files: list[str], ids: Ids) -> set[int | str]:
    """Return the ids that occur more than once. Memory: 9.5 bytes per item, and what it returns."""
    keys = np.frombuffer(array("q", map(_key, _readable_ids(files, ids))), dtype=np.int64)
    keys.sort()  # in place
    suspects = set(keys[1:][keys[1:] == keys[:-1]].tolist())
    if not suspects:
        return set()
    seen = Counter(pid for pid in _readable_ids(files, ids) if _key(pid) in suspects)
    return {pid for pid, occurrences in seen.items() if occurrences > 1}


def _readable_ids(files: list[str], ids: Ids) -> Iterator[int | str]:
    for _, row in _rows(files):
        with suppress(BadRowError):
            if row.fields is not None:
                yield _read_id(row.fields, ids)


def _key(pid: int | str) -> int:
    if isinstance(pid, int):
        return pid
    return int.from_bytes(blake2b(pid.encode(), digest_size=8).digest(), "little", signed=True)


def _joined(fields: list[str]) -> list[tuple[str, str | None]]:
    return [("\n" if position else "", field) for position, field in enumerate(fields)]


def _parse_template(template: str) -> list[tuple[str, str | None]]:
    """Split a template into pairs of literal text and the field that follows it."""
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise SidmillError(f"items.template {template!r}: {error}") from None
    for _, field, form, conversion in parsed:
        if field is not None and (not field or form or conversion or re.search(r"[.\[]", field)):
            raise SidmillError(
                f"items.template {template!r}: braces take a plain field name, as in {{title}}"
            )
    if not any(field for _, field, _, _ in parsed):
        raise SidmillError(f"items.template {template!r} names no field: write one in braces")
    return [(literal, field) for literal, field, _, _ in parsed]


def _fill(pieces: list[tuple[str, str | None]], fields: dict) -> str:
    try:
        values = [
            (literal, plain_text(fields.get(field)) if field else "") for literal, field in pieces
        ]
    except RecursionError:
        raise BadRowError("nested too deeply") from None
    if not any(character.isalnum() for _, value in values for character in value):
        lacking = "letter or digit" if any(value for _, value in values) else "text"
        wanted = [field for _, field in pieces if field]
        known = (
            "" if any(field in fields for field in wanted) else f": the row has {_names(fields)}"
        )
        raise BadRowError(f"no {lacking} in {', '.join(wanted)}{known}")
    lines = "".join(literal + value for literal, value in values).split("\n")
    return _encodable("\n".join(filter(None, (line.strip() for line in lines))), "the text")


def _encodable(value: str, what: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadRowError(
            f"{what} holds half a character (a lone surrogate) at {error.start}"
        ) from None
    return value


def _table(rows: list[tuple], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [[] for _ in schema]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.table(arrays, schema=schema)


def _check_outcome(files: list[str], unseen: set[str], n_items: int, first_reject: str) -> None:
    if unseen:
        raise SidmillError(
            f"items.fields or items.template: no row of the catalogue has "
            f"{', '.join(map(repr, sorted(unseen)))}{_known_fields(files)}"
        )
    if not n_items:
        raise SidmillError(f"no row of the catalogue gives an item; first: {first_reject}")


def _known_fields(files: list[str]) -> str:
    fields = next((row.fields for _, row in _rows(files) if row.fields), None)
    return f": the first row has {_names(fields)}" if fields else ""


def _names(fields: dict) -> str:
    return ", ".join(map(str, fields))
