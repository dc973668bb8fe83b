"""The recommenders on the device: they learn, repeat, resume, and score as on the CPU."""

import itertools

import generative_data
import numpy as np
import pyarrow.parquet as pq
import pytest
import recommend_data
import torch
from gpu_device import DEVICE, cut_after, gpu

from sidmill.numeric import sid_trie
from sidmill.recommend import checkpoint, infer, metrics, rank, score, state, windows
from sidmill.recommend.generative import decode, models, topk
from sidmill.recommend.generative import score as generative_score
from sidmill.settings.generative import GenerativeTopk

pytestmark = gpu

CPU, ON_DEVICE = torch.device("cpu"), torch.device(DEVICE)
TIGER = {
    "model": "tiger", "n_layers": 1, "hidden_dim": 16, "n_heads": 2, "head_dim": 8,
    "feed_forward_dim": 32, "max_length": 3, "batch_users": 8, "max_epochs": 2,
}  # fmt: skip
GENERATIVE = {
    "causal": {},
    "in_batch": {"loss": "in_batch"},
    "bfloat16": {"dtype": "bfloat16"},
    "tiger": TIGER,
    "tiger, bfloat16": {**TIGER, "dtype": "bfloat16"},
}
HISTORIES = torch.tensor([[3, 7, 9, 0, 12, 5], [8, 1, 0, 0, 0, 0], [17, 0, 0, 0, 0, 0]])
LENGTHS = torch.tensor([6, 2, 1])


@pytest.fixture(scope="module")
def sequences(tmp_path_factory):
    path = tmp_path_factory.mktemp("sequences") / "sequences.parquet"
    return recommend_data.write(path, recommend_data.chains())


@pytest.fixture(scope="module")
def items():
    return generative_data.catalogue(identifiers=[generative_data.identifier(shared=2)])


def same(mine, theirs):
    return mine.keys() == theirs.keys() and all(np.array_equal(mine[k], theirs[k]) for k in mine)


# The sequence recommender.


def recommender(sequences, **changes):
    options = {"device": DEVICE, **changes}
    return recommend_data.fit(sequences, recommend_data.catalogue(), **options)[0]


def hit_rate(fitted, sequences):
    items = recommend_data.catalogue()
    known = score.catalogue(fitted, items)
    parts = (windows.queries(group, 2) for group in windows.read_groups(sequences, items))
    found = rank.rank(
        score.scorer(fitted, known), parts, len(items.vectors), mask_seen=True, memory_mb=16
    )
    return metrics.mean(found, "HR@10")


@pytest.mark.parametrize(
    "change", [{}, {"features": "text+id", "adaptor": "moe"}, {"dtype": "bfloat16"}]
)
def test_a_recommender_learns_as_on_the_cpu(sequences, change):
    options = {"max_epochs": 8, "patience": 8, **change}
    mine = hit_rate(recommender(sequences, **options), sequences)
    theirs = hit_rate(recommender(sequences, device="cpu", **options), sequences)
    assert mine == pytest.approx(theirs, abs=0.15)
    assert mine > 0.5  # 0.42 by chance


@pytest.mark.parametrize("loss", ["full", "in_batch"])
def test_a_recommender_repeats_and_resumes_to_the_same_bytes(
    sequences, tmp_path, monkeypatch, loss
):
    wanted = checkpoint.arrays_of(recommender(sequences, loss=loss).model, "")
    assert same(checkpoint.arrays_of(recommender(sequences, loss=loss).model, ""), wanted)
    path = tmp_path / "state"

    def run():
        return recommender(sequences, loss=loss, state_path=path)

    assert cut_after(monkeypatch, state, 2, run)
    assert same(checkpoint.arrays_of(run().model, ""), wanted)


def test_vectors_of_users_and_items_are_those_of_the_cpu(sequences, tmp_path):
    items = recommend_data.catalogue()
    checkpoint.save(tmp_path / "model.safetensors", recommender(sequences, device="cpu"))
    found = []
    for device in (DEVICE, "cpu"):
        folder = tmp_path / device
        folder.mkdir(exist_ok=True)
        names = (str(folder / name) for name in ("items.parquet", "users.parquet", "map.json"))
        files = infer.Files(folder, *names)
        infer.infer(sequences, items, tmp_path / "model.safetensors", files, device)
        found.append({path.name: np.load(path) for path in folder.glob("*.npy")})
    assert found[0].keys() == found[1].keys()
    for name, array in found[0].items():
        np.testing.assert_allclose(array, found[1][name], atol=1e-5)


# The generative recommender.


def weights(fitted):
    return {name: value.cpu().numpy() for name, value in fitted.network.model.state_dict().items()}


def generative(sequences, items, name, **changes):
    options = {"device": DEVICE, **GENERATIVE[name], **changes}
    return generative_data.fit(sequences, items, **options)


@pytest.mark.parametrize("name", GENERATIVE)
def test_a_generative_model_learns_repeats_and_resumes(
    sequences, items, tmp_path, monkeypatch, name
):
    (wanted,), curves = generative(sequences, items, name)
    losses = [epoch["loss"] for epoch in curves[0]["epochs"]]
    assert losses[-1] < losses[0]
    (again,), _ = generative(sequences, items, name)
    assert same(weights(again), weights(wanted))

    def run():
        return generative(sequences, items, name, state_path=tmp_path / "state")[0][0]

    assert cut_after(monkeypatch, state, 3, run)
    assert same(weights(run()), weights(wanted))

    # The first step differs from that of the CPU by roundings alone, dropout aside.
    once = {"max_epochs": 1, "dropout": 0.0, "item_dropout": 0.0}
    _, mine = generative(sequences, items, name, **once)
    _, theirs = generative(sequences, items, name, **{**once, "device": "cpu"})
    first, second = mine[0]["epochs"][0]["loss"], theirs[0]["epochs"][0]["loss"]
    assert first == pytest.approx(second, rel=0.02)


@pytest.mark.parametrize("name", ["causal", "tiger"])
def test_scores_and_lists_are_those_of_the_cpu(sequences, items, tmp_path, name):
    fitted, _ = generative(sequences, items, name, device="cpu")
    path = tmp_path / "model.safetensors"
    models.save(path, fitted)

    # Scores of all items, from the same weights.
    found = []
    for device in (ON_DEVICE, CPU):
        network = models.load(path, items, device)[0].network
        scores = network.scores()
        encoded = scores.encode(HISTORIES.to(device), LENGTHS.to(device))
        found.append(scores.item_scores(encoded).cpu())
        again = scores.item_scores(scores.encode(HISTORIES.to(device), LENGTHS.to(device)))
        assert torch.equal(again.cpu(), found[-1])
        tokens = scores.token_scores(encoded)
        first = tokens(0, torch.empty(3, 1, 0, dtype=torch.int64, device=device))
        assert torch.equal(first, scores.token_scores(encoded)(0, first.new_empty(3, 1, 0).long()))
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)

    # Lists, by all scores and by beams, with and without what users had.
    for decoding, mask_seen in itertools.product(("exact", "beam"), (False, True)):
        tables = []
        for device in (DEVICE, "cpu"):
            out = tmp_path / f"{device}.parquet"
            options = {"decoding": decoding, "mask_seen": mask_seen, "k": 8, "beam_width": 24}
            settings = GenerativeTopk(device=device, **options)
            topk.recommend(sequences, items, path, out, settings)
            tables.append(pq.read_table(out).to_pydict())
        assert tables[0]["item_ids"] == tables[1]["item_ids"]


@pytest.mark.parametrize("name", ["causal", "tiger"])
def test_ranks_are_those_of_the_cpu(sequences, items, tmp_path, name):
    fitted, _ = generative(sequences, items, name, device="cpu")
    models.save(tmp_path / "model.safetensors", fitted)
    found = []
    for device in (ON_DEVICE, CPU):
        network = models.load(tmp_path / "model.safetensors", items, device)[0].network
        parts = (windows.queries(g, 2) for g in windows.read_groups(sequences, items.items))
        scorer = generative_score.scorer(network, 6)
        groups = network.trie.sid_of_item.cpu().numpy()
        found.append(rank.rank(scorer, parts, 24, mask_seen=True, memory_mb=16, groups=groups))
    np.testing.assert_array_equal(found[0].users, found[1].users)
    assert (found[0].higher == found[1].higher).mean() > 0.98


# Decoding, without a model.


def decoding_case(with_ties, sizes=(6, 5, 4), n_items=70, n_users=5):
    rng = np.random.default_rng(int(with_ties))
    codes = np.stack([rng.integers(0, size, n_items) for size in sizes], axis=1).astype(np.int32)
    draw = rng.integers if with_ties else rng.uniform
    tables = [torch.from_numpy(draw(-2, 2, (n_users, k)).astype(np.float32)) for k in sizes]
    return sid_trie.build(codes, sizes), tables


@pytest.mark.parametrize("with_ties", [False, True])
def test_decoding_is_that_of_the_cpu_ties_included(with_ties):
    trie, tables = decoding_case(with_ties)
    moved, on_device = trie.to(ON_DEVICE), [table.to(ON_DEVICE) for table in tables]

    def results(trie, tables, device):
        def token_scores(level, prefixes):
            return tables[level][:, None].expand(-1, prefixes.shape[1], -1)

        every = decode.exact(trie, token_scores, 5, 16)
        beams = decode.beam(trie, token_scores, 5, 12, 10)
        order = torch.arange(70, device=device).flip(0)
        free = decode.unconstrained(token_scores, trie.sizes, 5, 30, device)
        yield every
        yield decode.exact_additive(trie, tables)
        yield from beams
        yield from decode.search(trie, tables, 12, 10)
        yield from decode.items_of(trie, beams, order, 15)
        yield from free
        yield sid_trie.find(trie, free.tokens)
        yield sid_trie.codes_of(trie, beams.sids)

    mine, theirs = results(moved, on_device, ON_DEVICE), results(trie, tables, CPU)
    for number, (found, wanted) in enumerate(zip(mine, theirs, strict=True)):
        assert found.device.type == ON_DEVICE.type
        assert torch.equal(found.cpu(), wanted), number


def test_search_is_exact_on_the_device():
    trie, tables = decoding_case(with_ties=True, sizes=(40, 40, 40), n_items=5000, n_users=4)
    moved, tables = trie.to(ON_DEVICE), [table.to(ON_DEVICE) for table in tables]
    found = decode.search(moved, tables, 8, 5)
    scores = decode.exact_additive(moved, tables)
    best, sids = scores.sort(dim=1, descending=True, stable=True)
    assert torch.equal(found.scores, best[:, :5])
    assert torch.equal(found.sids, sids[:, :5])
