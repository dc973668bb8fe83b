"""Prices on codewords that limit their loads: balanced k-means without an N x K plan.

Shapes: n training rows, D dimensions, K codewords, b rows of one block.

A row takes the codeword of the lowest ``distance^2 + price``. Prices are the dual variables of a
transport problem, so K numbers determine the whole assignment, and a new item follows the same
rule. ``capacity`` asks of a codeword only that it has at most ``max_load`` times the mean load:
where it has more, its price rises until just the surplus rows leave, as in an auction,
https://web.mit.edu/dimitrib/www/Auction_Encycl.pdf. ``sinkhorn`` evens the loads out: it
starts from the column scalings of Sinkhorn-Knopp at a falling temperature,
https://arxiv.org/abs/1306.0895, which give every codeword the same mass of fractional rows, and
continues as ``capacity`` does, for whole rows, with a limit close to 1.

Prices alone would move a dense group as one from codeword to codeword, so crowded clusters are
split first; merges of small clusters free the codewords for it.

Equal rows share a codeword at any price: if there are more of them than the limit, the limit is not
met, and the figures show it.
"""

import logging
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch

from sidmill.numeric import arrays, mlp, nearest_torch
from sidmill.numeric.row_pieces import Piece
from sidmill.quantize import lloyd, residual_rows, split_merge
from sidmill.quantize.residual_rows import Source
from sidmill.settings.quantize import Rqkmeans

logger = logging.getLogger(__name__)

SPLIT_ABOVE = 1.5  # loads over the mean that are split, at least: merges need the room between
SPLIT_ROUNDS = 12  # each may halve a crowded cluster
COOLING_STEPS = 8  # sinkhorn: temperatures, from the spread of the costs ...
COLDEST = 0.125  # ... down to this share of the mean gap between a row's two lowest
ROUNDS_PER_TEMPERATURE = 6  # over the sample at each temperature
AUCTION_ROUNDS = 40  # capacity: over the sample at most
CENTRING_PASSES = 4  # over all training rows; codewords and prices move
AIM = 0.98  # of the limit: rows that leave one codeword fill the next
PRICE_PASSES = 16  # at most; codewords are fixed
SAFE = 4  # divisor of the search margin: beyond the quotient hardly a row changes its code
EVEN = 1.1  # sinkhorn: loads below this share of the mean are even enough


class Balanced(NamedTuple):
    """A codebook with prices, and what they cost."""

    codewords: np.ndarray  # float32 (K, D)
    prices: np.ndarray  # float32 (K,), the lowest is 0
    facts: dict[str, Any]  # mse and largest load over the mean, both before and after


class _Assignment(NamedTuple):
    """The codeword of each row, and the price rise at which the row leaves it."""

    codes: torch.Tensor  # int32 (n,)
    gaps: torch.Tensor  # float32 (n,), the row leaves if its codeword's price rises by more
    loads: torch.Tensor  # int64 (K,), rows of each codeword


class _SamplePass(NamedTuple):
    """The result of a pass over a sample."""

    assignment: _Assignment
    mass: torch.Tensor  # float64 (K,), fractional rows at the temperature
    mean_gap: float  # mean over rows of second lowest cost minus lowest cost
    spread: float  # mean over rows of mean cost minus lowest cost


class _State(NamedTuple):
    """A codebook with prices, and the assignment of all training rows by the codec's rule."""

    codewords: torch.Tensor  # float32 (K, D)
    prices: torch.Tensor  # float32 (K,)
    assignment: _Assignment
    sums: torch.Tensor  # float64 (K, D), of the rows of each codeword
    error: float  # sum of squared distances


def balance(
    source: Source,
    codewords: torch.Tensor,
    sample: torch.Tensor,
    generator: torch.Generator,
    settings: Rqkmeans,
) -> Balanced:
    """Find prices of codewords that limit loads; move codewords to the means of their rows.

    Of all states, the one without prices included, the state with the lowest maximum load is
    returned. Among states within the limit, and not above the load without prices, it is the one
    with the lowest error. So the largest load never rises. Loads and errors are those of the
    codes that the codec gives.

    Memory: one block with its scores three times, the codewords five times in float64, and about 40
    bytes per training row (60 on a GPU).

    Args:
        source: the training rows.
        codewords: float32 (K, D), fitted without prices.
        sample: float32 (m, D), training rows in memory.
        generator: a CPU generator, for the directions of splits.
        settings: ``balance``, which is ``sinkhorn`` or ``capacity``, and ``max_load``.
    """
    n_rows, n_codes = residual_rows.count(source), len(codewords)
    buffer = torch.empty(source.block_rows * n_codes, device=source.device)
    mode = settings.balance
    limit = EVEN if mode == "sinkhorn" else settings.max_load
    max_rows = _max_rows(limit, n_rows, n_codes)
    blocks = sample.split(source.block_rows)  # type: ignore[no-untyped-call]
    no_prices = torch.zeros(n_codes, device=source.device)

    def objective(state: _State) -> tuple[float, float]:
        return max(load_goal, int(state.assignment.loads.max())), state.error

    def solve(codewords: torch.Tensor) -> torch.Tensor:
        # Prices of a sample guide the passes over all rows, so a GPU may round their products.
        with mlp.products("ieee", "tf32"):
            if mode == "capacity":
                return _run_auction(blocks, codewords, limit, buffer)
            return _anneal(blocks, codewords, sample_pass.spread, lowest_temperature, buffer)

    # The codebook without prices: no result may be worse.
    best = _assign_all(source, codewords, no_prices, buffer)
    before = _cost(best, source)
    # A lower load than this is not worth a higher error.
    load_goal = min(max_rows, int(best.assignment.loads.max()))
    sample_pass = _assign_sample(blocks, codewords, no_prices, 0.0, buffer)
    lowest_temperature = COLDEST * max(sample_pass.mean_gap, torch.finfo(torch.float32).tiny)

    # First prices from the sample; then codewords and prices move in turn, over all rows.
    codewords = _split_crowded(sample, codewords, source.block_rows, limit, generator, buffer)
    state = _assign_all(source, codewords, solve(codewords), buffer)
    best = min(best, state, key=objective)
    for _ in range(CENTRING_PASSES):
        codewords = _means(state)
        after = _assign_all(
            source, codewords, _raise_prices(state.prices, state.assignment, limit), buffer
        )
        if int(after.assignment.loads.max()) > max(max_rows, int(state.assignment.loads.max())):
            # A codeword of few rows moved into a dense group, and its price is still low.
            priced = _assign_all(source, codewords, solve(codewords), buffer)
            after = min(after, priced, key=objective)
        state = after
        best = min(best, state, key=objective)

    # Fix the codewords, and raise the prices of those above the limit.
    state = best
    for _ in range(PRICE_PASSES):
        if best.assignment.loads.max() <= max_rows:
            break
        prices = _raise_prices(state.prices, state.assignment, limit)
        state = _assign_all(source, state.codewords, prices, buffer)
        best = min(best, state, key=objective)
    facts = {f"{name}_before": value for name, value in before.items()}
    facts |= {f"{name}_after": value for name, value in _cost(best, source).items()}
    logger.info("balanced by %s: %s", mode, facts)
    _warn_above(limit, best, mode, before["max_load"], n_rows)
    return Balanced(best.codewords.cpu().numpy(), best.prices.cpu().numpy(), facts)


def _rows_within(limit: float, n_rows: int, n_codes: int) -> int:
    """Rows of a codeword that a limit over the mean allows."""
    return int(limit * n_rows / n_codes + 1e-9)  # 1.15 times 20 is a little less than 23


def _max_rows(limit: float, n_rows: int, n_codes: int) -> int:
    """Most rows of a codeword: what the limit allows, or the lowest that an assignment can have."""
    return max(-(-n_rows // n_codes), _rows_within(limit, n_rows, n_codes))


def _warn_above(limit: float, state: _State, mode: str, before: float, n_rows: int) -> None:
    """Warn that a limit is not met, with the likely reason."""
    max_load, n_codes = int(state.assignment.loads.max()), len(state.codewords)
    if max_load <= _max_rows(limit, n_rows, n_codes) and mode == "sinkhorn":
        return
    if max_load <= _rows_within(limit, n_rows, n_codes):
        return

    # Find the likely reason: equal rows, or a mean that is no whole number.
    reason = (
        "are there many equal vectors? They share a codeword at any price, and so do vectors that "
        "lie much closer to each other than to all others"
    )
    lowest_load = -(-n_rows // n_codes)
    if max_load == lowest_load:
        reason = f"{n_rows} vectors on {n_codes} codewords cannot be spread more evenly"
    if mode == "capacity":
        met = math.ceil(1000 * before) / 1000
        reason += f". On this level a rqkmeans.max_load of {met:.3f} is met without prices"
    logger.warning(
        "the largest load is %.3f times the mean, above the %.3f %s: %s",
        max_load * n_codes / n_rows,
        limit,
        "of rqkmeans.max_load" if mode == "capacity" else "that sinkhorn aims at",
        reason,
    )


def _assign_all(
    source: Source, codewords: torch.Tensor, prices: torch.Tensor, buffer: torch.Tensor
) -> _State:
    """Assign every training row as the codec does."""
    n_rows, n_codes, device = residual_rows.count(source), len(codewords), source.device

    # The codebook with its prices, and sums over its rows.
    level = nearest_torch.search_level(codewords.cpu().numpy(), device, prices.cpu().numpy())
    codes = torch.empty(n_rows, dtype=torch.int32, device=device)
    gaps = torch.empty(n_rows, device=device)
    loads = torch.zeros(n_codes, dtype=torch.int64, device=device)
    sums = torch.zeros_like(codewords, dtype=torch.float64)
    error = 0.0

    # Search block by block; keep the gap of each row.
    for span, block in residual_rows.blocks(source):
        with mlp.exact_products():
            proposed = nearest_torch.propose(block, level, buffer)
        rounding = torch.from_numpy(nearest_torch.margins(proposed, block, level)).to(device)
        # Scores are half costs; two that differ by rounding alone count as equal.
        gaps[span] = 2 * ((proposed.second - proposed.best) + rounding / SAFE)
        labels = nearest_torch.decide(proposed, block, level)
        codes[span] = labels.to(torch.int32)
        loads += torch.bincount(labels, minlength=n_codes)
        sums += arrays.add_rows(torch.zeros_like(codewords), block, labels)
        differences = block - level.codewords.index_select(0, labels)
        error += float(differences.square_().sum(dtype=torch.float64))
    return _State(codewords, prices, _Assignment(codes, gaps, loads), sums, error)


def _means(state: _State) -> torch.Tensor:
    """Means of the rows of each codeword, float32 (K, D); a codeword without rows stays."""
    loads = state.assignment.loads[:, None]
    means = (state.sums / loads.clamp(min=1)).to(torch.float32)
    return torch.where(loads > 0, means, state.codewords)


def _split_crowded(
    sample: torch.Tensor,
    codewords: torch.Tensor,
    step: int,
    limit: float,
    generator: torch.Generator,
    buffer: torch.Tensor,
) -> torch.Tensor:
    """Split the crowded clusters of a sample until none is left: float32 (K, D)."""
    max_rows = max(limit, SPLIT_ABOVE) * len(sample) / len(codewords)
    clusters = lloyd.empty(codewords)
    pieces = [[Piece(0, rows)] for rows in sample.split(step)]  # type: ignore[no-untyped-call]
    codes = torch.cat([lloyd.visit(clusters, piece, None, False, [buffer]) for piece in pieces])
    for _ in range(SPLIT_ROUNDS):
        codes, n_pairs = split_merge.split_crowded(
            clusters, sample, codes, step, generator, max_rows
        )
        if not n_pairs:
            break
        with_codes = zip(pieces, arrays.split(codes, step), strict=True)
        codes = torch.cat([lloyd.visit(clusters, *pair, False, [buffer]) for pair in with_codes])
        lloyd.centre(clusters)
    found: torch.Tensor = clusters.centroids
    return found


def _anneal(
    blocks: tuple[torch.Tensor, ...],
    codewords: torch.Tensor,
    highest_temperature: float,
    lowest_temperature: float,
    buffer: torch.Tensor,
) -> torch.Tensor:
    """Sinkhorn's scalings on a sample, from a high temperature to a low one: float32 (K,)."""
    prices = torch.zeros(len(codewords), device=codewords.device)
    highest_temperature = max(highest_temperature, lowest_temperature)
    temperatures = np.geomspace(highest_temperature, lowest_temperature, COOLING_STEPS)
    for temperature in temperatures.tolist():
        for _ in range(ROUNDS_PER_TEMPERATURE):
            measured = _assign_sample(blocks, codewords, prices, temperature, buffer)
            prices = _scale(prices, measured, temperature)
    return prices


def _run_auction(
    blocks: tuple[torch.Tensor, ...],
    codewords: torch.Tensor,
    limit: float,
    buffer: torch.Tensor,
) -> torch.Tensor:
    """Rounds of an auction on a sample, until no codeword has too many rows: float32 (K,)."""
    prices = best = torch.zeros(len(codewords), device=codewords.device)
    lowest_load = torch.inf
    for _ in range(AUCTION_ROUNDS):
        assignment = _assign_sample(blocks, codewords, prices, 0.0, buffer).assignment
        if assignment.loads.max() < lowest_load:
            best, lowest_load = prices, int(assignment.loads.max())
        if lowest_load <= _max_rows(limit, len(assignment.codes), len(codewords)):
            break
        prices = _raise_prices(prices, assignment, limit)
    return best


def _scale(prices: torch.Tensor, sample_pass: _SamplePass, temperature: float) -> torch.Tensor:
    """One column scaling: every codeword gets the same mass."""
    mass_per_codeword = len(sample_pass.assignment.codes) / len(prices)
    excess = torch.log(sample_pass.mass.clamp(min=1e-300) / mass_per_codeword)
    after = prices + temperature * excess.to(prices)
    return after - after.min()


def _raise_prices(prices: torch.Tensor, assignment: _Assignment, limit: float) -> torch.Tensor:
    """Raise the price of each crowded codeword until its surplus rows leave."""
    max_rows = _max_rows(AIM * limit, len(assignment.codes), len(prices))
    is_crowded = assignment.loads > max_rows
    if not is_crowded.any():
        return prices

    # Sort the rows of crowded codewords by code, then by gap. The bits of a float that is not
    # negative are in the order of its value, so one integer holds both.
    is_selected = is_crowded.index_select(0, assignment.codes)
    keys = assignment.codes[is_selected].to(torch.int64) << 32
    keys |= assignment.gaps[is_selected].view(torch.int32)
    if keys.device.type == "cpu":
        keys.numpy().sort()  # in place
    else:
        keys = torch.sort(keys).values
    loads = assignment.loads[is_crowded]
    last_gap = keys[torch.cumsum(loads, dim=0) - max_rows - 1] & (2**32 - 1)
    rise = last_gap.to(torch.int32).view(torch.float32)

    # A row without an alternative stays: all other codewords repeat its own.
    raised = prices[is_crowded] + torch.where(rise.isfinite(), rise, 0.0)
    prices = prices.clone()
    prices[is_crowded] = torch.nextafter(raised, torch.full_like(raised, torch.inf))
    return prices


def _assign_sample(
    blocks: Iterable[torch.Tensor],
    codewords: torch.Tensor,
    prices: torch.Tensor,
    temperature: float,
    buffer: torch.Tensor,
) -> _SamplePass:
    """Assign rows; with a ``temperature`` above 0, distribute them over the codewords as well."""
    # Half of the norms and prices, and sums over the rows.
    n_codes = len(codewords)
    halves = (arrays.square_norms(codewords) + prices) / 2
    loads = torch.zeros(n_codes, dtype=torch.int64, device=codewords.device)
    mass = torch.zeros(n_codes, dtype=torch.float64, device=codewords.device)
    spread = 0.0
    all_codes, gap_blocks = [], []

    # Assign block by block: lowest cost, second lowest, and shares at the temperature.
    for block in blocks:
        scores = nearest_torch.score(block, codewords, halves, buffer)  # (b, K), half of the costs
        codes = nearest_torch.lowest(scores)
        rows = torch.arange(len(block), device=block.device)
        lowest = scores[rows, codes]
        spread += 2 * float((scores.mean(dim=1) - lowest).sum(dtype=torch.float64))
        if temperature:
            mass += (scores * (-2 / temperature)).softmax(dim=1).sum(dim=0, dtype=torch.float64)
        scores[rows, codes] = torch.inf
        gap_blocks.append(2 * (scores.amin(dim=1) - lowest) if n_codes > 1 else lowest * 0)
        all_codes.append(codes.to(torch.int32))
        loads += torch.bincount(codes, minlength=n_codes)
    codes, gaps = torch.cat(all_codes), torch.cat(gap_blocks)
    return _SamplePass(
        _Assignment(codes, gaps, loads), mass, float(gaps.mean()), spread / len(codes)
    )


def _cost(state: _State, source: Source) -> dict[str, float]:
    """The mean squared error of unscaled values, and the largest load over the mean."""
    n_rows, n_codes = residual_rows.count(source), len(state.codewords)
    n_values = n_rows * source.vectors.shape[1]
    return {
        "mse": state.error / n_values / source.scale**2,
        "max_load": int(state.assignment.loads.max()) * n_codes / n_rows,
    }
