"""The generative recommender: what it learns, its probabilities, resumption, order of items."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from generative_data import SETTINGS, cases, catalogue, check_case, fit, identifier
from recommend_data import chains, write

from sidmill.core.errors import SidmillError
from sidmill.formats import code_files, quantizer_file, vector_store
from sidmill.formats.sequence_table import TEST
from sidmill.recommend import metrics, rank, state, windows
from sidmill.recommend.generative import causal, decode, models, score, sid_items, topk, train
from sidmill.recommend.generative.evaluate import popularity_thirds
from sidmill.settings.generative import Generative, GenerativeTopk

MODELS = {
    "sid": {},
    "without codebooks": {},
    "sid+text": {"features": "sid+text"},
    "in_batch": {"loss": "in_batch"},
    "no similarity": {"similarity": False},
    "bfloat16": {"dtype": "bfloat16"},
}


class CutShortError(Exception):
    """Stands for a kill."""


def items_of(name):
    """The catalogue of one of ``MODELS``."""
    if name == "without codebooks":
        return catalogue(identifiers=[identifier(has_codebooks=False)])
    return catalogue(text_dim=8 if name == "sid+text" else 0)


@pytest.fixture
def sequences(tmp_path):
    return write(tmp_path / "sequences.parquet", chains())


def weights(fitted):
    return {
        (one.seed, name): value.numpy()
        for one in fitted
        for name, value in one.network.model.state_dict().items()
    }


def same(first, second):
    return first.keys() == second.keys() and all(
        np.array_equal(value, second[name]) for name, value in first.items()
    )


def query(*histories):
    """Queries of users with these histories of item numbers."""
    ends = np.cumsum([len(history) for history in histories])
    begins = ends - [len(history) for history in histories]
    numbers = np.concatenate(histories).astype(np.int32)
    return windows.Queries(np.arange(len(ends)), begins, ends, numbers, 0)


def hit_rate(fitted, items, path):
    """HR@1 on the test items."""
    parts = [windows.queries(g, TEST) for g in windows.read_groups(path, items.items)]
    scorer = score.scorer(fitted.network, fitted.settings.max_length)
    ranks = rank.rank(scorer, parts, len(items.items.ids), mask_seen=False, memory_mb=16)
    return metrics.mean(ranks, "HR@1")


@pytest.mark.parametrize("name", MODELS)
def test_it_learns_what_follows_what(sequences, name):
    items = items_of(name)
    fitted, curves = fit(sequences, items, max_epochs=25, patience=25, **MODELS[name])
    assert hit_rate(fitted[0], items, sequences) > 0.7  # 0.04 by chance
    losses = [epoch["loss"] for epoch in curves[0]["epochs"]]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", cases())
def test_unusual_catalogues_are_trained_measured_and_listed(tmp_path, name):
    check_case(tmp_path, name)


def test_a_new_item_is_found_by_the_tokens_it_shares_unless_they_were_dealt_at_random(tmp_path):
    """Items come in families, and the first token names the family; one member of each is new."""
    rng = np.random.default_rng(0)

    # Item 6 f + m + 1 is member m of family f; any member of family f + 1 follows. Member 5 occurs
    # as a test item alone.
    rows = []
    for first in rng.integers(4, size=150):
        families = (first + np.arange(8)) % 4
        members = rng.integers(5, size=8)
        members[-1] = 5
        rows.append((6 * families + members + 1).tolist())
    path = write(tmp_path / "s.parquet", rows)
    codes = np.stack([np.arange(24) // 6, np.arange(24) % 6], axis=1).astype(np.int32)

    new = np.arange(5, 24, 6)
    ranks = {}
    for name, order in (("real", np.arange(24)), ("dealt", rng.permutation(24))):
        items = catalogue(identifiers=[sid_items.Identifier(codes[order], (4, 6), ())])
        (one,), _ = fit(path, items, max_epochs=15, patience=15)
        parts = [windows.queries(g, TEST) for g in windows.read_groups(path, items.items)]
        scores = score.scorer(one.network, 6)(parts[0])(slice(None))[:, new]
        targets = torch.from_numpy((parts[0].numbers[parts[0].positions] // 6).astype(np.int64))
        higher = scores > scores.gather(1, targets[:, None])
        ranks[name] = higher.sum(dim=1).float().mean().item()  # 0 to 3, 1.5 by chance
    assert ranks["real"] < 0.3
    assert ranks["dealt"] > ranks["real"] + 0.5


def test_it_reads_the_split_train_alone(tmp_path):
    """Other valid and test items give the same weights after one epoch."""
    rows = chains()
    changed = [[*row[:-2], row[0], row[0]] for row in rows]
    first, second = (
        fit(write(tmp_path / f"{name}.parquet", histories), catalogue(), max_epochs=1)[0]
        for name, histories in (("a", rows), ("b", changed))
    )
    assert same(weights(first), weights(second))


@pytest.mark.parametrize("name", ["sid", "sid+text", "in_batch"])
def test_cut_after_any_save_it_ends_in_the_same_bytes(tmp_path, monkeypatch, sequences, name):
    options = {**MODELS[name], "seeds": 2}
    whole, curve = fit(sequences, items_of(name), **options)
    path, save = tmp_path / "state", state.save
    for n_saves in range(1, 40):
        left = [n_saves]

        def save_and_die(*arguments, left=left):
            save(*arguments)
            left[0] -= 1
            if not left[0]:
                raise CutShortError

        for file in tmp_path.glob("*.state"):
            file.unlink()
        with monkeypatch.context() as patch:
            patch.setattr(state, "save", save_and_die)
            try:
                fit(sequences, items_of(name), state_path=path, **options)
            except CutShortError:
                pass
            else:
                break
        torch.manual_seed(n_saves)  # whatever else ran in between
        resumed, resumed_curve = fit(sequences, items_of(name), state_path=path, **options)
        assert same(weights(resumed), weights(whole)), f"cut after save {n_saves}"
        assert resumed_curve == curve
    assert n_saves > 10


@pytest.mark.parametrize(
    ("setting", "values"), [("memory_mb", (16, 40, 1024)), ("save_steps", (1, 3, 1000))]
)
def test_settings_of_the_machine_change_no_weight(tmp_path, sequences, setting, values):
    made = [
        weights(
            fit(sequences, catalogue(), state_path=tmp_path / f"s{value}", **{setting: value})[0]
        )
        for value in values
    ]
    assert same(made[0], made[1])
    assert same(made[0], made[2])


def test_a_file_gives_back_the_models_of_all_seeds(tmp_path, sequences):
    items = catalogue()
    fitted, curves = fit(sequences, items, seeds=3, seed=5)
    assert [curve["seed"] for curve in curves] == [5, 6, 7]
    path = tmp_path / "model.safetensors"
    models.save(path, fitted)
    loaded = models.load(path, items, torch.device("cpu"))
    assert same(weights(loaded), weights(fitted))
    assert [one.valid for one in loaded] == [one.valid for one in fitted]
    assert models.best(loaded).valid == max(one.valid for one in loaded)
    asked = query([1, 2, 3], [7])
    for one, other in zip(fitted, loaded, strict=True):
        before = score.scorer(one.network, 6)(asked)(slice(None))
        assert torch.equal(before, score.scorer(other.network, 6)(asked)(slice(None)))

    # Other SIDs, other items, other embeddings: the model says nothing of them.
    for others in (
        catalogue(identifiers=[identifier(seed=1)]),
        catalogue(ids=[f"i{number}" for number in range(24)]),
    ):
        with pytest.raises(SidmillError, match="train it again"):
            models.load(path, others, torch.device("cpu"))


def plain_log_probabilities(scores, codes):
    """Log-probability of each SID: the product over levels of softmaxes over its siblings."""
    best = {}
    for sid, value in zip(map(tuple, codes.tolist()), scores.tolist(), strict=True):
        best[sid] = value
    result = {}
    for sid in best:
        total = 0.0
        for level in range(len(sid)):
            below = [np.exp(v) for s, v in best.items() if s[: level + 1] == sid[: level + 1]]
            among = [np.exp(v) for s, v in best.items() if s[:level] == sid[:level]]
            total += np.log(sum(below)) - np.log(sum(among))
        result[sid] = total
    return result


def test_the_probability_of_a_sid_is_the_product_of_the_softmaxes_of_its_tokens(sequences):
    items = catalogue(identifiers=[identifier(shared=3)])
    (one,), _ = fit(sequences, items)
    scores, trie = one.network.scores(), one.network.trie
    batch = score.histories(query([1, 2, 3], [7, 8], [5]), 6, torch.device("cpu"))[0]
    users = scores.encode(*batch)
    found = decode.exact(trie, scores.token_scores(users), 3, 16)

    of_items = scores.item_scores(users)
    assert torch.equal(of_items[:, 21:], of_items[:, :3])  # items that share a SID
    codes = items.identifiers[0].codes
    for user in range(3):
        expected = plain_log_probabilities(of_items[user].double(), codes)
        for item, sid in enumerate(map(tuple, codes.tolist())):
            value = found[user, trie.sid_of_item[item]]
            assert value == pytest.approx(expected[sid], abs=1e-4)
    assert torch.allclose(found.exp().sum(dim=1), torch.ones(3), atol=1e-5)


def test_a_beam_as_wide_as_the_catalogue_is_exact_and_no_answer_is_illegal(sequences):
    items = catalogue()
    (one,), _ = fit(sequences, items)
    scores, trie = one.network.scores(), one.network.trie
    users = scores.encode(*score.histories(query([1, 2, 3], [7]), 6, torch.device("cpu"))[0])
    exact = decode.exact(trie, scores.token_scores(users), 2, 16)
    beams = decode.beam(trie, scores.token_scores(users), 2, trie.n_sids, trie.n_sids)
    wanted = torch.sort(exact, dim=1, descending=True, stable=True)
    assert torch.equal(beams.sids, wanted.indices)
    assert torch.allclose(beams.scores, wanted.values, atol=1e-5)
    free = decode.unconstrained(
        scores.token_scores(users), trie.sizes, 2, trie.n_sids, torch.device("cpu")
    )
    assert (free.scores > -torch.inf).all()
    assert torch.allclose(free.scores, wanted.values, atol=1e-5)


def test_items_in_another_order_have_the_same_scores(sequences):
    items = catalogue(text_dim=8)
    (one,), _ = fit(sequences, items, features="sid+text")
    order = np.random.default_rng(3).permutation(24)
    own = items.identifiers[0]
    permuted = catalogue(
        identifiers=[own._replace(codes=own.codes[order])],
        text_dim=8,
        ids=np.arange(1, 25)[order],
    )
    permuted = permuted._replace(items=permuted.items._replace(vectors=items.items.vectors[order]))
    constants = causal.constants_of(permuted, one.settings)
    model = causal.Causal(one.network.model.shape, one.settings)
    model.load_state_dict(one.network.model.state_dict())
    model.eval().attach(constants, torch.device("cpu"))
    place = np.argsort(order)  # number there, by number here
    before = score.scorer(one.network, 6)(query([1, 2, 3], [7]))(slice(None))
    after = score.scorer(models.Network(model, torch.device("cpu")), 6)(
        query(place[[1, 2, 3]], place[[7]])
    )(slice(None))
    assert torch.allclose(before, after[:, place], atol=1e-4)


def test_padding_and_other_users_of_a_batch_change_nothing(sequences):
    (one,), _ = fit(sequences, catalogue())
    scores = one.network.scores()
    device = torch.device("cpu")
    alone = scores.encode(*score.histories(query([1, 2]), 6, device)[0])
    beside = scores.encode(*score.histories(query([1, 2], [3, 4, 5, 6, 7]), 6, device)[0])
    assert torch.allclose(alone[0], beside[0], atol=1e-5)


def test_a_prefix_that_no_history_has_starts_at_zero_and_stays(tmp_path):
    rows = [[1, 2, 3, 4, 5]] * 30  # items 6 to 24 are in no history
    items = catalogue()
    (one,), _ = fit(write(tmp_path / "s.parquet", rows), items)
    vectors = one.network.model.sids[0]
    nodes = one.network.model.nodes[0]
    for depth, table in enumerate(vectors.prefixes):
        seen = set(nodes[:3, depth].tolist())  # in train: 1, 2, 3
        for node in range(len(table)):
            assert bool(table[node].any()) == (node in seen)


def test_sids_that_no_training_history_has_are_boosted_and_one_sid_has_one_score(tmp_path):
    # Items 1 to 3 are in train, and items 22 to 24 share their SIDs.
    rows = [[1, 2, 3, 4, 5]] * 30
    own = identifier(shared=3)
    items = catalogue(identifiers=[own])
    path = write(tmp_path / "s.parquet", rows)
    scores = []
    for boost in (0.0, 1.5):
        (one,), _ = fit(path, items, new_item_boost=boost, max_epochs=1)
        scores.append(score.scorer(one.network, 6)(query([0, 1]))(slice(None))[0])
    boosted = (scores[1] - scores[0]).numpy()
    expected = np.full(24, 1.5)
    expected[[0, 1, 2, 21, 22, 23]] = 0
    assert boosted == pytest.approx(expected, abs=1e-5)
    assert torch.equal(scores[1][21:], scores[1][:3])


def test_several_identifiers_describe_one_item(sequences):
    first, second = identifier(), identifier(seed=1, has_codebooks=False)
    items = catalogue(identifiers=[first, second])
    fitted, _ = fit(sequences, items, max_epochs=25, patience=25)
    assert hit_rate(fitted[0], items, sequences) > 0.7  # 0.04 by chance
    assert len(fitted[0].network.model.sids) == 2
    assert fitted[0].network.trie.n_sids == 24


def test_lists_are_best_first_and_items_of_one_sid_come_by_their_users(tmp_path, sequences):
    items = catalogue(identifiers=[identifier(shared=3)])
    fitted, _ = fit(sequences, items)
    path = tmp_path / "model.safetensors"
    models.save(path, fitted)
    made = {}
    for decoding in ("exact", "beam"):
        out = tmp_path / f"{decoding}.parquet"
        settings = GenerativeTopk(k=8, decoding=decoding, beam_width=24, device="cpu")
        assert topk.recommend(sequences, items, path, out, settings) == 60
        made[decoding] = out
    tables = {name: pq.read_table(out) for name, out in made.items()}
    assert tables["exact"]["item_ids"] == tables["beam"]["item_ids"]
    rows = tables["exact"].to_pylist()
    codes = dict(zip(range(1, 25), map(tuple, items.identifiers[0].codes.tolist()), strict=True))
    train = [item for row in chains() for item in set(row[:-2])]
    users = {item: train.count(item) for item in range(1, 25)}
    for row in rows:
        assert len(row["item_ids"]) == 8
        assert row["scores"] == sorted(row["scores"], reverse=True)
        assert [codes[item] for item in row["item_ids"]] == [tuple(sid) for sid in row["sids"]]
        for left, right in zip(row["item_ids"], row["item_ids"][1:], strict=False):
            if codes[left] == codes[right]:
                assert (-users[left], left) < (-users[right], right)


def test_what_a_user_had_is_left_out_where_that_is_asked_for(tmp_path, sequences):
    items = catalogue()
    fitted, _ = fit(sequences, items)
    path, out = tmp_path / "model.safetensors", tmp_path / "topk.parquet"
    models.save(path, fitted)
    settings = GenerativeTopk(k=24, mask_seen=True, device="cpu")
    topk.recommend(sequences, items, path, out, settings)
    for row, history in zip(pq.read_table(out).to_pylist(), chains(), strict=True):
        assert set(row["item_ids"]) == set(range(1, 25)) - set(history)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden_dim": 6}, "set it to a multiple of 4"),
        (
            {"model": "tiger", "features": "sid+text"},
            r"features: sid and generative\.identifiers: \[\]",
        ),
        ({"model": "tiger", "identifiers": ["opq"]}, "not sid, opq: set generative"),
        ({"temperature": 1e-38, "learning_rate": 1e30}, r"lower generative\.learning_rate"),
    ],
)
def test_settings_that_do_not_fit_say_what_to_change(sequences, settings, message):
    with pytest.raises(SidmillError, match=message):
        fit(sequences, catalogue(), **settings)


def lists_of(path, items, model_path, **settings):
    """Items of each user in topk.parquet."""
    out = path.with_name("topk.parquet")
    topk.recommend(path, items, model_path, out, GenerativeTopk(device="cpu", **settings))
    return pq.read_table(out)["item_ids"].to_pylist()


def test_beams_below_the_length_of_a_list_are_refused(tmp_path, sequences):
    items = catalogue()
    models.save(tmp_path / "model", fit(sequences, items, max_epochs=1)[0])
    with pytest.raises(SidmillError, match=r"beam_width 7 .* at least 8"):
        lists_of(sequences, items, tmp_path / "model", k=8, decoding="beam", beam_width=7)

    # Where all items are scored there are no beams.
    assert len(lists_of(sequences, items, tmp_path / "model", k=8, beam_width=7)[0]) == 8


def test_lists_of_beams_leave_out_what_a_user_had(tmp_path, sequences):
    """As wide as the catalogue: what all scores say. Narrow: the beams without seen items."""
    items = catalogue(identifiers=[identifier(shared=3)])
    models.save(tmp_path / "model", fit(sequences, items)[0])

    def lists(**settings):
        return lists_of(sequences, items, tmp_path / "model", decoding="beam", **settings)

    for k in (3, 24):
        exact = lists_of(sequences, items, tmp_path / "model", k=k, mask_seen=True)
        assert lists(k=k, mask_seen=True, beam_width=24) == exact

    # The items of four beams, without those that the user had.
    narrow = lists(k=4, beam_width=4)
    kept = lists(k=4, beam_width=4, mask_seen=True)
    for found, every, history in zip(kept, narrow, chains(), strict=True):
        assert not set(found) & set(history)
        unseen = [item for item in every if item not in history]
        assert found[: len(unseen)] == unseen
        assert len(found) <= 4
    assert any(len(found) < 4 for found in kept)


def test_memory_changes_no_list(tmp_path, sequences, monkeypatch):
    items = catalogue()
    models.save(tmp_path / "model", fit(sequences, items)[0])
    sizes, item_scores = [], causal.CausalScores.item_scores

    def count(scores, users):
        sizes.append(len(users))
        return item_scores(scores, users)

    monkeypatch.setattr(causal.CausalScores, "item_scores", count)
    whole = lists_of(sequences, items, tmp_path / "model", k=5)

    # 16 rows of scores are the least that fits.
    monkeypatch.setattr(rank, "MIB", rank.COPIES * rank.FLOAT_BYTES * 24)
    assert lists_of(sequences, items, tmp_path / "model", k=5, memory_mb=16) == whole
    assert sizes == [60, 16, 16, 16, 12]


def test_without_validation_the_last_epoch_is_kept_and_named(tmp_path):
    rows = chains()
    path = write(tmp_path / "s.parquet", rows, [[0] * (len(row) - 1) + [2] for row in rows])
    fitted, (curve,) = fit(path, catalogue(), max_epochs=3, patience=1)
    assert [epoch["valid"] for epoch in curve["epochs"]] == [None] * 3
    assert curve["best_epoch"] == 2
    assert fitted[0].valid is None
    shorter, (other,) = fit(path, catalogue(), max_epochs=2, patience=1)
    assert other["best_epoch"] == 1
    assert not same(weights(shorter), weights(fitted))


def test_an_embedding_that_is_not_finite_is_named(sequences):
    items = catalogue(text_dim=8)
    items.items.vectors[7, 3] = np.nan
    with pytest.raises(SidmillError, match="first at row 7"):
        fit(sequences, items, features="sid+text")


def test_the_reference_model_holds_the_tokens_of_one_quantizer_alone():
    items = catalogue(identifiers=[identifier(), identifier(seed=1)], text_dim=8)
    constants = models.constants_of(items, Generative(model="tiger"))
    assert len(constants.codes) == len(constants.tries) == 1
    assert torch.equal(constants.codes[0], torch.from_numpy(items.identifiers[0].codes).long())
    assert constants.similarity.numel() == sum(map(len, constants.codewords)) == 0
    assert constants.text is None
    assert models.constants_of(items, Generative()).similarity.numel()


def test_saved_states_go_when_the_models_are_written_those_of_more_seeds_too(tmp_path, sequences):
    path = tmp_path / "model.safetensors"
    fit(sequences, catalogue(), state_path=path, seeds=3)
    other = tmp_path / "other.safetensors"
    fit(sequences, catalogue(), state_path=other)
    assert len(list(tmp_path.glob("*.state"))) == 4
    train.discard_states(path)
    assert list(tmp_path.glob("*.state")) == [train.state_file(other, 0)]


def test_many_targets_with_the_loss_full_are_pointed_out(sequences, monkeypatch, caplog):
    for limit, n_warnings in ((25, 0), (24, 1)):
        monkeypatch.setattr(train, "MANY_CANDIDATES", limit)
        caplog.clear()
        fit(sequences, catalogue(), max_epochs=1)
        assert sum("loss: in_batch" in text for text in caplog.messages) == n_warnings


def write_sids(folder, own, ids):
    """Write pid2sid.parquet and the quantizer behind it."""
    paths = folder / "pid2sid.parquet", folder / "quantizer.safetensors"
    code_files.write(paths[0], "sid", pa.chunked_array([ids]), [own.codes], list(own.sizes))
    quantizer = quantizer_file.Quantizer("rqkmeans", list(own.codebooks), {}, {})
    quantizer_file.write(paths[1], quantizer)
    return paths


def test_files_in_another_order_give_the_same_items(tmp_path):
    # The first SIDs give the order; further SIDs and the vectors have others, and more items.
    rng = np.random.default_rng(5)
    first, second = identifier(), identifier(26, seed=1)
    vectors = rng.standard_normal((26, 8), dtype=np.float32)
    names = pa.array([f"item {number}" for number in range(26)])
    paths = []
    for name, own, order in (
        ("first", first, np.arange(24)),
        ("second", second, rng.permutation(26)),
    ):
        (tmp_path / name).mkdir()
        moved = own._replace(codes=own.codes[order])
        paths.append(write_sids(tmp_path / name, moved, names.take(pa.array(order))))
    order = rng.permutation(26)
    target, ids = tmp_path / "vectors.npy", tmp_path / "ids.parquet"
    sums = vector_store.write(target, (26, 8), "float32", [vectors[order]])
    chunk = pa.chunked_array([names.take(pa.array(order))])
    vector_store.write_ids(ids, chunk, (26, 8), {"backend": "random"}, sums)

    read = sid_items.load(*zip(*paths, strict=True), target, ids)
    assert read.items.ids.to_pylist() == names.to_pylist()[:24]
    assert np.array_equal(read.items.vectors, vectors[:24])
    for found, own in zip(read.identifiers, (first, second), strict=True):
        assert np.array_equal(found.codes, own.codes[:24])

    # An item without a SID of the other quantizer is named.
    write_sids(tmp_path / "second", second._replace(codes=second.codes[1:]), names[1:])
    with pytest.raises(SidmillError, match="lacks 1 items that have a SID, first 'item 0'"):
        sid_items.load(*zip(*paths, strict=True))


def test_codebooks_of_other_sids_are_refused(tmp_path):
    own, ids = identifier(), pa.array(range(1, 25))
    sids, quantizer = write_sids(tmp_path, own, ids)
    read = sid_items.load([sids], [quantizer])
    assert np.array_equal(read.identifiers[0].codes, own.codes)
    assert len(read.identifiers[0].codebooks) == 3

    # An added level has no codebook.
    longer = own._replace(codes=np.column_stack([own.codes, own.codes[:, :1]]), sizes=(4, 4, 3, 4))
    read = sid_items.load(*([path] for path in write_sids(tmp_path, longer, ids)))
    assert len(read.identifiers[0].codebooks) == 3

    for books in (own.codebooks[::-1], (*own.codebooks, own.codebooks[0])):
        _, quantizer = write_sids(tmp_path, own._replace(codebooks=books), ids)
        with pytest.raises(SidmillError, match=r"levels of 4, 4, 3 codes: make both with one"):
            sid_items.load([sids], [quantizer])


def test_thirds_of_first_tokens_hold_a_third_of_the_interactions_each():
    rng = np.random.default_rng(0)
    tokens, counts = rng.integers(30, size=400), rng.integers(50, size=400)
    thirds = popularity_thirds(tokens, counts)
    shares = np.bincount(thirds, weights=counts) / counts.sum()
    largest = np.bincount(tokens, weights=counts).max() / counts.sum()
    assert len(shares) == 3
    assert (np.abs(shares - 1 / 3) <= largest).all()
    assert (thirds[tokens == tokens[0]] == thirds[0]).all()
    assert SETTINGS.keys() <= set(Generative.__dataclass_fields__)
