"""Lists of nearest free codes: the same codes as from all distances, in bounded memory."""

import itertools
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from test_reassign import error, fewest_moves, problem

from sidmill.core import threads
from sidmill.formats import vector_store
from sidmill.numeric import lanes, residual_codec
from sidmill.settings.sids import Collisions
from sidmill.sids import crowds, listed, prefixes
from sidmill.sids.reassign import reassign
from sidmill.sids.resolve import resolve
from sidmill.sids.space import Space


def resolved(vectors, codebooks, codes, held=None):
    space = Space(vectors, np.arange(len(codes)), codebooks)
    return reassign(codes, [len(book) for book in codebooks], space, held)


def count_left_alone(vectors, codebooks, codes, held=None):
    """How many prefixes the lists leave to the other way, and how many there are."""
    placed = prefixes.with_held(codes, held)
    occupied = prefixes.number(placed, [len(book) for book in codebooks])
    found = listed.shared(occupied, len(codes))
    space = Space(vectors, np.arange(len(codes)), codebooks)
    return len(listed.share_out(found, placed, occupied, space)), len(found.parents)


def optimum(vectors, codebooks, codes):
    """Oracle: one dense assignment per prefix over all codes; a code that one item has is its own.

    A holder of a code pays nothing, whoever moves pays a fine that no error outweighs.
    """
    chosen = codes.copy()
    for prefix in np.unique(codes[:, :-1], axis=0):
        rows = np.flatnonzero((codes[:, :-1] == prefix).all(axis=1))
        own = codes[rows, -1]
        counts = np.bincount(own, minlength=len(codebooks[-1]))
        movers = rows[counts[own] > 1]
        if not len(movers) or len(rows) > len(counts):
            continue  # nobody moves, or some have to leave
        left = vectors[movers].astype(np.float64) - residual_codec.decode(prefix[None], codebooks)
        costs = np.square(left[:, None] - codebooks[-1][None]).sum(axis=2)
        stays = codes[movers, -1][:, None] == np.arange(costs.shape[1])
        costs -= costs[stays][:, None]
        fine = 10 * np.abs(costs).max() * len(movers)
        costs[:, counts == 1] = np.inf
        blocked = (counts > 1)[None] & ~stays
        costs[blocked] = np.inf
        row, column = linear_sum_assignment(np.where(stays, -fine, costs))
        chosen[movers[row], -1] = column
    return chosen


def crowded_problem(seed, n_items=400, sizes=(3, 4, 300), dim=8, noise=0.3):
    """Tight groups, so that most items share a code, under prefixes with room."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((n_items // 8, dim))
    vectors = centres[rng.integers(0, len(centres), n_items)]
    vectors = (vectors + noise * rng.standard_normal((n_items, dim))).astype(np.float32)
    codebooks = [
        (rng.standard_normal((size, dim)) / 2**level).astype(np.float32)
        for level, size in enumerate(sizes)
    ]
    blocks = residual_codec.encode(vectors, codebooks, device="cpu", memory_mb=64)
    return vectors, codebooks, np.concatenate(list(blocks))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("last", [37, 256, 300, 700])
def test_the_codes_are_those_of_one_assignment_over_all_distances(seed, last):
    data = crowded_problem(seed, sizes=(2, 8, last))
    left_alone, crowded = count_left_alone(*data)
    assert left_alone < crowded
    sids = resolved(*data)
    best = optimum(*data)
    inside = (sids[:, :-1] == data[2][:, :-1]).all(axis=1)
    is_whole = np.ones(len(sids), dtype=bool)  # prefixes that nobody left
    for row in np.flatnonzero(~inside):
        is_whole &= (data[2][:, :-1] != data[2][row, :-1]).any(axis=1)
    assert is_whole.any()
    np.testing.assert_array_equal(sids[is_whole], best[is_whole])


@given(st.integers(0, 2**32 - 1), st.data())
@settings(max_examples=60, deadline=None)
def test_lists_and_all_distances_give_the_same_bytes(seed, data):
    """Held codes, equal items, ties over whole numbers, small codebooks and large ones."""
    rng = np.random.default_rng(seed)
    sizes = [data.draw(st.integers(1, 4)), data.draw(st.sampled_from([5, 40, 300]))]
    n_items = data.draw(st.integers(2, min(int(np.prod(sizes)), 120)))
    vectors, codebooks, codes = problem(rng, n_items, sizes, dim=data.draw(st.integers(1, 6)))
    if data.draw(st.booleans()):
        vectors, codebooks = np.round(vectors), [np.round(2 * book) for book in codebooks]
    n_held = data.draw(st.integers(0, int(np.prod(sizes)) - n_items))
    codes_held = rng.permutation(int(np.prod(sizes)))[:n_held]
    held = np.stack(np.unravel_index(codes_held, sizes), axis=1).astype(np.int32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listed, "MOST_MOVES", 0)
        wanted = resolved(vectors, codebooks, codes, held)
    np.testing.assert_array_equal(resolved(vectors, codebooks, codes, held), wanted)


def test_items_of_equal_errors_are_not_taken_for_equal_items():
    """Both movers are at distance 1 from their codes, which are not the same."""
    words = np.array([[0, 0], [1, -2], [2, 1], [50, 50], [60, 60]], np.float32)
    vectors = np.array([[1, 1], [1, -1], [0.25, 0]], np.float32)
    codes = np.zeros((3, 2), np.int32)
    sids = resolved(vectors, [np.zeros((1, 2), np.float32), words], codes)
    assert sids[:, 1].tolist() == [2, 1, 0]


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_of_two_moves_that_add_the_same_error_the_higher_row_makes_its_own(order):
    """Errors 4 and 5, of which 1 and 2 were there before."""
    words = np.array([[0, 0], [1, -2], [3, 2], [50, 50]], np.float32)
    vectors, moved = np.array([[1, 0], [1, 1]], np.float32), [1, 2]
    codebooks = [np.zeros((1, 2), np.float32), words]
    codes = np.zeros((2, 2), np.int32)
    assert count_left_alone(vectors[order], codebooks, codes.copy())[0] == 0
    sids = resolved(vectors[order], codebooks, codes)
    assert sids[:, 1].tolist() == [0, moved[order[1]]]


@pytest.mark.parametrize("offset", [0, 30, 3000])
def test_rounding_of_products_takes_no_code_off_a_list(offset):
    """Far from zero a float32 product tells little; what it proposes is decided in float64."""
    vectors, codebooks, codes = crowded_problem(1, dim=4)
    vectors = (vectors + np.float32(offset)).astype(np.float32)
    codebooks[0] = codebooks[0] + np.float32(offset) - np.float32(offset / 2)
    codebooks[-1] = codebooks[-1] + np.float32(offset / 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listed, "MOST_MOVES", 0)
        wanted = resolved(vectors, codebooks, codes)
    np.testing.assert_array_equal(resolved(vectors, codebooks, codes), wanted)


def test_codes_do_not_depend_on_portions_threads_or_how_many_prefixes_come_together(monkeypatch):
    data = crowded_problem(2, n_items=900)
    wanted = resolved(*data)
    n_lanes, run = set(), lanes.run

    def counted(work, jobs, numbers):
        n_lanes.add(len(set(numbers)))
        return run(work, jobs, numbers)

    monkeypatch.setattr(lanes, "run", counted)
    monkeypatch.setattr(listed, "MOST_THREADS", 3)
    for most, portion_mb, n_threads in itertools.product((10, 100), (0, 16), (1, 2, 3, 9)):
        monkeypatch.setattr(listed, "EXACT_ITEMS", most)
        monkeypatch.setattr(listed, "PORTION_MB", portion_mb)
        monkeypatch.setattr(threads, "granted", lambda chosen=n_threads: chosen)
        left_alone, crowded = count_left_alone(*data)
        assert left_alone < crowded
        np.testing.assert_array_equal(resolved(*data), wanted)
    assert n_lanes == {1, 2, 3}


@pytest.mark.parametrize("seed", range(5))
def test_items_in_another_order_get_the_same_codes(seed):
    vectors, codebooks, codes = crowded_problem(seed, sizes=(3, 4, 400))
    order = np.random.default_rng(seed).permutation(len(codes))
    sids = resolved(vectors, codebooks, codes)
    np.testing.assert_array_equal(resolved(vectors[order], codebooks, codes[order]), sids[order])


@pytest.mark.parametrize("seed", range(4))
def test_items_in_portions_cost_little_more_than_all_at_once(seed, monkeypatch):
    """The first item of each code stays there, so that the error is no longer the least."""
    vectors, codebooks, codes = crowded_problem(seed, n_items=300, sizes=(1, 2, 400), dim=4)
    best = optimum(vectors, codebooks, codes)
    monkeypatch.setattr(crowds, "EXACT_ITEMS", 40)
    monkeypatch.setattr(listed, "EXACT_ITEMS", 40)
    sids = resolved(vectors, codebooks, codes)
    assert (sids != codes).any(axis=1).sum() == fewest_moves(codes)
    base = error(vectors, codebooks, codes)
    added, least = error(vectors, codebooks, sids) - base, error(vectors, codebooks, best) - base
    assert least - 1e-9 <= added < 1.5 * least


@pytest.mark.parametrize("seed", range(6))
def test_items_that_leave_a_prefix_cost_little_more_than_the_best_free_codes(seed):
    """Oracle: one assignment of those that left to all codes that were free for them."""
    rng = np.random.default_rng(seed)
    sizes = [6, 9, 8]
    codebooks = [
        (rng.standard_normal((size, 3)) / 2**level).astype(np.float32)
        for level, size in enumerate(sizes)
    ]
    codes = np.zeros((30, 3), dtype=np.int32)
    vectors = residual_codec.decode(codes, codebooks)
    vectors = (vectors + 0.3 * rng.standard_normal((30, 3))).astype(np.float32)
    sids = resolved(vectors, codebooks, codes)
    left = np.flatnonzero((sids[:, :2] != 0).any(axis=1))
    assert len(left) == 30 - 8
    every = np.stack(np.unravel_index(np.arange(8, int(np.prod(sizes))), sizes), axis=1)
    costs = np.square(vectors[left][:, None] - residual_codec.decode(every, codebooks)).sum(axis=2)
    # Under the first token while it has codes, as all of them have here.
    costs[:, every[:, 0] != 0] = np.inf
    row, column = linear_sum_assignment(costs)
    taken = error(vectors[left], codebooks, sids[left])
    assert taken == pytest.approx(costs[row, column].sum(), rel=1e-6)


def test_memory_grows_by_some_bytes_per_item_and_not_with_vectors_or_codes(monkeypatch):
    monkeypatch.setattr(listed, "PORTION_MB", 1)
    monkeypatch.setattr(listed, "EXACT_ITEMS", 256)
    peaks = {}
    for n_items in (4_000, 16_000):
        vectors, codebooks, codes = crowded_problem(3, n_items, sizes=(16, 64, 256), dim=64)
        codes[:, 0] = np.arange(n_items) % 500 // 32
        codes[:, 1] = np.arange(n_items) // 500 * 2
        codes[:, 2] = np.arange(n_items) // 4 % 256
        space = Space(vectors, np.arange(n_items), codebooks)
        tracemalloc.start()
        sids = reassign(codes, [16, 64, 256], space)
        peaks[n_items] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(np.unique(sids, axis=0)) == n_items
    per_item = (peaks[16_000] - peaks[4_000]) / 12_000
    assert per_item < 250  # with their vectors it would be 256 more, with distances 1,024


@pytest.mark.parametrize("n_threads", [1, 3, 16])
def test_resolving_60_000_items_reads_their_vectors_by_portions(
    tmp_path, rng, monkeypatch, n_threads
):
    """All share a code with three others; their vectors, 29 MiB, lie in a store."""
    n_items, dim, sizes = 60_000, 128, [64, 64, 256]
    rows = rng.permutation(n_items)
    prefix = rows // 32
    codes = np.stack([prefix // 64, prefix % 64, rows // 4 % 8], axis=1).astype(np.int32)
    codebooks = [rng.standard_normal((size, dim), dtype=np.float32) for size in sizes]
    paths = tmp_path / "vectors.npy", tmp_path / "ids.parquet"
    blocks = (rng.standard_normal((n_items // 10, dim), dtype=np.float32) for _ in range(10))
    sums = vector_store.write(paths[0], (n_items, dim), "float32", blocks)
    vector_store.write_ids(paths[1], pa.chunked_array([range(n_items)]), (n_items, dim), {}, sums)

    monkeypatch.setattr(threads, "granted", lambda: n_threads)
    vectors = vector_store.vectors_if_any(*paths)
    tracemalloc.start()
    resolution = resolve(codes, sizes, vectors, codebooks, None, Collisions())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert resolution.cost["items_moved"] == n_items * 3 // 4
    # Vectors 16 MiB, a portion of the file 8, blocks 7, 5 a thread, and 100 bytes per item.
    n_lanes = min(n_threads, listed.MOST_THREADS)
    assert peak < (16 + 8 + 7 + 5 * n_lanes) * 2**20 + 100 * n_items
