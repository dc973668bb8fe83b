"""docs/recipes/vector-stores.md: its right lines find what SIDMill finds, its wrong lines do not.

Skipped without the stores: ``make recipes`` installs them.
"""

import numpy as np
import pyarrow as pa
import pytest
import recipe_pages

from sidmill.formats import code_files, embedding_shards, vector_store
from sidmill.numeric import exact_search
from sidmill.settings.retrieval import Retrieval

for _name in ("lancedb", "hnswlib"):
    pytest.importorskip(_name, reason="make recipes installs it")

N, DIM = 300, 16
SECTIONS = recipe_pages.sections("vector-stores.md")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Vectors of different lengths, some of them equal, as SIDMill writes them, and their ids."""
    folder = tmp_path_factory.mktemp("stores")
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((N, DIM)) * rng.uniform(0.2, 3, (N, 1))
    vectors[0] *= -40 / np.linalg.norm(vectors[0]) * np.sign(vectors[0] @ vectors[7])  # far from 7
    vectors[[50, 120, 121, 260]] = vectors[0]
    vectors = vectors.astype(np.float32)
    ids = pa.chunked_array([rng.permutation(N) + 10**9])
    items = folder / "results/items"
    path = items / "embeddings.parquet/part-00000-of-00001.parquet"
    embedding_shards.write(path, pa.int64(), {}, [(ids, vectors)])
    sums = vector_store.write(items / "vectors.npy", (N, DIM), "float32", [vectors])
    vector_store.write_ids(items / "ids.parquet", ids, (N, DIM), {}, sums)
    codes = rng.integers(0, 16, (N, 3)).astype(np.int32)
    code_files.write(folder / "results/pid2sid.parquet", "sid", ids, [codes], [16] * 3)
    return folder, vectors, ids, codes


def nearest(vectors, ids, row, k):
    """SIDMill's own answer: ids and scores."""
    found = exact_search.search(
        vectors, vectors[row : row + 1], k, Retrieval(), ranks=exact_search.id_ranks(ids)
    )
    return ids.take(pa.array(found.rows[0])).to_pylist(), found.scores[0].tolist()


def answers(vectors, ids, codes):
    """What SIDMill says, by section."""
    best, scores = nearest(vectors, ids, 7, 5)
    below = np.flatnonzero(codes[:, 0] == 12)
    return {
        "Nearest items: say inner product": best,
        "Scores: LanceDB's distance is not the score": pytest.approx(scores[0], rel=1e-5),
        "Equal vectors: fetch some more, then order": nearest(vectors, ids, 0, 3)[0],
        "Labels of hnswlib: row numbers, not ids": [-7, 5],
        "A new catalogue in a LanceDB table: replace, and delete": N - 1,
        "Rows of a LanceDB table: by id, not by number": vectors[0].tolist(),
        "SIDs in a LanceDB table: filter, no full-text search": sorted(
            ids.take(pa.array(below)).to_pylist()
        ),
    }


@pytest.fixture
def check(results, monkeypatch):
    """A function that runs a block of the page in the folder that it reads."""
    monkeypatch.chdir(results[0])

    def run(block, wanted):
        known = {}
        exec(SECTIONS[""][0], known)
        return recipe_pages.broken(block, known, lambda value: value == wanted)

    return run


@pytest.mark.parametrize("heading", [heading for heading in SECTIONS if heading])
def test_right_lines_are_right_and_obvious_ones_are_not(heading, results, check):
    wanted = answers(*results[1:])[heading]
    (block,) = SECTIONS[heading]
    assert check(block, wanted) == []
    for obvious in recipe_pages.with_obvious_lines(block):
        assert check(obvious, wanted)


def test_the_page_names_the_versions_that_were_run():
    assert recipe_pages.outdated("vector-stores.md") == []
