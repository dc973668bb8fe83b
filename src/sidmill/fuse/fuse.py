"""vectors.npy and training histories -> fused.npy and fused_ids.parquet.

For cross-fitting, fused_folds.npy and fused_folds_ids.parquet: all items once for each fold of the
users, fused without the users of that fold, one fold after another.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.formats import vector_store
from sidmill.formats.embedding_shards import FINGERPRINT_KEY
from sidmill.formats.vector_store import VectorStore
from sidmill.fuse import contrastive, cooccurrence, graph, histories, svd, whiten
from sidmill.fuse.cooccurrence import Neighbours
from sidmill.fuse.histories import Counts, Without
from sidmill.fuse.svd import Factors
from sidmill.fuse.whiten import Whitening
from sidmill.io import buckets, id_lookup, parquet
from sidmill.settings import base
from sidmill.settings.fuse import Fuse

logger = logging.getLogger(__name__)

# Science settings that a method reads: its fingerprint has no other.
PAIRS = ("method", "weight", "window", "neighbours", "shrinkage")
READS = {
    "graph": (*PAIRS, "normalize"),
    "svd": (*PAIRS, "dim"),
    "contrastive": (*PAIRS, "normalize", "epochs"),
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
    folder: Path


class _Space(NamedTuple):
    """The axes of vectors that were fused with all users: those of a fold are brought to them.

    Attributes:
        factors: of svd; None for the other methods.
        whitening: None without.
    """

    factors: Factors | None
    whitening: Whitening | None


ALL_USERS = _Space(None, None)
Find = Callable[[], Iterator[Neighbours]]  # the neighbours of all items, counted anew


class _Fused(NamedTuple):
    """Fused vectors, not yet computed.

    Attributes:
        blocks: float32 (b, D) in order.
        dim: D.
        space: their axes.
        identity: what the fingerprint says of them.
    """

    blocks: Iterator[np.ndarray]
    dim: int
    space: _Space
    identity: dict[str, Any]


def fuse(files: Files, settings: Fuse, *, seed: int) -> tuple[int, int]:
    """Write the fused vectors of all items, in the order and dtype of the text vectors.

    Only interactions of the split train are used. ``settings.memory_mb`` changes no byte.

    Memory: ``memory_mb``, the ids, and about 60 bytes per item; svd also takes what
    :func:`sidmill.fuse.svd.factorise` says, contrastive what :func:`sidmill.fuse.contrastive.fit`
    says. Disk: the pairs; contrastive and whitening 4 N D bytes each.

    Args:
        files: to read and to write.
        settings: the method and its weights; method is not none.
        seed: of the randomised SVD, and of the pairs of contrastive; graph draws nothing.

    Returns:
        The shape of fused.npy.

    Raises:
        SidmillError: if the method is none, an item of the histories has no vector, or a vector is
            not finite.
    """
    with _opened(files, settings) as source:
        fused = _fuse(source, settings, seed)
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
    are rotated onto those of all users, and all are whitened by the moments of fused.npy, so one
    quantizer encodes them all.

    Memory, disk: as :func:`fuse`; svd holds its factors twice. Time: ``settings.folds`` times as
    much, with svd and whitening once more.

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
    whole_ids = parquet.open_file(fused_ids, {"pid": parquet.is_pid})
    fingerprint = parquet.metadata_json(whole_ids, FINGERPRINT_KEY)
    with _opened(files, settings) as source:
        space = ALL_USERS
        if settings.method == "svd" or settings.whiten:
            space = _fuse(source, settings, seed).space

        # One fold after another; vectors of a fold are computed when they are written.
        def blocks() -> Iterator[np.ndarray]:
            for fold in range(settings.folds):
                logger.info("without the users of fold %d of %d", fold + 1, settings.folds)
                without = Without(fold, settings.folds)
                yield from _fuse(source, settings, seed, without, space).blocks

        _, dim = tuple(parquet.metadata_json(whole_ids, vector_store.SHAPE_KEY))
        shape = (settings.folds * len(source.ids), int(dim))
        dtype = source.store.vectors.dtype.name
        sums = vector_store.write(files.fused, shape, dtype, blocks())
        ids = pa.chunked_array([source.ids] * settings.folds)
        vector_store.write_ids(files.fused_ids, ids, shape, fingerprint, sums)
    return shape


@contextmanager
def _opened(files: Files, settings: Fuse) -> Iterator[_Source]:
    """Open what is fused, with a folder for temporary files."""
    if settings.method == "none":
        raise SidmillError(
            "fuse.method is none: set graph, svd or contrastive, or leave fused.npy out"
        )
    store = vector_store.open_store(files.vectors, files.ids)
    ids = store.ids.combine_chunks()
    lookup = id_lookup.make(ids, files.ids)
    with buckets.folder(Path(f"{files.fused}.parts")) as folder:
        yield _Source(store, ids, lookup, files.sequences, folder)


def _fuse(
    source: _Source,
    settings: Fuse,
    seed: int,
    without: Without | None = None,
    space: _Space = ALL_USERS,
) -> _Fused:
    """Prepare fused vectors, without the users of a fold.

    Args:
        source: what is fused.
        settings: the method.
        seed: of its draws.
        without: users who are left out.
        space: the axes of all users; empty to find them.
    """
    counts = histories.count(source.sequences, source.lookup, len(source.ids), without)

    def find() -> Iterator[Neighbours]:
        folder = source.folder / "pairs"
        return cooccurrence.find(source.sequences, source.lookup, counts, settings, folder, without)

    make = _append if settings.method == "svd" else _mix
    fused = make(source, settings, seed, counts, find, space)
    if not settings.whiten:
        return fused

    # Moments need all of the vectors, so these are stored.
    stored = _stored(source.folder / "mixed.npy", fused.blocks, (len(source.ids), fused.dim))
    whitening = space.whitening or whiten.fit(stored, counts.users, settings)
    dim = whitening.matrix.shape[1]
    measured = whiten.measured_rows(counts.users, fused.dim)
    digest = _digest(counts, source.ids, measured)
    identity = fused.identity | {"dim": dim, "fuse.interactions": digest}
    blocks = whiten.blocks(stored, whitening, source.store.vectors)
    return _Fused(blocks, dim, fused.space._replace(whitening=whitening), identity)


def _append(
    source: _Source, settings: Fuse, seed: int, counts: Counts, find: Find, space: _Space
) -> _Fused:
    """Append factors, which are in memory for all items."""
    pairs = svd.gather(_log_neighbours(find(), counts, source.sequences))
    factors = svd.factorise(pairs, settings, seed)
    if space.factors is not None:
        factors = svd.rotate(factors, space.factors)
    blocks = svd.blocks(source.store.vectors, factors, counts.users, settings)
    dim = source.store.vectors.shape[1] + settings.dim
    digest = svd.digest(pairs, source.ids)
    identity = _rule(settings) | {"dim": dim, "fuse.seed": seed, "fuse.interactions": digest}
    return _Fused(blocks, dim, space._replace(factors=factors), identity)


def _mix(
    source: _Source, settings: Fuse, seed: int, counts: Counts, find: Find, space: _Space
) -> _Fused:
    """Mix text vectors with those of neighbours; contrastive maps them first."""
    vectors, identity = source.store.vectors, _rule(settings)
    if settings.method == "contrastive":
        matrix = contrastive.fit(vectors, find(), counts.users, settings, seed)
        mapped = contrastive.blocks(vectors, matrix)
        vectors = _stored(source.folder / "mapped.npy", mapped, vectors.shape)
        digest = _digest(counts, source.ids, np.flatnonzero(counts.users))
        identity |= {"fuse.seed": seed, "fuse.interactions": digest}
    found = _log_neighbours(find(), counts, source.sequences)
    blocks = graph.blocks(vectors, found, counts.users, settings)
    return _Fused(blocks, vectors.shape[1], space, identity)


def _stored(path: Path, blocks: Iterator[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Write blocks to a temporary file, and map it."""
    vector_store.write(path, shape, "float32", blocks)
    return vector_store.open_npy(path)


def _digest(counts: Counts, ids: pa.Array, rows: np.ndarray) -> str:
    """Name the interactions that a map or a whitening was learned from: 16 hex digits.

    Vectors of other interactions have other axes, so a quantizer must not take them for its own.

    Args:
        counts: of all items.
        ids: their ids.
        rows: int64, ascending: items that were learned from; others do not count.
    """
    total = hashlib.sha256("\n".join(map(str, ids.take(pa.array(rows)).to_pylist())).encode())
    for array in (counts.users[rows], counts.interactions[rows]):
        total.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
    return total.hexdigest()[:16]


def _rule(settings: Fuse) -> dict[str, Any]:
    """What the fingerprint says of the fusion."""
    identity = base.identity(settings)
    keys = READS[settings.method] + (("whiten", "whiten_dim") if settings.whiten else ())
    return {f"fuse.{key}": identity[key] for key in keys}


def _log_neighbours(
    found: Iterator[Neighbours], counts: Counts, path: str | Path
) -> Iterator[Neighbours]:
    """Pass neighbours through; log how many items have any, and warn where none has."""
    n_fused = 0
    for lists in found:
        n_fused += int((np.diff(lists.bounds) > 0).sum())
        yield lists
    n_items = len(counts.users)
    logger.info(
        "%d of %d items have neighbours by consumption, the others are of their text alone",
        n_fused,
        n_items,
    )
    if not n_fused:
        logger.warning(
            "%s: no user has two different items in training, so every item is of its text "
            "alone: set fuse.method: none, or name a longer log in interactions.path",
            path,
        )
