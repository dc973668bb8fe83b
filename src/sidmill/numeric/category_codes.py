"""Codes of the category level: the category of an item decides, its vector only where that is open.

An item whose category is known belongs to it; any other belongs to the category with the nearest
mean. A category with several codes has a tree of splits: at each split, the product of the vector
with a normal is compared with a threshold. The expressions are those of ``nearest_numpy`` and of
:func:`product`, which do not depend on blocks, threads or devices.

Shapes: N items, D dimensions, G categories, K codes, S splits, b rows of one block.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sidmill.core.errors import SidmillError
from sidmill.formats.quantizer_file import Categories, Quantizer
from sidmill.formats.vector_file import Streamed
from sidmill.numeric import nearest_numpy, row_blocks

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
    whole = np.append(categories.roots, 0)  # UNKNOWN takes the last: open
    nodes = whole[numbers]
    found = -1 - nodes
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
    while len(inner := np.flatnonzero(nodes >= 0)):
        at = nodes[inner]
        beyond = product(block[inner], categories.normals[at]) >= categories.thresholds[at]
        nodes[inner] = categories.ways[at, beyond.astype(np.int64)]
    return -1 - nodes


def product(rows: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Products of rows and normals, float32 (b, D) each: float32 (b,). NumPy's order of addition
    depends on D alone."""
    result: np.ndarray = np.multiply(rows, normals).sum(axis=1)
    return result


def of_items(
    quantizer: Quantizer,
    vectors: np.ndarray | Streamed,
    names: pa.ChunkedArray | pa.Array | None,
    memory_mb: int,
) -> np.ndarray | None:
    """Codes of the first level where a category decides them: int32 (N,); None for other quantizers.

    Args:
        quantizer: any.
        vectors: float32 or float16 (N, D).
        names: string (N,), the categories of the items; None where nothing is known of them.
        memory_mb: MiB for one block with its temporaries.

    Raises:
        SidmillError: if the quantizer needs categories and there are none, or there are not N.
    """
    if quantizer.categories is None:
        return None
    if names is None:
        raise SidmillError(
            f"the first level of this {quantizer.kind} is the field "
            f"{quantizer.categories.field!r} of the catalogue: name the categories of the items, "
            f"null for an item that has none"
        )
    if len(names) != len(vectors):
        raise SidmillError(
            f"{len(names)} categories for {len(vectors)} vectors: name one per item, in their order"
        )
    return codes(vectors, quantizer.categories, of_names(quantizer.categories, names), memory_mb)
