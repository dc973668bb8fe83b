"""vectors.npy and training histories -> fused.npy and fused_ids.parquet.

For cross-fitting, fused_folds.npy and fused_folds_ids.parquet: all items once for each fold of the
users, fused without the users of that fold, one fold after another.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.formats import vector_store
from sidmill.formats.embedding_shards import FINGERPRINT_KEY
from sidmill.formats.vector_store import VectorStore
from sidmill.fuse import cooccurrence, graph, histories, svd
from sidmill.fuse.histories import Counts, Without
from sidmill.fuse.svd import Factors
from sidmill.io import id_lookup, parquet
from sidmill.settings import base
from sidmill.settings.fuse import Fuse

logger = logging.getLogger(__name__)

# Science settings that a method reads: its fingerprint has no other.
READS = {
    "graph": ("method", "weight", "window", "neighbours", "shrinkage", "normalize"),
    "svd": ("method", "weight", "window", "neighbours", "shrinkage", "dim"),
}


class Files(NamedTuple):
    """Paths: what is read, and what is written.

    Attributes:
        vectors: vectors.npy.
        ids: ids.parquet.
        sequences: sequences.parquet.
        fused: fused.npy, to write.
        fused_ids: its ids.parquet, to write.
    """

    vectors: str | Path
    ids: str | Path
    sequences: str | Path
    fused: str | Path
    fused_ids: str | Path


class _Source(NamedTuple):
    """What is fused.

    Attributes:
        store: the text vectors and their ids.
        ids: int64 or string (N,).
        lookup: from ids to rows.
        sequences: sequences.parquet.
        folder: for temporary files.
    """

    store: VectorStore
    ids: pa.Array
    lookup: id_lookup.Lookup
    sequences: str | Path
    folder: str


class _Fused(NamedTuple):
    """Fused vectors, not yet computed.

    Attributes:
        blocks: float32 (b, D) in order.
        dim: D.
        factors: of svd.
        identity: what the fingerprint says of them.
    """

    blocks: Iterator[np.ndarray]
    dim: int
    factors: Factors | None
    identity: dict[str, Any]


def fuse(files: Files, settings: Fuse, *, seed: int) -> tuple[int, int]:
    """Write the fused vectors of all items, in the order and dtype of the text vectors.

    Only interactions of the split train are used. ``settings.memory_mb`` changes no byte.

    Memory: ``memory_mb``, the ids, and about 60 bytes per item; svd also takes what
    :func:`sidmill.fuse.svd.factorise` says.

    Args:
        files: to read and to write.
        settings: the method and its weights; method is not none.
        seed: of the randomised SVD; graph draws nothing.

    Returns:
        The shape of fused.npy.

    Raises:
        SidmillError: if the method is none, an item of the histories has no vector, or a vector is
            not finite.
    """
    source = _open(files, settings)
    fused = _fuse(source, settings, seed, None, None)
    shape = (len(source.ids), fused.dim)
    dtype = source.store.vectors.dtype.name
    sums = vector_store.write(files.fused, shape, dtype, fused.blocks)
    fingerprint = source.store.fingerprint | fused.identity
    vector_store.write_ids(files.fused_ids, source.store.ids, shape, fingerprint, sums)
    return shape


def fuse_folds(
    files: Files, fused_ids: str | Path, settings: Fuse, *, seed: int
) -> tuple[int, int]:
    """Write the vectors of all items as they are without the users of each fold.

    Row f N + i is item i without the users of fold f. Axes are those of fused.npy: factors of svd
    are rotated onto those of all users, so one quantizer encodes them all.

    Memory: as :func:`fuse`; svd holds its factors twice. Time: ``settings.folds`` times as much,
    with svd once more.

    Args:
        files: to read and to write.
        fused_ids: fused_ids.parquet of the vectors of all users; its fingerprint is taken.
        settings: as of these vectors; ``folds`` is 2 or more.
        seed: as of these vectors.

    Returns:
        The shape of fused_folds.npy.

    Raises:
        SidmillError: as :func:`fuse`.
    """
    source = _open(files, settings)
    with parquet.naming(fused_ids):
        whole_ids = parquet.open_file(fused_ids, {"pid": parquet.is_pid})
    fingerprint = parquet.metadata_json(whole_ids, FINGERPRINT_KEY)
    whole = None
    if settings.method == "svd":
        whole = _fuse(source, settings, seed, None, None).factors

    # One fold after another; vectors of a fold are computed when they are written.
    def blocks() -> Iterator[np.ndarray]:
        for fold in range(settings.folds):
            logger.info("without the users of fold %d of %d", fold + 1, settings.folds)
            yield from _fuse(source, settings, seed, Without(fold, settings.folds), whole).blocks

    dim = source.store.vectors.shape[1] + (settings.dim if settings.method == "svd" else 0)
    shape = (settings.folds * len(source.ids), dim)
    sums = vector_store.write(files.fused, shape, source.store.vectors.dtype.name, blocks())
    ids = pa.chunked_array([source.ids] * settings.folds)
    vector_store.write_ids(files.fused_ids, ids, shape, fingerprint, sums)
    return shape


def _open(files: Files, settings: Fuse) -> _Source:
    """Open what is fused."""
    if settings.method == "none":
        raise SidmillError("fuse.method is none: set graph or svd, or leave fused.npy out")
    store = vector_store.open_store(files.vectors, files.ids)
    ids = store.ids.combine_chunks()
    lookup = id_lookup.make(ids, files.ids)
    return _Source(store, ids, lookup, files.sequences, f"{files.fused}.pairs")


def _fuse(
    source: _Source, settings: Fuse, seed: int, without: Without | None, whole: Factors | None
) -> _Fused:
    """Prepare fused vectors, without the users of a fold.

    Args:
        source: what is fused.
        settings: the method.
        seed: of its draws.
        without: users who are left out.
        whole: svd: factors of all users, whose axes those of a fold are rotated onto.
    """
    vectors, n_items = source.store.vectors, len(source.ids)
    counts = histories.count(source.sequences, source.lookup, n_items, without)
    found = cooccurrence.find(
        source.sequences, source.lookup, counts, settings, source.folder, without
    )
    found = _told(found, counts, source.sequences)
    identity, dim = _rule(settings), vectors.shape[1]
    if settings.method == "graph":
        return _Fused(graph.blocks(vectors, found, counts.users, settings), dim, None, identity)

    # Factors of all items are in memory, so that blocks can be cut anywhere.
    pairs = svd.gather(found)
    factors = svd.factorise(pairs, settings, seed)
    if whole is not None:
        factors = svd.rotate(factors, whole)
    dim += settings.dim
    identity |= {"dim": dim, "fuse.seed": seed}
    identity |= {"fuse.interactions": svd.digest(pairs, source.ids)}
    return _Fused(svd.blocks(vectors, factors, counts.users, settings), dim, factors, identity)


def _rule(settings: Fuse) -> dict[str, Any]:
    """What the fingerprint says of the fusion."""
    identity = base.identity(settings)
    return {f"fuse.{key}": identity[key] for key in READS[settings.method]}


def _told(
    found: Iterator[cooccurrence.Neighbours], counts: Counts, path: str | Path
) -> Iterator[cooccurrence.Neighbours]:
    """Pass neighbours through; log how many items have any, and warn where none has."""
    n_fused = 0
    for lists in found:
        n_fused += int((np.diff(lists.bounds) > 0).sum())
        yield lists
    n_items = len(counts.users)
    logger.info(
        "%d of %d items have neighbours by consumption, the others keep their text vectors",
        n_fused,
        n_items,
    )
    if not n_fused:
        logger.warning(
            "%s: no user has two different items in training, so every item keeps its text "
            "vector: set fuse.method: none, or name a longer log in interactions.path",
            path,
        )
