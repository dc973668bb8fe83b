"""Texts as batches of padded token ids, made by a thread ahead of the model.

The model's own ``preprocess`` tokenises, so prompts, cutting and special tokens are as its folder
says. A batch is padded to its longest text, so texts of like length belong together: sorted, nearly
no token is padding. With flash attention sentence-transformers packs a batch end to end and pads
nothing. https://sbert.net

Shapes: n texts of a chunk, b of a batch.
"""

import threading
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import torch

from sidmill.embed.throughput import Work

if TYPE_CHECKING:  # takes seconds, which the arithmetic of batches does not need
    from sentence_transformers import SentenceTransformer

T = TypeVar("T")
TEXTS_PER_CALL = 1024  # tokenised at a time: the tokenizer's own records are large
UNPADDED = {"text": {"padding": False}, "common": {"return_tensors": None}}
SHAPES = 16  # lengths that compiled code is made for

_tokenizing = threading.Lock()


class Reader(NamedTuple):
    """How texts become batches.

    Attributes:
        model: tokenises, and pads on its side.
        prompt: put before every text.
        budget: padded tokens per batch, at most.
        max_length: tokens after which a text is cut.
        fixed_shapes: pad to few lengths, and every batch to the same rows, for compiled code.
        packed: let the model's library pack batches.
    """

    model: "SentenceTransformer"
    prompt: str
    budget: int
    max_length: int
    fixed_shapes: bool
    packed: bool


class Texts(NamedTuple):
    """Tokenised texts.

    Attributes:
        texts: n texts.
        fields: for each field of the model int32 token numbers per text.
        common: fields with one value for all texts.
        lengths: int64 (n,), tokens per text.
        cut: texts that were longer than ``max_length``.
    """

    texts: list[str]
    fields: dict[str, list[np.ndarray]]
    common: dict[str, object]
    lengths: np.ndarray
    cut: int


class Batch(NamedTuple):
    """Texts of a chunk that go through the model together.

    Attributes:
        texts: the chunk, from which a smaller batch can be made.
        rows: which of its texts, int64.
        features: what the model takes.
        last: whether the chunk ends here.
    """

    texts: Texts
    rows: np.ndarray
    features: dict[str, Any]
    last: bool


def batches(reader: Reader, chunks: Iterator[list[str]]) -> Iterator[Batch]:
    """Yield the batches of texts of each chunk, longest first. Memory: a chunk's tokens."""
    for chunk in chunks:
        texts = tokenise(reader, chunk)
        groups = by_token_budget(rounded_up(texts.lengths, step(reader)), reader.budget)
        for number, rows in enumerate(groups, 1):
            features = _pinned(reader, collate(reader, texts, rows))
            yield Batch(texts, rows, features, number == len(groups))
        if not groups:
            yield Batch(texts, np.empty(0, np.int64), {}, last=True)


def tokenise(reader: Reader, texts: list[str]) -> Texts:
    """Tokenise texts, cut to ``max_length``."""
    fields: dict[str, list[np.ndarray]] = {}
    common: dict[str, object] = {}
    cut = 0
    for start in range(0, len(texts), TEXTS_PER_CALL):
        some = texts[start : start + TEXTS_PER_CALL]
        tokenised = _preprocess(reader, some, processing_kwargs=UNPADDED)
        cut += sum(bool(text.overflowing) for text in tokenised.encodings or ())
        for name, values in tokenised.items():
            if isinstance(values, list):
                fields.setdefault(name, []).extend(np.array(ids, np.int32) for ids in values)
            else:
                common[name] = values
    lengths = np.array([len(ids) for ids in fields.get("input_ids", [])], dtype=np.int64)
    return Texts(texts, fields, common, lengths, cut)


def collate(reader: Reader, texts: Texts, rows: np.ndarray) -> dict[str, Any]:
    """Pad some tokenised texts to one tensor per field, or pack them."""
    if reader.packed:
        features: dict[str, Any] = _preprocess(reader, [texts.texts[row] for row in rows])
        return features

    # Compiled code wants few shapes: the last text is repeated until the batch is full.
    chosen = rows
    if reader.fixed_shapes:
        longest = int(rounded_up(texts.lengths[rows], step(reader)).max())
        full = max(reader.budget // max(longest, 1), 1)
        chosen = np.concatenate([rows, np.repeat(rows[-1:], max(full - len(rows), 0))])

    # One tensor (b, longest) per field.
    tokenizer = reader.model.tokenizer
    padded = tokenizer.pad(
        {name: [values[row].tolist() for row in chosen] for name, values in texts.fields.items()},
        pad_to_multiple_of=step(reader),
        return_tensors="pt",
        verbose=False,
    )
    return {**padded, **texts.common}


def _pinned(reader: Reader, features: dict[str, Any]) -> dict[str, Any]:
    """Put what goes to a GPU into pinned memory: a copy from other memory waits for its turn."""
    if reader.model.device.type != "cuda":
        return features
    return {
        name: value.pin_memory() if isinstance(value, torch.Tensor) else value
        for name, value in features.items()
    }


def work(texts: Texts, batch: Batch) -> Work:
    """Count a batch."""
    lengths = texts.lengths[batch.rows]
    ids = batch.features.get("input_ids")
    padded = 0 if ids is None else ids.numel()
    return Work(len(lengths), int(lengths.sum()), padded, int((lengths**2).sum()))


def step(reader: Reader) -> int:
    """Lengths are multiples of this."""
    return max(reader.max_length // SHAPES, 1) if reader.fixed_shapes else 1


def _preprocess(reader: Reader, texts: list[str], **options: object) -> Any:
    """Let the model tokenise, in the prefetching thread or, after a lack of memory, in the main.

    Neither the flag of packing nor a fast tokenizer may be used by two threads at once.
    """
    transformer: Any = reader.model[0]
    with _tokenizing:
        transformer.can_flatten_inputs = reader.packed and not options
        return reader.model.preprocess(texts, prompt=reader.prompt, **options)


def by_token_budget(lengths: np.ndarray, budget: int) -> list[np.ndarray]:
    """Cut texts into batches, longest first.

    The longest come first so that a batch too large for the device fails at once, not after hours.

    Args:
        lengths: int (n,), tokens per text.
        budget: number of texts times the longest of them, at most, in every batch; a text longer
            than the budget is a batch of its own.

    Returns:
        Row numbers per batch, int64, every row once. Ties of length keep row order.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    groups = []
    start = 0
    while start < len(order):
        longest = max(int(lengths[order[start]]), 1)
        size = max(budget // longest, 1)
        groups.append(order[start : start + size])
        start += size
    return groups


def rounded_up(lengths: np.ndarray, step: int) -> np.ndarray:
    """Round lengths of texts up to multiples of ``step``, so that compiled code sees few shapes.

    Args:
        lengths: int (n,), tokens per text.
        step: tokens, 1 for no rounding.

    Returns:
        int64 (n,).
    """
    return -(-np.asarray(lengths, dtype=np.int64) // step) * step


def prefetch(items: Iterator[T], waiting: int) -> Generator[T, None, None]:
    """Yield batches in order, while a thread makes up to ``waiting`` of those that follow.

    An error of the thread is raised here, in the place of its item.

    Args:
        items: made by the thread alone.
        waiting: items that may wait in memory, at least 1.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as pool:
        made = deque(pool.submit(_next, items) for _ in range(waiting))
        try:
            while item := made.popleft().result():
                made.append(pool.submit(_next, items))
                yield from item
        finally:
            pool.shutdown(cancel_futures=True)


def _next(items: Iterator[T]) -> tuple[T, ...]:
    """The next item alone in a tuple, or an empty tuple at the end."""
    return tuple(islice(items, 1))
