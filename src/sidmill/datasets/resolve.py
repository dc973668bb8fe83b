"""First pass: input rows -> numbers. Item ids become row numbers of items; nothing is text yet.

What a row needs afterwards is small (4 bytes an item, where its SID takes 50), so this is what is
put into random order, not the text. Each row gets a key, a hash of the seed and its place in the
input, and goes to the bucket of the key's highest bits: the second pass sorts one bucket at a time.

Files: an Arrow file of record batches, one per bucket of the rows gathered, and a JSON of what is
in them.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sidmill.core.atomic import replacing
from sidmill.core.errors import SidmillError
from sidmill.datasets import (
    entries,
    inputs,
    item_lookup,
    ragged,
    row_hash,
    tasks,
)
from sidmill.datasets.tasks import Task
from sidmill.io import buckets, json_report, plain_columns

logger = logging.getLogger(__name__)

BUCKET_ROWS = 2048
MAX_BUCKET_BITS = 16  # for 134 million input rows; of more, buckets grow
GATHERED_MB = 64


def resolve(
    rows_path: str | Path,
    counts_path: str | Path,
    *,
    task_path: str | Path,
    dataset: str,
    split: str,
    paths: list[str],
    pid2sid: str | Path,
    product_pid2sid: str | Path | None,
    texts: list[str],
    shard: int,
    shards: int,
    seed: int,
    windows: str,
    history_max: int | None,
    target_max: int | None,
) -> dict:
    """Resolve one shard of the input of one dataset.

    Memory: one block of rows, ``GATHERED_MB`` of resolved ones, twice while they are sorted, and
    about 100 bytes per item.

    Args:
        rows_path: Arrow file to write.
        counts_path: JSON to write: rows and bytes of each batch, and what was counted.
        task_path: the task's YAML, checked before: :func:`sidmill.datasets.tasks.load`.
        dataset: its name, part of the random numbers.
        split: train, valid or test.
        paths: parquet files of users or of items.
        pid2sid: SIDs of items.
        product_pid2sid: SIDs of the second domain, where the task has one.
        texts: parquet files with texts of items, for tasks that name items by title: items without
            one are counted and left out of lists.
        shard: which shard of ``shards``.
        shards: how many.
        seed: covers the order of rows, samples and drawn labels.
        windows: see :func:`sidmill.datasets.inputs.read`.
        history_max: caps every limit of the task but ``target``; None: as the task has it.
        target_max: caps its limit ``target``.

    Returns:
        The counts.

    Raises:
        SidmillError: if the input lacks a column or has ids of another type than the items.
    """
    task = tasks.load(task_path, checked=True)
    domains = {"items": item_lookup.load(pid2sid)}
    if any(declared.get("domain") == "product" for declared in task.fields.values()):
        if product_pid2sid is None:
            raise SidmillError(f"{dataset} needs a second domain: set datasets.product_pid2sid")
        domains["product"] = item_lookup.load(product_pid2sid)
    titled = item_lookup.titled(domains["items"], texts) if tasks.names_titles(task) else None
    base, tally = row_hash.stream(seed, f"{dataset} {split}"), Tally()
    bits = bucket_bits(inputs.count(paths))
    limits = (history_max, target_max)
    blocks = inputs.read(
        paths,
        tasks.columns(task),
        split=split,
        windows=windows,
        target_max=task.limit("target", *limits) if "target" in task.limits else 1,
        history_max=task.limit("history", *limits) if "history" in task.limits else 1,
        shard=shard,
        shards=shards,
    )
    tables = _tables(blocks, task, domains, titled, base, limits, seed, tally)
    batches, writer = [], None
    with replacing(rows_path) as temporary, pa.OSFile(str(temporary), "wb") as sink:
        for table in buckets.gathered(tables, GATHERED_MB):
            table, numbers = _by_bucket(table, bits)
            writer = writer or pa.ipc.new_file(sink, table.schema)
            batches += buckets.append(writer, table, numbers)
        if writer is None:
            writer = pa.ipc.new_file(sink, pa.schema([("key", pa.uint64())]))
        writer.close()
    counts = {"bits": bits, "batches": batches, "counts": tally.as_dict()}
    json_report.write(counts_path, counts)
    logger.info("%s %s: %s", dataset, split, json.dumps(counts["counts"]))
    return counts


def bucket_bits(n_rows: int) -> int:
    """Bits of the key that name a bucket, so that one holds up to ``BUCKET_ROWS`` input rows."""
    return min(max((n_rows - 1) // BUCKET_ROWS, 0).bit_length(), MAX_BUCKET_BITS)


def _tables(blocks, task, domains, titled, base, limits, seed, tally) -> Iterator[pa.Table]:
    """Resolve one block after the other."""
    for block in blocks:
        tally.left_out.update(block.left_out)
        tally.left_out["read"] += len(block.rows) + sum(block.left_out.values())
        numbers = row_hash.of_rows(base, block.rows, block.parts)
        yield Resolver(task, domains, titled, block.table, numbers, limits, seed, tally).table()


def _by_bucket(table: pa.Table, bits: int) -> tuple[pa.Table, np.ndarray]:
    """Rows in the order of their buckets, and the bucket of each, uint16 (n,)."""
    if bits == 0:
        return table, np.zeros(table.num_rows, np.uint16)
    numbers = (table["key"].to_numpy() >> np.uint64(64 - bits)).astype(np.uint16)
    order = np.argsort(numbers, kind="stable")
    return ragged.take_rows(table, order), numbers[order]


class Tally:
    """What was counted: rows left out by reason, ids that no item has, items without a title."""

    def __init__(self) -> None:
        """Begin at nothing."""
        self.left_out, self.seen, self.unknown = Counter(), Counter(), Counter()
        self.untitled = Counter()  # of items that have a SID
        self.masks_of_other_length = 0  # lists whose mask marks nothing, of rows that stay
        self.marks_of_other_value = 0  # in masks and labels, neither 0 nor 1: they mark nothing

    def as_dict(self) -> dict:
        """As JSON: ``read`` rows are those ``written`` and those in ``left_out``."""
        left_out = {reason: count for reason, count in sorted(self.left_out.items()) if count}
        head = {key: left_out.pop(key, 0) for key in ("read", "added", "written")}
        fields = {
            name: {"seen": self.seen[name], "unknown": self.unknown[name]}
            for name in sorted(self.seen)
        }
        for name, count in self.untitled.items():
            fields[name]["without_title"] = count
        masks = {
            "masks_of_other_length": self.masks_of_other_length,
            "marks_of_other_value": self.marks_of_other_value,
        }
        return {**head, "left_out": left_out, **masks, "item_ids": fields}


class Resolver:
    """The fields of one block; a field that several others need is made once."""

    def __init__(self, task, domains, titled, table, numbers, limits, seed, tally) -> None:
        """Take a block; rows are multiplied here, if the task wants it."""
        self.task: Task = task
        self.domains: dict[str, item_lookup.Items] = domains
        self.titled: np.ndarray | None = titled  # bool (N,), which items have a title
        self.limits, self.seed, self.tally = limits, seed, tally
        self.made: dict[str, object] = {}
        self.single: dict[str, object] = {}  # columns that are one value per multiplied row
        self.flags: dict[str, np.ndarray] = {}  # by column of masks
        self.uneven: set[tuple] = set()  # masks whose lengths were held against a list
        self.source: pa.Table = table
        self.parent = np.arange(table.num_rows)  # (n,), input row of each row
        self.numbers: np.ndarray = numbers
        if task.rows:
            self._multiply()

    def table(self) -> pa.Table:
        """Key, metadata and fields of the rows that have all they need."""
        keep = np.ones(len(self.parent), dtype=bool)
        if self.task.sample < 1:
            keep = (
                row_hash.share(row_hash.derive(self.numbers, self.seed, "sample"))
                < self.task.sample
            )
            self.tally.left_out["not_sampled"] += int((~keep).sum())
        for name in self.task.needs:
            there = self.present(name)
            self.tally.left_out[f"no_{name}"] += int((keep & ~there).sum())
            keep &= there
        self.tally.left_out["written"] += int(keep.sum())
        columns: dict[str, pa.Array] = {"key": ragged.arrow(self.numbers)}
        for name in self.task.metadata:
            if name not in self.task.fields:
                columns[name] = self._column(name)
        for name in self.task.fields:
            value = self.field(name)
            if value is not None:
                columns[name] = (
                    ragged.to_arrow(value) if isinstance(value, ragged.Ragged) else value
                )
        table = pa.Table.from_arrays(list(columns.values()), list(columns))
        return table if keep.all() else table.filter(ragged.arrow(keep))

    def field(self, name: str) -> ragged.Ragged | pa.Array | None:
        """A field: lists of item rows, one value per row, or None for what is only wording."""
        if name not in self.made:
            kind = self.task.kind(name)
            make = {
                "sids": self._items,
                "titles": self._items,
                "sid": self._item,
                "title": self._item,
                "choose": self._choose,
                "count": self._count,
                "lines": lambda _: None,
                "phrase": lambda _: None,
                "text": lambda of: self._text(of[kind]),
                "first_line": lambda of: item_lookup.first_lines(self._text(of[kind])),
                "value": self._value,
            }[kind]
            self.made[name] = make({**self.task.fields[name], "name": name})
        return self.made[name]

    def present(self, name: str) -> np.ndarray:
        """Which rows have something in a field: bool (n,)."""
        kind = self.task.kind(name)
        if kind == "lines":
            parts = [self.present(part) for part in self.task.fields[name]["lines"]]
            return np.logical_or.reduce(parts)
        if kind == "phrase":
            return self.present(self.task.fields[name]["phrase"])
        value = self.field(name)
        if isinstance(value, ragged.Ragged):
            return value.lengths > 0
        if kind in ("sid", "title"):
            return value.to_numpy(zero_copy_only=False) >= 0
        if pa.types.is_large_string(value.type) or pa.types.is_string(value.type):
            filled = pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(value)), 0)
            return pc.fill_null(filled, False).to_numpy(zero_copy_only=False)
        return pc.is_valid(value).to_numpy(zero_copy_only=False)

    def _multiply(self) -> None:
        """One row per item of a list, or per entry of a mapping."""
        rows, n_broken = self.task.rows, 0
        if "entries" in rows:
            found = entries.read(self.source[rows["entries"]], self._names_items("keyword_items"))
            self.tally.left_out["not_json"] += (n_broken := len(found.broken))
            self.tally.left_out["bad_entry"] += len(found.bad)
            self.single = {"keyword": found.words, "keyword_items": found.lists}
            parents, met = found.rows, np.concatenate([found.rows, found.bad])
        else:
            lists = self._list(rows["each"])
            most = self.task.limit(rows.get("first", len(lists.values) + 1), *self.limits)
            self.single[rows["each"]] = ragged.limit(lists, most, "first").values
            for name in rows.get("with", ()):
                values, place = self._list(name).values, self._places(name, lists)
                kept = ragged.limit(ragged.Ragged(place, lists.offsets), most, "first").values
                self.single[name] = _with_nulls(values).take(pa.array(kept, mask=kept < 0))
            parents = np.repeat(np.arange(len(lists.lengths)), np.minimum(lists.lengths, most))
            met = parents

        # What became of the input rows, and a number of its own for each new one.
        parts = np.arange(len(parents)) - np.searchsorted(parents, parents)
        children = np.bincount(met, minlength=len(self.parent))
        self.tally.left_out["added"] += int(np.maximum(children - 1, 0).sum())
        self.tally.left_out["nothing_listed"] += int((children == 0).sum()) - n_broken
        self.parent = parents
        self.numbers = row_hash.mix(self.numbers[parents] + row_hash.mix(parts.astype(np.uint64)))

    def _names_items(self, column: str) -> pa.DataType:
        """The type of the ids that the fields made of a column look up."""
        for declared in self.task.fields.values():
            if column in (declared.get("sids"), declared.get("titles")):
                return self.domains[declared.get("domain", "items")].lookup.kind
        return self.domains["items"].lookup.kind

    def _column(self, name: str) -> pa.Array:
        if name in self.single:
            return ragged.arrow(self.single[name])
        column = self.source[name].combine_chunks()
        column = column if not isinstance(column, pa.ChunkedArray) else column.chunk(0)
        return column if self.task.rows is None else column.take(ragged.arrow(self.parent))

    def _text(self, name: str) -> pa.Array:
        column = self._column(name)
        if pa.types.is_nested(column.type):
            raise SidmillError(f"column {name!r} is {column.type}: the task wants text there")
        return pc.fill_null(column.cast(pa.large_string()), "")

    def _list(self, name: str) -> ragged.Ragged:
        """A list column; per input row, or per multiplied row where multiplying made it."""
        if name in self.single:
            return self.single[name]
        kind = self.source[name].type
        if not (plain_columns.is_list(kind) or pa.types.is_null(kind)):
            raise SidmillError(f"column {name!r} is {kind}: the task wants a list in each row")
        return ragged.of(self.source[name])

    def _items(self, declared: dict) -> ragged.Ragged:
        """Lists of rows of items, limited first, then without ids that no item has."""
        name = declared["name"]
        column = declared[self.task.kind(name)]
        lists = self._list(column)
        if "where" in declared:
            lists = ragged.where(lists, self._mask(name, lists))
        for keep in ("first", "last"):
            if keep in declared:
                lists = ragged.limit(lists, self.task.limit(declared[keep], *self.limits), keep)
        found = self._find(name, lists.values, column)
        lists = ragged.where(ragged.Ragged(found, lists.offsets), found >= 0)
        if self.task.rows and column not in self.single:
            lists = ragged.pick(lists, self.parent)
        return lists

    def _item(self, declared: dict) -> pa.Array:
        name = declared["name"]
        column = declared[self.task.kind(name)]
        values = self.single.get(column)
        ids = self._column(column) if values is None else values
        return ragged.arrow(self._find(name, ids, column))

    def _find(self, name: str, ids: np.ndarray | pa.Array, column: str) -> np.ndarray:
        domain = self.task.fields[name].get("domain", "items")
        found = item_lookup.rows(self.domains[domain].lookup, ids, column)
        self.tally.seen[name] += len(found)
        self.tally.unknown[name] += int((found < 0).sum())
        if self.task.kind(name) in tasks.TITLES:
            unnamed = (found >= 0) & ~self.titled[found]
            self.tally.untitled[name] += int(unnamed.sum())
            found = np.where(unnamed, np.int32(-1), found)
        return found

    def _mask(self, name: str, lists: ragged.Ragged) -> np.ndarray:
        """Which values a mask column marks with 1, bool (m,); of several, each row's own."""
        named = tasks.masks(self.task, name)
        if "" in named:
            return self._marked(named[""], lists)
        chooser = next(part for _, part in tasks.pieces(self.task.fields[name]["where"]) if part)
        labels = self.field(chooser)
        keep = np.zeros(len(lists.values), dtype=bool)
        for label, column in named.items():
            chosen = pc.fill_null(pc.equal(labels, label), False).to_numpy(zero_copy_only=False)
            if chosen.any():
                keep |= np.repeat(chosen, lists.lengths) & self._marked(column, lists)
        return keep

    def _marked(self, column: str, lists: ragged.Ragged) -> np.ndarray:
        """Which values of ``lists`` the mask ``column`` marks with 1: bool (m,)."""
        place, flags = self._places(column, lists), self._flags(column)
        return flags[place] & (place >= 0) if len(flags) else np.zeros(len(place), bool)

    def _places(self, column: str, lists: ragged.Ragged) -> np.ndarray:
        """Where the value of ``column`` beside each value of ``lists`` stands: int64 (m,).

        It is -1 in rows where the two lists differ in length.
        """
        beside = self._list(column)
        if np.array_equal(beside.offsets, lists.offsets):
            return np.arange(len(lists.values))
        fits = beside.lengths == lists.lengths
        if (pair := (column, lists.offsets.tobytes())) not in self.uneven:
            self.uneven.add(pair)
            self.tally.masks_of_other_length += int((~fits).sum())
        place = np.full(len(lists.values), -1)
        place[ragged.places(lists.offsets[:-1][fits], lists.lengths[fits])] = ragged.places(
            beside.offsets[:-1][fits], beside.lengths[fits]
        )
        return place

    def _flags(self, column: str) -> np.ndarray:
        """The values of a mask, bool (m,): which are 1, of whatever type of number."""
        if column not in self.flags:
            values = _with_nulls(self._list(column).values)
            try:
                numbers = values.cast(pa.float64())
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                raise SidmillError(
                    f"column {column!r} is a list of {values.type}: wanted 0 and 1"
                ) from None
            marks = pc.fill_null(numbers, np.nan).to_numpy(zero_copy_only=False)
            others = (marks != 0) & (marks != 1) & ~np.isnan(marks)
            self.tally.marks_of_other_value += int(others.sum())
            self.flags[column] = marks == 1
        return self.flags[column]

    def _value(self, declared: dict) -> pa.Array:
        """A column as it is; with ``among``, null where it has another value than those."""
        column = self._column(declared["value"])
        if "among" not in declared:
            return column
        column = column.cast(pa.int64()) if pa.types.is_boolean(column.type) else column
        numeric = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
        wanted = pa.array([value if numeric else str(value) for value in declared["among"]])
        kind = wanted.type if numeric else plain_columns.TEXT
        column = column.cast(kind, safe=False) if not numeric else column
        known = pc.is_in(column, wanted.cast(column.type))
        there = pc.invert(pc.is_null(column, nan_is_null=True))
        lost = int(pc.sum(pc.and_not(there, known)).as_py() or 0)
        self.tally.marks_of_other_value += lost
        return pc.if_else(known, column, pa.scalar(None, column.type)).cast(kind)

    def _choose(self, declared: dict) -> pa.Array:
        """Draw a label for each row among those whose mask marks an item; null without any."""
        name, labels = declared["name"], declared["choose"]
        lists = self._list(declared["of"])
        marked = np.zeros((len(lists.lengths), len(labels)), dtype=bool)
        for number, column in enumerate(tasks.masks(self.task, name).values()):
            kept = ragged.where(lists, self._marked(column, lists))
            marked[:, number] = kept.lengths > 0
        options = marked.sum(axis=1)
        drawn = row_hash.below(
            row_hash.derive(self.numbers, self.seed, name), np.maximum(options, 1)
        )
        picked = (np.cumsum(marked, axis=1) == (drawn + 1)[:, None]) & marked
        words = pa.array(labels, pa.large_string())
        return words.take(pa.array(picked.argmax(axis=1), mask=options == 0))

    def _count(self, declared: dict) -> pa.Array:
        return ragged.arrow(self.field(declared["count"]).lengths)


def _with_nulls(values: np.ndarray | pa.Array) -> pa.Array:
    """Values of lists as Arrow: truth values as 1 and 0, a null as null."""
    if not isinstance(values, np.ndarray):
        return values
    if values.dtype == bool:
        return pa.array(values.astype(np.int64))
    numbers = values.astype(np.int64, copy=False)
    return pa.array(numbers, mask=numbers == ragged.NOTHING)
