"""Batches of texts under one budget of padded tokens.

A batch is padded to its longest text, so texts of like length belong together: sorted, nearly no
token is padding.
"""

import numpy as np


def by_token_budget(lengths: np.ndarray, budget: int) -> list[np.ndarray]:
    """Cut texts into batches, longest first.

    The longest come first so that a batch too large for the device fails at once, not after hours.

    Args:
        lengths: int (n,), tokens per text.
        budget: number of texts times the longest of them, at most, in every batch; a text longer
            than the budget is a batch of its own.

    Returns:
        Row numbers per batch, int64, every row once. Ties of length keep row order.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    batches = []
    start = 0
    while start < len(order):
        longest = max(int(lengths[order[start]]), 1)
        size = max(budget // longest, 1)
        batches.append(order[start : start + size])
        start += size
    return batches


def rounded_up(lengths: np.ndarray, step: int) -> np.ndarray:
    """Round lengths up to multiples of ``step``: few shapes, for code compiled for each shape.

    Args:
        lengths: int (n,), tokens per text.
        step: tokens, 1 for no rounding.

    Returns:
        int64 (n,).
    """
    return -(-np.asarray(lengths, dtype=np.int64) // step) * step
