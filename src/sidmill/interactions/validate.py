"""The rows of an interaction log, checked in blocks: pieces of histories, and what was refused.

A bad row goes as a whole; an item that the catalogue lacks goes alone, and the rest of its row
stays.
"""

from collections.abc import Callable, Iterator
from itertools import chain, islice, pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.formats import log_rows
from sidmill.formats.log_rows import Dialect, Row
from sidmill.formats.sequence_table import Reject
from sidmill.interactions import catalogue_ids
from sidmill.interactions import times as timestamps
from sidmill.interactions.catalogue_ids import UNKNOWN, KnownItems
from sidmill.interactions.files import PROBED_ROWS
from sidmill.interactions.rows import (
    BadRowError,
    Parser,
    Piece,
    names_of,
    parser,
)
from sidmill.interactions.times import Clock

BLOCK_ITEMS = 1 << 18
PIECES = pa.schema(
    [
        ("user", pa.string()),
        ("file", pa.int32()),
        ("row", pa.int64()),
        ("whole", pa.bool_()),
        ("items", pa.list_(pa.int32())),  # numbers of known items
        ("splits", pa.list_(pa.int8())),  # null: not said
        ("times", pa.list_(pa.int64())),  # null: not said
    ]
)


OTHER_SPLIT = "add them, or set interactions.split: leave_two_out or leave_last_out"
# What mends a column, where its values do not say it.
REMEDIES = {
    "user": "name the field of the users in interactions.fields.user",
    "item": "write ids as in the catalogue, or name their field in interactions.fields",
    "time": "name the field of the times in interactions.fields.time",
    "split": "write train, valid or test there, name the files so (X.train.csv), or set "
    "interactions.split: leave_two_out",
}


class Rules(NamedTuple):
    """What is refused, and how: see :func:`sidmill.interactions.read.read`."""

    max_history: int
    needs_splits: bool
    needs_times: bool
    sorted_times: bool
    on_unknown_items: str
    on_bad_rows: str
    clock: Clock


class Log(NamedTuple):
    """The files of a log, and how they are read.

    Attributes:
        files: the files, in order.
        splits: what the name of each says, or None.
        form: missrec, sequences, events, onerec or inter.
        fields: other field names than the usual ones.
        dialect: how delimited text is written.
        names: names of fields that rows have.
    """

    files: list[str]
    splits: list[int | None]
    form: str
    fields: dict[str, str | None]
    dialect: Dialect
    names: set[str]

    def rows(self, number: int) -> Iterator[Row]:
        """Read one of the files."""
        return log_rows.read(self.files[number], self.dialect, self.names)


class Place(NamedTuple):
    """Where a row stands: ``file`` is its place in the list of files."""

    file: int
    row: int


def pieces(
    log: Log,
    known: KnownItems,
    rules: Rules,
    reject: Callable[[Reject], None],
    counts: dict[str, int],
) -> Iterator[pa.Table]:
    """Yield the pieces of all files as tables of ``PIECES``, in reading order.

    Args:
        log: the files, and how they are read.
        known: the catalogue.
        rules: what is refused.
        reject: takes what is refused.
        counts: ``rows``, ``rows_rejected``, ``rows_with_splits``, ``users_as_floats``,
            ``interactions``, ``interactions_rejected`` and ``unknown_items`` are added up here.

    Memory: a block of 262,144 interactions.

    Raises:
        SidmillError: for the first bad row or unknown item where ``rules`` say error; if a file
            cannot be read to its end.
    """
    parse = parser(log.form, log.fields, catalogue_ids.padding(known))

    def refuse(place: Place, user: str | None, error: BadRowError) -> None:
        if rules.on_bad_rows == "error":
            raise SidmillError(_stopping(log, place, error, parse, known, rules))
        counts["rows_rejected"] += 1
        counts["interactions"] += error.interactions
        counts["interactions_rejected"] += error.interactions
        file = log.files[place.file]
        reject(Reject(file, place.row, None, user, None, error.interactions, str(error)))

    user_field = names_of(log.form, log.fields)["user"]
    waiting: list[tuple[Place, Piece]] = []
    size = 0
    for number in range(len(log.files)):
        for row in log.rows(number):
            counts["rows"] += 1
            place = Place(number, row.number)
            try:
                piece = _piece(row, parse, log.splits[number], rules)
                counts["rows_with_splits"] += piece.splits is not None
                said = row.fields.get(user_field)
                counts["users_as_floats"] += said != piece.user and not isinstance(said, int)
            except BadRowError as error:
                refuse(place, None, error)
                continue
            waiting.append((place, piece))
            size += len(piece.items)
            if size >= BLOCK_ITEMS:
                yield from _block(waiting, log.files, known, rules, reject, refuse, counts)
                waiting, size = [], 0
    yield from _block(waiting, log.files, known, rules, reject, refuse, counts)


def settle_clock(log: Log, clock: Clock) -> Clock:
    """Tell whether the log's timestamps are numbers or dates, by its first readable ones."""
    field = names_of(log.form, log.fields).get("time")
    if field is None:
        return clock
    probed: list[object] = []
    for number in range(len(log.files)):
        for row in islice(log.rows(number), PROBED_ROWS):
            found = row.fields.get(field) if row.fields else None
            probed += found if isinstance(found, list) else [] if found is None else [found]
        if len(probed) >= PROBED_ROWS:
            break
    return timestamps.settle(clock, probed)


def _piece(row: Row, parse: Parser, file_split: int | None, rules: Rules) -> Piece:
    """Read one row.

    Raises:
        BadRowError: if it cannot be, or does not say what the settings want.
    """
    if row.problem:
        raise BadRowError(row.problem)
    piece = parse(row.fields, file_split)
    _check_said(piece, rules)
    return piece


def _stopping(
    log: Log, place: Place, error: BadRowError, parse: Parser, known: KnownItems, rules: Rules
) -> str:
    """Say what stops the reading: one row, or a column whose every value is so."""
    file = log.files[place.file]
    also = (
        ", or set interactions.on_bad_rows: reject to list such rows in "
        "results/interactions/rejects.parquet"
    )
    if error.role is None:
        return f"{file}, row {place.row}: {error}: {error.remedy}{also}"
    looked_at = alike = 0
    fields: list[str] = []
    for row in islice(log.rows(place.file), PROBED_ROWS):
        looked_at += 1
        fields = list(row.fields or fields)
        try:
            _mended(_piece(row, parse, log.splits[place.file], rules), known, rules)
        except BadRowError as other:
            alike += other.role == error.role
    if looked_at == 1 or alike < looked_at:
        return f"{file}, row {place.row}: {error}: {error.remedy}{also}"
    name = names_of(log.form, log.fields).get(error.role)
    there = (
        "" if name in fields else f" (there is none of that name; it has {log_rows.shown(fields)})"
    )
    remedy = error.remedy if error.remedy != "mend the row" else REMEDIES[error.role]
    return (
        f"{file}, row {place.row}: {error}; it is so in all of the first {looked_at} rows, so look "
        f"at the column {name!r}{there}: {remedy}"
    )


def _check_said(piece: Piece, rules: Rules) -> None:
    if rules.needs_splits and piece.splits is None:
        reason = (
            "no splits, which interactions.split: given wants; the file's name says none either"
        )
        raise BadRowError(reason, len(piece.items), "split")
    if rules.needs_times and piece.times is None:
        reason = "no timestamps, which interactions.split: time wants"
        raise BadRowError(reason, len(piece.items), "time", OTHER_SPLIT)


def _block(
    waiting: list[tuple[Place, Piece]],
    files: list[str],
    known: KnownItems,
    rules: Rules,
    reject: Callable[[Reject], None],
    refuse: Callable[[Place, str, BadRowError], None],
    counts: dict[str, int],
) -> Iterator[pa.Table]:
    """Check a block: as arrays at once, and row by row only where something is odd."""
    arrays = _arrays(waiting, known, rules)
    if arrays is None:
        good = []
        for place, piece in waiting:
            try:
                good.append((place, _mended(piece, known, rules)))
            except BadRowError as error:
                refuse(place, piece.user, error)
        waiting = good
        plain = rules._replace(
            clock=rules.clock._replace(kind=timestamps.NUMBER, fractions="floor")
        )
        arrays = _arrays(waiting, known, plain)
    if not waiting:
        return
    ids, times = arrays
    counts["interactions"] += len(ids)
    numbers = catalogue_ids.numbers_of(known, ids)
    table = _table(waiting, numbers, times)
    missing = np.flatnonzero(numbers == UNKNOWN)
    if missing.size:
        _refuse_items(waiting, ids, missing, known, files, rules, reject, counts)
        table = _without(table, numbers != UNKNOWN)
    if table.num_rows:
        yield table


def _arrays(
    waiting: list[tuple[Place, Piece]], known: KnownItems, rules: Rules
) -> tuple[pa.Array, np.ndarray | None] | None:
    """All items and times of a block as arrays, or None where a row of it needs a closer look."""
    lengths = np.fromiter((len(piece.items) for _, piece in waiting), np.int64, len(waiting))
    if lengths.size and lengths.max() > rules.max_history:
        return None
    try:
        ids = pa.array(list(chain.from_iterable(piece.items for _, piece in waiting)))
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError):
        return None
    if ids.type != known.ids.type or ids.null_count:
        return None
    if known.integer and ids.to_numpy().min() < 1:
        return None
    if all(piece.times is None for _, piece in waiting):
        return ids, None
    flat = chain.from_iterable(
        [0] * len(piece.items) if piece.times is None else piece.times for _, piece in waiting
    )
    try:
        times = pa.array(list(flat))
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError):
        return None
    if times.type != pa.int64() or times.null_count:
        return None
    if not rules.clock.plain:  # each is a date, or to be multiplied
        return None
    times = times.to_numpy()
    falls = times[1:] < times[:-1]
    falls[np.cumsum(lengths)[:-1] - 1] = False  # from one row to the next
    return None if rules.sorted_times and falls.any() else (ids, times)


def _mended(piece: Piece, known: KnownItems, rules: Rules) -> Piece:
    """The same piece with ids and times as integers or strings, or BadRowError."""
    size = len(piece.items)
    if size > rules.max_history:
        raise BadRowError(
            f"{size} interactions, more than interactions.max_history ({rules.max_history})", size
        )
    try:
        items = [catalogue_ids.as_id(known, item) for item in piece.items]
    except ValueError as error:
        raise BadRowError(str(error), size, "item") from None
    times = None if piece.times is None else []
    for time in piece.times or ():
        try:
            times.append(timestamps.read(time, rules.clock))
        except ValueError as error:
            remedy = timestamps.remedy(time, rules.clock)
            raise BadRowError(str(error), size, "time", remedy) from None
    if times and rules.sorted_times:
        for earlier, later in pairwise(times):
            if later < earlier:
                raise BadRowError(f"timestamps out of order: {later} after {earlier}", size)
    return piece._replace(items=items, times=times)


def _table(
    waiting: list[tuple[Place, Piece]], numbers: np.ndarray, times: np.ndarray | None
) -> pa.Table:
    lengths = [len(piece.items) for _, piece in waiting]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    items = pa.ListArray.from_arrays(offsets, pa.array(numbers))
    if times is None:
        times = pa.nulls(len(waiting), PIECES.field("times").type)
    else:
        untimed = pa.array([piece.times is None for _, piece in waiting])
        times = pa.ListArray.from_arrays(offsets, pa.array(times), mask=untimed)
    splits = [piece.splits for _, piece in waiting]
    columns = [
        pa.array([piece.user for _, piece in waiting], pa.string()),
        pa.array([place.file for place, _ in waiting], pa.int32()),
        pa.array([place.row for place, _ in waiting], pa.int64()),
        pa.array([piece.whole for _, piece in waiting], pa.bool_()),
        items,
        pa.array(splits, PIECES.field("splits").type),
        times,
    ]
    return pa.table(columns, schema=PIECES)


def _refuse_items(
    waiting: list[tuple[Place, Piece]],
    ids: pa.Array,
    missing: np.ndarray,
    known: KnownItems,
    files: list[str],
    rules: Rules,
    reject: Callable[[Reject], None],
    counts: dict[str, int],
) -> None:
    """Stop at an item that the catalogue lacks, or list all of a block."""
    ends = np.cumsum([len(piece.items) for _, piece in waiting])
    owners = np.searchsorted(ends, missing, side="right")
    for flat, owner in zip(missing.tolist(), owners.tolist(), strict=True):
        place, piece = waiting[owner]
        position = flat - int(ends[owner]) + len(piece.items)
        item = ids[flat].as_py()
        if rules.on_unknown_items == "error":
            raise SidmillError(
                f"{files[place.file]}, row {place.row}: user {piece.user!r} has item {item!r}, "
                f"which is not in the catalogue, whose ids are such as {known.ids[0].as_py()!r}: "
                f"check that interactions.path and items.path belong together, or set "
                f"interactions.on_unknown_items: reject to list such interactions in "
                f"results/interactions/rejects.parquet"
            )
        reason = "item not in the catalogue"
        reject(Reject(files[place.file], place.row, position, piece.user, str(item), 1, reason))
    counts["interactions_rejected"] += len(missing)
    counts["unknown_items"] += len(missing)


def _without(table: pa.Table, kept: np.ndarray) -> pa.Table:
    """Take out the interactions that are not ``kept``, and pieces that are empty then."""
    lists = table["items"].combine_chunks()
    lengths = np.add.reduceat(kept, lists.offsets.to_numpy()[:-1], dtype=np.int64)
    columns = {name: table[name].combine_chunks() for name in table.column_names}
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    columns["items"] = pa.ListArray.from_arrays(offsets, lists.values.filter(pa.array(kept)))
    for name in ("splits", "times"):
        columns[name] = _filtered(columns[name], np.diff(lists.offsets.to_numpy()), kept)
    return pa.table(columns, schema=PIECES).filter(pa.array(lengths > 0))


def _filtered(lists: pa.ListArray, sizes: np.ndarray, kept: np.ndarray) -> pa.ListArray:
    """The same filter on a list column that may hold nulls."""
    said = lists.is_valid().to_numpy(zero_copy_only=False)
    inside = np.repeat(said, sizes)
    values = lists.flatten().filter(pa.array(kept[inside]))
    ends = np.concatenate(
        [
            [0],
            np.cumsum(
                np.bincount(
                    np.repeat(np.arange(len(sizes)), sizes)[inside & kept], minlength=len(sizes)
                )
            ),
        ]
    ).astype(np.int32)
    return pa.ListArray.from_arrays(ends, values, mask=pa.array(~said))
