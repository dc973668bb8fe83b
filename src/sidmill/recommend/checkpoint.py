"""A trained recommender as a file: safetensors with its settings, and what it was trained on.

    model.*                 the weights, float32
    whitening.mean, .matrix what was done to the text embeddings before, where it was
    metadata                shape, settings, what the items were

Shapes: N items, D dimensions, H of the model.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch

from sidmill.core.errors import SidmillError
from sidmill.io import tensors
from sidmill.numeric.row_blocks import read_blocks, take
from sidmill.recommend import sequence_model
from sidmill.recommend.item_features import Items, Whitening

MODEL = "model."
WHITENING = "whitening."
SAMPLE_ROWS = 4096


class Fitted(NamedTuple):
    """A model with all that using it takes.

    Attributes:
        model: the network, in evaluation mode.
        whitening: of the text embeddings, or None.
        settings: those of training that inference needs, and the seed.
        identity: which items it was trained on.
    """

    model: sequence_model.Recommender
    whitening: Whitening | None
    settings: dict
    identity: dict


def identify(items: Items) -> dict:
    """Say which items and embeddings a model belongs to. Reads a sample of the vectors."""
    rows = np.unique(np.linspace(0, len(items.vectors) - 1, SAMPLE_ROWS).astype(np.int64))
    sample = take(items.vectors, rows).astype(items.vectors.dtype)
    return {
        "fingerprint": items.fingerprint,
        "ids": digest_of_ids(items.ids),
        "vectors": hashlib.sha256(sample).hexdigest(),
    }


def digest_of_ids(ids: pa.Array) -> str:
    """SHA-256 of the values of ids (N,), int64 or string, in order, however Arrow holds them.

    Equal ids have equal digests: slices too, with or without a validity bitmap, as large strings or
    a dictionary. Memory: the ids once more.
    """
    if pa.types.is_integer(ids.type):
        return hashlib.sha256(ids.cast(pa.int64()).to_numpy().astype("<i8").tobytes()).hexdigest()
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
        digest.update(np.ascontiguousarray(block))
    return digest.hexdigest()


def arrays_of(model: sequence_model.Recommender, prefix: str) -> dict[str, np.ndarray]:
    """Weights and buffers as arrays, each name after ``prefix``."""
    return {prefix + name: value.cpu().numpy() for name, value in model.state_dict().items()}


def fill(model: sequence_model.Recommender, arrays: dict[str, np.ndarray], prefix: str) -> None:
    """Put arrays made by :func:`arrays_of` into a model of the same shape."""
    named = {
        name.removeprefix(prefix): torch.from_numpy(value)
        for name, value in arrays.items()
        if name.startswith(prefix)
    }
    model.load_state_dict(named)


def save(path: str | Path, fitted: Fitted) -> None:
    """Write a recommender, atomically."""
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
    """Read a recommender.

    Raises:
        SidmillError: if the file is none, or its tensors do not fit its shape.
    """
    arrays, facts = tensors.read(path, "recommender")
    try:
        network = sequence_model.Recommender(sequence_model.Shape(**facts["shape"]), 0.0, 0.0)
        fill(network, arrays, MODEL)
        identity, settings = facts["identity"], facts["settings"]
    except (KeyError, TypeError, RuntimeError) as error:
        raise SidmillError(f"{path}: holds no recommender of SIDMill ({error})") from None
    whitening = None
    if WHITENING + "mean" in arrays:
        whitening = Whitening(arrays[WHITENING + "mean"], arrays[WHITENING + "matrix"])
    return Fitted(network.to(device).eval(), whitening, settings, identity)


def check_items(fitted: Fitted, identity: dict, path: str | Path) -> None:
    """Refuse items that a model does not know.

    A model of text takes any items of the same embedding space; one of ids only its own.

    Raises:
        SidmillError: if the embeddings are of another space, or the items are others.
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
