#!/usr/bin/env bash
# ir_measures 0.4.3, pytrec_eval-terrier 0.5.11, pandas 3.1.1, numpy 2.4.6, Python 3.11, perl.
#
# Ids of users and items are integers in most logs. What integers do depends on the measure, since each
# measure has its own provider. Integers in judgements and run: nDCG@10 raises TypeError, RR@10 is right,
# ERR@10 is half of what it is. Strings in the judgements and integers in the run, as a data frame of a
# parquet file beside a text file: nDCG@10 raises, RR@10 is 0.
#
# Guess: TypeError for every measure, as ids are strings throughout the package.
# Seen: both strings, nDCG 0.8155, RR 0.75, ERR 0.0469; both integers, TypeError, 0.75, 0.0234; strings
# and integers, TypeError, 0, 0.0469.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 pandas==3.1.1 pytrec_eval-terrier==0.5.11 ir_measures==0.4.3
"$folder/venv/bin/python" -W ignore - <<'PY'
import ir_measures
import pandas as pd
from ir_measures import ERR, RR, nDCG

IDS = ["query_id", "doc_id"]
judged = pd.DataFrame({"query_id": [1, 2], "doc_id": [7, 3], "relevance": [1, 1]})
run = pd.DataFrame({"query_id": [1, 1, 2, 2], "doc_id": [7, 8, 1, 3], "score": [2.0, 1.0, 2.0, 1.0]})
texts = [table.astype(dict.fromkeys(IDS, str)) for table in (judged, run)]


def measure(name, judgements, answers):
    try:
        return round(ir_measures.calc_aggregate([name], judgements, answers)[name], 4)
    except TypeError:
        return "TypeError"


found = {
    label: [measure(name, *tables) for name in (nDCG @ 10, RR @ 10, ERR @ 10)]
    for label, tables in {
        "strings": texts,
        "integers": (judged, run),
        "strings and integers": (texts[0], run),
    }.items()
}
print("nDCG@10, RR@10, ERR@10:", found)
assert found["strings"] == [0.8155, 0.75, 0.0469]
assert found["integers"] == ["TypeError", 0.75, 0.0234]
assert found["strings and integers"] == ["TypeError", 0, 0.0469]
PY
