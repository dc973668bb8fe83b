"""The category level: categories of items -> the first codebook, and what is left for the others.

Categories of at least ``min_load`` N / size items stay, the largest first, and at most ``size``.
The names of the others are merged into the category whose mean is nearest to theirs. Items without
a category belong to the one with the nearest mean. Categories with the most items per code then get
further codes, until none has more than ``max_load`` N / size items per code or all codes are given
away; :mod:`.category_tree` splits their items evenly. With G categories and ``size`` codes, a code
has at most ceil(max(max_load N / size, N / (size - G))) items, equal vectors apart.

A codeword is the mean vector of the items of its code. Any quantizer is then fitted to the vectors
less their codewords.

Shapes: N items, D dimensions, G categories, K codes, n names, b rows of one block.
"""

import heapq
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sidmill.core.errors import SidmillError
from sidmill.formats import quantizer_file
from sidmill.formats.quantizer_file import Categories, Network, Quantizer
from sidmill.numeric import category_codes, nearest_numpy, row_blocks
from sidmill.quantize import category_tree
from sidmill.settings import base
from sidmill.settings.category_level import CategoryLevel

logger = logging.getLogger(__name__)

KIND = "category"  # of a quantizer that is this level alone
DOUBLE_BYTES = 8
SUMMED_VALUES = 2**22  # of a block whose rows are added up: sums do not depend on memory_mb


class Fitted(NamedTuple):
    """The level as a quantizer of one level, and the code of each item, int32 (N,)."""

    quantizer: Quantizer
    codes: np.ndarray


def fit(
    vectors: np.ndarray,
    names: pa.ChunkedArray | pa.Array,
    settings: CategoryLevel,
    fingerprint: dict[str, Any],
) -> Fitted:
    """Fit the category level.

    The order of the items changes nothing, up to the rounding of sums; nothing is drawn at random.

    Memory: about 40 bytes per item, the distinct names, and ``settings.memory_mb``.

    Args:
        vectors: float32 or float16 (N, D), finite.
        names: string (N,), the category of each item, null where it has none.
        settings: see :class:`sidmill.settings.category_level.CategoryLevel`.
        fingerprint: of the vectors.

    Raises:
        SidmillError: if no item has a category, none is large enough, there are fewer items than
            codes, a row is not finite, or ``memory_mb`` is too small.
    """
    # Number the names, in alphabetical order: -1 for none.
    known = pc.unique(names).drop_null()
    known = known.take(pc.sort_indices(known))
    numbers = np.asarray(pc.index_in(names, value_set=known).fill_null(-1)).astype(np.int32)
    counts = np.bincount(numbers[numbers >= 0], minlength=len(known))
    kept = _kept(counts, len(numbers), settings)

    # Every name belongs to a category that stays, every item to the category of its name.
    means = _means(vectors, numbers, kept, settings.memory_mb)
    owners = _owners(vectors, numbers, kept, means, settings.memory_mb)
    own = _categories_of_items(vectors, numbers, owners, means, settings.memory_mb)
    load = np.bincount(own, minlength=len(kept))
    tree = category_tree.grow(vectors, own, _share_codes(load, settings), settings.memory_mb)

    # Codewords are means over the items of a code.
    all_names = known.to_pylist()
    categories = Categories(
        field=str(settings.field),
        names=[all_names[number] for number in kept.tolist()],
        numbers=dict(zip(all_names, owners.tolist(), strict=True)),
        codewords=np.empty((0, vectors.shape[1]), np.float32),
        means=means,
        roots=tree.roots,
        normals=tree.normals,
        thresholds=tree.thresholds,
        ways=tree.ways,
    )
    codes = category_codes.codes(vectors, categories, own, settings.memory_mb)
    n_codes = int(codes.max()) + 1
    codewords = _means(vectors, codes, np.arange(n_codes), settings.memory_mb)
    _log(counts, kept, load, codes)
    categories = categories._replace(codewords=codewords)
    return Fitted(
        Quantizer(KIND, [codewords], base.identity(settings), fingerprint, categories=categories),
        codes,
    )


def residuals(vectors: np.ndarray, fitted: Fitted) -> Iterator[np.ndarray]:
    """Yield what the level leaves of the vectors, in row order: float32 (b, D)."""
    codewords = fitted.quantizer.codebooks[0]
    for start, block in row_blocks.read_blocks(vectors, row_blocks.MAX_BLOCK_ROWS):
        yield block - codewords[fitted.codes[start : start + len(block)]]


def residual_fingerprint(level: Quantizer) -> dict[str, Any]:
    """What names the space of the residuals: that of the vectors, and the settings of the level."""
    return level.fingerprint | {
        f"category_level.{key}": value for key, value in level.settings.items()
    }


def join_file(level_path: str | Path, learned: Quantizer) -> Quantizer:
    """:func:`join` with the level of a file; an empty path leaves the quantizer as it is."""
    return join(quantizer_file.read(level_path), learned) if level_path else learned


def join(level: Quantizer, learned: Quantizer) -> Quantizer:
    """Put the category level before the levels of a quantizer that was fitted to its residuals.

    Without an encoder the codebooks are in the space of the vectors, so the codewords are put first
    as they are. Latents of an encoder get further dimensions for the level, in which all other
    codewords are 0: the coordinates of the codewords. The decoder adds them up as vectors. So codes
    decode as a sum of codewords, whatever the quantizer.

    Args:
        level: of :func:`fit`.
        learned: fitted to the residuals.

    Raises:
        SidmillError: if it was fitted to other vectors.
    """
    if learned.fingerprint != residual_fingerprint(level):
        raise SidmillError(
            "the quantizer was not trained on what this category level leaves: train it again"
        )
    settings = learned.settings | {"category_level": level.settings}
    first = level.codebooks[0]
    prices = learned.prices and [np.zeros(len(first), np.float32), *learned.prices]
    joined = learned._replace(
        codebooks=[first, *learned.codebooks],
        settings=settings,
        fingerprint=level.fingerprint,
        prices=tuple(prices),
        balance=tuple(learned.balance) and ({}, *learned.balance),
        categories=level.categories,
    )
    if learned.encoder is None or learned.decoder is None:
        return joined

    # Coordinates of the codewords in the space that they span, and the way from there.
    coordinates, axes = _span(first)
    dim, n_more = learned.codebooks[0].shape[1], coordinates.shape[1]
    padded = [np.pad(book, ((0, 0), (0, n_more))) for book in learned.codebooks]
    return joined._replace(
        codebooks=[np.pad(coordinates, ((0, 0), (dim, 0))), *padded],
        encoder=_with_zeros(learned.encoder, n_more),
        decoder=_with_axes(learned.decoder, axes),
    )


def _kept(counts: np.ndarray, n_items: int, settings: CategoryLevel) -> np.ndarray:
    """Names that stay categories, ascending: int64 (G,)."""
    # Refuse what gives no level.
    where = f"category_level.field: {settings.field}"
    if settings.size > n_items:
        raise SidmillError(
            f"category_level.size: found {settings.size} codes for {n_items} items: lower it to at "
            f"most {n_items}"
        )
    if not len(counts):
        raise SidmillError(
            f"{where}: no item has a category there: name a field that is filled, or set "
            f"category_level.field: null"
        )
    least = settings.min_load * n_items / settings.size
    if counts.max() < least:
        raise SidmillError(
            f"{where}: the largest of {len(counts)} categories has {counts.max()} items, and a "
            f"category needs {least:g} (category_level.min_load x {n_items} items / "
            f"category_level.size): lower min_load, raise size, or name another field"
        )

    # The largest ones; of equally large ones the first names.
    order = np.lexsort((np.arange(len(counts)), -counts))
    order = order[counts[order] >= least][: settings.size]
    return np.sort(order)


def _means(
    vectors: np.ndarray, numbers: np.ndarray, wanted: np.ndarray, memory_mb: int
) -> np.ndarray:
    """Mean vector of the items of each number, float32 (w, D), in as few passes as fit in memory.

    Args:
        vectors: float (N, D).
        numbers: int32 (N,).
        wanted: int64 (w,), ascending numbers that occur.
        memory_mb: MiB for the sums of one pass.
    """
    dim = vectors.shape[1]
    means = np.empty((len(wanted), dim), dtype=np.float32)
    at_once = max(1, memory_mb * row_blocks.MIB // (DOUBLE_BYTES * dim))
    for first in range(0, len(wanted), at_once):
        portion = wanted[first : first + at_once]
        position = np.full(int(numbers.max(initial=0)) + 2, -1)  # the last one is that of -1
        position[portion] = np.arange(len(portion))
        own = position[numbers]
        means[first : first + at_once] = (
            _sums(vectors, own, len(portion))
            / np.bincount(own[own >= 0], minlength=len(portion))[:, None]
        )
    return means


def _sums(vectors: np.ndarray, own: np.ndarray, n_sums: int) -> np.ndarray:
    """Sum of the rows of each number, float64 (n_sums, D); rows of -1 are left out."""
    sums = np.zeros((n_sums, vectors.shape[1]))
    rows = np.flatnonzero(own >= 0)
    n_rows = max(1, min(SUMMED_VALUES // vectors.shape[1], row_blocks.MAX_BLOCK_ROWS))
    for start, block in row_blocks.read_blocks(vectors, n_rows, rows):
        taken = rows[start : start + len(block)]
        row_blocks.require_finite(block, int(taken[0]))
        order = np.argsort(own[taken], kind="stable")
        present, begins = np.unique(own[taken][order], return_index=True)
        sums[present] += np.add.reduceat(block[order].astype(np.float64), begins, axis=0)
    return sums


def _owners(
    vectors: np.ndarray, numbers: np.ndarray, kept: np.ndarray, means: np.ndarray, memory_mb: int
) -> np.ndarray:
    """The category of each name, int64 (n,): its own, or the one whose mean is nearest to its."""
    n_names = int(numbers.max()) + 1
    owners = np.empty(n_names, dtype=np.int64)
    owners[kept] = np.arange(len(kept))
    merged = np.setdiff1d(np.arange(n_names), kept)
    level = nearest_numpy.search_level(means)
    portion = max(1, memory_mb * row_blocks.MIB // (2 * DOUBLE_BYTES * means.shape[1]))
    n_rows = category_codes.rows_of_block(means.shape[1], len(means), memory_mb)
    buffer = np.empty(n_rows * len(means), dtype=np.float32)
    for first in range(0, len(merged), portion):
        some = merged[first : first + portion]
        own_means = _means(vectors, numbers, some, memory_mb)
        for start in range(0, len(some), n_rows):
            block = own_means[start : start + n_rows]
            owners[some[start : start + n_rows]] = nearest_numpy.nearest(block, level, buffer)
    return owners


def _categories_of_items(
    vectors: np.ndarray, numbers: np.ndarray, owners: np.ndarray, means: np.ndarray, memory_mb: int
) -> np.ndarray:
    """The category of each item, int32 (N,): that of its name, else the one of the nearest mean."""
    own: np.ndarray = np.append(owners, category_codes.UNKNOWN).astype(np.int32)[numbers]
    missing = np.flatnonzero(own == category_codes.UNKNOWN)
    level = nearest_numpy.search_level(means)
    n_rows = category_codes.rows_of_block(means.shape[1], len(means), memory_mb)
    buffer = np.empty(n_rows * len(means), dtype=np.float32)
    for start, block in row_blocks.read_blocks(vectors, n_rows, missing):
        rows = missing[start : start + len(block)]
        row_blocks.require_finite(block, int(rows[0]))
        own[rows] = nearest_numpy.nearest(block, level, buffer)
    return own


def _share_codes(load: np.ndarray, settings: CategoryLevel) -> np.ndarray:
    """Codes of each category: the one with the most items per code gets the next: int64 (G,)."""
    n_codes = np.ones(len(load), dtype=np.int64)
    limit = max(settings.max_load * load.sum() / settings.size, 1.0)
    fullest = [(-float(one), number) for number, one in enumerate(load)]
    heapq.heapify(fullest)
    for _ in range(settings.size - len(load)):
        most, number = fullest[0]
        if -most <= limit:
            break
        n_codes[number] += 1
        heapq.heapreplace(fullest, (-float(load[number] / n_codes[number]), number))
    return n_codes


def _span(codewords: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (K, r) and orthonormal axes (r, D) of codewords: float32, r = min(K, D)."""
    left, lengths, axes = np.linalg.svd(codewords.astype(np.float64), full_matrices=False)
    return np.asarray(left * lengths, np.float32), np.asarray(axes, np.float32)


def _with_zeros(encoder: Network, n_more: int) -> Network:
    """An encoder whose latents have further dimensions, which are 0."""
    skip = encoder.skip
    if skip is not None:
        skip = skip if skip.ndim else skip * np.eye(len(encoder.biases[-1]), dtype=np.float32)
        skip = np.pad(skip, ((0, n_more), (0, 0)))
    weights = [*encoder.weights[:-1], np.pad(encoder.weights[-1], ((0, n_more), (0, 0)))]
    biases = [*encoder.biases[:-1], np.pad(encoder.biases[-1], (0, n_more))]
    return encoder._replace(weights=weights, biases=biases, skip=skip)


def _with_axes(decoder: Network, axes: np.ndarray) -> Network:
    """A decoder that adds to its output what the further dimensions say, along ``axes`` (r, D)."""
    skip = decoder.skip
    outer, inner = len(decoder.biases[-1]), decoder.weights[0].shape[1]
    if skip is None:
        skip = np.zeros((outer, inner), np.float32)
    elif not skip.ndim:
        skip = skip * np.eye(outer, dtype=np.float32)
    weights = [np.pad(decoder.weights[0], ((0, 0), (0, len(axes)))), *decoder.weights[1:]]
    return decoder._replace(weights=weights, skip=np.hstack([skip, axes.T]).astype(np.float32))


def _log(counts: np.ndarray, kept: np.ndarray, load: np.ndarray, codes: np.ndarray) -> None:
    """Say what became of the categories."""
    per_code = np.bincount(codes)
    logger.info(
        "%d of %d categories stay, %d are merged; %d items without a category; %d codes of %d to "
        "%d items, mean %.1f",
        len(kept),
        len(counts),
        len(counts) - len(kept),
        len(codes) - counts.sum(),
        len(per_code),
        per_code.min(),
        per_code.max(),
        per_code.mean(),
    )
