"""What every quantizer that is trained here promises: the tests run over each registry entry."""

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pyarrow as pa
import pytest
from conftest import ROOT
from test_rqvae import train as train_network

from sidmill import api
from sidmill.core import provenance
from sidmill.core.errors import SidmillError
from sidmill.formats import catalogue_match, ledger_file, quantizer_file
from sidmill.formats.catalogue_match import Match
from sidmill.formats.ledger_file import Ledger
from sidmill.formats.quantizer_file import Quantizer
from sidmill.quantize import rqkmeans
from sidmill.settings.config import SECTIONS
from sidmill.settings.quantize import Rqkmeans
from sidmill.settings.registry import QUANTIZERS, STARTED, TRAINED, load_function
from sidmill.sids import refresh

N_LEVELS, SIZE, DIM = 2, 8, 12
SPACE = {"backend": "test"}
KMEANS = Rqkmeans(n_levels=N_LEVELS, n_iter=4, device="cpu")
RESUMED = [name for name in TRAINED if QUANTIZERS[name].resumes]


class CutShort(BaseException):
    """What a kill is to a program: nothing after it runs."""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(0)
    centres = 3 * rng.standard_normal((20, DIM))
    return (centres[rng.integers(20, size=300)] + rng.standard_normal((300, DIM))).astype("float32")


def train(name, vectors, folder, size=SIZE, known=None):
    """Train the quantizer of a registry entry; ``folder`` keeps its state.

    ``known`` are codes that rows have: the training starts from them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    entry = QUANTIZERS[name]
    if entry.is_network:
        return of_network(name, vectors, folder, size, known)
    if entry.section == "rqkmeans":
        balance = "capacity" if name == "rqkmeans_balanced" else "none"
        settings = replace(KMEANS, codebook_size=size, balance=balance)
        fitted = rqkmeans.fit(vectors, settings, seed=0, state_path=folder / "state", known=known)
        return Quantizer(
            name, fitted.codebooks, {}, SPACE, prices=fitted.prices, balance=fitted.balance
        )
    fit, settings = load_function(entry.function), SECTIONS[entry.section]()
    return Quantizer(
        name, fit(vectors, settings, codebook_sizes=[size] * N_LEVELS, seed=0), {}, SPACE
    )


def of_network(name, vectors, folder, size, known=None):
    """Train an encoder with codebooks; ``rqkmeans_plus`` starts from residual k-means."""
    np.save(folder / "vectors.npy", vectors)
    options = {"codebook_sizes": [size] * N_LEVELS, "epochs": 4}
    if name == "fsq":
        options["grid_steps"] = [4, 2]
    if name == "rqkmeans_plus":
        settings = replace(KMEANS, codebook_size=min(size, len(np.unique(vectors, axis=0))))
        codebooks = rqkmeans.fit(vectors, settings, seed=0, known=known).codebooks
        start = Quantizer("rqkmeans", codebooks, {}, {})
        quantizer_file.write(folder / "start.safetensors", start)
        options["warm_start"] = str(folder / "start.safetensors")
    elif known is not None:
        options |= published(known, folder)
    trained = train_network(str(folder / "vectors.npy"), folder / "checkpoints", **options)
    return Quantizer(name, trained.codebooks, {}, SPACE, trained.encoder, trained.decoder)


def published(known, folder):
    """Files of a version whose items have these codes; rows of -1 are new items."""
    old = np.flatnonzero((known >= 0).all(axis=1))
    rows = np.full(len(known), -1)
    rows[old] = np.arange(len(old))
    match = Match(rows, np.zeros(len(known), dtype=bool))
    paths = {name: str(folder / f"{name}.parquet") for name in ("ledger", "match")}
    ledger_file.write(paths["ledger"], ledger_of(known[old]))
    catalogue_match.write(paths["match"], pa.int64(), [(pa.array(np.arange(len(known))), match)])
    return paths


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
    script = ROOT / f"workflow/scripts/{entry.rule}.py"
    chosen = {name: next(iter(one.modules)) for name, one in provenance.choices_of(script).items()}
    assert entry.function.partition(":")[0] in provenance.sources(script, chosen)
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


def ledger_of(codes):
    """A published version of items with these codes, which are their SIDs too."""
    n_items = len(codes)
    ids = pa.chunked_array([np.arange(n_items)])
    digests = np.array([f"text {pid}" for pid in range(n_items)], dtype="S16")
    states, versions = np.zeros(n_items, np.int8), np.ones(n_items, np.int32)
    sizes = [SIZE] * N_LEVELS
    return Ledger(ids, codes, codes, digests, states, versions, np.ones(n_items, bool), sizes, 1)


@pytest.mark.parametrize("name", TRAINED)
def test_renamed_codewords_get_their_published_numbers_back(name, vectors, tmp_path, rng):
    trained = train(name, vectors, tmp_path)
    codes = api.encode(trained, vectors, device="cpu")
    sizes = trained.codebook_sizes
    other = refresh.rename(trained, [rng.permutation(size) for size in sizes])
    shuffled = api.encode(other, vectors, device="cpu")
    np.testing.assert_array_equal(api.decode(other, shuffled), api.decode(trained, codes))
    version = ledger_of(codes)._replace(sizes=sizes)
    every = Match(np.arange(len(codes)), np.zeros(len(codes), dtype=bool))
    aligned = refresh.align(other, shuffled, version, every)
    again = api.encode(aligned, vectors, device="cpu")
    np.testing.assert_array_equal(again, codes)
    np.testing.assert_array_equal(api.decode(aligned, again), api.decode(trained, codes))


@pytest.mark.parametrize("name", STARTED)
def test_a_training_from_codes_keeps_more_of_them_and_repeats(name, vectors, tmp_path, monkeypatch):
    """Interrupted or not; the version has four fifths of the rows, codes are renumbered."""
    n_old = len(vectors) * 4 // 5
    old = train(name, vectors[:n_old], tmp_path / "old")
    old = refresh.rename(old, [np.roll(np.arange(SIZE), 3) for _ in range(N_LEVELS)])
    codes = api.encode(old, vectors[:n_old], device="cpu")
    known = np.full((len(vectors), N_LEVELS), -1, dtype=np.int32)
    known[:n_old] = codes

    scratch = train(name, vectors, tmp_path / "scratch")
    started = train(name, vectors, tmp_path / "a", known=known)
    kept, without = (
        (api.encode(one, vectors[:n_old], device="cpu") == codes).all(axis=1).mean()
        for one in (started, scratch)
    )
    assert kept > 2 * without
    assert kept > 0.5

    # The same bytes, also after a kill at the first save.
    put = os.replace

    def put_and_die(source, target, **options):
        put(source, target, **options)
        if Path(target).is_relative_to(tmp_path / "b") and Path(target).name in {
            "state", "last.safetensors",
        }:  # fmt: skip
            raise CutShort

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", put_and_die)
        with pytest.raises(CutShort):
            train(name, vectors, tmp_path / "b", known=known)
    again = train(name, vectors, tmp_path / "b", known=known)
    assert bytes_of(again, tmp_path / "b") == bytes_of(started, tmp_path / "a")


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
