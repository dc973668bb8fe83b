"""Training of the generative recommender with SIDs that were fused without the users of a fold."""

from itertools import pairwise

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
from sidmill.recommend.windows import NO_TARGET
from sidmill.settings.generative import Generative

N_FOLDS = 3


def folded(items, seed=7, share=0.3):
    """The same items, some of them with other codes in each fold."""
    rng, own = np.random.default_rng(seed), items.identifiers[0]
    codes = np.repeat(own.codes[None], N_FOLDS, axis=0)
    other = np.stack([rng.integers(size, size=codes.shape[:2]) for size in own.sizes], axis=2)
    is_moved = rng.random(codes.shape[:2]) < share
    codes[is_moved] = other[is_moved]
    return items._replace(identifiers=(own._replace(fold_codes=codes.astype(np.int32)),))


@pytest.fixture
def sequences(tmp_path):
    return write(tmp_path / "sequences.parquet", chains())


def network_of(items, path):
    settings = Generative(hidden_dim=16, n_layers=1)
    constants = models.constants_of(items, settings)
    is_seen, _ = windows.training_masks(path, items.items)
    return models.initial(constants, settings, is_seen, torch.device("cpu"))


@pytest.mark.parametrize("n_sorted", [1, 4])
def test_a_batch_has_users_of_one_fold_and_every_target_comes_once(tmp_path, n_sorted):
    """Item 100 u + t is step t of user u, so that a batch shows whose windows it has."""
    histories = [[100 * user + step for step in range(2 + user % 9)] for user in range(70)]
    path = write(tmp_path / "s.parquet", histories, [[0] * len(row) for row in histories])
    ids = sorted(item for row in histories for item in row)
    items, settings = catalogue(len(ids), ids=ids), Generative(batch_users=8, shuffle_users=32)
    found = []
    batches = windows.training_batches(
        path, items.items, settings, 0, 0, n_sorted=n_sorted, n_folds=N_FOLDS
    )
    for batch in batches:
        has_target = batch.targets != NO_TARGET
        pairs = np.array(ids)[np.stack([batch.inputs[has_target], batch.targets[has_target]])]
        assert set(pairs[0] // 100 % N_FOLDS) == {batch.fold}
        found += pairs.T.tolist()
    assert sorted(found) == [[*pair] for row in histories for pair in pairwise(row)]


def test_a_fold_reads_its_codes_and_everything_else_the_sids(sequences):
    items = folded(catalogue())
    network, own = network_of(items, sequences), items.identifiers[0]
    plain = network_of(catalogue(), sequences)
    network.model.eval()
    whole_vectors, whole_nodes = None, None
    for fold in (None, 0, 1, 2):
        network.model.read_fold(fold)
        codes = own.codes if fold is None else own.fold_codes[fold]
        assert np.array_equal(network.model.codes[0], codes)
        nodes = network.model.nodes[0].numpy()

        # Items have the same node of depth 2 where they have the same prefix, in every view.
        if fold is None:
            whole_nodes, whole_vectors = nodes, network.model.items(torch.arange(24))
            assert np.array_equal(nodes, plain.model.nodes[0])
        every = np.concatenate([codes[:, :2], own.codes[:, :2]])
        is_same = (every[:24, None] == every[None, 24:]).all(axis=2)
        assert np.array_equal(nodes[:, None, 0] == whole_nodes[None, :, 0], is_same)
        assert np.array_equal(nodes[:, -1], whole_nodes[:, -1])  # an item keeps its own node
        if fold is not None:
            is_moved = (codes != own.codes).any(axis=1)
            differ = (network.model.items(torch.arange(24)) != whole_vectors).any(dim=1)
            assert 0 < is_moved.sum() < 24
            assert np.array_equal(differ, is_moved)
            changed = (network.model.similarity != network.model.whole.similarity).any(dim=1)
            assert np.array_equal(changed, is_moved)


def test_validation_and_scores_read_the_sids(sequences):
    network = network_of(folded(catalogue()), sequences)
    users = network.scores().encode(torch.tensor([[1, 2, 3]]), torch.tensor([3]))
    before = network.scores().item_scores(users)
    network.model.read_fold(1)
    scores = network.scores()
    again = scores.item_scores(scores.encode(torch.tensor([[1, 2, 3]]), torch.tensor([3])))
    assert torch.equal(again, before)


def test_a_trained_model_has_no_trace_of_folds_but_what_it_learned(tmp_path, sequences):
    items = folded(catalogue())
    fitted, _ = fit(sequences, items)
    plain, _ = fit(sequences, catalogue())
    assert fitted[0].network.model.shape == plain[0].network.model.shape
    assert fitted[0].identity == plain[0].identity
    weights = fitted[0].network.model.state_dict()
    assert any(
        not torch.equal(weights[key], value)
        for key, value in plain[0].network.model.state_dict().items()
    )

    # Measuring reads the SIDs alone.
    models.save(tmp_path / "model", fitted)
    (read,) = models.load(tmp_path / "model", catalogue(), torch.device("cpu"))
    for key, value in read.network.model.state_dict().items():
        assert torch.equal(value, weights[key])


def test_a_saved_state_of_other_folds_is_not_resumed(tmp_path, sequences):
    class KilledError(Exception):
        pass

    def train(folder, items, kill=None):
        folder.mkdir(exist_ok=True)
        with pytest.MonkeyPatch.context() as patch:
            if kill:
                patch.setattr("sidmill.recommend.training_loop._close_epoch", kill)
            return fit(sequences, items, state_path=folder / "m")[0][0].network.model.state_dict()

    def kill(*arguments):
        raise KilledError

    one, other = folded(catalogue()), folded(catalogue(), seed=8)
    wanted = train(tmp_path / "quiet", other)
    with pytest.raises(KilledError):
        train(tmp_path / "killed", one, kill)
    resumed = train(tmp_path / "killed", other)
    assert all(torch.equal(value, wanted[key]) for key, value in resumed.items())


def test_fold_codes_are_read_in_the_order_of_the_items(tmp_path):
    own = identifier()
    items = folded(catalogue(identifiers=[own]))
    codes = items.identifiers[0].fold_codes
    ids = pa.chunked_array([np.arange(1, 25)])
    longer = np.column_stack([own.codes, np.arange(24, dtype=np.int32) % 2])  # tells items apart
    code_files.write(tmp_path / "sid", "sid", ids, [longer], [*own.sizes, 2])
    quantizer = quantizer_file.Quantizer("rqkmeans", list(own.codebooks), {}, {})
    quantizer_file.write(tmp_path / "q", quantizer)

    # The file of the folds has the items in another order, and no code of the added level.
    order = np.random.default_rng(0).permutation(24)
    tiled = pa.chunked_array([np.arange(1, 25)[order]] * N_FOLDS)
    rows = codes[:, order].reshape(-1, 3)
    code_files.write(tmp_path / "folds", "codes", tiled, [rows], list(own.sizes))
    read = sid_items.load([tmp_path / "sid"], [tmp_path / "q"], fold_paths=[tmp_path / "folds"])
    assert np.array_equal(read.identifiers[0].fold_codes[:, :, :3], codes)
    assert (read.identifiers[0].fold_codes[:, :, 3] == longer[:, 3]).all()
    assert read.n_folds == N_FOLDS

    code_files.write(tmp_path / "other", "codes", tiled, [rows], [4, 4, 5])
    with pytest.raises(SidmillError, match=r"set fuse.folds: 1"):
        sid_items.load([tmp_path / "sid"], [tmp_path / "q"], fold_paths=[tmp_path / "other"])
