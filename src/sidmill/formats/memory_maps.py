"""``mmap_idx_{M}``, ``mmap_emb_{N}_{D}`` and ``mmap.json``: item vectors as memory maps.

    mmap_idx_{M}      int32 (M,), no header: item id to row of the other map, 0 for no item
    mmap_emb_{N}_{D}  float32 (N, D), no header: row 0 is zeros, for padding; items follow
    mmap.json         mmap_idx_path, mmap_idx_shape, mmap_emb_path, mmap_emb_shape, fingerprint;
                      paths are relative to its folder

Letters: n items, N = n + 1, M = largest item id + 1, D dimensions. Numbers are little-endian.

Source: data/dataset.py of https://github.com/gimpong/MM23-MISSRec
"""

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sidmill.core.atomic import replacing
from sidmill.core.errors import SidmillError
from sidmill.io import json_report

logger = logging.getLogger(__name__)

IDX_DTYPE, EMB_DTYPE = np.dtype("<i4"), np.dtype("<f4")
LARGEST_IDX_BYTES = 4 << 30  # a map of more than a billion ids is a mistake
BLOCK_IDS = 1 << 20


@dataclass(frozen=True)
class MemoryMaps:
    """An opened pair, read-only: ``embeddings[index[item_id]]`` is the item's vector.

    Attributes:
        index: int32 (M,).
        embeddings: float32 (N, D), row 0 zeros.
        fingerprint: names the embedding space, ``{}`` where the maps were made by others.
    """

    index: np.ndarray
    embeddings: np.ndarray
    fingerprint: dict[str, Any]


def write(
    json_path: str | Path,
    numbers: np.ndarray,
    shape: tuple[int, int],
    blocks: Iterable[np.ndarray],
    fingerprint: dict[str, Any],
) -> dict[str, Any]:
    """Write the pair block by block, and last mmap.json; maps of another size are removed.

    Args:
        json_path: mmap.json; the maps go into its folder.
        numbers: int64 (n,), the id of each item, above 0, none twice.
        shape: n and D.
        blocks: float (b, D) in row order, n rows in all.
        fingerprint: names the embedding space.

    Returns:
        What mmap.json holds. Memory: one block, and 16 bytes per item.

    Raises:
        SidmillError: if an id repeats, the largest id is out of all proportion, or the blocks do
            not hold n rows of D.
    """
    # The index has an entry for every number up to the largest id.
    folder = Path(json_path).parent
    order = _ordered(json_path, numbers)
    last = int(numbers[order[-1]]) if len(order) else 0
    n_ids = last + 1
    if n_ids * IDX_DTYPE.itemsize > LARGEST_IDX_BYTES:
        raise SidmillError(
            f"{json_path}: the largest item id is {last}, so the index would take "
            f"{n_ids * IDX_DTYPE.itemsize / 1e9:,.0f} GB for {len(numbers)} items: set "
            f"items.id_type: string, which numbers them from 1 (see item_index.parquet)"
        )

    rows, dim = shape[0] + 1, shape[1]
    facts: dict[str, Any] = {
        "mmap_idx_path": f"mmap_idx_{n_ids}",
        "mmap_idx_shape": [n_ids],
        "mmap_emb_path": f"mmap_emb_{rows}_{dim}",
        "mmap_emb_shape": [rows, dim],
        "fingerprint": fingerprint,
    }

    # mmap.json goes first and comes last, so it never names maps of another run.
    Path(json_path).unlink(missing_ok=True)
    _write_index(folder / facts["mmap_idx_path"], numbers, order, n_ids)
    _write_embeddings(folder / facts["mmap_emb_path"], shape, blocks)
    _remove_others(folder, {facts["mmap_idx_path"], facts["mmap_emb_path"]})
    json_report.write(json_path, facts)
    return facts


def open_maps(json_path: str | Path) -> MemoryMaps:
    """Open the memory maps that mmap.json names.

    Raises:
        SidmillError: if a file is missing, or does not fit its shape.
    """
    facts = json_report.read(json_path)
    required = ("mmap_idx_path", "mmap_idx_shape", "mmap_emb_path", "mmap_emb_shape")
    missing = [key for key in required if key not in facts]
    if missing:
        raise SidmillError(f"{json_path}: lacks {', '.join(missing)}: delete it and run again")
    for key in ("mmap_idx_path", "mmap_emb_path"):
        if not isinstance(facts[key], str):
            raise SidmillError(f"{json_path}: {key} is {facts[key]!r}, wanted a path: correct it")
    folder = Path(json_path).parent
    maps = open_pair(
        mmap_idx_path=folder / facts["mmap_idx_path"],
        mmap_idx_shape=facts["mmap_idx_shape"],
        mmap_emb_path=folder / facts["mmap_emb_path"],
        mmap_emb_shape=facts["mmap_emb_shape"],
    )
    return replace(maps, fingerprint=facts.get("fingerprint", {}))


def open_pair(
    *,
    mmap_idx_path: str | Path,
    mmap_idx_shape: int | list[int] | tuple[int, ...],
    mmap_emb_path: str | Path,
    mmap_emb_shape: list[int] | tuple[int, ...],
) -> MemoryMaps:
    """Open a pair of maps, made by SIDMill or by others. Vectors stay on disk.

    Args:
        mmap_idx_path: int32 without a header.
        mmap_idx_shape: M, or (M,).
        mmap_emb_path: float32 without a header.
        mmap_emb_shape: (N, D).

    Raises:
        SidmillError: if a file is missing or its size does not fit its shape; if the index names a
            row that is not there; if row 0 of the embeddings is not zero.
    """
    # Each file by itself, then whether every entry of the index has a row.
    idx_shape = [mmap_idx_shape] if isinstance(mmap_idx_shape, int) else mmap_idx_shape
    index = _open(mmap_idx_path, idx_shape, IDX_DTYPE, 1)
    embeddings = _open(mmap_emb_path, mmap_emb_shape, EMB_DTYPE, 2)
    for start in range(0, len(index), BLOCK_IDS):
        block = index[start : start + BLOCK_IDS]
        odd = np.flatnonzero((block < 0) | (block >= len(embeddings)))
        if odd.size:
            raise SidmillError(
                f"{mmap_idx_path}: item id {start + odd[0]} has row {block[odd[0]]}, but "
                f"{mmap_emb_path} has rows 0 to {len(embeddings) - 1}: the two do not belong "
                f"together"
            )

    # Padding: id 0 has row 0, which is zeros.
    if index[0] != 0:
        raise SidmillError(f"{mmap_idx_path}: item id 0 is padding and wants row 0, not {index[0]}")
    if embeddings[0].any():
        raise SidmillError(
            f"{mmap_emb_path}: row 0 is padding and wants zeros: is the shape {mmap_emb_shape} "
            f"right?"
        )
    return MemoryMaps(index, embeddings, {})


def _open(path: str | Path, shape: Sequence[int], dtype: np.dtype, ndim: int) -> np.ndarray:
    sizes = shape if isinstance(shape, list | tuple) else ()
    if len(sizes) != ndim or any(type(size) is not int or size < 1 for size in sizes):
        form = "(M,)" if ndim == 1 else "(N, D)"
        raise SidmillError(
            f"{path}: shape {shape}, wanted {form} of whole numbers above 0: correct it in "
            f"mmap.json"
        )
    if not Path(path).is_file():
        raise SidmillError(
            f"{path}: no such file: make it again with --forcerun write_mmap, or correct its path"
        )
    size, expected = Path(path).stat().st_size, math.prod(shape) * dtype.itemsize
    if size != expected:
        raise SidmillError(
            f"{path}: {size} bytes, but {dtype.name} {shape} takes {expected}: the shape or the "
            f"type is another (float16 takes half, a .npy file 128 more)"
        )
    return np.memmap(path, dtype=dtype, mode="r", shape=tuple(shape))


def _ordered(json_path: str | Path, numbers: np.ndarray) -> np.ndarray:
    order = np.argsort(numbers, kind="stable")
    ranked = numbers[order]
    again = np.flatnonzero(ranked[1:] == ranked[:-1])
    if again.size or (len(ranked) and ranked[0] < 1):
        odd = ranked[again[0]] if again.size else ranked[0]
        raise SidmillError(f"{json_path}: item id {odd} is below 1 or stands twice")
    return order


def _write_index(path: Path, numbers: np.ndarray, order: np.ndarray, n_ids: int) -> None:
    """Write the index a stretch of ids at a time."""
    ranked = numbers[order]
    with replacing(path) as temporary, temporary.open("wb") as out:
        for start in range(0, n_ids, BLOCK_IDS):
            block = np.zeros(min(BLOCK_IDS, n_ids - start), dtype=IDX_DTYPE)
            begin, end = np.searchsorted(ranked, (start, start + len(block)))
            block[ranked[begin:end] - start] = order[begin:end] + 1
            out.write(block.data)


def _write_embeddings(path: Path, shape: tuple[int, int], blocks: Iterable[np.ndarray]) -> None:
    rows = 0
    with replacing(path) as temporary, temporary.open("wb") as out:
        out.write(np.zeros(shape[1], dtype=EMB_DTYPE).data)
        for block in blocks:
            if block.shape[1:] != (shape[1],):
                raise SidmillError(f"{path}: a block of {block.shape} for vectors of {shape[1]}")
            out.write(np.ascontiguousarray(block, dtype=EMB_DTYPE).data)
            rows += len(block)
        if rows != shape[0]:
            raise SidmillError(f"{path}: {rows} vectors for {shape[0]} items: embed them again")


def _remove_others(folder: Path, kept: set[str]) -> None:
    for pattern in ("mmap_idx_*", "mmap_emb_*"):
        for stale in sorted(folder.glob(pattern)):
            if stale.name not in kept:
                logger.info("removing %s, left from another number of items", stale)
                stale.unlink()
