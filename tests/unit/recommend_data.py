"""Small catalogues and histories that the tests of the recommender share."""

import numpy as np
import pyarrow as pa

from sidmill.formats import sequence_table
from sidmill.recommend import item_features, train
from sidmill.settings.recommend import Recommender

# What differs from the defaults of every recommender: small, fast, and saved often.
SMALL = {
    "hidden_dim": 16,
    "n_layers": 1,
    "n_heads": 2,
    "max_length": 6,
    "dropout": 0.1,
    "n_negatives": 8,
    "temperature": 0.1,
    "batch_users": 16,
    "learning_rate": 0.01,
    "warmup_steps": 5,
    "max_epochs": 2,
    "patience": 2,
    "valid_users": 1000,
    "shuffle_users": 64,
    "save_steps": 2,
    "device": "cpu",
}
SETTINGS = SMALL | {"features": "text", "n_experts": 2, "text_dropout": 0.1}
RUN = {"seed", "code", "start", "state_path"}


def fit(path, items, **options):
    """Train a small model; ``options`` are settings, or arguments of the run (``RUN``)."""
    run = {"seed": 0, "code": "c0de"} | {key: options.pop(key) for key in RUN & set(options)}
    return train.fit(path, items, Recommender(**(SETTINGS | options)), **run)


def catalogue(n_items=24, dim=8, ids=None, seed=0):
    """Items with random vectors; ids from 1 unless given."""
    vectors = np.random.default_rng(seed).standard_normal((n_items, dim), dtype=np.float32)
    ids = pa.array(np.arange(1, n_items + 1) if ids is None else ids)
    return item_features.of(ids, vectors, {"backend": "random"})


def write(path, histories, splits=None, pid_type=None):
    """Write sequences.parquet; without ``splits`` the last two items are valid and test."""
    if splits is None:
        splits = [[0] * (len(items) - 2) + [1, 2] for items in histories]
    pid_type = pid_type or pa.int64()
    users = [str(user) for user in range(len(histories))]
    columns = [users, histories, splits, [None] * len(users)]
    table = pa.table(columns, schema=sequence_table.schema(pid_type))
    sequence_table.write(path, pid_type, [table])
    return path


def chains(n_users=60, n_items=24, seed=0):
    """Histories in which item i is always followed by item i + 1 (and the last by the first)."""
    rng = np.random.default_rng(seed)
    starts, lengths = rng.integers(n_items, size=n_users), rng.integers(3, 12, size=n_users)
    return [
        [int((start + step) % n_items) + 1 for step in range(length)]
        for start, length in zip(starts, lengths, strict=True)
    ]
