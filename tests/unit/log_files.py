"""Logs to read: a folder with a catalogue, and the settings that the tests start from."""

import json

import pyarrow as pa
import pyarrow.parquet as pq

from sidmill.formats import item_text
from sidmill.interactions.read import read

FIELDS = dict.fromkeys(("user", "item", "time", "split", "history", "target"))
PLAIN = {
    "format": "auto",
    "fields": FIELDS,
    "columns": None,
    "delimiter": None,
    "encoding": "utf-8",
    "list_separator": None,
    "time_format": None,
    "time_unit": "us",
    "time_fractions": "error",
    "split": "leave_two_out",
    "history_only": "hold_out",
    "valid_share": 0.1,
    "test_share": 0.1,
    "max_history": 20_000,
    "on_unknown_items": "error",
    "on_bad_rows": "error",
    "memory_mb": 64,
}
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
    report = read(out / "text.parquet", *places, path=str(path), **(PLAIN | changes))
    users, rejects = (pq.read_table(place).to_pylist() for place in places)
    counts = report["interactions_accounted_for"]
    assert counts["read"] == counts["written"] + counts["rejected"] + counts["restated"]
    return {row["user_id"]: row for row in users}, rejects, report
