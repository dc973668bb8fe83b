"""Streamed moments agree with those of the whole matrix, in numpy and in torch."""

import numpy as np
import pytest
import torch

from sidmill.core.errors import SidmillError
from sidmill.numeric import moments


@pytest.fixture
def vectors(rng):
    return (rng.standard_normal((5000, 6)) * [5, 3, 2, 1, 0.5, 0.1] + 4).astype(np.float32)


def test_moments_are_those_of_the_whole_matrix(vectors):
    measured = moments.measure(vectors)
    assert measured.n_rows == len(vectors)
    np.testing.assert_allclose(measured.mean(), vectors.mean(axis=0, dtype=np.float64))
    expected = np.cov(vectors.T.astype(np.float64), bias=True)
    np.testing.assert_allclose(measured.covariance(), expected, atol=1e-9)
    np.testing.assert_allclose(measured.mean_square(), np.square(vectors).sum() / 5000, rtol=1e-5)


def test_tensors_give_the_moments_that_arrays_give(vectors):
    measured = moments.measure(vectors)
    sums = torch.zeros(6, dtype=torch.float64), torch.zeros(6, 6, dtype=torch.float64)
    tensors = moments.Moments(*sums)
    for block in torch.from_numpy(vectors).double().split(1024):
        tensors.add(block)
    assert tensors.n_rows == measured.n_rows
    np.testing.assert_allclose(tensors.mean().numpy(), measured.mean())
    np.testing.assert_allclose(tensors.covariance().numpy(), measured.covariance(), atol=1e-9)
    assert tensors.mean_square() == pytest.approx(measured.mean_square())


def test_without_products_there_is_no_covariance(vectors):
    running = moments.Moments(np.zeros(6), None)
    running.add(vectors.astype(np.float64))
    np.testing.assert_allclose(running.mean(), vectors.mean(axis=0, dtype=np.float64))
    with pytest.raises(ValueError, match="no covariance"):
        running.covariance()


def test_principal_axes_fall_and_have_one_sign(vectors):
    covariance = moments.measure(vectors).covariance()
    variances, axes = moments.principal_axes(covariance)
    assert (np.diff(variances) <= 0).all()
    assert (variances >= 0).all()
    np.testing.assert_allclose(axes * variances @ axes.T, covariance, atol=1e-9)
    assert (axes[np.abs(axes).argmax(axis=0), range(6)] > 0).all()


def test_a_row_that_is_not_finite_is_named(vectors):
    vectors[4500, 2] = np.nan
    with pytest.raises(SidmillError, match="first at row 4500"):
        moments.measure(vectors)
