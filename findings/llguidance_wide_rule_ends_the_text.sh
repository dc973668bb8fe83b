#!/usr/bin/env bash
# llguidance 1.9.1, tokenizers 0.23.3, transformers 5.23.0, Python 3.11.
#
# A Lark grammar of semantic IDs whose first level has 2,000 codes compiles without an error. When the
# begin token is written, the mask allows the end of the text and nothing else, so every constrained
# answer is the begin token alone. With 1,999 codes all 1,999 tokens are allowed.
#
# Guess: it compiles, and the mask is empty or the engine raises (the limits name 2,000 items per row).
# Seen: no error after compiling; 1,999 codes: 1,999 tokens allowed; 2,000 codes: one, the end token;
# get_error() then names the limit.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet llguidance==1.9.1 tokenizers==0.23.3 transformers==5.23.0
"$folder/venv/bin/python" -W ignore - 2> "$folder/errors" <<'PY'
import llguidance.hf
from llguidance import LLMatcher, grammar_from
from tokenizers import AddedToken, Tokenizer, decoders, models
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

letters = {letter: number for number, letter in enumerate(sorted(ByteLevel.alphabet()))}
end = len(letters)
made = Tokenizer(models.BPE(vocab=letters | {"<eos>": end}, merges=[]))
made.pre_tokenizer, made.decoder = ByteLevel(add_prefix_space=False), decoders.ByteLevel()
wrapped = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<eos>")
names = ["<begin>", *(f"<b_{code}>" for code in range(5)), *(f"<a_{code}>" for code in range(2000))]
wrapped.add_tokens([AddedToken(name, special=False, normalized=False) for name in names])
tokens = llguidance.hf.from_tokenizer(wrapped)


def allowed_after_begin(n_codes):
    first = " | ".join(f"<a_{code}> r{code % 5}" for code in range(n_codes))
    rest = "".join(f"r{code}: <b_{code}>\n" for code in range(5))
    grammar = grammar_from("lark", f"start: <begin> first\nfirst: {first}\n{rest}")
    matcher = LLMatcher(tokens, grammar)
    assert not matcher.get_error()
    matcher.consume_token(wrapped.convert_tokens_to_ids("<begin>"))
    mask = int.from_bytes(matcher.compute_bitmask(), "little")
    return {token for token in range(len(wrapped)) if mask >> token & 1}, matcher.get_error()


below, error = allowed_after_begin(1999)
print("1,999 codes:", len(below), "tokens allowed", repr(error))
assert len(below) == 1999 and not error
above, error = allowed_after_begin(2000)
print("2,000 codes: allowed", above, "of which the end token is", end, "-", error[:44])
assert above == {end} and "max is 2000" in error
PY
