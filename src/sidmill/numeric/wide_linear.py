"""Linear layers by the products of :mod:`sidmill.numeric.wide_products`.

Each number of rows takes kernels of its own, so rows are filled up: to a multiple of ``ROWS``, or
fewer to a power of two.

Shapes: m rows, k features of a row, n outputs.
"""

import torch
from torch import Tensor, nn

from sidmill.numeric.wide_products import fill_up, is_faster, multiply

ROWS = 256  # a power of two


class WideLinear(nn.Linear):
    """``torch.nn.Linear`` with the same weights; a CPU multiplies float32 at its full width."""

    def forward(self, rows: Tensor) -> Tensor:
        """Map float (..., k) to (..., n)."""
        if not is_faster(rows) or torch.is_autocast_enabled("cpu"):
            return super().forward(rows)
        product: Tensor = _Linear.apply(  # type: ignore[no-untyped-call]
            rows.flatten(0, -2), self.weight, self.bias
        )
        return product.view(*rows.shape[:-1], self.out_features)


def widen(model: nn.Module) -> None:
    """Make every plain linear layer of a model a :class:`WideLinear`; weights stay where they are.

    Other classes of layers, those that inherit from ``nn.Linear`` included, are left alone.
    """
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = WideLinear


class _Linear(torch.autograd.Function):
    """The layer, and the gradients of what needs one."""

    @staticmethod
    def forward(ctx, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # type: ignore[no-untyped-def]
        """Multiply, and add the bias."""
        ctx.save_for_backward(rows, weight)
        return multiply(_filled(rows), weight, bias)[: len(rows)]

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        """Gradients of rows, weight and bias."""
        rows, weight = ctx.saved_tensors
        needs_rows, needs_weight, needs_bias = ctx.needs_input_grad
        filled = _filled(grad)
        of_weight = None
        if needs_weight:
            # The transpose of this product is slower: it reads the larger matrix by columns.
            of_weight = multiply(_filled(rows).T, filled.T).T
        return (
            multiply(filled, weight.T)[: len(rows)] if needs_rows else None,
            of_weight,
            grad.sum(dim=0) if needs_bias else None,
        )


def _filled(rows: Tensor) -> Tensor:
    """Rows (m, k), filled up with zeros to one of few numbers of rows."""
    return fill_up(rows, min(ROWS, 2 ** (max(len(rows), 1) - 1).bit_length()))
