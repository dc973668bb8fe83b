"""Grammar engines behind one function: which tokens may follow, step by step.

Versions are those of requirements-recipes.lock.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from sidmill.datasets import trie
from sidmill.formats import sid_text

EXPORTS = {
    "sids.regex": lambda path, codes, _: trie.write_regex(path, codes),
    "sids.lark": lambda path, codes, _: trie.write_lark(path, codes),
    "sids.ebnf": lambda path, _, tree: trie.write_ebnf(path, tree),
    "levels.ebnf": lambda path, _, tree: trie.write_levels_ebnf(path, tree),
    "levels.lark": lambda path, _, tree: trie.write_levels_lark(path, tree),
    "trie.safetensors": lambda path, _, tree: trie.write(path, tree),
}
# From the tokens of an answer to what may follow before each of them.
Follow = Callable[[list[int]], Iterator[set[int]]]


def tokenizer(n_levels: int, n_codes: int) -> tuple[PreTrainedTokenizerFast, dict[str, int]]:
    """A tokenizer of single bytes with SID tokens added, and the ids of these."""
    vocabulary = {letter: number for number, letter in enumerate(sorted(ByteLevel.alphabet()))}
    vocabulary["<eos>"] = len(vocabulary)
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer, made.decoder = ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<eos>")
    names = [sid_text.BEGIN, sid_text.END]
    names += [sid_text.token(level, code) for level in range(n_levels) for code in range(n_codes)]
    wrapped.add_tokens([AddedToken(name, special=False, normalized=False) for name in names])
    return wrapped, dict(zip(names, wrapped.convert_tokens_to_ids(names), strict=True))


def export(path: Path, codes: np.ndarray, tree: trie.Trie) -> Path:
    """Write one of EXPORTS, that of the name of ``path``, and return the path."""
    EXPORTS[path.name](path, codes, tree)
    return path


def xgrammar(
    path: Path, wrapped: PreTrainedTokenizerFast, only: dict[str, int] | None = None
) -> Follow:
    """Compile with xgrammar; the result yields the allowed tokens before each token of a path.

    Args:
        path: an export.
        wrapped: the tokenizer.
        only: SID tokens; the engine then sees an empty text in place of each other token.
    """
    import xgrammar

    if only is None:
        info = xgrammar.TokenizerInfo.from_huggingface(wrapped)
    else:
        names = {number: name for name, number in only.items()}
        texts = [names.get(number, "") for number in range(len(wrapped))]
        info = xgrammar.TokenizerInfo(texts, stop_token_ids=[wrapped.eos_token_id])
    compiler = xgrammar.GrammarCompiler(info, max_threads=1)
    text, is_regex = path.read_text(encoding="utf-8"), path.suffix == ".regex"
    grammar = compiler.compile_regex(text) if is_regex else compiler.compile_grammar(text)

    def follow(tokens: list[int]) -> Iterator[set[int]]:
        matcher = xgrammar.GrammarMatcher(grammar)
        for token in tokens:
            mask = xgrammar.allocate_token_bitmask(1, len(wrapped))
            matcher.fill_next_token_bitmask(mask)
            yield _set_bits(mask.numpy().tobytes(), len(wrapped))
            matcher.accept_token(token)

    return follow


def llguidance(
    path: Path, wrapped: PreTrainedTokenizerFast, only: dict[str, int] | None = None
) -> Follow:
    """The same with llguidance, which reads the tokenizer itself: ``only`` is not for it.

    Raises:
        ValueError: if it refuses the grammar.
    """
    import llguidance
    import llguidance.hf

    of_model = llguidance.hf.from_tokenizer(wrapped)
    grammar = llguidance.grammar_from(path.suffix[1:], path.read_text(encoding="utf-8"))
    refused = llguidance.LLMatcher(of_model, grammar).get_error()
    if refused:
        raise ValueError(refused)

    def follow(tokens: list[int]) -> Iterator[set[int]]:
        matcher = llguidance.LLMatcher(of_model, grammar)
        for token in tokens:
            yield _set_bits(matcher.compute_bitmask(), len(wrapped))
            matcher.consume_token(token)

    return follow


def outlines(
    path: Path, wrapped: PreTrainedTokenizerFast, only: dict[str, int] | None = None
) -> Follow:
    """The same with outlines-core, which takes regular expressions alone."""
    from outlines_core import Guide, Index, Vocabulary

    texts: dict[str, list[int]] = {}
    for number, name in _texts(wrapped, only):
        texts.setdefault(name, []).append(number)
    vocabulary = Vocabulary(wrapped.eos_token_id, texts)
    index = Index(path.read_text(encoding="utf-8"), vocabulary)

    def follow(tokens: list[int]) -> Iterator[set[int]]:
        guide = Guide(index)
        for token in tokens:
            yield set(guide.get_tokens())
            guide.advance(token)

    return follow


def lm_format_enforcer(
    path: Path, wrapped: PreTrainedTokenizerFast, only: dict[str, int] | None = None
) -> Follow:
    """The same with lm-format-enforcer, which takes regular expressions alone."""
    from lmformatenforcer import RegexParser, TokenEnforcer, TokenEnforcerTokenizerData

    prompt = [wrapped.convert_tokens_to_ids("0")]
    texts = [(number, name, False) for number, name in _texts(wrapped, only)]
    data = TokenEnforcerTokenizerData(
        texts, wrapped.decode, wrapped.eos_token_id, False, len(wrapped)
    )
    enforcer = TokenEnforcer(data, RegexParser(path.read_text(encoding="utf-8")))

    def follow(tokens: list[int]) -> Iterator[set[int]]:
        for length in range(len(tokens)):
            yield set(enforcer.get_allowed_tokens(prompt + tokens[:length]).allowed_tokens)

    return follow


def sid_logits(
    path: Path, wrapped: PreTrainedTokenizerFast, only: dict[str, int] | None = None
) -> Follow:
    """The same with our own processor for ``generate`` of transformers, and trie.safetensors."""
    allow = trie.SidLogits(trie.read(path), 0, wrapped.eos_token_id)

    def follow(tokens: list[int]) -> Iterator[set[int]]:
        for length in range(len(tokens)):
            written = torch.tensor([tokens[:length]], dtype=torch.long)
            masked = allow(written, torch.zeros(1, len(wrapped)))
            yield set(torch.nonzero(masked[0].isfinite())[:, 0].tolist())

    return follow


def _texts(
    wrapped: PreTrainedTokenizerFast, only: dict[str, int] | None
) -> Iterator[tuple[int, str]]:
    """Tokens and their texts: SID tokens, or all but special ones."""
    if only is not None:
        yield from ((number, name) for name, number in only.items())
        return
    for number in range(len(wrapped)):
        if number not in wrapped.all_special_ids:
            yield number, wrapped.decode([number])


def _set_bits(mask: bytes, n_tokens: int) -> set[int]:
    bits = np.unpackbits(np.frombuffer(mask, dtype=np.uint8), bitorder="little")[:n_tokens]
    return set(np.flatnonzero(bits).tolist())
