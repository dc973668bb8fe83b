"""From token scores to SIDs: all of them, a beam of them, and the items behind them.

A model is a function from level and prefixes to what each next token adds to the score. No
function here calls it, or anything else, once per user or beam: children of all beams of all users
are gathered from the trie's offsets together, one level at a time.

The score of a SID is the sum of what its tokens add, level 0 first. Ties: the SID that is lower in
lexicographic order comes first, on every device.

Shapes: B users, W beams, L levels, K_l tokens of level l, S SIDs, N items.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from sidmill.core.errors import SidmillError
from sidmill.numeric import sid_trie
from sidmill.numeric.sid_trie import Trie

TokenScores = Callable[[int, Tensor], Tensor]
"""Level l and prefixes int64 (B, W, l) -> float32 (B, W, K_l): what each token of level l adds to
the score of its prefix (log-softmax of an autoregressive model, an energy of an additive one)."""

FLOAT_BYTES = 4
SCORE_BYTES = 12  # what a user's token takes in a block of ``exact``: three float32 at the peak
NODE_BYTES = 64  # what a token takes beside it for all users: its prefix, parent and offsets
SEARCH_BYTES = 256 * 2**20  # candidates of one group of users in ``search``
CHILD_COST = 4  # of gathering a child of a beam and choosing, in SIDs of ``exact_additive``
CANDIDATE_BYTES = 48  # what a child of a beam takes at the peak


class Beams(NamedTuple):
    """The best SIDs of each user, best first.

    Attributes:
        scores: float32 (B, k), -inf where there is no SID.
        sids: int64 (B, k), numbers of SIDs in the trie, -1 where there is none.
    """

    scores: Tensor
    sids: Tensor


class TokenBeams(NamedTuple):
    """The best code combinations of each user, best first, whether an item has them or not.

    Attributes:
        scores: float32 (B, W), -inf where there is none.
        tokens: int64 (B, W, L), -1 where there is none.
    """

    scores: Tensor
    tokens: Tensor


class ItemLists(NamedTuple):
    """The best items of each user, best first.

    Attributes:
        scores: float32 (B, k), -inf where there is no item.
        items: int64 (B, k), -1 where there is none.
    """

    scores: Tensor
    items: Tensor


@torch.no_grad()
def exact(trie: Trie, token_scores: TokenScores, n_users: int, memory_mb: int) -> Tensor:
    """Score every SID.

    Nodes are taken in blocks, and the descendants of a block before the next block, so that only
    one block per level is in memory. Memory: the result, 4 B S bytes, and about ``memory_mb``
    beside it (at least one node per level: 12 B K_l bytes), without what ``token_scores`` itself
    needs.

    Args:
        trie: the trie, on the device of the scores.
        token_scores: see :data:`TokenScores`. Prefixes are a view without rows of their own for
            each user.
        n_users: B.
        memory_mb: MiB that the blocks of all levels may take together.

    Returns:
        float32 (B, S), in the order of the trie.

    Raises:
        SidmillError: if a score is NaN.
    """
    result = torch.empty(n_users, trie.n_sids, device=trie.device)
    budget = memory_mb * 2**20 // trie.n_levels // (SCORE_BYTES * n_users + NODE_BYTES)
    root = torch.zeros(n_users, 1, device=trie.device)
    prefixes = torch.empty(1, 0, dtype=torch.int64, device=trie.device)
    _score_descendants(_Scoring(trie, token_scores, budget, result), 0, 0, root, prefixes)
    return result


@torch.no_grad()
def exact_additive(trie: Trie, additive: Sequence[Tensor]) -> Tensor:
    """Score every SID by a sum over its tokens: what :func:`exact` gives, bit for bit, and faster.

    Memory: 16 B S bytes, of which the result is a quarter, and 16 S.

    Args:
        trie: the trie, on the device of the scores.
        additive: L tensors float32 (B, K_l), what each token adds, whatever its prefix.

    Returns:
        float32 (B, S), in the order of the trie.

    Raises:
        SidmillError: if a score is NaN.
    """
    scores = torch.zeros(len(additive[0]), 1, device=trie.device)
    for level, added in enumerate(additive):
        parents = torch.repeat_interleave(trie.first_child[level].diff())  # (n_{l+1},)
        scores = scores[:, parents]
        scores += added.float()[:, trie.tokens[level].long()]
        _require_numbers(level, scores)
    return scores


@torch.no_grad()
def beam(trie: Trie, token_scores: TokenScores, n_users: int, width: int, k: int) -> Beams:
    """Search the best SIDs, ``width`` prefixes of each user at a time.

    No prefix is followed that no item has. With ``width`` of at least S the answer is that of
    :func:`exact`. Memory: a few tensors of (B, c), with c children of the beams of a user, at most
    W K_l, and what ``token_scores`` returns.

    Args:
        trie: the trie, on the device of the scores.
        token_scores: see :data:`TokenScores`. W is ``width``, or the prefixes of level l that there
            are, where they are fewer; those of a user differ, and ascend.
        n_users: B.
        width: prefixes kept per user and level.
        k: SIDs per user, at most ``width``.

    Returns:
        The best k of each user; fewer where the trie has fewer SIDs.

    Raises:
        SidmillError: if a score is NaN, or not 1 <= ``k`` <= ``width``.
    """
    return _search_beams(trie, token_scores, n_users, width, k, None)[0]


@torch.no_grad()
def search(trie: Trie, additive: Sequence[Tensor], width: int, k: int) -> Beams:
    """Find the best SIDs where scores are sums over levels: the answer of :func:`exact`, proven.

    A beam search remembers the best prefix that it dropped. No SID below that prefix has a higher
    score than the prefix with the best token of each later level. If the k-th answer of a user is
    above that bound, the answer is exact; if not, the user is searched again with twice the width.
    The bound is summed in the order of the scores, so rounding cannot break it. Where beams would
    cost more than scoring all SIDs, all SIDs are scored instead. Branch and bound as in A. H. Land
    and A. G. Doig, https://doi.org/10.2307/1910129.

    Memory: users are taken in groups whose candidates take up to 256 MiB, at least one user.

    Args:
        trie: the trie, on the device of the scores.
        additive: L tensors float32 (B, K_l), what each token adds, whatever its prefix.
        width: prefixes kept per user and level at first.
        k: SIDs per user, at most ``width``.

    Returns:
        The best k of each user; fewer where the trie has fewer SIDs.

    Raises:
        SidmillError: if a score is NaN, or not 1 <= ``k`` <= ``width``.
    """
    _require_widths(width, k)
    n_users = len(additive[0])
    scores = torch.full((n_users, k), -torch.inf, device=trie.device)
    sids = torch.full((n_users, k), -1, dtype=torch.int64, device=trie.device)
    best_tokens = torch.stack([level.amax(dim=1) for level in additive], dim=1).float()  # (B, L)
    open_users = torch.arange(n_users, device=trie.device)
    while len(open_users) and not _covers(trie, width):
        proven = torch.empty(len(open_users), dtype=torch.bool, device=trie.device)
        for start, users in _groups(open_users, width * max(trie.sizes) * CANDIDATE_BYTES):
            # Beams of a group of users, with the best score that a dropped prefix can reach.
            token_scores = _constant_scores([level[users] for level in additive])
            most = best_tokens[users]
            found, bounds = _search_beams(trie, token_scores, len(users), width, k, most)
            scores[users], sids[users] = found
            proven[start : start + len(users)] = found.scores[:, -1] > bounds
        open_users, width = open_users[~proven], 2 * width

    # Those for whom no such width is enough.
    for _, users in _groups(open_users, 4 * trie.n_sids * FLOAT_BYTES):
        every = exact_additive(trie, [level[users] for level in additive])
        scores[users], sids[users] = best(every, k)
    return Beams(scores, sids)


@torch.no_grad()
def best(scores: Tensor, k: int) -> Beams:
    """Find the k best columns of each row of scores; of equal scores the first column comes first.

    Memory: 11 bytes per score.

    Args:
        scores: float32 (B, S), such as those of :func:`exact`, not NaN.
        k: columns per row.

    Returns:
        The best k of each row; fewer where S is less.
    """
    columns = _highest(scores, min(k, scores.shape[1]))
    return _ranked(scores.gather(1, columns), columns, k)


@torch.no_grad()
def unconstrained(
    token_scores: TokenScores, sizes: Sequence[int], n_users: int, width: int, device: torch.device
) -> TokenBeams:
    """Search as :func:`beam` does among all code combinations: what a model answers without a trie.

    ``sid_trie.find`` says which of them are the SID of an item. Memory: some tensors of (B, W K_l).

    Args:
        token_scores: see :data:`TokenScores`.
        sizes: K_l of each level.
        n_users: B.
        width: prefixes kept per user and level, and answers.
        device: of the scores.

    Returns:
        The best ``width`` of each user; fewer where there are fewer combinations.

    Raises:
        SidmillError: if a score is NaN, or ``width`` is below 1.
    """
    _require_widths(width, width)
    scores = torch.zeros(n_users, 1, device=device)
    prefixes = torch.empty(n_users, 1, 0, dtype=torch.int64, device=device)
    for level, size in enumerate(sizes):
        # Every token after every beam, in lexicographic order: (B, W K_l).
        sums = (scores.unsqueeze(2) + token_scores(level, prefixes)).flatten(1)
        _require_numbers(level, sums)
        columns = _highest(sums, min(width, sums.shape[1]))
        scores = sums.gather(1, columns)
        beams, tokens = columns // size, columns % size
        prefixes = torch.cat([_rows(prefixes, beams), tokens.unsqueeze(2)], dim=2)

    # Best first; ties stay in lexicographic order.
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    prefixes = _rows(prefixes, order)
    missing = width - scores.shape[1]
    scores = torch.nn.functional.pad(scores, (0, missing), value=-torch.inf)
    return TokenBeams(scores, torch.nn.functional.pad(prefixes, (0, 0, 0, missing), value=-1))


@torch.no_grad()
def items_of(trie: Trie, beams: Beams, order: Tensor | None, k: int) -> ItemLists:
    """Turn SIDs into items.

    Items that share a SID have its score. SIDs stay in the order of ``beams``; the items of one SID
    come by ``order``, and the list ends after k. So an item of a better SID comes before every item
    of a worse one, and of SIDs with equal scores the lower one gives all its items first.

    Args:
        trie: the trie, on the device of the beams.
        beams: SIDs of B users.
        order: int64 (N,), a rank per item, the lowest first (popularity, for one); equal ranks:
            lower item number first. None for the order that the trie has: to order a trie once for
            many calls, see ``sid_trie.order_items``.
        k: items per user.

    Returns:
        Lists of k items; fewer where the SIDs have fewer.
    """
    if order is not None:
        trie = sid_trie.order_items(trie, order)

    # How many items each SID gives before the list is full: (B, W).
    known = beams.sids.clamp(min=0)
    first = trie.first_item[known]
    counts = torch.where(beams.sids >= 0, trie.first_item[known + 1] - first, 0).clamp(max=k)
    before = counts.cumsum(dim=1) - counts
    counts = torch.minimum(counts, (k - before).clamp(min=0))

    # One row per item that is given: its beam, and its number within the SID.
    beam_of, number = sid_trie.spread(counts.flatten())
    users, columns = beam_of // counts.shape[1], before.flatten()[beam_of] + number
    scores = torch.full((len(known), k), -torch.inf, device=trie.device)
    items = torch.full((len(known), k), -1, dtype=torch.int64, device=trie.device)
    scores[users, columns] = beams.scores.flatten()[beam_of]
    items[users, columns] = trie.items[first.flatten()[beam_of] + number]
    return ItemLists(scores, items)


class _Scoring(NamedTuple):
    """What all blocks of :func:`exact` share; ``budget`` is tokens of a block, of all its nodes."""

    trie: Trie
    token_scores: TokenScores
    budget: int
    result: Tensor


def _score_descendants(
    scoring: _Scoring, level: int, first: int, scores: Tensor, prefixes: Tensor
) -> None:
    """Fill the result below some nodes of one depth.

    Args:
        scoring: see :class:`_Scoring`.
        level: l, the depth of the nodes.
        first: number of the first node; the others follow it.
        scores: float32 (B, n), of the nodes.
        prefixes: int64 (n, l), of the nodes.
    """
    trie = scoring.trie
    n_rows = max(1, scoring.budget // trie.sizes[level])
    for start in range(0, len(prefixes), n_rows):
        # What each token adds to the nodes of the block.
        block = prefixes[start : start + n_rows]  # (w, l)
        added = scoring.token_scores(level, block.expand(len(scores), -1, -1))  # (B, w, K_l)

        # Their children are adjacent, and in the order of their parents.
        offsets = trie.first_child[level][first + start : first + start + len(block) + 1]
        low, high = int(offsets[0]), int(offsets[-1])
        rows = torch.repeat_interleave(offsets.diff(), output_size=high - low)
        tokens = trie.tokens[level][low:high].long()
        sums = added[:, rows, tokens].float()  # (B, c)
        del added
        sums += scores[:, start + rows]
        _require_numbers(level, sums)

        # A leaf's score is final.
        if level + 1 == trie.n_levels:
            scoring.result[:, low:high] = sums
        else:
            longer = torch.column_stack([block[rows], tokens])
            _score_descendants(scoring, level + 1, low, sums, longer)


def _search_beams(
    trie: Trie,
    token_scores: TokenScores,
    n_users: int,
    width: int,
    k: int,
    best_tokens: Tensor | None,
) -> tuple[Beams, Tensor]:
    """Search; return also what a dropped prefix can reach, float32 (B,), given the best tokens.

    ``best_tokens`` is float32 (B, L), the most that a token of each level adds; without it the
    second value is -inf.
    """
    _require_widths(width, k)
    bounds = torch.full((n_users,), -torch.inf, device=trie.device)
    scores = torch.zeros(n_users, 1, device=trie.device)
    nodes = torch.zeros(n_users, 1, dtype=torch.int64, device=trie.device)
    prefixes = torch.empty(n_users, 1, 0, dtype=torch.int64, device=trie.device)
    for level in range(trie.n_levels):
        # The children of all beams, each user's in lexicographic order: beams are in that order.
        added = token_scores(level, prefixes)  # (B, W, K_l)
        parents, children = _children(trie, level, nodes)  # (B, c), -1 after the last
        is_child = children >= 0
        tokens = trie.tokens[level][children.clamp(min=0)].long()
        users = torch.arange(n_users, device=trie.device).unsqueeze(1)
        sums = scores.gather(1, parents) + added[users, parents, tokens].float()
        del added
        sums.masked_fill_(~is_child, -torch.inf)
        _require_numbers(level, sums)

        # Keep the best, still in lexicographic order. Every node has a child, so all users have the
        # same number of beams and none keeps a -1. What is dropped at the last level is worse.
        is_last = level + 1 == trie.n_levels
        columns = _highest(sums, min(k if is_last else width, sums.shape[1]))
        if best_tokens is not None and not is_last:
            dropped = sums.scatter(1, columns, -torch.inf).amax(dim=1)
            for later in range(level + 1, trie.n_levels):
                dropped = dropped + best_tokens[:, later]
            bounds = torch.maximum(bounds, dropped)
        scores, nodes = sums.gather(1, columns), children.gather(1, columns)
        prefixes = torch.cat(
            [_rows(prefixes, parents.gather(1, columns)), tokens.gather(1, columns).unsqueeze(2)],
            dim=2,
        )

    return _ranked(scores, nodes, k), bounds


def _ranked(scores: Tensor, sids: Tensor, k: int) -> Beams:
    """Sort the SIDs of each user, best first, and fill up to k; ties stay in their order."""
    scores, order = scores.sort(dim=1, descending=True, stable=True)
    missing = k - scores.shape[1]
    scores = torch.nn.functional.pad(scores, (0, missing), value=-torch.inf)
    return Beams(scores, torch.nn.functional.pad(sids.gather(1, order), (0, missing), value=-1))


def _children(trie: Trie, level: int, nodes: Tensor) -> tuple[Tensor, Tensor]:
    """Gather the children of int64 (B, W) nodes: beams and children, int64 (B, c).

    Rows shorter than the longest end in children of -1.
    """
    # Beam and child of every pair, all users in one row: (T,).
    first = trie.first_child[level][nodes]
    counts = trie.first_child[level][nodes + 1] - first
    beam_of, number = sid_trie.spread(counts.flatten())
    users, beams = beam_of // nodes.shape[1], beam_of % nodes.shape[1]

    # One row per user.
    totals = counts.sum(dim=1)
    starts = totals.cumsum(dim=0) - totals
    columns = torch.arange(len(beam_of), device=nodes.device) - starts[users]
    shape = (len(nodes), int(totals.max()) if len(nodes) else 0)
    parents = torch.zeros(shape, dtype=torch.int64, device=nodes.device)
    children = torch.full(shape, -1, dtype=torch.int64, device=nodes.device)
    parents[users, columns] = beams
    children[users, columns] = first.flatten()[beam_of] + number
    return parents, children


def _highest(scores: Tensor, n: int) -> Tensor:
    """Columns of the ``n`` highest of each row of (B, c), ascending; of equal scores the first.

    The order of equal values in ``topk`` differs between devices, so it gives the n-th value alone.
    """
    if n == scores.shape[1]:
        return torch.arange(n, device=scores.device).expand(len(scores), -1)
    lowest = scores.topk(n, dim=1).values[:, -1:]
    above, equal = scores > lowest, scores == lowest
    room = n - above.sum(dim=1, keepdim=True)
    kept = above | (equal & (equal.cumsum(dim=1) <= room))
    return kept.nonzero()[:, 1].view(len(scores), n)


def _rows(prefixes: Tensor, rows: Tensor) -> Tensor:
    """Rows (B, n) of prefixes (B, W, l): (B, n, l)."""
    return prefixes.gather(1, rows.unsqueeze(2).expand(-1, -1, prefixes.shape[2]))


def _constant_scores(additive: list[Tensor]) -> TokenScores:
    """Token scores that are the same after every prefix; a view, not a copy per beam."""

    def token_scores(level: int, prefixes: Tensor) -> Tensor:
        return additive[level].unsqueeze(1).expand(-1, prefixes.shape[1], -1)

    return token_scores


def _covers(trie: Trie, width: int) -> bool:
    """Whether so many beams have so many children that scoring all SIDs costs less (measured)."""
    return CHILD_COST * width * max(trie.sizes) >= trie.n_sids


def _groups(users: Tensor, bytes_per_user: int) -> Iterator[tuple[int, Tensor]]:
    """Cut users (n,) into groups that take up to SEARCH_BYTES; yield the start of each, and it."""
    n_rows = max(1, SEARCH_BYTES // bytes_per_user)
    for start in range(0, len(users), n_rows):
        yield start, users[start : start + n_rows]


def _require_widths(width: int, k: int) -> None:
    if not 1 <= k <= width:
        raise SidmillError(f"{k} answers from {width} beams: ask for at least 1, at most the beams")


def _require_numbers(level: int, scores: Tensor) -> None:
    if scores.isnan().any():
        raise SidmillError(
            f"token scores of level {level} are NaN: the weights of the model are not finite or "
            f"too large; train it again with a lower learning rate"
        )
