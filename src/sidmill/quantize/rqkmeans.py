"""Residual k-means: L fits of k-means, each to the residuals of the levels before it.

Shapes: N items, n training rows, D dimensions, L levels, K_l codewords at level l.

Source: the residual vector quantizer of SoundStream, Algorithm 1, https://arxiv.org/abs/2107.03312,
with each level fitted by k-means in place of a learned codebook.

A level is not fitted by plain k-means. First, k-means++ and passes with merges and splits run on a
sample of 32 rows per codeword that is held in memory. Then passes over all training rows follow,
which are streamed; the codewords move after each block. A few such passes reach a lower error than
twenty passes of plain k-means. docs/log.md has the figures.

The same text works for NumPy and for torch (:mod:`sidmill.numeric.arrays`): on a CPU NumPy computes
trainings of few rows or small codebooks, without the import of torch.

Several processes may share the search of each block (:mod:`sidmill.quantize.shared_blocks`), on
CPUs also that of k-means++ and the halving of clusters. What is small beside it, every process
computes for itself: draws, merges and the sums.
"""

import json
import logging
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xxhash

from sidmill.core.errors import SidmillError
from sidmill.formats.vector_file import Streamed
from sidmill.numeric import arrays, nearest_pieces, process_group, row_blocks, row_pieces
from sidmill.numeric.arrays import Array, Device, Generator
from sidmill.numeric.process_group import ALONE, Group
from sidmill.numeric.row_pieces import Piece
from sidmill.quantize import (
    codebook_sizes,
    kmeans_pp,
    known_codes,
    lloyd,
    reseed_empty,
    residual_rows,
    resume,
    shared_blocks,
    split_merge,
    training_devices,
)
from sidmill.quantize.lloyd import Clusters
from sidmill.quantize.residual_rows import Source
from sidmill.quantize.resume import Fitted
from sidmill.quantize.shared_blocks import SharedBlock
from sidmill.settings import base
from sidmill.settings.quantize import Rqkmeans

if TYPE_CHECKING:
    from sidmill.numeric.nearest_pieces import Level

logger = logging.getLogger(__name__)

SEEDING_ROWS = 16  # rows per codeword that k-means++ draws from
SAMPLE_ROWS = 32  # rows per codeword of the sample held in memory
SWAP_PASSES = 12  # over the sample at most, each followed by merges and splits
SMALL_GAIN = 0.001  # of the squared error: merges and splits that lower it by less are the last
SAMPLE_PASSES = 2  # over the sample after the last swap
BLOCK_ROWS = 4  # rows per codeword of a block: with many more, codewords move too rarely
MIN_BLOCK_ROWS = 256
BLOCK_MB = 512  # MiB of the largest block: with many codewords a block has fewer rows
DEVICE_BLOCK_ROWS = 32768  # of the largest block on a GPU ...
DEVICE_BLOCK_MB = 8192  # ... and its MiB
N_MEASURED = 8  # numbers that are measured of each block


class Run(NamedTuple):
    """What a training is besides its settings: see :func:`fit`."""

    seed: int
    state_path: str | None
    code: str


class State(NamedTuple):
    """A level after a pass over the training rows: all that the next pass starts from."""

    level: int
    n_passes: int
    error: float  # sum of squared errors of the assignment; infinite before the first pass
    clusters: Clusters
    codes: np.ndarray  # (n,), the assignment; meaningless before the first pass
    hartigan: bool


class _Data(NamedTuple):
    """What one pass over all training rows measures."""

    squares: float  # sum of squares of the values
    digest: str  # of the values, in row order
    scale: float  # power of two that brings the values near 1; 1 for ordinary ones


class _Training(NamedTuple):
    """What the fits of all levels share; the three lists grow with each finished level."""

    settings: Rqkmeans
    seed: int
    save: resume.Save
    finished: Fitted
    errors: list[float]  # sum of squared errors after each finished level
    codes: list[np.ndarray]  # (n,) per finished level, codes of the training rows
    known: np.ndarray | None  # int32 (n, L), codes that the rows have already
    scale: float = 1.0  # of the vectors: see _Data

    def keep(self, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
        """Save the finished levels, and the arrays and facts of an unfinished one."""
        codes = {_codes_name(level): codes for level, codes in enumerate(self.codes)}
        self.save(
            self.finished, arrays | codes, facts | {"errors": self.errors, "scale": self.scale}
        )


def fit(
    vectors: np.ndarray | Streamed,
    settings: Rqkmeans,
    *,
    seed: int,
    state_path: str | None = None,
    code: str = "",
    known: np.ndarray | None = None,
    group: Group = ALONE,
) -> Fitted:
    """Fit residual k-means.

    Trained on every row, a level never has a larger mean squared error than the level before it;
    the error is logged. A level depends on the vectors, the levels before it, the science settings
    and the seed alone. The same input, settings and seed give the same bytes on the same kind of
    machine, for any ``memory_mb`` and any number of GPUs and processes: each searches for its
    pieces of a block, and sums are taken in row order. A GPU rounds products and takes larger
    blocks of many codewords than a CPU does, so that codebooks differ and errors are alike. So do
    those of NumPy, which computes small trainings on a CPU, and of torch
    (:mod:`sidmill.quantize.training_devices`).

    Multiplying all vectors by a power of two multiplies the codebooks by it: very large and very
    small vectors are scaled while they are read.

    The next level is fitted to the residuals of the last pass, not to those of the codec: the few
    rows that differ lie between two codewords.

    Memory: about ``settings.memory_mb`` for the sample and one block with its temporaries, the
    codebooks (three times, one in float64, and once in bfloat16), and per row and level one byte,
    two above 256 codewords or four above 65,536. With many codewords glibc keeps freed blocks on
    top of that, some hundreds of MiB; ``MALLOC_MMAP_THRESHOLD_=1000000`` in the environment makes
    it release them.

    Args:
        vectors: float32 or float16 (N, D), finite, in memory, memory-mapped or streamed; a stream
            is read once per pass.
        settings: see :class:`sidmill.settings.quantize.Rqkmeans`. For ``balance`` see
            :mod:`sidmill.quantize.load_balance`.
        seed: covers the samples, the first codewords and the directions of splits.
        state_path: file that keeps the state after every pass, or None. An interrupted training
            continues from it and ends in the same bytes; the caller removes the file.
        code: names the code; a state of other code is not used.
        known: int32 (N, L), codes that the rows have of an earlier quantizer, -1 for rows without
            any (:mod:`sidmill.quantize.known_codes`): levels start from them, so that most rows
            keep them. None: levels start from samples.
        group: the processes that call this function together, with the same arguments; each
            returns the codebooks. The first one keeps the state. Each takes the memory of a
            process alone.

    Returns:
        Codebooks, float32 (K_l, D) per level, level 0 first; with a balance also their prices.

    Raises:
        SidmillError: if there are fewer rows than codewords, the list of sizes is not L long, a
            row is not finite or longer than ``row_blocks.LONGEST``, all values are below
            ``row_blocks.SHORTEST``, or ``memory_mb`` is smaller than :func:`memory_needed`. With
            several processes also if vectors are streamed, another process is gone, or processes
            have other arguments or compute other bits.
    """
    # Refuse what cannot work before a row is read.
    sizes = codebook_sizes.per_level(settings)
    n_items, dim = vectors.shape
    if n_items < max(sizes):
        # Sizes of compared codes come as a list too.
        or_fuse = isinstance(settings.codebook_size, list) * " (or fuse.codebook_sizes, if set)"
        raise SidmillError(
            f"{n_items} vectors cannot fill {max(sizes)} codewords: "
            f"lower rqkmeans.codebook_size{or_fuse} to at most {n_items}, or embed more items"
        )
    chosen = _training_rows(n_items, settings.max_points_per_centroid, max(sizes), seed)
    n_training = n_items if chosen is None else len(chosen)
    _require_memory(settings.memory_mb, memory_needed(n_training, dim, sizes))
    if group.size > 1 and isinstance(vectors, Streamed):
        raise SidmillError(
            f"{group.size} processes cannot share a stream of vectors: write them to a .npy file, "
            "or lower rqkmeans.processes to 1"
        )

    # The devices, and how many rows they take between two moves of the codewords.
    devices = training_devices.pick(settings, (n_training, dim), sizes, group)
    largest = _largest_block(dim, sizes, is_gpu=devices[0].type == "cuda")
    most = most_processes(dim, sizes, is_gpu=devices[0].type == "cuda")
    if group.size > most:
        logger.warning(
            "%d processes share blocks of %d piece(s), so that %d of them wait: lower "
            "rqkmeans.processes (on Slurm the tasks of train_rqkmeans) to at most %d",
            *(group.size, most, group.size - most, most),
        )
    per_process = -(-_block_rows(max(sizes), largest) // group.size)
    devices = nearest_pieces.expand_cpu(devices, per_process)
    source = Source(vectors, chosen, [], [], devices, largest, scale=1.0, group=group)
    with nearest_pieces.one_core_each(source.device):
        return _fit_levels(source, settings, Run(seed, state_path, code), known)


def _fit_levels(source: Source, settings: Rqkmeans, run: Run, known: np.ndarray | None) -> Fitted:
    """Fit the levels one after the other; arguments as in :func:`fit`."""
    # Measure the training rows; GPUs with enough memory keep them from here on.
    sizes, group, device = codebook_sizes.per_level(settings), source.group, source.device
    n_items, dim = source.vectors.shape
    n_training, largest = residual_rows.count(source), source.block_rows
    data = _measure_rows(source)
    source = residual_rows.keep_on_devices(source._replace(scale=data.scale))
    n_values = n_training * dim * data.scale**2  # a mean over it is that of unscaled vectors
    error = data.squares * data.scale**2
    logger.info("%d rows, %d for training: mse %.6g", n_items, n_training, error / n_values)

    # Continue from the levels and the passes that an interrupted training has saved.
    computes = "numpy" if device == arrays.HOST else device.type
    identity = {
        "settings": base.identity(settings),
        "run": [run.seed, computes, run.code],
        "data": [n_items, dim, data.digest],
        "known": None if known is None else _digest(known),
    }
    saved, save = resume.start(run.state_path, identity, saves=group.rank == 0)
    agreed = [identity, saved.facts, len(saved.finished.codebooks)]
    process_group.require_same(group, json.dumps(agreed).encode(), "state or input")
    if known is not None and source.rows is not None:
        known = known[source.rows]
    training = _restore(settings, run.seed, saved, save, known)._replace(scale=data.scale)
    source = _subtract_finished(source, training)
    unfinished = saved if saved.arrays else None

    for level, size in list(enumerate(sizes))[len(training.errors) :]:
        began = time.perf_counter()
        source = source._replace(block_rows=_block_rows(size, largest))
        before = training.errors[-1] if training.errors else error
        with nearest_pieces.rough_products(device):
            state, codes = _fit_level(source, size, training, before, unfinished)
        unfinished = None
        source = _finish_level(source, state, codes, training)
        seconds = time.perf_counter() - began
        logger.info(
            "level %d/%d: mse %.6g after %d passes, %.2f iterations/s",
            level + 1,
            len(sizes),
            training.errors[-1] / n_values,
            state.n_passes,
            state.n_passes / seconds,
        )
    return resume.unscale(training.finished, data.scale)


def memory_needed(n_rows: int, dim: int, sizes: list[int]) -> int:
    """Return the smallest ``memory_mb`` for residual k-means: the sample, and one block.

    Args:
        n_rows: n, training rows.
        dim: D.
        sizes: K per level.
    """
    largest = _largest_block(dim, sizes)
    blocks = [row_blocks.block_bytes(min(largest, n_rows), dim, 0)]
    for size in sizes:
        rows = min(_block_rows(size, largest), n_rows)
        blocks.append(row_blocks.block_bytes(rows, dim, size))
    sample = row_blocks.FLOAT_BYTES * dim * min(n_rows, SAMPLE_ROWS * max(sizes))
    return -(-(sample + max(blocks)) // row_blocks.MIB)


def most_processes(dim: int, sizes: list[int], *, is_gpu: bool = False) -> int:
    """Return how many processes of residual k-means have work: the pieces of the largest block.

    Args:
        dim: D.
        sizes: K per level.
        is_gpu: whether each process has a GPU.
    """
    largest = _largest_block(dim, sizes, is_gpu=is_gpu)
    return max(1, _block_rows(max(sizes), largest) // row_pieces.PIECE_ROWS)


def _require_memory(memory_mb: int, needed: int) -> None:
    if memory_mb < needed:
        raise SidmillError(
            f"memory_mb {memory_mb} is too small for the sample and the blocks of residual "
            f"k-means: raise rqkmeans.memory_mb to at least {needed}, or lower "
            f"rqkmeans.codebook_size"
        )


def _restore(
    settings: Rqkmeans,
    seed: int,
    saved: resume.Saved,
    save: resume.Save,
    known: np.ndarray | None,
) -> _Training:
    """Take the finished levels out of a saved state; the arrays of an unfinished level remain."""
    errors = saved.facts.pop("errors", [])
    saved.facts.pop("scale", None)
    names = [_codes_name(level) for level in range(len(saved.finished.codebooks))]
    codes = [saved.arrays.pop(name) for name in names]
    return _Training(settings, seed, save, saved.finished, errors, codes, known)


def _subtract_finished(source: Source, training: _Training) -> Source:
    """Subtract the codewords of all finished levels from the rows."""
    finished = training.finished
    for level, (codebook, codes) in enumerate(zip(finished.codebooks, training.codes, strict=True)):
        price = finished.prices[level] if finished.prices else None
        levels_on_devices = nearest_pieces.copies(codebook, source.devices, price)
        source = residual_rows.subtract_level(source, levels_on_devices, codes)
    return source


def _finish_level(
    source: Source, state: State, codes: np.ndarray | None, training: _Training
) -> Source:
    """Balance a fitted level, record it, and subtract its codewords from the rows.

    ``codes`` is the assignment (n,) that belongs to ``state``; None has the rows assigned again.
    """
    settings, finished = training.settings, training.finished
    size = len(state.clusters.centroids)
    codebook = arrays.to_host(state.clusters.centroids)
    error, prices = state.error, None

    # Prices move rows and codewords, so that the assignment of the last pass is void.
    if settings.balance != "none":
        from sidmill.quantize import load_balance

        rng = np.random.default_rng([training.seed, state.level, 1])
        sample = _sample(source, size, rng)
        generator = arrays.generator(source.device, int(rng.integers(2**63)))
        balanced = load_balance.balance(
            source, state.clusters.centroids, sample, generator, settings
        )
        codebook, prices, codes = balanced.codewords, balanced.prices, None
        finished.prices.append(prices)
        finished.balance.append(balanced.facts)

    # Record the level with the codes of the training rows, and save it.
    finished.codebooks.append(codebook)
    levels_on_devices = nearest_pieces.copies(codebook, source.devices, prices)
    if codes is None:
        codes, error = _assign(source, levels_on_devices)
    source = residual_rows.subtract_level(source, levels_on_devices, codes)
    training.codes.append(codes)
    training.errors.append(error)
    training.keep({}, {})
    return source


def _digest(array: np.ndarray) -> str:
    return xxhash.xxh3_128(np.ascontiguousarray(array).data).hexdigest()


def _training_rows(n_items: int, per_code: int | None, size: int, seed: int) -> np.ndarray | None:
    """Draw the rows to train on, ascending; None stands for all."""
    if not per_code or n_items <= per_code * size:
        return None
    generator = np.random.default_rng([seed])
    return np.sort(generator.choice(n_items, size=per_code * size, replace=False))


def _codes_name(level: int) -> str:
    """Name of the array in a state that holds the training rows' codes of a finished level."""
    return f"assigned.{level}"


def _whole_pieces(n_rows: int) -> int:
    """Round down to pieces that devices share, where there is more than one."""
    return n_rows - n_rows % row_pieces.PIECE_ROWS if n_rows > row_pieces.PIECE_ROWS else n_rows


def _largest_block(dim: int, sizes: list[int], *, is_gpu: bool = False) -> int:
    """Rows of the largest block. Codewords move after each block, so memory does not decide it.

    After each block a few (K, D) are read and written, which on a GPU takes as long as the products
    of 10,000 rows: there a block has as many rows as its codewords ask for.
    """
    n_rows = _whole_pieces(row_blocks.rows_per_block(dim, max(sizes), BLOCK_MB))
    n_rows = min(n_rows, row_blocks.MAX_BLOCK_ROWS)
    if not is_gpu:
        return n_rows
    fit_in_memory = row_blocks.rows_per_block(dim, max(sizes), DEVICE_BLOCK_MB)
    n_wanted = min(BLOCK_ROWS * max(sizes), fit_in_memory, DEVICE_BLOCK_ROWS)
    return max(n_rows, _whole_pieces(n_wanted))


def _block_rows(size: int, largest: int) -> int:
    """Rows between two moves of a level's codewords, at most ``largest``."""
    return min(largest, _whole_pieces(max(MIN_BLOCK_ROWS, BLOCK_ROWS * size)))


def _measure_rows(source: Source) -> _Data:
    """Measure the training rows; read every row and stop at a bad one.

    Of several processes, each reads consecutive blocks, and tells the others what it measured.
    """
    # Rows that are not trained on are checked too: they will be encoded.
    measured = []  # one list of numbers per block
    for start, block in _shared_blocks(source, None):
        row_blocks.require_finite(block, start)
        if source.rows is None:
            measured.append(_measure(block, source.device))
    if source.rows is not None:
        measured = [
            _measure(block, source.device) for _, block in _shared_blocks(source, source.rows)
        ]

    # Put the blocks of all processes together, in row order; all rows are checked then.
    n_blocks = -(-residual_rows.count(source) // source.block_rows)
    lengths = [len(share) for share in _shares(n_blocks, source.group.size)]
    numbers = np.array(measured, dtype=np.float64).reshape(-1, N_MEASURED)
    own = arrays.from_host(numbers, source.device)
    blocks = arrays.of(own).concatenate(process_group.gather(source.group, own, lengths)).tolist()
    if source.group.size > 1 and isinstance(source.vectors, np.ndarray):
        row_blocks.trust_rest(source.vectors)

    squares, largest, exponents, n_exponents, *digests = zip(*blocks, strict=True)
    row_blocks.require_squares(max(largest))
    scale = row_blocks.safe_scale(sum(exponents) / max(1, sum(n_exponents)))
    digest = xxhash.xxh3_128_hexdigest(np.array(digests).tobytes())
    total = 0.0
    for of_block in squares:  # one by one: sum() rounds otherwise from Python 3.12 on
        total += of_block
    return _Data(total, digest, scale)


def _measure(block: np.ndarray, device: Device) -> list[float]:
    """Measure a block of rows (b, D), on the CPU, with the module of the device.

    Returns:
        The sum of squares, the largest absolute value, the sum of the rows' largest binary
        exponents and how many rows have one, and the digest in numbers that float64 holds.
    """
    rows = arrays.from_host(block, arrays.cpu_of(device))
    values = arrays.largest_values(rows)
    exponents = row_blocks.exponents(values)
    digest = xxhash.xxh3_128_intdigest(block.data)
    parts = [float(digest >> shift & (2**32 - 1)) for shift in range(0, 128, 32)]
    sums = [float(exponents.sum()), float(len(exponents))]
    return [arrays.sum_of_squares(rows), float(values.max()), *sums, *parts]


def _shared_blocks(source: Source, rows: np.ndarray | None) -> Iterator[tuple[int, np.ndarray]]:
    """Read the blocks of this process, of all ``rows`` or of some, with their first rows."""
    group, step = source.group, source.block_rows
    if group.size == 1:
        yield from row_blocks.read_blocks(source.vectors, step, rows)
        return
    n_rows = len(source.vectors) if rows is None else len(rows)
    own = _shares(-(-n_rows // step), group.size)[group.rank]

    def rows_of(number: int) -> slice | np.ndarray:
        start = own[number] * step
        span = slice(start, min(start + step, n_rows))
        return span if rows is None else rows[span]

    parts = row_blocks.read_parts(source.vectors, min(step, n_rows), len(own), rows_of)
    for number, block in zip(own, parts, strict=True):
        yield number * step, block


def _shares(n_blocks: int, n_processes: int) -> list[range]:
    """Consecutive blocks for each process, as even as can be."""
    edges = [n_blocks * number // n_processes for number in range(n_processes + 1)]
    return [range(low, high) for low, high in pairwise(edges)]


def _fit_level(
    source: Source,
    size: int,
    training: _Training,
    before: float,
    unfinished: resume.Saved | None,
) -> tuple[State, np.ndarray | None]:
    """Fit one level.

    Args:
        source: the training rows.
        size: K of the level.
        training: what all levels share.
        before: sum of squares of the residuals before the level.
        unfinished: the saved state of this level, or None.

    Returns:
        The state of the lowest error, and its assignment (n,), or None where a later pass has
        replaced it.
    """
    # The prior of the first pass is a sample, or nothing.
    state, best, sampled = _begin_level(source, size, training, before, unfinished)

    # Pass over all rows until the error hardly falls; keep the best pass.
    while state.n_passes < training.settings.n_iter:
        state = _pass(source, state, before, sampled if state.n_passes == 0 else None)
        decrease = best.error - state.error
        if decrease >= 0:
            best = state._replace(clusters=lloyd.copy(state.clusters))
        if decrease <= training.settings.tolerance * state.error:
            if decrease >= 0 or not state.hartigan:
                break
            # Rows that moved at the same time raised the error: continue without Hartigan's rule.
            state = state._replace(hartigan=False)
        training.keep(*_pack(state, best))

    codes = state.codes if state.error == best.error else None
    return state._replace(error=best.error, clusters=best.clusters), codes


def _begin_level(
    source: Source,
    size: int,
    training: _Training,
    before: float,
    unfinished: resume.Saved | None,
) -> tuple[State, State, Clusters | None]:
    """Begin a level at its saved pass, at codes that the rows have, or at a sample.

    Args:
        source: the training rows.
        size: K of the level.
        training: what all levels share.
        before: sum of squares of the residuals before the level.
        unfinished: the saved state of this level, or None.

    Returns:
        The state, the best state so far, and the clusters of the sample, if one was fitted.
    """
    level = len(source.levels)
    if unfinished:
        return *_unpack(unfinished, level, source.device), None

    # Codes count as a pass. Hartigan's rule would move half of the rows, for 0.5 % of the error.
    begun = None
    if training.known is not None:
        known = known_codes.of_level(training.known, training.codes)
        begun = known_codes.begin(source, size, known)
    if begun:
        clusters, codes = begun
        error = max(0.0, before - lloyd.explained(clusters))
        state = State(level, 1, error, clusters, codes, hartigan=False)
        return state, state._replace(clusters=lloyd.copy(clusters)), None

    # The structure of a sample.
    rng = np.random.default_rng([training.seed, level])
    generator = arrays.generator(source.device, int(rng.integers(2**63)))
    sampled = _fit_sample(source, size, rng, generator)
    state = State(
        level=level,
        n_passes=0,
        error=float("inf"),
        clusters=lloyd.empty(sampled.centroids),
        codes=np.zeros(residual_rows.count(source), dtype=np.min_scalar_type(size - 1)),
        hartigan=True,
    )
    return state, state, sampled


def _pack(state: State, best: State) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Turn an unfinished level into arrays and facts."""
    packed = {name: arrays.to_host(array) for name, array in state.clusters._asdict().items()}
    packed |= {"codes": state.codes, "best": arrays.to_host(best.clusters.centroids)}
    facts = {"n_passes": state.n_passes, "error": state.error, "hartigan": state.hartigan}
    return packed, facts | {"best_error": best.error}


def _unpack(saved: resume.Saved, level: int, device: Device) -> tuple[State, State]:
    """Turn arrays and facts back into an unfinished level and its best state."""
    packed, facts = saved.arrays, saved.facts
    clusters = Clusters(*(arrays.from_host(packed[name], device) for name in Clusters._fields))
    state = State(
        level=level,
        n_passes=facts["n_passes"],
        error=facts["error"],
        clusters=clusters,
        codes=packed["codes"],
        hartigan=facts["hartigan"],
    )
    centroids = arrays.from_host(packed["best"], device)
    best = state._replace(error=facts["best_error"], clusters=lloyd.empty(centroids))
    return state, best


def _fit_sample(
    source: Source, size: int, rng: np.random.Generator, generator: Generator
) -> Clusters:
    """Fit the clusters of a sample: k-means++, passes with merges and splits, further passes."""
    # (m, D), in random order: its first rows are a smaller sample
    sample = _sample(source, size, rng)
    _require_same(source, sample, "vectors")
    step = source.block_rows
    searchers = kmeans_pp.Searchers(source.devices, source.group, step)
    first = kmeans_pp.seed_centroids(sample[: SEEDING_ROWS * size], size, generator, searchers)
    clusters = lloyd.empty(first)
    codes: Array | None = None
    buffers = _score_buffers(source, size)
    squares = sum(arrays.sum_of_squares(rows) for rows in arrays.split(sample, step))
    passes_left = SWAP_PASSES + SAMPLE_PASSES

    while passes_left:
        # Assign block by block; from the second pass on, centroids move after each block.
        assigned = []
        for start in range(0, len(sample), step):
            rows = sample[start : start + step]
            span = slice(start, start + len(rows))
            previous = None if codes is None else codes[span]
            shared = residual_rows.shared_block(source, span, rows)
            pieces = _sample_pieces(source, shared, rows)
            assigned.append(lloyd.visit(clusters, pieces, previous, True, buffers, shared))
            if codes is not None:
                lloyd.centre(clusters)
        codes = arrays.of(sample).concatenate(assigned)  # (m,)
        lloyd.centre(clusters)

        # Merge and split, until that gains little. It may begin with few pairs: a cluster that
        # holds most of the rows is halved, then its halves.
        if passes_left > SAMPLE_PASSES:
            error = max(0.0, squares - lloyd.explained(clusters))
            swapped = split_merge.swap(clusters, sample, codes, step, generator, source.group)
            codes = swapped.codes
            logger.debug(
                "level %d: %d merges and splits, %.2f %% of the error",
                len(source.levels) + 1,
                swapped.n_pairs,
                100 * swapped.gain / max(error, 1e-30),
            )
            if swapped.gain <= SMALL_GAIN * error:
                passes_left = SAMPLE_PASSES + 1
        passes_left -= 1
        _require_same(source, clusters.centroids, "result of a pass over the sample")
    return clusters


def _sample_pieces(source: Source, shared: SharedBlock, rows: Array) -> list[Piece]:
    """Pieces of a block of the sample that this process searches for, on its devices."""
    n_devices = len(source.devices)
    own = shared_blocks.own_spans(shared)
    spans = [slice(span.start - shared.start, span.stop - shared.start) for span in own]
    indices = [shared_blocks.device_of(shared, span, n_devices) for span in own]
    return [
        Piece(index, arrays.send(rows[span], source.devices[index]))
        for index, span in zip(indices, spans, strict=True)
    ]


def _sample(source: Source, size: int, rng: np.random.Generator) -> Array:
    """Draw ``SAMPLE_ROWS`` training rows per codeword, or all of them: float32 (m, D)."""
    n_rows = min(residual_rows.count(source), SAMPLE_ROWS * size)
    return residual_rows.sample(source, n_rows, rng)


def _pass(source: Source, state: State, before: float, prior: Clusters | None) -> State:
    """Visit every training row once; ``prior`` holds the sample's members in the first pass."""
    clusters, codes = state.clusters, state.codes
    buffers = _score_buffers(source, len(clusters.centroids))

    # Assign block by block; the centroids move after each block.
    for span, pieces in residual_rows.pieces(source):
        previous = None
        if state.n_passes:
            previous = arrays.from_host(codes[span].astype(np.int64), source.device)
        shared = residual_rows.shared_block(source, span)
        assigned = lloyd.visit(clusters, pieces, previous, state.hartigan, buffers, shared)
        codes[span] = arrays.to_host(assigned)
        lloyd.centre(clusters, prior)
    lloyd.centre(clusters)

    reseed_empty.fill_empty(source, clusters, codes)
    error = max(0.0, before - lloyd.explained(clusters))
    _require_same(source, clusters.centroids, "result of a pass")
    logger.debug("level %d pass %d: error %.6g", state.level + 1, state.n_passes + 1, error)
    return state._replace(n_passes=state.n_passes + 1, error=error)


def _require_same(source: Source, rows: Array, what: str) -> None:
    """Stop where processes that have to have the same rows have others."""
    if source.group.size > 1:
        process_group.require_same(source.group, arrays.to_host(rows).data, what)


def _score_buffers(source: Source, size: int) -> list[Array]:
    """Memory for the scores of a piece on each device."""
    return [arrays.empty([row_pieces.PIECE_ROWS * size], device) for device in source.devices]


def _assign(source: Source, level: "list[Level]") -> tuple[np.ndarray, float]:
    """Assign every training row as the codec does; return codes and the sum of squared errors."""
    size = len(level[0].codewords)
    codes = np.empty(residual_rows.count(source), dtype=np.min_scalar_type(size - 1))
    buffers = _score_buffers(source, size)
    like = arrays.empty([0], source.device, "float64")
    error = 0.0
    for span, pieces in residual_rows.pieces(source):
        # Codes and errors of this process's pieces, then of all.
        nearest = nearest_pieces.nearest_of_pieces(pieces, level, buffers)
        squares = [
            arrays.sum_of_squares(rows - arrays.take(level[number].codewords, labels))
            for (number, rows), labels in zip(pieces, nearest, strict=True)
        ]
        shared = residual_rows.shared_block(source, span)
        nearest = [arrays.send(labels, source.device) for labels in nearest]
        gathered = shared_blocks.gather_labels(shared, nearest, like)
        codes[span] = arrays.to_host(gathered)

        # Sums in row order.
        one_each = [1] * len(shared_blocks.piece_spans(shared))
        errors = [arrays.from_host(np.array([each]), source.device) for each in squares]
        of_pieces = shared_blocks.gather(shared, errors, one_each, like)
        for each in arrays.of(like).concatenate(of_pieces).tolist():
            error += each
    return codes, error
