"""``quantizer.safetensors``: the one form that every quantizer leaves.

    codebook.{l}   float32 (K_l, d), level 0 first

Facts, as :mod:`sidmill.formats.tensors` keeps them: ``kind``, ``settings`` and ``fingerprint``.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from sidmill.core.errors import SidmillError
from sidmill.formats import tensors


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
    """Write a quantizer atomically; equal quantizers are equal bytes.

    Raises:
        SidmillError: if a codebook is not float32 (K_l, d) with one d, or not finite.
    """
    _check(path, quantizer.codebooks)
    books = {f"codebook.{level}": book for level, book in enumerate(quantizer.codebooks)}
    facts = {name: getattr(quantizer, name) for name in ("kind", "settings", "fingerprint")}
    tensors.write(path, books, facts)


def read(path: str | Path) -> Quantizer:
    """Read a quantizer.

    Raises:
        SidmillError: if the file is not safetensors, was not written as a quantizer, or its
            codebooks are not as :func:`write` takes them.
    """
    found, facts = tensors.read(path, "quantizer")
    levels = sorted(int(name.partition(".")[2]) for name in found if name.startswith("codebook."))
    if not levels:
        raise SidmillError(f"{path}: holds no codebook: train the quantizer again")
    codebooks = [found[f"codebook.{level}"] for level in levels]
    _check(path, codebooks)
    return Quantizer(codebooks=codebooks, **facts)


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
