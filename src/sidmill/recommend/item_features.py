"""Items of a recommender: their ids, their text embeddings, and a number for each.

Item number r, in [0, N), is row r of the embeddings. Shapes: N items, D dimensions.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.formats import item_index, memory_maps, vector_store
from sidmill.io import id_lookup
from sidmill.numeric import moments
from sidmill.numeric.row_blocks import require_finite, take

WHITENING_FLOOR = 0.01  # added to every variance, as a share of their mean
RANK_FLOOR = 1e-6  # directions below this share of the largest variance are taken for noise


class Items(NamedTuple):
    """All items, in the order of their numbers.

    Attributes:
        ids: int64 or string (N,).
        vectors: a read-only map (N, D).
        numbers: the number of each id.
        fingerprint: of the embeddings; ``{}`` where it is unknown.
    """

    ids: pa.Array
    vectors: np.ndarray
    numbers: id_lookup.Lookup
    fingerprint: dict[str, Any]


class Whitening(NamedTuple):
    """Subtract ``mean`` float32 (D,), then multiply by ``matrix`` float32 (D, D) from the right."""

    mean: np.ndarray
    matrix: np.ndarray


def load(
    vectors_path: str | Path | None, ids_path: str | Path | None, mmap_path: str | Path | None
) -> Items:
    """Open the items of a recommender, from vectors.npy or memory maps; vectors stay on disk.

    Memory: the ids, and a hash table of them.

    Args:
        vectors_path: vectors.npy; not read where there are memory maps.
        ids_path: ids.parquet; not read where there are memory maps.
        mmap_path: mmap.json, of SIDMill or written for maps made elsewhere; None for vectors.npy.
            If item_index.parquet lies in the same folder, it gives the ids of the items.

    Raises:
        SidmillError: if files are unreadable, or do not fit each other.
    """
    if mmap_path is None:
        if vectors_path is None or ids_path is None:
            raise ValueError("neither vectors.npy with ids.parquet nor mmap.json is given")
        store = vector_store.open_store(vectors_path, ids_path)
        return of(store.ids.combine_chunks(), store.vectors, store.fingerprint)

    # Row 0 of the maps is padding.
    maps = memory_maps.open_maps(mmap_path)
    ids = pa.array(_ids_of_rows(maps.index, len(maps.embeddings), mmap_path))

    # LC-Rec numbers the items of a catalogue: its index leads back to their own ids.
    index_path = Path(mmap_path).with_name("item_index.parquet")
    if index_path.exists():
        pids, numbers = item_index.read(index_path)
        rows = id_lookup.find(id_lookup.make(pa.array(numbers)), ids, str(mmap_path))
        if (rows < 0).any():
            raise SidmillError(f"{index_path} lacks items of {mmap_path}: make both again")
        ids = pids.combine_chunks().take(pa.array(rows))
    return of(ids, maps.embeddings[1:], maps.fingerprint)


def of(ids: pa.Array, vectors: np.ndarray, fingerprint: dict[str, Any]) -> Items:
    """Make items of ids (N,) in the order of the rows of ``vectors`` (N, D)."""
    return Items(ids, vectors, id_lookup.make(ids), fingerprint)


def _ids_of_rows(index: np.ndarray, n_rows: int, path: str | Path) -> np.ndarray:
    """Item id of each row of a map but the first: int64 (n_rows - 1,)."""
    ids = np.flatnonzero(index)
    order = np.argsort(index[ids], kind="stable")
    if not np.array_equal(index[ids][order], np.arange(1, n_rows)):
        raise SidmillError(
            f"{path}: the index names {len(ids)} items for {n_rows - 1} vectors: each row but "
            f"the first needs one item id"
        )
    return ids[order].astype(np.int64)


def look_up(items: Items, ids: pa.Array, where: str) -> np.ndarray:
    """Look up the numbers of a recommender's items by id: int32 (n,).

    Raises:
        SidmillError: if an item has no embedding, or the ids have another type.
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
    """Text embeddings of some items, whitened if the model's are: float32 (n, D).

    Raises:
        SidmillError: if a vector is not finite.
    """
    block = take(items.vectors, numbers)
    require_finite(block, 0)
    return block if whitening is None else (block - whitening.mean) @ whitening.matrix


def measure_whitening(items: Items) -> Whitening:
    """Find the whitening of item embeddings, which gives them mean 0 and covariance near 1.

    Vectors of text encoders lie in a narrow cone; whitened ones recommend better
    (https://arxiv.org/abs/2402.10602). Memory: 3 D x D doubles and one block of rows.
    """
    # Mean and covariance of all rows, in float64.
    measured = moments.measure(items.vectors)
    mean = measured.mean()

    # Principal axes, scaled to variance near 1.
    matrix = scaled_axes(measured.covariance(), 0.5)
    return Whitening(mean.astype(np.float32), matrix.astype(np.float32))


def scaled_axes(covariance: np.ndarray, power: float, n_axes: int | None = None) -> np.ndarray:
    """Principal axes, each divided by a power of its variance; axes without variance are zeros.

    Args:
        covariance: float64 (D, D).
        power: 0.5 gives variances near 1, less leaves more of their differences.
        n_axes: how many, those of the largest variances; None: all.

    Returns:
        float64 (D, n_axes), as columns, largest variance last.
    """
    variances, axes = np.linalg.eigh(covariance)
    scales = np.zeros(len(variances))
    has_variance = variances > RANK_FLOOR * variances.max(initial=0.0)
    floored = variances[has_variance] + WHITENING_FLOOR * variances.mean()
    scales[has_variance] = floored**-power
    kept = len(variances) if n_axes is None else n_axes
    matrix: np.ndarray = (axes * scales)[:, -kept:]
    return matrix
