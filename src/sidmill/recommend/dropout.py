"""Dropout whose random numbers cost little on a CPU.

torch draws a number of 64 bits for each value, which takes a fifth of a training step of the
recommender. Here each draw is enough for four values: 16 bits say whether a value is kept, so a
rate is rounded to a multiple of 2^-16, and what is kept is scaled by the rounded one.

Source: https://jmlr.org/papers/v15/srivastava14a.html.
"""

import torch
from torch import Tensor, nn

BITS = 16  # of a value
PER_DRAW = 64 // BITS
LOWEST = -(2 ** (BITS - 1))  # of a signed integer of so many bits


class Dropout(nn.Dropout):
    """``torch.nn.Dropout`` with other random numbers on a CPU, drawn from torch's generator."""

    def forward(self, states: Tensor) -> Tensor:
        """Set a share ``p`` of the values to 0 and scale the others, in training alone."""
        if not self.training or self.p == 0 or not states.is_cpu:
            dropped: Tensor = super().forward(states)
            return dropped
        return states * _factors(states, self.p)


def _factors(states: Tensor, rate: float) -> Tensor:
    """Draw what each value is multiplied by: 0, or the inverse of the share that is kept."""
    n_kept = round((1 - rate) * 2**BITS)  # of the 2^16 numbers
    if not n_kept:
        return torch.zeros_like(states)
    draws = torch.empty(-(-states.numel() // PER_DRAW), dtype=torch.int64).random_(-(2**63), None)
    numbers = draws.view(torch.int16)[: states.numel()].view(states.shape)
    factors: Tensor = (numbers < LOWEST + n_kept).to(states.dtype).mul_(2**BITS / n_kept)
    return factors
