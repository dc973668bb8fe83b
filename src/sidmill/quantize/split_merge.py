"""Merge two clusters that are one, split one that is two: k-means alone cannot do either.

Shapes: m sample rows, D dimensions, K clusters.

Merging a and b costs ``n_a n_b / (n_a + n_b) |mean_a - mean_b|^2``. Splitting a cluster in two
across its main direction gains the same expression of its halves. Dearest splits are paired with
cheapest merges for as long as a pair gains. The idea of moving codewords by their utility is that
of ELBG, https://doi.org/10.1016/S0031-3203(99)00158-7; costs and directions here are exact.
"""

from typing import NamedTuple

import numpy as np
import torch

from sidmill.numeric import nearest_torch
from sidmill.quantize import lloyd
from sidmill.quantize.lloyd import Clusters

PART_ROWS = 512  # rows handled at once where each is touched alone: they stay in the cache
SPLIT_SHARE = 4  # one in so many clusters, those of the largest error, are looked at for a split
MIN_SPLITS = 64  # but at least so many
POWER_STEPS = 4  # steps of power iteration towards the main direction
CUT_STEPS = 3  # steps of one-dimensional 2-means along it


class _Split(NamedTuple):
    """What splitting each cluster in two gains, and which rows would leave."""

    gain: torch.Tensor  # float32 (K,)
    upper: torch.Tensor  # bool (m,), rows of the half that leaves


def swap(
    clusters: Clusters,
    sample: torch.Tensor,
    codes: torch.Tensor,
    step: int,
    generator: torch.Generator,
) -> tuple[torch.Tensor, int]:
    """Pair splits with merges where that lowers the squared error.

    Args:
        clusters: of the sample's assignment; updated in place.
        sample: float32 (m, D).
        codes: int64 (m,), the assignment.
        step: rows handled at once.
        generator: a CPU generator, for the first directions.

    Returns:
        The new assignment, int64 (m,), and how many pairs were made.
    """
    split = _best_split(clusters, sample, codes, generator, _widest(clusters, sample, codes))
    cost, mate = _cheapest_merge(clusters, step, np.inf)
    pairs = _pair(split.gain.cpu().numpy(), cost.cpu().numpy(), mate.cpu().numpy())
    return _apply(clusters, sample, codes, step, split, pairs), len(pairs)


def relieve(
    clusters: Clusters,
    sample: torch.Tensor,
    codes: torch.Tensor,
    step: int,
    generator: torch.Generator,
    room: float,
) -> tuple[torch.Tensor, int]:
    """Split clusters of more than ``room`` rows, and pay with merges that stay below it.

    Args and result as in :func:`swap`.
    """
    crowded = clusters.counts > room
    split = _best_split(clusters, sample, codes, generator, crowded)
    cost, mate = _cheapest_merge(clusters, step, room)
    # _pair holds gains against costs: here every split is worth more than any merge costs.
    gain = torch.where((split.gain > 0) & crowded, clusters.counts / room, 0.0)
    finite = cost[cost.isfinite()]
    if not len(finite):
        return codes, 0
    cost = cost / finite.max().clamp(min=1e-30)
    pairs = _pair(gain.cpu().numpy(), cost.cpu().numpy() * 0.999, mate.cpu().numpy())
    return _apply(clusters, sample, codes, step, split, pairs), len(pairs)


def _apply(
    clusters: Clusters,
    sample: torch.Tensor,
    codes: torch.Tensor,
    step: int,
    split: _Split,
    pairs: list[tuple[int, int, int]],
) -> torch.Tensor:
    """Carry pairs of split and merge out; return the new assignment, int64 (m,)."""
    if not pairs:
        return codes
    n_codes = len(clusters.words)
    merged_into = torch.arange(n_codes)
    upper_goes = torch.arange(n_codes)
    for divided, freed, receiver in pairs:
        merged_into[freed] = receiver
        upper_goes[divided] = freed
    merged_into, upper_goes = merged_into.to(codes.device), upper_goes.to(codes.device)
    after = torch.where(split.upper, upper_goes[codes], merged_into[codes])
    # A row of a merged cluster may lie in its upper half, and there upper_goes leaves it alone.
    after = torch.where(merged_into[codes] != codes, merged_into[codes], after)
    lloyd.recount(clusters, sample, after, step)
    return after


def _best_split(
    clusters: Clusters,
    sample: torch.Tensor,
    codes: torch.Tensor,
    generator: torch.Generator,
    wide: torch.Tensor,
) -> _Split:
    """Halve the clusters of bool ``wide`` (K,)."""
    # Main direction of each wide cluster, by power iteration.
    words, counts = clusters.words, clusters.counts.to(torch.float32)
    chosen = wide[codes].nonzero()[:, 0]
    parts = [(rows, codes[rows]) for rows in chosen.split(PART_ROWS)]  # type: ignore[no-untyped-call]
    axes = torch.randn(words.shape, generator=generator).to(words.device)
    for _ in range(POWER_STEPS):
        turned = torch.zeros_like(axes)
        for rows, own in parts:
            apart = sample[rows] - words.index_select(0, own)
            along = (apart * axes.index_select(0, own)).sum(dim=1)
            lloyd.add_rows(turned, apart.mul_(along[:, None]), own)
        axes = torch.nn.functional.normalize(turned, dim=1)

    # Cut each cluster along its direction, by 2-means in one dimension.
    own = codes[chosen]
    along = torch.cat(
        [
            ((sample[rows] - words.index_select(0, own)) * axes.index_select(0, own)).sum(dim=1)
            for rows, own in parts
        ]
    )  # coordinate of each chosen row along its cluster's axis
    upper = along > 0
    for _ in range(CUT_STEPS):
        n_upper = _sum(upper.to(along.dtype), own, len(words))
        middle = _sum(along * upper, own, len(words)) / n_upper.clamp(min=1)
        middle += _sum(along * ~upper, own, len(words)) / (counts - n_upper).clamp(min=1)
        upper = along > (middle / 2)[own]

    # The gain of each split, from the means of its halves.
    n_upper = _sum(upper.to(along.dtype), own, len(words))
    n_lower = counts - n_upper
    lifted = torch.zeros_like(words)  # sum of the upper half's distances from the mean
    for rows in chosen[upper].split(PART_ROWS):  # type: ignore[no-untyped-call]
        lloyd.add_rows(lifted, sample[rows] - words[codes[rows]], codes[rows])
    gain = lifted.square().sum(dim=1) * (1 / n_upper.clamp(min=1) + 1 / n_lower.clamp(min=1))
    leaves = torch.zeros(len(sample), dtype=torch.bool, device=sample.device)
    leaves[chosen[upper]] = True
    return _Split(torch.where((n_upper > 0) & (n_lower > 0) & wide, gain, 0.0), leaves)


def _widest(clusters: Clusters, sample: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Clusters of the largest squared errors, bool (K,): a split gains at most its error."""
    n_codes = len(clusters.words)
    norms = torch.linalg.vector_norm(sample, dim=1).square_()
    error = _sum(norms, codes, n_codes)
    error -= clusters.counts.to(torch.float32) * nearest_torch.square_norms(clusters.words)
    n_wide = min(n_codes, max(MIN_SPLITS, n_codes // SPLIT_SHARE))
    wide = torch.zeros(n_codes, dtype=torch.bool, device=codes.device)
    wide[error.sort(descending=True, stable=True).indices[:n_wide]] = True
    return wide


def _cheapest_merge(
    clusters: Clusters, step: int, room: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cost of merging each cluster with the one where that is cheapest, and which one that is.

    Together the two have at most ``room`` rows; where there is no such one, the cost is infinite.

    A cluster without members is free, and its own mate: any number of them can be used at once.
    """
    words, counts = clusters.words, clusters.counts.to(torch.float32)
    norms = words.square().sum(dim=1)
    costs, mates = [], []
    for start in range(0, len(words), step):
        part = slice(start, start + step)
        apart = (words[part] @ words.T).mul_(-2).add_(norms[part, None]).add_(norms).clamp_(min=0)
        both = counts[part, None] + counts
        apart.mul_(counts[part, None]).mul_(counts).div_(both.clamp_(min=1))
        own = torch.arange(len(apart), device=words.device)
        apart[own, own + start] = torch.inf
        apart[:, counts == 0] = torch.inf
        apart[both > room] = torch.inf
        cost, mate = apart.min(dim=1)
        costs.append(torch.where(counts[part] > 0, cost, 0.0))
        mates.append(torch.where(counts[part] > 0, mate, own + start))
    return torch.cat(costs), torch.cat(mates)


def _pair(gain: np.ndarray, cost: np.ndarray, mate: np.ndarray) -> list[tuple[int, int, int]]:
    """Pair each dear split with a cheap merge: (cluster divided, word freed, word that stays)."""
    used: set[int] = set()
    pairs = []
    merges = iter(np.argsort(cost, kind="stable").tolist())
    for divided in np.argsort(-gain, kind="stable").tolist():
        if divided in used:
            continue
        used.add(divided)
        freed = next(
            (one for one in merges if one not in used and int(mate[one]) not in used), None
        )
        if freed is None or gain[divided] <= cost[freed]:
            break
        used |= {freed, int(mate[freed])}
        pairs.append((divided, freed, int(mate[freed])))
    return pairs


def _sum(values: torch.Tensor, codes: torch.Tensor, n_codes: int) -> torch.Tensor:
    total = torch.zeros((n_codes, 1), device=values.device)
    return lloyd.add_rows(total, values[:, None], codes)[:, 0]
