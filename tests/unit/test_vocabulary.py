"""The vocabulary and the tree of SIDs: round trips, and beams that hold nothing else."""

import itertools
import re

import numpy as np
import pytest
import tiny_qwen3
import torch

from sidmill.core.errors import SidmillError
from sidmill.datasets import tokenizer_checks, trie, vocabulary
from sidmill.formats import sid_text
from sidmill.settings.datasets import Vocabulary

SIZES = [5, 4, 6]


@pytest.fixture
def sids(rng):
    return np.unique(np.stack([rng.integers(0, k, 40) for k in SIZES], axis=1), axis=0).astype(
        np.int32
    )


@pytest.fixture
def tree(sids):
    ids = {token: number for number, token in enumerate(sid_text.vocabulary(SIZES), start=100)}
    return trie.build(sids, ids)


def walk(tree, node=0, prefix=()):
    follow = tree.allowed(node).tolist()
    if not follow:
        yield "".join(tree.names[token] for token in prefix)
    for token in follow:
        yield from walk(tree, tree.step(node, token), (*prefix, token))


def test_the_tree_holds_the_sids_and_nothing_else(sids, tree, tmp_path):
    texts = sid_text.render(sids).to_pylist()
    assert sorted(walk(tree)) == sorted(texts)
    assert tree.depth == 5
    assert tree.step(0, 7) == -1
    trie.write(tmp_path / "t", tree)
    assert sorted(walk(trie.read(tmp_path / "t"))) == sorted(texts)
    trie.write_regex(tmp_path / "r", sids)
    pattern = re.compile((tmp_path / "r").read_text())
    every = np.stack(np.meshgrid(*map(np.arange, SIZES), indexing="ij"), -1).reshape(-1, 3)
    matched = [text for text in sid_text.render(every).to_pylist() if pattern.fullmatch(text)]
    assert sorted(matched) == sorted(texts)


def test_embeddings_from_codebooks_need_codebooks(sids, tmp_path):
    settings = Vocabulary(model="m", init="codebook")
    with pytest.raises(SidmillError, match="given SIDs have none: set mean or random"):
        vocabulary.expand(tmp_path / "model", sids, SIZES, [], settings, 1)


def derived(rules, name="start"):
    """All that a grammar of alternatives writes."""
    for branch in rules[name].split(" | "):
        texts = [""]
        for symbol in branch.split():
            follow = [symbol] if symbol.startswith("<") else list(derived(rules, symbol))
            texts = [text + more for text in texts for more in follow]
        yield from texts


@pytest.mark.parametrize("n_sids", [1, 2, 7, 40])
@pytest.mark.parametrize("n_levels", [1, 2, 3, 5])
def test_the_grammar_writes_each_sid_once_and_nothing_else(rng, tmp_path, n_sids, n_levels):
    codes = np.unique(rng.integers(0, 4, (n_sids, n_levels)), axis=0).astype(np.int32)
    trie.write_lark(tmp_path / "g", codes)
    lines = (tmp_path / "g").read_text().splitlines()
    rules = dict(line.split(": ", 1) for line in lines)
    assert len(rules) == len(lines)
    assert sorted(derived(rules)) == sorted(sid_text.render(codes).to_pylist())


def test_a_grammar_beyond_the_limits_of_llguidance_is_said(tmp_path, caplog):
    wide = np.stack([np.arange(2_000), np.zeros(2_000, int)], axis=1)
    many = np.stack(np.unravel_index(np.arange(70_000), (70, 1000, 1)), axis=1)
    trie.write_lark(tmp_path / "g", wide[:1_900])
    assert not caplog.text
    trie.write_lark(tmp_path / "wide", wide)
    assert "wide has about 2003 symbols, and 2000 tokens may follow one prefix" in caplog.text
    codes = many + np.arange(70_000)[:, None] * [0, 0, 1]
    trie.write_lark(tmp_path / "many", codes)
    assert "many has about" in caplog.text
    assert "levels.lark" in caplog.text


def token_lists(rules, name="root"):
    """All lists of token ids that a grammar of ``Token(...)`` and names of rules matches."""
    for branch in rules[name].split(" | "):
        lists = [()]
        for ids, rule in re.findall(r"Token\(([0-9, ]+)\)|(r[0-9]+)", branch):
            follow = list(token_lists(rules, rule)) if rule else [(int(i),) for i in ids.split(",")]
            lists = [(*start, *more) for start in lists for more in follow]
        yield from lists


def read_ebnf(path):
    lines = path.read_text().splitlines()
    rules = dict(line.split(" ::= ", 1) for line in lines)
    assert len(rules) == len(lines)
    return rules


@pytest.mark.parametrize("n_sids", [1, 2, 7, 40])
@pytest.mark.parametrize("n_levels", [1, 2, 3, 5])
def test_grammars_of_token_ids_match_the_sids_or_all_combinations(rng, tmp_path, n_sids, n_levels):
    codes = np.unique(rng.integers(0, 4, (n_sids, n_levels)), axis=0).astype(np.int32)
    names = [sid_text.BEGIN, sid_text.END]
    names += [sid_text.token(level, code) for level in range(n_levels) for code in range(4)]
    ids = {name: 100 + number for number, name in enumerate(names)}
    tree = trie.build(codes, ids)
    begin, end = ids[sid_text.BEGIN], ids[sid_text.END]

    def tokens(rows):
        """Token ids of each row, sorted."""
        columns = [
            [ids[sid_text.token(level, int(code))] for code in column]
            for level, column in enumerate(rows.T)
        ]
        return sorted((begin, *row, end) for row in zip(*columns, strict=True))

    trie.write_ebnf(tmp_path / "sids", tree)
    assert sorted(token_lists(read_ebnf(tmp_path / "sids"))) == tokens(codes)
    trie.write_levels_ebnf(tmp_path / "levels", tree)
    used = np.stack(np.meshgrid(*map(np.unique, codes.T), indexing="ij"), -1).reshape(-1, n_levels)
    assert sorted(token_lists(read_ebnf(tmp_path / "levels"))) == tokens(used)
    trie.write_levels_lark(tmp_path / "lark", tree)
    sets = re.findall(r"<\[([\d,]+)\]>", (tmp_path / "lark").read_text().removeprefix("start: "))
    in_lark = itertools.product(*([int(number) for number in one.split(",")] for one in sets))
    assert sorted(in_lark) == tokens(used)


@pytest.mark.model
@pytest.mark.parametrize("init", ["codebook", "mean", "random"])
def test_a_model_with_sids_writes_only_those_that_exist(sids, rng, tmp_path, init):
    from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3ForCausalLM

    # A model with the SID tokens.
    source = tiny_qwen3.build(tmp_path / "source")
    Qwen3ForCausalLM.from_pretrained(source).save_pretrained(source)
    books = [rng.standard_normal((size, 8)).astype(np.float32) for size in SIZES]
    books = books if init == "codebook" else []  # given SIDs have none
    settings = Vocabulary(model=str(source), init=init)
    ids = vocabulary.expand(tmp_path / "model", sids, SIZES, books, settings, 1)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert model.config.vocab_size % 256 == 0
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(source).chat_template
    tokenizer_checks.check_round_trip(tokenizer, sids)

    # Near codewords start with near embeddings.
    if init == "codebook":
        rows = model.get_input_embeddings().weight.detach()
        rows = rows[[ids[sid_text.token(0, code)] for code in range(SIZES[0])]]
        near = torch.cdist(rows, rows).flatten()
        wanted = torch.cdist(*[torch.from_numpy(books[0])] * 2).flatten()
        assert np.corrcoef(near, wanted)[0, 1] > 0.8

    # Ten beams for each of two prompts are ten different SIDs that exist.
    tree = trie.build(sids, ids)
    prompt = torch.tensor([[5, 6, 7], [8, 9, ids[sid_text.token(0, int(sids[0, 0]))]]])

    def generate(**others):
        return model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            logits_processor=[trie.SidLogits(tree, 3, tokenizer.eos_token_id)],
            **trie.beam_settings(tree, 10) | others,
        )

    found = generate()
    texts = tokenizer.batch_decode(found[:, 3:8], skip_special_tokens=True)
    answers = [sid_text.parse(text.replace(" ", ""), 3)[0] for text in texts]
    assert set(answers) <= set(map(tuple, sids.tolist()))
    assert len(set(answers[:10])) == len(set(answers[10:])) == 10

    # The answers are the same where the model's configuration punishes what the prompt has.
    model.generation_config.repetition_penalty = 1.5
    model.generation_config.no_repeat_ngram_size = 1
    assert torch.equal(generate(), found)
    assert not torch.equal(generate(repetition_penalty=1.5), found)
