"""Which trainings go on from a checkpoint: the same one, and one on whose way it lies."""

import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_rqvae import DIM, SEED, files, same, train

from sidmill.core.errors import SidmillError
from sidmill.formats import quantizer_file, vector_store
from sidmill.formats.quantizer_file import Quantizer
from sidmill.io import tensors
from sidmill.quantize.rqvae import checkpoints, data
from sidmill.quantize.rqvae import train as epochs
from sidmill.settings.quantize import Rqvae

N_ROWS = 40
SMALL = {
    "codebook_sizes": [2, 2],
    "e_dim": 3,
    "layers": [6],
    "test_ratio": 0.0,
    "batch_size": 16,
    "epochs": 2,
    "save_limit": 2,
}


class Asked(BaseException):
    """Raised where a training looks for its checkpoint."""


@pytest.fixture
def rows(rng):
    """Whole numbers: sums and sums of squares are exact, in any order."""
    return rng.integers(-9, 9, size=(N_ROWS, DIM)).astype(np.float32)


@pytest.fixture
def identity_of(tmp_path, monkeypatch):
    """What names a training; nothing is trained."""

    def ask(folder, state, identity, *rest, **more):
        raise Asked(identity)

    def identity(items, **settings):
        np.save(tmp_path / "v.npy", items)
        with pytest.raises(Asked) as asked:
            train(str(tmp_path / "v.npy"), tmp_path / "c", **(SMALL | settings))
        return asked.value.args[0]

    monkeypatch.setattr(checkpoints, "load", ask)
    return identity


def test_rows_in_another_order_are_other_data(identity_of, rows, rng):
    """Whatever sums they share."""
    known = identity_of(rows)
    assert identity_of(rows.copy()) == known
    for share in (0.0, 0.3):
        known = identity_of(rows, test_ratio=share)
        for _ in range(8):
            assert identity_of(rows[rng.permutation(N_ROWS)], test_ratio=share) != known
    swapped = rows.copy()
    swapped[[3, 4]] = swapped[[4, 3]]
    assert identity_of(swapped) != identity_of(rows)


@pytest.mark.parametrize("held", [True, False], ids=["held out", "trained on"])
def test_rows_of_other_signs_or_places_are_other_data(identity_of, rows, held):
    settings = {"test_ratio": 0.3}
    known = identity_of(rows, **settings)
    chosen = np.flatnonzero(data.held_out(N_ROWS, 0.3, SEED) == held)
    for change in (lambda part: -part, lambda part: part[::-1], lambda part: part[:, ::-1]):
        other = rows.copy()
        other[chosen] = change(other[chosen])
        assert identity_of(other, **settings) != known


def test_the_same_vectors_in_another_file_or_read_by_batches_are_the_same_data(
    identity_of, tmp_path, rows
):
    known = identity_of(rows)
    np.save(tmp_path / "one.npy", rows[:15])
    np.save(tmp_path / "two.npy", rows[15:])
    parts = [str(tmp_path / name) for name in ("one.npy", "two.npy")]
    assert identity_of(rows, data_paths=parts) == known
    assert identity_of(rows, data_paths=parts[::-1]) != known


def test_other_partners_are_another_training(identity_of, tmp_path, rows):
    """The same items in other pairs: as many pairs, and every item as often."""
    ids = pa.chunked_array([range(N_ROWS)])
    vector_store.write_ids(tmp_path / "ids.parquet", ids, (N_ROWS, DIM), {})
    found = []
    for partners in ([1, 2, 3, 4], [2, 1, 4, 3], [2, 1, 4, 3]):
        table = pa.table({"pid_a": [5, 6, 7, 8], "pid_b": partners})
        pq.write_table(table, tmp_path / "pairs.parquet")
        pairs = {"contrastive_weight": 1.0, "ids": str(tmp_path / "ids.parquet")}
        found.append(identity_of(rows, pairs_path=str(tmp_path / "pairs.parquet"), **pairs))
    assert found[0] != found[1] == found[2]


def test_other_codebooks_to_start_from_are_another_training(identity_of, tmp_path, rows):
    book = np.arange(2 * DIM, dtype=np.float32).reshape(2, DIM)
    found = []
    for words in (book, -book, book[::-1].copy(), book[:, ::-1].copy(), book):
        books = [words, np.zeros_like(words)]
        quantizer_file.write(tmp_path / "q.safetensors", Quantizer("rqkmeans", books, {}, {}))
        found.append(identity_of(rows, warm_start=str(tmp_path / "q.safetensors")))
    assert all(one != found[0] for one in found[1:4])
    assert found[4] == found[0]


def test_reordered_items_start_another_training_and_the_log_names_it(tmp_path, rows, caplog):
    np.save(tmp_path / "v.npy", rows)
    train(str(tmp_path / "v.npy"), tmp_path / "c", **SMALL)
    np.save(tmp_path / "v.npy", rows[::-1])
    fresh = train(str(tmp_path / "v.npy"), tmp_path / "fresh", **SMALL)
    with caplog.at_level(logging.INFO):
        assert same(train(str(tmp_path / "v.npy"), tmp_path / "c", **SMALL), fresh)
    assert "other data" in caplog.text
    assert "starts from epoch 0" in caplog.text


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("eval_step", [1, 2, 3])
def test_more_or_fewer_epochs_end_as_a_fresh_training_does(
    tmp_path, monkeypatch, rows, schedule, eval_step
):
    """Every file the same, whatever number of epochs the folder was trained for before."""
    np.save(tmp_path / "v.npy", rows)
    path = str(tmp_path / "v.npy")
    settings = SMALL | {"schedule": schedule, "eval_step": eval_step}
    numbers = (2, 3, 4)
    fresh = {}
    for after in numbers:
        train(path, tmp_path / f"{after}", **settings | {"epochs": after})
        fresh[after] = files(tmp_path / f"{after}")
    done = []
    run_epoch = epochs.run_epoch
    monkeypatch.setattr(
        epochs, "run_epoch", lambda *a, **b: done.append(b["epoch"]) or run_epoch(*a, **b)
    )
    for before in numbers:
        for after in numbers:
            folder = tmp_path / f"{before}-{after}"
            folder.mkdir()
            for name, content in fresh[before].items():
                (folder / name).write_bytes(content)
            done.clear()
            train(path, folder, **settings | {"epochs": after})
            assert files(folder) == fresh[after], (before, after)
            goes_on = schedule == "constant" and before < after and before % eval_step == 0
            if before == after:
                assert not done
            elif goes_on:
                assert done[0] == before
            else:
                assert done[0] == 0


@pytest.mark.parametrize("name", ["front", "best_loss", "epoch"])
def test_a_training_whose_checkpoints_are_gone_starts_from_epoch_0(tmp_path, rows, name):
    np.save(tmp_path / "v.npy", rows)
    settings = SMALL | {"schedule": "constant", "choose": "last"}
    train(str(tmp_path / "v.npy"), tmp_path / "c", **settings)
    next((tmp_path / "c").glob(f"{name}*.safetensors")).unlink()
    more = settings | {"epochs": 4}
    train(str(tmp_path / "v.npy"), tmp_path / "c", **more)
    train(str(tmp_path / "v.npy"), tmp_path / "fresh", **more)
    assert files(tmp_path / "c") == files(tmp_path / "fresh")


@pytest.mark.parametrize("remedy", ["delete last", "choose another"])
def test_a_damaged_checkpoint_of_a_finished_training(tmp_path, rows, remedy):
    np.save(tmp_path / "v.npy", rows)
    path = str(tmp_path / "v.npy")
    fresh = train(path, tmp_path / "c", **SMALL)
    chosen = tmp_path / "c/best_collision.safetensors"
    chosen.write_bytes(chosen.read_bytes()[:-9])
    message = r"delete (.*last\.safetensors) and run again, .* or choose another"
    with pytest.raises(SidmillError, match=message):
        train(path, tmp_path / "c", **SMALL)
    if remedy == "delete last":
        (tmp_path / "c/last.safetensors").unlink()
        assert same(train(path, tmp_path / "c", **SMALL), fresh)
    else:
        train(path, tmp_path / "c", **SMALL, choose="best_loss")


def load(folder, *, is_first=True):
    settings = Rqvae(epochs=2, eval_step=2)
    return checkpoints.load(folder, None, {"a": 1}, settings, is_first=is_first)


def test_one_process_alone_removes_old_files(tmp_path):
    for number in range(5):
        (tmp_path / f"epoch-{number}.safetensors").write_bytes(b"")
    tensors.write(tmp_path / "last.safetensors", {}, {"identity": {"a": 2}})
    before = files(tmp_path)
    assert load(tmp_path, is_first=False) == checkpoints.NOTHING
    assert files(tmp_path) == before
    assert load(tmp_path) == checkpoints.NOTHING
    assert not files(tmp_path)


def test_a_file_that_another_run_removed_meanwhile_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "epoch-1.safetensors").write_bytes(b"")
    listed = [*tmp_path.glob("*"), tmp_path / "gone.safetensors"]
    monkeypatch.setattr(Path, "glob", lambda *arguments: iter(listed))
    assert load(tmp_path) == checkpoints.NOTHING
    assert not (tmp_path / "epoch-1.safetensors").exists()
