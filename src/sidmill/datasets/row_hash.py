"""Random numbers that belong to a row and not to the moment it is met.

The number of a row is a hash of the seed, a name and the row's place in the input. So the order of
a shuffle, the choice of a wording and a sample are the same for any number of shards and blocks.

Source: the finaliser of SplitMix64, https://doi.org/10.1145/2660193.2660195
"""

import hashlib

import numpy as np

EXPLODE_BITS = 20  # rows that one input row may become: about a million


def stream(seed: int, name: str) -> np.uint64:
    """A number for one use of randomness, uint64."""
    digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def of_rows(base: np.uint64, rows: np.ndarray, parts: np.ndarray | int = 0) -> np.ndarray:
    """A number for part ``parts`` of each input row, uint64 (n,); no two alike."""
    place = (rows.astype(np.uint64) << np.uint64(EXPLODE_BITS)) + np.asarray(parts, np.uint64)
    return mix(place + base)


def derive(keys: np.ndarray, seed: int, name: str) -> np.ndarray:
    """Another number for each row, for another use: uint64 (n,)."""
    return mix(keys ^ stream(seed, name))


def mix(numbers: np.ndarray) -> np.ndarray:
    """Spread 64 bits; a bijection."""
    z = numbers + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def below(keys: np.ndarray, count: int | np.ndarray) -> np.ndarray:
    """Map numbers to 0 .. count - 1: int64 (n,)."""
    return ((keys >> np.uint64(32)) * np.asarray(count, np.uint64) >> np.uint64(32)).astype(
        np.int64
    )


def share(keys: np.ndarray) -> np.ndarray:
    """Map numbers to [0, 1): float64 (n,)."""
    return (keys >> np.uint64(11)) * (1.0 / (1 << 53))
