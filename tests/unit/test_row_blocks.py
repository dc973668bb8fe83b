"""Rows of a file: those near each other come of one read, and are the rows that were asked for."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidmill.numeric import row_blocks


@pytest.fixture(scope="module", params=["float32", "float16"])
def stored(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "v.npy"
    values = np.random.default_rng(0).standard_normal((700, 3)).astype(request.param)
    np.save(path, values)
    return np.load(path, mmap_mode="r"), values.astype(np.float32)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_any_rows_in_any_order_and_repeated(stored, data):
    mapped, values = stored
    highest = data.draw(st.sampled_from([4, 30, 699]))
    rows = data.draw(st.lists(st.integers(0, highest), max_size=40))
    rows = np.array(rows, dtype=np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_blocks, "GAP_BYTES", data.draw(st.sampled_from([0, 12, 60, 2**15])))
        patch.setattr(row_blocks, "SPAN_BYTES", data.draw(st.sampled_from([1, 40, 500, 2**21])))
        patch.setattr(row_blocks, "MAX_BLOCK_ROWS", data.draw(st.sampled_from([5, 4096])))
        np.testing.assert_array_equal(row_blocks.take(mapped, rows), values[rows])


def test_a_row_that_is_asked_for_twice_hides_no_gap(stored):
    mapped, values = stored
    rows = np.array([5, 5, 7])
    np.testing.assert_array_equal(row_blocks.take(mapped, rows), values[rows])


def test_rows_near_each_other_come_of_one_read(stored, monkeypatch):
    mapped, values = stored
    reads, read = [], os.preadv
    monkeypatch.setattr(os, "preadv", lambda *all_: reads.append(1) or read(*all_))
    rows = np.arange(0, 700, 2)
    np.testing.assert_array_equal(row_blocks.take(mapped, rows), values[rows])
    assert len(reads) == 1
    monkeypatch.setattr(row_blocks, "GAP_BYTES", 0)
    np.testing.assert_array_equal(row_blocks.take(mapped, rows), values[rows])
    assert len(reads) == 1 + 350
