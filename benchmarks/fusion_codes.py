"""Codes of residual k-means on text vectors and on fused ones: what they say of valid targets.

    python benchmarks/fusion_codes.py --results results

3 x 256 codes. Columns: squared error left and share of items with the codes of another item, then
the share of valid targets with the first token (and the first two tokens) of the item before them
in the history, over that share for two items drawn by their popularity in training, in brackets
the share by chance. Test interactions are not read.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from sidmill import api
from sidmill.formats import sequence_table
from sidmill.fuse.fuse import Files, fuse
from sidmill.recommend import baselines, item_features, windows
from sidmill.settings.fuse import Fuse

PLAIN = Fuse(shrinkage=10.0, whiten=0.0)
FUSIONS = (
    replace(PLAIN, method="graph", weight=0.3),
    replace(PLAIN, method="graph", weight=0.3, normalize=False),
    replace(PLAIN, method="graph", weight=0.9),
    replace(PLAIN, method="graph", weight=0.9, normalize=False),
    replace(PLAIN, method="svd", weight=0.3),
    replace(PLAIN, method="svd", weight=0.5),
)


def main() -> None:
    """Print one line per kind of vectors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True)
    options = parser.parse_args()
    sequences = options.results / "interactions/sequences.parquet"
    pair = (options.results / "items/vectors.npy", options.results / "items/ids.parquet")
    items = item_features.load(*pair, None)
    matrix = baselines.training_matrix(sequences, items)
    popularity = np.asarray(matrix.sum(axis=0)).ravel()

    # Each valid target, and the item before it.
    groups = windows.read_groups(sequences, items)
    parts = [windows.queries(group, sequence_table.VALID) for group in groups]
    targets = np.concatenate([part.numbers[part.positions] for part in parts])
    before = np.concatenate([part.numbers[part.positions - 1] for part in parts])

    show("text", np.array(items.vectors), targets, before, popularity)
    for settings in FUSIONS:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder, "fused.npy"), Path(folder, "fused_ids.parquet")
            fuse(Files(*pair, sequences, *out), settings, seed=42)
            vectors = np.load(out[0])
        name = f"{settings.method} {settings.weight}" + " as it is" * (not settings.normalize)
        show(name, vectors, targets, before, popularity)


def show(
    name: str, vectors: np.ndarray, targets: np.ndarray, before: np.ndarray, popularity: np.ndarray
) -> None:
    """Fit, encode, measure, print."""
    quantizer = api.fit(vectors, n_levels=3, codebook_size=256, device="cpu")
    codes = api.encode(quantizer, vectors, device="cpu")
    error = np.square(vectors - api.decode(quantizer, codes)).sum() / np.square(vectors).sum()
    sizes = np.unique(codes, axis=0, return_inverse=True, return_counts=True)
    colliding = (sizes[2][sizes[1].ravel()] > 1).mean()
    shares = []
    for length in (1, 2):
        prefixes = np.unique(codes[:, :length], axis=0, return_inverse=True)[1].ravel()
        loads = np.bincount(prefixes, weights=popularity) / popularity.sum()
        differ = targets != before
        share = (prefixes[targets] == prefixes[before])[differ].mean()
        shares.append(f"{share:.4f} ({np.square(loads).sum():.4f})")
    print(f"{name:22s} {error:.4f} {colliding:.4f} {' '.join(shares)}", flush=True)


if __name__ == "__main__":
    main()
