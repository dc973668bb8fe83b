#!/usr/bin/env bash
# datasets 5.2.0, pyarrow 26.0.1, Python 3.11.
#
# Two parquet files of one table, the later one with a column more, as two versions of a data set have
# them. load_dataset("parquet", data_files=[...]) raises if the file with the column comes second, and
# fills the column with None if it comes first. So whether a missing column is an error depends on the
# order of the files, which for a pattern is that of their names.
#
# Guess: different columns raise, in both orders.
# Seen: [without, with] raises; [with, without] gives four rows, two of them None.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 pyarrow==26.0.1 datasets==5.2.0
cd "$folder"
HF_HUB_OFFLINE=1 "$folder/venv/bin/python" - 2> "$folder/log" <<'PY'
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import load_dataset

pq.write_table(pa.table({"id": [1, 2]}), "without.parquet")
pq.write_table(pa.table({"id": [1, 2], "tokens": ["<a_1>", "<a_2>"]}), "with.parquet")


def load(*names):
    files = [f"{name}.parquet" for name in names]
    return load_dataset("parquet", data_files=files, split="train", cache_dir="_".join(names))


tokens = load("with", "without")["tokens"][:]
print("with, without:", tokens)
assert tokens == ["<a_1>", "<a_2>", None, None]
try:
    load("without", "with")
except Exception as error:
    print("without, with:", type(error).__name__)
    assert type(error).__name__ == "DatasetGenerationError"
else:
    raise SystemExit("a column that the first file lacks did not raise")
PY
