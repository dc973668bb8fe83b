"""What embedding texts took, as counts that add up: speed of a shard, cost of more items.

Operations are counted from the model, not measured: two for each weight of a linear layer and each
token, and those of attention, which grow with the square of a text's length. Padding and texts
that are the same as an earlier one count as nothing useful.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sidmill.core.errors import SidmillError
from sidmill.io import json_report
from sidmill.settings.embedding import EmbeddingCost

COUNTS = ("rows", "texts", "texts_kept", "texts_cut", "tokens", "padded_tokens")
SUMS = (*COUNTS, "seconds")

Figures = dict[str, Any]  # JSON: what a shard took


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
    return Work(*(sum(counts) for counts in zip(*works, strict=True))) if works else Work()


def operations(work: Work, model: Model) -> int:
    """Floating-point operations of the useful tokens: two for each product and sum."""
    attention = 4 * model.attention_width * work.squares
    return 2 * model.linear_weights * work.tokens + (attention // 2 if model.causal else attention)


def speed(work: Work, model: Model | None, *, rows: int, kept: int, seconds: float) -> Figures:
    """Return the figures of the embedding speed of one shard.

    Args:
        work: what was computed in this run.
        model: what it costs, None where that is unknown.
        rows: rows of the shard.
        kept: of the different texts, those that an earlier, interrupted run had done.
        seconds: wall time of the work, loading left out.
    """
    # What every backend can count.
    seconds = max(seconds, 1e-9)
    figures: Figures = {
        "rows": rows,
        "texts": work.texts,
        "texts_kept": kept,
        "texts_cut": work.cut,
        "tokens": work.tokens,
        "padded_tokens": work.padded_tokens,
    }
    figures |= rates(figures, seconds)

    # What follows from the model, where it runs here.
    done = None if model is None else operations(work, model)
    rate = None if model is None else model.matmul_rate
    return figures | {
        "operations": done,
        "operations_per_second": None if done is None else done / seconds,
        "matmul_rate": rate,
        "matmul_share": done / seconds / rate if done is not None and rate else None,
        "device": None if model is None else model.device,
    }


def rates(counts: Figures, seconds: float) -> Figures:
    """Return rates of embedding from ``COUNTS``, of one shard or several, and their seconds."""
    padded = counts["padded_tokens"]
    return {
        "useful_share": counts["tokens"] / padded if padded else None,
        "seconds": seconds,
        "texts_per_second": counts["texts"] / seconds,
        "tokens_per_second": counts["tokens"] / seconds,
    }


def report(paths: Sequence[str | Path], settings: EmbeddingCost) -> Figures:
    """Add up the speed of embedded shards, and estimate what more items would cost.

    Seconds are summed, so rates are those of one machine; loading the model is not in them.
    ``for_items`` is plain arithmetic: seconds per text, times ``items``.

    Args:
        paths: JSON that each shard left.
        settings: ``items`` null: the rows of the shards, with a published version those that it
            has no vector of.

    Raises:
        SidmillError: if a file is not what a shard leaves.
    """
    # Sums over all shards; operations over those whose model is known.
    shards = [_read(path) for path in paths]
    whole = {key: sum(shard[key] for shard in shards) for key in SUMS}
    known = [shard for shard in shards if shard["operations"] is not None]
    seconds = max(whole["seconds"], 1e-9)
    rated = sum(shard["matmul_rate"] * shard["seconds"] for shard in known)
    done = sum(shard["operations"] for shard in known)

    # Hours and price for more items.
    items = settings.items or whole["rows"]
    hours = items * seconds / whole["texts"] / 3600 if whole["texts"] else None
    per_hour = settings.price_per_hour
    price = None if hours is None or per_hour is None else hours * per_hour
    return {
        "shards": len(shards),
        **whole,
        **rates(whole, seconds),
        "operations": done if known else None,
        "matmul_share": done / rated if rated else None,
        "devices": sorted({shard["device"] for shard in known}),
        "for_items": {
            "items": items,
            "machine_hours": hours,
            "price_per_hour": per_hour,
            "price": price,
        },
    }


def _read(path: str | Path) -> Figures:
    shard: Figures = json_report.read(path)
    missing = [key for key in (*SUMS, "operations", "matmul_rate", "device") if key not in shard]
    if missing:
        raise SidmillError(f"{path}: lacks {', '.join(missing)}: delete it and run again")
    return shard


class Stopwatch:
    """Wall time since it was made."""

    def __init__(self) -> None:
        """Start it."""
        self.began = time.monotonic()

    def seconds(self) -> float:
        """Seconds since."""
        return time.monotonic() - self.began
