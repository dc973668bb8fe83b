"""RQ-VAE on the device: it learns what the CPU learns, and resumes to the same bytes."""

import numpy as np
import pytest
from gpu_device import DEVICE, cut_after, gpu, planted

from sidmill.quantize.rqvae import checkpoints, fit
from sidmill.settings.quantize import Rqvae

pytestmark = gpu

SETTINGS = {
    "codebook_sizes": [16, 16],
    "e_dim": 8,
    "layers": [32, 16],
    "autoencoder_epochs": 2,
    "warmup_epochs": 1,
    "epochs": 8,
    "batch_size": 64,
    "eval_step": 2,
    "precision": "float32",
    "device": DEVICE,
    "memory_mb": 64,
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("rqvae") / "vectors.npy"
    np.save(path, planted(n_rows=1000))
    return str(path)


def train(path, folder, **options):
    settings = Rqvae(**(SETTINGS | options))
    return fit.fit(fit.Inputs([path], {}), settings, fit.Run(str(folder), 0, "test"))


def arrays(trained):
    return [*trained.codebooks, *trained.encoder.weights, *trained.decoder.weights]


def same(one, other):
    pairs = zip(arrays(one), arrays(other), strict=True)
    return all(mine.tobytes() == theirs.tobytes() for mine, theirs in pairs)


@pytest.fixture(scope="module")
def whole(path, tmp_path_factory):
    return train(path, tmp_path_factory.mktemp("whole"))


def test_it_learns_what_the_cpu_learns(path, whole, tmp_path):
    theirs = train(path, tmp_path, device="cpu")
    mine = whole.figures["error"]
    assert mine == pytest.approx(theirs.figures["error"], rel=0.25)


def test_bfloat16_learns_what_float32_learns(path, whole, tmp_path):
    mine = train(path, tmp_path, precision="bfloat16").figures["error"]
    assert mine == pytest.approx(whole.figures["error"], rel=0.25)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_cut_short_it_ends_in_the_same_bytes(path, tmp_path, monkeypatch, precision):
    wanted = train(path, tmp_path / "whole", precision=precision)
    assert same(train(path, tmp_path / "again", precision=precision), wanted)
    folder = tmp_path / "cut"
    assert cut_after(monkeypatch, checkpoints, 2, lambda: train(path, folder, precision=precision))
    assert same(train(path, folder, precision=precision), wanted)


@pytest.mark.parametrize(
    "change",
    [
        {"codebook_update": "gradient", "estimator": "rotation"},
        {"sk_epsilons": [0.0, 0.05], "sk_iters": 5},
        {"memory_mb": 16, "batch_norm": True, "dropout": 0.1, "loss": "cosine"},
    ],
)
def test_each_form_of_the_training_runs_and_repeats(path, tmp_path, change):
    first, second = (train(path, tmp_path / name, **change, epochs=4) for name in "ab")
    assert np.isfinite(first.figures["error"])
    assert same(first, second)
