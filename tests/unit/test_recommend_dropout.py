"""Dropout with cheap random numbers: the share that is kept, the mean, gradients, repeatability."""

import math

import pytest
import torch

from sidmill.recommend.dropout import Dropout


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.4, 0.75])
def test_the_share_of_zeros_is_the_rate_and_the_mean_stays(rate: float) -> None:
    torch.manual_seed(0)
    n = 400_003  # no multiple of the values of a draw
    dropped = Dropout(rate)(torch.ones(n))

    # Four standard deviations of a count of n.
    tolerance = 4 * math.sqrt(rate * (1 - rate) / n)
    assert dropped.eq(0).double().mean().item() == pytest.approx(rate, abs=tolerance)
    assert dropped.mean().item() == pytest.approx(1, abs=tolerance / (1 - rate))
    assert len(dropped.unique()) == 2


def test_values_are_kept_independently_of_their_neighbours() -> None:
    torch.manual_seed(1)
    kept = Dropout(0.5)(torch.ones(4, 100_000)).ne(0).double()
    # Four values come from one draw, and rows are far from each other.
    for distance in (1, 2, 3, 4, 100_000):
        flat = kept.flatten()
        both = (flat[distance:] * flat[:-distance]).mean().item()
        assert both == pytest.approx(0.25, abs=0.005)


def test_gradients_are_those_of_the_factors_of_the_same_draw() -> None:
    torch.manual_seed(2)
    states = torch.randn(50, 7, requires_grad=True)
    dropped = Dropout(0.3)(states)
    torch.autograd.backward(dropped.sum())
    assert states.grad is not None
    torch.testing.assert_close(dropped.detach(), states.detach() * states.grad)


def test_the_same_seed_drops_the_same_values_and_another_one_others() -> None:
    def draw(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        dropped: torch.Tensor = Dropout(0.4)(torch.ones(10_000))
        return dropped

    assert draw(5).equal(draw(5))
    assert not draw(5).equal(draw(6))


def test_extremes_and_evaluation() -> None:
    states = torch.randn(20, 3)
    assert Dropout(0.0)(states) is states or Dropout(0.0)(states).equal(states)
    assert Dropout(1.0)(states).eq(0).all()
    assert Dropout(1 - 2**-20)(states).eq(0).all()  # fewer than one number of 2^16
    assert Dropout(0.4).eval()(states).equal(states)
    assert Dropout(0.4)(torch.empty(0, 3)).shape == (0, 3)
    assert Dropout(0.4)(states.bfloat16()).dtype == torch.bfloat16
