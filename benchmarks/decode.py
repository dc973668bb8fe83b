"""Decoding over the trie of SIDs: CPU time per user, one thread, random SIDs and random scores.

Scores are a sum over tokens (a log-softmax of noise per level), so no model's time is in the
figures. With random scores the bound of ``search`` is as loose as it can be. ``mask`` is one step
of a language model's beam search (50,000 tokens in the vocabulary beside those of SIDs): the
logits processor against ``prefix_allowed_tokens_fn``, whose masks are compared.

    python benchmarks/decode.py                    1,000,000 items of 4 levels of 1,024 codes
    python benchmarks/decode.py --items=10000000
"""

import argparse
import json
import math
import resource
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from sidmill.datasets import trie
from sidmill.formats import sid_text
from sidmill.numeric import sid_trie
from sidmill.recommend.generative import decode

ORDINARY_TOKENS = 50_000


def main() -> None:
    """Build, decode, mask; print one JSON line."""
    options = _options()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes = [options.codes] * options.levels
    shape = (options.items, options.levels)
    codes = np.random.default_rng(0).integers(0, options.codes, shape, dtype=np.int32)
    before = _peak_bytes()
    seconds, tree = _timed(lambda: sid_trie.build(codes, sizes))
    figures = {
        "items": options.items,
        "sids": tree.n_sids,
        "build_seconds": round(seconds, 2),
        "build_bytes_per_item": round((_peak_bytes() - before) / options.items),
    }

    # Decoding, milliseconds per user.
    noise = [torch.randn(options.users, size) for size in sizes]
    additive = [2 * level for level in noise]
    additive = [level.log_softmax(dim=1) for level in additive]

    def token_scores(level: int, prefixes: torch.Tensor) -> torch.Tensor:
        return additive[level].unsqueeze(1).expand(-1, prefixes.shape[1], -1)

    runs: dict[str, Callable[[], object]] = {
        "beam": lambda: decode.beam(tree, token_scores, options.users, options.width, options.k),
        "search": lambda: decode.search(tree, additive, options.width, options.k),
        "exact_additive": lambda: decode.exact_additive(tree, additive),
    }
    for name, run in runs.items():
        seconds, _ = _timed(run)
        figures[f"{name}_ms"] = round(1000 * seconds / options.users, 3)
    print(json.dumps(figures | _masks(codes, sizes, options)))


def _masks(codes: np.ndarray, sizes: list[int], options: argparse.Namespace) -> dict[str, float]:
    """One step of every length of prefix, all beams at once: milliseconds per step."""
    vocabulary = sid_text.vocabulary(sizes)
    ids = {token: number for number, token in enumerate(vocabulary, start=ORDINARY_TOKENS)}
    tree = trie.build(codes, ids)
    rows = options.users * options.width
    written = np.stack(list(trie._token_columns(codes[:rows], ids)), axis=1)
    processor = trie.SidLogits(tree, 0, 0)
    seconds = {"mask": 0.0, "callback_mask": 0.0}
    for length in range(written.shape[1]):
        tokens = torch.from_numpy(written[:, :length]).long()
        scores = torch.randn(len(tokens), ORDINARY_TOKENS + len(vocabulary))
        allowed = trie.prefix_allowed_tokens_fn(tree, 0, 0)
        one, masked = _timed(lambda: processor(tokens, scores))  # noqa: B023
        two, wanted = _timed(lambda: _by_callback(allowed, tokens, scores))  # noqa: B023
        assert torch.equal(masked, wanted)
        seconds["mask"] += one
        seconds["callback_mask"] += two
    steps = written.shape[1]
    return {f"{name}_ms": round(1000 * spent / steps, 1) for name, spent in seconds.items()}


def _by_callback(allowed, tokens: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """What transformers does with ``prefix_allowed_tokens_fn``."""
    mask = torch.full_like(scores, -math.inf)
    for row, prefix in enumerate(tokens):
        mask[row, allowed(row, prefix)] = 0
    return scores + mask


def _timed(run: Callable[[], object]):
    began = time.process_time()
    found = run()
    return time.process_time() - began, found


def _peak_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--levels", type=int, default=4)
    parser.add_argument("--codes", type=int, default=1024, help="of each level")
    parser.add_argument("--users", type=int, default=16)
    parser.add_argument("--width", type=int, default=20, help="beams")
    parser.add_argument("--k", type=int, default=20, help="SIDs of a user")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
