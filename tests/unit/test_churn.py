"""Churn and drift: counts, errors and divergence against plain arithmetic, and the verdict."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sidmill.core.errors import SidmillError
from sidmill.formats import ledger_file
from sidmill.formats.ledger_file import (
    LEFT,
    LIVE,
    REMOVED,
    Ledger,
)
from sidmill.formats.quantizer_file import Quantizer
from sidmill.report import churn_plot
from sidmill.settings.sids import Churn, Published
from sidmill.sids import churn, published_sids

LIMITS = {
    "max_error_growth": 0.1,
    "max_divergence": 0.1,
    "max_displaced_share": 0.5,
    "max_untrained_share": 0.5,
    "min_items": 10,
    "neighbour_queries": 20,
    "neighbours": 3,
}
BOOKS = [np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0], [8.0, 8.0]], np.float32)]
KEEP = Published()


def line(n_items, first_pid=0, codes=None, version=1):
    """A ledger of n items over four codes, one SID token of its own each."""
    codes = np.arange(n_items) % 4 if codes is None else codes
    ids = pa.chunked_array([np.arange(first_pid, first_pid + n_items)])
    sids = np.column_stack([codes, np.arange(n_items)]).astype(np.int32)
    digests = np.array([f"text {pid}" for pid in ids.to_pylist()], dtype="S16")
    return Ledger(
        ids, sids, codes[:, None].astype(np.int32), digests, np.full(n_items, LIVE, np.int8),
        np.ones(n_items, np.int32), np.ones(n_items, bool), [4, 10_000], version,
    )  # fmt: skip


def grown(before, n_new, codes):
    """The next version: n items more, with these codes."""
    more = line(n_new, first_pid=1000, codes=codes)
    taken = 5000 + np.arange(n_new)
    return published_sids.carry_on(
        before,
        pa.chunked_array([*before.ids.chunks, *more.ids.chunks]),
        np.concatenate([before.sids, np.column_stack([codes, taken]).astype(np.int32)]),
        before.sizes,
        np.concatenate([before.codes, more.codes]),
        np.concatenate([before.digests, more.digests]),
        KEEP,
    )


def measure(before, now, vectors, tmp_path, **changes):
    quantizer = Quantizer("rqkmeans", BOOKS, {}, {})
    return churn.measure(
        before, now, vectors, quantizer, str(tmp_path / "churn.parquet"),
        Churn(**(LIMITS | changes)), seed=0,
    )  # fmt: skip


def vectors_of(codes, rng, spread):
    noise = rng.standard_normal((len(codes), 2)) * spread
    return (BOOKS[0][codes] + noise).astype(np.float32)


@pytest.mark.parametrize(
    ("spread", "codes", "due"),
    [
        (0.5, lambda n: np.arange(n) % 4, None),
        (3.0, lambda n: np.arange(n) % 4, "error_growth"),
        (0.5, lambda n: np.full(n, 3), "divergence"),
    ],
)
def test_the_verdict_follows_what_was_planted(rng, tmp_path, spread, codes, due):
    before = line(200)
    new = codes(80)
    now = grown(before, 80, new)
    vectors = np.concatenate(
        [vectors_of(before.codes[:, 0], rng, 0.5), vectors_of(new, rng, spread)]
    )
    found = measure(before, now, vectors, tmp_path)
    assert found["retrain"] == ("due" if due else "not due")
    assert [one["name"] for one in found["criteria"] if one["exceeded"]] == ([due] if due else [])
    assert due is None or due in found["because"][0]


def test_errors_are_plain_arithmetic(rng, tmp_path):
    before, new = line(40), np.arange(20) % 4
    now = grown(before, 20, new)
    vectors = vectors_of(now.codes[:, 0], rng, 1.0)
    found = measure(before, now, vectors, tmp_path)["drift"]
    squares = np.square(vectors - BOOKS[0][now.codes[:, 0]]).sum(1)
    energy = np.square(vectors).sum(1)
    loss = found["levels"][0]["relative_loss"]
    for name, rows in (("trained", slice(40)), ("since", slice(40, 60)), ("all", slice(60))):
        assert loss[name] == pytest.approx(squares[rows].sum() / energy[rows].sum(), rel=1e-5)
    assert loss["fresh"] == loss["since"]
    assert found["error_growth"][0] == pytest.approx(loss["all"] / loss["trained"] - 1)


def test_many_small_steps_add_up(rng, tmp_path):
    """A version later the same items are no longer fresh, but the verdict stays."""
    before, new = line(200), np.zeros(80, dtype=int)
    now = grown(before, 80, new)
    again = published_sids.carry_on(now, now.ids, now.sids, now.sizes, now.codes, now.digests, KEEP)
    vectors = vectors_of(now.codes[:, 0], rng, 0.5)
    first = measure(before, now, vectors, tmp_path)
    second = measure(now, again, vectors, tmp_path)
    assert second["items"]["new"] == 0
    assert second["collisions"]["fresh"]["items"] == 0
    assert second["drift"]["levels"][0]["relative_loss"]["fresh"] is None
    assert (first["because"], first["criteria"]) == (second["because"], second["criteria"])


def test_chance_is_not_taken_for_drift(rng):
    """Few items over many codes: the divergence is large, what is left of it small."""
    trained = rng.multinomial(3000, np.full(256, 1 / 256))
    excess = []
    for seed in range(20):
        since = np.random.default_rng(1000 + seed).multinomial(150, np.full(256, 1 / 256))
        one = churn._divergence(trained, since, np.random.default_rng(seed))
        assert one["bits"] > 0.15
        excess.append(one["excess_bits"])
    assert abs(np.mean(excess)) < 0.01
    assert max(map(abs, excess)) < 0.06


def test_jensen_shannon_is_between_0_and_1():
    one, other = np.array([5, 0]), np.array([0, 9])
    assert churn._jensen_shannon(one, other) == pytest.approx(1.0)
    assert churn._jensen_shannon(one, one * 3) == pytest.approx(0.0)


def test_every_item_is_counted_once_and_listed(tmp_path):
    before = line(12)
    before = before._replace(state=np.array([LIVE] * 9 + [REMOVED] * 2 + [LEFT], dtype=np.int8))
    here = np.array([0, 1, 2, 3, 4, 5, 9])  # 9 is back; 6, 7 and 8 are gone
    ids = pa.chunked_array([[*here.tolist(), 70, 71]])
    sids = np.concatenate([before.sids[here], [[0, 900], [1, 901]]]).astype(np.int32)
    codes = np.concatenate([before.codes[here], [[0], [1]]]).astype(np.int32)
    digests = np.array([*before.digests[here], b"x", b"y"], dtype="S16")
    digests[2] = b"another"
    now = published_sids.carry_on(before, ids, sids, before.sizes, codes, digests, KEEP)
    found = measure(before, now, np.ones((9, 2), np.float32), tmp_path)
    assert found["items"] == {
        "published": 9, "now": 9, "unchanged": 5, "new": 2, "changed": 1, "returned": 1,
        "removed": 3, "trained": 6, "since_training": 3,
    }  # fmt: skip
    assert found["sids"] == {"kept": 7, "moved": 0, "new": 2, "reused": 0, "reserved": 4, "left": 1}
    listed = pq.read_table(tmp_path / "churn.parquet").to_pylist()
    assert [(row["pid"], row["what"]) for row in listed] == [
        (2, "changed"), (9, "returned"), (70, "new"), (71, "new"),
        (6, "removed"), (7, "removed"), (8, "removed"),
    ]  # fmt: skip
    assert listed[2] == {"pid": 70, "what": "new", "sid_before": None, "sid_after": [0, 900]}
    assert listed[4] == {"pid": 6, "what": "removed", "sid_before": [2, 6], "sid_after": None}


def test_a_ledger_reads_back_as_it_was_written(tmp_path):
    for ids in (pa.chunked_array([[5, 6]]), pa.chunked_array([["a", "b"]])):
        one = line(2)._replace(ids=ids, digests=np.array([b"a\0b", b"\0" * 16], dtype="S16"))
        ledger_file.write(tmp_path / "ledger.parquet", one)
        back = ledger_file.read(tmp_path / "ledger.parquet")
        assert back.ids.equals(ids)
        for name in ("sids", "codes", "digests", "state", "versions", "trained"):
            np.testing.assert_array_equal(getattr(back, name), getattr(one, name))
        assert (back.sizes, back.version) == (one.sizes, one.version)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sizes": [4, 1]}, "a SID is outside of tokens"),
        ({"state": np.array([REMOVED, LIVE], np.int8)}, "do not come first"),
    ],
)
def test_a_damaged_ledger_is_refused(tmp_path, changes, message):
    ledger_file.write(tmp_path / "ledger.parquet", line(2)._replace(**changes))
    with pytest.raises(SidmillError, match=message):
        ledger_file.read(tmp_path / "ledger.parquet")


def test_ledgers_of_different_lines_are_not_compared():
    with pytest.raises(SidmillError, match="of version 1, the published one of 1"):
        churn.compare(line(3), line(3))


def test_the_plot_draws_what_is_not_known_too(rng, tmp_path):
    before = line(20)
    again = published_sids.carry_on(
        before, before.ids, before.sids, before.sizes, before.codes, before.digests, KEEP
    )
    found = measure(before, again, vectors_of(before.codes[:, 0], rng, 0.5), tmp_path)
    assert found["drift"]["levels"][0]["divergence"]["bits"] is None
    assert found["because"][1] == "too little is known of divergence, displaced_share"
    drawn = []
    for name in ("one.svg", "two.svg"):
        churn_plot.churn(found, tmp_path / name)
        drawn.append((tmp_path / name).read_bytes())
    assert drawn[0] == drawn[1]
    assert drawn[0].startswith(b"<?xml")


@pytest.mark.parametrize("gone", [5, 40, 140])
def test_what_removed_items_had_is_no_part_of_the_catalogue(rng, tmp_path, gone):
    """Reserved or released, SIDs of items that are gone change no figure of those that stay."""
    codes = np.r_[np.full(150, 3), np.arange(60) % 4]  # those that go are all of one code
    before = line(210, codes=codes)
    stay, new = np.arange(gone, 210), np.arange(60) % 4
    n_items = len(stay) + 60
    ids = pa.chunked_array([np.r_[stay, 1000 + np.arange(60)]])
    sids = np.concatenate([before.sids[stay], np.column_stack([new, 5000 + np.arange(60)])])
    digests = np.r_[before.digests[stay], np.array([f"n{i}" for i in range(60)], "S16")]
    now_codes = np.concatenate([before.codes[stay], new[:, None]]).astype(np.int32)
    vectors = vectors_of(now_codes[:, 0], rng, 0.5)
    found = {}
    for removed in ("reserve", "release"):
        now = published_sids.carry_on(
            before, ids, sids.astype(np.int32), before.sizes, now_codes, digests,
            Published(removed=removed),
        )  # fmt: skip
        assert len(now.ids) == n_items + (gone if removed == "reserve" else 0)
        found[removed] = measure(before, now, vectors, tmp_path)
    differ = {key for key in found["reserve"] if found["reserve"][key] != found["release"][key]}
    assert differ <= {"sids"}
    assert found["reserve"]["sids"] == found["release"]["sids"] | {"reserved": gone}
    assert found["reserve"]["items"]["trained"] == len(stay)


def test_a_catalogue_of_zero_vectors_has_a_verdict(tmp_path):
    before, new = line(40), np.arange(20) % 4
    now = grown(before, 20, new)
    found = measure(before, now, np.zeros((60, 2), np.float32), tmp_path)
    assert found["drift"]["error_growth"] == [None]
    assert found["retrain"] in ("due", "not due")
