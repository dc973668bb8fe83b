#!/usr/bin/env bash
# RecTools 0.19.0, numpy 1.26.4, pandas 2.2.3, Python 3.11. The same with numpy 2.4.6 and pandas 3.1.1.
#
# An item that is twice in a list of answers, as two beams that end in it leave it, counts as one more
# target: it is in the numerator and in the denominator twice. A list of one of two targets, twice, has
# NDCG@2 1 and Recall@2 2/3. A list with the only target first has an NDCG below 1 if the target
# is at rank 3 again.
#
# Guess: a repeated row (user, item) is refused, as a run that names a document twice should be.
# Seen: NDCG 1.0 and Recall 0.667 where one of two targets is missing; NDCG 0.920 for the target at
# ranks 1 and 3.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==1.26.4 pandas==2.2.3 scipy==1.16.3 rectools==0.19.0
"$folder/venv/bin/python" -W ignore - <<'PY'
import pandas as pd
from rectools.metrics import NDCG, Recall


def table(*rows):
    return pd.DataFrame(rows, columns=["user_id", "item_id", "rank"])


both = pd.DataFrame({"user_id": ["u", "u"], "item_id": [7, 99]})
twice = table(("u", 7, 1), ("u", 7, 2))
ndcg = NDCG(k=2, divide_by_achievable=True)
found = {"NDCG": float(ndcg.calc(twice, both)), "Recall": float(Recall(k=2).calc(twice, both))}
print("targets 7 and 99, answers 7 and 7:", found)
assert found["NDCG"] == 1 and abs(found["Recall"] - 2 / 3) < 1e-9

one = pd.DataFrame({"user_id": ["u"], "item_id": [7]})
again = table(("u", 7, 1), ("u", 8, 2), ("u", 7, 3))
value = float(NDCG(k=3, divide_by_achievable=True).calc(again, one))
print("target 7, answers 7, 8, 7: NDCG", round(value, 4))
assert 0.919 < value < 0.921
PY
