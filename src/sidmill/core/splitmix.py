"""SplitMix64 over arrays: a hash of numbers that is the same on every machine.

Source: the mixer of https://doi.org/10.1145/2660193.2660195, with the constants of its reference
implementation, https://prng.di.unimi.it/splitmix64.c.
"""

import numpy as np

GAMMA = 0x9E3779B97F4A7C15  # the increment of the generator's state
MULTIPLIER_1, MULTIPLIER_2 = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def splitmix64(states: np.ndarray) -> np.ndarray:
    """The output of the generator for each of its states: uint64 (n,) to uint64 (n,).

    A bijection, as the increment and :func:`finalize` are.
    """
    return finalize(states + np.uint64(GAMMA))


def finalize(numbers: np.ndarray) -> np.ndarray:
    """Spread each bit of a number over all 64 bits: a bijection of uint64 (n,)."""
    z = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(MULTIPLIER_1)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(MULTIPLIER_2)
    spread: np.ndarray = z ^ (z >> np.uint64(31))
    return spread
