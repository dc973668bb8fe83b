"""``quantizer.safetensors``: the one form that every quantizer leaves.

    codebook.{l}   float32 (K_l, d), level 0 first

Metadata: one key ``sidmill`` that holds JSON with ``kind``, ``settings`` and ``fingerprint``. It is
one key because safetensors writes several in no fixed order, and equal quantizers shall be equal
bytes. Format: https://huggingface.co/docs/safetensors
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from sidmill.core.atomic import replacing
from sidmill.core.errors import SidmillError

METADATA_KEY = "sidmill"


class Quantizer(NamedTuple):
    """Codebooks, and where they come from.

    Attributes:
        kind: rqkmeans, ...
        codebooks: float32 (K_l, d) per level.
        settings: the settings it was trained with.
        fingerprint: the embeddings it was trained on.
    """

    kind: str
    codebooks: list[np.ndarray]
    settings: dict
    fingerprint: dict

    @property
    def codebook_sizes(self) -> list[int]:
        """K_l per level."""
        return [len(codebook) for codebook in self.codebooks]


def write(path: str | Path, quantizer: Quantizer) -> None:
    """Write a quantizer atomically.

    Raises:
        SidmillError: if a codebook is not float32 (K_l, d) with one d, or not finite.
    """
    _check(path, quantizer.codebooks)
    tensors = {f"codebook.{level}": book for level, book in enumerate(quantizer.codebooks)}
    facts = {name: getattr(quantizer, name) for name in ("kind", "settings", "fingerprint")}
    metadata = {METADATA_KEY: json.dumps(facts, sort_keys=True, ensure_ascii=False)}
    with replacing(path) as temporary:
        temporary.write_bytes(save(tensors, metadata))


def read(path: str | Path) -> Quantizer:
    """Read a quantizer.

    Raises:
        SidmillError: if the file is not safetensors, was not written as a quantizer, or its
            codebooks are not as :func:`write` takes them.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            names = sorted(
                (name for name in file.keys() if name.startswith("codebook.")),  # noqa: SIM118
                key=lambda name: int(name.partition(".")[2]),
            )
            facts = json.loads((file.metadata() or {}).get(METADATA_KEY, "null"))
            codebooks = [file.get_tensor(name) for name in names]
    except FileNotFoundError:
        raise SidmillError(f"{path}: no such file") from None
    except (SafetensorError, ValueError, OSError) as error:
        raise SidmillError(
            f"{path}: not a readable quantizer ({error}): delete it and train again"
        ) from None
    if facts is None or not codebooks:
        raise SidmillError(f"{path}: holds no SIDMill quantizer: train it with this workflow")
    _check(path, codebooks)
    return Quantizer(codebooks=codebooks, **facts)


def is_quantizer(path: str | Path) -> bool:
    """Whether a file is safetensors with a SIDMill quantizer in it, by its header."""
    try:
        with safe_open(path, framework="numpy") as file:
            return METADATA_KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def check_fingerprint(quantizer: Quantizer, fingerprint: dict, path: str | Path) -> None:
    """Refuse to use a quantizer on embeddings that it was not trained on.

    Raises:
        SidmillError: naming each fact that differs.
    """
    trained = quantizer.fingerprint
    differing = [
        f"{key}: {trained.get(key)!r} in the quantizer, {fingerprint.get(key)!r} in the vectors"
        for key in sorted({*trained, *fingerprint})
        if trained.get(key) != fingerprint.get(key)
    ]
    if differing:
        raise SidmillError(
            f"{path} was trained on other embeddings ({'; '.join(differing)}): train it on these, "
            f"or embed the items as it expects"
        )


def _check(path: str | Path, codebooks: list[np.ndarray]) -> None:
    for level, book in enumerate(codebooks):
        if book.dtype != np.float32 or book.ndim != 2 or book.shape[1] != codebooks[0].shape[1]:
            raise SidmillError(
                f"{path}: codebook.{level} is {book.dtype} {book.shape}, wanted float32 "
                f"(K, {codebooks[0].shape[-1]})"
            )
        if not np.isfinite(book).all():
            raise SidmillError(f"{path}: codebook.{level} holds a NaN or an infinity: train again")
