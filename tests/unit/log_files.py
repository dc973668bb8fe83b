"""Logs to read: a folder with a catalogue, and what the tests read of it."""

import json

import pyarrow as pa
import pyarrow.parquet as pq

from sidmill.formats import item_text
from sidmill.interactions.read import read
from sidmill.settings.interactions import Interactions

REJECTING = {"on_unknown_items": "reject", "on_bad_rows": "reject"}


def put(folder, name, data):
    """Write a file of the log: bytes, text, or rows as JSON lines."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(data, list):
        data = "".join(json.dumps(row) + "\n" for row in data)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def read_log(folder, path, items=tuple(range(1, 11)), **changes):
    """Read a log; return sequences by user, rejects, and the report."""
    kind = pa.int64() if isinstance(items[0], int) else pa.string()
    out = folder / "out"
    out.mkdir(parents=True, exist_ok=True)
    table = pa.table({"pid": pa.array(items, kind), "text": [f"item {item}" for item in items]})
    item_text.write(out / "text.parquet", kind, [table])
    places = (out / "sequences.parquet", out / "rejects.parquet")
    settings = Interactions(path=str(path), **{"max_history": 20_000, "memory_mb": 64, **changes})
    report = read(out / "text.parquet", *places, settings)
    users, rejects = (pq.read_table(place).to_pylist() for place in places)
    counts = report["interactions_accounted_for"]
    assert counts["read"] == counts["written"] + counts["rejected"] + counts["restated"]
    return {row["user_id"]: row for row in users}, rejects, report
