"""``quantizer.safetensors``: the one form that every quantizer leaves.

    codebook.{l}   float32 (K_l, d), level 0 first
    price.{l}      float32 (K_l,), of balanced codebooks: added to the squared distance

Facts, as :mod:`sidmill.formats.tensors` keeps them: ``kind``, ``settings``, ``fingerprint``, and of
balanced codebooks ``balance``.
"""

from collections.abc import Sequence
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
        prices: float32 (K_l,) per level, or empty.
        balance: per level what the prices cost and gained, or empty.
    """

    kind: str
    codebooks: list[np.ndarray]
    settings: dict
    fingerprint: dict
    prices: Sequence[np.ndarray] = ()
    balance: Sequence[dict] = ()

    @property
    def codebook_sizes(self) -> list[int]:
        """K_l per level."""
        return [len(codebook) for codebook in self.codebooks]


def write(path: str | Path, quantizer: Quantizer) -> None:
    """Write a quantizer atomically; equal quantizers are equal bytes.

    Raises:
        SidmillError: if a codebook is not float32 (K_l, d) with one d, or not finite.
    """
    _check(path, quantizer.codebooks, quantizer.prices)
    books = {f"codebook.{level}": book for level, book in enumerate(quantizer.codebooks)}
    prices = {f"price.{level}": price for level, price in enumerate(quantizer.prices)}
    facts = {name: getattr(quantizer, name) for name in ("kind", "settings", "fingerprint")}
    balance = {"balance": list(quantizer.balance)} if quantizer.balance else {}
    tensors.write(path, books | prices, facts | balance)


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
    prices = tuple(found[f"price.{level}"] for level in levels if f"price.{level}" in found)
    _check(path, codebooks, prices)
    return Quantizer(codebooks=codebooks, prices=prices, **facts)


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


def _check(path: str | Path, codebooks: list[np.ndarray], prices: Sequence[np.ndarray]) -> None:
    sizes = [(np.dtype(np.float32), (len(book),)) for book in codebooks]
    if prices and [(price.dtype, price.shape) for price in prices] != sizes:
        raise SidmillError(
            f"{path}: prices {[price.shape for price in prices]} for codebooks of "
            f"{[len(book) for book in codebooks]} words: train again"
        )
    for level, book in enumerate(codebooks):
        if book.dtype != np.float32 or book.ndim != 2 or book.shape[1] != codebooks[0].shape[1]:
            raise SidmillError(
                f"{path}: codebook.{level} is {book.dtype} {book.shape}, wanted float32 "
                f"(K, {codebooks[0].shape[-1]})"
            )
        if not np.isfinite(book).all():
            raise SidmillError(f"{path}: codebook.{level} holds a NaN or an infinity: train again")
