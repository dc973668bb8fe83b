"""Batches hold what the files hold, in every kind of process; the order is seeded."""

import pickle
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from sidmill.core.errors import SidmillError
from sidmill.formats import item_data, sequence_data
from sidmill.loaders import create_h5_dataloader

N_ITEMS, DIM = 50, 4


def write(folder, histories, times=None, item_ids=None, seed=0):
    ids = np.arange(1, N_ITEMS + 1) if item_ids is None else np.array(item_ids)
    values = np.random.default_rng(seed).standard_normal((len(ids), DIM)).astype(np.float32)
    features = np.zeros((len(ids), 2), dtype=np.int32)
    block = item_data.Block(values, features, features[:, 0])
    item_data.write(folder / "i.h5", ids, DIM, 2, [block])
    offsets = np.cumsum([0, *map(len, histories)])
    flat = [item for items in histories for item in items]
    said = None if times is None else np.array([time for row in times for time in row])
    users = [f"u{row}" for row in range(len(histories))]
    rows = sequence_data.Block(users, offsets, np.array(flat), said)
    sequence_data.write(folder / "s.h5", len(users), times is not None, [rows])
    return folder / "i.h5", folder / "s.h5", dict(zip(ids.tolist(), values, strict=True))


def make(count, seed=0, longest=12):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, longest, count)
    return [rng.integers(1, N_ITEMS + 1, size).tolist() for size in sizes]


def samples(loader):
    """User to history, target, and vectors, of one epoch; every user once."""
    found = {}
    for batch in loader:
        for row, user in enumerate(batch["user_ids"].tolist()):
            mask = batch["seq_mask"][row]
            assert user not in found
            assert (batch["ids"][row][~mask] == -1).all()
            assert (batch["x"][row][~mask] == -1).all()
            history = batch["ids"][row][mask].tolist()
            found[user] = (history, batch["ids_fut"][row].tolist(), batch["x"][row][mask])
    return found


def test_training_samples_are_whole_histories_without_a_target(tmp_path):
    histories = make(700)
    items, sequences, vectors = write(tmp_path, histories)
    loader = create_h5_dataloader(items, sequences, 32, test_ratio=0)
    batch = next(iter(loader))
    assert {name: (value.dtype, tuple(value.shape)) for name, value in batch.items()} == {
        "user_ids": (torch.int64, (32,)),
        "ids": (torch.int64, (32, 200)),
        "ids_fut": (torch.int64, (32, 1)),
        "x": (torch.float32, (32, 200, DIM)),
        "x_fut": (torch.float32, (32, 1, DIM)),
        "seq_mask": (torch.bool, (32, 200)),
    }
    assert (batch["x_fut"] == -1).all()
    found = samples(loader)
    assert {user: sample[0] for user, sample in found.items()} == dict(enumerate(histories))
    for history, target, x in found.values():
        assert target == [-1]
        assert (x.numpy() == np.array([vectors[item] for item in history])).all()
    assert loader.dataset.names(batch["user_ids"]) == [f"u{u}" for u in batch["user_ids"].tolist()]


def test_validation_samples_end_before_their_target(tmp_path):
    histories = make(100)
    items, sequences, vectors = write(tmp_path, histories)
    loader = create_h5_dataloader(
        items, sequences, 16, max_seq_len=5, train_test_split="test", test_ratio=0.3
    )
    found = samples(loader)
    wanted = {user: items for user, items in enumerate(histories) if user >= 70 and len(items) > 1}
    assert {user: (s[0], s[1]) for user, s in found.items()} == {
        user: (items[:-1][-5:], items[-1:]) for user, items in wanted.items()
    }
    for batch in loader:
        for target, x in zip(batch["ids_fut"][:, 0].tolist(), batch["x_fut"][:, 0], strict=True):
            assert (x.numpy() == vectors[target]).all()


def test_train_and_test_share_no_user_and_split_by_time_where_there_is_one(tmp_path):
    histories = [[1, 2]] * 20
    last = np.random.default_rng(3).permutation(20)
    items, sequences, _ = write(tmp_path, histories, [[0, int(time)] for time in last])
    parts = {
        part: set(samples(create_h5_dataloader(items, sequences, 3, 9, part, True, 0.25)))
        for part in ("train", "test", "all")
    }
    assert parts["test"] == {user for user, time in enumerate(last) if time >= 15}
    assert parts["train"] == parts["all"] - parts["test"]
    assert len(parts["all"]) == 20


class SeqBatch(NamedTuple):
    """A consumer's own tuple, with the fields that trainers of this form name."""

    user_ids: torch.Tensor
    ids: torch.Tensor
    ids_fut: torch.Tensor
    x: torch.Tensor
    x_fut: torch.Tensor
    seq_mask: torch.Tensor


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_batch_answers_by_key_by_attribute_and_as_a_tuple_does(tmp_path, num_workers):
    items, sequences, _ = write(tmp_path, make(20))
    loader = create_h5_dataloader(items, sequences, 8, 9, num_workers=num_workers)
    for batch in [*loader, loader.dataset[3], next(iter(loader)).to("cpu")]:
        assert batch._fields == tuple(batch) == SeqBatch._fields
        for name in SeqBatch._fields:
            assert getattr(batch, name) is batch[name] is batch._asdict()[name]
        moved = SeqBatch(*[value.to("cpu") for _, value in batch._asdict().items()])
        assert moved.x is batch.x
        assert torch.equal(SeqBatch(**batch).ids, batch.ids)
        assert torch.equal(pickle.loads(pickle.dumps(batch)).x, batch.x)
        assert not hasattr(batch, "y")


def parts_of(items, sequences, **settings):
    """Users of training and of validation."""
    return [
        samples(create_h5_dataloader(items, sequences, 8, train_test_split=part, **settings))
        for part in ("train", "test")
    ]


@pytest.mark.parametrize("timed", [False, True])
def test_every_sequence_is_trained_and_validated_unless_a_split_is_asked_for(tmp_path, timed):
    histories = make(60)
    times = [[1000 - row] * len(items) for row, items in enumerate(histories)] if timed else None
    items, sequences, _ = write(tmp_path, histories, times)
    long = {user for user, items in enumerate(histories) if len(items) > 1}

    # By default all users are in both, whole in training, all but the last item in validation.
    train, valid = parts_of(items, sequences)
    assert set(train) == set(range(60))
    assert set(valid) == long
    for user, (history, target, _) in valid.items():
        assert (history, target) == (histories[user][:-1], histories[user][-1:])
    for name in ("eval", "valid"):
        again = samples(create_h5_dataloader(items, sequences, 8, train_test_split=name))
        assert set(again) == long

    # A share, or a way to split, holds users out.
    last = set(range(48, 60))
    latest = set(range(12)) if timed else last
    cases = [({"test_ratio": 0.2}, latest), ({"split_by": "auto"}, latest)]
    cases += [({"split_by": "index"}, last)]
    cases += [({"split_by": "time", "test_ratio": 0.2}, latest)] if timed else []
    for asked, held_out in cases:
        train, valid = parts_of(items, sequences, **asked)
        assert set(train) == set(range(60)) - held_out
        assert set(valid) == held_out & long


@pytest.mark.parametrize("padding", [0.0, -1.0, 7.5])
def test_padding_is_what_was_asked_for(tmp_path, padding):
    items, sequences, _ = write(tmp_path, make(20))
    for batch in create_h5_dataloader(items, sequences, 8, padding_value=padding):
        assert (batch.x[~batch.seq_mask] == padding).all()
        assert (batch.x_fut == padding).all()
        assert (batch.ids[~batch.seq_mask] == -1).all()


def test_order_is_seeded_and_changes_by_epoch(tmp_path):
    items, sequences, _ = write(tmp_path, make(700))

    def order(loader):
        return [user for batch in loader for user in batch["user_ids"].tolist()]

    first, second = (create_h5_dataloader(items, sequences, 32, test_ratio=0) for _ in range(2))
    one, two = order(first), order(first)
    assert one == order(second)
    assert one != two
    assert sorted(one) == sorted(two) == list(range(700))
    plain = create_h5_dataloader(items, sequences, 32, shuffle=False, test_ratio=0)
    assert order(plain) == order(plain) == list(range(700))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_give_the_same_batches(tmp_path, method):
    items, sequences, _ = write(tmp_path, make(600))
    loader = create_h5_dataloader(items, sequences, 64, 12, test_ratio=0)
    here = list(loader)  # the files are open in this process now, and blocks are kept
    loader.sampler.set_epoch(0)
    workers = DataLoader(
        loader.dataset,
        batch_size=None,
        sampler=loader.sampler,
        num_workers=2,
        multiprocessing_context=method,
    )
    there = list(workers)
    assert len(here) == len(there) == len(loader)
    for one, other in zip(here, there, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_pickled_dataset_opens_its_own_files(tmp_path):
    items, sequences, _ = write(tmp_path, make(600))
    users = create_h5_dataloader(items, sequences, 64, test_ratio=0).dataset
    rows = np.random.default_rng(0).integers(0, 600, 50)
    before = users[rows]
    stored = pickle.dumps(users)
    assert len(stored) < 10_000
    again = pickle.loads(stored)[rows]
    assert all(torch.equal(before[name], again[name]) for name in before)
    one = users[3]
    assert one["ids"].shape == (200,)
    with pytest.raises(IndexError):
        users[600]


def test_item_ids_with_gaps_and_in_any_order(tmp_path):
    ids = [900, 3, 77, 10**12]
    histories = [[3, 10**12], [77, 900, 3]]
    items, sequences, vectors = write(tmp_path, histories, item_ids=ids)
    for history, _, x in samples(create_h5_dataloader(items, sequences, 2, test_ratio=0)).values():
        assert (x.numpy() == np.array([vectors[item] for item in history])).all()


def test_files_that_do_not_belong_together_are_named(tmp_path):
    items, sequences, _ = write(tmp_path, [[1, 2], [51]])
    with pytest.raises(SidmillError, match=r"s\.h5: item id 51 is not among .* of .*i\.h5"):
        list(create_h5_dataloader(items, sequences, 2, test_ratio=0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size 0"),
        ({"train_test_split": "dev"}, "choose one of train, test"),
        ({"test_ratio": 1.0}, "test_ratio 1.0"),
        ({"split_by": "users"}, "choose one of auto, time, index"),
        ({"split_by": "time"}, "needs the dataset 'timestamps'.* take split_by 'index'"),
        ({"train_test_split": "test", "test_ratio": 0.0}, "no user of 2 is left for 'test'"),
    ],
)
def test_settings_that_make_no_sense(tmp_path, settings, message):
    items, sequences, _ = write(tmp_path, [[1, 2], [3]])
    with pytest.raises(SidmillError, match=message):
        create_h5_dataloader(items, sequences, **settings)
