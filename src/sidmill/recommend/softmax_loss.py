"""Cross-entropy of targets among items, without the matrix of all scores.

Scores are taken for some rows at a time, which stay in the cache of the CPU until their gradients
are added up. What is kept from the forward to the backward pass has the size of the vectors. So
the system never has to zero fresh pages for the scores of a batch, which took a third of the time
of a step with 12,000 items.

Shapes: R rows (targets), n items they are compared with, H of the vectors, S of constant vectors, c
cells of the scores.

Source: loss and gradient by blocks as in Cut Cross-Entropy, https://arxiv.org/abs/2411.09009.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from sidmill.numeric.wide_products import fill_up, multiply

VALUES_AT_ONCE = 2**19  # scores of a block, in float32 and in two matrices: they stay in the cache
ROWS, COLUMNS = 64, 256  # blocks are filled up to multiples of these: their sizes are few


class Similarity(NamedTuple):
    """Products of constant vectors, weighted.

    Attributes:
        weight: float (), learned.
        rows: float32 (R, S).
        columns: float32 (n, S).
    """

    weight: Tensor
    rows: Tensor
    columns: Tensor


class Cells(NamedTuple):
    """Some scores, and what is added to them.

    Attributes:
        positions: int64 (c,), row times n plus column, ascending, each once.
        kinds: int64 (c,), which number is added.
        values: float (number of kinds,), learned.
    """

    positions: Tensor
    kinds: Tensor
    values: Tensor


def cross_entropy(
    users: Tensor,
    items: Tensor,
    labels: Tensor,
    label_smoothing: float,
    *,
    similarity: Similarity | None = None,
    cells: Cells | None = None,
) -> Tensor:
    """Mean cross-entropy of the softmax over the scores of ``items``, with its gradients.

    Scores are the products of ``users`` and ``items``, and what the other arguments add. A CPU
    takes float32 by blocks of rows. Memory: the gradients of users and items, the columns again,
    and twice ``VALUES_AT_ONCE`` floats or those of ``ROWS`` rows. Elsewhere, and under autocast:
    the matrix of all scores, several times.

    Args:
        users: float (R, H), divided by the temperature.
        items: float (n, H).
        labels: int64 (R,), the column of each target.
        label_smoothing: share of a target that is spread over all items.
        similarity: what constant vectors add; None: nothing.
        cells: what is added to single scores; None: nothing.
    """
    if users.is_cpu and users.dtype == torch.float32 and not torch.is_autocast_enabled("cpu"):
        learned = (similarity and similarity.weight, cells and cells.values)
        others = (labels, label_smoothing, similarity, cells)
        loss: Tensor = _Blocks.apply(users, items, *learned, others)  # type: ignore[no-untyped-call]
        return loss

    scores = users @ items.T
    if similarity is not None:
        scores = scores + similarity.weight * similarity.rows @ similarity.columns.T
    if cells is not None:
        added = cells.values[cells.kinds].to(scores.dtype)
        scores.view(-1).scatter_add_(0, cells.positions, added)
    return functional.cross_entropy(scores.float(), labels, label_smoothing=label_smoothing)


class _Blocks(torch.autograd.Function):
    """The loss by blocks of rows; the gradients are computed with it."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx,
        users: Tensor,
        items: Tensor,
        weight: Tensor | None,
        values: Tensor | None,
        others: tuple[Tensor, float, Similarity | None, Cells | None],
    ) -> Tensor:
        """Add up the losses of the rows, and the gradients of the mean."""
        labels, smoothing, similarity, cells = others
        n_rows, n_items = len(users), len(items)
        compared = fill_up(items, COLUMNS)
        if similarity is not None:
            similarity = similarity._replace(columns=fill_up(similarity.columns, COLUMNS))
        sums = _Sums(
            users.new_zeros((), dtype=torch.float64),
            torch.empty_like(users),
            torch.zeros(items.shape[1], len(compared)),
            users.new_zeros((), dtype=torch.float64),
            None if values is None else torch.zeros_like(values),
        )

        # As many rows at a time as stay in the cache.
        step = max(1, VALUES_AT_ONCE // len(compared) // ROWS) * ROWS
        for start in range(0, n_rows, step):
            rows = slice(start, min(start + step, n_rows))
            block = _Block(
                fill_up(users[rows], ROWS),
                compared,
                labels[rows, None],
                similarity and similarity._replace(rows=fill_up(similarity.rows[rows], ROWS)),
                cells and _cells_of(cells, rows, n_items, len(compared)),
            )
            sums.users[rows] = _add_block(block, smoothing, n_rows, n_items, sums)

        of_weight = None if weight is None else sums.weight.to(weight.dtype)
        ctx.save_for_backward(sums.users, sums.items.T[:n_items], of_weight, sums.values)
        return (sums.loss / n_rows).float()

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        """Multiply the gradients by that of the loss."""
        return (*(one if one is None else one * grad for one in ctx.saved_tensors), None)


class _Block(NamedTuple):
    """Up to b rows, filled up, and what is compared with them, filled up to n' columns.

    Attributes:
        users: float32 (b, H).
        items: float32 (n', H).
        labels: int64 (r, 1), of the r rows that are not filled up.
        similarity: of rows (b, S) and columns (n', S).
        cells: of scores (b, n').
    """

    users: Tensor
    items: Tensor
    labels: Tensor
    similarity: Similarity | None
    cells: Cells | None


class _Sums(NamedTuple):
    """Over the blocks: the loss, and gradients: of users (R, H), items (H, n'), weight, values."""

    loss: Tensor
    users: Tensor
    items: Tensor
    weight: Tensor
    values: Tensor | None


def _cells_of(cells: Cells, rows: slice, n_items: int, n_columns: int) -> Cells:
    """The cells of some rows, counted from the first of them, in ``n_columns`` columns."""
    bounds = torch.tensor([rows.start * n_items, rows.stop * n_items])
    first, last = torch.searchsorted(cells.positions, bounds).tolist()
    positions = cells.positions[first:last]
    row = positions.div(n_items, rounding_mode="floor")
    return cells._replace(
        positions=positions + row * (n_columns - n_items) - rows.start * n_columns,
        kinds=cells.kinds[first:last],
    )


def _add_block(block: _Block, smoothing: float, n_rows: int, n_items: int, sums: _Sums) -> Tensor:
    """Add the losses and gradients of a block to ``sums``; return the gradients of its users.

    Args:
        block: r rows.
        smoothing: share of a target that is spread over all items.
        n_rows: R; gradients are those of the mean over so many.
        n_items: n.
        sums: over the blocks.
    """
    # Scores with all that is added to them: (b, n').
    users, items, labels, similarity, cells = block
    scores, products = multiply(users, items), None
    if similarity is not None:
        products = multiply(similarity.rows, similarity.columns)
        scores.add_(products, alpha=similarity.weight.item())
    if cells is not None:
        scores.view(-1).scatter_add_(0, cells.positions, cells.values[cells.kinds])
    scores[:, n_items:] = -torch.inf

    # The loss: log of the sum of the exponentials less the score, of the target or on average.
    scores.sub_(scores.amax(dim=1, keepdim=True))
    targets = scores[: len(labels)].gather(1, labels)
    means = scores[: len(labels), :n_items].mean(dim=1, keepdim=True) if smoothing else targets
    totals = scores.exp_().sum(dim=1, keepdim=True)
    losses = totals[: len(labels)].log() - (1 - smoothing) * targets - smoothing * means
    sums.loss.add_(losses.sum(dtype=torch.float64))

    # The gradient of the scores in their place: probabilities less the shares of a target.
    scores.mul_(1 / (n_rows * totals))
    if smoothing:
        scores[:, :n_items].sub_(smoothing / (n_items * n_rows))
    shares = torch.full_like(targets, (smoothing - 1) / n_rows)
    scores[: len(labels)].scatter_add_(1, labels, shares)

    # Gradients of what the scores are made of; rows that are filled up are zeros, and add none.
    sums.items.add_(multiply(users.T, scores.T))
    if products is not None:
        sums.weight.add_(torch.dot(products.view(-1), scores.view(-1)))
    if cells is not None and sums.values is not None:
        sums.values.scatter_add_(0, cells.kinds, scores.view(-1)[cells.positions])
    return multiply(scores, items.T)[: len(labels)]
