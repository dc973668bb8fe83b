"""Training learns what is there, resumes to the same bytes, and says what is wrong."""

import json
import logging

import numpy as np
import pytest
import recommend_data
import torch
from recommend_data import catalogue, chains, write

from sidmill.core.errors import SidmillError
from sidmill.recommend import (
    checkpoint,
    metrics,
    rank,
    score,
    state,
    training_loop,
    windows,
)
from sidmill.settings import base
from sidmill.settings.recommend import Recommender

ITEMS = catalogue()


class CutShort(BaseException):
    """What a kill is to a program: nothing after it runs."""


@pytest.fixture
def sequences(tmp_path):
    return write(tmp_path / "sequences.parquet", chains())


def fit(path, items=ITEMS, **settings):
    return recommend_data.fit(path, items, **settings)


def hit_rate(fitted, path, items=ITEMS):
    known = score.catalogue(fitted, items)
    parts = (windows.queries(group, 2) for group in windows.read_groups(path, items))
    found = rank.rank(
        score.scorer(fitted, known),
        parts,
        len(items.vectors),
        mask_seen=False,
        memory_mb=16,
    )
    return metrics.mean(found, "HR@1")


def weights(fitted):
    return checkpoint.arrays_of(fitted.model, "")


def same(mine, theirs):
    return mine.keys() == theirs.keys() and all(np.array_equal(mine[k], theirs[k]) for k in mine)


@pytest.mark.parametrize(
    "settings",
    [
        {"features": "text"},
        {"features": "id"},
        {"features": "text+id", "adaptor": "moe", "n_interests": 3},
        {"loss": "in_batch"},
    ],
    ids=lambda settings: " ".join(map(str, settings.values())),
)
def test_it_learns_what_follows_what(sequences, settings):
    fitted, curve = fit(sequences, max_epochs=25, patience=25, **settings)
    assert hit_rate(fitted, sequences) > 0.9
    assert curve[-1]["loss"] < curve[0]["loss"]


def with_new_items(share=0.2):
    """ITEMS, and after them 24 that nobody had, each with nearly the text of one of them."""
    noise = np.random.default_rng(1).standard_normal(ITEMS.vectors.shape, dtype=np.float32)
    new = np.sqrt(1 - share**2) * ITEMS.vectors + share * noise
    return catalogue(48)._replace(vectors=np.concatenate([ITEMS.vectors, new], dtype=np.float32))


def places(fitted, items, history):
    """Where each item stands in the list after a history of item numbers: 0 is first."""
    begin, end = np.array([0]), np.array([len(history)])
    asked = windows.Queries(np.array([0]), begin, end, np.array(history, np.int32), 0)
    scores = score.scorer(fitted, score.catalogue(fitted, items))(asked)(slice(None))[0]
    return scores.argsort(descending=True).argsort().numpy()


@pytest.mark.parametrize("loss", ["full", "in_batch"])
@pytest.mark.parametrize("features", ["text", "text+id"])
def test_an_item_that_nobody_had_is_taken_for_what_its_text_says(sequences, features, loss):
    items = with_new_items()
    fitted, _ = fit(sequences, items, features=features, loss=loss, max_epochs=15, patience=15)
    as_answer, as_history = [], []
    for first in range(24):
        second, third, fourth = ((first + step) % 24 for step in (1, 2, 3))
        as_answer.append(places(fitted, items, [first, second, third])[24 + fourth])
        as_history.append(places(fitted, items, [first, second, 24 + third])[fourth])
    assert np.median(as_answer) <= 2  # of 48; the item that it is like stands before it
    assert np.median(as_history) <= 1
    if features == "text+id":
        assert not fitted.model.ids.weight[24:].any()


@pytest.mark.parametrize("loss", ["full", "in_batch"])
def test_an_item_that_was_never_the_right_answer_is_not_trained_away(tmp_path, loss):
    rows = [[row[0] + 24, *row[1:]] for row in chains(n_users=120)]  # begun with one like the first
    path, items = write(tmp_path / "sequences.parquet", rows), with_new_items()
    fitted, _ = fit(path, items, features="text+id", loss=loss, max_epochs=15, patience=15)
    found = [places(fitted, items, [k, (k + 1) % 24])[24 + (k + 2) % 24] for k in range(24)]
    assert np.median(found) <= 2


@pytest.mark.parametrize("features", ["text", "text+id"])
def test_cut_after_any_save_it_ends_in_the_same_bytes(tmp_path, monkeypatch, sequences, features):
    settings = {"features": features, "n_interests": 3, "max_epochs": 2}
    whole, curve = fit(sequences, **settings)
    path = tmp_path / "state"
    save = state.save
    for n_saves in range(1, 20):
        left = [n_saves]

        def save_and_die(*arguments, left=left):
            save(*arguments)
            left[0] -= 1
            if not left[0]:
                raise CutShort

        path.unlink(missing_ok=True)
        with monkeypatch.context() as patch:
            patch.setattr(state, "save", save_and_die)
            try:
                fit(sequences, state_path=path, **settings)
            except CutShort:
                pass
            else:
                break
        torch.manual_seed(n_saves)  # whatever else ran in between
        resumed, resumed_curve = fit(sequences, state_path=path, **settings)
        assert same(weights(resumed), weights(whole)), f"cut after save {n_saves}"
        assert resumed_curve == curve
    assert n_saves > 5


def test_the_state_of_another_training_is_not_used(tmp_path, sequences, caplog, monkeypatch):
    path = tmp_path / "state"
    fit(sequences, state_path=path, seed=1)
    with caplog.at_level(logging.INFO):
        resumed, _ = fit(sequences, state_path=path)
    assert "belongs to another training" in caplog.text
    assert same(weights(resumed), weights(fit(sequences)[0]))
    caplog.clear()
    with caplog.at_level(logging.INFO):
        fit(sequences, state_path=path, code="other")
    assert "belongs to another training" in caplog.text
    # One value of one item, which no sample of the vectors need hold.
    monkeypatch.setattr(checkpoint, "SAMPLE_ROWS", 2)
    other = catalogue()
    other.vectors[11, 3] += 0.5
    fit(sequences, state_path=path)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        fit(sequences, items=other, state_path=path)
    assert "belongs to another training" in caplog.text
    path.write_bytes(b"damaged")
    assert same(weights(fit(sequences, state_path=path)[0]), weights(resumed))


MACHINE = {"memory_mb": (16, 40, 1024), "save_steps": (1, 3, 1000)}


def test_these_are_the_settings_of_the_machine():
    assert base.machine_keys(Recommender) == ["save_steps", "device", "memory_mb"]


@pytest.mark.parametrize("key", MACHINE)
@pytest.mark.parametrize("features", ["text", "text+id"])
def test_a_setting_of_the_machine_changes_no_byte(tmp_path, monkeypatch, sequences, key, features):
    monkeypatch.setattr(rank, "MIB", 2**9)  # blocks of 16, 48 and all rows
    made = set()
    for value in MACHINE[key]:
        fitted, curve = fit(
            sequences, features=features, state_path=tmp_path / "state", **{key: value}
        )
        checkpoint.save(tmp_path / "model", fitted)
        state.discard(tmp_path / "state")
        made.add(((tmp_path / "model").read_bytes(), json.dumps(curve)))
    assert len(made) == 1


def test_the_best_epoch_is_kept_and_training_ends_when_it_is_past(sequences):
    fitted, curve = fit(sequences, max_epochs=60, patience=2, learning_rate=0.03)
    best = max(range(len(curve)), key=lambda epoch: curve[epoch]["valid"])
    assert best < len(curve) - 1 < 59
    kept, _ = fit(sequences, max_epochs=best + 1, patience=60, learning_rate=0.03)
    assert same(weights(fitted), weights(kept))


def test_a_checkpoint_reads_back_and_is_a_start(tmp_path, sequences):
    fitted, _ = fit(sequences, n_interests=3, max_epochs=8, patience=8)
    path = tmp_path / "model.safetensors"
    checkpoint.save(path, fitted)
    read = checkpoint.load(path, torch.device("cpu"))
    assert same(weights(read), weights(fitted))
    assert hit_rate(read, sequences) == hit_rate(fitted, sequences)
    _, curve = fit(sequences, n_interests=3, start=path, max_epochs=1)
    _, from_nothing = fit(sequences, n_interests=3, max_epochs=1)
    assert curve[0]["loss"] < 0.7 * from_nothing[0]["loss"]
    with pytest.raises(SidmillError, match=r"n_interests 3, not 0.*set the same values"):
        fit(sequences, start=path)


def test_a_model_of_text_is_a_start_for_another_catalogue(tmp_path, sequences):
    path = tmp_path / "model.safetensors"
    checkpoint.save(path, fit(sequences, max_epochs=1)[0])
    larger = catalogue(40, seed=1)
    fitted, _ = fit(sequences, items=larger, start=path, max_epochs=1)
    assert fitted.model.shape.n_items == 40


def test_a_model_is_refused_where_it_does_not_belong(tmp_path, sequences):
    path = tmp_path / "model.safetensors"
    checkpoint.save(path, fit(sequences, features="text+id", max_epochs=1)[0])
    fitted = checkpoint.load(path, torch.device("cpu"))
    elsewhere = ITEMS._replace(fingerprint={"backend": "other"})
    with pytest.raises(SidmillError, match="was trained on embeddings"):
        checkpoint.check_items(fitted, checkpoint.identify(elsewhere), path)
    others = catalogue(ids=np.arange(100, 124))
    with pytest.raises(SidmillError, match=r"these are others.*features to text"):
        checkpoint.check_items(fitted, checkpoint.identify(others), path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_dim": 18}, "multiple of 4"),
        ({"n_interests": 25}, "at most 12"),
        ({"learning_rate": 1e12, "temperature": 1e-30}, "lower recommender.learning_rate"),
    ],
)
def test_settings_that_do_not_fit_say_what_to_change(sequences, settings, message):
    with pytest.raises(SidmillError, match=message):
        fit(sequences, **settings)


def test_nothing_to_learn_from_stops_the_run(tmp_path):
    path = write(tmp_path / "s.parquet", [[1, 2, 3], [4, 5, 6]])
    with pytest.raises(SidmillError, match="no user has two items in the split train"):
        fit(path)


def test_weights_that_the_last_step_spoils_are_no_model(monkeypatch, sequences):
    """The loss of that step is finite, and without validation every epoch is the best."""
    step = training_loop._take_step

    def spoil(training, *arguments):
        found = step(training, *arguments)
        next(training.model.parameters()).data.fill_(torch.nan)
        return found

    once = {"batch_users": 10_000, "shuffle_users": 10_000, "max_epochs": 1}
    with monkeypatch.context() as patch:
        patch.setattr(training_loop, "_take_step", spoil)
        with pytest.raises(SidmillError, match=r"not finite after epoch 0: lower .*learning_rate"):
            fit(sequences, **once)
    assert len(fit(sequences, **once)[1]) == 1


@pytest.mark.parametrize("kind", ["zeros", "equal", "one zero", "one direction"])
@pytest.mark.parametrize("n_users", [1, 17])
def test_vectors_without_length_or_spread_train(tmp_path, kind, n_users):
    """A last batch of one window, and text that says nothing."""
    known = catalogue()
    rows = known.vectors.copy()
    if kind == "one direction":
        rows = rows[:, :1] * np.ones_like(rows)
    else:
        rows[: 1 if kind == "one zero" else None] = rows[0] if kind == "equal" else 0
    path = write(tmp_path / "s.parquet", chains(n_users))
    for settings in ({"whiten": True}, {"whiten": False, "adaptor": "moe", "loss": "in_batch"}):
        fitted, curve = fit(path, known._replace(vectors=rows), **settings, batch_users=4)
        assert all(np.isfinite(part).all() for part in weights(fitted).values())
        assert np.isfinite(curve[-1]["loss"])


def test_without_validation_items_the_last_epoch_is_kept(tmp_path):
    rows = chains()
    path = write(tmp_path / "s.parquet", rows, [[0] * len(row) for row in rows])
    _, curve = fit(path, max_epochs=3, patience=1)
    assert [entry["valid"] for entry in curve] == [None] * 3
