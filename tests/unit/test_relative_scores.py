"""Scores less the own one: as near to the exact ones as bfloat16 is to the difference."""

import numpy as np
import pytest
import torch

from sidmill.numeric import nearest_torch, relative_scores

N_ROWS, N_CODES = 50, 200
HALF_ULP = 2.0**-8  # of bfloat16, relative


@pytest.fixture
def any_cpu(monkeypatch):
    """Any CPU computes these products, only not faster."""
    monkeypatch.setattr(relative_scores, "_multiplies_bfloat16", lambda: True)


def prepared(codewords):
    with nearest_torch.rough_products():
        return relative_scores.prepare(codewords, nearest_torch.square_norms(codewords).div_(2))


@pytest.mark.parametrize("dim", [1, 7, 64, 300])
@pytest.mark.parametrize("offset", [0.0, 100.0])
@pytest.mark.parametrize("spare", [False, True])
def test_close_scores_keep_their_digits(rng, any_cpu, dim, offset, spare):
    """Codewords that bfloat16 holds: then the products are exact and only the result is rounded.

    With an offset all scores are near -5,000 D, where bfloat16 alone holds steps of 32.
    """
    values = torch.from_numpy(rng.integers(-8, 8, (N_CODES + N_ROWS, dim)) / 8 + offset).float()
    codewords, rows = values[:N_CODES], values[N_CODES:]
    assert (values.bfloat16().float() == values).all() or offset
    values.copy_(values.bfloat16())
    own = torch.from_numpy(rng.integers(N_CODES, size=N_ROWS))
    n_values = N_ROWS * N_CODES + spare * relative_scores.work_size(N_ROWS, N_CODES, dim)
    scores, base = relative_scores.scores(rows, own, prepared(codewords), torch.empty(n_values))

    exact = codewords.double().square().sum(1) / 2 - rows.double() @ codewords.double().T
    own_exact = exact[torch.arange(N_ROWS), own]
    difference = exact - own_exact[:, None]
    rounding = 1e-6 * exact.abs().max()  # of sums in float32
    np.testing.assert_allclose(base, own_exact, atol=float(rounding))
    assert ((scores - difference).abs() <= HALF_ULP * difference.abs() + rounding).all()


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
