"""docs/recipes/constrained-decoding.md: which export which engine takes, and what it then allows.

Skipped without the engines: ``make recipes`` installs them.
"""

import engines
import numpy as np
import pytest

from sidmill.datasets import trie
from sidmill.formats import sid_text

for package in ("xgrammar", "llguidance", "outlines_core", "lmformatenforcer"):
    pytest.importorskip(package, reason="make recipes installs it")

N_CODES, N_LEVELS = 4, 3


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
