"""The search for codewords with torch: what training runs on, and encoding on a GPU.

Shapes: K codewords, D dimensions, b rows of one block.

The same rule as :mod:`sidmill.search`: products on the device propose, NumPy decides.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch

from sidmill import network, search
from sidmill.core.errors import SidmillError
from sidmill.formats.quantizer import Network


def pick_device(name: str) -> torch.device:
    """Return the device called ``name``; ``auto`` is the first GPU, or the CPU without one.

    Raises:
        SidmillError: if torch does not know the device, or cannot reach it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SidmillError(
            f"unknown device {name!r}: set device to auto, cpu, cuda or cuda:1"
        ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SidmillError(
            f"device {name!r} asked for, but torch finds no GPU: set device to auto or cpu"
        )
    return device


@contextmanager
def rough_products() -> Iterator[None]:
    """Let products round their factors where the processor is faster so; sums stay float32.

    bfloat16 on CPUs with AVX512-BF16 or AMX, TF32 on GPUs; others compute as before. For searches
    that only guide a training: a code that counts is decided outside.
    """
    products = torch.backends.mkldnn.matmul, torch.backends.cuda.matmul
    before = [place.fp32_precision for place in products]
    try:
        for place, precision in zip(products, ("bf16", "tf32"), strict=True):
            place.fp32_precision = precision
        yield
    finally:
        for place, precision in zip(products, before, strict=True):
            place.fp32_precision = precision


class Level(NamedTuple):
    """One codebook, on the device."""

    words: torch.Tensor  # float32 (K, D)
    halves: torch.Tensor  # float32 (K,), half of norm squared and price; infinite for a repeat
    host: search.Level


def search_level(
    words: np.ndarray, device: torch.device, prices: np.ndarray | None = None
) -> Level:
    """Prepare a codebook for :func:`nearest`: see :func:`sidmill.search.search_level`."""
    host = search.search_level(words, prices)
    on_device = (torch.from_numpy(part).to(device) for part in (host.words, host.halves))
    return Level(*on_device, host)


def nearest(left: torch.Tensor, level: Level, spare: torch.Tensor | None = None) -> torch.Tensor:
    """Return the code of each row, by the rule of :mod:`sidmill.search`.

    Args:
        left: float32 (b, D), residuals.
        level: the codebook.
        spare: float32, at least b K numbers to write the scores to; None takes new memory.

    Returns:
        int64 (b,).
    """
    scores = score(left, level.words, level.halves, spare)
    codes = lowest(scores)
    lines = torch.arange(len(codes), device=codes.device)
    best = scores[lines, codes].cpu().numpy()
    scores[lines, codes] = torch.inf
    squares = square_norms(left).cpu().numpy()
    limit = best + search.margin(squares, level.host.reach, level.host.dearest, left.shape[1])
    limit = torch.from_numpy(limit).to(left.device)
    unsure = (scores.amin(dim=1) <= limit).nonzero()[:, 0]
    if len(unsure):
        near = scores[unsure] <= limit[unsure, None]
        near[torch.arange(len(unsure), device=codes.device), codes[unsure]] = True
        decided = search.decide(
            left[unsure].cpu().numpy(), level.host.words, level.host.prices, near.cpu().numpy()
        )
        codes[unsure] = torch.from_numpy(decided).to(codes.device)
    return codes


def score(
    rows: torch.Tensor, words: torch.Tensor, half_norms: torch.Tensor, spare: torch.Tensor | None
) -> torch.Tensor:
    """Half of the squared distances less the rows' own half norms: float32 (b, K).

    Args:
        rows: float32 (b, D).
        words: float32 (K, D).
        half_norms: float32 (K,), half of the words' squared norms.
        spare: memory for the result, at least b K numbers; None takes new memory.
    """
    out = None
    if spare is not None:
        out = spare[: len(rows) * len(words)].view(len(rows), len(words))
    return torch.addmm(half_norms, rows, words.T, alpha=-1, out=out)


def square_norms(words: torch.Tensor) -> torch.Tensor:
    """Squared norms of the rows of float32 (K, D), without a second (K, D): float32 (K,)."""
    return torch.linalg.vector_norm(words, dim=1).square_()


def lowest(scores: torch.Tensor) -> torch.Tensor:
    """Column of the lowest score of each row, int64; on a CPU NumPy's search is the faster one."""
    if scores.device.type == "cpu":
        return torch.from_numpy(scores.numpy().argmin(axis=1))
    return scores.argmin(dim=1)


def encode(
    stream: Iterator[np.ndarray],
    encoder: Network | None,
    priced: list[tuple[np.ndarray, np.ndarray | None]],
    n_rows: int,
    device: torch.device,
) -> Iterator[np.ndarray]:
    """Encode blocks on a device: the part of :func:`sidmill.codec.encode` that needs torch.

    Args:
        stream: float32 (b, D), b at most ``n_rows``; each block may overwrite the one before it.
        encoder: the quantizer's own, or None.
        priced: codebook, float32 (K_l, D), and prices, float32 (K_l,) or None, per level.
        n_rows: the longest block.
        device: where to search.

    Yields:
        int32 (b, L).
    """
    levels = [search_level(words, device, prices) for words, prices in priced]
    spare = torch.empty(n_rows * max(len(level.words) for level in levels), device=device)
    project = network.load(encoder, device)
    for block in to_device(stream, device):
        left = project(block)  # (b, D), what no level has explained yet
        codes = torch.empty((len(left), len(levels)), dtype=torch.int64, device=device)
        for number, level in enumerate(levels):
            codes[:, number] = nearest(left, level, spare)
            if number + 1 < len(levels):
                left -= level.words.index_select(0, codes[:, number])
        yield codes.cpu().numpy().astype(np.int32)


def to_device(stream: Iterator[np.ndarray], device: torch.device) -> Iterator[torch.Tensor]:
    """Move blocks to the device; on a GPU the next block travels while this one is worked on.

    Args:
        stream: float32 (b, D); each block may overwrite the one before it.
        device: a CPU shares the block's memory.

    Yields:
        float32 (b, D), overwritten by a later block.
    """
    if device.type != "cuda":
        yield from (torch.from_numpy(block).to(device) for block in stream)
        return
    copies = torch.cuda.Stream(device)
    waiting: tuple[torch.Tensor, torch.Tensor] | None = None
    for block in stream:
        pinned = torch.from_numpy(block).pin_memory()  # a copy: the block may be overwritten
        with torch.cuda.stream(copies):
            arriving = pinned.to(device, non_blocking=True)
        if waiting is not None:
            yield waiting[0]
        torch.cuda.current_stream(device).wait_stream(copies)
        arriving.record_stream(torch.cuda.current_stream(device))
        waiting = arriving, pinned  # pinned memory lives until its copy has arrived
    if waiting is not None:
        yield waiting[0]
