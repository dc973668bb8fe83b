"""SID tokens in models of every make: decoders and T5, tied or not, odd tokenizers, LoRA."""

import json
import logging

import numpy as np
import pytest
import tiny_qwen3
import torch
from safetensors.torch import load_file, save_file
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BertConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
)

from sidmill.core.errors import SidmillError
from sidmill.datasets import (
    lora_settings,
    tokenizer_checks,
    trie,
    vocabulary,
)
from sidmill.formats import sid_text
from sidmill.settings.datasets import Vocabulary

pytestmark = pytest.mark.model

SIZES = [5, 4, 6]
TOKENS = sid_text.vocabulary(SIZES)
CODES = np.unique(np.random.default_rng(0).integers(0, SIZES, (40, 3)), axis=0).astype(np.int32)
BOOKS = [np.random.default_rng(k).standard_normal((k, 8)).astype(np.float32) for k in SIZES]
WIDTH = 32


def tokenizer_t5():
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>",
        show_progress=False,
    )  # fmt: skip
    made.train_from_iterator(tiny_qwen3.TRAINING_TEXTS * 3, trainer)
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=made, extra_special_tokens=["<extra_id_0>"], **special
    )


def tokenizer_lower():
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer, made.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=["[UNK]", "[PAD]", "[SEP]"],
                                        show_progress=False)  # fmt: skip
    made.train_from_iterator(tiny_qwen3.TRAINING_TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", eos_token="[SEP]",
                                   unk_token="[UNK]")  # fmt: skip


def save(folder, kind, *, head="own", tokenizer=None, extra_rows=0, change=None):
    """A tiny model of random weights: its head is the embeddings (``tied``) or its ``own``."""
    # The network, with random weights.
    tokenizer = tokenizer or (tokenizer_t5() if kind == "t5" else tiny_qwen3._tokenizer("left"))
    n_rows, tied = len(tokenizer) + extra_rows, head == "tied"
    torch.manual_seed(1)
    if kind == "t5":
        config = T5Config(vocab_size=n_rows, d_model=WIDTH, d_kv=8, d_ff=64, num_layers=1,
                          num_heads=2, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
                          tie_word_embeddings=tied)  # fmt: skip
        network, name = T5ForConditionalGeneration(config), "shared.weight"
    else:
        config = Qwen3Config(vocab_size=n_rows, hidden_size=WIDTH, intermediate_size=32,
                             num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
                             head_dim=16, initializer_range=0.2,
                             tie_word_embeddings=tied)  # fmt: skip
        network, name = Qwen3ForCausalLM(config), "model.embed_tokens.weight"

    # Its files, with a head of its own or other changes.
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    if head == "own":
        weights["lm_head.weight"] = torch.randn_like(weights[name])
    if change:
        change(weights, name)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    facts = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": tied}
    (folder / "config.json").write_text(json.dumps(facts))
    return folder


def expand(source, folder, *, sizes=SIZES, codes=CODES, books=BOOKS, **changes):
    settings = Vocabulary(**{"model": str(source), "pad_to": 64} | changes)
    return vocabulary.expand(folder, codes, sizes, books, settings, 1)


def load(folder):
    facts = json.loads((folder / "config.json").read_text())
    kind = AutoModelForSeq2SeqLM if facts["model_type"] == "t5" else AutoModelForCausalLM
    return kind.from_pretrained(folder)


MAKES = [(kind, head) for kind in ("qwen3", "t5") for head in ("own", "tied")]


@pytest.mark.parametrize(("kind", "head"), MAKES)
@pytest.mark.parametrize("extra_rows", [0, 40])
@pytest.mark.parametrize("init", ["codebook", "mean", "random"])
def test_old_rows_stay_and_new_rows_differ(tmp_path, kind, head, extra_rows, init):
    source = save(tmp_path / "m", kind, head=head, extra_rows=extra_rows)
    before, n_old = load(source), len(AutoTokenizer.from_pretrained(source))
    ids = expand(source, tmp_path / "out", init=init)
    after = load(tmp_path / "out")
    for part in ("get_input_embeddings", "get_output_embeddings"):
        old, new = getattr(before, part)().weight, getattr(after, part)().weight
        assert torch.equal(new[:n_old], old[:n_old])
        rows = new[[ids[token] for token in TOKENS]]
        assert len({row.numpy().tobytes() for row in rows.detach()}) == len(TOKENS)
        spread = rows.std() / old[:n_old].std()
        assert 0.05 < spread < 3
        assert new.shape[0] % 64 == 0
    same = torch.equal(after.get_input_embeddings().weight, after.get_output_embeddings().weight)
    assert same == (head == "tied")
    scale = "scale_decoder_outputs"
    assert getattr(after.config, scale, None) == getattr(before.config, scale, None)


@pytest.mark.parametrize(("kind", "head"), MAKES)
def test_a_model_writes_sids_that_exist_and_no_other(tmp_path, kind, head):
    ids = expand(save(tmp_path / "m", kind, head=head), tmp_path / "out")
    model, tokenizer = load(tmp_path / "out"), AutoTokenizer.from_pretrained(tmp_path / "out")
    tree = trie.build(CODES, ids)
    prompt = torch.tensor([[5, 6, 7]])
    length = 1 if kind == "t5" else 3  # of what the decoder begins with
    found = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        logits_processor=[trie.SidLogits(tree, length, tokenizer.eos_token_id)],
        **trie.beam_settings(tree, 10),
    )  # fmt: skip
    texts = tokenizer.batch_decode(found[:, length:], skip_special_tokens=True)
    answers = {sid_text.parse(text.replace(" ", ""), 3)[0] for text in texts}
    assert len(answers) == 10
    assert answers <= set(map(tuple, CODES.tolist()))


@pytest.mark.parametrize("kind", ["qwen3", "t5"])
def test_a_head_of_its_own_is_kept_where_the_config_says_tied(tmp_path, kind):
    source = save(tmp_path / "m", kind, head="own")
    facts = json.loads((source / "config.json").read_text()) | {"tie_word_embeddings": True}
    (source / "config.json").write_text(json.dumps(facts))
    head = load_file(source / "model.safetensors")["lm_head.weight"]
    expand(source, tmp_path / "out")
    assert torch.equal(load(tmp_path / "out").get_output_embeddings().weight[: len(head)], head)


def test_a_head_that_no_file_holds_is_refused(tmp_path):
    source = save(tmp_path / "m", "qwen3", change=lambda weights, _: weights.pop("lm_head.weight"))
    with pytest.raises(SidmillError, match=r"no lm_head\.weight.*tie_word_embeddings: true"):
        expand(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    facts = json.loads((source / "config.json").read_text()) | {"tie_word_embeddings": True}
    (source / "config.json").write_text(json.dumps(facts))  # the remedy
    expand(source, tmp_path / "out")


# Tokenizers.


@pytest.mark.parametrize("special", ["cased", "lower", "t5"])
def test_tokenizers_of_every_make_hold_the_tokens(tmp_path, special):
    made = {"cased": tiny_qwen3._tokenizer("left"), "lower": tokenizer_lower(),
            "t5": tokenizer_t5()}[special]  # fmt: skip
    source = save(tmp_path / "m", "qwen3", tokenizer=made)
    before = AutoTokenizer.from_pretrained(source)
    ids = expand(source, tmp_path / "out")
    after = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert after.all_special_tokens == before.all_special_tokens
    assert {text: after.get_vocab()[text] for text in before.get_vocab()} == before.get_vocab()
    for text in sid_text.render(CODES[:5]).to_pylist():
        found = after(f"After {text}, what?", add_special_tokens=False).input_ids
        assert sum(number in ids.values() for number in found) == 5


@pytest.mark.parametrize("there", [TOKENS[:1], TOKENS[3:6], TOKENS])
def test_tokens_that_are_there_keep_their_rows(tmp_path, there):
    made = tiny_qwen3._tokenizer("left")
    made.add_tokens([AddedToken(text, normalized=False) for text in there])
    source = save(tmp_path / "m", "qwen3", tokenizer=made)
    before = load(source).get_input_embeddings().weight
    expand(source, tmp_path / "out")
    after = load(tmp_path / "out").get_input_embeddings().weight
    assert torch.equal(after[: len(made)], before[: len(made)])
    ids = expand(tmp_path / "out", tmp_path / "again")  # nothing is left to add
    assert torch.equal(load(tmp_path / "again").get_input_embeddings().weight, after)
    assert len(set(ids.values())) == len(TOKENS)


@pytest.mark.parametrize("token", [TOKENS[0], TOKENS[1], TOKENS[4]])
def test_sid_tokens_that_are_special_are_refused(tmp_path, token):
    made = tiny_qwen3._tokenizer("left")
    made.add_tokens([AddedToken(token, special=True, normalized=False)])
    source = save(tmp_path / "m", "qwen3", tokenizer=made)
    with pytest.raises(SidmillError, match=r"special tokens.*skip_special_tokens") as error:
        expand(source, tmp_path / "out")
    assert token in str(error.value)


@pytest.mark.parametrize("normalized", [True, False])
def test_a_token_of_other_case_takes_nobodys_place(tmp_path, normalized):
    made = tokenizer_lower()
    made.add_tokens([AddedToken("<S_A_1>", normalized=normalized)])
    ids = expand(save(tmp_path / "m", "qwen3", tokenizer=made), tmp_path / "out")
    after = AutoTokenizer.from_pretrained(tmp_path / "out")
    tokenizer_checks.check_round_trip(after, CODES, ids)
    assert after.get_vocab()["<S_A_1>"] not in ids.values()


def test_a_tokenizer_that_cuts_sids_otherwise_is_refused(tmp_path):
    made = tiny_qwen3._tokenizer("left")
    sid = sid_text.render(CODES[:1])[0].as_py()
    made.add_tokens([AddedToken(sid[: sid.index("><s_b_") + 3], normalized=False)])  # two in one
    source = save(tmp_path / "m", "qwen3", tokenizer=made)
    with pytest.raises(SidmillError, match="this tokenizer changes SID tokens"):
        expand(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# New rows.


def constant(weights, name):
    for key in (name, "lm_head.weight"):
        weights[key][:] = 0.5


def near(weights, name):
    for key in (name, "lm_head.weight"):
        weights[key] = 100 + 1e-3 * torch.randn_like(weights[key])


@pytest.mark.parametrize("books", ["same", "zero", "twice"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_equal_codewords_make_no_equal_rows(tmp_path, books, dtype):
    made = {"same": [np.ones((k, 8), np.float32) for k in SIZES],
            "zero": [np.zeros((k, 8), np.float32) for k in SIZES],
            "twice": [np.repeat(book[::2], 2, axis=0)[: len(book)] for book in BOOKS]}  # fmt: skip
    ids = expand(save(tmp_path / "m", "qwen3"), tmp_path / "out", books=made[books], dtype=dtype)
    rows = load(tmp_path / "out").get_input_embeddings().weight[list(ids.values())]
    assert len(torch.unique(rows.float(), dim=0)) == len(TOKENS)
    assert torch.isfinite(rows).all()


@pytest.mark.parametrize("init", ["codebook", "mean", "random"])
def test_embeddings_without_spread_make_no_equal_rows(tmp_path, init):
    ids = expand(save(tmp_path / "m", "qwen3", change=constant), tmp_path / "out", init=init)
    rows = load(tmp_path / "out").get_input_embeddings().weight[list(ids.values())]
    assert len(torch.unique(rows, dim=0)) == len(TOKENS)


def test_rows_that_a_dtype_makes_equal_are_refused(tmp_path):
    source = save(tmp_path / "m", "qwen3", change=near)
    with pytest.raises(SidmillError, match=r"equal another in bfloat16.*dtype: float32"):
        expand(source, tmp_path / "out", init="mean", dtype="bfloat16")
    assert not (tmp_path / "out").exists()
    expand(source, tmp_path / "out", init="mean", dtype="float32")  # the remedy


# What cannot be read is said in one sentence.


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ViTConfig(), "is of type vit, which writes no text"),
        (None, "no model to be read"),
        (BertConfig(num_hidden_layers=1), "no model to be read"),  # no weights beside it
    ],
)
def test_what_is_no_language_model_is_refused(tmp_path, config, message):
    (tmp_path / "m").mkdir()
    if config is not None:
        config.save_pretrained(tmp_path / "m")
        tokenizer_lower().save_pretrained(tmp_path / "m")
    with pytest.raises(SidmillError, match=message) as error:
        expand(tmp_path / "m", tmp_path / "out")
    assert len(str(error.value)) < 700
    assert not (tmp_path / "out").exists()


def test_codebooks_of_other_sids_are_refused(tmp_path):
    source = save(tmp_path / "m", "qwen3")
    for books in ([BOOKS[0], BOOKS[1][:2], BOOKS[2]], [*BOOKS, BOOKS[0]]):
        with pytest.raises(SidmillError, match="init: mean"):
            expand(source, tmp_path / "out", books=books)
        expand(source, tmp_path / "out", books=books, init="mean")  # the remedy
    expand(source, tmp_path / "more", books=BOOKS[:2])  # a suffix has no codebook
    with pytest.raises(SidmillError, match="name another folder"):
        expand(source, source)


# LoRA: what must train.


@pytest.mark.parametrize(("kind", "head"), MAKES)
def test_the_advice_names_every_matrix_with_a_row_per_token(tmp_path, kind, head):
    ids = expand(save(tmp_path / "m", kind, head=head), tmp_path / "out")
    model, settings = load(tmp_path / "out"), lora_settings.of_model(tmp_path / "out", ids)
    advice = settings.trainable_token_indices
    n_rows = model.get_input_embeddings().weight.shape[0]
    every = model.named_parameters(remove_duplicate=False)
    holding = {name: weight.data_ptr() for name, weight in every if n_rows in weight.shape}
    named = {where for name, where in holding.items() if name.split(".")[-2] in advice}
    assert "lm_head.weight" in holding
    assert set(holding.values()) == named
    assert len(advice) == 2
    assert all(numbers == sorted(ids.values()) for numbers in advice.values())
    assert settings.untie == ("lm_head.weight" if kind == "t5" and head == "own" else None)
    assert settings.modules_to_save == []

    # The same as lines of Python.
    space = {"LoraConfig": lambda *_, **given: given, "model": model}
    exec(lora_settings.text(tmp_path / "out", ids), space)
    assert space["config"] == {"trainable_token_indices": advice}
    assert ("lm_head.weight" in model._tied_weights_keys) == (settings.untie is None)
    assert "lm_head.weight" in type(model)._tied_weights_keys


# Beams and answers.


@pytest.mark.parametrize("n_sids", [1, 2, 3, 5, 9, 12])
@pytest.mark.parametrize("n_beams", [1, 2, 10])
def test_beams_are_distinct_sids_that_exist(tmp_path_factory, n_sids, n_beams, caplog):
    # One model for all cases.
    folder = tmp_path_factory.getbasetemp() / "beams"
    if not folder.exists():
        expand(save(folder.with_name("beams_source"), "qwen3"), folder)
    model, tokenizer = load(folder), AutoTokenizer.from_pretrained(folder)
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in TOKENS}

    # As many beams as there are SIDs, with a warning where that is fewer.
    tree, prompt = trie.build(CODES[:n_sids], ids), torch.tensor([[5, 6, 7], [8, 9, 10]])
    with caplog.at_level(logging.WARNING):
        settings = trie.beam_settings(tree, n_beams)
    assert tree.n_sids == n_sids
    assert (f"{n_beams} beams for {n_sids} answers" in caplog.text) == (n_beams > n_sids)

    # All answers of a user differ, and each is a SID.
    found = model.generate(
        prompt, attention_mask=torch.ones_like(prompt), pad_token_id=tokenizer.pad_token_id,
        eos_token_id=[tokenizer.eos_token_id, 3],
        logits_processor=[trie.SidLogits(tree, 3, tokenizer.eos_token_id)], **settings,
    )  # fmt: skip
    texts = tokenizer.batch_decode(found[:, 3:], skip_special_tokens=True)
    answers = [sid_text.parse(text.replace(" ", ""), 3)[0] for text in texts]
    each = min(n_beams, n_sids)
    assert len(answers) == 2 * each
    for user in (answers[:each], answers[each:]):
        assert len(set(user)) == each
        assert set(user) <= set(map(tuple, CODES[:n_sids].tolist()))


@pytest.mark.parametrize("n_sids", [1, 2])
def test_several_items_an_answer_have_as_many_beams_as_answers(n_sids):
    tree = trie.build(CODES[:n_sids], {token: n for n, token in enumerate(TOKENS)})
    assert trie.beam_settings(tree, 100, 3)["num_beams"] == n_sids**3
    with pytest.raises(SidmillError, match="at least 1"):
        trie.beam_settings(tree, 0)
