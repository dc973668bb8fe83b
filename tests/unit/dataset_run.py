"""Both passes of a dataset on a few tables: what the tests of datasets share."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from conftest import ROOT

from sidmill.datasets import (
    counts,
    resolve,
    tasks,
    write,
)
from sidmill.formats import code_files, dataset_rows, sid_text

RESOURCES = ROOT / "workflow/resources"
N_ITEMS = 30
SIDS = np.stack([np.arange(N_ITEMS) % k for k in (5, 6, 7)], axis=1).astype(np.int32)
TEXTS = sid_text.render(SIDS).to_pylist()


def write_items(path, pids=range(N_ITEMS), sids=SIDS):
    sizes = (sids.max(axis=0) + 1).tolist()
    code_files.write(path, "sid", pa.chunked_array([pa.array(list(pids))]), [sids], sizes)
    return path


def run(folder, task, *tables, **others):
    """Make a dataset of tables, one file each; give its rows, its counts and its bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    resources = others.pop("resources", RESOURCES)
    paths = []
    for number, table in enumerate(tables):
        paths.append(str(folder / f"input{number}.parquet"))
        pq.write_table(table, paths[-1])
    tasks.load(resources / f"tasks/{task}.yaml")
    items = others.pop("items", None) or write_items(folder / "pid2sid.parquet")
    shared = {"task_path": resources / f"tasks/{task}.yaml", "pid2sid": items, "seed": 5}
    shared |= {"product_pid2sid": others.pop("products", items), "texts": others.pop("texts", [])}
    first = {"split": "train", "windows": "user", "history_max": None, "target_max": None}
    second = {"form": "onerec", "language": "en", "rows_per_file": 1000}
    first |= {key: others.pop(key) for key in list(others) if key in first}
    second |= {key: others.pop(key) for key in list(others) if key in second}
    assert not others
    rows, figures = folder / "rows.arrow", folder / "rows.json"
    resolve.resolve(rows, figures, dataset=task, paths=paths, shard=0, shards=1, **first, **shared)
    write.write_parts(
        folder / task, rows_paths=[rows], counts_paths=[figures], shard=0, shards=1,
        prompts_folder=resources / "prompts", **second, **shared,
    )  # fmt: skip
    made = pa.concat_tables(dataset_rows.read(folder / task)).to_pylist()
    whole = counts.total([figures], task, max_unknown_share=1, max_left_out_share=1)
    assert whole["read"] + whole["added"] == whole["written"] + sum(whole["left_out"].values())
    assert whole["written"] == len(made)
    return made, whole


def facts(row):
    return json.loads(row["metadata"])


def answer(row):
    return json.loads(row["messages"])[-1]["content"][0]["text"]
