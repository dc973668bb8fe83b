"""Interactions of a data set -> interactions.parquet: one row per user, oldest item first.

Interactions go to disk by user, are ordered there, filtered, and written, in bounded memory.

Letters: U users, n interactions of a block.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from sidmill.imports import core_filter
from sidmill.imports.catalogue import Catalogue
from sidmill.imports.content import SPLITS, TEXT, TEXTS, Bad, Content, Event
from sidmill.io import parquet, partition_by_user
from sidmill.settings.imported import Imported

NO_METADATA = "no metadata of the item"
BATCH_ROWS = 1 << 16
SHARE_OF_MEMORY = 12  # copies of a block while it is ordered, at most
NO_TIME = np.iinfo(np.int64).min
EVENTS = pa.schema(
    [
        ("user", TEXT),
        ("item", pa.int32()),
        ("time", pa.int64()),
        ("split", pa.int8()),
        ("position", pa.int32()),
        ("occurrence", pa.int32()),
        ("file", pa.int32()),
        ("row", pa.int64()),
    ]
)
ORDERED = pa.schema([("user", pa.int64()), *((name, EVENTS.field(name).type) for name in
                     ("item", "time", "split"))])  # fmt: skip
NAMES = pa.schema([("user", TEXT)])


class Ordered(NamedTuple):
    """The interactions of all users, in order, on disk.

    Attributes:
        events: Arrow file of ``ORDERED``, a batch for each block of users.
        names: Arrow file of ``NAMES``, the users of each of these batches.
        pairs: int32 (n, 2), user and item, for the k-core.
        n_users: U.
    """

    events: Path
    names: Path
    pairs: Path
    n_users: int


class Counts:
    """Interactions by what happened to them."""

    def __init__(self) -> None:
        """Begin at nothing."""
        self.read = 0
        self.left_out: Counter[str] = Counter()


def order(
    content: Content,
    catalogue: Catalogue,
    settings: Imported,
    folder: Path,
    reject: Callable[[Bad], None],
) -> tuple[Ordered, Counts]:
    """Read all interactions and put them in order: by user, time, split, file and row.

    Memory: ``settings.memory_mb``, and 12 bytes per item.

    Args:
        content: the data set.
        catalogue: its items.
        settings: which interactions count.
        folder: for files that are removed afterwards.
        reject: takes the rows that give no interaction.

    Returns:
        The interactions, and their counts.
    """
    counts, block_mb = Counts(), max(settings.memory_mb // SHARE_OF_MEMORY, 1)
    tables = _tables(content, catalogue, settings, counts, reject)
    runs = partition_by_user.write(tables, EVENTS, folder, block_mb)
    paths = [folder / name for name in ("ordered.arrow", "names.arrow", "pairs.bin")]

    # Classes of users one after the other; users are numbered as they come.
    n_users = 0
    with (
        pa.OSFile(str(paths[0]), "wb") as event_sink,
        pa.ipc.new_file(event_sink, ORDERED) as out,
        pa.OSFile(str(paths[1]), "wb") as name_sink,
        pa.ipc.new_file(name_sink, NAMES) as names_out,
        paths[2].open("wb") as pairs,
    ):
        for table in partition_by_user.read(runs, block_mb):
            users, names, columns = _in_order(table, settings.repeats, counts)
            out.write_batch(pa.record_batch([users + n_users, *columns], schema=ORDERED))
            names_out.write_batch(pa.record_batch([names], schema=NAMES))
            np.stack([users + n_users, columns[0]], axis=1).astype(np.int32).tofile(pairs)
            n_users += len(names)
    for path in runs.paths:
        path.unlink()
    return Ordered(paths[0], paths[1], paths[2], n_users), counts


def write(
    path: str | Path, ordered: Ordered, core: core_filter.Core, ids: pa.Array, *, has_splits: bool
) -> dict[str, Any]:
    """Write interactions.parquet.

    Columns: user_id, item_ids, splits (train, valid, test; where the data set has them), and
    timestamps (null for a user with an interaction of unknown time). Memory: a block of users.

    Args:
        path: the file.
        ordered: all interactions.
        core: users and items that remain.
        ids: string (I,), ids of the items.
        has_splits: whether to write the column of splits.

    Returns:
        Figures: interactions by split, first and last time, users without times.
    """
    fields = [("user_id", TEXT), ("item_ids", TEXTS)]
    fields += [("splits", TEXTS)] if has_splits else []
    schema = pa.schema([*fields, ("timestamps", pa.list_(pa.int64()))])
    figures: dict[str, Any] = {"first_time": None, "last_time": None, "users_without_times": 0}
    by_split = np.zeros(len(SPLITS), dtype=np.int64)

    def tables() -> Iterator[pa.Table]:
        first = 0
        for events, names in _blocks(ordered):
            users, items = events["user"].to_numpy(), events["item"].to_numpy()
            kept = core.users[users] & core.items[items]
            block = events.filter(pa.array(kept))
            alive = core.users[first : first + len(names)]
            offsets = np.concatenate(
                [[0], np.cumsum(core.user_counts[first : first + len(names)][alive])]
            )
            first += len(names)
            if has_splits:
                by_split[:] += np.bincount(block["split"].to_numpy(), minlength=len(SPLITS))
            yield _sequences(block, names.filter(pa.array(alive)), offsets, ids, schema, figures)

    parquet.write(path, schema, tables())
    if has_splits:
        figures["splits"] = {name: int(by_split[split]) for name, split in SPLITS.items()}
    return figures


def _tables(
    content: Content,
    catalogue: Catalogue,
    settings: Imported,
    counts: Counts,
    reject: Callable[[Bad], None],
) -> Iterator[pa.Table]:
    """Interactions with an item of the catalogue, as tables of ``EVENTS``."""
    files: dict[str, int] = {}
    stream = content.events()
    while rows := list(islice(stream, BATCH_ROWS)):
        events = []
        for row in rows:
            if isinstance(row, Bad):
                counts.read += row.interactions
                reject(row)
                continue
            counts.read += 1
            if not row.user.strip():
                reject(Bad(row.file, row.row, "no user id"))
            elif settings.min_value is not None and row.value is None:
                reject(Bad(row.file, row.row, "no value, which min_value asks for"))
            elif settings.min_value is not None and row.value < settings.min_value:  # type: ignore[operator]
                counts.left_out["below_min_value"] += 1
            else:
                events.append(row)

        # The numbers of the items; an interaction with any other item is a reject.
        items = catalogue.find([event.item for event in events])
        for place in np.flatnonzero(items < 0).tolist():
            event = events[place]
            reason = f"{NO_METADATA}: {event.item!r:.60}"
            reject(Bad(event.file, event.row, reason))
        known = items >= 0
        events = [event for event, is_known in zip(events, known, strict=True) if is_known]
        if events:
            yield _table(events, items[known], files)


def _table(events: list[Event], items: np.ndarray, files: dict[str, int]) -> pa.Table:
    columns: list[Any] = [
        [event.user for event in events],
        items,
        [NO_TIME if event.time is None else event.time for event in events],
        [event.split for event in events],
        [event.position for event in events],
        [event.occurrence for event in events],
        [files.setdefault(event.file, len(files)) for event in events],
        [event.row for event in events],
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, EVENTS, strict=True)]
    return pa.table(arrays, schema=EVENTS)


def _in_order(
    table: pa.Table, repeats: str, counts: Counts
) -> tuple[np.ndarray, pa.Array, list[np.ndarray]]:
    """Order the interactions of a block of users, and leave out repeated ones.

    Returns:
        The number of the user of each interaction within the block, int64 (n,); the names of the
        users, by number; and the columns item, time, split (n,).
    """
    # Users by hash, then by name, whatever the order of the rows.
    encoded = table["user"].combine_chunks().dictionary_encode()
    names, codes = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
    hashes = np.zeros(len(names), dtype=np.uint64)
    hashes[codes] = table["hash"].to_numpy()
    ranks = sorted(range(len(names)), key=lambda code: (int(hashes[code]), names[code]))
    rank_of = np.empty(len(names), dtype=np.int64)
    rank_of[ranks] = np.arange(len(names))
    users = rank_of[codes]

    columns = {name: table[name].to_numpy() for name in EVENTS.names if name != "user"}
    keys = ("row", "file", "split", "position", "time")
    by_time = np.lexsort((*(columns[name] for name in keys), users))

    # Rows of one user repeat a history: of each of its items the first is kept.
    is_kept = np.ones(len(users), dtype=bool)
    history = by_time[columns["position"][by_time] >= 0]
    if history.size:
        parts = (users, columns["item"], columns["occurrence"])
        twice = _repeated([part[history] for part in parts])
        is_kept[history[twice]] = False
        counts.left_out["history_repeated"] += int(twice.sum())
    if repeats == "first":
        rest = by_time[is_kept[by_time]]
        twice = _repeated([users[rest], columns["item"][rest]])
        is_kept[rest[twice]] = False
        counts.left_out["item_repeated"] += int(twice.sum())

    chosen = by_time[is_kept[by_time]]
    ordered = [columns[name][chosen] for name in ("item", "time", "split")]
    return users[chosen], pa.array([names[code] for code in ranks], TEXT), ordered


def _repeated(keys: list[np.ndarray]) -> np.ndarray:
    """Which rows have the keys of an earlier row: bool (n,)."""
    places = np.lexsort((np.arange(len(keys[0])), *keys))
    same = np.ones(max(len(places) - 1, 0), dtype=bool)
    for key in keys:
        ranked = key[places]
        same &= ranked[1:] == ranked[:-1]
    twice = np.zeros(len(places), dtype=bool)
    twice[places[1:][same]] = True
    return twice


def _blocks(ordered: Ordered) -> Iterator[tuple[pa.Table, pa.Array]]:
    with (
        pa.OSFile(str(ordered.events)) as source,
        pa.ipc.open_file(source) as events,
        pa.OSFile(str(ordered.names)) as name_source,
        pa.ipc.open_file(name_source) as names,
    ):
        for number in range(events.num_record_batches):
            table = pa.Table.from_batches([events.get_batch(number)])
            yield table, names.get_batch(number).column("user")


def _sequences(
    block: pa.Table,
    names: pa.Array,
    offsets: np.ndarray,
    ids: pa.Array,
    schema: pa.Schema,
    figures: dict[str, Any],
) -> pa.Table:
    """One row per user of a block; ``figures`` gets its times."""
    ends = pa.array(offsets, pa.int32())
    columns = [names, pa.ListArray.from_arrays(ends, ids.take(block["item"].combine_chunks()))]
    if "splits" in schema.names:
        numbers = block["split"].combine_chunks()
        text = pa.array(list(SPLITS), TEXT).take(numbers)
        columns.append(pa.ListArray.from_arrays(ends, text))

    # A user with an unknown time has no times: null in place of the list.
    times = block["time"].to_numpy()
    has_gap = np.zeros(len(names), dtype=bool)
    sizes = np.diff(offsets)
    has_gap[np.repeat(np.arange(len(names)), sizes)[times == NO_TIME]] = True
    known = times[times != NO_TIME]
    columns.append(pa.ListArray.from_arrays(ends, pa.array(times), mask=pa.array(has_gap)))
    figures["users_without_times"] += int(has_gap.sum())
    if known.size:
        lowest, highest = int(known.min()), int(known.max())
        first, last = figures["first_time"], figures["last_time"]  # 0 is a time
        figures["first_time"] = lowest if first is None else min(lowest, first)
        figures["last_time"] = highest if last is None else max(highest, last)
    return pa.table(columns, schema=schema)
