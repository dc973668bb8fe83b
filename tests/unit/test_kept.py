"""Published SIDs stay: over any sequence of versions, for every way to resolve collisions."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidmill.core import atomic
from sidmill.core.errors import SidmillError
from sidmill.formats import catalogue_match, item_text, ledger_file
from sidmill.numeric import residual_codec
from sidmill.settings.sids import Collisions, Published
from sidmill.sids import churn, published_sids, reassign, sinkhorn
from sidmill.sids.resolve import resolve
from sidmill.sids.space import Space

SETTINGS = Collisions(suffix_size=64, sinkhorn_iterations=20, sinkhorn_rounds=5)
KEEP = Published()
BOOKS = [
    (np.random.default_rng(level).standard_normal((4, 3)) / 2**level).astype(np.float32)
    for level in range(3)
]
SIZES = [4, 4, 4]
N_TEXTS = 8  # so that texts repeat, and their vectors with them
TEXT_VECTORS = np.random.default_rng(9).standard_normal((N_TEXTS, 3)).astype(np.float32)
CODES = [
    tuple(codes)
    for block in residual_codec.encode(TEXT_VECTORS, BOOKS, device="cpu", memory_mb=64)
    for codes in block.tolist()
]


@pytest.fixture(autouse=True, scope="module")
def no_waiting_for_the_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atomic, "_flush", lambda path, flags: None)
        yield


def published(strategy, changed="keep"):
    """Settings of a line: ``none`` reserves nothing."""
    return Published(changed=changed, removed="release" if strategy == "none" else "reserve")


class Line:
    """A line of published versions of a small catalogue, kept in files as the workflow does."""

    def __init__(self, folder, collisions, published):
        self.folder, self.collisions, self.published = Path(folder), collisions, published
        self.ledger = None
        self.reused = set()  # pids of the last version that got the SID of others who are gone

    def publish(self, catalogue, order):
        """Give SIDs to a catalogue {pid: number of its text}; return {pid: sid}, and the match."""
        pids = [pid for pid in order if pid in catalogue]
        numbers = np.array([catalogue[pid] for pid in pids])
        path = self.folder / "text.parquet"
        table = pa.table({"pid": pids, "text": [f"text {number}" for number in numbers]})
        item_text.write(path, pa.int64(), [table])
        vectors = TEXT_VECTORS[numbers]
        codes = np.concatenate(
            list(residual_codec.encode(vectors, BOOKS, device="cpu", memory_mb=64))
        )
        found = held = None
        if self.ledger:
            published_sids.match(path, self.ledger, self.folder / "match.parquet")
            found = catalogue_match.read(self.folder / "match.parquet")
            held = published_sids.build(self.ledger, found, codes, self.published)
        classes = item_text.text_classes(path)
        done = resolve(codes, SIZES, vectors, BOOKS, classes, self.collisions, held)
        ids = pa.chunked_array([pids])
        digests = item_text.digests(path)
        ledger = published_sids.carry_on(
            self.ledger, ids, done.sids, done.sizes, codes, digests, self.published
        )
        ledger_file.write(self.folder / "ledger.parquet", ledger)
        if self.ledger:
            reused = churn.compare(self.ledger, ledger).reused
            self.reused = {pid for pid, given in zip(pids, reused, strict=True) if given}
        self.ledger = ledger_file.read(self.folder / "ledger.parquet")
        sids = dict(zip(pids, map(tuple, done.sids.tolist()), strict=True))
        return sids, dict(zip(pids, found.changed.tolist(), strict=True)) if found else {}


def catalogues():
    return st.lists(
        st.dictionaries(st.integers(0, 30), st.integers(0, N_TEXTS - 1), min_size=1, max_size=14),
        min_size=2,
        max_size=5,
    )


@given(
    catalogues(),
    st.permutations(range(31)),
    st.sampled_from(["reassign", "sinkhorn", "suffix", "none"]),
    st.sampled_from(["separate", "share"]),
    st.sampled_from(["keep", "resolve"]),
)
@settings(deadline=None, max_examples=80)
def test_no_sequence_of_versions_moves_or_reuses_a_sid(versions, order, strategy, alike, changed):
    collisions = replace(SETTINGS, strategy=strategy, identical_text=alike)
    owner = {}  # SID -> pids that have had it, texts that it has meant
    last = {}  # pid -> SID, removed items too
    with tempfile.TemporaryDirectory() as folder:
        line = Line(folder, collisions, published(strategy, changed))
        for number, catalogue in enumerate(versions):
            sids, altered = line.publish(catalogue, order)
            for pid, sid in sids.items():
                if pid in last and not (changed == "resolve" and altered[pid]):
                    assert sid == last[pid]
            if strategy == "none":
                given = [pid for pid in sids if last.get(pid) != sids[pid]]
                for pid in given if alike == "separate" else ():
                    assert sids[pid] == CODES[catalogue[pid]]
                stays = {sids[pid] for pid in sids if last.get(pid) == sids[pid]}
                reused = {pid for pid in given if sids[pid] in set(last.values()) - stays}
                assert line.reused == reused
                last = {}  # a removed item is forgotten
            else:
                assert not line.reused
                for pid, sid in sids.items():
                    others = owner.get(sid, set()) - {pid}
                    if alike == "separate":
                        assert not others
                    elif last.get(pid) != sid:  # given now: to share it means to share the text
                        here = {other for other in others if other in catalogue}
                        assert here or not others
                        assert not here or any(catalogue[other] == catalogue[pid] for other in here)
                    owner.setdefault(sid, set()).add(pid)
                if alike == "separate":
                    assert len(set(sids.values())) == len(sids)
            last |= sids
            assert line.ledger.version == number + 1


@given(catalogues(), st.sampled_from(["reassign", "sinkhorn", "suffix", "none"]))
@settings(deadline=None, max_examples=20)
def test_the_same_catalogue_again_changes_nothing(versions, strategy):
    with tempfile.TemporaryDirectory() as folder:
        line = Line(folder, replace(SETTINGS, strategy=strategy), published(strategy))
        for catalogue in versions:
            first = line.publish(catalogue, range(31))[0]
            before = line.ledger
            assert line.publish(catalogue, range(31))[0] == first
            assert line.ledger.ids.equals(before.ids)
            np.testing.assert_array_equal(line.ledger.sids, before.sids)
            np.testing.assert_array_equal(line.ledger.versions, before.versions)


def test_a_removed_item_gets_its_sid_back_two_versions_later(tmp_path):
    line = Line(tmp_path, SETTINGS, KEEP)
    first = line.publish(dict.fromkeys(range(10), 0), range(31))[0]
    line.publish({1: 0, 20: 0, 21: 0}, range(31))
    line.publish({30: 0}, range(31))
    back = line.publish({4: 0, 5: 3, 22: 0}, range(31))[0]
    assert (back[4], back[5]) == (first[4], first[5])
    assert back[22] not in first.values()


def test_released_sids_are_free_again(tmp_path):
    line = Line(tmp_path, SETTINGS, replace(KEEP, removed="release"))
    first = line.publish({0: 0, 1: 1}, range(31))[0]
    line.publish({0: 0}, range(31))
    assert len(line.ledger.ids) == 1
    assert line.publish({0: 0, 7: 1}, range(31))[0] == {0: first[0], 7: first[1]}


def test_a_full_catalogue_is_refused_with_what_to_do(tmp_path):
    line = Line(tmp_path, SETTINGS, KEEP)
    line.publish({pid: pid % N_TEXTS for pid in range(40)}, range(200))
    with pytest.raises(SidmillError, match="40 of which are published or reserved"):
        line.publish({pid: pid % N_TEXTS for pid in range(40, 80)}, range(200))
    assert len(set(line.publish(dict.fromkeys(range(40, 64), 0), range(200))[0].values())) == 24


def test_suffixes_are_not_given_twice(tmp_path):
    line = Line(tmp_path, replace(SETTINGS, strategy="suffix"), KEEP)
    assert {sid[3] for sid in line.publish({0: 0, 1: 0, 2: 0}, range(31))[0].values()} == {0, 1, 2}
    line.publish({2: 0}, range(31))
    sids = line.publish({2: 0, 8: 0, 9: 0}, range(31))[0]
    assert (sids[2][3], sids[8][3], sids[9][3]) == (2, 3, 4)


def test_fewer_suffixes_than_published_are_refused(tmp_path):
    line = Line(tmp_path, replace(SETTINGS, strategy="suffix"), KEEP)
    line.publish({0: 0, 1: 0, 2: 0}, range(31))
    line.collisions = replace(SETTINGS, strategy="suffix", suffix_size=2)
    with pytest.raises(SidmillError, match=r"suffixes up to 2, but .* raise it to at least 3"):
        line.publish({0: 0}, range(31))


def test_another_number_of_tokens_is_refused(tmp_path):
    line = Line(tmp_path, SETTINGS, KEEP)
    line.publish({0: 0}, range(31))
    line.collisions = replace(SETTINGS, strategy="suffix")
    with pytest.raises(SidmillError, match="published SIDs have 3 tokens"):
        line.publish({0: 0}, range(31))


def test_an_item_that_moves_is_named(tmp_path):
    line = Line(tmp_path, SETTINGS, KEEP)
    line.publish({5: 0, 6: 1}, range(31))
    sids = line.ledger.sids.copy()
    sids[1, 2] ^= 1
    ids = line.ledger.ids
    may_move = np.zeros(2, dtype=bool)
    with pytest.raises(SidmillError, match=r"1 published SIDs would move, first that of pid 6"):
        published_sids.check(line.ledger, ids, sids, may_move, "reserve")
    published_sids.check(line.ledger, ids, sids, ~may_move, "reserve")


def test_a_new_item_that_gets_the_sid_of_a_removed_one_is_named(tmp_path, caplog):
    """As ``none`` would give it; to join an item that has it still is no reuse."""
    line = Line(tmp_path, replace(SETTINGS, strategy="none"), KEEP)
    line.publish({5: 0, 6: 1}, range(31))
    with pytest.raises(SidmillError, match=r"1 items get SIDs that others had .* first pid 7"):
        line.publish({6: 1, 7: 0, 8: 1}, range(31))
    line.published = replace(KEEP, removed="release")
    line.publish({6: 1, 7: 0, 8: 1}, range(31))
    assert line.reused == {7}
    assert "1 items get SIDs that others had" in caplog.text


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
@settings(max_examples=60, deadline=None)
def test_reassign_leaves_held_codes_and_moves_the_fewest(seed, sizes, data):
    rng = np.random.default_rng(seed)
    capacity = int(np.prod(sizes))
    n_held = data.draw(st.integers(0, capacity - 1))
    n_items = data.draw(st.integers(1, capacity - n_held))
    all_codes = np.stack(np.unravel_index(rng.permutation(capacity), sizes), 1).astype(np.int32)
    held = all_codes[:n_held]
    books = [rng.standard_normal((size, 3)).astype(np.float32) for size in sizes]
    vectors = rng.standard_normal((n_items, 3)).astype(np.float32)
    codes = np.concatenate(list(residual_codec.encode(vectors, books, device="cpu", memory_mb=64)))
    space = Space(vectors, np.arange(n_items), books)
    placed = reassign.reassign(codes, sizes, space, held)
    taken = set(map(tuple, held.tolist()))
    got = list(map(tuple, placed.tolist()))
    assert len(set(got)) == n_items
    assert taken.isdisjoint(got)
    wanted = set(map(tuple, codes.tolist())) - taken  # each keeps one of its items
    assert sum(tuple(a) == b for a, b in zip(codes.tolist(), got, strict=True)) == len(wanted)


def test_sinkhorn_empties_held_codes_itself(rng):
    """Two codes of three items each, one of them held: five move, and none is left to others."""
    codes = np.repeat(np.array([[0, 0], [0, 1]], np.int32), 3, axis=0)
    books = [np.zeros((1, 3), np.float32), rng.standard_normal((9, 3)).astype(np.float32)]
    space = Space(rng.standard_normal((6, 3)).astype(np.float32), np.arange(6), books)
    found = sinkhorn.spread(codes, [1, 9], space, Collisions(sinkhorn_iterations=20), codes[:1])
    assert found.colliding_by_round[0] == 5
    assert found.colliding_by_round[-1] == 0
    assert len(np.unique(found.codes, axis=0)) == 6
    assert (found.codes[:, 1] != 0).all()
