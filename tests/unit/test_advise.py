"""The size adviser against simulations, and against what is measured."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from sidmill.cli import commands
from sidmill.core.errors import SidmillError
from sidmill.numeric import residual_codec
from sidmill.quantize import rqkmeans
from sidmill.quantize.advise import (
    FIT,
    advise,
    effective_bits,
    even_rate,
)

SETTINGS = {
    "target": 0.05,
    "codebook_sizes": [4, 8, 16, 32],
    "n_levels": [1, 2, 3],
    "sample": 10_000,
    "seed": 0,
    "device": "cpu",
    "memory_mb": 64,
}


@pytest.mark.parametrize(("n_items", "codes"), [(1, 8), (10, 8), (300, 64), (50, 4096), (40, 1)])
def test_even_use_equals_a_simulation(rng, n_items, codes):
    thrown = rng.integers(0, codes, (20_000, n_items))
    thrown.sort(axis=1)
    distinct = 1 + (np.diff(thrown, axis=1) > 0).sum(axis=1)
    simulated = 1 - distinct.mean() / n_items
    assert even_rate(math.log2(codes), n_items) == pytest.approx(simulated, abs=0.003)


@pytest.mark.parametrize("bits", [1.5, 10, 24, 60, 120])
def test_effective_bits_invert_the_rate(bits):
    assert effective_bits(even_rate(bits, 5000), 5000) == pytest.approx(bits, rel=1e-3)


def test_the_rate_falls_with_codes_and_grows_with_items():
    by_codes = [even_rate(bits, 1000) for bits in np.linspace(0, 100, 400)]
    assert (np.diff(by_codes) <= 0).all()
    by_items = [even_rate(12, n) for n in (1, 10, 100, 1000, 10_000)]
    assert (np.diff(by_items) > 0).all()


@pytest.fixture
def vectors(rng):
    """Crowded groups: codes are used unevenly."""
    centres = 3 * rng.standard_normal((60, 6))
    group = rng.choice(60, 2000, p=rng.dirichlet(np.ones(60) / 2))
    return (centres[group] + 0.3 * rng.standard_normal((2000, 6))).astype(np.float32)


def by_size(advice):
    return {(one["n_levels"], one["codebook_size"]): one for one in advice["candidates"]}


def test_a_catalogue_within_the_sample_is_measured(vectors):
    found = advise(vectors, **SETTINGS)
    assert {one["how"] for one in found["candidates"]} == {"measured"}
    assert found["sampled"] == found["items"] == 2000
    smallest = found["smallest"]
    assert smallest is None or smallest["expected"] <= 0.05
    assert found["smallest_if_even"]["even"] <= 0.05


@pytest.mark.parametrize(("n_items", "dim"), [(400, 8), (150, 2), (2000, 6)])
def test_measured_is_what_a_fit_gives_even_where_codes_are_used_more_than_evenly(rng, n_items, dim):
    """Of 400 items over 64 x 64 codes 2.5 % collide; thrown at random it were 4.7 %."""
    vectors = rng.standard_normal((n_items, dim)).astype(np.float32)
    sizes = {"codebook_sizes": [2, 8, 16, 32], "n_levels": [1, 2, 3]}
    candidates = advise(vectors, **(SETTINGS | sizes))["candidates"]
    below_even = 0
    for one in candidates:
        size, length = one["codebook_size"], one["n_levels"]
        if one["how"] != "measured":
            continue
        books = rqkmeans.fit(
            vectors, replace(FIT, codebook_size=size, device="cpu"), seed=0
        ).codebooks
        codes = np.concatenate(
            list(residual_codec.encode(vectors, books, device="cpu", memory_mb=64))
        )
        distinct = len(np.unique(codes[:, :length], axis=0))
        assert one["expected"] == pytest.approx(1 - distinct / n_items, abs=1e-12)
        assert even_rate(one["effective_bits"], n_items) == pytest.approx(one["expected"], abs=1e-9)
        below_even += one["expected"] < one["even"]
    assert below_even or n_items == 2000


def test_a_sample_foretells_no_better_than_even_use_and_says_so(rng):
    vectors = rng.standard_normal((800, 8)).astype(np.float32)
    settings = SETTINGS | {"sample": 400, "codebook_sizes": [16, 32, 64, 256]}
    for one in advise(vectors, **settings)["candidates"]:
        assert one["how"].startswith("extrapolated over ")
        assert one["effective_bits"] <= one["bits"]
        assert one["expected"] >= one["even"] - 1e-12
        assert one["how"].endswith("at most even use") == (one["effective_bits"] == one["bits"])


def test_a_sample_foretells_the_whole(vectors):
    truth = by_size(advise(vectors, **SETTINGS))
    guess = by_size(advise(vectors, **(SETTINGS | {"sample": 1000})))
    for key, one in guess.items():
        assert one["how"] != "measured"
        assert abs(one["effective_bits"] - truth[key]["effective_bits"]) < 0.8
    even = [abs(one["even"] - truth[key]["expected"]) for key, one in guess.items()]
    expected = [abs(one["expected"] - truth[key]["expected"]) for key, one in guess.items()]
    assert np.mean(expected) < np.mean(even) / 2


def test_identical_vectors_are_a_floor(vectors):
    doubled = np.concatenate([vectors[:500], vectors[:500]])
    found = advise(doubled, **SETTINGS)
    assert found["identical_vectors"] == pytest.approx(0.5)
    assert all(one["expected"] >= 0.5 for one in found["candidates"])
    assert found["smallest"] is None


def test_same_seed_same_answer(vectors):
    settings = SETTINGS | {"sample": 700}
    assert advise(vectors, **settings) == advise(vectors, **settings)


def test_codes_that_no_sample_can_fill(vectors):
    with pytest.raises(SidmillError, match="of at most 25 codes"):
        advise(vectors[:100], **(SETTINGS | {"codebook_sizes": [32, 64]}))


def test_the_command_prints_a_table_or_json(vectors, tmp_path):
    np.save(tmp_path / "vectors.npy", vectors)
    words = ["advise", "--vectors", str(tmp_path / "vectors.npy"), "--target", "0.05"]
    words += ["--levels", "1,2,3", "--codes", "4,8,16,32"]
    table = CliRunner().invoke(commands, words, catch_exceptions=False).output
    advice = json.loads(CliRunner().invoke(commands, [*words, "--json"]).output)
    assert len(advice["candidates"]) == 12
    assert f"{advice['candidates'][0]['expected']:.2%}" in table
    verdict = table.strip().splitlines()[-1]
    assert verdict.startswith("smallest under 5.00%" if advice["smallest"] else "none of these")
    done = CliRunner().invoke(commands, [*words[:-1], "4,x"])
    assert done.exit_code == 2
    assert "give whole numbers" in done.output
