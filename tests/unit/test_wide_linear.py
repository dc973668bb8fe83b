"""The wide linear layer: outputs and gradients of torch's, and a model file that either reads."""

import pytest
import torch
from torch import Tensor, nn

from sidmill.recommend.wide_linear import WideLinear


@pytest.mark.parametrize("n_rows", [1, 255, 256, 300])
@pytest.mark.parametrize("needs_rows", [True, False])
def test_outputs_and_gradients_are_those_of_torch(n_rows: int, needs_rows: bool) -> None:
    torch.manual_seed(n_rows)
    wide, exact = WideLinear(37, 11), nn.Linear(37, 11, dtype=torch.float64)
    exact.load_state_dict(wide.state_dict())
    rows, direction = torch.randn(n_rows, 37), torch.randn(n_rows, 11)

    def run(layer: nn.Module, dtype: torch.dtype) -> list[Tensor | None]:
        own = rows.to(dtype).clone().requires_grad_(needs_rows)
        out = layer(own)
        torch.autograd.backward((out * direction).sum())
        return [out.detach(), own.grad, *(one.grad for one in layer.parameters())]

    found, expected = run(wide, torch.float32), run(exact, torch.float64)
    for one, other in zip(found, expected, strict=True):
        if other is None:
            assert one is None
        else:
            assert one is not None
            torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)


def test_autocast_stays_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert WideLinear(8, 4)(torch.randn(3, 8)).dtype == torch.bfloat16
