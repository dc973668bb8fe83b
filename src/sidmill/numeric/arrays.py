"""Arrays of NumPy or torch: what an algorithm that is written for both needs besides operators.

torch has taken over most names of NumPy. ``of(x)`` is the module that an array belongs to, so that
``of(x).where(...)`` works for both; operators, indexing and methods such as ``sum(axis=1)`` do too.
What differs between the two has a function here. Nothing imports torch but an array or a device of
torch, which has imported it already.

The device of an array of NumPy is ``HOST``.

Shapes: K totals, D dimensions, b rows.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import numpy as np

# No type covers both modules.
Array: TypeAlias = Any  # numpy.ndarray or torch.Tensor
Device: TypeAlias = Any  # Host or torch.device
Generator: TypeAlias = Any  # numpy.random.Generator, or torch.Generator of the CPU

FEW_TOTALS = 4  # that rows are added to at once: fewer are a loop over rows, which costs less
SMALL_CODES = 2**16  # codes below it fit uint16
TINY = 1e-12  # norm below which a vector has no direction


class Host(NamedTuple):
    """The device of NumPy's arrays."""

    type: str = "cpu"


HOST = Host()


def of(array: Array) -> Any:
    """Return the module of an array: numpy or torch."""
    if isinstance(array, np.ndarray):
        return np
    import torch

    return torch


def device_of(array: Array) -> Any:
    """Return the device of an array: ``HOST`` or one of torch."""
    return HOST if isinstance(array, np.ndarray) else array.device


def is_gpu(array: Array) -> bool:
    """Whether an array lies on a GPU."""
    return bool(device_of(array).type != "cpu")


def cpu_of(device: Device) -> Device:
    """The CPU in the module of a device."""
    if isinstance(device, Host):
        return device
    import torch

    return torch.device("cpu")


def from_host(array: np.ndarray, device: Device) -> Array:
    """Move an array of NumPy to a device; on a CPU its memory is shared."""
    if isinstance(device, Host):
        return array
    import torch

    return torch.from_numpy(array).to(device)


def from_host_early(array: np.ndarray, device: Device) -> Array:
    """Move an array to a device; work that a GPU has to do before is not waited for."""
    if device.type != "cuda":
        return from_host(array, device)
    import torch

    # From pageable memory a copy would wait for the stream.
    return torch.from_numpy(array).pin_memory().to(device, non_blocking=True)


def to_host(array: Array) -> np.ndarray:
    """Return an array as one of NumPy; on a CPU its memory is shared."""
    if isinstance(array, np.ndarray):
        return array
    result: np.ndarray = array.cpu().numpy()
    return result


def on_cpu(array: Array) -> Array:
    """Move an array to the CPU, in its own module."""
    return array if isinstance(array, np.ndarray) else array.cpu()


def send(array: Array, device: Device) -> Array:
    """Move an array to another device of its own module."""
    return array if isinstance(device, Host) else array.to(device)


def empty(shape: Sequence[int], device: Device, dtype: str = "float32") -> Array:
    """Return a new array of any content."""
    if isinstance(device, Host):
        return np.empty(shape, dtype)
    import torch

    return torch.empty(tuple(shape), dtype=getattr(torch, dtype), device=device)


def zeros(shape: Sequence[int], device: Device, dtype: str = "float32") -> Array:
    """Return a new array of zeros."""
    if isinstance(device, Host):
        return np.zeros(shape, dtype)
    import torch

    return torch.zeros(tuple(shape), dtype=getattr(torch, dtype), device=device)


def cast(array: Array, dtype: str) -> Array:
    """Return an array in another type; itself, if it has that type."""
    module = of(array)
    return module.asarray(array, dtype=getattr(module, dtype))


def copy(array: Array) -> Array:
    """Return a copy of an array."""
    return of(array).asarray(array, copy=True)


def split(array: Array, lengths: int | Sequence[int]) -> list[Array]:
    """Cut an array into views of so many rows each; the last of equal ones may be shorter.

    An array without rows is one view without rows, as in torch.
    """
    if isinstance(lengths, int):
        starts = range(0, max(1, len(array)), lengths)
        return [array[start : start + lengths] for start in starts]
    edges = np.cumsum([0, *lengths]).tolist()
    return [array[low:high] for low, high in pairwise(edges)]


def positions(mask: Array) -> Array:
    """Where a mask or a vector (b,) is not zero: int64, ascending."""
    if isinstance(mask, np.ndarray):
        return np.flatnonzero(mask)
    return mask.nonzero()[:, 0]


def take(array: Array, rows: Array) -> Array:
    """Return a copy of rows by their numbers, int64."""
    if isinstance(array, np.ndarray):
        return array.take(rows, axis=0)
    return array.index_select(0, rows)


def square_norms(rows: Array) -> Array:
    """Squared norms of the rows of float32 (b, D), without a second (b, D): float32 (b,)."""
    if isinstance(rows, np.ndarray):
        return np.einsum("ij,ij->i", rows, rows)
    norms = of(rows).linalg.vector_norm(rows, dim=1)
    return norms.square_()


def sum_of_squares(rows: Array) -> float:
    """Sum of the squares of float32 (b, D); in float64, but within a row of NumPy in float32."""
    if isinstance(rows, np.ndarray):
        return float(square_norms(rows).sum(dtype=np.float64))
    return float(rows.square().sum(dtype=of(rows).float64))


def largest_values(rows: Array) -> np.ndarray:
    """Largest absolute value of each row of float32 (b, D), without a copy: float32 (b,)."""
    if isinstance(rows, np.ndarray):
        result: np.ndarray = np.maximum(rows.max(axis=1), -rows.min(axis=1))
        return result
    lowest, highest = of(rows).aminmax(rows, dim=1)  # on all cores, as NumPy does not
    return to_host(of(rows).maximum(highest, -lowest))


def directions(rows: Array) -> Array:
    """Rows (b, D) divided by their norms, or by ``TINY`` where that is larger."""
    norms = of(rows).linalg.vector_norm(rows, axis=1, keepdims=True)
    return rows / norms.clip(min=TINY)


def highest(table: Array) -> tuple[Array, Array]:
    """Largest value of each row of (b, K), and its column, int64."""
    if isinstance(table, np.ndarray):
        columns = table.argmax(axis=1)
        return table[np.arange(len(table)), columns], columns
    found = table.max(dim=1)
    return found.values, found.indices


def largest(values: Array, count: int) -> tuple[Array, Array]:
    """The ``count`` largest of (b,), the largest first, and their positions, int64.

    Of equal ones NumPy takes the first, torch any.
    """
    if isinstance(values, np.ndarray):
        rows = descending(values)[:count]
        return values[rows], rows
    found = values.topk(count)
    return found.values, found.indices


def descending(values: Array) -> Array:
    """Positions of values (b,) from the largest to the lowest, int64; equal ones in order.

    Values are of any type; NaN counts as the largest.
    """
    if isinstance(values, np.ndarray):  # reversed twice: not all types can be negated
        return len(values) - 1 - np.argsort(values[::-1], kind="stable")[::-1]
    return values.sort(descending=True, stable=True).indices


def divide(dividend: Array, divisor: Array, out: Array) -> None:
    """Write float64 quotients to a float32 array; a division by zero is no error."""
    if isinstance(out, np.ndarray):
        with np.errstate(divide="ignore", invalid="ignore"):
            np.divide(dividend, divisor, out=out, casting="same_kind")
    else:
        of(out).div(dividend, divisor, out=out)


def add_rows(totals: Array, rows: Array, codes: Array, sign: int = 1) -> Array:
    """Add rows to the totals of their clusters, in the same order on every run.

    Each total gets its rows one by one, in their order: on a CPU it does not matter which blocks
    the rows come in.

    Args:
        totals: float32 or float64 (K, D), updated in place.
        rows: float32 (b, D).
        codes: int64 (b,).
        sign: 1, or -1 to take the rows away.

    Returns:
        ``totals``.
    """
    if not len(rows):
        return totals
    if isinstance(totals, np.ndarray):
        signs = None if sign == 1 else np.full(len(rows), sign, dtype=np.float32)
        return _add_rows_numpy(totals, rows, codes, np.arange(len(rows)), signs)
    if rows.device.type == "cpu":
        return totals.index_add_(0, codes, rows.to(totals.dtype), alpha=sign)
    return totals.add_(segment_sums(rows, codes, len(totals)), alpha=sign)


def move_rows(totals: Array, pieces: list[Array], before: Array, after: Array) -> None:
    """Take rows from the totals ``before`` and add them to those ``after``, in row order.

    Of each piece, all rows are added before any is subtracted.

    Args:
        totals: float32 or float64 (K, D), updated in place.
        pieces: float32 (p, D) each, b rows in all.
        before: int64 (b,).
        after: int64 (b,).
    """
    lengths = [len(rows) for rows in pieces]
    if not isinstance(totals, np.ndarray):
        of_pieces = zip(pieces, split(before, lengths), split(after, lengths), strict=True)
        for rows, old, new in of_pieces:
            add_rows(totals, rows, new)
            add_rows(totals, rows, old, -1)
        return
    if not len(before):
        return

    # One call for all pieces: a call costs more than its arithmetic. Each row occurs twice.
    numbers = split(np.arange(len(before)), lengths)
    sources = np.concatenate([each for piece in numbers for each in (piece, piece)])
    one_each = np.array([1, -1] * len(pieces), dtype=np.float32)
    signs = np.repeat(one_each, np.repeat(lengths, 2))
    codes = np.where(signs > 0, after[sources], before[sources])
    rows = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    _add_rows_numpy(totals, rows, codes, sources, signs)


def _add_rows_numpy(
    totals: np.ndarray,
    rows: np.ndarray,
    codes: np.ndarray,
    sources: np.ndarray,
    signs: np.ndarray | None,
) -> np.ndarray:
    """Add the first row of every total, then the second ones, and so on, in NumPy.

    Args:
        totals: float32 or float64 (K, D), updated in place.
        rows: float32 (b, D).
        codes: int64 (e,), the total of each entry.
        sources: int64 (e,), the row of each entry.
        signs: float32 (e,), 1 or -1: what the row is multiplied by; None: nothing.

    Returns:
        ``totals``.
    """
    # Entries by total, in their order there: where those of a total begin, and how many there are.
    # A sort of small integers counts, which is the faster one.
    small = np.uint16 if len(totals) <= SMALL_CODES else np.int64
    order = codes.astype(small).argsort(kind="stable")
    in_order = codes[order]
    sources = sources[order]
    signs = None if signs is None else signs[order, None]
    is_first = np.ones(len(order), dtype=bool)
    np.not_equal(in_order[1:], in_order[:-1], out=is_first[1:])
    starts = np.flatnonzero(is_first)
    lengths = np.append(starts[1:], len(order)) - starts

    # The totals of the most entries first, so that those of a further one are the first so many.
    by_length = np.argsort(-lengths, kind="stable")
    starts, lengths = starts[by_length], lengths[by_length]
    own = in_order[starts]
    n_with_more = np.searchsorted(-lengths, -np.arange(lengths[0]), side="left")
    for number, count in enumerate(n_with_more.tolist()):
        if count < FEW_TOTALS:
            break
        chosen, entries = own[:count], starts[:count] + number
        addend = rows[sources[entries]]
        if signs is not None:
            addend *= signs[entries]
        totals[chosen] = totals[chosen] + addend
    else:
        return totals

    # Few totals have many entries: one by one.
    for total, start, length in zip(own[:count], starts[:count], lengths[:count], strict=True):
        for entry in range(start + number, start + length):
            add = np.add if signs is None or signs[entry] > 0 else np.subtract
            add(totals[total], rows[sources[entry]], out=totals[total])
    return totals


def segment_sums(rows: Array, codes: Array, n_codes: int) -> Array:
    """Sum the rows of each cluster in torch, float32 (K, D): index_add_ on a GPU has no order."""
    torch = of(rows)
    order = codes.sort(stable=True).indices
    lengths = torch.bincount(codes, minlength=n_codes)
    return torch.segment_reduce(
        rows.index_select(0, order), "sum", lengths=lengths, axis=0, unsafe=True, initial=0
    )


def generator(device: Device, seed: int) -> Generator:
    """Return a generator of random numbers; of torch it is one of the CPU on every device."""
    if isinstance(device, Host):
        return np.random.default_rng(seed)
    import torch

    return torch.Generator().manual_seed(seed)


def draw_integer(generator: Generator, high: int) -> int:
    """Draw an integer from 0 to ``high`` - 1."""
    if isinstance(generator, np.random.Generator):
        return int(generator.integers(high))
    import torch

    return int(torch.randint(high, (1,), generator=generator))


def draw_uniform(generator: Generator, shape: tuple[int, ...]) -> Array:
    """Draw float64 numbers from [0, 1), on the CPU."""
    if isinstance(generator, np.random.Generator):
        return generator.random(shape)
    import torch

    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def draw_normal(generator: Generator, shape: tuple[int, ...]) -> Array:
    """Draw float32 numbers of a normal distribution, on the CPU."""
    if isinstance(generator, np.random.Generator):
        return generator.standard_normal(shape, dtype=np.float32)
    import torch

    return torch.randn(shape, generator=generator)
