"""safetensors with facts: what the quantizer, the LSA model and a training's state share.

Facts go into one metadata key, as JSON: safetensors writes several keys in no fixed order, and
equal content shall be equal bytes. Among the facts is a digest of tensors and facts, held against
them when they are read. Format: https://huggingface.co/docs/safetensors
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from sidmill.core.atomic import replacing
from sidmill.core.errors import SidmillError
from sidmill.io.remedy import remedy

METADATA_KEY = "sidmill"
DIGEST = "sha256"


def write(path: str | Path, tensors: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
    """Write tensors and facts to safetensors, atomically. Memory: the tensors twice more.

    Args:
        path: the file.
        tensors: arrays of any layout and byte order: transposed, cut, big-endian.
        facts: JSON.
    """
    # safetensors writes the memory of an array as it lies, and says that it lies in rows.
    tensors = {name: _plain(tensor) for name, tensor in tensors.items()}
    signed = facts | {DIGEST: _digest(tensors, facts)}
    metadata = {METADATA_KEY: json.dumps(signed, sort_keys=True, ensure_ascii=False)}
    with replacing(path) as temporary:
        temporary.write_bytes(save(tensors, metadata))


def _plain(tensor: np.ndarray) -> np.ndarray:
    """The same values row by row, in the byte order of files (little-endian)."""
    return np.ascontiguousarray(tensor, dtype=tensor.dtype.newbyteorder("<")).reshape(tensor.shape)


def read(path: str | Path, what: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read all tensors and the facts of a safetensors file.

    Args:
        path: the file.
        what: what it should be, for the message, as in ``quantizer``.

    Raises:
        SidmillError: if it is missing, damaged, or has no facts of SIDMill.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            facts = json.loads((file.metadata() or {}).get(METADATA_KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise SidmillError(f"{path}: no such file") from None
    except (SafetensorError, ValueError, OSError, TypeError, RecursionError) as error:
        raise SidmillError(f"{path}: not a readable {what} ({error}): {remedy(path)}") from None
    if not isinstance(facts, dict):
        raise SidmillError(f"{path}: holds no {what} of SIDMill: {remedy(path)}")
    expected = facts.pop(DIGEST, None)
    if expected and expected != _digest(tensors, facts):
        raise SidmillError(
            f"{path}: its bytes are not those that were written (a damaged disk or copy): "
            f"{remedy(path)}"
        )
    return tensors, facts


def _digest(tensors: dict[str, np.ndarray], facts: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
        digest.update(np.ascontiguousarray(tensor).data)
    return digest.hexdigest()


def has_facts(path: str | Path) -> bool:
    """Whether a file is safetensors that SIDMill wrote, by its header."""
    try:
        with safe_open(path, framework="numpy") as file:
            return METADATA_KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False
