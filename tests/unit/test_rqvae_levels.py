"""The residual quantizer in training: gradients, assignments and losses, against references."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from sidmill.numeric import residual_codec
from sidmill.quantize.rqvae import (
    data,
    losses,
    residual_quantizer,
)
from sidmill.quantize.rqvae.residual_quantizer import balanced, log_plan, nearest
from sidmill.settings.quantize import Rqvae


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def quantize(latents, books, **settings):
    return residual_quantizer.quantize(latents, books, Rqvae(**settings))


def books(n_levels=3, n_codes=16, dim=8):
    return [normal(level, n_codes, dim) / 2**level for level in range(n_levels)]


@pytest.mark.parametrize("level", [0, 1, 2])
def test_the_commitment_of_every_level_reaches_the_encoder(level):
    """A residual that keeps the straight-through term leaves exactly zero from level 2 on."""
    latents = normal(9, 64, 8).requires_grad_()
    given = books()
    left = latents
    for words in given[:level]:
        left = left - words[nearest(left.detach(), words)]
    whole = quantize(latents, given).commitment
    (gradient,) = torch.autograd.grad(whole, latents)
    fewer = [words for number, words in enumerate(given) if number != level]
    assert gradient.abs().max() > 0
    alone = quantize(left.detach().requires_grad_(), given[level : level + 1])
    assert alone.commitment > 0
    if level + 1 == len(given):  # the sum of the levels' gradients is that of each by hand
        by_hand = torch.zeros_like(latents)
        rest = latents.detach()
        for words in given:
            chosen = words[nearest(rest, words)]
            by_hand += 2 * (rest - chosen) / rest.numel() / len(given)
            rest = rest - chosen
        torch.testing.assert_close(gradient, by_hand)
        assert len(fewer) == 2


def test_a_codeword_answers_for_its_own_level_alone():
    given = [words.requires_grad_() for words in books()]
    latents = normal(9, 64, 8)
    found = quantize(latents, given)
    gradients = torch.autograd.grad(found.codebook, given)
    for words, gradient, left, code in zip(
        given, gradients, found.residuals, found.codes, strict=True
    ):
        wanted = torch.zeros_like(words)
        step = 2 * (words.detach()[code] - left) / left.numel() / len(given)
        torch.testing.assert_close(gradient, wanted.index_add_(0, code, step))


def test_codes_and_latents_are_those_of_the_codec_and_of_residual_vq():
    """Oracle: vector_quantize_pytorch.ResidualVQ with the same codebooks."""
    reference = pytest.importorskip("vector_quantize_pytorch")
    given, latents = books(n_codes=32), normal(5, 200, 8)
    vq = reference.ResidualVQ(dim=8, num_quantizers=3, codebook_size=32, threshold_ema_dead_code=0)
    for layer, words in zip(vq.layers, given, strict=True):
        layer._codebook.embed.data.copy_(words[None])
    vq.eval()
    theirs, their_codes, _ = vq(latents[None])
    found = quantize(latents, given)
    codes = torch.stack(found.codes, dim=1)
    torch.testing.assert_close(codes, their_codes[0])
    torch.testing.assert_close(found.latents, theirs[0])
    ours = residual_codec.encode(
        latents.numpy(), [w.numpy() for w in given], device="cpu", memory_mb=64
    )
    np.testing.assert_array_equal(np.concatenate(list(ours)), codes.numpy())


@pytest.mark.parametrize("estimator", ["straight_through", "rotation"])
def test_the_decoder_takes_the_codewords_whatever_the_gradient(estimator):
    latents, given = normal(5, 50, 8).requires_grad_(), books()
    found = quantize(latents, given, estimator=estimator)
    total = sum(words[code] for words, code in zip(given, found.codes, strict=True))
    torch.testing.assert_close(found.latents, total, atol=1e-5, rtol=1e-4)
    (gradient,) = torch.autograd.grad(found.latents.sum(), latents)
    straight = torch.ones_like(latents)
    assert torch.equal(gradient, straight) is (estimator == "straight_through")


def test_rotation_keeps_the_angle_between_gradient_and_codeword():
    latents, goal = normal(5, 20, 8).requires_grad_(), normal(6, 20, 8)
    pull = normal(7, 20, 8)
    (gradient,) = torch.autograd.grad(
        (residual_quantizer.rotate(latents, goal) * pull).sum(), latents
    )
    cosine = torch.nn.functional.cosine_similarity
    torch.testing.assert_close(cosine(gradient, latents.detach()), cosine(pull, goal))


def reference_plan(costs, epsilon, n_iter):
    """Sinkhorn in the log domain, float64."""
    scaled = -costs / ((costs.max() - costs.min()) / 2) / epsilon
    rows, columns = -scaled.max(axis=1), np.zeros(costs.shape[1])  # the nearest begins at 1
    for _ in range(n_iter):
        columns = np.log(len(costs) / costs.shape[1]) - logsumexp(scaled + rows[:, None], axis=0)
        rows = -logsumexp(scaled + columns, axis=1)
    return np.exp(scaled + rows[:, None] + columns)


@pytest.mark.parametrize("epsilon", [1.0, 0.1, 0.01])
def test_sinkhorn_agrees_with_a_float64_reference(epsilon):
    costs = torch.cdist(normal(1, 96, 8), normal(2, 16, 8)).square().double()
    found = log_plan(costs, epsilon, 50).exp()
    wanted = reference_plan(costs.numpy(), epsilon, 50)
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-9)
    np.testing.assert_allclose(found.sum(dim=1).numpy(), 1)
    found = log_plan(costs, 1.0, 200).exp()
    np.testing.assert_allclose(found.sum(dim=0).numpy(), 6, rtol=1e-6)


@pytest.mark.parametrize("epsilon", [0.05, 0.003, 0.0029, 0.002, 1e-3, 1e-4])
@pytest.mark.parametrize("shape", [(1024, 128), (128, 16), (8, 256), (1, 4), (64, 1)])
@pytest.mark.parametrize("far", [0.0, 5.0, 1e4])
def test_sinkhorn_holds_where_weights_are_smaller_than_any_number(epsilon, shape, far):
    """One codeword and one row far from all others: the weights of most pairs vanish."""
    rows, words = normal(1, shape[0], 8), normal(2, shape[1], 8)
    words[0] += far
    rows[-1] *= 1 + far
    costs = torch.cdist(rows, words).square().double()
    found = log_plan(costs, epsilon, 20).exp()
    assert found.isfinite().all()
    np.testing.assert_allclose(found.sum(dim=1).numpy(), 1)
    if shape[0] * shape[1] < 5000 and shape[1] > 1:
        wanted = reference_plan(costs.numpy(), epsilon, 20)
        np.testing.assert_allclose(found.numpy(), wanted, atol=1e-6)
    if far == 5.0 and shape == (1024, 128):  # a share of the codewords, not one of them
        assert len(balanced(rows, words, epsilon, 50).unique()) > 64


def test_balanced_codes_use_every_codeword_where_nearest_ones_do_not():
    rows, words = normal(1, 256, 8), normal(2, 16, 8)
    words[3:] += 5
    assert len(nearest(rows, words).unique()) <= 3
    assert len(balanced(rows, words, 0.01, 100).unique()) == 16


def test_averages_move_to_the_mean_of_their_rows():
    words, left = normal(1, 4, 8), normal(2, 400, 8)
    code = nearest(left, words)
    averages = residual_quantizer.Averages(torch.ones(4), words.clone())
    counts, sums = residual_quantizer.count_and_sum(left, code, 4)
    for _ in range(200):
        residual_quantizer.average(words, averages, counts, sums, 0.9)
    means = torch.stack([left[code == number].mean(dim=0) for number in range(4)])
    torch.testing.assert_close(words, means, atol=1e-4, rtol=1e-4)


def test_diversity_parts_nearest_neighbours_and_survives_equal_rows():
    latents = normal(1, 32, 4)
    latents[1] = latents[0]
    latents.requires_grad_()
    (gradient,) = torch.autograd.grad(losses.diversity(latents), latents)
    assert gradient.isfinite().all()
    latents, gradient = latents.detach()[1:], gradient[1:]
    assert losses.diversity(latents - 0.01 * gradient) < losses.diversity(latents)
    torch.testing.assert_close(losses.diversity(3 * latents), losses.diversity(latents))
    assert losses.diversity(torch.ones(5, 3)) == 0


def test_repulsion_ends_at_the_margin_and_survives_equal_rows():
    one, other = torch.zeros(3, 2, requires_grad=True), torch.tensor([[0.0, 0], [1, 0], [9, 0]])
    loss = losses.repulsion(one, other, torch.tensor(1.0))
    assert loss.item() == pytest.approx(0.25)  # (1 - 1 / 2)^2, one pair is equal, one is far
    (gradient,) = torch.autograd.grad(loss, one)
    assert gradient.tolist() == [[0, 0], [pytest.approx(0.5), 0], [0, 0]]


def test_pairs_are_items_that_share_every_code():
    codes = np.array([[1, 1], [0, 2], [1, 1], [1, 0], [1, 1], [0, 2]], dtype=np.int32)
    usable = np.array([True, True, True, True, True, False])
    assert data.colliding_pairs(codes, usable).tolist() == [[0, 2], [2, 4]]
    assert data.colliding_pairs(codes[:2], usable[:2]).shape == (0, 2)


def test_contrastive_is_lowest_where_partners_agree():
    rows = normal(1, 16, 8)
    assert losses.contrastive(rows, rows, 0.1) < losses.contrastive(rows, normal(2, 16, 8), 0.1)


@pytest.mark.parametrize(("kind", "wanted"), [("mse", 2.5), ("l1", 1.5), ("cosine", 1.0)])
def test_reconstruction_losses(kind, wanted):
    found, goal = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    if kind != "cosine":
        goal = torch.tensor([[2.0, 0.0]])
    assert float(losses.reconstruction(found, goal, kind)) == pytest.approx(wanted)
