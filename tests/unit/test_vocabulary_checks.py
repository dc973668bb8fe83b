"""What ``sidmill vocab`` proves of its own work: each fault that was planted is found."""

import functools
import json
import logging

import pytest
import test_vocabulary_models as models
import tiny_qwen3
import torch
import transformers
from safetensors.torch import load_file, save_file
from test_vocabulary_models import CODES, SIZES, TOKENS
from tokenizers import AddedToken
from transformers import AutoConfig, AutoTokenizer

from sidmill.core.errors import SidmillError
from sidmill.datasets import lora_settings, stored_weights, tokenizer_checks, vocabulary
from sidmill.formats import sid_text
from sidmill.settings.datasets import Vocabulary

pytestmark = pytest.mark.model

TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
ASKS = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


def tokenizer(template=TURNS + ASKS, added=()):
    made = tiny_qwen3._tokenizer("left")
    made.chat_template = template
    made.add_tokens([AddedToken(text, normalized=False) for text in added])
    return made


def with_sids(made, **kind):
    """Add the SID tokens; give the state before and the ids."""
    before = tokenizer_checks.state(made, without=TOKENS)
    made.add_tokens([AddedToken(text, **{"normalized": False} | kind) for text in TOKENS])
    return before, dict(zip(TOKENS, made.convert_tokens_to_ids(TOKENS), strict=True))


def check(made, **kind):
    before, ids = with_sids(made, **kind)
    checked = tokenizer_checks.check(made, before, CODES, ids)
    tokenizer_checks.warn(checked)
    return checked


def test_the_record_says_what_was_checked(tmp_path):
    source = models.save(tmp_path / "m", "qwen3", head="tied", tokenizer=tokenizer())
    ids = models.expand(source, tmp_path / "out", init="mean")
    record = json.loads((tmp_path / "out/sid_vocabulary.json").read_text())
    assert record["tokens"] == len(TOKENS)
    assert record["tokens_already_there"] == 0
    assert (record["first_id"], record["last_id"]) == (min(ids.values()), max(ids.values()))
    assert record["sids_encoded_and_decoded"] == len(CODES)
    assert record["breaking_contexts"] == []
    assert record["chat"] == {"answer_ends_with_eos": True, "prompt_is_prefix": True}
    assert record["head_is_embeddings"]
    assert record["config_ties_them"]
    assert record["rows"] % 64 == 0
    assert 0.05 < record["spread"] < 0.2
    assert "\n".join(record["lora"]) == lora_settings.text(tmp_path / "out", ids)
    models.expand(tmp_path / "out", tmp_path / "again", init="mean")
    again = json.loads((tmp_path / "again/sid_vocabulary.json").read_text())
    assert again["tokens_already_there"] == len(TOKENS)


@pytest.mark.parametrize(("kind", "head"), models.MAKES)
def test_the_record_says_which_matrices_are_loaded(tmp_path, kind, head):
    models.expand(models.save(tmp_path / "m", kind, head=head), tmp_path / "out")
    record = json.loads((tmp_path / "out/sid_vocabulary.json").read_text())
    model = models.load(tmp_path / "out")
    embeddings, output = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    assert record["head_is_embeddings"] == (embeddings is output) == (head == "tied")
    assert record["rows"] == len(embeddings) == len(output)


# SIDs in a text.


@pytest.mark.parametrize("other", ["a<", ": <|sid", "\n<", "<|sid_end|>,", "<|sid_end|>\n"])
def test_an_added_token_that_takes_a_part_of_a_sid_is_refused(other):
    with pytest.raises(SidmillError, match="takes a part of them, take the model without it"):
        check(tokenizer(added=[other]))


@pytest.mark.parametrize("other", ["é<|", "<|sid_end|>é"])
def test_an_added_token_that_takes_a_part_in_rare_texts_is_named(other, caplog):
    assert check(tokenizer(added=[other]))["breaking_contexts"] == [other]
    assert other in caplog.text
    assert check(tokenizer(added=["<é", "é>", "<|sid", "sid_end|>é"]))["breaking_contexts"] == []


def test_two_sids_side_by_side_stay_two():
    made = tokenizer()
    _, ids = with_sids(made)
    texts = sid_text.render(CODES).to_pylist()
    tokens = made("".join(texts), add_special_tokens=False).input_ids
    assert tokens == [token for text in texts for token in made(text).input_ids if token > 1]
    assert set(tokens) <= set(ids.values())


# Everything else stays.


def test_sid_tokens_that_lowercase_would_share_an_id_with_others():
    """Tokens that are added with ``normalized`` are their lower case; either id may be given."""
    for normalized in (True, False):
        made = models.tokenizer_lower()
        made.add_tokens([AddedToken("<S_A_1>", normalized=True)])
        if normalized:
            with pytest.raises(SidmillError, match=r"<s_a_1> becomes|<S_A_1>: added tokens"):
                check(made, normalized=True)
        else:
            check(made)


def test_an_added_token_that_a_sid_token_cuts_is_refused():
    made = tokenizer()
    made.add_tokens([AddedToken("item <s_a_1>", normalized=True)])
    with pytest.raises(SidmillError, match="item <s_a_1>: added tokens that hold a SID token"):
        check(made)


def test_a_special_token_that_was_replaced_is_refused():
    made = tokenizer()
    before, ids = with_sids(made)
    made.add_special_tokens({"eos_token": "<|endoftext|>"})
    with pytest.raises(SidmillError, match="special tokens changed"):
        tokenizer_checks.check(made, before, CODES, ids)


def test_a_token_that_no_sid_uses_is_checked_too():
    made = tokenizer()
    before, ids = with_sids(made)
    (sid,) = sid_text.render(CODES[:1]).to_pylist()
    unused = next(name for name in TOKENS if name not in sid)
    with pytest.raises(SidmillError, match=f"{unused} becomes the tokens"):
        tokenizer_checks.check(made, before, CODES[:1], {**ids, unused: 5})


# Chat templates.


@pytest.mark.parametrize("change", ["upper", "replace('><', '> <')", "truncate(12, True)"])
def test_a_template_that_splits_sids_is_refused(change):
    template = TURNS.replace("m.content", f"m.content | {change}")
    with pytest.raises(SidmillError, match=r"does not leave .* whole"):
        check(tokenizer(template + ASKS))


def test_what_a_template_lacks_is_said(caplog):
    with caplog.at_level(logging.WARNING):
        endless = TURNS.replace("<|im_end|>", "")
        assert check(tokenizer(endless + ASKS))["chat"]["answer_ends_with_eos"] is False
        assert "does not learn to stop" in caplog.text
        other = check(tokenizer(TURNS + ASKS.replace("assistant", "model")))["chat"]
        assert other == {"answer_ends_with_eos": True, "prompt_is_prefix": False}
        assert check(tokenizer(None))["chat"] is None
        refusing = "{{ raise_exception('one turn') if messages | length > 1 }}"
        assert check(tokenizer(refusing))["chat"] == {"template_error": "one turn"}
        assert "one turn" in caplog.text


# Files.


def test_nothing_of_an_earlier_model_stays_beside_another(tmp_path, monkeypatch):
    """An earlier model.safetensors would be read in place of the parts of a larger model."""
    folder = tmp_path / "out"
    models.expand(models.save(tmp_path / "a", "qwen3", tokenizer=tokenizer()), folder)
    (folder / "notes.txt").write_text("mine")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates/other.jinja").write_text("{{ messages }}")

    # Another model without a chat template, in several files.
    def change(weights, name):
        weights[name].mul_(2)

    source = models.save(tmp_path / "b", "qwen3", tokenizer=tokenizer(None), change=change)
    whole = transformers.PreTrainedModel.save_pretrained
    in_parts = functools.partialmethod(whole, max_shard_size="20KB")
    monkeypatch.setattr(transformers.PreTrainedModel, "save_pretrained", in_parts)
    models.expand(source, folder)

    # The weights, and the template, are those of the second model.
    models.expand(source, tmp_path / "fresh")
    names = [{path.name for path in each.iterdir()} for each in (folder, tmp_path / "fresh")]
    assert names[0] == names[1] | {"notes.txt"}
    loaded, fresh = (
        transformers.AutoModelForCausalLM.from_pretrained(each).state_dict()
        for each in (folder, tmp_path / "fresh")
    )
    assert [n for n, w in fresh.items() if not torch.equal(loaded[n], w)] == []


def test_one_seed_gives_the_same_files_whatever_torch_drew_before(tmp_path):
    source, found = models.save(tmp_path / "m", "qwen3"), []
    for draws in (0, 1):
        torch.rand(draws)
        models.expand(source, tmp_path / f"out{draws}")
        found.append((tmp_path / f"out{draws}/model.safetensors").read_bytes())
    assert found[0] == found[1]


def test_the_folder_may_be_the_working_one_or_a_link(tmp_path, monkeypatch):
    source = models.save(tmp_path / "m", "qwen3")
    (tmp_path / "work").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "work")
    models.expand(source, tmp_path / "link")
    (tmp_path / "work/config.json").unlink()
    monkeypatch.chdir(tmp_path / "work")
    models.expand(source, ".")
    assert (tmp_path / "work/config.json").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"m", "work", "link"}


def rewrite(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("head", ["own", "tied"])
def test_weights_that_are_not_as_in_memory_are_found(tmp_path, head):
    models.expand(models.save(tmp_path / "m", "qwen3", head=head), tmp_path / "out")
    model = models.load(tmp_path / "out")
    name = "lm_head.weight" if head == "own" else "model.embed_tokens.weight"
    assert stored_weights.check(tmp_path / "out", model)["head_is_embeddings"] == (head == "tied")

    # A changed value, and a matrix that is not there.
    whole = (tmp_path / "out/model.safetensors").read_bytes()
    for change in (lambda w: w[name].add_(1e-3), lambda w: w.pop(name)):
        rewrite(tmp_path / "out", change)
        with pytest.raises(SidmillError, match=rf"{name}.*was not saved as it is in memory"):
            stored_weights.check(tmp_path / "out", model)
        (tmp_path / "out/model.safetensors").write_bytes(whole)


def test_one_matrix_that_would_be_loaded_as_two_is_refused(tmp_path):
    models.expand(models.save(tmp_path / "m", "qwen3", head="tied"), tmp_path / "out")
    model = models.load(tmp_path / "out")
    config = AutoConfig.from_pretrained(tmp_path / "out")
    config.tie_word_embeddings = False
    config.save_pretrained(tmp_path / "out")
    with pytest.raises(SidmillError, match="set tie_word_embeddings: true"):
        stored_weights.check(tmp_path / "out", model)


def test_files_in_shards_are_read_too(tmp_path):
    models.expand(models.save(tmp_path / "m", "qwen3", head="own"), tmp_path / "out")
    model = models.load(tmp_path / "out")
    one = stored_weights.check(tmp_path / "out", model)
    model.save_pretrained(tmp_path / "shards", max_shard_size="100KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    assert stored_weights.check(tmp_path / "shards", model) == one


def test_a_check_that_fails_after_saving_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise SidmillError("planted")

    source = models.save(tmp_path / "m", "qwen3")
    monkeypatch.setattr(stored_weights, "check", fail)
    with pytest.raises(SidmillError, match="planted"):
        models.expand(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_files_of_a_folder_that_is_not_empty_stay(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").write_text("mine")
    models.expand(models.save(tmp_path / "m", "qwen3"), tmp_path / "out")
    assert (tmp_path / "out/notes.txt").read_text() == "mine"
    models.load(tmp_path / "out")


# Tokens that were added by others and never trained.


@pytest.mark.parametrize("how", ["resized", "sidmill"])
def test_rows_that_were_never_trained_are_named(tmp_path, caplog, how):
    source = models.save(tmp_path / "m", "qwen3", tokenizer=tokenizer())
    if how == "sidmill":
        models.expand(source, tmp_path / "resized", init="mean")
    else:
        model, made = models.load(source), AutoTokenizer.from_pretrained(source)
        made.add_tokens([AddedToken(text, normalized=False) for text in TOKENS])
        torch.manual_seed(0)
        model.resize_token_embeddings(len(made))  # draws new rows as transformers does by default
        model.save_pretrained(tmp_path / "resized")
        made.save_pretrained(tmp_path / "resized")
    caplog.clear()
    settings = Vocabulary(model=str(tmp_path / "resized"), init="mean", pad_to=64)
    vocabulary.expand(tmp_path / "out", CODES, SIZES, [], settings, 1)
    assert ("nearly equal" in caplog.text) == (how == "resized")
