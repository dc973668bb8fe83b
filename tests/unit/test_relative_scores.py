"""The nearest codeword relative to another one: rounded are differences, and not scores."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from sidmill.numeric import nearest_torch, relative_scores

N_ROWS, N_CODES = 50, 200
UNIT = 2.0**-8  # of bfloat16, relative


@pytest.fixture
def any_cpu(monkeypatch):
    """Any CPU computes these products, only not faster."""
    monkeypatch.setattr(relative_scores, "_multiplies_bfloat16", lambda: True)


def prepared(codewords):
    with nearest_torch.rough_products():
        return relative_scores.prepare(codewords)


def normal(rng, n_rows, dim, offset=0.0):
    return torch.from_numpy(rng.standard_normal((n_rows, dim)) + offset).float()


@pytest.mark.parametrize("dim", [1, 7, 64, 300])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("other", [False, True])
def test_the_nearest_as_far_as_rounded_factors_tell(rng, any_cpu, monkeypatch, dim, offset, other):
    """Errors are shares of the distances, wherever the origin is and whatever the own codeword."""
    monkeypatch.setattr(relative_scores, "VALUES_AT_ONCE", 17 * N_CODES)
    monkeypatch.setattr(relative_scores, "MIN_ROWS", 1)
    codewords, rows = normal(rng, N_CODES, dim, offset), normal(rng, N_ROWS, dim, offset)
    own = torch.from_numpy(rng.integers(N_CODES, size=N_ROWS))
    found = relative_scores.nearest(rows, own, prepared(codewords), other=other)

    exact = (rows.double()[:, None] - codewords.double()).square().sum(dim=2)  # (N_ROWS, N_CODES)
    every = torch.arange(N_ROWS)
    bound = 8 * UNIT * exact.amax(dim=1)
    assert ((found.own_distances - exact[every, own]).abs() <= bound).all()
    assert ((found.distances - exact[every, found.codes]).abs() <= bound).all()
    if other:
        exact[every, own] = torch.inf
        assert (found.codes != own).all()
    assert (exact[every, found.codes] - exact.amin(dim=1) <= bound).all()


@pytest.mark.parametrize("dim", [3, 300])
def test_close_scores_keep_more_than_eight_bits(rng, any_cpu, dim):
    """Codewords near the own one, of values that bfloat16 holds, and far from the rows.

    The scores differ by less than bfloat16 tells apart; of their difference 8 bits remain.
    """
    rows = torch.from_numpy(rng.integers(-64, 64, (N_ROWS, dim))).float()
    codewords = torch.from_numpy(rng.integers(-1, 2, (N_CODES, dim))).float() / 16
    codewords -= codewords.mean(dim=0)
    codewords = torch.cat([codewords, -codewords])  # the mean is zero
    codewords = codewords.bfloat16().float()
    own = torch.zeros(N_ROWS, dtype=torch.int64)
    found = relative_scores.nearest(rows, own, prepared(codewords), other=True)
    exact = (rows.double()[:, None] - codewords.double()).square().sum(dim=2)
    difference = exact[torch.arange(N_ROWS), found.codes] - exact[:, 0]
    wanted = exact[:, 1:].amin(dim=1) - exact[:, 0]
    bits = 2 * UNIT * wanted.abs() + 2e-6 * exact.amax(dim=1)
    assert (difference - wanted <= bits).all()
    assert ((found.distances - found.own_distances).double() - difference).abs().le(bits).all()


def test_a_row_without_a_codeword_finds_the_nearest(rng, any_cpu):
    codewords = normal(rng, N_CODES, 20)
    rows = codewords[[3, 63, 150]] + 0.01
    found = relative_scores.nearest(rows, None, prepared(codewords), other=False)
    assert found.codes.tolist() == [3, 63, 150]


def test_kept_memory_changes_no_answer_of_other_sizes_before_or_in_other_threads(rng, any_cpu):
    def search(rows, codewords):
        return relative_scores.nearest(rows, None, codewords, other=False)

    problems = [
        (normal(rng, n_rows, dim), prepared(normal(rng, N_CODES, dim)))
        for n_rows, dim in ((300, 40), (7, 5), (90, 64), (300, 40))
    ]
    expected = []
    for problem in problems:
        with ThreadPoolExecutor(1) as pool:  # a thread that has kept nothing
            expected.append(pool.submit(search, *problem).result())
    found = [search(*problem) for problem in problems]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda problem: search(*problem), problems * 5))

    for number, answer in enumerate(found + together):
        for tensor, other in zip(answer, expected[number % len(problems)], strict=True):
            assert tensor.equal(other)


def test_other_products_where_they_are_as_good(rng, any_cpu, monkeypatch):
    codewords = normal(rng, N_CODES, 20)
    assert relative_scores.prepare(codewords) is None  # products have to be exact
    assert prepared(codewords[:100]) is None  # a guess would cost as much
    monkeypatch.setattr(relative_scores, "_multiplies_bfloat16", lambda: False)
    assert prepared(codewords) is None
