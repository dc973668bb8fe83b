"""Both passes of a dataset on a few tables: what the tests of datasets share."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from conftest import ROOT

from sidmill.datasets import (
    counts,
    inputs,
    item_lookup,
    resolve,
    tasks,
    write,
)
from sidmill.formats import code_files, dataset_rows, sid_text
from sidmill.settings.datasets import Datasets

RESOURCES = ROOT / "workflow/resources"
ANY_SHARE = Datasets(max_unknown_share=1, max_left_out_share=1)
SEED, N_ITEMS = 5, 30
SIDS = np.stack([np.arange(N_ITEMS) % k for k in (5, 6, 7)], axis=1).astype(np.int32)
TEXTS = sid_text.render(SIDS).to_pylist()


def write_items(path, pids=range(N_ITEMS), sids=SIDS):
    sizes = (sids.max(axis=0) + 1).tolist()
    code_files.write(path, "sid", pa.chunked_array([pa.array(list(pids))]), [sids], sizes)
    return path


def run(folder, task, *tables, **others):
    """Make a dataset of tables, one file each; give its rows, its counts and its bytes.

    ``others`` are settings of the section ``datasets``, ``split``, the files ``items``,
    ``products`` and ``texts``, or the folder ``resources``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, table in enumerate(tables):
        paths.append(str(folder / f"input{number}.parquet"))
        pq.write_table(table, paths[-1])

    # The files; whatever remains of the keywords is a setting.
    resources = others.pop("resources", RESOURCES)
    tasks.load(resources / f"tasks/{task}.yaml")
    dataset = tasks.Dataset(task, others.pop("split", "train"), resources)
    pid2sid = others.pop("items", None) or write_items(folder / "pid2sid.parquet")
    products, texts = others.pop("products", pid2sid), others.pop("texts", [])
    items = item_lookup.ItemFiles(pid2sid, products, texts)
    settings = Datasets(**others)

    # Both passes in one shard, and what became of each row.
    rows, figures, shard = folder / "rows.arrow", folder / "rows.json", inputs.Shard(0, 1)
    resolve.resolve(rows, figures, dataset, paths, items, settings, shard, SEED)
    resolved = write.Resolved([rows], [figures])
    write.write_parts(folder / task, resolved, dataset, items, settings, shard, SEED)
    made = pa.concat_tables(dataset_rows.read(folder / task)).to_pylist()
    whole = counts.total([figures], task, ANY_SHARE)
    assert whole["read"] + whole["added"] == whole["written"] + sum(whole["left_out"].values())
    assert whole["written"] == len(made)
    return made, whole


def facts(row):
    return json.loads(row["metadata"])


def answer(row):
    return json.loads(row["messages"])[-1]["content"][0]["text"]
