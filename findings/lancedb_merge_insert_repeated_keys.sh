#!/usr/bin/env bash
# lancedb 0.40.0, pyarrow 26.0.1, Python 3.11.
#
# An upsert by item id, merge_insert(id).when_matched_update_all().when_not_matched_insert_all(), of two
# rows with the same id: it raises if the table has the id, and inserts both if it has not. A first
# load of a catalogue with a repeated id so leaves two vectors under one id, and the second load of the
# same rows raises.
#
# Guess: a repeated key in the source raises in both cases.
# Seen: new key, two rows inserted; the same call again, ValueError.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 pyarrow==26.0.1 lancedb==0.40.0
FOLDER="$folder/db" "$folder/venv/bin/python" - <<'PY'
import os

import lancedb

table = lancedb.connect(os.environ["FOLDER"]).create_table("items", [{"id": 1, "vector": [0.0, 1.0]}])
rows = [{"id": 7, "vector": [1.0, 0.0]}, {"id": 7, "vector": [2.0, 0.0]}]


def upsert():
    table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(rows)


upsert()
ids = sorted(table.to_arrow()["id"].to_pylist())
print("ids after the first upsert:", ids)
assert ids == [1, 7, 7]
try:
    upsert()
except ValueError as error:
    print("second upsert of the same rows:", str(error)[:70])
else:
    raise SystemExit("the second upsert did not raise")
PY
