"""Random numbers of rows: those of SplitMix64, different for each row, even over their range."""

import numpy as np
import pytest

from sidmill.core.splitmix import GAMMA, MULTIPLIER_1, finalize, splitmix64
from sidmill.datasets import row_hash
from sidmill.quantize.rqvae import data

# The first outputs of the reference implementation, by seed.
PUBLISHED = {
    0: [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F],
    1234567: [6457827717110365317, 3203168211198807973, 9817491932198370423],
}


@pytest.mark.parametrize("seed", PUBLISHED)
def test_the_generator_gives_the_published_numbers(seed):
    states = np.uint64(seed) + np.arange(3, dtype=np.uint64) * np.uint64(GAMMA)
    assert splitmix64(states).tolist() == PUBLISHED[seed]


@pytest.mark.parametrize("seed", [0, 42, 2**32 - 1])
def test_rows_that_a_quantizer_holds_out_follow_from_the_same_function(seed):
    states = np.arange(1, 1001, dtype=np.uint64) * np.uint64(GAMMA)
    states ^= np.uint64((seed + 1) * MULTIPLIER_1 % 2**64)
    expected = finalize(states) / 2.0**64 < 0.2
    assert data.held_out(1000, 0.2, seed).tolist() == expected.tolist()


def test_keys_of_rows_differ_and_do_not_depend_on_the_block():
    stream = row_hash.stream(5, "sft_video_rec train")
    rows, examples = np.repeat(np.arange(500), 4), np.tile(np.arange(4), 500)
    keys = row_hash.row_keys(stream, rows, examples)
    assert len(np.unique(keys)) == len(keys)
    halves = [row_hash.row_keys(stream, rows[some], examples[some])
              for some in (slice(0, 700), slice(700, None))]  # fmt: skip
    assert np.concatenate(halves).tolist() == keys.tolist()
    children = row_hash.child_keys(keys[rows], examples)
    assert len(np.unique(children)) == len(children)


def test_draws_are_even_and_within_their_range():
    keys = splitmix64(np.arange(60_000, dtype=np.uint64))
    counts = np.bincount(row_hash.below(keys, 6), minlength=6)
    assert counts.sum() == len(keys)
    assert len(counts) == 6
    assert (abs(counts - 10_000) < 500).all()
    fractions = row_hash.unit_interval(keys)
    assert fractions.min() >= 0
    assert fractions.max() < 1
    assert abs(fractions.mean() - 0.5) < 0.01
