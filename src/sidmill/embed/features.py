"""Item texts as token ids, for models that read text themselves.

``words`` needs no model: the words of a text (:mod:`sidmill.core.words`), each hashed to a bucket,
so that no vocabulary has to be fitted and a later item gets the same numbers. ``model`` takes the
tokenizer of ``embedding.model``.
"""

import logging
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path

import numpy as np

from sidmill.core.errors import SidmillError
from sidmill.core.words import words
from sidmill.formats import item_text

logger = logging.getLogger(__name__)

CACHED_WORDS = 1 << 20


def token_ids(
    text_path: str | Path,
    *,
    backend: str,
    model: str | None,
    revision: str | None,
    features: str,
    feature_buckets: int,
    max_feature_len: int,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the token ids of all items, in row order. Memory: 8,192 texts.

    Args:
        text_path: text.parquet.
        backend: ``embedding.backend``; ``auto`` takes the model's tokenizer with
            sentence_transformers, else words.
        model: ``embedding.model``, a folder or an id on the hub.
        revision: ``embedding.revision``.
        features: ``auto``, ``words`` or ``model``.
        feature_buckets: words are numbered from 1 to this.
        max_feature_len: F, tokens after which a text is cut.

    Yields:
        int32 (b, F), 0 behind the last token, and int32 (b,), how many tokens count.

    Raises:
        SidmillError: if the tokenizer cannot be loaded.
    """
    chosen = features
    if features == "auto":
        chosen = "model" if backend == "sentence_transformers" else "words"
    number = _of_model(model, revision) if chosen == "model" else _of_words(feature_buckets)
    cut = total = 0
    for table in item_text.read(text_path):
        found = number(table["text"].to_pylist())
        block = np.zeros((len(found), max_feature_len), dtype=np.int32)
        lengths = np.array([min(len(ids), max_feature_len) for ids in found], dtype=np.int32)
        for row, ids in enumerate(found):
            block[row, : lengths[row]] = ids[:max_feature_len]
            cut += len(ids) > max_feature_len
        total += len(found)
        yield block, lengths
    logger.info(
        "%s: %d of %d texts are longer than %d tokens and were cut (h5.max_feature_len)",
        chosen,
        cut,
        total,
        max_feature_len,
    )


def _of_words(buckets: int) -> Callable[[list[str]], list[list[int]]]:
    # A word's number is wanted again and again; the cache is bounded.
    bounded: dict[str, int] = {}

    def number(word: str) -> int:
        found = bounded.get(word)
        if found is None:
            digest = blake2b(word.encode(), digest_size=8).digest()
            found = 1 + int.from_bytes(digest, "little") % buckets
            if len(bounded) < CACHED_WORDS:
                bounded[word] = found
        return found

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
    return lambda texts: tokenizer(texts, truncation=False, **options)["input_ids"]
