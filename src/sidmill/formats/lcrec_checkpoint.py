"""RQ-VAE checkpoints of LC-Rec and MiniOneRec: encoder, codebooks and decoder of a state dict.

    encoder.mlp_layers.{i}.weight        float (out, in): a linear layer, with .bias (out,)
    encoder.mlp_layers.{i}.running_mean  float (out,): batch norm after it, with .running_var,
                                         .weight and .bias; ReLU follows, but after the last layer
    rq.vq_layers.{l}.embedding.weight    float (K_l, d), level 0 first
    decoder.mlp_layers.*                 the same as the encoder, from d to D

Batch norm is folded into the layers. The codes are those of their greedy inference: the nearest
codeword, level by level. Layouts: https://github.com/RUCAIBox/LC-Rec,
https://github.com/AkaliKong/MiniOneRec. Read from .safetensors or .pth
(:mod:`sidmill.io.state_dict`).
"""

import logging
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sidmill.core.errors import SidmillError
from sidmill.formats.quantizer_file import Network, Quantizer
from sidmill.io.state_dict import SHOWN_NAMES

logger = logging.getLogger(__name__)

LAYER = re.compile(r"(encoder|decoder)\.mlp_layers\.(\d+)\.(\w+)")
LEVEL = re.compile(r"rq\.vq_layers\.(\d+)\.(.+)")
WORDS = "embedding.weight"
NORM_EPS = 1e-5  # torch's default, which they keep
NORM_PARTS = ("running_mean", "running_var", "weight", "bias")

Layers = dict[int, dict[str, np.ndarray]]  # number in the module -> name -> float64 array


def is_one(state: dict[str, torch.Tensor]) -> bool:
    """Whether a state dict is of such an RQ-VAE, whole or not."""
    return any(LEVEL.fullmatch(name) for name in state)


def quantizer(
    path: str | Path,
    state: dict[str, torch.Tensor],
    settings: dict[str, Any],
    fingerprint: dict[str, Any],
) -> Quantizer:
    """Make a quantizer of the tensors of an LC-Rec or MiniOneRec checkpoint.

    Args:
        path: of the file, for messages.
        state: what :func:`sidmill.io.state_dict.read` gave.
        settings: facts that the quantizer carries.
        fingerprint: of the embeddings that it takes.

    Raises:
        SidmillError: naming what is missing, of another shape, not finite, or unknown.
    """
    # Sort the tensors by name: layers, codebooks, unused, unknown.
    parts: dict[str, Layers] = {"encoder": {}, "decoder": {}}
    books: dict[int, np.ndarray] = {}
    unused, unknown = [], []
    for name, tensor in state.items():
        if match := LAYER.fullmatch(name):
            parts[match[1]].setdefault(int(match[2]), {})[match[3]] = _finite(path, name, tensor)
        elif match := LEVEL.fullmatch(name):
            if match[2] == WORDS:
                books[int(match[1])] = _finite(path, name, tensor)
            else:
                unused.append(name)
        else:
            unknown.append(name)
    if unknown:
        raise SidmillError(
            f"{path}: an RQ-VAE of LC-Rec has no {', '.join(unknown[:SHOWN_NAMES])}, so its codes "
            f"may be others than this one's: save the state dict without what serves training alone"
        )
    if unused:
        logger.info(
            "%s: %d tensors serve training alone (%s)",
            path,
            len(unused),
            ", ".join(unused[:SHOWN_NAMES]),
        )

    # Networks and codebooks, without a gap.
    encoder = _network(path, "encoder", parts["encoder"])
    decoder = _network(path, "decoder", parts["decoder"])
    if sorted(books) != list(range(len(books))) or not books:
        raise SidmillError(
            f"{path}: wanted rq.vq_layers.0.{WORDS} and on, without a gap, found levels "
            f"{sorted(books)[:SHOWN_NAMES]}: take a whole copy of the file"
        )
    codebooks = [np.ascontiguousarray(books[level], dtype=np.float32) for level in sorted(books)]

    # Dimensions: encoder, decoder and codebooks must fit.
    ends = {"encoder": (len(encoder.weights[-1]), encoder.weights[0].shape[1])}
    ends |= {"decoder": (decoder.weights[0].shape[1], len(decoder.weights[-1]))}
    if ends["encoder"] != ends["decoder"]:
        raise SidmillError(
            f"{path}: the encoder goes from {ends['encoder'][1]} to {ends['encoder'][0]} "
            f"dimensions, the decoder from {ends['decoder'][0]} to {ends['decoder'][1]}: take a "
            f"whole copy of the file"
        )
    for level, book in enumerate(codebooks):
        if book.ndim != 2 or book.shape[1] != ends["encoder"][0]:
            raise SidmillError(
                f"{path}: rq.vq_layers.{level}.{WORDS} is {book.shape}, wanted (K, "
                f"{ends['encoder'][0]}) as the encoder gives: take a whole copy of the file"
            )
    return Quantizer("pretrained", codebooks, settings, fingerprint, encoder, decoder)


def _network(path: str | Path, part: str, layers: Layers) -> Network:
    """Linear layers in the order of their numbers, batch norm folded into the one before it."""
    # Fold a batch norm into the linear layer before it.
    weights: list[np.ndarray] = []
    biases: list[np.ndarray] = []
    before = None  # number of the linear layer that a batch norm may follow
    for number, found in sorted(layers.items()):
        name = f"{part}.mlp_layers.{number}"
        if "running_mean" in found:
            _check(path, name, found, NORM_PARTS, before == number - 1)
            if {found[key].shape for key in NORM_PARTS} != {biases[-1].shape}:
                raise _not_whole(path, name, found)
            gain = found["weight"] / np.sqrt(found["running_var"] + NORM_EPS)
            weights[-1] = weights[-1] * gain[:, None]
            biases[-1] = (biases[-1] - found["running_mean"]) * gain + found["bias"]
            before = None
        else:
            _check(path, name, found, ("weight", "bias"), found.get("weight", np.ones(1)).ndim == 2)
            if found["bias"].shape != found["weight"].shape[:1]:
                raise _not_whole(path, name, found)
            weights.append(found["weight"])
            biases.append(found["bias"])
            before = number

    # Each layer takes what the layer before it gives.
    if not weights:
        raise SidmillError(f"{path}: wanted {part}.mlp_layers.*, found none: take a whole copy")
    for one, other in pairwise(weights):
        if other.shape[1] != len(one):
            raise SidmillError(
                f"{path}: a layer of {part}.mlp_layers gives {len(one)} dimensions, the next one "
                f"takes {other.shape[1]}: take a whole copy of the file"
            )
    return Network(
        [np.ascontiguousarray(weight, dtype=np.float32) for weight in weights],
        [np.ascontiguousarray(bias, dtype=np.float32) for bias in biases],
        None,
    )


def _check(
    path: str | Path, name: str, found: dict[str, np.ndarray], parts: tuple[str, ...], fits: bool
) -> None:
    if not fits or not set(parts) <= set(found) <= {*parts, "num_batches_tracked"}:
        raise _not_whole(path, name, found)


def _not_whole(path: str | Path, name: str, found: dict[str, np.ndarray]) -> SidmillError:
    shapes = ", ".join(f"{key} {array.shape}" for key, array in sorted(found.items())[:SHOWN_NAMES])
    return SidmillError(
        f"{path}: {name} has {shapes}, which is neither a linear layer (weight, bias) nor a batch "
        f"norm after one ({', '.join(NORM_PARTS)}): take a whole copy of the file"
    )


def _finite(path: str | Path, name: str, tensor: torch.Tensor) -> np.ndarray:
    array = tensor.detach().to(torch.float64).numpy()
    with np.errstate(over="ignore"):
        if not np.isfinite(array.astype(np.float32)).all():
            raise SidmillError(f"{path}: {name} holds a NaN or an infinity")
    return array
