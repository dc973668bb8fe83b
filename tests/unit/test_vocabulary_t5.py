"""SID tokens in a T5 as it is published: its tokenizer class, sentinels, more rows than tokens."""

import json
import re

import numpy as np
import pytest
import test_vocabulary_models as models
import tiny_qwen3
import torch
from conftest import ROOT
from safetensors.torch import load_file, save_file
from test_vocabulary_models import CODES, TOKENS
from tokenizers import Tokenizer, pre_tokenizers, trainers
from tokenizers.models import Unigram
from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration, T5Tokenizer

from sidmill.datasets import trie

pytestmark = pytest.mark.model

PADDING = 28  # rows without a token: T5 has 32,128 rows and 32,100 tokens
SENTINELS = 100


@pytest.fixture(scope="module", params=["scaled", "own"])
def source(request, tmp_path_factory):
    """A tiny T5: ``scaled`` as T5 1.0 (head is the embeddings), or with its ``own`` head."""
    folder = tmp_path_factory.mktemp(request.param)
    learned = Tokenizer(Unigram())
    learned.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    learned.train_from_iterator(tiny_qwen3.TRAINING_TEXTS * 3, trainer)
    pieces = [tuple(piece) for piece in json.loads(learned.to_str())["model"]["vocab"]]
    sentinels = [(f"<extra_id_{n}>", 0.0) for n in reversed(range(SENTINELS))]
    tokenizer = T5Tokenizer(vocab=pieces + sentinels)
    tokenizer.save_pretrained(folder)

    # Random weights with rows beyond the tokens.
    torch.manual_seed(1)
    config = T5Config(
        vocab_size=len(tokenizer) + PADDING, d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=2,
        decoder_start_token_id=0, tie_word_embeddings=request.param == "scaled",
    )  # fmt: skip
    T5ForConditionalGeneration(config).save_pretrained(folder)
    if request.param == "own":
        weights = load_file(folder / "model.safetensors")
        weights["lm_head.weight"] = torch.randn_like(weights["shared.weight"])
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def expanded(source):
    """A run's folder with the model, its tokens, and the tree of SIDs."""
    results = source / "run/results/vocabulary"
    ids = models.expand(source, results / "model")
    trie.write(results / "trie.safetensors", trie.build(CODES, ids))
    return results / "model", ids


def test_sids_take_the_rows_without_a_token_first(source, expanded):
    folder, ids = expanded
    before, after = AutoTokenizer.from_pretrained(source), AutoTokenizer.from_pretrained(folder)
    n_tokens, old, new = len(before), models.load(source), models.load(folder)
    assert sorted(ids.values()) == list(range(n_tokens, n_tokens + len(TOKENS)))
    assert len(TOKENS) < PADDING
    assert new.config.vocab_size == -(-(n_tokens + PADDING) // 64) * 64
    for part in ("get_input_embeddings", "get_output_embeddings"):
        assert torch.equal(
            getattr(new, part)().weight[:n_tokens], getattr(old, part)().weight[:n_tokens]
        )

    # The obvious way makes the matrices smaller than they were.
    old.resize_token_embeddings(len(after))
    assert old.get_input_embeddings().weight.shape[0] < n_tokens + PADDING


def test_sentinels_keep_ids_and_are_dropped_and_sids_are_not(source, expanded):
    before, after = (AutoTokenizer.from_pretrained(path) for path in (source, expanded[0]))
    sentinels = [f"<extra_id_{n}>" for n in range(SENTINELS)]
    assert after.convert_tokens_to_ids(sentinels) == before.convert_tokens_to_ids(sentinels)
    assert after.all_special_tokens == before.all_special_tokens
    assert set(sentinels) <= set(after.all_special_tokens)
    text = "<|sid_begin|><s_a_1><s_b_2><s_c_3><|sid_end|>"
    written = after(f"<extra_id_0> {text} <extra_id_1>").input_ids
    assert after.decode(written, skip_special_tokens=True).replace(" ", "") == text


def test_what_was_written_before_is_written_still(source, expanded):
    old, new = models.load(source).eval(), models.load(expanded[0]).eval()
    assert new.config.decoder_start_token_id == new.generation_config.decoder_start_token_id == 0
    assert new.config.scale_decoder_outputs == old.config.scale_decoder_outputs
    given = {"input_ids": torch.tensor([[5, 6, 7, 1]]), "decoder_input_ids": torch.tensor([[0, 9]])}
    n_tokens = len(AutoTokenizer.from_pretrained(source))
    before, after = old(**given).logits, new(**given).logits
    assert torch.allclose(before[..., :n_tokens], after[..., :n_tokens], atol=1e-5)
    assert before.std() > 0.01


def test_the_code_of_the_page_writes_sids_of_items(expanded, monkeypatch):
    page = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    (block,) = [
        block
        for block in re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
        if "Seq2Seq" in block
    ]
    monkeypatch.chdir(expanded[0].parents[2])
    space = {}
    exec("from transformers import AutoTokenizer\nfrom sidmill.datasets import trie\n"
         "from sidmill.formats import sid_text\n" + block, space)  # fmt: skip
    answers = space["codes"]
    assert len(set(answers[:10])) == len(set(answers[10:])) == 10
    assert set(answers) <= set(map(tuple, np.unique(CODES, axis=0).tolist()))
