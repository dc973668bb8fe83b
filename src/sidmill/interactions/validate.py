"""The rows of an interaction log, checked in blocks: pieces of histories, and what was refused.

A bad row goes as a whole; an item that the catalogue lacks goes alone, and the rest of its row
stays.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice, pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.formats import log_rows
from sidmill.formats.catalogue_blocks import Block, Row
from sidmill.formats.log_rows import Dialect
from sidmill.formats.sequence_table import Reject
from sidmill.interactions import catalogue_ids, column_events
from sidmill.interactions import times as timestamps
from sidmill.interactions.catalogue_ids import UNKNOWN, CatalogueIds
from sidmill.interactions.files import PROBED_ROWS
from sidmill.interactions.rows import (
    CORRECT_ROW,
    BadRowError,
    Parser,
    Piece,
    names_of,
    parser,
)
from sidmill.interactions.times import Clock
from sidmill.settings.interactions import Interactions, InteractionsFields

BLOCK_ITEMS = 1 << 18
PIECES = pa.schema(
    [
        ("user", pa.string()),
        ("file", pa.int32()),
        ("row", pa.int64()),
        ("whole", pa.bool_()),
        ("items", pa.list_(pa.int32())),  # rows of items in the catalogue
        ("splits", pa.list_(pa.int8())),  # null: not said
        ("times", pa.list_(pa.int64())),  # null: not said
    ]
)
OTHER_SPLIT = "add them, or set interactions.split: leave_two_out or leave_last_out"
# What corrects a column, where its values do not say it.
REMEDIES = {
    "user": "name the field of the users in interactions.fields.user",
    "item": "write ids as in the catalogue, or name their field in interactions.fields",
    "time": "name the field of the times in interactions.fields.time",
    "split": "write train, valid or test there, name the files so (X.train.csv), or set "
    "interactions.split: leave_two_out",
}


class Rules(NamedTuple):
    """What a row has to say, and how its times are read.

    Attributes:
        settings: of the stage.
        form: missrec, sequences, events, onerec or inter.
        clock: how timestamps are read.
    """

    settings: Interactions
    form: str
    clock: Clock

    @property
    def needs_splits(self) -> bool:
        """Whether each row has to say its splits."""
        return self.settings.split == "given"

    @property
    def needs_times(self) -> bool:
        """Whether each row has to say its timestamps."""
        return self.settings.split == "time"

    @property
    def needs_sorted_times(self) -> bool:
        """Whether the timestamps of a row may not fall."""
        return self.form == "sequences"


class Log(NamedTuple):
    """The files of a log, and how they are read.

    Attributes:
        files: the files, in order.
        splits: the split that the name of each file says, or None.
        form: missrec, sequences, events, onerec or inter.
        fields: names of fields that are not the usual ones.
        dialect: how delimited text is written.
        names: names of fields that rows have.
    """

    files: list[str]
    splits: list[int | None]
    form: str
    fields: InteractionsFields
    dialect: Dialect
    names: set[str]

    def rows(self, file: int) -> Iterator[Row]:
        """Read one of the files."""
        return log_rows.read(self.files[file], self.dialect, self.names)

    def blocks(self, file: int) -> Iterator[Block]:
        """Read one of the files by blocks, which have columns where rows are events."""
        fields = None
        if self.form == "events":
            fields = set(names_of(self.form, self.fields).values())
        return log_rows.blocks(self.files[file], self.dialect, self.names, fields)


class Position(NamedTuple):
    """Position of a row in the log: index of its file, and its number there from 1."""

    file: int
    row: int


class Ledger(NamedTuple):
    """Where everything that is read is accounted for.

    Attributes:
        reject: takes each line of rejects.parquet.
        counts: ``rows``, ``rows_rejected``, ``rows_with_splits``, ``users_as_floats``,
            ``interactions``, ``interactions_rejected`` and ``unknown_items`` are added up here.
    """

    reject: Callable[[Reject], None]
    counts: Counter[str]


Parsed = list[tuple[Position, Piece]]


@dataclass
class _Waiting:
    """What was read since the last block: in order of file and row, each of the two.

    Attributes:
        rows: rows that were parsed one by one.
        events: tables of ``column_events.Events`` with a column ``file``.
        size: interactions of both.
    """

    rows: Parsed = field(default_factory=list)
    events: list[pa.Table] = field(default_factory=list)
    size: int = 0


class _Checker(NamedTuple):
    """What the rows of one log are checked against."""

    log: Log
    catalogue: CatalogueIds
    rules: Rules
    ledger: Ledger
    parse: Parser

    def refuse(self, position: Position, user: str | None, error: BadRowError) -> None:
        """Stop at a bad row, or list it in rejects.parquet, as the settings say.

        Raises:
            SidmillError: with ``interactions.on_bad_rows: error``.
        """
        if self.rules.settings.on_bad_rows == "error":
            raise SidmillError(_stopping(self, position, error))
        counts = self.ledger.counts
        counts["rows_rejected"] += 1
        counts["interactions"] += error.interactions
        counts["interactions_rejected"] += error.interactions
        file = self.log.files[position.file]
        line = Reject(file, position.row, None, user, None, error.interactions, str(error))
        self.ledger.reject(line)


def pieces(log: Log, catalogue: CatalogueIds, rules: Rules, ledger: Ledger) -> Iterator[pa.Table]:
    """Check the rows of all files of a log, and yield pieces of histories, tables of ``PIECES``.

    Args:
        log: the files, and how they are read.
        catalogue: its ids.
        rules: what is refused.
        ledger: takes what is refused, and the counts.

    Memory: a block of 262,144 interactions.

    Raises:
        SidmillError: for the first bad row or unknown item where the settings say error; if a file
            cannot be read to its end.
    """
    parse = parser(log.form, log.fields, catalogue_ids.padding(catalogue))
    checker = _Checker(log, catalogue, rules, ledger, parse)
    waiting = _Waiting()
    for file in range(len(log.files)):
        for block in log.blocks(file):
            events = _events(checker, block, file)
            if events is None:
                yield from _add_rows(checker, waiting, file, block.all_rows())
            else:
                yield from _add_events(checker, waiting, file, block, events)
    yield from _block(checker, waiting)


def _events(checker: _Checker, block: Block, file: int) -> column_events.Events | None:
    """The rows of a block as events, where they are events and its columns say so."""
    log, rules = checker.log, checker.rules
    columns = block.columns() if log.form == "events" else None
    if columns is None:
        return None
    names = names_of(log.form, log.fields)
    meaning = column_events.Meaning(
        names, checker.catalogue.ids.type, rules.clock, rules.needs_splits
    )
    numbers = np.array(block.numbers(), dtype=np.int64)
    return column_events.read(columns, numbers, meaning, log.splits[file])


def _add_rows(
    checker: _Checker, waiting: _Waiting, file: int, read_rows: Iterable[Row]
) -> Iterator[pa.Table]:
    """Parse rows one by one; yield each block that is full then."""
    user_field = names_of(checker.log.form, checker.log.fields)["user"]
    counts = checker.ledger.counts
    for row in read_rows:
        counts["rows"] += 1
        position = Position(file, row.number)

        # Parse the row by itself; ids and times are checked in blocks.
        try:
            fields, piece = _piece(row, checker.parse, checker.log.splits[file], checker.rules)
        except BadRowError as error:
            checker.refuse(position, None, error)
            continue
        counts["rows_with_splits"] += piece.splits is not None
        user = fields.get(user_field)
        counts["users_as_floats"] += user != piece.user and not isinstance(user, int)

        waiting.rows.append((position, piece))
        waiting.size += len(piece.items)
        if waiting.size >= BLOCK_ITEMS:
            yield from _block(checker, waiting)


def _add_events(
    checker: _Checker,
    waiting: _Waiting,
    file: int,
    block: Block,
    events: column_events.Events,
) -> Iterator[pa.Table]:
    """Take the rows of a block as they are, in order; yield each block that is full then.

    Blocks end where they would end if all rows were parsed one by one, so that what is refused is
    refused in the same order.
    """
    counts = checker.ledger.counts
    counts["users_as_floats"] += events.n_float_users
    n_rows, begin = events.table.num_rows, 0
    files = pa.array(np.full(n_rows, file, dtype=np.int32))
    table = events.table.append_column("file", files)
    rows_in_question = chain(block.rows(events.by_row), [None])
    for stop, row in zip([*events.by_row, n_rows], rows_in_question, strict=True):
        # Rows up to the next one that has to be read by itself.
        while begin < stop:
            size = min(stop - begin, BLOCK_ITEMS - waiting.size)
            chosen = table.slice(begin, size)
            counts["rows"] += size
            counts["rows_with_splits"] += size - chosen["split"].null_count
            waiting.events.append(chosen)
            waiting.size += size
            begin += size
            if waiting.size >= BLOCK_ITEMS:
                yield from _block(checker, waiting)

        if row is not None:
            yield from _add_rows(checker, waiting, file, [row])
            begin = stop + 1


def settle_clock(log: Log, clock: Clock) -> Clock:
    """Decide by the first readable timestamps of the log whether they are numbers or dates."""
    name = names_of(log.form, log.fields).get("time")
    if name is None:
        return clock
    probed: list[object] = []
    for file in range(len(log.files)):
        for row in islice(log.rows(file), PROBED_ROWS):
            value = row.fields.get(name) if row.fields else None
            probed += value if isinstance(value, list) else [] if value is None else [value]
        if len(probed) >= PROBED_ROWS:
            break
    return timestamps.settle(clock, probed)


def _piece(
    row: Row, parse: Parser, file_split: int | None, rules: Rules
) -> tuple[dict[str, Any], Piece]:
    """Read one row; return its fields, and the piece.

    Raises:
        BadRowError: if the row cannot be read, or lacks what the settings need.
    """
    if row.fields is None:
        raise BadRowError(str(row.problem))
    piece = parse(row.fields, file_split)
    _check_needed(piece, rules)
    return row.fields, piece


def _stopping(checker: _Checker, position: Position, error: BadRowError) -> str:
    """The message for what stops the reading: one bad row, or a column of bad values."""
    log = checker.log
    where = f"{log.files[position.file]}, row {position.row}"
    one_row = (
        f"{where}: {error}: {error.remedy}, or set interactions.on_bad_rows: reject to list such "
        f"rows in results/interactions/rejects.parquet"
    )
    if error.role is None:
        return one_row

    # Whether the first rows of the file all have the same fault.
    looked_at = alike = 0
    names: list[str] = []
    for row in islice(log.rows(position.file), PROBED_ROWS):
        looked_at += 1
        names = list(row.fields or names)
        try:
            _, piece = _piece(row, checker.parse, log.splits[position.file], checker.rules)
            _converted(piece, checker.catalogue, checker.rules)
        except BadRowError as other:
            alike += other.role == error.role
    if looked_at == 1 or alike < looked_at:
        return one_row

    name = names_of(log.form, log.fields).get(error.role)
    absent = f" (there is none of that name; it has {log_rows.shown(names)})"
    hint = "" if name in names else absent
    remedy = REMEDIES[error.role] if error.remedy == CORRECT_ROW else error.remedy
    return (
        f"{where}: {error}; it is so in all of the first {looked_at} rows, so look at the column "
        f"{name!r}{hint}: {remedy}"
    )


def _check_needed(piece: Piece, rules: Rules) -> None:
    if rules.needs_splits and piece.splits is None:
        reason = (
            "no splits, which interactions.split: given wants; the file's name says none either"
        )
        raise BadRowError(reason, len(piece.items), "split")
    if rules.needs_times and piece.times is None:
        reason = "no timestamps, which interactions.split: time wants"
        raise BadRowError(reason, len(piece.items), "time", OTHER_SPLIT)


def _block(checker: _Checker, waiting: _Waiting) -> Iterator[pa.Table]:
    """Check what is waiting, and yield it as a table of ``PIECES``; nothing waits after that."""
    rows, events = waiting.rows, waiting.events
    waiting.rows, waiting.events, waiting.size = [], [], 0
    tables = [_of_rows(checker, rows), _of_events(checker, events)]
    filled = [table for table in tables if table.num_rows]
    if not filled:
        return
    table = filled[0] if len(filled) == 1 else _by_position(filled)

    # Take unknown items out, one by one.
    ids = table["items"].combine_chunks().flatten()
    checker.ledger.counts["interactions"] += len(ids)
    numbers = catalogue_ids.numbers_of(checker.catalogue, ids)
    pieces_of = _numbered(table, numbers)
    missing = np.flatnonzero(numbers == UNKNOWN)
    if missing.size:
        _refuse_items(checker, table, ids, missing)
        pieces_of = _without(pieces_of, numbers != UNKNOWN)
    if pieces_of.num_rows:
        yield pieces_of


def _of_rows(checker: _Checker, parsed: Parsed) -> pa.Table:
    """Check rows: as arrays at once, and row by row only where a value is unusual.

    Returns:
        The good ones as a table of ``PIECES`` whose items are ids.
    """
    catalogue, rules = checker.catalogue, checker.rules
    arrays = _arrays(parsed, catalogue, rules)

    # Convert row by row, which leaves integers and strings that arrays can hold.
    if arrays is None:
        good: Parsed = []
        for position, piece in parsed:
            try:
                good.append((position, _converted(piece, catalogue, rules)))
            except BadRowError as error:
                checker.refuse(position, piece.user, error)
        parsed = good
        clock = rules.clock._replace(kind=timestamps.NUMBER, fractions="floor")
        arrays = _arrays(parsed, catalogue, rules._replace(clock=clock))
    if not parsed:
        return _schema(catalogue).empty_table()
    if arrays is None:
        raise AssertionError("converted rows fit no arrays")
    return _table(parsed, *arrays, _schema(catalogue))


def _of_events(checker: _Checker, tables: list[pa.Table]) -> pa.Table:
    """Events as a table of ``PIECES`` whose items are ids: each a piece of one item."""
    form = _schema(checker.catalogue)
    if not tables:
        return form.empty_table()
    events = pa.concat_tables(tables).combine_chunks()
    n_rows = events.num_rows
    offsets = pa.array(np.arange(n_rows + 1, dtype=np.int32))
    flat = {name: _one_chunk(events[name]) for name in events.column_names}

    # In the order of PIECES; a split that is not said has no list.
    split = flat["split"]
    said = split.is_valid().to_numpy(zero_copy_only=False)
    ends = np.concatenate([[0], np.cumsum(said)]).astype(np.int32)
    splits = pa.ListArray.from_arrays(ends, split.drop_null(), mask=pa.array(~said))
    columns = [
        flat["user"],
        flat["file"],
        flat["row"],
        pa.array(np.zeros(n_rows, dtype=bool)),
        pa.ListArray.from_arrays(offsets, flat["item"]),
        splits,
        pa.ListArray.from_arrays(offsets, flat["time"]),
    ]
    return pa.table(columns, schema=form)


def _schema(catalogue: CatalogueIds) -> pa.Schema:
    """``PIECES``, with ids in place of numbers of items."""
    index = PIECES.get_field_index("items")
    return PIECES.set(index, pa.field("items", pa.list_(catalogue.ids.type)))


def _by_position(tables: list[pa.Table]) -> pa.Table:
    """The rows of tables, by file and row."""
    table = pa.concat_tables(tables).combine_chunks()
    keys = (table["row"].to_numpy(), table["file"].to_numpy())
    return table.take(pa.array(np.lexsort(keys)))


def _numbered(table: pa.Table, numbers: np.ndarray) -> pa.Table:
    """A table of ``PIECES``: one with ids, and int32 (n,), the numbers of their items."""
    index = PIECES.get_field_index("items")
    lists = pa.ListArray.from_arrays(_offsets(table), pa.array(numbers))
    return table.set_column(index, PIECES.field(index), lists)


def _offsets(table: pa.Table) -> np.ndarray:
    """Where the items of each row begin among those of all, int32 (rows + 1,)."""
    lengths = table["items"].combine_chunks().value_lengths().to_numpy()
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _arrays(
    waiting: Parsed, catalogue: CatalogueIds, rules: Rules
) -> tuple[pa.Array, np.ndarray | None] | None:
    """All items (n,) and times int64 (n,) of a block, or None where a row needs a closer look."""
    lengths = np.fromiter((len(piece.items) for _, piece in waiting), np.int64, len(waiting))
    if lengths.size and lengths.max() > rules.settings.max_history:
        return None

    # Ids have to be of the catalogue's type, without nulls.
    ids = _plain_array(chain.from_iterable(piece.items for _, piece in waiting))
    if ids is None or ids.type != catalogue.ids.type or ids.null_count:
        return None
    if catalogue.integer and ids.to_numpy().min() < 1:
        return None
    if all(piece.times is None for _, piece in waiting):
        return ids, None

    # Times have to be integers that stay as they are, not falling within a row where that counts.
    stamps = _plain_array(
        chain.from_iterable(
            [0] * len(piece.items) if piece.times is None else piece.times for _, piece in waiting
        )
    )
    if stamps is None or stamps.type != pa.int64() or stamps.null_count or not rules.clock.plain:
        return None
    times = stamps.to_numpy()
    falls = times[1:] < times[:-1]
    falls[np.cumsum(lengths)[:-1] - 1] = False  # from one row to the next
    return None if rules.needs_sorted_times and falls.any() else (ids, times)


def _plain_array(values: Iterable[object]) -> pa.Array | None:
    """Values of one type as an array; None where their types differ or do not fit."""
    try:
        return pa.array(list(values))
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError):
        return None


def _converted(piece: Piece, catalogue: CatalogueIds, rules: Rules) -> Piece:
    """The same piece, its ids as in the catalogue and its times as integers.

    Raises:
        BadRowError: if an id or a time cannot be converted, or the row is too long.
    """
    # Ids, one by one.
    size, longest = len(piece.items), rules.settings.max_history
    if size > longest:
        raise BadRowError(
            f"{size} interactions, more than interactions.max_history ({longest})", size
        )
    try:
        items = [catalogue_ids.as_id(catalogue, item) for item in piece.items]
    except ValueError as error:
        raise BadRowError(str(error), size, "item") from None
    if piece.times is None:
        return piece._replace(items=items)

    # Times, and their order where it counts.
    times: list[int] = []
    for time in piece.times:
        try:
            times.append(timestamps.read(time, rules.clock))
        except ValueError as error:
            remedy = timestamps.remedy(time, rules.clock)
            raise BadRowError(str(error), size, "time", remedy) from None
    if rules.needs_sorted_times:
        for earlier, later in pairwise(times):
            if later < earlier:
                raise BadRowError(f"timestamps out of order: {later} after {earlier}", size)
    return piece._replace(items=items, times=times)


def _table(waiting: Parsed, ids: pa.Array, times: np.ndarray | None, form: pa.Schema) -> pa.Table:
    """Rows as a table of ``PIECES`` with ids; ids (n,), times int64 (n,) or None."""
    lengths = [len(piece.items) for _, piece in waiting]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    if times is None:
        time_lists = pa.nulls(len(waiting), PIECES.field("times").type)
    else:
        untimed = pa.array([piece.times is None for _, piece in waiting])
        time_lists = pa.ListArray.from_arrays(offsets, pa.array(times), mask=untimed)
    splits = [piece.splits for _, piece in waiting]

    # In the order of PIECES.
    columns = [
        pa.array([piece.user for _, piece in waiting], pa.string()),
        pa.array([position.file for position, _ in waiting], pa.int32()),
        pa.array([position.row for position, _ in waiting], pa.int64()),
        pa.array([piece.whole for _, piece in waiting], pa.bool_()),
        pa.ListArray.from_arrays(offsets, ids),
        pa.array(splits, PIECES.field("splits").type),
        time_lists,
    ]
    return pa.table(columns, schema=form)


def _refuse_items(checker: _Checker, table: pa.Table, ids: pa.Array, missing: np.ndarray) -> None:
    """Stop at an item that the catalogue lacks, or list all such items of a block.

    Args:
        checker: the log and its settings.
        table: the rows of the block.
        ids: the items of all rows, (n,).
        missing: int64, positions in ``ids`` of the items that the catalogue lacks.

    Raises:
        SidmillError: with ``interactions.on_unknown_items: error``.
    """
    # owners: for each unknown item the row of the block that has it.
    log_files = checker.log.files
    offsets = _offsets(table)
    owners = np.searchsorted(offsets, missing, side="right") - 1
    chosen = table.select(["file", "row", "user"]).take(pa.array(owners)).to_pylist()

    for flat, owner, row in zip(missing.tolist(), owners.tolist(), chosen, strict=True):
        file, number, user = log_files[row["file"]], row["row"], row["user"]
        index = flat - int(offsets[owner])  # of the item in its row
        item = ids[flat].as_py()
        if checker.rules.settings.on_unknown_items == "error":
            raise SidmillError(
                f"{file}, row {number}: user {user!r} has item {item!r}, "
                f"which is not in the catalogue, whose ids are such as "
                f"{checker.catalogue.ids[0].as_py()!r}: "
                f"check that interactions.path and items.path belong together, or set "
                f"interactions.on_unknown_items: reject to list such interactions in "
                f"results/interactions/rejects.parquet"
            )
        reason = "item not in the catalogue"
        checker.ledger.reject(Reject(file, number, index, user, str(item), 1, reason))
    checker.ledger.counts["interactions_rejected"] += len(missing)
    checker.ledger.counts["unknown_items"] += len(missing)


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
    owners = np.repeat(np.arange(len(sizes)), sizes)
    counts = np.bincount(owners[inside & kept], minlength=len(sizes))
    ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(ends, values, mask=pa.array(~said))
