"""docs/serving.md: its code runs; the logits processor gives what the callback gives.

The code for T5 is run by test_vocabulary_t5.py.
"""

import re

import numpy as np
import pyarrow as pa
import pytest
import tiny_qwen3
import torch
from conftest import ROOT

from sidmill.datasets import trie
from sidmill.formats import code_files, sid_text, trie_file
from sidmill.numeric import sid_trie
from sidmill.settings.datasets import Vocabulary

SIZES = [5, 4, 6]


@pytest.fixture(scope="module")
def codes():
    """40 items, some of which share a SID."""
    rng = np.random.default_rng(0)
    return np.stack([rng.integers(0, size, 40) for size in SIZES], axis=1).astype(np.int32)


@pytest.fixture(scope="module")
def results(tmp_path_factory, codes):
    """The files that the page reads, in ``results/`` of a folder."""
    from transformers import Qwen3ForCausalLM

    from sidmill.datasets import vocabulary

    folder = tmp_path_factory.mktemp("run") / "results"
    (folder / "vocabulary").mkdir(parents=True)
    ids = pa.chunked_array([pa.array([f"item {row}" for row in range(len(codes))])])
    code_files.write(folder / "pid2sid.parquet", "sid", ids, [codes], SIZES)
    built = sid_trie.build(codes, SIZES)
    trie_file.write(folder / "trie.safetensors", built, folder / "pid2sid.parquet")

    # A tiny Qwen3 with random weights and the tokens of the SIDs.
    source = tiny_qwen3.build(folder / "source")
    Qwen3ForCausalLM.from_pretrained(source).save_pretrained(source)
    settings = Vocabulary(model=str(source), init="random")
    tokens = vocabulary.expand(folder / "vocabulary/model", codes, SIZES, [], settings, 1)
    trie.write(folder / "vocabulary/trie.safetensors", trie.build(codes, tokens))
    return folder


def blocks():
    page = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    found = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    return [block for block in found if "Seq2Seq" not in block]


@pytest.mark.model
def test_the_code_of_the_page_answers_with_items(results, codes, monkeypatch):
    monkeypatch.chdir(results.parent)
    space = {}
    for block in blocks():
        exec(block, space)
        if "written" in space and "checked" not in space:
            # Ten different SIDs for each of two prompts, and the items of each.
            space["checked"] = True
            sids = space["sids"].tolist()
            assert len(set(sids[:10])) == len(set(sids[10:])) == 10
            for code, items in zip(space["codes"], space["items"], strict=True):
                rows = np.flatnonzero((codes == code).all(axis=1))
                assert items == [f"item {row}" for row in rows]
                assert items
    assert len(blocks()) == 3
    assert space["illegal"] == 0
    for answer in space["answers"]:
        assert len(set(answer)) == len(answer) == 10


@pytest.mark.model
@pytest.mark.parametrize("n_items", [1, 2])
@pytest.mark.parametrize("n_beams", [1, 4, 12])
def test_the_processor_and_the_callback_write_the_same(results, n_items, n_beams):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(results / "vocabulary/model")
    tokenizer = AutoTokenizer.from_pretrained(results / "vocabulary/model")
    tree = trie.read(results / "vocabulary/trie.safetensors")
    prompt = torch.tensor([[5, 6, 7], [8, 9, 10], [1, 2, 3]])
    end = tokenizer.eos_token_id
    given = {
        "attention_mask": torch.ones_like(prompt),
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": end,
        "output_scores": True,
        "return_dict_in_generate": True,
        **trie.beam_settings(tree, n_beams, n_items),
    }
    processor = trie.SidLogits(tree, 3, end, n_items)
    allowed = trie.prefix_allowed_tokens_fn(tree, 3, end, n_items)
    one = model.generate(prompt, logits_processor=[processor], **given)
    two = model.generate(prompt, prefix_allowed_tokens_fn=allowed, **given)
    assert torch.equal(one.sequences, two.sequences)
    assert all(torch.equal(a, b) for a, b in zip(one.scores, two.scores, strict=True))


@pytest.mark.parametrize("seed", range(20))
def test_any_text_is_masked_as_the_callback_says(seed):
    """Rows that are in a SID, between two, beyond the last, or that no SID continues."""
    rng = np.random.default_rng(seed)
    codes = np.stack([rng.integers(0, size, 12) for size in SIZES], axis=1).astype(np.int32)
    names = sid_text.vocabulary(SIZES)
    ids = dict(zip(names, (3 + rng.permutation(len(names))).tolist(), strict=True))
    tree, n_items, prompt = trie.build(codes, ids), int(rng.integers(1, 4)), int(rng.integers(3))
    processor = trie.SidLogits(tree, prompt, 1, n_items)
    allowed = trie.prefix_allowed_tokens_fn(tree, prompt, 1, n_items)
    texts = sid_text.render(codes).to_pylist()
    whole = [[ids[name] for name in re.findall(r"<.*?>", text)] for text in texts]
    for length in range(prompt, prompt + tree.depth * n_items + 2):
        rows = []
        for _ in range(8):
            words = [word for _ in range(4) for word in whole[rng.integers(12)]]
            row = rng.integers(0, 3 + len(names), prompt).tolist() + words
            if rng.random() < 0.3:
                row[rng.integers(len(row))] = int(rng.integers(0, 3 + len(names)))
            rows.append(row[:length])
        tokens = torch.tensor(rows, dtype=torch.int64).view(8, length)
        scores = torch.randn(8, 3 + len(names))
        found = processor(tokens, scores)
        for row in range(8):
            wanted = torch.full_like(scores[row], -torch.inf)
            wanted[allowed(row, tokens[row])] = scores[row, allowed(row, tokens[row])]
            assert torch.equal(found[row], wanted)
