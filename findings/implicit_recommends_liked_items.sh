#!/usr/bin/env bash
# implicit 0.7.3, scipy 1.17.1, Python 3.11.
#
# recommend(..., filter_already_liked_items=True) for a user with fewer than N other items: N rows come
# back. The missing ones are filled with items the user already has, with the score -3.4e38; only the
# score tells. Code that keeps the ids alone recommends what the user has.
#
# Guess: fewer rows come back.
# Seen: 4 rows, one new item and the three that were to be filtered.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 scipy==1.17.1 implicit==0.7.3
OPENBLAS_NUM_THREADS=1 "$folder/venv/bin/python" -W ignore - <<'PY'
import numpy as np
from implicit.als import AlternatingLeastSquares
from scipy.sparse import csr_matrix

users = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3]
items = [0, 1, 2, 3, 0, 1, 4, 2, 3, 4, 1, 4]
matrix = csr_matrix((np.ones(len(users)), (users, items)), shape=(4, 5))
model = AlternatingLeastSquares(factors=4, iterations=3, random_state=0)
model.fit(matrix, show_progress=False)
ids, scores = model.recommend(0, matrix[0], N=4, filter_already_liked_items=True)
print("user 0 has items 0 to 3; recommended", ids.tolist(), "scores", scores.tolist())
assert len(ids) == 4 and ids[0] == 4 and set(ids[1:].tolist()) <= {0, 1, 2, 3}
assert (scores[1:] == np.finfo(np.float32).min).all()
PY
