"""Compile the exports of a catalogue's SIDs with the grammar engines of servers.

One engine and one export per call, in one thread: CPU seconds, size of the file, whether the tokens
allowed along a SID are those of the tree, and whether a token that is no SID token is allowed.

    make recipes
    PYTHONPATH=.recipes python benchmarks/constraint_engines.py --engine=xgrammar --export=sids.ebnf
"""

import argparse
import json
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


def main() -> None:
    """Write one export, compile it, and follow one SID."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--codes", type=int, default=256, help="codes per level")
    parser.add_argument("--levels", type=int, default=3)
    parser.add_argument("--engine", choices=("xgrammar", "llguidance"), default="xgrammar")
    parser.add_argument("--export", choices=tuple(engines.EXPORTS), default="sids.ebnf")
    options = parser.parse_args()

    # Distinct SIDs, drawn evenly, and their tree over token ids.
    wrapped, ids = engines.tokenizer(options.levels, options.codes)
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, options.codes, (options.items, options.levels))
    codes = np.unique(drawn, axis=0).astype(np.int32)
    tree = trie.build(codes, ids)
    figures: dict[str, object] = {**vars(options), "sids": len(codes)}

    # The export, then the engine.
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        text = engines.export(options.export, Path(folder) / "export", codes, tree)
        figures["write_cpu_s"] = round(time.process_time() - began, 2)
    figures["export_mb"] = round(len(text) / 1e6, 3)
    began = time.process_time()
    try:
        compile_with = getattr(engines, options.engine)
        follow = compile_with(text, options.export == "sids.regex", wrapped)
    except (ValueError, RuntimeError) as error:
        figures["refused"] = str(error).splitlines()[0][:200]
        print(json.dumps(figures))
        return
    figures["compile_cpu_s"] = round(time.process_time() - began, 2)

    # Along one SID: what the engine allows, against the tree.
    row = codes[len(codes) // 2].tolist()
    names = [sid_text.BEGIN, *map(sid_text.token, range(options.levels), row), sid_text.END]
    path, node = [ids[name] for name in names], 0
    exact, spelled = True, False
    for token, allowed in zip(path, follow(path), strict=True):
        exact &= allowed == set(tree.allowed(node).tolist())
        spelled |= bool(allowed - set(ids.values()))
        node = tree.step(node, token)
    figures |= {"exact": exact, "can_be_spelled": spelled}
    figures["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
