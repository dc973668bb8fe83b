"""The linter: what contradicts and what only reads differently, every domain, files of others."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from dataset_run import N_ITEMS, RESOURCES, SIDS, TEXTS, run, write_items

from sidmill.cli import commands
from sidmill.core.errors import SidmillError
from sidmill.datasets import lint, render
from sidmill.formats import dataset_rows, sid_text
from sidmill.settings.datasets import Lint

CAPTIONED = ["pretrain_item_understand", "sft_item_understand", "sft_sid_to_title"]


def shared_sids():
    """Items in pairs: 2n and 2n + 1 have one SID."""
    return SIDS[np.arange(N_ITEMS) // 2]


def linted(tmp_path, *folders, items=None, **others):
    items = items or write_items(tmp_path / "pid2sid.parquet")
    settings = Lint(token_budget=10**6)
    return lint.lint([str(folder) for folder in folders], items, settings, **others)


@pytest.mark.parametrize("task", CAPTIONED)
@pytest.mark.parametrize("form", ["onerec", "chat"])
@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("different", [0, 1, 7])
def test_captions_contradict_where_the_texts_of_one_sid_do(
    tmp_path, task, form, language, different
):
    items = write_items(tmp_path / "pid2sid.parquet", sids=shared_sids())
    texts = [f'a "{n // 2}"\nof ü' for n in range(N_ITEMS)]
    for pair in range(different):
        texts[2 * pair] = f'a "{pair}" too\nof ü'
    table = pa.table({"pid": range(N_ITEMS), "text": texts})
    made, _ = run(tmp_path, task, table, items=items, form=form, language=language)
    assert len(made) == N_ITEMS
    found = linted(tmp_path, tmp_path / task, items=items)["datasets"][task]
    assert found["contradictory_captions"] == different
    assert found["captions_not_compared"] == 0


def test_a_caption_in_words_of_others_is_not_compared(tmp_path):
    rows = [("It is a bolt, this {}", 1), ("Say of {} that it is a glove", 1), ("{} a bolt", 2)]
    table = pa.table({
        "segments": [text.format(TEXTS[pid]) for text, pid in rows],
        "metadata": [json.dumps({"pid": pid, "sid": TEXTS[pid]}) for _, pid in rows],
    })  # fmt: skip
    pq.write_table(table, tmp_path / "own.parquet")
    found = linted(tmp_path, tmp_path / "own.parquet")
    assert (found["captions_not_compared"], found["contradictory_captions"]) == (3, 0)
    own = ["It is {caption}, this {sid}", "Say of {sid} that it is {caption}", "{sid} {caption}"]
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts/own.yaml").write_text(json.dumps({"en": {"text": own}}))
    found = linted(tmp_path, tmp_path / "own.parquet", prompts=tmp_path / "prompts")
    assert (found["captions_not_compared"], found["contradictory_captions"]) == (0, 1)


@pytest.mark.parametrize("n_levels", [1, 2, 3, 4])
def test_sids_of_the_second_domain_are_known(tmp_path, n_levels):
    sids = np.stack([np.arange(N_ITEMS) + 40] * n_levels, axis=1).astype(np.int32)
    products = write_items(tmp_path / "p.parquet", sids=sids)
    table = pa.table({"uid": range(9), "hist_longview_video_list": [[u, 3] for u in range(9)],
                      "hist_goods_pid": [[u] for u in range(9)],
                      "target_goods_pid": [[u + 9, u] for u in range(9)]})  # fmt: skip
    run(tmp_path, "sft_product_rec", table, products=products)
    folder = tmp_path / "sft_product_rec"
    found = linted(tmp_path, folder, product_pid2sid=products)
    assert found["unknown_sids"] == 0
    assert found["target_in_history"] == 9
    alone = linted(tmp_path, folder)
    assert alone["unknown_sids"] == 9
    fewer = write_items(tmp_path / "q.parquet", range(N_ITEMS - 20), sids[:-20])
    assert linted(tmp_path, folder, product_pid2sid=fewer)["unknown_sids"] == 8
    broken = pa.table({"segments": [sid_text.render(sids)[0].as_py()[:-13]]})
    pq.write_table(broken, tmp_path / "b.parquet")
    assert linted(tmp_path, tmp_path / "b.parquet", product_pid2sid=products)["unknown_sids"] == 1


# Files of other programs.

TURNS = [("system", "Recommend."), ("user", f"After {TEXTS[1]}?"), ("assistant", TEXTS[2])]
PARTS = [{"role": r, "content": [{"type": "text", "text": t}]} for r, t in TURNS]
PLAIN = [{"role": r, "content": t} for r, t in TURNS]
FORMS = {
    "JSON of parts": [json.dumps(PARTS)],
    "JSON of texts": [json.dumps(PLAIN, ensure_ascii=False)],
    "lists of texts": [PLAIN],
    "lists of parts": [PARTS],
}


@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize(
    "name", ["0.parquet", "train/data-1.parquet", "part-00000-of-00001.parquet"]
)
@pytest.mark.parametrize("facts", [None, "no column", "{}", '{"uid": 5}', "null"])
def test_files_of_others_are_read(tmp_path, form, name, facts):
    path = tmp_path / "theirs" / name
    path.parent.mkdir(parents=True)
    columns = {"messages": FORMS[form] * 3}
    if facts != "no column":
        columns["metadata"] = pa.array([facts] * 3, pa.string())
    pq.write_table(pa.table(columns), path)
    (tmp_path / "theirs/_SUCCESS.parquet").write_text("")
    found = linted(tmp_path, tmp_path / "theirs")["datasets"]["theirs"]
    assert found["rows"] == 3
    assert found["unknown_sids"] == found["target_in_history"] == 0
    assert found["duplicate_rows"] == 2
    assert found["examples"]["duplicate_rows"] == [f"{path.name}, row {n}" for n in (2, 3)]
    one_file = linted(tmp_path, path)["datasets"][path.name]
    assert one_file == found


def test_duplicates_are_rows_of_equal_text_whatever_their_uuids(tmp_path):
    table = pa.table({"source": ["a", "a", "b", "a"], "uuid": ["1", "2", "3", "3"],
                      "segments": ["x", "x", "x", "y"]})  # fmt: skip
    pq.write_table(table, tmp_path / "x.parquet")
    found = linted(tmp_path, tmp_path / "x.parquet")
    assert found["duplicate_rows"] == 1
    assert found["datasets"]["x.parquet"]["examples"] == {"duplicate_rows": ["2"]}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a"]}, "no column messages or segments, only text: rename"),
        ({"messages": ['[{"role": "user"']}, r"own\.parquet, row 1: not a row"),
        ({"messages": ['[{"role": "user"}]']}, r"own\.parquet, row 1: not a row"),
        ({"messages": ["a"], "metadata": ["{"]}, r"own\.parquet, row 1: not a row"),
    ],
)
def test_what_is_no_dataset_is_named(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "own.parquet")
    with pytest.raises(SidmillError, match=message):
        linted(tmp_path, tmp_path / "own.parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SidmillError, match="holds no parquet file"):
        linted(tmp_path, tmp_path / "empty")


def test_the_command_prints_what_is_found(tmp_path):
    pq.write_table(pa.table({"messages": [json.dumps(PARTS)] * 2}), tmp_path / "x.parquet")
    items = str(write_items(tmp_path / "pid2sid.parquet"))
    done = CliRunner().invoke(commands, ["lint", str(tmp_path / "x.parquet"), "--pid2sid", items])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["duplicate_rows"] == 1


# uuids: one per row of an owner.


@pytest.mark.parametrize("form", ["onerec", "chat"])
def test_rows_of_two_owners_differ_and_those_of_one_keep_their_uuid(tmp_path, form):
    table = pa.table({"uid": [1, 2, 2, 3], "hist_video_pid": [[1, 2]] * 4,
                      "target_video_pid": [[3]] * 4})  # fmt: skip
    made, _ = run(tmp_path / "a", "pretrain_video_rec", table, form=form)
    uuids = {}
    for row in made:
        uuids.setdefault(json.loads(row["metadata"])["uid"], set()).add(row["uuid"])
    assert [len(each) for each in uuids.values()] == [1, 1, 1]  # the two rows of user 2 are equal
    assert len(set.union(*uuids.values())) == 3
    again, _ = run(tmp_path / "b", "pretrain_video_rec", table.take([3, 2, 1, 0]), form=form)
    assert {row["uuid"] for row in again} == set.union(*uuids.values())


def test_every_text_counts_for_a_uuid():
    texts = [pa.array([f"{n}", "x"], pa.large_string()) for n in range(3)]
    first = render.uuids("s", texts).to_pylist()
    for place in range(3):
        changed = [*texts]
        changed[place] = pa.array(["other", "x"], pa.large_string())
        made = render.uuids("s", changed).to_pylist()
        assert made[0] != first[0]
        assert made[1] == first[1]
    assert render.uuids("t", texts).to_pylist()[1] != first[1]


def test_wordings_of_every_prompts_file_are_known_to_the_linter():
    found = lint.Wordings(RESOURCES / "prompts")
    assert len(found.texts) >= 8
    assert lint.Wordings(None).texts == found.texts
    assert dataset_rows.PART.fullmatch(dataset_rows.part_name(3, 10))
