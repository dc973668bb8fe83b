"""Encoder and decoder of a learned quantizer: linear layers with ReLU between them, in float32.

Shapes: n rows, D input dimensions, d output dimensions.

Rows go through in portions of one fixed size, the last one filled up with zeros: a matrix product
of another height may add in another order. So what comes out for a row depends neither on the
block it came in nor on its neighbours, and an item encoded alone gets the code that it got among
all the others.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from sidmill.formats.quantizer import Network

if TYPE_CHECKING:
    import torch

PORTION_ROWS = 256


def load(network: Network | None, device: "torch.device | str") -> Callable:
    """Return the function of a network: float32 (n, D) to a float32 tensor (n, d) on the device.

    Rows may be an array or a tensor. Without a network it is the identity, and no torch is loaded.
    Memory: the weights, the result and one portion.
    """
    if network is None:
        return _same
    import torch

    layers = [
        (torch.from_numpy(weight).to(device).T, torch.from_numpy(bias).to(device))
        for weight, bias in zip(network.weights, network.biases, strict=True)
    ]
    skip = None if network.skip is None else torch.from_numpy(network.skip).to(device)
    return partial(_run, layers, skip, device)


def _same(rows: np.ndarray) -> np.ndarray:
    return rows


@contextmanager
def products(on_cpu: str, on_gpu: str) -> Iterator[None]:
    """Set how torch's products round their factors, and put back what the caller had set.

    Args:
        on_cpu: ``ieee`` or ``bf16``.
        on_gpu: ``ieee`` or ``tf32``.
    """
    import torch

    places = torch.backends.mkldnn.matmul, torch.backends.cuda.matmul
    before = [place.fp32_precision for place in places]
    try:
        for place, precision in zip(places, (on_cpu, on_gpu), strict=True):
            place.fp32_precision = precision
        yield
    finally:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision


def exact_products() -> AbstractContextManager[None]:
    """Let products take float32 factors whole, whatever the caller allowed: codes hang on them."""
    return products("ieee", "ieee")


@exact_products()
def _run(
    layers: list[tuple["torch.Tensor", "torch.Tensor"]],
    skip: "torch.Tensor | None",
    device: "torch.device | str",
    rows: "np.ndarray | torch.Tensor",
) -> "torch.Tensor":
    import torch

    rows = torch.as_tensor(rows, device=device)
    found = torch.empty((len(rows), layers[-1][0].shape[1]), device=rows.device)
    for start in range(0, len(rows), PORTION_ROWS):
        portion = rows[start : start + PORTION_ROWS]
        n_rows = len(portion)
        if n_rows < PORTION_ROWS:
            portion = torch.nn.functional.pad(portion, (0, 0, 0, PORTION_ROWS - n_rows))
        values = portion
        for number, (weight, bias) in enumerate(layers):
            values = torch.addmm(bias, values if number == 0 else values.relu_(), weight)
        if skip is not None:
            values += portion @ skip.T if skip.ndim else portion * skip
        found[start : start + n_rows] = values[:n_rows]
    return found
