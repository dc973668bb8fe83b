"""The gate: what is wrong with vectors stops the run, and nothing is half-written."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sidmill.core.errors import SidmillError
from sidmill.embed.store import store
from sidmill.formats import embedding_shards, item_text, vector_store
from sidmill.settings.embedding import Store

SPACE = {"backend": "lsa", "model": "m", "dim": 4}


@pytest.fixture
def case(tmp_path, rng):
    """Ten items in three shards, and a function that stores them."""
    values = rng.standard_normal((10, 4)).astype(np.float32)
    ids = pa.array([f"B{i}" for i in range(10)])

    class Case:
        def __init__(self):
            self.folder = tmp_path
            self.expected = values
            self.bounds = [item_text.shard_bounds(10, shard, 3) for shard in range(3)]
            self.shards = [
                str(tmp_path / f"part-0000{shard}-of-00003.parquet") for shard in range(3)
            ]

        def write_shard(self, shard, block=None, pids=None, space=SPACE):
            start, stop = self.bounds[shard]
            block = values[start:stop] if block is None else block
            pids = ids[start:stop] if pids is None else pids
            embedding_shards.write(self.shards[shard], pa.string(), space, [(pids, block)])

        def store(self, dtype="float32"):
            paths = [
                str(tmp_path / name) for name in ("text.parquet", "vectors.npy", "ids.parquet")
            ]
            store(self.shards, *paths, Store(dtype=dtype))
            return vector_store.open_store(*paths[1:])

    table = pa.table({"pid": ids, "text": ["x"] * 10})
    item_text.write(tmp_path / "text.parquet", pa.string(), [table])
    case = Case()
    for shard in range(3):
        case.write_shard(shard)
    return case


def test_vectors_come_out_in_row_order_with_ids_and_fingerprint(case):
    opened = case.store()
    np.testing.assert_array_equal(opened.vectors, case.expected)
    assert opened.ids.to_pylist() == [f"B{i}" for i in range(10)]
    assert opened.fingerprint == SPACE
    assert not opened.vectors.flags.writeable


def test_float16_halves_the_file_and_keeps_values_close(case):
    opened = case.store("float16")
    assert opened.vectors.dtype == np.float16
    np.testing.assert_allclose(opened.vectors, case.expected, rtol=1e-3)


def test_shards_of_another_count_do_not_linger(case):
    old = case.folder / "part-00000-of-00009.parquet"
    old.write_bytes(b"stale")
    case.store()
    assert not old.exists()


def with_value(value):
    def spoil(case):
        block = case.expected[case.bounds[1][0] : case.bounds[1][1]].copy()
        block[2] = value
        case.write_shard(1, block)

    return spoil


def reorder(case):
    case.write_shard(1, pids=pa.array(["B3", "B5", "B4"]))


FAULTS = {
    "NaN": (with_value(np.nan), "1 vectors hold a NaN .* pid 'B5'"),
    "infinity": (with_value(np.inf), "infinity .* pid 'B5'"),
    "zeros": (with_value(0.0), "all zeros, first that of pid 'B5'"),
    "width": (lambda case: case.write_shard(2, np.ones((4, 5))), "5 dimensions, .* has 4"),
    "order": (reorder, r"pid 'B5' where the catalogue has 'B4' \(row 4\)"),
    "repeated": (lambda case: case.write_shard(1, pids=pa.array(["B3", "B3", "B5"])), "'B3' where"),
    "too few": (lambda case: case.write_shard(2, np.ones((3, 4)), ["B6", "B7", "B8"]), "9 vectors"),
    "too many": (
        lambda case: case.write_shard(2, np.ones((5, 4)), ["B6", "B7", "B8", "B9", "C"]),
        "pid 'C' where the catalogue has None",
    ),
    "space": (lambda case: case.write_shard(1, space=SPACE | {"dim": 8}), "dim 8, not 4"),
    "truncated": (lambda case: os.truncate(case.shards[1], 99), "not a readable parquet"),
    "missing": (lambda case: Path(case.shards[1]).unlink(), "no such file"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_gate_names_what_where_and_leaves_nothing(case, name):
    fault, message = FAULTS[name]
    fault(case)
    with pytest.raises(SidmillError, match=message):
        case.store()
    assert not (case.folder / "vectors.npy").exists()
    assert not list(case.folder.glob(".*partial"))


def test_a_value_too_large_for_float16_is_refused(case):
    with_value(70_000.0)(case)
    case.store("float32")
    with pytest.raises(SidmillError, match="NaN or an infinity as float16"):
        case.store("float16")


def test_a_repeated_id_in_text_is_refused(case):
    for ids in (["B0"] * 10, [4, 7, 9, 7]):
        table = pa.table({"pid": ids, "text": ["x"] * len(ids)})
        item_text.write(case.folder / "text.parquet", table["pid"].type, [table])
        with pytest.raises(SidmillError, match=r"pid ('B0'|7) is listed more than once"):
            case.store()
