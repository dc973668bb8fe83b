"""``sidmill inspect``: each form is named and checked, damage is one message."""

import json
import os
import re
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from sidmill.commands.inspect import inspect, lines
from sidmill.core.errors import SidmillError
from sidmill.core.terminal import columns, cut, safe
from sidmill.embed.backends import lsa
from sidmill.formats import (
    code_files,
    embedding_shards,
    item_data,
    item_text,
    memory_maps,
    onerec_checkpoint,
    quantizer_file,
    run_files,
    sequence_data,
    vector_store,
)
from sidmill.io import json_report
from sidmill.items import demo
from sidmill.items.render import render
from sidmill.quantize import category_level
from sidmill.report import inspect as stage
from sidmill.settings.category_level import CategoryLevel
from sidmill.settings.embedding import Embedding
from sidmill.settings.items import Demo, Items

PRINT = {"backend": "lsa", "model": "lsa", "dim": 4}
IDS = pa.chunked_array([pa.array([1, 2, 3])])
VECTORS = np.eye(4, dtype=np.float32)[:3]


def make(folder):
    """One of each form, by the functions that the rules call."""
    demo.write(folder / "items.jsonl", folder / "log.jsonl", Demo(n_items=60, n_users=5), seed=1)
    items = Items(path=str(folder / "items.jsonl"), fields=["title"], max_reject_share=1.0)
    render(folder / "text.parquet", folder / "rejects.parquet", items)
    fitted = lsa.fit(folder / "text.parquet", Embedding(dim=4), 1)
    lsa.write(folder / "lsa.safetensors", fitted)
    parts = folder / "embeddings.parquet"
    for shard in range(2):
        embedding_shards.write(
            parts / f"part-{shard:05d}-of-00002.parquet", pa.int64(), PRINT, [(IDS, VECTORS)]
        )
    vector_store.write(folder / "vectors.npy", (3, 4), "float32", [VECTORS])
    vector_store.write_ids(folder / "ids.parquet", IDS, (3, 4), PRINT)
    fitted = quantizer_file.Quantizer("rqkmeans", [VECTORS, VECTORS[:2]], {"n_levels": 2}, PRINT)
    quantizer_file.write(folder / "quantizer.safetensors", fitted)
    onerec_checkpoint.write(folder / "model.pt", [VECTORS, VECTORS])
    rows = np.array([[0, 1], [2, 0], [2, 1]], dtype=np.int32)
    code_files.write(folder / "codes.parquet", "codes", IDS, [rows], [3, 2])
    code_files.write(folder / "pid2sid.parquet", "sid", IDS, [rows], [3, 2])
    code_files.write_index(IDS, rows, path=folder / "index.json")
    memory_maps.write(folder / "mmap.json", np.array([1, 2, 3]), (3, 4), [VECTORS], PRINT)
    block = item_data.Block(VECTORS, np.ones((3, 2), np.int32), np.ones(3, np.int32))
    item_data.write(folder / "item_data.h5", np.array([1, 2, 3]), 4, 2, [block])
    histories = sequence_data.Block(["a", "b"], np.array([0, 2, 3]), np.array([1, 2, 3]), None)
    sequence_data.write(folder / "sequence.h5", 2, False, [histories])
    run = run_files.Run(["q1", "q2"], [["1", "2"], ["3", "1"]], np.float32([[2, 1], [2, 2]]))
    run_files.write(folder / "res.topk", folder / "run.trec", folder / "dual_res.json", run, "dual")
    json_report.write(folder / "resolution.json", {"strategy": "none", "items_moved": 0})
    (folder / "train.tsv").write_text("s\tmax_rss\n1.5\t20\n")


FORMS = {
    "text.parquet": "texts of items",
    "rejects.parquet": "rejected rows of the catalogue",
    "lsa.safetensors": "LSA model",
    "vectors.npy": "vectors",
    "ids.parquet": "ids of items",
    "quantizer.safetensors": "quantizer, rqkmeans",
    "model.pt": "OneRec checkpoint",
    "codes.parquet": "codes of a quantizer",
    "pid2sid.parquet": "semantic IDs",
    "index.json": "index of SIDs, as LC-Rec and MiniOneRec read it",
    "mmap.json": "memory maps for MISSRec",
    "mmap_idx_4": "memory map: item id to row",
    "mmap_emb_4_4": "memory map: vectors from row 1",
    "item_data.h5": "items for HDF5 loaders",
    "sequence.h5": "histories for HDF5 loaders",
    "res.topk": "run, tab-separated",
    "run.trec": "run, as trec_eval reads it",
    "dual_res.json": "run: passages of each query, best first",
    "resolution.json": "cost of resolving collisions",
    "train.tsv": "table of text",
    "items.jsonl": "JSON lines",
}
BINARY = [name for name in FORMS if name.endswith((".parquet", ".npy", ".h5", ".pt", "tensors"))]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    make(folder)
    return folder


@pytest.mark.parametrize(("name", "kind"), FORMS.items())
def test_each_form_is_named_and_sound(made, name, kind):
    found = stage.describe(str(made / name), 2, False)
    assert found.kind == kind
    assert found.sound, found.checks
    assert found.bytes == (made / name).stat().st_size or name == "mmap.json"
    assert json.loads(json.dumps(found.as_json(), default=str))["sound"]
    assert all(columns(line) <= 80 for line in lines(found).splitlines()[1:])


def test_what_a_file_says_of_itself_is_told(made):
    sids = stage.describe(str(made / "pid2sid.parquet"), 1, False)
    assert sids.facts["shape"] == [3, 2]
    assert sids.facts["codebook_sizes"] == [3, 2]
    assert sids.figures["codes used"] == [2, 2]
    tokens = "<|sid_begin|><s_a_0><s_b_1><|sid_end|>"
    assert sids.sample == [{"pid": 1, "sid": [0, 1], "tokens": tokens}]
    assert stage.describe(str(made / "vectors.npy"), 1, False).facts["fingerprint"] == PRINT
    assert stage.describe(str(made / "rejects.parquet"), 1, False).facts["rows_read"] == 60


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("damage", ["empty", "cut", "zeros", "other"])
def test_a_damaged_file_is_one_message_and_no_traceback(made, tmp_path, name, damage):
    whole = (made / name).read_bytes()
    left = {
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "zeros": bytes(len(whole)),
        "other": b"<html>",
    }
    (tmp_path / name).write_bytes(left[damage])
    with pytest.raises(SidmillError) as error:
        stage.describe(str(tmp_path / name), 2, False)
    assert str(tmp_path / name) in str(error.value)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("name", ["notes.docx", "nothing", ".codes.parquet.partial"])
def test_what_is_none_of_its_forms_is_refused(tmp_path, name):
    (tmp_path / name).write_text("words")
    with pytest.raises(SidmillError, match=r"no format|no result"):
        stage.describe(str(tmp_path / name), 2, False)
    with pytest.raises(SidmillError, match="no such file"):
        stage.describe(str(tmp_path / "missing.npy"), 2, False)


@pytest.mark.parametrize("column", ["embedding", "sid", "codes", "text", "item_ids"])
@pytest.mark.parametrize("values", [["a", "b"], [1.5, None], [["x"], []], [None, None], [[1], [2]]])
def test_columns_of_other_types_are_no_traceback(tmp_path, column, values):
    pq.write_table(pa.table({"pid": [1, 2], column: values}), tmp_path / "odd.parquet")
    done = CliRunner().invoke(inspect, [str(tmp_path / "odd.parquet")])
    assert done.exception is None or isinstance(done.exception, SidmillError | SystemExit)


def failed(path):
    found = stage.describe(str(path), 2, False)
    return {check.what for check in found.checks if check.ok is False}


def test_a_vector_that_is_not_finite_and_one_of_zeros_are_found(made, tmp_path):
    bad = VECTORS.copy()
    bad[1, 2], bad[2] = np.nan, 0
    np.save(tmp_path / "vectors.npy", bad)
    assert failed(tmp_path / "vectors.npy") == {"finite", "no zero vector"}
    embedding_shards.write(tmp_path / "part.parquet", pa.int64(), PRINT, [(IDS, bad)])
    assert failed(tmp_path / "part.parquet") == {"finite", "no zero vector"}
    shutil.copy2(made / "ids.parquet", tmp_path)
    np.save(tmp_path / "vectors.npy", VECTORS[:2])
    assert failed(tmp_path / "vectors.npy") == {"an id for each row"}


def test_repeated_ids_and_codes_out_of_range_are_found(tmp_path):
    schema = pa.schema(
        [("pid", pa.int64()), ("sid", pa.list_(pa.int32()))],
        metadata={code_files.SIZES_KEY: "[2, 2]"},
    )
    table = pa.table({"pid": [1, 1, None], "sid": [[0, 1], [1, 2], [0, 0]]}, schema=schema)
    pq.write_table(table, tmp_path / "sids.parquet")
    assert failed(tmp_path / "sids.parquet") == {"ids unique", "no id missing", "codes in range"}


def test_shards_that_are_missing_or_of_another_embedding_are_found(made, tmp_path):
    folder = tmp_path / "embeddings.parquet"
    shutil.copytree(made / "embeddings.parquet", folder)
    assert failed(folder) == {"ids unique"}  # both shards hold the same three
    other = folder / "part-00001-of-00002.parquet"
    embedding_shards.write(other, pa.int64(), PRINT | {"model": "other"}, [(IDS, VECTORS)])
    assert "one fingerprint" in failed(folder)
    other.unlink()
    assert failed(folder) == {"all parts there"}


def test_a_large_file_is_looked_at_in_part(tmp_path, monkeypatch):
    monkeypatch.setattr("sidmill.report.inspect.facts.LOOKED_BYTES", 4 * 4 * 10)
    wide = np.ones((100, 4), dtype=np.float32)
    wide[50] = np.nan
    np.save(tmp_path / "vectors.npy", wide)
    part = stage.describe(str(tmp_path / "vectors.npy"), 1, False)
    assert "10 of 100 rows; --all" in next(c.says for c in part.checks if c.what == "finite")
    assert part.sound
    assert not stage.describe(str(tmp_path / "vectors.npy"), 1, True).sound


def test_foreign_text_cannot_act_on_the_terminal(tmp_path):
    evil = "\x1b[2J\x07title\r\nnext\u202e\x9b31m"
    schema = item_text.schema(pa.string())
    item_text.write(
        tmp_path / "text.parquet", pa.string(), [pa.table([["\x1b]0;x\x07"], [evil]], schema)]
    )
    done = CliRunner().invoke(inspect, [str(tmp_path / "text.parquet")])
    assert done.exit_code == 0
    assert not any(letter in done.output for letter in "\x1b\x07\r\u202e\x9b")
    assert "\\x1b[2J\\x07title" in done.output
    as_json = CliRunner().invoke(inspect, [str(tmp_path / "text.parquet"), "--json"])
    assert json.loads(as_json.output)["sample"][0]["text"] == evil
    assert as_json.output.isascii()


def test_columns_of_wide_letters_are_two():
    assert columns("语义ID") == 6
    assert cut("语义标识", 5) == "语义…"
    assert safe("a\u200bb\ud800") == "a\\u200bb\\ud800"


def test_the_exit_code_says_whether_it_is_sound(made, tmp_path):
    assert CliRunner().invoke(inspect, [str(made / "codes.parquet")]).exit_code == 0
    np.save(tmp_path / "zeros.npy", np.zeros((2, 2), np.float32))
    assert CliRunner().invoke(inspect, [str(tmp_path / "zeros.npy")]).exit_code == 1


def test_a_kill_cuts_the_last_line_of_a_log_and_no_other(tmp_path):
    log = tmp_path / "train.jsonl"
    head = {"time": "t", "level": "INFO", "rule": "train", "message": "started"}
    log.write_text(json.dumps(head) + '\n{"time": "t", "le')
    found = stage.describe(str(log), 1, False)
    assert found.kind == "log of a job, rule train"
    assert failed(log) == {"last line whole"}
    log.write_text("nonsense\n" + json.dumps(head) + "\n")
    with pytest.raises(SidmillError, match="line 1: no JSON"):
        stage.describe(str(log), 1, False)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_one_message(made, tmp_path):
    shutil.copy2(made / "codes.parquet", tmp_path)
    (tmp_path / "codes.parquet").chmod(0)
    with pytest.raises(SidmillError, match=r"codes\.parquet"):
        stage.describe(str(tmp_path / "codes.parquet"), 1, False)


INDEX = {f"item {n}": [f"<a_{n % 7}>", f"<b_{n}>", "<c_1>"] for n in range(5000)}


@pytest.mark.parametrize("layout", [None, 0, 4, "ours", "large"])
def test_an_index_of_sids_is_told_however_its_lines_are_cut(tmp_path, layout, monkeypatch):
    """On one line, as MiniOneRec publishes it; an item a line; a token a line."""
    path = tmp_path / "Industrial.index.json"
    if layout == "ours":
        rows = np.array([[int(token[3:-1]) for token in sid] for sid in INDEX.values()])
        code_files.write_index(pa.chunked_array([list(INDEX)]), rows.astype(np.int32), path=path)
    else:
        path.write_text(json.dumps(INDEX, indent=None if layout == "large" else layout))
    if layout == "large":
        monkeypatch.setattr("sidmill.report.inspect.texts.PIECE_LETTERS", 100)
    found = stage.describe(str(path), 2, False)
    assert found.kind == FORMS["index.json"]
    assert found.figures == {"items": 5000, "tokens of a SID": [3]}
    assert found.sample[0] == {"item 0": ["<a_0>", "<b_0>", "<c_1>"]}
    assert found.sound


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"1": ["<a_1>"], "1": ["<a_2>"]}', "ids unique"),
        ('{"1": ["<a_1>"], "2": ["<a_2>", "<b_1>"]}', "one length"),
        ('{"1": ["<a_1>"], "2": ["<a_2>"]', "ends whole"),
        ('{"1": ["<a_1>"], "2": ["a"]}', "an item is an id and its tokens"),
        ('{"1": ["<a_1>"] "2": ["<a_2>"]}', "an item is an id and its tokens"),
        ('{"loss": NaN}', "numbers as JSON has them"),
        ('{"a": {"loss": [-Infinity]}}', "numbers as JSON has them"),
        ('{"a": {"b": 1, "b": 2}}', "no key twice"),
        ('{"q1": ["1"], "q1": ["2"]}', "no key twice"),
    ],
)
def test_what_readers_of_json_stumble_over_is_found(tmp_path, text, what):
    path = tmp_path / "some.json"
    path.write_text(text)
    assert failed(path) == {what}


@pytest.mark.parametrize("number", [0, 999, 1024, 7000, 1234567, 12345678901234567])
def test_no_comma_parts_an_id_or_a_code(tmp_path, number):
    rows = np.array([[number % 2**31, 1024, 7000]], dtype=np.int32)
    ids = pa.chunked_array([pa.array([number])])
    code_files.write(tmp_path / "pid2sid.parquet", "sid", ids, [rows], [2**31 - 1, 2000, 8000])
    settings = {"n_levels": 1, "seed": number}
    fitted = quantizer_file.Quantizer("rqkmeans", [np.eye(4, dtype=np.float32)], settings, PRINT)
    quantizer_file.write(tmp_path / "quantizer.safetensors", fitted)
    shown = lines(stage.describe(str(tmp_path / "pid2sid.parquet"), 2, False))
    assert f"pid: {number}  sid: ({rows[0, 0]}, 1024, 7000)" in shown
    assert "(2147483647, 2000, 8000)" in shown
    told = lines(stage.describe(str(tmp_path / "quantizer.safetensors"), 2, False))
    assert re.search(rf"seed +{number}$", told, re.M)


def test_a_folder_of_several_tables_says_what_to_name_and_that_works(made, tmp_path):
    results = tmp_path / "results"
    (results / "items").mkdir(parents=True)
    for name in ("codes.parquet", "pid2sid.parquet", "index.json"):
        shutil.copy2(made / name, results)
    shutil.copytree(made / "embeddings.parquet", results / "items/embeddings.parquet")
    shutil.copy2(made / "vectors.npy", results / "items")
    for folder, wanted in ((results, "several tables"), (results / "items", "no table")):
        with pytest.raises(SidmillError, match=wanted) as error:
            stage.describe(str(folder), 1, False)
        names = str(error.value).rpartition(": ")[2].split(", ")
        assert set(names) == {entry.name for entry in folder.iterdir()}
        for name in set(names) - {"items"}:
            assert stage.describe(str(folder / name), 1, False).bytes
    for number in range(30):
        shutil.copy2(made / "codes.parquet", tmp_path / f"codes {number}.parquet")
    shutil.copy2(made / "text.parquet", tmp_path)
    with pytest.raises(SidmillError, match="and 12 more"):
        stage.describe(str(tmp_path), 1, False)


def test_no_message_sends_the_user_to_delete_a_file_that_no_run_made(made, tmp_path):
    for name in BINARY:
        (tmp_path / name).write_bytes((made / name).read_bytes()[:60])
        with pytest.raises(SidmillError) as error:
            stage.describe(str(tmp_path / name), 2, False)
        said = str(error.value)
        assert "delete" not in said or re.search(
            r"if a run here made it, delete|no run makes", said
        )


def test_a_category_level_is_told_by_its_field_and_names(tmp_path):
    names = pa.array(["glue"] * len(VECTORS), pa.string())
    settings = CategoryLevel(field="kind", size=2, min_load=0)
    level = category_level.fit(VECTORS, names, settings, PRINT)
    quantizer_file.write(tmp_path / "quantizer.safetensors", level.quantizer)
    told = lines(stage.describe(str(tmp_path / "quantizer.safetensors"), 2, False))
    sizes = level.quantizer.codebook_sizes
    assert f"1 of the field kind, {sizes[0]} codes: glue" in told
    assert "numbers" not in told


def test_metrics_of_recommenders_are_a_table_by_split(tmp_path):
    figure = {"value": 0.25, "low": 0.2, "high": 0.31}
    methods = {"recommender": {"HR@10": figure, "MRR": figure}, "popularity": {}}
    alone = {"methods": {"recommender": {"HR@10": {"value": 0.5}, "NDCG@10": {"value": None}}}}
    path = tmp_path / "metrics.json"
    json_report.write(
        path,
        {"protocol": {"ranked": "all"}, "valid": {"methods": methods, "lead": {}}, "test": alone},
    )
    shown = lines(stage.describe(str(path), 3, False))
    assert "metrics of recommenders" in shown
    assert re.search(r"valid +recommender  HR@10 0.2500 ±0.0550\n +popularity\n", shown)
    assert re.search(r"test +recommender  HR@10 0.5000\n", shown)
    json_report.write(path, {"valid": {"methods": [1]}, "methods": {"a": 1}})  # of other programs
    assert "metrics of recommenders" not in lines(stage.describe(str(path), 3, False))
