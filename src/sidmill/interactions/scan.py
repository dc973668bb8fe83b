"""The rows of an interaction log, checked in blocks: pieces of histories, and what was refused.

A bad row goes as a whole; an item that the catalogue lacks goes alone, and the rest of its row
stays.
"""

import reprlib
from collections.abc import Callable, Iterator
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.formats import catalogue
from sidmill.formats.interactions import Reject
from sidmill.interactions import known as catalogue_ids
from sidmill.interactions.files import split_of
from sidmill.interactions.known import UNKNOWN, KnownItems
from sidmill.interactions.rows import BadRowError, Piece, parser

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


class Rules(NamedTuple):
    """What is refused, and how: see :func:`sidmill.interactions.read.read`."""

    max_history: int
    needs_splits: bool
    needs_times: bool
    sorted_times: bool
    on_unknown_items: str
    on_bad_rows: str


class Place(NamedTuple):
    """Where a row stands: ``file`` is its place in the list of files."""

    file: int
    row: int


def pieces(
    files: list[str],
    form: str,
    fields: dict[str, str | None],
    known: KnownItems,
    rules: Rules,
    reject: Callable[[Reject], None],
    counts: dict[str, int],
) -> Iterator[pa.Table]:
    """Yield the pieces of all files as tables of ``PIECES``, in reading order.

    Args:
        files: the files, in order.
        form: missrec, sequences, events or onerec.
        fields: other field names than the usual ones.
        known: the catalogue.
        rules: what is refused.
        reject: takes what is refused.
        counts: ``rows``, ``rows_rejected``, ``rows_with_splits``, ``interactions``,
            ``interactions_rejected`` and ``unknown_items`` are added up here.

    Memory: a block of 262,144 interactions.

    Raises:
        SidmillError: for the first bad row or unknown item where ``rules`` say error; if a file
            cannot be read to its end.
    """
    parse = parser(form, fields)

    def refuse(place: Place, user: str | None, error: BadRowError) -> None:
        _refuse(files, place, user, error, rules, reject, counts)

    waiting: list[tuple[Place, Piece]] = []
    size = 0
    for number, file in enumerate(files):
        file_split = split_of(file)
        for row in catalogue.read(file):
            counts["rows"] += 1
            place = Place(number, row.number)
            try:
                if row.problem:
                    raise BadRowError(row.problem)
                piece = parse(row.fields, file_split)
                _check_said(piece, rules)
                counts["rows_with_splits"] += piece.splits is not None
            except BadRowError as error:
                refuse(place, None, error)
                continue
            waiting.append((place, piece))
            size += len(piece.items)
            if size >= BLOCK_ITEMS:
                yield from _block(waiting, files, known, rules, reject, refuse, counts)
                waiting, size = [], 0
    yield from _block(waiting, files, known, rules, reject, refuse, counts)


def _check_said(piece: Piece, rules: Rules) -> None:
    if rules.needs_splits and piece.splits is None:
        raise BadRowError("no splits, which interactions.split: given wants", len(piece.items))
    if rules.needs_times and piece.times is None:
        raise BadRowError("no timestamps, which interactions.split: time wants", len(piece.items))


def _refuse(
    files: list[str],
    place: Place,
    user: str | None,
    error: BadRowError,
    rules: Rules,
    reject: Callable[[Reject], None],
    counts: dict[str, int],
) -> None:
    """Stop at a bad row, or list it."""
    if rules.on_bad_rows == "error":
        raise SidmillError(
            f"{files[place.file]}, row {place.row}: {error}: mend the row, or set "
            f"interactions.on_bad_rows: reject to list such rows in "
            f"results/interactions/rejects.parquet"
        )
    counts["rows_rejected"] += 1
    counts["interactions"] += error.interactions
    counts["interactions_rejected"] += error.interactions
    reject(Reject(files[place.file], place.row, None, user, None, error.interactions, str(error)))


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
        arrays = _arrays(waiting, known, rules)
    if not waiting:
        return
    ids, times = arrays
    counts["interactions"] += len(ids)
    numbers = catalogue_ids.numbers_of(known, ids)
    table = _table(waiting, numbers, times)
    missing = np.flatnonzero(numbers == UNKNOWN)
    if missing.size:
        _refuse_items(waiting, ids, missing, files, rules, reject, counts)
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
        times = None if piece.times is None else [_time(time) for time in piece.times]
    except ValueError as error:
        raise BadRowError(str(error), size) from None
    if times and rules.sorted_times:
        for earlier, later in pairwise(times):
            if later < earlier:
                raise BadRowError(f"timestamps out of order: {later} after {earlier}", size)
    return piece._replace(items=items, times=times)


def _time(value: object) -> int:
    """A timestamp as a whole number; text and floats that are one will do."""
    try:
        number = int(value) if not isinstance(value, bool) else None
        if number is None or number != float(value) or not -(2**63) <= number < 2**63:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"timestamp {reprlib.repr(value)} is not a whole number of 64 bits"
        ) from None
    return number


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
                f"which is not in the catalogue: check that interactions.path and items.path "
                f"belong together, or set interactions.on_unknown_items: reject to list such "
                f"interactions in results/interactions/rejects.parquet"
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
