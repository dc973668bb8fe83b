"""Rows of every task as a model reads them: no SID is split, and answers begin on a token."""

import re

import pyarrow as pa
import pytest
import tiny_qwen3
from test_datasets import RESOURCES, TASKS, make, table
from test_datasets import data as data  # the fixture
from tokenizers import AddedToken

from sidmill.datasets import tasks
from sidmill.formats import dataset_rows, sid_text

pytestmark = pytest.mark.model

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SID = re.compile(r"<\|sid_begin\|>(?:<s_[a-z]_\d+>)+<\|sid_end\|>")
N_ROWS = 60


@pytest.fixture(scope="module")
def tokenizer():
    made = tiny_qwen3._tokenizer("left")
    made.chat_template = TEMPLATE
    names = sid_text.vocabulary([9, 9, 9])
    made.add_tokens([AddedToken(name, normalized=False) for name in names])
    return made


def encode(tokenizer, text):
    return tokenizer(text, add_special_tokens=False).input_ids


def sids_written(tokenizer, ids):
    """The SIDs whose tokens are in a list of ids, in order."""
    names = tokenizer.convert_ids_to_tokens(ids)
    ours = set(sid_text.vocabulary([9, 9, 9]))
    return SID.findall("".join(name if name in ours else " " for name in names))


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("task", TASKS)
def test_no_row_of_a_task_splits_a_sid(data, tmp_path, tokenizer, task, language):
    folder, _ = make(data, tmp_path / "a", task, form="chat", language=language)
    made, n_sids = table(folder).slice(0, N_ROWS), 0
    for row in made.to_pylist():
        if "messages" in row:
            text = tokenizer.apply_chat_template(row["messages"], tokenize=False)
            assert all(turn["content"] in text for turn in row["messages"])
        else:
            text = row["segments"]
        written = SID.findall(text)
        assert text.count(sid_text.BEGIN) == text.count(sid_text.END) == len(written)
        assert sids_written(tokenizer, encode(tokenizer, text)) == written
        n_sids += len(written)
    fields = tasks.load(RESOURCES / f"tasks/{task}.yaml").fields.values()
    assert (n_sids > 0) == any(field.kind in tasks.SID_KINDS for field in fields)


@pytest.mark.parametrize("task", [name for name in TASKS if name.startswith("sft_")])
def test_the_question_ends_and_the_answer_begins_on_a_token(data, tmp_path, tokenizer, task):
    """What trainers do with an explicit prompt: it is a prefix of the whole, in tokens too."""
    folder, _ = make(data, tmp_path / "a", task, form="chat")
    whole = dataset_rows.with_questions(table(folder).slice(0, N_ROWS), 0, "train")
    for row in whole.to_pylist():
        question = tokenizer.apply_chat_template(
            row["prompt"], tokenize=False, add_generation_prompt=True
        )
        text = tokenizer.apply_chat_template(row["messages"], tokenize=False)
        ids, start = encode(tokenizer, text), encode(tokenizer, question)
        assert ids[: len(start)] == start
        answer = tokenizer.decode(ids[len(start) :])
        assert answer.replace(" ", "").startswith(row["messages"][-1]["content"].replace(" ", ""))


def test_a_row_of_questions_keeps_the_columns_that_others_read(data, tmp_path):
    folder, _ = make(data, tmp_path / "a", "sft_video_rec", form="chat")
    before = table(folder)
    after = dataset_rows.with_questions(before, 0, "train")
    assert after.select(before.column_names).equals(before)
    assert pa.types.is_large_list(after.schema.field("prompt").type)
