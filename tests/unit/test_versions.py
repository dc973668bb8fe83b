"""Versions of pid2sid.parquet: what moved, what was reused, told as a dictionary would tell it."""

import json

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from sidmill.commands.diff import diff
from sidmill.core.errors import SidmillError
from sidmill.formats import code_files
from sidmill.sids import versions

PIDS = {"int64": list(range(12)), "string": [f"item {number}" for number in range(12)]}
SIDS = st.tuples(*[st.integers(0, 2)] * 2)


def write(path, items, kind="int64", sizes=(3, 3)):
    rows = np.array(list(items.values()), dtype=np.int32).reshape(-1, len(sizes))
    code_files.write(
        path, "sid", pa.chunked_array([pa.array(list(items), kind)]), [rows], list(sizes)
    )
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("versions")


@pytest.mark.parametrize("kind", PIDS)
@settings(deadline=None)  # it writes files
@given(data=st.data())
def test_the_comparison_is_that_of_two_dictionaries(folder, kind, data):
    pids = st.sampled_from(PIDS[kind])
    old, new = (data.draw(st.dictionaries(pids, SIDS)) for _ in range(2))
    found = versions.compare(
        write(folder / "old.parquet", old, kind), write(folder / "new.parquet", new, kind)
    )

    def named(version, rows):
        assert rows.tolist() == sorted(rows.tolist())
        return {version.ids[int(row)].as_py() for row in rows}

    same = {pid for pid in new if old.get(pid) == new[pid]}
    moved = {pid for pid in new if pid in old} - same
    owners = {sid: {pid for pid in old if old[pid] == sid} for sid in old.values()}
    taken = {pid for pid in set(new) - same if new[pid] in owners}
    shared = {pid for pid in taken if owners[new[pid]] & same}
    assert named(found.new, found.unchanged) == same
    assert named(found.new, found.added) == set(new) - set(old)
    assert named(found.old, found.removed) == set(old) - set(new)
    assert named(found.new, found.moved) == moved
    assert [found.old.ids[int(row)].as_py() for row in found.moved_from] == [
        found.new.ids[int(row)].as_py() for row in found.moved
    ]
    assert named(found.new, found.shared) == shared
    assert named(found.new, found.reused) == taken - shared
    assert found.keeps_promises == (not moved and taken == shared)
    counts = versions.summary(found)
    assert counts["unchanged"] + counts["moved"] + counts["added"] == len(new)
    assert counts["unchanged"] + counts["moved"] + counts["removed"] == len(old)


def test_an_append_keeps_every_promise(folder):
    old = write(folder / "old.parquet", {1: (0, 0), 2: (0, 1)})
    new = write(folder / "new.parquet", {2: (0, 1), 3: (2, 2), 1: (0, 0)})
    assert versions.compare(old, new).keeps_promises


def test_two_items_that_swap_their_sids_are_both_caught(folder):
    old = write(folder / "old.parquet", {1: (0, 0), 2: (0, 1)})
    found = versions.compare(old, write(folder / "new.parquet", {1: (0, 1), 2: (0, 0)}))
    assert found.moved.tolist() == found.reused.tolist() == [0, 1]


def test_a_larger_codebook_does_not_confuse_sids(folder):
    """(0, 3) of sizes (3, 4) and (1, 0) of sizes (3, 3) would be one number at a base of 3."""
    old = write(folder / "old.parquet", {1: (1, 0)})
    new = write(folder / "new.parquet", {1: (1, 0), 2: (0, 3)}, sizes=(3, 4))
    found = versions.compare(old, new)
    assert found.keeps_promises
    assert not len(found.shared)


def test_ids_of_another_type_and_sids_of_another_length_are_refused(folder):
    old = write(folder / "old.parquet", {1: (0, 0)})
    texts = write(folder / "texts.parquet", {"1": (0, 0)}, "string")
    longer = write(folder / "longer.parquet", {1: (0, 0, 0)}, sizes=(3, 3, 3))
    with pytest.raises(SidmillError, match=r"ids of type int64, .*texts\.parquet of type string"):
        versions.compare(old, texts)
    for pair in ((old, longer), (longer, old)):
        with pytest.raises(SidmillError, match=r"SIDs of \d tokens, .* of \d: .*all items moved"):
            versions.compare(*pair)


def test_an_id_that_stands_twice_is_refused_with_the_name_of_its_file(folder):
    rows = np.zeros((2, 2), dtype=np.int32)
    code_files.write(folder / "twice.parquet", "sid", pa.chunked_array([[7, 7]]), [rows], [3, 3])
    once = write(folder / "old.parquet", {7: (0, 0)})
    for pair in ((once, folder / "twice.parquet"), (folder / "twice.parquet", once)):
        with pytest.raises(SidmillError, match=r"twice\.parquet: item 7 is listed twice"):
            versions.compare(*pair)


def run_diff(*words):
    return CliRunner().invoke(diff, list(map(str, words)))


def test_diff_ends_with_1_if_a_promise_is_broken_and_0_if_not(folder):
    old = write(folder / "old.parquet", {"a": (0, 0), "b\x1b[31m": (0, 1)}, "string")
    same = run_diff(old, old)
    assert (same.exit_code, "keep their meaning" in same.output) == (0, True)
    taken = write(folder / "new.parquet", {"a": (0, 0), "c": (0, 1)}, "string")
    found = run_diff(old, taken)
    assert found.exit_code == 1
    assert "c  (0, 1), of b\\x1b[31m before" in found.output
    assert max(map(len, found.output.splitlines())) <= 80


def test_diff_as_json_counts_all_and_shows_some(folder):
    old = write(folder / "old.parquet", {pid: (pid % 3, 0) for pid in range(9)})
    new = write(folder / "new.parquet", {pid: (pid % 3, 1) for pid in range(9)})
    found = run_diff(old, new, "--json", "--limit", 2)
    told = json.loads(found.output)
    assert (found.exit_code, told["moved"], told["keeps_promises"]) == (1, 9, False)
    assert told["examples"]["moved"] == [
        {"pid": 0, "old_sid": [0, 0], "new_sid": [0, 1]},
        {"pid": 1, "old_sid": [1, 0], "new_sid": [1, 1]},
    ]
