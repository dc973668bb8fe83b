"""A small catalogue with SIDs that the tests of the generative recommender share."""

import numpy as np
import pyarrow as pa

from sidmill.recommend import item_features
from sidmill.recommend.generative import sid_items, train
from sidmill.settings.generative import Generative

SIZES = (4, 4, 3)
SETTINGS = {
    "seeds": 1,
    "hidden_dim": 16,
    "n_layers": 1,
    "n_heads": 2,
    "max_length": 6,
    "dropout": 0.1,
    "item_dropout": 0.1,
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
RUN = {"seed", "code", "state_path"}


def fit(path, items, **options):
    """Train small models; ``options`` are settings, or arguments of the run (``RUN``)."""
    run = {"seed": 0, "code": "c0de"} | {key: options.pop(key) for key in RUN & set(options)}
    return train.fit(path, items, Generative(**(SETTINGS | options)), **run)


def identifier(n_items=24, dim=8, seed=0, *, has_codebooks=True, shared=0):
    """Distinct random SIDs, but for the last ``shared`` items, which have those of the first."""
    rng = np.random.default_rng(seed)
    every = np.stack(np.unravel_index(rng.permutation(np.prod(SIZES)), SIZES), axis=1)
    codes = every[:n_items].astype(np.int32)
    codes[n_items - shared :] = codes[:shared]
    codebooks = tuple(
        (rng.standard_normal((size, dim)) / (level + 1)).astype(np.float32)
        for level, size in enumerate(SIZES)
    )
    return sid_items.Identifier(codes, SIZES, codebooks if has_codebooks else ())


def catalogue(n_items=24, identifiers=None, *, text_dim=0, ids=None):
    """Items 1 to n with SIDs; with ``text_dim`` also random text embeddings."""
    vectors = np.random.default_rng(9).standard_normal((n_items, text_dim), dtype=np.float32)
    ids = pa.array(np.arange(1, n_items + 1) if ids is None else ids)
    own = item_features.of(ids, vectors, {"backend": "random"} if text_dim else {})
    return sid_items.SidItems(own, tuple(identifiers or [identifier(n_items)]))
