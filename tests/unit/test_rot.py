"""Bytes that change on disk are found before anything is made of them."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as trials
from hypothesis import strategies as st

from sidmill.core.errors import SidmillError
from sidmill.formats import embedding_shards, quantizer_file, vector_store
from sidmill.formats.quantizer_file import Quantizer
from sidmill.io import row_digests, tensors

IDS = pa.chunked_array([pa.array(range(300))])
EVERY = trials(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def flip(path, place):
    """Change one bit."""
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= 1 << place % 8
    path.write_bytes(bytes(data))


def attempt(read, path):
    """What is read, or None if the reader refused the file by its name."""
    try:
        return read(path)
    except SidmillError as error:
        if str(path) not in str(error):
            raise
        return None


@pytest.fixture
def store(tmp_path, rng):
    paths = tmp_path / "vectors.npy", tmp_path / "ids.parquet"
    values = rng.standard_normal((300, 8)).astype(np.float32)
    sums = vector_store.write(paths[0], values.shape, "float32", np.array_split(values, 7))
    vector_store.write_ids(paths[1], IDS, values.shape, {}, sums)
    return paths


@EVERY
@given(place=st.integers(0, 300 * 8 * 4 - 1))
def test_any_bit_of_the_vectors(store, place):
    whole = store[0].read_bytes()
    vector_store.open_store(*store)
    flip(store[0], len(whole) - 1 - place)
    with pytest.raises(SidmillError, match=r"vectors\.npy: bytes 0 to 97\d\d are not those that"):
        vector_store.open_store(*store)
    store[0].write_bytes(whole)


def test_a_shard_reads_its_own_portions_alone(store, monkeypatch):
    monkeypatch.setattr(row_digests, "PORTION", 1024)
    values = np.load(store[0])
    sums = vector_store.write(store[0], values.shape, "float32", [values])
    vector_store.write_ids(store[1], IDS, values.shape, {}, sums)
    flip(store[0], 128 + 250 * 32)
    vector_store.open_store(*store, shard=(0, 3))
    for shard in [(0, 1), (2, 3)]:
        with pytest.raises(SidmillError, match=r"bytes 7168 to 8192"):
            vector_store.open_store(*store, shard=shard)


@given(
    cuts=st.lists(st.integers(0, 5000), max_size=8), size=st.integers(0, 5000), seed=st.integers()
)
def test_digests_depend_on_the_bytes_alone(tmp_path_factory, cuts, size, seed):
    data = np.random.default_rng(abs(seed)).bytes(size)
    bounds = [0, *sorted(min(cut, size) for cut in cuts), size]
    path = tmp_path_factory.mktemp("d") / "file"
    with pytest.MonkeyPatch.context() as patch, path.open("wb") as file:
        patch.setattr(row_digests, "PORTION", 1000)
        whole, parts = row_digests.Summing(file), row_digests.Summing(file)
        parts.write(data)
        file.seek(0)
        for start, stop in pairwise(bounds):
            whole.write(data[start:stop])
        file.flush()
        assert whole.digests() == parts.digests()
        assert len(whole.digests()) == -(-size // 1000)
        row_digests.check(path, whole.digests(), range(len(whole.digests())))


@EVERY
@given(place=st.integers(0, 10**6))
def test_any_bit_of_a_quantizer(tmp_path, place):
    path = tmp_path / "quantizer.safetensors"
    books = [np.arange(12, dtype=np.float32).reshape(4, 3)] * 2
    quantizer_file.write(path, Quantizer("rqkmeans", books, {"seed": 1}, {"model": "m"}))
    quantizer_file.read(path)
    flip(path, place)
    found = attempt(quantizer_file.read, path)
    if found:  # the padding of the header says nothing
        assert found.settings == {"seed": 1}
        assert np.array_equal(np.stack(found.codebooks), np.stack(books))


def test_a_checkpoint_whose_facts_were_edited(tmp_path):
    tensors.write(tmp_path / "last.safetensors", {"a": np.ones(3)}, {"epoch": 3})
    data = (tmp_path / "last.safetensors").read_bytes()
    (tmp_path / "last.safetensors").write_bytes(data.replace(b'epoch\\": 3', b'epoch\\": 4'))
    with pytest.raises(SidmillError, match="not those that were written"):
        tensors.read(tmp_path / "last.safetensors", "checkpoint")


@EVERY
@given(place=st.integers(0, 10**6))
def test_any_bit_of_a_shard_of_embeddings(tmp_path, place):
    path = tmp_path / "part.parquet"
    values = np.arange(1200, dtype=np.float32).reshape(300, 4)
    embedding_shards.write(path, pa.int64(), {"model": "m"}, [(IDS.chunk(0), values)])
    flip(path, place)
    found = attempt(lambda path: list(embedding_shards.read(path)), path)
    if found:  # a bit of the footer that no reader asks for
        assert np.array_equal(np.concatenate([block for _, block in found]), values)
