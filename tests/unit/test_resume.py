"""A training that is cut short anywhere goes on and ends in the same bytes."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from sidmill.quantize import resume, rqkmeans
from sidmill.settings.quantize import Rqkmeans

SETTINGS = Rqkmeans(
    n_levels=3, codebook_size=[8, 6, 4], n_iter=6, tolerance=0.0, device="cpu", memory_mb=64
)


class CutShort(BaseException):
    """What a kill is to a program: nothing after it runs."""


def fit(vectors, path, settings=SETTINGS, *, seed=0, code="", **changes):
    settings = replace(settings, **changes)
    return rqkmeans.fit(vectors, settings, seed=seed, state_path=path, code=code)


def cut_after(monkeypatch, n_saves, vectors, path, settings=SETTINGS, **changes):
    """Run until the state was saved so many times; return whether the training was cut."""
    saves = []
    save = resume._save

    def save_and_die(*arguments):
        save(*arguments)
        saves.append(1)
        if len(saves) == n_saves:
            raise CutShort

    with monkeypatch.context() as patch:
        patch.setattr(resume, "_save", save_and_die)
        try:
            fit(vectors, path, settings, **changes)
        except CutShort:
            return True
    return False


@pytest.fixture
def vectors(rng):
    return rng.standard_normal((400, 12), dtype=np.float32)


def same(mine, theirs):
    arrays = [*mine.codebooks, *mine.prices], [*theirs.codebooks, *theirs.prices]
    return (
        mine.balance == theirs.balance
        and len(arrays[0]) == len(arrays[1])
        and all(map(np.array_equal, *arrays))
    )


@pytest.mark.parametrize("balance", ["none", "capacity"])
def test_cut_after_any_pass_it_ends_in_the_same_bytes(
    tmp_path, monkeypatch, vectors, caplog, balance
):
    settings = {"balance": balance}
    whole = fit(vectors, None, **settings)
    caplog.set_level(logging.INFO)
    n_saves = 1
    while cut_after(monkeypatch, n_saves, vectors, tmp_path / f"{n_saves}.state", **settings):
        caplog.clear()
        assert same(fit(vectors, tmp_path / f"{n_saves}.state", **settings), whole)
        assert "resuming after" in caplog.text
        n_saves += 1
    assert n_saves > 6


def test_cut_again_and_again(tmp_path, monkeypatch, vectors):
    cuts = 0
    while cut_after(monkeypatch, 1, vectors, tmp_path / "state"):
        cuts += 1
    assert cuts > 6
    assert same(fit(vectors, tmp_path / "state"), fit(vectors, None))


@pytest.mark.parametrize("change", ["seed", "code", "data", "damage"])
def test_the_state_of_another_training_is_not_used(tmp_path, monkeypatch, vectors, change, caplog):
    caplog.set_level(logging.INFO)
    path = tmp_path / "state"
    assert cut_after(monkeypatch, 5, vectors, path)
    settings = {"seed": {"seed": 1}, "code": {"code": "changed"}}.get(change, {})
    if change == "data":
        vectors = vectors.copy()
        vectors[399, 11] += 1
    if change == "damage":
        path.write_bytes(path.read_bytes()[:-9])
    caplog.clear()
    assert same(fit(vectors, path, **settings), fit(vectors, None, **settings))
    assert "starts from the beginning" in caplog.text


def swapped(vectors):
    """Two rows in each other's place."""
    vectors[[3, 250]] = vectors[[250, 3]]
    return vectors


SAME_STATISTICS = {
    "sorted": lambda vectors: vectors[np.argsort(vectors[:, 0])],
    "backwards": lambda vectors: vectors[::-1].copy(),
    "two rows swapped": swapped,
    "columns swapped": lambda vectors: vectors[:, ::-1].copy(),
    "signs flipped": lambda vectors: -vectors,
    "every second sign flipped": lambda vectors: vectors * ([1, -1] * 6),
}


@pytest.mark.parametrize("n_saves", [2, 6])
@pytest.mark.parametrize("limit", [None, 20])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("change", SAME_STATISTICS)
def test_other_data_of_the_same_sums_starts_anew(
    tmp_path, monkeypatch, vectors, caplog, change, dtype, limit, n_saves
):
    """Integers: every sum of squares is exact, whatever the order of the rows."""
    vectors = np.round(4 * vectors).astype(dtype)
    settings = {"max_points_per_centroid": limit}
    caplog.set_level(logging.INFO)
    assert cut_after(monkeypatch, n_saves, vectors, tmp_path / "state", **settings)
    other = SAME_STATISTICS[change](vectors.copy()).astype(dtype)
    caplog.clear()
    assert same(fit(other, tmp_path / "state", **settings), fit(other, None, **settings))
    assert "starts from the beginning" in caplog.text


def test_a_state_of_other_memory_is_used(tmp_path, monkeypatch, vectors, caplog):
    """Memory changes no byte, so it is no part of what a state belongs to."""
    caplog.set_level(logging.INFO)
    assert cut_after(monkeypatch, 5, vectors, tmp_path / "state")
    found = fit(vectors, tmp_path / "state", memory_mb=999)
    assert "resuming after" in caplog.text
    assert same(found, fit(vectors, None))


def test_discard_leaves_nothing_and_may_be_repeated(tmp_path, vectors):
    fit(vectors, tmp_path / "state")
    assert (tmp_path / "state").exists()
    for _ in range(2):
        resume.discard(tmp_path / "state")
    assert not list(tmp_path.iterdir())
