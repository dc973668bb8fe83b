"""A prefix tree over token ids that holds the SIDs of items and no others, for decoding.

    edges   int32 (E,)   token of each edge; those of a node are adjacent, ascending
    starts  int64 (V+1,) offset of the edges of node v; nodes breadth first, 0 is the root
    nodes   int32 (E,)   the node that an edge leads to

A SID is a begin token, one token per level, and an end token. The same tree is a finite-state
machine, and as a regular expression it is what vLLM and SGLang take for guided decoding.

Shapes: N items, L levels, V nodes, E edges.
"""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO, cast

import numpy as np
import torch
from transformers import LogitsProcessor

from sidmill.core.atomic import replacing
from sidmill.core.errors import SidmillError
from sidmill.formats import sid_text
from sidmill.io import tensors
from sidmill.numeric import sid_trie

logger = logging.getLogger(__name__)

# Limits of llguidance 1.9.1: symbols of a grammar, and items of a parser's row.
LARK_MOST_SYMBOLS, LARK_MOST_TOKENS = 65_525, 1_990


class Trie(NamedTuple):
    """The arrays of the module's docstring, and ``names``: token id to text."""

    edges: np.ndarray
    starts: np.ndarray
    nodes: np.ndarray
    names: dict[int, str]

    @property
    def depth(self) -> int:
        """Tokens of a SID: L + 2."""
        node, depth = 0, 0
        while self.starts[node] < self.starts[node + 1]:
            node, depth = int(self.nodes[self.starts[node]]), depth + 1
        return depth

    @property
    def n_sids(self) -> int:
        """SIDs of the tree."""
        return int((self.starts[:-1] == self.starts[1:]).sum())

    def allowed(self, node: int) -> np.ndarray:
        """Tokens that may follow."""
        return self.edges[self.starts[node] : self.starts[node + 1]]

    def step(self, node: int, token: int) -> int:
        """The node that a token leads to, or -1."""
        first, last = self.starts[node], self.starts[node + 1]
        edge = first + np.searchsorted(self.edges[first:last], token)
        return int(self.nodes[edge]) if edge < last and self.edges[edge] == token else -1


def build(codes: np.ndarray, ids: dict[str, int]) -> Trie:
    """Build the prefix tree over the token ids of all SIDs, for constrained decoding.

    Args:
        codes: int32 (N, L); repeated SIDs count once.
        ids: token to id, as :func:`sidmill.datasets.vocabulary.expand` returns them.

    Raises:
        SidmillError: if a token has no id.
    """
    if not len(codes):
        raise SidmillError("there is no SID to make a tree of")

    # A trie over token ids. Its nodes, level by level, are numbered breadth first.
    tree = sid_trie.build(np.stack(list(_token_columns(codes, ids)), axis=1))
    edges = np.concatenate([tokens.numpy() for tokens in tree.tokens])
    starts, first = [], 0
    for offsets, tokens in zip(tree.first_child, tree.tokens, strict=True):
        starts.append(first + offsets[:-1].numpy())
        first += len(tokens)
    starts.append(np.full(tree.n_sids + 1, first))  # the leaves have no edges

    # Texts of the tokens that some SID has.
    texts = {number: text for text, number in ids.items()}
    return Trie(
        edges,
        np.concatenate(starts),
        np.arange(1, len(edges) + 1, dtype=np.int32),
        {token: texts[token] for token in np.unique(edges).tolist()},
    )


def _token_columns(codes: np.ndarray, ids: dict[str, int]) -> Iterator[np.ndarray]:
    """Yield token ids of all SIDs, int32 (N,) each: begin, one per level, end."""
    yield np.full(len(codes), ids[sid_text.BEGIN], dtype=np.int32)
    for level in range(codes.shape[1]):
        used, inverse = np.unique(codes[:, level], return_inverse=True)
        names = [sid_text.token(level, code) for code in used.tolist()]
        missing = [name for name in names if name not in ids]
        if missing:
            raise SidmillError(f"the tokenizer lacks {missing[0]}: expand its vocabulary first")
        yield np.array([ids[name] for name in names], dtype=np.int32)[inverse]
    yield np.full(len(codes), ids[sid_text.END], dtype=np.int32)


def write(path: str | Path, trie: Trie) -> None:
    """Write trie.safetensors."""
    arrays = {"edges": trie.edges, "starts": trie.starts, "nodes": trie.nodes}
    tensors.write(path, arrays, {"names": {str(k): v for k, v in trie.names.items()}})


def read(path: str | Path) -> Trie:
    """Read trie.safetensors."""
    arrays, metadata = tensors.read(path, "trie")
    names = {int(number): text for number, text in metadata["names"].items()}
    return Trie(arrays["edges"], arrays["starts"], arrays["nodes"], names)


def write_json(path: str | Path, trie: Trie) -> None:
    """Write the tree of token ids as nested objects, a leaf is ``{}``. Memory: one path."""

    def write_node(node: int, out: TextIO) -> None:
        out.write("{")
        for number, token in enumerate(trie.allowed(node).tolist()):
            out.write(("," if number else "") + json.dumps(trie.names[token]) + ":")
            write_node(trie.step(node, token), out)
        out.write("}")

    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as out:
        write_node(0, out)
        out.write("\n")


def write_regex(path: str | Path, codes: np.ndarray) -> None:
    """Write one regular expression that matches each SID and nothing else.

    It has one branch per prefix, so that a matcher reads each prefix once. It uses literals, groups
    and alternatives alone. No line feed ends the file: servers take its text as it is.
    """

    def branch(rows: np.ndarray, level: int) -> str:
        if level == rows.shape[1]:
            return ""
        cuts = np.flatnonzero(np.diff(rows[:, level])) + 1
        parts = [
            sid_text.token(level, int(part[0, level])) + branch(part, level + 1)
            for part in np.split(rows, cuts)
        ]
        return parts[0] if len(parts) == 1 else f"({'|'.join(parts)})"

    begin, end = (mark.replace("|", r"\|") for mark in (sid_text.BEGIN, sid_text.END))
    with replacing(path) as temporary:
        pattern = f"{begin}{branch(np.unique(codes, axis=0), 0)}{end}"
        temporary.write_text(pattern, encoding="utf-8")


def write_lark(path: str | Path, codes: np.ndarray) -> None:
    """Write one grammar that matches each SID and nothing else, for llguidance.

    Each SID token is named as a token of the vocabulary, so it cannot be spelled in smaller ones.
    Each prefix has a rule; prefixes with equal continuations share one. A warning says
    that llguidance does not take the file: too many symbols, or too many tokens after a prefix.
    """
    rules: dict[str, str] = {}  # from the alternatives to the name of their rule
    most = 0  # tokens that may follow one prefix

    def rule(rows: np.ndarray, level: int) -> str:
        nonlocal most
        cuts = np.flatnonzero(np.diff(rows[:, level])) + 1
        most = max(most, len(cuts) + 1)
        branches = []
        for part in np.split(rows, cuts):
            token = sid_text.token(level, int(part[0, level]))
            is_last = level + 1 == rows.shape[1]
            branches.append(token if is_last else f"{token} {rule(part, level + 1)}")
        return rules.setdefault(" | ".join(branches), f"r{len(rules)}")

    first = rule(np.unique(codes, axis=0), 0)
    n_symbols = len(rules) + sum(body.count(" | ") + 1 for body in rules)
    if most > LARK_MOST_TOKENS or n_symbols > LARK_MOST_SYMBOLS:
        logger.warning(
            "%s has about %d symbols, and %d tokens may follow one prefix; llguidance takes %d and "
            "%d: give it levels.lark", path, n_symbols, most, LARK_MOST_SYMBOLS, LARK_MOST_TOKENS,
        )  # fmt: skip
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as out:
        out.write(f"start: {sid_text.BEGIN} {first} {sid_text.END}\n")
        out.writelines(f"{name}: {body}\n" for body, name in rules.items())


def write_ebnf(path: str | Path, trie: Trie) -> None:
    """Write one grammar that matches each SID and nothing else, for xgrammar.

    Tokens are given by their ids, so a SID cannot be spelled in smaller tokens, and the file
    belongs to one tokenizer. Each prefix has a rule; prefixes with equal continuations share one.
    Source: EBNF of xgrammar 0.2.9, https://xgrammar.mlc.ai/docs

    Memory: the text of the grammar, about 20 bytes per SID.
    """
    rules: dict[str, str] = {}  # from the alternatives to the name of their rule

    def rule(node: int) -> str:
        """The alternatives after a node: tokens that end a path are one set, others have a rule."""
        last, branches = [], []
        for token in trie.allowed(node).tolist():
            following = trie.step(node, token)
            if trie.starts[following] == trie.starts[following + 1]:
                last.append(str(token))
            else:
                branches.append(f"Token({token}) {rule(following)}")
        if last:
            branches.append(f"Token({', '.join(last)})")
        return rules.setdefault(" | ".join(branches), f"r{len(rules)}")

    first = rule(0)
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as out:
        out.write(f"root ::= {first}\n")
        out.writelines(f"{name} ::= {body}\n" for body, name in rules.items())


def write_levels_ebnf(path: str | Path, trie: Trie) -> None:
    """Write one grammar that matches every combination of tokens in use, level by level.

    For xgrammar. Its size and the time to compile it depend on the codebooks and not on the number
    of items. An answer is made of SID tokens in the right order, but may be the SID of no item:
    look it up.
    """
    sets = [f"Token({', '.join(map(str, tokens))})" for tokens in _tokens_by_depth(trie)]
    with replacing(path) as temporary:
        temporary.write_text(f"root ::= {' '.join(sets)}\n", encoding="utf-8")


def write_levels_lark(path: str | Path, trie: Trie) -> None:
    """Write the grammar of :func:`write_levels_ebnf` for llguidance.

    It refuses a :func:`write_lark` of more than about 65,000 prefixes; this one has a symbol per
    level. Tokens are given by their ids, so the file belongs to one tokenizer.
    Source: Lark syntax of llguidance 1.9.1, https://github.com/guidance-ai/llguidance
    """
    sets = [f"<[{','.join(map(str, tokens))}]>" for tokens in _tokens_by_depth(trie)]
    with replacing(path) as temporary:
        temporary.write_text(f"start: {' '.join(sets)}\n", encoding="utf-8")


def _tokens_by_depth(trie: Trie) -> Iterator[list[int]]:
    """Yield the tokens that some SID has at each depth, ascending: begin, each level, end."""
    # Nodes are numbered breadth first, so those of one depth are adjacent.
    first, stop = 0, 1
    while True:
        tokens = np.unique(trie.edges[trie.starts[first] : trie.starts[stop]])
        if not len(tokens):
            return
        yield tokens.tolist()
        first, stop = stop, stop + int(trie.starts[stop] - trie.starts[first])


class SidLogits(LogitsProcessor):
    """Let a model write ``n_items`` SIDs of the tree, then its end token, and nothing else.

    For ``generate(logits_processor=[...])``. All rows are masked together on their device, without
    a Python call per row. Nothing is kept from step to step, so beams may change their order.
    Sampling settings of the model's own configuration (such as ``top_k``) would prune a beam
    further: switch them off, as :func:`beam_settings` does.
    """

    def __init__(self, trie: Trie, prompt_length: int, end_id: int, n_items: int = 1) -> None:
        """Take the tree, the (padded) length of the prompts, and the id that ends an answer."""
        self.prompt_length, self.end_id, self.n_items = prompt_length, end_id, n_items
        self.depth, self.most = trie.depth, int(np.diff(trie.starts).max())
        self.edges, self.starts, self.nodes = map(
            torch.from_numpy, (trie.edges, trie.starts, trie.nodes)
        )

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Keep the scores of the tokens that may follow; all other scores become -inf."""
        device = scores.device
        self.edges, self.starts, self.nodes = (
            part.to(device) for part in (self.edges, self.starts, self.nodes)
        )

        # The node that each row has reached in its last SID: (rows,); -1 is none.
        written = input_ids[:, self.prompt_length :]
        n_done = written.shape[1] // self.depth
        at = torch.full((len(written),), 0 if n_done < self.n_items else -1, device=device)
        for tokens in written[:, n_done * self.depth :].T:
            edge = sid_trie.find_child(self.starts, self.edges, at, tokens, self.most)
            at = torch.where(edge >= 0, self.nodes[edge].long(), -1)

        # The edges of those nodes, all rows in one gathering; a row without a node ends.
        first = self.starts[at.clamp(min=0)]
        counts = torch.where(at >= 0, self.starts[at.clamp(min=0) + 1] - first, 0)
        rows, number = sid_trie.spread(counts)
        tokens = self.edges[first[rows] + number].long()
        masked = torch.full_like(scores, -torch.inf)
        masked[rows, tokens] = scores[rows, tokens]
        ends = torch.where(at >= 0, masked[:, self.end_id], scores[:, self.end_id])
        masked[:, self.end_id] = ends
        return cast(torch.FloatTensor, masked)


def prefix_allowed_tokens_fn(
    trie: Trie, prompt_length: int, end_id: int, n_items: int = 1
) -> Callable[[int, torch.Tensor], list[int]]:
    """What :class:`SidLogits` allows, for ``generate(prefix_allowed_tokens_fn=...)``.

    It is called once per row and step, and slower.
    """
    depth = trie.depth
    allowed: dict[tuple[int, ...], list[int]] = {}  # by the part of a SID that is written

    def allowed_tokens(_: int, tokens: torch.Tensor) -> list[int]:
        written: list[int] = tokens[prompt_length:].tolist()
        if len(written) >= depth * n_items:
            return [end_id]
        prefix = tuple(written[len(written) // depth * depth :])
        if prefix not in allowed:
            node = 0
            for token in prefix:
                node = trie.step(node, token) if node >= 0 else -1
            allowed[prefix] = trie.allowed(node).tolist() if node >= 0 else [end_id]
        return allowed[prefix]

    return allowed_tokens


def beam_settings(trie: Trie, n_beams: int, n_items: int = 1) -> dict[str, Any]:
    """Arguments of ``generate`` for ``n_beams`` distinct answers, with a model's own sampling off.

    Penalties of repetition, which some models bring in their configuration, are off as well: they
    would lower the scores of the SIDs in the history.

    With more beams than answers, a beam would end in a text that is not a SID, or two beams in the
    same answer: the number of beams is limited to that of answers, with a warning.

    Raises:
        SidmillError: if ``n_beams`` or ``n_items`` is below 1.
    """
    if n_beams < 1 or n_items < 1:
        raise SidmillError(f"{n_beams} beams of {n_items} items: set both to at least 1")
    answers = trie.n_sids**n_items
    if answers < n_beams:
        logger.warning("%d beams for %d answers: using %d beams", n_beams, answers, answers)
        n_beams = answers
    return {
        "num_beams": n_beams,
        "num_return_sequences": n_beams,
        "max_new_tokens": trie.depth * n_items + 1,
        "do_sample": False,
        "top_k": None,
        "top_p": None,
        "temperature": None,
        "repetition_penalty": 1.0,  # of the SIDs in the prompt, in beam search, too
        "no_repeat_ngram_size": 0,
        "length_penalty": 0.0,
    }
