"""The vector store in the forms of other tools: MISSRec's memory maps, and item_data.h5.

Letters: N items, D dimensions, F tokens of a text.
"""

import logging
from collections.abc import Callable, Iterator
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sidmill.core.errors import SidmillError
from sidmill.core.words import words
from sidmill.formats import item_data, item_index, item_text, memory_maps, vector_store
from sidmill.numeric import row_blocks
from sidmill.settings.embedding import Embedding
from sidmill.settings.interactions import H5

logger = logging.getLogger(__name__)

BLOCK_BYTES = 32 << 20
CACHED_WORDS = 1 << 20


def write_mmap(
    vectors_path: str | Path, ids_path: str | Path, json_path: str | Path, index_path: str | Path
) -> dict[str, Any]:
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
    numbers = item_index.number(items.ids, ids_path)
    facts = memory_maps.write(
        json_path, numbers, items.vectors.shape, _blocks(items.vectors), items.fingerprint
    )
    item_index.write(index_path, items.ids, numbers)
    return facts


class ItemFiles(NamedTuple):
    """What item_data.h5 is made from, and what is written.

    Attributes:
        vectors_path: vectors.npy.
        ids_path: ids.parquet.
        text_path: text.parquet.
        h5_path: item_data.h5 to write.
        index_path: item_index.parquet to write.
    """

    vectors_path: str | Path
    ids_path: str | Path
    text_path: str | Path
    h5_path: str | Path
    index_path: str | Path


def write_item_h5(files: ItemFiles, embedding: Embedding, settings: H5) -> tuple[int, int, int]:
    """Write item_data.h5 in the order of the catalogue, and item_index.parquet.

    Args:
        files: what is read and written.
        embedding: names the tokenizer, where one is used.
        settings: which tokens, and how many per text.

    Returns:
        N, D and F. Memory: the ids, one block of vectors, 8,192 texts.

    Raises:
        SidmillError: if an integer id is below 1, or the tokenizer cannot be loaded.
    """
    items = vector_store.open_store(files.vectors_path, files.ids_path)
    numbers = item_index.number(items.ids, files.ids_path)
    dim, width = items.vectors.shape[1], settings.max_feature_len
    blocks = _with_vectors(items.vectors, token_ids(files.text_path, embedding, settings))
    item_data.write(files.h5_path, numbers, dim, width, blocks)
    item_index.write(files.index_path, items.ids, numbers)
    return len(numbers), dim, width


def token_ids(
    text_path: str | Path, embedding: Embedding, settings: H5
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the token ids of all items, in row order. Memory: 8,192 texts.

    ``words`` needs no model: the words of a text (:mod:`sidmill.core.words`), each hashed to a
    bucket, so that no vocabulary has to be fitted and a later item gets the same numbers.
    ``model`` takes the tokenizer of ``embedding.model``.

    Args:
        text_path: text.parquet.
        embedding: with backend ``sentence_transformers`` ``auto`` is ``model``, else ``words``.
        settings: ``features``; words are numbered from 1 to ``feature_buckets``; F is
            ``max_feature_len``, tokens after which a text is cut.

    Yields:
        int32 (b, F), 0 after the last token, and int32 (b,), how many tokens count.

    Raises:
        SidmillError: if the tokenizer cannot be loaded.
    """
    # How a text becomes numbers.
    features = settings.features
    if features == "auto":
        features = "model" if embedding.backend == "sentence_transformers" else "words"
    number_texts = (
        _of_model(embedding.model, embedding.revision)
        if features == "model"
        else _of_words(settings.feature_buckets)
    )

    # Block by block: (b, F), cut and padded with 0.
    width = settings.max_feature_len
    n_cut = n_texts = 0
    for table in item_text.read(text_path):
        numbers = number_texts(table["text"].to_pylist())
        block = np.zeros((len(numbers), width), dtype=np.int32)
        lengths = np.array([min(len(ids), width) for ids in numbers], dtype=np.int32)
        for row, ids in enumerate(numbers):
            block[row, : lengths[row]] = ids[:width]
            n_cut += len(ids) > width
        n_texts += len(numbers)
        yield block, lengths
    logger.info(
        "%s: %d of %d texts are longer than %d tokens and were cut (h5.max_feature_len)",
        features,
        n_cut,
        n_texts,
        width,
    )


def _of_words(buckets: int) -> Callable[[list[str]], list[list[int]]]:
    @lru_cache(CACHED_WORDS)  # few words make most of the texts
    def number(word: str) -> int:
        digest = blake2b(word.encode(), digest_size=8).digest()
        return 1 + int.from_bytes(digest, "little") % buckets

    return lambda texts: [[number(word) for word in words(line)] for line in texts]


def _of_model(model: str | None, revision: str | None) -> Callable[[list[str]], list[list[int]]]:
    from transformers import AutoTokenizer

    if not model:
        raise SidmillError("h5.features is model, but embedding.model is null: set words")
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, revision=revision, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise SidmillError(
            f"embedding.model {model!r}: its tokenizer cannot be loaded "
            f"({str(error).strip().splitlines()[0]}): set h5.features: words"
        ) from None
    options = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}

    def number(texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = tokenizer(texts, truncation=False, **options)["input_ids"]
        return ids

    return number


def _blocks(store: np.ndarray) -> Iterator[np.ndarray]:
    rows = max(BLOCK_BYTES // (4 * store.shape[1]), 1)
    for _, block in row_blocks.read_blocks(store, rows):
        yield block


def _with_vectors(
    store: np.ndarray, features: Iterator[tuple[np.ndarray, np.ndarray]]
) -> Iterator[item_data.Block]:
    """Pair blocks of tokens with their vectors, ``BLOCK_BYTES`` of vectors at most."""
    first = 0
    for tokens, lengths in features:
        rows = np.arange(first, first + len(tokens))
        step = max(BLOCK_BYTES // (4 * store.shape[1]), 1)
        for start, block in row_blocks.read_blocks(store, step, rows):
            some = slice(start, start + len(block))
            yield item_data.Block(block, tokens[some], lengths[some])
        first += len(tokens)
