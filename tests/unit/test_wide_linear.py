"""The wide linear layer: outputs and gradients of torch's, and a model file that either reads."""

import pytest
import torch
from torch import Tensor, nn

from sidmill.numeric.wide_linear import WideLinear, widen


@pytest.mark.parametrize("n_rows", [0, 1, 5, 255, 256, 300])
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


def test_layers_of_a_model_are_widened_with_their_weights_and_other_layers_are_not() -> None:
    class Own(nn.Linear):
        """A layer that may compute anything."""

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Sequential(nn.Linear(5, 4, bias=False)))
    model.append(Own(4, 4))
    rows = torch.randn(2, 3, 6)
    with torch.no_grad():
        expected = model(rows)
        before = dict(model.named_parameters())
        widen(model)
        found = model(rows)

    assert [type(one) for one in model.modules() if isinstance(one, nn.Linear)] == [
        WideLinear,
        WideLinear,
        Own,
    ]
    assert all(value is before[name] for name, value in model.named_parameters())
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
