"""A small catalogue with SIDs that the tests of the generative recommender share."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from recommend_data import SMALL, chains, write

from sidmill.recommend import item_features
from sidmill.recommend.generative import evaluate, models, sid_items, topk, train
from sidmill.settings.generative import Generative, GenerativeEvaluation, GenerativeTopk

SIZES = (4, 4, 3)
SETTINGS = SMALL | {"seeds": 1, "item_dropout": 0.1}
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


def cases():
    """Catalogues that are unusual, with their histories, by name: items of the catalogue, rows."""
    rng = np.random.default_rng(4)
    usual, texts = identifier(), [f"item {number}" for number in range(24)]
    flat = np.arange(24, dtype=np.int32)[:, None]
    books = (rng.standard_normal((24, 5)).astype(np.float32),)
    ones = tuple(np.ones((1, 4), np.float32) for _ in range(3))
    one_item = sid_items.Identifier(np.zeros((1, 3), np.int32), (1, 1, 1), ones)
    suffix = sid_items.Identifier(np.hstack([usual.codes, flat % 2]), (*SIZES, 2), usual.codebooks)
    one_level = sid_items.Identifier(flat, (24,), books)
    rows = chains(20)
    return {
        "one item": (catalogue(1, [one_item]), [[1] * 5] * 20),
        "one level": (catalogue(identifiers=[one_level]), rows),
        "one level, no codebook": (catalogue(identifiers=[one_level._replace(codebooks=())]), rows),
        "suffix": (catalogue(identifiers=[suffix]), rows),
        "strings": (catalogue(ids=texts), [[texts[item - 1] for item in row] for row in rows]),
        "every item in every history": (catalogue(), [list(range(1, 25))] * 20),
        "two identifiers": (catalogue(identifiers=[suffix, one_level]), rows),
    }


def check_case(folder, name, **options):
    """Train, measure and list one of :func:`cases`: all items of the catalogue, with k above N."""
    items, rows = cases()[name]
    path = write(folder / "s.parquet", rows, pid_type=items.items.ids.type)
    fitted, _ = fit(path, items, max_epochs=1, **options)
    models.save(folder / "model", fitted)
    measuring = GenerativeEvaluation(n_resamples=2, memory_mb=16, device="cpu", illegal_users=3)
    figures = evaluate.evaluate(path, items, folder / "model", None, measuring, seed=0)
    assert figures["test"]["targets"] == len(rows)
    ids = items.items.ids.to_pylist()
    for decoding in ("exact", "beam"):
        for mask_seen in (False, True):
            settings = GenerativeTopk(
                k=30, beam_width=30, decoding=decoding, mask_seen=mask_seen, device="cpu"
            )
            topk.recommend(path, items, folder / "model", folder / "topk", settings)
            for found, row in zip(pq.read_table(folder / "topk")["item_ids"], rows, strict=True):
                wanted = set(ids) - (set(row) if mask_seen else set())
                assert sorted(found.as_py()) == sorted(wanted)


def catalogue(n_items=24, identifiers=None, *, text_dim=0, ids=None):
    """Items 1 to n with SIDs; with ``text_dim`` also random text embeddings."""
    vectors = np.random.default_rng(9).standard_normal((n_items, text_dim), dtype=np.float32)
    ids = pa.array(np.arange(1, n_items + 1) if ids is None else ids)
    own = item_features.of(ids, vectors, {"backend": "random"} if text_dim else {})
    return sid_items.SidItems(own, tuple(identifiers or [identifier(n_items)]))
