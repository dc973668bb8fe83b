"""Prices on codewords that keep them from crowding: balanced k-means without an N x K plan.

Shapes: n training rows, D dimensions, K codewords, b rows of one block.

A row takes the codeword of the lowest ``distance^2 + price``. Prices are the dual variables of a
transport problem, so K numbers stand for the whole assignment, and an item that comes later follows
the same rule. ``capacity`` asks of a codeword only that it has at most ``max_load`` times the mean
load: where it has more, its price rises by what makes just the rows too many leave, as in an
auction, https://web.mit.edu/dimitrib/www/Auction_Encycl.pdf. ``sinkhorn`` evens the loads out: it
starts from the column scalings of Sinkhorn-Knopp at a falling temperature,
https://arxiv.org/abs/1306.0895, which give every codeword the same mass of shared-out rows, and
goes on as ``capacity`` does, for whole rows, with a limit close to 1.

Prices alone would push a dense group from codeword to codeword as one, so crowded clusters are
first split, and paid for by merges of small ones.

Rows that are equal share a codeword at any price: more of them than a codeword may hold keep the
limit from being met, and the figures say so.
"""

import logging
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch

from sidmill import torch_search
from sidmill.quantize import clusters as clustering
from sidmill.quantize import rows, swaps
from sidmill.quantize.rows import Source
from sidmill.torch_search import Piece

logger = logging.getLogger(__name__)

SPLIT_ABOVE = 1.5  # loads over the mean that are split, at least: merges need the room between
SPLIT_ROUNDS = 12  # each may halve a crowded cluster
COOLING_STEPS = 8  # sinkhorn: temperatures, from the spread of the costs ...
COLDEST = 0.125  # ... down to this share of the mean gap between a row's two lowest
ROUNDS_AT_HEAT = 6  # over the sample at each temperature
AUCTION_ROUNDS = 40  # capacity: over the sample at most
CENTRING_PASSES = 4  # over all training rows, words and prices moving
AIM = 0.98  # of the limit: rows that leave one codeword crowd the next
PRICE_PASSES = 16  # at most, the words at rest
EVEN = 1.1  # sinkhorn: loads below this share of the mean are even enough


class Balanced(NamedTuple):
    """A codebook with prices, and what they cost."""

    words: np.ndarray  # float32 (K, D)
    prices: np.ndarray  # float32 (K,), the lowest is 0
    facts: dict  # mse and largest load over the mean, both before and after


class _Tally(NamedTuple):
    """What a pass over rows finds."""

    codes: torch.Tensor  # int64 (n,)
    slack: torch.Tensor  # float32 (n,), what the second lowest cost of a row has more
    loads: torch.Tensor  # int64 (K,), rows of each codeword
    mass: torch.Tensor  # float64 (K,), the same with rows shared out by temperature
    sums: torch.Tensor  # float64 (K, D)
    error: float  # sum of squared distances
    spread: float  # mean over rows of mean cost less lowest cost


def settle(
    source: Source,
    words: torch.Tensor,
    sample: torch.Tensor,
    generator: torch.Generator,
    mode: str,
    max_load: float,
) -> Balanced:
    """Find prices, and move the words to the means of the rows they then have.

    Memory: one block with its scores twice, the words in float64, and 12 bytes per training row.

    Args:
        source: the training rows.
        words: float32 (K, D), fitted without prices.
        sample: float32 (m, D), training rows in memory.
        generator: a CPU generator, for the directions of splits.
        mode: ``sinkhorn`` or ``capacity``.
        max_load: the largest load over the mean that ``capacity`` allows, above 1.
    """
    n_rows, n_codes = rows.count(source), len(words)
    spare = torch.empty(source.block_rows * n_codes, device=source.device)
    limit = EVEN if mode == "sinkhorn" else max_load

    def look(words: torch.Tensor, prices: torch.Tensor) -> _Tally:
        return _tally((block for _, block in rows.blocks(source)), words, prices, 0.0, spare)

    before = look(words, torch.zeros(n_codes, device=source.device))
    cold = COLDEST * max(float(before.slack.mean()), torch.finfo(torch.float32).tiny)
    words = _relieve(sample, words, source.block_rows, limit, generator, spare)
    parts = sample.split(source.block_rows)
    if mode == "sinkhorn":
        prices = _cool(parts, words, before.spread, cold, spare)
    else:
        prices = _bid(parts, words, limit, spare)
    for _ in range(CENTRING_PASSES):
        seen = look(words, prices)
        means = (seen.sums / seen.loads.clamp(min=1)[:, None]).to(torch.float32)
        words = torch.where(seen.loads[:, None] > 0, means, words)
        prices = _raise(prices, seen, limit)
    best = seen = look(words, prices)
    best_prices = prices
    for _ in range(PRICE_PASSES):
        if best.loads.max() <= limit * n_rows / n_codes:
            break
        prices = _raise(prices, seen, limit)
        seen = look(words, prices)
        if seen.loads.max() < best.loads.max():
            best, best_prices = seen, prices
    facts = _facts(before, best, words.shape[1])
    logger.info("balanced by %s: %s", mode, facts)
    if mode == "capacity" and facts["max_load_after"] > max_load:
        logger.warning(
            "the largest load is %.3f times the mean, above rqkmeans.max_load %.3f: are there many "
            "equal vectors? A higher limit is met more easily",
            facts["max_load_after"],
            max_load,
        )
    return Balanced(words.cpu().numpy(), best_prices.cpu().numpy(), facts)


def _relieve(
    sample: torch.Tensor,
    words: torch.Tensor,
    step: int,
    limit: float,
    generator: torch.Generator,
    spare: torch.Tensor,
) -> torch.Tensor:
    """Split crowded clusters of a sample until there are none: float32 (K, D)."""
    room = max(limit, SPLIT_ABOVE) * len(sample) / len(words)
    clusters = clustering.empty(words)
    parts = [[Piece(0, part)] for part in sample.split(step)]
    codes = torch.cat([clustering.visit(clusters, part, None, False, [spare]) for part in parts])
    for _ in range(SPLIT_ROUNDS):
        codes, n_pairs = swaps.relieve(clusters, sample, codes, step, generator, room)
        if not n_pairs:
            break
        both = zip(parts, codes.split(step), strict=True)
        codes = torch.cat([clustering.visit(clusters, *part, False, [spare]) for part in both])
        clustering.centre(clusters)
    return clusters.words


def _cool(
    parts: tuple[torch.Tensor, ...],
    words: torch.Tensor,
    hot: float,
    cold: float,
    spare: torch.Tensor,
) -> torch.Tensor:
    """Sinkhorn's scalings on a sample, from a high temperature to a low one: float32 (K,)."""
    prices = torch.zeros(len(words), device=words.device)
    for heat in np.geomspace(max(hot, cold), cold, COOLING_STEPS).tolist():
        for _ in range(ROUNDS_AT_HEAT):
            prices = _scale(prices, _tally(parts, words, prices, heat, spare), heat)
    return prices


def _bid(
    parts: tuple[torch.Tensor, ...],
    words: torch.Tensor,
    limit: float,
    spare: torch.Tensor,
) -> torch.Tensor:
    """Rounds of an auction on a sample, until no codeword has too many rows: float32 (K,)."""
    prices = torch.zeros(len(words), device=words.device)
    for _ in range(AUCTION_ROUNDS):
        seen = _tally(parts, words, prices, 0.0, spare)
        if seen.loads.max() <= limit * len(seen.codes) / len(words):
            break
        prices = _raise(prices, seen, limit)
    return prices


def _scale(prices: torch.Tensor, seen: _Tally, heat: float) -> torch.Tensor:
    """One column scaling: every codeword gets the same mass."""
    wanted = len(seen.codes) / len(prices)
    after = prices + heat * torch.log(seen.mass.clamp(min=1e-300) / wanted).to(prices)
    return after - after.min()


def _raise(prices: torch.Tensor, seen: _Tally, limit: float) -> torch.Tensor:
    """Raise the price of each crowded codeword to where the rows too many would rather leave."""
    room = max(1, int(AIM * limit * len(seen.codes) / len(prices)))
    by_slack = torch.sort(seen.slack, stable=True).indices
    order = by_slack[torch.sort(seen.codes[by_slack], stable=True).indices]  # by code, then slack
    first = torch.cumsum(seen.loads, dim=0) - seen.loads
    crowded = (seen.loads > room).nonzero()[:, 0]
    last_to_leave = order[first[crowded] + seen.loads[crowded] - room - 1]
    prices = prices.clone()
    raised = prices[crowded] + seen.slack[last_to_leave]
    prices[crowded] = torch.nextafter(raised, torch.full_like(raised, torch.inf))
    return prices


def _tally(
    parts: Iterable[torch.Tensor],
    words: torch.Tensor,
    prices: torch.Tensor,
    heat: float,
    spare: torch.Tensor,
) -> _Tally:
    """Assign rows; with a ``heat`` above 0, share them out among the codewords as well."""
    n_codes = len(words)
    halves = (torch_search.square_norms(words) + prices) / 2
    loads = torch.zeros(n_codes, dtype=torch.int64, device=words.device)
    mass = torch.zeros(n_codes, dtype=torch.float64, device=words.device)
    sums = torch.zeros_like(words, dtype=torch.float64)
    error = spread = 0.0
    all_codes, slacks = [], []
    for block in parts:
        scores = torch_search.score(block, words, halves, spare)  # (b, K), half of the costs
        codes = torch_search.lowest(scores)
        lines = torch.arange(len(block), device=block.device)
        lowest = scores[lines, codes]
        apart = torch_search.square_norms(block) + 2 * lowest - prices[codes]
        error += float(apart.clamp_(min=0).sum(dtype=torch.float64))
        spread += 2 * float((scores.mean(dim=1) - lowest).sum(dtype=torch.float64))
        if heat:
            mass += (scores * (-2 / heat)).softmax(dim=1).sum(dim=0, dtype=torch.float64)
        scores[lines, codes] = torch.inf
        slacks.append(2 * (scores.amin(dim=1) - lowest) if n_codes > 1 else torch.zeros_like(apart))
        all_codes.append(codes)
        loads += torch.bincount(codes, minlength=n_codes)
        sums += clustering.add_rows(torch.zeros_like(words), block, codes)
    codes, slack = torch.cat(all_codes), torch.cat(slacks)
    return _Tally(codes, slack, loads, mass, sums, error, spread / len(codes))


def _facts(before: _Tally, after: _Tally, dim: int) -> dict:
    """The cost and the gain of balance on the training rows, as JSON."""
    n_rows, n_codes = len(before.codes), len(before.loads)
    return {
        "mse_before": before.error / n_rows / dim,
        "mse_after": after.error / n_rows / dim,
        "max_load_before": int(before.loads.max()) * n_codes / n_rows,
        "max_load_after": int(after.loads.max()) * n_codes / n_rows,
    }
