"""``item_data.h5``: the vector of each item, and the tokens of its text.

    item_ids         int64 (n,), above 0, none twice
    embeddings       float32 (n, D)
    features         int32 (n, F), token ids, 0 behind the last
    feature_lengths  int32 (n,), how many of them count
    attributes       n_items, embedding_dim, max_feature_len, original_order_preserved

Letters: n items, D dimensions, F tokens at most.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from sidmill.core.errors import SidmillError
from sidmill.io import hdf5
from sidmill.io.hdf5 import DatasetSpec

DATASETS = [
    DatasetSpec("item_ids", "int64", ("n",)),
    DatasetSpec("embeddings", "float32", ("n", "D")),
    DatasetSpec("features", "int32", ("n", "F")),
    DatasetSpec("feature_lengths", "int32", ("n",)),
]
ATTRIBUTES = ["n_items", "embedding_dim", "max_feature_len", "original_order_preserved"]


class ItemData(NamedTuple):
    """An opened file. Memory: 8 bytes per item.

    Attributes:
        item_ids: int64 (n,).
        embeddings: float32 (n, D), on disk: slices of it are read. Random rows: :func:`rows`.
        features: int32 (n, F), on disk.
        feature_lengths: int32 (n,), on disk.
        mapped: the file as float32, and where in it each chunk of rows begins; None where the rows
            are compressed or cut.
        file: close it when done.
    """

    item_ids: np.ndarray
    embeddings: h5py.Dataset
    features: h5py.Dataset
    feature_lengths: h5py.Dataset
    mapped: tuple[np.ndarray, np.ndarray] | None
    file: h5py.File


class Block(NamedTuple):
    """Rows to write: vectors float (b, D), tokens int32 (b, F), token counts int32 (b,)."""

    embeddings: np.ndarray
    features: np.ndarray
    feature_lengths: np.ndarray


def write(
    path: str | Path, item_ids: np.ndarray, dim: int, max_feature_len: int, blocks: Iterable[Block]
) -> None:
    """Write item_data.h5 block by block, atomically, in the order given.

    Args:
        path: the file.
        item_ids: int64 (n,).
        dim: D.
        max_feature_len: F.
        blocks: n rows in all.

    Raises:
        SidmillError: if the blocks do not hold n rows of D and F.
    """
    n = len(item_ids)
    row = 0
    with hdf5.writing(path) as file:
        # Datasets of their final size, in chunks of whole rows.
        file.create_dataset("item_ids", data=item_ids, dtype=np.int64, chunks=_chunks(n, 8))
        embeddings = file.create_dataset(
            "embeddings", (n, dim), np.float32, chunks=_chunks(n, 4 * dim, dim)
        )
        features = file.create_dataset(
            "features",
            (n, max_feature_len),
            np.int32,
            chunks=_chunks(n, 4 * max_feature_len, max_feature_len),
            compression="gzip",  # mostly padding
            compression_opts=1,
            shuffle=True,
        )
        lengths = file.create_dataset("feature_lengths", (n,), np.int32, chunks=_chunks(n, 4))

        # Blocks of rows, in order.
        for block in blocks:
            end = row + len(block.embeddings)
            found = (block.embeddings.shape[1:], block.features.shape)
            if end > n or found != ((dim,), (end - row, max_feature_len)):
                raise SidmillError(
                    f"{path}: rows {row} to {end} hold vectors {block.embeddings.shape} and tokens "
                    f"{block.features.shape}, wanted {n} rows of {dim} and {max_feature_len}"
                )
            embeddings[row:end] = block.embeddings
            features[row:end] = block.features
            lengths[row:end] = block.feature_lengths
            row = end

        # Attributes last, once all rows are there.
        if row != n:
            raise SidmillError(f"{path}: {row} vectors for {n} items: embed them again")
        file.attrs["n_items"] = n
        file.attrs["embedding_dim"] = dim
        file.attrs["max_feature_len"] = max_feature_len
        file.attrs["original_order_preserved"] = True


def open_item_data(path: str | Path) -> ItemData:
    """Open item_data.h5, made by SIDMill or by others.

    Raises:
        SidmillError: naming dataset, shape and dtype, if one is missing or not as specified; if
            an id repeats or is below 1; if an attribute is missing or contradicts the datasets.
    """
    # Types and shapes, then the attributes that repeat the shapes.
    file = hdf5.open_checked(path, DATASETS, ATTRIBUTES)
    sizes = {
        "n_items": file["item_ids"].shape[0],
        "embedding_dim": file["embeddings"].shape[1],
        "max_feature_len": file["features"].shape[1],
    }
    try:
        for name, size in sizes.items():
            hdf5.check_attribute(path, file, name, size)

        # Ids are above 0 and without repeats.
        item_ids = file["item_ids"][:]
        ranked = np.sort(item_ids)
        if len(ranked) and (ranked[0] < 1 or (ranked[1:] == ranked[:-1]).any()):
            raise SidmillError(
                f"{path}: dataset 'item_ids' int64 {item_ids.shape}: ids repeat, or one is below 1 "
                f"(the lowest is {ranked[0]}); 0 is padding"
            )
    except BaseException:
        file.close()
        raise
    mapped = _map_rows(path, file["embeddings"])
    embeddings, features, lengths = file["embeddings"], file["features"], file["feature_lengths"]
    return ItemData(item_ids, embeddings, features, lengths, mapped, file)


def rows(data: ItemData, indices: np.ndarray) -> np.ndarray:
    """Read vectors of item_data.h5 by row numbers, in any order.

    Args:
        data: the opened file.
        indices: int64 of any shape, rows from 0.

    Returns:
        float32, of the shape of ``indices`` and D behind it, a copy.
    """
    if data.mapped is None:
        distinct, inverse = np.unique(indices, return_inverse=True)
        return np.asarray(data.embeddings[distinct])[inverse.reshape(indices.shape)]
    flat, starts = data.mapped
    n_rows = data.embeddings.chunks[0] if data.embeddings.chunks else len(data.item_ids)
    dim = data.embeddings.shape[1]
    windows = np.lib.stride_tricks.sliding_window_view(flat, dim)
    return np.asarray(windows[starts[indices // n_rows] + indices % n_rows * dim])


def _map_rows(path: str | Path, embeddings: h5py.Dataset) -> tuple[np.ndarray, np.ndarray] | None:
    """Map the file past the HDF5 library, which reads single rows slowly."""
    # Only plain numbers can be mapped: no filter, no other byte order, no other file.
    n, dim = embeddings.shape
    identifier = embeddings.id
    plain = identifier.get_create_plist().get_nfilters() == 0 and embeddings.dtype.isnative
    if not (plain and n and dim) or identifier.get_create_plist().get_external_count():
        return None

    # Where in the file the rows of each chunk begin, in bytes.
    if embeddings.chunks is None:
        offset = identifier.get_offset()
        offsets = [] if offset is None else [offset]
    elif embeddings.chunks[1] == dim:
        count = -(-n // embeddings.chunks[0])
        starts: dict[int, int] = {}  # byte in the file by first row of the chunk
        identifier.chunk_iter(  # in one walk; get_chunk_info walks again for every chunk
            lambda chunk: starts.__setitem__(chunk.chunk_offset[0], chunk.byte_offset)
        )
        offsets = [starts[row] for row in sorted(starts)] if len(starts) == count else []
    else:
        offsets = []
    if not offsets or any(offset % embeddings.dtype.itemsize for offset in offsets):
        return None

    size = Path(path).stat().st_size // embeddings.dtype.itemsize
    flat = np.memmap(path, dtype=embeddings.dtype, mode="r", shape=(size,))
    return flat, np.array(offsets, dtype=np.int64) // embeddings.dtype.itemsize


def _chunks(n: int, row_bytes: int, *widths: int) -> tuple[int, ...] | None:
    """Shape of a chunk of whole rows; None, which is no chunks, for a dataset without rows."""
    return (hdf5.chunk_rows(row_bytes, n), *widths) if n else None
