"""docs/recipes/language-models.md: its code trains, and the obvious ways still are wrong.

Skipped without PEFT and TRL: ``make recipes`` installs them.
"""

import json
import math
import re
import shutil
import warnings

import pytest
import test_datasets_rl as rl
import test_vocabulary_models as models
import tiny_qwen3
import torch
from conftest import ROOT
from dataset_run import SIDS, TEXTS, write_items
from test_vocabulary_checks import ASKS, TURNS
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForLanguageModeling

from sidmill.datasets import lora_settings, vocabulary
from sidmill.formats import sid_text
from sidmill.settings.datasets import Vocabulary

peft = pytest.importorskip("peft", reason="make recipes installs it")
trl = pytest.importorskip("trl", reason="make recipes installs it")
datasets = pytest.importorskip("datasets")

pytestmark = [
    pytest.mark.model,
    pytest.mark.filterwarnings("ignore"),  # of libraries, on what they will remove
]
SIZES = (SIDS.max(axis=0) + 1).tolist()
BEGIN, END = sid_text.BEGIN, sid_text.END
PAGE = ROOT / "docs/recipes/language-models.md"
STEPS = {
    "max_steps": 12, "learning_rate": 1e-2, "per_device_train_batch_size": 4, "logging_steps": 1,
    "save_strategy": "no", "report_to": [], "use_cpu": True, "bf16": False, "disable_tqdm": True,
}  # fmt: skip


def expanded(folder, kind, head):
    """A tiny model with the SID tokens of the items, and their ids."""
    if not (folder / "model").exists():
        made = None
        if kind == "qwen3":
            made = tiny_qwen3._tokenizer("left")
            made.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
            made.chat_template = TURNS + ASKS
        source = models.save(folder / "source", kind, head=head, tokenizer=made)
        settings = Vocabulary(model=str(source), init="random", pad_to=64)
        vocabulary.expand(folder / "model", SIDS, SIZES, [], settings, 1)
    facts = json.loads((folder / "model/sid_vocabulary.json").read_text())
    return folder / "model", list(range(facts["first_id"], facts["last_id"] + 1))


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A folder of a run, with the files that the page reads in ``results/``."""
    root = tmp_path_factory.mktemp("run")
    results = root / "results"
    expanded(results / "vocabulary", "qwen3", "tied")
    write_items(results / "pid2sid.parquet")
    folder, _ = rl.make(results / "datasets", "sft_video_rec", form="chat")
    rl.mixed(results / "datasets", "rl", [folder], None, True)
    made = results / "datasets/sft_video_rec"
    for path in (made / "sft_video_rec").iterdir():
        path.replace(made / path.name)
    for path in [*made.iterdir()]:
        if not path.name.startswith("part-"):
            path.rmdir() if path.is_dir() else path.unlink()
    return root


def blocks():
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)


TRAINING, TINY = blocks()[:-1], blocks()[-1]


@pytest.fixture(scope="module")
def space(run_folder):
    """The names of the page after its code was run once, with few steps."""

    class Few:
        """A configuration with the settings of the page, and those of a test."""

        def __init__(self, kind):
            self.kind = kind

        def __call__(self, **given):
            ours = {name: value for name, value in STEPS.items() if name != "use_cpu"}
            assert not given.keys() & ours.keys()
            return self.kind(**given, **ours)

    names, patch = {}, pytest.MonkeyPatch()
    patch.chdir(run_folder)
    patch.setattr(trl, "SFTConfig", Few(trl.SFTConfig))
    patch.setattr(trl, "DPOConfig", Few(trl.DPOConfig))
    try:
        for block in TRAINING:
            torch.manual_seed(0)
            exec(block, names)
    finally:
        patch.undo()
    return names


def losses(trainer):
    return [float(step["loss"]) for step in trainer.state.log_history if "loss" in step]


def whole_sids(tokenizer, ids):
    """Whether each SID token of a list of ids is part of a whole SID."""
    names = tokenizer.convert_ids_to_tokens(list(ids))
    ours = [name if name in set(sid_text.vocabulary(SIZES)) else " " for name in names]
    pattern = r"<\|sid_begin\|>(<s_[a-z]_\d+>){3}<\|sid_end\|>"
    return not re.sub(pattern, "", "".join(ours)).strip()


# The code of the page.


def test_supervised_training_lowers_the_loss_of_whole_answers(space):
    trainer, tokenizer = space["sft"], space["tokenizer"]
    assert losses(trainer)[-1] < 0.9 * losses(trainer)[0]

    # Labels are the answer and the end of its turn.
    assert len(trainer.train_dataset) == len(space["rows"])
    for row, given in zip(trainer.train_dataset, space["rows"], strict=True):
        assert whole_sids(tokenizer, row["input_ids"])
        labels = [token for token in row["labels"] if token >= 0]
        answer = tokenizer.decode(labels).replace(" ", "")
        assert answer == given["completion"][0]["content"] + "<|im_end|>\n"


def test_the_merged_model_is_the_trained_one_and_still_tied(space, run_folder):
    made = json.loads((run_folder / "results/sft/config.json").read_text())
    loaded = AutoModelForCausalLM.from_pretrained(run_folder / "results/sft").eval()
    first = AutoModelForCausalLM.from_pretrained(run_folder / "results/vocabulary/model")
    assert made["tie_word_embeddings"]
    assert loaded.get_input_embeddings().weight is loaded.get_output_embeddings().weight
    moved = (loaded.get_input_embeddings().weight != first.get_input_embeddings().weight).any(1)
    assert moved[space["sid_ids"]].all()
    assert int(moved.sum()) == len(space["sid_ids"])


def test_preference_training_starts_at_the_trained_model(space):
    trainer, tokenizer = space["dpo"], space["tokenizer"]
    assert losses(trainer)[0] == pytest.approx(math.log(2), abs=1e-4)
    assert sum(losses(trainer)[-3:]) / 3 < math.log(2) - 0.03
    for row in trainer.train_dataset:
        for name in ("prompt_ids", "chosen_ids", "rejected_ids"):
            assert whole_sids(tokenizer, row[name])
        for name in ("chosen_ids", "rejected_ids"):
            assert tokenizer.convert_ids_to_tokens(row[name][:1]) == [BEGIN]
        assert row["chosen_ids"] != row["rejected_ids"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="TRL's default works on a GPU")
@pytest.mark.parametrize("kind", ["SFT", "DPO"])
def test_without_a_gpu_trl_stops_unless_told_to_use_the_cpu(tmp_path, kind):
    config = getattr(trl, f"{kind}Config")
    with pytest.raises(ValueError, match="use_cpu"):
        config(output_dir=str(tmp_path), max_length=None)
    assert f'{kind}Config(output_dir="out", max_length=None, use_cpu=' in PAGE.read_text()
    config(output_dir=str(tmp_path), max_length=None, use_cpu=True)


def test_the_tiny_model_takes_the_sids_and_chat_rows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(TINY, {})
    settings = Vocabulary(model="tiny", init="random")
    ids = vocabulary.expand(tmp_path / "model", SIDS, SIZES, [], settings, 1)
    tokenizer = AutoTokenizer.from_pretrained("model")
    sid = BEGIN + "".join(sid_text.token(level, code) for level, code in enumerate(SIDS[0])) + END
    asked = [{"role": "user", "content": f"After {sid}?"}]
    row = tokenizer.apply_chat_template(asked, add_generation_prompt=True)["input_ids"]
    assert (
        tokenizer.decode(row)
        == f"<|im_start|>user\nAfter {sid}?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert sum(token in ids.values() for token in row) == SIDS.shape[1] + 2
    model = AutoModelForCausalLM.from_pretrained("model").eval()
    assert torch.isfinite(logits(model, row)).all()


# LoRA: what trains, what is saved, what comes back.


def untie(model, settings):
    """As the printed lines do."""
    tied = model._tied_weights_keys.items()
    model._tied_weights_keys = {name: to for name, to in tied if name != settings.untie}


def adapter(folder, settings):
    """A model with an adapter of the given settings."""
    base = models.load(folder).eval()
    torch.manual_seed(0)
    untie(base, settings)
    given = {
        "trainable_token_indices": settings.trainable_token_indices or None,
        "modules_to_save": settings.modules_to_save or None,
    }
    return peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules="all-linear", **given))


def logits(model, ids):
    given = torch.tensor(ids)[None]
    labels = {"labels": given} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model.eval()(input_ids=given, **labels).logits


def train(model, ids):
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-2, weight_decay=0)
    given = torch.tensor([*ids, ids[0]])[None]  # each is read, and each is written
    for _ in range(4):
        model(input_ids=given, labels=given).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def moved(before, after, part):
    old, new = (getattr(model, part)().weight for model in (before, after))
    return set(torch.nonzero((old != new).any(dim=1)).flatten().tolist())


PARTS = ("get_input_embeddings", "get_output_embeddings")


@pytest.mark.parametrize(("kind", "head"), models.MAKES)
def test_with_the_printed_settings_the_rows_of_sids_train_and_come_back(tmp_path, kind, head):
    folder, ids = expanded(tmp_path, kind, head)
    settings = lora_settings.of_model(folder, dict(zip(map(str, ids), ids, strict=True)))
    before, model = models.load(folder), adapter(folder, settings)
    assert torch.allclose(logits(model, ids), logits(before, ids), atol=1e-4)
    train(model, ids)
    wanted = logits(model, ids)
    assert not torch.allclose(wanted, logits(before, ids), atol=1e-2)

    # The adapter, loaded to the model it was made of.
    model.save_pretrained(tmp_path / "adapter")
    base = models.load(folder)
    untie(base, settings)
    again = peft.PeftModel.from_pretrained(base, tmp_path / "adapter")
    assert torch.allclose(logits(again, ids), wanted, atol=1e-4)

    # Merged, saved and loaded: the same logits, the same tie, no other row.
    model.merge_and_unload().save_pretrained(tmp_path / "merged")
    loaded = models.load(tmp_path / "merged")
    assert torch.allclose(logits(loaded, ids), wanted, atol=1e-4)
    for part in PARTS:
        assert moved(before, loaded, part) == set(ids)
    rows = [getattr(loaded, part)().weight[ids] for part in PARTS]
    assert torch.equal(*rows) == (head == "tied")


def test_the_obvious_way_still_is_wrong_one_name_leaves_the_head_of_two_matrices(tmp_path):
    folder, ids = expanded(tmp_path, "qwen3", "own")
    before = models.load(folder)
    settings = lora_settings.LoraSettings({"embed_tokens": ids}, [], None)
    model = adapter(folder, settings)
    train(model, ids)
    assert moved(before, model.merge_and_unload(), "get_output_embeddings") == set()


def test_the_obvious_way_still_is_wrong_lora_alone_leaves_the_rows(tmp_path):
    folder, ids = expanded(tmp_path, "qwen3", "tied")
    before = models.load(folder)
    model = adapter(folder, lora_settings.LoraSettings({}, [], None))
    train(model, ids)
    assert moved(before, model.merge_and_unload(), "get_input_embeddings") == set()


def test_the_obvious_way_still_is_wrong_whole_matrices_untie_a_tied_model(tmp_path):
    folder, ids = expanded(tmp_path, "qwen3", "tied")
    settings = lora_settings.LoraSettings({}, ["embed_tokens", "lm_head"], None)
    model = adapter(folder, settings)
    train(model, ids)
    model.merge_and_unload().save_pretrained(tmp_path / "merged")
    loaded = models.load(tmp_path / "merged")
    assert not loaded.config.tie_word_embeddings
    assert not torch.equal(*(getattr(loaded, part)().weight for part in PARTS))


def test_the_obvious_way_still_is_wrong_t5_loses_the_rows_of_its_own_head(tmp_path):
    folder, ids = expanded(tmp_path, "t5", "own")
    settings = lora_settings.of_model(folder, dict(zip(map(str, ids), ids, strict=True)))
    model = adapter(folder, settings._replace(untie=None))
    difference = logits(model, ids) - logits(models.load(folder), ids)
    others = [row for row in range(difference.shape[-1]) if row not in ids]
    assert difference[..., ids].abs().max() > 0.1  # before any training
    assert difference[..., others].abs().max() < 1e-4


def phi(folder):
    """A head with a bias: a tiny Phi with SID tokens."""
    from transformers import PhiConfig, PhiForCausalLM

    made = tiny_qwen3._tokenizer("left")
    torch.manual_seed(0)
    config = PhiConfig(
        vocab_size=len(made), hidden_size=32, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2,
    )  # fmt: skip
    network = PhiForCausalLM(config)
    torch.nn.init.normal_(network.lm_head.bias)
    network.save_pretrained(folder / "source")
    made.save_pretrained(folder / "source")
    settings = Vocabulary(model=str(folder / "source"), init="random")
    ids = vocabulary.expand(folder / "model", SIDS, SIZES, [], settings, 1)
    return folder / "model", ids


def test_a_head_with_a_bias_trains_as_a_whole(tmp_path):
    folder, ids = phi(tmp_path)
    settings, numbers = lora_settings.of_model(folder, ids), sorted(ids.values())
    assert settings == ({}, ["embed_tokens", "lm_head"], None)
    before, model = models.load(folder), adapter(folder, settings)
    assert torch.allclose(logits(model, numbers), logits(before, numbers), atol=1e-5)
    train(model, numbers)
    wanted = logits(model, numbers)
    model.merge_and_unload().save_pretrained(tmp_path / "merged")
    assert torch.allclose(logits(models.load(tmp_path / "merged"), numbers), wanted, atol=1e-5)


def test_the_obvious_way_still_is_wrong_rows_of_a_head_lose_its_bias(tmp_path):
    folder, ids = phi(tmp_path)
    numbers = sorted(ids.values())
    model = adapter(folder, lora_settings.LoraSettings({"lm_head": numbers}, [], None))
    before = models.load(folder)
    assert torch.allclose(
        logits(model, numbers) + before.lm_head.bias, logits(before, numbers), atol=1e-5
    )
    assert before.lm_head.bias.abs().max() > 1


# TRL.


def rows_of(run_folder, name):
    path = str(run_folder / "results/datasets" / name)
    cache = str(run_folder / "cache")
    return datasets.load_dataset("parquet", data_dir=path, cache_dir=cache)["train"]


def trainer(run_folder, kind, rows, model=None, **changes):
    folder = run_folder / "results/vocabulary/model"
    settings = {"output_dir": str(run_folder / "out"), **STEPS, "max_length": None}
    peft_config = changes.pop("peft_config", None)
    config = getattr(trl, f"{kind}Config")(**settings | changes)
    return getattr(trl, f"{kind}Trainer")(
        model or models.load(folder), args=config, train_dataset=rows, peft_config=peft_config,
        processing_class=AutoTokenizer.from_pretrained(folder),
    )  # fmt: skip


def test_the_obvious_way_still_is_wrong_messages_train_on_the_question_too(run_folder, space):
    made = trainer(run_folder, "SFT", rows_of(run_folder, "sft_video_rec"))
    row = made.train_dataset[0]
    labels = row.get("labels", row["input_ids"])
    assert list(labels) == list(row["input_ids"])


def test_the_obvious_way_still_is_wrong_rows_of_text_teach_a_bracket(
    run_folder, tmp_path, monkeypatch
):
    """And the page refuses them."""
    monkeypatch.chdir(tmp_path)
    folder, _ = rl.make(tmp_path / "made", "sft_video_rec", form="onerec")
    shutil.copytree(folder, "results/datasets/sft_video_rec")
    code = TRAINING[0].partition("# LoRA")[0]
    with pytest.raises(TypeError, match=r"datasets\.form: chat"):
        exec(code, {})
    start, check, end = re.search(
        r"(.*?)(^if isinstance.*?)(^rows = .*)", code, re.S | re.M
    ).groups()
    assert "raise TypeError" in check
    names = {}
    exec(start + end, names)
    made = trainer(run_folder, "SFT", names["rows"])
    for row in made.train_dataset:
        answer = [token for token in row["labels"] if token >= 0]
        text = made.processing_class.decode(answer, skip_special_tokens=True)
        assert text.strip() == "]"


def test_the_obvious_way_still_is_wrong_rows_of_rl_have_no_completion(run_folder, space):
    with pytest.raises(KeyError, match="completion"):
        trainer(run_folder, "SFT", rows_of(run_folder, "rl/train"))


def test_the_obvious_way_still_is_wrong_trl_wraps_the_model_itself(run_folder, space):
    ids = space["sid_ids"]
    config = peft.LoraConfig(target_modules="all-linear", trainable_token_indices=ids)
    made = trainer(run_folder, "SFT", space["rows"], peft_config=config)
    with pytest.raises(AttributeError, match="no attribute 'bias'"):
        made.train()


def test_the_obvious_way_still_is_wrong_a_length_drops_rows_and_cuts_sids(run_folder, space):
    tokenizer, rows = space["tokenizer"], space["rows"]
    whole = trainer(run_folder, "SFT", rows).train_dataset["input_ids"]
    limit = sorted(map(len, whole))[len(whole) // 2] - 4  # within the last SID of a middle row
    made = trainer(run_folder, "SFT", rows, max_length=limit).train_dataset
    assert any(not whole_sids(tokenizer, ids) for ids in made["input_ids"])
    short = trainer(run_folder, "SFT", rows, max_length=limit - 40).train_dataset
    assert len(short) < len(rows)


def test_packing_keeps_rows_apart_and_the_obvious_way_cuts_sids(run_folder, space):
    tokenizer, rows = space["tokenizer"], space["rows"]
    longest = max(map(len, trainer(run_folder, "SFT", rows).train_dataset["input_ids"]))
    options = {"packing": True, "max_length": 2 * longest}
    packed = trainer(run_folder, "SFT", rows, **options)
    assert len(packed.train_dataset) < len(rows)
    assert all(whole_sids(tokenizer, ids) for ids in packed.train_dataset["input_ids"])

    # In a pack, a row has the logits that it has alone; with the cache that is on by default not.
    batch = dict(next(iter(packed.get_train_dataloader())))
    batch.pop("labels")
    starts = torch.nonzero(batch["position_ids"][0] == 0).flatten().tolist()
    second = slice(starts[1], starts[2])
    model = models.load(run_folder / "results/vocabulary/model").eval()
    for use_cache in (False, True):
        with torch.no_grad():
            alone = model(input_ids=batch["input_ids"][:, second]).logits
            together = model(**batch, use_cache=use_cache).logits[:, second]
        assert torch.allclose(alone, together, atol=1e-3) == (not use_cache)

    wrapped = trainer(run_folder, "SFT", rows, packing_strategy="wrapped", **options)
    assert any(not whole_sids(tokenizer, ids) for ids in wrapped.train_dataset["input_ids"])


def test_the_obvious_way_still_is_wrong_the_adapter_of_sft_is_no_reference(run_folder, space):
    """With the head out of the way of TRL, as in a model of two matrices."""
    folder, ids = expanded(run_folder / "own", "qwen3", "own")
    config = peft.LoraConfig(r=4, trainable_token_indices={"embed_tokens": ids})
    torch.manual_seed(0)
    model = peft.get_peft_model(models.load(folder), config)
    first = trainer(run_folder, "SFT", space["rows"], model)
    first.train()
    second = trainer(run_folder, "DPO", space["pairs"], first.model)
    second.train()
    assert abs(losses(second)[0] - math.log(2)) > 0.01


def test_the_obvious_way_still_is_wrong_pairs_without_a_prompt_are_cut_in_a_token():
    chosen, rejected = "next: <s_a_1><s_b_2><s_c_30>", "next: <s_a_1><s_b_2><s_c_31>"
    found = trl.extract_prompt({"chosen": chosen, "rejected": rejected})
    assert found == {"prompt": "next: <s_a_1><s_b_2><s_c_3", "chosen": "0>", "rejected": "1>"}


# transformers and datasets.


def test_the_obvious_way_still_is_wrong_resizing_makes_all_new_rows_one(run_folder):
    folder = run_folder / "results/vocabulary/source"
    model, tokenizer = models.load(folder), AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(sid_text.vocabulary(SIZES))
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.resize_token_embeddings(len(tokenizer))
    rows = model.get_input_embeddings().weight.detach()
    n_old = len(AutoTokenizer.from_pretrained(folder))
    assert rows[n_old:].std(dim=0).mean() < 0.01 * rows[:n_old].std(dim=0).mean()


def test_the_obvious_way_still_is_wrong_a_pad_token_that_is_the_end_token_hides_it(run_folder):
    tokenizer = AutoTokenizer.from_pretrained(run_folder / "results/vocabulary/model")
    end = tokenizer.eos_token_id
    rows = [{"input_ids": [5, 6, end]}, {"input_ids": [5, 6, 7, 8, end]}]
    assert tokenizer.pad_token_id != end  # sidmill vocab leaves the tokens as they are
    for pad, is_learned in ((tokenizer.pad_token, True), (tokenizer.eos_token, False)):
        tokenizer.pad_token = pad
        labels = DataCollatorForLanguageModeling(tokenizer, mlm=False)(rows)["labels"]
        assert (labels[1, -1].item() == end) == is_learned


def test_the_obvious_way_still_is_wrong_numpy_format_widens_codes(run_folder):
    path = str(run_folder / "results/pid2sid.parquet")
    made = datasets.load_dataset("parquet", data_files=path, cache_dir=str(run_folder / "cache"))
    made = made["train"]
    assert str(made.with_format("numpy")[0]["sid"].dtype) == "int64"
    assert made.with_format("arrow")[:]["sid"].type.value_type == "int32"
    assert len(made) == len(TEXTS)
