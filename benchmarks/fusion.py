"""Neighbours by item vectors as a recommender, with text vectors and with fused ones.

    python benchmarks/fusion.py --results results

reads results/items/vectors.npy and results/interactions/sequences.parquet of a finished run. Each
fusion is written to a temporary folder and scored as the baseline text-kNN is: the cosine of an
item with the weighted sum of the items of the history. Targets are the valid interactions; test
interactions are not read. In training the target is never in the vectors.

Columns: HR@10 and NDCG@10 over all targets, NDCG@10 less that of the text with its paired interval
(95 %, 1,000 resamples of the users), NDCG@10 over targets that training has and has not, and the
share of the ten nearest items by text that stay among the ten nearest.
"""

import argparse
import tempfile
from itertools import product
from pathlib import Path

import numpy as np

from sidmill.formats import sequence_table
from sidmill.fuse.fuse import Files, fuse
from sidmill.recommend import baselines, item_features, metrics, rank, windows
from sidmill.settings.fuse import Fuse

DECAY = 0.6  # of recommender_evaluation.knn_decay
MEMORY_MB = 512
K = 10


def main() -> None:
    """Print one line per fusion."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--method", nargs="+", default=["graph", "svd"])
    parser.add_argument("--weight", nargs="+", type=float, default=[0.1, 0.3, 0.5, 0.7, 0.9])
    parser.add_argument("--window", nargs="+", type=int, default=[5])
    parser.add_argument("--neighbours", nargs="+", type=int, default=[50])
    parser.add_argument("--shrinkage", nargs="+", type=float, default=[10.0])
    parser.add_argument("--dim", type=int, default=16)
    arguments = parser.parse_args()
    sequences = arguments.results / "interactions/sequences.parquet"
    text = arguments.results / "items"

    # Baselines: the text alone, and items by co-consumption.
    items = item_features.load(text / "vectors.npy", text / "ids.parquet", None)
    matrix = baselines.training_matrix(sequences, items)
    counts = np.asarray(matrix.sum(axis=0)).ravel()
    before = nearest(items.vectors)
    targets, text_values = measure(sequences, items, baselines.text_knn(items, DECAY))
    is_known = counts[targets] > 0
    show("text", text_values, text_values, is_known, 1.0)
    _, values = measure(sequences, items, baselines.item_knn(matrix, 5.0, DECAY))
    show("item_knn", values, text_values, is_known)

    options = (arguments.window, arguments.neighbours, arguments.shrinkage)
    for method in arguments.method:
        for window, neighbours, shrinkage in product(*options):
            for weight in arguments.weight:
                settings = Fuse(
                    method=method,
                    weight=weight,
                    window=window,
                    neighbours=neighbours,
                    shrinkage=shrinkage,
                    dim=arguments.dim,
                    whiten=0.0,
                )
                with tempfile.TemporaryDirectory() as folder:
                    out = Path(folder, "fused.npy"), Path(folder, "fused_ids.parquet")
                    pair = text / "vectors.npy", text / "ids.parquet"
                    fuse(Files(*pair, sequences, *out), settings, seed=42)
                    fused = item_features.load(*out, None)
                    name = f"{method} w={weight} window={window} k={neighbours} s={shrinkage:g}"
                    kept = (nearest(fused.vectors)[:, :, None] == before[:, None, :]).any(2).mean()
                    _, values = measure(sequences, fused, baselines.text_knn(fused, DECAY))
                    show(name, values, text_values, is_known, kept)


def measure(
    path: Path, items: item_features.Items, scorer: rank.Scorer
) -> tuple[np.ndarray, metrics.Values]:
    """The valid targets, and all metrics of each."""
    parts = [
        windows.queries(group, sequence_table.VALID) for group in windows.read_groups(path, items)
    ]
    targets = np.concatenate([part.numbers[part.positions] for part in parts])
    ranks = rank.rank(scorer, parts, len(items.vectors), mask_seen=False, memory_mb=MEMORY_MB)
    return targets, metrics.of(ranks)


def nearest(vectors: np.ndarray) -> np.ndarray:
    """The ten nearest items of each by cosine: (N, 10). Memory: N x N floats."""
    unit = np.array(vectors, dtype=np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    return np.argpartition(-cosines, K, axis=1)[:, :K]


def show(
    name: str,
    values: metrics.Values,
    text: metrics.Values,
    is_known: np.ndarray,
    kept: float = float("nan"),
) -> None:
    """Print one line."""
    hits, gains = (values.values[:, metrics.NAMES.index(each)] for each in ("HR@10", "NDCG@10"))
    found = metrics.table({"one": values, "text": text}, n_resamples=1000, seed=0)
    lead = found["lead"]["text"]["NDCG@10"]
    print(
        f"{name:38s} {hits.mean():.4f} {gains.mean():.4f} "
        f"{lead['value']:+.4f} [{lead['low']:+.4f}, {lead['high']:+.4f}] "
        f"{gains[is_known].mean():.4f} {gains[~is_known].mean():.4f} {kept:.3f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
