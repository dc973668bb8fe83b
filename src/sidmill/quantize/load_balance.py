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
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch

from sidmill.numeric import mlp, nearest_torch
from sidmill.numeric.nearest_torch import Piece
from sidmill.quantize import lloyd, residual_rows, split_merge
from sidmill.quantize.residual_rows import Source
from sidmill.settings.quantize import Rqkmeans

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
SAFE = 4  # of a search's margin one part in so many: hardly a row is decided otherwise beyond it
EVEN = 1.1  # sinkhorn: loads below this share of the mean are even enough


class Balanced(NamedTuple):
    """A codebook with prices, and what they cost."""

    words: np.ndarray  # float32 (K, D)
    prices: np.ndarray  # float32 (K,), the lowest is 0
    facts: dict[str, Any]  # mse and largest load over the mean, both before and after


class _Tally(NamedTuple):
    """What a pass over a sample finds."""

    seen: "_Seen"
    mass: torch.Tensor  # float64 (K,), rows shared out by temperature
    slack: float  # mean over rows of what the second lowest cost has more
    spread: float  # mean over rows of mean cost less lowest cost


class _Seen(NamedTuple):
    """Which codeword each row has, and what it takes to leave it."""

    codes: torch.Tensor  # int32 (n,)
    leaves: torch.Tensor  # float32 (n,), a rise of the own price by more than this
    loads: torch.Tensor  # int64 (K,), rows of each codeword


class _State(NamedTuple):
    """A codebook with prices, and how it serves all training rows by the codec's own rule."""

    words: torch.Tensor  # float32 (K, D)
    prices: torch.Tensor  # float32 (K,)
    seen: _Seen
    sums: torch.Tensor  # float64 (K, D), of the rows of each codeword
    error: float  # sum of squared distances


def settle(
    source: Source,
    words: torch.Tensor,
    sample: torch.Tensor,
    generator: torch.Generator,
    settings: Rqkmeans,
) -> Balanced:
    """Find prices, and move the words to the means of the rows they then have.

    Of all codebooks and prices on the way, the unpriced ones included, those are returned whose
    largest load is least; among those within the limit, and not above the load without prices,
    the ones of the least error. So the largest load never rises. Loads and errors are those of the
    codes that the codec gives.

    Memory: one block with its scores three times, the words five times in float64, and about 40
    bytes per training row (60 on a GPU).

    Args:
        source: the training rows.
        words: float32 (K, D), fitted without prices.
        sample: float32 (m, D), training rows in memory.
        generator: a CPU generator, for the directions of splits.
        settings: ``balance``, which is ``sinkhorn`` or ``capacity``, and ``max_load``.
    """
    n_rows, n_codes = residual_rows.count(source), len(words)
    spare = torch.empty(source.block_rows * n_codes, device=source.device)
    mode = settings.balance
    limit = EVEN if mode == "sinkhorn" else settings.max_load
    full = _room(limit, n_rows, n_codes)
    parts = sample.split(source.block_rows)  # type: ignore[no-untyped-call]
    free = torch.zeros(n_codes, device=source.device)

    def worth(state: _State) -> tuple[float, float]:
        return max(enough, int(state.seen.loads.max())), state.error

    def solve(words: torch.Tensor) -> torch.Tensor:
        if mode == "capacity":
            return _bid(parts, words, limit, spare)
        return _cool(parts, words, sampled.spread, cold, spare)

    # The codebook as it is: what nothing may fall behind.
    best = _look(source, words, free, spare)
    before = _cost(best, source)
    enough = min(full, int(best.seen.loads.max()))  # a largest load below it is worth no error
    sampled = _tally(parts, words, free, 0.0, spare)
    cold = COLDEST * max(sampled.slack, torch.finfo(torch.float32).tiny)

    # First prices, found on the sample; then words and prices move in turn, over all rows.
    words = _relieve(sample, words, source.block_rows, limit, generator, spare)
    state = _look(source, words, solve(words), spare)
    best = min(best, state, key=worth)
    for _ in range(CENTRING_PASSES):
        words = _means(state)
        after = _look(source, words, _raise(state.prices, state.seen, limit), spare)
        if int(after.seen.loads.max()) > max(full, int(state.seen.loads.max())):
            # A word of few rows has moved into a crowd, at the low price of the place it left.
            priced = _look(source, words, solve(words), spare)
            after = min(after, priced, key=worth)
        state = after
        best = min(best, state, key=worth)

    # The words rest, and the prices of what is still crowded rise.
    state = best
    for _ in range(PRICE_PASSES):
        if best.seen.loads.max() <= full:
            break
        prices = _raise(state.prices, state.seen, limit)
        state = _look(source, state.words, prices, spare)
        best = min(best, state, key=worth)
    facts = {f"{name}_before": value for name, value in before.items()}
    facts |= {f"{name}_after": value for name, value in _cost(best, source).items()}
    logger.info("balanced by %s: %s", mode, facts)
    _warn_above(limit, best, mode, before["max_load"], n_rows)
    return Balanced(best.words.cpu().numpy(), best.prices.cpu().numpy(), facts)


def _fitting(limit: float, n_rows: int, n_codes: int) -> int:
    """Rows of a codeword that a limit over the mean allows."""
    return int(limit * n_rows / n_codes + 1e-9)  # 1.15 times 20 is a little less than 23


def _room(limit: float, n_rows: int, n_codes: int) -> int:
    """The most rows of a codeword: what the limit allows, or what no assignment can be below."""
    return max(-(-n_rows // n_codes), _fitting(limit, n_rows, n_codes))


def _warn_above(limit: float, state: _State, mode: str, before: float, n_rows: int) -> None:
    """Say that a limit is not met, and why that may be."""
    most, n_codes = int(state.seen.loads.max()), len(state.words)
    if most <= _room(limit, n_rows, n_codes) and mode == "sinkhorn":
        return
    if most <= _fitting(limit, n_rows, n_codes):
        return

    # Find the likely reason: equal rows, or a mean that is no whole number.
    reason = (
        "are there many equal vectors? They share a codeword at any price, and so do vectors that "
        "lie much closer to each other than to all others"
    )
    least = -(-n_rows // n_codes)
    if most == least:
        reason = f"{n_rows} vectors on {n_codes} codewords cannot be spread more evenly"
    if mode == "capacity":
        met = math.ceil(1000 * before) / 1000
        reason += f". On this level a rqkmeans.max_load of {met:.3f} is met without prices"
    logger.warning(
        "the largest load is %.3f times the mean, above the %.3f %s: %s",
        most * n_codes / n_rows,
        limit,
        "of rqkmeans.max_load" if mode == "capacity" else "that sinkhorn aims at",
        reason,
    )


def _look(source: Source, words: torch.Tensor, prices: torch.Tensor, spare: torch.Tensor) -> _State:
    """Give every training row the code that the codec gives it."""
    n_rows, n_codes, device = residual_rows.count(source), len(words), source.device

    # The codebook with its prices, and sums over its rows.
    level = nearest_torch.search_level(words.cpu().numpy(), device, prices.cpu().numpy())
    codes = torch.empty(n_rows, dtype=torch.int32, device=device)
    leaves = torch.empty(n_rows, device=device)
    loads = torch.zeros(n_codes, dtype=torch.int64, device=device)
    sums = torch.zeros_like(words, dtype=torch.float64)
    error = 0.0

    # Search block by block; keep what it takes each row to leave its codeword.
    for part, block in residual_rows.blocks(source):
        with mlp.exact_products():
            found = nearest_torch.propose(block, level, spare)
        apart = torch.from_numpy(nearest_torch.margins(found, block, level)).to(device)
        # Half costs: twice, and further by what two of them may be apart and still be equal.
        leaves[part] = 2 * ((found.second - found.best) + apart / SAFE)
        own = nearest_torch.decide(found, block, level)
        codes[part] = own.to(torch.int32)
        loads += torch.bincount(own, minlength=n_codes)
        sums += lloyd.add_rows(torch.zeros_like(words), block, own)
        away = block - level.words.index_select(0, own)
        error += float(away.square_().sum(dtype=torch.float64))
    return _State(words, prices, _Seen(codes, leaves, loads), sums, error)


def _means(state: _State) -> torch.Tensor:
    """Means of the rows of each codeword, float32 (K, D); a word without rows stays."""
    loads = state.seen.loads[:, None]
    return torch.where(loads > 0, (state.sums / loads.clamp(min=1)).to(torch.float32), state.words)


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
    clusters = lloyd.empty(words)
    parts = [[Piece(0, part)] for part in sample.split(step)]  # type: ignore[no-untyped-call]
    codes = torch.cat([lloyd.visit(clusters, part, None, False, [spare]) for part in parts])
    for _ in range(SPLIT_ROUNDS):
        codes, n_pairs = split_merge.relieve(clusters, sample, codes, step, generator, room)
        if not n_pairs:
            break
        both = zip(parts, codes.split(step), strict=True)  # type: ignore[no-untyped-call]
        codes = torch.cat([lloyd.visit(clusters, *part, False, [spare]) for part in both])
        lloyd.centre(clusters)
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
    prices = best = torch.zeros(len(words), device=words.device)
    least = torch.inf
    for _ in range(AUCTION_ROUNDS):
        seen = _tally(parts, words, prices, 0.0, spare).seen
        if seen.loads.max() < least:
            best, least = prices, int(seen.loads.max())
        if least <= _room(limit, len(seen.codes), len(words)):
            break
        prices = _raise(prices, seen, limit)
    return best


def _scale(prices: torch.Tensor, tally: _Tally, heat: float) -> torch.Tensor:
    """One column scaling: every codeword gets the same mass."""
    wanted = len(tally.seen.codes) / len(prices)
    after = prices + heat * torch.log(tally.mass.clamp(min=1e-300) / wanted).to(prices)
    return after - after.min()


def _raise(prices: torch.Tensor, seen: _Seen, limit: float) -> torch.Tensor:
    """Raise the price of each crowded codeword to where the rows too many would rather leave."""
    room = _room(AIM * limit, len(seen.codes), len(prices))
    crowded = seen.loads > room
    if not crowded.any():
        return prices

    # Sort the rows of crowded codewords by code, then by what it takes to leave: the bits of a
    # float that is not negative are in the order of its value, so that one number holds both.
    chosen = crowded.index_select(0, seen.codes)
    keys = seen.codes[chosen].to(torch.int64) << 32
    keys |= seen.leaves[chosen].view(torch.int32)
    if keys.device.type == "cpu":
        keys.numpy().sort()  # in place
    else:
        keys = torch.sort(keys).values
    loads = seen.loads[crowded]
    last_to_leave = keys[torch.cumsum(loads, dim=0) - room - 1] & (2**32 - 1)
    rise = last_to_leave.to(torch.int32).view(torch.float32)

    # A row that has nowhere to go, at a codeword whose equals are all repeats of it, stays.
    raised = prices[crowded] + torch.where(rise.isfinite(), rise, 0.0)
    prices = prices.clone()
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
    # Half of the norms and prices, and sums over the rows.
    n_codes = len(words)
    halves = (nearest_torch.square_norms(words) + prices) / 2
    loads = torch.zeros(n_codes, dtype=torch.int64, device=words.device)
    mass = torch.zeros(n_codes, dtype=torch.float64, device=words.device)
    spread = 0.0
    all_codes, slacks = [], []

    # Assign block by block: lowest cost, second lowest, and shares at the temperature.
    for block in parts:
        scores = nearest_torch.score(block, words, halves, spare)  # (b, K), half of the costs
        codes = nearest_torch.lowest(scores)
        lines = torch.arange(len(block), device=block.device)
        lowest = scores[lines, codes]
        spread += 2 * float((scores.mean(dim=1) - lowest).sum(dtype=torch.float64))
        if heat:
            mass += (scores * (-2 / heat)).softmax(dim=1).sum(dim=0, dtype=torch.float64)
        scores[lines, codes] = torch.inf
        slacks.append(2 * (scores.amin(dim=1) - lowest) if n_codes > 1 else lowest * 0)
        all_codes.append(codes.to(torch.int32))
        loads += torch.bincount(codes, minlength=n_codes)
    codes, slack = torch.cat(all_codes), torch.cat(slacks)
    return _Tally(_Seen(codes, slack, loads), mass, float(slack.mean()), spread / len(codes))


def _cost(state: _State, source: Source) -> dict[str, float]:
    """The mean squared error of unscaled values, and the largest load over the mean."""
    n_rows, n_codes = residual_rows.count(source), len(state.words)
    n_values = n_rows * source.vectors.shape[1]
    return {
        "mse": state.error / n_values / source.scale**2,
        "max_load": int(state.seen.loads.max()) * n_codes / n_rows,
    }
