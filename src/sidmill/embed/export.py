"""The vector store in the forms of other tools: MISSRec's memory maps, and item_data.h5.

Letters: N items, D dimensions, F tokens of a text.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sidmill.embed.features import token_ids
from sidmill.formats import (
    item_data,
    lcrec_index,
    memory_maps,
    vector_store,
)
from sidmill.numeric import row_blocks

BLOCK_BYTES = 32 << 20


def write_mmap(
    vectors_path: str | Path, ids_path: str | Path, json_path: str | Path, index_path: str | Path
) -> dict:
    """Write the memory maps, and item_index.parquet.

    Args:
        vectors_path: vectors.npy.
        ids_path: ids.parquet.
        json_path: mmap.json to write, the maps beside it.
        index_path: item_index.parquet to write.

    Returns:
        What mmap.json holds. Memory: the ids, 16 bytes per item, and one block of vectors.

    Raises:
        SidmillError: if an integer id is below 1, or out of all proportion.
    """
    items = vector_store.open_store(vectors_path, ids_path)
    numbers = lcrec_index.number(items.ids, ids_path)
    facts = memory_maps.write(
        json_path, numbers, items.vectors.shape, _blocks(items.vectors), items.fingerprint
    )
    lcrec_index.write(index_path, items.ids, numbers)
    return facts


def write_item_h5(
    vectors_path: str | Path,
    ids_path: str | Path,
    text_path: str | Path,
    h5_path: str | Path,
    index_path: str | Path,
    *,
    backend: str,
    model: str | None,
    revision: str | None,
    features: str,
    feature_buckets: int,
    max_feature_len: int,
) -> tuple[int, int, int]:
    """Write item_data.h5 in the order of the catalogue, and item_index.parquet.

    Args:
        vectors_path: vectors.npy.
        ids_path: ids.parquet.
        text_path: text.parquet.
        h5_path: item_data.h5 to write.
        index_path: item_index.parquet to write.
        backend: see :func:`sidmill.embed.features.token_ids`, as the others.
        model: see there.
        revision: see there.
        features: see there.
        feature_buckets: see there.
        max_feature_len: see there.

    Returns:
        N, D and F. Memory: the ids, one block of vectors, 8,192 texts.

    Raises:
        SidmillError: if an integer id is below 1, or the tokenizer cannot be loaded.
    """
    items = vector_store.open_store(vectors_path, ids_path)
    numbers = lcrec_index.number(items.ids, ids_path)
    found = token_ids(
        text_path,
        backend=backend,
        model=model,
        revision=revision,
        features=features,
        feature_buckets=feature_buckets,
        max_feature_len=max_feature_len,
    )
    dim = items.vectors.shape[1]
    blocks = _with_vectors(items.vectors, found)
    item_data.write(h5_path, numbers, dim, max_feature_len, blocks)
    lcrec_index.write(index_path, items.ids, numbers)
    return len(numbers), dim, max_feature_len


def _blocks(store: np.ndarray) -> Iterator[np.ndarray]:
    rows = max(BLOCK_BYTES // (4 * store.shape[1]), 1)
    for _, block in row_blocks.read_blocks(store, rows):
        yield block


def _with_vectors(
    store: np.ndarray, found: Iterator[tuple[np.ndarray, np.ndarray]]
) -> Iterator[item_data.Block]:
    """Pair blocks of tokens with their vectors, in pieces of ``BLOCK_BYTES``."""
    first = 0
    for tokens, lengths in found:
        rows = np.arange(first, first + len(tokens))
        step = max(BLOCK_BYTES // (4 * store.shape[1]), 1)
        for start, block in row_blocks.read_blocks(store, step, rows):
            part = slice(start, start + len(block))
            yield item_data.Block(block, tokens[part], lengths[part])
        first += len(tokens)
