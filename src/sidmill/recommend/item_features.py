"""The items that a recommender knows: their ids, their text embeddings, and a number for each.

Item number r, in [0, N), is row r of the embeddings. Shapes: N items, D dimensions.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.formats import lcrec_index, memory_maps, vector_store
from sidmill.io import id_lookup
from sidmill.numeric.row_blocks import read_blocks, require_finite, take

BLOCK_ROWS = 4096
WHITENING_FLOOR = 0.01  # added to every variance, as a share of their mean
RANK_FLOOR = 1e-6  # directions of less variance than this share of the largest hold nothing


class Items(NamedTuple):
    """``ids`` has N rows, ``vectors`` is a read-only map (N, D), ``numbers`` finds ids in ids.

    ``fingerprint`` names the space of the vectors; ``{}`` where that is not known.
    """

    ids: pa.Array
    vectors: np.ndarray
    numbers: id_lookup.Lookup
    fingerprint: dict


class Whitening(NamedTuple):
    """``mean`` float32 (D,) is taken off, ``matrix`` float32 (D, D) multiplied from the right."""

    mean: np.ndarray
    matrix: np.ndarray


def load(
    vectors_path: str | Path | None, ids_path: str | Path | None, mmap_path: str | Path | None
) -> Items:
    """Open the items of a run, from vectors.npy or from memory maps. Vectors stay on disk.

    Memory: the ids, and a hash table of them.

    Args:
        vectors_path: vectors.npy; not read where there are memory maps.
        ids_path: ids.parquet, likewise.
        mmap_path: mmap.json, of SIDMill or written for maps made elsewhere; None for vectors.npy.
            Where item_index.parquet lies beside it, items have the ids that it gives.

    Raises:
        SidmillError: if files are unreadable, or do not fit each other.
    """
    if mmap_path is None:
        store = vector_store.open_store(vectors_path, ids_path)
        return of(store.ids.combine_chunks(), store.vectors, store.fingerprint)
    maps = memory_maps.open_maps(mmap_path)
    numbers = _numbers_of_rows(maps.index, len(maps.embeddings), mmap_path)
    ids = pa.array(numbers)
    index_path = Path(mmap_path).with_name("item_index.parquet")
    if index_path.exists():
        pids, known = lcrec_index.read(index_path)
        places = id_lookup.find(id_lookup.make(pa.array(known)), pa.array(numbers), str(mmap_path))
        if (places < 0).any():
            raise SidmillError(f"{index_path} lacks items of {mmap_path}: make both again")
        ids = pids.combine_chunks().take(pa.array(places))
    return of(ids, maps.embeddings[1:], maps.fingerprint)


def of(ids: pa.Array, vectors: np.ndarray, fingerprint: dict) -> Items:
    """Take items whose ids (N,) are in the order of the rows of ``vectors`` (N, D)."""
    return Items(ids, vectors, id_lookup.make(ids), fingerprint)


def _numbers_of_rows(index: np.ndarray, n_rows: int, path: str | Path) -> np.ndarray:
    """Item id of each row of a map but the first: int64 (n_rows - 1,)."""
    known = np.flatnonzero(index)
    order = np.argsort(index[known], kind="stable")
    if not np.array_equal(index[known][order], np.arange(1, n_rows)):
        raise SidmillError(
            f"{path}: the index names {len(known)} items for {n_rows - 1} vectors: each row but "
            f"the first wants one item id"
        )
    return known[order].astype(np.int64)


def look_up(items: Items, ids: pa.Array, where: str) -> np.ndarray:
    """Numbers of items, int32 (n,).

    Raises:
        SidmillError: if one has no embedding, or ids are of another type.
    """
    numbers = id_lookup.find(items.numbers, ids, where)
    missing = np.flatnonzero(numbers < 0)
    if missing.size:
        raise SidmillError(
            f"{where}: {missing.size} interactions are with items that have no embedding, first "
            f"{ids[int(missing[0])].as_py()!r}: read the interactions against the same catalogue"
        )
    return numbers


def gather(items: Items, whitening: Whitening | None, numbers: np.ndarray) -> np.ndarray:
    """Text embeddings of some items, as the model sees them: float32 (n, D).

    Raises:
        SidmillError: if a vector is not finite.
    """
    block = take(items.vectors, numbers)
    require_finite(block, 0)
    return block if whitening is None else (block - whitening.mean) @ whitening.matrix


def measure_whitening(items: Items) -> Whitening:
    """Find the transformation that gives the embeddings mean 0 and covariance near 1.

    Text encoders crowd their vectors into a narrow cone; whitened ones recommend better
    (https://arxiv.org/abs/2402.10602). Memory: 3 D x D doubles and one block of rows.
    """
    n_items, dim = items.vectors.shape
    total, products = np.zeros(dim), np.zeros((dim, dim))
    for start, read in read_blocks(items.vectors, BLOCK_ROWS):
        require_finite(read, start)
        block = read.astype(np.float64)
        total += block.sum(axis=0)
        products += block.T @ block
    mean = total / n_items
    variances, axes = np.linalg.eigh(products / n_items - np.outer(mean, mean))
    scales = np.zeros(dim)
    full = variances > RANK_FLOOR * variances.max()
    scales[full] = (variances[full] + WHITENING_FLOOR * variances.mean()) ** -0.5
    return Whitening(mean.astype(np.float32), (axes * scales).astype(np.float32))
