"""Products of float32 by oneDNN: those of float64, for views of any strides, without copies."""

import numpy as np
import pytest
import torch

from sidmill.numeric import wide_products
from sidmill.numeric.wide_products import fill_up, multiply


@pytest.mark.parametrize("is_wide", [True, False])
@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 1), (64, 256, 12), (33, 7, 130), (0, 5, 3)])
def test_products_are_those_of_float64(
    m: int, n: int, k: int, is_wide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_wide:
        monkeypatch.setattr(wide_products, "_has_wide_kernels", lambda: False)
    rng = np.random.default_rng(m)
    left, right = (torch.from_numpy(rng.standard_normal((size, k))) for size in (m, n))
    expected, bias = left @ right.T, torch.arange(n, dtype=torch.float32)
    for one in (left.float(), left.float().T.contiguous().T):
        for other in (right.float(), right.float().T.contiguous().T):
            product, moved = multiply(one, other), multiply(one, other, bias)
            assert product.dtype == torch.float32
            torch.testing.assert_close(product.double(), expected, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(moved.double(), expected + bias, rtol=1e-5, atol=1e-5)


def test_a_part_of_a_matrix_is_multiplied_alone() -> None:
    matrix = torch.from_numpy(np.random.default_rng(0).standard_normal((50, 40))).float()
    found = multiply(matrix[10:30, 5:25], matrix[20:, 7:27])
    expected = matrix[10:30, 5:25].double() @ matrix[20:, 7:27].double().T
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_rows_are_filled_up_with_zeros() -> None:
    filled = fill_up(torch.ones(5, 3), 4)
    assert filled.shape == (8, 3)
    assert filled[:5].eq(1).all()
    assert filled[5:].eq(0).all()
    whole = torch.ones(8, 3)
    assert fill_up(whole, 4) is whole
