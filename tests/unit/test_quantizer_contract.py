"""What every quantizer that is trained here promises: the tests run over each registry entry."""

import ast
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
import torch
from conftest import ROOT
from test_rqvae import train as train_network

from sidmill import api
from sidmill.core.errors import SidmillError
from sidmill.formats import quantizer_file
from sidmill.formats.quantizer_file import Quantizer
from sidmill.quantize import rqkmeans
from sidmill.settings.config import SECTIONS
from sidmill.settings.quantize import Rqkmeans
from sidmill.settings.registry import QUANTIZERS, TRAINED, load_function

N_LEVELS, SIZE, DIM = 2, 8, 12
SPACE = {"backend": "test"}
KMEANS = Rqkmeans(n_levels=N_LEVELS, n_iter=4, device="cpu")
RESUMED = [name for name in TRAINED if QUANTIZERS[name].resumes]


class CutShort(BaseException):
    """What a kill is to a program: nothing after it runs."""


@pytest.fixture(autouse=True)
def _one_thread():
    """Small matrices: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(0)
    centres = 3 * rng.standard_normal((20, DIM))
    return (centres[rng.integers(20, size=300)] + rng.standard_normal((300, DIM))).astype("float32")


def train(name, vectors, folder, size=SIZE):
    """Train the quantizer of a registry entry; ``folder`` keeps its state."""
    folder.mkdir(parents=True, exist_ok=True)
    entry = QUANTIZERS[name]
    if entry.is_network:
        return of_network(name, vectors, folder, size)
    if entry.section == "rqkmeans":
        balance = "capacity" if name == "rqkmeans_balanced" else "none"
        settings = replace(KMEANS, codebook_size=size, balance=balance)
        fitted = rqkmeans.fit(vectors, settings, seed=0, state_path=folder / "state")
        return Quantizer(
            name, fitted.codebooks, {}, SPACE, prices=fitted.prices, balance=fitted.balance
        )
    fit, settings = load_function(entry.function), SECTIONS[entry.section]()
    return Quantizer(
        name, fit(vectors, settings, codebook_sizes=[size] * N_LEVELS, seed=0), {}, SPACE
    )


def of_network(name, vectors, folder, size):
    """Train an encoder with codebooks; ``rqkmeans_plus`` starts from residual k-means."""
    np.save(folder / "vectors.npy", vectors)
    options = {"codebook_sizes": [size] * N_LEVELS, "epochs": 4}
    if name == "fsq":
        options["grid_steps"] = [4, 2]
    if name == "rqkmeans_plus":
        settings = replace(KMEANS, codebook_size=min(size, len(np.unique(vectors, axis=0))))
        start = Quantizer("rqkmeans", rqkmeans.fit(vectors, settings, seed=0).codebooks, {}, {})
        quantizer_file.write(folder / "start.safetensors", start)
        options["warm_start"] = str(folder / "start.safetensors")
    trained = train_network(str(folder / "vectors.npy"), folder / "checkpoints", **options)
    return Quantizer(name, trained.codebooks, {}, SPACE, trained.encoder, trained.decoder)


def bytes_of(quantizer, folder):
    """The bytes of the file that holds a quantizer."""
    folder.mkdir(parents=True, exist_ok=True)
    quantizer_file.write(folder / "quantizer.safetensors", quantizer)
    return (folder / "quantizer.safetensors").read_bytes()


@pytest.mark.parametrize("name", QUANTIZERS)
def test_an_entry_names_a_section_a_rule_and_a_function_that_takes_its_settings(name):
    entry = QUANTIZERS[name]
    rules = "\n".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    assert re.search(rf"(?m)^rule {entry.rule}:", rules)
    script = ast.parse((ROOT / f"workflow/scripts/{entry.rule}.py").read_text())
    module = entry.function.partition(":")[0]
    imported = {
        f"{node.module}.{alias.name}"
        for node in ast.walk(script)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert module in imported
    hint = get_type_hints(load_function(entry.function)).get("settings")
    own = {SECTIONS[entry.section], SECTIONS["rqvae"] if entry.is_network else None}
    assert hint is None or hint in own


@pytest.mark.parametrize("name", TRAINED)
def test_it_is_saved_loaded_encodes_and_decodes(name, vectors, tmp_path):
    trained = train(name, vectors, tmp_path)
    assert len(trained.codebooks) == N_LEVELS
    assert all(0 < len(codebook) <= SIZE for codebook in trained.codebooks)
    api.save(tmp_path / "quantizer.safetensors", trained)
    loaded = api.load(tmp_path / "quantizer.safetensors")
    assert bytes_of(loaded, tmp_path / "again") == bytes_of(trained, tmp_path / "once")

    codes = api.encode(loaded, vectors, device="cpu")
    np.testing.assert_array_equal(codes, api.encode(trained, vectors, device="cpu"))
    assert codes.shape == (len(vectors), N_LEVELS)
    assert (codes >= 0).all()
    assert (codes.max(axis=0) < loaded.codebook_sizes).all()
    one_by_one = [api.encode(loaded, row[None], device="cpu")[0] for row in vectors[:20]]
    np.testing.assert_array_equal(codes[:20], one_by_one)
    if QUANTIZERS[name].is_network:
        return  # a few epochs promise no error
    error = np.square(vectors - api.decode(loaded, codes)).mean()
    assert error < np.square(vectors - vectors.mean(axis=0)).mean()


@pytest.mark.parametrize("name", TRAINED)
def test_the_same_input_gives_the_same_bytes(name, vectors, tmp_path):
    one, two = (train(name, vectors, tmp_path / folder) for folder in "ab")
    assert bytes_of(one, tmp_path / "a") == bytes_of(two, tmp_path / "b")


@pytest.mark.parametrize("name", RESUMED)
def test_an_interrupted_training_ends_in_the_same_bytes(name, vectors, tmp_path, monkeypatch):
    """Killed after each of its first saves: a file that has been put into place stays."""
    whole = bytes_of(train(name, vectors, tmp_path / "whole"), tmp_path)
    folder, kills = tmp_path / "cut", 0
    put = os.replace

    def put_and_die(source, target, **options):
        put(source, target, **options)
        if Path(target).is_relative_to(folder) and Path(target).suffix not in {".npy"}:
            raise CutShort

    for _ in range(4):
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", put_and_die)
            try:
                train(name, vectors, folder)
            except CutShort:
                kills += 1
    assert kills == 4
    assert bytes_of(train(name, vectors, folder), tmp_path) == whole


@pytest.mark.parametrize("name", TRAINED)
def test_fewer_rows_than_codewords_are_refused_or_served(name, vectors, tmp_path):
    few = vectors[: SIZE - 1]
    if not QUANTIZERS[name].needs_row_per_code:
        trained = train(name, few, tmp_path)
        assert np.isfinite(api.decode(trained, api.encode(trained, few, device="cpu"))).all()
        return
    with pytest.raises(SidmillError, match=r"lower .*codebook_sizes? to at most") as error:
        train(name, few, tmp_path)
    enough = int(re.search(r"at most (\d+)", str(error.value)).group(1))
    assert train(name, few, tmp_path / "remedied", size=enough).codebook_sizes == [enough] * 2


@pytest.mark.parametrize("name", TRAINED)
def test_equal_rows_get_equal_codes(name, vectors, tmp_path):
    repeated = np.repeat(vectors[:30], 10, axis=0)
    trained = train(name, repeated, tmp_path)
    codes = api.encode(trained, repeated, device="cpu").reshape(30, 10, N_LEVELS)
    assert (codes == codes[:, :1]).all()
    assert np.isfinite(api.decode(trained, codes[:, 0])).all()


@pytest.mark.parametrize("name", TRAINED)
def test_one_distinct_row_is_refused_or_decoded(name, vectors, tmp_path):
    same = np.repeat(vectors[:1], 100, axis=0)
    if QUANTIZERS[name].needs_distinct_rows:
        with pytest.raises(SidmillError, match="vectors are equal: check the embeddings"):
            train(name, same, tmp_path)
        return
    trained = train(name, same, tmp_path)
    codes = api.encode(trained, same, device="cpu")
    np.testing.assert_allclose(api.decode(trained, codes), same, rtol=1e-4, atol=1e-5)
