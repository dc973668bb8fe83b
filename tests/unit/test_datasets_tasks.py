"""Tasks and wordings of one's own: what is wrong with them is said before a row is written."""

import json
import re
import shutil

import pyarrow as pa
import pytest
from conftest import ROOT
from dataset_run import RESOURCES, answer, facts, run

from sidmill.core.errors import SidmillError
from sidmill.datasets import tasks
from sidmill.settings import base
from sidmill.settings.config import Config

SCHEMA = base.schema(Config)
COMMON = (ROOT / "workflow/rules/common.smk").read_text()
USERS = pa.table({"uid": [1, 2], "hist_video_pid": [[1, 2], [3]], "target_video_pid": [[4], [5]],
                  "stars": [[1], [5]], "hist_video_like": [[1, 0], [1]]})  # fmt: skip
TASK = {
    "source": "Own", "reads": "users", "form": "messages", "prompts": "own",
    "fields": {"history": {"sids": "hist_video_pid"}, "answer": {"sids": "target_video_pid"}},
    "needs": ["history", "answer"], "metadata": ["uid"],
}  # fmt: skip
WORDS = {"en": {"user": ["{history}?"], "assistant": ["{answer}"]}}


def own(tmp_path, task=None, words=None, name="sft_own"):
    """A folder of resources with a task and prompts beside those of the project."""
    folder = tmp_path / "resources"
    shutil.copytree(RESOURCES, folder, dirs_exist_ok=True)
    (folder / f"tasks/{name}.yaml").write_text(json.dumps(TASK | (task or {})))
    (folder / "prompts/own.yaml").write_text(json.dumps(words or WORDS))
    return folder


def checked(folder, name="sft_own"):
    task = tasks.load(folder / f"tasks/{name}.yaml")
    return tasks.load_prompts(folder / "prompts/own.yaml", "en", task)


BAD_WORDINGS = ["{}", "say {} now", "{0}", "{history", "history}", "{history!r}", "{history:>9}",
                "{history.x}", "{history[0]}", "{other}", "{ history }"]  # fmt: skip
PLACES = {
    "user": lambda text: {"en": WORDS["en"] | {"user": ["{history}", text]}},
    "assistant": lambda text: {"en": WORDS["en"] | {"assistant": [text]}},
    "lines": lambda text: {"en": WORDS["en"] | {"lines": {"history": [text]}}},
    "phrases": lambda text: {"en": WORDS["en"] | {"phrases": {"1": [text]}}},
}


@pytest.mark.parametrize("place", list(PLACES))
@pytest.mark.parametrize("text", BAD_WORDINGS)
def test_braces_that_name_no_field_are_refused(tmp_path, place, text):
    with pytest.raises(SidmillError, match=r"own\.yaml, en: .*") as error:
        checked(own(tmp_path, words=PLACES[place](text)))
    assert text in str(error.value)


@pytest.mark.parametrize("text", ["{{}}", "{{history}}", "}}{{", "{history}{{x}}"])
def test_doubled_braces_are_written_once(tmp_path, text):
    folder = own(tmp_path, words={"en": WORDS["en"] | {"user": [text]}})
    checked(folder)
    made, _ = run(tmp_path / "a", "sft_own", USERS, resources=folder)
    asked = json.loads(made[0]["messages"])[0]["content"][0]["text"]
    sids = "".join(re.findall(r"<[^>]*>", asked))
    assert asked.replace(sids, "") == text.replace("{{", "\0").replace("}}", "\1").replace(
        "{history}", ""
    ).replace("\0", "{").replace("\1", "}")


NAMES = ["sft_top10", "sft_2024_v2", "pretrain_video-rec2", "sft_NextTitle"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("split", ["", ".valid", ".test"])
def test_a_task_may_have_any_plain_name(tmp_path, name, split):
    constraint = re.search(r'dataset=r"(.*)",', COMMON)[1]
    listed = SCHEMA["properties"]["datasets"]["properties"]["tasks"]["items"]["pattern"]
    weighed = SCHEMA["properties"]["mixture"]["properties"]["weights"]["propertyNames"]["pattern"]
    assert re.fullmatch(constraint, name + split)
    assert re.search(listed, name + split)
    assert bool(re.search(weighed, name + split)) == (not split)
    for other in ("mixture", "work", f"work/{name}", f"{name}.train", f"{name}/x"):
        assert not re.fullmatch(constraint, other)
    made, _ = run(tmp_path / "a", name, USERS, resources=own(tmp_path, name=name))
    assert len(made) == 2


LABELS = {
    "rows": {"each": "target_video_pid", "with": ["stars"]},
    "fields": {
        "history": {"sids": "hist_video_pid"},
        "stars": {"value": "stars"},
        "answer": {"phrase": "stars"},
    },
    "needs": ["history", "stars"],
    "metadata": ["uid", "stars"],
}


def test_values_without_a_wording_stop_or_are_left_out(tmp_path):
    words = {"en": WORDS["en"] | {"phrases": {"1": ["bad"], "2": ["poor"]}}}
    folder = own(tmp_path, LABELS, words)
    with pytest.raises(SidmillError, match=r"the value '5' of 'stars'.*among: \[1, 2\]"):
        run(tmp_path / "a", "sft_own", USERS, resources=folder)
    more = {"en": words["en"] | {"phrases": {"1": ["bad"], "5": ["good"]}}}  # one remedy
    made, _ = run(tmp_path / "b", "sft_own", USERS, resources=own(tmp_path, LABELS, more))
    assert {facts(row)["stars"]: answer(row) for row in made} == {1: "bad", 5: "good"}
    fields = LABELS["fields"] | {"stars": {"value": "stars", "among": [1, 2]}}  # the other
    folder = own(tmp_path, LABELS | {"fields": fields}, words)
    made, whole = run(tmp_path / "c", "sft_own", USERS, resources=folder)
    assert [answer(row) for row in made] == ["bad"]
    assert whole["left_out"] == {"no_stars": 1}
    fields = LABELS["fields"] | {"stars": {"value": "stars", "among": [1, 9]}}
    with pytest.raises(SidmillError, match="no phrase for '9'"):
        checked(own(tmp_path, LABELS | {"fields": fields}, words))


LOOSE = {
    "count of a title": (
        {"n": {"count": "name"}, "name": {"title": "pid"}},
        "n: 'name' is of kind",
    ),
    "phrase of lines": ({"n": {"phrase": "all"}, "all": {"lines": ["history"]}}, "n: 'all' is of"),
    "where of no field": (
        {"n": {"sids": "hist_video_pid", "where": "a_{b}"}},
        "n: where names {b}",
    ),
    "where of a list": (
        {"n": {"sids": "hist_video_pid", "where": "a_{history}"}},
        "not a field of kind",
    ),
    "choose alone": ({"n": {"choose": ["a"]}}, "choose needs of and where"),
    "lines of nothing": ({"n": {"lines": ["x"]}}, "n: 'x' is not a field"),
}


@pytest.mark.parametrize("case", list(LOOSE))
def test_fields_that_point_at_nothing_are_named(tmp_path, case):
    fields, message = LOOSE[case]
    with pytest.raises(SidmillError, match=re.escape(message)):
        checked(own(tmp_path, {"fields": TASK["fields"] | fields}))


def test_a_field_made_of_itself_is_named(tmp_path):
    fields = TASK["fields"] | {"all": {"lines": ["history"]}}
    words = {"en": {"user": ["{all}"], "assistant": ["{answer}"], "lines": {"history": ["{all}"]}}}
    folder = own(tmp_path, {"fields": fields}, words)
    with pytest.raises(SidmillError, match="'all' is made of itself"):
        run(tmp_path / "a", "sft_own", USERS, resources=folder)
