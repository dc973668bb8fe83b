"""Vectors in other containers: the values that were written, found by id, and nothing run."""

import csv
import gzip
import io
import json
import os
import pickle
import sys

import faiss
import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import save_file

from sidmill.core.errors import SidmillError
from sidmill.embed.backends import precomputed
from sidmill.formats import item_text, vector_file
from sidmill.io.vector_containers import container
from sidmill.settings.embedding import Embedding, EmbeddingFields

N, DIM = 300, 12


@pytest.fixture
def vectors(rng):
    return rng.standard_normal((N, DIM), dtype=np.float32)


@pytest.fixture
def ids(rng):
    return rng.permutation(10_000)[:N].astype(np.int64)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(container, "BLOCK_ROWS", 64)


def names_of(ids):
    return [f"Ünit {number}" for number in ids]


def write_npz(path, ids, vectors):
    np.savez_compressed(path, pid=ids, embedding=vectors, extra=np.zeros(3))


def write_pt(path, ids, vectors):
    torch.save({"pid": ids, "embedding": torch.tensor(vectors), "note": "x"}, path)


def write_pt_of_tensors(path, ids, vectors):
    torch.save({"pid": torch.tensor(ids), "embedding": torch.tensor(vectors)}, path)


def write_pt_by_id(path, ids, vectors):
    torch.save({pid: torch.tensor(row) for pid, row in zip(ids, vectors, strict=True)}, path)


def write_old_pt(path, ids, vectors):
    content = {"pid": ids, "embedding": torch.tensor(vectors)}
    torch.save(content, path, _use_new_zipfile_serialization=False)


def write_safetensors(path, ids, vectors):
    tensors = {"pid": torch.tensor(ids), "embedding": torch.tensor(vectors)}
    save_file(tensors, path)


def write_csv(path, ids, vectors, *, one_column=True, brackets="[]"):
    text = io.StringIO()
    table = csv.writer(text)
    listed = [[repr(float(value)) for value in row] for row in vectors]
    header = ["embedding"] if one_column else [str(number) for number in range(DIM)]
    table.writerow(["pid", *header])
    for pid, row in zip(ids, listed, strict=True):
        values = [f"{brackets[:1]}{', '.join(row)}{brackets[1:]}"] if one_column else row
        table.writerow([pid, *values])
    data = text.getvalue().encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def write_wide_csv(path, ids, vectors):
    write_csv(path, ids, vectors, one_column=False)


def write_faiss(path, ids, vectors):
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(DIM))
    index.add_with_ids(vectors, ids)
    faiss.write_index(index, str(path))


WITH_IDS = {
    "a.npz": write_npz,
    "a.pt": write_pt,
    "b.pth": write_pt_by_id,
    "c.pt": write_old_pt,
    "a.csv": write_csv,
    "b.csv.gz": write_csv,
    "c.csv": write_wide_csv,
}
WITH_INTEGERS = WITH_IDS | {
    "a.safetensors": write_safetensors,
    "a.faiss": write_faiss,
    "d.pt": write_pt_of_tensors,
}


def gather(pids, path, fields=None, order_path=None, **settings):
    fields = fields or EmbeddingFields()
    embedding = Embedding(path=str(path), fields=fields, dim=None, **settings)
    return precomputed.gather(pa.array(pids), embedding, order_path)


@pytest.mark.parametrize("name", WITH_INTEGERS)
def test_integer_ids_in_any_order_with_rows_to_spare(tmp_path, rng, ids, vectors, name):
    listed = ids if name.endswith((".npz", ".faiss", ".safetensors", "d.pt")) else ids.tolist()
    WITH_INTEGERS[name](tmp_path / name, listed, vectors)
    wanted = rng.permutation(N)[:200]
    np.testing.assert_array_equal(gather(ids[wanted], tmp_path / name), vectors[wanted])

    # Items whose ids are text: "7" is the item 7 of a container that has integers.
    texts = [str(pid) for pid in ids[wanted]]
    np.testing.assert_array_equal(gather(texts, tmp_path / name), vectors[wanted])


@pytest.mark.parametrize("name", WITH_IDS)
def test_text_ids(tmp_path, rng, ids, vectors, name):
    listed = np.array(names_of(ids)) if name.endswith(".npz") else names_of(ids)
    WITH_IDS[name](tmp_path / name, listed, vectors)
    wanted = rng.permutation(N)[:200]
    np.testing.assert_array_equal(gather(names_of(ids[wanted]), tmp_path / name), vectors[wanted])


@pytest.mark.parametrize("name", WITH_INTEGERS)
def test_the_commands_read_the_same_rows(tmp_path, ids, vectors, name):
    listed = ids if name.endswith((".npz", ".faiss", ".safetensors", "d.pt")) else ids.tolist()
    WITH_INTEGERS[name](tmp_path / name, listed, vectors)
    found = vector_file.open_vectors(tmp_path / name)
    assert found.ids.to_pylist() == ids.tolist()
    assert found.vectors.shape == (N, DIM)
    for _ in range(2):
        np.testing.assert_array_equal(np.concatenate(list(found.vectors.read())), vectors)
    rows = vector_file.open_rows(tmp_path / name)
    np.testing.assert_array_equal(np.concatenate(list(rows.read())), vectors)


def bf16(vectors):
    """The nearest bfloat16 of each value, as float32."""
    return torch.tensor(vectors).to(torch.bfloat16)


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors", "a.npy", "a.npz"])
def test_bfloat16_becomes_exactly_the_float32_that_it_is(tmp_path, ids, vectors, name):
    half, path = bf16(vectors), tmp_path / name
    two_bytes = half.view(torch.uint16).numpy().view("V2")  # as numpy writes those of ml_dtypes
    np.save(tmp_path / "ids.npy", ids)
    if name == "a.pt":
        torch.save(half, path)
    elif name == "a.safetensors":
        save_file({"embedding": half}, path)
    elif name == "a.npy":
        np.save(path, two_bytes)
    else:
        np.savez(path, vectors=two_bytes)
    found = gather(ids, path, ids_path=str(tmp_path / "ids.npy"))
    np.testing.assert_array_equal(found, half.to(torch.float32).numpy())
    opened = vector_file.open_vectors(path, ids_path=tmp_path / "ids.npy")
    np.testing.assert_array_equal(np.concatenate(list(opened.vectors.read())), found)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_other_floats_are_rounded_to_float32(tmp_path, ids, vectors, dtype):
    save_file({"x": torch.tensor(vectors).to(dtype)}, tmp_path / "a.safetensors")
    np.save(tmp_path / "ids.npy", ids)
    found = gather(ids, tmp_path / "a.safetensors", ids_path=str(tmp_path / "ids.npy"))
    np.testing.assert_array_equal(found, torch.tensor(vectors).to(dtype).to(torch.float32).numpy())


def test_rows_in_the_order_of_the_catalogue_and_their_number(tmp_path, vectors):
    table = pa.table({"pid": pa.array(range(N), pa.int64()), "text": ["x"] * N})
    text = tmp_path / "text.parquet"
    item_text.write(text, pa.int64(), [table])
    torch.save(torch.tensor(vectors), tmp_path / "a.pt")
    found = gather([5, 3], tmp_path / "a.pt", order_path=str(text), rows="catalogue")
    np.testing.assert_array_equal(found, vectors[[5, 3]])
    torch.save(torch.tensor(vectors[:-1]), tmp_path / "a.pt")
    with pytest.raises(SidmillError, match=r"299 rows, .* 300 ids"):
        gather([5, 3], tmp_path / "a.pt", order_path=str(text), rows="catalogue")


def test_other_names_are_set_and_the_only_vectors_need_none(tmp_path, ids, vectors):
    path = tmp_path / "a.npz"
    np.savez(path, asin=ids, first=vectors, second=-vectors)
    with pytest.raises(SidmillError, match=r"first, second: set embedding\.fields"):
        gather(ids, path)
    fields = EmbeddingFields(pid="asin", embedding="second")
    np.testing.assert_array_equal(gather(ids, path, fields), -vectors)
    with pytest.raises(SidmillError, match=r"no ids named 'pid'.*embedding\.rows: catalogue"):
        gather(ids, path, EmbeddingFields(embedding="second"))
    np.savez(path, asin=ids, only=vectors)
    np.testing.assert_array_equal(gather(ids, path, EmbeddingFields(pid="asin")), vectors)
    np.save(tmp_path / "ids.npy", ids)
    with pytest.raises(SidmillError, match="set null"):
        gather(ids, path, EmbeddingFields(pid="asin"), ids_path=str(tmp_path / "ids.npy"))


class Runs:
    """What a pickle can do when it is read."""

    def __reduce__(self):
        return (exec, ("import os; os.environ['SIDMILL_RAN'] = 'yes'",))


def test_what_could_run_code_is_refused_with_how_to_convert(tmp_path, monkeypatch, ids, vectors):
    objects = np.empty(N, dtype=object)
    objects[:] = list(vectors)
    np.save(tmp_path / "a.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "a.npz", embedding=objects)
    torch.save({"embedding": torch.tensor(vectors), "run": Runs()}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Runs()))
    monkeypatch.delenv("SIDMILL_RAN", raising=False)
    for name, words in (
        ("a.npy", r"numpy\.stack"),
        ("a.npz", r"found\['embedding'\]"),
        ("a.pt", "weights_only=False"),
        ("b.pt", "b.pt"),
    ):
        with pytest.raises(SidmillError, match=words):
            gather(ids, tmp_path / name)
        with pytest.raises(SidmillError, match=words):
            vector_file.open_vectors(tmp_path / name)
    assert "SIDMILL_RAN" not in os.environ

    # The lines of the message give a file that is read.
    with pytest.raises(SidmillError) as raised:
        gather(ids, tmp_path / "a.npy")
    exec("\n".join(str(raised.value).splitlines()[1:]), {})
    np.save(tmp_path / "ids.npy", ids)
    found = gather(ids, tmp_path / "a.plain.npy", ids_path=str(tmp_path / "ids.npy"))
    np.testing.assert_array_equal(found, vectors)


def test_an_index_that_keeps_no_vectors_is_refused(tmp_path, ids, vectors):
    index = faiss.IndexPQ(DIM, 4, 4)
    index.train(vectors)
    index.add(vectors)
    faiss.write_index(index, str(tmp_path / "a.faiss"))
    with pytest.raises(SidmillError, match="IndexPQ, which does not keep"):
        gather(ids, tmp_path / "a.faiss")
    flat = faiss.IndexFlatL2(DIM)
    flat.add(vectors)
    faiss.write_index(flat, str(tmp_path / "b.index"))
    np.save(tmp_path / "ids.npy", ids)
    found = gather(ids, tmp_path / "b.index", ids_path=str(tmp_path / "ids.npy"))
    np.testing.assert_array_equal(found, vectors)


def test_a_lance_table_without_its_package_says_what_to_install(tmp_path, monkeypatch, ids):
    monkeypatch.setitem(sys.modules, "lance", None)
    (tmp_path / "a.lance").mkdir()
    with pytest.raises(SidmillError, match="pip install pylance"):
        gather(ids, tmp_path / "a.lance")


class Table:
    """Stands for a Lance table: what the package gives, for the columns that are asked for."""

    def __init__(self, table):
        self.table, self.schema = table, table.schema

    def to_batches(self, columns, batch_size):
        return self.table.select(columns).to_batches(max_chunksize=batch_size)

    def head(self, rows, columns):
        return self.table.select(columns).slice(0, rows)

    def count_rows(self):
        return len(self.table)


def test_a_lance_table_is_read_by_its_columns(tmp_path, monkeypatch, ids, vectors):
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIM)
    table = pa.table({"asin": ids, "vector": lists})
    module = type(sys)("lance")
    module.dataset = lambda path: Table(table)
    monkeypatch.setitem(sys.modules, "lance", module)
    (tmp_path / "a.lance").mkdir()
    fields = EmbeddingFields(pid="asin", embedding="vector")
    np.testing.assert_array_equal(gather(ids, tmp_path / "a.lance", fields), vectors)
    with pytest.raises(SidmillError, match=r"asin \(int64\), vector"):
        gather(ids, tmp_path / "a.lance")


FAULTS = [
    ("a.csv", b"", "no column"),
    ("a.csv", b"0.1,0.2\n0.3,0.4\n", "write a header"),
    ("a.csv", b'pid,embedding\n1,[0.1]\n2,"[0.1, 0.2]"\n', "line 3: 2 dimensions"),
    ("a.csv", b"pid,embedding\n1,[x]\n", "line 2"),
    ("a.csv", b"pid,a,b\n1,0.1\n", "line 2: 2 columns"),
    ("a.csv", b"pid,a,b\n1,0.1,\xff\n", "not CSV"),
    ("a.csv", b"pid,embedding\n", "no row"),
    ("a.npz", b"PK", "not a readable"),
    ("a.pt", b"", "a.pt"),
    ("a.safetensors", b"12345678{", "not a readable"),
    ("a.faiss", b"nothing", "not a readable faiss index"),
    ("a.csv", b"pid,embedding\n1,[1]\n1,[2]\n", "id 1 is there more than once"),
    ("a.csv", b"pid,embedding\n7,[1]\n", "1 of 1 items have no vector"),
]


@pytest.mark.parametrize(("name", "data", "words"), FAULTS)
def test_a_fault_is_named(tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SidmillError, match=words):
        gather([1], tmp_path / name)


def test_memory_is_a_block_where_the_container_can_be_cut(tmp_path):
    """The rest of the file is never read: a tensor of 4 GiB of holes."""
    n_rows, dim = 2**20, 1024
    facts = {"dtype": "F32", "shape": [n_rows, dim], "data_offsets": [0, 4 * n_rows * dim]}
    header = json.dumps({"embedding": facts})
    path = tmp_path / "a.safetensors"
    with path.open("wb") as out:
        out.write(len(header).to_bytes(8, "little") + header.encode())
        out.truncate(8 + len(header) + 4 * n_rows * dim)
    found = vector_file.open_vectors(path)
    assert found.vectors.shape == (n_rows, dim)
    assert next(found.vectors.read()).shape == (64, dim)


def test_ids_as_objects_are_refused_and_not_taken_for_none(tmp_path, ids, vectors):
    names = np.array(names_of(ids), dtype=object)
    np.savez(tmp_path / "a.npz", embedding=vectors, pid=names)
    with pytest.raises(SidmillError, match="'pid' holds ids as Python objects") as raised:
        gather(names_of(ids), tmp_path / "a.npz")
    exec("\n".join(str(raised.value).splitlines()[1:]), {})
    np.testing.assert_array_equal(gather(names_of(ids), tmp_path / "a.plain.npz"), vectors)


def test_ids_that_are_not_utf8_are_named(tmp_path, vectors):
    np.savez(tmp_path / "a.npz", embedding=vectors[:2], pid=np.array([b"a", b"\xff"]))
    with pytest.raises(SidmillError, match="ids that are not UTF-8"):
        gather(["a"], tmp_path / "a.npz")


def test_a_row_without_its_id_is_named_by_its_line(tmp_path):
    (tmp_path / "a.csv").write_text("x,y,pid\n1,2,a\n3,4\n")
    with pytest.raises(SidmillError, match=r"a\.csv, line 3: 2 columns"):
        gather(["a"], tmp_path / "a.csv")


def test_digits_of_other_scripts_are_text_and_no_number(tmp_path):
    """int() reads them: the id would be another one."""
    (tmp_path / "a.csv").write_text("pid,x,y\n1\u0663,1,2\n7,3,4\n", encoding="utf-8")
    np.testing.assert_array_equal(gather(["7", "1\u0663"], tmp_path / "a.csv"), [[3, 4], [1, 2]])
