"""Rows that tasks are made of, block by block: users with histories and targets, or items.

Users come from a ``onerec`` metadata parquet as it is, or from sequences.parquet, which is cut into
the same columns here: ``uid``, ``hist_video_pid``, ``target_video_pid``. Items come from a parquet
of ``pid`` and ``dense_caption``, or from text.parquet, whose text is then called ``dense_caption``.

Splits keep to time: a target is never older than its history, and a history holds nothing of a
later split.
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

IDS = ("uid", "pid", "user_id")  # columns of one id a row
LISTED = 20  # file names in a message, at most
BLOCK_ROWS = 1024
BLOCK_VALUES = 4_000_000  # item ids of one block, where users become many rows


class Block(NamedTuple):
    """Some input rows: their columns, where they stood, and how many were left out and why.

    ``rows`` and ``parts`` are int64 (n,): the input row, and which of its examples this is.
    """

    table: pa.Table
    rows: np.ndarray
    parts: np.ndarray
    left_out: dict[str, int]


def count(paths: list[str]) -> int:
    """Rows of parquet files."""
    return sum(parquet.open_file(path, {}).metadata.num_rows for path in paths)


def read(
    paths: list[str],
    wanted: set[str],
    *,
    split: str,
    windows: str,
    target_max: int,
    history_max: int,
    shard: int,
    shards: int,
) -> Iterator[Block]:
    """Yield the rows of one shard that belong to ``split``.

    Args:
        paths: parquet files, one behind the other, of the same columns.
        wanted: the columns that a task reads.
        split: train, valid or test; without a ``split`` column every row is train.
        windows: for sequences, ``user`` makes one row of a user, ``item`` one of each position.
        target_max: for sequences, items of a target, at most.
        history_max: for sequences, items of a history, at most.
        shard: which of ``shards`` equal parts of the input.
        shards: how many parts.

    Raises:
        SidmillError: if a column is missing, or in some files only, or of another type there, or
            the splits of a user go back in time.
    """
    # All files, before the first row: a later file must not change what an earlier one meant.
    names = _common_names(paths, wanted)
    start, stop = shard_bounds(count(paths), shard, shards)
    if "item_ids" in names and "user_id" in names:
        _require(paths[0], wanted, {"uid", "hist_video_pid", "target_video_pid"})
        kinds = _common_kinds(paths, ["user_id", "item_ids", "splits"])
        for row, batch in _batches(paths, kinds, start, stop):
            yield from _cut(row, batch, SPLITS.index(split), windows, target_max, history_max)
        return

    # A catalogue's own text stands for captions.
    own_text = CAPTION in wanted and CAPTION not in names and "text" in names
    _require(paths[0], wanted, {*names, CAPTION} if own_text else names)
    columns = [name for name in sorted(names) if name in wanted or name == "split"]
    kinds = _common_kinds(paths, [*columns, *["text"] * own_text])
    for row, batch in _batches(paths, kinds, start, stop):
        table = pa.Table.from_batches([batch])
        if own_text:
            table = table.rename_columns(
                [CAPTION if n == "text" else n for n in table.column_names]
            )
        place = np.arange(row, row + len(batch))
        numbers = np.zeros(len(batch), np.int64)
        if "split" in names:
            numbers = _split_numbers(table["split"])
        inside = numbers == SPLITS.index(split)
        if not inside.all():
            table, place = table.filter(ragged.arrow(inside)), place[inside]
        unknown = int((numbers < 0).sum())
        left_out = {"other_split": int((~inside).sum()) - unknown, "no_split": unknown}
        yield Block(table, place, np.zeros(len(place), np.int64), left_out)


def _split_numbers(column: pa.ChunkedArray) -> np.ndarray:
    """Splits of OneRec's metadata as places in ``SPLITS``, int64 (n,); -1 for any other value.

    They are names, or the numbers of OneRec, which has no validation split, as such or as text.
    """
    codes = {str(theirs): own for theirs, own in ONEREC_SPLITS.items()}
    codes |= {name: number for number, name in enumerate(SPLITS)}
    column = column.combine_chunks()
    if pa.types.is_boolean(column.type):  # is it a test row?
        column = column.cast(pa.int64())
    if pa.types.is_floating(column.type):
        whole = pc.equal(pc.floor(column), column)
        column = pc.if_else(whole, column, pa.scalar(None, column.type)).cast(pa.int64())
    found = pc.index_in(column.cast(plain_columns.TEXT), pa.array(list(codes), plain_columns.TEXT))
    numbers = np.array([*codes.values(), -1], np.int64)
    return numbers[pc.fill_null(found, len(codes)).to_numpy(zero_copy_only=False)]


def _common_names(paths: list[str], wanted: set[str]) -> set[str]:
    """The columns of the files that matter here.

    Raises:
        SidmillError: if one of them is in some files only.
    """
    found = {path: set(parquet.open_file(path, {}).schema_arrow.names) for path in paths}
    shared = set.intersection(*found.values())
    matter = wanted | {"split", "item_ids", "user_id", "splits"}
    if CAPTION in wanted:
        matter |= {"text"} if CAPTION not in shared else set()
    for name in sorted(matter & set.union(*found.values()) - shared):
        lacking = [path for path in paths if name not in found[path]]
        having = next(path for path in paths if name in found[path])
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
            if name in IDS and pa.types.is_floating(kind):  # pandas: integers that lack a value
                kind = pa.int64()
            known, first = kinds.setdefault(name, (kind, path))
            if pa.types.is_null(known) or 0 < _number(known) < _number(kind):
                kinds[name] = (kind, path)
            elif not _alike(kind, known):
                raise SidmillError(
                    f"{path}: column {name!r} is {kind}, in {first} it is {known}: write it as one "
                    f"type in all files"
                )
    return {name: kind for name, (kind, _) in kinds.items()}


def _number(kind: pa.DataType) -> int:
    """1 for integers and 2 for floats, which hold them; 0 for other types."""
    return 1 if pa.types.is_integer(kind) else 2 if pa.types.is_floating(kind) else 0


def _alike(kind: pa.DataType, known: pa.DataType) -> bool:
    """Whether columns of two types can be read as one: empty ones, numbers, lists of alike."""
    if plain_columns.is_list(kind) and plain_columns.is_list(known):
        return _alike(kind.value_type, known.value_type)
    if pa.types.is_null(kind) or pa.types.is_null(known):
        return True
    mappings = (pa.types.is_struct, pa.types.is_map)  # a struct has the keys of its own file
    same = any(test(kind) and test(known) for test in mappings)
    return same or kind == known or (_number(kind) > 0 and _number(known) > 0)


def _require(path: str, wanted: set[str], there: Set[str]) -> None:
    missing = sorted(wanted - there)
    if missing:
        raise SidmillError(
            f"{path}: the task reads {', '.join(missing)}, which is not there: leave the task out "
            f"of datasets.tasks, or give a file with those columns (datasets.users, "
            f"datasets.captions)"
        )


def _batches(
    paths: list[str], kinds: dict[str, pa.DataType], start: int, stop: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield row number and rows of ``start`` to ``stop``, through files and row groups."""
    first = 0
    for path in paths:
        file = parquet.open_file(path, {})
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if first < stop and first + rows > start:
                row = first
                for batch in _read(file, group, list(kinds)):
                    begin, end = max(start - row, 0), min(stop - row, len(batch))
                    if begin < end:
                        yield row + begin, _plain(batch.slice(begin, end - begin), kinds, path)
                    row += len(batch)
            first += rows


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
            if name in IDS
            else plain_columns.plain(column, where)
        )
        is_scalar = _number(kind) > 0 or kind == plain_columns.TEXT
        columns.append(column.cast(kind) if is_scalar and column.type != kind else column)
    return pa.RecordBatch.from_arrays(columns, list(kinds))


def _cut(
    row: int, batch: pa.RecordBatch, split: int, windows: str, target_max: int, history_max: int
) -> Iterator[Block]:
    """Cut the sequences of some users into histories and targets of one split."""
    items, of_items = ragged.of(batch["item_ids"]), ragged.of(batch["splits"])
    _check_splits(batch, items, of_items)
    splits = of_items.values
    starts, lengths = items.offsets[:-1], items.lengths
    before = _count(splits < split, items.offsets)  # items of earlier splits, per user
    inside = _count(splits == split, items.offsets)
    if windows == "item":
        users = np.repeat(np.arange(len(batch)), lengths)
        place = np.arange(len(users)) - np.repeat(starts, lengths)
        picked = np.flatnonzero((splits == split) & (place > 0))
        owners, target_from, target_size = users[picked], picked, np.ones(len(picked), np.int64)
        parts = place[picked]
        short = int(((inside > 0) & (before == 0) & (inside < 2)).sum())
    else:
        held = np.minimum(inside // 2, target_max) if split == 0 else np.minimum(inside, target_max)
        seen = inside - held if split == 0 else before  # items of the history
        owners = np.flatnonzero((held > 0) & (seen > 0))
        target_from, target_size = (starts + seen)[owners], held[owners]
        parts = np.zeros(len(owners), np.int64)
        short = int((inside > 0).sum()) - len(owners)
    history_size = np.minimum(target_from - starts[owners], history_max)
    left_out = {"other_split": int((inside == 0).sum()), "too_short": short}
    heavy = np.cumsum(history_size) // BLOCK_VALUES
    for number in np.unique(heavy) if len(heavy) else [0]:
        some = np.flatnonzero(heavy == number)
        history = ragged.slices(items, (target_from - history_size)[some], history_size[some])
        target = ragged.slices(items, target_from[some], target_size[some])
        columns = {
            "uid": batch["user_id"].take(ragged.arrow(owners[some])),
            "hist_video_pid": ragged.to_arrow(history),
            "target_video_pid": ragged.to_arrow(target),
        }
        yield Block(pa.table(columns), row + owners[some], parts[some], left_out)
        left_out = {}


def _count(marks: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    totals = np.zeros(len(marks) + 1, dtype=np.int64)
    np.cumsum(marks, out=totals[1:])
    return totals[offsets[1:]] - totals[offsets[:-1]]


def _check_splits(batch: pa.RecordBatch, items: ragged.Ragged, of_items: ragged.Ragged) -> None:
    """Hold what :func:`_cut` relies on: a split for each item, which never goes back."""
    uneven = np.flatnonzero(items.lengths != of_items.lengths)
    if len(uneven):
        user = uneven[0]
        raise SidmillError(
            f"user {batch['user_id'][user].as_py()!r} has {items.lengths[user]} items and "
            f"{of_items.lengths[user]} splits: write one split (0, 1 or 2) per item"
        )
    splits = of_items.values
    if not isinstance(splits, np.ndarray) or (splits < 0).any() or (splits >= len(SPLITS)).any():
        raise SidmillError("splits hold other values than 0 (train), 1 (valid) and 2 (test)")
    back = np.zeros(len(splits), dtype=bool)
    back[1:] = splits[1:] < splits[:-1]
    firsts = items.offsets[:-1]
    back[firsts[firsts < len(back)]] = False
    if back.any():
        user = np.searchsorted(items.offsets, np.argmax(back), side="right") - 1
        raise SidmillError(
            f"user {batch['user_id'][user].as_py()!r} has an item of an earlier split behind one "
            f"of a later split: its history would hold what it is asked for; split by time"
        )
    if items.lengths.max(initial=0) >= 1 << row_hash.EXPLODE_BITS:
        raise SidmillError(f"a user has {items.lengths.max()} items: at most a million are taken")
