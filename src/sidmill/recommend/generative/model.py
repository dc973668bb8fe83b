"""What training and decoding ask of a generative model, whichever it is.

Shapes: N items, L levels, K_l tokens of a level, B users, T positions, W prefixes, d of the
codebooks, D of the text, S of the similarity.
"""

from abc import abstractmethod
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from sidmill.formats.trie_file import Trie
from sidmill.recommend.generative.decode import TokenScores


class View(NamedTuple):
    """What items are to the users of one fold in training.

    Attributes:
        codes: per identifier int64 (N, L).
        nodes: per identifier int64 (N, L - 1), number of the node at depths 2 to L. Prefixes that
            no SID has come after the nodes of the trie; the node at depth L is that of the SID.
        similarity: float32 (N, S), at unit length.
    """

    codes: list[Tensor]
    nodes: list[Tensor]
    similarity: Tensor


class Constants(NamedTuple):
    """What the model reads of the items, and never changes; not stored with the weights.

    Attributes:
        tries: one per identifier; the first is the one that is generated.
        codes: per identifier int64 (N, L).
        nodes: per identifier int64 (N, L - 1), number of the node at depths 2 to L.
        codewords: per identifier and level with a codebook, whitened, float32 (K_l, d).
        text: whitened text embeddings float32 (N, D); None where text is not read.
        similarity: float32 (N, S), at unit length.
        folds: of each fold of users, what training reads in place of codes, nodes and similarity;
            empty without folds.
    """

    tries: list[Trie]
    codes: list[Tensor]
    nodes: list[Tensor]
    codewords: list[list[Tensor]]
    text: Tensor | None
    similarity: Tensor
    folds: list[View]


class GenerativeModel(nn.Module):
    """A network that predicts the SID of the next item.

    Attributes:
        shape: a NamedTuple of what determines its tensors.
        tries: the trie of each identifier; the first is the one that is generated.
    """

    shape: Any
    tries: list[Trie]

    @abstractmethod
    def attach(self, constants: Constants, device: torch.device) -> None:
        """Give the model the constants of its items, on its device."""

    @abstractmethod
    def read_fold(self, fold: int | None) -> None:
        """Read items as training does for a fold of users; None, or no folds: by their SIDs."""

    @abstractmethod
    def drop_folds(self) -> None:
        """Drop what only the folds had, at the end of training."""

    @abstractmethod
    def note_training(self, is_seen: np.ndarray) -> None:
        """Prepare a model with its first weights, on the CPU, for what training will read.

        Args:
            is_seen: bool (N,), items that a training history has.
        """

    @abstractmethod
    def loss(self, inputs: Tensor, targets: Tensor, candidates: Tensor) -> tuple[Tensor, int]:
        """Mean loss over the targets of a batch, and their number.

        Args:
            inputs: int64 (B, T), items of the windows, oldest first.
            targets: int64 (B, T), the next item of each, or NO_TARGET after the end of a window.
            candidates: int64 (n,), ascending: the items that targets are compared with, if the
                model compares items.
        """

    @abstractmethod
    def scores(self) -> "Scores":
        """Scores of all items, with the present weights."""


class Scores(Protocol):
    """Scores of a trained model.

    Attributes:
        is_exact: whether ``item_scores`` scores every item; otherwise those that a beam reaches.
        boost: float32 (N,), what ``item_scores`` has added for new items.
    """

    is_exact: bool
    boost: Tensor

    def encode(self, histories: Tensor, lengths: Tensor) -> Tensor:
        """State of users after their last item: int64 (B, T), (B,) to a tensor of B rows.

        Rows of several calls can be joined, and cut.
        """

    def item_scores(self, state: Tensor) -> Tensor:
        """Scores of all items: float32 (B, N); -inf for an item that no beam reached."""

    def add_history(self, scores: Tensor, histories: Tensor, lengths: Tensor) -> None:
        """Add, in place, what the model adds to scores (B, N) for the items of a history.

        Args:
            scores: of any model of the items.
            histories: int64 (B, T).
            lengths: int64 (B,).
        """

    def token_scores(self, state: Tensor) -> TokenScores:
        """What a token adds to the score of its prefix."""
