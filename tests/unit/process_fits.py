"""Fits of residual k-means, in a process alone and in processes that share them."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from sidmill.core.rendezvous import Member
from sidmill.numeric import arrays, process_group
from sidmill.numeric.process_group import ALONE
from sidmill.quantize import kmeans_pp, rqkmeans
from sidmill.settings.quantize import Rqkmeans

SETTINGS = Rqkmeans(n_levels=2, codebook_size=[600, 300], n_iter=2, device="cpu", memory_mb=64)
# Blocks of two pieces, of four and of a part of one; rows that are drawn; clusters to fill; prices.
CASES = {
    "all rows": {},
    "four pieces": {"codebook_size": 1024, "n_levels": 1},
    "small blocks": {"codebook_size": 70, "n_levels": 1},
    "drawn rows": {"max_points_per_centroid": 4},
    "half precision": {"dtype": "float16", "n_levels": 1, "codebook_size": 500},
    "far from 1": {"scale": 2.0**-40, "n_levels": 1, "codebook_size": 500},
    "few distinct rows": {"distinct": 500},
    "balanced": {"balance": "capacity", "n_levels": 1, "codebook_size": 300},
    "known": {"known": True},
    "in torch": {"device": "cpu,cpu"},
    "few distinct rows, in torch": {"device": "cpu,cpu", "distinct": 500},
    "known, in torch": {"device": "cpu,cpu", "known": True},
}


def write_vectors(folder):
    """Write the vectors that all cases are made of."""
    random = np.random.default_rng(0)
    np.save(Path(folder, "vectors.npy"), random.standard_normal((3000, 12), dtype=np.float32))


def fit(folder, changes, group=ALONE):
    """Fit one case; return a digest of all that it found."""
    changes = dict(changes)
    vectors = np.load(Path(folder, "vectors.npy"))
    vectors = vectors[np.arange(len(vectors)) % changes.pop("distinct", len(vectors))]
    vectors = (vectors * np.float32(changes.pop("scale", 1))).astype(changes.pop("dtype", "f4"))
    known = None
    if changes.pop("known", False):
        known = np.random.default_rng(1).integers(-1, 290, (len(vectors), 2), dtype=np.int32)
    settings = replace(SETTINGS, **changes)
    found = rqkmeans.fit(vectors, settings, seed=3, known=known, group=group)
    arrays = b"".join(array.tobytes() for array in (*found.codebooks, *found.prices))
    return hashlib.sha256(arrays + json.dumps(found.balance).encode()).hexdigest()


def cases(size):
    """The cases of a group: of four processes two, for time."""
    few = ("four pieces", "drawn rows")
    return {name: changes for name, changes in CASES.items() if size == 2 or name in few}


def fit_all(folder, member):
    """Fit the cases of a group."""
    torch.set_num_threads(1)
    with process_group.joined(Member(**member), torch.device("cpu")) as group:
        return {name: fit(folder, changes, group) for name, changes in cases(group.size).items()}


def disagree(member):
    """Train on vectors that the other process does not have."""
    member = Member(**member)
    vectors = np.random.default_rng(member.rank).standard_normal((600, 8), dtype=np.float32)
    with process_group.joined(member, torch.device("cpu")) as group:
        rqkmeans.fit(vectors, replace(SETTINGS, codebook_size=16), seed=0, group=group)


def round_otherwise(member):
    """Choose first codewords where the second process rounds distances in another way.

    Rows that occur several times are at a distance of rounding alone: it decides which are chosen.
    """
    member, distances = Member(**member), kmeans_pp._distances
    random = np.random.default_rng(5)

    def noisy(rows, *others):
        table = distances(rows, *others)
        noise = np.float32(2e-6) * random.random(table.shape, dtype=np.float32)
        return table + noise

    if member.rank:
        kmeans_pp._distances = noisy
    found = []
    with process_group.joined(member, torch.device("cpu")) as group:
        for seed in range(10):
            distinct = np.random.default_rng(seed).standard_normal((300, 8), dtype=np.float32)
            sample = np.tile(distinct, (8, 1))
            searchers = kmeans_pp.Searchers([arrays.HOST], group, 1024)
            generator = arrays.generator(arrays.HOST, seed)
            centroids = kmeans_pp.seed_centroids(sample, 400, generator, searchers)
            found.append(hashlib.sha256(centroids.tobytes()).hexdigest())
    return found
