"""AdamW in plain tensor operations, for trainings on a CPU.

``torch.optim`` imports torch's compiler at its first step, for nothing: CPU time and memory of
every training. The weights after a step have the same bytes as those of ``torch.optim.AdamW``. On
a GPU torch's own is better: it changes all weights in a few launches.

Source: https://arxiv.org/abs/1711.05101.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

MEAN_DECAY, SQUARE_DECAY = 0.9, 0.999  # of the moments, per step
EPSILON = 1e-8  # added to the root of the mean square

Moments = dict[int, dict[str, Tensor]]  # by number of the weight: step, exp_avg, exp_avg_sq


class Optimizer(Protocol):
    """The methods of ``torch.optim.Optimizer`` that a training calls."""

    param_groups: list[dict[str, Any]]

    def zero_grad(self) -> None:
        """Forget all gradients."""

    def step(self) -> None:
        """Change every weight that has a gradient."""

    def state_dict(self) -> dict[str, Any]:
        """Under ``state`` the moments."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the moments of :meth:`state_dict`."""


class AdamW:
    """Adam with decoupled weight decay, with the interface of ``torch.optim.AdamW``."""

    def __init__(self, groups: list[dict[str, Any]], lr: float) -> None:
        """Start without moments. Memory: twice that of the weights, from the first step on.

        Args:
            groups: ``params``, a list of weights, and their ``weight_decay``.
            lr: learning rate; ``param_groups`` has the one of the next step.
        """
        self.param_groups = [{**group, "lr": lr} for group in groups]
        self.moments: Moments = {}

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for group in self.param_groups:
            for weight in group["params"]:
                weight.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Change every weight that has a gradient."""
        number = 0
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    moments = self.moments.setdefault(number, _first_moments(weight))
                    _update(weight, moments, group["lr"], group["weight_decay"])
                number += 1

    def state_dict(self) -> dict[str, Any]:
        """Under ``state`` the moments."""
        return {"state": self.moments}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from the moments of :meth:`state_dict`."""
        self.moments = {
            number: {name: value.clone() for name, value in moments.items()}
            for number, moments in state_dict["state"].items()
        }


def _first_moments(weight: Tensor) -> dict[str, Tensor]:
    return {
        "step": torch.tensor(0.0),
        "exp_avg": torch.zeros_like(weight),
        "exp_avg_sq": torch.zeros_like(weight),
    }


def _update(weight: Tensor, moments: dict[str, Tensor], lr: float, decay: float) -> None:
    """Change one weight, by the operations of torch in their order."""
    grad = weight.grad
    assert grad is not None
    weight.mul_(1 - lr * decay)

    # Running means of the gradient and of its square.
    mean, square = moments["exp_avg"], moments["exp_avg_sq"]
    mean.lerp_(grad, 1 - MEAN_DECAY)
    square.mul_(SQUARE_DECAY).addcmul_(grad, grad, value=1 - SQUARE_DECAY)

    # They start at 0, which is corrected for.
    moments["step"] += 1
    step = moments["step"].item()
    root = (1 - SQUARE_DECAY**step) ** 0.5
    scale = (square.sqrt() / root).add_(EPSILON)
    weight.addcdiv_(mean, scale, value=-lr / (1 - MEAN_DECAY**step))
