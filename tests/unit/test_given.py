"""SIDs that exist: what files hold them, what is refused, and what is known without codebooks."""

import json
import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sidmill.core.errors import SidmillError
from sidmill.formats import (
    code_files,
    given_sids,
    item_text,
    ledger_file,
    quantizer_file,
)
from sidmill.items import render
from sidmill.quantize import pretrained
from sidmill.report import comparison, explorer, plots
from sidmill.settings.items import Items
from sidmill.settings.quantize import Pretrained
from sidmill.settings.report import Explorer
from sidmill.settings.sids import Churn, Collisions, Evaluation, Given, Published, Quality
from sidmill.sids import (
    churn,
    evaluate,
    given,
    published_sids,
    quality,
)
from sidmill.sids.resolve import resolve

SIDS = {1: [0, 2, 1], 2: [3, 2, 0], 3: [0, 2, 1]}
COLLISIONS = Collisions(strategy="none", suffix_size=8)


def tokens(sid):
    return [f"<{chr(ord('a') + level)}_{code}>" for level, code in enumerate(sid)]


def write(folder, sids, form="index", kind=None, offset=0):
    """A file of SIDs by pid, as other software writes it."""
    if form == "index":
        path = folder / "index.json"
        path.write_text(json.dumps({str(pid - offset): tokens(sid) for pid, sid in sids.items()}))
        return path
    path = folder / f"{form}.parquet"
    pids = pa.array([pid - offset for pid in sids], kind or pa.int64())
    pq.write_table(pa.table({"pid": pids, form: list(sids.values())}), path)
    return path


def catalogue(folder, ids):
    kind = pa.int64() if isinstance(ids[0], int) else pa.string()
    path = folder / "text.parquet"
    item_text.write(path, kind, [pa.table({"pid": ids, "text": [f"text {pid}" for pid in ids]})])
    return path


def load(folder, path, ids, ledger_path="", **settings):
    text_path = catalogue(folder, ids) if ids else ""
    id_type = settings.pop("id_type", "auto")
    return given.load(text_path, ledger_path, Given(path=str(path), **settings), id_type)


@pytest.mark.parametrize("form", ["index", "sid", "codes"])
@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize("offset", [0, 1, -5])
@pytest.mark.parametrize("order", [[1, 2, 3], [3, 1, 2]])
def test_every_form_gives_the_sids_in_the_order_of_the_catalogue(
    tmp_path, form, as_text, offset, order
):
    path = write(tmp_path, SIDS, form, offset=offset)
    ids = [str(pid) for pid in order] if as_text else order
    found = load(tmp_path, path, ids, id_offset=offset)
    assert found.ids.to_pylist() == ids
    assert found.codes.tolist() == [SIDS[pid] for pid in order]
    assert (found.sizes, found.codes.dtype) == ([4, 3, 2], np.int32)
    assert not len(found.others)


@pytest.mark.parametrize("kind", given_sids.INTEGERS, ids=str)
def test_ids_and_codes_of_every_type_of_integer_are_taken(tmp_path, kind):
    pids = pa.array(list(SIDS), kind)
    lists = pa.array(list(SIDS.values()), pa.list_(kind))
    pq.write_table(pa.table({"pid": pids, "sid": lists}), tmp_path / "s.parquet")
    found = load(tmp_path, tmp_path / "s.parquet", [1, 2, 3])
    assert found.codes.tolist() == list(SIDS.values())


def test_ids_that_are_no_numbers_stay_as_they_are(tmp_path):
    (tmp_path / "i.json").write_text(json.dumps({"B00": tokens([1]), "007": tokens([0])}))
    found = load(tmp_path, tmp_path / "i.json", ["007", "B00"])
    assert found.codes.tolist() == [[0], [1]]


@pytest.mark.parametrize(
    ("id_type", "names", "wanted"),
    [
        ("auto", ["1", "2"], [1, 2]),
        ("auto", ["1", "a"], ["1", "a"]),
        ("string", ["1", "2"], ["1", "2"]),
        ("int", ["1", "2"], [1, 2]),
    ],
)
def test_without_a_catalogue_the_items_are_those_of_the_file(tmp_path, id_type, names, wanted):
    (tmp_path / "i.json").write_text(json.dumps({name: tokens([0, 1]) for name in names}))
    assert load(tmp_path, tmp_path / "i.json", None, id_type=id_type).ids.to_pylist() == wanted


def test_sizes_come_from_the_setting_else_from_the_file_else_from_the_codes(tmp_path):
    path = tmp_path / "pid2sid.parquet"
    code_files.write(path, "sid", pa.chunked_array([[1]]), [np.array([[0, 2]])], [8, 9])
    assert load(tmp_path, path, [1]).sizes == [8, 9]
    assert load(tmp_path, path, [1], codebook_sizes=[16, 16]).sizes == [16, 16]
    assert load(tmp_path, write(tmp_path, {1: [0, 2]}), [1]).sizes == [1, 3]
    for wanted in ([16], [16, 2], [16, 16, 16]):
        with pytest.raises(SidmillError, match=r"codebook_sizes: found .* need \[1, 3\] at least"):
            load(tmp_path, path, [1], codebook_sizes=wanted)


JSON_FAULTS = {
    '{"1": ["<a_1>"], "2": ["<a_1>", "<b_2>"]}': "1 of 2 items .* '2': 2 tokens, the first item",
    '{"1": ["<a_1>", "<b_2>"], "2": ["<a_1>"]}': "'2': 1 tokens, the first item has 2",
    '{"1": ["<a_1>", "<c_2>"]}': "<c_2> stands at level 2, wanted <b_",
    '{"1": ["<b_1>", "<a_2>"]}': "<b_1> stands at level 1",
    '{"1": ["<a_1>", "<a_2>"]}': "<a_2> stands at level 2",
    '{"1": ["<a_-1>"]}': "'<a_-1>' is no token",
    '{"1": ["<a_01>"]}': "'<a_01>' is no token",
    '{"1": ["<a_1.0>"]}': "is no token",
    '{"1": ["<s_a_1>"]}': "'<s_a_1>' is no token",
    '{"1": ["a_1"]}': "'a_1' is no token",
    '{"1": ["<a_1> "]}': "is no token",
    '{"1": ["<a_1>\\n"]}': "is no token",
    '{"1": ["<a_\u0663>"]}': "is no token",
    '{"1": [1, 2]}': "1 is no token",
    '{"1": [null]}': "None is no token",
    '{"1": []}': "no tokens",
    '{"1": ["<a_1048576>"]}': "1 items have a code of 1048576 or more: 1",
    '{"1": ["<a_99999999999>"]}': "is no token",
    '{"1": ["<a_1>"], "1": ["<a_2>"]}': "1 items are listed twice or more: 1",
    '{"1": "<a_1>"}': "wanted .* found '<a_1>' under '1'",
    '{"1": {"a": 1}}': "found a start map under '1'",
    '{"1": [["<a_1>"]]}': "found a start array under '1'",
    '[["<a_1>"]]': "found a start array after 0 items",
    '"<a_1>"': "wanted .* found '<a_1>'",
    "{}": "holds no SID",
    '{"1": ["<a_1>"]': "not JSON after 1 items",
    '{"1": ["<a_1>"]} x': "not JSON after 1 items",
    "": "not JSON after 0 items",
}


@pytest.mark.parametrize("words", JSON_FAULTS)
def test_an_index_of_another_form_is_refused_with_the_item_and_the_token(tmp_path, words):
    (tmp_path / "i.json").write_text(words)
    with pytest.raises(SidmillError, match=JSON_FAULTS[words]):
        given_sids.read(tmp_path / "i.json")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"pid": [1, 2], "sid": [[1], [1, 2]]}, "row 0 has 1 values, row 1 has 2"),
        ({"pid": [1, 2], "sid": [[1], None]}, "1 rows without 'sid', first row 1"),
        ({"pid": [1], "sid": [[1, None]]}, "row 0 of 'sid' lacks a value"),
        ({"pid": [1, None], "sid": [[1], [2]]}, "1 rows without a pid"),
        ({"pid": [5, 6, 7], "sid": [[1], [-1], [-2]]}, "2 items have a code below 0: 6, 7"),
        ({"pid": [5], "sid": [[2**40]]}, "1 items have a code of 1048576 or more: 5"),
        ({"pid": [5, 6, 5], "sid": [[1], [2], [3]]}, "1 items are listed twice or more: 5"),
        ({"pid": ["a", "a"], "sid": [[1], [2]]}, "1 items are listed twice or more: 'a'"),
        ({"pid": [1], "sid": [["<a_1>"]]}, "column 'sid' has type"),
        ({"pid": [1], "sid": [[1.0]]}, "column 'sid' has type"),
        ({"pid": [1], "sids": [[1]]}, "wanted a column sid or a column codes beside pid"),
        ({"pid": [1], "sid": [[1]], "codes": [[1]]}, "found sid and codes: keep one"),
        ({"item": [1], "sid": [[1]]}, "0 columns named 'pid'"),
        ({"pid": [1.5], "sid": [[1]]}, "column 'pid' has type double"),
        ({"pid": pa.array([], pa.int64()), "sid": pa.array([], pa.list_(pa.int32()))}, "no SID"),
        ({"pid": [1], "sid": [[0] * 27]}, "SIDs of 27 tokens, at most 26"),
        ({"pid": [1], "sid": pa.array([[2**63 + 1]], pa.list_(pa.uint64()))}, "correct the file"),
    ],
)
def test_a_parquet_of_another_form_is_refused(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "s.parquet")
    with pytest.raises(SidmillError, match=message) as caught:
        given_sids.read(tmp_path / "s.parquet")
    assert "delete" not in str(caught.value)  # it is the user's


@pytest.mark.parametrize("stored", ["[4, 3]", "[1, 3, 2]", '{"a": 1}', "[4, 3, 2.5]", "no JSON"])
def test_metadata_that_does_not_fit_is_refused(tmp_path, stored):
    table = pa.table({"pid": list(SIDS), "sid": list(SIDS.values())})
    table = table.replace_schema_metadata({code_files.SIZES_KEY: stored})
    pq.write_table(table, tmp_path / "s.parquet")
    with pytest.raises(SidmillError, match="metadata"):
        given_sids.read(tmp_path / "s.parquet")


def test_another_kind_of_file_is_refused(tmp_path):
    for name in ("sids.csv", "sids", "index.json.gz"):
        (tmp_path / name).write_text("1")
        with pytest.raises(SidmillError, match=r"SIDs are read from \.parquet"):
            given_sids.read(tmp_path / name)
    for name in ("none.json", "none.parquet"):
        with pytest.raises(SidmillError, match="no such file"):
            given_sids.read(tmp_path / name)


def test_at_most_twenty_names_and_how_many_more(tmp_path):
    sids = {pid: [pid, 0] for pid in range(100)}
    path = write(tmp_path, sids)
    with pytest.raises(SidmillError, match=r"80 of 180 items .* and 60 more") as caught:
        load(tmp_path, path, list(range(180)))
    names = str(caught.value).partition("have no SID: ")[2].partition(" and ")[0]
    assert names == ", ".join(map(str, range(100, 120)))
    bad = {str(pid): ["<a_x>"] for pid in range(50)}
    (tmp_path / "bad.json").write_text(json.dumps(bad))
    with pytest.raises(SidmillError, match=r"50 of 50 items .* and 30 more"):
        given_sids.read(tmp_path / "bad.json")


def test_missing_and_unknown_items_are_told_in_one_message_with_true_remedies(tmp_path, caplog):
    path = write(tmp_path, {**SIDS, 8: [1, 1, 1]})
    with pytest.raises(SidmillError) as caught:
        load(tmp_path, path, [1, 3, 2, 9])
    said = str(caught.value)
    assert "1 of 4 items of the catalogue have no SID: 9: add their SIDs to the file" in said
    assert "1 of 4 SIDs are of items that the catalogue lacks: 8: add these items" in said

    # Each remedy, carried out.
    reject = dict(re.findall(r"given\.(on_\w+): (reject)", said))
    assert set(reject) == {"on_missing_sids", "on_unknown_items"}
    out, rejects = tmp_path / "text.parquet", tmp_path / "rejects.parquet"
    rows = [{"item_id": pid, "title": f"item {pid}"} for pid in (1, 3, 2, 9)]
    (tmp_path / "items.json").write_text(json.dumps(rows))
    items = Items(path=str(tmp_path / "items.json"), fields=["title"])
    render.render(str(out), str(rejects), items, (str(path), 0))
    assert pq.read_table(rejects).to_pylist()[0]["reason"] == "no SID in given.path"
    assert pq.read_table(rejects)["pid"].to_pylist() == ["9"]
    found = given.load(str(out), "", Given(path=str(path), **reject), "auto")
    assert found.ids.to_pylist() == [1, 3, 2]
    assert "1 SIDs of items that the catalogue lacks are left out: 8" in caplog.text
    assert (found.others.to_pylist(), found.other_codes.tolist()) == ([8], [[1, 1, 1]])
    given.write_rejects(tmp_path / "given.parquet", found)
    assert pq.read_table(tmp_path / "given.parquet").to_pylist() == [{"pid": 8, "sid": [1, 1, 1]}]

    path = write(tmp_path, {**SIDS, 9: [1, 1, 1]})  # "add their SIDs", "add these items"
    assert load(tmp_path, path, [1, 3, 2, 9]).codes[3].tolist() == [1, 1, 1]


@pytest.mark.parametrize("shift", [-3, 1, 7])
def test_an_offset_that_would_fit_is_named_and_fits(tmp_path, shift):
    path = write(tmp_path, {pid: [pid] for pid in range(10, 20)}, offset=shift)
    with pytest.raises(SidmillError) as caught:
        load(tmp_path, path, list(range(10, 20)))
    told = int(re.search(r"With given\.id_offset: (-?\d+) every item", str(caught.value))[1])
    assert load(tmp_path, path, list(range(10, 20)), id_offset=told).codes[0].tolist() == [10]


def test_ids_that_cannot_be_the_catalogues_are_refused(tmp_path):
    (tmp_path / "i.json").write_text(json.dumps({"1": tokens([0]), "B7": tokens([1])}))
    with pytest.raises(SidmillError, match=r"1 ids are no integers, .*: 'B7'.*items\.id_type"):
        load(tmp_path, tmp_path / "i.json", [1, 2])
    with pytest.raises(SidmillError, match=r"id_offset: found 1, but 1 ids .* set it to 0"):
        load(tmp_path, tmp_path / "i.json", ["1", "B7"], id_offset=1)
    assert len(load(tmp_path, tmp_path / "i.json", ["1", "B7"]).ids) == 2
    for form in ("index", "sid"):
        path = write(tmp_path, {2**63 - 1: [1]}, form)
        assert load(tmp_path, path, [2**63 - 1]).codes.tolist() == [[1]]
        with pytest.raises(SidmillError, match="do not fit in 64 bits"):
            load(tmp_path, path, [1], id_offset=1)
    path = write(tmp_path, {2**63: [1]})
    with pytest.raises(SidmillError, match="do not fit in 64 bits"):
        load(tmp_path, path, [1])
    assert len(load(tmp_path, path, [str(2**63)]).ids) == 1  # "set items.id_type: string"


def version_of(ids, codes, sids=None):
    n = len(ids)
    return ledger_file.Ledger(
        pa.chunked_array([ids]), np.array(sids if sids is not None else codes, np.int32),
        np.array(codes, np.int32), np.array([b"x" * 16] * n, "S16"), np.zeros(n, np.int8),
        np.ones(n, np.int32), np.ones(n, bool), [16] * len(codes[0]), 1,
    )  # fmt: skip


def test_another_sid_than_the_published_one_is_refused(tmp_path):
    path, ledger_path = write(tmp_path, SIDS), tmp_path / "ledger.parquet"
    codes = [SIDS[1], SIDS[2]]
    ledger_file.write(ledger_path, version_of([1, 2], codes))
    assert len(load(tmp_path, path, [1, 2, 3], ledger_path).ids) == 3
    ledger_file.write(
        ledger_path, version_of([1, 2], codes, [SIDS[1], [9, 9, 9]])
    )  # resolution moved 2
    assert len(load(tmp_path, path, [1, 2, 3], ledger_path).ids) == 3
    ledger_file.write(ledger_path, version_of([1, 2], [SIDS[1], [9, 9, 9]]))
    with pytest.raises(
        SidmillError, match=r"1 items have another SID than in the published .*: 2:"
    ):
        load(tmp_path, path, [1, 2, 3], ledger_path)
    ledger_file.write(ledger_path, version_of([1], [[1, 2]]))
    with pytest.raises(SidmillError, match="SIDs of 3 tokens, those of the published version"):
        load(tmp_path, path, [1, 2, 3], ledger_path)


@pytest.fixture
def shared():
    """Codes of 12 items, some of them shared, without codebooks."""
    codes = np.array([[i % 2, i % 3, i % 2] for i in range(12)], dtype=np.int32)
    return codes, [2, 3, 4]


@pytest.mark.parametrize("strategy", ["none", "reassign", "suffix"])
def test_resolution_needs_neither_codebooks_nor_vectors_nor_texts(shared, strategy):
    codes, sizes = shared
    found = resolve(codes, sizes, None, [], None, replace(COLLISIONS, strategy=strategy))
    n_sids = len(np.unique(found.sids, axis=0))
    assert found.cost["added_mse"] is None
    assert n_sids == (len(np.unique(codes, axis=0)) if strategy == "none" else 12)
    if strategy == "none":
        np.testing.assert_array_equal(found.sids, codes)
    if strategy == "reassign":
        assert found.cost["items_moved"] == 12 - len(np.unique(codes, axis=0))
        np.testing.assert_array_equal(found.sids[:, :2], codes[:, :2])  # room under each prefix
        np.testing.assert_array_equal(found.sids[:6], codes[:6])  # the lower rows stay
        assert found.sids[6:, 2].tolist() == [1, 0, 1, 0, 1, 0]  # the lowest free codes


def test_what_needs_codebooks_or_texts_is_refused(shared):
    with pytest.raises(SidmillError, match=r"sinkhorn .* given SIDs have none: set none"):
        resolve(*shared, None, [], None, Collisions(strategy="sinkhorn"))
    with pytest.raises(SidmillError, match="share needs the texts"):
        resolve(*shared, None, [], None, replace(COLLISIONS, identical_text="share"))


def test_a_suffix_needs_a_letter(rng):
    codes = rng.integers(0, 2, (3, 26)).astype(np.int32)
    with pytest.raises(SidmillError, match="26 levels have no letter left"):
        resolve(codes, [2] * 26, None, [], None, replace(COLLISIONS, strategy="suffix"))
    resolve(codes, [2] * 26, None, [], None, COLLISIONS)


def test_a_quantizer_without_codebooks_is_read_only_where_it_is_meant(tmp_path):
    path = tmp_path / "quantizer.safetensors"
    none = pa.chunked_array([pa.array([], pa.int64())])
    codes = np.zeros((1, 2), np.int32)
    loaded = given.Loaded(pa.chunked_array([[1]]), codes, [3, 4], none, codes[:0])
    quantizer_file.write(path, given.quantizer_of(loaded, "folder/index.json"))
    back = quantizer_file.read(path, without_codebooks=True)
    assert (back.codebook_sizes, back.codebooks, back.kind) == ([3, 4], [], "given")
    assert back.settings["source"] == "index.json"
    for reader in (
        quantizer_file.read,
        lambda path: pretrained.load(Pretrained(path=str(path)), dim=2, fingerprint={}),
    ):
        with pytest.raises(SidmillError, match="has no codebooks, and nothing can be encoded"):
            reader(path)
    with pytest.raises(SidmillError, match="has no codebooks, and says sizes of None"):
        quantizer_file.write(path, quantizer_file.Quantizer("rqkmeans", [], {}, {}))


def test_figures_are_null_where_they_need_what_is_not_there(shared, rng, tmp_path):
    codes, sizes = shared
    settings = Quality(neighbour_queries=5, neighbours=2)
    both = [code_files.Codes(None, codes, sizes)] * 2
    without = quantizer_file.Quantizer("given", [], {"codebook_sizes": sizes}, {})
    zeros = [np.zeros((size, 3), np.float32) for size in sizes]
    vectors = rng.standard_normal((12, 3)).astype(np.float32)
    blind = quality.measure(*both, None, without, None, settings, seed=0)
    seeing = quality.measure(*both, vectors, without, np.arange(12), settings, seed=0)
    fitted = quantizer_file.Quantizer("rqkmeans", zeros, {}, {})
    whole = quality.measure(*both, vectors, fitted, np.arange(12), settings, seed=0)
    for found in (blind, seeing):
        assert found["before"]["mse"] is found["before"]["relative_loss"] is None
        assert all(level["mse"] is None for level in found["after"]["levels"])
        assert "mse, relative_loss" in found["not_measured"]
        for figure in ("distinct", "collision_rate", "entropy_bits", "neighbours_chance"):
            assert found["after"][figure] == whole["after"][figure]
    assert (
        blind["dim"] is blind["identical_text_items"] is blind["after"]["neighbours"]["1"] is None
    )
    assert "harmful" not in blind["after"]
    assert seeing["after"]["neighbours"] == whole["after"]["neighbours"]
    assert whole["not_measured"] == {}
    for draw in (plots.code_usage, plots.prefix_sizes, plots.reconstruction):
        draw(blind | {"resolution": {"strategy": "none"}}, tmp_path / "plot.svg")
        assert (tmp_path / "plot.svg").read_bytes().startswith(b"<?xml")

    settings = Evaluation(neighbour_queries=5, n_neighbours=3)
    figures = evaluate.evaluate(without, vectors, codes, None, settings, seed=0)
    assert figures["neighbour_preservation"]["jaccard"] is None
    assert figures["neighbour_preservation"]["rbo"] is None
    assert (figures["codebook_sizes"], figures["relative_loss"]) == (sizes, None)
    assert figures["neighbours"]["1"] is not None


def test_churn_of_given_sids(shared, tmp_path):
    codes, sizes = shared
    before = version_of(list(range(12)), codes.tolist())._replace(sizes=sizes)
    now = published_sids.carry_on(
        before, before.ids, codes, sizes, codes, before.digests, Published()
    )
    fitted = quantizer_file.Quantizer("given", [], {"codebook_sizes": sizes}, {})
    limits = Churn(min_items=1, neighbour_queries=2, neighbours=2)
    found = churn.measure(before, now, None, fitted, str(tmp_path / "c.parquet"), limits, seed=0)
    assert found["drift"]["error_growth"] == [None] * 3
    assert found["drift"]["neighbours"] == {"trained": None, "since": None}
    assert found["retrain"] == "not due"
    assert "error_growth" in found["because"][-1]


def test_the_explorer_shows_ids_where_there_are_no_texts(shared, tmp_path):
    codes, sizes = shared
    ids = pa.chunked_array([[f"<item {i}>" for i in range(12)]])
    for name, column in (("pid2sid", "sid"), ("codes", "codes")):
        code_files.write(tmp_path / f"{name}.parquet", column, ids, [codes], sizes)
    (tmp_path / "page.jinja").write_text("{{ title }} {{ data | safe }}")
    sources = explorer.Sources(
        tmp_path / "page.jinja", tmp_path / "pid2sid.parquet", tmp_path / "codes.parquet", []
    )
    shown = explorer.write(tmp_path / "page.html", sources, Explorer(title="T"), seed=0)
    data = json.loads((tmp_path / "page.html").read_text().partition(" ")[2])
    assert shown.shown == 12
    assert sorted(data["texts"]) == sorted(ids.to_pylist())
    assert data["same_text"] == []


def test_a_comparison_says_how_to_take_given_sids_in():
    with pytest.raises(SidmillError) as caught:
        comparison._check_budget("given", [4, 4, 4, 4], [8, 8, 8])
    found = re.search(r"n_levels: (\d+) and rqkmeans\.codebook_size: (\[.*?\])", str(caught.value))
    sizes = json.loads(found[2])
    assert int(found[1]) == len(sizes)
    comparison._check_budget("given", [4, 4, 4, 4], sizes)  # what it says, done
