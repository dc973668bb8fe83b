"""k-means that moves its centroids after every block of rows instead of after every pass.

Shapes: K clusters, D dimensions, b rows of one block, p rows of one piece of it.

Sums and counts are exact for the assignment as it stands: a row that changes its cluster is taken
from one sum and added to another (incremental EM, https://www.cs.toronto.edu/~radford/ftp/emk.pdf).
A row that has a cluster leaves it by Hartigan's rule, which counts what its own share of the
centroid is worth (https://www.ijcai.org/Proceedings/13/Papers/249.pdf): in many dimensions plain
k-means stops early because every row pulls its centroid towards itself.
"""

import math
from typing import TYPE_CHECKING, NamedTuple

from sidmill.numeric import arrays, nearest_pieces
from sidmill.numeric.arrays import Array
from sidmill.numeric.row_pieces import Piece
from sidmill.quantize import shared_blocks
from sidmill.quantize.shared_blocks import SharedBlock

if TYPE_CHECKING:
    from sidmill.numeric import relative_scores

FEW_ROWS = 4  # rows fewer than one in so many clusters are added one by one in float64


class Clusters(NamedTuple):
    """K clusters; the arrays are updated in place."""

    centroids: Array  # float32 (K, D)
    sums: Array  # float64 (K, D), of the member rows
    counts: Array  # float64 (K,)


class _Copy(NamedTuple):
    """What the search of a piece reads, on its device."""

    centroids: Array  # float32 (K, D), or what nearest_pieces.rounded makes of it
    halves: Array  # float32 (K,), half of the centroids' squared norms
    counts: Array  # float64 (K,)
    buffer: Array  # float32, at least p K numbers, to write the scores to
    relative: "relative_scores.Codewords | None"  # where those are the faster ones


def empty(centroids: Array) -> Clusters:
    """Clusters at ``centroids`` (K, D) without members."""
    device = arrays.device_of(centroids)
    sums, counts = (
        arrays.zeros(shape, device, "float64") for shape in (centroids.shape, centroids.shape[:1])
    )
    return Clusters(arrays.copy(centroids), sums, counts)


def copy(clusters: Clusters) -> Clusters:
    """A copy that later updates of ``clusters`` leave as it is."""
    return Clusters(*(arrays.copy(array) for array in clusters))


def visit(
    clusters: Clusters,
    pieces: list[Piece],
    before: Array | None,
    hartigan: bool,
    buffers: list[Array],
    shared: SharedBlock | None = None,
) -> Array:
    """Assign the rows of a block to centroids, and keep sums and counts in step; centroids stay.

    Devices and processes search at the same time. Their results are added up on the device of the
    clusters, in row order.

    Args:
        clusters: updated in place.
        pieces: of the block, float32 (p, D) each; of a shared block those of this process.
        before: int64 (b,), the rows' clusters; None if they have none yet.
        hartigan: whether a row's own share of its centroid counts.
        buffers: float32, at least p K numbers on each device, to write the scores to.
        shared: how processes share the block; None where there is one.

    Returns:
        int64 (b,), the clusters after the visit.
    """
    # A copy of the clusters on each device.
    device = arrays.device_of(clusters.centroids)
    halves = arrays.square_norms(clusters.centroids) / 2
    centroids = nearest_pieces.rounded(clusters.centroids)
    relative = nearest_pieces.relative(clusters.centroids)
    copies = []
    for buffer in buffers:
        there = arrays.device_of(buffer)
        sent = [arrays.send(array, there) for array in (centroids, halves, clusters.counts)]
        copies.append(_Copy(sent[0], sent[1], sent[2], buffer, relative))

    # Search for the pieces; each device works on one at a time.
    shared = shared if shared_blocks.is_shared(shared) else None
    own = [None] * len(pieces) if before is None else _of_pieces(before, pieces, shared)
    jobs = [
        (rows, copies[index], labels, hartigan)
        for (index, rows), labels in zip(pieces, own, strict=True)
    ]
    labels_found = nearest_pieces.run_concurrently(_choose, jobs, [index for index, _ in pieces])
    assigned = [arrays.send(labels, device) for labels in labels_found]

    # Update sums and counts, in row order.
    if shared is not None:
        after = shared_blocks.gather_labels(shared, assigned, clusters.centroids)
    else:
        after = arrays.of(assigned[0]).concatenate(assigned)
    is_moved = None if before is None else after != before
    moved_rows = _moved_rows(clusters, pieces, is_moved, buffers, shared)
    if before is None or is_moved is None:
        _add(clusters, moved_rows, [after])
    else:
        moved = arrays.positions(is_moved)
        move(clusters, moved_rows, before[moved], after[moved])
    return after


def _of_pieces(labels: Array, pieces: list[Piece], shared: SharedBlock | None) -> list[Array]:
    """Labels (b,) of a block for each piece of this process."""
    if shared is None:
        return arrays.split(labels, [len(rows) for _, rows in pieces])
    lengths = [span.stop - span.start for span in shared_blocks.piece_spans(shared)]
    return shared_blocks.own_of(shared, arrays.split(labels, lengths))


def _moved_rows(
    clusters: Clusters,
    pieces: list[Piece],
    is_moved: Array | None,
    buffers: list[Array],
    shared: SharedBlock | None,
) -> list[Array]:
    """Rows of each piece of a block that join a cluster, bool (b,); None for all of them."""
    centroids = clusters.centroids
    rows_of_pieces = [rows for _, rows in pieces]
    if shared is not None:
        return shared_blocks.gather_rows(shared, rows_of_pieces, is_moved, centroids)
    if is_moved is None:
        return [arrays.send(rows, arrays.device_of(centroids)) for rows in rows_of_pieces]
    if _is_one_gpu(buffers):
        return _select(rows_of_pieces, arrays.positions(is_moved))
    of_pieces = _of_pieces(is_moved, pieces, None)
    return [
        arrays.send(rows[arrays.send(each, arrays.device_of(rows))], arrays.device_of(centroids))
        for rows, each in zip(rows_of_pieces, of_pieces, strict=True)
    ]


def move(clusters: Clusters, pieces: list[Array], before: Array, after: Array) -> None:
    """Take rows from their clusters ``before`` to ``after``, int64 (b,); centroids stay.

    Args:
        clusters: updated in place.
        pieces: the rows, float32 (p, D) in each piece, b in all.
        before: int64 (b,).
        after: int64 (b,).
    """
    pieces = _joined(pieces)
    n_codes = len(clusters.centroids)
    is_small = len(after) < n_codes // FEW_ROWS
    sums, counts = clusters.sums, clusters.counts
    module = arrays.of(sums)
    change = sums if is_small else module.zeros_like(clusters.centroids)
    arrays.move_rows(change, pieces, before, after)
    if not is_small:
        sums += change
    counts += module.bincount(after, minlength=n_codes)
    counts -= module.bincount(before, minlength=n_codes)


def centre(clusters: Clusters, prior: Clusters | None = None) -> None:
    """Move every centroid to the mean of its members; one without members stays.

    Args:
        clusters: updated in place.
        prior: members of an earlier pass, which count as well.
    """
    sums, counts = clusters.sums, clusters.counts
    if prior is not None:
        sums, counts = sums + prior.sums, counts + prior.counts
    empty_clusters = arrays.positions(counts == 0)
    unchanged = clusters.centroids[empty_clusters]
    arrays.divide(sums, counts[:, None], out=clusters.centroids)
    clusters.centroids[empty_clusters] = unchanged


def explained(clusters: Clusters) -> float:
    """Sum over the members of what their means explain: sum n_k |mean_k|^2.

    The sum of squares of all rows less this is the squared error of the assignment.
    """
    squares = arrays.of(clusters.sums).square(clusters.sums).sum(axis=1)
    return float((squares / clusters.counts.clip(min=1)).sum())


def recount(clusters: Clusters, sample: Array, codes: Array, step: int) -> None:
    """Set sums, counts and centroids from an assignment ``codes`` (m,) of ``sample`` (m, D)."""
    clusters.sums[:] = 0
    clusters.counts[:] = 0
    for rows, labels in zip(arrays.split(sample, step), arrays.split(codes, step), strict=True):
        _add(clusters, [rows], [labels])
    centre(clusters)


def _add(clusters: Clusters, pieces: list[Array], codes: list[Array]) -> None:
    """Add rows, float32 (p, D) in each piece, to their clusters."""
    sums, counts = clusters.sums, clusters.counts
    module = arrays.of(sums)
    total = module.zeros_like(clusters.centroids)
    every, pieces = module.concatenate(codes), _joined(pieces)
    of_pieces = arrays.split(every, [len(rows) for rows in pieces])
    for rows, labels in zip(pieces, of_pieces, strict=True):
        arrays.add_rows(total, rows, labels)
    sums += total
    counts += module.bincount(every, minlength=len(total))


def _is_one_gpu(buffers: list[Array]) -> bool:
    """Whether all pieces lie on one GPU; several GPUs send the first only the rows that move."""
    devices = {arrays.device_of(buffer) for buffer in buffers}
    return arrays.is_gpu(buffers[0]) and len(devices) == 1


def _select(pieces: list[Array], chosen: Array) -> list[Array]:
    """Rows of a block on a GPU by their ascending numbers ``chosen``, int64 (c,), still in pieces.

    The GPU is waited for once per block, and not once per piece.
    """
    torch = arrays.of(chosen)
    ends = torch.tensor([len(rows) for rows in pieces]).cumsum(dim=0)
    cuts = torch.searchsorted(chosen, ends.to(chosen.device)).cpu().diff(prepend=ends.new_zeros(1))
    starts = [0, *ends.tolist()]
    return [
        rows.index_select(0, numbers - start)
        for rows, numbers, start in zip(
            pieces, arrays.split(chosen, cuts.tolist()), starts, strict=False
        )
    ]


def _joined(pieces: list[Array]) -> list[Array]:
    """The rows of a block as one piece on a GPU, where each sum of rows takes a (K, D) of its own.

    The rows stay in order, so sums do not depend on pieces or devices.
    """
    if len(pieces) < 2 or not arrays.is_gpu(pieces[0]):
        return pieces
    return [arrays.of(pieces[0]).concatenate(pieces)]


def _choose(rows: Array, copied: _Copy, previous_labels: Array | None, hartigan: bool) -> Array:
    """Clusters of the rows of a piece, int64 (p,)."""
    if copied.relative is not None:
        return _choose_relative(rows, copied, previous_labels, hartigan)
    scores = nearest_pieces.score(rows, copied.centroids, copied.halves, copied.buffer)
    if previous_labels is None or not hartigan or len(copied.halves) == 1:
        return nearest_pieces.lowest(scores)

    # Squared distances to the own centroid and to the nearest other one: (p,).
    before = arrays.send(previous_labels, arrays.device_of(rows))
    positions = arrays.of(rows).arange(len(rows), device=rows.device)
    norms = arrays.square_norms(rows)
    own_distances = (scores[positions, before] * 2 + norms).clip(min=0)
    scores[positions, before] = math.inf
    other = nearest_pieces.lowest(scores)
    other_distances = (scores[positions, other] * 2 + norms).clip(min=0)
    return _leave(own_distances, other_distances, before, other, copied.counts)


def _choose_relative(
    rows: Array, copied: _Copy, previous_labels: Array | None, hartigan: bool
) -> Array:
    """Clusters of the rows of a piece, int64 (p,), by products relative to one cluster of each."""
    from sidmill.numeric import relative_scores

    assert copied.relative is not None
    may_stay = previous_labels is None or not hartigan
    found = relative_scores.nearest(rows, previous_labels, copied.relative, other=not may_stay)
    if previous_labels is None or may_stay:
        return found.codes
    return _leave(found.own_distances, found.distances, previous_labels, found.codes, copied.counts)


def _leave(
    own_distances: Array,
    other_distances: Array,
    before: Array,
    other: Array,
    counts: Array,
) -> Array:
    """Move a row where that lowers the squared error, both centroids following it: int64 (p,)."""
    n_own, n_other = counts[before], counts[other]
    gain = own_distances * n_own * (n_other + 1) - other_distances * n_other * (n_own - 1)
    return arrays.of(gain).where((gain > 0) & (n_own > 1), other, before)
