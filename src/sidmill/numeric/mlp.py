"""Encoder and decoder of a learned quantizer: linear layers with ReLU between them, in float32.

Shapes: n rows, D input dimensions, d output dimensions.

Rows go through in portions of one fixed size, the last one filled up with zeros: a matrix product
of another height may add in another order. Widths are filled up as well: in a product of odd widths
the first and the last rows may be added in another order than those between. So the result for
a row depends neither on its block nor on its position or its neighbours there, and an item encoded
alone gets the code that it gets among all the others.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sidmill.formats.quantizer_file import Network

if TYPE_CHECKING:
    import torch

PORTION_ROWS = 256
WIDTH_STEP = 16  # widths are filled up with zeros to a multiple of it


def load(network: Network | None, device: "torch.device | str") -> Callable[[Any], Any]:
    """Return the function of an encoder or decoder: float32 (n, D) to (n, d) on the device.

    Rows may be an array or a tensor. Without a network it is the identity, and no torch is loaded.
    Memory: the weights, the result and one portion.
    """
    if network is None:
        return _same

    layers = [
        (_filled_up(weight).to(device).T, _filled_up(bias).to(device))
        for weight, bias in zip(network.weights, network.biases, strict=True)
    ]
    skip = None if network.skip is None else _filled_up(network.skip).to(device)
    bound = None if network.bound is None else float(network.bound)
    return partial(_run, layers, skip, bound, len(network.biases[-1]), device)


def _filled_up(array: np.ndarray) -> "torch.Tensor":
    """A tensor whose every dimension is a multiple of ``WIDTH_STEP``, zeros behind the array."""
    import torch

    full = np.zeros([-(-size // WIDTH_STEP) * WIDTH_STEP for size in array.shape], dtype=np.float32)
    full[tuple(slice(size) for size in array.shape)] = array
    return torch.from_numpy(full)


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

    backends: list[Any] = [
        torch.backends.mkldnn.matmul,  # type: ignore[attr-defined]  # torch's stubs lack it
        torch.backends.cuda.matmul,
    ]
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend, precision in zip(backends, (on_cpu, on_gpu), strict=True):
            backend.fp32_precision = precision
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


def exact_products() -> AbstractContextManager[None]:
    """Let products use unrounded float32 factors, whatever the caller allowed: codes need them."""
    return products("ieee", "ieee")


@exact_products()  # type: ignore[operator]  # a context manager of contextlib is a decorator
def _run(
    layers: list[tuple["torch.Tensor", "torch.Tensor"]],
    skip: "torch.Tensor | None",
    bound: float | None,
    width: int,
    device: "torch.device | str",
    rows: "np.ndarray | torch.Tensor",
) -> "torch.Tensor":
    import torch

    rows = torch.as_tensor(rows, device=device)
    outputs = torch.empty((len(rows), width), device=rows.device)
    for start in range(0, len(rows), PORTION_ROWS):
        # fill the portion up with zeros to the fixed height, and to the width of the first layer
        portion = rows[start : start + PORTION_ROWS]
        n_rows, n_columns = portion.shape
        missing = layers[0][0].shape[0] - n_columns, PORTION_ROWS - n_rows
        if any(missing):
            portion = torch.nn.functional.pad(portion, (0, missing[0], 0, missing[1]))

        # through the layers, and past them
        values = portion
        for number, (weight, bias) in enumerate(layers):
            values = torch.addmm(bias, values if number == 0 else values.relu_(), weight)
        if skip is not None:
            values += portion @ skip.T if skip.ndim else portion * skip
        if bound is not None:
            values.clamp_(-bound, bound)
        outputs[start : start + n_rows] = values[:n_rows, :width]
    return outputs
