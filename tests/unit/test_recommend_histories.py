"""Windows and queries: nothing lost, nothing leaked, every epoch its own order."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recommend_data import catalogue, write

from sidmill.core.errors import SidmillError
from sidmill.formats import (
    item_index,
    memory_maps,
    sequence_table,
    vector_store,
)
from sidmill.io import id_lookup
from sidmill.recommend import checkpoint, item_features, windows
from sidmill.settings.recommend import Recommender

ITEMS = catalogue()
BATCHES = Recommender(batch_users=3, max_length=4, shuffle_users=8)


def histories_and_splits():
    item = st.tuples(st.integers(1, 24), st.sampled_from([0, 0, 1, 2]))
    return st.lists(st.lists(item, min_size=1, max_size=12), min_size=1, max_size=12)


def batches(path, epoch=0, n_sorted=1):
    return list(windows.training_batches(path, ITEMS, BATCHES, 1, epoch, n_sorted))


@settings(max_examples=30, deadline=None)
@given(histories_and_splits(), st.sampled_from([1, 2, 5]))
def test_every_training_target_comes_once_after_what_went_before_it(
    tmp_path_factory, rows, n_sorted
):
    path = tmp_path_factory.mktemp("sequences") / "sequences.parquet"
    write(path, [[i for i, _ in row] for row in rows], [[s for _, s in row] for row in rows])
    train = [[item - 1 for item, split in row if split == 0] for row in rows]
    wanted = Counter(pair for row in train for pair in pairwise(row))
    found = Counter()
    for batch in batches(path, n_sorted=n_sorted):
        inside = batch.targets != windows.NO_TARGET
        assert batch.inputs.shape[1] <= 4
        found.update(zip(batch.inputs[inside], batch.targets[inside], strict=True))
        for inputs, targets, kept in zip(batch.inputs, batch.targets, inside, strict=True):
            window = [*inputs[kept], targets[kept][-1]]
            assert any(
                window == row[start : start + len(window)]
                for row in train
                for start in range(len(row))
            )
    assert found == wanted


@settings(max_examples=30, deadline=None)
@given(histories_and_splits())
def test_items_met_are_those_of_the_training_batches(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("sequences") / "sequences.parquet"
    write(path, [[i for i, _ in row] for row in rows], [[s for _, s in row] for row in rows])
    had, followed = windows.training_masks(path, ITEMS)
    wanted = {item - 1 for row in rows for item, split in row if split == 0}
    assert set(np.flatnonzero(had)) == wanted
    targets = [batch.targets[batch.targets != windows.NO_TARGET] for batch in batches(path)]
    assert set(np.flatnonzero(followed)) == {int(i) for part in targets for i in part}


def test_epochs_differ_in_order_and_a_seed_repeats_them(tmp_path):
    path = write(tmp_path / "s.parquet", [[i % 24 + 1, (i + 1) % 24 + 1, 3, 4] for i in range(40)])
    first, again, other = batches(path), batches(path), batches(path, epoch=1)
    assert all(np.array_equal(a.inputs, b.inputs) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a.inputs, b.inputs) for a, b in zip(first, other, strict=True))


def test_sorted_batches_have_less_padding_and_an_order_that_is_drawn(tmp_path):
    lengths = np.random.default_rng(0).integers(2, 9, size=96)
    rows = [[int(1 + (user + k) % 24) for k in range(n)] for user, n in enumerate(lengths)]
    path = write(tmp_path / "s.parquet", rows, [[0] * len(row) for row in rows])
    padding = {
        n: sum(int((batch.targets == windows.NO_TARGET).sum()) for batch in batches(path, 0, n))
        for n in (1, 32)
    }
    assert padding[32] < padding[1] / 2
    first, again, other = (
        [batch.inputs.tolist() for batch in batches(path, epoch, 2)] for epoch in (0, 0, 1)
    )
    assert first == again
    assert first != other
    widths = [len(batch[0]) for batch in first]
    assert widths != sorted(widths)


def test_groups_are_shuffled_and_no_user_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(windows, "GROUP_USERS", 4)
    rows = [[user % 24 + 1] * 2 + [1, 1] for user in range(24)]
    path = write(tmp_path / "s.parquet", rows)
    seen = [batch.inputs[:, 0] for batch in batches(path)]
    assert sorted(np.concatenate(seen)) == list(range(24))
    assert list(np.concatenate(seen)) != sorted(np.concatenate(seen))


def test_a_query_sees_what_goes_before_its_target_and_nothing_else(tmp_path):
    path = write(tmp_path / "s.parquet", [[5, 6, 7, 8], [9], [3, 4]], [[0, 1, 2, 2], [2], [2, 1]])
    (group,) = windows.read_groups(path, ITEMS)
    asked = windows.queries(group, sequence_table.TEST)
    assert asked.users.tolist() == [0, 0]
    assert asked.n_without_history == 2
    spans = zip(asked.begins, asked.positions, strict=True)
    assert [(asked.numbers[b:p] + 1).tolist() for b, p in spans] == [[5, 6], [5, 6, 7]]
    assert (asked.numbers[asked.positions] + 1).tolist() == [7, 8]


def test_an_item_without_an_embedding_is_named(tmp_path):
    path = write(tmp_path / "s.parquet", [[1, 2, 99]])
    with pytest.raises(SidmillError, match=r"1 interactions .* first 99"):
        batches(path)


def test_ids_of_another_type_are_refused(tmp_path):
    path = write(tmp_path / "s.parquet", [["a", "b", "c"]], pid_type=pa.string())
    with pytest.raises(SidmillError, match=r"string, those of the catalogue int64"):
        batches(path)


HOLDERS = {
    "plain": lambda ids: ids,
    "slice": lambda ids: pa.concat_arrays([ids[:1], ids])[1:],
    "taken": lambda ids: ids.take(pa.array(np.arange(len(ids)))),
    "mask": lambda ids: pa.array(ids.to_pylist(), ids.type, mask=np.zeros(len(ids), bool)),
    "large": lambda ids: ids.cast(pa.large_string() if ids.type == pa.string() else pa.int64()),
    "dictionary": lambda ids: ids.dictionary_encode().cast(ids.type),
    "pieces": lambda ids: pa.chunked_array([ids[:3], ids[3:]]).combine_chunks(),
}


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("kind", ["integers", "texts"])
def test_items_are_told_by_the_values_of_their_ids(holder, kind):
    ids = list(range(3, 11)) if kind == "integers" else [f"id {n}é" for n in range(8)]
    known = catalogue(8, 4, ids)
    held = item_features.of(HOLDERS[holder](known.ids), known.vectors, known.fingerprint)
    assert checkpoint.identify(held) == checkpoint.identify(known)
    for other in (ids[::-1], [*ids[:-1], ids[-1] * 2]):
        assert checkpoint.identify(catalogue(8, 4, other)) != checkpoint.identify(known)
    joined = pa.array(["ab", "c"]), pa.array(["a", "bc"])
    assert len({checkpoint.digest_of_ids(ids) for ids in joined}) == 2


@pytest.mark.parametrize("ids", [[7, 3, 1_000], ["x", "y", "007"]])
def test_memory_maps_give_the_items_of_the_vectors(tmp_path, ids):
    known = catalogue(3, 4, ids)
    numbers = item_index.number(pa.chunked_array([known.ids]), "here")
    memory_maps.write(
        tmp_path / "mmap.json", numbers, (3, 4), [known.vectors], {"backend": "random"}
    )
    item_index.write(tmp_path / "item_index.parquet", pa.chunked_array([known.ids]), numbers)
    opened = item_features.load(None, None, tmp_path / "mmap.json")
    order = id_lookup.find(opened.numbers, pa.array(ids))
    np.testing.assert_array_equal(opened.vectors[order], known.vectors)
    assert opened.fingerprint == known.fingerprint
    assert item_features.look_up(opened, pa.array(ids), "here").tolist() == order.tolist()
    if isinstance(ids[0], str):  # rows of the maps are those of the catalogue
        assert checkpoint.identify(opened) == checkpoint.identify(known)


def test_items_leave_no_page_of_their_file_behind(tmp_path, resident_kib):
    known = catalogue(9000, 16)
    np.save(tmp_path / "vectors.npy", known.vectors)
    stored = item_features.of(known.ids, vector_store.open_npy(tmp_path / "vectors.npy"), {})
    some = np.array([8999, 0, 17, 17, 4096])
    whitening = item_features.measure_whitening(stored)
    for mine, wanted in zip(whitening, item_features.measure_whitening(known), strict=True):
        np.testing.assert_array_equal(mine, wanted)
    np.testing.assert_array_equal(item_features.gather(stored, None, some), known.vectors[some])
    assert checkpoint.identify(stored) == checkpoint.identify(known._replace(fingerprint={}))
    assert resident_kib(tmp_path / "vectors.npy") == 0
    stored.vectors[some]
    assert resident_kib(tmp_path / "vectors.npy") > 0


def test_whitened_vectors_are_centred_and_uncorrelated():
    known = catalogue(2000, 6)
    skewed = item_features.of(
        known.ids, known.vectors @ np.diag([1, 2, 3, 4, 5, 9.0]).astype("f4") + 7, {}
    )
    white = item_features.gather(
        skewed, item_features.measure_whitening(skewed), np.arange(len(skewed.vectors))
    )
    np.testing.assert_allclose(white.mean(axis=0), 0, atol=1e-4)
    correlation = np.corrcoef(white.T)
    np.testing.assert_allclose(correlation, np.eye(6), atol=1e-3)
    assert 0.5 < white.std(axis=0).min() <= white.std(axis=0).max() < 1.01
