"""Codes that the generative recommender compares, and neither reads nor generates."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from generative_data import catalogue, fit, identifier
from recommend_data import chains, write

from sidmill.core.errors import SidmillError
from sidmill.formats import code_files, quantizer_file
from sidmill.recommend import windows
from sidmill.recommend.generative import models, sid_items
from sidmill.settings.generative import Generative

N_ITEMS, N_FOLDS = 24, 3
CPU = torch.device("cpu")


def other_codes(seed=5):
    """Another identifier of the items of :func:`catalogue`: items share codes."""
    own = identifier(seed=seed, dim=6)
    return own._replace(codes=own.codes[np.arange(N_ITEMS) // 2])


def folded(compared, seed=7):
    """The same, with other codes for some items in each fold."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(compared.codes[None], N_FOLDS, axis=0)
    is_moved = rng.random((N_FOLDS, N_ITEMS)) < 0.3
    codes[is_moved] = compared.codes[rng.integers(N_ITEMS, size=int(is_moved.sum()))]
    return compared._replace(fold_codes=codes)


def with_compared(compared, **options):
    return catalogue(**options)._replace(compared=compared)


@pytest.fixture
def sequences(tmp_path):
    return write(tmp_path / "sequences.parquet", chains())


def network_of(items, path, **options):
    settings = Generative(hidden_dim=16, n_layers=1, **options)
    torch.manual_seed(0)
    constants = models.constants_of(items, settings)
    is_seen, _ = windows.training_masks(path, items.items)
    return models.initial(constants, settings, is_seen, CPU)


def test_items_are_read_by_their_sids_and_compared_by_the_other_codes(sequences):
    compared = other_codes()
    own, plain = (
        network_of(items, sequences).model for items in (with_compared(compared), catalogue())
    )
    numbers = torch.arange(N_ITEMS)
    own.eval(), plain.eval()
    assert torch.equal(own.items(numbers), plain.items(numbers))
    assert own.shape.n_nodes == plain.shape.n_nodes

    # Products of whitened sums of codewords, in float64 with another method: items with the same
    # codes have cosine 1, and no others.
    rows = sum(book[compared.codes[:, k]] for k, book in enumerate(compared.codebooks))
    centred = (rows - rows.mean(0)).astype(np.float64)
    variances, axes = np.linalg.eigh(centred.T @ centred / N_ITEMS)
    whitened = centred @ (axes * (variances + 0.01 * variances.mean()) ** -0.25)
    whitened /= np.linalg.norm(whitened, axis=1, keepdims=True)
    found = (own.similarity @ own.similarity.T).numpy()
    np.testing.assert_allclose(found, whitened @ whitened.T, atol=1e-4)
    is_same = (compared.codes[:, None] == compared.codes).all(axis=2)
    assert np.array_equal(found > 1 - 1e-5, is_same)


def test_compared_codes_that_are_those_of_the_sids_change_nothing(tmp_path, sequences):
    items = catalogue()
    fitted, _ = fit(sequences, items._replace(compared=items.identifiers[0]))
    plain, _ = fit(sequences, items)
    for key, value in plain[0].network.model.state_dict().items():
        assert torch.equal(fitted[0].network.model.state_dict()[key], value)


def test_given_sids_without_codebooks_are_compared(sequences):
    items = catalogue(identifiers=[identifier(has_codebooks=False)])
    assert network_of(items, sequences).model.shape.similarity_dim == 0
    assert network_of(items._replace(compared=other_codes()), sequences).model.shape.similarity_dim


def test_a_fold_changes_what_is_compared_and_nothing_else(sequences):
    compared = folded(other_codes())
    items = with_compared(compared)
    assert items.n_folds == N_FOLDS
    model = network_of(items, sequences).model
    model.eval()
    whole = model.items(torch.arange(N_ITEMS))
    for fold in range(N_FOLDS):
        model.read_fold(fold)
        assert torch.equal(model.items(torch.arange(N_ITEMS)), whole)
        is_moved = (compared.fold_codes[fold] != compared.codes).any(axis=1)
        assert 0 < is_moved.sum() < N_ITEMS
        changed = (model.similarity != model.whole.similarity).any(dim=1).numpy()
        assert np.array_equal(changed, is_moved)


def test_a_trained_model_belongs_to_the_codes_that_it_compares(tmp_path, sequences):
    compared = other_codes()
    fitted, _ = fit(sequences, with_compared(folded(compared)))
    models.save(tmp_path / "model", fitted)

    # What reads the model later has no folds; scores are the same.
    (read,) = models.load(tmp_path / "model", with_compared(compared), CPU)
    histories, lengths = torch.tensor([[1, 2, 3]]), torch.tensor([3])
    found = [
        scores.item_scores(scores.encode(histories, lengths))
        for scores in (fitted[0].network.scores(), read.network.scores())
    ]
    assert torch.equal(*found)
    for items in (catalogue(), with_compared(other_codes(seed=6))):
        with pytest.raises(SidmillError, match="was trained on other SIDs, items or embeddings"):
            models.load(tmp_path / "model", items, CPU)
    assert sid_items.identify(catalogue()) == sid_items.identify(with_compared(None))


def test_a_saved_state_of_other_folds_is_another_training(sequences):
    one, other = (folded(other_codes(), seed=seed) for seed in (7, 8))
    digests = {sid_items.identify_folds(with_compared(codes)) for codes in (one, other)}
    assert len(digests) == 2
    assert sid_items.identify_folds(with_compared(other_codes())) is None


def write_compared(folder, compared, order):
    """Write the files of compared codes, the items in another order than the SIDs have."""
    ids = pa.array(np.arange(1, N_ITEMS + 1)[order])
    sizes = list(compared.sizes)
    paths = [folder / name for name in ("codes", "quantizer", "fold_codes")]
    code_files.write(paths[0], "codes", pa.chunked_array([ids]), [compared.codes[order]], sizes)
    quantizer_file.write(
        paths[1], quantizer_file.Quantizer("rqkmeans", list(compared.codebooks), {}, {})
    )
    rows = compared.fold_codes[:, order].reshape(-1, len(sizes))
    code_files.write(paths[2], "codes", pa.chunked_array([ids] * N_FOLDS), [rows], sizes)
    return paths


def test_files_are_read_in_the_order_of_the_sids(tmp_path):
    own, compared = identifier(), folded(other_codes())
    ids = pa.chunked_array([np.arange(1, N_ITEMS + 1)])
    code_files.write(tmp_path / "sid", "sid", ids, [own.codes], list(own.sizes))
    quantizer_file.write(
        tmp_path / "q", quantizer_file.Quantizer("rqkmeans", list(own.codebooks), {}, {})
    )
    paths = write_compared(tmp_path, compared, np.random.default_rng(0).permutation(N_ITEMS))
    sids = [tmp_path / "sid"], [tmp_path / "q"]
    read = sid_items.load(*sids, similarity_paths=paths)
    assert np.array_equal(read.compared.codes, compared.codes)
    assert np.array_equal(read.compared.fold_codes, compared.fold_codes)
    assert read.identifiers[0].fold_codes is None
    assert (read.n_folds, sid_items.load(*sids, similarity_paths=paths[:2]).n_folds) == (3, 1)
    assert sid_items.load(*sids).compared is None

    # Codes of another quantizer, and of fewer items, are refused.
    with pytest.raises(SidmillError, match="make both with one quantizer"):
        sid_items.load(*sids, similarity_paths=[paths[0], other_quantizer(tmp_path)])
    few = tmp_path / "few"
    code_files.write(few, "codes", ids.slice(0, 20), [compared.codes[:20]], list(compared.sizes))
    with pytest.raises(SidmillError, match="lacks 4 items that have a SID"):
        sid_items.load(*sids, similarity_paths=[few, paths[1]])


def other_quantizer(folder):
    books = [np.ones((size, 2), np.float32) for size in (5, 5, 5)]
    quantizer_file.write(folder / "other", quantizer_file.Quantizer("rqkmeans", books, {}, {}))
    return folder / "other"
