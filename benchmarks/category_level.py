"""A category as the first level, and a unique last token: the default generative model on valid.

    snakemake --cores 2 results/items/categories.parquet results/items/vectors.npy \
        results/interactions/sequences.parquet --configfile my-catalogue.yaml
    python benchmarks/category_level.py --results results --keep ranks

reads the files of these targets, makes SIDs with residual k-means, and trains the default
generative model on them, once per seed. Targets are the valid interactions; test interactions are
not read. ``--keep`` names a folder for the figures of each model, which are not computed again.

Columns: tokens; the share of the squared length that codes leave, before collisions are resolved;
text-kNN on the decoded SIDs: HR@10, and less that of the first row with its paired interval (95 %,
2,000 resamples of the users). Then of the models of the seeds that are there: HR@10 with its
standard deviation over the seeds; NDCG@10; HR@10 over targets that training never has; and HR@10
less that of the first row over the same seeds, with its interval.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from sidmill.formats import category_file, item_text, sequence_table, vector_store
from sidmill.formats.quantizer_file import Quantizer
from sidmill.numeric import category_codes, residual_codec
from sidmill.quantize import category_level, rqkmeans
from sidmill.recommend import baselines, item_features, metrics, rank, windows
from sidmill.recommend.generative import score, train
from sidmill.recommend.generative.sid_items import Identifier, SidItems
from sidmill.settings.category_level import CategoryLevel
from sidmill.settings.generative import Generative
from sidmill.settings.quantize import Rqkmeans
from sidmill.settings.sids import Collisions
from sidmill.sids.resolve import resolve

SEED = 42  # of residual k-means
MEMORY_MB = 1024
DECAY = 0.6  # of recommender_evaluation.knn_decay
CPU = {"device": "cpu", "memory_mb": MEMORY_MB}
SHOWN = ["HR@10", "NDCG@10"]


class Shape(NamedTuple):
    """Codes of the category level, 0 for none; sizes of the learned levels; the strategy."""

    category: int
    learned: list[int]
    strategy: str


SHAPES = {
    "plain3": Shape(0, [256] * 3, "reassign"),
    "cat256+2": Shape(256, [256] * 2, "reassign"),
    "plain2+u": Shape(0, [256] * 2, "suffix"),
    "cat256+1+u": Shape(256, [256], "suffix"),
    "cat64+2": Shape(64, [256] * 2, "reassign"),
    "plain64+2": Shape(0, [64, 256, 256], "reassign"),
    "plain3+u": Shape(0, [256] * 3, "suffix"),
    "cat256+2+u": Shape(256, [256] * 2, "suffix"),
}


class Figures(NamedTuple):
    """Of one shape: sizes of the tokens, error of the codes, metrics of each target.

    ``knn`` are those of text-kNN on the decoded SIDs (Q, 2), ``values`` of the model of each seed.
    """

    sizes: list[int]
    error: float
    knn: np.ndarray
    values: dict[int, np.ndarray]


def main() -> None:
    """Print one line per shape."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--categories", type=Path, help="default: items/categories.parquet there")
    parser.add_argument("--keep", type=Path, required=True)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=SHAPES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[42, 43, 44])
    parser.add_argument(
        "--only-kept", action="store_true", help="train nothing: print what is kept"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.keep.mkdir(exist_ok=True)

    # The valid targets, and which of them training never has.
    items = item_features.load(
        options.results / "items/vectors.npy", options.results / "items/ids.parquet", None
    )
    sequences = options.results / "interactions/sequences.parquet"
    queries = [
        windows.queries(group, sequence_table.VALID)
        for group in windows.read_groups(sequences, items)
    ]
    users = np.concatenate([part.users for part in queries])
    targets = np.concatenate([part.numbers[part.positions] for part in queries])
    is_cold = ~windows.training_masks(sequences, items)[0][targets]

    first = None
    for name in options.shapes:
        figures = measure(name, options, items, queries)
        first = figures if first is None else first
        show(name, figures, first, users, is_cold)


def compare(one: np.ndarray, other: np.ndarray, users: np.ndarray) -> str:
    """HR@10 of one (Q, 2) less that of the other, with its paired interval."""
    both = {"one": one, "other": other}
    values = {name: metrics.Values(users, in_columns(each)) for name, each in both.items()}
    lead = metrics.table(values, n_resamples=2000, seed=0)["lead"]["other"]["HR@10"]
    return f"{lead['value']:+.4f} [{lead['low']:+.4f}, {lead['high']:+.4f}]"


def in_columns(values: np.ndarray) -> np.ndarray:
    """HR@10 and NDCG@10 (Q, 2) in the columns of all metrics."""
    wide = np.zeros((len(values), len(metrics.NAMES)))
    wide[:, [metrics.NAMES.index(name) for name in SHOWN]] = values
    return wide


def measure(
    name: str,
    options: argparse.Namespace,
    items: item_features.Items,
    queries: list[windows.Queries],
) -> Figures:
    """Make the SIDs of a shape, and the model of each seed that is not kept."""
    store = vector_store.open_store(
        options.results / "items/vectors.npy", options.results / "items/ids.parquet"
    )
    categories = options.categories or options.results / "items/categories.parquet"
    names = category_file.of_ids(categories, store.ids)
    vectors = np.array(store.vectors, dtype=np.float32)
    shape = SHAPES[name]

    # Residual k-means on the vectors, or on what the category level leaves.
    level, rows = None, vectors
    if shape.category:
        settings = CategoryLevel(field="category", size=shape.category)
        level = category_level.fit(vectors, names, settings, store.fingerprint)
        rows = np.concatenate(list(category_level.residuals(vectors, level)))
    kmeans = Rqkmeans(n_levels=len(shape.learned), codebook_size=shape.learned, device="cpu")
    fingerprint = store.fingerprint
    if level is not None:
        fingerprint = category_level.residual_fingerprint(level.quantizer)
    quantizer = Quantizer(
        "rqkmeans", rqkmeans.fit(rows, kmeans, seed=SEED).codebooks, {}, fingerprint
    )
    if level is not None:
        quantizer = category_level.join(level.quantizer, quantizer)
    codes = np.concatenate(list(category_codes.encode(quantizer, vectors, names, **CPU)))

    # SIDs, and what each model makes of them.
    texts = item_text.text_classes(str(options.results / "items/text.parquet"))
    strategy = Collisions(strategy=shape.strategy)
    books = quantizer.codebooks
    found = resolve(codes, quantizer.codebook_sizes, vectors, books, texts, strategy)
    left = vectors - sum(book[codes[:, number]] for number, book in enumerate(books))
    sid_items = SidItems(
        items._replace(vectors=np.zeros((len(vectors), 0), np.float32)),
        (Identifier(found.sids, tuple(found.sizes), tuple(books)),),
    )
    decoded = residual_codec.decode(found.sids[:, : len(books)], books)
    knn = rank_valid(baselines.text_knn(items._replace(vectors=decoded), DECAY), items, queries)
    values = {}
    for seed in options.seeds:
        kept = options.keep / f"{name}.{seed}.npy"
        if not kept.exists() and not options.only_kept:
            np.save(kept, train_one(sid_items, seed, options, queries))
        if kept.exists():
            values[seed] = np.load(kept)
    error = float(np.square(left).sum() / np.square(vectors).sum())
    return Figures(found.sizes, error, knn, values)


def train_one(
    items: SidItems, seed: int, options: argparse.Namespace, queries: list[windows.Queries]
) -> np.ndarray:
    """Train one model: HR@10 and NDCG@10 of each target, float32 (Q, 2)."""
    settings = Generative(seeds=1)
    sequences = options.results / "interactions/sequences.parquet"
    (fitted,), _ = train.fit(sequences, items, settings, seed=seed, code="")
    fitted.network.model.eval()
    return rank_valid(score.scorer(fitted.network, settings.max_length), items.items, queries)


def rank_valid(
    scorer: rank.Scorer, items: item_features.Items, queries: list[windows.Queries]
) -> np.ndarray:
    """HR@10 and NDCG@10 of each target, float32 (Q, 2)."""
    n_items = len(items.ids)
    ranks = rank.rank(scorer, queries, n_items, mask_seen=False, memory_mb=MEMORY_MB)
    columns = [metrics.NAMES.index(name) for name in SHOWN]
    return np.asarray(metrics.of(ranks).values[:, columns], dtype=np.float32)


def show(
    name: str, figures: Figures, first: Figures, users: np.ndarray, is_cold: np.ndarray
) -> None:
    """Print one line."""
    line = (
        f"{name:11s} {' x '.join(map(str, figures.sizes)):21s} {figures.error:.4f}  "
        f"{figures.knn[:, 0].mean():.4f} {compare(figures.knn, first.knn, users)}"
    )
    seeds = [seed for seed in figures.values if seed in first.values]
    if seeds:
        own = np.stack([figures.values[seed] for seed in seeds])
        others = np.stack([first.values[seed] for seed in seeds])
        by_seed = own[..., 0].mean(axis=1)
        spread = by_seed.std(ddof=1) if len(seeds) > 1 else float("nan")
        line += (
            f"  {len(seeds)} seeds: {by_seed.mean():.4f} ({spread:.4f}) {own[..., 1].mean():.4f} "
            f"{own[:, is_cold, 0].mean():.4f} "
            f"{compare(own.mean(axis=0), others.mean(axis=0), users)}"
        )
    print(line, flush=True)


if __name__ == "__main__":
    main()
