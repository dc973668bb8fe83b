"""Catalogue -> text.parquet and rejects.parquet: one clean text per item, every row accounted for.

Each value becomes one line of plain text (``clean.py``); fields are joined by line feeds, so the
first line is the first field. Selecting and joining fields follows ``selected_keys`` of MISSRec,
https://github.com/gimpong/MM23-MISSRec.
"""

import logging
import math
import re
import reprlib
import string
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sidmill.core.errors import SidmillError
from sidmill.core.paths import expand
from sidmill.core.terminal import names as shown_names
from sidmill.core.terminal import safe
from sidmill.formats import catalogue, file_names, given_sids, item_text
from sidmill.formats.catalogue_blocks import Block, Row
from sidmill.formats.reject_counts import NOT_UTF8, Tally
from sidmill.io import encodings, parquet, plain_columns
from sidmill.items import column_items
from sidmill.items.clean import UnreadableError, plain_text
from sidmill.settings.items import Items

logger = logging.getLogger(__name__)

Template = list[tuple[str, str | None]]  # literal text, and the field behind it

INT64 = range(-(2**63), 2**63)
FLOAT_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})\.0+")  # what pandas writes beside a gap
SHORT_INTEGER = re.compile(r"[1-9][0-9]{0,17}").fullmatch  # 64 bits hold it
EXACT_FLOATS = range(-(2**53), 2**53 + 1)  # integers that a float holds exactly
PANDAS = (
    "pandas makes integers floats where a value of their column is missing: write them as integers "
    "again, such as frame[{field!r}].astype('Int64'), or set items.id_type: int to read them so"
)


NO_SID = "no SID in given.path"
NO_CATALOGUE = (
    "items.path: null, so items have no text, and what was asked for is made of it: name the "
    "catalogue in items.path, or ask for a target that needs no text (docs/given-sids.md)"
)


class Counts(NamedTuple):
    """How many rows were read, and where they went: rows = items + rejects."""

    rows: int
    items: int
    rejects: int


class Source(NamedTuple):
    """Where the rows come from: files, how they are written, and the field of the item id."""

    files: list[str]
    dialect: catalogue.Dialect
    id_field: str

    def rows(self, fields: set[str] | None = None) -> Iterator[tuple[str, Row]]:
        """All rows of all files; with ``fields`` alone, where the others need not be decoded."""
        for file in self.files:
            for row in catalogue.read(file, fields, self.dialect):
                yield file, row

    def blocks(self, fields: set[str]) -> Iterator[tuple[str, Block]]:
        """All rows of all files by blocks, with ``fields`` as columns where that is possible."""
        for file in self.files:
            for block in catalogue.blocks(file, fields, self.dialect):
                yield file, block

    def ids(self) -> Iterator[tuple[str, Row, object]]:
        """File, row and id of all rows that can be read and have one."""
        for file, row in self.rows({self.id_field}):
            value = _id_value(row, self.id_field)
            if not _is_missing(value):
                yield file, row, value


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
    settings: Items,
    sids: tuple[str, int] | None = None,
) -> Counts:
    """Write text.parquet: one text per item of the catalogue, in the order of the catalogue.

    The catalogue is read once if no id is repeated and all are of the kind of the first. Otherwise
    it is read again from the beginning: for the type of the ids where they are text under ``auto``,
    for repeated ids, and for the texts. Memory: one block of rows, and 9.5 bytes per item.

    Args:
        text_path: text.parquet to write.
        rejects_path: rejects.parquet to write.
        settings: how the catalogue is read, which fields are joined, and what a bad row does.
        sids: a file of existing SIDs, and the offset of its ids: items without a SID are listed in
            rejects.parquet, whatever ``on_bad_rows`` says. None: all items are taken.

    Raises:
        SidmillError: for a bad row under ``error``; if no row gives an item; if a field is in no
            row; if a file cannot be read to its end; if one cause takes too many rows.
    """
    source = open_source(settings)
    _log_encodings(source)

    # One pass takes the ids for what they mostly are; otherwise passes over the ids come first.
    is_joined = not settings.template
    template = _parse_template(settings.template) if settings.template else _joined(settings.fields)
    written = None
    if sids is None:
        with suppress(_AnotherPassError, SidmillError):
            ids, is_sure = _decide_ids(source, settings.id_type, by_first=True)
            renderer = _Renderer(ids, template, set(), {}, None, array("q"), is_sure, is_joined)
            written = _write(text_path, rejects_path, source, renderer, settings)
    if written is None:
        ids, is_sure = _decide_ids(source, settings.id_type)
        have_sids = (
            None if sids is None else set(given_sids.read(*sids, ids.integer).ids.to_pylist())
        )
        repeated = _find_repeated(source, ids)
        renderer = _Renderer(ids, template, repeated, {}, have_sids, is_joined=is_joined)
        written = _write(text_path, rejects_path, source, renderer, settings)
    n_items, tally = written

    counts = Counts(tally.rows, n_items, tally.rows - n_items)
    logger.info("%d rows: %d items, %d rejects", *counts)
    for line in tally.lines():
        logger.warning("rejects: %s", line)
    return counts


class _AnotherPassError(Exception):
    """What one pass took for granted of the ids is not so."""


class _Renderer(NamedTuple):
    """What turns one row into an item.

    Attributes:
        ids: how ids are read.
        template: pairs of literal text and the field behind it.
        repeated: ids that occur more than once.
        first_rows: file and row of the repeated ids read so far, changed in place.
        have_sids: ids that have a SID, or None where that does not matter.
        keys: collects the keys of the ids where ``repeated`` is not known, else None.
        is_sure: whether ``ids`` follow from all ids, and not from the first alone.
        is_joined: whether the template only joins fields by line ends.
    """

    ids: Ids
    template: Template
    repeated: set[int | str]
    first_rows: dict[int | str, str]
    have_sids: set[int | str] | None
    keys: "array[int] | None" = None
    is_sure: bool = True
    is_joined: bool = False

    def item(self, file: str, row: Row) -> tuple[int | str, str]:
        """Return the id and the text of a row.

        Raises:
            BadRowError: if the row gives no item.
            _AnotherPassError: if its id is not of the kind of the first.
        """
        if row.fields is None:
            raise BadRowError(row.problem)
        pid = _read_id(row, self.ids) if self.is_sure else self._integer_id(row)
        if self.keys is not None:
            self.keys.append(_key(pid))
        if pid in self.first_rows:
            raise BadRowError(f"id {pid!r:.80} stands already at {self.first_rows[pid]}")
        if self.have_sids is not None and pid not in self.have_sids:
            raise NoSidError(NO_SID)
        text = _fill(self.template, row.fields, self.is_joined)
        if pid in self.repeated:
            self.first_rows[pid] = f"{file}, row {row.number}"
        return pid, text

    def columns(self, block: Block) -> tuple[pa.RecordBatch, pa.RecordBatch] | None:
        """Return the columns of a block, and its items as (pid, text); None: read its rows.

        A row without an id or a text there has to be read by itself. Keys of the others are added.
        """
        columns = block.columns() if self.is_joined else None
        if columns is None:
            return None
        pids = _column_ids(columns, self.ids)
        texts = column_items.texts(columns, [field or "" for _, field in self.template])
        if pids is None or texts is None:
            return None

        # Rows whose id is repeated, or has no SID, may be bad ones.
        is_item = pc.and_(pids.is_valid(), texts.is_valid())
        if self.repeated:
            is_item = pc.and_(is_item, [pid not in self.repeated for pid in pids.to_pylist()])
        if self.have_sids is not None:
            is_item = pc.and_(is_item, [pid in self.have_sids for pid in pids.to_pylist()])
        pids = pc.if_else(is_item, pids, pa.scalar(None, pids.type))
        if self.keys is not None:
            self.keys.extend(_keys(pids.drop_null()))
        return columns, pa.RecordBatch.from_arrays([pids, texts], ["pid", "text"])

    def _integer_id(self, row: Row) -> int | str:
        """The id of a row where ids are integers if all are written as such."""
        try:
            pid = _read_id(row, self.ids)
        except BadRowError:
            if _is_missing(_id_value(row, self.ids.field)):
                raise
            raise _AnotherPassError from None
        if str(_id_value(row, self.ids.field)) != str(pid):
            raise _AnotherPassError
        return pid


def _write(
    text_path: str, rejects_path: str, source: Source, renderer: _Renderer, settings: Items
) -> tuple[int, Tally]:
    """Write both files, which appear together, after every row was counted.

    Returns:
        How many items there are, and the counts of all rows.

    Raises:
        SidmillError: see :func:`render`.
        _AnotherPassError: if the renderer cannot tell what an id is, or whether it is repeated.
    """
    tally = Tally()
    schema = item_text.schema(pa.int64() if renderer.ids.integer else pa.string())
    with parquet.writer(rejects_path, item_text.REJECTS_SCHEMA) as rejects:
        tables = _tables(source, renderer, settings, tally, rejects)
        n_items = item_text.write(text_path, schema.field("pid").type, tables)
        rejects.add_key_value_metadata({item_text.ROWS_READ_KEY: str(tally.rows)})
    return n_items, tally


def _tables(
    source: Source,
    renderer: _Renderer,
    settings: Items,
    tally: Tally,
    rejects: pq.ParquetWriter,
) -> Iterator[pa.Table]:
    """Yield the items as tables of text.parquet, and write the other rows to ``rejects``.

    Args:
        source: the rows.
        renderer: what turns them into items.
        settings: of the stage.
        tally: counts the rows, changed in place.
        rejects: rejects.parquet, open.

    Raises:
        SidmillError: see :func:`render`.
    """
    schema = item_text.schema(pa.int64() if renderer.ids.integer else pa.string())
    unseen = {field for _, field in renderer.template if field}
    fields = {settings.id_field} | unseen
    refused = _Refused(rejects, settings, source.dialect, tally, [])
    n_items = 0
    for file, block in source.blocks(fields):
        # Items of whole columns; rows that may be bad are read by themselves.
        found = renderer.columns(block)
        if found is None:
            rows, made = block.all_rows(), None
        else:
            columns, made = found
            unseen.difference_update(_seen(block, columns, unseen))
            rows = block.rows(column_items.positions(made["pid"].is_null()))
            tally.rows += columns.num_rows - made["pid"].null_count

        # A row without an item keeps its position until both are put together.
        read: list[tuple[int | str, str] | tuple[None, None]] = []
        for row in rows:
            tally.rows += 1
            if unseen:
                unseen.difference_update(row.fields or ())
            try:
                read.append(renderer.item(file, row))
            except BadRowError as error:
                refused.add(file, row, error)
                read.append((None, None))
        items = _merged(made, _table(read, schema))
        n_items += items.num_rows
        yield items

    # Faults of the catalogue as a whole stop the run before a file appears.
    if renderer.keys is not None and len(_repeated_keys(renderer.keys)):
        raise _AnotherPassError
    _check_outcome(source, unseen, n_items, tally)
    tally.check(settings.max_reject_share, "items", source.dialect.named("encoding"), (NO_SID,))
    refused.write()


class _Refused(NamedTuple):
    """Rows that give no item, on their way to rejects.parquet.

    Attributes:
        out: rejects.parquet, open.
        settings: of the stage.
        dialect: how the files are written.
        tally: counts the rows by cause, changed in place.
        waiting: rows of the row group to be written next, changed in place.
    """

    out: pq.ParquetWriter
    settings: Items
    dialect: catalogue.Dialect
    tally: Tally
    waiting: list[tuple[str | None, str, int, str]]

    def add(self, file: str, row: Row, error: BadRowError) -> None:
        """List a row; write a whole row group.

        Raises:
            SidmillError: if bad rows stop the run.
        """
        reason = str(error)
        if self.settings.on_bad_rows == "error" and not isinstance(error, NoSidError):
            raise SidmillError(_stopped_at(file, row, reason, self.dialect)) from None
        self.tally.add(file, row.number, reason)
        shown = _shown_id(row, self.settings.id_field)
        self.waiting.append((shown, file, row.number, _stored(reason)))
        if len(self.waiting) == parquet.ROWS_PER_GROUP:
            self.write()

    def write(self) -> None:
        """Write the rows that wait as one row group."""
        self.out.write_table(_table(self.waiting, item_text.REJECTS_SCHEMA))
        self.waiting.clear()


def _seen(block: Block, columns: pa.RecordBatch, fields: set[str]) -> set[str]:
    """Which of some fields the rows of a block have; a column of nulls alone may be one of none."""
    names = fields.intersection(columns.schema.names)
    seen = {name for name in names if columns[name].null_count < columns.num_rows}
    if seen != names:
        seen.update(*(row.fields for row in block.all_rows() if row.fields))
    return seen


def _merged(made: pa.RecordBatch | None, read: pa.Table) -> pa.Table:
    """Items in the order of the rows; a row without an item is null in ``made`` and in ``read``.

    Args:
        made: from columns, (n,), null where the row was read by itself; None: all rows were.
        read: of the rows that were read by themselves, in order.
    """
    if made is None:
        return read.filter(read["pid"].is_valid())
    arrays = made.columns
    if read.num_rows:
        is_read = made["pid"].is_null()
        arrays = [
            pc.replace_with_mask(made[name], is_read, read[name].combine_chunks())
            for name in made.schema.names
        ]
    items = pa.table(arrays, schema=read.schema)
    return items.filter(items["pid"].is_valid()) if read["pid"].null_count else items


def open_source(settings: Items) -> Source:
    """The rows of the catalogue, as the settings say that its files are written.

    Raises:
        SidmillError: if there is no catalogue, or no such file or encoding.
    """
    if settings.path is None:
        raise SidmillError(NO_CATALOGUE)
    encodings.check(settings.encoding, "items.encoding")
    columns = None if settings.columns is None else tuple(settings.columns)
    dialect = catalogue.Dialect(
        settings.encoding, settings.separator, columns, settings.quoted, "items"
    )
    return Source(
        expand(settings.path, file_names.CATALOGUES, "items.path"), dialect, settings.id_field
    )


def _log_encodings(source: Source) -> None:
    """Log which files are read in another encoding because of their first bytes."""
    for file in source.files:
        found = catalogue.encoding_of(file, source.dialect)
        if source.dialect.encoding == encodings.AUTO and found != encodings.UTF8:
            logger.info("%s is read as %s, as its first bytes say", file, found)


def _stopped_at(file: str, row: Row, reason: str, dialect: catalogue.Dialect) -> str:
    """The message for a bad row that stops the run."""
    hint = ""
    if reason.startswith(NOT_UTF8):
        hint = f"; {encodings.remedy(file, dialect.named('encoding'))}"
    return (
        f"{file}, row {row.number}: {reason}: correct the row, or set items.on_bad_rows: reject to "
        f"list such rows in rejects.parquet{hint}"
    )


def _decide_ids(source: Source, id_type: str, by_first: bool = False) -> tuple[Ids, bool]:
    """Settle on one type of id for the whole catalogue.

    It comes from the setting, or from the first id that can be one; where that is text of a table
    or a name in an object, from all ids.

    Args:
        source: the rows.
        id_type: as in the settings.
        by_first: do not read all ids where the first is an integer; others may then be none.

    Returns:
        How ids are read, and whether that is sure.

    Raises:
        SidmillError: if no row has an id, or all are integers that were written as floats.
    """
    field = source.id_field
    if id_type != "auto":
        return Ids(field, id_type == "int", strict=False), True

    # The first id that can be one; a float cannot, and says nothing of the others.
    odd, all_floats = None, True
    for file, row, value in source.ids():
        if row.key is not None or catalogue.is_table(file, source.dialect):
            is_guess = by_first and _is_integer(value)
            ids = Ids(field, True, strict=False) if is_guess else _decide_texts(source)
            return ids, not is_guess
        if isinstance(value, int | str) and not isinstance(value, bool):
            return Ids(field, isinstance(value, int), strict=True), True
        odd = value if odd is None else odd
        all_floats &= isinstance(value, float) and value.is_integer()
    if odd is None:
        raise SidmillError(_no_ids(source))
    if all_floats:
        raise SidmillError(_floats(source, odd))
    return Ids(field, integer=False, strict=True), True


def _decide_texts(source: Source) -> Ids:
    """Settle on a type where all ids are text: integers if each is written as one."""
    first, integer, floats = None, True, True
    for _, _, value in source.ids():
        first = value if first is None else first
        integer = integer and _is_integer(value)
        floats = floats and isinstance(value, str) and bool(FLOAT_INTEGER.fullmatch(value))
        if not (integer or floats):
            break
    if floats:
        raise SidmillError(_floats(source, first))
    return Ids(source.id_field, integer, strict=False)


def _no_ids(source: Source) -> str:
    """The message where no row has an id: what the rows have, and the first that is unreadable."""
    trouble = ""
    for file, row in source.rows(set()):
        if row.problem:
            trouble = f"; {file}, row {row.number}: {row.problem}"
            if row.problem.startswith(NOT_UTF8):
                trouble += f": {encodings.remedy(file, source.dialect.named('encoding'))}"
            break
    others = " and the others" * (len(source.files) > 1)
    return (
        f"items.id_field: no row of {source.files[0]}{others} has a field "
        f"{source.id_field!r}{known_fields(source)}{trouble}"
    )


def _floats(source: Source, first: object) -> str:
    """The message where every id is an integer that was written as a float."""
    return (
        f"items.id_field: every id in {source.id_field!r} is an integer written as a float, the "
        f"first is {first!s:.40}: {PANDAS.format(field=source.id_field)}"
    )


def _id_value(row: Row, field: str) -> object:
    """What stands where the id should; whole decimals are integers, UUIDs are text."""
    if row.fields is None:
        return None
    value = row.fields.get(field, row.key)
    if isinstance(value, str | int):
        return value
    if isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value():
        return int(value)
    return str(value) if isinstance(value, UUID) else value


def _column_ids(columns: pa.RecordBatch, ids: Ids) -> pa.Array | None:
    """Ids of a block, null where a row has to be read by itself; None: all rows have to be."""
    values = plain_columns.of_field(columns, ids.field, binary_is_text=False)
    return column_items.ids(values, as_integers=ids.integer, strict=ids.strict)


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


def _read_id(row: Row, ids: Ids) -> int | str:
    # Most integers of tables; then all others, and floats that pandas made of them.
    value = _id_value(row, ids.field)
    if isinstance(value, str) and ids.integer and not ids.strict and SHORT_INTEGER(value):
        return int(value)
    if _is_missing(value):
        raise BadRowError(f"no id in field {safe(repr(ids.field), 80)}")
    if isinstance(value, int) and not isinstance(value, bool):
        return _read_integer(value, ids)
    if isinstance(value, float) and value.is_integer():
        if ids.integer and not ids.strict and int(value) in EXACT_FLOATS:
            return int(value)
        raise BadRowError(f"id {value} is a float: {PANDAS.format(field=ids.field)}")

    # Text, which may have to be an integer.
    if not isinstance(value, str):
        raise BadRowError(
            f"id {reprlib.repr(value)} is a {type(value).__name__}, wanted an integer or a string"
        )
    if not ids.integer:
        return _encodable(value, "the id")
    if not ids.strict and FLOAT_INTEGER.fullmatch(value):
        value = value.partition(".")[0]
    if ids.strict or not _is_integer(value):
        kind = "like the first" if ids.strict else "of 64 bits as items.id_type: int wants"
        raise BadRowError(f"id {value!r:.80} is not an integer {kind}: set items.id_type: string")
    return int(value)


def _read_integer(value: int, ids: Ids) -> int | str:
    if not ids.integer and ids.strict:
        raise BadRowError(
            f"id {value} is an integer, the first one is a string: set items.id_type: string"
        )
    if not ids.integer:
        return str(value)
    if value not in INT64:
        raise BadRowError(f"id {value} does not fit in 64 bits: set items.id_type: string")
    return value


def _shown_id(row: Row, id_field: str) -> str | None:
    value = _id_value(row, id_field)
    if value is None:
        return None
    shown = value if isinstance(value, str) else reprlib.repr(value)  # repr() may nest too deeply
    return _stored(shown)


def _stored(value: str) -> str:
    """A text that every file can hold: half a character becomes a question mark."""
    return value.encode(errors="replace").decode()


def _find_repeated(source: Source, ids: Ids) -> set[int | str]:
    """Return the ids that occur more than once. Memory: 9.5 bytes per item, and what it returns."""
    suspects = set(_repeated_keys(array("q", map(_key, _readable_ids(source, ids)))).tolist())
    if not suspects:
        return set()
    seen = Counter(pid for pid in _readable_ids(source, ids) if _key(pid) in suspects)
    return {pid for pid, occurrences in seen.items() if occurrences > 1}


def _repeated_keys(keys: "array[int]") -> np.ndarray:
    """Keys that occur more than once: int64; ``keys`` are sorted in place."""
    ordered = np.frombuffer(keys, dtype=np.int64)
    ordered.sort()
    repeated: np.ndarray = ordered[1:][ordered[1:] == ordered[:-1]]
    return repeated


def _readable_ids(source: Source, ids: Ids) -> Iterator[int | str]:
    for _, block in source.blocks({ids.field}):
        columns = block.columns()
        pids = None if columns is None else _column_ids(columns, ids)
        if pids is None:
            rows = block.all_rows()
        else:
            yield from pids.drop_null().to_pylist()
            rows = block.rows(column_items.positions(pids.is_null()))
        for row in rows:
            if not _is_missing(_id_value(row, ids.field)):
                with suppress(BadRowError):
                    yield _read_id(row, ids)


def _key(pid: int | str) -> int:
    """64 bits that equal ids share; of a text they differ between processes."""
    return pid if isinstance(pid, int) else hash(pid)


def _keys(pids: pa.Array) -> "array[int]":
    """The keys of ids: int64 or string (n,) without nulls."""
    if pa.types.is_integer(pids.type):
        return array("q", pids.to_numpy().tobytes())
    return array("q", map(hash, pids.to_pylist()))


def _joined(fields: list[str]) -> Template:
    return [("\n" if position else "", field) for position, field in enumerate(fields)]


def _parse_template(template: str) -> Template:
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


def _fill(template: Template, fields: dict[str, Any], is_joined: bool) -> str:
    """The text of a row; ``is_joined`` says that the template is one of :func:`_joined`.

    Raises:
        BadRowError: if it has no letter and no digit, or cannot be written.
    """
    try:
        # Values have no line ends and no white space around them: literals alone may.
        if is_joined:
            parts = [
                part
                for part in [plain_text(fields.get(name or "")) for _, name in template]
                if part
            ]
            if any(map(_says_something, parts)):
                return _encodable("\n".join(parts), "the text")
        values = [
            (literal, plain_text(fields.get(field)) if field else "") for literal, field in template
        ]
    except RecursionError:
        raise BadRowError("nested too deeply") from None
    except UnreadableError as error:
        raise BadRowError(str(error)) from None
    if not any(map(_says_something, (value for _, value in values))):
        lacking = "letter or digit" if any(value for _, value in values) else "text"
        names = [field for _, field in template if field]
        hint = (
            ""
            if any(field in fields for field in names)
            else f": the row has {shown_names(fields) or 'none of them'}"
        )
        raise BadRowError(f"no {lacking} in {shown_names(names)}{hint}")
    lines = "".join(literal + value for literal, value in values).split("\n")
    return _encodable("\n".join(filter(None, (line.strip() for line in lines))), "the text")


def _says_something(text: str) -> bool:
    """Whether a text has a letter or a digit; its first character mostly is one."""
    return text[:1].isalnum() or any(map(str.isalnum, text))


def _encodable(value: str, what: str) -> str:
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadRowError(
            f"{what} holds half a character (a lone surrogate) at {error.start}"
        ) from None
    return value


def _table(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [[] for _ in schema]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.table(arrays, schema=schema)


def _check_outcome(source: Source, unseen: set[str], n_items: int, tally: Tally) -> None:
    if unseen:
        raise SidmillError(
            f"items.fields or items.template: no row of the catalogue has "
            f"{shown_names(map(repr, sorted(unseen)))}{known_fields(source)}"
        )
    if not n_items:
        file, row, reason = next(iter(tally.first.values()))
        raise SidmillError(
            f"no row of the catalogue gives an item; first: {file}, row {row}: {reason}"
        )


def known_fields(source: Source) -> str:
    """The fields that the first readable row has, and that it may be no header, for a message."""
    for file in source.files:
        if names := catalogue.field_names(file, source.dialect):
            hint = catalogue.about_header(file, source.dialect)
            return f": the first row has {shown_names(names)}{hint}"
    return ""
