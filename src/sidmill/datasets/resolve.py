"""First pass: input rows -> numbers. Item ids become row numbers of items; nothing is text yet.

What a row needs afterwards is small (4 bytes an item, where its SID takes 50), so this is what is
put into random order, not the text. Each row gets a key, a hash of the seed and its position in the
input, and goes to the bucket of the key's highest bits: the second pass sorts one bucket at a time.

Files: an Arrow file of record batches, one per bucket of the rows gathered, and a JSON of their
sizes and of what was counted.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

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
from sidmill.datasets.inputs import Shard, Windows
from sidmill.datasets.tasks import Dataset, Field, Task
from sidmill.io import buckets, json_report, plain_columns
from sidmill.settings.datasets import Datasets

logger = logging.getLogger(__name__)

BUCKET_ROWS = 2048
MAX_BUCKET_BITS = 16  # for 134 million input rows; of more, buckets grow
GATHERED_MB = 64


class Plan(NamedTuple):
    """What every row of a dataset is resolved with.

    Attributes:
        task: which fields are made, of which columns.
        settings: caps of histories and targets.
        domains: the items, by the name of their domain.
        has_title: bool (N,), which items have a title; None where the task names no titles.
        seed: covers samples and drawn labels.
    """

    task: Task
    settings: Datasets
    domains: dict[str, item_lookup.Items]
    has_title: np.ndarray | None
    seed: int

    def limit(self, value: str | int) -> int:
        """The number that a limit of the task stands for, capped by the settings."""
        return self.task.limit(value, self.settings.history_max, self.settings.target_max)


def resolve(
    rows_path: str | Path,
    counts_path: str | Path,
    dataset: Dataset,
    paths: list[str],
    items: item_lookup.ItemFiles,
    settings: Datasets,
    shard: Shard,
    seed: int,
) -> dict[str, Any]:
    """Resolve one shard of the input of one dataset.

    Memory: one block of rows, ``GATHERED_MB`` of resolved ones, twice while they are sorted, and
    about 100 bytes per item.

    Args:
        rows_path: Arrow file to write.
        counts_path: JSON to write: rows and bytes of each batch, and what was counted.
        dataset: its task, checked before: :func:`sidmill.datasets.tasks.load`. Its name is part of
            the random numbers.
        paths: parquet files of users or of items.
        items: SIDs and texts. Items without a title are counted and left out of lists of titles.
        settings: how sequences are cut, and caps of the task's limits.
        shard: which part of the input.
        seed: covers the order of rows, samples and drawn labels.

    Returns:
        The counts.

    Raises:
        SidmillError: if the input lacks a column or has ids of another type than the items.
    """
    # What the rows are resolved with.
    task = tasks.load(dataset.task_path, checked=True)
    domains = item_lookup.load_domains(items, task, dataset.task)
    names_titles = tasks.names_titles(task)
    has_title = item_lookup.have_titles(domains["items"], items.texts) if names_titles else None
    plan = Plan(task, settings, domains, has_title, seed)

    # Input rows, in blocks; each block states how many rows were left out.
    history_max, target_max = (
        plan.limit(name) if name in task.limits else 1 for name in ("history", "target")
    )
    windows = Windows(dataset.split, settings.windows, history_max, target_max)
    blocks = inputs.read(paths, tasks.columns(task), windows, shard)
    stream, tally = row_hash.stream(seed, f"{dataset.task} {dataset.split}"), Tally()
    tables = _tables(blocks, plan, stream, tally)

    # Rows to disk by bucket, and the counts.
    bits = bucket_bits(inputs.count(paths))
    batches = _write_buckets(rows_path, tables, bits)
    counts = {"bits": bits, "batches": batches, "counts": tally.as_dict()}
    json_report.write(counts_path, counts)
    logger.info("%s %s: %s", dataset.task, dataset.split, json.dumps(counts["counts"]))
    return counts


def bucket_bits(n_rows: int) -> int:
    """Bits of the key that name a bucket, so that one holds up to ``BUCKET_ROWS`` input rows."""
    return min(max((n_rows - 1) // BUCKET_ROWS, 0).bit_length(), MAX_BUCKET_BITS)


def _write_buckets(path: str | Path, tables: Iterable[pa.Table], bits: int) -> list[buckets.Batch]:
    """Write rows by bucket, as many as fit ``GATHERED_MB`` at a time."""
    batches: list[buckets.Batch] = []
    writer = None
    with replacing(path) as temporary, pa.OSFile(str(temporary), "wb") as sink:
        for gathered in buckets.gathered(tables, GATHERED_MB):
            table, numbers = _by_bucket(gathered, bits)
            writer = writer or pa.ipc.new_file(sink, table.schema)
            batches += buckets.append(writer, table, numbers)
        if writer is None:
            writer = pa.ipc.new_file(sink, pa.schema([("key", pa.uint64())]))
        writer.close()
    return batches


def _tables(
    blocks: Iterable[inputs.Block], plan: Plan, stream: np.uint64, tally: "Tally"
) -> Iterator[pa.Table]:
    """Resolve one block after the other."""
    for block in blocks:
        tally.left_out.update(block.left_out)
        tally.left_out["read"] += len(block.rows) + sum(block.left_out.values())
        keys = row_hash.row_keys(stream, block.rows, block.examples)
        yield Resolver(plan, block.table, keys, tally).table()


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
        """Start with zero of each."""
        self.left_out: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.unknown: Counter[str] = Counter()
        self.untitled: Counter[str] = Counter()  # of items that have a SID
        self.masks_of_other_length = 0  # lists whose mask marks nothing, of rows that stay
        self.marks_of_other_value = 0  # in masks and labels, neither 0 nor 1: they mark nothing

    def as_dict(self) -> dict[str, Any]:
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

    def __init__(self, plan: Plan, table: pa.Table, keys: np.ndarray, tally: Tally) -> None:
        """Take a block; rows are multiplied here, if the task asks for it.

        Args:
            plan: the same for all blocks.
            table: columns of input rows (n,).
            keys: uint64 (n,).
            tally: what is counted, over all blocks.
        """
        self.plan, self.task, self.tally = plan, plan.task, tally
        self.source = table
        self.keys = keys
        self.parents = np.arange(table.num_rows)  # (n,), input row of each row
        self.fields: dict[str, ragged.Ragged | pa.Array | None] = {}
        self.multiplied: dict[str, ragged.Ragged | np.ndarray | pa.Array] = {}  # one value per row
        self.flags: dict[str, np.ndarray] = {}  # by column of masks
        self.compared_masks: set[tuple[str, bytes]] = set()  # whose lengths differ from a list's
        if self.task.rows is not None:
            self._multiply(self.task.rows)

    def table(self) -> pa.Table:
        """Key, metadata and fields of the rows that have all they need."""
        # A sample, then rows whose needed fields are empty go. A row counts for its first reason.
        keep = np.ones(len(self.parents), dtype=bool)
        if self.task.sample < 1:
            drawn = row_hash.unit_interval(row_hash.derive(self.keys, self.plan.seed, "sample"))
            keep = drawn < self.task.sample
            self.tally.left_out["not_sampled"] += int((~keep).sum())
        for name in self.task.needs:
            present = self.present(name)
            self.tally.left_out[f"no_{name}"] += int((keep & ~present).sum())
            keep &= present
        self.tally.left_out["written"] += int(keep.sum())

        # Columns of all rows, then the rows to keep.
        columns: dict[str, pa.Array] = {"key": ragged.as_arrow(self.keys)}
        for name in self.task.metadata:
            if name not in self.task.fields:
                columns[name] = self._column(name)
        for name in self.task.fields:
            value = self.field(name)
            if isinstance(value, ragged.Ragged):
                columns[name] = ragged.to_list_array(value)
            elif value is not None:
                columns[name] = value
        table = pa.Table.from_arrays(list(columns.values()), list(columns))
        return table if keep.all() else table.filter(ragged.as_arrow(keep))

    def field(self, name: str) -> ragged.Ragged | pa.Array | None:
        """A field: lists of item rows, one value per row, or None for what is only wording."""
        if name not in self.fields:
            self.fields[name] = self._make_field(name, self.task.fields[name])
        return self.fields[name]

    def _make_field(self, name: str, spec: Field) -> ragged.Ragged | pa.Array | None:
        """Make a field by its kind."""
        match spec.kind:
            case "sids" | "titles":
                return self._item_lists(name, spec)
            case "sid" | "title":
                return self._item(name, spec)
            case "text":
                return self._text(spec.source)
            case "first_line":
                return item_lookup.first_lines(self._text(spec.source))
            case "value":
                return self._value(spec)
            case "choose":
                return self._choose(name, spec)
            case "count":
                return ragged.as_arrow(self._field_lists(spec.source).lengths)
        return None  # lines and phrases are made of text

    def present(self, name: str) -> np.ndarray:
        """Which rows have something in a field: bool (n,)."""
        spec = self.task.fields[name]
        if spec.kind in ("lines", "phrase"):
            present: np.ndarray = np.logical_or.reduce([self.present(each) for each in spec.fields])
            return present
        value = self.field(name)
        if isinstance(value, ragged.Ragged):
            return value.lengths > 0
        assert value is not None  # only wording has no value
        if spec.kind in ("sid", "title"):
            return ragged.as_numpy(value) >= 0
        if pa.types.is_large_string(value.type) or pa.types.is_string(value.type):
            filled = pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(value)), 0)
            return ragged.as_numpy(pc.fill_null(filled, False))
        return ragged.as_numpy(pc.is_valid(value))

    def _multiply(self, rows: tasks.Rows) -> None:
        """Make one row per item of a list, or per entry of a mapping."""
        if rows.entries:
            found = entries.read(self.source[rows.entries], self._id_type("keyword_items"))
            self.multiplied = {"keyword": found.keywords, "keyword_items": found.lists}
            parents, n_broken = found.rows, len(found.broken_rows)
            with_entries = np.concatenate([found.rows, found.bad_rows])
            self.tally.left_out["not_json"] += n_broken
            self.tally.left_out["bad_entry"] += len(found.bad_rows)
        else:
            parents, n_broken = self._multiply_lists(rows), 0
            with_entries = parents

        # What became of the input rows.
        children = np.bincount(with_entries, minlength=len(self.parents))
        self.tally.left_out["added"] += int(np.maximum(children - 1, 0).sum())
        self.tally.left_out["nothing_listed"] += int((children == 0).sum()) - n_broken

        # A key for each new row: parents ascend, so a child's number is its distance to the first.
        numbers = np.arange(len(parents)) - np.searchsorted(parents, parents)
        self.keys = row_hash.child_keys(self.keys[parents], numbers)
        self.parents = parents

    def _multiply_lists(self, rows: tasks.Rows) -> np.ndarray:
        """Make one row per item of a list: the input row of each, int64 (n',)."""
        lists = self._list(rows.each)
        limit = self.plan.limit(len(lists.values) + 1 if rows.first is None else rows.first)
        self.multiplied[rows.each] = ragged.truncate(lists, limit, "first").values
        for name in rows.along:
            positions = ragged.Ragged(self._positions(name, lists), lists.offsets)
            kept = ragged.truncate(positions, limit, "first").values
            values = _with_nulls(self._list(name).values)
            self.multiplied[name] = values.take(pa.array(kept, mask=kept < 0))
        return np.repeat(np.arange(len(lists.lengths)), np.minimum(lists.lengths, limit))

    def _id_type(self, column: str) -> pa.DataType:
        """The type of the ids that the fields made of a column look up."""
        for spec in self.task.fields.values():
            if spec.kind in ("sids", "titles") and spec.source == column:
                return self.plan.domains[spec.domain].lookup.kind
        return self.plan.domains["items"].lookup.kind

    def _column(self, name: str) -> pa.Array:
        """A column of the input, with a value for each multiplied row."""
        if name in self.multiplied:
            values = self.multiplied[name]
            if isinstance(values, ragged.Ragged):
                return ragged.to_list_array(values)
            return ragged.as_arrow(values)
        column = self.source[name].combine_chunks()
        column = column if not isinstance(column, pa.ChunkedArray) else column.chunk(0)
        return column if self.task.rows is None else column.take(ragged.as_arrow(self.parents))

    def _text(self, column: str) -> pa.Array:
        """A text column; a null is an empty text."""
        values = self._column(column)
        if pa.types.is_nested(values.type):
            raise SidmillError(f"column {column!r} is {values.type}: the task needs text there")
        return pc.fill_null(values.cast(pa.large_string()), "")

    def _list(self, column: str) -> ragged.Ragged:
        """A list column; per input row, or per multiplied row where multiplying made it."""
        if column in self.multiplied:
            lists = self.multiplied[column]
            if isinstance(lists, ragged.Ragged):
                return lists
            raise SidmillError(
                f"column {column!r} is one item in each row, as rows.each says: the task needs a "
                f"list in each row"
            )
        kind = self.source[column].type
        if not (plain_columns.is_list(kind) or pa.types.is_null(kind)):
            raise SidmillError(f"column {column!r} is {kind}: the task needs a list in each row")
        return ragged.from_arrow(self.source[column])

    def _field_lists(self, name: str) -> ragged.Ragged:
        """A field of lists of items."""
        lists = self.field(name)
        assert isinstance(lists, ragged.Ragged)  # the kind was checked with the task
        return lists

    def _item_lists(self, name: str, spec: Field) -> ragged.Ragged:
        """Lists of rows of items: masked, then limited, then without ids that no item has."""
        lists = self._list(spec.source)
        if spec.where is not None:
            lists = ragged.filter_values(lists, self._mask(name, lists))
        for end, limit in (("first", spec.first), ("last", spec.last)):
            if limit is not None:
                lists = ragged.truncate(lists, self.plan.limit(limit), end)
        rows = self._find(name, lists.values)
        lists = ragged.filter_values(ragged.Ragged(rows, lists.offsets), rows >= 0)
        if self.task.rows is not None and spec.source not in self.multiplied:
            lists = ragged.take_lists(lists, self.parents)
        return lists

    def _item(self, name: str, spec: Field) -> pa.Array:
        """The number of the item in each row, int32 (n,), -1 where there is no such item."""
        values = self.multiplied.get(spec.source)
        ids = self._column(spec.source) if values is None else values
        return ragged.as_arrow(self._find(name, ids))

    def _find(self, name: str, ids: np.ndarray | pa.Array) -> np.ndarray:
        """Look ids up for a field, and count those that no item has."""
        spec = self.task.fields[name]
        rows = item_lookup.find_rows(self.plan.domains[spec.domain].lookup, ids, spec.source)
        self.tally.seen[name] += len(rows)
        self.tally.unknown[name] += int((rows < 0).sum())
        if spec.kind in tasks.TITLE_KINDS and self.plan.has_title is not None:
            untitled = (rows >= 0) & ~self.plan.has_title[rows]
            self.tally.untitled[name] += int(untitled.sum())
            rows = np.where(untitled, np.int32(-1), rows)
        return rows

    def _mask(self, name: str, lists: ragged.Ragged) -> np.ndarray:
        """Which values of ``lists`` a field keeps, bool (m,): those its mask marks with 1."""
        columns = tasks.mask_columns(self.task, name)
        if "" in columns:
            return self._marked(columns[""], lists)

        # One mask per label: a row takes the mask of its own label.
        label_field = tasks.label_field_of(self.task.fields[name].where or "")
        assert label_field is not None  # else there is one mask
        labels = self.field(label_field)
        keep = np.zeros(len(lists.values), dtype=bool)
        for label, column in columns.items():
            chosen = ragged.as_numpy(pc.fill_null(pc.equal(labels, label), False))
            if chosen.any():
                keep |= np.repeat(chosen, lists.lengths) & self._marked(column, lists)
        return keep

    def _marked(self, column: str, lists: ragged.Ragged) -> np.ndarray:
        """Which values of ``lists`` the mask ``column`` marks with 1: bool (m,)."""
        positions, flags = self._positions(column, lists), self._flags(column)
        if not len(flags):
            return np.zeros(len(positions), bool)
        return flags.take(positions, mode="wrap") & (positions >= 0)  # -1 is the last one

    def _positions(self, column: str, lists: ragged.Ragged) -> np.ndarray:
        """Index in the values of ``column`` for each value of ``lists``: int64 (m,).

        It is -1 in rows where the two lists differ in length.
        """
        other = self._list(column)
        if np.array_equal(other.offsets, lists.offsets):
            return np.arange(len(lists.values))

        # Count rows of different lengths once per pair of columns.
        same_length = other.lengths == lists.lengths
        pair = (column, lists.offsets.tobytes())
        if pair not in self.compared_masks:
            self.compared_masks.add(pair)
            self.tally.masks_of_other_length += int((~same_length).sum())

        # Runs of equal length lie at different offsets.
        positions = np.full(len(lists.values), -1)
        lengths = lists.lengths[same_length]
        positions[ragged.concat_ranges(lists.offsets[:-1][same_length], lengths)] = (
            ragged.concat_ranges(other.offsets[:-1][same_length], lengths)
        )
        return positions

    def _flags(self, column: str) -> np.ndarray:
        """The values of a mask, bool (m,): which are 1, of whatever type of number."""
        if column not in self.flags:
            values = _with_nulls(self._list(column).values)
            try:
                numbers = values.cast(pa.float64())
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                raise SidmillError(
                    f"column {column!r} is a list of {values.type}: write 0 and 1 there"
                ) from None
            marks = ragged.as_numpy(pc.fill_null(numbers, np.nan))
            others = (marks != 0) & (marks != 1) & ~np.isnan(marks)
            self.tally.marks_of_other_value += int(others.sum())
            self.flags[column] = marks == 1
        return self.flags[column]

    def _value(self, spec: Field) -> pa.Array:
        """A column as it is; with ``among``, null where it has another value than those."""
        column = self._column(spec.source)
        if not spec.among:
            return column

        # The values to keep in the type of the column: numbers, or else text.
        column = column.cast(pa.int64()) if pa.types.is_boolean(column.type) else column
        numeric = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
        allowed = pa.array([value if numeric else str(value) for value in spec.among])
        kind = allowed.type if numeric else plain_columns.TEXT
        column = column.cast(kind, safe=False) if not numeric else column

        # Other values are counted and become null.
        keep = pc.is_in(column, allowed.cast(column.type))
        is_value = pc.invert(pc.is_null(column, nan_is_null=True))
        self.tally.marks_of_other_value += pc.sum(pc.and_not(is_value, keep)).as_py() or 0
        return pc.if_else(keep, column, pa.scalar(None, column.type)).cast(kind)

    def _choose(self, name: str, spec: Field) -> pa.Array:
        """Draw a label for each row among those whose mask marks an item; null without any."""
        # Which labels are possible: bool (n, labels).
        assert spec.of is not None  # it was checked with the task
        lists = self._list(spec.of)
        possible = np.zeros((len(lists.lengths), len(spec.names)), dtype=bool)
        for number, column in enumerate(tasks.mask_columns(self.task, name).values()):
            marked = self._marked(column, lists)
            possible[:, number] = ragged.filter_values(lists, marked).lengths > 0

        # One of them: the label whose rank among the possible ones was drawn.
        options = possible.sum(axis=1)
        keys = row_hash.derive(self.keys, self.plan.seed, name)
        ranks = row_hash.below(keys, np.maximum(options, 1))
        chosen = (np.cumsum(possible, axis=1) == (ranks + 1)[:, None]) & possible
        labels = pa.array(spec.names, pa.large_string())
        return labels.take(pa.array(chosen.argmax(axis=1), mask=options == 0))


def _with_nulls(values: np.ndarray | pa.Array) -> pa.Array:
    """Values of lists as Arrow: truth values as 1 and 0, a null as null."""
    if not isinstance(values, np.ndarray):
        return values
    if values.dtype == bool:
        return pa.array(values.astype(np.int64))
    numbers = values.astype(np.int64, copy=False)
    return pa.array(numbers, mask=numbers == ragged.NULL_ID)
