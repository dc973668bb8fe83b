"""k-means that moves its centroids after every block of rows instead of after every pass.

Shapes: K clusters, D dimensions, b rows of one block, p rows of one piece of it.

Sums and counts are exact for the assignment as it stands: a row that changes its cluster is taken
from one sum and added to another (incremental EM, https://www.cs.toronto.edu/~radford/ftp/emk.pdf).
A row that has a cluster leaves it by Hartigan's rule, which counts what its own share of the
centroid is worth (https://www.ijcai.org/Proceedings/13/Papers/249.pdf): in many dimensions plain
k-means stops early because every row pulls its centroid towards itself.
"""

from typing import NamedTuple

import torch

from sidmill.numeric import nearest_torch, relative_scores
from sidmill.numeric.nearest_torch import Piece
from sidmill.quantize import shared_blocks
from sidmill.quantize.shared_blocks import SharedBlock

FEW_ROWS = 4  # rows fewer than one in so many clusters are added one by one in float64


class Clusters(NamedTuple):
    """K clusters; the tensors are updated in place."""

    centroids: torch.Tensor  # float32 (K, D)
    sums: torch.Tensor  # float64 (K, D), of the member rows
    counts: torch.Tensor  # float64 (K,)


class _Copy(NamedTuple):
    """What the search of a piece reads, on its device."""

    centroids: torch.Tensor  # float32 (K, D), or bfloat16 of nearest_torch.rounded
    halves: torch.Tensor  # float32 (K,), half of the centroids' squared norms
    counts: torch.Tensor  # float64 (K,)
    buffer: torch.Tensor  # float32, at least p K numbers, to write the scores to
    relative: relative_scores.Codewords | None  # where those are the faster ones


def empty(centroids: torch.Tensor) -> Clusters:
    """Clusters at ``centroids`` (K, D) without members."""
    zeros = torch.zeros(centroids.shape, dtype=torch.float64, device=centroids.device)
    return Clusters(centroids.clone(), zeros, zeros[:, 0].clone())


def visit(
    clusters: Clusters,
    pieces: list[Piece],
    before: torch.Tensor | None,
    hartigan: bool,
    buffers: list[torch.Tensor],
    shared: SharedBlock | None = None,
) -> torch.Tensor:
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
    device = clusters.centroids.device
    halves = nearest_torch.square_norms(clusters.centroids).div_(2)
    centroids = nearest_torch.rounded(clusters.centroids)
    relative = relative_scores.prepare(clusters.centroids)
    copies = [
        _Copy(
            centroids.to(buffer.device),
            halves.to(buffer.device),
            clusters.counts.to(buffer.device),
            buffer,
            relative,
        )
        for buffer in buffers
    ]

    # Search for the pieces; each device works on one at a time.
    shared = shared if shared_blocks.is_shared(shared) else None
    previous_labels = None if before is None else _of_pieces(before, pieces, shared)
    assigned: list[torch.Tensor] = []
    for group in nearest_torch.rounds(pieces, len(buffers)):
        jobs = [
            (
                rows,
                copies[device_index],
                None if previous_labels is None else previous_labels[number],
                hartigan,
            )
            for number, (device_index, rows) in enumerate(group, start=len(assigned))
        ]
        labels = nearest_torch.run_concurrently(_choose, jobs)
        assigned += [label.to(device) for label in labels]

    # Update sums and counts, in row order.
    if shared is not None:
        after = shared_blocks.gather_labels(shared, assigned, clusters.centroids)
    else:
        after = torch.cat(assigned)
    is_moved = None if before is None else after != before
    moved_rows = _moved_rows(clusters, pieces, is_moved, buffers, shared)
    if before is None or is_moved is None:
        _add(clusters, moved_rows, [after])
    else:
        moved = is_moved.nonzero()[:, 0]
        move(clusters, moved_rows, before[moved], after[moved])
    return after


def _of_pieces(
    labels: torch.Tensor, pieces: list[Piece], shared: SharedBlock | None
) -> list[torch.Tensor]:
    """Labels (b,) of a block for each piece of this process."""
    if shared is None:
        return list(labels.split([len(rows) for _, rows in pieces]))  # type: ignore[no-untyped-call]
    lengths = [span.stop - span.start for span in shared_blocks.piece_spans(shared)]
    return shared_blocks.own_of(shared, labels.split(lengths))  # type: ignore[no-untyped-call]


def _moved_rows(
    clusters: Clusters,
    pieces: list[Piece],
    is_moved: torch.Tensor | None,
    buffers: list[torch.Tensor],
    shared: SharedBlock | None,
) -> list[torch.Tensor]:
    """Rows of each piece of a block that join a cluster, bool (b,); None for all of them."""
    centroids = clusters.centroids
    rows_of_pieces = [rows for _, rows in pieces]
    if shared is not None:
        return shared_blocks.gather_rows(shared, rows_of_pieces, is_moved, centroids)
    if is_moved is None:
        return [rows.to(centroids.device) for rows in rows_of_pieces]
    if _is_one_gpu(buffers):
        return _select(rows_of_pieces, is_moved.nonzero()[:, 0])
    of_pieces = _of_pieces(is_moved, pieces, None)
    return [
        rows[each.to(rows.device)].to(centroids.device)
        for rows, each in zip(rows_of_pieces, of_pieces, strict=True)
    ]


def move(
    clusters: Clusters, pieces: list[torch.Tensor], before: torch.Tensor, after: torch.Tensor
) -> None:
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
    change = clusters.sums if is_small else torch.zeros_like(clusters.centroids)
    lengths = [len(rows) for rows in pieces]
    for rows, old, new in zip(pieces, before.split(lengths), after.split(lengths), strict=True):  # type: ignore[no-untyped-call]
        add_rows(change, rows, new)
        add_rows(change, rows, old, -1)
    if not is_small:
        clusters.sums.add_(change)
    clusters.counts.add_(torch.bincount(after, minlength=n_codes))
    clusters.counts.sub_(torch.bincount(before, minlength=n_codes))


def centre(clusters: Clusters, prior: Clusters | None = None) -> None:
    """Move every centroid to the mean of its members; one without members stays.

    Args:
        clusters: updated in place.
        prior: members of an earlier pass, which count as well.
    """
    sums, counts = clusters.sums, clusters.counts
    if prior is not None:
        sums, counts = sums + prior.sums, counts + prior.counts
    empty_clusters = (counts == 0).nonzero()[:, 0]
    unchanged = clusters.centroids[empty_clusters]
    torch.div(sums, counts[:, None], out=clusters.centroids)
    clusters.centroids[empty_clusters] = unchanged


def explained(clusters: Clusters) -> float:
    """Sum over the members of what their means explain: sum n_k |mean_k|^2.

    The sum of squares of all rows less this is the squared error of the assignment.
    """
    return float((clusters.sums.square().sum(dim=1) / clusters.counts.clamp(min=1)).sum())


def recount(clusters: Clusters, sample: torch.Tensor, codes: torch.Tensor, step: int) -> None:
    """Set sums, counts and centroids from an assignment ``codes`` (m,) of ``sample`` (m, D)."""
    clusters.sums.zero_()
    clusters.counts.zero_()
    for rows, labels in zip(sample.split(step), codes.split(step), strict=True):  # type: ignore[no-untyped-call]
        _add(clusters, [rows], [labels])
    centre(clusters)


def add_rows(
    totals: torch.Tensor, rows: torch.Tensor, codes: torch.Tensor, sign: int = 1
) -> torch.Tensor:
    """Add rows to the totals of their clusters, in the same order on every run.

    Args:
        totals: float32 or float64 (K, D), updated in place.
        rows: float32 (b, D).
        codes: int64 (b,).
        sign: 1, or -1 to take the rows away.

    Returns:
        ``totals``.
    """
    if not len(rows):
        return totals
    if rows.device.type == "cpu":
        return totals.index_add_(0, codes, rows.to(totals.dtype), alpha=sign)
    return totals.add_(_sums(rows, codes, len(totals)), alpha=sign)


def _sums(rows: torch.Tensor, codes: torch.Tensor, n_codes: int) -> torch.Tensor:
    """Sum the rows of each cluster, float32 (K, D): index_add_ on a GPU has no fixed order."""
    order = codes.sort(stable=True).indices
    lengths = torch.bincount(codes, minlength=n_codes)
    return torch.segment_reduce(
        rows.index_select(0, order), "sum", lengths=lengths, axis=0, unsafe=True, initial=0
    )


def _add(clusters: Clusters, pieces: list[torch.Tensor], codes: list[torch.Tensor]) -> None:
    """Add rows, float32 (p, D) in each piece, to their clusters."""
    total = torch.zeros_like(clusters.centroids)
    every, pieces = torch.cat(codes), _joined(pieces)
    of_pieces = every.split([len(rows) for rows in pieces])  # type: ignore[no-untyped-call]
    for rows, labels in zip(pieces, of_pieces, strict=True):
        add_rows(total, rows, labels)
    clusters.sums.add_(total)
    clusters.counts.add_(torch.bincount(every, minlength=len(total)))


def _is_one_gpu(buffers: list[torch.Tensor]) -> bool:
    """Whether all pieces lie on one GPU; several GPUs send the first only the rows that move."""
    return buffers[0].device.type != "cpu" and len({buffer.device for buffer in buffers}) == 1


def _select(pieces: list[torch.Tensor], chosen: torch.Tensor) -> list[torch.Tensor]:
    """Rows of a block by their ascending numbers ``chosen``, int64 (c,), still in pieces.

    A GPU is waited for once per block, and not once per piece.
    """
    ends = torch.tensor([len(rows) for rows in pieces]).cumsum(dim=0)
    cuts = torch.searchsorted(chosen, ends.to(chosen.device)).cpu().diff(prepend=ends.new_zeros(1))
    starts = [0, *ends.tolist()]
    return [
        rows.index_select(0, numbers - start)
        for rows, numbers, start in zip(pieces, chosen.split(cuts.tolist()), starts, strict=False)  # type: ignore[no-untyped-call]
    ]


def _joined(pieces: list[torch.Tensor]) -> list[torch.Tensor]:
    """The rows of a block as one piece on a GPU, where each sum of rows takes a (K, D) of its own.

    The rows stay in order, so sums do not depend on pieces or devices.
    """
    return pieces if len(pieces) < 2 or pieces[0].device.type == "cpu" else [torch.cat(pieces)]


def _choose(
    rows: torch.Tensor, copied: _Copy, previous_labels: torch.Tensor | None, hartigan: bool
) -> torch.Tensor:
    """Clusters of the rows of a piece, int64 (p,)."""
    if copied.relative is not None:
        return _choose_relative(rows, copied, previous_labels, hartigan)
    scores = nearest_torch.score(rows, copied.centroids, copied.halves, copied.buffer)
    if previous_labels is None or not hartigan:
        return nearest_torch.lowest(scores)

    # Squared distances to the own centroid and to the nearest other one: (p,).
    before = previous_labels.to(rows.device)
    positions = torch.arange(len(rows), device=rows.device)
    norms = torch.linalg.vector_norm(rows, dim=1).square_()
    own_distances = scores[positions, before].mul_(2).add_(norms).clamp_(min=0)
    scores[positions, before] = torch.inf
    other = nearest_torch.lowest(scores)
    other_distances = scores[positions, other].mul_(2).add_(norms).clamp_(min=0)
    return _leave(own_distances, other_distances, before, other, copied.counts)


def _choose_relative(
    rows: torch.Tensor, copied: _Copy, previous_labels: torch.Tensor | None, hartigan: bool
) -> torch.Tensor:
    """Clusters of the rows of a piece, int64 (p,), by products relative to one cluster of each."""
    assert copied.relative is not None
    may_stay = previous_labels is None or not hartigan
    found = relative_scores.nearest(rows, previous_labels, copied.relative, other=not may_stay)
    if previous_labels is None or may_stay:
        return found.codes
    return _leave(found.own_distances, found.distances, previous_labels, found.codes, copied.counts)


def _leave(
    own_distances: torch.Tensor,
    other_distances: torch.Tensor,
    before: torch.Tensor,
    other: torch.Tensor,
    counts: torch.Tensor,
) -> torch.Tensor:
    """Move a row where that lowers the squared error, both centroids following it: int64 (p,)."""
    n_own, n_other = counts[before], counts[other]
    gain = own_distances * n_own * (n_other + 1) - other_distances * n_other * (n_own - 1)
    return torch.where((gain > 0) & (n_own > 1), other, before)
