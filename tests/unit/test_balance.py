"""Balanced codebooks: loads stay within limits, new items follow the same rule, costs are told."""

import numpy as np
import pytest

from sidmill import api
from sidmill.formats import quantizer as format


@pytest.fixture(scope="module")
def skewed():
    """A mixture of 40 groups, the largest with a quarter of the rows."""
    rng = np.random.default_rng(0)
    shares = 1 / np.arange(1, 41)
    centres = rng.standard_normal((40, 24), dtype=np.float32)
    rows = centres[rng.choice(40, 6000, p=shares / shares.sum())]
    return rows + 0.6 * rng.standard_normal(rows.shape, dtype=np.float32)


def loads(codes, n_codes):
    return np.stack([np.bincount(column, minlength=n_codes) for column in codes.T]) * (
        n_codes / len(codes)
    )


@pytest.fixture(scope="module")
def fits(skewed):
    settings = {"n_levels": 2, "codebook_size": 16, "device": "cpu"}
    return {
        name: api.fit(skewed, balance=name, max_load=1.5, **settings)
        for name in ("none", "capacity", "sinkhorn")
    }


def test_without_balance_loads_are_as_skewed_as_the_data(skewed, fits):
    assert loads(api.encode(fits["none"], skewed), 16).max() > 2
    assert not fits["none"].prices
    assert not fits["none"].balance


def test_capacity_holds_its_limit(skewed, fits):
    assert loads(api.encode(fits["capacity"], skewed), 16).max() <= 1.5


def test_sinkhorn_evens_out(skewed, fits):
    found = loads(api.encode(fits["sinkhorn"], skewed), 16)
    assert found.max() < 1.3
    assert found.min() > 0


@pytest.mark.parametrize("name", ["capacity", "sinkhorn"])
def test_the_stated_cost_is_the_cost(skewed, fits, name):
    fitted = fits[name]
    codes = api.encode(fitted, skewed)
    for level, facts in enumerate(fitted.balance):
        left = skewed - api.decode(fitted, codes[:, : level + 1])
        assert facts["mse_after"] == pytest.approx(np.square(left).mean(dtype=np.float64), rel=1e-4)
        assert facts["max_load_after"] == pytest.approx(loads(codes, 16)[level].max(), rel=1e-2)
        assert facts["mse_after"] >= facts["mse_before"] * 0.999
        assert facts["max_load_after"] < facts["max_load_before"]


@pytest.mark.parametrize("name", ["capacity", "sinkhorn"])
def test_new_items_follow_the_plain_rule_with_prices(fits, name):
    fitted = fits[name]
    new = np.random.default_rng(1).standard_normal((300, 24), dtype=np.float32)
    left, columns = new.copy(), []
    for words, prices in zip(fitted.codebooks, fitted.prices, strict=True):
        costs = np.square(left[:, None] - words).sum(axis=2) + prices
        columns.append(costs.argmin(axis=1))
        left -= words[columns[-1]]
    np.testing.assert_array_equal(api.encode(fitted, new), np.stack(columns, axis=1))


def test_prices_are_kept_in_the_file(tmp_path, fits):
    format.write(tmp_path / "q.safetensors", fits["capacity"])
    back = format.read(tmp_path / "q.safetensors")
    for ours, theirs in zip(fits["capacity"].prices, back.prices, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert list(back.balance) == fits["capacity"].balance


def test_equal_vectors_stay_together_and_the_figures_say_so(caplog):
    rng = np.random.default_rng(2)
    rows = np.concatenate([np.ones((500, 8)), rng.standard_normal((500, 8))]).astype(np.float32)
    fitted = api.fit(
        rows, n_levels=1, codebook_size=8, balance="capacity", max_load=1.5, device="cpu"
    )
    assert fitted.balance[0]["max_load_after"] >= 4  # 500 of a mean of 125
    assert "many equal vectors" in caplog.text
    assert len(np.unique(api.encode(fitted, rows)[:500])) == 1
