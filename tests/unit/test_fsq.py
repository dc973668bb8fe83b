"""Finite scalar quantization: cells, codes step by step, and the file that leaves the training."""

import numpy as np
import pytest
import test_rqvae
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_rqvae import same

from sidmill import api
from sidmill.core.errors import SidmillError
from sidmill.formats import quantizer_file
from sidmill.formats.quantizer_file import Quantizer
from sidmill.numeric import mlp
from sidmill.quantize.rqvae import fsq

STEPS = st.lists(st.integers(2, 6), min_size=1, max_size=3)


@pytest.fixture
def path(tmp_path, rng):
    turn = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    rows = rng.standard_normal((400, 12)) * 2 * 0.7 ** np.arange(12) @ turn + 1
    np.save(tmp_path / "vectors.npy", rows.astype(np.float32))
    return str(tmp_path / "vectors.npy")


def train(path, folder, **settings):
    return test_rqvae.train(path, folder, **{"grid_steps": [4, 3]} | settings)


@given(steps=STEPS, n_levels=st.integers(1, 3), seed=st.integers(0, 99))
def test_the_nearest_codeword_is_the_nearest_step_in_every_dimension(steps, n_levels, seed):
    words = fsq.codebooks(steps=steps, n_levels=n_levels)
    width = len(steps)
    rows = np.random.default_rng(seed).normal(size=(20, n_levels * width)).astype(np.float32)
    left = rows.copy()
    for level, level_words in enumerate(words):
        code = np.square(left[:, None] - level_words).sum(axis=2).argmin(axis=1)
        own = rows[:, level * width : (level + 1) * width]
        for axis, count in enumerate(steps):
            places = np.linspace(-1, 1, count)
            expected = places[np.abs(own[:, axis, None] - places).argmin(axis=1)]
            assert level_words[code, level * width + axis] == pytest.approx(expected, abs=1e-6)
        left = left - level_words[code]


@pytest.mark.parametrize("steps", [[5], [3, 5], [7, 3, 5]])
def test_the_cells_are_those_of_vector_quantize_pytorch(steps):
    """Oracle: for odd steps its cells lie symmetrically too."""
    FSQ = pytest.importorskip("vector_quantize_pytorch").FSQ
    other = FSQ(levels=steps)
    cells = other._indices_to_codes(torch.arange(int(np.prod(steps)))).numpy()
    (words,) = fsq.codebooks(steps=steps, n_levels=1)
    assert np.array_equal(np.unique(words, axis=0), np.unique(cells, axis=0))


def test_the_grid_stays_as_it_was_laid_and_the_error_falls(tmp_path, path):
    trained = train(path, tmp_path / "a", epochs=12)
    for words, laid in zip(trained.codebooks, fsq.codebooks(steps=[4, 3], n_levels=3), strict=True):
        assert np.array_equal(words, laid)
    one = train(path, tmp_path / "b", epochs=2)
    losses = [figures["error"] for figures in (trained.figures, one.figures)]
    assert losses[0] < losses[1]


def test_codes_of_the_file_are_those_of_the_training(tmp_path, path):
    trained = train(path, tmp_path / "a", epochs=8)
    made = Quantizer("fsq", trained.codebooks, {}, {}, trained.encoder, trained.decoder)
    quantizer_file.write(tmp_path / "q.safetensors", made)
    codes = api.encode(quantizer_file.read(tmp_path / "q.safetensors"), np.load(path))
    reached = 1 - len(np.unique(codes, axis=0)) / len(codes)
    assert reached == pytest.approx(trained.figures["collision"], abs=0.006)


@pytest.mark.parametrize("far", [1, 30, 300, 1e6])
def test_far_outside_the_grid_every_dimension_is_rounded_to_its_step(tmp_path, path, far):
    """A distance in float32 to a latent of length 300 says little of steps 0.3 apart."""
    trained = train(path, tmp_path / "a", epochs=2, grid_steps=[8, 8])
    weights = [*trained.encoder.weights[:-1], trained.encoder.weights[-1] * np.float32(far)]
    skip = trained.encoder.skip * np.float32(far)
    encoder = trained.encoder._replace(weights=weights, skip=skip)
    made = Quantizer("fsq", trained.codebooks, {}, {}, encoder, trained.decoder)
    rows = np.load(path)
    inside = mlp.load(encoder, "cpu")(rows)
    latents = mlp.load(encoder._replace(bound=None), "cpu")(rows)
    assert torch.equal(inside, latents.clamp(-1, 1))
    steps = np.linspace(-1, 1, 8)
    places = np.abs(latents.numpy().clip(-1, 1)[:, :, None] - steps).argmin(axis=2)
    wanted = places.reshape(len(rows), 3, 2) @ [8, 1]
    assert (api.encode(made, rows) == wanted).all()


@pytest.mark.parametrize("n_rows", [4, 17, 100])
def test_a_grid_needs_no_row_for_each_of_its_cells(tmp_path, path, n_rows):
    np.save(tmp_path / "few.npy", np.load(path)[:n_rows])
    trained = train(str(tmp_path / "few.npy"), tmp_path / "a", grid_steps=[8, 8, 4])
    assert trained.codebooks[0].shape == (256, 9)


def test_more_cells_than_any_codebook_may_have(tmp_path, path):
    with pytest.raises(SidmillError, match=r"\[3000, 3000\] make 9,000,000 codes per level, more"):
        train(path, tmp_path / "a", grid_steps=[3000, 3000])
    with pytest.raises(SidmillError, match="1,048,576"):
        fsq.codebooks(steps=[2] * 21, n_levels=1)
    divided = train(path, tmp_path / "a", grid_steps=[30], codebook_sizes=[4, 4, 4, 4])
    assert len(divided.codebooks) == 4  # steps divided among more levels, as the message says
    largest = fsq.codebooks(steps=[1024, 4], n_levels=1)
    assert len(largest[0]) == 4096


def test_it_ends_in_the_same_bytes(tmp_path, path):
    assert same(train(path, tmp_path / "a"), train(path, tmp_path / "b"))


def test_another_grid_does_not_go_on_from_its_checkpoints(tmp_path, path):
    train(path, tmp_path / "a")
    other = train(path, tmp_path / "a", grid_steps=[3, 4])
    assert same(other, train(path, tmp_path / "b", grid_steps=[3, 4]))


def test_more_latent_dimensions_than_the_vectors_have(tmp_path, path):
    with pytest.raises(SidmillError, match=r"15 latent dimensions, and the vectors have 12"):
        train(path, tmp_path, grid_steps=[2] * 5)
