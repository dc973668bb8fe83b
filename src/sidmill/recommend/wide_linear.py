"""A linear layer over many rows, by the products of :mod:`sidmill.numeric.wide_products`.

For layers that read the same number of rows in most steps: each number of rows takes kernels of its
own, so rows are filled up to a multiple of ``ROWS``.

Shapes: m rows, k features of a row, n outputs.
"""

import torch
from torch import Tensor, nn

from sidmill.numeric.wide_products import fill_up, is_faster, multiply

ROWS = 256


class WideLinear(nn.Linear):
    """``torch.nn.Linear`` with the same weights; a CPU multiplies float32 at its full width."""

    def forward(self, rows: Tensor) -> Tensor:
        """Map float (m, k) to (m, n)."""
        if not is_faster(rows) or torch.is_autocast_enabled("cpu"):
            return super().forward(rows)
        product: Tensor = _Linear.apply(rows, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return product


class _Linear(torch.autograd.Function):
    """The layer, and the gradients of what needs one."""

    @staticmethod
    def forward(ctx, rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        """Multiply, and add the bias."""
        ctx.save_for_backward(rows, weight)
        return multiply(fill_up(rows, ROWS), weight)[: len(rows)].add_(bias)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        """Gradients of rows, weight and bias."""
        rows, weight = ctx.saved_tensors
        needs_rows, _, _ = ctx.needs_input_grad
        filled = fill_up(grad, ROWS)
        return (
            multiply(filled, weight.T)[: len(rows)] if needs_rows else None,
            # The transpose of this product is slower: it reads the larger matrix by columns.
            multiply(fill_up(rows, ROWS).T, filled.T).T,
            grad.sum(dim=0),
        )
