"""Checkpoints of OneRec's residual k-means tokenizer: a state dict of ``centroids.{l}``.

    centroids.{l}   float (K_l, D), level 0 first

Read from .safetensors or from .pt, as a bare state dict or under ``model`` or ``state_dict``. A
.pt is loaded with ``weights_only=True``: tensors, never code. The layout is that of the tokenizer
in https://github.com/Kuaishou-OneRec/OpenOneRec.
"""

import io
import pickle
import re
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from sidmill.core.atomic import replacing
from sidmill.core.errors import SidmillError

WRAPPERS = ("model", "state_dict")
CENTROIDS = re.compile(r"centroids\.(\d+)")


def write(path: str | Path, codebooks: list[np.ndarray]) -> None:
    """Write codebooks, float32 (K_l, D), as a .pt that OneRec's scripts load.

    Equal codebooks give equal bytes.
    """
    state = {f"centroids.{level}": torch.from_numpy(book) for level, book in enumerate(codebooks)}
    buffer = io.BytesIO()  # saved to a path, the archive would hold the name of the temporary file
    torch.save(state, buffer)
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read(path: str | Path) -> list[np.ndarray]:
    """Read codebooks, float32 (K_l, D), level 0 first.

    Raises:
        SidmillError: if the file is missing, holds more than tensors, has no ``centroids.{l}``
            from 0 on, or centroids that are no finite matrices of one width.
    """
    state = _load(Path(path))
    for wrapper in WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    found = {}
    for name, tensor in state.items() if isinstance(state, dict) else ():
        match = CENTROIDS.fullmatch(str(name))
        if match and isinstance(tensor, torch.Tensor):
            found[int(match[1])] = tensor
    if sorted(found) != list(range(len(found))) or not found:
        names = ", ".join(map(str, list(state)[:5])) if isinstance(state, dict) else type(state)
        raise SidmillError(
            f"{path}: wanted centroids.0, centroids.1, ... as in a OneRec tokenizer, found {names}"
        )
    return [_matrix(path, level, found) for level in sorted(found)]


def _load(path: Path) -> object:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise SidmillError(f"{path}: no such file: check pretrained.path") from None
    except pickle.UnpicklingError:
        raise SidmillError(
            f"{path}: holds pickled Python objects, which can run any code when loaded, and is "
            f"refused: save the state dict alone, torch.save(model.state_dict(), ...)"
        ) from None
    except Exception as error:
        reason = str(error).partition("\n")[0] or "it is empty"
        raise SidmillError(f"{path}: not a readable checkpoint ({reason})") from None


def _matrix(path: str | Path, level: int, found: dict[int, torch.Tensor]) -> np.ndarray:
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
