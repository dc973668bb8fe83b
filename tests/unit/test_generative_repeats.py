"""Scores of items that a history has already: plain loops, in training as in ranking."""

import numpy as np
import pytest
import torch
from generative_data import catalogue, fit, identifier
from recommend_data import chains, write

from sidmill.recommend.generative import repeats
from sidmill.recommend.windows import NO_TARGET

LAST, EARLIER = 1.5, -2.5


def numbers():
    term = repeats.Repeats()
    term.scaled.data = torch.tensor([LAST, EARLIER]) / repeats.RATE
    return term


def plain(history, sids):
    """What each column gets, by a loop: sids (n,) of the columns, the history as SIDs."""
    return [LAST if sid == history[-1] else EARLIER if sid in history[:-1] else 0.0 for sid in sids]


def test_histories_add_what_a_loop_adds():
    rng = np.random.default_rng(0)
    columns = rng.integers(6, size=9)  # several columns of one SID, some SIDs in no column
    lengths = np.array([1, 4, 7, 2])
    histories = rng.integers(8, size=(4, 7))
    scores = torch.from_numpy(rng.standard_normal((4, 9), dtype=np.float32))
    found = scores.clone()
    with torch.no_grad():
        entries = repeats.of_histories(torch.from_numpy(histories), torch.from_numpy(lengths))
        numbers().add(found, repeats.columns(torch.from_numpy(columns)), entries)
    rows = [
        plain(list(row[:length]), columns) for row, length in zip(histories, lengths, strict=True)
    ]
    assert found.numpy() == pytest.approx(scores.numpy() + np.array(rows), abs=1e-6)
    assert any(LAST in row and EARLIER in row for row in rows)


def test_windows_are_the_histories_of_their_positions():
    rng = np.random.default_rng(1)
    sids = torch.from_numpy(rng.integers(5, size=(3, 6)))
    has_target = torch.from_numpy(rng.random((3, 6)) < 0.6)
    columns = repeats.columns(torch.arange(5))
    users, positions = has_target.nonzero(as_tuple=True)
    found, wanted = torch.zeros(2, len(users), 5).unbind()
    with torch.no_grad():
        numbers().add(found, columns, repeats.of_windows(sids, has_target))
        entries = repeats.of_histories(sids[users], positions + 1)
        numbers().add(wanted, columns, entries)
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("shared", [0, 3])
def test_training_and_ranking_have_the_same_scores(tmp_path, shared):
    """The loss is the plain cross-entropy of the scores that ranking has, position by position."""
    items = catalogue(identifiers=[identifier(shared=shared)])
    path = write(tmp_path / "s.parquet", chains(20))
    (one,), _ = fit(path, items, max_epochs=1, new_item_boost=0.0)
    model = one.network.model
    model.repeats.scaled.data = torch.tensor([LAST, EARLIER]) / repeats.RATE

    inputs = torch.tensor([[1, 2, 1, 3], [22, 5, 0, 0]])
    targets = torch.tensor([[2, 1, 3, 22], [5, 5, NO_TARGET, NO_TARGET]])
    candidates = torch.tensor([1, 2, 3, 5, 21, 22])
    with torch.no_grad():
        loss, n_targets = model.loss(inputs, targets, candidates)
    expected = []
    for user, position in (targets != NO_TARGET).nonzero().tolist():
        history = inputs[user : user + 1, : position + 1]
        scores = one.network.scores()
        state = scores.encode(history, torch.tensor([position + 1]))
        logits = scores.item_scores(state)[0, candidates]
        label = candidates.tolist().index(int(targets[user, position]))
        expected.append(-logits.log_softmax(dim=0)[label])
    assert n_targets == len(expected) == 6
    assert float(loss) == pytest.approx(float(torch.stack(expected).mean()), abs=1e-4)


def test_it_is_learned_that_nobody_takes_an_item_again(tmp_path):
    items = catalogue()
    rng = np.random.default_rng(2)
    rows = [list(rng.permutation(24)[:9] + 1) for _ in range(80)]
    (one,), _ = fit(write(tmp_path / "s.parquet", rows), items, max_epochs=15, patience=15)
    last, earlier = (repeats.RATE * one.network.model.repeats.scaled).tolist()
    assert last < -1
    assert earlier < -1

    # And that all take it again.
    rows = [[number % 24 + 1] * 6 for number in range(80)]
    (one,), _ = fit(write(tmp_path / "r.parquet", rows), items, max_epochs=15, patience=15)
    last, _ = (repeats.RATE * one.network.model.repeats.scaled).tolist()
    assert last > 0


def test_numbers_of_items_survive_in_the_state(tmp_path):
    """They are bits in a tensor of floats, which is joined and cut."""
    items = catalogue()
    (one,), _ = fit(write(tmp_path / "s.parquet", chains(20)), items, max_epochs=1)
    one.network.model.repeats.scaled.data = torch.tensor([LAST, EARLIER]) / repeats.RATE
    scores = one.network.scores()
    histories = [torch.tensor([[4, 5, 6]]), torch.tensor([[7, 23]])]
    states = torch.cat([scores.encode(row, torch.tensor([row.shape[1]])) for row in histories])
    found = scores.item_scores(states[[1, 0]])
    one.network.model.repeats.scaled.data.zero_()
    without = one.network.scores().item_scores(states[[1, 0]])
    expected = np.zeros((2, 24))
    expected[0, [7, 23]] = EARLIER, LAST
    expected[1, [4, 5, 6]] = EARLIER, EARLIER, LAST
    assert (found - without).numpy() == pytest.approx(expected, abs=1e-5)
