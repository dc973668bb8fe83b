"""Parquet files, and folders of them, by their columns.

Shapes: N rows, L levels, D dimensions.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sidmill.core.errors import SidmillError
from sidmill.core.listing import some
from sidmill.io import parquet
from sidmill.report.inspect.facts import Budget, Description, looked_at

BATCH_ROWS = 2048
METADATA = "sidmill."
# Tables in which an id comes once for each fold.
OF_FOLDS = {"fused_folds_ids.parquet", "fold_codes.parquet"}
PART = re.compile(r"part-(\d{5})-of-(\d{5})\.parquet")
# The most telling columns come first: a file is of the first kind whose columns it has.
KINDS: dict[tuple[str, ...], str] = {
    ("pid", "embedding"): "embeddings",
    ("pid", "sid"): "semantic IDs",
    ("pid", "codes"): "codes of a quantizer",
    ("pid", "text"): "texts of items",
    ("pid", "category"): "categories of items",
    ("pid", "item_id"): "numbers of items, for memory maps and HDF5",
    ("file", "row", "position", "reason"): "rejected interactions",
    ("file", "row", "interactions", "reason"): "rejected rows of an imported data set",
    ("pid", "file", "row", "reason"): "rejected rows of the catalogue",
    ("user_id", "item_ids", "splits"): "histories",
    ("user_id", "item_ids", "scores"): "recommendations",
    ("user_id", "item_ids", "timestamps"): "histories of an imported data set",
    ("user", "queries"): "metrics of users",
    ("qid", "pid", "rank", "score"): "answers to queries",
    ("qid", "pid", "label"): "judgements of passages",
    ("run", "qid"): "metrics by query",
    ("query", "positive"): "training triples of a dual encoder",
    ("query", "passage", "label"): "training pairs of a cross encoder",
    ("source", "uuid"): "dataset for language models",
    ("pid",): "ids of items",
    ("user_id",): "ids of users",
}
Batches = Callable[[list[str]], Iterator[pa.RecordBatch]]


def describe(path: str, parts: list[Path], budget: Budget) -> Description:
    """Describe a parquet file, or the parts of a folder as one table.

    Memory: one batch of 2,048 rows, and of what is looked at 8 bytes per id and 4 L per code.

    Raises:
        SidmillError: if a part cannot be read.
    """
    # The schema of the first part tells what the table is.
    files = []
    for part in parts:
        with parquet.naming(part):
            files.append(parquet.Parquet(part))
    schema = files[0].schema_arrow
    kinds = (kind for columns, kind in KINDS.items() if set(columns) <= set(schema.names))
    description = Description(path, next(kinds, "parquet that is none of SIDMill's forms"))
    description.bytes = sum(part.stat().st_size for part in parts)
    total = sum(file.metadata.num_rows for file in files)
    description.facts["rows"] = total
    if len(parts) > 1 or Path(path).is_dir():
        description.facts["files"] = len(parts)
        _check_parts(description, parts, files)
    description.facts["columns"] = {
        name: str(schema.field(name).type).replace("element: ", "") for name in schema.names
    }

    # Metadata of SIDMill, of the file or of the schema.
    stored = (files[0].metadata.metadata or {}) | (schema.metadata or {})
    for key, value in stored.items():
        if key.decode(errors="replace").startswith(METADATA):
            description.facts[key.decode().removeprefix(METADATA)] = _json(value)

    def batches(columns: list[str]) -> Iterator[pa.RecordBatch]:
        for part, file in zip(parts, files, strict=True):
            with parquet.naming(part):
                yield from file.iter_batches(BATCH_ROWS, columns=columns)

    # First rows, ids, and the columns that have a check of their own.
    for batch in batches(schema.names):
        description.sample = batch.slice(0, budget.rows).to_pylist()
        break
    if "pid" in schema.names and "qid" not in schema.names and "reason" not in schema.names:
        _check_ids(description, batches, budget)
    for column, look in LOOKS.items():
        if column in schema.names and total:
            look(description, batches, budget)
    return description


def _json(value: bytes) -> object:
    with suppress(ValueError, RecursionError):
        return json.loads(value)
    return value.decode(errors="replace")


def _check_parts(description: Description, parts: list[Path], files: list[parquet.Parquet]) -> None:
    """Parts of one folder are all there, of one schema, and of one embedding."""
    numbered = [PART.fullmatch(part.name) for part in parts]
    if all(numbered):
        counts = {match[2] for match in numbered if match}
        whole = len(counts) == 1 and len(parts) == int(next(iter(counts)))
        says = "" if whole else f"{len(parts)} files, named as of {some(sorted(counts))}"
        description.check("all parts there", whole, says)
    first = files[0].schema_arrow
    odd = next(
        (part for part, file in zip(parts, files, strict=True) if file.schema_arrow != first), None
    )
    says = f"{odd.name} has other columns than {parts[0].name}" if odd else ""
    description.check("one schema", odd is None, says)
    metadata = [file.schema_arrow.metadata or {} for file in files]
    odd = next(
        (part for part, own in zip(parts, metadata, strict=True) if own != metadata[0]), None
    )
    says = f"{odd.name} says another than {parts[0].name}" if odd else ""
    description.check("one fingerprint", odd is None, says)


def _check_ids(description: Description, batches: Batches, budget: Budget) -> None:
    total = description.facts["rows"]
    looked = budget.rows_of(total)
    seen, nulls = [], 0
    for column in _column(batches, "pid", looked):
        nulls += column.null_count
        values = column.drop_null()
        hashed = values if pa.types.is_integer(values.type) else _hashes(values)
        seen.append(np.asarray(hashed))
    ids = np.concatenate(seen) if seen else np.empty(0, dtype=np.int64)
    repeated = len(ids) - len(np.unique(ids))
    says = looked_at(looked, total)
    description.check("no id missing", nulls == 0, f"{nulls:,} nulls" if nulls else says)
    if Path(description.path).name not in OF_FOLDS:
        found = f"{repeated:,} repeated" if repeated else says
        description.check("ids unique", repeated == 0, found)


def _hashes(values: pa.Array) -> np.ndarray:
    """Python's own hash: 64 bits, so that two of a million ids agree once in 10^7 files."""
    return np.fromiter(map(hash, values.to_pylist()), np.int64, len(values))


def _column(batches: Batches, name: str, rows: int) -> Iterator[pa.Array]:
    """The first rows of one column, batch by batch."""
    for batch in batches([name]) if rows else ():
        yield batch.column(0).slice(0, rows)
        rows -= batch.num_rows
        if rows <= 0:
            return


def _look_at_embeddings(description: Description, batches: Batches, budget: Budget) -> None:
    total, dims = description.facts["rows"], set()
    first = next(_column(batches, "embedding", 1))
    looked = budget.rows_of(total, 4 * len(first[0].as_py() or ()))
    norms = Norms()
    missing = 0
    for column in _column(batches, "embedding", looked):
        missing += column.null_count
        column = column.drop_null()
        dims |= set(pc.unique(pc.list_value_length(column)).to_pylist())
        if len(dims) == 1 and dims != {0}:
            norms.add(np.asarray(column.flatten(), dtype=np.float32).reshape(len(column), -1))
    width = next(iter(dims)) if len(dims) == 1 else None
    description.facts["shape"] = [total, width]
    description.check(
        "a vector in each row", not missing, f"{missing:,} rows without" if missing else ""
    )
    says = "" if width else f"found {some(sorted(dims))}"
    description.check("one dimension", width is not None, says)
    norms.tell(description, looked, total)


class Norms:
    """Lengths of vectors, gathered block by block."""

    def __init__(self) -> None:
        """Begin with none."""
        self.rows = self.bad = self.zero = 0
        self.total, self.least, self.most = 0.0, np.inf, 0.0

    def add(self, block: np.ndarray) -> None:
        """Take in float (n, D)."""
        squares = np.square(block, dtype=np.float64).sum(axis=1)
        finite = np.isfinite(squares)
        lengths = np.sqrt(squares[finite])
        self.rows += len(block)
        self.bad += int((~finite).sum())
        self.zero += int((lengths == 0).sum())
        if len(lengths):
            self.total += float(lengths.sum())
            self.least = min(self.least, float(lengths.min()))
            self.most = max(self.most, float(lengths.max()))

    def tell(self, description: Description, looked: int, total: int) -> None:
        """Put figures and checks into a description."""
        if self.rows > self.bad:
            mean = self.total / (self.rows - self.bad)
            description.figures["lengths"] = {"least": self.least, "mean": mean, "most": self.most}
        says = looked_at(looked, total)
        description.check(
            "finite", self.bad == 0, f"{self.bad:,} rows are not" if self.bad else says
        )
        zeros = f"{self.zero:,} rows of zeros" if self.zero else says
        description.check("no zero vector", self.zero == 0, zeros)


def _look_at_codes(description: Description, batches: Batches, budget: Budget, column: str) -> None:
    """Check lists of codes: one length, range, and how many differ."""
    # Read the lists while all have one length: (n, L).
    total = description.facts["rows"]
    looked = budget.rows_of(total)
    rows, lengths = [], set()
    for lists in _column(batches, column, looked):
        lengths |= set(pc.unique(pc.list_value_length(lists)).to_pylist())
        if len(lengths) == 1 and None not in lengths:
            rows.append(np.asarray(lists.flatten(), dtype=np.int64).reshape(len(lists), -1))
    says = f"found {some(lengths)}" if len(lengths) > 1 else ""
    description.check("one length", len(lengths) == 1 and None not in lengths, says)
    if not description.checks[-1].ok:
        return

    # How many codes are used, and whether they fit in the codebooks that the file states.
    codes = np.concatenate(rows)
    description.facts["shape"] = [total, codes.shape[1]]
    sizes = description.facts.get("codebook_sizes")
    used = [len(np.unique(codes[:, level])) for level in range(codes.shape[1])]
    description.figures["codes used"] = used
    distinct = len(np.unique(codes, axis=0))
    description.figures["distinct"] = distinct
    description.figures["collision rate"] = (len(codes) - distinct) / len(codes)
    if not isinstance(sizes, list) or len(sizes) != codes.shape[1]:
        description.check(
            "codes in range", None, "the file does not say the sizes of its codebooks"
        )
        return
    outside = int(((codes < 0) | (codes >= np.asarray(sizes))).any(axis=1).sum())
    says = f"{outside:,} rows hold others" if outside else looked_at(looked, total)
    description.check("codes in range", not outside, says)


def _look_at_sids(description: Description, batches: Batches, budget: Budget) -> None:
    _look_at_codes(description, batches, budget, "sid")


def _look_at_plain_codes(description: Description, batches: Batches, budget: Budget) -> None:
    _look_at_codes(description, batches, budget, "codes")


def _look_at_texts(description: Description, batches: Batches, budget: Budget) -> None:
    total = description.facts["rows"]
    looked = budget.rows_of(total, 256)
    empty = letters = longest = 0
    for column in _column(batches, "text", looked):
        lengths = pc.fill_null(pc.utf8_length(column), 0)
        empty += pc.sum(pc.equal(lengths, 0)).as_py()
        letters += pc.sum(lengths).as_py()
        longest = max(longest, pc.max(lengths).as_py())
    description.figures["letters"] = {"mean": letters / looked, "most": longest}
    says = f"{empty:,} are" if empty else looked_at(looked, total)
    description.check("no text empty", not empty, says)


def _look_at_histories(description: Description, batches: Batches, budget: Budget) -> None:
    total = description.facts["rows"]
    looked = budget.rows_of(total, 256)
    items = longest = empty = 0
    for column in _column(batches, "item_ids", looked):
        lengths = pc.fill_null(pc.list_value_length(column), 0)
        items += pc.sum(lengths).as_py()
        longest = max(longest, pc.max(lengths).as_py())
        empty += pc.sum(pc.equal(lengths, 0)).as_py()
    description.figures["items of a row"] = {"mean": items / looked, "most": longest}
    says = f"{empty:,} are" if empty else looked_at(looked, total)
    description.check("no list empty", not empty, says)


LOOKS: dict[str, Callable[[Description, Batches, Budget], None]] = {
    "embedding": _look_at_embeddings,
    "sid": _look_at_sids,
    "codes": _look_at_plain_codes,
    "text": _look_at_texts,
    "item_ids": _look_at_histories,
}


def parts_of(folder: Path) -> list[Path]:
    """List the parquet files of a folder that ``sidmill inspect`` describes as one table.

    Raises:
        SidmillError: if there is none, or they are several tables; naming what can be described.
    """
    shown = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    parts = [entry for entry in shown if entry.name.endswith(".parquet") and entry.is_file()]
    one_table = len(parts) == 1 or all(PART.fullmatch(part.name) for part in parts)
    if parts and (one_table or len(set(map(_columns, parts))) == 1):
        return parts
    what = "several tables" if parts else "no table"
    names = some(entry.name for entry in shown) or "it is empty"
    raise SidmillError(f"{folder}: a folder, and {what}: name a file of it, or a folder: {names}")


def _columns(part: Path) -> tuple[str, ...]:
    with parquet.naming(part):
        return tuple(parquet.Parquet(part).schema_arrow.names)
