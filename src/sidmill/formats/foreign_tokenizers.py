"""Quantizers that other programs trained, told apart by the names of their tensors."""

from pathlib import Path
from typing import Any

from sidmill.formats import lcrec_checkpoint, onerec_checkpoint
from sidmill.formats.quantizer_file import Quantizer
from sidmill.io import state_dict


def read(path: str | Path, fingerprint: dict[str, Any] | None = None) -> Quantizer:
    """Read a tokenizer of OneRec, or an RQ-VAE of LC-Rec or MiniOneRec.

    Args:
        path: .pt, .pth or .safetensors.
        fingerprint: of the embeddings it is trusted to belong to: such a file names none.

    Raises:
        SidmillError: if it is neither, damaged, or holds more than tensors.
    """
    state = state_dict.read(path)
    settings = {"source": Path(path).name}
    if lcrec_checkpoint.is_one(state):
        return lcrec_checkpoint.quantizer(path, state, settings, fingerprint or {})
    codebooks = onerec_checkpoint.codebooks(path, state)
    return Quantizer("pretrained", codebooks, settings, fingerprint or {})
