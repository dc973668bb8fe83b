"""Training of a recommender: this checkout against another one, in turn.

Both train one model on the same files, with the same settings and seed: valid alone is read. The
time of a side has no imports. ``results`` is the folder of a finished run.

    git worktree add /tmp/before v1.2.0
    python benchmarks/recommend_training.py --results results --before /tmp/before/src
    python benchmarks/recommend_training.py --results results --before /tmp/before/src \
        --model recommender --epochs 15 --seed 43
    python benchmarks/recommend_training.py --results results --before /tmp/before/src \
        --quantizer given --epochs 1 --set '{"loss": "in_batch"}'

The figures of a side: seconds of CPU of the program and of the system, page faults without disk,
peak memory in MiB, the best valid NDCG@10.
"""

import argparse
import gc
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Run both sides in turn; print their figures and the ratio of the CPU time."""
    options = _options()
    if options.side:
        print(json.dumps(train(options)))
        return
    seconds: dict[str, float] = {}
    for side, source in (("before", options.before), ("now", _own_source())):
        command = [sys.executable, __file__, *sys.argv[1:], "--side", side]
        environment = {**os.environ, "PYTHONPATH": str(Path(source).resolve())}
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
        figures = json.loads(done.stdout.splitlines()[-1])
        seconds[side] = figures["user_seconds"] + figures["system_seconds"]
        print(json.dumps(figures))
    print(json.dumps({"cpu_ratio": round(seconds["now"] / seconds["before"], 3)}))


def train(options: argparse.Namespace) -> dict[str, Any]:
    """Train one model, and say what it took."""
    folder, changes = Path(options.results), {"max_epochs": options.epochs, **options.set}
    sequences = str(folder / "interactions/sequences.parquet")
    prepared = (_recommender if options.model == "recommender" else _generative)(folder, options)

    # What the imports left is no garbage of the training.
    gc.freeze()
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    curve = prepared(sequences, changes)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    return {
        "side": options.side,
        "user_seconds": round(after.ru_utime - before.ru_utime, 2),
        "system_seconds": round(after.ru_stime - before.ru_stime, 2),
        "seconds": round(seconds, 2),
        "page_faults": after.ru_minflt - before.ru_minflt,
        "peak_mb": round(after.ru_maxrss / 1024),
        "epochs": len(curve),
        "best_valid": max(entry["valid"] for entry in curve),
    }


def _recommender(folder: Path, options: argparse.Namespace) -> Any:
    """Load the items of the sequence recommender; return its training."""
    from sidmill.recommend import item_features, train
    from sidmill.settings.recommend import Recommender

    items = item_features.load(folder / "items/vectors.npy", folder / "items/ids.parquet", None)

    def run(sequences: str, changes: dict[str, Any]) -> Any:
        settings = Recommender(**changes)
        return train.fit(sequences, items, settings, seed=options.seed, code="benchmark")[1]

    return run


def _generative(folder: Path, options: argparse.Namespace) -> Any:
    """Load the items of the generative recommender; return its training."""
    from sidmill.recommend.generative import sid_items, train
    from sidmill.settings.generative import Generative

    quantizer = folder / options.quantizer / "quantizer.safetensors"
    items = sid_items.load([folder / "pid2sid.parquet"], [quantizer])

    def run(sequences: str, changes: dict[str, Any]) -> Any:
        settings = Generative(**{"seeds": 1, **changes})
        curves = train.fit(sequences, items, settings, seed=options.seed, code="benchmark")[1]
        return curves[0]["epochs"]

    return run


def _own_source() -> Path:
    return Path(__file__).parents[1] / "src"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", required=True, help="results of a finished run")
    parser.add_argument("--before", required=True, help="the folder src of another checkout")
    parser.add_argument("--model", choices=["generative", "recommender"], default="generative")
    parser.add_argument("--quantizer", default="rqkmeans", help="whose SIDs are generated")
    parser.add_argument("--epochs", type=int, default=15, help="at most")
    parser.add_argument("--set", type=json.loads, default={}, help="JSON: settings of the model")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--side", choices=["before", "now"], help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
