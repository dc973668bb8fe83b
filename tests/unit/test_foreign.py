"""What other tools write, in every reader: the pipeline, and the commands."""

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from sidmill import api
from sidmill.cli import commands
from sidmill.commands import source
from sidmill.core import paths
from sidmill.core.errors import SidmillError
from sidmill.embed.backends import precomputed
from sidmill.formats import code_files, vector_file, vector_store
from sidmill.io import user_arrays
from sidmill.quantize.rqvae import data
from sidmill.settings.embedding import Embedding, EmbeddingFields

N, DIM = 40, 6
VECTORS = np.random.default_rng(0).standard_normal((N, DIM)).astype(np.float16).astype(np.float32)
NUMBERS = np.arange(N)[::-1] + 1
WORDS = [f"B{number:03d}" for number in NUMBERS]
LISTS = pa.array(VECTORS.tolist(), pa.list_(pa.float32()))

# Columns as libraries write them.
VECTOR_COLUMNS = {
    "list<float>": LISTS,
    "list<double>, pandas": LISTS.cast(pa.list_(pa.float64())),
    "list<half>": LISTS.cast(pa.list_(pa.float16())),
    "large_list<float>, polars List": LISTS.cast(pa.large_list(pa.float32())),
    "fixed_size_list<float>, polars Array": LISTS.cast(pa.list_(pa.float32(), DIM)),
    "fixed_size_list<half>": LISTS.cast(pa.list_(pa.float16(), DIM)),
    "list<fixed_size_binary[2]>, polars Float16": pa.ListArray.from_arrays(
        pa.array(np.arange(N + 1) * DIM, pa.int32()),
        pa.array([one.tobytes() for one in VECTORS.astype("<f2").ravel()], pa.binary(2)),
    ),
    "tensor": pa.FixedShapeTensorArray.from_numpy_ndarray(VECTORS),
}
INT_COLUMNS = {
    **{name: pa.array(NUMBERS, getattr(pa, name)()) for name in (
        "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"
    )},
    "double, pandas with a missing value": pa.array(NUMBERS.astype(np.float64)),
    "float": pa.array(NUMBERS.astype(np.float32)),
    "decimal": pa.array(NUMBERS).cast(pa.decimal128(20, 0)),
    "dictionary of int64": pa.array(NUMBERS).dictionary_encode(),
}  # fmt: skip
TEXT_COLUMNS = {
    "string": pa.array(WORDS),
    "large_string, polars": pa.array(WORDS, pa.large_string()),
    "string_view": pa.array(WORDS, pa.string_view()),
    "dictionary, pandas Categorical": pa.array(WORDS).dictionary_encode(),
    "dictionary of large_string": pa.array(WORDS, pa.large_string()).dictionary_encode(),
}
ID_COLUMNS = INT_COLUMNS | TEXT_COLUMNS
ARRAYS = {
    "float32": VECTORS,
    "float16": VECTORS.astype(np.float16),
    "float64": VECTORS.astype(np.float64),
    "big-endian": VECTORS.astype(">f4"),
    "big-endian float64": VECTORS.astype(">f8"),
    "Fortran": np.asfortranarray(VECTORS),
    "Fortran float64": np.asfortranarray(VECTORS.astype(np.float64)),
}
ID_ARRAYS = {
    **{
        kind: NUMBERS.astype(kind)
        for kind in ("i1", "<i4", ">i4", "<i8", ">i8", "u2", "<u8", ">f8")
    },
    "U": np.array(WORDS),
    ">U": np.array(WORDS).astype(">U4"),
    "S": np.array(WORDS, dtype="S"),
}


@pytest.fixture(scope="module")
def quantizer(tmp_path_factory):
    fitted = api.fit(VECTORS, n_levels=2, codebook_size=8, seed=0, device="cpu")
    path = tmp_path_factory.mktemp("quantizer") / "quantizer.safetensors"
    api.save(path, fitted)
    return path


def read_everywhere(path, ids_path, pids, quantizer, folder, fields=None):
    """Read vectors and ids as the pipeline does, as evaluate and advise do, and as encode does."""
    order = np.random.default_rng(1).permutation(N)[: N // 2]
    columns = EmbeddingFields(**fields or {})
    settings = Embedding(
        path=str(path), ids_path=ids_path and str(ids_path), dim=None, fields=columns
    )
    found = precomputed.gather(pa.array(np.array(pids)[order].tolist()), settings)
    np.testing.assert_array_equal(found, VECTORS[order])

    names = fields or {"pid": "pid", "embedding": "embedding"}
    columns = {"column": names["embedding"], "id_column": names["pid"]}
    with source.open_vectors(str(path), ids_path and str(ids_path), None, **columns) as opened:
        np.testing.assert_array_equal(opened.vectors, VECTORS)
        assert vector_store.DTYPES.count(opened.vectors.dtype.name)
        assert (opened.ids.to_pylist(), opened.has_ids) == (pids, True)

    arguments = ["--quantizer", quantizer, "--vectors", path, "--out", folder / "codes.parquet"]
    arguments += ["--column", names["embedding"], "--id-column", names["pid"]]
    arguments += ["--ids", ids_path] if ids_path else []
    CliRunner().invoke(commands, ["encode", *map(str, arguments)], catch_exceptions=False)
    written = code_files.read(folder / "codes.parquet", "codes")
    assert written.ids.to_pylist() == pids
    wanted = api.encode(api.load(quantizer), VECTORS, device="cpu")
    np.testing.assert_array_equal(written.codes, wanted)


@pytest.mark.parametrize("ids", ID_COLUMNS)
def test_every_column_of_ids(tmp_path, quantizer, ids):
    table = pa.table({"pid": ID_COLUMNS[ids], "embedding": LISTS})
    pq.write_table(table, tmp_path / "v.parquet", row_group_size=7)
    pids = NUMBERS.tolist() if ids in INT_COLUMNS else WORDS
    read_everywhere(tmp_path / "v.parquet", None, pids, quantizer, tmp_path)


@pytest.mark.parametrize("column", VECTOR_COLUMNS)
def test_every_column_of_vectors(tmp_path, quantizer, column):
    table = pa.table({"pid": NUMBERS, "embedding": VECTOR_COLUMNS[column]})
    pq.write_table(table, tmp_path / "v.parquet", row_group_size=7)
    read_everywhere(tmp_path / "v.parquet", None, NUMBERS.tolist(), quantizer, tmp_path)


@pytest.mark.parametrize("name", ["v.npy", "V.NPY"])
@pytest.mark.parametrize("array", ARRAYS)
def test_every_array(tmp_path, quantizer, array, name):
    with (tmp_path / name).open("wb") as file:
        np.save(file, ARRAYS[array])
    np.save(tmp_path / "ids.npy", NUMBERS)
    ids = tmp_path / "ids.npy"
    read_everywhere(tmp_path / name, ids, NUMBERS.tolist(), quantizer, tmp_path)


@pytest.mark.parametrize("ids", ID_ARRAYS)
def test_every_array_of_ids(tmp_path, quantizer, ids):
    np.save(tmp_path / "v.npy", VECTORS)
    np.save(tmp_path / "ids.npy", ID_ARRAYS[ids])
    pids = WORDS if ids[-1] in "US" else NUMBERS.tolist()
    read_everywhere(tmp_path / "v.npy", tmp_path / "ids.npy", pids, quantizer, tmp_path)


@pytest.mark.parametrize("ids", ID_COLUMNS)
def test_every_parquet_of_ids(tmp_path, quantizer, ids):
    np.save(tmp_path / "vectors.npy", VECTORS)
    pq.write_table(pa.table({"pid": ID_COLUMNS[ids]}), tmp_path / "ids.parquet")
    pids = NUMBERS.tolist() if ids in INT_COLUMNS else WORDS
    path = tmp_path / "vectors.npy"
    read_everywhere(path, tmp_path / "ids.parquet", pids, quantizer, tmp_path)
    # Beside a vectors.npy the file is found.
    assert vector_file.open_vectors(path).ids.to_pylist() == pids


def test_vectors_alone_of_every_form(tmp_path):
    """As a training reads them: ids may be missing, null or there twice."""
    files = {"plain.npy": lambda path: np.save(path, VECTORS)}
    for name, array in ARRAYS.items():
        files[f"{name}.npy"] = lambda path, array=array: np.save(path, array)
    for name, column in VECTOR_COLUMNS.items():
        table = pa.table({"pid": pa.array([None] * N, pa.int64()), "embedding": column})
        files[f"{name[:9]}.parquet"] = lambda path, table=table: pq.write_table(table, path)
    table = pa.table({"embedding": LISTS})
    files["no ids.parquet"] = lambda path: pq.write_table(table, path)
    for name, write in files.items():
        write(tmp_path / name)
        rows = data._open(str(tmp_path / name), tmp_path / f"copy of {name}")
        np.testing.assert_array_equal(rows, VECTORS, err_msg=name)
        assert vector_file.fingerprint_of(tmp_path / name) == {}


@pytest.mark.parametrize("pids", [NUMBERS.tolist(), WORDS, [f" {word} " for word in WORDS]])
def test_lines_of_ids(tmp_path, quantizer, pids):
    np.save(tmp_path / "v.npy", VECTORS)
    (tmp_path / "ids.txt").write_text("".join(f"{pid}\r\n" for pid in pids), newline="")
    read_everywhere(tmp_path / "v.npy", tmp_path / "ids.txt", pids, quantizer, tmp_path)


def test_other_names_of_columns(tmp_path, quantizer):
    table = pa.table({"x": NUMBERS, "item_id": pa.array(WORDS), "vector": LISTS})
    pq.write_table(table, tmp_path / "v.parquet")
    with pytest.raises(SidmillError, match=r"file has x, item_id, vector: .* embedding\.fields"):
        precomputed.gather(pa.array(WORDS), Embedding(path=str(tmp_path / "v.parquet"), dim=None))
    fields = {"pid": "item_id", "embedding": "vector"}
    read_everywhere(tmp_path / "v.parquet", None, WORDS, quantizer, tmp_path, fields)


def test_files_of_different_types_of_text(tmp_path, quantizer):
    folder = tmp_path / "v"
    folder.mkdir()
    for part, column in enumerate(TEXT_COLUMNS.values()):
        rows = slice(part * 8, part * 8 + 8)
        table = pa.table({"pid": column[rows], "embedding": LISTS[rows]})
        pq.write_table(table, folder / f"{part}.parquet")
    read_everywhere(folder, None, WORDS, quantizer, tmp_path)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (pa.array([*NUMBERS[:-1], None]), "the id at row 39 is null"),
        (pa.array([*WORDS[:-1], None]), "the id at row 39 is null"),
        (pa.array([*WORDS[:-1], None]).dictionary_encode(), "the id at row 39 is null"),
        (pa.array([*NUMBERS[:-1], NUMBERS[3]]), f"id {NUMBERS[3]} is there more than once"),
        (pa.array([*WORDS[:-1], WORDS[3]]), f"id '{WORDS[3]}' is there more than once"),
        (pa.array([*map(float, NUMBERS[:-1]), 0.5]), "id 0.5 at row 39 is a float and no whole"),
        (pa.array([*map(float, NUMBERS[:-1]), 2.0**60]), "at row 39 is a float and no whole"),
        (pa.array([*map(float, NUMBERS[:-1]), float("nan")]), "id nan at row 39 is a float"),
        (pa.array([*map(int, NUMBERS[:-1]), 2**64 - 1], pa.uint64()), "does not fit in int64"),
        (
            pa.array([*map(str.encode, WORDS[:-1]), b"\xe9"]).view(pa.string()),
            "an id from row 0 on is not UTF-8",
        ),
        (pa.array([b"x"] * N), "has type binary, wanted int64 or string"),
        (pa.array([True] * N), "has type bool, wanted int64 or string"),
    ],
)
def test_ids_that_are_refused_everywhere(tmp_path, quantizer, ids, message):
    pq.write_table(pa.table({"pid": ids, "embedding": LISTS}), tmp_path / "v.parquet")
    np.save(tmp_path / "v.npy", VECTORS)
    pq.write_table(pa.table({"pid": ids}), tmp_path / "ids.parquet")
    asked = pa.array(WORDS[:2] if pa.types.is_string(ids.type) else NUMBERS[:2])
    before = (tmp_path / "v.parquet").read_bytes()
    for path, ids_path in (("v.parquet", None), ("v.npy", "ids.parquet")):
        path, ids_path = str(tmp_path / path), ids_path and str(tmp_path / ids_path)
        told = []
        with pytest.raises(SidmillError, match=message) as error:
            precomputed.gather(asked, Embedding(path=path, ids_path=ids_path, dim=None))
        told.append(str(error.value))
        with (
            pytest.raises(SidmillError, match=message) as error,
            source.open_vectors(path, ids_path, None),
        ):
            pass
        told.append(str(error.value))
        with pytest.raises(SidmillError, match=message) as error:
            api.encode_file(api.load(quantizer), path, tmp_path / "out.parquet", ids_path=ids_path)
        told.append(str(error.value))
        assert not any("delete" in line or "run again" in line for line in told)
    assert not (tmp_path / "out.parquet").exists()
    assert (tmp_path / "v.parquet").read_bytes() == before


@pytest.mark.parametrize("ids", ["int32.npy", "short.txt", "ids.parquet"])
def test_no_message_tells_to_delete_what_the_user_made(tmp_path, ids):
    np.save(tmp_path / "vectors.npy", VECTORS)
    np.save(tmp_path / "int32.npy", NUMBERS[:-1].astype(np.int32))
    (tmp_path / "short.txt").write_text("1\n2\n")
    pq.write_table(pa.table({"pid": NUMBERS[:5]}), tmp_path / "ids.parquet")
    with pytest.raises(SidmillError, match="must stand row by row") as error:
        vector_file.open_vectors(tmp_path / "vectors.npy", ids_path=tmp_path / ids)
    assert "delete" not in str(error.value)


def test_a_repeated_key_of_two_texts_is_no_repeated_text(monkeypatch):
    monkeypatch.setattr(user_arrays, "keys_of", lambda ids: np.zeros(len(ids), np.uint64))
    user_arrays.check_distinct(pa.chunked_array([WORDS, ["x"]]), "v")
    with pytest.raises(SidmillError, match=f"id '{WORDS[5]}' is there more than once"):
        user_arrays.check_distinct(pa.chunked_array([WORDS, [WORDS[5]]]), "v")


# Where one reads, one does not write.


def over(tmp_path, how):
    """Paths (read, written) that are the same in some way."""
    own, folder = tmp_path / "own.parquet", tmp_path / "mix"
    part = folder / "part-0.parquet"
    if how == "hard link":
        os.link(own, tmp_path / "other.parquet")
        return own, tmp_path / "other.parquet"
    if how == "symbolic link":
        (tmp_path / "other.parquet").symlink_to(own)
        return own, tmp_path / "other.parquet"
    return {
        "equal": (own, own),
        "another spelling": (own, folder / "../own.parquet"),
        "in the folder": (folder, part),
        "new in the folder": (folder, folder / "codes.parquet"),
        "of the glob": (folder / "part-*.parquet", part),
        "the folder itself": (folder, folder),
    }[how]


@pytest.mark.parametrize(
    "how",
    [
        *("equal", "another spelling", "in the folder", "new in the folder", "of the glob"),
        *("the folder itself", "hard link", "symbolic link"),
    ],
)
def test_encode_never_replaces_what_it_reads(tmp_path, quantizer, how):
    (tmp_path / "mix").mkdir()
    table = pa.table({"pid": NUMBERS, "embedding": LISTS})
    for path in (tmp_path / "own.parquet", tmp_path / "mix/part-0.parquet"):
        pq.write_table(table, path)
    read, written = over(tmp_path, how)
    with pytest.raises(SidmillError, match="is read from: name another file"):
        api.encode_file(api.load(quantizer), read, written)
    assert pq.read_table(tmp_path / "own.parquet") == table
    assert pq.read_table(tmp_path / "mix/part-0.parquet") == table
    assert len(list(tmp_path.rglob("*.parquet"))) == 2 + ("link" in how)
    command = ["encode", "--quantizer", quantizer, "--vectors", read, "--out", quantizer]
    with pytest.raises(SidmillError, match="is read from: name another file"):
        CliRunner().invoke(commands, [*map(str, command)], catch_exceptions=False)
    api.encode_file(api.load(quantizer), read, tmp_path / "codes.parquet")  # the remedy
    assert len(code_files.read(tmp_path / "codes.parquet", "codes").ids) == N


@pytest.mark.parametrize("folder", ["model", "model/sids", ".", "link"])
def test_vocab_never_writes_into_the_model_that_it_reads(tmp_path, folder):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "model")
    command = ["vocab", tmp_path / "model", tmp_path / folder, "--init", "mean", "--pid2sid", "x"]
    with pytest.raises(SidmillError, match=r"FOLDER is .* is read from"):
        CliRunner().invoke(commands, [*map(str, command)], catch_exceptions=False)
    assert [file.name for file in (tmp_path / "model").iterdir()] == ["config.json"]


def test_a_name_on_a_hub_is_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths.refuse_overwrite("Qwen", ["Qwen/Qwen3-0.6B", None, "codes-*.parquet"])
