"""The encoder-decoder scores, trains and saves as the T5 that it is."""

import itertools

import generative_data
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import recommend_data
import torch
from safetensors.torch import load_file, save_file
from transformers import LogitsProcessorList

from sidmill.core.errors import SidmillError
from sidmill.numeric import sid_trie
from sidmill.recommend import item_features
from sidmill.recommend.generative import models, sid_items, tiger, topk, train
from sidmill.recommend.windows import NO_TARGET
from sidmill.settings.generative import Generative, GenerativeTopk

SIZES = (5, 4, 3)
SHAPE = tiger.Shape(
    n_layers=2, hidden_dim=16, n_heads=2, head_dim=8, feed_forward_dim=32, max_length=4
)
N_ITEMS = 30
# Histories of three users: longer than the model reads, shorter, and of one item.
HISTORIES = torch.tensor([[3, 7, 29, 0, 12, 5], [8, 1, 0, 0, 0, 0], [17, 0, 0, 0, 0, 0]])
LENGTHS = torch.tensor([6, 2, 1])


def made(seed=0, **changes):
    torch.manual_seed(seed)
    codes = torch.tensor(list(itertools.product(*map(range, SIZES))))
    codes = codes[torch.randperm(len(codes))[:N_ITEMS]]
    return tiger.Tiger(codes, SIZES, SHAPE._replace(**changes)).eval(), codes


def tokens_of(codes):
    """Tokens by the definition: 0 is padding, 1 the start, then the codes of each level."""
    return [2 + sum(SIZES[:level]) + code for level, code in enumerate(codes.tolist())]


def t5_rows(model, codes, histories, labels):
    """T5's own pass over rows of item numbers, one row per list, padded after them."""
    rows = [[token for item in row for token in tokens_of(codes[item])] for row in histories]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return model.t5(input_ids=ids, attention_mask=mask, labels=torch.tensor(labels))


def read(histories=HISTORIES, lengths=LENGTHS):
    """The items that the model is to read of each history."""
    return [
        row[:length][-SHAPE.max_length :]
        for row, length in zip(histories.tolist(), lengths.tolist(), strict=True)
    ]


def sid_scores(model, histories, lengths, sids):
    """Log-probabilities of whole SIDs (W, L) after each history: (B, W)."""
    state = model.encode(model.read(histories, lengths))
    sids = sids.expand(len(histories), *sids.shape)
    return sum(
        model.token_scores(state, level, sids[:, :, :level])
        .gather(2, sids[:, :, level : level + 1])
        .squeeze(2)
        for level in range(len(SIZES))
    )


@torch.inference_mode()
def test_the_score_of_every_item_is_the_log_probability_that_t5_gives_its_tokens():
    model, codes = made()
    found = sid_scores(model, HISTORIES, LENGTHS, codes)
    for user, row in enumerate(read()):
        labels = [tokens_of(sid) for sid in codes]
        logits = t5_rows(model, codes, [row] * N_ITEMS, labels).logits
        wanted = logits.log_softmax(-1).gather(2, torch.tensor(labels)[:, :, None]).sum((1, 2))
        torch.testing.assert_close(found[user], wanted, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_many_prefixes_at_once_score_as_each_alone():
    model, _ = made()
    state = model.encode(model.read(HISTORIES, LENGTHS))
    for level in range(len(SIZES)):
        prefixes = torch.stack(
            [torch.randint(size, (3, 7)) for size in SIZES[:level]] or [torch.empty(3, 7, 0)], -1
        )
        prefixes = prefixes.reshape(3, 7, level).long()
        scores = model.token_scores(state, level, prefixes)
        assert scores.dtype == torch.float32
        assert scores.shape == (3, 7, SIZES[level])
        for user, number in itertools.product(range(3), range(7)):
            rows = slice(user, user + 1)
            alone = model.encode(model.read(HISTORIES[rows], LENGTHS[rows]))
            one = model.token_scores(alone, level, prefixes[user : user + 1, number : number + 1])
            torch.testing.assert_close(scores[user, number], one[0, 0], rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_probabilities_of_a_level_leave_a_share_to_the_other_tokens():
    model, _ = made()
    state = model.encode(model.read(HISTORIES, LENGTHS))
    totals = model.token_scores(state, 0, torch.zeros(3, 1, 0, dtype=torch.int64)).exp().sum(-1)
    assert (totals < 1).all()


@pytest.mark.parametrize("width", [N_ITEMS, 4])
def test_items_have_the_scores_of_the_beams_that_reach_them(monkeypatch, width):
    monkeypatch.setattr(tiger, "USER_BLOCK", 2)
    model, codes = made()
    trie = sid_trie.build(codes.numpy(), SIZES)
    scores = tiger.TigerScores(model, trie, width)

    # States of users are joined, however long their histories are.
    rows = [scores.encode(HISTORIES[n : n + 1], LENGTHS[n : n + 1]) for n in range(3)]
    users = torch.cat(rows)
    assert torch.equal(users, scores.encode(HISTORIES, LENGTHS))
    found = scores.item_scores(users)
    assert found.shape == (3, N_ITEMS)
    reached = found > -torch.inf
    assert (reached.sum(dim=1) == width).all()
    with torch.inference_mode():
        wanted = sid_scores(model, HISTORIES, LENGTHS, codes)
    torch.testing.assert_close(found[reached], wanted[reached], rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_the_best_of_all_sids_are_the_beams_of_generate():
    """Wide beams search the whole tree, so that both orders are exact."""
    model, codes = made()
    every = torch.tensor(list(itertools.product(*map(range, SIZES))))
    scores = sid_scores(model, HISTORIES, LENGTHS, every)

    def allow_the_level(input_ids, scores):
        first = 2 + sum(SIZES[: input_ids.shape[1] - 1])
        hidden = torch.full_like(scores, -torch.inf)
        hidden[:, first : first + SIZES[input_ids.shape[1] - 1]] = 0
        return scores + hidden

    for user, row in enumerate(read()):
        out = model.t5.generate(
            input_ids=torch.tensor([[token for item in row for token in tokens_of(codes[item])]]),
            logits_processor=LogitsProcessorList([allow_the_level]),
            num_beams=20,
            num_return_sequences=10,
            max_new_tokens=len(SIZES),
            length_penalty=0.0,
            output_scores=True,
            return_dict_in_generate=True,
        )
        best = scores[user].sort(descending=True)
        assert out.sequences[:, 1:].tolist() == [tokens_of(every[n]) for n in best.indices[:10]]
        torch.testing.assert_close(out.sequences_scores, best.values[:10], rtol=1e-5, atol=1e-5)


def windows():
    """Two windows with every target, one shorter than the other and than the model reads."""
    inputs = torch.tensor([[3, 7, 29, 0, 12, 5], [8, 1, 0, 0, 0, 0]])
    targets = torch.full_like(inputs, NO_TARGET)
    targets[0] = torch.tensor([7, 29, 0, 12, 5, 21])
    targets[1, :2] = torch.tensor([1, 4])
    return inputs, targets


def plain_loss(model, codes):
    """T5's own loss on one row per target."""
    inputs, targets = windows()
    rows, labels = [], []
    for window, position in (targets != NO_TARGET).nonzero().tolist():
        rows.append(inputs[window, : position + 1].tolist()[-SHAPE.max_length :])
        labels.append(tokens_of(codes[targets[window, position]]))
    return t5_rows(model, codes, rows, labels).loss * len(SIZES), len(rows)


@pytest.mark.parametrize("slice_tokens", [1, 40, 4096])
def test_loss_and_gradients_are_those_of_t5_on_a_row_per_target(monkeypatch, slice_tokens):
    model, codes = made(dropout=0.0)
    model.train()
    wanted, n_rows = plain_loss(model, codes)
    wanted.backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()

    monkeypatch.setattr(tiger, "SLICE_TOKENS", slice_tokens)
    loss, n_targets = model.loss(*windows())
    loss.backward()
    assert n_targets == n_rows
    torch.testing.assert_close(loss, wanted)
    for name, weight in model.named_parameters():
        assert weight.grad.isfinite().all()
        torch.testing.assert_close(weight.grad, gradients[name], rtol=1e-4, atol=1e-5)


def test_slices_draw_their_dropout_once(monkeypatch):
    """The second pass over a slice, for the gradient, sees the same dropout as the first."""
    model, _ = made(dropout=0.5)
    model.train()
    monkeypatch.setattr(tiger, "SLICE_TOKENS", 20)
    weight = model.t5.encoder.block[0].layer[0].SelfAttention.v.weight

    def loss_of(change):
        with torch.no_grad():
            weight[0, 0] += change
        torch.manual_seed(1)
        loss, _ = model.loss(*windows())
        with torch.no_grad():
            weight[0, 0] -= change
        return loss

    loss_of(0.0).backward()
    with torch.no_grad():
        slope = (loss_of(1e-2) - loss_of(-1e-2)) / 2e-2
    torch.testing.assert_close(weight.grad[0, 0], slope, rtol=2e-2, atol=2e-3)


@torch.inference_mode()
def test_neither_padding_nor_the_other_users_change_a_score():
    model, codes = made()
    wanted = sid_scores(model, HISTORIES, LENGTHS, codes)
    padded = torch.nn.functional.pad(HISTORIES, (0, 5), value=11)
    torch.testing.assert_close(sid_scores(model, padded, LENGTHS, codes), wanted)
    order = torch.tensor([2, 0, 1])
    turned = sid_scores(model, HISTORIES[order], LENGTHS[order], codes)
    torch.testing.assert_close(turned, wanted[order], rtol=1e-5, atol=1e-5)

    # Only the last items of a long history are read.
    changed = HISTORIES.clone()
    changed[0, :2] = 20
    torch.testing.assert_close(sid_scores(model, changed, LENGTHS, codes), wanted)
    changed[0, 2] = 20
    assert not torch.allclose(sid_scores(model, changed, LENGTHS, codes)[0], wanted[0])


@torch.inference_mode()
def test_padding_of_windows_changes_no_loss():
    model, _ = made()
    inputs, targets = windows()
    wanted, n_targets = model.loss(inputs, targets)
    padded = torch.nn.functional.pad(inputs, (0, 3), value=9)
    more = torch.nn.functional.pad(targets, (0, 3), value=NO_TARGET)
    loss, count = model.loss(padded.flip(0), more.flip(0))
    assert count == n_targets
    torch.testing.assert_close(loss, wanted)


def test_a_saved_model_holds_every_weight_once_and_loads_back(tmp_path):
    model, codes = made()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    weights = load_file(tmp_path / "model.safetensors")
    sizes = sum(value.numel() for value in weights.values())
    assert sizes == sum(weight.numel() for weight in model.parameters())

    torch.manual_seed(1)
    other = tiger.Tiger(codes, SIZES, SHAPE).eval()
    other.load_state_dict(weights)
    assert other.t5.lm_head.weight is other.t5.encoder.embed_tokens.weight
    with torch.inference_mode():
        found, wanted = (sid_scores(one, HISTORIES, LENGTHS, codes) for one in (other, model))
    assert torch.equal(found, wanted)

    missing = {name: value for name, value in weights.items() if "shared" not in name}
    with pytest.raises(RuntimeError, match=r"shared\.weight"):
        other.load_state_dict(missing)


@pytest.mark.parametrize("name", generative_data.cases())
def test_unusual_catalogues_are_trained_measured_and_listed(tmp_path, name):
    sizes = {"head_dim": 4, "feed_forward_dim": 8}
    generative_data.check_case(tmp_path, name, model="tiger", **sizes)


def test_it_is_trained_and_loaded_by_its_name_in_the_settings(tmp_path):
    path = recommend_data.write(tmp_path / "sequences.parquet", recommend_data.chains(40))
    _, codes = made()
    ids = pa.array(range(1, N_ITEMS + 1))
    identifier = sid_items.Identifier(codes.numpy().astype(np.int32), SIZES, ())
    items = sid_items.SidItems(
        item_features.of(ids, np.zeros((N_ITEMS, 0), np.float32), {}), (identifier,)
    )
    settings = Generative(
        model="tiger",
        seeds=1,
        n_layers=1,
        hidden_dim=16,
        n_heads=2,
        head_dim=8,
        feed_forward_dim=32,
        max_length=3,
        batch_users=8,
        learning_rate=0.01,
        warmup_steps=2,
        max_epochs=8,
        patience=8,
        device="cpu",
    )
    fitted, curves = train.fit(path, items, settings, seed=0, code="c0de")
    losses = [epoch["loss"] for epoch in curves[0]["epochs"]]
    assert losses[-1] < 0.75 * losses[0]

    models.save(tmp_path / "model.safetensors", fitted)
    loaded = models.load(tmp_path / "model.safetensors", items, torch.device("cpu"))
    assert loaded[0].network.model.shape.max_length == 3
    scores = [one[0].network.scores() for one in (fitted, loaded)]
    found, wanted = (one.item_scores(one.encode(HISTORIES, LENGTHS)) for one in scores)
    assert torch.equal(found, wanted)

    # Lists come from so many beams as the settings say, unless all SIDs are asked for.
    def lists(**asked):
        out = tmp_path / "topk.parquet"
        asked = GenerativeTopk(k=4, device="cpu", **asked)
        topk.recommend(path, items, tmp_path / "model.safetensors", out, asked)
        return pq.read_table(out)["item_ids"].to_pylist()

    for width in (4, N_ITEMS):
        assert lists(beam_width=width) == lists(beam_width=width, decoding="beam")
    exact = lists(decoding="exact")
    assert lists(beam_width=N_ITEMS) == exact
    assert lists(beam_width=4) != exact
    with pytest.raises(SidmillError, match=r"beam_width 3 .* at least 4"):
        lists(beam_width=3)
