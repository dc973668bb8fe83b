"""Files of retrieval as their projects write them, ids of any kind, and what no run can find."""

import gzip
import json
import logging
import subprocess

import ir_measures
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sidmill.core.errors import SidmillError
from sidmill.formats import (
    item_text,
    neighbour_lists,
    passages,
    qrels,
    run_files,
)
from sidmill.formats.run_files import Run
from sidmill.formats.vector_store import VectorStore
from sidmill.retrieval import (
    bm25,
    measure,
    read,
    search,
    training_data,
)
from sidmill.retrieval.choose import choose
from sidmill.settings.retrieval import Bm25, Faiss, Retrieval, RetrievalMetrics, Training


def put(folder, name, content):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(folder / name)


def read_texts(folder, kind, path, ids=None, **changes):
    """Texts by id, and the rejects."""
    out = [folder / name for name in ("text.parquet", "rejects.parquet")]
    if kind == "corpus":
        read.read_corpus(*out, Retrieval(corpus=path, corpus_ids=ids, **changes))
    else:
        read.read_queries(*out, Retrieval(queries=path, query_ids=ids, **changes))
    table = pq.read_table(out[0])
    found = dict(zip(table["pid"].to_pylist(), table["text"].to_pylist(), strict=True))
    return found, pq.read_table(out[1]).to_pylist()


# --- MS MARCO and RocketQA

MARCO = {
    "collection": ("corpus", "0\tThe presence of\n1\tThe Manhattan\n", {"0": "The presence of",
                                                                       "1": "The Manhattan"}),
    "documents": ("corpus", "D1\thttps://a.b\tTitle\tBody 1\nD2\thttps://a.c\t-\tBody 2\n",
                  {"D1": "Title\nBody 1", "D2": "Body 2"}),
    "queries": ("queries", "121352\tdefine extreme\n634306\twhat does chattel mean\n",
                {"121352": "define extreme", "634306": "what does chattel mean"}),
}  # fmt: skip
ROCKET = {
    "passages": ("corpus", "-\t一年\nTitle\ttext 2\n", {0: "一年", 1: "Title\ntext 2"}),
    "four": ("corpus", "\tTitle\ttext\t0\n-\t\tplain\t0\n", {0: "Title\ntext", 1: "plain"}),
    "numbered titles": ("corpus", "1984\ta novel\n1984\ta film\n", {0: "1984\na novel",
                                                                    1: "1984\na film"}),
    "queries": ("queries", "国家法定节假日\t-\t-\t0\n2\t-\t-\t0\n", {0: "国家法定节假日", 1: "2"}),
    "texts alone": ("queries", "one\ntwo\n", {0: "one", 1: "two"}),
    "numbers alone": ("queries", "1\n2\n", {0: "1", 1: "2"}),
}  # fmt: skip


@pytest.mark.parametrize("name", MARCO)
def test_ms_marco_is_told_and_said_and_can_be_set(tmp_path, caplog, name):
    kind, content, wanted = MARCO[name]
    path = put(tmp_path, "x.tsv", content)
    caplog.set_level(logging.INFO)
    assert read_texts(tmp_path, kind, path)[0] == wanted
    assert "is read as msmarco" in caplog.text
    assert "set retrieval.form" in caplog.text
    assert read_texts(tmp_path, kind, path, form="msmarco")[0] == wanted
    other = read_texts(tmp_path, kind, path, form="rocketqa")[0]
    assert list(other) == list(range(len(wanted)))
    ids = put(tmp_path, "map.json", '{"0": "a"}')
    with pytest.raises(SidmillError, match="holds its own ids"):
        read_texts(tmp_path, kind, path, ids)


@pytest.mark.parametrize("name", ROCKET)
def test_rocketqa_is_not_taken_for_ms_marco(tmp_path, caplog, name):
    kind, content, wanted = ROCKET[name]
    caplog.set_level(logging.INFO)
    assert read_texts(tmp_path, kind, put(tmp_path, "x", content))[0] == wanted
    assert ("is read as rocketqa" in caplog.text) == ("\t" in content)


@pytest.mark.parametrize("wrap", ["plain", "gz", "zst", "bom", "utf-16", "crlf"])
def test_columns_in_every_wrapping(tmp_path, wrap):
    content = "-\tthé\nTitle\ttext\n"
    data, name = content.encode(), "x.tsv"
    if wrap == "gz":
        data, name = gzip.compress(data), "x.tsv.gz"
    elif wrap == "zst":
        data, name = pa.compress(data, "zstd", asbytes=True), "x.tsv.zst"
    elif wrap in ("bom", "utf-16"):
        data = content.encode({"bom": "utf-8-sig"}.get(wrap, wrap))
    elif wrap == "crlf":
        data = data.replace(b"\n", b"\r\n")
    assert read_texts(tmp_path, "corpus", put(tmp_path, name, data))[0] == {
        0: "thé", 1: "Title\ntext"
    }  # fmt: skip


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_maps_with_spaces_and_byte_order_marks(tmp_path, mark):
    path = put(tmp_path, "dev.q", "国家\t-\nother one \t-\n")
    ids = put(tmp_path, "q2qid.json", mark + json.dumps({"国家 ": "q1", " other one": 7}).encode())
    with pytest.raises(SidmillError, match="write all ids alike"):
        read_texts(tmp_path, "queries", path, ids)
    ids = put(
        tmp_path, "q2qid.json", mark + json.dumps({"国家 ": "q1", " other one": "7"}).encode()
    )
    assert read_texts(tmp_path, "queries", path, ids)[0] == {"q1": "国家", "7": "other one"}
    path = put(tmp_path, "x.para", "-\ta\n-\tb\n")
    for indent in (None, 2):
        content = json.dumps({"0": "id0", "1": "id1"}, indent=indent).encode()
        ids = put(tmp_path, "map.json", mark + content)
        assert read_texts(tmp_path, "corpus", path, ids)[0] == {"id0": "a", "id1": "b"}


@pytest.mark.parametrize("content", ["[1]", "7", "", '{"0": "a"', '{"0" "a"}', "null"])
def test_a_map_that_is_none_says_so(tmp_path, content):
    path = put(tmp_path, "x.para", "-\ta\n-\tb\n")
    ids = put(tmp_path, "map.json", content)
    with pytest.raises(SidmillError, match=r"map\.json"):
        read_texts(tmp_path, "corpus", path, ids)


# --- odd lines

ODD = {
    "an id of another kind": '{"_id": 5, "text": "x"}',
    "half a character in an id": '{"_id": "\\ud800", "text": "x"}',
    "a tab in an id": '{"_id": "a\\tb", "text": "x"}',
    "a line break in an id": '{"_id": "a\\nb", "text": "x"}',
    "no id": '{"text": "x"}',
    "white space for an id": '{"_id": " ", "text": "x"}',
    "a float for an id": '{"_id": 1.0, "text": "x"}',
    "a list for an id": '{"_id": [1], "text": "x"}',
    "an id above 64 bits": '{"_id": 18446744073709551616, "text": "x"}',
    "a number": "7",
    "not UTF-8": b'{"_id": "z", "text": "\xff"}',
}


@pytest.mark.parametrize("name", ODD)
def test_one_odd_passage_changes_nothing_about_the_others(tmp_path, name):
    odd = ODD[name] if isinstance(ODD[name], bytes) else ODD[name].encode()
    good = [f'{{"_id": "{n}", "text": "thé"}}'.encode() for n in range(2)]
    path = put(tmp_path, "c.jsonl", b"\n".join([good[0], odd, good[1]]))
    with pytest.raises(SidmillError, match=r"line 2: .*set retrieval\.on_bad_rows: reject"):
        read_texts(tmp_path, "corpus", path)
    found, rejects = read_texts(tmp_path, "corpus", path, on_bad_rows="reject")
    assert found == {"0": "thé", "1": "thé"}
    assert [reject["row"] for reject in rejects] == [2]


def test_passages_by_name_in_one_object(tmp_path):
    content = json.dumps({"d1": {"title": "T", "text": "x"}, "d2": {"text": "y"}})
    path = put(tmp_path, "corpus.json", content)
    assert read_texts(tmp_path, "corpus", path)[0] == {"d1": "T\nx", "d2": "y"}


def test_an_id_that_is_none_says_what_it_is(tmp_path):
    path = put(tmp_path, "c.jsonl", '{"_id": 1.0, "text": "x"}\n')
    with pytest.raises(SidmillError, match=r"its id 1\.0 is a float, wanted text or an integer"):
        read_texts(tmp_path, "corpus", path)


def test_a_repeated_passage_stops_or_is_listed(tmp_path):
    good = '{"_id": "a", "text": "x"}\n{"_id": "b", "text": "y"}\n'
    path = put(tmp_path, "c.jsonl", good + '{"_id": "a", "text": "z"}\n' + good)
    with pytest.raises(SidmillError, match="id 'a' belongs to two texts"):
        read_texts(tmp_path, "corpus", path)
    changes = {"on_bad_rows": "reject", "max_reject_share": 1.0}
    found, rejects = read_texts(tmp_path, "corpus", path, **changes)
    assert found == {"a": "x", "b": "y"}
    assert [reject["row"] for reject in rejects] == [3, 4, 5]
    assert "stands already at" in rejects[0]["reason"]


def test_a_file_without_a_good_line_says_why(tmp_path):
    path = put(tmp_path, "c.jsonl", '{"_id": "a", "text": "?"}\n' * 2)
    with pytest.raises(SidmillError, match=r"gives a text; first: .*line 1: no letter or digit"):
        read_texts(tmp_path, "corpus", path, on_bad_rows="reject")


READERS = {
    "corpus": ("-\tthé\n-\tcafé\n-\tred\n", {}),
    "queries": ("thé\ncafé\nred\n", {}),
    "qrels": ("q\té\t1\nq\tà\t1\nq\ta\t1\n", {}),
    "dual": ("q\t\tthé\t\tno\t0\nq\t\tcafé\t\tno\t0\nq\t\ta\t\tno\t0\n", {}),
}


@pytest.mark.parametrize("on_bad_rows", ["error", "reject"])
@pytest.mark.parametrize("kind", READERS)
def test_files_in_another_encoding_stop_and_the_remedy_works(tmp_path, kind, on_bad_rows):
    def run(path):
        out = tmp_path / "out.parquet", tmp_path / "rejects.parquet"
        rules = {"on_bad_rows": on_bad_rows, "max_reject_share": 1.0}
        if kind == "qrels":
            read.read_qrels(*out, Retrieval(qrels=path, **rules))
        elif kind == "dual":
            training_data.read_training(*out, None, None, "dual", Training(dual=path, **rules))
        else:
            read_texts(tmp_path, kind, path, **rules)

    path = put(tmp_path, "x.tsv", READERS[kind][0].encode("latin-1"))
    with pytest.raises(SidmillError, match=r"not UTF-8.*iconv") as error:
        run(path)
    message = str(error.value)
    command = message[message.index("iconv -f") :].split("NEW_FILE")[0]
    subprocess.run(command + str(tmp_path / "new.tsv"), shell=True, check=True)
    run(str(tmp_path / "new.tsv"))


# --- ids with spaces


def a_run(pids, qids=("q 1",)):
    scores = np.tile(np.arange(len(pids), 0, -1, dtype=np.float32), (len(qids), 1))
    return Run(list(qids), [list(pids)] * len(qids), scores)


def write_run(folder, run):
    paths = [folder / name for name in ("res.topk", "run.trec", "res.json")]
    run_files.write(*map(str, paths), run, "tag")
    return paths


@pytest.mark.parametrize(
    ("pids", "spaced"),
    [(["a", "b"], False), (["SKU 12", "b"], True), (["a\u3000b", " x "], True), (["a\x0bb"], True),
     (["\x85"], True), (["é\u2028"], True)],
)  # fmt: skip
def test_ids_with_spaces_leave_run_trec_alone_out(tmp_path, caplog, pids, spaced):
    run = a_run(pids, ["q1"])
    topk, trec, foreign = write_run(tmp_path, run)
    again = run_files.read(topk)
    assert (again.qids, again.pids) == (run.qids, run.pids)
    assert json.loads(foreign.read_text()) == {"q1": list(pids)}
    assert (trec.read_text() == "") == spaced
    assert ("left empty" in caplog.text) == spaced


# --- ties


TIED = np.array(
    [[2, 2, 2, 1, 1], [1e-40, 0, 0, -0.0, -1e-45], [3e38, 3e38, 1, -3e38, -3e38], [5, 4, 3, 2, 1]],
    dtype=np.float32,
)


def test_scores_of_run_trec_fall_and_are_those_of_the_run_where_these_fall():
    falling = run_files.falling(TIED)
    assert falling.dtype == np.float32
    normal = np.where(np.abs(falling) < np.finfo(np.float32).tiny, 0, falling)  # as flushed
    assert (normal[:, 1:] < normal[:, :-1]).all()
    assert falling[3].tolist() == TIED[3].tolist()
    assert (falling[:, 0] == TIED[:, 0]).all()
    np.testing.assert_allclose(falling, TIED, rtol=1e-6, atol=1e-37)


@pytest.mark.parametrize("names", [["a", "b", "c", "d", "e"], ["e", "d", "c", "b", "a"]])
@pytest.mark.parametrize("scores", TIED)
def test_every_scorer_ranks_run_trec_as_res_topk_does(tmp_path, names, scores):
    """Two providers of ir_measures, each with its own rule for ties."""
    answer = 2
    topk, trec, _ = write_run(tmp_path, Run(["q"], [names], scores[None]))
    assert run_files.read(topk).pids == [names]
    judged = [ir_measures.Qrel("q", names[answer], 1)]
    found = ir_measures.calc_aggregate(
        [ir_measures.RR, ir_measures.RR @ 5, ir_measures.Success @ 2, ir_measures.Success @ 3],
        judged,
        list(ir_measures.read_trec_run(str(trec))),
    )
    assert sorted(found.values()) == [0, pytest.approx(1 / 3), pytest.approx(1 / 3), 1]


@pytest.mark.parametrize("pid", ["", "a\tb", "a\nb", "a\rb"])
def test_ids_that_break_lines_are_refused_before_the_search(tmp_path, pid):
    with pytest.raises(SidmillError, match="tab or a line break"):
        write_run(tmp_path, a_run([pid]))
    assert not list(tmp_path.iterdir())
    for name, pids in (("corpus", [pid, "b"]), ("queries", ["q"])):
        table = pa.table({"pid": pids, "text": ["x"] * len(pids)})
        item_text.write(tmp_path / name, pa.string(), [table])
    paths = [tmp_path / name for name in ("corpus", "queries", "spool")]
    with pytest.raises(SidmillError, match="tab or a line break"):
        bm25.search(*paths, Retrieval(top_k=1), Bm25())
    vectors = np.eye(2, dtype=np.float32)
    corpus = VectorStore(vectors, pa.chunked_array([[pid, "b"]]), {})
    with pytest.raises(SidmillError, match="tab or a line break"):
        search.search_shard(corpus, corpus, None, 0, 1, Retrieval(top_k=1), Faiss())


# --- queries that stand in the corpus


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("kind", [pa.int64(), pa.string()])
def test_the_own_passage_is_counted_and_left_out_where_wanted(rng, tmp_path, caplog, kind, shards):
    caplog.set_level(logging.INFO)
    vectors = rng.standard_normal((20, 6), dtype=np.float32)
    ids = pa.chunked_array([pa.array(range(20)).cast(kind)])
    corpus = VectorStore(vectors, ids, {})
    asked = VectorStore(
        vectors[15:], pa.chunked_array([pa.array([15, 16, 17, 18, 99]).cast(kind)]), {}
    )

    def found(k, exclude_own):
        settings = Retrieval(top_k=k, exclude_own=exclude_own)
        paths = [tmp_path / f"{shard}" for shard in range(shards)]
        for shard, path in enumerate(paths):
            part = search.search_shard(corpus, asked, None, shard, shards, settings, Faiss())
            neighbour_lists.write(path, part)
        return search.merge_shards(paths, ids, asked.ids, settings)

    plain, without = found(6, False), found(5, True)
    assert "4 of 5 queries have the id of a passage, which may be found" in caplog.text
    assert "which is left out" in caplog.text
    for row, qid in enumerate(plain.qids):
        kept = [pid for pid in plain.pids[row] if pid != qid][:5]
        assert without.pids[row] == kept
        places = [plain.pids[row].index(pid) for pid in kept]
        np.testing.assert_array_equal(without.scores[row], plain.scores[row, places])
    found(19, True)
    with pytest.raises(SidmillError, match=r"leaves one out: lower it to at most 19"):
        found(20, True)


def test_bm25_leaves_the_own_passage_out(tmp_path):
    lines = ["red bolt", "red lamp", "blue bolt", "glove"]
    for name in ("corpus", "queries"):
        table = pa.table({"pid": list("abcd"), "text": lines})
        item_text.write(tmp_path / name, pa.string(), [table])
    paths = [tmp_path / name for name in ("corpus", "queries", "spool")]
    run = bm25.search(*paths, Retrieval(top_k=3, exclude_own=True), Bm25())
    assert run.scores.shape == (4, 3)
    for qid, pids in zip(run.qids, run.pids, strict=True):
        assert sorted([qid, *pids]) == list("abcd")
    assert run.pids[0][:2] == ["b", "c"]
    with pytest.raises(SidmillError, match="at most 3"):
        bm25.search(*paths, Retrieval(top_k=4, exclude_own=True), Bm25())


# --- judgements that no run can meet


@pytest.mark.parametrize("kind", [pa.int64(), pa.string()])
def test_answers_that_the_corpus_or_the_run_lacks_are_counted_and_said(tmp_path, caplog, kind):
    table = pa.table({"pid": pa.array([1, 2, 3]).cast(kind), "text": list("abc")})
    item_text.write(tmp_path / "corpus", kind, [table])
    judged = {"q1": {"1": 1, "9": 2, "8": 0}, "q2": {"3": 1}, "q3": {"7": 1}}
    run = a_run(["1", "2"], ["q1", "q2"])
    metrics = RetrievalMetrics(resamples=100)
    figures, _ = measure.measure({"x": run}, judged, str(tmp_path / "corpus"), metrics, 0)
    assert figures["judgements"] == {
        "answers": 4, "answers_without_passage": 2, "answers_without_query": 1
    }  # fmt: skip
    assert "2 of 4 answers are passages that the corpus lacks, such as '9'" in caplog.text
    figures, _ = measure.measure({"x": run}, {"q2": judged["q2"]}, None, metrics, 0)
    assert figures["judgements"]["answers_without_passage"] is None


# --- the converter of DuReader-retrieval


def converted(topk_path, texts_to_ids, lines_to_ids):
    """What its converter makes of res.topk: ids by two maps, in the order of the lines."""
    found = {}
    for line in topk_path.read_text().splitlines():
        query, number, _, _ = line.split("\t")
        found.setdefault(texts_to_ids[query], []).append(lines_to_ids[number])
    return found


@pytest.mark.parametrize("has_maps", [True, False])
def test_res_topk_feeds_the_converter_of_dureader(tmp_path, has_maps):
    queries = put(tmp_path, "dev.q", "国家\t-\nother one\t-\n")
    passage_file = put(tmp_path, "x.para", "-\tred\n-\tblue\n-\tgreen\n")
    texts_to_ids = {"国家": "q1", "other one": "q2"} if has_maps else {"国家": 0, "other one": 1}
    lines_to_ids = {"0": "p0", "1": "p1", "2": "p2"} if has_maps else {n: n for n in "012"}
    query_ids = put(tmp_path, "q2qid.json", json.dumps(texts_to_ids)) if has_maps else None
    corpus_ids = put(tmp_path, "map.json", json.dumps(lines_to_ids)) if has_maps else None
    qids = list(map(str, read_texts(tmp_path, "queries", queries, query_ids)[0]))
    (tmp_path / "text.parquet").rename(tmp_path / "queries.parquet")
    pids = list(map(str, read_texts(tmp_path, "corpus", passage_file, corpus_ids)[0]))
    run = Run(qids, [pids[::-1], pids], np.tile(np.array([3, 2, 1], np.float32), (2, 1)))
    (tmp_path / "dual").mkdir()
    chosen, trec, _ = write_run(tmp_path / "dual", run)

    out = tmp_path / "res.topk", tmp_path / "run.trec"
    files = chosen, trec, tmp_path / "queries.parquet", *out
    names = {"query_ids": query_ids, "corpus_ids": corpus_ids}
    choose(*files, Retrieval(topk_names="dureader", **names))
    wanted = dict(zip(texts_to_ids.values(), run.pids, strict=True))
    assert converted(out[0], texts_to_ids, lines_to_ids) == wanted
    assert out[1].read_bytes() == trec.read_bytes()
    choose(*files, Retrieval(topk_names="ids", **names))
    assert out[0].read_bytes() == chosen.read_bytes()


def test_names_of_dureader_are_refused_for_other_passages_and_the_remedy_works(tmp_path):
    chosen, trec, _ = write_run(tmp_path, a_run(["a", "b"], ["1"]))
    table = pa.table({"pid": ["1"], "text": ["red"]})
    item_text.write(tmp_path / "queries.parquet", pa.string(), [table])
    (tmp_path / "out").mkdir()
    out = tmp_path / "out/res.topk", tmp_path / "out/run.trec"
    files = chosen, trec, tmp_path / "queries.parquet", *out
    with pytest.raises(SidmillError, match=r"'a' has no line number.*topk_names: ids"):
        choose(*files, Retrieval(topk_names="dureader"))
    choose(*files, Retrieval(topk_names="ids"))
    assert out[0].read_bytes() == chosen.read_bytes()


def test_judgements_keep_ids_with_spaces_of_tab_separated_files(tmp_path):
    path = put(tmp_path, "q.tsv", "query-id\tcorpus-id\tscore\nq 1\tSKU 12\t1\n")
    out = tmp_path / "qrels.parquet", tmp_path / "rejects.parquet"
    read.read_qrels(*out, Retrieval(qrels=path))
    assert qrels.read(out[0]) == {"q 1": {"SKU 12": 1}}


def test_line_numbers_of_passages_are_the_inverse_of_the_map(tmp_path):
    path = put(tmp_path, "map.json", json.dumps({"0": "x", "1": 5}))
    assert passages.lines_of_passages(path) == {"x": "0", "5": "1"}
