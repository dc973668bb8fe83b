"""Memory maps and HDF5: written, read back exactly, read with bare numpy and h5py, or refused."""

import json
from types import SimpleNamespace

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sidmill.core.errors import SidmillError
from sidmill.embed import export
from sidmill.formats import (
    item_data,
    item_index,
    item_text,
    memory_maps,
    sequence_data,
    sequence_table,
    vector_store,
)
from sidmill.interactions.export import write_sequence_h5
from sidmill.settings.embedding import Embedding
from sidmill.settings.interactions import H5

INTEGERS, STRINGS = [7, 2, 30, 4], ["b", "a", "007", "7"]
TEXTS = ["Steel kettle", "不锈钢", "steel cup, steel lid", "x " * 20]
WORDS = {"feature_buckets": 1000, "max_feature_len": 6}


def store(folder, ids, dtype="float32", dim=3):
    kind = pa.int64() if isinstance(ids[0], int) else pa.string()
    column = pa.chunked_array([pa.array(ids, kind)])
    values = np.random.default_rng(0).standard_normal((len(ids), dim)).astype(dtype)
    vector_store.write(folder / "vectors.npy", values.shape, dtype, [values])
    vector_store.write_ids(folder / "ids.parquet", column, values.shape, {"model": "m"})
    texts = [TEXTS[row % len(TEXTS)] for row in range(len(ids))]
    item_text.write(folder / "text.parquet", kind, [pa.table({"pid": column, "text": texts})])
    return values.astype(np.float32)


def write_mmap(folder):
    return export.write_mmap(
        folder / "vectors.npy",
        folder / "ids.parquet",
        folder / "mmap/mmap.json",
        folder / "mmap/item_index.parquet",
    )


def write_items(folder, embedding=None, **changes):
    names = ("vectors.npy", "ids.parquet", "text.parquet", "item_data.h5", "item_index.parquet")
    files = export.ItemFiles(*(folder / name for name in names))
    return export.write_item_h5(files, embedding or Embedding(), H5(**WORDS | changes))


def write_sequences(folder, ids, rows, splits=("train", "valid", "test")):
    kind = pa.int64() if isinstance(ids[0], int) else pa.string()
    table = pa.Table.from_pylist(rows, schema=sequence_table.schema(kind))
    sequence_table.write(folder / "sequences.parquet", kind, [table])
    return write_sequence_h5(
        folder / "sequences.parquet",
        folder / "text.parquet",
        folder / "sequence.h5",
        H5(splits=list(splits)),
    )


def histories(ids):
    return [
        {"user_id": "ü", "item_ids": [ids[2], ids[0]], "splits": [0, 2], "timestamps": [5, 6]},
        {"user_id": "2", "item_ids": [ids[1]], "splits": [1], "timestamps": [-3]},
        {"user_id": "c", "item_ids": [ids[3]] * 3, "splits": [0] * 3, "timestamps": [1, 1, 2**40]},
    ]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("ids", "numbers"), [(INTEGERS, INTEGERS), (STRINGS, [1, 2, 3, 4])])
def test_memory_maps_read_with_numpy_alone(tmp_path, ids, numbers, dtype):
    """As DESIGN.md has it, without a line of SIDMill."""
    values = store(tmp_path, ids, dtype)
    write_mmap(tmp_path)
    folder = tmp_path / "mmap"
    facts = json.loads((folder / "mmap.json").read_text())
    m, (n, d) = max(numbers) + 1, (len(ids) + 1, 3)
    assert (facts["mmap_idx_shape"], facts["mmap_emb_shape"]) == ([m], [n, d])
    index = np.fromfile(folder / f"mmap_idx_{m}", dtype=np.int32)
    embeddings = np.fromfile(folder / f"mmap_emb_{n}_{d}", dtype=np.float32).reshape(-1, d)
    assert index.shape == (m,)
    assert embeddings.shape == (n, d)
    assert not embeddings[0].any()
    assert (embeddings[index[numbers]] == values).all()
    assert not index[np.setdiff1d(np.arange(m), numbers)].any()
    table = pq.read_table(folder / "item_index.parquet").to_pydict()
    assert table == {"pid": ids, "item_id": numbers}
    maps = memory_maps.open_maps(folder / "mmap.json")
    assert (maps.embeddings[maps.index[numbers]] == values).all()
    assert maps.fingerprint == {"model": "m"}


def test_blocks_of_ids_and_maps_of_another_size(tmp_path, monkeypatch):
    monkeypatch.setattr(memory_maps, "BLOCK_IDS", 7)
    ids = [int(n) for n in np.random.default_rng(0).permutation(np.arange(1, 100))[:50]]
    values = store(tmp_path, ids)
    write_mmap(tmp_path)
    maps = memory_maps.open_maps(tmp_path / "mmap/mmap.json")
    assert (maps.embeddings[maps.index[ids]] == values).all()
    store(tmp_path, INTEGERS)
    write_mmap(tmp_path)
    left = {path.name for path in (tmp_path / "mmap").iterdir()}
    assert left == {"mmap.json", "item_index.parquet", "mmap_idx_31", "mmap_emb_5_3"}


def test_a_far_off_id_is_refused_before_anything_is_written(tmp_path):
    store(tmp_path, [1, 10**12])
    with pytest.raises(SidmillError, match=r"largest item id is 1000000000000.*4,000 GB.*id_type"):
        write_mmap(tmp_path)
    assert not (tmp_path / "mmap").exists() or not list((tmp_path / "mmap").iterdir())


def test_item_0_is_refused(tmp_path):
    store(tmp_path, [0, 1])
    with pytest.raises(SidmillError, match="item id 0: 0 is padding"):
        write_mmap(tmp_path)
    with pytest.raises(SidmillError, match="item id 0: 0 is padding"):
        write_items(tmp_path)


def foreign(folder, index, embeddings):
    index.astype(np.int32).tofile(folder / "idx")
    embeddings.tofile(folder / "emb")
    return {"mmap_idx_path": folder / "idx", "mmap_emb_path": folder / "emb"}


EMB = np.array([[0, 0], [1, 2], [3, 4]], dtype=np.float32)


def test_maps_of_others_open_by_path_and_shape(tmp_path):
    paths = foreign(tmp_path, np.array([0, 2, 1]), EMB)
    maps = memory_maps.open_pair(**paths, mmap_idx_shape=3, mmap_emb_shape=(3, 2))
    assert maps.embeddings[maps.index[[1, 2]]].tolist() == [[3, 4], [1, 2]]


@pytest.mark.parametrize(
    ("index", "embeddings", "shapes", "message"),
    [
        ([0, 2, 1], EMB, ((4,), (3, 2)), r"idx: 12 bytes, but int32 \(4,\) takes 16"),
        ([0, 2, 1], EMB, ((3,), (3, 3)), r"emb: 24 bytes, but float32 \(3, 3\) takes 36"),
        ([0, 2, 1], EMB.astype(np.float16), ((3,), (3, 2)), r"12 bytes, .*float16 takes half"),
        ([0, 3, 1], EMB, ((3,), (3, 2)), "item id 1 has row 3, but .* has rows 0 to 2"),
        ([0, -1, 1], EMB, ((3,), (3, 2)), "item id 1 has row -1"),
        ([1, 2, 1], EMB, ((3,), (3, 2)), "item id 0 is padding and wants row 0, not 1"),
        ([0, 2, 1], EMB + 1, ((3,), (3, 2)), "row 0 is padding and wants zeros"),
        ([0, 2, 1], EMB, ((3,), (6,)), r"shape \(6,\), wanted \(N, D\)"),
    ],
)
def test_maps_that_do_not_fit_are_refused(tmp_path, index, embeddings, shapes, message):
    paths = foreign(tmp_path, np.array(index), embeddings)
    with pytest.raises(SidmillError, match=message):
        memory_maps.open_pair(**paths, mmap_idx_shape=shapes[0], mmap_emb_shape=shapes[1])


def test_a_map_that_is_gone_is_named(tmp_path):
    store(tmp_path, INTEGERS)
    write_mmap(tmp_path)
    (tmp_path / "mmap/mmap_emb_5_3").unlink()
    with pytest.raises(SidmillError, match=r"mmap_emb_5_3: no such file: .*--forcerun write_mmap"):
        memory_maps.open_maps(tmp_path / "mmap/mmap.json")


@pytest.mark.parametrize(("ids", "numbers"), [(INTEGERS, INTEGERS), (STRINGS, [1, 2, 3, 4])])
def test_the_h5_pair_reads_with_h5py_alone(tmp_path, ids, numbers):
    """As DESIGN.md has it, without a line of SIDMill."""
    values = store(tmp_path, ids, "float16")
    write_items(tmp_path)
    write_sequences(tmp_path, ids, histories(ids))
    with h5py.File(tmp_path / "item_data.h5") as file:
        assert set(file) == {"item_ids", "embeddings", "features", "feature_lengths"}
        assert file["item_ids"].dtype == np.int64
        assert file["item_ids"][:].tolist() == numbers
        assert file["embeddings"].dtype == np.float32
        assert (file["embeddings"][:] == values).all()
        assert file["embeddings"].chunks
        assert file["features"].dtype == file["feature_lengths"].dtype == np.int32
        assert file["features"].shape == (4, 6)
        lengths = file["feature_lengths"][:]
        assert lengths.tolist() == [2, 5, 4, 6]
        behind = np.arange(6) >= lengths[:, None]
        assert ((file["features"][:] == 0) == behind).all()
        assert file["features"][0, 0] == file["features"][2, 0] == file["features"][2, 2]
        assert dict(file.attrs) == {
            "n_items": 4,
            "embedding_dim": 3,
            "max_feature_len": 6,
            "original_order_preserved": True,
        }
    with h5py.File(tmp_path / "sequence.h5") as file:
        assert set(file) == {"user_ids", "sequences", "sequence_lengths", "timestamps"}
        assert [user.decode() for user in file["user_ids"]] == ["ü", "2", "c"]
        found = [row.tolist() for row in file["sequences"]]
        assert found == [[numbers[2], numbers[0]], [numbers[1]], [numbers[3]] * 3]
        assert h5py.check_vlen_dtype(file["sequences"].dtype) == np.int64
        assert file["sequence_lengths"].dtype == np.int32
        assert file["sequence_lengths"][:].tolist() == [2, 1, 3]
        assert [row.tolist() for row in file["timestamps"]] == [[5, 6], [-3], [1, 1, 2**40]]
        assert dict(file.attrs) == {
            "n_sequences": 3,
            "max_sequence_length": 3,
            "total_items": 6,
            "avg_sequence_length": 2.0,
            "order_preserved": True,
        }


def test_sequences_to_h5_and_back_are_the_same(tmp_path, rng):
    ids = list(range(1, 200))
    store(tmp_path, ids)
    rows = []
    for user in range(9000):  # more than a block
        size = int(rng.integers(1, 9))
        items = rng.integers(1, 200, size).tolist()
        times = np.sort(rng.integers(0, 99, size)).tolist()
        said = [0] * size
        rows.append({"user_id": f"u{user}", "item_ids": items, "splits": said, "timestamps": times})
    write_sequences(tmp_path, ids, rows)
    data = sequence_data.open_sequence_data(tmp_path / "sequence.h5")
    back = []
    for block in sequence_data.read(data):
        for place, user in enumerate(block.users):
            part = slice(block.offsets[place], block.offsets[place + 1])
            items, times = block.items[part].tolist(), block.times[part].tolist()
            said = [0] * len(items)
            back.append({"user_id": user, "item_ids": items, "splits": said, "timestamps": times})
    assert back == rows
    data.file.close()
    first = (tmp_path / "sequence.h5").read_bytes()
    write_sequences(tmp_path, ids, rows)
    assert (tmp_path / "sequence.h5").read_bytes() == first


def test_sequences_of_some_splits_and_without_all_timestamps(tmp_path):
    store(tmp_path, INTEGERS)
    rows = histories(INTEGERS)
    rows[0]["timestamps"] = None
    write_sequences(tmp_path, INTEGERS, rows, ["train", "test"])
    data = sequence_data.open_sequence_data(tmp_path / "sequence.h5")
    (block,) = sequence_data.read(data)
    assert block.users == ["ü", "c"]
    assert block.items.tolist() == [30, 7, 4, 4, 4]
    assert block.times is None
    data.file.close()
    write_sequences(tmp_path, INTEGERS, histories(INTEGERS), ["train"])
    data = sequence_data.open_sequence_data(tmp_path / "sequence.h5")
    (block,) = sequence_data.read(data)
    assert (block.items.tolist(), block.times.tolist()) == ([30, 4, 4, 4], [5, 1, 1, 2**40])
    data.file.close()


@pytest.mark.parametrize("layout", [{}, {"chunks": (7, 5)}, {"chunks": (64, 2)}, {"gzip": True}])
def test_random_rows_of_any_layout(tmp_path, rng, layout):
    values = rng.standard_normal((100, 5)).astype(np.float32)
    options = {"compression": "gzip"} if layout.pop("gzip", None) else layout
    with h5py.File(tmp_path / "i.h5", "w") as file:
        file["item_ids"] = np.arange(1, 101)
        file.create_dataset("embeddings", data=values, **options)
        file["features"] = np.zeros((100, 2), dtype=np.int32)
        file["feature_lengths"] = np.zeros(100, dtype=np.int32)
        file.attrs.update(
            n_items=100, embedding_dim=5, max_feature_len=2, original_order_preserved=True
        )
    data = item_data.open_item_data(tmp_path / "i.h5")
    wanted = rng.integers(0, 100, (6, 4))
    assert (item_data.rows(data, wanted) == values[wanted]).all()
    data.file.close()


def test_chunks_are_found_in_one_walk(tmp_path):
    """get_chunk_info begins at the first chunk again for each: quadratic in their number."""
    with h5py.File(tmp_path / "i.h5", "w") as file:
        file.create_dataset("e", data=np.eye(50, dtype=np.float32), chunks=(3, 50))
    walks = []

    class Identifier:
        def __init__(self, found):
            self.get_create_plist = found.get_create_plist
            self.chunk_iter = lambda visit: walks.append(1) or found.chunk_iter(visit)

    with h5py.File(tmp_path / "i.h5") as file:
        values = file["e"]
        seen = SimpleNamespace(
            shape=values.shape, dtype=values.dtype, chunks=values.chunks, id=Identifier(values.id)
        )
        flat, starts = item_data._map_rows(tmp_path / "i.h5", seen)
    assert (len(walks), len(starts)) == (1, 17)
    assert [flat[start : start + 50].argmax() for start in starts] == list(range(0, 50, 3))


def spoil_items(file, name, value):
    del file[name]
    if value is not None:
        file[name] = value


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("embeddings", None, r"no dataset 'embeddings', wanted float32 \(n, D\); it has feat"),
        ("embeddings", np.zeros((4, 3)), r"'embeddings' is float64 \(4, 3\), wanted float32"),
        ("embeddings", np.zeros(4, np.float32), r"'embeddings' is float32 \(4,\), wanted .*\(n, D"),
        ("embeddings", np.zeros((5, 3), np.float32), r"'embeddings' .*but n is 4 in 'item_ids'"),
        ("item_ids", np.array([1, 2, 2, 4]), "'item_ids' int64 .*ids repeat"),
        ("item_ids", np.array([0, 1, 2, 3]), "one is below 1"),
        ("features", np.zeros((4, 6), np.int64), r"'features' is int64 \(4, 6\), wanted int32"),
        ("features", np.zeros((4, 7), np.int32), "max_feature_len says 6, the datasets 7"),
    ],
)
def test_item_data_of_others_is_checked(tmp_path, name, value, message):
    store(tmp_path, INTEGERS)
    write_items(tmp_path)
    with h5py.File(tmp_path / "item_data.h5", "a") as file:
        spoil_items(file, name, value)
    with pytest.raises(SidmillError, match=message):
        item_data.open_item_data(tmp_path / "item_data.h5")


def vlen(rows, kind=np.int64):
    lists = np.empty(len(rows), dtype=object)
    lists[:] = [np.array(row, dtype=kind) for row in rows]
    return lists, h5py.vlen_dtype(kind)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("sequences", vlen([[1], [1], [1]], np.int32), r"'sequences' is vlen int32 \(3,\), wanted"),
        ("sequences", vlen([[1, 2], [1]]), r"'sequences' is vlen int64 \(2,\), but s is 3"),
        ("sequences", vlen([[1, 2], [1], [1, 2]]), "row 2 holds 2 values, .*says 3"),
        ("sequences", vlen([[1, 0], [1], [1, 2, 3]]), "'sequences' .* holds item id 0"),
        ("user_ids", (np.arange(3), None), r"'user_ids' is int64 \(3,\), wanted vlen str"),
        ("sequence_lengths", (np.arange(3), None), "'sequence_lengths' is int64"),
    ],
)
def test_sequence_data_of_others_is_checked(tmp_path, name, value, message):
    store(tmp_path, INTEGERS)
    write_sequences(tmp_path, INTEGERS, histories(INTEGERS))
    with h5py.File(tmp_path / "sequence.h5", "a") as file:
        del file[name]
        file.create_dataset(name, data=value[0], dtype=value[1])
    with pytest.raises(SidmillError, match=message):
        list(sequence_data.read(sequence_data.open_sequence_data(tmp_path / "sequence.h5")))


@pytest.mark.parametrize("opener", [item_data.open_item_data, sequence_data.open_sequence_data])
def test_files_that_are_no_hdf5_or_lack_attributes(tmp_path, opener):
    with pytest.raises(SidmillError, match="no such file"):
        opener(tmp_path / "none.h5")
    (tmp_path / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\nhalf")
    with pytest.raises(SidmillError, match=r"x\.h5: not a whole HDF5 file"):
        opener(tmp_path / "x.h5")
    store(tmp_path, INTEGERS)
    write_items(tmp_path)
    write_sequences(tmp_path, INTEGERS, histories(INTEGERS))
    for name in ("item_data.h5", "sequence.h5"):
        with h5py.File(tmp_path / name, "a") as file:
            del file.attrs[next(iter(file.attrs))]
    name = "item_data.h5" if opener is item_data.open_item_data else "sequence.h5"
    with pytest.raises(SidmillError, match="lacks the attribute"):
        opener(tmp_path / name)


def test_numbers_of_items_read_back(tmp_path):
    ids = pa.chunked_array([pa.array(STRINGS)])
    item_index.write(tmp_path / "i.parquet", ids, item_index.number(ids, "x"))
    pids, numbers = item_index.read(tmp_path / "i.parquet")
    assert pids.to_pylist() == STRINGS
    assert numbers.tolist() == [1, 2, 3, 4]
