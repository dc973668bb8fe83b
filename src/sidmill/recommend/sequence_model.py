"""A Transformer over what a user had, and an adaptor that makes item vectors of text and id.

Users and items meet in one space: the score of an item is the cosine of the two, and training
divides it by a temperature. An item looks the same as input and as answer.

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

ROTARY_BASE = 10_000
WIDENING = 4  # of the feed-forward layers
ID_SCALE = 0.02  # standard deviation of an id embedding before training
SHORTEST = 1e-6  # a shorter vector is divided by it: gradients of one near 0 stay small


class Shape(NamedTuple):
    """All that says which tensors a model has."""

    features: str  # text | id | text+id
    adaptor: str  # mlp | moe
    n_experts: int
    hidden_dim: int
    n_layers: int
    n_heads: int
    n_interests: int
    dim: int
    n_items: int


class Mlp(nn.Module):
    """Adaptor of two layers: float (n, D) to (n, H)."""

    def __init__(self, shape: Shape, dropout: float) -> None:
        """Draw the first weights from torch's generator."""
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.widen = nn.Linear(shape.dim, 2 * shape.hidden_dim)
        self.narrow = nn.Linear(2 * shape.hidden_dim, shape.hidden_dim)

    def forward(self, vectors: Tensor) -> Tensor:
        """Map text embeddings to the model's space."""
        return self.narrow(self.drop(functional.gelu(self.widen(self.drop(vectors)))))


class Moe(nn.Module):
    """Adaptor of E whitening layers mixed by a gate: float (n, D) to (n, H).

    An expert subtracts a learned mean and projects. The gate sees the embedding; in training it is
    noisy, so that no expert falls asleep.
    """

    def __init__(self, shape: Shape, dropout: float) -> None:
        """Draw the first weights from torch's generator."""
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.means = nn.Parameter(torch.zeros(shape.n_experts, shape.dim))
        self.projections = nn.Parameter(torch.empty(shape.n_experts, shape.dim, shape.hidden_dim))
        nn.init.normal_(self.projections, std=shape.dim**-0.5)
        self.gate = nn.Linear(shape.dim, shape.n_experts, bias=False)
        self.noise = nn.Linear(shape.dim, shape.n_experts, bias=False)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.noise.weight)

    def forward(self, vectors: Tensor) -> Tensor:
        """Map text embeddings to the model's space."""
        logits = self.gate(vectors)
        if self.training:
            spread = functional.softplus(self.noise(vectors))
            logits = logits + torch.randn_like(logits) * spread
        weights = logits.softmax(dim=-1)  # (n, E)
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

    def __init__(self, shape: Shape, dropout: float) -> None:
        """Draw the first weights from torch's generator."""
        super().__init__()
        self.n_heads, self.dropout = shape.n_heads, dropout
        self.query = nn.Linear(shape.hidden_dim, shape.hidden_dim)
        self.key_value = nn.Linear(shape.hidden_dim, 2 * shape.hidden_dim)
        self.out = nn.Linear(shape.hidden_dim, shape.hidden_dim)

    def forward(self, queries: Tensor, sources: Tensor, mask: Tensor | None) -> Tensor:
        """Let each position of ``queries`` look at ``sources`` up to itself.

        Args:
            queries: float (B, T, H).
            sources: float (B, T, H).
            mask: bool (B, 1, T, T), true where a position may look; None: at all up to itself.
        """
        query = self._split(self.query(queries))
        key, value = map(self._split, self.key_value(sources).chunk(2, dim=-1))
        if mask is None:  # the same order of events; interests have none
            query, key = rotate(query), rotate(key)
        seen = functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            is_causal=mask is None,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out(seen.transpose(1, 2).flatten(2))

    def _split(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)


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
    """Look back, look at the interests where there are some, think; each after a norm."""

    def __init__(self, shape: Shape, dropout: float) -> None:
        """Draw the first weights from torch's generator."""
        super().__init__()
        self.past_norm = nn.LayerNorm(shape.hidden_dim)
        self.past = Attention(shape, dropout)
        if shape.n_interests:
            self.interest_norm = nn.LayerNorm(shape.hidden_dim)
            self.interest = Attention(shape, dropout)
        self.think = nn.Sequential(
            nn.LayerNorm(shape.hidden_dim),
            nn.Linear(shape.hidden_dim, WIDENING * shape.hidden_dim),
            nn.GELU(),
            nn.Linear(WIDENING * shape.hidden_dim, shape.hidden_dim),
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, states: Tensor, interests: Tensor | None, mask: Tensor | None) -> Tensor:
        """Map states (B, T, H) to states; ``interests`` (B, T, H) with their mask."""
        normed = self.past_norm(states)
        states = states + self.drop(self.past(normed, normed, None))
        if interests is not None:
            normed = self.interest_norm(states)
            states = states + self.drop(self.interest(normed, interests, mask))
        return states + self.drop(self.think(states))


class Recommender(nn.Module):
    """The whole model. It never looks at a position later than the one it speaks for."""

    def __init__(self, shape: Shape, dropout: float, text_dropout: float) -> None:
        """Draw the first weights from torch's generator."""
        super().__init__()
        self.shape = shape
        if "text" in shape.features:
            self.adaptor = ADAPTORS[shape.adaptor](shape, text_dropout)
        if "id" in shape.features:
            self.ids = nn.Embedding(shape.n_items, shape.hidden_dim)
            nn.init.normal_(self.ids.weight, std=ID_SCALE)
        self.item_norm = nn.LayerNorm(shape.hidden_dim)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(shape, dropout) for _ in range(shape.n_layers))
        self.user_norm = nn.LayerNorm(shape.hidden_dim)
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
        made = self.adaptor(vectors) if "text" in self.shape.features else 0.0
        if "id" in self.shape.features:
            made = made + self.ids(numbers)
        return self.item_norm(made)

    def users(self, items: Tensor, clusters: Tensor | None) -> Tensor:
        """Say after each position what the user looks for.

        Args:
            items: float (B, T, H), vectors of the items had, oldest first; what pads a row comes
                after its items, where nothing looks.
            clusters: int64 (B, T), the interest of each item; None without interests.

        Returns:
            float (B, T, H), of unit length.
        """
        states = self.drop(items)
        interests = mask = None
        if clusters is not None:
            interests, mask = self.interests(clusters), first_seen(clusters)
        for block in self.blocks:
            states = block(states, interests, mask)
        return unit(self.user_norm(states))


def first_seen(clusters: Tensor) -> Tensor:
    """Mask of the interests met so far, each once: bool (B, 1, T, T).

    Position t may look at position s <= t if the cluster of s did not occur before s.
    """
    length = clusters.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=clusters.device).tril(-1)
    again = ((clusters[:, :, None] == clusters[:, None, :]) & earlier).any(dim=-1)  # (B, T)
    causal = torch.ones(length, length, dtype=torch.bool, device=clusters.device).tril()
    return (causal & ~again[:, None, :])[:, None]


def unit(vectors: Tensor) -> Tensor:
    """Scale to length 1 along the last axis."""
    return functional.normalize(vectors, dim=-1, eps=SHORTEST)
