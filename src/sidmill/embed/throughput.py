"""What embedding texts took, as counts that add up, and what these say of the speed.

Operations are counted from the model, not measured: two for each weight of a linear layer and each
token, and those of attention, which grow with the square of a text's length. Padding and texts
that are the same as an earlier one count as nothing useful.
"""

import time
from typing import NamedTuple

import numpy as np

COUNTS = ("rows", "texts", "texts_kept", "texts_cut", "tokens", "padded_tokens")


class Work(NamedTuple):
    """Counts of what was done; ``+`` of tuples is not meant, see :func:`total`.

    Attributes:
        texts: texts that went through the model or the server.
        tokens: their tokens, as cut.
        padded_tokens: the tokens that were computed, padding included.
        squares: sum of the squared lengths, which attention costs.
        cut: texts that were longer than ``max_length``.
    """

    texts: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    squares: int = 0
    cut: int = 0


class Encoded(NamedTuple):
    """Vectors, float32 (n, D), and the work behind them."""

    vectors: np.ndarray
    work: Work


class Model(NamedTuple):
    """What a model costs.

    Attributes:
        linear_weights: weights of the linear layers that every token passes.
        attention_width: layers times the width of their heads together.
        causal: whether a token attends to earlier ones alone, which is half the work.
        matmul_rate: operations per second of a plain matrix product there, measured; None where
            the model is elsewhere.
        device: where it runs.
    """

    linear_weights: int
    attention_width: int
    causal: bool
    matmul_rate: float | None
    device: str


def total(works: list[Work]) -> Work:
    """Return the sum of counts."""
    return Work(*(sum(part) for part in zip(*works, strict=True))) if works else Work()


def operations(work: Work, model: Model) -> int:
    """Floating-point operations of the useful tokens: two for each product and sum."""
    attention = 4 * model.attention_width * work.squares
    return 2 * model.linear_weights * work.tokens + (attention // 2 if model.causal else attention)


def speed(work: Work, model: Model | None, *, rows: int, kept: int, seconds: float) -> dict:
    """Return the figures of a shard.

    Args:
        work: what was computed in this run.
        model: what it costs, None where that is unknown.
        rows: rows of the shard.
        kept: of the different texts, those that an earlier, interrupted run had done.
        seconds: wall time of the work, loading left out.
    """
    seconds = max(seconds, 1e-9)
    figures = {
        "rows": rows,
        "texts": work.texts,
        "texts_kept": kept,
        "texts_cut": work.cut,
        "tokens": work.tokens,
        "padded_tokens": work.padded_tokens,
    }
    figures |= rates(figures, seconds) | {
        "operations": None,
        "operations_per_second": None,
        "matmul_rate": None,
        "matmul_share": None,
        "device": None,
    }
    if model is not None:
        done = operations(work, model)
        figures |= {
            "operations": done,
            "operations_per_second": done / seconds,
            "matmul_rate": model.matmul_rate,
            "matmul_share": done / seconds / model.matmul_rate if model.matmul_rate else None,
            "device": model.device,
        }
    return figures


def rates(counts: dict, seconds: float) -> dict:
    """What follows from ``COUNTS``, of one shard or of several, and the seconds they took."""
    padded = counts["padded_tokens"]
    return {
        "useful_share": counts["tokens"] / padded if padded else None,
        "seconds": seconds,
        "texts_per_second": counts["texts"] / seconds,
        "tokens_per_second": counts["tokens"] / seconds,
    }


class Stopwatch:
    """Wall time since it was made."""

    def __init__(self) -> None:
        """Start it."""
        self.began = time.monotonic()

    def seconds(self) -> float:
        """Seconds since."""
        return time.monotonic() - self.began
