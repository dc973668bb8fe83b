"""What exact search and the indexes promise: the answer of plain brute force, to the last id."""

import json
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sidmill.core.errors import SidmillError
from sidmill.formats import neighbour_lists, vector_store
from sidmill.formats.vector_store import VectorStore
from sidmill.numeric import exact_search
from sidmill.retrieval import index, search
from sidmill.settings.retrieval import Faiss, Retrieval

FAISS = {
    "nprobe": 8, "ef_search": 64, "candidates": 100, "code_bytes": 8, "links": 16,
    "ef_construction": 40, "train_sample": 1000, "measured_queries": 60,
}  # fmt: skip


def brute_force(corpus, queries, ids, k):
    """One line at a time in plain NumPy: higher score first, then the lower id."""
    rows, scores = [], []
    for query in queries:
        found = (query * corpus.astype(np.float32)).sum(axis=1)
        order = sorted(range(len(corpus)), key=lambda row: (-found[row], ids[row]))[:k]
        rows.append(order)
        scores.append(found[order])
    return np.array(rows), np.array(scores)


def find(corpus, queries, ids, k, start=0, stop=None, **settings):
    ranks = exact_search.id_ranks(pa.chunked_array([pa.array(ids)]))
    stop = len(corpus) if stop is None else stop
    rows = range(start, stop)
    return exact_search.search(corpus, queries, k, Retrieval(**settings), ranks=ranks, rows=rows)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_exact_search_is_brute_force_whatever_the_blocks_and_shards(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    n, dim, k = (data.draw(st.integers(*ends)) for ends in ((1, 700), (1, 70), (1, 60)))
    corpus = rng.standard_normal((n, dim), dtype=np.float32)
    corpus[rng.integers(n, size=n // 2)] = corpus[rng.integers(n)]  # many exact ties
    if data.draw(st.booleans()):
        corpus = corpus.round(0)  # and many ties of different vectors
    corpus = corpus.astype(data.draw(st.sampled_from([np.float32, np.float16])))
    queries = rng.standard_normal((data.draw(st.integers(1, 9)), dim), dtype=np.float32).round(1)
    ids = rng.permutation(n)
    k = min(k, n)
    wanted = brute_force(corpus, queries, ids, k)
    cuts = sorted({0, n, *rng.integers(0, n + 1, size=data.draw(st.integers(0, 4))).tolist()})
    parts = [
        find(corpus, queries, ids, k, start, stop, search_batch=data.draw(st.integers(1, 10)))
        for start, stop in pairwise(cuts)
    ]
    merged = exact_search.merge(
        parts[::-1], exact_search.id_ranks(pa.chunked_array([pa.array(ids)]))
    )
    np.testing.assert_array_equal(merged.rows, wanted[0])
    np.testing.assert_array_equal(merged.scores, wanted[1])


def test_small_blocks_of_a_map_give_the_same(rng, tmp_path):
    corpus = rng.standard_normal((3000, 300), dtype=np.float32)
    np.save(tmp_path / "vectors.npy", corpus)
    queries = corpus[:40]
    whole = find(corpus, queries, np.arange(3000), 10, memory_mb=999)
    blocks = find(
        vector_store.open_npy(tmp_path / "vectors.npy"), queries, np.arange(3000), 10, memory_mb=1
    )
    np.testing.assert_array_equal(whole.rows, blocks.rows)
    np.testing.assert_array_equal(whole.scores, blocks.scores)
    assert (whole.rows[:, 0] == np.arange(40)).all()


def test_threads_in_any_order_give_the_same(rng, tmp_path, monkeypatch):
    corpus = rng.standard_normal((3000, 24), dtype=np.float32).round(0)  # many ties
    np.save(tmp_path / "vectors.npy", corpus)
    queries, ids = corpus[:50], rng.permutation(3000)
    monkeypatch.setattr(exact_search, "BLOCK_ROWS", 37)
    monkeypatch.setattr(exact_search, "MIN_ROWS", 1)
    wanted = brute_force(corpus, queries, ids, 20)
    for threads in (1, 2, 7):
        monkeypatch.setattr(exact_search.torch, "get_num_threads", lambda threads=threads: threads)
        stored = vector_store.open_npy(tmp_path / "vectors.npy")
        found = find(stored, queries, ids, 20, search_batch=20)
        np.testing.assert_array_equal(found.rows, wanted[0])
        np.testing.assert_array_equal(found.scores, wanted[1])


@pytest.mark.filterwarnings("ignore:overflow")
def test_a_score_that_overflows_is_a_mistake_and_no_result(rng):
    corpus = rng.standard_normal((30, 4), dtype=np.float32) * np.float32(1e25)
    with pytest.raises(SidmillError, match="normalise the embeddings"):
        find(corpus, corpus[:2], np.arange(30), 3)


def test_ties_of_strings_go_by_code_point(rng):
    corpus = np.ones((4, 3), dtype=np.float32)
    found = find(corpus, corpus[:1], ["b", "é", "B", "10"], 4)
    assert found.rows.tolist() == [[3, 2, 0, 1]]


def test_a_vector_that_is_not_finite_is_named(rng):
    corpus = rng.standard_normal((30, 4), dtype=np.float32)
    corpus[17, 2] = np.nan
    with pytest.raises(SidmillError, match="first at row 17"):
        find(corpus, corpus[:2], np.arange(30), 3)


def store(corpus, fingerprint=None, ids=None):
    ids = np.arange(len(corpus)) if ids is None else ids
    return VectorStore(corpus, pa.chunked_array([pa.array(ids)]), fingerprint or {})


def search_all(corpus, queries, path=None, top_k=5, shards=1, **changes):
    settings, faiss = Retrieval(top_k=top_k), Faiss(**{**FAISS, **changes})
    return [
        search.search_shard(corpus, queries, path, shard, shards, settings, faiss)
        for shard in range(shards)
    ]


def test_queries_of_another_space_are_refused_but_not_another_prompt(rng):
    corpus = rng.standard_normal((30, 4), dtype=np.float32)
    ours = store(corpus, {"model": "a", "prompt": ""})
    search_all(ours, store(corpus, {"model": "a", "prompt": "Query:"}))
    with pytest.raises(SidmillError, match="model 'b', not 'a'"):
        search_all(ours, store(corpus, {"model": "b", "prompt": ""}))


def test_a_corpus_smaller_than_k_is_refused(rng):
    corpus = store(rng.standard_normal((4, 3), dtype=np.float32))
    with pytest.raises(SidmillError, match="lower it to at most 4"):
        search_all(corpus, corpus)


def test_more_shards_than_rows_give_the_same_run(rng, tmp_path):
    corpus = store(rng.standard_normal((30, 4), dtype=np.float32), ids=[f"p{i}" for i in range(30)])
    runs = []
    for shards in (1, 4, 40):
        paths = [tmp_path / f"{shards}-{shard}" for shard in range(shards)]
        for path, found in zip(paths, search_all(corpus, corpus, shards=shards), strict=True):
            neighbour_lists.write(path, found)
        runs.append(search.merge_shards(paths, corpus.ids, corpus.ids, Retrieval()))
    for run in runs:
        assert run.pids == runs[0].pids
        assert [pids[0] for pids in run.pids] == [f"p{i}" for i in range(30)] or run.scores[
            0, 0
        ] > 0
        np.testing.assert_array_equal(run.scores, runs[0].scores)


@pytest.fixture(scope="module")
def clustered():
    rng = np.random.default_rng(0)
    corpus = rng.standard_normal((50, 32), dtype=np.float32)[rng.integers(50, size=3000)]
    corpus += 0.3 * rng.standard_normal(corpus.shape, dtype=np.float32)
    return corpus / np.linalg.norm(corpus, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("kind", "recall"),
    [("ivf_flat", 0.95), ("hnsw", 0.95), ("ivfpq", 0.8), ("opq", 0.8),
     ("Flat", 1), ("IVF20_HNSW8,SQ8", 0.9)],
)  # fmt: skip
def test_an_index_is_repeatable_and_finds_most(clustered, tmp_path, kind, recall):
    first, second = tmp_path / "first.faiss", tmp_path / "second.faiss"
    for path in (first, second):
        index.build(clustered, path, kind, Faiss(**FAISS), 0)
    assert first.read_bytes() == second.read_bytes()
    corpus, queries = store(clustered), store(clustered[::30])
    (wanted,) = search_all(corpus, queries, top_k=20)
    (found,) = search_all(corpus, queries, first, top_k=20)
    assert index.recall(found.rows, wanted.rows) >= recall
    # what it finds has the exact score, in the exact order
    line, place = 7, exact_search.id_ranks(corpus.ids)
    scores = exact_search.score(
        np.repeat(clustered[[210]], 20, axis=0), clustered[found.rows[line]]
    )
    np.testing.assert_array_equal(found.scores[line], scores)
    assert (np.lexsort((place[found.rows[line]], -scores)) == np.arange(20)).all()
    figures = index.measure(first, corpus, clustered[::30], Retrieval(top_k=20), Faiss(**FAISS), 0)
    assert figures["recall"] >= recall
    assert json.loads(json.dumps(figures))["queries"] == 60


MACHINES = [
    {"search_batch": 1, "memory_mb": 16, "device": "cpu"},
    {"search_batch": 19, "memory_mb": 17, "device": "auto"},
    {"search_batch": 1000, "memory_mb": 512, "device": "cpu"},
]


@pytest.mark.parametrize("kind", [None, "ivf_flat", "hnsw", "ivfpq", "opq"])
def test_machine_settings_change_no_byte_of_a_search(clustered, tmp_path, monkeypatch, kind):
    """Exact search and indexes: faiss rounds by the number of queries of a call."""
    monkeypatch.setattr(exact_search, "BLOCK_ROWS", 700)
    corpus, queries, path = store(clustered), store(clustered[::30]), None
    if kind is not None:
        path = tmp_path / "x.faiss"
        index.build(clustered, path, kind, Faiss(**FAISS), 0)
    found = []
    for number, machine in enumerate(MACHINES):
        settings = Retrieval(top_k=20, **machine)
        part = search.search_shard(corpus, queries, path, 0, 1, settings, Faiss(**FAISS))
        neighbour_lists.write(tmp_path / f"{number}", part)
        found.append((tmp_path / f"{number}").read_bytes())
    assert found[0] == found[1] == found[2]


def test_faiss_is_asked_for_as_many_queries_whatever_the_machine(clustered, tmp_path, monkeypatch):
    index.build(clustered, tmp_path / "x.faiss", "ivf_flat", Faiss(**FAISS), 0)
    monkeypatch.setattr(index, "QUERY_ROWS", 40)
    asked = []
    opened = index._open

    class Counting:
        def __init__(self, inner):
            self.inner, self.ntotal, self.d = inner, inner.ntotal, inner.d

        def search(self, queries, k):
            asked.append(len(queries))
            return self.inner.search(queries, k)

    monkeypatch.setattr(index, "_open", lambda *arguments: Counting(opened(*arguments)))
    for machine in MACHINES:
        settings = Retrieval(top_k=20, **machine)
        corpus, queries = store(clustered), store(clustered[::30])
        search.search_shard(corpus, queries, tmp_path / "x.faiss", 0, 1, settings, Faiss(**FAISS))
    assert asked == [40, 40, 20] * 3


def test_a_graph_built_on_all_threads_finds_as_much(clustered, tmp_path):
    path = tmp_path / "x.faiss"
    index.build(clustered, path, "hnsw", Faiss(**FAISS, repeatable=False), 0)
    corpus, queries = store(clustered), store(clustered[::30])
    (wanted,) = search_all(corpus, queries, top_k=20)
    (found,) = search_all(corpus, queries, path, top_k=20)
    assert index.recall(found.rows, wanted.rows) >= 0.95


def test_a_string_that_faiss_does_not_know_is_a_user_mistake(clustered, tmp_path):
    with pytest.raises(SidmillError, match=r"change retrieval\.index"):
        index.build(clustered, tmp_path / "x.faiss", "IVFLAT!", Faiss(**FAISS), 0)


def test_an_index_of_other_vectors_is_refused(clustered, tmp_path):
    index.build(clustered[:500], tmp_path / "x.faiss", "Flat", Faiss(**FAISS), 0)
    with pytest.raises(SidmillError, match="holds 500 vectors"):
        search_all(store(clustered), store(clustered[:2]), tmp_path / "x.faiss")


def test_too_few_found_says_what_to_raise(clustered, tmp_path):
    index.build(clustered, tmp_path / "x.faiss", "IVF300,Flat", Faiss(**FAISS), 0)
    corpus = store(clustered)
    (found,) = search_all(corpus, store(clustered[:2]), tmp_path / "x.faiss", top_k=50, nprobe=1)
    neighbour_lists.write(tmp_path / "part", found)
    with pytest.raises(SidmillError, match=r"raise faiss\.nprobe"):
        search.merge_shards([tmp_path / "part"], corpus.ids, corpus.ids.slice(0, 2), Retrieval())


@pytest.mark.parametrize(("n_chunks", "top_k"), [(40, 5), (3, 20), (40, 700)])
@pytest.mark.parametrize("has_worst", [False, True])
def test_a_device_proposes_the_candidates_of_the_cpu(n_chunks, top_k, has_worst):
    rng = np.random.default_rng(top_k)
    scores = rng.standard_normal((7, exact_search.CHUNK, n_chunks), dtype=np.float32).round(1)
    worst = np.full(7, 0.5 if has_worst else -np.inf, np.float32)
    worst[3] = -np.inf
    slack = rng.random(7) / 10
    arguments = torch.from_numpy(scores), worst, slack, top_k
    mine = exact_search._candidates_on_device(*arguments)
    theirs = exact_search._candidates(*arguments)
    for found, wanted in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("memory_mb", [16, 512, 8192])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_blocks_of_all_workers_fit_into_the_memory(device, memory_mb, monkeypatch):
    import torch

    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    dim, batch = 768, 1000
    workers, rows = exact_search._divide_memory(dim, batch, memory_mb, torch.device(device))
    assert workers * rows * 4 * (3 * dim + 2 * batch) <= memory_mb * 2**20
    if device == "cuda":  # more readers where each of them has a whole block, else two
        assert workers == (7 if memory_mb == 8192 else 2)
