"""Vectors of the user: found by id, whatever the order, and nothing missing or twice."""

import logging

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sidmill.core.errors import SidmillError
from sidmill.embed.backend import Run
from sidmill.embed.backends import precomputed
from sidmill.settings.embedding import Embedding

N, DIM = 300, 12


@pytest.fixture
def vectors(rng):
    return rng.standard_normal((N, DIM), dtype=np.float32)


@pytest.fixture
def ids(rng):
    return rng.permutation(10_000)[:N].astype(np.int64)


@pytest.fixture
def wanted(rng, ids):
    """Rows of the source that the items are, in the order of the items."""
    return rng.permutation(N)[:200]


def write_parquet(path, ids, vectors, rows_per_group=64):
    path.parent.mkdir(exist_ok=True)
    lists = pa.array(vectors.tolist(), pa.list_(pa.float64()))
    table = pa.table({"pid": ids, "embedding": lists})
    pq.write_table(table, path, row_group_size=rows_per_group)
    return str(path)


def gather(pids, path, ids_path=None, dim=None):
    return precomputed.gather(
        pa.array(pids), Embedding(path=path and str(path), ids_path=ids_path, dim=dim)
    )


def named(ids):
    return np.array([f"B{number:04d}" for number in ids])


@pytest.mark.parametrize("name", [lambda ids: ids, named], ids=["int64", "string"])
@pytest.mark.parametrize("files", [1, 3])
def test_parquet_in_any_order_with_rows_to_spare(
    tmp_path, caplog, ids, vectors, wanted, name, files
):
    pieces = zip(np.array_split(name(ids), files), np.array_split(vectors, files), strict=True)
    for number, (part_ids, part) in enumerate(pieces):
        write_parquet(tmp_path / f"source/part-{number}.parquet", part_ids, part)
    with caplog.at_level(logging.INFO):
        found = gather(name(ids)[wanted], tmp_path / "source")
    np.testing.assert_array_equal(found, vectors[wanted])
    assert "200 of 300 rows belong to this shard" in caplog.text


@pytest.mark.parametrize("rows", [1, 7, 64])
def test_blocks_of_row_groups_give_the_same_vectors(
    tmp_path, monkeypatch, ids, vectors, wanted, rows
):
    path = write_parquet(tmp_path / "source.parquet", ids, vectors)
    monkeypatch.setattr(precomputed, "BLOCK_ROWS", rows)
    np.testing.assert_array_equal(gather(ids[wanted], path), vectors[wanted])
    in_order = np.sort(wanted)
    np.testing.assert_array_equal(gather(ids[in_order], path), vectors[in_order])

    # A fault is named by its row in the file, whatever the block.
    lists = vectors.tolist()
    lists[wanted[9]][3] = None
    table = pa.table({"pid": ids, "embedding": pa.array(lists, pa.list_(pa.float32()))})
    pq.write_table(table, path, row_group_size=64)
    with pytest.raises(SidmillError, match=f"the vector of row {wanted[9]} holds a null"):
        gather(ids[wanted], path)


def test_row_groups_without_a_wanted_id_are_not_read(tmp_path, monkeypatch, ids, vectors):
    path = write_parquet(tmp_path / "source.parquet", ids, vectors, rows_per_group=10)
    read = []
    real = precomputed._read_group
    monkeypatch.setattr(
        precomputed,
        "_read_group",
        lambda file, group, *rest: (read.append(group.number), real(file, group, *rest))[1],
    )
    np.testing.assert_array_equal(gather(ids[[205, 103, 207]], path), vectors[[205, 103, 207]])
    assert set(read) == {10, 20}

    # Items in the order of the source: a row group is read when its vectors are asked for.
    del read[:]
    found = precomputed.find(pa.array(ids[5:45]), Embedding(path=str(path), dim=None))
    assert found.dim == DIM
    assert set(read) == {0}
    blocks = found.read()
    np.testing.assert_array_equal(next(blocks), vectors[5:10])
    assert set(read) == {0}
    np.testing.assert_array_equal(np.concatenate(list(blocks)), vectors[10:45])
    assert set(read) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_texts_get_their_vectors_whatever_the_chunks(tmp_path, ids, vectors, order):
    path = write_parquet(tmp_path / "source.parquet", ids, vectors, rows_per_group=7)
    run = Run(read_pids=lambda: pa.array(ids[order]))
    settings = Embedding(path=str(path), dim=None, model="mine", normalize=False)
    loaded = precomputed.load(settings, run)
    sizes = [1, 30, 7, 0, len(ids) - 38]
    chunks = iter([["text"] * size for size in sizes])
    encoded = [one.vectors for one in loaded.stream(chunks, lambda n: None)]
    assert [len(one) for one in encoded] == sizes
    np.testing.assert_array_equal(np.concatenate(encoded), vectors[order])


@pytest.mark.parametrize("kind", ["parquet", "npy", "txt"])
@pytest.mark.parametrize("name", [lambda ids: ids, named], ids=["int64", "string"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_npy_with_ids_beside_it(tmp_path, ids, vectors, wanted, name, kind, dtype):
    source = vectors.astype(dtype)
    np.save(tmp_path / "v.npy", source)
    ids_path = tmp_path / f"ids.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({"pid": name(ids)}), ids_path)
    elif kind == "npy":
        np.save(ids_path, name(ids))
    else:
        ids_path.write_text("".join(f"{pid}\r\n" for pid in name(ids)), encoding="utf-8")
    found = gather(name(ids)[wanted], tmp_path / "v.npy", str(ids_path), dim=DIM)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, source[wanted].astype(np.float32))


@pytest.mark.parametrize("dtype", ["int32", "uint64", "int16"])
def test_integer_ids_of_any_width(tmp_path, ids, vectors, wanted, dtype):
    foreign = ids.astype(dtype)
    np.save(tmp_path / "v.npy", vectors)
    np.save(tmp_path / "ids.npy", foreign)
    np.save(tmp_path / "swapped.npy", foreign.astype(foreign.dtype.newbyteorder(">")))
    pq.write_table(pa.table({"pid": foreign}), tmp_path / "ids.parquet")
    for name in ("ids.npy", "swapped.npy", "ids.parquet"):
        found = gather(ids[wanted], tmp_path / "v.npy", str(tmp_path / name))
        np.testing.assert_array_equal(found, vectors[wanted])
    source = write_parquet(tmp_path / "source.parquet", foreign, vectors)
    np.testing.assert_array_equal(gather(ids[wanted], source), vectors[wanted])


@pytest.mark.parametrize("pids", [[7, 8, 9], ["7", "08", "é"]])
def test_text_ids_past_a_byte_order_mark_and_a_blank_last_line(tmp_path, vectors, pids):
    np.save(tmp_path / "v.npy", vectors[:3])
    ids_path = tmp_path / "ids.txt"
    ids_path.write_text("".join(f"{pid}\n" for pid in pids) + " \n", encoding="utf-8-sig")
    found = gather(pids[::-1], tmp_path / "v.npy", str(ids_path))
    np.testing.assert_array_equal(found, vectors[2::-1])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"1\n\n3\n", r"ids\.txt, line 2: blank"),
        (b"1\n2\n3\n\n\n", r"ids\.txt, line 4: blank"),
        (b"1\n2\ncaf\xe9\n", r"ids\.txt, line 3: not UTF-8"),
        (b"1\n02\n3\n", r"ids\.txt, line 2: '02' is no 64-bit integer"),
        (b"1\n+2\n3\n", r"ids\.txt, line 2: '\+2' is no 64-bit integer"),
        (b"1\n2_0\n3\n", r"ids\.txt, line 2: '2_0' is no 64-bit integer"),
        (b"1\n2\n9223372036854775808\n", r"ids\.txt, line 3: .* no 64-bit integer"),
        (None, r"ids\.txt: no such file"),
    ],
)
def test_text_ids_that_cannot_be_read(tmp_path, vectors, data, message):
    np.save(tmp_path / "v.npy", vectors[:3])
    if data is not None:
        (tmp_path / "ids.txt").write_bytes(data)
    with pytest.raises(SidmillError, match=message):
        gather([1, 2, 3], tmp_path / "v.npy", str(tmp_path / "ids.txt"))


def test_ids_above_64_signed_bits(tmp_path, ids, vectors):
    ids = ids.astype(np.uint64)
    ids[123] = 2**63
    np.save(tmp_path / "v.npy", vectors)
    np.save(tmp_path / "ids.npy", ids)
    source = write_parquet(tmp_path / "source.parquet", ids, vectors)
    for path, ids_path in [(tmp_path / "v.npy", str(tmp_path / "ids.npy")), (source, None)]:
        named = ids_path or source
        with pytest.raises(SidmillError, match=rf"{named}: id 9223372036854775808 at row 123 "):
            gather([1], path, ids_path)


def test_arrays_in_a_folder(tmp_path, ids, vectors):
    (tmp_path / "source").mkdir()
    np.save(tmp_path / "source/v.npy", vectors)
    np.save(tmp_path / "ids.npy", ids)
    found = gather(ids, tmp_path / "source", str(tmp_path / "ids.npy"))
    np.testing.assert_array_equal(found, vectors)
    write_parquet(tmp_path / "source/w.parquet", ids, vectors)
    with pytest.raises(SidmillError, match=r"holds 2 files, .*v\.npy among them: name one \.npy"):
        gather(ids, tmp_path / "source")


def test_missing_items_are_counted_and_named(tmp_path, ids, vectors):
    path = write_parquet(tmp_path / "source.parquet", ids, vectors)
    pids = np.concatenate([ids[:10], 20_000 + np.arange(7)])
    with pytest.raises(SidmillError) as error:
        gather(pids, path)
    assert str(error.value).startswith(
        f"7 of 17 items have no vector in {path}, first 20000, 20001, 20002, 20003, 20004: "
    )


@pytest.mark.parametrize("second", [5, 250])  # in the same row group, and in another
def test_an_id_that_is_there_twice(tmp_path, ids, vectors, second):
    ids[second] = ids[2]
    path = write_parquet(tmp_path / "source.parquet", ids, vectors)
    with pytest.raises(SidmillError, match=f"id {ids[2]} is there more than once"):
        gather(ids[:4], path)


@pytest.mark.parametrize("name", [lambda ids: ids, named], ids=["int64", "string"])
def test_an_id_that_is_there_twice_and_not_asked_for(tmp_path, ids, vectors, name):
    ids[299] = ids[130]
    path = write_parquet(tmp_path / "source.parquet", name(ids), vectors)
    with pytest.raises(SidmillError, match=f"id '?B?0*{ids[130]}'? is there more than once"):
        gather(name(ids)[:4], path)


def test_vectors_that_nobody_asks_for_are_not_looked_at(tmp_path, ids, vectors):
    """The same answer whatever row group such a vector stands in."""
    for rows in (3, 64, N):
        lists = vectors.tolist()
        lists[1], lists[2], lists[200] = None, [1.0], [None] * DIM
        path = tmp_path / f"{rows}.parquet"
        pq.write_table(pa.table({"pid": ids, "embedding": lists}), path, row_group_size=rows)
        asked = np.delete(np.arange(N), [1, 2, 200])
        np.testing.assert_array_equal(gather(ids[asked], path), vectors[asked])
        for bad, message in [
            (1, "row 1 has no vector"),
            (2, "row 2 has 1 dim|row 0 has 12|1 dim"),
            (200, "vector of row 200 holds a null"),
        ]:
            with pytest.raises(SidmillError, match=message):
                gather(ids[[0, bad]], path)


def test_a_shard_without_items_still_knows_its_dimensions(tmp_path, ids, vectors):
    path = write_parquet(tmp_path / "source.parquet", ids, vectors)
    nothing = pa.array([], pa.int64())
    assert gather(nothing, path).shape == (0, DIM)


def test_settings_that_do_not_fit(tmp_path, ids, vectors):
    path = write_parquet(tmp_path / "source.parquet", ids, vectors)
    np.save(tmp_path / "v.npy", vectors)
    np.save(tmp_path / "pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "short.npy", ids[:-1])
    np.save(tmp_path / "float.npy", ids + 0.5)
    np.save(tmp_path / "whole.npy", ids)
    np.save(tmp_path / "empty.npy", vectors[:, :0])
    np.savez(tmp_path / "several.npz", ids)
    (tmp_path / "several.npz").rename(tmp_path / "several.npy")
    empty = write_parquet(tmp_path / "empty.parquet", ids, vectors[:, :0])
    (tmp_path / "words.txt").write_text("1\ntwo\n3\n")
    pq.write_table(pa.table({"pid": pa.array([1, None])}), tmp_path / "null.parquet")
    cases = [
        (None, None, None, r"embedding\.path is null"),
        (path, "ids.txt", None, "is parquet and holds its ids: set null"),
        (path, None, 256, "have 12 dimensions, wanted 256: set embedding.dim"),
        (tmp_path / "v.npy", None, None, r"embedding\.ids_path is null"),
        (tmp_path / "v.npy", "ids.csv", None, r"must end in \.parquet, \.npy or \.txt"),
        (tmp_path / "v.npy", "none.npy", None, r"none\.npy: no such file"),
        (tmp_path / "v.npy", tmp_path / "pickled.npy", None, "not a readable .npy file"),
        (tmp_path / "v.npy", tmp_path / "several.npy", None, r"several\.npy: holds several arrays"),
        (tmp_path / "several.npy", tmp_path / "whole.npy", None, "holds several arrays"),
        (tmp_path / "whole.npy", tmp_path / "whole.npy", None, "int64 .* wanted floats"),
        (tmp_path / "empty.npy", tmp_path / "whole.npy", None, "have no dimensions"),
        (empty, None, None, "have no dimensions"),
        (tmp_path / "v.npy", tmp_path / "float.npy", None, "is a float and no whole number"),
        (tmp_path / "v.npy", tmp_path / "words.txt", None, "line 2: 'two' is no 64-bit integer"),
        (tmp_path / "v.npy", tmp_path / "null.parquet", None, "the id at row 1 is null"),
        (tmp_path / "none.parquet", None, None, r"no such file: .*none\.parquet"),
        (tmp_path / "none.npy", tmp_path / "short.npy", None, r"no such file: .*none\.npy"),
        (tmp_path / "v.npy", tmp_path / "short.npy", None, "has 300 rows, .* has 299 ids"),
    ]
    for source, ids_path, dim, message in cases:
        with pytest.raises(SidmillError, match=message):
            gather(ids[:20], source, ids_path and str(ids_path), dim)


def test_ids_of_another_type(tmp_path, ids, vectors):
    path = write_parquet(tmp_path / "source.parquet", named(ids), vectors)
    with pytest.raises(SidmillError, match="ids are string, those of the items are int64"):
        gather(ids, path)


def test_files_that_differ_in_dimensions(tmp_path, ids, vectors):
    write_parquet(tmp_path / "source/a.parquet", ids[:100], vectors[:100])
    write_parquet(tmp_path / "source/b.parquet", ids[100:], vectors[100:, :5])
    with pytest.raises(SidmillError, match=r"b\.parquet: vectors have 5 dimensions, wanted 12"):
        gather(ids, tmp_path / "source")


def test_a_source_without_a_column_of_vectors(tmp_path, ids):
    pq.write_table(pa.table({"pid": ids[:1], "vector": [[1.0]]}), tmp_path / "source.parquet")
    with pytest.raises(SidmillError, match="0 columns named 'embedding'"):
        gather(ids, tmp_path / "source.parquet")


def test_a_source_without_rows(tmp_path):
    schema = pa.schema([("pid", pa.int64()), ("embedding", pa.list_(pa.float32()))])
    pq.write_table(schema.empty_table(), tmp_path / "source.parquet")
    with pytest.raises(SidmillError, match="no vectors in it"):
        gather(pa.array([], pa.int64()), tmp_path / "source.parquet")
