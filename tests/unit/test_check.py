"""sidmill check: sound results pass, each planted fault is one message, docs have the schemas."""

import hashlib
import importlib.util
import json
import os
import re
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import whole_results
from click.testing import CliRunner
from conftest import ROOT
from whole_results import DIM, FUSED_PRINT, PRINT

from sidmill.cli import commands
from sidmill.core.errors import SidmillError
from sidmill.formats import quantizer_file, schemas, vector_store
from sidmill.io import json_report, tensors
from sidmill.report import check


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return whole_results.add_others(whole_results.make(tmp_path_factory.mktemp("results")))


@pytest.fixture
def results(made, tmp_path):
    return shutil.copytree(made, tmp_path / "results")


IMPORT = "imported/movielens"


def faults_of(folder):
    return [f"{fault.path}: {fault.says}" for fault in check.check(folder).faults]


def test_sound_results_have_no_fault(results):
    report = check.check(results)
    assert report.faults == []
    assert (len(report.files), report.unknown) == (54, 0)
    assert len(report.promises) == 60


def change(name, column, edit, **options):
    """A fault: one column of a parquet is edited, its metadata kept."""

    def plant(folder):
        table = pq.read_table(folder / name)
        schema, position = table.schema, table.schema.get_field_index(column)
        values = edit(table[column].to_pylist())
        kind = options.get("type", schema.field(column).type)
        table = table.slice(0, len(values)).set_column(position, column, pa.array(values, kind))
        pq.write_table(table.replace_schema_metadata(schema.metadata), folder / name)

    return plant


def drop(name, column):
    def plant(folder):
        pq.write_table(pq.read_table(folder / name).drop_columns([column]), folder / name)

    return plant


def swap_rows(name):
    """A fault: the first two rows change places."""

    def plant(folder):
        table = pq.read_table(folder / name)
        pq.write_table(table.take([1, 0, *range(2, len(table))]), folder / name)

    return plant


def edit_json(name, **changes):
    def plant(folder):
        figures = json_report.read(folder / name)
        for key, value in changes.items():
            inner = figures
            *path, last = key.split("__")
            for part in path:
                inner = inner[part]
            inner[last] = value
        json_report.write(folder / name, figures)

    return plant


def cut(name, size=40):
    def plant(folder):
        (folder / name).write_bytes((folder / name).read_bytes()[:size])

    return plant


def save_array(name, make):
    def plant(folder):
        np.save(folder / name, make(np.load(folder / name)))

    return plant


def other_print(folder):
    path = folder / "rqkmeans/quantizer.safetensors"
    known = quantizer_file.read(path)
    quantizer_file.write(path, known._replace(fingerprint={**PRINT, "model": "other"}))


def other_print_of(tokenizer):
    def plant(folder):
        path = folder / tokenizer / "quantizer.safetensors"
        known = quantizer_file.read(path)
        quantizer_file.write(path, known._replace(fingerprint={**FUSED_PRINT, "fuse.weight": 0.6}))

    return plant


def lose_tensor(name, tensor):
    def plant(folder):
        arrays, facts = tensors.read(folder / name, "quantizer")
        del arrays[tensor]
        tensors.write(folder / name, arrays, facts)

    return plant


def fewer_codewords(folder):
    path = folder / "rqkmeans/quantizer.safetensors"
    known = quantizer_file.read(path)
    quantizer_file.write(
        path, known._replace(codebooks=[*known.codebooks[:2], known.codebooks[2][:5]])
    )


def doubles_in_codebook(folder):
    path = folder / "rqkmeans/quantizer.safetensors"
    arrays, facts = tensors.read(path, "quantizer")
    tensors.write(path, arrays | {"codebook.1": arrays["codebook.1"].astype(np.float64)}, facts)


def one_bit_of_the_quantizer(folder):
    path = folder / "rqkmeans/quantizer.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))


def trie_of_another_file(folder):
    path = folder / "trie.safetensors"
    arrays, facts = tensors.read(path, "trie")
    tensors.write(path, arrays, facts | {"pid2sid": hashlib.sha256(b"x").hexdigest()})


def lose_a_part(folder):
    (folder / "items/embeddings.parquet/part-00001-of-00002.parquet").unlink()


def one_sid_for_two(folder):
    """A fault: item 100 gets the SID of item 101, in both columns."""
    for column in ("sid", "tokens"):
        change("pid2sid.parquet", column, lambda rows: [rows[1], *rows[1:]])(folder)


def first(value):
    return lambda values: [value, *values[1:]]


# fmt: off
# ruff: noqa: E501
FAULTS = {
    "text without a column": (drop("items/text.parquet", "text"), r"items/text.*0 columns 'text'"),
    "an empty text": (change("items/text.parquet", "text", first("")), r"items/text.*a text is empty"),
    "no id": (change("items/text.parquet", "pid", first(None)), r"items/text.*row 0 has no 'pid'"),
    "an id twice": (change("items/text.parquet", "pid", first(101)), r"items/text.*ids unique"),
    "ids of another type": (
        change("codes.parquet", "pid", lambda ids: list(map(str, ids)), type=pa.string()),
        r"codes.parquet: ids are string, in text.parquet int64",
    ),
    "ids as floats": (
        change("codes.parquet", "pid", lambda ids: ids, type=pa.float64()),
        r"codes.parquet: column 'pid' has type double, wanted int64 or string",
    ),
    "rejects miscounted": (
        change("items/rejects.parquet", "pid", lambda ids: []),
        r"items/rejects.*had 41 rows; 40 items and 0 rejects are 40",
    ),
    "a row number below 1": (change("items/rejects.parquet", "row", first(0)), r"'row' has the value 0"),
    "rows in another order": (swap_rows("rqkmeans/codes.parquet"), r"rqkmeans/codes.*row 0 has the id 101"),
    "an embedding too short": (
        change("items/embeddings.parquet/part-00000-of-00002.parquet", "embedding", first([1.0])),
        r"items/embeddings.parquet: not so: one dimension",
    ),
    "an embedding that is not finite": (
        change("items/embeddings.parquet/part-00000-of-00002.parquet", "embedding", first([float("nan")] * DIM)),
        r"items/embeddings.parquet: 'embedding' has values that are not finite",
    ),
    "a part is missing": (lose_a_part, r"items/embeddings.parquet: not so: all parts there"),
    "ids of fewer rows": (
        change("items/ids.parquet", "pid", lambda ids: ids[:-1]),
        r"items/ids.parquet: 39 ids, text.parquet has 40",
    ),
    "vectors of double": (save_array("items/vectors.npy", lambda v: v.astype(np.float64)), r"vectors.npy: holds float64"),
    "vectors in three axes": (save_array("items/vectors.npy", lambda v: v[None]), r"vectors.npy: holds float32 of shape"),
    "vectors not finite": (save_array("items/vectors.npy", lambda v: v * np.inf), r"vectors.npy: not so: "),
    "vectors cut": (cut("items/vectors.npy", 200), r"vectors.npy: "),
    "a code out of range": (
        change("rqkmeans/codes.parquet", "codes", first([4, 3, 6])),
        r"rqkmeans/codes.parquet: not so: codes in range",
    ),
    "a negative code": (change("codes.parquet", "codes", first([-1, 0, 0])), r"codes.parquet: 'codes' has the value -1"),
    "a code missing in a list": (change("codes.parquet", "codes", first([None, 0, 0])), r"a list of 'codes' lacks a value"),
    "fewer codewords than codes": (fewer_codewords, r"rqkmeans/codes.*codebook sizes \[5, 4, 6\], the quantizer has \[5, 4, 5\]"),
    "a quantizer of other embeddings": (other_print, r"quantizer.*trained on other embeddings .* model differ"),
    "a codebook of doubles": (doubles_in_codebook, r"quantizer.*'codebook.1' has dtype float64"),
    "a bit of the quantizer": (one_bit_of_the_quantizer, r"quantizer.*its bytes are not those"),
    "two items with one SID": (one_sid_for_two, r"pid2sid.parquet: 1 items share a SID"),
    "tokens of another SID": (
        change("pid2sid.parquet", "tokens", lambda rows: [rows[1], *rows[1:]]),
        r"pid2sid.parquet: item 100 has the tokens '<\|sid_begin.*, and the SID \[",
    ),
    "moves miscounted": (edit_json("resolution.json", items_moved=3), r"resolution.json: items_moved is 3; 1 SIDs differ"),
    "quality of another number of items": (edit_json("quality.json", items=41), r"quality.json: items is 41"),
    "a rate above one": (edit_json("quality.json", before__collision_rate=1.5), r'quality.json: \["before"\]\["collision_rate"\]'),
    "a key is missing": (edit_json("quality.json", after={}), r'quality.json: \["after"\]: .*required'),
    "distinct SIDs miscounted": (edit_json("quality.json", after__distinct=39), r"quality.json: after.distinct is 39"),
    "an index of other SIDs": (edit_json("index.json", **{"100": ["<a_0>", "<b_0>", "<c_0>"]}), r"index.json: item 100 has the SID \[0, 0, 0\]"),
    "an index with another token": (edit_json("index.json", **{"100": ["a_0", "<b_0>", "<c_0>"]}), r'index.json: \["100"\]\[0\]'),
    "a trie of other SIDs": (trie_of_another_file, r"trie.safetensors: "),
    "a ledger with another state": (change("ledger.parquet", "state", first(3)), r"ledger.parquet: 'state' has the value 3"),
    "a ledger with another SID": (
        change("ledger.parquet", "sid", lambda sids: [sids[1], sids[0], *sids[2:]]),
        r"ledger.parquet: item 100 has the SID",
    ),
    "a split of no meaning": (change("interactions/sequences.parquet", "splits", first([0, 1, 5])), r"'splits' has the value 5"),
    "an item of no catalogue": (change("interactions/sequences.parquet", "item_ids", first([100, 101, 9])), r"sequences.*item 9 is not in"),
    "fewer splits than items": (change("interactions/sequences.parquet", "splits", first([0, 1])), r"sequences.*row 0: 3 items and 2 splits"),
    "a user twice": (change("interactions/sequences.parquet", "user_id", lambda users: ["a", "a"]), r"sequences.*1 values of 'user_id' repeat"),
    "recommendations with other SIDs": (
        change("recommender/topk.parquet", "sids", lambda sids: [[sids[0][1], *sids[0][1:]], sids[1]]),
        r"topk.parquet: item 103 has another SID",
    ),
    "recommendations of no item": (change("recommender/topk.parquet", "item_ids", first([1, 104, 105])), r"topk.*item 1 is not in"),
    "recommendations in another order": (change("recommender/topk.parquet", "scores", first([1.0, 2.0, 3.0])), r'scores of user "a" are not'),
    "a rank twice": (change("retrieval/answers.parquet", "rank", lambda ranks: [1, 1, 1]), r"answers.*query q1: ranks are not"),
    "a rank from 0": (change("retrieval/answers.parquet", "rank", lambda ranks: [0, 1, 1]), r"answers.*'rank' has the value 0"),
    "answers in another order": (change("retrieval/answers.parquet", "score", lambda scores: [1, 2, 3]), r"answers.*rank 2 has a higher score than rank 1"),
    "a passage of no corpus": (change("retrieval/answers.parquet", "pid", first("p9")), r"answers.*pid p9 is not in corpus/text"),
    "a passage twice": (change("retrieval/answers.parquet", "pid", lambda pids: ["p1", "p1", "p2"]), r"answers.*1 rows repeat"),
    "a changed version": (edit_json("manifest.json", **{"files__codes.parquet__sha256": "0"}), r"manifest.json: codes.parquet was changed"),
    "categories in another order": (swap_rows("items/categories.parquet"), r"items/categories.*row 0 has the id 101"),
    "residuals of fewer rows": (save_array("items/residuals.npy", lambda v: v[1:]), r"residuals.npy: 39 rows for 40 ids"),
    "a category level without means": (
        lose_tensor("items/category_level.safetensors", "category.mean"),
        r"category_level.*no tensor 'category.mean'",
    ),
    "a fold of fewer items": (
        change("items/fused_folds_ids.parquet", "pid", lambda ids: ids[:-1]),
        r"fused_folds_ids.*79 ids, no multiple of the 40",
    ),
    "a fold in another order": (swap_rows("opq/fold_codes.parquet"), r"fold_codes.*fold 0 has other ids, or another"),
    "fold codes out of range": (change("opq/fold_codes.parquet", "codes", first([9, 0, 0])), r"fold_codes.*codes in range"),
    "fused vectors in another order": (swap_rows("items/fused_ids.parquet"), r"items/fused_ids.*row 0 has the id 101"),
    "a tokenizer of other embeddings": (
        other_print_of("sweep/rqkmeans.5x4x6.graph0.3"),
        r"sweep/rqkmeans.5x4x6.graph0.3/quantizer.*other embeddings .* fuse.weight differ",
    ),
    "SIDs of a tokenizer in another order": (
        swap_rows("sweep/rqkmeans.5x4x6.none/pid2sid.parquet"),
        r"sweep/rqkmeans.5x4x6.none/pid2sid.*row 0 has the id 101",
    ),
    "metrics of other users": (
        change("sweep/given/valid.parquet", "HR@10", first(1.9)),
        r"sweep/given/valid.json: HR@10 is .*, the mean of valid.parquet is",
    ),
    "targets miscounted": (
        change("sweep/given/valid.parquet", "queries", first(1)),
        r"sweep/given/valid.json: targets is 18, valid.parquet has 17",
    ),
    "a table of an older measurement": (
        edit_json("sweep/given/valid.json", **{"HR@10": {"value": 0.01}, "targets": 18}),
        r"sweep/sweep.json: given has HR@10 .*, sweep/given/valid.json has 0.01",
    ),
    "another winner": (
        edit_json("sweep/sweep.json", winner__name="rqkmeans.5x4x6.none"),
        r"sweep.json: winner rqkmeans.5x4x6.none has",
    ),
    "an anchor that wins": (edit_json("sweep/sweep.json", winner__name="given"), r"sweep.json: winner given has"),
    "an import of more items": (edit_json(f"{IMPORT}/import.json", items__written=4), r"import.json: items.written is 4, items.parquet has 3"),
    "an import of more interactions": (
        edit_json(f"{IMPORT}/import.json", interactions__written=4, interactions__read=7),
        r"import.json: interactions.written is 4, interactions.parquet has 3",
    ),
    "interactions that went nowhere": (edit_json(f"{IMPORT}/import.json", interactions__read=7), r"read is 7; .* are 6"),
    "a reject that is missing": (
        change(f"{IMPORT}/rejects.parquet", "file", lambda files: files[1:]),
        r"import.json: interactions.rejected is 2, rejects.parquet has 0",
    ),
    "an interaction with no item": (
        change(f"{IMPORT}/interactions.parquet", "item_ids", first(["1", "9"])),
        r"movielens/interactions.parquet: item 9 is not in items.parquet",
    ),
    "no parquet at all": (cut("pid2sid.parquet"), r"pid2sid.parquet: "),
    "no JSON at all": (cut("index.json"), r"index.json: not JSON"),
}
# fmt: on
# A change of a published file is also one of the version; a file of another order, of its list.
ALSO = {
    "items/fused_folds.npy",
    "sweep/given/valid.json",
    "items/vectors.npy",
    "manifest.json",
    "trie.safetensors",
    "quality.json",
    "index.json",
    "ledger.parquet",
    "resolution.json",
    "recommender/topk.parquet",
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_one_message(name, results):
    plant, wanted = FAULTS[name]
    plant(results)
    found = faults_of(results)
    assert len([fault for fault in found if re.search(wanted, fault)]) == 1, found
    # Files that were written from the faulty one disagree with it; nothing else does.
    rest = {fault.partition(": ")[0] for fault in found if not re.search(wanted, fault)}
    assert rest <= ALSO, found


def test_sids_of_an_earlier_version_have_no_tokens_and_no_fault(results):
    drop("pid2sid.parquet", "tokens")(results)
    faults = [fault for fault in faults_of(results) if fault.startswith("pid2sid.parquet")]
    assert faults == []


def test_the_command_ends_in_a_line_of_counts(results):
    done = CliRunner().invoke(commands, ["check", str(results)], catch_exceptions=False)
    assert (done.exit_code, done.output.count("\n")) == (0, 1)
    assert "all is as documented" in done.output
    FAULTS["moves miscounted"][0](results)
    done = CliRunner().invoke(commands, ["check", str(results)], catch_exceptions=False)
    assert done.exit_code == 1
    assert done.output.startswith("resolution.json: items_moved is 3")
    assert "1 fault" in done.output
    told = json.loads(CliRunner().invoke(commands, ["check", str(results), "--json"]).output)
    assert [fault["path"] for fault in told["faults"]] == ["resolution.json"]


def test_what_earlier_runs_left_behind_is_no_fault(results):
    """Fused vectors after fuse.method none, and tokenizers that are no longer in the sweep."""
    shutil.rmtree(results / "opq")
    swap_rows("items/fused_ids.parquet")(results)
    gone = results / "sweep/rqkmeans.9x9x9.graph0.6"
    shutil.copytree(results / "sweep/rqkmeans.5x4x6.none", gone)
    swap_rows("sweep/rqkmeans.9x9x9.graph0.6/pid2sid.parquet")(results)
    assert faults_of(results) == []

    # With a quantizer that was trained on them they count.
    whole_results.add_fused(results)
    swap_rows("items/fused_ids.parquet")(results)
    assert any("fused_ids" in fault for fault in faults_of(results))


def test_files_of_settings_that_are_off_again_are_no_fault(results):
    """Of another catalogue, that is: files of categories, folds and compared codes are older."""
    shutil.copytree(results / "opq", results / "similarity")
    left = [
        "items/fused_folds_ids.parquet", "items/residual_ids.parquet", "items/categories.parquet",
        "opq/fold_codes.parquet", "similarity/fold_codes.parquet",
    ]  # fmt: skip
    for name in left:
        path = results / name
        table = pq.read_table(path)
        pq.write_table(table.slice(1), path)
        os.utime(path, (1, 1))
    assert {fault.partition(":")[0] for fault in faults_of(results)} >= set(left)
    settings = {
        "fuse": {"method": "contrastive", "use": "sids", "folds": 1},
        "category_level": {"field": None},
    }
    run = {"written": "", "settings": settings, "seconds": 1, "rules": [], "stages": []}
    (results / "run.json").write_text(json.dumps(run))
    assert not set(left) & {fault.partition(":")[0] for fault in faults_of(results)}

    # A file that is newer than the run was asked for.
    os.utime(results / left[1])
    os.utime(results / "run.json", (1, 1))
    assert any(fault.startswith(left[1]) for fault in faults_of(results))


def test_a_quantizer_is_compared_with_the_vectors_that_its_fingerprint_names(results):
    """A quantizer of the text vectors, beside fused vectors that another one uses, is sound."""
    promises = check.check(results).promises
    assert "rqkmeans/quantizer.safetensors was trained on the embeddings of items/ids.parquet" in (
        promises
    )
    assert "opq/quantizer.safetensors was trained on the embeddings of items/fused_ids.parquet" in (
        promises
    )


def test_files_made_elsewhere_are_checked_without_our_metadata(results, tmp_path):
    """Another program writes large lists and no metadata."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    table = pq.read_table(results / "pid2sid.parquet").replace_schema_metadata(None)
    table = table.set_column(1, "sid", table["sid"].cast(pa.large_list(pa.int32())))
    pq.write_table(table, folder / "pid2sid.parquet")
    shutil.copy(results / "index.json", folder)
    report = check.check(folder)
    assert (report.faults, len(report.promises)) == ([], 2)


def test_quantizers_are_of_text_or_fused_vectors_and_compared_codes_of_fused_ones(results):
    fused = PRINT | {"fuse.method": "graph"}
    ids = pa.chunked_array([np.arange(100, 100 + whole_results.N)])
    vectors = np.ones((whole_results.N, DIM), np.float32)
    sums = vector_store.write(results / "items/fused.npy", vectors.shape, "float32", [vectors])
    vector_store.write_ids(results / "items/fused_ids.parquet", ids, vectors.shape, fused, sums)
    shutil.copytree(results / "rqkmeans", results / "similarity")

    def trained_on(name, fingerprint):
        path = results / name / "quantizer.safetensors"
        quantizer = quantizer_file.read(path)
        quantizer_file.write(path, quantizer._replace(fingerprint=fingerprint))

    other = PRINT | {"fuse.method": "svd"}
    for name, sound, wrong in (
        ("similarity", [fused], [PRINT, other]),
        ("rqkmeans", [PRINT, fused], [other]),
    ):
        for fingerprint in wrong:
            trained_on(name, fingerprint)
            found = [fault for fault in faults_of(results) if fault.startswith(f"{name}/")]
            assert len(found) == 1
            assert "trained on other embeddings than those of fused_ids.parquet" in found[0]
        for fingerprint in sound:
            trained_on(name, fingerprint)
            assert not [fault for fault in faults_of(results) if fault.startswith(f"{name}/")]


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(SidmillError, match="no file of a known name: name a folder of results"):
        check.check(tmp_path)
    with pytest.raises(SidmillError, match="no such folder"):
        check.check(tmp_path / "absent")


def test_the_schemas_in_docs_are_those_of_the_code():
    spec = importlib.util.spec_from_file_location("docs_schemas", ROOT / "docs/schemas.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = {path.name: path.read_text(encoding="utf-8") for path in module.FOLDER.glob("*.json")}
    assert found == module.texts(), "run make docs"


def test_every_path_of_a_schema_is_documented():
    page = (ROOT / "docs/formats.md").read_text(encoding="utf-8")
    for name, form in schemas.FORMS.items():
        assert any(path.rpartition("/")[2] in page for path in form.paths), name
