"""vectors.npy and training histories -> fused.npy and fused_ids.parquet."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sidmill.core.errors import SidmillError
from sidmill.formats import vector_store
from sidmill.fuse import cooccurrence, graph, histories, svd
from sidmill.fuse.histories import Counts
from sidmill.io import id_lookup
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
    if settings.method == "none":
        raise SidmillError("fuse.method is none: set graph or svd, or leave fused.npy out")
    store = vector_store.open_store(files.vectors, files.ids)
    ids = store.ids.combine_chunks()
    lookup = id_lookup.make(ids, files.ids)
    counts = histories.count(files.sequences, lookup, len(ids))
    found = cooccurrence.find(files.sequences, lookup, counts, settings, f"{files.fused}.pairs")
    found = _told(found, counts, files.sequences)
    fingerprint = store.fingerprint | _rule(settings)

    # Each method gives blocks of rows in order.
    shape = store.vectors.shape
    if settings.method == "graph":
        blocks = graph.blocks(store.vectors, found, counts.users, settings)
    else:
        pairs = svd.gather(found)
        factors = svd.factorise(pairs, settings, seed)
        shape = (shape[0], shape[1] + settings.dim)
        blocks = svd.blocks(store.vectors, factors, counts.users, settings)
        fingerprint |= {"dim": shape[1], "fuse.seed": seed}
        fingerprint |= {"fuse.interactions": svd.digest(pairs, ids)}

    sums = vector_store.write(files.fused, shape, store.vectors.dtype.name, blocks)
    vector_store.write_ids(files.fused_ids, store.ids, shape, fingerprint, sums)
    return shape


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
