"""Each format: what is written is read back, equal content is equal bytes, damage is refused."""

import json
import shutil
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sidmill.commands import source
from sidmill.core.errors import SidmillError
from sidmill.embed import chunks
from sidmill.formats import (
    code_files,
    embedding_shards,
    item_index,
    item_text,
    ledger_file,
    quantizer_file,
    sequence_table,
    sid_text,
    vector_file,
    vector_store,
)
from sidmill.io import json_report, parquet

IDS = pa.chunked_array([pa.array([2**62, 5, -7])])
CODES = np.array([[0, 3], [1, 0], [1, 2]], dtype=np.int32)
FITTED = quantizer_file.Quantizer(
    "rqkmeans",
    [np.arange(6, dtype=np.float32).reshape(3, 2), np.ones((4, 2), np.float32)],
    {"n_levels": 2, "seed": 1},
    {"backend": "lsa", "dim": 2},
)


def test_codes_round_trip(tmp_path):
    code_files.write(tmp_path / "c.parquet", "codes", IDS, [CODES[:1], CODES[1:]], [2, 4])
    back = code_files.read(tmp_path / "c.parquet", "codes")
    np.testing.assert_array_equal(back.codes, CODES)
    assert (back.ids.to_pylist(), back.sizes, back.codes.dtype) == (
        IDS.to_pylist(),
        [2, 4],
        np.int32,
    )


def test_codes_are_lists_of_int32_to_other_readers(tmp_path):
    code_files.write(tmp_path / "c.parquet", "sid", IDS, [CODES], [2, 4])
    table = pq.read_table(tmp_path / "c.parquet")
    assert table.schema.field("sid").type == pa.list_(pa.int32())
    assert table["sid"].to_pylist() == CODES.tolist()


def test_sids_have_tokens_as_models_write_them_and_codes_have_none(tmp_path, monkeypatch):
    monkeypatch.setattr(code_files, "BLOCK_ROWS", 2)  # so that a piece ends within the rows
    code_files.write(tmp_path / "s.parquet", "sid", IDS, [CODES], [2, 4])
    tokens = pq.read_table(tmp_path / "s.parquet")["tokens"].to_pylist()
    assert [sid_text.parse(text, 2) for text in tokens] == [[tuple(row)] for row in CODES.tolist()]
    code_files.write(tmp_path / "c.parquet", "codes", IDS, [CODES], [2, 4])
    assert pq.read_schema(tmp_path / "c.parquet").names == ["pid", "codes"]


def test_sids_of_earlier_versions_are_read(tmp_path):
    code_files.write(tmp_path / "new.parquet", "sid", IDS, [CODES], [2, 4])
    table = pq.read_table(tmp_path / "new.parquet").drop_columns(["tokens"])
    pq.write_table(table, tmp_path / "old.parquet")
    new, old = (code_files.read(tmp_path / f"{name}.parquet", "sid") for name in ("new", "old"))
    assert (new.ids, new.sizes) == (old.ids, old.sizes)
    np.testing.assert_array_equal(new.codes, old.codes)


def test_no_pattern_of_a_reader_finds_a_file_that_is_being_written(tmp_path):
    """Some readers skip hidden files and others do not, so their names do not end as tables do."""
    seen = []

    def blocks():
        seen.extend(path.name for path in tmp_path.rglob("*"))
        yield CODES

    code_files.write(tmp_path / "part-00000.parquet", "sid", IDS, blocks(), [2, 4])
    shard = tmp_path / "part-00000.parquet"
    hidden = [*seen, chunks.folder_of(shard).name]
    assert len(seen) == 1
    assert not [name for name in hidden if name.endswith(".parquet") or not name.startswith(".")]


def test_bytes_depend_on_rows_and_not_on_how_they_were_cut(tmp_path, rng):
    many = rng.integers(0, 9, (20_000, 2), dtype=np.int32)
    ids = pa.chunked_array([pa.array(range(20_000))])
    code_files.write(tmp_path / "a", "codes", ids, [many], [9, 9])
    code_files.write(tmp_path / "b", "codes", ids, np.array_split(many, 7), [9, 9])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([CODES + 2], "code 2 of row 0, level 0, is outside"),
        ([CODES - 1], "code -1"),
        ([CODES[:2]], "2 rows of codes for 3 ids"),
    ],
)
def test_codes_that_do_not_fit_are_refused(tmp_path, blocks, message):
    with pytest.raises(SidmillError, match=message):
        code_files.write(tmp_path / "c.parquet", "codes", IDS, blocks, [2, 4])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"pid": [1], "code": [[1]]}, "0 columns named 'codes'"),
        ({"pid": [1.5], "codes": [[1]]}, "column 'pid' has type double"),
        ({"pid": [1], "codes": [["a"]]}, "column 'codes' has type"),
        ({"pid": [1, 2], "codes": [[1], [1, 2]]}, "differ in length"),
        ({"pid": [1, 2, 3], "codes": [[1], [1, 2], []]}, "differ in length"),
        ({"pid": [1, 2], "codes": [[1], None]}, "1 rows without 'codes', first row 1"),
        ({"pid": [1, 2], "codes": [[1, 2], [3, None]]}, "row 1 of 'codes' lacks a value"),
        ({"pid": [1, None], "codes": [[1], [1]]}, "1 rows without a pid"),
        ({"pid": [1], "codes": [[-1]]}, "code -1"),
        ({"pid": [1], "codes": [[2**32 + 1]]}, "code 4294967297"),
    ],
)
@pytest.mark.parametrize("rows_per_group", [1, 100])
def test_foreign_codes_are_checked(tmp_path, table, message, rows_per_group):
    """Rows are named by their number in the file, whatever row group they are in."""
    pq.write_table(pa.table(table), tmp_path / "c.parquet", row_group_size=rows_per_group)
    with pytest.raises(SidmillError, match=message):
        code_files.read(tmp_path / "c.parquet", "codes")


LIST_KINDS = [pa.list_, pa.large_list, partial(pa.list_, list_size=2)]
ID_KINDS = [pa.int64(), pa.string(), pa.large_string()]


@pytest.mark.parametrize("lists", LIST_KINDS, ids=["list", "large", "fixed"])
@pytest.mark.parametrize("kind", ID_KINDS, ids=str)
@pytest.mark.parametrize("chunks", [1, 2])
def test_every_reader_takes_each_kind_of_list_and_id_that_the_check_accepts(
    tmp_path, lists, kind, chunks
):
    """What other software writes: polars has lists of fixed size and large ones."""
    rows, names = [[1, 2], [3, 0], [0, 1]], ["7", "8", "9"]
    pids = pa.array(names).cast(kind)
    plain = pa.int64() if kind == pa.int64() else pa.string()

    def column(values, of):
        whole = pa.array(values, lists(of))
        return pa.chunked_array([whole] if chunks == 1 else [whole[:1], whole[1:]])

    def write(name, **columns):
        table = pa.table(columns)
        pq.write_table(table, tmp_path / name, row_group_size=2 if chunks > 1 else 100)
        return tmp_path / name

    for of in (pa.int32(), pa.int64()):
        found = code_files.read(write("c.parquet", pid=pids, sid=column(rows, of)), "sid")
        assert found.codes.tolist() == rows
        assert (found.codes.dtype, found.sizes) == (np.int32, [4, 3])
        assert found.ids.type == plain
        assert found.ids.cast(pa.string()).to_pylist() == names

    line = ledger_file.Ledger(
        pa.chunked_array([pids]), np.array(rows, np.int32), np.array(rows, np.int32),
        np.array([b"a" * 16] * 3, "S16"), np.zeros(3, np.int8), np.ones(3, np.int32),
        np.ones(3, bool), [4, 3], 1,
    )  # fmt: skip
    ledger_file.write(tmp_path / "plain.parquet", line)
    table = pq.read_table(tmp_path / "plain.parquet")
    for name in ("sid", "codes"):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, column(rows, pa.int32()))
    pq.write_table(table, tmp_path / "ledger.parquet")
    back = ledger_file.read(tmp_path / "ledger.parquet")
    assert back.sids.tolist() == back.codes.tolist() == rows
    assert back.ids.type == plain

    path = write("item_index.parquet", pid=pids, item_id=pa.array([1, 2, 3]))
    assert item_index.read(path)[0].type == plain
    assert vector_store.read_pids(write("ids.parquet", pid=pids)).type == plain
    path = write("part.parquet", pid=pids, embedding=column([[1.0, 2.0]] * 3, pa.float32()))
    assert {ids.type for ids, _ in embedding_shards.read(path)} == {plain}

    path = write(
        "sequences.parquet",
        user_id=["a", "b", "c"],
        item_ids=column([[7, 8]] * 3, pa.int64()),
        splits=column([[0, 0]] * 3, pa.int8()),
        timestamps=column([[1, 2]] * 3, pa.int64()),
    )
    for part in sequence_table.read(path):
        assert part["item_ids"].combine_chunks().offsets.to_pylist()[:2] == [0, 2]


@pytest.mark.parametrize("kinds", [(pa.string(), pa.large_string()), (pa.int64(), pa.string())])
def test_ids_of_two_files_may_be_two_kinds_of_text_and_not_text_and_numbers(tmp_path, kinds):
    for number, kind in enumerate(kinds):
        table = pa.table(
            {
                "pid": pa.array([str(number)]).cast(kind),
                "embedding": pa.array([[1.0, 2.0]], pa.list_(pa.float32())),
            }
        )
        pq.write_table(table, tmp_path / f"part-{number}.parquet")
    if pa.int64() in kinds:
        with pytest.raises(SidmillError, match="integers in one file"):
            vector_file.open_vectors(tmp_path)
        with (
            pytest.raises(SidmillError, match="integers in one file"),
            source.open_vectors(str(tmp_path), None, None),
        ):
            pass
        return
    assert vector_file.open_vectors(tmp_path).ids.to_pylist() == ["0", "1"]
    with source.open_vectors(str(tmp_path), None, None) as found:
        assert found.ids.to_pylist() == ["0", "1"]


def test_index_is_the_form_that_lc_rec_reads(tmp_path):
    code_files.write_index(IDS, CODES, path=tmp_path / "index.json")
    assert json.loads((tmp_path / "index.json").read_text()) == {
        str(2**62): ["<a_0>", "<b_3>"],
        "5": ["<a_1>", "<b_0>"],
        "-7": ["<a_1>", "<b_2>"],
    }


def test_index_of_awkward_ids_is_json(tmp_path):
    ids = pa.chunked_array([pa.array(['a"b', "前\n", "<x>"])])
    code_files.write_index(ids, CODES, path=tmp_path / "index.json")
    assert list(json.loads((tmp_path / "index.json").read_text())) == ['a"b', "前\n", "<x>"]


def test_quantizer_round_trip_and_equal_bytes(tmp_path):
    for name in "ab":
        quantizer_file.write(tmp_path / name, FITTED)
    back = quantizer_file.read(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert back[0] == FITTED[0]
    assert back[2:] == FITTED[2:]
    for mine, theirs in zip(back.codebooks, FITTED.codebooks, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_levels_are_read_in_numerical_order(tmp_path):
    books = [np.full((1, 2), level, np.float32) for level in range(12)]
    quantizer_file.write(tmp_path / "q", FITTED._replace(codebooks=books))
    assert [book[0, 0] for book in quantizer_file.read(tmp_path / "q").codebooks] == list(range(12))


def test_a_quantizer_of_other_embeddings_is_refused():
    with pytest.raises(SidmillError, match=r"backend: 'lsa' in the quantizer, 'openai' in the"):
        quantizer_file.check_fingerprint(FITTED, {"backend": "openai", "dim": 2}, "q")
    quantizer_file.check_fingerprint(FITTED, {"dim": 2, "backend": "lsa"}, "q")


@pytest.mark.parametrize("keep", [0, 4, 50, -1])
def test_a_damaged_quantizer_is_refused(tmp_path, keep):
    quantizer_file.write(tmp_path / "q", FITTED)
    (tmp_path / "q").write_bytes((tmp_path / "q").read_bytes()[:keep])
    with pytest.raises(SidmillError, match=r"q: not a readable quantizer .* by another copy"):
        quantizer_file.read(tmp_path / "q")


@pytest.mark.parametrize("kind", ["flipped quantizer", "cut quantizer", "cut table"])
def test_what_mends_a_file_depends_on_who_made_it(tmp_path, kind):
    """Nobody deletes a file of a published version: no run makes it again."""
    (tmp_path / "results").mkdir()
    path = tmp_path / "results/file"
    if "quantizer" in kind:
        quantizer_file.write(path, FITTED)
    else:
        pq.write_table(pa.table({"pid": [1, 2]}), path)
    whole = path.read_bytes()
    path.write_bytes(whole[:50] if "cut" in kind else whole[:-1] + bytes([whole[-1] ^ 1]))
    read = quantizer_file.read if "quantizer" in kind else partial(parquet.open_file, columns={})
    with pytest.raises(SidmillError, match="delete it and run again; one that no run makes here,"):
        read(path)
    own = shutil.copyfile(path, tmp_path / "own")
    with pytest.raises(SidmillError, match="replace it by another copy") as caught:
        read(own)
    assert "delete" not in str(caught.value)
    (tmp_path / "results/manifest.json").write_text("{}")
    with pytest.raises(SidmillError, match="take another copy of that version") as caught:
        read(path)
    assert "delete" not in str(caught.value)


def test_a_codebook_with_a_nan_is_never_written(tmp_path):
    spoiled = FITTED._replace(codebooks=[np.full((2, 2), np.nan, np.float32)])
    with pytest.raises(SidmillError, match=r"codebook\.0 holds a NaN"):
        quantizer_file.write(tmp_path / "q", spoiled)


def test_embeddings_are_one_table_to_pandas_and_pyarrow(tmp_path, rng):
    import pandas as pd

    values = rng.standard_normal((10, 4)).astype(np.float32)
    for shard in range(2):
        start, stop = item_text.shard_bounds(10, shard, 2)
        path = tmp_path / "embeddings.parquet" / f"part-0000{shard}-of-00002.parquet"
        pids = pa.array(range(start, stop))
        embedding_shards.write(path, pa.int64(), {"dim": 4}, [(pids, values[start:stop])])
        assert embedding_shards.fingerprint(path) == {"dim": 4}
    frame = pd.read_parquet(tmp_path / "embeddings.parquet")
    np.testing.assert_array_equal(np.stack(frame["embedding"]), values)
    assert frame["pid"].tolist() == list(range(10))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1.0, 2.0], [1.0]], "row 1 has 1 dimensions"),
        ([[1.0], None], "row 1 has no vector"),
        ([[1.0], [None]], "holds a null"),
    ],
)
def test_ragged_embeddings_are_refused(tmp_path, rows, message):
    column = pa.array(rows, pa.list_(pa.float32()))
    pq.write_table(pa.table({"pid": [1, 2], "embedding": column}), tmp_path / "e.parquet")
    with pytest.raises(SidmillError, match=message):
        list(embedding_shards.read(tmp_path / "e.parquet"))


def test_vectors_and_ids_that_disagree_are_refused(tmp_path):
    paths = tmp_path / "vectors.npy", tmp_path / "ids.parquet"
    vector_store.write(paths[0], (3, 2), "float32", [np.ones((3, 2))])
    vector_store.write_ids(paths[1], IDS, (3, 2), {})
    vector_store.open_store(*paths)
    vector_store.write(paths[0], (4, 2), "float32", [np.ones((4, 2))])
    with pytest.raises(SidmillError, match=r"has shape \(4, 2\), .* was written for \(3, 2\)"):
        vector_store.open_store(*paths)


def test_ids_of_another_tool_are_refused(tmp_path):
    vector_store.write(tmp_path / "vectors.npy", (3, 2), "float32", [np.ones((3, 2))])
    pq.write_table(pa.table({"pid": [1, 2, 3]}), tmp_path / "ids.parquet")
    with pytest.raises(SidmillError, match=r"was not written with a vectors\.npy: name"):
        vector_store.open_store(tmp_path / "vectors.npy", tmp_path / "ids.parquet")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a readable"),
        (b"\x93NUMPY\x01\x00", "not a readable"),
        (np.ones((2, 2), np.int64), "holds int64"),
        (np.ones(2, np.float32), r"of shape \(2,\)"),
        (np.array([{"a": 1}], dtype=object), "not a readable"),
    ],
)
def test_other_npy_files_are_refused(tmp_path, data, message):
    path = tmp_path / "v.npy"
    if isinstance(data, bytes):
        path.write_bytes(data)
    else:
        np.save(path, data, allow_pickle=True)
    with pytest.raises(SidmillError, match=message):
        vector_store.open_npy(path)


def test_a_truncated_memory_map_is_refused(tmp_path):
    vector_store.write(tmp_path / "v.npy", (100, 8), "float32", [np.ones((100, 8))])
    with (tmp_path / "v.npy").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(SidmillError, match="not a readable"):
        vector_store.open_npy(tmp_path / "v.npy")


def test_text_is_read_by_any_range_of_rows(tmp_path):
    table = pa.table({"pid": range(20_000), "text": [f"text {i}" for i in range(20_000)]})
    item_text.write(tmp_path / "t.parquet", pa.int64(), [table])
    for start, stop in [(0, 5), (8190, 8200), (16_000, 20_000), (7, 7), (0, None)]:
        parts = list(item_text.read(tmp_path / "t.parquet", start, stop))
        rows = [pid for part in parts for pid in part["pid"].to_pylist()]
        assert rows == list(range(20_000))[start:stop]


def test_equal_texts_have_equal_classes(tmp_path):
    table = pa.table({"pid": range(5), "text": ["b", "a", "b", "c", "a"]})
    item_text.write(tmp_path / "t.parquet", pa.int64(), [table])
    assert item_text.text_classes(tmp_path / "t.parquet").tolist() == [0, 1, 0, 2, 1]


def test_a_figure_that_is_no_number_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        json_report.write(tmp_path / "q.json", {"mse": float("nan")})
    assert not list(tmp_path.iterdir())


def test_only_vectors_are_written_without_a_dictionary(tmp_path, rng):
    """A dictionary of floats takes memory and time, and is thrown away."""
    path, ids = tmp_path / "part.parquet", pa.chunked_array([["a", "b"] * 50])
    vectors = rng.standard_normal((100, 4), dtype=np.float32)
    embedding_shards.write(path, pa.string(), {}, [(ids, vectors)])
    group = pq.read_metadata(path).row_group(0)
    assert [group.column(n).has_dictionary_page for n in range(2)] == [True, False]
    code_files.write(
        tmp_path / "codes.parquet", "codes", ids, [np.zeros((100, 3), np.int32)], [1] * 3
    )
    group = pq.read_metadata(tmp_path / "codes.parquet").row_group(0)
    assert [group.column(n).has_dictionary_page for n in range(2)] == [True, True]
