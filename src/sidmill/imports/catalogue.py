"""Items of a data set -> items.parquet: every row is an item or a reject, no id twice.

Letters: N items.
"""

from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import xxhash

from sidmill.imports.content import TEXT, TEXTS, Bad, Content, Item
from sidmill.io import parquet

BATCH_ROWS = 8192
ID = "item_id"


class Catalogue(NamedTuple):
    """The items of a data set.

    Attributes:
        path: Arrow file of all rows that have an id, repeated ones too.
        kept: bool (rows,), which of them is an item.
        keys: uint64 (N,), hashes of the ids of the items, ascending.
        rows: int32 (N,), the number of the item of each key, in the order of the file.
        schema: of items.parquet.
    """

    path: Path
    kept: np.ndarray
    keys: np.ndarray
    rows: np.ndarray
    schema: pa.Schema

    def find(self, ids: list[str]) -> np.ndarray:
        """Numbers of items by their ids, int32 (n,), -1 for ids that no item has.

        Two ids are told apart by 64 bits of a hash.
        """
        hashes = np.fromiter(map(_key, ids), np.uint64, len(ids))
        if not len(self.keys):
            return np.full(len(ids), -1, dtype=np.int32)
        places = np.minimum(np.searchsorted(self.keys, hashes), len(self.keys) - 1)
        return np.where(self.keys[places] == hashes, self.rows[places], np.int32(-1))


def collect(content: Content, folder: Path, reject: Callable[[Bad], None]) -> Catalogue:
    """Read all items, and find the ids that occur more than once; the first row of an id counts.

    Memory: 17 bytes per item, and a batch.

    Args:
        content: the data set.
        folder: for the Arrow file.
        reject: takes the rows that give no item.
    """
    schema = pa.schema([(ID, TEXT), *content.fields.items()])
    form = schema.append(pa.field("file", TEXT)).append(pa.field("row", pa.int64()))
    path, keys = folder / "items.arrow", array("Q")
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, form) as out:
        waiting: list[Item] = []
        for item in content.items():
            bad = item if isinstance(item, Bad) else _problem(item)
            if bad is not None:
                reject(bad)
                continue
            assert isinstance(item, Item)
            keys.append(_key(item.id))
            waiting.append(item)
            if len(waiting) == BATCH_ROWS:
                out.write_batch(_batch(waiting, form))
                waiting.clear()
        if waiting:
            out.write_batch(_batch(waiting, form))

    # Of rows with equal keys the first is the item.
    hashes = np.frombuffer(keys, dtype=np.uint64) if len(keys) else np.empty(0, np.uint64)
    unique, first = np.unique(hashes, return_index=True)
    kept = np.zeros(len(hashes), dtype=bool)
    kept[first] = True
    if not kept.all():
        _reject_repeated(path, kept, reject)
    numbers = (np.cumsum(kept) - 1)[first].astype(np.int32)
    return Catalogue(path, kept, unique, numbers, schema)


def ids_of(catalogue: Catalogue) -> pa.Array:
    """The ids of all items, string (N,), by their numbers. Memory: the ids."""
    parts = [batch.column(ID) for batch in _kept_batches(catalogue)]
    return pa.concat_arrays(parts) if parts else pa.array([], TEXT)


def write(path: str | Path, catalogue: Catalogue, used: np.ndarray | None) -> int:
    """Write items.parquet and return its number of items. Memory: a batch.

    Args:
        path: the file.
        catalogue: the items.
        used: bool (N,), the items to write; None: all.
    """

    def tables() -> Iterator[pa.Table]:
        first = 0
        for batch in _kept_batches(catalogue):
            if used is not None:
                mask = used[first : first + batch.num_rows]
                first += batch.num_rows
                batch = batch.filter(pa.array(mask))
            yield pa.Table.from_batches([batch]).select(catalogue.schema.names)

    return parquet.write(path, catalogue.schema, tables())


def _kept_batches(catalogue: Catalogue) -> Iterator[pa.RecordBatch]:
    first = 0
    with pa.OSFile(str(catalogue.path)) as source, pa.ipc.open_file(source) as file:
        for number in range(file.num_record_batches):
            batch = file.get_batch(number)
            mask = catalogue.kept[first : first + batch.num_rows]
            first += batch.num_rows
            yield batch.filter(pa.array(mask))


def _key(pid: str) -> int:
    return xxhash.xxh3_64_intdigest(pid.encode(errors="surrogatepass"))


def _problem(item: Item) -> Bad | None:
    """Why a row gives no item; None where it does."""
    if not item.id.strip():
        return Bad(item.file, item.row, "no item id")
    parts = [item.id]
    for value in item.fields.values():
        parts += value if isinstance(value, list) else [value or ""]
    try:
        "".join(parts).encode()
    except UnicodeEncodeError:
        return Bad(item.file, item.row, "half a character (a lone surrogate)")
    if not any(letter.isalnum() for part in parts[1:] for letter in part):
        return Bad(item.file, item.row, "no text in any field")
    return None


def _batch(items: list[Item], form: pa.Schema) -> pa.RecordBatch:
    columns: list[list[Any]] = [[item.id for item in items]]
    for field in list(form)[1:-2]:
        values = [item.fields.get(field.name) for item in items]
        columns.append([value or [] for value in values] if field.type == TEXTS else values)
    columns += [[item.file for item in items], [item.row for item in items]]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, form, strict=True)]
    return pa.record_batch(arrays, schema=form)


def _reject_repeated(path: Path, kept: np.ndarray, reject: Callable[[Bad], None]) -> None:
    """Report the rows whose id an earlier row has."""
    first = 0
    with pa.OSFile(str(path)) as source, pa.ipc.open_file(source) as file:
        for number in range(file.num_record_batches):
            batch = file.get_batch(number)
            repeated = np.flatnonzero(~kept[first : first + batch.num_rows])
            first += batch.num_rows
            for row in batch.select([ID, "file", "row"]).take(pa.array(repeated)).to_pylist():
                reason = f"id {row[ID]!r:.60}: an earlier row has it"
                reject(Bad(row["file"], row["row"], reason))
