"""``ledger.parquet``: every SID that a line of published versions has given, and its item.

    pid      int64 or string
    sid      list<int32>, its SID
    codes    list<int32> (L), of the quantizer for its text
    digest   16 bytes, the hash of that text
    state    int8: 0 in the catalogue | 1 removed, its SID is kept | 2 a SID of the item before
    version  int32, the version that gave the SID, from 1
    trained  bool, whether its text is the one that the quantizer was published with

Items of the catalogue come first, in its order: row i is row i of pid2sid.parquet and of the
embeddings of that version. Among the states 0 and 1 each pid occurs once. The schema metadata holds
the sizes of the tokens, and the version.

Shapes: M rows, T tokens of a SID, L levels of the quantizer.
"""

from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.formats.code_files import INT32_MAX, SIZES_KEY
from sidmill.io import parquet

VERSION_KEY = "sidmill.version"
LIVE, REMOVED, LEFT = range(3)
AGAIN = "take another copy of that version"
INTEGERS = parquet.is_list_of(pa.int32())
COLUMNS = {
    "pid": parquet.is_pid,
    "sid": INTEGERS,
    "codes": INTEGERS,
    "digest": lambda kind: kind == pa.binary(16),
    "state": pa.types.is_int8,
    "version": pa.types.is_int32,
    "trained": pa.types.is_boolean,
}


class Ledger(NamedTuple):
    """The columns, as arrays of M rows.

    Attributes:
        ids: int64 or string.
        sids: int32 (M, T).
        codes: int32 (M, L).
        digests: S16 (M,).
        state: int8 (M,).
        versions: int32 (M,).
        trained: bool (M,).
        sizes: T numbers, how many values each token has.
        version: number of the version, from 1.
    """

    ids: pa.ChunkedArray
    sids: np.ndarray
    codes: np.ndarray
    digests: np.ndarray
    state: np.ndarray
    versions: np.ndarray
    trained: np.ndarray
    sizes: list[int]
    version: int

    @property
    def n_live(self) -> int:
        """Number of rows of the catalogue, which are the first ones."""
        return int((self.state == LIVE).sum())

    @property
    def owners(self) -> int:
        """Number of rows whose item has the SID or had it last; those of the catalogue first."""
        return int((self.state != LEFT).sum())


def write(path: str | Path, ledger: Ledger) -> None:
    """Write a ledger atomically. Memory: its columns once more."""
    # Sizes of the tokens and the version are metadata of the schema.
    lists = pa.list_(pa.int32())
    schema = pa.schema(
        [
            ("pid", ledger.ids.type),
            ("sid", lists),
            ("codes", lists),
            ("digest", pa.binary(16)),
            ("state", pa.int8()),
            ("version", pa.int32()),
            ("trained", pa.bool_()),
        ],
        metadata={
            SIZES_KEY: str([int(size) for size in ledger.sizes]),
            VERSION_KEY: str(ledger.version),
        },
    )

    # 16 bytes of digest per row, without a copy.
    digests = pa.py_buffer(np.ascontiguousarray(ledger.digests, dtype="S16"))
    columns = [
        ledger.ids,
        _lists(ledger.sids),
        _lists(ledger.codes),
        pa.Array.from_buffers(pa.binary(16), len(ledger.ids), [None, digests]),
        *map(pa.array, (ledger.state, ledger.versions, ledger.trained)),
    ]
    parquet.write(path, schema, [pa.table(columns, schema=schema)])


def read(path: str | Path) -> Ledger:
    """Read a ledger. Memory: the ids, and about 8 (L + T) + 32 bytes per row.

    Raises:
        SidmillError: if it is no ledger, or a damaged one.
    """
    # Every value and both entries of the metadata are needed.
    file = parquet.open_file(path, COLUMNS)
    table = file.read(columns=list(COLUMNS)).combine_chunks()
    sizes = parquet.metadata_json(file, SIZES_KEY)
    version = parquet.metadata_json(file, VERSION_KEY)
    if any(column.null_count for column in table.columns) or not sizes or not version:
        raise SidmillError(f"{path}: a value or its metadata is missing: {AGAIN}")

    # The digests as S16 (M,), without a copy.
    digest = table["digest"].combine_chunks()
    digest = digest.chunk(0) if isinstance(digest, pa.ChunkedArray) else digest
    start = digest.offset
    raw = np.frombuffer(digest.buffers()[1], dtype="S16")[start : start + len(digest)]

    ledger = Ledger(
        parquet.pids(table["pid"]),
        _matrix(path, table, "sid"),
        _matrix(path, table, "codes"),
        raw,
        table["state"].to_numpy(),
        table["version"].to_numpy(),
        table["trained"].to_numpy(),
        [int(size) for size in sizes],
        int(cast(int, version)),
    )
    _check(path, ledger)
    return ledger


def token_sizes(path: str | Path) -> list[int]:
    """Read how many values each token has, without reading the rows.

    Raises:
        SidmillError: if it is no ledger.
    """
    sizes = parquet.metadata_json(parquet.open_file(path, COLUMNS), SIZES_KEY)
    if not sizes:
        raise SidmillError(f"{path}: its metadata is missing: {AGAIN}")
    return [int(size) for size in cast(list[int], sizes)]


def _lists(values: np.ndarray) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(values, dtype=np.int32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1]).cast(pa.list_(pa.int32()))


def _matrix(path: str | Path, table: pa.Table, name: str) -> np.ndarray:
    values = parquet.matrix(path, table[name], name, AGAIN)
    if not values.size:
        raise SidmillError(f"{path}: its {name} are none: {AGAIN}")
    if values.min() < 0 or values.max() > INT32_MAX:
        raise SidmillError(f"{path}: its {name} are no int32 from 0 on: {AGAIN}")
    return values.astype(np.int32)


def _check(path: str | Path, ledger: Ledger) -> None:
    sids, sizes = ledger.sids, ledger.sizes
    if sids.shape[1] != len(sizes) or (sids < 0).any() or (sids >= sizes).any():
        raise SidmillError(f"{path}: a SID is outside of tokens of {sizes} values: {AGAIN}")
    if (np.diff(ledger.state) < 0).any():
        raise SidmillError(f"{path}: items of the catalogue do not come first: {AGAIN}")
