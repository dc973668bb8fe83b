"""Exact search on the device: the ids of plain brute force, ties included."""

import numpy as np
import pytest
from gpu_device import DEVICE, gpu

from sidmill.numeric import exact_search
from sidmill.settings.retrieval import Retrieval

pytestmark = gpu


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("has_ties", [False, True])
@pytest.mark.parametrize("top_k", [1, 20, 400])
def test_ids_are_exact(dtype, has_ties, top_k):
    rng = np.random.default_rng(top_k)
    corpus = rng.standard_normal((6000, 40), dtype=np.float32)
    if has_ties:
        corpus = corpus.round(0)
        corpus[rng.integers(6000, size=3000)] = corpus[0]
    corpus = corpus.astype(dtype)
    queries = rng.standard_normal((37, 40), dtype=np.float32).round(1)
    ranks = rng.permutation(6000)
    mine, theirs = (
        exact_search.search(
            corpus,
            queries,
            top_k,
            Retrieval(device=device, search_batch=batch, memory_mb=16),
            ranks=ranks,
        )
        for device, batch in ((DEVICE, 10), ("cpu", 37))
    )
    np.testing.assert_array_equal(mine.rows, theirs.rows)
    np.testing.assert_array_equal(mine.scores, theirs.scores)

    # By the definition: higher score first, then the lower rank.
    scores = (queries[:3, None] * corpus.astype(np.float32)[None]).sum(axis=2)
    for query in range(3):
        wanted = np.lexsort((ranks, -scores[query]))[:top_k]
        np.testing.assert_array_equal(mine.rows[query], wanted)


def test_fewer_rows_than_neighbours():
    rng = np.random.default_rng(0)
    corpus, queries = (rng.standard_normal((n, 8), dtype=np.float32) for n in (5, 3))
    found = exact_search.search(corpus, queries, 9, Retrieval(device=DEVICE))
    assert (found.rows[:, 5:] == -1).all()
    assert (np.sort(found.rows[:, :5], axis=1) == np.arange(5)).all()
