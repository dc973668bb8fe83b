"""Rows that tasks are made of, block by block: users with histories and targets, or items.

Users come from a ``onerec`` metadata parquet as it is, or from sequences.parquet, which is cut into
the same columns here: ``uid``, ``hist_video_pid``, ``target_video_pid``. Items come from a parquet
of ``pid`` and ``dense_caption``, or from text.parquet, whose text is renamed to ``dense_caption``.

Splits follow time: a target is never older than its history, and a history has no item of a later
split.
"""

from collections.abc import Iterator, Set
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sidmill.core.errors import SidmillError
from sidmill.datasets import ragged, row_hash
from sidmill.datasets.item_lookup import CAPTION
from sidmill.formats.item_text import shard_bounds
from sidmill.formats.sequence_table import ONEREC_SPLITS, SPLITS
from sidmill.io import parquet, plain_columns

ID_COLUMNS = ("uid", "pid", "user_id")  # columns of one id a row
SEQUENCE_COLUMNS = ("user_id", "item_ids", "splits")
LISTED = 20  # file names in a message, at most
BLOCK_ROWS = 1024
BLOCK_VALUES = 4_000_000  # item ids of one block, where users become many rows


class Shard(NamedTuple):
    """One of ``n_shards`` equal parts of some rows or files, counted from 0."""

    number: int
    n_shards: int

    def bounds(self, total: int) -> tuple[int, int]:
        """The first row of the shard, and the row after its last, of ``total`` rows."""
        return shard_bounds(total, self.number, self.n_shards)


class Windows(NamedTuple):
    """How the sequence of a user is cut into histories and targets.

    Attributes:
        split: train, valid or test: that of the targets.
        form: ``user`` makes one row of a user, ``item`` one of each position.
        history_max: items of a history, at most.
        target_max: items of a target, at most.
    """

    split: str
    form: str
    history_max: int
    target_max: int


class Block(NamedTuple):
    """Some input rows: their columns, where they were read, and how many were left out and why.

    ``rows`` and ``examples`` are int64 (n,): the input row, and which of its examples this is.
    """

    table: pa.Table
    rows: np.ndarray
    examples: np.ndarray
    left_out: dict[str, int]


class _Batch(NamedTuple):
    """Columns of consecutive input rows, of which ``row`` is the first."""

    row: int
    columns: pa.RecordBatch


def count(paths: list[str]) -> int:
    """Rows of parquet files."""
    return sum(parquet.open_file(path, {}).metadata.num_rows for path in paths)


def read(paths: list[str], columns: set[str], windows: Windows, shard: Shard) -> Iterator[Block]:
    """Yield the rows of one shard that belong to a split.

    Args:
        paths: parquet files, one after the other, of the same columns.
        columns: those that a task reads.
        windows: which split, and how sequences are cut. Without a ``split`` column every row is of
            the training split.
        shard: which part of the input.

    Raises:
        SidmillError: if a column is missing, or in some files only, or of another type there, or
            the splits of a user go back in time.
    """
    # All files, before the first row: a later file must not change what an earlier one meant.
    names = _common_names(paths, columns)
    bounds = shard.bounds(count(paths))

    # Sequences become histories and targets.
    if "item_ids" in names and "user_id" in names:
        _require(paths[0], columns, {"uid", "hist_video_pid", "target_video_pid"})
        kinds = _common_kinds(paths, list(SEQUENCE_COLUMNS))
        for batch in _batches(paths, kinds, *bounds):
            yield from _cut(batch, windows)
        return

    # Other rows stay as they are. A catalogue's own text stands for captions.
    own_text = CAPTION in columns and CAPTION not in names and "text" in names
    _require(paths[0], columns, {*names, CAPTION} if own_text else names)
    stored = [name for name in sorted(names) if name in columns or name == "split"]
    kinds = _common_kinds(paths, [*stored, *["text"] * own_text])
    for batch in _batches(paths, kinds, *bounds):
        block = _of_split(batch, windows.split)
        if own_text:
            renamed = [CAPTION if n == "text" else n for n in block.table.column_names]
            block = block._replace(table=block.table.rename_columns(renamed))
        yield block


def _of_split(batch: _Batch, split: str) -> Block:
    """The rows of one split."""
    table = pa.Table.from_batches([batch.columns])
    rows = np.arange(batch.row, batch.row + len(table))
    numbers = np.zeros(len(table), np.int64)
    if "split" in table.column_names:
        numbers = _split_numbers(table["split"])
    inside = numbers == SPLITS.index(split)
    if not inside.all():
        table, rows = table.filter(ragged.as_arrow(inside)), rows[inside]
    unknown = int((numbers < 0).sum())
    left_out = {"other_split": int((~inside).sum()) - unknown, "no_split": unknown}
    return Block(table, rows, np.zeros(len(rows), np.int64), left_out)


def _split_numbers(column: pa.ChunkedArray) -> np.ndarray:
    """Splits of OneRec's metadata as indices of ``SPLITS``, int64 (n,); -1 for any other value.

    Splits are names, or the numbers of OneRec, which has no validation split, as integers or as
    text.
    """
    codes = {str(code): number for code, number in ONEREC_SPLITS.items()}
    codes |= {name: number for number, name in enumerate(SPLITS)}
    column = column.combine_chunks()
    if pa.types.is_boolean(column.type):  # whether a row is a test row
        column = column.cast(pa.int64())
    if pa.types.is_floating(column.type):
        is_whole = pc.equal(pc.floor(column), column)
        column = pc.if_else(is_whole, column, pa.scalar(None, column.type)).cast(pa.int64())
    names = pa.array(list(codes), plain_columns.TEXT)
    indices = pc.fill_null(pc.index_in(column.cast(plain_columns.TEXT), names), len(codes))
    numbers = np.array([*codes.values(), -1], np.int64)
    return numbers.take(ragged.as_numpy(indices))


def _common_names(paths: list[str], columns: set[str]) -> set[str]:
    """The columns that all files have.

    Raises:
        SidmillError: if a column that is read, or that tells sequences, is in some files only.
    """
    names = {path: set(parquet.open_file(path, {}).schema_arrow.names) for path in paths}
    shared = set.intersection(*names.values())
    read_here = columns | {"split", *SEQUENCE_COLUMNS}
    if CAPTION in columns and CAPTION not in shared:
        read_here.add("text")
    for name in sorted(read_here & set.union(*names.values()) - shared):
        lacking = [path for path in paths if name not in names[path]]
        having = next(path for path in paths if name in names[path])
        raise SidmillError(
            f"{', '.join(lacking[:LISTED])}: {len(lacking)} of {len(paths)} files have no column "
            f"{name!r}, which {having} has: give all files of one input the same columns, or name "
            f"the others alone in datasets.users or datasets.captions"
        )
    return shared


def _common_kinds(paths: list[str], columns: list[str]) -> dict[str, pa.DataType]:
    """The plain type of each column, the same in all files.

    Raises:
        SidmillError: if a file has, say, text where another has numbers.
    """
    kinds: dict[str, tuple[pa.DataType, str]] = {}
    for path in paths:
        schema = parquet.open_file(path, dict.fromkeys(columns, lambda _: True)).schema_arrow
        for name in columns:
            kind = plain_columns.kind_of(schema.field(name).type, f"{path}: column {name!r}")
            if name in ID_COLUMNS and pa.types.is_floating(
                kind
            ):  # pandas: integers that lack a value
                kind = pa.int64()

            # Integers give way to floats, and a column of nulls to any type.
            earlier, first = kinds.setdefault(name, (kind, path))
            if pa.types.is_null(earlier) or 0 < _number_rank(earlier) < _number_rank(kind):
                kinds[name] = (kind, path)
            elif not _compatible(kind, earlier):
                raise SidmillError(
                    f"{path}: column {name!r} is {kind}, in {first} it is {earlier}: write it as "
                    f"one type in all files"
                )
    return {name: kind for name, (kind, _) in kinds.items()}


def _number_rank(kind: pa.DataType) -> int:
    """1 for integers and 2 for floats, to which integers are cast; 0 for other types."""
    return 1 if pa.types.is_integer(kind) else 2 if pa.types.is_floating(kind) else 0


def _compatible(kind: pa.DataType, other: pa.DataType) -> bool:
    """Whether columns of two types can be read as one: nulls, numbers, lists of compatible ones."""
    if plain_columns.is_list(kind) and plain_columns.is_list(other):
        return _compatible(kind.value_type, other.value_type)
    if pa.types.is_null(kind) or pa.types.is_null(other):
        return True
    mappings = (pa.types.is_struct, pa.types.is_map)  # a struct has the keys of its own file
    if any(test(kind) and test(other) for test in mappings):
        return True
    return bool(kind == other) or (_number_rank(kind) > 0 and _number_rank(other) > 0)


def _require(path: str, columns: set[str], available: Set[str]) -> None:
    """Refuse a task that reads a column that the input does not have."""
    missing = sorted(columns - available)
    if missing:
        raise SidmillError(
            f"{path}: the task reads {', '.join(missing)}, which the file does not have: leave the "
            f"task out of datasets.tasks, or give a file with those columns (datasets.users, "
            f"datasets.captions)"
        )


def _batches(
    paths: list[str], kinds: dict[str, pa.DataType], start: int, stop: int
) -> Iterator[_Batch]:
    """Yield rows ``start`` to ``stop``, through files and row groups."""
    first = 0
    for path in paths:
        file = parquet.open_file(path, {})
        for group in range(file.num_row_groups):
            n_rows = file.metadata.row_group(group).num_rows
            if first < stop and first + n_rows > start:
                row = first
                for batch in _read(file, group, list(kinds)):
                    begin, end = max(start - row, 0), min(stop - row, len(batch))
                    if begin < end:
                        rows = batch.slice(begin, end - begin)
                        yield _Batch(row + begin, _plain(rows, kinds, path))
                    row += len(batch)
            first += n_rows


def _read(file: parquet.Parquet, group: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a row group; a damaged page names its file."""
    with parquet.naming(file.path):
        batches = file.iter_batches(BLOCK_ROWS, row_groups=[group], columns=columns)
    while True:
        with parquet.naming(file.path):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def _plain(batch: pa.RecordBatch, kinds: dict[str, pa.DataType], path: str) -> pa.RecordBatch:
    """A batch in plain types: those of ``kinds``; lists and mappings keep those of their values."""
    columns = []
    for name, kind in kinds.items():
        where = f"{path}: column {name!r}"
        column = batch.column(batch.schema.get_field_index(name))
        column = (
            plain_columns.whole(column, where)
            if name in ID_COLUMNS
            else plain_columns.plain(column, where)
        )
        is_scalar = _number_rank(kind) > 0 or kind == plain_columns.TEXT
        columns.append(column.cast(kind) if is_scalar and column.type != kind else column)
    return pa.RecordBatch.from_arrays(columns, list(kinds))


class _Examples(NamedTuple):
    """Which items of a batch become targets: row numbers and offsets, int64 (n,) each.

    Attributes:
        users: row in the batch.
        targets: offset of the first item of the target, among the items of all users.
        target_sizes: items of the target.
        numbers: which example of its user this is.
        n_short: users with items of the split that give no example.
    """

    users: np.ndarray
    targets: np.ndarray
    target_sizes: np.ndarray
    numbers: np.ndarray
    n_short: int


def _cut(batch: _Batch, windows: Windows) -> Iterator[Block]:
    """Cut the sequences of some users into histories and targets of one split."""
    items = ragged.from_arrow(batch.columns["item_ids"])
    splits = _checked_splits(batch.columns, items)
    split = SPLITS.index(windows.split)
    inside = ragged.count_marked(splits == split, items.offsets)
    choose = _per_item if windows.form == "item" else _per_user
    examples = choose(items, splits, inside, windows)

    # A history is what is before its target.
    firsts = items.offsets[:-1][examples.users]
    history_sizes = np.minimum(examples.targets - firsts, windows.history_max)
    left_out = {"other_split": int((inside == 0).sum()), "too_short": examples.n_short}

    # Blocks of bounded size: users with many rows repeat their histories. What was left out is
    # counted with the first.
    block_numbers = np.cumsum(history_sizes) // BLOCK_VALUES
    for number in np.unique(block_numbers) if len(block_numbers) else [0]:
        some = np.flatnonzero(block_numbers == number)
        starts, sizes = examples.targets[some], history_sizes[some]
        history = ragged.slices(items, starts - sizes, sizes)
        target = ragged.slices(items, starts, examples.target_sizes[some])
        users = examples.users[some]
        columns = {
            "uid": batch.columns["user_id"].take(ragged.as_arrow(users)),
            "hist_video_pid": ragged.to_list_array(history),
            "target_video_pid": ragged.to_list_array(target),
        }
        yield Block(pa.table(columns), batch.row + users, examples.numbers[some], left_out)
        left_out = {}


def _per_item(
    items: ragged.Ragged, splits: np.ndarray, inside: np.ndarray, windows: Windows
) -> _Examples:
    """An example for each item of the split that has a history."""
    split = SPLITS.index(windows.split)
    owners = np.repeat(np.arange(len(items.lengths)), items.lengths)
    positions = np.arange(len(owners)) - np.repeat(items.offsets[:-1], items.lengths)
    targets = np.flatnonzero((splits == split) & (positions > 0))
    before = ragged.count_marked(splits < split, items.offsets)
    n_short = int(((inside > 0) & (before == 0) & (inside < 2)).sum())
    sizes = np.ones(len(targets), np.int64)
    return _Examples(owners[targets], targets, sizes, positions[targets], n_short)


def _per_user(
    items: ragged.Ragged, splits: np.ndarray, inside: np.ndarray, windows: Windows
) -> _Examples:
    """One example for each user: the later half of the training items, or all items of a split."""
    split = SPLITS.index(windows.split)
    if split == 0:
        target_sizes = np.minimum(inside // 2, windows.target_max)
        history_sizes = inside - target_sizes
    else:
        target_sizes = np.minimum(inside, windows.target_max)
        history_sizes = ragged.count_marked(splits < split, items.offsets)
    users = np.flatnonzero((target_sizes > 0) & (history_sizes > 0))
    targets = (items.offsets[:-1] + history_sizes)[users]
    n_short = int((inside > 0).sum()) - len(users)
    return _Examples(users, targets, target_sizes[users], np.zeros(len(users), np.int64), n_short)


def _checked_splits(batch: pa.RecordBatch, items: ragged.Ragged) -> np.ndarray:
    """The split of each item, integers (m,): one for each item, which never goes back in time.

    Raises:
        SidmillError: if a user has another number of splits than items, a split is unknown, an item
            of an earlier split follows one of a later split, or a user has too many items.
    """
    # One split per item, with a valid number.
    column = ragged.from_arrow(batch["splits"])
    uneven = np.flatnonzero(items.lengths != column.lengths)
    if len(uneven):
        user = uneven[0]
        raise SidmillError(
            f"user {batch['user_id'][user].as_py()!r} has {items.lengths[user]} items and "
            f"{column.lengths[user]} splits: write one split (0, 1 or 2) per item"
        )
    splits = column.values
    if not isinstance(splits, np.ndarray) or (splits < 0).any() or (splits >= len(SPLITS)).any():
        raise SidmillError("splits hold other values than 0 (train), 1 (valid) and 2 (test)")

    # Within a user, splits ascend.
    descends = np.zeros(len(splits), dtype=bool)
    descends[1:] = splits[1:] < splits[:-1]
    firsts = items.offsets[:-1]
    descends[firsts[firsts < len(descends)]] = False
    if descends.any():
        user = np.searchsorted(items.offsets, np.argmax(descends), side="right") - 1
        raise SidmillError(
            f"user {batch['user_id'][user].as_py()!r} has an item of an earlier split after one "
            f"of a later split: the history would hold the target; split by time"
        )

    # The key of a row has a limited number of bits for the position.
    longest = items.lengths.max(initial=0)
    if longest >= 1 << row_hash.EXPLODE_BITS:
        raise SidmillError(f"a user has {longest} items: shorten sequences to a million items")
    return splits
