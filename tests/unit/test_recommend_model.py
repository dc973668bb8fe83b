"""The model never looks ahead, and reads of an item what it is told to."""

import pytest
import torch

from sidmill.recommend import sequence_model

SHAPE = sequence_model.Shape("text+id", "mlp", 3, 16, 2, 2, 4, 8, 30)


def made(**changes):
    torch.manual_seed(0)
    return sequence_model.SequenceModel(SHAPE._replace(**changes), 0.2, 0.2).eval()


@pytest.mark.parametrize("n_interests", [0, 4])
def test_a_position_depends_on_nothing_after_it(n_interests):
    network = made(n_interests=n_interests)
    items, clusters = torch.randn(3, 9, 16), torch.randint(4, (3, 9)) if n_interests else None
    whole = network.users(items, clusters)
    for length in range(1, 10):
        part = network.users(items[:, :length], None if clusters is None else clusters[:, :length])
        torch.testing.assert_close(whole[:, :length], part)


def test_an_interest_is_met_once():
    clusters = torch.tensor([[2, 1, 2, 0]])
    wanted = [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 1]]
    assert sequence_model.first_seen(clusters)[0, 0].int().tolist() == wanted


def test_the_order_of_items_counts():
    network = made(n_interests=0)
    items = torch.randn(1, 5, 16)
    assert not torch.allclose(network.users(items, None), network.users(items.flip(1), None))


def test_scores_depend_on_how_far_back_an_item_lies_and_not_on_where_the_window_starts():
    states = torch.randn(1, 1, 1, 8).expand(1, 1, 12, 8)
    turned = sequence_model.rotate(states)[0, 0]
    products = turned @ turned.T
    torch.testing.assert_close(products[2, 0], products[11, 9])
    assert abs(products[2, 0] - products[5, 0]) > 1e-3


@pytest.mark.parametrize("adaptor", ["mlp", "moe"])
def test_text_alone_cannot_tell_items_of_one_text_apart_and_ids_can(adaptor):
    vectors, numbers = torch.randn(1, 8).expand(2, 8), torch.tensor([3, 4])
    text = made(adaptor=adaptor, features="text").items(vectors, numbers)
    torch.testing.assert_close(text[0], text[1])
    both = made(adaptor=adaptor).items(vectors, numbers)
    assert not torch.allclose(both[0], both[1])


def test_a_gate_that_picks_one_expert_gives_its_projection():
    network = sequence_model.Moe(SHAPE, 0.0).eval()
    vectors = torch.rand(5, 8) + 0.5
    with torch.no_grad():
        network.gate.weight.copy_(torch.tensor([-50.0, 50.0, -50.0])[:, None].expand(3, 8))
        network.means.normal_()
    wanted = (vectors - network.means[1]) @ network.projections[1]
    torch.testing.assert_close(network(vectors), wanted)
