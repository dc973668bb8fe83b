"""The search for the codewords of pieces of a block: what training calls, in NumPy or in torch.

NumPy where rows are its arrays, in lanes (:mod:`sidmill.numeric.lanes`), each of which works on one
piece at a time. :mod:`sidmill.numeric.nearest_torch` where rows are tensors.

Shapes: K codewords, D dimensions, p rows of one piece.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from sidmill.core import threads
from sidmill.numeric import lanes, nearest_numpy, row_pieces
from sidmill.numeric.arrays import Array, Device, Host
from sidmill.numeric.row_pieces import Piece

if TYPE_CHECKING:
    from sidmill.numeric import nearest_torch, relative_scores

    Level = nearest_numpy.Level | nearest_torch.Level  # one codebook, on its device

Found = TypeVar("Found")


def expand_cpu(devices: list[Device], n_rows: int) -> list[Device]:
    """Devices that share blocks of ``n_rows``: a single CPU is listed once per thread.

    The threads share the cores of the CPU evenly; each works on one piece at a time. With one
    thread, what is computed between two products would use one core and leave the others idle.
    """
    if len(devices) > 1 or devices[0].type != "cpu":
        return list(devices)
    if isinstance(devices[0], Host):
        n_threads = threads.granted()
    else:
        import torch

        n_threads = torch.get_num_threads()
    return list(devices) * max(1, min(n_threads, n_rows // row_pieces.PIECE_ROWS))


def one_core_each(device: Device) -> AbstractContextManager[Any]:
    """Let each product of NumPy take one core (``lanes.one_core_each``); torch does so itself."""
    if not isinstance(device, Host):
        return nullcontext()
    return lanes.one_core_each()


def rough_products(device: Device) -> AbstractContextManager[Any]:
    """Let products of torch round their factors: ``nearest_torch.rough_products``."""
    if isinstance(device, Host):
        return nullcontext()
    from sidmill.numeric import nearest_torch

    return nearest_torch.rough_products()


def run_concurrently(
    work: Callable[..., Found], jobs: list[tuple[Any, ...]], devices: Sequence[int]
) -> list[Found]:
    """Call ``work`` with the arguments of each job; the first of them is an array.

    On CPUs each device is a lane (:mod:`sidmill.numeric.lanes`). On GPUs jobs begin in turn:
    ``work`` should not wait for one.

    Args:
        work: what is called.
        jobs: the arguments of each call.
        devices: the number of each job's device.

    Returns:
        What each call returned, in the order of ``jobs``.
    """
    if jobs and not isinstance(jobs[0][0], np.ndarray):
        from sidmill.numeric import nearest_torch

        return nearest_torch.run_concurrently(work, jobs, devices)
    return lanes.run(work, jobs, devices)


def copies(
    codewords: np.ndarray, devices: list[Device], prices: np.ndarray | None = None
) -> "list[Level]":
    """Prepare a codebook on each device for the search of nearest codewords.

    Args:
        codewords: float32 (K, D).
        devices: where to search; lanes of NumPy share one copy.
        prices: float32 (K,), or None for zeros.
    """
    if isinstance(devices[0], Host):
        return [nearest_numpy.search_level(codewords, prices)] * len(devices)
    from sidmill.numeric import nearest_torch

    return list(nearest_torch.copies(codewords, devices, prices))


def nearest_of_pieces(
    pieces: list[Piece], levels: "list[Any]", buffers: list[Array]
) -> list[Array]:
    """Return the codes of each piece, int64 (p,) on its device; devices work at the same time.

    Args:
        pieces: residuals, distributed round-robin over the devices.
        levels: the codebook, one copy per device.
        buffers: float32, at least p K numbers on each device, to write the scores to.
    """
    if not isinstance(buffers[0], np.ndarray):
        from sidmill.numeric import nearest_torch

        return nearest_torch.nearest_of_pieces(pieces, levels, buffers)
    jobs = [(rows, levels[index], buffers[index]) for index, rows in pieces]
    codes: list[Array] = run_concurrently(
        nearest_numpy.nearest, jobs, [index for index, _ in pieces]
    )
    return codes


def score(rows: Array, codewords: Array, halves: Array, buffer: Array | None) -> Array:
    """Score codewords: half the squared distances less the rows' own half norms, float32 (p, K).

    Args:
        rows: float32 (p, D).
        codewords: float32 (K, D), or what :func:`rounded` made of it.
        halves: float32 (K,), half of the codewords' squared norms.
        buffer: memory for the result, at least p K numbers; None takes new memory.
    """
    if not isinstance(rows, np.ndarray):
        from sidmill.numeric import nearest_torch

        return nearest_torch.score(rows, codewords, halves, buffer)
    shape = len(rows), len(codewords)
    scores = None if buffer is None else buffer[: shape[0] * shape[1]].reshape(shape)
    scores = np.matmul(rows, codewords.T, out=scores)
    return np.subtract(halves, scores, out=scores)


def lowest(scores: Array) -> Array:
    """Column of the lowest score of each row, int64."""
    if isinstance(scores, np.ndarray):
        return scores.argmin(axis=1)
    from sidmill.numeric import nearest_torch

    return nearest_torch.lowest(scores)


def rounded(codewords: Array) -> Array:
    """Codewords for :func:`score` while a training runs: of a GPU perhaps in bfloat16."""
    if isinstance(codewords, np.ndarray):
        return codewords
    from sidmill.numeric import nearest_torch

    return nearest_torch.rounded(codewords)


def relative(codewords: Array) -> "relative_scores.Codewords | None":
    """Codewords as ``relative_scores`` multiplies them, where that is faster; else None."""
    if isinstance(codewords, np.ndarray):
        return None
    from sidmill.numeric import relative_scores

    return relative_scores.prepare(codewords)


def to_devices(
    stream: Iterator[tuple[int, np.ndarray]],
    devices: list[Device],
    divide: Callable[[int, Array, int], list[Piece]] = row_pieces.cut,
) -> Iterator[tuple[int, list[Piece]]]:
    """Distribute blocks: see ``nearest_torch.to_devices``; threads of NumPy share the memory."""
    if not isinstance(devices[0], Host):
        from sidmill.numeric import nearest_torch

        yield from nearest_torch.to_devices(stream, devices, divide)
        return
    for start, block in stream:
        yield start, divide(start, block, len(devices))
