#!/usr/bin/env bash
# faiss-cpu 1.15.1, numpy 2.4.6, Python 3.11.
#
# IndexIDMap2.reconstruct_n(0, ntotal) returns vectors in the order of their ids (it reconstructs the
# ids 0, 1, 2, ...), while id_map is in the order of adding. Zipped with each other, as an export of an
# index would do, ids get the vectors of other items, without an error.
#
# Guess: vectors come in the order in which they were added, as id_map does.
# Seen: ids 2, 0, 3, 1 were added with unit vectors 0 to 3; reconstruct_n gives the vectors 1, 3, 0, 2.
# The inner index, faiss.downcast_index(index.index), gives them in the order of adding.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 faiss-cpu==1.15.1
"$folder/venv/bin/python" - <<'PY'
import faiss
import numpy as np

vectors, ids = np.eye(4, dtype=np.float32), np.array([2, 0, 3, 1])
index = faiss.IndexIDMap2(faiss.IndexFlatIP(4))
index.add_with_ids(vectors, ids)

listed = faiss.vector_to_array(index.id_map).tolist()
outer = index.reconstruct_n(0, 4).argmax(axis=1).tolist()
inner = faiss.downcast_index(index.index).reconstruct_n(0, 4).argmax(axis=1).tolist()
print("id_map", listed, "reconstruct_n", outer, "of the inner index", inner)
assert listed == [2, 0, 3, 1]
assert outer == [1, 3, 0, 2]
assert inner == [0, 1, 2, 3]
PY
