"""The search for codewords with torch: what large codebooks are trained with, and encoding on GPUs.

Shapes: K codewords, D dimensions, b rows of one block, p rows of one piece of it.

The same rule as :mod:`sidmill.numeric.nearest_numpy`: products on the device propose, and NumPy
decides.

Several devices share the rows: blocks are cut into pieces, distributed round-robin. Where pieces
end depends on the rows alone, and results are put together in row order, so that the result is the
same for any number of GPUs, and of CPUs as far as a product's last bits do not depend on how many
cores share it.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cache
from threading import Barrier
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from sidmill.core.errors import SidmillError
from sidmill.formats.quantizer_file import Network
from sidmill.numeric import arrays, lanes, mlp, nearest_numpy, row_pieces
from sidmill.numeric.row_pieces import Piece

Found = TypeVar("Found")


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
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SidmillError(
            f"device {name!r} asked for, but torch finds {torch.cuda.device_count()} GPU(s), of "
            f"which the last is cuda:{torch.cuda.device_count() - 1}: set device to one of them"
        )
    return device


def pick_devices(names: str) -> list[torch.device]:
    """Return the devices called ``names``; ``auto`` is every GPU, or the CPU without one.

    Args:
        names: ``auto``, or devices with commas between them, such as ``cuda:0,cuda:1``. One may be
            named twice.

    Raises:
        SidmillError: if torch does not know or reach one, or they are of two kinds.
    """
    if names == "auto" and torch.cuda.is_available():
        names = ",".join(f"cuda:{number}" for number in range(torch.cuda.device_count()))
    devices = [pick_device(name.strip()) for name in names.split(",")]
    if len({device.type for device in devices}) > 1:
        raise SidmillError(
            f"devices {names!r} are of two kinds, whose roundings differ: name one kind"
        )
    if devices[0].type not in ("cpu", "cuda"):
        raise SidmillError(
            f"device {names!r}: codewords are searched on CPUs and CUDA devices alone: set device "
            "to auto, cpu, cuda or cuda:1"
        )
    return devices


def run_concurrently(
    work: Callable[..., Found], jobs: list[tuple[Any, ...]], devices: Sequence[int]
) -> list[Found]:
    """As ``nearest_pieces.run_concurrently``; the first argument of each job is a tensor."""
    n_lanes = len(set(devices))
    if n_lanes < 2 or jobs[0][0].device.type != "cpu":
        return [work(*job) for job in jobs]
    n_cores = torch.get_num_threads()
    return lanes.run(work, jobs, devices, _threads(min(n_lanes, n_cores), n_cores))


@cache
def _threads(n_lanes: int, n_cores: int) -> ThreadPoolExecutor:
    """Threads that compute on so many cores together; they stay."""
    pool = ThreadPoolExecutor(n_lanes, thread_name_prefix="search")
    share_cores(pool, n_lanes, max(1, n_cores // n_lanes))
    return pool


os.register_at_fork(after_in_child=_threads.cache_clear)  # a child has none of the threads


def share_cores(pool: ThreadPoolExecutor, n_threads: int, n_cores: int) -> None:
    """Start the threads of a pool, and let products in each of them take ``n_cores`` cores.

    torch's setting counts for the thread that calls and for those that come later, so the caller's
    is put back.
    """
    before = torch.get_num_threads()
    all_there = Barrier(n_threads)

    def begin(_: int) -> None:
        torch.get_num_threads()  # takes over what holds for all, once, so that it does not later
        torch.set_num_threads(n_cores)
        all_there.wait()  # each thread takes one call

    try:
        list(pool.map(begin, range(n_threads)))
    except BaseException:  # a thread could not start: the others would wait without end
        all_there.abort()
        pool.shutdown(cancel_futures=True)
        raise
    finally:
        torch.set_num_threads(before)


def rough_products() -> AbstractContextManager[None]:
    """Let products round their factors where the processor is faster so; sums stay float32.

    bfloat16 on CPUs with AVX512-BF16 or AMX, TF32 on GPUs; others compute as before. For searches
    that only guide a training: a code that counts is decided outside. Codewords of :func:`rounded`
    are multiplied in bfloat16 on GPUs too, which is twice as fast as TF32.
    """
    return mlp.products("bf16", "tf32")


def rounded(codewords: torch.Tensor) -> torch.Tensor:
    """Codewords for :func:`score` in :func:`rough_products`: bfloat16 on a GPU, else as they are.

    Outside of that context they stay float32 everywhere.
    """
    is_rough = torch.backends.cuda.matmul.fp32_precision == "tf32"
    if not is_rough or codewords.device.type != "cuda" or not _has_wide_sums(codewords.device):
        return codewords
    return codewords.to(torch.bfloat16)


@cache
def _has_wide_sums(device: torch.device) -> bool:
    """Whether the device gives the float32 sums of bfloat16 products (torch 2.8 and newer)."""
    probe = torch.ones(16, 16, dtype=torch.bfloat16, device=device)
    try:
        return _wide_sums(probe, probe).dtype == torch.float32
    except (RuntimeError, TypeError):
        return False


def _wide_sums(rows: torch.Tensor, codewords: torch.Tensor) -> torch.Tensor:
    """Products of bfloat16 (b, D) and (K, D) with float32 sums: float32 (b, K)."""
    result: torch.Tensor = torch.mm(rows, codewords.T, out_dtype=torch.float32)
    return result


class Level(NamedTuple):
    """One codebook, on the device."""

    codewords: torch.Tensor  # float32 (K, D)
    halves: torch.Tensor  # float32 (K,), half of norm squared and price; infinite for a repeat
    host: nearest_numpy.Level


def search_level(
    codewords: np.ndarray, device: torch.device, prices: np.ndarray | None = None
) -> Level:
    """Prepare a codebook for :func:`nearest_of_pieces`, as ``nearest_numpy.search_level`` does."""
    host = nearest_numpy.search_level(codewords, prices)
    codebook, halves = (
        torch.from_numpy(array).to(device) for array in (host.codewords, host.halves)
    )
    return Level(codebook, halves, host)


def copies(
    codewords: np.ndarray, devices: list[torch.device], prices: np.ndarray | None = None
) -> list[Level]:
    """Prepare a codebook on each device for the search of nearest codewords."""
    first = search_level(codewords, devices[0], prices)
    return [
        Level(first.codewords.to(device), first.halves.to(device), first.host) for device in devices
    ]


def nearest_of_pieces(
    pieces: list[Piece], levels: list[Level], buffers: list[torch.Tensor]
) -> list[torch.Tensor]:
    """Return the codes of each piece, int64 (p,) on its device; devices work at the same time.

    Args:
        pieces: residuals, distributed round-robin over the devices.
        levels: the codebook, one copy per device.
        buffers: float32, at least p K numbers on each device, to write the scores to.
    """
    codes = []
    with mlp.exact_products():
        for group in row_pieces.rounds(pieces, len(levels)):
            jobs = [
                (residuals, levels[device_index], buffers[device_index])
                for device_index, residuals in group
            ]
            proposals = run_concurrently(propose, jobs, range(len(jobs)))
            codes += [
                decide(proposal, residuals, level)
                for proposal, (residuals, level, _) in zip(proposals, jobs, strict=True)
            ]
    return codes


class Proposed(NamedTuple):
    """What a product finds, on the device, perhaps still being computed."""

    codes: torch.Tensor  # int64 (b,)
    best: torch.Tensor  # float32 (b,), the lowest score
    second: torch.Tensor  # float32 (b,), the next one
    squares: torch.Tensor  # float32 (b,), of the rows' norms
    scores: torch.Tensor  # float32 (b, K), infinite at ``codes``


def propose(residuals: torch.Tensor, level: Level, buffer: torch.Tensor | None) -> Proposed:
    """Start a search, in :func:`sidmill.numeric.mlp.exact_products`; a GPU is not waited for."""
    scores = score(residuals, level.codewords, level.halves, buffer)
    codes = lowest(scores)
    best = scores.gather(1, codes[:, None])[:, 0]
    scores.scatter_(1, codes[:, None], torch.inf)
    return Proposed(codes, best, scores.amin(dim=1), arrays.square_norms(residuals), scores)


def decide(proposed: Proposed, residuals: torch.Tensor, level: Level) -> torch.Tensor:
    """Codes of rows (b, D) by the rule of :mod:`sidmill.numeric.nearest_numpy`: int64 (b,)."""
    codes, scores = proposed.codes, proposed.scores
    host, n_codes = level.host, len(level.host.codewords)
    limit = proposed.best.cpu().numpy() + margins(proposed, residuals, level)
    limit = torch.from_numpy(limit).to(residuals.device)
    ambiguous = (proposed.second <= limit).nonzero()[:, 0]
    for batch in ambiguous.split(max(1, nearest_numpy.PAIRS_AT_ONCE // n_codes)):  # type: ignore[no-untyped-call]
        is_candidate = scores[batch] <= limit[batch, None]
        is_candidate[torch.arange(len(batch), device=codes.device), codes[batch]] = True
        decided = nearest_numpy.decide(
            residuals[batch].cpu().numpy(), host.codewords, host.prices, is_candidate.cpu().numpy()
        )
        codes[batch] = torch.from_numpy(decided).to(codes.device)
    return codes


def margins(proposed: Proposed, residuals: torch.Tensor, level: Level) -> np.ndarray:
    """How far scores may be apart and still be decided by rounding: float32 (b,)."""
    squares, host = proposed.squares.cpu().numpy(), level.host
    return nearest_numpy.margin(squares, host.max_norm, host.max_price, residuals.shape[1])


def score(
    rows: torch.Tensor,
    codewords: torch.Tensor,
    half_norms: torch.Tensor,
    buffer: torch.Tensor | None,
) -> torch.Tensor:
    """Score codewords: half the squared distances less the rows' own half norms, float32 (b, K).

    Args:
        rows: float32 (b, D).
        codewords: float32 (K, D), or bfloat16 of :func:`rounded`.
        half_norms: float32 (K,), half of the codewords' squared norms.
        buffer: memory for the result, at least b K numbers; None takes new memory.
    """
    out = None
    if codewords.dtype == torch.bfloat16:
        scores = _wide_sums(rows.to(torch.bfloat16), codewords)
        return torch.sub(half_norms, scores, out=scores)
    if buffer is not None:
        out = buffer[: len(rows) * len(codewords)].view(len(rows), len(codewords))
    return torch.addmm(half_norms, rows, codewords.T, alpha=-1, out=out)


def lowest(scores: torch.Tensor) -> torch.Tensor:
    """Column of the lowest score of each row, int64; on a CPU NumPy's search is the faster one."""
    if scores.device.type == "cpu":
        return torch.from_numpy(scores.numpy().argmin(axis=1))
    return scores.argmin(dim=1)


def to_devices(
    stream: Iterator[tuple[int, np.ndarray]],
    devices: list[torch.device],
    divide: Callable[[int, torch.Tensor, int], list[Piece]] = row_pieces.cut,
) -> Iterator[tuple[int, list[Piece]]]:
    """Distribute blocks; on GPUs the next block is copied during the work on this one.

    Each block gets pinned memory of its own. torch hands out released memory again only after an
    event behind its last copy, so no block is overwritten during its copy.

    Args:
        stream: row numbers and float32 (b, D); each block may overwrite the one before it.
        devices: CPUs share the block's memory.
        divide: cuts a block into pieces, as :func:`row_pieces.cut` does.

    Yields:
        The row number, and the block's pieces, overwritten by a later block.
    """
    # CPUs share the memory of the block.
    if devices[0].type != "cuda":
        for start, block in stream:
            yield start, divide(start, torch.from_numpy(block), len(devices))
        return

    # GPUs: copy the next block on streams of its own, then yield the block before it.
    streams = [torch.cuda.Stream(device) for device in devices]  # type: ignore[no-untyped-call]
    waiting: tuple[int, list[Piece], torch.Tensor] | None = None
    for start, block in stream:
        pinned = torch.from_numpy(block).pin_memory()  # a copy: the block may be overwritten
        arriving = []
        for device_index, rows in divide(start, pinned, len(devices)):
            with torch.cuda.stream(streams[device_index]):
                arriving.append(
                    Piece(device_index, rows.to(devices[device_index], non_blocking=True))
                )
        if waiting is not None:
            yield waiting[:2]
        for copy_stream, device in zip(streams, devices, strict=True):
            torch.cuda.current_stream(device).wait_stream(copy_stream)
        for device_index, rows in arriving:
            rows.record_stream(torch.cuda.current_stream(devices[device_index]))
        waiting = start, arriving, pinned
    if waiting is not None:
        yield waiting[:2]


def encode(
    stream: Iterator[tuple[int, np.ndarray]],
    encoder: Network | None,
    priced: list[tuple[np.ndarray, np.ndarray | None]],
    devices: list[torch.device],
) -> Iterator[np.ndarray]:
    """Encode blocks on devices: the part of ``residual_codec.encode`` that needs torch.

    Args:
        stream: row numbers and float32 (b, D); each block may overwrite the one before it.
        encoder: the quantizer's own, or None.
        priced: codebook, float32 (K_l, D), and prices, float32 (K_l,) or None, per level.
        devices: where to search; they share the rows of a block.

    Yields:
        int32 (b, L).
    """
    levels = [copies(codewords, devices, prices) for codewords, prices in priced]
    largest = max(len(codewords) for codewords, _ in priced)
    buffers = [torch.empty(row_pieces.PIECE_ROWS * largest, device=device) for device in devices]
    projects = [mlp.load(encoder, device) for device in devices]
    for _, pieces in to_devices(stream, devices):
        # each (p, D), what no level has explained yet
        pieces = [
            Piece(device_index, projects[device_index](rows)) for device_index, rows in pieces
        ]
        columns = []
        for number, level in enumerate(levels):
            codes = nearest_of_pieces(pieces, level, buffers)
            columns.append(
                np.concatenate([codes_of_piece.cpu().numpy() for codes_of_piece in codes])
            )
            if number + 1 < len(levels):
                for (device_index, residuals), codes_of_piece in zip(pieces, codes, strict=True):
                    residuals -= level[device_index].codewords.index_select(0, codes_of_piece)
        yield np.stack(columns, axis=1).astype(np.int32)
