"""docs/recipes/constrained-decoding.md: which export which engine takes, and what it then allows.

Skipped without the engines: ``make recipes`` installs them.
"""

import importlib
import re
from pathlib import Path

import engines
import numpy as np
import pytest
import tiny_qwen3
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3ForCausalLM

from sidmill.datasets import trie, vocabulary
from sidmill.formats import sid_text
from sidmill.settings.datasets import Vocabulary

for package in ("xgrammar", "llguidance", "outlines_core", "lmformatenforcer"):
    pytest.importorskip(package, reason="make recipes installs it")

N_CODES, N_LEVELS = 4, 3
PAGE = Path(__file__).parents[2] / "docs/recipes/constrained-decoding.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def made():
    """A tokenizer, the SIDs of 20 of 64 combinations, and their tree."""
    wrapped, ids = engines.tokenizer(N_LEVELS, N_CODES)
    rng = np.random.default_rng(0)
    every = np.stack(np.unravel_index(rng.permutation(64)[:20], [N_CODES] * N_LEVELS), axis=1)
    codes = np.unique(every, axis=0).astype(np.int32)
    return wrapped, ids, codes, trie.build(codes, ids)


def allowed_along(follow, made):
    """For each SID, what may follow at each step, and what the tree says may follow."""
    _, ids, codes, tree = made
    for row in codes:
        names = [sid_text.BEGIN, *map(sid_text.token, range(N_LEVELS), row.tolist()), sid_text.END]
        path, node = [ids[name] for name in names], 0
        for token, allowed in zip(path, follow(path), strict=True):
            yield allowed, set(tree.allowed(node).tolist()), token
            node = tree.step(node, token)


def exports(name, tmp_path, made):
    _, _, codes, tree = made
    return engines.export(tmp_path / name, codes, tree)


@pytest.mark.parametrize(
    ("engine", "name"),
    [
        ("xgrammar", "sids.ebnf"),
        ("llguidance", "sids.lark"),
        ("sid_logits", "trie.safetensors"),
    ],
)
def test_grammars_of_tokens_allow_the_sids_and_nothing_else(made, tmp_path, engine, name):
    follow = getattr(engines, engine)(exports(name, tmp_path, made), made[0])
    for allowed, wanted, _ in allowed_along(follow, made):
        assert allowed == wanted


@pytest.mark.parametrize(
    ("engine", "name"), [("xgrammar", "levels.ebnf"), ("llguidance", "levels.lark")]
)
def test_grammars_by_levels_allow_every_sid_and_no_ordinary_token(made, tmp_path, engine, name):
    follow = getattr(engines, engine)(exports(name, tmp_path, made), made[0])
    sid_tokens = set(made[1].values())
    is_wider = False
    for allowed, wanted, _ in allowed_along(follow, made):
        assert wanted <= allowed <= sid_tokens
        is_wider |= wanted < allowed
    assert is_wider


@pytest.mark.parametrize("engine", ["xgrammar", "outlines", "lm_format_enforcer"])
def test_a_regex_is_exact_where_the_engine_is_given_the_sid_tokens_alone(made, tmp_path, engine):
    path = exports("sids.regex", tmp_path, made)
    follow = getattr(engines, engine)(path, made[0], only=made[1])
    for allowed, wanted, _ in allowed_along(follow, made):
        assert allowed == wanted


@pytest.mark.parametrize("engine", ["xgrammar", "outlines", "lm_format_enforcer"])
def test_the_obvious_way_still_is_wrong_a_regex_lets_sids_be_spelled(made, tmp_path, engine):
    follow = getattr(engines, engine)(exports("sids.regex", tmp_path, made), made[0])
    (less,) = made[0].convert_tokens_to_ids(["<"])
    assert all(less in allowed for allowed, _, _ in allowed_along(follow, made))


def test_the_obvious_way_still_is_wrong_a_regex_in_llguidance_blocks_every_sid(made, tmp_path):
    follow = engines.llguidance(exports("sids.regex", tmp_path, made), made[0])
    after_begin = [
        (allowed, wanted)
        for allowed, wanted, token in allowed_along(follow, made)
        if token != made[1][sid_text.BEGIN]
    ]
    assert not any(allowed & wanted for allowed, wanted in after_begin)


def test_a_wide_codebook_leaves_llguidance_the_end_of_the_text_alone(tmp_path):
    """And levels.lark works; the warning of write_lark has the limit."""
    wrapped, ids = engines.tokenizer(2, 2_001)
    codes = np.stack([np.arange(2_001), np.arange(2_001) % 5], axis=1).astype(np.int32)
    tree = trie.build(codes, ids)
    names = [sid_text.BEGIN, *map(sid_text.token, range(2), codes[7].tolist()), sid_text.END]
    path = [ids[name] for name in names]

    by_sids = engines.llguidance(engines.export(tmp_path / "sids.lark", codes, tree), wrapped)
    assert list(by_sids(path))[1] == {wrapped.eos_token_id}
    by_levels = engines.llguidance(engines.export(tmp_path / "levels.lark", codes, tree), wrapped)
    assert all(token in allowed for token, allowed in zip(path, by_levels(path), strict=True))
    few = codes[: trie.LARK_MOST_TOKENS]
    narrow = engines.export(tmp_path / "sids.lark", few, trie.build(few, ids))
    assert len(list(engines.llguidance(narrow, wrapped)(path))[1]) == len(few)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A tiny model with SID tokens, two prompts, and the files of its vocabulary."""
    folder = tmp_path_factory.mktemp("served")
    source = tiny_qwen3.build(folder / "source")
    Qwen3ForCausalLM.from_pretrained(source).save_pretrained(source)
    out = folder / "results/vocabulary"
    rng = np.random.default_rng(0)
    codes = np.unique(rng.integers(0, 4, (20, 3)), axis=0).astype(np.int32)
    settings = Vocabulary(model=str(source), init="random")
    ids = vocabulary.expand(out / "model", codes, [4] * 3, [], settings, 1)
    tree = trie.build(codes, ids)
    for name in engines.EXPORTS:
        engines.export(out / name, codes, tree)

    model = AutoModelForCausalLM.from_pretrained(out / "model")
    tokenizer = AutoTokenizer.from_pretrained(out / "model", padding_side="left")
    texts = ["hex bolt", "blue nitrile gloves, powder free"]
    prompts = tokenizer(texts, padding=True, return_tensors="pt")
    names = {"model": model, "tokenizer": tokenizer, "prompts": prompts}
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    return folder, names, ends, codes, tree


@pytest.mark.parametrize("is_sampled", [False, True])
def test_two_engines_answer_as_our_trie_does(served, monkeypatch, is_sampled):
    """All lines of the page, one after another: greedy, and samples of one seed."""
    folder, names, _, codes, _ = served
    monkeypatch.chdir(folder)
    made = dict(names)
    for block in BLOCKS:
        torch.manual_seed(0)
        exec(block, made)
        if is_sampled and "settings" in made:
            made["settings"] |= {"do_sample": True, "top_k": 0, "num_return_sequences": 6}

    texts = made["tokenizer"].batch_decode(made["written"][:, made["length"] :])
    assert {sid_text.find(text, 3).sids[0] for text in texts} <= set(map(tuple, codes.tolist()))
    assert len(set(texts)) > is_sampled
    for other in ("by_xgrammar", "by_llguidance"):
        assert torch.equal(made[other], made["written"]), other


def test_beams_work_where_rows_are_followed_and_break_where_state_is_kept(served, monkeypatch):
    folder, names, ends, _, tree = served
    monkeypatch.chdir(folder)
    made = names | {"settings": ends | trie.beam_settings(tree, 5)}
    outlines, _, ours, xgrammar, llguidance = BLOCKS
    for block in (outlines, ours, llguidance):
        exec(block, made)
    assert len(set(map(tuple, made["written"].tolist()))) > 5
    assert torch.equal(made["by_llguidance"], made["written"])
    with pytest.raises(AssertionError):
        exec(xgrammar, made)


def test_outlines_on_the_page_allows_the_sids_and_nothing_else(served, monkeypatch):
    from outlines_core import Guide

    folder, names, _, codes, tree = served
    monkeypatch.chdir(folder)
    made = dict(names)
    exec(BLOCKS[0], made)
    ids = {text: token for token, text in tree.names.items()}
    for row in codes:
        guide, node = Guide(made["index"]), 0
        for name in [sid_text.BEGIN, *map(sid_text.token, range(3), row.tolist()), sid_text.END]:
            assert set(guide.get_tokens()) == set(tree.allowed(node).tolist())
            guide.advance(ids[name])
            node = tree.step(node, ids[name])
        assert guide.get_tokens() == [names["tokenizer"].eos_token_id]


def test_lm_format_enforcer_answers_alike_without_its_integration(served):
    """With beams; its own module for transformers does not import."""
    from lmformatenforcer import RegexParser, TokenEnforcer, TokenEnforcerTokenizerData

    folder, names, ends, _, tree = served
    with pytest.raises(ImportError):
        importlib.import_module("lmformatenforcer.integrations.transformers")
    tokenizer, model, prompts = names["tokenizer"], names["model"], names["prompts"]
    texts = [(token, text, False) for token, text in tree.names.items()]
    data = TokenEnforcerTokenizerData(
        texts, tokenizer.decode, tokenizer.eos_token_id, False, len(tokenizer)
    )
    pattern = (folder / "results/vocabulary/sids.regex").read_text(encoding="utf-8")
    enforcer = TokenEnforcer(data, RegexParser(pattern))
    settings = ends | trie.beam_settings(tree, 5)
    theirs = model.generate(
        **prompts,
        prefix_allowed_tokens_fn=lambda _, row: (
            enforcer.get_allowed_tokens(row.tolist()).allowed_tokens
        ),
        **settings,
    )
    limit = trie.SidLogits(tree, prompts["input_ids"].shape[1], tokenizer.eos_token_id)
    assert torch.equal(theirs, model.generate(**prompts, logits_processor=[limit], **settings))
