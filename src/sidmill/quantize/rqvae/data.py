"""Training rows: one or several files of one dimension, read by batches wherever they lie.

Shapes: N rows of all files together, D dimensions, n training rows, b rows of a batch.

A .npy is read where it is; HDF5 and parquet are copied once, block by block, to a .npy beside the
checkpoints, which the training removes. Rows that fit in ``memory_mb`` are held in memory, others
are read for each batch. Batches are the same either way.
"""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import xxhash

from sidmill.core.errors import SidmillError
from sidmill.core.paths import expand
from sidmill.formats import vector_file, vector_store
from sidmill.numeric import row_blocks
from sidmill.quantize.rqvae.trials import LEAST_ROWS

logger = logging.getLogger(__name__)

SUFFIXES = (".npy", ".h5", ".parquet")
BLOCK_ROWS = 4096
ROW_MIX, SEED_MIX = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9  # odd numbers of SplitMix64


class Rows(NamedTuple):
    """All rows: those of file i have the numbers ``starts[i]`` to ``starts[i + 1]``."""

    files: list[np.ndarray]  # float32 or float16 (N_i, D), memory-mapped
    starts: np.ndarray  # int64 (files + 1,)
    held: torch.Tensor | None  # float32 (N, D) on the device, where they fit

    @property
    def shape(self) -> tuple[int, int]:
        """N and D."""
        return int(self.starts[-1]), self.files[0].shape[1]


def open_rows(paths: list[str], scratch: str | Path, device: torch.device, memory_mb: int) -> Rows:
    """Open .npy, .h5 and parquet files or folders as the rows of one training.

    Args:
        paths: the files, in order.
        scratch: folder for copies of what is no .npy.
        device: where rows go.
        memory_mb: rows that fit in so many MiB are held there.

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
    n_rows, dim = rows.shape
    if n_rows * dim * row_blocks.FLOAT_BYTES > memory_mb * row_blocks.MIB:
        logger.info("%d x %d vectors are read for each batch", n_rows, dim)
        return rows
    held = np.concatenate([row_blocks.read_all(file) for file in files])
    return rows._replace(held=torch.from_numpy(held).to(device))


def take(rows: Rows, chosen: np.ndarray, device: torch.device) -> torch.Tensor:
    """Read rows by their ascending numbers: float32 (b, D) on the device."""
    if rows.held is not None:
        return rows.held[torch.from_numpy(chosen).to(device)]
    parts = []
    cuts = np.searchsorted(chosen, rows.starts)
    for file, start, low, high in zip(
        rows.files, rows.starts[:-1], cuts[:-1], cuts[1:], strict=True
    ):
        if high > low:
            wanted = chosen[low:high] - start
            parts += [block for _, block in row_blocks.read_blocks(file, len(wanted), wanted)]
    return torch.from_numpy(np.concatenate(parts)).to(device)


def blocks(rows: Rows, device: torch.device) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield all rows in order, with the number of the first: float32 (b, D) on the device."""
    for file, offset in zip(rows.files, rows.starts[:-1].tolist(), strict=True):
        for start in range(0, len(file), BLOCK_ROWS):
            numbers = np.arange(offset + start, offset + min(start + BLOCK_ROWS, len(file)))
            yield offset + start, take(rows, numbers, device)


def digest(arrays: Iterable[np.ndarray]) -> str:
    """Name arrays by their bytes, in order: the same numbers elsewhere, or moved, are others."""
    found = xxhash.xxh3_128()
    for array in arrays:
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


def held_out(n_rows: int, share: float, seed: int) -> np.ndarray:
    """Tell which rows only measure the training: bool (N,), by a hash of row number and seed."""
    mixed = np.arange(1, n_rows + 1, dtype=np.uint64) * np.uint64(ROW_MIX)
    mixed ^= np.uint64((seed + 1) * SEED_MIX % 2**64)
    for shift, factor in ((30, SEED_MIX), (27, 0x94D049BB133111EB), (31, 1)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed / 2.0**64 < share


def epoch_order(n_rows: int, seed: int, epoch: int) -> np.ndarray:
    """The order of one epoch: a permutation, int64 (n,), that seed and epoch alone decide."""
    return np.random.default_rng([seed, 1, epoch]).permutation(n_rows)


def batch_bounds(n_rows: int, batch_size: int, processes: int) -> np.ndarray:
    """Cut an epoch into batches: int64 (steps + 1,), row numbers from 0 to n.

    All batches have ``batch_size`` rows and the last one the rest. A rest that would leave a
    process with fewer than ``LEAST_ROWS`` rows is spread over the other batches.

    Args:
        n_rows: n, at least ``LEAST_ROWS`` per process.
        batch_size: at least ``LEAST_ROWS`` per process.
        processes: processes that share each batch.
    """
    rest = n_rows % batch_size
    if n_rows > batch_size and 0 < rest < LEAST_ROWS * processes:
        n_steps = n_rows // batch_size
        return np.arange(n_steps + 1) * n_rows // n_steps
    return np.append(np.arange(0, n_rows, batch_size), n_rows)


def find(paths: list[str], fingerprint: dict) -> list[str]:
    """List the files behind ``rqvae.data_paths``: files, folders or globs.

    Raises:
        SidmillError: if there is no such file, or one says that it holds other embeddings.
    """
    files = [file for path in paths for file in expand(path, SUFFIXES, "rqvae.data_paths")]
    for file in files:
        found = vector_file.fingerprint_of(file)
        if found and found != fingerprint:
            raise SidmillError(
                f"{file} holds other embeddings than results/items ({found}, not {fingerprint}): "
                "take it out of rqvae.data_paths, or embed the items with the same model"
            )
    return files


def dimension(path: str) -> int:
    """D of a file of vectors: .npy, .h5 or parquet."""
    return vector_file.open_rows(path).shape[1]


def _open(path: str, copy: Path) -> np.ndarray:
    """Map the vectors of a file, copied to ``copy`` where they cannot be mapped as they are."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise SidmillError(f"{path}: neither .npy, .h5 nor .parquet: name such files")
    rows = vector_file.open_rows(path)
    if isinstance(rows, np.ndarray):
        return rows
    vector_store.write(copy, rows.shape, "float32", rows.read())
    return vector_store.open_npy(copy)
