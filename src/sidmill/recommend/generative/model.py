"""What training and decoding ask of a generative model, whichever it is.

Shapes: N items, L levels, K_l tokens of a level, B users, T positions, W prefixes.
"""

from typing import Any, Protocol

from torch import Tensor

from sidmill.recommend.generative.decode import TokenScores


class GenerativeModel(Protocol):
    """A network that predicts the SID of the next item."""

    def loss(self, inputs: Tensor, targets: Tensor, candidates: Tensor) -> tuple[Tensor, int]:
        """Mean loss over the targets of a batch, and their number.

        Args:
            inputs: int64 (B, T), items of the windows, oldest first.
            targets: int64 (B, T), the next item of each, or NO_TARGET after the end of a window.
            candidates: int64 (n,), ascending: the items that targets are compared with, if the
                model compares items.
        """


class Scores(Protocol):
    """Scores of a trained model."""

    def encode(self, histories: Tensor, lengths: Tensor) -> Any:
        """State of users after their last item: int64 (B, T), (B,) to a tensor, or several."""

    def item_scores(self, state: Any) -> Tensor:
        """Scores of all items: float32 (B, N); -inf for an item that no beam reached."""

    def token_scores(self, state: Any) -> TokenScores:
        """What a token adds to the score of its prefix."""
