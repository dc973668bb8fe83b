"""What faiss is given to train an index on: known before the call, said in SIDMill's words.

No test calls faiss with too few rows: what is asked of a shape is asked of the guard alone.
"""

import re

import faiss
import numpy as np
import pytest

from sidmill.core.errors import SidmillError
from sidmill.numeric import training_sizes
from sidmill.retrieval import index
from sidmill.settings.retrieval import Faiss

BUILD = {"code_bytes": 4, "links": 8, "ef_construction": 20, "train_sample": 600}
# A factory string, the rows that it needs in 16 dimensions, and the part that needs them.
NEEDS = {
    "Flat": (0, ""),
    "HNSW8,Flat": (0, ""),
    "SQ8": (0, ""),
    "IVF33,Flat": (33, "inverted file"),
    "IVF40_HNSW8,SQ8": (40, "inverted file"),
    "IVF16(IVF4,Flat),Flat": (16, "inverted file"),
    "PQ4": (256, "product quantizer"),
    "PQ4x4": (16, "product quantizer"),
    "PQ4x4fs": (16, "product quantizer"),
    "IVF8,PQ4": (256, "product quantizer"),
    "HNSW8_PQ4": (256, "product quantizer"),
    "PQ4x4,RFlat": (16, "product quantizer"),
    "PQ4x4,Refine(PQ4x6)": (64, "product quantizer"),
    "OPQ4,PQ4x4": (256, "rotation"),
    "OPQ4_200,IVF4,PQ4x4": (400, "rotation"),
    "PCA8,Flat": (32, "PCAMatrix"),
    "RQ3x5": (32, "additive quantizer"),
    "LSQ2x4": (16, "additive quantizer"),
    "PRQ2x2x5": (32, "additive quantizer"),
    "IVF4,RQ2x6": (64, "additive quantizer"),
    "NSG8,Flat": (65, "graph"),
}


@pytest.fixture(scope="module")
def vectors():
    return np.random.default_rng(0).standard_normal((600, 16), dtype=np.float32)


def lacking(recipe, n_sample, n_rows):
    """What the guard says of a shape."""
    parts = list(index._parts(faiss.index_factory(16, recipe), n_sample, n_rows))
    try:
        index._require_rows(recipe, parts, n_rows)
    except SidmillError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("recipe", NEEDS)
def test_every_part_that_is_trained_has_a_need(recipe):
    needed, part = NEEDS[recipe]
    assert not lacking(recipe, max(1, needed), max(1, needed))
    if needed:
        assert f"its {part} needs {needed} passages" in lacking(recipe, needed - 1, needed - 1)


@pytest.mark.parametrize("recipe", NEEDS)
def test_the_remedy_works(recipe, vectors, tmp_path):
    """Too few rows in the sample, or in the corpus: do what the message says."""
    needed, _ = NEEDS[recipe]
    for n_rows, n_sample in ((600, needed - 1), (max(1, needed - 1), 600)):
        error = lacking(recipe, min(n_rows, n_sample), n_rows)
        built, sample = recipe, n_sample
        if "raise faiss.train_sample" in error:
            sample = int(re.search(r"at least (\d+)", error).group(1))
        elif error:
            assert "set retrieval.index to flat or hnsw" in error
            built = "hnsw"
        settings = Faiss(**{**BUILD, "train_sample": max(1, sample)})
        index.build(vectors[:n_rows], tmp_path / "x.faiss", built, settings, 0)
        assert faiss.read_index(str(tmp_path / "x.faiss")).ntotal == n_rows


@pytest.mark.parametrize("d_in", [1, 3, 16, 1000])
@pytest.mark.parametrize("d_out", [1, 4, 16, 2000])
def test_a_rotation_has_room_to_spare(d_in, d_out):
    assert training_sizes.rotation_rows(d_in, d_out) >= 2 * max(d_in, d_out)
    assert training_sizes.opq_rows(d_in, d_out, 8) >= max(2 * max(d_in, d_out), 256)


def test_cells_of_cells_are_trained_on_cells():
    error = lacking("IVF4(IVF8,Flat),Flat", 600, 600)
    assert "needs 8 passages to train on and gets 4" in error
    assert "flat or hnsw" in error  # a larger sample would not help


@pytest.mark.parametrize("recipe", ["IDMap,Flat", "IDMap2,HNSW8,Flat", "PCA8,IDMap,Flat"])
def test_numbers_of_its_own_are_refused_with_a_remedy(recipe, vectors, tmp_path):
    with pytest.raises(SidmillError, match="leave IDMap out"):
        index.build(vectors, tmp_path / "x.faiss", recipe, Faiss(**BUILD), 0)
    mended = re.sub("IDMap2?,", "", recipe)
    assert index.build(vectors, tmp_path / "x.faiss", mended, Faiss(**BUILD), 0) == mended


def test_what_faiss_refuses_while_rows_are_added_is_a_mistake_and_no_crash(
    vectors, tmp_path, monkeypatch
):
    monkeypatch.setattr(index, "BLOCK_ROWS", 500)  # a graph of this kind takes all rows at once
    with pytest.raises(SidmillError, match=r"change retrieval\.index"):
        index.build(vectors, tmp_path / "x.faiss", "NSG8,Flat", Faiss(**BUILD), 0)
    assert not (tmp_path / "x.faiss").exists()


@pytest.mark.parametrize("recipe", ["ivfpq", "opq", "PQ4", "RQ3x5", "IVF16,Flat", "OPQ4,PQ4x4"])
def test_few_rows_are_said_once(recipe, vectors, tmp_path, caplog, capfd):
    index.build(vectors, tmp_path / "x.faiss", recipe, Faiss(**BUILD, lists=16), 0)
    written = capfd.readouterr()
    assert "WARNING clustering" not in written.out + written.err
    few = [line for line in caplog.messages if "passages are few" in line]
    assert len(few) == 1
    assert "faiss asks for" in few[0]


@pytest.mark.parametrize("recipe", ["PQ4", "PQ4,RFlat", "HNSW8_PQ4", "IVF8,PQ4", "OPQ4,PQ4"])
def test_no_filter_is_trained_that_nobody_asks(recipe):
    built = faiss.index_factory(16, recipe)
    kept = index._prepare(built, 20, 0)
    filters = [inner for inner, _ in index._walk(built) if hasattr(inner, "do_polysemous_training")]
    assert filters
    assert not any(inner.do_polysemous_training for inner in filters)
    assert len(kept) == ("OPQ" in recipe)


@pytest.mark.parametrize("recipe", ["NSG8,Flat", "HNSW8,Flat", "OPQ4,PQ4x4"])
def test_what_threads_change_is_built_on_one(recipe, vectors, tmp_path):
    found = []
    for name in ("a", "b"):
        index.build(vectors, tmp_path / name, recipe, Faiss(**BUILD), 0)
        found.append((tmp_path / name).read_bytes())
    assert found[0] == found[1]
