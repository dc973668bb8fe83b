"""Grammar engines behind one function: which tokens may follow, step by step.

Versions are those of requirements-recipes.lock.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
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
}
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


def export(name: str, path: Path, codes: np.ndarray, tree: trie.Trie) -> str:
    """Write one of EXPORTS, and return its text."""
    EXPORTS[name](path, codes, tree)
    return path.read_text(encoding="utf-8")


def xgrammar(text: str, is_regex: bool, wrapped: PreTrainedTokenizerFast) -> Follow:
    """Compile with xgrammar; the result yields the allowed tokens before each token of a path."""
    import xgrammar

    info = xgrammar.TokenizerInfo.from_huggingface(wrapped)
    compiler = xgrammar.GrammarCompiler(info, max_threads=1)
    grammar = compiler.compile_regex(text) if is_regex else compiler.compile_grammar(text)

    def follow(path: list[int]) -> Iterator[set[int]]:
        matcher = xgrammar.GrammarMatcher(grammar)
        for token in path:
            mask = xgrammar.allocate_token_bitmask(1, len(wrapped))
            matcher.fill_next_token_bitmask(mask)
            yield _set_bits(mask.numpy().tobytes(), len(wrapped))
            matcher.accept_token(token)

    return follow


def llguidance(text: str, is_regex: bool, wrapped: PreTrainedTokenizerFast) -> Follow:
    """The same with llguidance.

    Raises:
        ValueError: if it refuses the grammar.
    """
    import llguidance
    import llguidance.hf

    of_model = llguidance.hf.from_tokenizer(wrapped)
    grammar = llguidance.grammar_from("regex" if is_regex else "lark", text)
    refused = llguidance.LLMatcher(of_model, grammar).get_error()
    if refused:
        raise ValueError(refused)

    def follow(path: list[int]) -> Iterator[set[int]]:
        matcher = llguidance.LLMatcher(of_model, grammar)
        for token in path:
            yield _set_bits(matcher.compute_bitmask(), len(wrapped))
            matcher.consume_token(token)

    return follow


def _set_bits(mask: bytes, n_tokens: int) -> set[int]:
    bits = np.unpackbits(np.frombuffer(mask, dtype=np.uint8), bitorder="little")[:n_tokens]
    return set(np.flatnonzero(bits).tolist())
