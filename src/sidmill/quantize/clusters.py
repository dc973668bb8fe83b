"""k-means that moves its codewords after every block of rows instead of after every pass.

Shapes: K clusters, D dimensions, b rows of one block.

Sums and counts are exact for the assignment as it stands: a row that changes its cluster is taken
from one sum and added to another (incremental EM, https://www.cs.toronto.edu/~radford/ftp/emk.pdf).
A row that has a cluster leaves it by Hartigan's rule, which counts what its own share of the
codeword is worth (https://www.ijcai.org/Proceedings/13/Papers/249.pdf): in many dimensions plain
k-means stops early because every row pulls its codeword towards itself.
"""

from typing import NamedTuple

import torch

from sidmill import torch_search

FEW_ROWS = 4  # rows fewer than one in so many clusters are added one by one in float64


class Clusters(NamedTuple):
    """K clusters; the tensors are updated in place."""

    words: torch.Tensor  # float32 (K, D)
    sums: torch.Tensor  # float64 (K, D), of the member rows
    counts: torch.Tensor  # float64 (K,)


def empty(words: torch.Tensor) -> Clusters:
    """Clusters at ``words`` (K, D) without members."""
    zeros = torch.zeros(words.shape, dtype=torch.float64, device=words.device)
    return Clusters(words.clone(), zeros, zeros[:, 0].clone())


def visit(
    clusters: Clusters,
    block: torch.Tensor,
    before: torch.Tensor | None,
    hartigan: bool,
    spare: torch.Tensor | None,
) -> torch.Tensor:
    """Assign the rows of a block, and keep sums and counts in step; words stay.

    Args:
        clusters: updated in place.
        block: float32 (b, D).
        before: int64 (b,), the rows' clusters; None if they have none yet.
        hartigan: whether a row's own share of its codeword counts.
        spare: float32, at least b K numbers to write the scores to; None takes new memory.

    Returns:
        int64 (b,), the clusters now.
    """
    halves = torch_search.square_norms(clusters.words).div_(2)
    scores = torch_search.score(block, clusters.words, halves, spare)  # (b, K)
    if before is None:
        after = torch_search.lowest(scores)
        _add(clusters, block, after, 1)
        return after
    after = (
        _leave(scores, block, before, clusters.counts) if hartigan else torch_search.lowest(scores)
    )
    moved = (after != before).nonzero()[:, 0]
    if len(moved):
        move(clusters, block[moved], before[moved], after[moved])
    return after


def move(clusters: Clusters, rows: torch.Tensor, before: torch.Tensor, after: torch.Tensor) -> None:
    """Take rows (b, D) from their clusters ``before`` to ``after``, int64 (b,); words stay."""
    _add(clusters, rows, before, -1)
    _add(clusters, rows, after, 1)


def centre(clusters: Clusters, prior: Clusters | None = None) -> None:
    """Move every word to the mean of its members; a word without members stays.

    Args:
        clusters: updated in place.
        prior: members of an earlier pass, which count as well.
    """
    sums, counts = clusters.sums, clusters.counts
    if prior is not None:
        sums, counts = sums + prior.sums, counts + prior.counts
    means = (sums / counts.clamp(min=1)[:, None]).to(torch.float32)
    torch.where(counts[:, None] > 0, means, clusters.words, out=clusters.words)


def explained(clusters: Clusters) -> float:
    """Sum over the members of what their means explain: sum n_k |mean_k|^2.

    The sum of squares of all rows less this is the squared error of the assignment.
    """
    return float((clusters.sums.square().sum(dim=1) / clusters.counts.clamp(min=1)).sum())


def recount(clusters: Clusters, sample: torch.Tensor, codes: torch.Tensor, step: int) -> None:
    """Set sums, counts and words from an assignment ``codes`` (m,) of ``sample`` (m, D)."""
    clusters.sums.zero_()
    clusters.counts.zero_()
    for start in range(0, len(sample), step):
        _add(clusters, sample[start : start + step], codes[start : start + step], 1)
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
    members = torch.nn.functional.one_hot(codes, len(totals)).to(rows.dtype)  # (b, K)
    return totals.add_(members.T @ rows, alpha=sign)  # index_add_ on a GPU has no fixed order


def _add(clusters: Clusters, rows: torch.Tensor, codes: torch.Tensor, sign: int) -> None:
    n_codes, dim = clusters.words.shape
    if len(rows) < n_codes // FEW_ROWS:
        add_rows(clusters.sums, rows, codes, sign)
    else:
        block = add_rows(torch.zeros((n_codes, dim), device=rows.device), rows, codes)
        clusters.sums.add_(block, alpha=sign)
    clusters.counts.add_(torch.bincount(codes, minlength=n_codes), alpha=sign)


def _leave(
    scores: torch.Tensor, block: torch.Tensor, before: torch.Tensor, counts: torch.Tensor
) -> torch.Tensor:
    """Move a row where that lowers the squared error, both codewords following it."""
    lines = torch.arange(len(block), device=block.device)
    norms = torch.linalg.vector_norm(block, dim=1).square_()
    own = scores[lines, before].mul_(2).add_(norms).clamp_(min=0)  # squared distances
    scores[lines, before] = torch.inf
    other = torch_search.lowest(scores)
    away = scores[lines, other].mul_(2).add_(norms).clamp_(min=0)
    n_own, n_other = counts[before], counts[other]
    gain = own * n_own * (n_other + 1) - away * n_other * (n_own - 1)
    return torch.where((gain > 0) & (n_own > 1), other, before)
