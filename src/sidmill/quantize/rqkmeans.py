"""Residual k-means: L k-means fits, each to what the one before left unexplained.

Shapes: N items, n training rows, D dimensions, L levels, K_l codewords at level l.

Source: the residual vector quantizer of SoundStream, Algorithm 1, https://arxiv.org/abs/2107.03312,
with each level fitted by k-means in place of a learned codebook.

A level spends its work differently from plain k-means. A sample of 32 rows per codeword finds the
structure: k-means++, then passes with merges and splits, all in memory. Passes over every training
row follow, streamed, the codewords moving after each block; a few of them go further than twenty
of plain k-means. docs/log.md has the figures.
"""

import logging
import time
from collections.abc import Callable
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
import torch
import xxhash

from sidmill.core.errors import SidmillError
from sidmill.formats.vector_file import Streamed
from sidmill.numeric import nearest_torch, row_blocks
from sidmill.numeric.nearest_torch import Piece
from sidmill.quantize import (
    kmeans_pp,
    lloyd,
    load_balance,
    reseed_empty,
    residual_rows,
    resume,
    split_merge,
)
from sidmill.quantize.lloyd import Clusters
from sidmill.quantize.residual_rows import Source
from sidmill.quantize.resume import Fitted

logger = logging.getLogger(__name__)

SEEDING_ROWS = 16  # rows per codeword that k-means++ draws from
SAMPLE_ROWS = 32  # rows per codeword of the sample held in memory
SWAP_PASSES = 6  # over the sample at most, each followed by merges and splits
FEW_SWAPS = 0.02  # of the codewords: fewer pairs than this end the swaps
SAMPLE_PASSES = 2  # over the sample after the last swap
BLOCK_ROWS = 4  # rows per codeword of a block: many more, and codewords move too rarely
MIN_BLOCK_ROWS = 256


class State(NamedTuple):
    """A level after a pass over the training rows: all that the next pass starts from."""

    level: int
    n_passes: int
    error: float  # sum of squares that the assignment leaves; infinite before the first pass
    clusters: Clusters
    codes: np.ndarray | None  # (n,), the assignment; meaningless before the first pass
    hartigan: bool


class _Data(NamedTuple):
    """What one look at all training rows finds."""

    squares: float  # their sum
    digest: str  # of the values, in row order
    scale: float  # power of two that brings the values near 1; 1 for ordinary ones


def fit(
    vectors: np.ndarray | Streamed,
    *,
    n_levels: int,
    codebook_size: int | list[int],
    n_iter: int,
    tolerance: float,
    max_points_per_centroid: int | None,
    balance: str,
    max_load: float,
    seed: int,
    device: str,
    memory_mb: int,
    state_path: str | None,
    code: str,
) -> Fitted:
    """Fit residual codebooks.

    Trained on every row, a level never leaves a larger mean squared error than the one before; it
    is logged. A level depends on the vectors, the levels before it, the settings and the seed
    alone; ``memory_mb`` counts where it cuts the sample or the blocks. The same input, settings,
    seed and thread count give the same bytes on the same kind of machine, on any number of GPUs:
    each searches for its pieces of a block, and what moves is added up in row order.

    Multiplying all vectors by a power of two multiplies the codebooks by it: very large and very
    small vectors are scaled while they are read.

    The next level is fitted to what the last pass of this one left, not to what the codec would
    leave: the few rows that differ lie between two codewords.

    Memory: about ``memory_mb`` for the sample and one block with its temporaries, the codebooks
    (three times, one in float64), and per row and level one byte, two above 256 codewords or four
    above 65,536. With many codewords glibc keeps freed blocks on top of that, some hundreds of MiB;
    ``MALLOC_MMAP_THRESHOLD_=1000000`` in the environment has it give them back.

    Args:
        vectors: float32 or float16 (N, D), finite, in memory, memory-mapped or streamed; a stream
            is read once per pass.
        n_levels: L, tokens per semantic id.
        codebook_size: K of every level, or one K per level.
        n_iter: at most so many passes over the training rows per level.
        tolerance: a level ends when a pass lowers its error by less than this share; 0 ends it
            when no row moves.
        max_points_per_centroid: train on a sample of so many rows per codeword of the largest
            level; 0 or None trains on every row.
        balance: ``none``; ``sinkhorn`` evens out how many rows a codeword has; ``capacity`` limits
            it. See :mod:`sidmill.quantize.load_balance`.
        max_load: with ``capacity``, the largest load over the mean.
        seed: covers the samples, the first codewords and the directions of splits.
        device: ``auto`` (every GPU, or the CPU without one), ``cpu``, ``cuda:1``, or several with
            commas between them: these share the rows of a block.
        memory_mb: MiB for the sample and for blocks.
        state_path: file that keeps the state after every pass, or None. A training that was cut
            short goes on from there and ends in the same bytes; the caller removes the file.
        code: names the code; the state that other code left is not used.

    Returns:
        Codebooks, float32 (K_l, D) per level, level 0 first; with a balance also their prices.

    Raises:
        SidmillError: if there are fewer rows than codewords, the list of sizes is not L long, a
            row is not finite or longer than ``blocks.LONGEST``, all values are below
            ``blocks.SHORTEST``, or ``memory_mb`` is too small.
    """
    sizes = _sizes(codebook_size, n_levels)
    n_items = len(vectors)
    if n_items < max(sizes):
        raise SidmillError(
            f"{n_items} vectors cannot fill {max(sizes)} codewords: "
            f"lower rqkmeans.codebook_size to at most {n_items}, or embed more items"
        )
    chosen = _training_rows(n_items, max_points_per_centroid, max(sizes), seed)
    n_rows = _whole_pieces(
        row_blocks.rows_per_block(vectors.shape[1], max(sizes), max(1, memory_mb // 2))
    )
    n_rows = min(n_rows, row_blocks.MAX_BLOCK_ROWS)
    devices = nearest_torch.lanes(
        nearest_torch.pick_devices(device), _block_rows(max(sizes), n_rows)
    )
    source = Source(vectors, chosen, [], [], devices, n_rows, scale=1.0)
    data = _look_through(source)
    error, scale = data.squares * data.scale**2, data.scale
    source = residual_rows.hold(source._replace(scale=scale))
    n_values = (
        residual_rows.count(source) * vectors.shape[1] * scale**2
    )  # a mean over it is unscaled
    logger.info(
        "%d rows, %d for training: mse %.6g", n_items, residual_rows.count(source), error / n_values
    )
    identity = {
        "settings": [
            *(sizes, n_iter, tolerance, max_points_per_centroid),
            *(balance, max_load, seed, devices[0].type, memory_mb, code),
        ],
        "data": [*vectors.shape, data.digest],
    }
    saved, keep = resume.start(state_path, identity)
    finished, errors = saved.finished, saved.facts.pop("errors", [])
    n_finished = len(finished.codebooks)
    assigned = {name: saved.arrays.pop(name) for name in map(_assigned, range(n_finished))}
    for words, prices, codes in zip_longest(finished.codebooks, finished.prices, assigned.values()):
        source = residual_rows.explain(source, nearest_torch.copies(words, devices, prices), codes)
    error = errors[-1] if errors else error
    unfinished: resume.Saved | None = saved if saved.arrays else None

    def keep_level(arrays: dict[str, np.ndarray], facts: dict) -> None:
        keep(finished, arrays | assigned, facts | {"errors": errors})

    for level, size in list(enumerate(sizes))[n_finished:]:
        began = time.perf_counter()
        source = source._replace(block_rows=_block_rows(size, n_rows))
        with nearest_torch.rough_products():
            state = _fit_level(
                *(source, size, n_iter, tolerance, error, [seed, level], memory_mb),
                *(unfinished, keep_level),
            )
        unfinished = None
        words, codes, error = state.clusters.words.cpu().numpy(), state.codes, state.error
        prices = None
        if balance != "none":
            drawer = np.random.default_rng([seed, level, 1])
            sample = _sample(source, size, drawer, memory_mb)
            generator = torch.Generator().manual_seed(int(drawer.integers(2**63)))
            balanced = load_balance.settle(
                source, state.clusters.words, sample, generator, balance, max_load
            )
            words, prices, codes = balanced.words, balanced.prices, None
            finished.prices.append(prices)
            finished.balance.append(balanced.facts)
        finished.codebooks.append(words)
        ready = nearest_torch.copies(words, devices, prices)
        if codes is None:
            codes, error = _assign(source, ready)
        source = residual_rows.explain(source, ready, codes)
        assigned[_assigned(level)] = codes
        errors.append(error)
        keep_level({}, {})
        seconds = time.perf_counter() - began
        logger.info(
            "level %d/%d: mse %.6g after %d passes, %.2f iterations/s",
            level + 1,
            n_levels,
            error / n_values,
            state.n_passes,
            state.n_passes / seconds,
        )
    return finished if scale == 1.0 else _unscale(finished, scale)


def _sizes(codebook_size: int | list[int], n_levels: int) -> list[int]:
    sizes = [codebook_size] * n_levels if isinstance(codebook_size, int) else list(codebook_size)
    if len(sizes) != n_levels:
        raise SidmillError(
            f"rqkmeans.codebook_size lists {len(sizes)} sizes for {n_levels} levels: "
            "give one size per level, or one number for all"
        )
    if min(sizes, default=0) < 1:
        raise SidmillError(
            f"rqkmeans.codebook_size {codebook_size} for {n_levels} levels: "
            "give at least one level, and sizes of at least 1"
        )
    return sizes


def _training_rows(n_items: int, per_code: int | None, size: int, seed: int) -> np.ndarray | None:
    """Draw the rows to train on, ascending; None stands for all."""
    if not per_code or n_items <= per_code * size:
        return None
    generator = np.random.default_rng([seed])
    return np.sort(generator.choice(n_items, size=per_code * size, replace=False))


def _assigned(level: int) -> str:
    """Name of the array in a state that holds the training rows' codes of a finished level."""
    return f"assigned.{level}"


def _whole_pieces(n_rows: int) -> int:
    """Round down to pieces that devices share, where there is more than one."""
    return (
        n_rows - n_rows % nearest_torch.PIECE_ROWS if n_rows > nearest_torch.PIECE_ROWS else n_rows
    )


def _block_rows(size: int, n_rows: int) -> int:
    """Rows between two moves of a level's codewords, at most ``n_rows``."""
    return min(n_rows, _whole_pieces(max(MIN_BLOCK_ROWS, BLOCK_ROWS * size)))


def _look_through(source: Source) -> _Data:
    """Measure the training rows; read every row and stop at a bad one."""
    total, digest = 0.0, xxhash.xxh3_128()
    largest = exponents = n_exponents = 0.0

    def measure(block: np.ndarray) -> None:
        nonlocal total, largest, exponents, n_exponents
        total += _squares(torch.from_numpy(block))
        digest.update(block)
        values = row_blocks.largest_values(block)
        largest = max(largest, float(values.max()))
        found = row_blocks.exponents(values)
        exponents, n_exponents = exponents + float(found.sum()), n_exponents + len(found)

    for start, block in row_blocks.read_blocks(source.vectors, source.block_rows):
        row_blocks.require_finite(block, start)
        if source.rows is None:
            measure(block)
    if source.rows is not None:
        for _, block in row_blocks.read_blocks(source.vectors, source.block_rows, source.rows):
            measure(block)
    row_blocks.require_squares(largest)
    scale = row_blocks.safe_scale(exponents / max(1, n_exponents))
    return _Data(total, digest.hexdigest(), scale)


def _unscale(finished: Fitted, scale: float) -> Fitted:
    """Codebooks and prices of vectors that were multiplied by ``scale``, without it."""
    words = [(words / scale).astype(np.float32) for words in finished.codebooks]
    prices = [(prices / scale**2).astype(np.float32) for prices in finished.prices]
    return Fitted(words, prices, finished.balance)


def _squares(block: torch.Tensor) -> float:
    return float(block.square().sum(dtype=torch.float64))


def _fit_level(
    source: Source,
    size: int,
    n_iter: int,
    tolerance: float,
    before: float,
    seed: list[int],
    memory_mb: int,
    unfinished: resume.Saved | None,
    keep: Callable[[dict[str, np.ndarray], dict], None],
) -> State:
    """Fit one level; ``before`` is the sum of squares of the training rows' residuals."""
    if unfinished:
        sampled = None
        state, best = _unpack(unfinished, seed[-1], source.device)
    else:
        drawer = np.random.default_rng(seed)
        generator = torch.Generator().manual_seed(int(drawer.integers(2**63)))
        sampled = _fit_sample(source, size, drawer, generator, memory_mb)
        code_type = np.min_scalar_type(size - 1)
        best = state = State(
            level=seed[-1],
            n_passes=0,
            error=float("inf"),
            clusters=lloyd.empty(sampled.words),
            codes=np.zeros(residual_rows.count(source), dtype=code_type),
            hartigan=True,
        )
    while state.n_passes < n_iter:
        state = _pass(source, state, before, sampled if state.n_passes == 0 else None)
        fall = best.error - state.error
        if fall >= 0:
            best = state._replace(clusters=Clusters(*(part.clone() for part in state.clusters)))
        if fall <= tolerance * state.error:
            if fall >= 0 or not state.hartigan:
                break
            state = state._replace(hartigan=False)  # rows left together, and met
        keep(*_pack(state, best))
    codes = state.codes if state.error == best.error else None
    return state._replace(error=best.error, clusters=best.clusters, codes=codes)


def _pack(state: State, best: State) -> tuple[dict[str, np.ndarray], dict]:
    """Turn a level at hand into arrays and facts."""
    arrays = {name: part.cpu().numpy() for name, part in state.clusters._asdict().items()}
    arrays |= {"codes": state.codes, "best": best.clusters.words.cpu().numpy()}
    facts = {"n_passes": state.n_passes, "error": state.error, "hartigan": state.hartigan}
    return arrays, facts | {"best_error": best.error}


def _unpack(saved: resume.Saved, level: int, device: torch.device) -> tuple[State, State]:
    """Turn arrays and facts back into the level at hand and its best state."""
    arrays, facts = saved.arrays, saved.facts
    clusters = Clusters(*(torch.from_numpy(arrays[name]).to(device) for name in Clusters._fields))
    state = State(
        level=level,
        n_passes=facts["n_passes"],
        error=facts["error"],
        clusters=clusters,
        codes=arrays["codes"],
        hartigan=facts["hartigan"],
    )
    words = torch.from_numpy(arrays["best"]).to(device)
    best = state._replace(error=facts["best_error"], clusters=lloyd.empty(words))
    return state, best


def _fit_sample(
    source: Source,
    size: int,
    drawer: np.random.Generator,
    generator: torch.Generator,
    memory_mb: int,
) -> Clusters:
    """Find the structure of the rows in a sample that fits in half of ``memory_mb``."""
    sample = _sample(source, size, drawer, memory_mb)
    step = source.block_rows
    words = kmeans_pp.seed_words(sample[: SEEDING_ROWS * size], size, generator, step)
    clusters = lloyd.empty(words)
    codes: torch.Tensor | None = None
    spares = _spares(source, size)
    passes_left = SWAP_PASSES + SAMPLE_PASSES
    while passes_left:
        after = []
        for start in range(0, len(sample), step):
            part = slice(start, start + step)
            was = None if codes is None else codes[part]
            pieces = [
                Piece(place, left.to(source.devices[place]))
                for place, left in nearest_torch.cut(start, sample[part], len(source.devices))
            ]
            after.append(lloyd.visit(clusters, pieces, was, True, spares))
            if codes is not None:
                lloyd.centre(clusters)
        codes = torch.cat(after)
        lloyd.centre(clusters)
        if passes_left > SAMPLE_PASSES:
            codes, n_pairs = split_merge.swap(clusters, sample, codes, step, generator)
            logger.debug("level %d: %d merges and splits", len(source.levels) + 1, n_pairs)
            if n_pairs < FEW_SWAPS * size:
                passes_left = SAMPLE_PASSES + 1
        passes_left -= 1
    return clusters


def _sample(source: Source, size: int, drawer: np.random.Generator, memory_mb: int) -> torch.Tensor:
    """Draw as many rows as serve, and as fit in half of ``memory_mb``."""
    row_bytes = row_blocks.FLOAT_BYTES * source.vectors.shape[1]
    fitting = max(size, memory_mb * row_blocks.MIB // 2 // row_bytes)
    return residual_rows.sample(
        source, min(residual_rows.count(source), SAMPLE_ROWS * size, fitting), drawer
    )


def _pass(source: Source, state: State, before: float, prior: Clusters | None) -> State:
    """Visit every training row once; ``prior`` holds the sample's members in the first pass."""
    clusters, codes = state.clusters, state.codes
    spares = _spares(source, len(clusters.words))
    for part, pieces in residual_rows.pieces(source):
        was = None
        if state.n_passes:
            was = torch.from_numpy(codes[part].astype(np.int64)).to(source.device)
        now = lloyd.visit(clusters, pieces, was, state.hartigan, spares)
        codes[part] = now.cpu().numpy()
        lloyd.centre(clusters, prior)
    lloyd.centre(clusters)
    reseed_empty.fill_empty(source, clusters, codes)
    error = max(0.0, before - lloyd.explained(clusters))
    logger.debug("level %d pass %d: error %.6g", state.level + 1, state.n_passes + 1, error)
    return state._replace(n_passes=state.n_passes + 1, error=error)


def _spares(source: Source, size: int) -> list[torch.Tensor]:
    """Memory for the scores of a piece on each device."""
    return [
        torch.empty(nearest_torch.PIECE_ROWS * size, device=device) for device in source.devices
    ]


def _assign(source: Source, level: list[nearest_torch.Level]) -> tuple[np.ndarray, float]:
    """Assign every training row as the codec does; return codes and the sum of squares left."""
    size = len(level[0].words)
    codes = np.empty(residual_rows.count(source), dtype=np.min_scalar_type(size - 1))
    spares = _spares(source, size)
    error = 0.0
    for part, pieces in residual_rows.pieces(source):
        now = nearest_torch.nearest_of_pieces(pieces, level, spares)
        codes[part] = np.concatenate([found.cpu().numpy() for found in now])
        for (place, left), found in zip(pieces, now, strict=True):
            error += _squares(left - level[place].words.index_select(0, found))
    return codes, error
