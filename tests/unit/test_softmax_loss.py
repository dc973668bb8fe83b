"""The loss by blocks of rows: the loss and gradients of torch's own operations on all scores."""

import numpy as np
import pytest
import torch
from torch import Tensor

from sidmill.numeric import wide_products
from sidmill.recommend import softmax_loss
from sidmill.recommend.softmax_loss import Cells, Similarity

WIDTH, SIMILAR = 12, 20


def _problem(n_rows: int, n_items: int, seed: int) -> dict[str, Tensor]:
    """Random vectors, labels and cells of a loss, in float64."""
    rng = np.random.default_rng(seed)
    n_cells = min(n_rows * n_items, 3 * n_rows)
    positions = np.sort(rng.choice(n_rows * n_items, n_cells, replace=False))
    arrays = {
        "users": 3 * rng.standard_normal((n_rows, WIDTH)),
        "items": rng.standard_normal((n_items, WIDTH)),
        "weight": np.array(0.7),
        "rows": rng.standard_normal((n_rows, SIMILAR)),
        "columns": rng.standard_normal((n_items, SIMILAR)),
        "values": np.array([1.5, -2.0]),
        "labels": rng.integers(n_items, size=n_rows),
        "positions": positions,
        "kinds": rng.integers(2, size=n_cells),
    }
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _scores(problem: dict[str, Tensor], *, has_more: bool) -> Tensor:
    """All scores at once, (R, n)."""
    scores = problem["users"] @ problem["items"].T
    if not has_more:
        return scores
    scores = scores + problem["weight"] * (problem["rows"] @ problem["columns"].T)
    added = problem["values"][problem["kinds"]]
    return scores.flatten().scatter_add(0, problem["positions"], added).view_as(scores)


def _by_blocks(problem: dict[str, Tensor], smoothing: float, *, has_more: bool) -> Tensor:
    similarity = Similarity(problem["weight"], problem["rows"], problem["columns"])
    cells = Cells(problem["positions"], problem["kinds"], problem["values"])
    return softmax_loss.cross_entropy(
        problem["users"],
        problem["items"],
        problem["labels"],
        smoothing,
        similarity=similarity if has_more else None,
        cells=cells if has_more else None,
    )


def _learned(problem: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The same numbers in a dtype; what is learned asks for gradients."""
    converted = {
        name: value.detach().to(dtype, copy=True) if value.is_floating_point() else value
        for name, value in problem.items()
    }
    for name in ("users", "items", "weight", "values"):
        converted[name].requires_grad_()
    return converted


@pytest.mark.parametrize("is_wide", [True, False])
@pytest.mark.parametrize("has_more", [True, False])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("n_rows", "n_items"), [(1, 1), (5, 3), (64, 256), (333, 700), (150, 257)])
def test_loss_and_gradients_are_those_of_all_scores(
    n_rows: int,
    n_items: int,
    smoothing: float,
    has_more: bool,
    is_wide: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Several blocks where there are more than 64 rows.
    monkeypatch.setattr(softmax_loss, "VALUES_AT_ONCE", 64 * 256)
    if not is_wide:
        monkeypatch.setattr(wide_products, "_has_wide_kernels", lambda: False)
    problem = _problem(n_rows, n_items, seed=n_rows)
    exact, found = _learned(problem, torch.float64), _learned(problem, torch.float32)

    expected = torch.nn.functional.cross_entropy(
        _scores(exact, has_more=has_more), exact["labels"], label_smoothing=smoothing
    )
    loss = _by_blocks(found, smoothing, has_more=has_more)
    # A factor, as a loss that is a part of another has.
    torch.autograd.backward([2 * expected, 2 * loss])

    assert loss.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-6)
    for name in ["users", "items", *(["weight", "values"] if has_more else [])]:
        own, reference = found[name].grad, exact[name].grad
        assert own is not None
        assert reference is not None
        torch.testing.assert_close(own.double(), reference, rtol=1e-3, atol=2e-6)


def test_other_types_take_all_scores_at_once_with_the_same_loss() -> None:
    problem = _problem(40, 90, seed=1)
    exact, found = _learned(problem, torch.float64), _learned(problem, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = _by_blocks(_learned(problem, torch.float32), 0.1, has_more=True)
    loss = _by_blocks(found, 0.1, has_more=True).item()
    assert _by_blocks(exact, 0.1, has_more=True).item() == pytest.approx(loss, rel=1e-5)
    assert rounded.item() == pytest.approx(loss, rel=0.02)


def test_the_same_loss_and_gradients_have_the_same_bytes() -> None:
    def run() -> list[bytes]:
        found = _learned(_problem(200, 500, seed=3), torch.float32)
        loss = _by_blocks(found, 0.1, has_more=True)
        torch.autograd.backward(loss)
        values = [loss.detach(), *(found[name].grad for name in ("users", "items", "weight"))]
        return [value.numpy().tobytes() for value in values if value is not None]

    assert run() == run()


def test_a_score_far_above_the_others_overflows_nothing() -> None:
    users, items = torch.full((2, 1), 1e4), torch.tensor([[1.0], [-1.0], [0.0]])
    loss = softmax_loss.cross_entropy(users, items, torch.tensor([0, 1]), 0.0)
    assert loss.item() == pytest.approx(1e4)
