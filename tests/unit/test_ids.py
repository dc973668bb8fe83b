"""Ids to rows: the same as a dictionary finds, whatever form the table takes, and made once."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidmill.core.errors import SidmillError
from sidmill.formats import sequence_table
from sidmill.io import id_lookup
from sidmill.quantize.rqvae.data import read_pairs
from sidmill.sids import alignment

ANY = st.integers(-(2**63), 2**63 - 1)
NEAR = st.integers(-5, 5000)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)


@pytest.mark.parametrize(("kind", "one"), [("int64", NEAR), ("int64", ANY), ("string", TEXTS)])
@given(data=st.data())
def test_rows_are_those_of_a_dictionary(kind, one, data):
    known = data.draw(st.lists(one, unique=True, max_size=30))
    wanted = data.draw(st.lists(st.none() | one | st.sampled_from(known or [None]), max_size=30))
    table = {value: row for row, value in enumerate(known)}
    lookup = id_lookup.make(pa.array(known, kind))
    found = id_lookup.find(lookup, pa.array(wanted, kind))
    assert found.dtype == np.int32
    assert found.tolist() == [table.get(value, id_lookup.ABSENT) for value in wanted]
    cut = pa.chunked_array([wanted[:3], wanted[3:]], kind)
    assert id_lookup.find(lookup, cut).tolist() == found.tolist()


@pytest.mark.parametrize("twice", [[3, 1, 3], [3, 10**15, 3], ["a", "b", "a"]])
def test_an_id_that_stands_twice_is_refused(twice):
    with pytest.raises(SidmillError, match=f"item {twice[0]!r} is listed twice"):
        id_lookup.make(pa.array(twice))


@pytest.mark.parametrize(("known", "wanted"), [([1, 2], ["1"]), (["1"], [1])])
def test_numbers_are_not_looked_for_among_strings(known, wanted):
    with pytest.raises(SidmillError, match=r"log\.parquet: item ids are .*items\.id_type"):
        id_lookup.find(id_lookup.make(pa.array(known)), pa.array(wanted), "log.parquet")


def test_strings_are_hashed_once_however_many_blocks_are_looked_up(tmp_path, monkeypatch):
    """Four row groups of histories: one table, and no look-up that builds its own."""
    # A file of four row groups.
    ids = [f"item {number}" for number in range(50)]
    table = pa.table(
        {
            "user_id": [str(user) for user in range(8192 * 4)],
            "item_ids": [[ids[user % 50], ids[(user + 1) % 50]] for user in range(8192 * 4)],
            "splits": pa.array([[0, 0]] * (8192 * 4), pa.list_(pa.int8())),
            "timestamps": pa.nulls(8192 * 4, pa.list_(pa.int64())),
        },
        schema=sequence_table.schema(pa.string()),
    )
    sequence_table.write(tmp_path / "sequences.parquet", pa.string(), [table])
    pa.parquet.write_table(pa.table({"pid": ids}), tmp_path / "ids.parquet")

    # Tables are counted; Arrow's own look-up, which hashes each time, is not there.
    made, make = [], id_lookup.make
    monkeypatch.setattr(id_lookup, "make", lambda known: made.append(1) or make(known))
    monkeypatch.delattr(pc, "index_in")
    found = read_pairs(str(tmp_path / "sequences.parquet"), str(tmp_path / "ids.parquet"))
    assert (len(found), sum(made)) == (8192 * 4, 1)
    codes = np.zeros((50, 1), dtype=np.int32)
    alignment.align(tmp_path / "sequences.parquet", pa.chunked_array([ids]), codes, [1])
    assert sum(made) == 2
