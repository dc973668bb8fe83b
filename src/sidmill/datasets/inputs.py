"""Rows that tasks are made of, block by block: users with histories and targets, or items.

Users come from a ``onerec`` metadata parquet as it is, or from sequences.parquet, which is cut into
the same columns here: ``uid``, ``hist_video_pid``, ``target_video_pid``. Items come from a parquet
of ``pid`` and ``dense_caption``, or from text.parquet, whose text is then called ``dense_caption``.

Splits keep to time: a target is never older than its history, and a history holds nothing of a
later split.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sidmill.core.errors import SidmillError
from sidmill.datasets import keys, ragged
from sidmill.datasets.items import CAPTION
from sidmill.formats.interactions import ONEREC_SPLITS, SPLITS
from sidmill.formats.text import shard_bounds

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
    return sum(pq.ParquetFile(path).metadata.num_rows for path in paths)


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
        paths: parquet files, one behind the other.
        wanted: the columns that a task reads.
        split: train, valid or test; without a ``split`` column every row is train.
        windows: for sequences, ``user`` makes one row of a user, ``item`` one of each position.
        target_max: for sequences, items of a target, at most.
        history_max: for sequences, items of a history, at most.
        shard: which of ``shards`` equal parts of the input.
        shards: how many parts.

    Raises:
        SidmillError: if a column is missing, or the splits of a user go back in time.
    """
    start, stop = shard_bounds(count(paths), shard, shards)
    names = pq.ParquetFile(paths[0]).schema_arrow.names
    if "item_ids" in names and "user_id" in names:
        _require(paths[0], wanted, {"uid", "hist_video_pid", "target_video_pid"})
        for row, batch in _batches(paths, ["user_id", "item_ids", "splits"], start, stop):
            yield from _cut(row, batch, SPLITS.index(split), windows, target_max, history_max)
        return
    own_text = CAPTION in wanted and CAPTION not in names and "text" in names
    _require(paths[0], wanted, {*names, CAPTION} if own_text else set(names))
    read_names = [name for name in names if name in wanted or name == "split"]
    for row, batch in _batches(paths, [*read_names, *["text"] * own_text], start, stop):
        table = pa.Table.from_batches([batch])
        if own_text:
            table = table.rename_columns(
                [CAPTION if n == "text" else n for n in table.column_names]
            )
        place = np.arange(row, row + len(batch))
        inside = np.full(len(batch), split == "train")
        if "split" in names:
            wanted_split = pa.scalar(_onerec_split(table["split"].type, split))
            inside = pc.fill_null(pc.equal(table["split"], wanted_split), False).to_numpy()
        if not inside.all():
            table, place = table.filter(ragged.arrow(inside)), place[inside]
        left_out = {"other_split": int((~inside).sum())}
        yield Block(table, place, np.zeros(len(place), np.int64), left_out)


def _onerec_split(kind: pa.DataType, split: str) -> str | int:
    """What the column ``split`` of OneRec's metadata says of a split; it has no valid one."""
    if pa.types.is_string(kind):
        return split
    codes = {SPLITS[own]: theirs for theirs, own in ONEREC_SPLITS.items()}
    return codes.get(split, -1)


def _require(path: str, wanted: set[str], there: set[str]) -> None:
    missing = sorted(wanted - there)
    if missing:
        raise SidmillError(
            f"{path}: the task reads {', '.join(missing)}, which is not there: leave the task out "
            f"of datasets.tasks, or give a file with those columns (datasets.users, "
            f"datasets.captions)"
        )


def _batches(
    paths: list[str], columns: list[str], start: int, stop: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield row number and rows of ``start`` to ``stop``, through files and row groups."""
    first = 0
    for path in paths:
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if first < stop and first + rows > start:
                row = first
                for batch in file.iter_batches(BLOCK_ROWS, row_groups=[group], columns=columns):
                    begin, end = max(start - row, 0), min(stop - row, len(batch))
                    if begin < end:
                        yield row + begin, batch.slice(begin, end - begin)
                    row += len(batch)
            first += rows


def _cut(
    row: int, batch: pa.RecordBatch, split: int, windows: str, target_max: int, history_max: int
) -> Iterator[Block]:
    """Cut the sequences of some users into histories and targets of one split."""
    items, splits = ragged.of(batch["item_ids"]), ragged.of(batch["splits"]).values
    _check_time(batch, items, splits)
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


def _check_time(batch: pa.RecordBatch, items: ragged.Ragged, splits: np.ndarray) -> None:
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
    if items.lengths.max(initial=0) >= 1 << keys.EXPLODE_BITS:
        raise SidmillError(f"a user has {items.lengths.max()} items: at most a million are taken")
