"""The nearest codeword relative to another one: rounded are differences, and not scores."""

import numpy as np
import pytest
import torch

from sidmill.numeric import nearest_torch, relative_scores

N_ROWS, N_CODES = 50, 200
UNIT = 2.0**-7  # a step of bfloat16, relative


@pytest.fixture
def any_cpu(monkeypatch):
    """Any CPU computes these products, only not faster."""
    monkeypatch.setattr(relative_scores, "_multiplies_bfloat16", lambda: True)


def prepared(codewords):
    with nearest_torch.rough_products():
        return relative_scores.prepare(codewords, nearest_torch.square_norms(codewords).div_(2))


@pytest.mark.parametrize("dim", [1, 7, 64, 300])
@pytest.mark.parametrize("offset", [0.0, 100.0])
@pytest.mark.parametrize("other", [False, True])
def test_the_nearest_by_differences_of_eight_bits(rng, any_cpu, monkeypatch, dim, offset, other):
    """Values that bfloat16 holds: products are exact, and only the differences are rounded.

    With the offset all scores are near -5,000 D, where steps of bfloat16 are 32 and more.
    """
    monkeypatch.setattr(relative_scores, "VALUES_AT_ONCE", 17 * N_CODES)
    monkeypatch.setattr(relative_scores, "MIN_ROWS", 1)
    values = torch.from_numpy(rng.integers(-8, 8, (N_CODES + N_ROWS, dim)) / 8 + offset)
    values = values.bfloat16().float()
    codewords, rows = values[:N_CODES], values[N_CODES:]
    own = torch.from_numpy(rng.integers(N_CODES, size=N_ROWS))
    found = relative_scores.nearest(rows, own, prepared(codewords), other=other)

    exact = codewords.double().square().sum(1) / 2 - rows.double() @ codewords.double().T
    every = torch.arange(N_ROWS)
    rounding = 2e-6 * exact.abs().max()  # of sums in float32
    np.testing.assert_allclose(found.own_scores, exact[every, own], atol=float(rounding))
    differences = exact - exact[every, own][:, None]
    if other:
        differences[every, own] = torch.inf
        assert (found.codes != own).all()
    wanted, chosen = differences.amin(dim=1), differences[every, found.codes]
    bits = UNIT * wanted.abs() + rounding
    assert ((found.differences - chosen).abs() <= bits).all()
    assert (chosen - wanted <= 2 * bits).all()


def test_a_guess_is_the_nearest_of_the_first_codewords(rng, any_cpu):
    codewords = torch.from_numpy(rng.standard_normal((N_CODES, 20), dtype=np.float32))
    rows = codewords[[3, 63, 10]] + 0.01
    assert relative_scores.guess(rows, prepared(codewords)).tolist() == [3, 63, 10]


def test_other_products_where_they_are_as_good(rng, any_cpu, monkeypatch):
    codewords = torch.from_numpy(rng.standard_normal((N_CODES, 20), dtype=np.float32))
    halves = nearest_torch.square_norms(codewords).div_(2)
    assert relative_scores.prepare(codewords, halves) is None  # products have to be exact
    assert prepared(codewords[:100]) is None  # a guess would cost as much
    monkeypatch.setattr(relative_scores, "_multiplies_bfloat16", lambda: False)
    assert prepared(codewords) is None
