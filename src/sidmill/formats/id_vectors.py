"""``all_item_embedding.npy``, ``all_user_embedding_{k}.npy``: vectors after a column of ids.

    all_item_embedding.npy      float32 (N, 1 + H), one row per item, in one file
    all_user_embedding_{k}.npy  float32 (n, 1 + H), k from 0, 100,000 users a file
    item_ids.parquet            pid, in the order of the rows
    user_ids.parquet            user_id, in the order of the rows, through all files
    embeddings.json             files, what the first column holds, digest of sequences.parquet

float32 holds whole numbers exactly up to 2^24. Where all ids of a kind are such numbers, the first
column is the id; otherwise it is the row, counted through all files, and embeddings.json says so.
The parquet files name every row in both cases.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sidmill.core.atomic import replacing
from sidmill.core.errors import SidmillError
from sidmill.formats import vector_store
from sidmill.io import json_report

ROWS_PER_FILE = 100_000
EXACT = 2**24  # the last whole number up to which float32 has them all
ITEM_FILE = "all_item_embedding.npy"
USER_FILE = "all_user_embedding_{}.npy"


class FirstColumn(NamedTuple):
    """``kind`` is id or row; ``values`` are the numbers, int64 (n,)."""

    kind: str
    values: np.ndarray


def first_column(ids: pa.Array) -> FirstColumn:
    """Choose the first column of all_item_embedding.npy: ids that float32 holds, or row numbers.

    Raises:
        SidmillError: if even their numbers are too many for float32.
    """
    numbers = _whole_numbers(ids)
    if numbers is not None:
        return FirstColumn("id", numbers)
    if len(ids) - 1 > EXACT:
        raise SidmillError(
            f"{len(ids)} rows with ids that float32 cannot hold: it counts to {EXACT} only; take "
            f"the model's checkpoint, or split the catalogue"
        )
    return FirstColumn("row", np.arange(len(ids)))


def _whole_numbers(ids: pa.Array) -> np.ndarray | None:
    """The ids as int64, where they are whole numbers, written plainly, that float32 holds."""
    if not pa.types.is_integer(ids.type):
        if not pc.all(pc.match_substring_regex(ids, r"^(0|[1-9]\d{0,8})$"), min_count=0).as_py():
            return None
        ids = pc.cast(ids, pa.int64())
    numbers = ids.to_numpy(zero_copy_only=False)
    return numbers if len(numbers) and numbers.min() >= 0 and numbers.max() <= EXACT else None


def write(path: str | Path, dim: int, names: np.ndarray, blocks: Iterable[np.ndarray]) -> None:
    """Write one file of ids and vectors, atomically, block by block.

    Args:
        path: the .npy file.
        dim: H.
        names: int64 (n,), the first column.
        blocks: float32 (b, H), n rows in all.

    Raises:
        SidmillError: if the blocks hold other than n rows of H.
    """
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(names), 1 + dim)}
    row = 0
    with replacing(path) as temporary, temporary.open("wb") as out:
        np.lib.format.write_array_header_1_0(out, header)
        for block in blocks:
            rows = np.empty((len(block), 1 + dim), dtype="<f4")
            rows[:, 0] = names[row : row + len(block)]
            rows[:, 1:] = block
            out.write(rows.data)
            row += len(block)
        if row != len(names):
            raise SidmillError(f"{path}: {row} vectors for {len(names)} ids")


def write_users(
    folder: str | Path, dim: int, names: np.ndarray, blocks: Iterable[np.ndarray]
) -> list[str]:
    """Write user vectors to files of ROWS_PER_FILE rows; remove those of an earlier, larger run.

    Memory: a block, and the rest of the one before it.

    Returns:
        The names of the files, in order.
    """
    written: list[str] = []
    stream = _cut(blocks, ROWS_PER_FILE)
    for start in range(0, max(len(names), 1), ROWS_PER_FILE):
        part = names[start : start + ROWS_PER_FILE]
        written.append(USER_FILE.format(len(written)))
        write(Path(folder) / written[-1], dim, part, _take(stream, len(part)))
    for stale in sorted(Path(folder).glob(USER_FILE.format("*"))):
        if stale.name not in written:
            stale.unlink()
    return written


def read(path: str | Path) -> np.ndarray:
    """Map a file read-only: float32 (n, 1 + H).

    Raises:
        SidmillError: if it is missing, damaged or of another kind.
    """
    return vector_store.open_npy(path)


def write_listing(
    path: str | Path, items: FirstColumn, users: FirstColumn, files: list[str], sequences: str
) -> None:
    """Write embeddings.json; ``sequences`` is the digest of the histories that users are of."""
    listing = {
        "sequences": sequences,
        "items": {"files": [ITEM_FILE], "rows": len(items.values), "first_column": items.kind},
        "users": {"files": files, "rows": len(users.values), "first_column": users.kind},
    }
    json_report.write(path, listing)


def _cut(blocks: Iterable[np.ndarray], n_rows: int) -> Iterator[np.ndarray]:
    """Cut blocks where every ``n_rows`` rows end."""
    row = 0
    for block in blocks:
        edge = -row % n_rows or n_rows
        yield from (part for part in np.split(block, range(edge, len(block), n_rows)) if len(part))
        row += len(block)


def _take(blocks: Iterator[np.ndarray], n_rows: int) -> Iterator[np.ndarray]:
    """Hand out the next ``n_rows`` rows of blocks that are cut there."""
    while n_rows and (block := next(blocks, None)) is not None:
        yield block
        n_rows -= len(block)
