"""Metrics of generative recommenders on one split, without baselines.

The protocol is that of :mod:`sidmill.recommend.generative.evaluate`, which measures valid and test
together. A choice among many tokenizers must not see test, so here a split is named.

Shapes: Q queries, U users, N items, S seeds, M metrics.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sidmill.core.errors import SidmillError
from sidmill.formats import user_metrics
from sidmill.numeric.nearest_torch import pick_device
from sidmill.recommend import baselines, metrics
from sidmill.recommend.generative import models, score
from sidmill.recommend.generative.evaluate import SPLITS, Protocol
from sidmill.recommend.generative.sid_items import SidItems
from sidmill.settings.generative import GenerativeEvaluation

SHOWN = ("HR@10", "NDCG@10")
COLD = "cold_HR@10"


def measure(
    sequences_path: str | Path,
    items: SidItems,
    model_paths: Sequence[str | Path],
    settings: GenerativeEvaluation,
    *,
    split: str,
    seed: int,
) -> tuple[dict[str, Any], user_metrics.Columns]:
    """Measure the models of all seeds on a split.

    Figures are means over the seeds: what one model is expected to give. Memory: ``memory_mb`` for
    scores, the vectors of all items of one model, 90 bytes per query and seed.

    Args:
        sequences_path: sequences.parquet.
        items: items and SIDs, as the models were trained on them.
        model_paths: model.safetensors of each seed.
        settings: ``mask_seen``, ``n_resamples``, ``device`` and ``memory_mb`` count.
        split: valid or test.
        seed: of the bootstrap.

    Returns:
        ``split``, ``targets``, ``cold_targets``, and by metric ``value``, ``low`` and ``high`` over
        users, ``by_seed`` and their ``standard_deviation`` (None for one seed; cold targets have
        neither); and the sums of the metrics by user.

    Raises:
        SidmillError: if the split has no target, or a model is of other SIDs.
    """
    matrix = baselines.training_matrix(sequences_path, items.items)
    counts = np.asarray(matrix.sum(axis=0)).ravel()
    protocol = Protocol(sequences_path, items.items, counts, settings, seed)
    targets = [part.numbers[part.positions] for part in protocol.queries(SPLITS[split])]
    if not sum(map(len, targets)):
        raise SidmillError(
            f"{sequences_path}: the split {split} has no interaction to predict, so tokenizers "
            f"cannot be compared on it: change interactions.split"
        )
    is_cold = counts[np.concatenate(targets)] == 0

    # One model after another: (S, Q, M), then means over the seeds.
    device, by_seed = pick_device(settings.device), []
    for path in model_paths:
        for one in models.load(path, items, device):
            scorer = score.scorer(one.network, one.settings.max_length)
            by_seed.append(metrics.of(protocol.rank(SPLITS[split], [scorer], [None])[0]))
    values = np.stack([one.values for one in by_seed])
    users = _by_user(by_seed[0].users, values.mean(axis=0), is_cold)

    # Each metric over all targets with its interval, and by seed.
    figures: dict[str, Any] = {
        "split": split,
        "targets": len(is_cold),
        "cold_targets": int(is_cold.sum()),
        "seeds": len(values),
    }
    mean = metrics.Values(by_seed[0].users, values.mean(axis=0))
    entries = protocol.table({"own": mean})["methods"]["own"]
    for name in SHOWN:
        single = values[:, :, metrics.NAMES.index(name)].mean(axis=1)
        figures[name] = entries[name] | {
            "by_seed": single.tolist(),
            "standard_deviation": float(single.std(ddof=1)) if len(single) > 1 else None,
        }
    figures[COLD] = None
    if is_cold.any():
        cold = metrics.Values(mean.users[is_cold], mean.values[is_cold])
        figures[COLD] = protocol.table({"own": cold})["methods"]["own"]["HR@10"]
    return figures, users


def _by_user(users: np.ndarray, values: np.ndarray, is_cold: np.ndarray) -> user_metrics.Columns:
    """Sums over the queries of each user: of users (Q,), values (Q, M), bool (Q,)."""
    known, rows = np.unique(users, return_inverse=True)

    def add_up(weights: np.ndarray) -> np.ndarray:
        return np.bincount(rows, weights=weights, minlength=len(known))

    columns = {name: values[:, metrics.NAMES.index(name)] for name in SHOWN}
    return {
        "user": known,
        "queries": np.bincount(rows, minlength=len(known)),
        **{name: add_up(column) for name, column in columns.items()},
        "cold_queries": add_up(is_cold).astype(np.int64),
        COLD: add_up(columns["HR@10"] * is_cold),
    }
