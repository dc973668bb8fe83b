"""The table: a recommender and its baselines on the valid and test items, item by item and by SID.

Every interaction of a split is predicted from all that goes before it in its user's history,
whatever split that is of, among all items of the catalogue.

Shapes: Q queries, N items, L levels of a SID, S different SIDs.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

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

logger = logging.getLogger(__name__)

OWN = "recommender"
SPLITS = {"valid": sequence_table.VALID, "test": sequence_table.TEST}


class Asked(NamedTuple):
    """What a split asks: counts for the reader of the table."""

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
    *,
    mask_seen: bool,
    knn_shrinkage: float,
    knn_decay: float,
    n_resamples: int,
    seed: int,
    device: str,
    memory_mb: int,
) -> dict:
    """Measure a recommender and its baselines.

    Memory: ``memory_mb`` for scores, 16 N H bytes for the vectors of all items, the training
    interactions (8 bytes each) with their item pairs, 24 bytes per query and method, and 100 bytes
    per user and method.

    Args:
        sequences_path: sequences.parquet.
        items: the items and their text embeddings.
        checkpoint_path: the recommender.
        sids: by name, codes of the items; all items have to be in them.
        mask_seen: rank only items that the user did not have, and the target.
        knn_shrinkage: of item-kNN, in users; higher trusts rare pairs less.
        knn_decay: weight of an item of the history against the one after it, in both kNN.
        n_resamples: bootstrap resamples of the users.
        seed: of the bootstrap.
        device: auto, cpu or cuda.
        memory_mb: MiB.

    Returns:
        The content of metrics.json.

    Raises:
        SidmillError: if the recommender is of other items, or an item has no SID.
    """
    fitted = checkpoint.load(checkpoint_path, pick_device(device))
    checkpoint.check_items(fitted, checkpoint.identify(items), checkpoint_path)
    had = baselines.training_matrix(sequences_path, items)
    counts = np.asarray(had.sum(axis=0)).ravel()
    own = score.scorer(fitted, score.catalogue(fitted, items))
    methods = {
        OWN: own,
        "popularity": baselines.popularity(counts),
        "item_knn": baselines.item_knn(had, knn_shrinkage, knn_decay),
        "text_knn": baselines.text_knn(items, knn_decay),
    }
    common = {"n_items": len(items.vectors), "mask_seen": mask_seen, "memory_mb": memory_mb}
    groups = {name: number_sids(items, codes, name) for name, codes in sids.items()}
    figures: dict = {
        "protocol": {
            "history": "all interactions of the user before the target, of any split",
            "ranked": "all items" if not mask_seen else "all items that the user did not have",
            "n_items": len(items.vectors),
            "ties": "expectation over random order",
            "intervals": f"95 %, {n_resamples} bootstrap resamples of the users",
        }
    }
    for name, split in SPLITS.items():
        asked = _count(sequences_path, items, split, counts)
        figures[name] = {"asked": asked._asdict()}
        if not asked.targets:
            logger.info("split %s has no interaction to predict", name)
            continue
        ranks = {
            method: rank.rank(scorer, _parts(sequences_path, items, split), **common)
            for method, scorer in methods.items()
        }
        values = {method: metrics.of(found) for method, found in ranks.items()}
        figures[name] |= metrics.table(values, n_resamples=n_resamples, seed=seed)
        cold = np.concatenate(
            [
                counts[part.numbers[part.positions]] == 0
                for part in _parts(sequences_path, items, split)
            ]
        )
        figures[name]["by_target"] = {
            kind: metrics.table(
                {
                    method: metrics.Values(*(column[chosen] for column in found))
                    for method, found in values.items()
                },
                n_resamples=n_resamples,
                seed=seed,
            )
            for kind, chosen in (("in_training", ~cold), ("never_in_training", cold))
            if chosen.any()
        }
        figures[name]["sids"] = {
            kind: _by_sid(own, sequences_path, items, split, numbers, common, n_resamples, seed)
            for kind, numbers in groups.items()
        }
        logger.info(
            "%s NDCG@10: %s",
            name,
            {method: _plain(found.values)["NDCG@10"] for method, found in values.items()},
        )
    return figures


def number_sids(items: Items, codes: Codes, name: str) -> np.ndarray:
    """Give each item the number of its SID, equal for items that share one: int64 (N,).

    Raises:
        SidmillError: if an item has no SID.
    """
    places = id_lookup.find(id_lookup.make(codes.ids), items.ids, name)
    missing = np.flatnonzero(places < 0)
    if missing.size:
        raise SidmillError(
            f"{name}: {missing.size} items have no SID, first "
            f"{items.ids[int(missing[0])].as_py()!r}: make SIDs and embeddings from one catalogue"
        )
    return np.unique(codes.codes[places], axis=0, return_inverse=True)[1].ravel()


def _parts(path: str | Path, items: Items, split: int) -> Iterator[Queries]:
    return (queries(group, split) for group in read_groups(path, items))


def _count(path: str | Path, items: Items, split: int, counts: np.ndarray) -> Asked:
    users = targets = without = cold = again = 0
    for part in _parts(path, items, split):
        wanted = part.numbers[part.positions]
        users += len(np.unique(part.users))
        targets += len(wanted)
        without += part.n_without_history
        cold += int((counts[wanted] == 0).sum())
        had = baselines.histories_of(part, 1.0, len(items.vectors))
        again += int((had[np.arange(len(wanted)), wanted] > 0).sum())
    return Asked(users, targets, without, cold, again)


def _by_sid(
    own: rank.Scorer,
    path: str | Path,
    items: Items,
    split: int,
    numbers: np.ndarray,
    common: dict,
    n_resamples: int,
    seed: int,
) -> dict:
    """Metrics when the recommender names SIDs and an item is then drawn from the SID.

    SIDs are ranked by their best item. At SID level a hit is a hit; at item level it counts
    1/k where k items share the SID.
    """
    ranks = rank.rank(own, _parts(path, items, split), groups=numbers, **common)
    sharing = np.bincount(numbers)[numbers]  # (N,), items of each item's SID
    wanted = np.concatenate([part.numbers[part.positions] for part in _parts(path, items, split)])
    levels = {
        "sid_level": metrics.of(ranks),
        "item_level": metrics.of(ranks, 1.0 / sharing[wanted]),
    }
    measured = metrics.table(levels, n_resamples=n_resamples, seed=seed)["methods"]
    inflation = {
        name: entry["value"] / measured["item_level"][name]["value"] - 1.0
        for name, entry in measured["sid_level"].items()
        if measured["item_level"][name]["value"]
    }
    return {
        "n_sids": int(numbers.max()) + 1,
        "targets_sharing": metrics.share(sharing[wanted] > 1),
        **measured,
        "inflation": inflation,
    }


def _plain(values: np.ndarray) -> dict[str, float]:
    return {
        name: float(value) for name, value in zip(metrics.NAMES, values.mean(axis=0), strict=True)
    }
