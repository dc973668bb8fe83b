"""Compile the exports of a catalogue's SIDs with the grammar engines of servers.

One engine and one export per call, in one thread: CPU seconds to write and to compile, the size of
the file, MiB of memory that compiling adds, milliseconds per step along one SID, whether the tokens
allowed there are those of the tree, and whether a token that is no SID token is allowed.

    make recipes
    PYTHONPATH=.recipes python benchmarks/constraint_engines.py --engine=xgrammar --export=sids.ebnf
"""

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/recipes"))

import engines

from sidmill.datasets import trie
from sidmill.formats import sid_text

ENGINES = ("xgrammar", "llguidance", "outlines", "lm_format_enforcer", "sid_logits")
MIB = 2**20


def main() -> None:
    """Write one export, compile it, and follow one SID."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--codes", type=int, default=256, help="codes per level")
    parser.add_argument("--levels", type=int, default=3)
    parser.add_argument("--engine", choices=ENGINES, default="xgrammar")
    parser.add_argument("--export", choices=tuple(engines.EXPORTS), default="sids.ebnf")
    parser.add_argument(
        "--sid-tokens-only", action="store_true", help="the engine sees no ordinary token"
    )
    options = parser.parse_args()
    wrapped, ids = engines.tokenizer(options.levels, options.codes)
    figures: dict[str, object] = dict(vars(options))

    with tempfile.TemporaryDirectory() as folder:
        # Written by another process, whose memory is not that of the engine.
        path = Path(folder) / options.export
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            written, answer, wanted = pool.apply(write, (path, options))
        figures |= written

        # The engine.
        before = Path("/proc/self/statm").read_text().split()[1]
        began = time.process_time()
        try:
            only = ids if options.sid_tokens_only else None
            follow = getattr(engines, options.engine)(path, wrapped, only)
            figures["compile_cpu_s"] = round(time.process_time() - began, 2)
            began = time.process_time()
            allowed = list(follow(answer))
        except (ValueError, RuntimeError) as error:
            print(json.dumps(figures | {"refused": str(error).splitlines()[0][:200]}))
            return
    figures["step_cpu_ms"] = round((time.process_time() - began) / len(answer) * 1000, 2)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    figures["compile_mib"] = (peak - int(before) * resource.getpagesize()) // MIB

    # What the engine allows, against the tree.
    figures["all_reachable"] = all(map(set.issuperset, allowed, wanted))
    figures["exact"] = allowed == wanted
    figures["can_be_spelled"] = any(tokens - set(ids.values()) for tokens in allowed)
    print(json.dumps(figures))


def write(
    path: Path, options: argparse.Namespace
) -> tuple[dict[str, object], list[int], list[set[int]]]:
    """Write one export; return its figures, a SID, and what the tree allows along it."""
    # Distinct SIDs, drawn evenly, and their tree over token ids.
    _, ids = engines.tokenizer(options.levels, options.codes)
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, options.codes, (options.items, options.levels))
    codes = np.unique(drawn, axis=0).astype(np.int32)
    tree = trie.build(codes, ids)

    began = time.process_time()
    engines.export(path, codes, tree)
    figures: dict[str, object] = {
        "sids": len(codes),
        "prefixes": len(np.unique(codes[:, :-1], axis=0)),
        "write_cpu_s": round(time.process_time() - began, 2),
        "export_mb": round(path.stat().st_size / 1e6, 3),
    }

    # One SID, and what the tree allows along it.
    row = codes[len(codes) // 2].tolist()
    names = [sid_text.BEGIN, *map(sid_text.token, range(options.levels), row), sid_text.END]
    answer, wanted, node = [ids[name] for name in names], [], 0
    for token in answer:
        wanted.append(set(tree.allowed(node).tolist()))
        node = tree.step(node, token)
    return figures, answer, wanted


if __name__ == "__main__":
    main()
