"""Codes from vectors and vectors from codes: the one rule that every quantizer shares.

Shapes: N rows, D dimensions, L levels, K_l codewords at level l, b rows of one block.

Level l takes the codeword nearest to what the levels before left unexplained, as in the residual
vector quantizer of SoundStream, https://arxiv.org/abs/2107.03312. ``nearest_numpy`` defines
"nearest" to the last bit. Where a quantizer learned its own space, its encoder comes
first (``mlp``), and the rule holds for the latents that it gives. Where the first level is the
category of an item, its codes are given, and the rule holds for the other levels. Codebooks alone
need no torch on a CPU: its import would cost a small run more than the codes.
"""

import itertools
import logging
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from sidmill.core import threads
from sidmill.core.errors import SidmillError
from sidmill.formats.quantizer_file import Network
from sidmill.formats.vector_file import Streamed
from sidmill.numeric import gpu_driver, lanes, mlp, nearest_numpy, row_blocks

SCORES_AT_ONCE = 2**20  # of rows and codewords: with more of them the scores leave the cache
MIN_ROWS = 64  # but those of so many rows

logger = logging.getLogger(__name__)


class FirstLevel(NamedTuple):
    """A first level whose codes are known beforehand: ``category_codes`` finds them.

    Attributes:
        codes: int32 (N,).
        codewords: float32 (K_0, D), what a code says of a vector.
    """

    codes: np.ndarray
    codewords: np.ndarray


def encode(
    vectors: np.ndarray | Streamed,
    codebooks: Sequence[np.ndarray],
    prices: Sequence[np.ndarray] = (),
    encoder: Network | None = None,
    first: FirstLevel | None = None,
    *,
    device: str,
    memory_mb: int,
) -> Iterator[np.ndarray]:
    """Encode vectors as codes with residual codebooks, block by block, in row order.

    Equal costs go to the lower code. The decision is the one of ``nearest_numpy``, on every
    device: codebooks alone give the same codes on all of them. Latents of an encoder differ from
    one kind of device to another in their last bits, and so may the code of an item that lies
    between two codewords. Memory: one block with its temporaries, at most ``memory_mb``, and the
    codebooks.

    Args:
        vectors: float32 or float16 (N, D), finite, in memory, memory-mapped or streamed from
            parquet or HDF5 (:func:`sidmill.formats.vector_file.open_vectors`).
        codebooks: float32 (K_l, D) per level, or (K_l, d) behind an encoder.
        prices: float32 (K_l,) per level, of balanced codebooks; empty for zeros.
        encoder: the quantizer's own, from D to d, or None.
        first: codes of the first level, where they do not follow from the codebooks; the encoder
            and the other levels get the vectors less its codewords.
        device: ``auto`` (every GPU, or the CPU without one), ``cpu``, ``cuda:1``, or several with
            commas between them, which share the rows; the codes are the same.
        memory_mb: MiB for one block with its temporaries.

    Yields:
        int32 (b, L), values in [0, K_l).

    Raises:
        SidmillError: if the dimensions differ, a row is not finite or out of the range of
            ``row_blocks.require_finite``, vectors and codewords are all so short that
            their squares vanish, or ``memory_mb`` is too small.
    """
    dim = require_dim(vectors.shape, codebooks, encoder)

    # Rows of a block follow from the memory; codes do not depend on it.
    largest = max(len(codewords) for codewords in codebooks)
    width = max(dim, encoder.width if encoder else 0)
    n_rows = min(row_blocks.rows_per_block(width, largest, memory_mb), row_blocks.MAX_BLOCK_ROWS)
    own_prices = prices or itertools.repeat(None, len(codebooks))
    priced: list[tuple[np.ndarray, np.ndarray | None]] = list(
        zip(codebooks, own_prices, strict=True)
    )[first is not None :]
    began = time.perf_counter()
    _require_codewords(codebooks, prices)
    largest_value = max(float(np.abs(codewords).max()) for codewords in codebooks)

    # NumPy on a CPU, torch on devices: the same codes.
    stream = _finite(vectors, n_rows, short=encoder is None and largest_value < row_blocks.SHORTEST)
    if first is not None:
        stream = _without(stream, first)
    if device == "cpu" or (device == "auto" and not gpu_driver.is_there()):
        blocks = _encode_here(_latents(stream, encoder), priced)
    else:
        from sidmill.numeric import nearest_torch

        devices = nearest_torch.pick_devices(device)
        blocks = nearest_torch.encode(stream, encoder, priced, devices)
    yield from blocks if first is None else _with_first(blocks, first)
    seconds = time.perf_counter() - began
    logger.info("encoded %d items, %.0f items/s", len(vectors), len(vectors) / seconds)


def decode(codes: np.ndarray, codebooks: Sequence[np.ndarray]) -> np.ndarray:
    """Decode codes to vectors: add up the chosen codewords, level by level.

    Args:
        codes: integers (n, M), M <= L: a prefix of the levels is enough.
        codebooks: float32 (K_l, D) per level.

    Returns:
        float32 (n, D).

    Raises:
        SidmillError: if codes are no integers, there are more columns than levels, or a code is
            not in [0, K_l).
    """
    codes = np.asarray(codes)
    if codes.dtype.kind not in "iu":
        raise SidmillError(f"codes are {codes.dtype}, wanted integers: pass what encode() gives")
    if codes.ndim != 2 or codes.shape[1] > len(codebooks):
        raise SidmillError(
            f"codes {codes.shape} do not fit {len(codebooks)} codebooks: "
            "pass (n, M) with at most one column per level"
        )
    total = np.zeros((len(codes), codebooks[0].shape[1]), dtype=np.float32)
    for level, codewords in enumerate(codebooks[: codes.shape[1]]):
        column = codes[:, level]
        if column.size and not 0 <= column.min() <= column.max() < len(codewords):
            raise SidmillError(
                f"codes of level {level} reach from {column.min()} to {column.max()}, but its "
                f"codebook has {len(codewords)} codewords: pass codes and codebooks "
                f"of one quantizer"
            )
        total += codewords[column]
    return total


def require_dim(
    shape: tuple[int, ...], codebooks: Sequence[np.ndarray], encoder: Network | None
) -> int:
    """Return D of the vectors, or refuse another D than that of the quantizer's training.

    Args:
        shape: of the vectors, (N, D).
        codebooks: float32 (K_l, d) per level.
        encoder: from D to d; None where d is D.

    Raises:
        SidmillError: naming both dimensions.
    """
    dim: int = encoder.weights[0].shape[1] if encoder else codebooks[0].shape[1]
    if len(shape) != 2 or shape[1] != dim:
        raise SidmillError(
            f"vectors {shape} do not fit a quantizer of dimension {dim}: "
            "train the quantizer on these embeddings"
        )
    return dim


def _require_codewords(codebooks: Sequence[np.ndarray], prices: Sequence[np.ndarray]) -> None:
    """Stop at codewords or prices that no cost can be computed from."""
    for level, codewords in enumerate(codebooks):
        longest = np.sqrt(np.einsum("ij,ij->i", codewords, codewords, dtype=np.float64).max())
        max_price = np.abs(prices[level]).max() if len(prices) else 0.0
        if not (longest <= row_blocks.LONGEST and max_price <= row_blocks.LONGEST**2):
            raise SidmillError(
                f"codebook {level} has codewords of length {longest:.3g} and prices of "
                f"{max_price:.3g}, too large for squared distances in float32: train the quantizer "
                f"again on vectors that are not longer than {row_blocks.LONGEST:g}"
            )


def _finite(
    vectors: np.ndarray | Streamed, n_rows: int, short: bool
) -> Iterator[tuple[int, np.ndarray]]:
    """Read blocks of rows that are in range; ``short``: whether all codewords are below it."""
    for start, block in row_blocks.read_blocks(vectors, n_rows):
        row_blocks.require_finite(block, start)
        if short:
            row_blocks.require_squares(float(row_blocks.largest_values(block).max()))
        yield start, block


def _without(
    stream: Iterator[tuple[int, np.ndarray]], first: FirstLevel
) -> Iterator[tuple[int, np.ndarray]]:
    """Take the codewords of the first level off the rows."""
    for start, block in stream:
        yield start, block - first.codewords[first.codes[start : start + len(block)]]


def _with_first(blocks: Iterator[np.ndarray], first: FirstLevel) -> Iterator[np.ndarray]:
    """Put the codes of the first level before those of the others."""
    row = 0
    for codes in blocks:
        own = first.codes[row : row + len(codes)]
        row += len(codes)
        yield np.column_stack([own, codes]).astype(np.int32, copy=False)


def _latents(
    stream: Iterator[tuple[int, np.ndarray]], encoder: Network | None
) -> Iterator[np.ndarray]:
    project = mlp.load(encoder, "cpu")
    return (np.asarray(project(block)) for _, block in stream)


def _encode_here(
    stream: Iterator[np.ndarray],
    priced: list[tuple[np.ndarray, np.ndarray | None]],
) -> Iterator[np.ndarray]:
    """Encode blocks in NumPy: lanes share the rows of a block, a portion at a time."""
    levels = [nearest_numpy.search_level(codewords, price) for codewords, price in priced]
    largest = max((len(level.codewords) for level in levels), default=1)
    most = max(MIN_ROWS, SCORES_AT_ONCE // largest)
    buffers: list[np.ndarray] = []
    for residuals in stream:
        # Portions of so few rows that every lane has one, and that scores stay in the cache.
        n_lanes = threads.granted()
        step = min(most, max(MIN_ROWS, -(-len(residuals) // n_lanes)))
        portions = [slice(start, start + step) for start in range(0, len(residuals), step)]
        n_lanes, n_scores = min(n_lanes, len(portions)), step * largest
        buffers = [buffer for buffer in buffers if len(buffer) >= n_scores]
        while len(buffers) < n_lanes:
            buffers.append(np.empty(n_scores, dtype=np.float32))

        codes = np.empty((len(residuals), len(levels)), dtype=np.int32)
        numbers = [number % n_lanes for number in range(len(portions))]
        jobs = [
            (residuals[portion], codes[portion], buffers[number])
            for portion, number in zip(portions, numbers, strict=True)
        ]
        with lanes.one_core_each():
            lanes.run(partial(_encode_rows, levels), jobs, numbers)
        yield codes


def _encode_rows(
    levels: list[nearest_numpy.Level],
    residuals: np.ndarray,
    codes: np.ndarray,
    buffer: np.ndarray,
) -> None:
    """Encode rows (b, D), which are overwritten, to ``codes`` (b, L)."""
    for number, level in enumerate(levels):
        codes[:, number] = nearest_numpy.nearest(residuals, level, buffer)
        if number + 1 < len(levels):
            residuals -= level.codewords[codes[:, number]]
