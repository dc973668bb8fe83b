"""A Transformer over the history of a user, and an adaptor from text and id to item vectors.

Users and items share one space: the score of an item is the cosine of the two vectors, and training
divides it by a temperature. An item has one vector, as an input and as a target.

Shapes: n items, N items in all, D dimensions of the text embedding, H of the model, B users,
T positions, h heads, I interests, E experts.

Sources: SASRec, https://arxiv.org/abs/1808.09781; the mixture-of-experts adaptor of UniSRec,
https://arxiv.org/abs/2206.05941; interests by clustering the item space as in MISSRec,
https://arxiv.org/abs/2308.11175; rotary positions, https://arxiv.org/abs/2104.09864.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from sidmill.numeric.wide_linear import WideLinear
from sidmill.recommend.dropout import Dropout
from sidmill.settings.recommend import Recommender

ROTARY_BASE = 10_000
WIDENING = 4  # of the feed-forward layers
ID_SCALE = 0.02  # standard deviation of an id embedding before training
SHORTEST = 1e-6  # a shorter vector is divided by it: gradients of one near 0 stay small


class Shape(NamedTuple):
    """What determines the tensors of a model."""

    features: str  # text | id | text+id
    adaptor: str  # mlp | moe
    n_experts: int
    hidden_dim: int
    n_layers: int
    n_heads: int
    n_interests: int
    dim: int
    n_items: int


def shape_of(settings: Recommender, n_items: int, dim: int) -> Shape:
    """Shape of the model that ``settings`` ask for, on N items with embeddings of D dimensions."""
    return Shape(
        features=settings.features,
        adaptor=settings.adaptor,
        n_experts=settings.n_experts,
        hidden_dim=settings.hidden_dim,
        n_layers=settings.n_layers,
        n_heads=settings.n_heads,
        n_interests=settings.n_interests,
        dim=dim,
        n_items=n_items,
    )


class Mlp(nn.Module):
    """Adaptor of two layers: float (n, D) to (n, H)."""

    def __init__(self, shape: Shape, dropout: float) -> None:
        """Draw the first weights from torch's generator."""
        super().__init__()
        self.drop = Dropout(dropout)
        self.widen = WideLinear(shape.dim, 2 * shape.hidden_dim)
        self.narrow = WideLinear(2 * shape.hidden_dim, shape.hidden_dim)

    def forward(self, vectors: Tensor) -> Tensor:
        """Map text embeddings to the model's space."""
        projected: Tensor = self.narrow(self.drop(functional.gelu(self.widen(self.drop(vectors)))))
        return projected


class Moe(nn.Module):
    """Adaptor of E whitening layers mixed by a gate: float (n, D) to (n, H).

    An expert subtracts a learned mean and projects. The gate reads the embedding; in training it
    is noisy, so that every expert receives gradients.
    """

    def __init__(self, shape: Shape, dropout: float) -> None:
        """Draw the first weights from torch's generator."""
        super().__init__()
        self.drop = Dropout(dropout)
        self.means = nn.Parameter(torch.zeros(shape.n_experts, shape.dim))
        self.projections = nn.Parameter(torch.empty(shape.n_experts, shape.dim, shape.hidden_dim))
        nn.init.normal_(self.projections, std=shape.dim**-0.5)
        self.gate = nn.Linear(shape.dim, shape.n_experts, bias=False)
        self.noise = nn.Linear(shape.dim, shape.n_experts, bias=False)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.noise.weight)

    def forward(self, vectors: Tensor) -> Tensor:
        """Map text embeddings to the model's space."""
        # Noisy gate, as in UniSRec: its spread is learned.
        logits: Tensor = self.gate(vectors)
        if self.training:
            spread = functional.softplus(self.noise(vectors))
            logits = logits + torch.randn_like(logits) * spread
        weights = logits.softmax(dim=-1)  # (n, E)

        # One projection at a time: a single product over all experts would hold (n, E, D).
        dropped = self.drop(vectors)
        mixed = [
            weights[:, expert, None] * ((dropped - mean) @ projection)
            for expert, (mean, projection) in enumerate(
                zip(self.means, self.projections, strict=True)
            )
        ]
        return torch.stack(mixed).sum(dim=0)


ADAPTORS = {"mlp": Mlp, "moe": Moe}


class Attention(nn.Module):
    """Attention with rotary positions over the model's own width."""

    def __init__(self, hidden_dim: int, n_heads: int, dropout: float) -> None:
        """Draw the first weights from torch's generator."""
        super().__init__()
        self.n_heads, self.dropout = n_heads, dropout
        self.query = nn.Linear(hidden_dim, hidden_dim)
        self.key_value = nn.Linear(hidden_dim, 2 * hidden_dim)
        self.out = nn.Linear(hidden_dim, hidden_dim)

    def forward(self, queries: Tensor, sources: Tensor, mask: Tensor | None) -> Tensor:
        """Let each position of ``queries`` attend to ``sources`` up to itself.

        Args:
            queries: float (B, T, H).
            sources: float (B, T, H).
            mask: bool (B, 1, T, T), true where a position may attend; None: causal.
        """
        # Heads: (B, h, T, H / h). Events have an order, so they get positions; interests have none.
        query = self._split(self.query(queries))
        key, value = map(self._split, self.key_value(sources).chunk(2, dim=-1))
        if mask is None:
            query, key = rotate(query), rotate(key)

        attended = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            is_causal=mask is None,
            dropout_p=self.dropout if self.training else 0.0,
        )
        out: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return out

    def _split(self, states: Tensor) -> Tensor:
        """Heads of states (B, T, H): (B, h, T, H / h)."""
        head_dim = states.shape[-1] // self.n_heads
        return states.reshape(*states.shape[:-1], self.n_heads, head_dim).transpose(1, 2)


def rotate(states: Tensor) -> Tensor:
    """Turn pairs of components by an angle that grows with the position: (B, h, T, H / h)."""
    half = states.shape[-1] // 2
    positions = torch.arange(states.shape[-2], device=states.device, dtype=torch.float32)
    steps = torch.arange(half, device=states.device, dtype=torch.float32)
    angles = positions[:, None] * ROTARY_BASE ** (-steps / half)  # (T, half)
    cosine, sine = angles.cos().to(states.dtype), angles.sin().to(states.dtype)
    first, second = states[..., :half], states[..., half:]
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)


class Block(nn.Module):
    """Self-attention, attention to interests if the model has them, feed-forward; pre-norm."""

    def __init__(
        self, hidden_dim: int, n_heads: int, dropout: float, *, has_interests: bool = False
    ) -> None:
        """Draw the first weights from torch's generator."""
        super().__init__()
        self.past_norm = nn.LayerNorm(hidden_dim)
        self.past = Attention(hidden_dim, n_heads, dropout)
        if has_interests:
            self.interest_norm = nn.LayerNorm(hidden_dim)
            self.interest = Attention(hidden_dim, n_heads, dropout)
        self.think = nn.Sequential(
            nn.LayerNorm(hidden_dim),
            nn.Linear(hidden_dim, WIDENING * hidden_dim),
            nn.GELU(),
            nn.Linear(WIDENING * hidden_dim, hidden_dim),
        )
        self.drop = Dropout(dropout)

    def forward(self, states: Tensor, interests: Tensor | None, mask: Tensor | None) -> Tensor:
        """Map states (B, T, H) to states; ``interests`` (B, T, H) with their mask."""
        normed = self.past_norm(states)
        states = states + self.drop(self.past(normed, normed, None))
        if interests is not None:
            normed = self.interest_norm(states)
            states = states + self.drop(self.interest(normed, interests, mask))
        out: Tensor = states + self.drop(self.think(states))
        return out


class SequenceModel(nn.Module):
    """The whole model. The output at a position depends on no later position."""

    interest_vectors: Tensor  # float32 (I, D), centroids of the item space

    def __init__(self, shape: Shape, dropout: float, text_dropout: float) -> None:
        """Draw the first weights from torch's generator."""
        super().__init__()
        self.shape = shape

        # Items: an adaptor of their text, a vector of their own, or the sum of both.
        if "text" in shape.features:
            self.adaptor = ADAPTORS[shape.adaptor](shape, text_dropout)
        if "id" in shape.features:
            self.ids = nn.Embedding(shape.n_items, shape.hidden_dim)
            nn.init.normal_(self.ids.weight, std=ID_SCALE)
        self.item_norm = nn.LayerNorm(shape.hidden_dim)

        # Users: causal Transformer blocks over the items of a history.
        self.drop = Dropout(dropout)
        has_interests = shape.n_interests > 0
        self.blocks = nn.ModuleList(
            Block(shape.hidden_dim, shape.n_heads, dropout, has_interests=has_interests)
            for _ in range(shape.n_layers)
        )
        self.user_norm = nn.LayerNorm(shape.hidden_dim)

        # Interests: training sets their centroids once; their vectors are learned.
        if shape.n_interests:
            self.register_buffer("interest_vectors", torch.zeros(shape.n_interests, shape.dim))
            self.interests = nn.Embedding(shape.n_interests, shape.hidden_dim)
            nn.init.normal_(self.interests.weight, std=ID_SCALE)

    def items(self, vectors: Tensor, numbers: Tensor) -> Tensor:
        """Make item vectors.

        Args:
            vectors: float (n, D), text embeddings; not read where features is id.
            numbers: int64 (n,), which items they are, in [0, N).

        Returns:
            float (n, H), layer-normed; not yet of unit length.
        """
        states = self.adaptor(vectors) if "text" in self.shape.features else 0.0
        if "id" in self.shape.features:
            states = states + self.ids(numbers)
        normed: Tensor = self.item_norm(states)
        return normed

    def users(self, items: Tensor, clusters: Tensor | None) -> Tensor:
        """Predict after each position which item comes next.

        Args:
            items: float (B, T, H), item vectors of the histories, oldest first. Padding comes
                after the items of a row, where no position attends to it.
            clusters: int64 (B, T), the interest of each item; None without interests.

        Returns:
            float (B, T, H), of unit length.
        """
        states: Tensor = self.drop(items)
        interests = mask = None
        if clusters is not None:
            interests, mask = self.interests(clusters), first_seen(clusters)
        for block in self.blocks:
            states = block(states, interests, mask)
        return unit(self.user_norm(states))


def first_seen(clusters: Tensor) -> Tensor:
    """Mask of the interests that a history has so far, each once: bool (B, 1, T, T).

    Position t may attend to position s <= t if the cluster of s does not occur before s.
    """
    length = clusters.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=clusters.device).tril(-1)
    again = ((clusters[:, :, None] == clusters[:, None, :]) & earlier).any(dim=-1)  # (B, T)
    causal = torch.ones(length, length, dtype=torch.bool, device=clusters.device).tril()
    return (causal & ~again[:, None, :])[:, None]


def unit(vectors: Tensor) -> Tensor:
    """Scale to length 1 along the last axis."""
    return functional.normalize(vectors, dim=-1, eps=SHORTEST)
