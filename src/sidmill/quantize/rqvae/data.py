"""What a training reads: vectors of one or several files, and pairs of items.

Shapes: N rows of all files together, D dimensions, n training rows, b rows of a batch, P pairs of
items consumed together, C pairs of items that collide.

A .npy is read where it is; HDF5 and parquet are copied once, block by block, to a .npy next to the
checkpoints, which the training removes. Rows that fit in ``memory_mb`` are held in memory, others
are read for each batch. Batches are the same either way.
"""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
import xxhash

from sidmill.core.errors import SidmillError
from sidmill.core.paths import expand
from sidmill.formats import sequence_table, vector_file, vector_store
from sidmill.io import id_lookup, parquet
from sidmill.numeric import row_blocks

logger = logging.getLogger(__name__)

SUFFIXES = (".npy", ".h5", ".parquet")
BLOCK_ROWS = 4096
MIN_BATCH_ROWS = 2  # of a batch, in each process
ROW_MIX, SEED_MIX = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9  # odd numbers of SplitMix64
NO_PAIRS = np.empty((0, 2), dtype=np.int64)


class Rows(NamedTuple):
    """All rows: those of file i have the numbers ``starts[i]`` to ``starts[i + 1]``."""

    files: list[np.ndarray]  # float32 or float16 (N_i, D), memory-mapped
    starts: np.ndarray  # int64 (files + 1,)
    in_memory: torch.Tensor | None  # float32 (N, D) on the device, where they fit

    @property
    def shape(self) -> tuple[int, int]:
        """N and D."""
        return int(self.starts[-1]), self.files[0].shape[1]


def open_rows(paths: list[str], scratch: str | Path, device: torch.device, memory_mb: int) -> Rows:
    """Open .npy, .h5 and parquet files or folders as the rows that an RQ-VAE trains on.

    Args:
        paths: the files, in order.
        scratch: folder for copies of files other than .npy.
        device: where rows go.
        memory_mb: MiB; rows that fit are held in memory.

    Raises:
        SidmillError: if a file is unreadable, or dimensions differ.
    """
    files = [_open(path, Path(scratch, f"rows-{number}.npy")) for number, path in enumerate(paths)]
    for path, file in zip(paths, files, strict=True):
        if file.shape[1] != files[0].shape[1]:
            raise SidmillError(
                f"{path} has {file.shape[1]} dimensions, {paths[0]} has {files[0].shape[1]}: "
                "train on vectors of one model"
            )
    rows = Rows(files, np.cumsum([0, *map(len, files)]), None)

    # hold them in memory, if they fit
    n_rows, dim = rows.shape
    if n_rows * dim * row_blocks.FLOAT_BYTES > memory_mb * row_blocks.MIB:
        logger.info("%d x %d vectors are read for each batch", n_rows, dim)
        return rows
    whole = np.concatenate([row_blocks.read_all(file) for file in files])
    return rows._replace(in_memory=torch.from_numpy(whole).to(device))


def take(rows: Rows, chosen: np.ndarray, device: torch.device) -> torch.Tensor:
    """Read training rows of an RQ-VAE by ascending numbers: float32 (b, D) on the device."""
    if rows.in_memory is not None:
        return rows.in_memory[torch.from_numpy(chosen).to(device)]

    parts: list[np.ndarray] = []
    cuts = np.searchsorted(chosen, rows.starts)
    for file, start, low, high in zip(
        rows.files, rows.starts[:-1], cuts[:-1], cuts[1:], strict=True
    ):
        if high > low:
            local = chosen[low:high] - start
            parts += [block for _, block in row_blocks.read_blocks(file, len(local), local)]
    return torch.from_numpy(np.concatenate(parts)).to(device)


def blocks(rows: Rows, device: torch.device) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield all rows in order, with the number of the first: float32 (b, D) on the device."""
    for file, offset in zip(rows.files, rows.starts[:-1].tolist(), strict=True):
        for start in range(0, len(file), BLOCK_ROWS):
            numbers = np.arange(offset + start, offset + min(start + BLOCK_ROWS, len(file)))
            yield offset + start, take(rows, numbers, device)


def digest(arrays: Iterable[np.ndarray]) -> str:
    """Return a digest of the bytes of arrays, in order: moving a number changes it."""
    hashed = xxhash.xxh3_128()
    for array in arrays:
        hashed.update(np.ascontiguousarray(array).data)
    return hashed.hexdigest()


def held_out(n_rows: int, share: float, seed: int) -> np.ndarray:
    """Choose held-out rows of an RQ-VAE: bool (N,), by a hash of row number and seed."""
    mixed = np.arange(1, n_rows + 1, dtype=np.uint64) * np.uint64(ROW_MIX)
    mixed ^= np.uint64((seed + 1) * SEED_MIX % 2**64)
    for shift, factor in ((30, SEED_MIX), (27, 0x94D049BB133111EB), (31, 1)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    is_held_out: np.ndarray = mixed / 2.0**64 < share
    return is_held_out


def epoch_order(n_rows: int, seed: int, epoch: int) -> np.ndarray:
    """The order of one epoch: a permutation, int64 (n,), that seed and epoch alone decide."""
    return np.random.default_rng([seed, 1, epoch]).permutation(n_rows)


def batch_bounds(n_rows: int, batch_size: int, n_processes: int) -> np.ndarray:
    """Cut an epoch of an RQ-VAE into batches: int64 (steps + 1,), row numbers from 0 to n.

    All batches have ``batch_size`` rows and the last one the rest. A rest that would leave a
    process with fewer than ``MIN_BATCH_ROWS`` rows is spread over the other batches.

    Args:
        n_rows: n, at least ``MIN_BATCH_ROWS`` per process.
        batch_size: at least ``MIN_BATCH_ROWS`` per process.
        n_processes: processes that share each batch.
    """
    rest = n_rows % batch_size
    if n_rows > batch_size and 0 < rest < MIN_BATCH_ROWS * n_processes:
        n_steps = n_rows // batch_size
        return np.arange(n_steps + 1) * n_rows // n_steps
    return np.append(np.arange(0, n_rows, batch_size), n_rows)


def find_files(paths: list[str], fingerprint: dict[str, object]) -> list[str]:
    """List the files of ``rqvae.data_paths``: files, folders or globs.

    Raises:
        SidmillError: if there is no such file, or one states that it holds other embeddings.
    """
    files = [file for path in paths for file in expand(path, SUFFIXES, "rqvae.data_paths")]
    for file in files:
        stated = vector_file.fingerprint_of(file)
        if stated and stated != fingerprint:
            raise SidmillError(
                f"{file} holds other embeddings than results/items ({stated}, not {fingerprint}): "
                "take it out of rqvae.data_paths, or embed the items with the same model"
            )
    return files


def dimension(path: str) -> int:
    """D of a file of vectors: .npy, .h5 or parquet."""
    return int(vector_file.open_rows(path).shape[1])


def read_pairs(path: str, ids_path: str) -> np.ndarray:
    """Read pairs of items consumed together, the data of an RQ-VAE's contrastive loss, as rows.

    Of ``sequences.parquet``, neighbours in a history make a pair, where both belong to the training
    part: items held out for tests are not trained on. Any other parquet has ``pid_a`` and
    ``pid_b``. Memory: 16 bytes per pair, and what :func:`sidmill.io.id_lookup.make` takes.

    Args:
        path: the parquet.
        ids_path: ids.parquet of the vectors.

    Returns:
        int64 (P, 2); the two items of a pair differ.

    Raises:
        SidmillError: if an id is not in the catalogue, or of another type; if there is no pair.
    """
    lookup = id_lookup.make(vector_store.read_pids(ids_path))
    parts = [
        np.column_stack([_rows_of(pids, lookup, path) for pids in columns])
        for columns in _read_pids(path)
    ]
    pairs: np.ndarray = np.concatenate([NO_PAIRS, *parts])
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]  # int64 (P, 2)
    if not len(pairs):
        raise SidmillError(
            f"{path}: no two different items stand together: set contrastive_weight 0"
        )
    return pairs


def colliding_pairs(codes: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Find pairs with equal codes, the data of an RQ-VAE's repulsion loss: int64 (C, 2).

    Each item is paired with the next one of equal codes; pairs are ordered by code and row.

    Args:
        codes: int32 (N, L).
        usable: bool (N,), items that may be trained on.
    """
    rows = np.flatnonzero(usable)
    order: np.ndarray = rows[np.lexsort(codes[rows].T[::-1])]  # stable: equal codes by row
    same = (codes[order[1:]] == codes[order[:-1]]).all(axis=1)
    return np.column_stack([order[:-1][same], order[1:][same]])


def _open(path: str, copy: Path) -> np.ndarray:
    """Map the vectors of a file, copied to ``copy`` where they cannot be mapped as they are."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise SidmillError(f"{path}: neither .npy, .h5 nor .parquet: name such files")
    rows = vector_file.open_rows(path)
    if isinstance(rows, np.ndarray):
        return rows
    vector_store.write(copy, rows.shape, "float32", rows.read())
    return vector_store.open_npy(copy)


def _read_pids(path: str) -> Iterator[tuple[pa.Array, pa.Array]]:
    """Yield the ids of both items of each pair, row for row."""
    # a table of pairs
    if "item_ids" not in pq.read_schema(path).names:
        file = parquet.open_file(path, {"pid_a": parquet.is_pid, "pid_b": parquet.is_pid})
        for table in parquet.read_rows(file, ["pid_a", "pid_b"], 0, file.metadata.num_rows):
            yield table["pid_a"].combine_chunks(), table["pid_b"].combine_chunks()
        return

    # histories: each training item with the next one of the same user
    for table in sequence_table.read(path):
        items = pc.list_flatten(table["item_ids"]).combine_chunks()
        user = pc.list_parent_indices(table["item_ids"]).to_numpy()
        split = pc.list_flatten(table["splits"]).to_numpy()
        is_train = split == sequence_table.TRAIN
        first = np.flatnonzero((user[1:] == user[:-1]) & is_train[1:] & is_train[:-1])
        yield items.take(pa.array(first)), items.take(pa.array(first + 1))


def _rows_of(pids: pa.Array, lookup: id_lookup.Lookup, path: str) -> np.ndarray:
    rows = id_lookup.find(lookup, pids, path)
    if (rows == id_lookup.ABSENT).any():
        missing = pids[int(rows.argmin())].as_py()
        raise SidmillError(
            f"{path}: item {missing!r} is not in the catalogue: use pairs of the items of this run"
        )
    return np.asarray(rows, dtype=np.int64)
