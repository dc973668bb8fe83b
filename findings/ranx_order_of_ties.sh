#!/usr/bin/env bash
# ranx 0.3.21, numba 0.68.1, Python 3.11.
#
# Items that share a semantic ID have equal scores. With up to 15 results, equal scores keep the order
# in which they were put into the run; with 16 or more they do not: the first of 16 is ranked 15th, the
# first of 50 26th. One result more at the end of a list changes the metric of those before it.
#
# Guess: equal scores are ranked in the order of the run (a stable sort), at any length.
# Seen: the rank of the first result is 1 of 15, 15 of 16, 26 of 50.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 numba==0.68.1 ranx==0.3.21
"$folder/venv/bin/python" -W ignore - <<'PY'
from ranx import Qrels, Run, evaluate


def reciprocal_rank_of_first(n_results):
    run = Run({"query": {f"item{number}": 1.0 for number in range(n_results)}})
    return float(evaluate(Qrels({"query": {"item0": 1}}), run, "mrr"))


ranks = {n: round(1 / reciprocal_rank_of_first(n)) for n in (15, 16, 50)}
print("rank of the first of n equal scores:", ranks)
assert ranks == {15: 1, 16: 15, 50: 26}
PY
