"""Item vectors fused with training interactions: what is used, what is found, what stays."""

import tracemalloc
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from recommend_data import write

from sidmill.core.errors import SidmillError
from sidmill.formats import quantizer_file, vector_store
from sidmill.formats.quantizer_file import Quantizer
from sidmill.fuse import contrastive, cooccurrence, histories
from sidmill.fuse.fuse import Files, fuse, fuse_folds
from sidmill.io import id_lookup
from sidmill.settings.fuse import Fuse

METHODS = ("graph", "svd", "contrastive")
KEEP_TEXT = ("graph", "svd")  # of items without interactions
SPACE = {"backend": "random", "dim": 16}
N_ITEMS, N_COLD, DIM = 120, 20, 16  # the last N_COLD items are never consumed
MIB = 2**20
# Without whitening and folds, and with less weight: what the oracles below compute.
PLAIN = Fuse(weight=0.3, shrinkage=10.0, whiten=0.0, whiten_dim=None, folds=1)


def fusion(method="none", **others):
    return replace(PLAIN, method=method, **others)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def noise(n_items=N_ITEMS, dim=DIM, seed=0):
    return unit(np.random.default_rng(seed).standard_normal((n_items, dim)))


def random_histories(n_users=80, length=9, n_items=N_ITEMS - N_COLD, seed=1):
    """Items from 1, the last two of each user valid and test."""
    rng = np.random.default_rng(seed)
    return [(rng.choice(n_items, length, replace=False) + 1).tolist() for _ in range(n_users)]


def run(folder, vectors, histories_, settings, *, splits=None, ids=None, seed=0):
    """Write the inputs into a folder, fuse, and open what was written."""
    folder.mkdir()
    ids = pa.array(np.arange(1, len(vectors) + 1) if ids is None else ids)
    files = Files(
        *(folder / name for name in ("vectors.npy", "ids.parquet", "sequences.parquet")),
        *(folder / name for name in ("fused.npy", "fused_ids.parquet")),
    )
    sums = vector_store.write(files.vectors, vectors.shape, vectors.dtype.name, [vectors])
    vector_store.write_ids(files.ids, pa.chunked_array([ids]), vectors.shape, SPACE, sums)
    write(files.sequences, histories_, splits)
    shape = fuse(files, settings, seed=seed)
    store = vector_store.open_store(files.fused, files.fused_ids)
    assert store.vectors.shape == shape
    assert store.ids.to_pylist() == ids.to_pylist()
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        Path(path).name for path in files
    )
    return store


def bytes_of(folder):
    return [(folder / name).read_bytes() for name in ("fused.npy", "fused_ids.parquet")]


def neighbours_in_group(vectors, groups, k=5):
    """Share of the k nearest items by squared distance that are of the item's own group."""
    rows = np.asarray(vectors, dtype=np.float64)
    squares = np.square(rows).sum(axis=1)
    distances = squares[:, None] + squares[None] - 2 * rows @ rows.T
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, axis=1)[:, :k]
    return (groups[nearest] == groups[:, None]).mean()


@pytest.mark.parametrize("method", METHODS)
def test_valid_and_test_interactions_change_no_byte_and_training_ones_do(tmp_path, method):
    consumed, settings = random_histories(), fusion(method=method, dim=8)
    run(tmp_path / "before", noise(), consumed, settings)

    # The leak: every user's held-out items become two items that no user has in training.
    leak = [[*items[:-2], N_ITEMS, N_ITEMS - 1] for items in consumed]
    run(tmp_path / "leak", noise(), leak, settings)
    assert bytes_of(tmp_path / "leak") == bytes_of(tmp_path / "before")

    # The same items in training are seen; so is a split that stands before training items.
    splits = [[0] * len(items) for items in leak]
    run(tmp_path / "trained", noise(), leak, settings, splits=splits)
    assert bytes_of(tmp_path / "trained") != bytes_of(tmp_path / "before")
    early = [[N_ITEMS, *items[:-2]] for items in consumed]
    splits = [[2] + [0] * (len(items) - 1) for items in early]
    run(tmp_path / "early", noise(), early, settings, splits=splits)
    assert bytes_of(tmp_path / "early") == bytes_of(tmp_path / "before")


@pytest.mark.parametrize("method", METHODS)
def test_consumption_is_found_where_text_says_nothing(tmp_path, method):
    groups = np.arange(N_ITEMS) % 8
    rng = np.random.default_rng(2)
    consumed = []
    for user in range(200):
        members = np.flatnonzero(groups == user % 8) + 1
        consumed.append(rng.choice(members, 8, replace=False).tolist())
    settings = fusion(method=method, weight=1.0, shrinkage=0.0, dim=8)
    store = run(tmp_path / "run", noise(), consumed, settings)
    assert neighbours_in_group(noise(), groups) < 0.25
    assert neighbours_in_group(store.vectors, groups) > 0.95


@pytest.mark.parametrize(
    ("method", "least"), [("graph", 0.95), ("svd", 0.95), ("contrastive", 0.9)]
)
def test_noise_interactions_do_not_spoil_neighbours_by_text(tmp_path, method, least):
    groups = np.arange(N_ITEMS) % 8
    text = unit(noise(8, seed=3)[groups] + 0.3 * noise(seed=4))
    consumed = random_histories(n_users=60, n_items=N_ITEMS)
    store = run(tmp_path / "run", text, consumed, fusion(method=method, weight=0.5, dim=8))
    before = neighbours_in_group(text, groups)
    assert before > 0.99
    assert neighbours_in_group(store.vectors, groups) > least * before
    assert not np.array_equal(store.vectors[:, :DIM], text)


@pytest.mark.parametrize("method", KEEP_TEXT)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("normalize", [True, False])
def test_cold_items_keep_every_bit_of_their_text(tmp_path, method, dtype, normalize):
    text = (3 * noise()).astype(dtype)
    settings = fusion(method=method, weight=0.5, dim=8, normalize=normalize)
    store = run(tmp_path / "run", text, random_histories(), settings)
    fused, cold = np.array(store.vectors), slice(N_ITEMS - N_COLD, None)
    assert fused.dtype == dtype
    assert fused[cold, :DIM].tobytes() == text[cold].tobytes()
    assert not fused[cold, DIM:].any()
    assert (fused[: cold.start, :DIM] != text[: cold.start]).any(axis=1).all()

    # Lengths stay, unless the mixture is asked for as it is.
    before, after = (np.linalg.norm(rows.astype(np.float64), axis=1) for rows in (text, fused))
    if method == "graph" and not normalize:
        assert (after[: cold.start] < before[: cold.start]).all()
        assert after[: cold.start].mean() < 0.9 * before[: cold.start].mean()
    else:
        np.testing.assert_allclose(after, before, rtol=2e-3 if dtype == "float16" else 1e-5)


def test_cosines_of_svd_are_shares_of_those_of_text_and_factors(tmp_path):
    settings = fusion(method="svd", weight=0.4, shrinkage=0.0, dim=8)
    store = run(tmp_path / "run", noise(), random_histories(), settings)
    fused, warm = np.array(store.vectors), slice(0, N_ITEMS - N_COLD)
    factors = unit(fused[warm, DIM:])
    expected = 0.6 * noise()[warm] @ noise()[warm].T + 0.4 * factors @ factors.T
    np.testing.assert_allclose(fused[warm] @ fused[warm].T, expected, atol=1e-5)


def test_graph_is_the_formula(tmp_path):
    """An item that is mixed with its one neighbour, by hand."""
    text = np.array([[2, 0], [0, 3], [1, 1]], dtype=np.float32)
    settings = fusion(method="graph", weight=0.5, shrinkage=2.0, normalize=False)
    splits = [[0, 0]] * 2
    store = run(tmp_path / "run", text, [[1, 2], [2, 1]], settings, splits=splits)
    gate = 0.5 * 2 / (2 + 2.0)
    expected = [[2 * (1 - gate), 2 * gate], [3 * gate, 3 * (1 - gate)], [1, 1]]
    np.testing.assert_allclose(store.vectors, expected, rtol=1e-6)


def find(folder, consumed, settings, splits=None):
    """Neighbours of all items as dictionaries, and totals."""
    path = write(folder / "sequences.parquet", consumed, splits)
    lookup = id_lookup.make(pa.array(np.arange(1, N_ITEMS + 1)))
    counts = histories.count(path, lookup, N_ITEMS)
    found, totals = [], []
    for lists in cooccurrence.find(path, lookup, counts, settings, folder / "pairs"):
        assert lists.first == len(found)
        for low, high in zip(lists.bounds[:-1], lists.bounds[1:], strict=True):
            rows = lists.rows[low:high].tolist()
            assert rows == sorted(rows)
            values = zip(lists.counts[low:high].tolist(), lists.cosines[low:high], strict=True)
            found.append(dict(zip(rows, values, strict=True)))
        totals += lists.totals.tolist()
    assert len(found) == N_ITEMS
    return found, totals, counts


@pytest.mark.parametrize("window", [1, 3, 1000])
@pytest.mark.parametrize("memory_mb", [0, 512])
def test_neighbours_are_those_of_counting_by_hand(tmp_path, window, memory_mb):
    rng = np.random.default_rng(5)
    lengths = rng.integers(1, 30, 50)
    consumed = [rng.integers(1, 41, length).tolist() for length in lengths]  # with repetitions
    splits = [[0] * len(items) for items in consumed]
    pairs, users = Counter(), Counter()
    for items in consumed:
        users.update({item - 1 for item in items})
        pairs.update(
            {
                frozenset((one - 1, other - 1))
                for (i, one), (j, other) in combinations(enumerate(items), 2)
                if one != other and j - i <= window
            }
        )
    settings = fusion(window=window, neighbours=1000, shrinkage=2.0, memory_mb=memory_mb)
    found, totals, counts = find(tmp_path, consumed, settings, splits)
    assert counts.users.tolist() == [users[row] for row in range(N_ITEMS)]
    assert sum(map(len, found)) == 2 * len(pairs)
    for pair, count in pairs.items():
        one, other = pair
        cosine = count / ((users[one] * users[other]) ** 0.5 + 2.0)
        for row, neighbour in ((one, other), (other, one)):
            assert found[row][neighbour] == (count, pytest.approx(cosine))
    assert totals == [sum(count for count, _ in each.values()) for each in found]


def test_the_nearest_neighbours_are_kept_and_totals_count_the_others(tmp_path):
    consumed = random_histories(n_users=200)
    every, totals, _ = find(tmp_path, consumed, fusion(neighbours=1000))
    kept, same_totals, _ = find(tmp_path, consumed, fusion(neighbours=4))
    assert totals == same_totals
    for all_of, some in zip(every, kept, strict=True):
        best = sorted(all_of.items(), key=lambda entry: (-entry[1][1], entry[0]))[:4]
        assert some == dict(best)


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_users_and_items_does_not_matter(tmp_path, method):
    consumed, settings = random_histories(), fusion(method=method, dim=8, neighbours=200)
    before = run(tmp_path / "before", noise(), consumed, settings)
    order = np.random.default_rng(6).permutation(len(consumed))
    run(tmp_path / "users", noise(), [consumed[user] for user in order], settings)
    assert bytes_of(tmp_path / "users") == bytes_of(tmp_path / "before")

    # Factors may turn with the order of items; distances do not.
    rows = np.random.default_rng(7).permutation(N_ITEMS)
    after = run(tmp_path / "items", noise()[rows], consumed, settings, ids=rows + 1)
    if method == "graph":
        np.testing.assert_allclose(after.vectors, np.array(before.vectors)[rows], atol=1e-6)
    elif method == "contrastive":  # pairs are drawn in another order, so the map differs a little
        cosines = (np.array(after.vectors) * np.array(before.vectors)[rows]).sum(axis=1)
        assert cosines.min() > 0.99
    else:
        # Enough factors that none of the spectrum is cut, where a gap would decide.
        whole = fusion(method="svd", dim=N_ITEMS, neighbours=200)
        one = np.array(run(tmp_path / "one", noise(), consumed, whole).vectors)[rows]
        other = np.array(
            run(tmp_path / "other", noise()[rows], consumed, whole, ids=rows + 1).vectors
        )
        np.testing.assert_allclose(one @ one.T, other @ other.T, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_memory_and_repetition_change_no_byte(tmp_path, method):
    """60,000 interactions: several chunks and ranges at 16 MiB, one of each at 512."""
    consumed = random_histories(n_users=3000, length=22, n_items=700)
    text = noise(800, 64)
    for name, memory_mb in (("least", 1), ("less", 16), ("more", 512), ("again", 512)):
        settings = fusion(method=method, dim=8, memory_mb=memory_mb, epochs=1)
        run(tmp_path / name, text, consumed, settings)
    assert len({tuple(bytes_of(folder)) for folder in tmp_path.iterdir()}) == 1


def test_counting_keeps_to_its_memory(tmp_path):
    """200,000 interactions of 5,000 items, whose 1,900,000 pairs do not fit into 16 MiB."""
    rng, n_items = np.random.default_rng(8), 5000
    consumed = rng.integers(1, n_items + 1, (5000, 42)).tolist()  # 40 of them for training
    path = write(tmp_path / "sequences.parquet", consumed)
    lookup = id_lookup.make(pa.array(np.arange(1, n_items + 1)))
    counts = histories.count(path, lookup, n_items)
    peaks = {}
    for memory_mb in (16, 256):
        settings = fusion(window=10, memory_mb=memory_mb)
        tracemalloc.start()
        for _ in cooccurrence.find(path, lookup, counts, settings, tmp_path / "pairs"):
            pass
        peaks[memory_mb] = tracemalloc.get_traced_memory()[1] / MIB
        tracemalloc.stop()
    row_group = 5000 * 40 * 40 / MIB  # items, splits and users of the file, with temporaries
    assert peaks[16] < 16 + row_group
    assert peaks[256] > 2 * peaks[16]


@pytest.mark.parametrize("method", METHODS)
def test_without_two_items_of_one_user_the_text_passes_through_with_a_warning(
    tmp_path, method, caplog
):
    consumed = [[1, 2, 3], [4, 4, 5, 6]]  # less the held-out two, one item each
    splits = [[0, 1, 2], [0, 0, 1, 2]]
    store = run(tmp_path / "run", noise(), consumed, fusion(method=method, dim=8), splits=splits)
    assert np.array(store.vectors)[:, :DIM].tobytes() == noise().tobytes()
    assert "every item is of its text alone" in caplog.text


def test_what_cannot_be_fused_is_refused(tmp_path):
    with pytest.raises(SidmillError, match="method is none"):
        run(tmp_path / "none", noise(), random_histories(), fusion())
    with pytest.raises(SidmillError, match=r"2 training interactions .* no vector, first 999"):
        run(tmp_path / "unknown", noise(), [[1, 999, 999, 2, 3]], fusion(method="graph"))
    broken = noise()
    broken[7, 3] = np.nan
    for method in METHODS:
        with pytest.raises(SidmillError, match="row 7"):
            run(tmp_path / method, broken, random_histories(), fusion(method=method, dim=8))
        assert not (tmp_path / method / "fused.npy").exists()
        assert not (tmp_path / method / "fused.npy.parts").exists()


def refuses(trained_on, given):
    quantizer = Quantizer("rqkmeans", [np.zeros((2, 2), np.float32)], {}, trained_on.fingerprint)
    try:
        quantizer_file.check_fingerprint(quantizer, given.fingerprint, "quantizer.safetensors")
    except SidmillError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("method", METHODS)
def test_a_catalogue_that_grows_gets_vectors_of_one_space_or_a_refusal(tmp_path, method):
    consumed, settings = random_histories(), fusion(method=method, dim=8)
    text = noise(N_ITEMS + 10)
    before = run(tmp_path / "before", text[:N_ITEMS], consumed, settings)

    # New items that nobody has consumed: the others keep every bit.
    grown = run(tmp_path / "grown", text, consumed, settings)
    if method == "contrastive":  # products of blocks of other sizes differ in their last bits
        np.testing.assert_allclose(grown.vectors[:N_ITEMS], before.vectors, atol=1e-6)
    else:
        assert np.array(grown.vectors)[:N_ITEMS].tobytes() == np.array(before.vectors).tobytes()
    assert not refuses(before, grown)

    # The same items consumed by one user more: factors and maps may differ.
    again = run(tmp_path / "again", text, [*consumed, consumed[0]], settings)
    assert bool(refuses(before, again)) == (method != "graph")

    # A longer log: graph stays in the space of the text, others get other axes.
    longer = run(tmp_path / "longer", text, [*consumed, [1, 125, 2, 3]], settings)
    assert not np.array_equal(longer.vectors[124], grown.vectors[124])
    message = refuses(before, longer)
    assert ("fuse.interactions" in message) == (method != "graph")
    assert bool(message) == (method != "graph")


def test_a_quantizer_of_other_vectors_is_refused(tmp_path):
    stores = [
        run(tmp_path / str(number), noise(), random_histories(), settings)
        for number, settings in enumerate(
            [
                fusion(method="graph"),
                fusion(method="graph", weight=0.4),
                fusion(method="svd", dim=8),
                fusion(method="contrastive"),
                fusion(method="graph", whiten=0.25),
            ]
        )
    ]
    text = vector_store.open_store(tmp_path / "0/vectors.npy", tmp_path / "0/ids.parquet")
    for one, other in combinations([text, *stores], 2):
        assert "fuse." in refuses(one, other)
        assert "fuse." in refuses(other, one)
    assert refuses(stores[0], stores[1]).count(": 0.") == 1
    assert stores[2].fingerprint["dim"] == DIM + 8

    # What the method does not read is not part of its space.
    same = run(
        tmp_path / "same", noise(), random_histories(), fusion(method="graph", dim=9), seed=3
    )
    assert not refuses(stores[0], same)


def test_the_gradient_of_the_map_is_that_of_the_stated_loss():
    rng, n_items, dim = np.random.default_rng(9), 12, 6
    text, popularity = noise(n_items, dim, seed=9) * 3, rng.random(n_items).astype(np.float32)
    batch = np.array([[0, 1], [2, 1], [1, 0], [3, 4], [5, 6], [6, 5]])
    matrix = 0.3 * rng.standard_normal((dim, dim)).astype(np.float32)
    loss, gradient = contrastive._gradient(matrix, text, batch, popularity)

    # The loss written out: a rival is the partner of another pair that is neither item of this one.
    learned = torch.tensor(matrix, dtype=torch.float64, requires_grad=True)
    units = torch.nn.functional.normalize(torch.tensor(text, dtype=torch.float64), dim=1)
    mapped = torch.nn.functional.normalize(units + units @ learned, dim=1)
    terms = []
    for number, (item, partner) in enumerate(batch):
        rivals = [
            other
            for row, other in enumerate(batch[:, 1])
            if row == number or other not in (item, partner)
        ]
        scores = (mapped[rivals] @ mapped[item]) / contrastive.TEMPERATURE
        scores = scores - torch.tensor(popularity[rivals], dtype=torch.float64)
        terms.append(-torch.log_softmax(scores, dim=0)[rivals.index(partner)])
    wanted = torch.stack(terms).mean()
    wanted.backward()
    np.testing.assert_allclose(loss, wanted.item(), rtol=1e-5)
    np.testing.assert_allclose(gradient, learned.grad.numpy(), atol=1e-5)


def test_a_map_moves_items_that_nobody_consumed_as_it_moves_the_others(tmp_path):
    """The last of 16 dimensions say nothing, the first four say who consumes an item."""
    rng = np.random.default_rng(10)
    groups = np.arange(N_ITEMS) % 8
    text = noise(seed=11)
    text[:, :4] = 0.6 * noise(8, 4, seed=12)[groups]
    consumed = [
        (rng.choice(np.flatnonzero(groups[:-N_COLD] == user % 8), 8, replace=False) + 1).tolist()
        for user in range(200)
    ]
    settings = fusion(method="contrastive", weight=0.1, epochs=30)
    store = run(tmp_path / "run", unit(text), consumed, settings)
    fused, cold = np.array(store.vectors), slice(N_ITEMS - N_COLD, None)
    found = {
        name: neighbours_in_group(vectors[cold], groups[cold], k=2)
        for name, vectors in (("text", unit(text)), ("fused", fused))
    }
    assert found["fused"] > found["text"] + 0.2
    np.testing.assert_allclose(np.linalg.norm(fused, axis=1), 1, rtol=1e-5)


def test_whitening_is_of_items_with_users_and_keeps_lengths(tmp_path):
    text, consumed = 2 * noise(), random_histories()
    text[:, :2] *= 5
    plain = fusion(method="graph", weight=0.5)
    mixed = np.array(run(tmp_path / "plain", text, consumed, plain).vectors, dtype=np.float64)
    settings = replace(plain, whiten=0.5, whiten_dim=6)
    store = run(tmp_path / "white", text, consumed, settings)
    fused = np.array(store.vectors, dtype=np.float64)
    assert fused.shape == (N_ITEMS, 6)
    assert store.fingerprint["dim"] == 6

    # Before lengths are set, the six largest axes have one variance over the items with users.
    warm = sorted({item - 1 for items in consumed for item in items[:-2]})
    mean = mixed[warm].mean(axis=0)
    variances, axes = np.linalg.eigh(np.cov(mixed[warm].T, bias=True))
    scales = (variances + 0.01 * variances.mean()) ** -0.5
    wanted = (mixed - mean) @ (axes * scales)[:, ::-1][:, :6]
    wanted *= (np.linalg.norm(text, axis=1) / np.linalg.norm(wanted, axis=1))[:, None]
    np.testing.assert_allclose(np.abs(fused), np.abs(wanted), rtol=1e-2, atol=1e-3)

    # A new item without users changes no other.
    grown = run(tmp_path / "grown", np.concatenate([text, 9 * text[:1]]), consumed, settings)
    np.testing.assert_allclose(grown.vectors[:N_ITEMS], fused, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("n_users", [0, 1, 2])
def test_the_default_keeps_neighbours_by_text_where_few_items_have_users(tmp_path, n_users):
    """Fewer items than axes say nothing of most axes, so the axes are those of all items."""
    groups = np.arange(N_ITEMS) % 8
    text = unit(noise(8, seed=3)[groups] + 0.3 * noise(seed=4))
    consumed = random_histories(n_users=max(n_users, 1), length=6)
    splits = None if n_users else [[1] * 6]
    store = run(tmp_path / "few", text, consumed, Fuse(), splits=splits)
    assert store.vectors.shape == (N_ITEMS, DIM)
    assert neighbours_in_group(store.vectors, groups) > 0.9

    # A new item changes these axes, so the fingerprint says that they are others.
    grown = run(
        tmp_path / "grown", np.concatenate([text, -text[:1]]), consumed, Fuse(), splits=splits
    )
    assert grown.fingerprint["fuse.interactions"] != store.fingerprint["fuse.interactions"]


def run_folds(folder, settings, seed=0):
    """Fuse the folds of a folder that :func:`run` made."""
    files = Files(
        *(folder / name for name in ("vectors.npy", "ids.parquet", "sequences.parquet")),
        *(folder / name for name in ("fused_folds.npy", "fused_folds_ids.parquet")),
    )
    shape = fuse_folds(files, folder / "fused_ids.parquet", settings, seed=seed)
    store = vector_store.open_store(files.fused, files.fused_ids)
    assert store.vectors.shape == shape
    return store


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("whiten", [0.0, 0.25])
def test_a_fold_has_the_vectors_of_a_log_without_its_users(tmp_path, method, whiten):
    consumed = random_histories()
    settings = fusion(method=method, dim=8, folds=3, whiten=whiten, neighbours=200)
    whole = run(tmp_path / "whole", noise(), consumed, settings)
    folds = run_folds(tmp_path / "whole", settings)
    assert folds.ids.to_pylist() == whole.ids.to_pylist() * 3
    assert folds.fingerprint == whole.fingerprint
    vectors = np.array(folds.vectors).reshape(3, N_ITEMS, -1)

    for fold in range(3):
        others = [items for user, items in enumerate(consumed) if user % 3 != fold]
        alone = np.array(run(tmp_path / str(fold), noise(), others, settings).vectors)
        assert not np.allclose(vectors[fold], whole.vectors, atol=1e-3)
        if whiten:  # by the moments of all users, so not the vectors of a run of its own
            assert np.abs(vectors[fold] - whole.vectors).mean() < 0.05
        elif method == "svd":  # but for a rotation, which leaves products
            np.testing.assert_allclose(vectors[fold] @ vectors[fold].T, alone @ alone.T, atol=1e-4)
        else:
            assert vectors[fold].tobytes() == alone.tobytes()


def test_what_a_user_did_is_not_in_the_vectors_of_their_fold(tmp_path):
    """The planted leak of cross-fitting: users of one fold consume pairs that nobody else does."""
    consumed = random_histories(n_items=60)
    planted = [
        [61 + user // 4, 81 + user // 4, *items] if user % 4 == 1 else items
        for user, items in enumerate(consumed)
    ]
    settings = fusion(method="graph", weight=1.0, shrinkage=0.0, window=1, folds=4)
    whole = np.array(run(tmp_path / "run", noise(), planted, settings).vectors)
    folds = np.array(run_folds(tmp_path / "run", settings).vectors).reshape(4, N_ITEMS, -1)
    rows = np.arange(60, 80)
    text = noise()[rows]
    assert np.abs(whole[rows] - text).max(axis=1).min() > 0.1
    assert folds[1][rows].tobytes() == text.tobytes()
    for fold in (0, 2, 3):
        assert np.abs(folds[fold][rows] - text).max(axis=1).min() > 0.1
