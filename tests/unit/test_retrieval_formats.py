"""Reading other people's files, writing runs, and measuring them: every line is accounted for."""

import json
import tracemalloc

import bm25s
import ir_measures
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidmill.core.errors import SidmillError
from sidmill.formats import (
    item_text,
    qrels,
    run_files,
    triples,
)
from sidmill.formats.run_files import Run
from sidmill.formats.vector_store import VectorStore
from sidmill.retrieval import (
    bm25,
    fuse,
    measure,
    mine,
    read,
    training_data,
)
from sidmill.settings.retrieval import (
    Bm25,
    Fusion,
    Mining,
    Retrieval,
    RetrievalMetrics,
    Training,
)


def texts(path):
    table = pq.read_table(path)
    return dict(zip(table["pid"].to_pylist(), table["text"].to_pylist(), strict=True))


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


REJECT = {"on_bad_rows": "reject", "max_reject_share": 1.0}


def read_corpus(folder, path, ids=None, on_bad_rows="error"):
    found, rejects = folder / "text.parquet", folder / "rejects.parquet"
    rules = {"on_bad_rows": on_bad_rows, "max_reject_share": 1.0}
    read.read_corpus(found, rejects, Retrieval(corpus=path, corpus_ids=ids, **rules))
    return texts(found), pq.read_table(rejects).to_pylist()


def test_passages_of_rocketqa_in_two_and_in_four_columns(tmp_path):
    two = write(tmp_path, "two.para", "-\t一年\nTitle\ttext\r\nnull\tplain\n")
    assert read_corpus(tmp_path, two)[0] == {0: "一年", 1: "Title\ntext", 2: "plain"}
    four = write(tmp_path, "four.tsv", "\tTitle\ttext\t0\n-\t\tplain\t0\n")
    assert read_corpus(tmp_path, four)[0] == {0: "Title\ntext", 1: "plain"}


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_lines_are_numbered_over_all_files_and_named_by_the_map(tmp_path, order):
    (tmp_path / "parts").mkdir()
    write(tmp_path, "parts/part-00", "-\ta\n-\tb\n")
    write(tmp_path, "parts/part-01", "-\tc\n")
    names = {str(line): f"id{line}" for line in order}
    ids = write(tmp_path, "map.json", json.dumps(names))
    found, _ = read_corpus(tmp_path, str(tmp_path / "parts"), ids)
    assert found == {"id0": "a", "id1": "b", "id2": "c"}
    short = write(tmp_path, "short.json", '{"0": "id0"}')
    with pytest.raises(SidmillError, match="ends before"):
        read_corpus(tmp_path, str(tmp_path / "parts"), short)


def test_bad_lines_stop_the_run_or_are_listed(tmp_path):
    lines = b"-\tgood\nalone\n-\t\n-\t\xff\xfe\n-\tlast\n"
    path = write(tmp_path, "x.para", lines)
    with pytest.raises(SidmillError, match=r"x\.para, line 2: 1 column"):
        read_corpus(tmp_path, path)
    found, rejects = read_corpus(tmp_path, path, on_bad_rows="reject")
    assert found == {0: "good", 4: "last"}
    assert [(row["row"], row["pid"]) for row in rejects] == [(2, "1"), (3, "2"), (4, "3")]


def test_beir_keeps_its_ids_and_refuses_repeated_ones(tmp_path):
    good = '{"_id": "a", "title": "T", "text": "x"}\n{"_id": "b", "text": "y"}\n'
    assert read_corpus(tmp_path, write(tmp_path, "c.jsonl", good))[0] == {"a": "T\nx", "b": "y"}
    twice = good + '{"_id": "a", "text": "z"}\n'
    (tmp_path / "text.parquet").unlink()
    with pytest.raises(SidmillError, match="id 'a' belongs to two texts, numbers 1 and 3"):
        read_corpus(tmp_path, write(tmp_path, "d.jsonl", twice))
    assert not (tmp_path / "text.parquet").exists()
    with pytest.raises(SidmillError, match="line 3: not JSON"):
        read_corpus(tmp_path, write(tmp_path, "e.jsonl", good + "{\n"))
    with pytest.raises(SidmillError, match="write all ids alike"):
        read_corpus(tmp_path, write(tmp_path, "f.jsonl", good + '{"_id": 1, "text": "z"}\n'))


def test_queries_take_their_id_from_the_map(tmp_path):
    path = write(tmp_path, "dev.q", "国家\t-\t-\t0\nother\t-\t-\t0\n")
    ids = write(tmp_path, "q2qid.json", '{"国家": "q7"}')
    found, rejects = tmp_path / "text.parquet", tmp_path / "rejects.parquet"
    read.read_queries(found, rejects, Retrieval(queries=path, query_ids=ids, **REJECT))
    assert texts(found) == {"q7": "国家"}
    assert "has no id for it" in pq.read_table(rejects)["reason"][0].as_py()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("qrels.tsv", "query-id\tcorpus-id\tscore\n1\ta\t2\n1\tb\t0\n"),
        ("qrels.txt", "1 0 a 2\n1 0 b 0\n"),
        ("dev.json", '{"question_id": "1", "answer_paragraphs": [{"paragraph_id": "a"}]}\n'),
    ],
)
def test_judgements_in_three_forms(tmp_path, name, content):
    out, rejects = tmp_path / "qrels.parquet", tmp_path / "rejects.parquet"
    path = write(tmp_path, name, content)
    read.read_qrels(out, rejects, Retrieval(qrels=path))
    found = qrels.read(out)["1"]
    assert found["a"] > 0
    assert found.get("b", 0) == 0


def test_contradicting_and_broken_judgements_are_named(tmp_path):
    out, rejects = tmp_path / "qrels.parquet", tmp_path / "rejects.parquet"
    path = write(tmp_path, "q.txt", "1 0 a 1\n1 0 a 1\n1 0 a 0\n1 0\n1 0 b x\n")
    with pytest.raises(SidmillError, match="line 3: judged 0 here and 1 in line 1"):
        read.read_qrels(out, rejects, Retrieval(qrels=path))
    assert read.read_qrels(out, rejects, Retrieval(qrels=path, **REJECT)) == 1
    assert pq.read_table(rejects)["row"].to_pylist() == [3, 4, 5]


@pytest.mark.parametrize("first", ["q1 d1 1.0", "q1 0 d1 yes", "query doc label"])
def test_only_the_header_of_beir_is_passed_over(tmp_path, first):
    out, rejects = tmp_path / "qrels.parquet", tmp_path / "rejects.parquet"
    path = write(tmp_path, "q.txt", f"{first}\nq1 d2 1\n")
    assert read.read_qrels(out, rejects, Retrieval(qrels=path, **REJECT)) == 1
    assert pq.read_table(rejects)["row"].to_pylist() == [1]
    beir = write(tmp_path, "q.tsv", "query-id\tcorpus-id\tscore\nq1\td2\t1\n")
    assert read.read_qrels(out, rejects, Retrieval(qrels=beir)) == 1
    assert pq.read_table(rejects).num_rows == 0


def test_training_lines(tmp_path):
    out, rejects = tmp_path / "out.parquet", tmp_path / "rejects.parquet"
    path = write(tmp_path, "dual.tsv", "q\t\tyes\tT\tno\t0\nq\tyes\n")
    files = out, rejects, None, None
    assert training_data.read_training(*files, "dual", Training(dual=path, **REJECT)) == 1
    wanted = [{"query": "q", "positive": "yes", "negative": "T\nno"}]
    assert pq.read_table(out).to_pylist() == wanted
    path = write(tmp_path, "cross.tsv", "q\t\tyes\t1\nq\t\tno\t2\n")
    with pytest.raises(SidmillError, match="line 2: the label is '2'"):
        training_data.read_training(*files, "cross", Training(cross=path))


@pytest.fixture
def judged(tmp_path):
    """Texts of four passages and three queries, and where training data of them may go."""
    for name, lines in (("corpus", {1: "T\none", 2: "two", 3: "three", 4: "four"}),
                        ("queries", {7: "seven", 8: "eight", 9: "nine"})):  # fmt: skip
        table = pa.table(
            {"pid": list(lines), "text": list(lines.values())}, item_text.schema(pa.int64())
        )
        item_text.write(tmp_path / name, pa.int64(), [table])
    return [tmp_path / name for name in ("out.parquet", "rejects.parquet", "corpus", "queries")]


@pytest.mark.parametrize(
    "lines",
    ["query-id\tcorpus-id\tscore\n7\t1\t2\n7\t2\t1\n7\t4\t0\n8\t3\t1\n9\t1\t0\n",
     "7 0 1 2\n7 0 2 1\n7 0 4 0\n8 Q0 3 1\n9 0 1 -1\n"],
)  # fmt: skip
def test_judgements_of_beir_and_trec_become_training_rows(tmp_path, judged, lines):
    """Each judged passage is learned from; a query without an answer is not."""
    path = write(tmp_path, "qrels.tsv", lines)
    settings = Training(form="qrels", dual=path, cross=path)
    assert training_data.read_training(*judged, "dual", settings) == 3
    rows = pq.read_table(judged[0]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("seven", "T\none", "four"), ("seven", "two", "four"), ("eight", "three", None)
    ]  # fmt: skip
    assert training_data.read_training(*judged, "cross", settings) == 4
    rows = pq.read_table(judged[0]).to_pylist()
    assert [(row["passage"], row["label"]) for row in rows] == [
        ("T\none", 1), ("two", 1), ("four", 0), ("three", 1)
    ]  # fmt: skip


def test_judgements_without_text_are_named_or_listed(tmp_path, judged):
    path = write(tmp_path, "qrels.tsv", "7\t1\t1\n7\t99\t1\n6\t1\t1\n")
    settings = {"form": "qrels", "dual": path, "cross": path}
    with pytest.raises(SidmillError, match=r"line 2: passage '99' has no text"):
        training_data.read_training(*judged, "dual", Training(**settings))
    assert training_data.read_training(*judged, "dual", Training(**settings, **REJECT)) == 1
    assert pq.read_table(judged[1])["row"].to_pylist() == [2, 3]
    with pytest.raises(SidmillError, match=r"cross\.source: mined"):
        training_data.read_training(*judged, "cross", Training(**settings, **REJECT))


def a_run(rng, n=6, k=4):
    scores = np.sort(rng.standard_normal((n, k)).astype(np.float32))[:, ::-1]
    pids = [rng.permutation(40)[:k].astype(str).tolist() for _ in range(n)]
    return Run([f"q{row}" for row in range(n)], pids, scores)


def test_a_run_survives_its_file_and_trec_can_read_it(rng, tmp_path):
    run = a_run(rng)
    paths = [str(tmp_path / name) for name in ("res.topk", "run.trec", "res.json")]
    run_files.write(*paths, run, "tag")
    again = run_files.read(paths[0])
    assert (again.qids, again.pids) == (run.qids, run.pids)
    np.testing.assert_array_equal(again.scores, run.scores)
    assert json.loads((tmp_path / "res.json").read_text()) == dict(
        zip(run.qids, run.pids, strict=True)
    )
    foreign = list(ir_measures.read_trec_run(paths[1]))
    assert [line.doc_id for line in foreign] == [pid for line in run.pids for pid in line]


@pytest.mark.parametrize("wrong", [["1", "1", "2", "3"], ["1", "2", "3"], ["1", "2\tx", "3", "4"]])
def test_a_run_without_exactly_k_passages_is_not_written(rng, tmp_path, wrong):
    run = a_run(rng)
    run.pids[3][:] = wrong
    paths = [str(tmp_path / name) for name in ("res.topk", "run.trec", "res.json")]
    with pytest.raises(SidmillError, match=r"'q3'|holds a tab"):
        run_files.write(*paths, run, "tag")
    assert not list(tmp_path.iterdir())


def test_metrics_by_hand():
    """Hit-style recall, the rank of the first answer, ties in the order of the run."""
    pids = [[str(n) for n in range(50)] for _ in range(3)]
    scores = np.zeros((3, 50), dtype=np.float32)  # all tied: the order of the run decides
    judged = {
        "a": {"0": 1, "3": 1, "99": 2}, "b": {"4": 1, "0": 0}, "c": {"77": 1},
        "unanswered": {"0": 0},
    }  # fmt: skip
    judged["missing"] = {"0": 1}
    runs = {"x": Run(["a", "b", "c"], pids, scores)}
    figures, table = measure.measure(runs, judged, None, RetrievalMetrics(resamples=100), 0)
    found = figures["runs"]["x"]
    assert figures["queries"] == 4
    assert found["MRR@10"] == pytest.approx((1 + 1 / 5) / 4)
    assert found["Recall@1"] == pytest.approx(1 / 4)
    assert found["Recall@50"] == pytest.approx(2 / 4)
    assert table.num_rows == 4


def test_the_bootstrap_tells_a_real_difference_from_none(rng):
    judged = {f"q{n}": {"0": 1} for n in range(200)}
    base = [["0", "1"] if n % 2 else ["1", "0"] for n in range(200)]
    good = [["0", "1"] if n % 10 else ["1", "0"] for n in range(200)]
    swap = base[1:] + base[:1]
    scores = np.tile(np.array([2, 1], dtype=np.float32), (200, 1))
    all_runs = {name: Run(list(judged), p, scores) for name, p in
                (("base", base), ("good", good), ("swap", swap))}  # fmt: skip
    metrics = RetrievalMetrics(resamples=1000)
    figures, _ = measure.measure(all_runs, judged, None, metrics, 3)
    better = figures["differences"]["good - base"]["MAP"]
    assert better["low"] > 0
    assert better["p"] < 0.01
    same = figures["differences"]["swap - base"]["MAP"]
    assert same["low"] < 0 < same["high"]
    assert same["p"] > 0.3
    assert measure.measure(all_runs, judged, None, metrics, 3)[0] == figures
    # metrics that look deeper than the runs are left out
    assert "Recall@50" not in figures["runs"]["base"]


def test_bm25_finds_words_in_chinese_and_english_and_fills_up_by_id(tmp_path):
    schema = item_text.schema(pa.int64())
    passages = ["国家法定节假日", "red bolt and bolt", "red lamp", "gloves"]
    for name, lines in (("corpus", passages), ("queries", ["节假日", "BOLT", "nothing known"])):
        table = pa.table({"pid": range(len(lines)), "text": lines}, schema=schema)
        item_text.write(tmp_path / name, pa.int64(), [table])
    paths = [tmp_path / name for name in ("corpus", "queries", "spool")]
    run = bm25.search(*paths, Retrieval(top_k=4), Bm25())
    assert not paths[2].exists()
    assert run.pids[0] == ["0", "1", "2", "3"]
    assert run.pids[1] == ["1", "0", "2", "3"]
    assert run.pids[2] == ["0", "1", "2", "3"]
    assert (run.scores > 0).sum() == 2


@pytest.mark.parametrize(
    ("query", "answer", "other"),
    [
        ("가방", "여성 가방", "방가방가 친구"),
        ("무선 이어폰", "무선 이어폰 검정", "선무 폰이어"),
        ("दिन", "आज का दिन", "आज का दान"),
        ("ไม้", "โต๊ะ ไม้", "โต๊ะ ไม่"),
        ("istanbul", "İstanbul lamba", "stanbul lamba"),
        ("café", "café noir", "caf noir"),
    ],
)
def test_bm25_keeps_words_of_other_scripts_whole(tmp_path, query, answer, other):
    """The passage with the word is first, whichever of the two has the lower id."""
    for lines in ([answer, other], [other, answer]):
        for name, column in (("corpus", lines), ("queries", [query])):
            table = pa.table({"pid": range(len(column)), "text": column})
            item_text.write(tmp_path / name, pa.int64(), [table])
        paths = [tmp_path / name for name in ("corpus", "queries", "spool")]
        run = bm25.search(*paths, Retrieval(top_k=2), Bm25())
        assert run.pids[0][0] == str(lines.index(answer))
        assert run.scores[0, 0] > run.scores[0, 1]


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_bm25_by_blocks_is_bm25s_of_the_whole_corpus(tmp_path_factory, data):
    """To the last bit, however small the blocks; ties by id, which is no row number here."""
    folder = tmp_path_factory.mktemp("bm25")
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    n_rows, k = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 20))
    k, pids = min(k, n_rows), rng.permutation(n_rows)
    lines = [" ".join(rng.choice(list("abcdefg"), rng.integers(1, 9))) for _ in range(n_rows)]
    asked = ["a b", "g a g", "h", "c zz d"]
    for name, ids, column in (("corpus", pids, lines), ("queries", range(4), asked)):
        table = pa.table({"pid": ids, "text": column}, schema=item_text.schema(pa.int64()))
        item_text.write(folder / name, pa.int64(), [table])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bm25, "POSTINGS_PER_BLOCK", data.draw(st.integers(1, 100)))
        patch.setattr(bm25, "PASSAGES_PER_BLOCK", data.draw(st.integers(1, 50)))
        paths = [folder / name for name in ("corpus", "queries", "spool")]
        run = bm25.search(*paths, Retrieval(top_k=k), Bm25(k1=1.2, b=0.6))
    whole = bm25s.BM25(k1=1.2, b=0.6, method="lucene")
    whole.index([line.split() for line in lines], show_progress=False)
    for query, line in enumerate(asked):
        known = [word for word in line.split() if word in whole.vocab_dict]
        scores = whole.get_scores(known) if known else np.zeros(n_rows, np.float32)
        order = np.lexsort((pids, -scores))[:k]
        assert run.pids[query] == pids[order].astype(str).tolist()
        np.testing.assert_array_equal(run.scores[query], scores[order])


def test_fusion_is_the_sum_of_reciprocal_ranks():
    scores = np.array([[2, 1]], dtype=np.float32)
    one, two = Run(["q"], [["a", "b"]], scores), Run(["q"], [["c", "b"]], scores)
    run = fuse.fuse([one, two], Fusion(constant=60))
    assert run.pids == [["b", "a"]]  # a and c tie: the lower id
    assert run.scores[0] == pytest.approx([2 / 62, 1 / 61])
    with pytest.raises(SidmillError, match="not in every run"):
        fuse.fuse([one, Run(["r"], [["a", "b"]], scores)], Fusion())


def test_mined_negatives_are_near_but_no_answers_and_below_the_margin(tmp_path):
    """Vectors on a circle: the angle to the query decides, so every choice is known."""
    names = ["answer", "twin of it", "near", "middle", "far"]
    rows = [("query", "answer", "far"), ("other", "near", None)]
    triples.write(tmp_path / "triples", triples.TRIPLES, rows)
    schema = item_text.schema(pa.string())
    corpus = pa.table({"pid": list("abcde"), "text": names}, schema=schema)
    item_text.write(tmp_path / "corpus", pa.string(), [corpus])
    files = [tmp_path / name for name in ("pool", "queries")]
    mine.write_pool(tmp_path / "triples", tmp_path / "corpus", *files)
    pool = texts(files[0])
    assert sorted(pool.values()) == sorted(names)
    assert texts(files[1]) == {0: "query", 1: "other"}
    angle = {
        "answer": 10,
        "twin of it": 11,
        "near": 40,
        "middle": 60,
        "far": 85,
        "query": 0,
        "other": 45,
    }

    def store(found):
        radians = np.radians([angle[name] for name in found.values()])
        vectors = np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)
        return VectorStore(vectors, pa.chunked_array([pa.array(list(found))]), {})

    outputs = [tmp_path / "mined", tmp_path / "pairs"]
    counts = mine.mine(
        mine.Texts(tmp_path / "triples", *files),
        store(pool),
        store(texts(files[1])),
        *outputs,
        Mining(depth=5, negatives=2),
        Retrieval(),
    )
    assert counts == {"queries": 2, "negatives": 4, "without": 0}
    found = [tuple(row.values()) for row in pq.read_table(outputs[0]).to_pylist()]
    assert found[:2] == [("query", "answer", "near"), ("query", "answer", "middle")]
    assert found[2:] == [("other", "near", "twin of it"), ("other", "near", "answer")]
    labels = pq.read_table(outputs[1]).to_pylist()
    assert [row["label"] for row in labels] == [1, 0, 0, 1, 0, 0]


def test_machine_settings_change_no_byte_of_mined_negatives(rng, tmp_path):
    names = [f"text {n}" for n in range(60)]
    rows = [(f"q{n}", names[n], None) for n in range(20)]
    triples.write(tmp_path / "triples", triples.TRIPLES, rows)
    files = tmp_path / "pool", tmp_path / "queries"
    for path, lines in zip(files, (names, [f"q{n}" for n in range(20)]), strict=True):
        item_text.write(path, pa.int64(), [pa.table({"pid": range(len(lines)), "text": lines})])
    pool, queries = (
        VectorStore(rng.standard_normal((n, 8), dtype=np.float32), pa.chunked_array([range(n)]), {})
        for n in (60, 20)
    )
    found = []
    for batch, memory, device in ((1, 16, "cpu"), (7, 17, "auto"), (1000, 512, "cpu")):
        outputs = tmp_path / f"mined-{batch}", tmp_path / f"pairs-{batch}"
        machine = Retrieval(search_batch=batch, memory_mb=memory, device=device)
        settings = Mining(depth=30, margin=9.0)
        mine.mine(mine.Texts(tmp_path / "triples", *files), pool, queries, *outputs, settings,
                  machine)  # fmt: skip
        found.append([path.read_bytes() for path in outputs])
    assert found[0] == found[1] == found[2]


def test_queries_of_a_training_name_the_settings_of_the_training(tmp_path):
    path = write(tmp_path, "q.jsonl", '{"text": "x"}\n')
    settings = Retrieval(queries=path)
    out = tmp_path / "text.parquet", tmp_path / "rejects.parquet"
    with pytest.raises(SidmillError, match=r"set training\.on_bad_rows: reject"):
        read.read_queries(*out, settings, "training_queries")
    with pytest.raises(SidmillError, match=r"set retrieval\.on_bad_rows: reject"):
        read.read_queries(*out, settings)


@pytest.mark.parametrize(
    ("margin", "wanted"), [(0.95, ["low"]), (1.0, ["under", "low"]), (9.0, ["over", "under"])]
)
def test_the_margin_lies_below_an_answer_of_negative_score_too(tmp_path, margin, wanted):
    names = ["answer", "over", "under", "low"]
    scores = np.array([[-0.200], [-0.195], [-0.205], [-0.400]], dtype=np.float32)
    triples.write(tmp_path / "triples", triples.TRIPLES, [("query", "answer", None)])
    for name, lines in (("pool", names), ("queries", ["query"])):
        table = pa.table(
            {"pid": range(len(lines)), "text": lines}, schema=item_text.schema(pa.int64())
        )
        item_text.write(tmp_path / name, pa.int64(), [table])
    pool = VectorStore(scores, pa.chunked_array([pa.array(range(4))]), {})
    query = VectorStore(np.ones((1, 1), np.float32), pa.chunked_array([pa.array([0])]), {})
    files = [tmp_path / name for name in ("triples", "pool", "queries")]
    outputs = tmp_path / "mined", tmp_path / "pairs"
    settings = Mining(depth=4, margin=margin, negatives=2)
    mine.mine(mine.Texts(*files), pool, query, *outputs, settings, Retrieval())
    assert pq.read_table(tmp_path / "mined")["negative"].to_pylist() == wanted


def test_the_plot_and_the_table_hold_every_run(tmp_path):
    from sidmill.report import retrieval

    cell = {"mean": 0.1, "low": -0.05, "high": 0.2, "p": 0.3}
    metrics = ("MRR@10", "Recall@1", "Recall@50")
    figures = {
        "runs": {run: dict.fromkeys(metrics, 0.5) for run in ("dual", "bm25", "fused", "cross")},
        "differences": {"bm25 - dual": dict.fromkeys(metrics, cell)},
    }
    for name in ("one.svg", "two.svg"):
        retrieval.plot(figures, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    retrieval.table(figures, tmp_path / "metrics.tsv")
    lines = [line.split("\t") for line in (tmp_path / "metrics.tsv").read_text().splitlines()]
    assert [line[0] for line in lines] == ["run", "dual", "bm25", "fused", "cross", "bm25 - dual"]
    assert lines[-1][1] == "+0.1000 [-0.0500, +0.2000]"


@pytest.mark.parametrize("kind", [pa.int64(), pa.string()])
def test_answers_get_their_sids_in_memory_that_the_catalogue_does_not_change(tmp_path, kind):
    from sidmill.formats.code_files import Codes
    from sidmill.retrieval import answers

    n_items = answers.BLOCK + 9
    ids = pa.chunked_array([pa.array(np.arange(n_items)[::-1]).cast(kind)])
    sids = Codes(ids, np.arange(n_items, dtype=np.int32)[:, None], [n_items])
    wanted = [[0, 7], [n_items - 1, 8], [7, 100]]
    run = Run(list("abc"), [list(map(str, line)) for line in wanted], np.ones((3, 2), np.float32))
    tracemalloc.start()
    assert answers.attach(run, sids, tmp_path / "answers.parquet") == 6
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    found = pq.read_table(tmp_path / "answers.parquet")
    assert found["sid"].to_pylist() == [[n_items - 1 - pid] for line in wanted for pid in line]
    assert found["pid"].to_pylist() == [str(pid) for line in wanted for pid in line]
    assert peak < 12 * answers.BLOCK  # an object per item takes 100 bytes and more


def test_an_answer_that_is_no_item_is_refused(rng, tmp_path):
    from sidmill.formats.code_files import Codes
    from sidmill.retrieval import answers

    run = a_run(rng)
    ids = pa.chunked_array([pa.array(range(39))])
    sids = Codes(ids, np.arange(39, dtype=np.int32)[:, None], [40])
    run.pids[2][1] = "39"
    with pytest.raises(SidmillError, match="'39' is no item"):
        answers.attach(run, sids, tmp_path / "answers.parquet")
