"""Codes of the category level: the category of an item decides, its vector only where that is open.

An item whose category is known belongs to it; any other belongs to the category with the nearest
mean. A category with several codes has a tree of splits: at each split, the product of the vector
with a normal is compared with a threshold. The expressions are those of ``nearest_numpy`` and of
:func:`product`, which do not depend on blocks, threads or devices.

Shapes: N items, D dimensions, G categories, K codes, S splits, b rows of one block.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sidmill.core.errors import SidmillError
from sidmill.core.listing import differences
from sidmill.formats.quantizer_file import Categories, Quantizer
from sidmill.formats.vector_file import Streamed
from sidmill.numeric import nearest_numpy, residual_codec, row_blocks
from sidmill.settings.category_level import CategoryLevel

LEVEL_KEYS = ("field", "path_separator", "depth")  # what a category is
SIDES = "in the quantizer", "in the configuration"
UNKNOWN = -1  # the category of an item that has none, or one that the quantizer does not know


def of_names(categories: Categories, names: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Number the categories of items.

    Args:
        categories: of the quantizer.
        names: string (N,), null for an item without a category.

    Returns:
        int32 (N,), in [0, G), or ``UNKNOWN``.
    """
    numbers = np.array([*categories.numbers.values(), UNKNOWN], dtype=np.int32)
    known = pa.array(list(categories.numbers), pa.string())
    found = pc.index_in(names, value_set=known).fill_null(len(known))
    result: np.ndarray = numbers[np.asarray(found)]
    return result


def codes(
    vectors: np.ndarray | Streamed, categories: Categories, numbers: np.ndarray, memory_mb: int
) -> np.ndarray:
    """Find the code of every item. Memory: 4 bytes per item and one block of rows.

    Args:
        vectors: float32 or float16 (N, D).
        categories: of the quantizer.
        numbers: int32 (N,), as :func:`of_names` gives them.
        memory_mb: MiB for one block with its temporaries.

    Returns:
        int32 (N,), in [0, K).

    Raises:
        SidmillError: if a row is not finite, or ``memory_mb`` is too small.
    """
    # Where a category has one code, no vector is read.
    nodes = np.append(categories.roots, 0)[numbers]  # UNKNOWN takes the last: open
    found: np.ndarray = -1 - nodes
    still_open = np.flatnonzero(nodes >= 0)
    if not len(still_open):
        return found

    means = nearest_numpy.search_level(categories.means)
    n_rows = rows_of_block(vectors.shape[1], len(categories.means), memory_mb)
    buffer = np.empty(n_rows * len(categories.means), dtype=np.float32)
    for start, block in row_blocks.read_blocks(vectors, n_rows, still_open):
        rows = still_open[start : start + len(block)]
        row_blocks.require_finite(block, int(rows[0]))
        own = nearest_category(block, numbers[rows], means, buffer)
        found[rows] = walk(block, categories.roots[own], categories)
    return found


def rows_of_block(dim: int, n_categories: int, memory_mb: int) -> int:
    """Rows of a block, with what :func:`walk` and :func:`nearest_category` take beside it."""
    n_rows = row_blocks.rows_per_block(2 * dim, n_categories, memory_mb)
    return min(n_rows, row_blocks.MAX_BLOCK_ROWS)


def nearest_category(
    block: np.ndarray, numbers: np.ndarray, means: nearest_numpy.Level, buffer: np.ndarray
) -> np.ndarray:
    """Give rows of ``UNKNOWN`` the category with the nearest mean: int32 (b,).

    Args:
        block: float32 (b, D).
        numbers: int32 (b,).
        means: of the G categories.
        buffer: float32, at least b G numbers.
    """
    numbers = numbers.copy()
    unknown = np.flatnonzero(numbers == UNKNOWN)
    if len(unknown):
        numbers[unknown] = nearest_numpy.nearest(block[unknown], means, buffer)
    return numbers


def walk(block: np.ndarray, nodes: np.ndarray, categories: Categories) -> np.ndarray:
    """Follow the splits of rows to their codes: int32 (b,).

    Args:
        block: float32 (b, D).
        nodes: int32 (b,), the root of each row's category.
        categories: of the quantizer.
    """
    nodes = nodes.copy()
    result: np.ndarray
    while len(inner := np.flatnonzero(nodes >= 0)):
        at = nodes[inner]
        beyond = product(block[inner], categories.normals[at]) >= categories.thresholds[at]
        nodes[inner] = categories.ways[at, beyond.astype(np.int64)]
    result = -1 - nodes
    return result


def product(rows: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Products of rows and normals, float32 (b, D) each: float32 (b,).

    NumPy's order of addition depends on D alone.
    """
    result: np.ndarray = np.multiply(rows, normals).sum(axis=1)
    return result


def encode(
    quantizer: Quantizer,
    vectors: np.ndarray | Streamed,
    names: pa.ChunkedArray | pa.Array | None = None,
    *,
    device: str,
    memory_mb: int,
) -> Iterator[np.ndarray]:
    """Encode items with any quantizer, block by block: int32 (b, L), in row order.

    Args:
        quantizer: with or without categories.
        vectors: float32 or float16 (N, D); see :func:`residual_codec.encode`.
        names: string (N,), the categories of the items, null where one has none. Only used where
            the quantizer has categories.
        device: see :func:`residual_codec.encode`.
        memory_mb: MiB for one block with its temporaries.

    Raises:
        SidmillError: if the quantizer needs categories and there are none, or there are not N; and
            as :func:`residual_codec.encode`.
    """
    first = None
    if quantizer.categories is not None:
        numbers = _numbers(quantizer.categories, names, len(vectors))
        own = codes(vectors, quantizer.categories, numbers, memory_mb)
        first = residual_codec.FirstLevel(own, quantizer.categories.codewords)
    return residual_codec.encode(
        vectors,
        quantizer.codebooks,
        quantizer.prices,
        quantizer.encoder,
        first,
        device=device,
        memory_mb=memory_mb,
    )


def check_level(quantizer: Quantizer, settings: CategoryLevel, path: str | Path) -> None:
    """Refuse a quantizer whose category level is not the one of the settings.

    Raises:
        SidmillError: if one has a level and the other none, or they differ in what a category is.
    """
    own = dict(quantizer.settings.get("category_level") or {}) if quantizer.categories else {}
    wanted = {key: getattr(settings, key) for key in LEVEL_KEYS}
    if not own and settings.field is None:
        return
    differing = differences({key: own.get(key) for key in LEVEL_KEYS}, wanted, SIDES)
    if differing:
        raise SidmillError(
            f"{path} has another category level than category_level says ({differing}): set it as "
            f"in the quantizer, or train another quantizer"
        )


def _numbers(
    categories: Categories, names: pa.ChunkedArray | pa.Array | None, n_items: int
) -> np.ndarray:
    """:func:`of_names`, refusing names that are missing or too few."""
    if names is None:
        raise SidmillError(
            f"the first level of this quantizer is the field {categories.field!r} of the "
            f"catalogue: name the category of each item, null for an item that has none"
        )
    if len(names) != n_items:
        raise SidmillError(
            f"{len(names)} categories for {n_items} vectors: name one per item, in their order"
        )
    return of_names(categories, names)
