"""Checkpoints of OneRec's residual k-means tokenizer: a state dict of ``centroids.{l}``.

    centroids.{l}   float (K_l, D), level 0 first

Read from .safetensors or from .pt (:mod:`sidmill.io.state_dict`). The layout is that of the
tokenizer in https://github.com/Kuaishou-OneRec/OpenOneRec.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sidmill.core.atomic import replacing
from sidmill.core.errors import SidmillError
from sidmill.io import state_dict_file

if TYPE_CHECKING:
    import torch

CENTROIDS = re.compile(r"centroids\.(\d+)")


def write(path: str | Path, codebooks: list[np.ndarray]) -> None:
    """Write codebooks, float32 (K_l, D), as a .pt that OneRec's scripts load.

    Equal codebooks give equal bytes.
    """
    state = {f"centroids.{level}": book for level, book in enumerate(codebooks)}
    with replacing(path) as temporary:
        state_dict_file.write(temporary, state)


def read(path: str | Path) -> list[np.ndarray]:
    """Read the codebooks of a OneRec checkpoint, float32 (K_l, D), level 0 first.

    Raises:
        SidmillError: if the file is missing, holds more than tensors, has no ``centroids.{l}``
            from 0 on, or centroids that are no finite matrices of one width.
    """
    from sidmill.io import state_dict

    return codebooks(path, state_dict.read(path))


def codebooks(path: str | Path, state: "dict[str, torch.Tensor]") -> list[np.ndarray]:
    """Take codebooks out of the tensors of a file, as :func:`read` does.

    Raises:
        SidmillError: see :func:`read`.
    """
    from sidmill.io import state_dict

    found = {}
    for name, tensor in state.items():
        if match := CENTROIDS.fullmatch(name):
            found[int(match[1])] = tensor
    if sorted(found) != list(range(len(found))) or not found:
        raise SidmillError(
            f"{path}: wanted centroids.0, centroids.1, ... as in a OneRec tokenizer, or "
            f"encoder.mlp_layers.*, decoder.mlp_layers.* and rq.vq_layers.* as in an RQ-VAE of "
            f"LC-Rec, found {state_dict.names_of(state)}"
        )
    return [_matrix(path, level, found) for level in sorted(found)]


def _matrix(path: str | Path, level: int, found: "dict[int, torch.Tensor]") -> np.ndarray:
    import torch

    tensor, first = found[level], found[0]
    if tensor.ndim != 2 or not tensor.is_floating_point() or tensor.shape[1] != first.shape[-1]:
        raise SidmillError(
            f"{path}: centroids.{level} is {tensor.dtype} {tuple(tensor.shape)}, wanted float "
            f"(K, {first.shape[-1]})"
        )
    book = tensor.detach().to(torch.float32).contiguous().numpy()
    if not np.isfinite(book).all():
        raise SidmillError(f"{path}: centroids.{level} holds a NaN or an infinity")
    return book
