"""Vectors of every magnitude: the same codes at every scale, or a message whose remedy works."""

import re

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from sidmill import api
from sidmill.cli import commands
from sidmill.core.errors import SidmillError
from sidmill.formats.quantizer_file import Network, Quantizer
from sidmill.numeric import row_blocks
from sidmill.numeric.process_group import ALONE
from sidmill.quantize import kmeans_pp, opq, pca_grid
from sidmill.settings.quantize import Opq, PcaGrid

EXPONENTS = [-140, -100, -76, -41, -38, -25, -10, 10, 25, 45, 56, 59, 64, 100, 126]
FIT = {"n_levels": 2, "codebook_size": 16, "device": "cpu"}
NUMBER = r"[\d.]+(?:e[+-]?\d+)?"


def rows(seed=0, n_rows=400, dim=8):
    random = np.random.default_rng(seed)
    groups = random.standard_normal((20, dim))[random.integers(20, size=n_rows)]
    return (groups + 0.2 * random.standard_normal((n_rows, dim))).astype(np.float32)


def remedied(vectors, error):
    """Do what the message says of all vectors."""
    limit = float(re.search(rf"(?:longer than|at least) ({NUMBER})", str(error)).group(1))
    exact = vectors.astype(np.float64)
    if "divide all of them" in str(error):
        return (exact * (limit * 0.99 / np.linalg.norm(exact, axis=1).max())).astype(np.float32)
    assert "Multiply all vectors" in str(error)
    return (exact * (limit * 1.01 / np.abs(exact).max())).astype(np.float32)


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_a_power_of_two_changes_no_code_or_is_refused_with_a_remedy(exponent):
    plain = rows()
    wanted = api.fit(plain, **FIT)
    scaled = np.ldexp(plain, exponent)
    try:
        found = api.fit(scaled, **FIT)
    except SidmillError as error:
        assert exponent < -38 or exponent > 56
        with pytest.raises(SidmillError, match="squared distances"):
            api.encode(wanted._replace(codebooks=[np.ldexp(b, exponent) for b in wanted.codebooks]),
                       scaled, device="cpu")  # fmt: skip
        mended = remedied(scaled, error)
        found = api.fit(mended, **FIT)
        share = np.square(mended - api.decode(found, api.encode(found, mended))).mean()
        share /= np.square(mended.astype(np.float64)).mean()
        base = np.square(plain - api.decode(wanted, api.encode(wanted, plain))).mean()
        # values at the very end of the range of float32 have few digits, so the codes may differ
        assert share < 1.1 * base / np.square(plain).mean() + 0.01
        return
    for ours, theirs in zip(found.codebooks, wanted.codebooks, strict=True):
        np.testing.assert_array_equal(ours, np.ldexp(theirs, exponent))
    np.testing.assert_array_equal(api.encode(found, scaled), api.encode(wanted, plain))


@pytest.mark.parametrize("device", ["cpu", "cpu,cpu"])
@pytest.mark.parametrize("value", [3e17, 1e19, 1e25, 3e38])
def test_one_long_row_is_trained_on_or_named(value, device):
    vectors = rows(1, 256)
    vectors[37, 3] = value
    if value < row_blocks.LONGEST:
        fitted = api.fit(vectors, **FIT)
        assert (api.encode(fitted, vectors, device=device)[37] >= 0).all()
        return
    fitted = api.fit(rows(1, 256), **FIT)
    for call in (lambda: api.fit(vectors, **FIT),
                 lambda: api.encode(fitted, vectors, device=device)):  # fmt: skip
        with pytest.raises(SidmillError, match="first at row 37, whose length is"):
            call()


@pytest.mark.parametrize("balance", ["capacity", "sinkhorn"])
@pytest.mark.parametrize("exponent", [-38, 50])
def test_a_balance_holds_at_every_scale(balance, exponent):
    vectors = np.ldexp(rows(2), exponent)
    fitted = api.fit(vectors, balance=balance, **FIT)
    codes, total = api.encode(fitted, vectors), 0
    for level, facts in enumerate(fitted.balance):
        load = np.bincount(codes[:, level]).max() / 25
        assert facts["max_load_after"] == pytest.approx(load, rel=1e-9)
        assert facts["max_load_after"] <= facts["max_load_before"]
        total = np.square((vectors - api.decode(fitted, codes[:, : level + 1])).astype(np.float64))
        assert facts["mse_after"] == pytest.approx(total.mean(), rel=1e-3)


@pytest.mark.parametrize("exponent", [-160, -76, -38, 0, 50, 100])
@pytest.mark.parametrize("method", ["opq", "pca_grid"])
def test_the_other_fits_do_the_same(method, exponent):
    def fit(vectors):
        if method == "opq":
            settings = Opq(n_iter=4, max_points_per_centroid=64)
            return opq.fit(vectors, settings, codebook_sizes=[8, 8], seed=0)
        return pca_grid.fit(vectors, PcaGrid(sample=1000), codebook_sizes=[8, 8], seed=0)

    plain = rows(3)
    scaled = np.ldexp(plain, exponent)
    try:
        found = fit(scaled)
    except SidmillError as error:
        assert not -40 < exponent < 55
        found, scaled = fit(remedied(scaled, error)), remedied(scaled, error)
    if exponent < -130:
        return  # values so small are rounded to a few bits, or to nothing
    shares = []
    for vectors, books in ((plain, fit(plain)), (scaled, found)):
        one, exact = Quantizer("x", books, {}, {}), vectors.astype(np.float64)
        left = exact - api.decode(one, api.encode(one, vectors))
        shares.append(np.square(left).sum() / np.square(exact).sum())
    assert shares[1] == pytest.approx(shares[0], rel=0.02)


def test_zeros_alone_are_no_fault():
    vectors = np.zeros((40, 4), np.float32)
    fitted = api.fit(vectors, **FIT)
    assert not np.concatenate(fitted.codebooks).any()
    assert not api.encode(fitted, vectors).any()
    tiny = fitted._replace(codebooks=[book + np.float32(1e-30) for book in fitted.codebooks])
    assert not api.encode(tiny, vectors, device="cpu").any()


@pytest.mark.parametrize("device", ["cpu", "cpu,cpu"])
def test_latents_out_of_range_are_no_codes(device):
    weights = [np.full((2, 3), 1e15, np.float32), np.full((2, 2), 1e15, np.float32)]
    encoder = Network(weights, [np.zeros(2, np.float32) for _ in weights], None)
    books = [np.arange(8, dtype=np.float32).reshape(4, 2)]
    quantizer = Quantizer("rqvae", books, {}, {}, encoder=encoder)
    with pytest.raises(SidmillError, match="what a quantizer's encoder"):
        api.encode(quantizer, np.ones((5, 3), np.float32), device=device)


def test_the_command_line_refuses_them_too(tmp_path):
    vectors = rows(4, 64)
    api.save(tmp_path / "q.safetensors", api.fit(vectors, **FIT))
    vectors[9] = 1e19
    np.save(tmp_path / "v.npy", vectors)
    common = ["--quantizer", tmp_path / "q.safetensors", "--vectors", tmp_path / "v.npy"]
    for words in (["encode", *common, "--out", tmp_path / "c.parquet"], ["evaluate", *common]):
        result = CliRunner().invoke(commands, list(map(str, words)))
        assert result.exit_code
        assert "row 9" in result.output + str(result.exception)
    assert not (tmp_path / "c.parquet").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38, 1e-40, 0.0])
def test_seeding_ends_whatever_the_numbers(value):
    """Behind the checks as well: a loop that ends by chance alone could run for ever."""
    sample = torch.from_numpy(rows(5, 60))
    sample[::7] = value
    searchers = kmeans_pp.Searchers([torch.device("cpu")], ALONE, 60)
    words = kmeans_pp._plus_plus(sample, 50, torch.Generator().manual_seed(0), searchers)
    assert len(set(words.tolist())) == 50
