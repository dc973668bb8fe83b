"""Codebooks that are trained again: which codes come back, which SIDs stay, what is refused."""

from itertools import permutations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from sidmill.core.errors import SidmillError
from sidmill.formats import catalogue_match, ledger_file, version_folder
from sidmill.formats.catalogue_match import Match
from sidmill.formats.ledger_file import LEFT, LIVE, REMOVED, Ledger
from sidmill.formats.quantizer_file import Quantizer
from sidmill.numeric import residual_codec
from sidmill.quantize import known_codes, rqkmeans
from sidmill.settings.quantize import Rqkmeans
from sidmill.settings.sids import Churn, Collisions, Published
from sidmill.sids import churn, published_sids, refresh
from sidmill.sids.resolve import resolve

N_LEVELS, SIZE, DIM = 3, 6, 4
SIZES = [SIZE] * N_LEVELS
REFRESH = Published(path="versions/1", refresh="align")
KMEANS = Rqkmeans(n_levels=N_LEVELS, codebook_size=SIZE, n_iter=5, device="cpu")
ASSIGNED = st.integers(0, 4)  # a code of the oracle's five codewords


def encode(vectors, quantizer):
    blocks = residual_codec.encode(
        vectors, quantizer.codebooks, quantizer.prices, device="cpu", memory_mb=64
    )
    return np.concatenate(list(blocks))


def ledger_of(codes, sids=None, sizes=SIZES, first_pid=0):
    """Version 1 of n items with these codes, and SIDs that are the codes if none are given."""
    n_items = len(codes)
    ids = pa.chunked_array([np.arange(first_pid, first_pid + n_items)])
    digests = np.array([f"text {pid}" for pid in ids.to_pylist()], dtype="S16")
    return Ledger(
        ids, codes if sids is None else sids, codes, digests, np.full(n_items, LIVE, np.int8),
        np.ones(n_items, np.int32), np.ones(n_items, bool), sizes, 1,
    )  # fmt: skip


def matched(rows):
    rows = np.asarray(rows)
    return Match(rows, np.zeros(len(rows), dtype=bool))


@pytest.fixture
def vectors(rng):
    centres = 6 * rng.standard_normal((SIZE, DIM))
    noise = rng.standard_normal((90, DIM))
    return (centres[rng.integers(SIZE, size=90)] + noise).astype(np.float32)


@pytest.fixture
def quantizer(vectors):
    return Quantizer("rqkmeans", rqkmeans.fit(vectors, KMEANS, seed=0).codebooks, {}, {})


def permuted(quantizer, rng):
    return refresh.rename(quantizer, [rng.permutation(SIZE) for _ in range(N_LEVELS)])


def test_a_renumbered_training_gets_all_codes_and_sids_back(vectors, quantizer, rng):
    codes = encode(vectors, quantizer)
    given_sids = resolve(codes, SIZES, vectors, quantizer.codebooks, None, Collisions())
    ledger = ledger_of(codes, given_sids.sids)
    other = permuted(quantizer, rng)
    assert (encode(vectors, other) != codes).any(axis=1).mean() > 0.5
    every = matched(np.arange(len(codes)))
    aligned = refresh.align(other, encode(vectors, other), ledger, every)
    for level, book in enumerate(aligned.codebooks):
        used = np.unique(codes[:, level])
        assert book[used].tobytes() == quantizer.codebooks[level][used].tobytes()
    again = encode(vectors, aligned)
    np.testing.assert_array_equal(again, codes)
    kept = published_sids.build(ledger, every, again, REFRESH)
    assert kept.fixed.all()
    done = resolve(again, SIZES, vectors, aligned.codebooks, None, Collisions(), kept)
    np.testing.assert_array_equal(done.sids, ledger.sids)


@examples(max_examples=150, deadline=None)
@given(pairs=st.lists(st.tuples(ASSIGNED, ASSIGNED), max_size=25))
def test_no_numbering_of_codewords_keeps_more_items(pairs):
    """Of all permutations."""
    now, before = np.array(pairs, dtype=int).reshape(-1, 2).T

    def kept(numbers):
        return int((np.array(numbers)[now] == before).sum())

    numbers = refresh.match_codewords(now, before, 5)
    assert sorted(numbers.tolist()) == list(range(5))
    assert kept(numbers) == max(map(kept, permutations(range(5))))


@pytest.mark.parametrize("seed", range(4))
def test_many_codewords_are_matched_as_by_a_dense_assignment(seed):
    rng = np.random.default_rng(seed)
    size, n_items = 64, 500
    before = rng.zipf(1.5, n_items) % size
    now = np.where(
        rng.random(n_items) < 0.4, (before * 5 + 3) % size, rng.integers(size, size=n_items)
    )
    shared = np.zeros((size, size))
    np.add.at(shared, (now, before), 1)
    rows, columns = linear_sum_assignment(shared, maximize=True)
    numbers = refresh.match_codewords(now, before, size)
    assert (numbers[now] == before).sum() == shared[rows, columns].sum()


def test_a_deeper_level_counts_items_of_the_same_prefix_only():
    """Nine items left their prefix: what they share on level 2 means nothing."""
    published = np.array([[0, 0]] * 3 + [[1, 0]] * 9 + [[2, 1]] * 20)
    codes = np.array([[0, 1]] * 3 + [[2, 0]] * 9 + [[2, 2]] * 20)
    numbers = refresh.match_levels(codes, published, [3, 3])
    assert numbers[1][1] == 0
    assert numbers[1][2] == 1


def test_renamed_codebooks_decode_to_the_same_vectors(vectors, quantizer, rng):
    priced = quantizer._replace(
        prices=tuple(rng.random(SIZE).astype(np.float32) / 8 for _ in range(N_LEVELS))
    )
    other = permuted(priced, rng)
    codes, renamed = encode(vectors, priced), encode(vectors, other)
    np.testing.assert_array_equal(
        residual_codec.decode(renamed, other.codebooks),
        residual_codec.decode(codes, priced.codebooks),
    )


def test_larger_codebooks_keep_the_codes_of_the_old_ones(vectors, quantizer):
    codes = encode(vectors, quantizer)
    larger = [SIZE + 3, SIZE, SIZE + 1]
    settings = Rqkmeans(n_levels=N_LEVELS, codebook_size=larger, n_iter=5, device="cpu")
    fitted = rqkmeans.fit(vectors, settings, seed=1, known=codes)
    again = Quantizer("rqkmeans", fitted.codebooks, {}, {})
    every = matched(np.arange(len(codes)))
    aligned = refresh.align(again, encode(vectors, again), ledger_of(codes), every)
    assert aligned.codebook_sizes == larger
    new = encode(vectors, aligned)
    assert (new[:, 0] == codes[:, 0]).mean() > 0.6
    assert len(np.unique(new[:, 0])) > SIZE  # the additional codewords are used


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ([6, 6], "has 2 levels, that of the version 3, so no SID could stay: set 3 levels"),
        ([6, 6, 6, 6], "has 4 levels, that of the version 3"),
        ([6, 5, 6], r"level 2 has 5 codes, in the version 6, so .* set at least 6, or set publish"),
    ],
)
def test_codebooks_that_published_sids_do_not_fit_are_refused(sizes, words, vectors, tmp_path):
    with pytest.raises(SidmillError, match=words):
        version_folder.check_sizes(sizes, SIZES)
    books = [np.eye(size, DIM, dtype=np.float32) for size in sizes]
    codes = np.zeros((5, len(sizes)), dtype=np.int32)
    ledger = ledger_of(np.zeros((5, 3), dtype=np.int32))
    with pytest.raises(SidmillError, match=words):
        refresh.align(Quantizer("x", books, {}, {}), codes, ledger, matched(np.arange(5)))
    ledger_file.write(tmp_path / "ledger.parquet", ledger)
    assert ledger_file.token_sizes(tmp_path / "ledger.parquet") == SIZES


def test_codes_of_new_and_changed_items_do_not_count(tmp_path):
    codes = np.arange(9, dtype=np.int32).reshape(3, 3) % SIZE
    ledger_file.write(tmp_path / "ledger.parquet", ledger_of(codes))
    match = Match(np.array([2, -1, 0]), np.array([False, False, True]))
    ids = pa.array([2, 77, 0])
    catalogue_match.write(tmp_path / "match.parquet", pa.int64(), [(ids, match)])
    known = catalogue_match.published_codes(tmp_path / "match.parquet", tmp_path / "ledger.parquet")
    assert known.tolist() == [codes[2].tolist(), [-1] * 3, [-1] * 3]
    assert catalogue_match.published_codes(None, tmp_path / "ledger.parquet") is None


CODE = st.tuples(*[st.integers(0, 2)] * 2)


@examples(max_examples=80, deadline=None)
@given(
    codes=st.lists(st.tuples(CODE, CODE, CODE), min_size=1, max_size=7),
    gone=st.sets(st.integers(0, 6)),
    n_new=st.integers(0, 2),
)
def test_no_sid_ever_means_two_items(codes, gone, n_new):
    """Three trainings with arbitrary codes; some items leave, and return."""
    books = [np.arange(10, dtype=np.float32)[:, None] * 10**level for level in (1, 0)]
    sizes, owners, ledger = [10, 10], {}, None
    for version in range(3):
        here = [row for row in range(len(codes)) if version != 1 or row not in gone]
        now = np.array([codes[row][version] for row in here] + [(1, 1)] * (n_new * version))
        now = now.reshape(-1, 2).astype(np.int32)
        if not len(now):
            return
        pids = np.array([*here, *range(100, 100 + n_new * version)])
        ids, digests = pa.chunked_array([pids]), np.array([f"t{pid}" for pid in pids], dtype="S16")
        kept = None
        if ledger is not None:
            known = ledger.ids.slice(0, ledger.owners).to_pylist()
            rows = np.array([known.index(pid) if pid in known else -1 for pid in pids])
            kept = published_sids.build(ledger, matched(rows), now, REFRESH)
            agree = refresh.agreeing(ledger, rows, now) & (rows >= 0)
            np.testing.assert_array_equal(kept.fixed, agree)
        vectors = residual_codec.decode(now, books).astype(np.float32)
        sids = resolve(now, sizes, vectors, books, None, Collisions(), kept).sids
        if kept is not None:
            np.testing.assert_array_equal(sids[kept.fixed], ledger.sids[rows[kept.fixed]])
        ledger = published_sids.carry_on(ledger, ids, sids, sizes, now, digests, REFRESH)
        assert ledger.trained[: len(pids)].all()
        for pid, sid in zip(pids.tolist(), map(tuple, sids.tolist()), strict=True):
            assert owners.setdefault(sid, pid) == pid
    assert set(ledger.state.tolist()) <= {LIVE, REMOVED, LEFT}


def test_an_item_whose_codes_stay_may_not_move():
    codes = np.arange(6, dtype=np.int32).reshape(2, 3)
    ledger = ledger_of(codes)
    moved = codes[::-1].copy()
    ids = ledger.ids
    with pytest.raises(SidmillError, match="2 published SIDs would move"):
        published_sids.carry_on(ledger, ids, moved, SIZES, codes, ledger.digests, REFRESH)


def test_churn_compares_a_refresh_with_a_training_from_scratch(vectors, quantizer, rng, tmp_path):
    codes = encode(vectors, quantizer)
    before = ledger_of(codes[:80], sizes=[*SIZES])
    other = permuted(quantizer, rng)
    now_codes = codes.copy()
    now_codes[:8, 2] = (codes[:8, 2] + 1) % SIZE  # eight items move
    now = published_sids.carry_on(
        before,
        pa.chunked_array([np.arange(90)]),
        now_codes,
        SIZES,
        now_codes,
        np.array([f"text {pid}" for pid in range(90)], dtype="S16"),
        Published(path="v", refresh="align", removed="release"),
    )
    scratch = refresh.Scratch(other, encode(vectors, other))
    path = tmp_path / "churn.parquet"
    found = churn.measure(
        before, now, vectors, quantizer, str(path), Churn(), 0, refresh.Refreshed("align", scratch)
    )
    assert found["refresh"]["published_items"] == 80
    assert found["refresh"]["with_alignment"]["sids"] == found["sids"]["kept"] == 72
    assert found["refresh"]["with_alignment"]["codes_by_prefix"] == [1.0, 1.0, 0.9]
    expected = (scratch.codes[:80] == codes[:80]).all(axis=1).sum()
    assert found["refresh"]["without_alignment"]["sids"] == expected < 40
    same = found["refresh"]["without_alignment"]["relative_loss"][-1]
    left = vectors - residual_codec.decode(codes, quantizer.codebooks)
    assert same == pytest.approx(np.square(left).sum() / np.square(vectors).sum(), rel=1e-5)
    assert found["retrain"] == "not due"
    listed = pq.read_table(path)["what"].to_pylist()
    assert (listed.count("moved"), listed.count("new")) == (8, 10)


# Training that starts from codes.


def test_separate_groups_keep_the_codes_they_start_from(rng):
    """Any codes of planted groups, in any order, and rows without codes join their group."""
    centres = 100 * rng.standard_normal((SIZE, DIM))
    group = np.r_[np.arange(SIZE), rng.integers(SIZE, size=200)]
    vectors = (centres[group] + rng.standard_normal((len(group), DIM))).astype(np.float32)
    names = rng.permutation(SIZE)
    known = names[group][:, None].astype(np.int32)
    known[150:] = known_codes.UNKNOWN
    settings = Rqkmeans(n_levels=1, codebook_size=SIZE, device="cpu")
    fitted = rqkmeans.fit(vectors, settings, seed=3, known=known)
    codes = encode(vectors, Quantizer("rqkmeans", fitted.codebooks, {}, {}))
    np.testing.assert_array_equal(codes[:, 0], names[group])


def test_codewords_without_a_code_are_used_too(vectors):
    known = np.zeros((len(vectors), N_LEVELS), dtype=np.int32)
    fitted = rqkmeans.fit(vectors, KMEANS, seed=0, known=known)
    codes = encode(vectors, Quantizer("rqkmeans", fitted.codebooks, {}, {}))
    assert len(np.unique(codes[:, 0])) == SIZE


def test_a_start_lowers_the_error_and_keeps_more_codes_than_a_training_from_scratch(vectors):
    first = rqkmeans.fit(vectors[:60], KMEANS, seed=0)
    old = Quantizer("rqkmeans", first.codebooks, {}, {})
    known = np.full((len(vectors), N_LEVELS), known_codes.UNKNOWN, dtype=np.int32)
    known[:60] = encode(vectors[:60], old)
    started, scratch = (
        Quantizer("rqkmeans", rqkmeans.fit(vectors, KMEANS, seed=1, known=one).codebooks, {}, {})
        for one in (known, None)
    )

    def error(quantizer):
        decoded = residual_codec.decode(encode(vectors, quantizer), quantizer.codebooks)
        return np.square(vectors - decoded).sum()

    def kept(quantizer):
        return (encode(vectors[:60], quantizer) == known[:60]).all(axis=1).mean()

    assert error(started) < error(old)
    assert kept(started) > 0.6 > kept(scratch)


def test_without_any_code_a_training_is_the_one_from_scratch(vectors):
    unknown = np.full((len(vectors), N_LEVELS), known_codes.UNKNOWN, dtype=np.int32)
    one, two = (
        rqkmeans.fit(vectors, KMEANS, seed=0, known=known).codebooks for known in (unknown, None)
    )
    assert all(a.tobytes() == b.tobytes() for a, b in zip(one, two, strict=True))


def test_codes_beyond_the_codebook_are_refused_with_the_size(vectors):
    known = np.full((len(vectors), N_LEVELS), SIZE + 4, dtype=np.int32)
    with pytest.raises(SidmillError, match=f"raise its codebook size to at least {SIZE + 5}"):
        rqkmeans.fit(vectors, KMEANS, seed=0, known=known)
