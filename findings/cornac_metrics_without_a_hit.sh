#!/usr/bin/env bash
# cornac 3.0.1, numpy 2.4.6, Python 3.11.
#
# A list of answers that does not contain the target, which a beam search of 20 items often leaves: NDCG,
# Recall and HitRatio are 0, MRR raises ValueError and MAP is nan. One such user ends an evaluation
# with MRR, or makes the mean of MAP nan.
#
# Guess: all five are 0.
# Seen: 0, 0, 0, ValueError, nan.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 cornac==3.0.1
"$folder/venv/bin/python" -W ignore - <<'PY'
import math

import numpy as np
from cornac.metrics import MAP, MRR, NDCG, HitRatio, Recall

answers, target = np.arange(20), np.array([25])
arguments = {
    "gt_pos": target,
    "gt_neg": answers,
    "pd_rank": answers,
    "pd_scores": np.linspace(1, 0, 20),
    "item_indices": answers,
}
values = {type(m).__name__: float(m.compute(**arguments)) for m in (NDCG(k=10), Recall(k=10), HitRatio(k=10), MAP())}
print(values)
assert values["NDCG"] == values["Recall"] == values["HitRatio"] == 0
assert math.isnan(values["MAP"])
try:
    MRR().compute(**arguments)
except ValueError as error:
    print("MRR:", error)
else:
    raise SystemExit("MRR did not raise")
PY
