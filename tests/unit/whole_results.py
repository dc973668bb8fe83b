"""Sound results of a small catalogue: all files that promise something of each other."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sidmill.formats import (
    category_file,
    code_files,
    embedding_shards,
    item_text,
    ledger_file,
    quantizer_file,
    sequence_table,
    topk_table,
    trie_file,
    user_metrics,
    vector_store,
    version_folder,
)
from sidmill.io import json_report
from sidmill.numeric import sid_trie
from sidmill.quantize import category_level
from sidmill.settings.category_level import CategoryLevel

N, DIM, SIZES = 40, 4, [5, 4, 6]
PRINT = {"model": "tiny", "dim": DIM}
FUSED_PRINT = {**PRINT, "fuse.method": "graph", "fuse.weight": 0.3}
SWEPT = ("rqkmeans.5x4x6.none", "rqkmeans.5x4x6.graph0.3", "given")


def make(folder):
    """Write a folder of results with every kind of file that promises something of another."""
    for name in (
        "items",
        "rqkmeans",
        "interactions",
        "recommender",
        "retrieval",
        "corpus",
        "queries",
    ):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    ids = pa.chunked_array([np.arange(100, 100 + N)])
    vectors = rng.standard_normal((N, DIM)).astype(np.float32)

    # Items: texts, embeddings in two shards, vectors.
    texts = pa.table({"pid": ids, "text": [f"item {number}" for number in range(N)]})
    item_text.write(folder / "items/text.parquet", pa.int64(), [texts])
    rejects = item_text.REJECTS_SCHEMA.with_metadata({item_text.ROWS_READ_KEY: str(N + 1)})
    row = {"pid": ["7"], "file": ["items.jsonl"], "row": [3], "reason": ["no text"]}
    pq.write_table(pa.table(row, schema=rejects), folder / "items/rejects.parquet")
    for part, (start, stop) in enumerate([(0, 20), (20, N)]):
        block = [(ids.slice(start, stop - start), vectors[start:stop])]
        path = folder / f"items/embeddings.parquet/part-{part:05d}-of-00002.parquet"
        embedding_shards.write(path, pa.int64(), PRINT, block)
    sums = vector_store.write(folder / "items/vectors.npy", (N, DIM), "float32", [vectors])
    vector_store.write_ids(folder / "items/ids.parquet", ids, (N, DIM), PRINT, sums)

    # Codes with one collision that was resolved.
    books = [rng.standard_normal((size, DIM)).astype(np.float32) for size in SIZES]
    quantizer = quantizer_file.Quantizer("rqkmeans", books, {"n_iter": 3}, PRINT)
    quantizer_file.write(folder / "rqkmeans/quantizer.safetensors", quantizer)
    every = np.stack(np.unravel_index(rng.permutation(120)[:N], SIZES), axis=1).astype(np.int32)
    codes = every.copy()
    codes[1] = codes[0]
    for name in ("codes.parquet", "rqkmeans/codes.parquet"):
        code_files.write(folder / name, "codes", ids, [codes], SIZES)
    code_files.write(folder / "pid2sid.parquet", "sid", ids, [every], SIZES)
    code_files.write_index(ids, every, path=folder / "index.json")
    trie = sid_trie.build(every, SIZES)
    trie_file.write(folder / "trie.safetensors", trie, folder / "pid2sid.parquet")
    json_report.write(
        folder / "resolution.json",
        {
            "strategy": "reassign",
            "identical_text": "separate",
            "items_moved": 1,
            "moved_by_level": [1, 0, 0],
        },
    )
    side = {"collision_rate": 0.0, "colliding_items_rate": 0.0, "largest_collision": 1}
    figures = {"items": N, "before": {**side, "distinct": N - 1}, "after": {**side, "distinct": N}}
    json_report.write(folder / "quality.json", figures)
    ledger_file.write(
        folder / "ledger.parquet",
        ledger_file.Ledger(
            ids, every, codes, np.full(N, b"0123456789abcdef", "S16"), np.zeros(N, np.int8),
            np.ones(N, np.int32), np.ones(N, bool), SIZES, 1,
        ),
    )  # fmt: skip

    # Histories and lists of two users, answers to two queries.
    histories = {
        "user_id": ["a", "b"],
        "item_ids": [[100, 101, 102], [139]],
        "splits": [[0, 1, 2], [0]],
    }
    table = pa.table(
        {**histories, "timestamps": [[1, 2, 3], None]}, schema=sequence_table.schema(pa.int64())
    )
    sequence_table.write(folder / "interactions/sequences.parquet", pa.int64(), [table])
    numbers = np.array([[3, 4, 5], [6, 7, -1]])
    scores = np.array([[3, 2, 1], [2, 2, 0]], np.float32)
    users = pa.array(["a", "b"])
    topk = topk_table.make(users, ids.combine_chunks(), every, numbers, scores)
    topk_table.write(folder / "recommender/topk.parquet", pa.int64(), [topk])
    for name, keys in (("corpus", ["p1", "p2", "p3"]), ("queries", ["q1", "q2"])):
        texts = pa.table({"pid": keys, "text": keys})
        item_text.write(folder / name / "text.parquet", pa.string(), [texts])
    answers = {
        "qid": ["q1", "q1", "q2"], "pid": ["p1", "p3", "p2"],
        "rank": pa.array([1, 2, 1], pa.int64()), "score": pa.array([2, 1, 3], pa.float32()),
    }  # fmt: skip
    pq.write_table(pa.table(answers), folder / "retrieval/answers.parquet")
    named = {"pid2sid": str(folder / "pid2sid.parquet"), "codes": str(folder / "codes.parquet")}
    manifest = version_folder.describe(named, {"version": 1, "items": N})
    json_report.write(
        folder / "manifest.json",
        {
            **manifest,
            "files": {
                name: {"bytes": entry["bytes"], "sha256": entry["sha256"]}
                for name, entry in manifest["files"].items()
            },
        },
    )
    return folder


def add_others(folder):
    """Add what optional settings make: fused vectors and folds, categories, a sweep, an import."""
    rng = np.random.default_rng(1)
    ids = pq.read_table(folder / "items/text.parquet")["pid"]
    vectors = np.load(folder / "items/vectors.npy")
    add_fused(folder)
    add_categories(folder, ids, vectors)
    add_sweep(folder, ids, vectors, rng)
    add_import(folder / "imported/movielens")
    return folder


def add_fused(folder):
    """Fused vectors, of two folds too, with codes of the quantizer that is trained on them."""
    ids, vectors = pq.read_table(folder / "items/text.parquet")["pid"], 2 * np.ones((N, DIM), "f4")
    sums = vector_store.write(folder / "items/fused.npy", (N, DIM), "float32", [vectors])
    vector_store.write_ids(folder / "items/fused_ids.parquet", ids, (N, DIM), FUSED_PRINT, sums)
    twice, shape = pa.chunked_array([*ids.chunks, *ids.chunks]), (2 * N, DIM)
    sums = vector_store.write(folder / "items/fused_folds.npy", shape, "float32", [vectors] * 2)
    of_folds = folder / "items/fused_folds_ids.parquet"
    vector_store.write_ids(of_folds, twice, shape, FUSED_PRINT, sums)
    (folder / "opq").mkdir(exist_ok=True)
    quantizer = quantizer_file.read(folder / "rqkmeans/quantizer.safetensors")
    fused = quantizer._replace(fingerprint=FUSED_PRINT)
    quantizer_file.write(folder / "opq/quantizer.safetensors", fused)
    codes = np.tile(code_files.read(folder / "codes.parquet", "codes").codes, (2, 1))
    code_files.write(folder / "opq/fold_codes.parquet", "codes", twice, [codes], SIZES)


def add_categories(folder, ids, vectors):
    names = pa.array([None if row == 5 else "ab"[row % 2] for row in range(N)], pa.string())
    table = pa.table({"pid": ids, "category": names})
    category_file.write(folder / "items/categories.parquet", pa.int64(), [table])
    settings = CategoryLevel(field="kind", size=2, min_load=0, max_load=9.0)
    level = category_level.fit(vectors, pa.chunked_array([names]), settings, PRINT)
    quantizer_file.write(folder / "items/category_level.safetensors", level.quantizer)
    blocks = category_level.residuals(vectors, level)
    sums = vector_store.write(folder / "items/residuals.npy", (N, DIM), "float32", blocks)
    facts = category_level.residual_fingerprint(level.quantizer)
    vector_store.write_ids(folder / "items/residual_ids.parquet", ids, (N, DIM), facts, sums)


def add_sweep(folder, ids, vectors, rng):
    """Two tokenizers and an anchor; the second is the best of those that are trained."""
    quantizer = quantizer_file.read(folder / "rqkmeans/quantizer.safetensors")
    entries = []
    for number, name in enumerate(SWEPT):
        one = folder / "sweep" / name
        one.mkdir(parents=True)
        for file in ("codes.parquet", "pid2sid.parquet", "resolution.json"):
            (one / file).write_bytes((folder / file).read_bytes())
        is_fused = name.endswith("graph0.3")
        if name != "given":
            own = quantizer._replace(fingerprint=FUSED_PRINT if is_fused else PRINT)
            quantizer_file.write(one / "quantizer.safetensors", own)
        hits = rng.random(9) / 4 + number / 5
        columns = {"user": np.arange(9), "queries": np.full(9, 2), "HR@10": 2 * hits}
        columns |= {"NDCG@10": hits, "cold_queries": np.zeros(9, "i8"), "cold_HR@10": np.zeros(9)}
        user_metrics.write(one / "valid.parquet", columns)
        split = {key: {"value": float(columns[key].sum() / 18)} for key in ("HR@10", "NDCG@10")}
        split["cold_HR@10"] = {"value": None}
        json_report.write(one / "valid.json", {"split": "valid", "targets": 18, **split})
        entries.append({"name": name, "codebook_sizes": SIZES, "is_anchor": name == "given",
                        "figures": {}, "valid": split, "test": None})  # fmt: skip
    (folder / "sweep/graph0.3").mkdir()
    for file in ("fused.npy", "fused_ids.parquet"):
        (folder / "sweep/graph0.3" / file).write_bytes((folder / "items" / file).read_bytes())
    value = entries[1]["valid"]["HR@10"]["value"]
    report = {"metric": "HR@10", "seeds": [0], "targets": 18, "items": N, "tokenizers": entries,
              "winner": {"name": SWEPT[1], "metric": "HR@10", "value": value}}  # fmt: skip
    json_report.write(folder / "sweep/sweep.json", report)


def add_import(folder):
    folder.mkdir(parents=True)
    titles = {"item_id": ["1", "2", "3"], "title": ["A", "B", "C"]}
    pq.write_table(pa.table(titles), folder / "items.parquet")
    log = {"user_id": ["u", "v"], "item_ids": [["1", "2"], ["3"]], "timestamps": [[5, 6], None]}
    pq.write_table(pa.table(log), folder / "interactions.parquet")
    rejects = {"file": ["m", "r"], "row": [4, 9], "interactions": [0, 2], "reason": ["x", "y"]}
    pq.write_table(pa.table(rejects), folder / "rejects.parquet")
    interactions = {"read": 6, "rejected": 2, "left_out": {"k_core": 1}, "written": 3}
    report = {"source": "movielens", "items": {"read": 4, "rejected": 1, "written": 3},
              "interactions": interactions, "log": {"users": 2}}  # fmt: skip
    json_report.write(folder / "import.json", report)
