#!/usr/bin/env bash
# implicit 0.7.3, scipy 1.17.1, Python 3.11.
#
# precision_at_k divides the hits by min(k, number of liked items), summed over users, not by k. With
# one held-out item per user, as in leave-one-out, "precision@3" is therefore HR@3.
#
# Guess: one hit in a list of 3 gives precision 1/3.
# Seen: 1.0.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 scipy==1.17.1 implicit==0.7.3
OPENBLAS_NUM_THREADS=1 "$folder/venv/bin/python" -W ignore - <<'PY'
import numpy as np
from implicit.als import AlternatingLeastSquares
from implicit.evaluation import precision_at_k
from scipy.sparse import csr_matrix

users = [0, 0, 1, 1, 1, 2, 2, 2, 3, 3]
items = [0, 1, 0, 1, 4, 2, 3, 4, 1, 4]
train = csr_matrix((np.ones(len(users)), (users, items)), shape=(4, 5))
model = AlternatingLeastSquares(factors=4, iterations=3, random_state=0)
model.fit(train, show_progress=False)
ids, _ = model.recommend(0, train[0], N=3)
held_out = csr_matrix((np.ones(1), ([0], [int(ids[1])])), shape=(4, 5))
value = precision_at_k(model, train, held_out, K=3, show_progress=False)
print("one held-out item, at rank 2 of 3: precision_at_k", value)
assert value == 1.0
PY
