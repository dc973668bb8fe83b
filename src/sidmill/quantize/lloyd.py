"""k-means that moves its codewords after every block of rows instead of after every pass.

Shapes: K clusters, D dimensions, b rows of one block, p rows of one piece of it.

Sums and counts are exact for the assignment as it stands: a row that changes its cluster is taken
from one sum and added to another (incremental EM, https://www.cs.toronto.edu/~radford/ftp/emk.pdf).
A row that has a cluster leaves it by Hartigan's rule, which counts what its own share of the
codeword is worth (https://www.ijcai.org/Proceedings/13/Papers/249.pdf): in many dimensions plain
k-means stops early because every row pulls its codeword towards itself.
"""

from typing import NamedTuple

import torch

from sidmill.numeric import nearest_torch
from sidmill.numeric.nearest_torch import Piece

FEW_ROWS = 4  # rows fewer than one in so many clusters are added one by one in float64


class Clusters(NamedTuple):
    """K clusters; the tensors are updated in place."""

    words: torch.Tensor  # float32 (K, D)
    sums: torch.Tensor  # float64 (K, D), of the member rows
    counts: torch.Tensor  # float64 (K,)


class _Copy(NamedTuple):
    """What the search of a piece reads, on its device."""

    words: torch.Tensor  # float32 (K, D)
    halves: torch.Tensor  # float32 (K,), half of the words' squared norms
    counts: torch.Tensor  # float64 (K,)
    spare: torch.Tensor  # float32, at least p K numbers, to write the scores to


def empty(words: torch.Tensor) -> Clusters:
    """Clusters at ``words`` (K, D) without members."""
    zeros = torch.zeros(words.shape, dtype=torch.float64, device=words.device)
    return Clusters(words.clone(), zeros, zeros[:, 0].clone())


def visit(
    clusters: Clusters,
    pieces: list[Piece],
    before: torch.Tensor | None,
    hartigan: bool,
    spares: list[torch.Tensor],
) -> torch.Tensor:
    """Assign the rows of a block, and keep sums and counts in step; words stay.

    Devices search at the same time. What they find is added up on the device of the clusters, in
    row order.

    Args:
        clusters: updated in place.
        pieces: of the block, float32 (p, D) each.
        before: int64 (b,), the rows' clusters; None if they have none yet.
        hartigan: whether a row's own share of its codeword counts.
        spares: float32, at least p K numbers on each device, to write the scores to.

    Returns:
        int64 (b,), the clusters now.
    """
    # A copy of the clusters on each device.
    here = clusters.words.device
    halves = nearest_torch.square_norms(clusters.words).div_(2)
    copies = [
        _Copy(
            clusters.words.to(spare.device),
            halves.to(spare.device),
            clusters.counts.to(spare.device),
            spare,
        )
        for spare in spares
    ]

    # Search for the pieces; each device works on one at a time.
    had = None if before is None else before.split([len(rows) for _, rows in pieces])  # type: ignore[no-untyped-call]
    found: list[torch.Tensor] = []
    moving = []  # rows, and where they go
    for together in nearest_torch.rounds(pieces, len(spares)):
        jobs = [
            (rows, copies[place], None if had is None else had[number], hartigan)
            for number, (place, rows) in enumerate(together, start=len(found))
        ]
        afters = nearest_torch.at_once(_choose, jobs)
        for (_, rows), after in zip(together, afters, strict=True):
            found.append(after.to(here))
            if had is not None:
                moved = (found[-1] != had[len(found) - 1]).nonzero()[:, 0]
                rows = rows[moved.to(rows.device)]
            moving.append(rows.to(here))

    # Update sums and counts, in row order.
    after = torch.cat(found)
    if before is None:
        _add(clusters, moving, found)
    else:
        moved = (after != before).nonzero()[:, 0]
        move(clusters, moving, before[moved], after[moved])
    return after


def move(
    clusters: Clusters, parts: list[torch.Tensor], before: torch.Tensor, after: torch.Tensor
) -> None:
    """Take rows from their clusters ``before`` to ``after``, int64 (b,); words stay.

    Args:
        clusters: updated in place.
        parts: the rows, float32 (p, D) in each part, b in all.
        before: int64 (b,).
        after: int64 (b,).
    """
    n_codes = len(clusters.words)
    few = len(after) < n_codes // FEW_ROWS
    change = clusters.sums if few else torch.zeros_like(clusters.words)
    lengths = [len(rows) for rows in parts]
    for rows, old, new in zip(parts, before.split(lengths), after.split(lengths), strict=True):  # type: ignore[no-untyped-call]
        add_rows(change, rows, new)
        add_rows(change, rows, old, -1)
    if not few:
        clusters.sums.add_(change)
    clusters.counts.add_(torch.bincount(after, minlength=n_codes))
    clusters.counts.sub_(torch.bincount(before, minlength=n_codes))


def centre(clusters: Clusters, prior: Clusters | None = None) -> None:
    """Move every word to the mean of its members; a word without members stays.

    Args:
        clusters: updated in place.
        prior: members of an earlier pass, which count as well.
    """
    sums, counts = clusters.sums, clusters.counts
    if prior is not None:
        sums, counts = sums + prior.sums, counts + prior.counts
    hollow = (counts == 0).nonzero()[:, 0]
    stay = clusters.words[hollow]
    torch.div(sums, counts[:, None], out=clusters.words)
    clusters.words[hollow] = stay


def explained(clusters: Clusters) -> float:
    """Sum over the members of what their means explain: sum n_k |mean_k|^2.

    The sum of squares of all rows less this is the squared error of the assignment.
    """
    return float((clusters.sums.square().sum(dim=1) / clusters.counts.clamp(min=1)).sum())


def recount(clusters: Clusters, sample: torch.Tensor, codes: torch.Tensor, step: int) -> None:
    """Set sums, counts and words from an assignment ``codes`` (m,) of ``sample`` (m, D)."""
    clusters.sums.zero_()
    clusters.counts.zero_()
    for rows, own in zip(sample.split(step), codes.split(step), strict=True):  # type: ignore[no-untyped-call]
        _add(clusters, [rows], [own])
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


def _add(clusters: Clusters, parts: list[torch.Tensor], codes: list[torch.Tensor]) -> None:
    """Add rows, float32 (p, D) in each part, to their clusters."""
    total = torch.zeros_like(clusters.words)
    for rows, own in zip(parts, codes, strict=True):
        add_rows(total, rows, own)
    clusters.sums.add_(total)
    clusters.counts.add_(torch.bincount(torch.cat(codes), minlength=len(total)))


def _choose(
    rows: torch.Tensor, here: _Copy, had: torch.Tensor | None, hartigan: bool
) -> torch.Tensor:
    """Clusters of the rows of a piece, int64 (p,)."""
    scores = nearest_torch.score(rows, here.words, here.halves, here.spare)
    if had is None or not hartigan:
        return nearest_torch.lowest(scores)
    return _leave(scores, rows, had.to(rows.device), here.counts)


def _leave(
    scores: torch.Tensor, block: torch.Tensor, before: torch.Tensor, counts: torch.Tensor
) -> torch.Tensor:
    """Move a row where that lowers the squared error, both codewords following it."""
    lines = torch.arange(len(block), device=block.device)
    norms = torch.linalg.vector_norm(block, dim=1).square_()
    own = scores[lines, before].mul_(2).add_(norms).clamp_(min=0)  # squared distances
    scores[lines, before] = torch.inf
    other = nearest_torch.lowest(scores)
    away = scores[lines, other].mul_(2).add_(norms).clamp_(min=0)
    n_own, n_other = counts[before], counts[other]
    gain = own * n_own * (n_other + 1) - away * n_other * (n_own - 1)
    return torch.where((gain > 0) & (n_own > 1), other, before)
