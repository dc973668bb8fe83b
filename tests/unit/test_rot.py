"""Bytes that change on disk are found before anything is made of them."""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as trials
from hypothesis import strategies as st

from sidmill.core.errors import SidmillError
from sidmill.formats import embedding_shards, quantizer_file, vector_store
from sidmill.formats.quantizer_file import Quantizer
from sidmill.io import row_digests, tensors
from sidmill.numeric import row_blocks

IDS = pa.chunked_array([pa.array(range(300))])
EVERY = trials(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


READERS = {
    "all": row_blocks.read_all,
    "blocks": lambda vectors: next(row_blocks.read_blocks(vectors, 7)),
    "a slice": lambda vectors: next(row_blocks.read_blocks(vectors[40:90], 7)),
    "some rows": lambda vectors: row_blocks.take(vectors, np.array([9, 2, 77])),
    "a row": lambda vectors: vectors[3],
    "rows": lambda vectors: vectors[[3, 200]],
    "a mask": lambda vectors: vectors[np.arange(len(vectors)) == 5],
    "a value": lambda vectors: vectors[3, 2],
    "a row of a slice": lambda vectors: vectors[10:20][2],
}


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
@given(place=st.integers(0, 300 * 8 * 4 - 1), reader=st.sampled_from(sorted(READERS)))
def test_any_bit_of_the_vectors(store, place, reader):
    whole = store[0].read_bytes()
    row_blocks.read_all(vector_store.open_store(*store).vectors)
    flip(store[0], len(whole) - 1 - place)
    vectors = vector_store.open_store(*store).vectors
    with pytest.raises(SidmillError, match=r"vectors\.npy: bytes 0 to 97\d\d are not those that"):
        READERS[reader](vectors)
    store[0].write_bytes(whole)


@pytest.fixture
def portions(store, monkeypatch, rng):
    """Write the store with portions of 1,024 bytes, and return its values."""
    monkeypatch.setattr(row_digests, "PORTION", 1024)
    values = rng.standard_normal((300, 8)).astype(np.float32)
    sums = vector_store.write(store[0], values.shape, "float32", [values])
    vector_store.write_ids(store[1], IDS, values.shape, {}, sums)
    return values


def test_a_part_reads_its_own_portions_alone(store, portions):
    flip(store[0], 128 + 250 * 32)  # of the portion with rows 220 to 251
    vectors = vector_store.open_store(*store).vectors
    np.testing.assert_array_equal(row_blocks.read_all(vectors[:100]), portions[:100])
    np.testing.assert_array_equal(vectors[[0, 99, 252]], portions[[0, 99, 252]])
    for part in (slice(0, 300), slice(200, 300), slice(220, 221)):
        with pytest.raises(SidmillError, match=r"bytes 7168 to 8192"):
            row_blocks.read_all(vectors[part])
        with pytest.raises(SidmillError, match=r"bytes 7168 to 8192"):
            vectors[np.arange(part.start, part.stop)]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("n_rows", [1, 7, 32, 300])
def test_a_stage_reads_each_byte_of_the_vectors_once(store, portions, monkeypatch, n_rows, dtype):
    """Opened, checked and read in order: as many bytes as the file has."""
    sums = vector_store.write(store[0], portions.shape, dtype, [portions])
    vector_store.write_ids(store[1], IDS, portions.shape, {}, sums)
    read = []
    real = os.preadv

    def counting(file, buffers, offset):
        n_bytes = real(file, buffers, offset)
        read.append(n_bytes)
        return n_bytes

    monkeypatch.setattr(os, "preadv", counting)
    vectors = vector_store.open_store(*store).vectors
    assert read == []
    found = [block.copy() for _, block in row_blocks.read_blocks(vectors, n_rows)]
    np.testing.assert_array_equal(np.concatenate(found), portions.astype(dtype))
    assert sum(read) == store[0].stat().st_size

    # A later pass reads rows, and checks nothing again: at most the bytes of the rows.
    read.clear()
    row_blocks.read_all(vectors)
    assert sum(read) <= portions.astype(dtype).nbytes


@trials(max_examples=30, deadline=None)
@given(
    asked=st.lists(st.lists(st.integers(0, 299), max_size=6), max_size=6), bad=st.integers(0, 299)
)
def test_a_row_of_a_damaged_portion_never_comes_out(tmp_path_factory, asked, bad):
    """Whatever is read in whatever order: the right numbers, or the file is refused."""
    folder = tmp_path_factory.mktemp("s")
    values = np.random.default_rng(bad).standard_normal((300, 8)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_digests, "PORTION", 1024)
        sums = vector_store.write(folder / "v.npy", values.shape, "float32", [values])
        vector_store.write_ids(folder / "i.parquet", IDS, values.shape, {}, sums)
        flip(folder / "v.npy", 128 + bad * 32)
        vectors = vector_store.open_store(folder / "v.npy", folder / "i.parquet").vectors
        damaged = (128 + bad * 32) // 1024
        for rows in map(np.array, filter(None, asked)):
            spans = {(128 + row * 32 + byte) // 1024 for row in rows.tolist() for byte in (0, 31)}
            if damaged in spans:
                with pytest.raises(SidmillError, match="not those that were written"):
                    row_blocks.take(vectors, rows)
            elif min(spans) < damaged < max(spans):  # near rows are read with what lies between
                with suppress(SidmillError):
                    np.testing.assert_array_equal(row_blocks.take(vectors, rows), values[rows])
            else:
                np.testing.assert_array_equal(row_blocks.take(vectors, rows), values[rows])


def test_a_store_of_other_portions_is_checked(store, portions, monkeypatch):
    monkeypatch.setattr(row_digests, "PORTION", 4096)
    np.testing.assert_array_equal(
        row_blocks.read_all(vector_store.open_store(*store).vectors), portions
    )
    flip(store[0], 128 + 250 * 32)
    with pytest.raises(SidmillError, match=r"bytes 7168 to 8192"):
        row_blocks.read_all(vector_store.open_store(*store).vectors)


def test_threads_share_a_store(store, portions):
    vectors = vector_store.open_store(*store).vectors
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda n: row_blocks.read_all(vectors[n:]), range(40)):
            np.testing.assert_array_equal(found, portions[-len(found) :])


def test_a_file_that_was_cut_or_has_other_digests_is_refused(store, portions):
    ids = vector_store.read_pids(store[1])
    vector_store.write_ids(store[1], ids, portions.shape, {}, ["0" * 16])
    with pytest.raises(SidmillError, match="not those that were written"):
        vector_store.open_store(*store)


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
        row_digests.check(path, whole.digests(), range(len(whole.digests())), 1000)


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
@example(place=18207)  # a bit of a column name, which is then no UTF-8
def test_any_bit_of_a_shard_of_embeddings(tmp_path, place):
    path = tmp_path / "part.parquet"
    values = np.arange(1200, dtype=np.float32).reshape(300, 4)
    embedding_shards.write(path, pa.int64(), {"model": "m"}, [(IDS.chunk(0), values)])
    flip(path, place)
    found = attempt(lambda path: list(embedding_shards.read(path)), path)
    if found:  # a bit of the footer that no reader asks for
        assert np.array_equal(np.concatenate([block for _, block in found]), values)
