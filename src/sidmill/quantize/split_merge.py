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

from sidmill.numeric import arrays, nearest_pieces, process_group
from sidmill.numeric.arrays import Array, Generator
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

    gain: Array  # float32 (K,)
    upper: Array  # bool (m,), rows of the half that leaves


class Swapped(NamedTuple):
    """What :func:`swap` has done.

    Attributes:
        codes: int64 (m,), the new assignment.
        n_pairs: how many splits were paired with merges.
        gain: by how much they lower the sum of squared errors of the assignment.
    """

    codes: Array
    n_pairs: int
    gain: float


def swap(
    clusters: Clusters,
    sample: Array,
    codes: Array,
    step: int,
    generator: Generator,
    group: Group = ALONE,
) -> Swapped:
    """Pair splits with merges where that lowers the squared error.

    Args:
        clusters: of the sample's assignment; updated in place.
        sample: float32 (m, D).
        codes: int64 (m,), the assignment.
        step: rows handled at once.
        generator: a CPU generator, for the first directions.
        group: processes that call this function together; on CPUs each halves its clusters.
    """
    is_wide = _widest(clusters, sample, codes)
    if group.size > 1 and not arrays.is_gpu(sample):
        split = _shared_split(clusters, sample, codes, generator, is_wide, group)
    else:
        split = _best_split(clusters, sample, codes, generator, is_wide)
    cost, partner = _cheapest_merge(clusters, step, np.inf)
    gains, costs, partners = (arrays.to_host(each) for each in (split.gain, cost, partner))
    pairs = _pair(gains, costs, partners)
    gain = sum(float(gains[divided]) - float(costs[freed]) for divided, freed, _ in pairs)
    return Swapped(_apply(clusters, sample, codes, step, split, pairs), len(pairs), gain)


def split_crowded(
    clusters: Clusters,
    sample: Array,
    codes: Array,
    step: int,
    generator: Generator,
    max_rows: float,
) -> tuple[Array, int]:
    """Split clusters of more than ``max_rows`` rows; merges free clusters for the halves.

    A merged cluster has at most ``max_rows`` rows. Args as in :func:`swap`.

    Returns:
        The new assignment, int64 (m,), and how many pairs were made.
    """
    is_crowded = clusters.counts > max_rows
    split = _best_split(clusters, sample, codes, generator, is_crowded)
    cost, partner = _cheapest_merge(clusters, step, max_rows)
    # _pair holds gains against costs: here every split is worth more than any merge costs.
    module = arrays.of(cost)
    gain = module.where((split.gain > 0) & is_crowded, clusters.counts / max_rows, 0.0)
    finite = cost[module.isfinite(cost)]
    if not len(finite):
        return codes, 0
    cost = cost / finite.max().clip(min=1e-30)
    pairs = _pair(
        arrays.to_host(gain), arrays.to_host(cost) * np.float32(0.999), arrays.to_host(partner)
    )
    return _apply(clusters, sample, codes, step, split, pairs), len(pairs)


def _apply(
    clusters: Clusters,
    sample: Array,
    codes: Array,
    step: int,
    split: _Split,
    pairs: list[tuple[int, int, int]],
) -> Array:
    """Apply pairs of split and merge; return the new assignment, int64 (m,)."""
    if not pairs:
        return codes
    n_codes = len(clusters.centroids)
    tables = np.tile(np.arange(n_codes), (2, 1))  # what becomes of a cluster, and of its upper half
    for divided, freed, receiver in pairs:
        tables[0, freed] = receiver
        tables[1, divided] = freed
    merged_into, upper_goes = arrays.from_host(tables, arrays.device_of(codes))
    where = arrays.of(codes).where
    after = where(split.upper, upper_goes[codes], merged_into[codes])
    # A row of a merged cluster may lie in its upper half, and there upper_goes leaves it alone.
    after = where(merged_into[codes] != codes, merged_into[codes], after)
    lloyd.recount(clusters, sample, after, step)
    return after


def _best_split(
    clusters: Clusters,
    sample: Array,
    codes: Array,
    generator: Generator,
    is_wide: Array,
) -> _Split:
    """Halve the clusters of bool ``is_wide`` (K,)."""
    # Main direction of each wide cluster, by power iteration.
    centroids, counts = clusters.centroids, arrays.cast(clusters.counts, "float32")
    module, device, take = arrays.of(centroids), arrays.device_of(centroids), arrays.take
    rows_of_wide = arrays.positions(is_wide[codes])
    n_rows = DEVICE_ROWS if arrays.is_gpu(sample) else BATCH_ROWS
    batches = [(rows, codes[rows]) for rows in arrays.split(rows_of_wide, n_rows)]
    axes = arrays.send(arrays.draw_normal(generator, tuple(centroids.shape)), device)
    for _ in range(POWER_STEPS):
        next_axes = module.zeros_like(axes)
        for rows, own in batches:
            differences = take(sample, rows) - take(centroids, own)
            coordinates = (differences * take(axes, own)).sum(axis=1)
            differences *= coordinates[:, None]
            arrays.add_rows(next_axes, differences, own)
        axes = arrays.directions(next_axes)

    # Cut each cluster along its direction, by 2-means in one dimension.
    labels = codes[rows_of_wide]
    coordinates = module.concatenate(
        [
            ((take(sample, rows) - take(centroids, own)) * take(axes, own)).sum(axis=1)
            for rows, own in batches
        ]
    )  # of each row on its cluster's axis
    upper = coordinates > 0
    for _ in range(CUT_STEPS):
        n_upper = _sum(arrays.cast(upper, "float32"), labels, len(centroids))
        middle = _sum(coordinates * upper, labels, len(centroids)) / n_upper.clip(min=1)
        n_lower = (counts - n_upper).clip(min=1)
        middle += _sum(coordinates * ~upper, labels, len(centroids)) / n_lower
        upper = coordinates > (middle / 2)[labels]

    # The gain of each split, from the means of its halves.
    n_upper = _sum(arrays.cast(upper, "float32"), labels, len(centroids))
    n_lower = counts - n_upper
    upper_sums = module.zeros_like(centroids)  # sum of the upper half's distances from the mean
    for rows in arrays.split(rows_of_wide[upper], n_rows):
        own = codes[rows]
        arrays.add_rows(upper_sums, take(sample, rows) - take(centroids, own), own)
    gain = module.square(upper_sums).sum(axis=1)
    gain *= 1 / n_upper.clip(min=1) + 1 / n_lower.clip(min=1)
    leaves = arrays.zeros([len(sample)], device, "bool")
    leaves[rows_of_wide[upper]] = True
    return _Split(module.where((n_upper > 0) & (n_lower > 0) & is_wide, gain, 0.0), leaves)


def _shared_split(
    clusters: Clusters,
    sample: Array,
    codes: Array,
    generator: Generator,
    is_wide: Array,
    group: Group,
) -> _Split:
    """Halve the clusters of bool ``is_wide`` (K,), each in one process of the group.

    On a CPU a cluster's sums are taken in row order, whichever clusters are there beside it.
    """
    # Every process takes every so many-th wide cluster.
    turns = is_wide.cumsum(axis=0) % group.size
    is_own = is_wide & (turns == group.rank)
    own = _best_split(clusters, sample, codes, generator, is_own)

    # The gain of a cluster and the rows of its half are those of the one process that has it.
    n_codes, n_rows = len(is_wide), len(sample)
    gains = process_group.gather(group, own.gain, [n_codes] * group.size)
    upper = arrays.cast(own.upper, "uint8")
    leaves = process_group.gather(group, upper, [n_rows] * group.size)
    module = arrays.of(upper)
    gain = module.zeros_like(own.gain)
    for rank, found in enumerate(gains):
        gain = module.where(is_wide & (turns == rank), found, gain)
    return _Split(gain, module.stack(leaves).any(axis=0))


def _widest(clusters: Clusters, sample: Array, codes: Array) -> Array:
    """Clusters of the largest squared errors, bool (K,): a split gains at most its error."""
    n_codes = len(clusters.centroids)
    error = _sum(arrays.square_norms(sample), codes, n_codes)
    error -= arrays.cast(clusters.counts, "float32") * arrays.square_norms(clusters.centroids)
    n_wide = min(n_codes, max(MIN_SPLITS, n_codes // SPLIT_SHARE))
    is_wide = arrays.zeros([n_codes], arrays.device_of(codes), "bool")
    is_wide[arrays.descending(error)[:n_wide]] = True
    return is_wide


def _cheapest_merge(clusters: Clusters, step: int, max_rows: float) -> tuple[Array, Array]:
    """Cost of merging each cluster with the one where that is cheapest, and which one that is.

    Together the two have at most ``max_rows`` rows; the cost is infinite where no cluster fits.

    A cluster without members costs nothing and is its own partner: any number of them can be used
    at once.
    """
    centroids, counts = clusters.centroids, arrays.cast(clusters.counts, "float32")
    module = arrays.of(centroids)
    norms = module.square(centroids).sum(axis=1)
    empty = arrays.positions(counts == 0)
    n_rows = step if arrays.is_gpu(centroids) else max(1, VALUES_AT_ONCE // len(centroids))
    costs, partners = [], []
    for start in range(0, len(centroids), step):
        products = centroids[start : start + step] @ centroids.T
        first = start
        for table in arrays.split(products, n_rows):
            # Squared distances between centroids, (n_rows, K), times n_a n_b / (n_a + n_b).
            block = slice(first, first + len(table))
            table *= -2
            table += norms[block, None]
            table += norms
            module.clip(table, 0, None, out=table)
            merged_counts = (counts[block, None] + counts).clip(min=1)
            table *= counts[block, None]
            table *= counts
            table /= merged_counts

            # A cluster cannot merge with itself, with an empty one, or into one that is too large.
            rows = module.arange(len(table), device=centroids.device)
            table[rows, rows + first] = np.inf
            table[:, empty] = np.inf
            if max_rows < np.inf:
                table[merged_counts > max_rows] = np.inf
            partner = nearest_pieces.lowest(table)
            cost = table[rows, partner]
            costs.append(module.where(counts[block] > 0, cost, 0.0))
            partners.append(module.where(counts[block] > 0, partner, rows + first))
            first += len(table)
    return module.concatenate(costs), module.concatenate(partners)


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


def _sum(values: Array, codes: Array, n_codes: int) -> Array:
    total = arrays.zeros((n_codes, 1), arrays.device_of(values))
    return arrays.add_rows(total, values[:, None], codes)[:, 0]
