"""Merge two clusters that are one, split one that is two: k-means alone cannot do either.

Shapes: m sample rows, D dimensions, K clusters.

Merging a and b costs ``n_a n_b / (n_a + n_b) |mean_a - mean_b|^2``. Splitting a cluster in two
across its main direction gains the same expression of its halves. Splits of the largest gain are
paired with the cheapest merges for as long as a pair gains. The idea of moving codewords by their
utility is that of ELBG, https://doi.org/10.1016/S0031-3203(99)00158-7; costs and directions here
are exact.
"""

from typing import NamedTuple

import numpy as np
import torch

from sidmill.numeric import nearest_torch, process_group
from sidmill.numeric.process_group import ALONE, Group
from sidmill.quantize import lloyd
from sidmill.quantize.lloyd import Clusters

BATCH_ROWS = 512  # rows of one elementwise step: they stay in the cache
VALUES_AT_ONCE = (
    2**18
)  # costs of merges that are computed together on a CPU: they stay in the cache
DEVICE_ROWS = 16384  # the same on a GPU, where each step adds up a (K, D)
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
    group: Group = ALONE,
) -> tuple[torch.Tensor, int]:
    """Pair splits with merges where that lowers the squared error.

    Args:
        clusters: of the sample's assignment; updated in place.
        sample: float32 (m, D).
        codes: int64 (m,), the assignment.
        step: rows handled at once.
        generator: a CPU generator, for the first directions.
        group: processes that call this function together; on CPUs each halves its clusters.

    Returns:
        The new assignment, int64 (m,), and how many pairs were made.
    """
    is_wide = _widest(clusters, sample, codes)
    if group.size > 1 and sample.device.type == "cpu":
        split = _shared_split(clusters, sample, codes, generator, is_wide, group)
    else:
        split = _best_split(clusters, sample, codes, generator, is_wide)
    cost, partner = _cheapest_merge(clusters, step, np.inf)
    pairs = _pair(split.gain.cpu().numpy(), cost.cpu().numpy(), partner.cpu().numpy())
    return _apply(clusters, sample, codes, step, split, pairs), len(pairs)


def split_crowded(
    clusters: Clusters,
    sample: torch.Tensor,
    codes: torch.Tensor,
    step: int,
    generator: torch.Generator,
    max_rows: float,
) -> tuple[torch.Tensor, int]:
    """Split clusters of more than ``max_rows`` rows; merges free clusters for the halves.

    A merged cluster has at most ``max_rows`` rows.

    Args and result as in :func:`swap`.
    """
    is_crowded = clusters.counts > max_rows
    split = _best_split(clusters, sample, codes, generator, is_crowded)
    cost, partner = _cheapest_merge(clusters, step, max_rows)
    # _pair holds gains against costs: here every split is worth more than any merge costs.
    gain = torch.where((split.gain > 0) & is_crowded, clusters.counts / max_rows, 0.0)
    finite = cost[cost.isfinite()]
    if not len(finite):
        return codes, 0
    cost = cost / finite.max().clamp(min=1e-30)
    pairs = _pair(gain.cpu().numpy(), cost.cpu().numpy() * 0.999, partner.cpu().numpy())
    return _apply(clusters, sample, codes, step, split, pairs), len(pairs)


def _apply(
    clusters: Clusters,
    sample: torch.Tensor,
    codes: torch.Tensor,
    step: int,
    split: _Split,
    pairs: list[tuple[int, int, int]],
) -> torch.Tensor:
    """Apply pairs of split and merge; return the new assignment, int64 (m,)."""
    if not pairs:
        return codes
    n_codes = len(clusters.centroids)
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
    is_wide: torch.Tensor,
) -> _Split:
    """Halve the clusters of bool ``is_wide`` (K,)."""
    # Main direction of each wide cluster, by power iteration.
    centroids, counts = clusters.centroids, clusters.counts.to(torch.float32)
    rows_of_wide = is_wide[codes].nonzero()[:, 0]
    n_rows = BATCH_ROWS if sample.device.type == "cpu" else DEVICE_ROWS
    batches = [(rows, codes[rows]) for rows in rows_of_wide.split(n_rows)]  # type: ignore[no-untyped-call]
    axes = torch.randn(centroids.shape, generator=generator).to(centroids.device)
    for _ in range(POWER_STEPS):
        next_axes = torch.zeros_like(axes)
        for rows, own in batches:
            differences = sample[rows] - centroids.index_select(0, own)
            coordinates = (differences * axes.index_select(0, own)).sum(dim=1)
            lloyd.add_rows(next_axes, differences.mul_(coordinates[:, None]), own)
        axes = torch.nn.functional.normalize(next_axes, dim=1)

    # Cut each cluster along its direction, by 2-means in one dimension.
    labels = codes[rows_of_wide]
    coordinates = torch.cat(
        [
            ((sample[rows] - centroids.index_select(0, own)) * axes.index_select(0, own)).sum(dim=1)
            for rows, own in batches
        ]
    )  # of each row on its cluster's axis
    upper = coordinates > 0
    for _ in range(CUT_STEPS):
        n_upper = _sum(upper.to(coordinates.dtype), labels, len(centroids))
        middle = _sum(coordinates * upper, labels, len(centroids)) / n_upper.clamp(min=1)
        middle += _sum(coordinates * ~upper, labels, len(centroids)) / (counts - n_upper).clamp(
            min=1
        )
        upper = coordinates > (middle / 2)[labels]

    # The gain of each split, from the means of its halves.
    n_upper = _sum(upper.to(coordinates.dtype), labels, len(centroids))
    n_lower = counts - n_upper
    upper_sums = torch.zeros_like(centroids)  # sum of the upper half's distances from the mean
    for rows in rows_of_wide[upper].split(n_rows):  # type: ignore[no-untyped-call]
        lloyd.add_rows(upper_sums, sample[rows] - centroids[codes[rows]], codes[rows])
    gain = upper_sums.square().sum(dim=1) * (1 / n_upper.clamp(min=1) + 1 / n_lower.clamp(min=1))
    leaves = torch.zeros(len(sample), dtype=torch.bool, device=sample.device)
    leaves[rows_of_wide[upper]] = True
    return _Split(torch.where((n_upper > 0) & (n_lower > 0) & is_wide, gain, 0.0), leaves)


def _shared_split(
    clusters: Clusters,
    sample: torch.Tensor,
    codes: torch.Tensor,
    generator: torch.Generator,
    is_wide: torch.Tensor,
    group: Group,
) -> _Split:
    """Halve the clusters of bool ``is_wide`` (K,), each in one process of the group.

    On a CPU a cluster's sums are taken in row order, whichever clusters are there beside it.
    """
    # Every process takes every so many-th wide cluster.
    turns = is_wide.cumsum(dim=0) % group.size
    is_own = is_wide & (turns == group.rank)
    own = _best_split(clusters, sample, codes, generator, is_own)

    # The gain of a cluster and the rows of its half are those of the one process that has it.
    n_codes, n_rows = len(is_wide), len(sample)
    gains = process_group.gather(group, own.gain, [n_codes] * group.size)
    leaves = process_group.gather(group, own.upper.to(torch.uint8), [n_rows] * group.size)
    gain = torch.zeros_like(own.gain)
    for rank, found in enumerate(gains):
        gain = torch.where(is_wide & (turns == rank), found, gain)
    return _Split(gain, torch.stack(leaves).amax(dim=0).to(torch.bool))


def _widest(clusters: Clusters, sample: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
    """Clusters of the largest squared errors, bool (K,): a split gains at most its error."""
    n_codes = len(clusters.centroids)
    norms = torch.linalg.vector_norm(sample, dim=1).square_()
    error = _sum(norms, codes, n_codes)
    error -= clusters.counts.to(torch.float32) * nearest_torch.square_norms(clusters.centroids)
    n_wide = min(n_codes, max(MIN_SPLITS, n_codes // SPLIT_SHARE))
    is_wide = torch.zeros(n_codes, dtype=torch.bool, device=codes.device)
    is_wide[error.sort(descending=True, stable=True).indices[:n_wide]] = True
    return is_wide


def _cheapest_merge(
    clusters: Clusters, step: int, max_rows: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cost of merging each cluster with the one where that is cheapest, and which one that is.

    Together the two have at most ``max_rows`` rows; the cost is infinite where no cluster fits.

    A cluster without members costs nothing and is its own partner: any number of them can be used
    at once.
    """
    centroids, counts = clusters.centroids, clusters.counts.to(torch.float32)
    norms = centroids.square().sum(dim=1)
    empty = (counts == 0).nonzero()[:, 0]
    on_cpu = centroids.device.type == "cpu"
    n_rows = max(1, VALUES_AT_ONCE // len(centroids)) if on_cpu else step
    costs, partners = [], []
    for start in range(0, len(centroids), step):
        products = centroids[start : start + step] @ centroids.T
        first = start
        for table in products.split(n_rows):  # type: ignore[no-untyped-call]
            # Squared distances between centroids, (n_rows, K), times n_a n_b / (n_a + n_b).
            block = slice(first, first + len(table))
            table.mul_(-2).add_(norms[block, None]).add_(norms).clamp_(min=0)
            merged_counts = (counts[block, None] + counts).clamp_(min=1)
            table.mul_(counts[block, None]).mul_(counts).div_(merged_counts)

            # A cluster cannot merge with itself, with an empty one, or into one that is too large.
            rows = torch.arange(len(table), device=centroids.device)
            table[rows, rows + first] = torch.inf
            table.index_fill_(1, empty, torch.inf)
            if max_rows < np.inf:
                table.masked_fill_(merged_counts > max_rows, torch.inf)
            partner = nearest_torch.lowest(table)
            cost = table.gather(1, partner[:, None])[:, 0]
            costs.append(torch.where(counts[block] > 0, cost, 0.0))
            partners.append(torch.where(counts[block] > 0, partner, rows + first))
            first += len(table)
    return torch.cat(costs), torch.cat(partners)


def _pair(gain: np.ndarray, cost: np.ndarray, partner: np.ndarray) -> list[tuple[int, int, int]]:
    """Pair large gains with cheap merges: (cluster divided, cluster freed, cluster that stays)."""
    used: set[int] = set()
    pairs = []
    merges = iter(np.argsort(cost, kind="stable").tolist())
    for divided in np.argsort(-gain, kind="stable").tolist():
        if divided in used:
            continue
        used.add(divided)
        freed = next(
            (one for one in merges if one not in used and int(partner[one]) not in used), None
        )
        if freed is None or gain[divided] <= cost[freed]:
            break
        used |= {freed, int(partner[freed])}
        pairs.append((divided, freed, int(partner[freed])))
    return pairs


def _sum(values: torch.Tensor, codes: torch.Tensor, n_codes: int) -> torch.Tensor:
    total = torch.zeros((n_codes, 1), device=values.device)
    return lloyd.add_rows(total, values[:, None], codes)[:, 0]
