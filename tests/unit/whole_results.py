"""Sound results of a small catalogue: all files that promise something of each other."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sidmill.formats import (
    code_files,
    embedding_shards,
    item_text,
    ledger_file,
    quantizer_file,
    sequence_table,
    topk_table,
    trie_file,
    vector_store,
    version_folder,
)
from sidmill.io import json_report
from sidmill.numeric import sid_trie

N, DIM, SIZES = 40, 4, [5, 4, 6]
PRINT = {"model": "tiny", "dim": DIM}


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
