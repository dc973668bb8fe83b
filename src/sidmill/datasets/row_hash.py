"""Random numbers that belong to a row and not to the moment when it is read.

The key of a row is a hash of the seed, a name and the row's position in the input. So the order of
a shuffle, the choice of a wording and a sample are the same for any number of shards and blocks.
"""

import hashlib

import numpy as np

from sidmill.core.splitmix import splitmix64

EXPLODE_BITS = 20  # rows that one input row may become: about a million


def stream(seed: int, name: str) -> np.uint64:
    """A number for one use of randomness."""
    digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def row_keys(base: np.uint64, rows: np.ndarray, examples: np.ndarray | int = 0) -> np.ndarray:
    """Keys of the examples of input rows, uint64 (n,); all of them differ.

    Args:
        base: the stream of the dataset.
        rows: input rows, integers (n,).
        examples: which example of its input row each is, integers (n,) below 2**``EXPLODE_BITS``.
    """
    positions = rows.astype(np.uint64) << np.uint64(EXPLODE_BITS)
    return splitmix64(positions + np.asarray(examples, np.uint64) + base)


def child_keys(keys: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Keys of rows that are made of other rows: of the parent's key and the child's number.

    Args:
        keys: of the parent of each row, uint64 (n,).
        numbers: of the row among the children of its parent, integers (n,).
    """
    return splitmix64(keys + splitmix64(numbers.astype(np.uint64)))


def derive(keys: np.ndarray, seed: int, name: str) -> np.ndarray:
    """Another number for each row, for another use of randomness: uint64 (n,)."""
    return splitmix64(keys ^ stream(seed, name))


def below(keys: np.ndarray, count: int | np.ndarray) -> np.ndarray:
    """Map keys to 0 .. count - 1: int64 (n,)."""
    scaled: np.ndarray = (keys >> np.uint64(32)) * np.asarray(count, np.uint64) >> np.uint64(32)
    return scaled.astype(np.int64)


def unit_interval(keys: np.ndarray) -> np.ndarray:
    """Map keys to [0, 1): float64 (n,)."""
    fractions: np.ndarray = (keys >> np.uint64(11)) * (1.0 / (1 << 53))
    return fractions
