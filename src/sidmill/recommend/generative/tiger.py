"""The encoder-decoder of the literature: a T5 that reads the SIDs of a history and writes the next.

One token stands for each code of each level; two more are the padding and the start of a SID. The
encoder reads the tokens of all items of a history, the decoder writes those of the next item, level
by level. TIGER's token of the user is left out.

Shapes: N items, L levels of K_l codes, B users or windows, T items of a history, R training rows,
S = T L tokens of the longest history, W prefixes of a user, H of the model.

Source: TIGER, https://arxiv.org/abs/2305.05065, on T5, https://arxiv.org/abs/1910.10683.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import DynamicCache, EncoderDecoderCache, T5Config, T5ForConditionalGeneration

from sidmill.formats.trie_file import Trie
from sidmill.recommend.generative import decode
from sidmill.recommend.generative.decode import TokenScores
from sidmill.recommend.generative.model import Constants, GenerativeModel
from sidmill.recommend.windows import NO_TARGET
from sidmill.settings.generative import Generative

PADDING, START, FIRST_CODE = 0, 1, 2  # tokens; those of the first level follow
# Encoder tokens of a slice of training rows: activations of 0.8 GiB with the default sizes.
SLICE_TOKENS = 4096
DEVICE_SLICE_TOKENS = 32768  # on a GPU, whose kernels would be too small: 6.5 GiB
BEAM_WIDTH = 50  # beams that reach an item
USER_BLOCK = 128  # users that are decoded at a time


class Shape(NamedTuple):
    """Sizes of the model; the defaults are those of TIGER.

    Attributes:
        n_layers: Transformer layers of the encoder, and as many of the decoder.
        hidden_dim: H.
        n_heads: attention heads.
        head_dim: dimensions of a head.
        feed_forward_dim: inner dimensions of the feed-forward layers.
        dropout: share.
        max_length: latest items of a history that the encoder reads.
    """

    n_layers: int = 4
    hidden_dim: int = 128
    n_heads: int = 6
    head_dim: int = 64
    feed_forward_dim: int = 1024
    dropout: float = 0.1
    max_length: int = 20


def build(constants: Constants, settings: Generative) -> "Tiger":
    """Make the model with the first weights, drawn from torch's generator."""
    return Tiger(constants.codes[0], constants.tries[0].sizes, shape_of(settings))


def shape_of(settings: Generative) -> Shape:
    """Sizes of the model that ``settings`` ask for."""
    return Shape(
        n_layers=settings.n_layers,
        hidden_dim=settings.hidden_dim,
        n_heads=settings.n_heads,
        head_dim=settings.head_dim,
        feed_forward_dim=settings.feed_forward_dim,
        dropout=settings.dropout,
        max_length=settings.max_length,
    )


class State(NamedTuple):
    """What the decoder reads of B histories.

    Attributes:
        encoded: float (B, S, H), output of the encoder.
        mask: bool (B, 1, 1, S), true for tokens of items.
        cache: keys and values of ``encoded`` for every layer of the decoder, each float
            (B, heads, S, head_dim).
    """

    encoded: Tensor
    mask: Tensor
    cache: Any


class Tiger(GenerativeModel):
    """T5 over the tokens of SIDs.

    Probabilities are those of T5: each softmax runs over all tokens, in training and in decoding.
    The log-probability of a SID is therefore the negative loss of T5, and beams are ordered as by
    ``generate`` of transformers. Tokens that no SID allows keep a share, so that the probabilities
    of all SIDs sum to less than 1.
    """

    tokens: Tensor  # int64 (N, L), tokens of each item
    t5: Any  # T5ForConditionalGeneration, whose types say nothing of its parts

    def __init__(self, codes: Tensor, sizes: Sequence[int], shape: Shape) -> None:
        """Draw the first weights from torch's generator, as T5 does.

        Args:
            codes: int64 (N, L), codes of each item, in [0, K_l).
            sizes: K_l of each level.
            shape: sizes of the model.
        """
        super().__init__()
        self.shape, self.sizes = shape, tuple(sizes)

        # Tokens of level l are first_tokens[l] to first_tokens[l + 1]. The codes are an input, so
        # they are no part of the weights.
        firsts = torch.tensor([FIRST_CODE, *self.sizes]).cumsum(0)
        self.first_tokens: list[int] = firsts.tolist()
        self.register_buffer("tokens", codes + firsts[:-1].to(codes.device), persistent=False)

        config = T5Config(
            vocab_size=self.first_tokens[-1],
            d_model=shape.hidden_dim,
            d_kv=shape.head_dim,
            d_ff=shape.feed_forward_dim,
            num_layers=shape.n_layers,
            num_heads=shape.n_heads,
            dropout_rate=shape.dropout,
            feed_forward_proj="relu",
            pad_token_id=PADDING,
            eos_token_id=None,
        )
        config.decoder_start_token_id = START
        self.t5 = T5ForConditionalGeneration(config)
        self.t5.register_state_dict_post_hook(_drop_aliases)
        self.t5.register_load_state_dict_pre_hook(_restore_aliases)

    def attach(self, constants: Constants, device: torch.device) -> None:
        """Give the model the trie of its SIDs, on its device."""
        self.tries = [constants.tries[0].to(device)]

    def read_fold(self, fold: int | None) -> None:
        """Nothing: tokens are those of the SIDs for all users."""

    def drop_folds(self) -> None:
        """Nothing: there are none."""

    def note_training(self, is_seen: np.ndarray) -> None:
        """Nothing: every weight of T5 gets a gradient from the softmax over all tokens."""

    def scores(self) -> "TigerScores":
        """Scores of all items, with the present weights."""
        return TigerScores(self, self.tries[0])

    def loss(
        self, inputs: Tensor, targets: Tensor, candidates: Tensor | None = None
    ) -> tuple[Tensor, int]:
        """Cross-entropy of the next item after each position, each from a row of its own.

        The encoder looks both ways, so that every position needs a row with the history up to it,
        cut to its last ``max_length`` items. Rows are taken in slices of SLICE_TOKENS tokens, on a
        GPU DEVICE_SLICE_TOKENS; with more than one slice, activations are computed again for the
        gradient.

        Memory: activations of one slice, and T numbers per row.

        Args:
            inputs: int64 (B, T), item numbers, padded after the items.
            targets: int64 (B, T), the next items; NO_TARGET where there is none.
            candidates: not read: tokens are compared, and not items.

        Returns:
            The sum of the cross-entropies of the levels, as a mean over targets, and the number of
            targets.
        """
        # (R,), window and position of each row; the longest histories come first.
        windows, positions = (targets != NO_TARGET).nonzero(as_tuple=True)
        lengths = (positions + 1).clamp(max=self.shape.max_length)
        order = lengths.argsort(descending=True, stable=True)
        windows, positions, lengths = windows[order], positions[order], lengths[order]
        n_tokens = DEVICE_SLICE_TOKENS if targets.is_cuda else SLICE_TOKENS
        slices = list(_slices(lengths.tolist(), n_tokens // len(self.sizes)))

        total = torch.zeros((), device=targets.device)
        for rows in slices:
            picked = windows[rows], positions[rows]
            arguments = inputs[picked[0]], picked[1] + 1, targets[picked]
            if len(slices) > 1 and torch.is_grad_enabled():
                total = total + checkpoint(self._sum_loss, *arguments, use_reentrant=False)
            else:
                total = total + self._sum_loss(*arguments)
        return total / max(len(windows), 1), len(windows)

    def _sum_loss(self, histories: Tensor, lengths: Tensor, targets: Tensor) -> Tensor:
        """Sum of the cross-entropies of targets (R,) after histories (R, T) of given lengths."""
        tokens, labels = self.read(histories, lengths), self.tokens[targets]  # (R, S), (R, L)
        out = self.t5(
            input_ids=tokens, attention_mask=tokens != PADDING, labels=labels, use_cache=False
        )
        total: Tensor = out.loss * labels.numel()
        return total

    def read(self, histories: Tensor, lengths: Tensor) -> Tensor:
        """Tokens of the last ``max_length`` items.

        Args:
            histories: int64 (B, T), item numbers, oldest first, padded after the items.
            lengths: int64 (B,), number of items, at least 1.

        Returns:
            int64 (B, S), PADDING after the items.
        """
        kept = lengths.clamp(max=self.shape.max_length)
        columns = torch.arange(int(kept.max()), device=lengths.device)
        is_item = columns < kept[:, None]  # (B, T)
        offsets = torch.where(is_item, (lengths - kept)[:, None] + columns, 0)
        tokens = self.tokens[histories.gather(1, offsets)]  # (B, T, L)
        return torch.where(is_item[:, :, None], tokens, PADDING).flatten(1)

    def encode(self, tokens: Tensor) -> State:
        """Encode histories for any number of calls of :meth:`token_scores`.

        Memory: 4 H (1 + n_layers (2 heads head_dim / H)) bytes per token: 1 MB per user with
        default sizes and 80 tokens.

        Args:
            tokens: int64 (B, S), of :meth:`read`; more padding is cut off.
        """
        mask = tokens != PADDING
        longest = int(mask.sum(dim=1).max())
        tokens, mask = tokens[:, :longest], mask[:, :longest]
        encoded = self.t5.encoder(input_ids=tokens, attention_mask=mask).last_hidden_state

        # Keys and values of the cross-attention belong to a user, whatever prefixes are asked for.
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        heads = (len(encoded), -1, self.shape.n_heads, self.shape.head_dim)
        for number, block in enumerate(self.t5.decoder.block):
            attention = block.layer[1].EncDecAttention
            keys, values = (
                project(encoded).view(heads).transpose(1, 2)
                for project in (attention.k, attention.v)
            )
            cache.cross_attention_cache.update(keys, values, number)
            cache.is_updated[number] = True
        return State(encoded, mask[:, None, None], cache)

    def token_scores(self, state: State, level: int, prefixes: Tensor) -> Tensor:
        """Log-probabilities of the codes of a level after given codes of the levels before it.

        The softmax runs over all tokens, as in training: a row sums to less than 1. All prefixes of
        a user share the keys and values of the history; the few tokens of a prefix are decoded
        again at every level, which needs no cache that follows the beams.

        Memory: about 8 (level + 1) (H + feed_forward_dim) + 8 (number of tokens) bytes per prefix.

        Args:
            state: of B histories.
            level: l, from 0.
            prefixes: int64 (B, W, l), codes of the levels before l; any codes, legal or not.

        Returns:
            float32 (B, W, K_l).
        """
        n_users, n_prefixes, length = prefixes.shape[0], prefixes.shape[1], level + 1
        decoder = self.t5.decoder

        # (B W, l + 1, H): the start of a SID, then the codes of the prefix.
        firsts = torch.tensor(self.first_tokens[:level], device=prefixes.device, dtype=torch.int64)
        tokens = nn.functional.pad(prefixes + firsts, (1, 0), value=START)
        states = decoder.dropout(decoder.embed_tokens(tokens.flatten(0, 1)))

        # Each prefix attends to itself alone, and all prefixes of a user to its history as one
        # sequence. Of the last layer's output only the last position is read.
        bias = decoder.block[0].layer[0].SelfAttention.compute_bias(length, length)
        is_later = torch.ones(length, length, dtype=torch.bool, device=bias.device).triu(1)
        bias = bias.masked_fill(is_later, torch.finfo(bias.dtype).min)
        no_bias = states.new_zeros(1, 1, 1, 1)
        for number, block in enumerate(decoder.block):
            itself, history, feed_forward = block.layer
            states = itself(states, position_bias=bias)[0]
            if number + 1 == len(decoder.block):
                states, length = states[:, -1:], 1
            states = history(
                states.reshape(n_users, n_prefixes * length, -1),
                state.encoded,
                attention_mask=state.mask,
                position_bias=no_bias,
                past_key_values=state.cache,
            )[0]
            states = feed_forward(states).view(n_users * n_prefixes, length, -1)

        # Of the probabilities of all tokens, those of the level.
        states = decoder.dropout(decoder.final_layer_norm(states[:, -1]))
        logits = self.t5.lm_head(states * self.shape.hidden_dim**-0.5).float()
        first, end = self.first_tokens[level : level + 2]
        scores: Tensor = logits.log_softmax(dim=-1)[:, first:end]
        return scores.view(n_users, n_prefixes, -1)


class TigerScores:
    """Scores of a trained model, by constrained beams. Users are taken USER_BLOCK at a time."""

    is_exact = False

    def __init__(self, model: Tiger, trie: Trie, width: int = BEAM_WIDTH) -> None:
        """Keep the model, the trie of its SIDs, and how many beams :meth:`item_scores` follows."""
        self.model, self.trie, self.width = model, trie, width
        self.boost = torch.zeros(trie.n_items, device=trie.device)  # it has none

    def encode(self, histories: Tensor, lengths: Tensor) -> Tensor:
        """What the encoder reads of users: int64 (B, T), (B,) to tokens int64 (B, max_length L).

        Tokens take the least memory, and tensors of several calls can be joined; the encoder runs
        where scores are asked for.
        """
        tokens = self.model.read(histories, lengths)
        n_tokens = self.model.shape.max_length * len(self.model.sizes)
        return nn.functional.pad(tokens, (0, n_tokens - tokens.shape[1]), value=PADDING)

    @torch.no_grad()
    def item_scores(self, users: Tensor) -> Tensor:
        """Log-probabilities float32 (B, N); -inf where no beam ended in the SID of the item."""
        width = min(self.width, self.trie.n_sids)
        scores = torch.full((len(users), self.trie.n_sids), -torch.inf, device=users.device)
        for start in range(0, len(users), USER_BLOCK):
            block = users[start : start + USER_BLOCK]
            found = decode.beam(self.trie, self.token_scores(block), len(block), width, width)
            scores[start : start + USER_BLOCK].scatter_(1, found.sids, found.scores)
        return scores[:, self.trie.sid_of_item]

    def add_history(self, scores: Tensor, histories: Tensor, lengths: Tensor) -> None:
        """Add nothing: the model has no term of its own for the items of a history."""

    @torch.no_grad()
    def token_scores(self, users: Tensor) -> TokenScores:
        """What a token adds to the score of its prefix; the encoder runs once, here."""
        state = self.model.encode(users)

        @torch.no_grad()
        def score(level: int, prefixes: Tensor) -> Tensor:
            return self.model.token_scores(state, level, prefixes)

        return score


def _slices(lengths: list[int], n_items: int) -> Iterator[slice]:
    """Cut rows of descending length into slices of ``n_items`` items, or of one row."""
    start = 0
    while start < len(lengths):
        end = start + max(n_items // lengths[start], 1)
        yield slice(start, end)
        start = end


def _aliases(module: nn.Module) -> dict[str, str]:
    """Names of shared weights, and the name that each of them is saved under."""
    names = {id(weight): name for name, weight in module.named_parameters()}
    every = module.named_parameters(remove_duplicate=False)
    return {name: names[id(weight)] for name, weight in every if names[id(weight)] != name}


def _drop_aliases(module: nn.Module, weights: dict[str, Any], prefix: str, _: Any) -> None:
    """Keep each shared weight once: a file of tensors would hold it several times."""
    for name in _aliases(module):
        del weights[prefix + name]


def _restore_aliases(module: nn.Module, weights: dict[str, Any], prefix: str, *_: Any) -> None:
    """Give a shared weight to all that read it."""
    for name, saved in _aliases(module).items():
        if prefix + saved in weights:
            weights[prefix + name] = weights[prefix + saved]
