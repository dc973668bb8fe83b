#!/usr/bin/env bash
# lancedb 0.40.0, pyarrow 26.0.1, Python 3.11.
#
# A full-text index over semantic IDs written as tokens, <s_a_12><s_b_7>: a query for the token <s_a_12>
# also finds items that have the code 12 on the second level, with the same score. Words are cut at
# punctuation, underscores too, so that the token is the words s, a and 12, and s and a are stop words:
# of the level nothing is left.
#
# Guess: <s_a_12> is one word, or finds the items with 12 on the first level first.
# Seen: items 1 (12 on level a) and 2 (12 on level b) with equal scores, also for the query 12.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 pyarrow==26.0.1 lancedb==0.40.0
FOLDER="$folder/db" "$folder/venv/bin/python" - <<'PY'
import os

import lancedb

sids = {1: "<s_a_12><s_b_7>", 2: "<s_a_7><s_b_12>", 3: "<s_a_1><s_b_2>"}
rows = [{"id": number, "tokens": text} for number, text in sids.items()]
table = lancedb.connect(os.environ["FOLDER"]).create_table("sids", rows)
table.create_fts_index("tokens")


def found(query):
    answers = table.search(query, query_type="fts").limit(3).to_list()
    return {answer["id"]: round(answer["_score"], 4) for answer in answers}


token, number = found("<s_a_12>"), found("12")
print("<s_a_12>:", token, "12:", number)
assert sorted(token) == [1, 2]
assert token[1] == token[2]
assert token == number
PY
