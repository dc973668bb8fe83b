#!/usr/bin/env bash
# pyarrow 26.0.1, Python 3.11.
#
# Texts of items from columns with gaps: binary_join_element_wise joins columns row by row, and with
# null_handling="skip" "null elements are skipped" (its docstring). A row of nulls alone is not an empty
# text and not null: it is absent, so the result has fewer rows than the inputs, and each text after it
# belongs to another item. For a table append_column refuses the length. A projection of a dataset does
# not: its table has columns of different lengths, and says so only if it is asked to validate itself.
#
# Guess: the row gives "" (a join of nothing), as many rows as before.
# Seen: 3 rows give 2; the projected table has 2 texts beside 3 ids, without an error.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pyarrow==26.0.1
"$folder/venv/bin/python" - <<'PY'
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

items = pa.table(
    {"id": [1, 2, 3], "title": ["kettle", None, "cup"], "brand": ["Norrvik", None, None]}
)
joined = {
    handling: pc.binary_join_element_wise(
        items["title"], items["brand"], " ", null_handling=handling
    ).to_pylist()
    for handling in ("emit_null", "replace", "skip")
}
print(joined)
assert joined["emit_null"] == ["kettle Norrvik", None, None]
assert joined["replace"] == ["kettle Norrvik", " ", "cup "]
assert joined["skip"] == ["kettle Norrvik", "cup"]  # of three rows

text = pc.binary_join_element_wise(
    ds.field("title"), ds.field("brand"), " ", null_handling="skip"
)
found = ds.dataset(items).to_table(columns={"id": ds.field("id"), "text": text})
print("projected:", found["id"].to_pylist(), found["text"].to_pylist())
assert (len(found["id"]), len(found["text"])) == (3, 2)
try:
    found.validate()
except pa.ArrowInvalid as error:
    print("validate:", error)
else:
    raise SystemExit("the columns have one length")
PY
