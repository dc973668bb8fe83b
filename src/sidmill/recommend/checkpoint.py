"""A trained recommender as a file: safetensors with its settings, and what it was trained on.

    model.*                 the weights, float32
    whitening.mean, .matrix of the text embeddings, if they were whitened
    metadata                shape, settings, identity of the items

Shapes: N items, D dimensions, H of the model.
"""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from sidmill.core.errors import SidmillError
from sidmill.io import tensors
from sidmill.numeric.row_blocks import read_blocks, take
from sidmill.recommend import sequence_model
from sidmill.recommend.item_features import Items, Whitening

MODEL = "model."
WHITENING = "whitening."
SAMPLE_ROWS = 4096


# Which items and embeddings a model belongs to: ``fingerprint``, ``ids``, ``vectors``.
Identity = dict[str, Any]


class Fitted(NamedTuple):
    """A model with everything that inference needs.

    Attributes:
        model: the network, in evaluation mode.
        whitening: of the text embeddings, or None.
        settings: ``max_length`` and ``temperature`` of its training.
        identity: of the items that it was trained on.
    """

    model: sequence_model.SequenceModel
    whitening: Whitening | None
    settings: dict[str, Any]
    identity: Identity


def identify(items: Items) -> Identity:
    """Identity of items and their embeddings. Reads a sample of the vectors."""
    rows = np.unique(np.linspace(0, len(items.vectors) - 1, SAMPLE_ROWS).astype(np.int64))
    sample = take(items.vectors, rows).astype(items.vectors.dtype)
    return {
        "fingerprint": items.fingerprint,
        "ids": digest_of_ids(items.ids),
        "vectors": hashlib.sha256(sample.data).hexdigest(),
    }


def digest_of_ids(ids: pa.Array) -> str:
    """SHA-256 of the values of ids (N,), int64 or string, in order.

    Equal ids have equal digests in every form of Arrow: slices, with or without a validity bitmap,
    large strings, dictionaries. Memory: a copy of the ids.
    """
    if pa.types.is_integer(ids.type):
        return hashlib.sha256(ids.cast(pa.int64()).to_numpy().astype("<i8").tobytes()).hexdigest()

    # Offsets and bytes of an Arrow array of strings, as they would be without slices and nulls.
    texts = [text.encode() for text in ids.to_pylist()]
    ends = np.cumsum([0, *map(len, texts)])
    wide = ends[-1] >= 2**31
    digest = hashlib.sha256(ends.astype("<i8" if wide else "<i4").tobytes())
    for text in texts:
        digest.update(text)
    return digest.hexdigest()


def digest_of_vectors(vectors: np.ndarray) -> str:
    """SHA-256 of all rows (N, D), as float32. Memory: two blocks."""
    digest = hashlib.sha256(str(vectors.shape).encode())
    for _, block in read_blocks(vectors, SAMPLE_ROWS):
        digest.update(np.ascontiguousarray(block).data)
    return digest.hexdigest()


def arrays_of(model: nn.Module, prefix: str) -> dict[str, np.ndarray]:
    """Weights and buffers as arrays, by their name with ``prefix``."""
    return {prefix + name: value.cpu().numpy() for name, value in model.state_dict().items()}


def fill(model: nn.Module, arrays: dict[str, np.ndarray], prefix: str) -> None:
    """Load arrays of :func:`arrays_of` into a model of the same shape."""
    named = {
        name.removeprefix(prefix): torch.from_numpy(value)
        for name, value in arrays.items()
        if name.startswith(prefix)
    }
    model.load_state_dict(named)


def save(path: str | Path, fitted: Fitted) -> None:
    """Write a trained recommender, atomically."""
    arrays = arrays_of(fitted.model, MODEL)
    if fitted.whitening is not None:
        arrays |= {WHITENING + name: value for name, value in fitted.whitening._asdict().items()}
    facts = {
        "shape": fitted.model.shape._asdict(),
        "settings": fitted.settings,
        "identity": fitted.identity,
    }
    tensors.write(path, arrays, facts)


def load(path: str | Path, device: torch.device) -> Fitted:
    """Read a trained recommender.

    Raises:
        SidmillError: if the file is no recommender, or its tensors do not fit its shape.
    """
    arrays, facts = tensors.read(path, "recommender")
    try:
        model = sequence_model.SequenceModel(sequence_model.Shape(**facts["shape"]), 0.0, 0.0)
        fill(model, arrays, MODEL)
        identity, settings = facts["identity"], facts["settings"]
    except (KeyError, TypeError, RuntimeError) as error:
        raise SidmillError(f"{path}: holds no recommender of SIDMill ({error})") from None
    whitening = None
    if WHITENING + "mean" in arrays:
        whitening = Whitening(arrays[WHITENING + "mean"], arrays[WHITENING + "matrix"])
    return Fitted(model.to(device).eval(), whitening, settings, identity)


def check_items(fitted: Fitted, identity: Identity, path: str | Path) -> None:
    """Refuse items that a model cannot score.

    A model of text alone scores any items of the same embedding space; a model with ids scores only
    the items that it was trained on.

    Raises:
        SidmillError: if the embeddings have another fingerprint, or the ids differ.
    """
    shape, known = fitted.model.shape, fitted.identity
    if "text" in shape.features and known["fingerprint"] != identity["fingerprint"]:
        raise SidmillError(
            f"{path} was trained on embeddings {known['fingerprint']}, these are "
            f"{identity['fingerprint']}: train it again, or embed with the same settings"
        )
    if "id" in shape.features and known["ids"] != identity["ids"]:
        raise SidmillError(
            f"{path} knows {shape.n_items} items by their ids, and these are others: train it "
            f"again, or set recommender.features to text"
        )
