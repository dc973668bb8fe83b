"""Valid metrics of the generative recommender on several SIDs of one catalogue, paired by user.

    python benchmarks/refresh.py --results results --arm retrained=results \
        --arm refreshed=other/results

An arm is a folder with pid2sid.parquet and quantizer.safetensors of the items of ``--results``,
whose interactions/sequences.parquet is read. The default model is trained for each seed, or read
from model.safetensors where the folder has one; metrics of an arm are kept in its ``valid.npz``.
Differences are less the first arm, with a bootstrap interval over users. Test interactions are not
read.
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np

from sidmill.formats import sequence_table
from sidmill.numeric import bootstrap, nearest_torch
from sidmill.recommend import metrics, rank, windows
from sidmill.recommend.generative import models, score, sid_items, train
from sidmill.settings.generative import Generative

SEED, RESAMPLES, MEMORY_MB = 42, 2000, 1024
SHOWN = ("HR@10", "NDCG@10")


def main() -> None:
    """Train what is missing, and print one line per arm."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--arm", action="append", required=True, help="name=folder; several")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    sequences = options.results / "interactions/sequences.parquet"
    measured = {}
    for arm in options.arm:
        name, _, folder = arm.partition("=")
        measured[name] = by_seed(Path(folder), sequences, options.seeds)

    # Sums of each user, over the same queries in the same order for all arms.
    users = next(iter(measured.values()))[0]
    _, rows = np.unique(users, return_inverse=True)
    n_users = rows.max() + 1
    columns = [np.bincount(rows, minlength=n_users).astype(float)]
    for _, values in measured.values():
        for metric in SHOWN:
            mean = values[:, :, metrics.NAMES.index(metric)].mean(axis=0)
            columns.append(np.bincount(rows, weights=mean, minlength=n_users))
    sums = np.stack(columns, axis=1)
    drawn = bootstrap.resample(sums, RESAMPLES, SEED)
    means, drawn = sums.sum(0)[1:] / sums.sum(0)[0], drawn[:, 1:] / drawn[:, :1]

    for number, (name, (_, values)) in enumerate(measured.items()):
        for offset, metric in enumerate(SHOWN):
            column = number * len(SHOWN) + offset
            of_seeds = values[:, :, metrics.NAMES.index(metric)].mean(axis=1).round(4).tolist()
            difference = drawn[:, column] - drawn[:, offset]
            low, high = np.percentile(difference, bootstrap.INTERVAL)
            print(
                f"{name} {metric} {means[column]:.4f} {of_seeds}, less the first "
                f"{means[column] - means[offset]:+.4f} [{low:+.4f}, {high:+.4f}]"
            )


def by_seed(folder: Path, sequences: Path, n_seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Users int64 (Q,) and metrics float64 (seeds, Q, M) of the valid targets."""
    path = folder / "valid.npz"
    if path.exists():
        kept = np.load(path)
        return kept["users"], kept["values"]
    items = sid_items.load([folder / "pid2sid.parquet"], [folder / "quantizer.safetensors"])
    settings = dataclasses.replace(Generative(), seeds=n_seeds, device="cpu")
    model = folder / "model.safetensors"
    if model.exists():
        fitted = models.load(model, items, nearest_torch.pick_device("cpu"))
    else:
        state_path = folder / "training"
        fitted, _ = train.fit(sequences, items, settings, seed=SEED, code="", state_path=state_path)
    values = []
    for one in fitted:
        groups = windows.read_groups(sequences, items.items)
        ranks = rank.rank(
            score.scorer(one.network, settings.max_length),
            (windows.queries(group, sequence_table.VALID) for group in groups),
            len(items.items.ids),
            mask_seen=False,
            memory_mb=MEMORY_MB,
        )
        measured = metrics.of(ranks)
        values.append(measured.values)
    np.savez(path, users=measured.users, values=np.stack(values))
    train.discard_states(folder / "training")
    return measured.users, np.stack(values)


if __name__ == "__main__":
    main()
