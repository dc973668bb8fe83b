"""Codes from every form of vectors: the same ones, from the library and from the command line."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from sidmill import api
from sidmill.cli import commands
from sidmill.commands import source
from sidmill.core.errors import SidmillError
from sidmill.formats import (
    code_files,
    embedding_shards,
    quantizer_file,
    vector_file,
    vector_store,
)
from sidmill.formats.item_data import Block, write
from sidmill.numeric import row_blocks

FINGERPRINT = {"backend": "test", "dim": 12}
N_ROWS = 500
IDS = pa.chunked_array([pa.array(np.arange(1000, 1000 + N_ROWS))])


@pytest.fixture(scope="module")
def fitted():
    """Vectors, and a quantizer of them."""
    vectors = np.random.default_rng(0).standard_normal((N_ROWS, 12)).astype(np.float32)
    quantizer = api.fit(vectors, n_levels=2, codebook_size=16, seed=0, device="cpu")
    return vectors, quantizer._replace(fingerprint=FINGERPRINT)


@pytest.fixture
def files(fitted, tmp_path):
    """The same vectors in every form."""
    vectors, quantizer = fitted
    api.save(tmp_path / "quantizer.safetensors", quantizer)
    (tmp_path / "bare").mkdir()
    np.save(tmp_path / "bare/vectors.npy", vectors)
    np.save(tmp_path / "vectors.npy", vectors)
    vector_store.write_ids(tmp_path / "ids.parquet", IDS, vectors.shape, FINGERPRINT)
    (tmp_path / "embeddings.parquet").mkdir()
    for part, (low, high) in enumerate([(0, 7), (7, 450), (450, N_ROWS)]):
        path = tmp_path / f"embeddings.parquet/part-{part}.parquet"
        rows = [(IDS.slice(low, high - low), vectors[low:high])]
        embedding_shards.write(path, pa.int64(), FINGERPRINT, rows)
    foreign = pa.FixedSizeListArray.from_arrays(vectors.astype(np.float64).ravel(), 12)
    pq.write_table(pa.table({"emb": foreign}), tmp_path / "foreign.parquet", row_group_size=90)
    features = np.zeros((N_ROWS, 3), np.int32)
    rows = [Block(vectors, features, features[:, 0])]
    write(tmp_path / "item_data.h5", IDS.to_numpy(), 12, 3, rows)
    return tmp_path


FORMS = {
    "bare/vectors.npy": False,
    "vectors.npy": True,
    "embeddings.parquet": True,
    "embeddings.parquet/part-*.parquet": True,
    "foreign.parquet": False,
    "item_data.h5": True,
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_codes(files, fitted, name, monkeypatch):
    monkeypatch.setattr(vector_file, "BATCH_ROWS", 64)
    vectors, quantizer = fitted
    column = "emb" if name == "foreign.parquet" else "embedding"
    opened = api.open_vectors(files / name, column)
    np.testing.assert_array_equal(
        api.encode(quantizer, opened.vectors, device="cpu", memory_mb=16),
        api.encode(quantizer, vectors, device="cpu"),
    )
    arguments = ["--quantizer", files / "quantizer.safetensors", "--vectors", files / name]
    arguments += ["--out", files / "codes.parquet", "--column", column, "--memory-mb", 16]
    result = CliRunner().invoke(commands, ["encode", *map(str, arguments)], catch_exceptions=False)
    assert "500 items" in result.output
    written = code_files.read(files / "codes.parquet", "codes")
    np.testing.assert_array_equal(written.codes, api.encode(quantizer, vectors, device="cpu"))
    assert written.sizes == [16, 16]
    assert written.ids.to_pylist() == (IDS.to_pylist() if FORMS[name] else list(range(N_ROWS)))


@pytest.mark.parametrize("shape", [(N_ROWS, 12), (3, 12)])
def test_ids_are_those_of_vectors_npy_and_of_no_other_array(files, shape):
    np.save(files / "other.npy", np.ones(shape, np.float32))
    opened = api.open_vectors(files / "other.npy")
    assert (opened.ids.to_pylist(), opened.fingerprint) == (list(range(shape[0])), {})
    with source.open_vectors(str(files / "other.npy"), None, None) as plain:
        assert (plain.has_ids, plain.fingerprint) == (False, {})


def test_a_stream_trains_the_same_quantizer(files, fitted):
    vectors, _ = fitted
    streamed = api.open_vectors(files / "embeddings.parquet").vectors
    assert isinstance(streamed, vector_file.Streamed)
    for limit in (None, 10):
        settings = {"n_levels": 2, "codebook_size": 16, "seed": 0, "device": "cpu"}
        settings |= {"max_points_per_centroid": limit}
        mine, theirs = api.fit(streamed, **settings), api.fit(vectors, **settings)
        for one, other in zip(mine.codebooks, theirs.codebooks, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("n_rows", [1, 33, 90, 499, 500, 900])
@pytest.mark.parametrize("chosen", [False, True])
def test_a_stream_is_read_in_blocks_like_an_array(files, fitted, n_rows, chosen, monkeypatch):
    monkeypatch.setattr(vector_file, "BATCH_ROWS", 64)
    streamed = api.open_vectors(files / "embeddings.parquet").vectors
    rows = np.array([0, 6, 7, 63, 64, 449, 450, 499]) if chosen else None
    ours, plain = (
        [(start, block.copy()) for start, block in row_blocks.read_blocks(source, n_rows, rows)]
        for source in (streamed, fitted[0])
    )
    assert [start for start, _ in ours] == [start for start, _ in plain]
    for (_, one), (_, other) in zip(ours, plain, strict=True):
        np.testing.assert_array_equal(one, other)


FUSED = {"dim": 5, "fuse.method": "graph"}


@pytest.mark.parametrize(
    ("own", "other", "remedy"),
    [
        ({"dim": 5}, {"dim": 6}, "embed the items as it expects"),
        (FUSED, FUSED | {"dim": 6}, "embed the items as it expects"),
        (FUSED, {"dim": 5}, r"fuse vectors as it expects \(fuse.use: sids"),
        (FUSED, FUSED | {"fuse.method": "svd"}, r"fuse vectors as it expects \(fuse.use: sids"),
        ({"dim": 5}, FUSED, r"give it vectors of text alone \(fuse.use: similarity\)"),
    ],
)
def test_the_remedy_is_that_of_the_difference(fitted, own, other, remedy):
    quantizer = fitted[1]._replace(fingerprint=own)
    with pytest.raises(SidmillError, match=f"trained on other embeddings .*, or {remedy}"):
        quantizer_file.check_fingerprint(quantizer, other, "q")


def test_mistakes_are_named(files, fitted):
    vectors, quantizer = fitted
    out = files / "codes.parquet"
    with pytest.raises(SidmillError, match="0 columns named 'embedding'"):
        api.encode_file(quantizer, files / "foreign.parquet", out)
    with pytest.raises(SidmillError, match="no such file"):
        api.encode_file(quantizer, files / "absent.parquet", out)
    other = quantizer._replace(fingerprint={"backend": "other", "dim": 12})
    with pytest.raises(SidmillError, match="trained on other embeddings"):
        api.encode_file(other, files / "embeddings.parquet", out)
    added = files / "embeddings.parquet/part-9.parquet"
    new = pa.chunked_array([pa.array(np.arange(5000, 5000 + N_ROWS))])
    embedding_shards.write(added, pa.int64(), FINGERPRINT, [(new.slice(0, 3), vectors[:3, :5])])
    with pytest.raises(SidmillError, match=r"part-9.*row 0 has 5 dimensions"):
        api.encode_file(quantizer, files / "embeddings.parquet", out)
    bad = vectors.copy()
    bad[77, 3] = np.nan
    embedding_shards.write(added, pa.int64(), FINGERPRINT, [(new, bad)])
    with pytest.raises(SidmillError, match="not finite, first at row 577"):
        api.encode_file(quantizer, files / "embeddings.parquet", out)
    embedding_shards.write(added, pa.int64(), {"backend": "other"}, [(IDS, vectors)])
    with pytest.raises(SidmillError, match="different embeddings"):
        api.encode_file(quantizer, files / "embeddings.parquet", out)
    assert not out.exists()


def test_memory_stays_when_rows_are_ten_times_as_many(tmp_path):
    """One row group of 100 MB: read by pages, not at once."""
    random = np.random.default_rng(0)
    np.save(tmp_path / "words.npy", random.random((4, 256), np.float32))
    peaks = []
    for n_rows in (10_000, 100_000):
        values = random.random((n_rows, 256), np.float32)
        lists = pa.FixedSizeListArray.from_arrays(values.ravel(), 256).cast(pa.list_(pa.float32()))
        table = pa.table({"embedding": lists})
        pq.write_table(table, tmp_path / "vectors.parquet", row_group_size=n_rows)
        del values, lists, table
        command = [sys.executable, "-c", PROGRAM, tmp_path / "vectors.parquet"]
        peaks.append(int(subprocess.check_output([*command, tmp_path / "words.npy"])))
    assert peaks[1] < peaks[0] + 30_000  # KiB; the vectors grew by 90,000


PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from sidmill.numeric import residual_codec
from sidmill.formats.vector_file import open_vectors
vectors = open_vectors(sys.argv[1]).vectors
for block in residual_codec.encode(vectors, [np.load(sys.argv[2])], device="cpu", memory_mb=16):
    pass
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""
