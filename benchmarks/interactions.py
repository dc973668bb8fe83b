"""A log of histories through read_interactions, to sequence.h5, to one epoch of batches.

Each stage is a fresh process. There is no yardstick: the figures are seconds, peak memory and
rates.

    python benchmarks/interactions.py                                  20,000 users of 50 items
    python benchmarks/interactions.py --users 1000000 --items 200000   the size that is promised
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import _paired
import numpy as np

BLOCK_USERS = 8192


def main() -> None:
    """Make the log, run the stages one after the other, print the figures."""
    options = _options()
    if options.stage:
        STAGES[options.stage](options)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        words = [f"--{name.replace('_', '-')}={value}" for name, value in _shared(options).items()]
        arguments = [__file__, *words, f"--folder={folder}"]
        runs = {}
        for stage in STAGES:
            runs[stage] = _paired.run([*arguments, f"--stage={stage}"])
            print(f"{stage}: {runs[stage]}", file=sys.stderr, flush=True)
        report = json.loads(Path(folder, "report.json").read_text())
        sizes = {path.name: path.stat().st_size for path in sorted(Path(folder).iterdir())}
    print(f"{'stage':<14}{'seconds':>10}{'peak MiB':>10}{'users/s':>12}")
    for stage, run in runs.items():
        rate = options.users / run.seconds
        print(f"{stage:<14}{run.seconds:>10.1f}{run.peak_mb:>10.0f}{rate:>12,.0f}")
    figures = {
        "users": report["users"],
        "interactions": report["interactions"],
        "log_bytes": sizes["log.jsonl"],
        "sequence_h5_bytes": sizes["sequence.h5"],
        **{f"{stage}_seconds": round(run.seconds, 2) for stage, run in runs.items()},
        **{f"{stage}_peak_mb": round(run.peak_mb, 1) for stage, run in runs.items()},
    }
    print(json.dumps(figures))


def make(options: argparse.Namespace) -> None:
    """Write the catalogue, its vectors, and a log of histories with timestamps, out of order."""
    import pyarrow as pa

    from sidmill.formats import item_text, vector_store

    rng = np.random.default_rng(options.seed)
    ids = pa.array(np.arange(1, options.items + 1))
    words = pa.array([f"item {number}" for number in range(options.items)])
    table = pa.table({"pid": ids, "text": words})
    folder = Path(options.folder)
    item_text.write(folder / "text.parquet", pa.int64(), [table])
    shape = (options.items, options.dim)
    blocks = (
        rng.standard_normal((min(BLOCK_USERS, options.items - start), options.dim), np.float32)
        for start in range(0, options.items, BLOCK_USERS)
    )
    vector_store.write(folder / "vectors.npy", shape, "float32", blocks)
    vector_store.write_ids(folder / "ids.parquet", pa.chunked_array([ids]), shape, {})
    with (folder / "log.jsonl").open("w") as out:
        for user in range(options.users):
            size = 1 + int(rng.geometric(1 / options.mean_length)) % (20 * options.mean_length)
            items = (options.items * rng.random(size) ** 3).astype(np.int64) + 1
            times = 1_700_000_000 + np.sort(rng.integers(0, 10_000_000, size))
            row = {"user_id": user, "item_ids": items.tolist(), "timestamps": times.tolist()}
            out.write(json.dumps(row) + "\n")


def read(options: argparse.Namespace) -> None:
    """Stage read_interactions."""
    from sidmill.interactions.read import read
    from sidmill.io import json_report
    from sidmill.settings.interactions import Interactions

    folder = Path(options.folder)
    settings = Interactions(
        path=str(folder / "log.jsonl"), split="time", memory_mb=options.memory_mb
    )
    figures = read(
        folder / "text.parquet",
        folder / "sequences.parquet",
        folder / "rejects.parquet",
        settings,
    )
    json_report.write(folder / "report.json", figures)


def sequence_h5(options: argparse.Namespace) -> None:
    """Stage write_sequence_h5."""
    from sidmill.interactions.export import write_sequence_h5
    from sidmill.settings.interactions import H5

    folder = Path(options.folder)
    write_sequence_h5(
        folder / "sequences.parquet",
        folder / "text.parquet",
        folder / "sequence.h5",
        H5(),
    )


def item_h5(options: argparse.Namespace) -> None:
    """Stage write_item_h5."""
    from sidmill.embed.export import ItemFiles, write_item_h5
    from sidmill.settings.embedding import Embedding
    from sidmill.settings.interactions import H5

    folder = Path(options.folder)
    files = ItemFiles(
        folder / "vectors.npy",
        folder / "ids.parquet",
        folder / "text.parquet",
        folder / "item_data.h5",
        folder / "item_index.parquet",
    )
    write_item_h5(files, Embedding(), H5(features="words", max_feature_len=32))


def epoch(options: argparse.Namespace) -> None:
    """One shuffled epoch of training batches; every user has to come once."""
    from sidmill.loaders import create_h5_dataloader

    folder = Path(options.folder)
    loader = create_h5_dataloader(
        folder / "item_data.h5",
        folder / "sequence.h5",
        batch_size=options.batch_size,
        train_test_split="all",
    )
    users = interactions = 0
    for batch in loader:
        users += len(batch["ids"])
        interactions += int(batch["seq_mask"].sum())
    if users != options.users:
        raise SystemExit(f"{users} of {options.users} users came in the epoch")
    print(f"{users} users, {interactions} interactions (200 of a user at most)")


STAGES = {
    "make": make,
    "read": read,
    "sequence_h5": sequence_h5,
    "item_h5": item_h5,
    "epoch": epoch,
}


def _shared(options: argparse.Namespace) -> dict[str, object]:
    return {name: value for name, value in vars(options).items() if name not in ("folder", "stage")}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--items", type=int, default=5_000)
    parser.add_argument("--mean-length", type=int, default=50)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--memory-mb", type=int, default=1024, help="memory_mb of interactions")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--folder", help="where the temporary folder goes")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
