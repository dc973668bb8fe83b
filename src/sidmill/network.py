"""Encoder and decoder of a learned quantizer: linear layers with ReLU between them, in float32.

Shapes: n rows, D input dimensions, d output dimensions.

Rows go through in portions of one fixed size, the last one filled up with zeros: a matrix product
of another height may add in another order. So what comes out for a row depends neither on the
block it came in nor on its neighbours, and an item encoded alone gets the code that it got among
all the others.
"""

from collections.abc import Callable
from functools import partial

import torch

from sidmill.formats.quantizer import Network

PORTION_ROWS = 256


def load(network: Network | None, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the function of a network: float32 (n, D) to float32 (n, d) on the device.

    Without a network it is the identity. Memory: the weights, the result and one portion.
    """
    if network is None:
        return _same
    layers = [
        (torch.from_numpy(weight).to(device).T, torch.from_numpy(bias).to(device))
        for weight, bias in zip(network.weights, network.biases, strict=True)
    ]
    skip = None if network.skip is None else torch.from_numpy(network.skip).to(device)
    return partial(_run, layers, skip)


def width(network: Network | None) -> int:
    """Return the largest number of values that a row has inside a network; 0 without one."""
    return max(max(weight.shape) for weight in network.weights) if network else 0


def _same(rows: torch.Tensor) -> torch.Tensor:
    return rows


@torch.no_grad()
def _run(
    layers: list[tuple[torch.Tensor, torch.Tensor]], skip: torch.Tensor | None, rows: torch.Tensor
) -> torch.Tensor:
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
