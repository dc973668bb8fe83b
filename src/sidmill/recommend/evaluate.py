"""Metrics of a recommender and its baselines on the valid and test items, by item and by SID.

Every interaction of a split is predicted from all interactions before it in its user's history, of
any split, among all items of the catalogue.

Shapes: Q queries, N items, L levels of a SID, S different SIDs.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sidmill.core.errors import SidmillError
from sidmill.formats import sequence_table
from sidmill.formats.code_files import Codes
from sidmill.io import id_lookup
from sidmill.numeric.nearest_torch import pick_device
from sidmill.recommend import (
    baselines,
    checkpoint,
    metrics,
    rank,
    score,
)
from sidmill.recommend.item_features import Items
from sidmill.recommend.windows import Queries, queries, read_groups
from sidmill.settings.recommend import RecommenderEvaluation

logger = logging.getLogger(__name__)

RECOMMENDER = "recommender"
SPLITS = {"valid": sequence_table.VALID, "test": sequence_table.TEST}


class Protocol(NamedTuple):
    """How every method is measured.

    Attributes:
        sequences_path: sequences.parquet.
        items: all items.
        settings: what is ranked, and how many resamples.
        seed: of the bootstrap.
    """

    sequences_path: str | Path
    items: Items
    settings: RecommenderEvaluation
    seed: int


class SplitCounts(NamedTuple):
    """Counts of a split, as metrics.json has them under ``asked``."""

    users: int
    targets: int
    without_history: int
    never_in_training: int
    had_before: int


def evaluate(
    sequences_path: str | Path,
    items: Items,
    checkpoint_path: str | Path,
    sids: dict[str, Codes],
    settings: RecommenderEvaluation,
    *,
    seed: int,
) -> dict[str, Any]:
    """Measure a recommender and its baselines.

    ``settings.memory_mb`` changes no figure; another ``settings.device`` may change the last bits
    of scores, and so the rank of items with nearly equal scores.

    Memory: ``memory_mb`` for scores, 16 N H bytes for the vectors of all items, the training
    interactions (8 bytes each) with their item pairs, 24 bytes per query and method, and 100 bytes
    per user and method.

    Args:
        sequences_path: sequences.parquet.
        items: the items and their text embeddings.
        checkpoint_path: the recommender.
        sids: by name, codes of the items; they must hold all items.
        settings: how to measure.
        seed: of the bootstrap.

    Returns:
        The content of metrics.json.

    Raises:
        SidmillError: if the recommender is of other items, an item has no SID, or ``memory_mb`` is
            too small.
    """
    fitted = checkpoint.load(checkpoint_path, pick_device(settings.device))
    checkpoint.check_items(fitted, checkpoint.identify(items), checkpoint_path)
    protocol = Protocol(sequences_path, items, settings, seed)

    # The methods, fitted to the split train.
    matrix = baselines.training_matrix(sequences_path, items)
    counts = np.asarray(matrix.sum(axis=0)).ravel()  # (N,), users who have the item in training
    scorers = {
        RECOMMENDER: score.scorer(fitted, score.catalogue(fitted, items)),
        "popularity": baselines.popularity(counts),
        "item_knn": baselines.item_knn(matrix, settings.knn_shrinkage, settings.knn_decay),
        "text_knn": baselines.text_knn(items, settings.knn_decay),
    }
    sid_numbers = {name: number_sids(items, codes, name) for name, codes in sids.items()}

    described = metrics.describe(
        len(items.vectors), mask_seen=settings.mask_seen, n_resamples=settings.n_resamples
    )
    figures: dict[str, Any] = {"protocol": described}
    for name, split in SPLITS.items():
        split_counts = _count(protocol, split, counts)
        figures[name] = {"asked": split_counts._asdict()}
        if split_counts.targets:
            measured = _measure_methods(protocol, split, scorers, counts)
            measured["sids"] = {
                kind: _measure_sids(protocol, split, scorers[RECOMMENDER], numbers)
                for kind, numbers in sid_numbers.items()
            }
            figures[name] |= measured
            best = {
                method: entries["NDCG@10"]["value"]
                for method, entries in measured["methods"].items()
            }
            logger.info("%s NDCG@10: %s", name, best)
        else:
            logger.info("split %s has no interaction to predict", name)
    return figures


def number_sids(items: Items, codes: Codes, name: str) -> np.ndarray:
    """Give each item the number of its SID, equal for items that share one: int64 (N,).

    Raises:
        SidmillError: if an item has no SID.
    """
    rows = id_lookup.find(id_lookup.make(codes.ids), items.ids, name)
    missing = np.flatnonzero(rows < 0)
    if missing.size:
        raise SidmillError(
            f"{name}: {missing.size} items have no SID, first "
            f"{items.ids[int(missing[0])].as_py()!r}: make SIDs and embeddings from one catalogue"
        )
    numbers: np.ndarray = np.unique(codes.codes[rows], axis=0, return_inverse=True)[1]
    return numbers.ravel()


def _queries(protocol: Protocol, split: int) -> Iterator[Queries]:
    """Queries of a split, a group of users at a time."""
    groups = read_groups(protocol.sequences_path, protocol.items)
    return (queries(group, split) for group in groups)


def _targets(protocol: Protocol, split: int) -> np.ndarray:
    """Item numbers of the targets of a split: int32 (Q,)."""
    return np.concatenate([part.numbers[part.positions] for part in _queries(protocol, split)])


def _rank(
    protocol: Protocol, split: int, scorer: rank.Scorer, groups: np.ndarray | None = None
) -> rank.Ranks:
    """Rank the targets of a split; with ``groups`` (N,) among SIDs."""
    return rank.rank(
        scorer,
        _queries(protocol, split),
        len(protocol.items.vectors),
        mask_seen=protocol.settings.mask_seen,
        memory_mb=protocol.settings.memory_mb,
        groups=groups,
    )


def _table(
    protocol: Protocol, methods: dict[str, metrics.Values]
) -> dict[str, dict[str, metrics.Entries]]:
    """Means and intervals of the methods."""
    return metrics.table(methods, n_resamples=protocol.settings.n_resamples, seed=protocol.seed)


def _count(protocol: Protocol, split: int, counts: np.ndarray) -> SplitCounts:
    """Count users and targets of a split; ``counts`` (N,) are the users of items in training."""
    users = n_targets = without_history = never_in_training = had_before = 0
    for part in _queries(protocol, split):
        targets = part.numbers[part.positions]
        users += len(np.unique(part.users))
        n_targets += len(targets)
        without_history += part.n_without_history
        never_in_training += int((counts[targets] == 0).sum())
        histories = baselines.histories_of(part, 1.0, len(protocol.items.vectors))
        had_before += int((histories[np.arange(len(targets)), targets] > 0).sum())
    return SplitCounts(users, n_targets, without_history, never_in_training, had_before)


def _measure_methods(
    protocol: Protocol, split: int, scorers: dict[str, rank.Scorer], counts: np.ndarray
) -> dict[str, Any]:
    """Metrics of all methods, over all targets and by whether training has the target."""
    values = {
        method: metrics.of(_rank(protocol, split, scorer)) for method, scorer in scorers.items()
    }
    is_cold = counts[_targets(protocol, split)] == 0
    kinds = {"in_training": ~is_cold, "never_in_training": is_cold}
    by_target = {
        kind: _table(
            protocol,
            {
                method: metrics.Values(found.users[rows], found.values[rows])
                for method, found in values.items()
            },
        )
        for kind, rows in kinds.items()
        if rows.any()
    }
    return {**_table(protocol, values), "by_target": by_target}


def _measure_sids(
    protocol: Protocol, split: int, scorer: rank.Scorer, numbers: np.ndarray
) -> dict[str, Any]:
    """Metrics of a recommender that predicts SIDs and draws an item of the SID at random.

    SIDs are ranked by their best item. At SID level a hit counts 1; at item level it counts 1/k
    where k items share the SID.

    Args:
        protocol: how to measure.
        split: whose interactions are predicted.
        scorer: of items.
        numbers: int64 (N,), the SID of each item.
    """
    ranks = _rank(protocol, split, scorer, numbers)
    n_sharing = np.bincount(numbers)[numbers][_targets(protocol, split)]  # (Q,), k of the target
    levels = {
        "sid_level": metrics.of(ranks),
        "item_level": metrics.of(ranks, 1.0 / n_sharing),
    }
    measured = _table(protocol, levels)["methods"]
    inflation = {
        name: entry["value"] / measured["item_level"][name]["value"] - 1.0
        for name, entry in measured["sid_level"].items()
        if measured["item_level"][name]["value"]
    }
    return {
        "n_sids": int(numbers.max()) + 1,
        "targets_sharing": metrics.share(n_sharing > 1),
        **measured,
        "inflation": inflation,
    }
