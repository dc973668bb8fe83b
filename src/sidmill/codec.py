"""Codes from vectors and vectors from codes: the one rule that every quantizer shares.

Shapes: N rows, D dimensions, L levels, K_l codewords at level l, b rows of one block.

Level l takes the codeword nearest to what the levels before left unexplained, as in the residual
vector quantizer of SoundStream, https://arxiv.org/abs/2107.03312.

The decision is defined by one expression, not by whichever matrix product happens to run. With
``r`` the float32 residual, the code is the lowest ``k`` that minimises
``np.square(r - w[k]).sum()``, all in float32: NumPy sums a contiguous row in an order that depends
on D alone. A matrix product only picks the candidates: each codeword that comes, within the
product's rounding, as near as the nearest. Where there are two or more, the expression decides.
So codes depend neither on the block size nor on the thread count or the device.

Where a quantizer learned its own space, its encoder comes first (:mod:`sidmill.network`), and the
rule above holds for the latents that it gives.
"""

import mmap
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from sidmill import network
from sidmill.core.errors import SidmillError
from sidmill.formats.quantizer import Network

MIB = 2**20
FLOAT_BYTES = 4
MAX_BLOCK_ROWS = 4096  # smaller and larger blocks were slower: docs/log.md
EPSILON = float(np.finfo(np.float32).eps)


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


def rows_per_block(dim: int, n_codes: int, memory_mb: int) -> int:
    """Return how many rows a block may hold.

    A row costs its source, its residual, one spare of the same size and K distances.

    Args:
        dim: D.
        n_codes: the largest K.
        memory_mb: MiB that one block with all its temporaries may take.

    Raises:
        SidmillError: if not even one row fits.
    """
    row_bytes = FLOAT_BYTES * (4 * dim + 2 * n_codes)
    rows = memory_mb * MIB // row_bytes
    if rows < 1:
        raise SidmillError(
            f"memory_mb {memory_mb} is too small for one row of {dim} dimensions and "
            f"{n_codes} codewords: raise it to at least {-(-row_bytes // MIB)}"
        )
    return rows


def read_blocks(
    vectors: np.ndarray, n_rows: int, rows: np.ndarray | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Read blocks of rows, each over the one before it.

    A memory map is read through its file and not through its pages, which would count as this
    process's memory for as long as the map lives. Memory: one block, plus one in float16.

    Args:
        vectors: float32 or float16 (N, D), in memory or memory-mapped.
        n_rows: rows of a block; the last one may be shorter.
        rows: which rows, ascending; None reads all of them.

    Yields:
        How many rows came before this block, and float32 (b, D). The array is overwritten by the
        next block.

    Raises:
        SidmillError: if ``vectors`` is no float16 or float32 matrix, or its file is too short.
    """
    if vectors.ndim != 2 or vectors.dtype not in (np.float32, np.float16):
        raise SidmillError(
            f"vectors are {vectors.dtype} {vectors.shape}, wanted float32 or float16 (N, D): "
            "convert the vector store"
        )
    total = len(vectors) if rows is None else len(rows)
    buffer = np.empty((min(n_rows, total), vectors.shape[1]), dtype=np.float32)
    raw = buffer if vectors.dtype == np.float32 else np.empty(buffer.shape, dtype=np.float16)
    place = _file_of(vectors)
    file = os.open(place.path, os.O_RDONLY) if place else -1
    try:
        for start in range(0, total, n_rows):
            block = raw[: min(n_rows, total - start)]
            wanted = (
                slice(start, start + len(block)) if rows is None else rows[start:][: len(block)]
            )
            if place:
                _read_rows(file, block, place, wanted)
            else:
                np.copyto(block, vectors[wanted])
            if raw is not buffer:
                np.copyto(buffer[: len(block)], block)
            yield start, buffer[: len(block)]
    finally:
        if place:
            os.close(file)


def encode(
    vectors: np.ndarray,
    codebooks: Sequence[np.ndarray],
    encoder: Network | None = None,
    *,
    device: str,
    memory_mb: int,
) -> Iterator[np.ndarray]:
    """Encode rows, block by block, in row order.

    Equal distances go to the lower code. The decision is the one in the module's docstring, on
    every device. Memory: one block with its temporaries, at most ``memory_mb``, and the codebooks.

    Args:
        vectors: float32 or float16 (N, D), finite, in memory or memory-mapped.
        codebooks: float32 (K_l, D) per level, or (K_l, d) behind an encoder.
        encoder: the quantizer's own, from D to d, or None.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        memory_mb: MiB for one block with its temporaries.

    Yields:
        int32 (b, L), values in [0, K_l).

    Raises:
        SidmillError: if the dimensions differ, a row is not finite, or ``memory_mb`` is too small.
    """
    target = pick_device(device)
    levels = [search_level(words, target) for words in codebooks]
    dim = encoder.weights[0].shape[1] if encoder else codebooks[0].shape[1]
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise SidmillError(
            f"vectors {vectors.shape} do not fit a quantizer of dimension {dim}: "
            "train the quantizer on these embeddings"
        )
    largest = max(len(words) for words in codebooks)
    width = max(dim, network.width(encoder))
    n_rows = min(rows_per_block(width, largest, memory_mb), MAX_BLOCK_ROWS)
    project = network.load(encoder, target)
    spare = torch.empty(n_rows * largest, device=target)  # fresh pages for each block cost 10 %
    for start, block in read_blocks(vectors, n_rows):
        require_finite(block, start)
        left = project(torch.from_numpy(block).to(target))  # what no level has explained
        codes = torch.empty((len(block), len(levels)), dtype=torch.int64, device=target)
        for number, level in enumerate(levels):
            codes[:, number] = nearest(left, level, spare)
            if number + 1 < len(levels):
                left -= level.words.index_select(0, codes[:, number])
        yield codes.cpu().numpy().astype(np.int32)


def decode(codes: np.ndarray, codebooks: Sequence[np.ndarray]) -> np.ndarray:
    """Add up the chosen codewords, level by level.

    Args:
        codes: integers (n, M), M <= L: a prefix of the levels will do.
        codebooks: float32 (K_l, D) per level.

    Returns:
        float32 (n, D).

    Raises:
        SidmillError: if there are more columns than levels, or a code is not in [0, K_l).
    """
    codes = np.asarray(codes)
    if codes.ndim != 2 or codes.shape[1] > len(codebooks):
        raise SidmillError(
            f"codes {codes.shape} do not fit {len(codebooks)} codebooks: "
            "pass (n, M) with at most one column per level"
        )
    total = np.zeros((len(codes), codebooks[0].shape[1]), dtype=np.float32)
    for level, words in enumerate(codebooks[: codes.shape[1]]):
        column = codes[:, level]
        if column.size and not 0 <= column.min() <= column.max() < len(words):
            raise SidmillError(
                f"codes of level {level} reach from {column.min()} to {column.max()}, but its "
                f"codebook has {len(words)} words: codes and codebooks are not of one quantizer"
            )
        total += words[column]
    return total


def require_finite(block: np.ndarray, start: int) -> None:
    """Stop at the first row with a NaN or an infinity.

    Args:
        block: float32 (b, D).
        start: row number of its first row, for the message.

    Raises:
        SidmillError: naming the row.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(np.vdot(block, block)):  # one pass; most blocks end here
            return
    bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
    if bad.size:
        raise SidmillError(
            f"vectors are not finite, first at row {start + bad[0]}: re-embed that item"
        )


class Level(NamedTuple):
    """One codebook, ready for the search."""

    words: torch.Tensor  # float32 (K, D)
    half_norms: torch.Tensor  # float32 (K,), half the squared norms; infinite for a repeated word
    max_norm: float  # the largest norm


def search_level(words: np.ndarray, device: torch.device) -> Level:
    """Prepare a codebook for ``nearest``: a word that repeats an earlier one can never win.

    Args:
        words: float32 (K, D).
        device: where the search will run.
    """
    words = np.ascontiguousarray(words, dtype=np.float32)
    norms = np.square(words.astype(np.float64)).sum(axis=1)
    seen: dict[bytes, int] = {}
    half = (norms / 2).astype(np.float32)
    for code, word in enumerate(words):
        if seen.setdefault(word.tobytes(), code) != code:
            half[code] = np.inf
    on_device = torch.from_numpy(words).to(device)
    return Level(on_device, torch.from_numpy(half).to(device), float(np.sqrt(norms.max())))


def nearest(left: torch.Tensor, level: Level, spare: torch.Tensor | None = None) -> torch.Tensor:
    """Return the code of each row, by the rule of the module's docstring.

    Args:
        left: float32 (b, D), residuals.
        level: the codebook.
        spare: float32, at least b K numbers to write the scores to; None takes new memory.

    Returns:
        int64 (b,).
    """
    scores = score(left, level.words, level.half_norms, spare)
    codes = lowest(scores)
    lines = torch.arange(len(codes), device=codes.device)
    best = scores[lines, codes]
    scores[lines, codes] = torch.inf
    # Rounding of the product and of the expression, in units of eps sqrt(D) (|r| + max |w|)^2: the
    # largest seen of either was 0.75, four of them add up, so 8 is ample; more only costs time.
    scale = torch.linalg.vector_norm(left, dim=1).add_(level.max_norm).square_()
    limit = scale.mul_(8 * EPSILON * left.shape[1] ** 0.5).add_(best)
    unsure = (scores.amin(dim=1) <= limit).nonzero()[:, 0]
    if len(unsure):
        near = scores[unsure] <= limit[unsure, None]
        near[torch.arange(len(unsure), device=codes.device), codes[unsure]] = True
        codes[unsure] = _decide(left[unsure], level.words, near).to(codes.device)
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


def lowest(scores: torch.Tensor) -> torch.Tensor:
    """Column of the lowest score of each row, int64; on a CPU NumPy's search is the faster one."""
    if scores.device.type == "cpu":
        return torch.from_numpy(scores.numpy().argmin(axis=1))
    return scores.argmin(dim=1)


def _decide(left: torch.Tensor, words: torch.Tensor, near: torch.Tensor) -> torch.Tensor:
    """Apply the deciding expression to the candidates: bool ``near`` (u, K) of u rows."""
    rows, candidates = (part.cpu().numpy() for part in near.nonzero(as_tuple=True))
    residuals, codebook = left.cpu().numpy(), words.cpu().numpy()
    distances = np.empty(len(rows), dtype=np.float32)
    for start in range(0, len(rows), 1024):
        part = slice(start, start + 1024)
        apart = residuals[rows[part]] - codebook[candidates[part]]
        distances[part] = np.square(apart).sum(axis=1)
    order = np.lexsort((candidates, distances, rows))
    first = np.unique(rows[order], return_index=True)[1]
    return torch.from_numpy(candidates[order][first])


class _Place(NamedTuple):
    """Where the bytes of a memory map lie."""

    path: str
    offset: int


def _file_of(vectors: np.ndarray) -> _Place | None:
    """Find the file behind a memory map, or behind consecutive whole rows of one."""
    root = vectors
    while isinstance(root.base, np.ndarray):
        root = root.base
    if not isinstance(root, np.memmap) or not isinstance(root.base, mmap.mmap):
        return None
    if root.filename is None or root.mode != "r" or not vectors.flags.c_contiguous:
        return None
    return _Place(str(root.filename), root.offset + vectors.ctypes.data - root.ctypes.data)


def _read_rows(file: int, block: np.ndarray, place: _Place, wanted: slice | np.ndarray) -> None:
    """Fill ``block`` with the rows of a slice, or with ascending rows, one read per run."""
    row_bytes = block.strides[0]
    if isinstance(wanted, slice):
        _read_exactly(file, block, place, wanted.start * row_bytes)
        return
    edges = np.flatnonzero(np.diff(wanted) != 1) + 1
    starts = [0, *edges.tolist()]
    for start, stop in zip(starts, [*starts[1:], len(wanted)], strict=True):
        _read_exactly(file, block[start:stop], place, int(wanted[start]) * row_bytes)


def _read_exactly(file: int, block: np.ndarray, place: _Place, offset: int) -> None:
    view = memoryview(block).cast("B")
    done = 0
    while done < len(view):
        n_bytes = os.preadv(file, [view[done:]], place.offset + offset + done)
        if n_bytes == 0:
            raise SidmillError(f"{place.path} is shorter than its header says: write it again")
        done += n_bytes
