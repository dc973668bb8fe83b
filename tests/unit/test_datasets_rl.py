"""Reinforcement learning: rows as its trainers read them, and tests that no model has seen."""

import importlib.util
import json

import numpy as np
import pyarrow as pa
import pytest
from dataset_run import N_ITEMS, RESOURCES, SIDS, TEXTS, facts, run, write_items

from sidmill.core.errors import SidmillError
from sidmill.datasets import mix, tasks
from sidmill.formats import dataset_rows, sid_text
from sidmill.settings.datasets import Mixture

N_USERS = 24
TEXT_TABLE = pa.table(
    {"pid": range(N_ITEMS), "text": [f"item {n}\nof use" for n in range(N_ITEMS)]}
)
CHAT = ("sft_video_rec", "sft_titles_to_sid", "sft_title_to_sid", "sft_sid_to_title",
        "sft_label_pred")  # fmt: skip
PLACES = ("train", "test", "dropped_of_held_out_users", "dropped_for_the_other_test")


def users(n_users=N_USERS):
    random = np.random.default_rng(3)
    columns = {"uid": list(range(n_users))}
    columns["hist_video_pid"] = [[u % 20, u % 20 + 1] for u in range(n_users)]
    columns["target_video_pid"] = [random.permutation(N_ITEMS)[:3].tolist() for _ in range(n_users)]
    for name in ("longview", "like", "follow", "forward", "not_interested"):
        columns[f"hist_video_{name}"] = [[1, 1]] * n_users
    columns["target_video_longview"] = [[1, 0, 1]] * n_users
    return pa.table(columns)


def make(tmp_path, task, form="chat", **others):
    table = users() if tasks.load(RESOURCES / f"tasks/{task}.yaml").reads == "users" else TEXT_TABLE
    (tmp_path / "texts").mkdir(parents=True, exist_ok=True)
    pa.parquet.write_table(TEXT_TABLE, tmp_path / "texts/t.parquet")
    texts = [str(tmp_path / "texts/t.parquet")]
    made, _ = run(tmp_path / task, task, table, form=form, texts=texts, **others)
    return str(tmp_path / task / task), made


def mixed(tmp_path, name, folders, others=None, questions=False, test_size=None, weights=None):
    names = sorted(folder.rpartition("/")[2] for folder in folders)
    weights = weights or dict.fromkeys(names, 1.0)
    settings = Mixture(weights=weights, test_size=test_size or {}, rows_per_file=10)
    train, test = tmp_path / f"{name}/train", tmp_path / f"{name}/test"
    figures = mix.mix(sorted(folders), train, test, settings, 3, others, questions)
    return figures, train, test


def rows(folder):
    if not any(folder.iterdir()):
        return []
    return pa.concat_tables(dataset_rows.read(folder)).to_pylist()


def test_a_test_size_above_the_rows_is_refused_by_the_name_of_its_setting(tmp_path):
    folder, made = make(tmp_path, "sft_video_rec")
    with pytest.raises(SidmillError, match=rf"^rl\.test_size: found 1000 .* has {len(made)}: set"):
        mixed(tmp_path, "rl", [folder], None, True, {"sft_video_rec": 1000})


@pytest.mark.parametrize("task", CHAT)
def test_rl_rows_ask_without_the_answer_and_name_it_apart(tmp_path, task):
    folder, made = make(tmp_path, task)
    _, train, test = mixed(tmp_path, "rl", [folder], None, True, {task: 5})

    # No row is lost, and each part numbers its own.
    assert len(rows(test)) >= 5
    assert len(rows(train)) + len(rows(test)) == len(made)
    for part in (train, test):
        found = rows(part)
        assert [row["extra_info"]["index"] for row in found] == list(range(len(found)))

        for row in found:
            # The question, and the columns that trainers read.
            assert row["prompt"] == row["messages"][:-1]
            assert row["prompt"][-1]["role"] == "user"
            assert {type(turn["content"]) for turn in row["prompt"]} == {str}
            assert row["extra_info"]["split"] == part.name
            assert row["data_source"] == row["source"]
            assert row["reward_model"] == {"style": "rule", "ground_truth": row["ground_truth"]}

            # The answer: its SIDs and items, or its text.
            said = row["messages"][-1]["content"]
            sids = sid_text.render(np.array(sid_text.find(said, 3).sids or [[0, 0, 0]])).to_pylist()
            if sid_text.find(said, 3).sids:
                assert row["ground_truth"] == sids
                assert [TEXTS[pid] for pid in row["ground_truth_pids"]] == sids
            else:
                assert row["ground_truth"] == [said]
                assert row["ground_truth_pids"] == []


def test_the_items_of_an_answer_are_those_of_the_input_where_items_share_a_sid(tmp_path):
    items = write_items(tmp_path / "i.parquet", [f"p{n}" for n in range(N_ITEMS)], SIDS // 3)
    targets = [[f"p{n}" for n in pids] for pids in users()["target_video_pid"].to_pylist()]
    history = [[f"p{n}" for n in pids] for pids in users()["hist_video_pid"].to_pylist()]
    table = pa.table(
        {"uid": range(N_USERS), "hist_video_pid": history, "target_video_pid": targets}
    )
    made, _ = run(tmp_path / "a", "sft_video_rec", table, items=items, form="chat")
    assert {facts(row)["uid"]: row["ground_truth_pids"] for row in made} == dict(enumerate(targets))


def test_answers_of_the_second_domain_name_its_items(tmp_path):
    products = write_items(
        tmp_path / "p.parquet", [f"g{n}" for n in range(N_ITEMS)], SIDS[:, :2] * 2
    )
    table = pa.table({"uid": [1], "hist_longview_video_list": [[1]], "hist_goods_pid": [["g3"]],
                      "target_goods_pid": [["g5", "g4"]]})  # fmt: skip
    made, _ = run(tmp_path / "a", "sft_product_rec", table, products=products, form="chat")
    assert made[0]["ground_truth_pids"] == ["g5", "g4"]
    assert "".join(made[0]["ground_truth"]) == made[0]["messages"][-1]["content"]


def test_other_mixtures_keep_their_columns(tmp_path):
    folders = [make(tmp_path, task)[0] for task in CHAT]
    _, train, _ = mixed(tmp_path, "mixture", folders)
    names = {name for table in dataset_rows.read(train) for name in table.column_names}
    assert names == {"source", "uuid", "messages", "metadata"}
    folder, _ = make(tmp_path / "json", "sft_video_rec", form="onerec")
    _, train, _ = mixed(tmp_path, "rl", [folder], None, True)
    assert set(rows(train)[0]) == {"source", "uuid", "messages", "metadata"}


def test_datasets_of_two_forms_are_not_mixed(tmp_path):
    chat, _ = make(tmp_path, "sft_video_rec")
    others = [make(tmp_path / "x", "sft_title_to_sid", form="onerec")[0],
              make(tmp_path / "y", "pretrain_video_rec")[0]]  # fmt: skip
    for other in others:
        with pytest.raises(SidmillError, match="cannot be mixed"):
            mixed(tmp_path, "mixture", [chat, other])
    with pytest.raises(SidmillError, match=r"form messages in rl\.weights"):
        mixed(tmp_path, "rl", [others[1]], None, True)


def loaded_rows(tmp_path):
    import datasets

    folder, _ = make(tmp_path, "sft_video_rec")
    _, train, _ = mixed(tmp_path, "rl", [folder], None, True)
    cache = str(tmp_path / "cache")
    return datasets.load_dataset("parquet", data_dir=str(train), cache_dir=cache)["train"]


@pytest.mark.model
def test_prompts_take_a_chat_template_as_loaded(tmp_path):
    """What GRPOTrainer and verl do first with a row."""
    import tiny_qwen3

    tokenizer = tiny_qwen3._tokenizer("left")
    for row in loaded_rows(tmp_path):
        text = tokenizer.apply_chat_template(row["prompt"], tokenize=False)
        assert text.endswith(row["prompt"][-1]["content"])
        assert "".join(row["reward_model"]["ground_truth"]) == row["messages"][-1]["content"]


@pytest.mark.model
@pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="TRL is not installed")
def test_grpo_trains_on_the_rows_as_they_are(tmp_path):
    import tiny_qwen3
    from transformers import Qwen3ForCausalLM
    from trl import GRPOConfig, GRPOTrainer

    # A tiny model, and one step on the CPU.
    tokenizer, dataset = tiny_qwen3._tokenizer("left"), loaded_rows(tmp_path)
    source = tiny_qwen3.build(tmp_path / "model")
    Qwen3ForCausalLM.from_pretrained(source).save_pretrained(source)
    settings = GRPOConfig(
        output_dir=str(tmp_path / "out"), max_steps=1, per_device_train_batch_size=2,
        num_generations=2, max_completion_length=4, use_cpu=True, report_to=[], bf16=False,
    )  # fmt: skip
    seen = []

    def reward(completions, ground_truth, ground_truth_pids, **_):
        seen.extend(zip(ground_truth, ground_truth_pids, strict=True))
        return [float(any(sid in turn[-1]["content"] for sid in truth))
                for turn, truth in zip(completions, ground_truth, strict=True)]  # fmt: skip

    # The reward got the columns of the answer by name.
    model = Qwen3ForCausalLM.from_pretrained(source)
    GRPOTrainer(model=model, reward_funcs=reward, args=settings, train_dataset=dataset,
                processing_class=tokenizer).train()  # fmt: skip
    assert seen
    assert all([TEXTS[pid] for pid in pids] == truth for truth, pids in seen)


# What one mixture holds out is in the training part of neither.


def owners(found):
    return {json.dumps({k: v for k, v in facts(row).items() if k in ("uid", "pid")}, sort_keys=True)
            for row in found}  # fmt: skip


USER_TASKS, ITEM_TASKS = ["sft_video_rec", "sft_titles_to_sid"], ["sft_sid_to_title"]
CASES = {
    "the same dataset": (USER_TASKS[:1], {}, USER_TASKS[:1], {"sft_video_rec": 6}),
    "another dataset of the users": (USER_TASKS[1:], {}, USER_TASKS[:1], {"sft_video_rec": 6}),
    "both have a test": (USER_TASKS, {"sft_video_rec": 3}, USER_TASKS, {"sft_titles_to_sid": 9}),
    "items": ([*ITEM_TASKS, *USER_TASKS], {}, ITEM_TASKS, {"sft_sid_to_title": 4}),
    "the first alone": (USER_TASKS, {"sft_video_rec": 5}, USER_TASKS[:1], {}),
}


@pytest.mark.parametrize("case", list(CASES))
def test_no_training_part_holds_an_owner_of_either_test(tmp_path, case):
    of_sft, sft_size, of_rl, rl_size = CASES[case]
    folders = {task: make(tmp_path, task)[0] for task in {*of_sft, *of_rl}}
    made = {}
    for name, tasks_, size, other in (("sft", of_sft, sft_size, rl_size),
                                      ("rl", of_rl, rl_size, sft_size)):  # fmt: skip
        sizes = {folders[task]: rows_ for task, rows_ in other.items()}
        some = [folders[task] for task in tasks_]
        made[name] = mixed(tmp_path, name, some, sizes, name == "rl", size)
        figures = made[name][0]
        for task in tasks_:
            total = sum(figures[place].get(task, 0) for place in PLACES)
            assert total == len(rows_of(folders[task]))
    tests = owners([row for _, _, test in made.values() for row in rows(test)])
    assert tests
    for _, train, _ in made.values():
        assert owners(rows(train)).isdisjoint(tests)


def rows_of(folder):
    return pa.concat_tables(dataset_rows.read(folder)).to_pylist()


def test_a_test_of_the_other_mixture_that_cannot_be_made_holds_nothing_out(tmp_path):
    folder, made = make(tmp_path, "sft_video_rec")
    figures, train, _ = mixed(tmp_path, "sft", [folder], {folder: 1000})
    assert len(rows(train)) == len(made)
    assert figures["other_test_larger_than_dataset"] == ["sft_video_rec"]
