"""The HDF5 loader against a dataset that opens the files for every user and reads item by item.

Both give the same training samples of the same users, SIDMill in shuffled batches, the yardstick
one by one through torch's DataLoader. ``time_ratio`` and ``memory_ratio`` are of whole processes,
imports included; ``rate_ratio`` is of users per second once running. ``quality_ratio`` is 1 if both
sides gave the same numbers.

    python benchmarks/h5_loader.py                      2,000 users of 50 items, 64 dimensions
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import _paired
import numpy as np

SUM_TOLERANCE = 1e-6


def main() -> None:
    """Make the files, run both sides in turn, compare."""
    options = _options()
    if options.side:
        SIDES[options.side](options)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        shared = [__file__, *_paired.flags(options, folder)]
        _paired.run([*shared, "--side=make"])
        sides = {name: [*shared, f"--side={name}"] for name in ("sidmill", "item_by_item")}
        medians = _paired.alternate(sides, options.repeats)
        ours, theirs = (json.loads(Path(folder, f"{name}.json").read_text()) for name in sides)
    figures = {
        "users": options.users,
        "dim": options.dim,
        "sidmill_users_per_second": round(ours["rate"]),
        "item_by_item_users_per_second": round(theirs["rate"]),
        "rate_ratio": round(ours["rate"] / theirs["rate"], 1),
    }
    same = np.isclose(ours["sum"], theirs["sum"], rtol=SUM_TOLERANCE)
    same = same and ours["items"] == theirs["items"]
    _paired.report(medians, figures, float(same))


def make(options: argparse.Namespace) -> None:
    """Write item_data.h5 and sequence.h5."""
    from sidmill.formats import item_data, sequence_data

    rng = np.random.default_rng(options.seed)
    folder = Path(options.folder)
    values = rng.standard_normal((options.items, options.dim), dtype=np.float32)
    features = np.zeros((options.items, 1), dtype=np.int32)
    block = item_data.Block(values, features, features[:, 0])
    ids = np.arange(1, options.items + 1)
    item_data.write(folder / "item_data.h5", ids, options.dim, 1, [block])
    sizes = rng.integers(1, 2 * options.mean_length, options.users)
    items = rng.integers(1, options.items + 1, sizes.sum())
    users = [f"user {row}" for row in range(options.users)]
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    rows = sequence_data.Block(users, offsets, items, None)
    sequence_data.write(folder / "sequence.h5", options.users, False, [rows])


def run_sidmill(options: argparse.Namespace) -> None:
    """One epoch with SIDMill."""
    from sidmill.loaders import create_h5_dataloader

    folder = Path(options.folder)
    loader = create_h5_dataloader(
        folder / "item_data.h5",
        folder / "sequence.h5",
        batch_size=options.batch_size,
        train_test_split="all",
        padding_value=0.0,
    )
    _epoch(options, "sidmill", loader)


def run_item_by_item(options: argparse.Namespace) -> None:
    """One epoch, opening the files for every user and reading the vectors one after the other."""
    import h5py
    import torch
    from torch.utils.data import DataLoader, Dataset

    folder = Path(options.folder)

    class ItemByItem(Dataset):
        def __len__(self) -> int:
            return options.users

        def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
            ids = torch.full((200,), -1)
            x = torch.zeros(200, options.dim)
            with (
                h5py.File(folder / "item_data.h5") as items,
                h5py.File(folder / "sequence.h5") as sequences,
            ):
                rows = {item: place for place, item in enumerate(items["item_ids"][:].tolist())}
                for place, item in enumerate(sequences["sequences"][row][-200:]):
                    ids[place] = int(item)
                    x[place] = torch.from_numpy(items["embeddings"][rows[int(item)]])
            return {"ids": ids, "x": x, "seq_mask": ids >= 0}

    loader = DataLoader(ItemByItem(), batch_size=options.batch_size, shuffle=True)
    _epoch(options, "item_by_item", loader)


def _epoch(options: argparse.Namespace, name: str, loader: Iterable[dict]) -> None:
    users, items, total = 0, 0, 0.0
    began = time.perf_counter()
    for batch in loader:
        users += len(batch["ids"])
        items += int(batch["ids"][batch["seq_mask"]].sum())
        total += float(batch["x"].double().abs().sum())
    rate = users / (time.perf_counter() - began)
    figures = {"rate": rate, "items": items, "sum": total}
    Path(options.folder, f"{name}.json").write_text(json.dumps(figures))


SIDES = {"make": make, "sidmill": run_sidmill, "item_by_item": run_item_by_item}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--items", type=int, default=5_000)
    parser.add_argument("--mean-length", type=int, default=50)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--folder", help="where the temporary folder goes")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
