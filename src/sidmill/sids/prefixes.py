"""Prefixes of codes, numbered: which items share one, and whether a code is taken.

Shapes: N items, L levels, K_l codes at level l, H codes held.
"""

import math
from typing import NamedTuple

import numpy as np

INT32_MAX, INT64_MAX = 2**31 - 1, 2**63 - 1


class Prefixes(NamedTuple):
    """The prefixes that occur among N codes.

    Attributes:
        numbers: L + 1 arrays (N,): ``numbers[m]`` numbers the distinct prefixes of length m, in
            lexicographic order from 0. Numbers stay below N, so no code space is too large. They
            are int32, or int64 where N or the code space is: widen them before arithmetic.
        children: L sorted int64 arrays: ``parent number * K_l + code`` of each longer prefix.
        sizes: K_l per level.
    """

    numbers: list[np.ndarray]
    children: list[np.ndarray]
    sizes: list[int]


def with_held(codes: np.ndarray, held: np.ndarray | None) -> np.ndarray:
    """A copy of ``codes`` with the held ones after them: int32 (N + H, L)."""
    return codes.copy() if held is None else np.concatenate([codes, held])


def number(codes: np.ndarray, sizes: list[int]) -> Prefixes:
    """Number all prefixes of ``codes``, int32 (N, L), every code below its K_l.

    Where a code fits into 63 bits, the codes are sorted once and not once per level. Memory: the
    result, 4 L bytes per item and 8 per prefix, and 40 bytes per item while it runs.
    """
    if math.prod(map(int, sizes)) > INT64_MAX:
        return _number_by_level(codes, sizes)

    # Each code as one number, in order: (N,).
    keys = np.zeros(len(codes), dtype=np.int64)
    for level, size in enumerate(sizes):
        keys *= size
        keys += codes[:, level]
    order = np.argsort(keys)
    keys = keys[order]

    # Level by level: where another prefix begins, and the number of each code's prefix.
    kind = np.int32 if len(codes) <= INT32_MAX else np.int64
    numbers, children = [np.zeros(len(codes), dtype=kind)], []
    parents = np.zeros(len(codes), dtype=np.int64)
    for level, size in enumerate(sizes):
        prefix = keys // math.prod(map(int, sizes[level + 1 :]))
        begins = np.ones(len(keys), dtype=bool)
        begins[1:] = prefix[1:] != prefix[:-1]
        firsts = np.flatnonzero(begins)
        children.append(parents[firsts] * size + prefix[firsts] % size)
        parents = np.cumsum(begins) - 1
        numbers.append(np.empty(len(keys), dtype=kind))
        numbers[-1][order] = parents
    return Prefixes(numbers, children, sizes)


def _number_by_level(codes: np.ndarray, sizes: list[int]) -> Prefixes:
    """Number prefixes of codes of any length: each level sorts the numbers of the one before."""
    numbers, children = [np.zeros(len(codes), dtype=np.int64)], []
    for level, size in enumerate(sizes):
        known, inverse = np.unique(numbers[-1] * size + codes[:, level], return_inverse=True)
        children.append(known)
        numbers.append(inverse)
    return Prefixes(numbers, children, sizes)


def occurs(prefixes: Prefixes, codes: np.ndarray) -> np.ndarray:
    """Tell which of ``codes``, int (n, L), are among the numbered ones: bool (n,)."""
    parent = np.zeros(len(codes), dtype=np.int64)
    present = np.ones(len(codes), dtype=bool)
    for level, (known, size) in enumerate(zip(prefixes.children, prefixes.sizes, strict=True)):
        keys = parent * size + codes[:, level]
        parent = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        present &= known[parent] == keys
    return present


def groups(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort items by number: the rows in that order (ties by row), and where each group starts.

    Args:
        numbers: int64 (N,), every value from 0 to the largest occurs.

    Returns:
        int64 (N,) rows, and int64 (groups + 1,) bounds.
    """
    return np.argsort(numbers, kind="stable"), np.r_[0, np.cumsum(np.bincount(numbers))]
