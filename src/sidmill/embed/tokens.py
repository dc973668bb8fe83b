"""Texts as batches of padded token ids, made ahead of the model.

The model's own ``preprocess`` tokenises, so prompts, cutting and special tokens are as its folder
says. With flash attention sentence-transformers packs a batch end to end and pads nothing.
https://sbert.net
"""

import logging
import threading
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from sidmill.embed.batches import by_token_budget, rounded_up
from sidmill.embed.throughput import Work

logger = logging.getLogger(__name__)

TEXTS_PER_CALL = 1024  # tokenised at a time: the tokenizer's own records are large
UNPADDED = {"text": {"padding": False}, "common": {"return_tensors": None}}
SHAPES = 16  # lengths that compiled code is made for

_turn = threading.Lock()


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

    model: SentenceTransformer
    prompt: str
    budget: int
    max_length: int
    fixed_shapes: bool
    packed: bool


class Texts(NamedTuple):
    """Tokenised texts: a list of token numbers per field and text, and what is alike for all."""

    texts: list[str]
    fields: dict[str, list[np.ndarray]]
    common: dict[str, object]
    lengths: np.ndarray  # int64 (n,)
    cut: int


class Batch(NamedTuple):
    """Part of a chunk.

    Attributes:
        texts: the chunk, from which parts of the batch can be made anew.
        rows: which of its texts, int64.
        features: what the model takes.
        last: whether the chunk ends here.
    """

    texts: Texts
    rows: np.ndarray
    features: dict
    last: bool


def batches(reader: Reader, chunks: Iterator[list[str]]) -> Iterator[Batch]:
    """Yield the batches of each chunk, longest texts first. Memory: a chunk's tokens."""
    for chunk in chunks:
        texts = tokenise(reader, chunk)
        groups = by_token_budget(rounded_up(texts.lengths, step(reader)), reader.budget)
        for number, rows in enumerate(groups, 1):
            yield Batch(texts, rows, collate(reader, texts, rows), number == len(groups))
        if not groups:
            yield Batch(texts, np.empty(0, np.int64), {}, last=True)


def tokenise(reader: Reader, texts: list[str]) -> Texts:
    """Tokenise texts, cut to ``max_length``."""
    fields: dict[str, list[np.ndarray]] = {}
    common: dict[str, object] = {}
    cut = 0
    for start in range(0, len(texts), TEXTS_PER_CALL):
        part = texts[start : start + TEXTS_PER_CALL]
        found = _preprocess(reader, part, processing_kwargs=UNPADDED)
        cut += sum(bool(line.overflowing) for line in found.encodings or ())
        for name, values in found.items():
            if isinstance(values, list):
                fields.setdefault(name, []).extend(np.array(ids, np.int32) for ids in values)
            else:
                common[name] = values
    lengths = np.array([len(ids) for ids in fields.get("input_ids", [])], dtype=np.int64)
    return Texts(texts, fields, common, lengths, cut)


def collate(reader: Reader, texts: Texts, rows: np.ndarray) -> dict:
    """Pad some texts to one tensor per field, or pack them."""
    if reader.packed:
        return _preprocess(reader, [texts.texts[row] for row in rows])
    chosen = rows
    if reader.fixed_shapes:
        longest = int(rounded_up(texts.lengths[rows], step(reader)).max())
        wanted = max(reader.budget // max(longest, 1), 1)
        chosen = np.concatenate([rows, np.repeat(rows[-1:], max(wanted - len(rows), 0))])
    tokenizer = reader.model.tokenizer
    padded = tokenizer.pad(
        {name: [values[row].tolist() for row in chosen] for name, values in texts.fields.items()},
        pad_to_multiple_of=step(reader),
        return_tensors="pt",
        verbose=False,
    )
    return {**padded, **texts.common}


def work(texts: Texts, batch: Batch) -> Work:
    """Count a batch."""
    lengths = texts.lengths[batch.rows]
    ids = batch.features.get("input_ids", torch.empty(0))
    return Work(len(lengths), int(lengths.sum()), ids.numel(), int((lengths**2).sum()))


def step(reader: Reader) -> int:
    """Lengths are multiples of this."""
    return max(reader.max_length // SHAPES, 1) if reader.fixed_shapes else 1


def _preprocess(reader: Reader, texts: list[str], **options: object) -> dict:
    """Let the model tokenise: the thread ahead, or the main one for a batch that did not fit."""
    transformer = reader.model[0]
    with _turn:  # neither the flag nor a fast tokenizer is for two threads at once
        transformer.can_flatten_inputs = reader.packed and not options
        return reader.model.preprocess(texts, prompt=reader.prompt, **options)
