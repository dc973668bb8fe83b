"""First codewords for k-means: k-means++ drawn in batches, without a centroid that takes all.

Shapes: m sample rows, D dimensions, K codewords.

Source: k-means++, https://theory.stanford.edu/~sergei/papers/kMeansPP-soda.pdf. One draw at a time
reads the sample K times; here 64 candidates are drawn at once from the distances as they stand,
measured by one matrix product, and each is kept with the probability ``distance now / distance at
the draw``. That is rejection sampling, so the codewords follow the k-means++ distribution exactly.
"""

import torch

from sidmill.numeric import nearest_torch

BATCH = 64
CROWD = 8  # a first codeword with this many times the mean load is drawn again
CROWD_ROUNDS = 10
LOAD_ROWS = 4  # rows per codeword that loads are counted on


def seed_centroids(
    sample: torch.Tensor, n_codes: int, generator: torch.Generator, step: int
) -> torch.Tensor:
    """Choose rows of the sample as first codewords.

    In many dimensions rows lie further from each other than from their mean, so a row near the
    mean, chosen as a codeword, attracts nearly every other row and k-means cannot leave that
    state. A codeword with more than ``CROWD`` times the mean load is replaced by one of its rows,
    which costs nothing where the load is a dense group of similar rows.

    Args:
        sample: float32 (m, D), m >= ``n_codes``.
        n_codes: K.
        generator: a CPU generator; every draw comes from it.
        step: rows scored at once, (step, K) numbers.

    Returns:
        float32 (K, D).
    """
    chosen = _plus_plus(sample, n_codes, generator)
    centroids = sample[chosen]
    sample = sample[: LOAD_ROWS * n_codes]
    best, codes = _closest(sample, centroids, step)
    for _ in range(CROWD_ROUNDS):
        loads = torch.bincount(codes, minlength=n_codes)
        is_crowded = loads > CROWD * max(1, len(sample) / n_codes)
        replaced = is_crowded.nonzero()[:, 0]
        if not len(replaced):
            break
        for code in replaced.tolist():
            members = (codes == code).nonzero()[:, 0]
            centroids[code] = sample[members[_draw_one(len(members), generator)]]
        stale = is_crowded[codes].nonzero()[:, 0]  # rows whose centroid was replaced: compare all
        # The other rows are compared with the replaced centroids alone.
        score, nearest = _closest(sample, centroids[replaced], step)
        nearer = score > best
        best, codes = (
            torch.where(nearer, score, best),
            torch.where(nearer, replaced[nearest], codes),
        )
        best[stale], codes[stale] = _closest(sample[stale], centroids, step)
    return centroids


def _closest(
    sample: torch.Tensor, centroids: torch.Tensor, step: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Score of the nearest centroid of each row, the higher the nearer, and its index."""
    halves = nearest_torch.square_norms(centroids) / 2
    maxima = [(block @ centroids.T).sub_(halves).max(dim=1) for block in sample.split(step)]  # type: ignore[no-untyped-call]
    return torch.cat([block.values for block in maxima]), torch.cat(
        [block.indices for block in maxima]
    )


def _plus_plus(sample: torch.Tensor, n_codes: int, generator: torch.Generator) -> torch.Tensor:
    norms = nearest_torch.square_norms(sample)
    chosen = [_draw_one(len(sample), generator)]
    distances = _distances(sample, norms, chosen)[:, 0]  # (m,), to the nearest codeword
    while len(chosen) < n_codes:
        distances[chosen] = 0
        cumulated = distances.cpu().double().cumsum(dim=0)  # on a GPU the order of a sum varies
        if not cumulated[-1] > 0:  # every row is a centroid or equal to one: any other rows
            chosen += _not_among(chosen, len(sample), n_codes - len(chosen))
            break

        # Draw a batch of candidates, and measure all rows against it.
        draws = torch.rand(BATCH, 2, generator=generator, dtype=torch.float64)
        positions = torch.searchsorted(cumulated, draws[:, 0] * cumulated[-1])
        candidates = positions.clamp_(max=len(sample) - 1).tolist()
        table = _distances(sample, norms, candidates)  # (m, BATCH)
        distance_at_draw = distances[candidates].tolist()
        thresholds = draws[:, 1].tolist()
        between = table[candidates].tolist()  # (BATCH, BATCH)

        # Accept a candidate by its distance to the centroids of this batch as well.
        accepted: list[int] = []
        for number, row in enumerate(candidates):
            now = min([distance_at_draw[number], *(between[number][other] for other in accepted)])
            is_repeated = any(candidates[other] == row for other in accepted)
            if not is_repeated and thresholds[number] * distance_at_draw[number] < now:
                accepted.append(number)

        # Add the accepted candidates, and update the distances.
        accepted = accepted[: n_codes - len(chosen)]
        chosen += [candidates[number] for number in accepted]
        if not accepted:  # the first is always accepted, unless rounding leaves no distance
            chosen += _not_among(chosen, len(sample), n_codes - len(chosen))
            break
        distances = torch.minimum(distances, table[:, accepted].amin(dim=1))
    return torch.tensor(chosen, device=sample.device)


def _not_among(chosen: list[int], n_rows: int, n_wanted: int) -> list[int]:
    """The first ``n_wanted`` rows of ``n_rows`` that are not chosen yet."""
    free = torch.ones(n_rows, dtype=torch.bool)
    free[chosen] = False
    return free.nonzero()[:n_wanted, 0].tolist()


def _distances(sample: torch.Tensor, norms: torch.Tensor, rows: list[int]) -> torch.Tensor:
    """Squared distances (m, len(rows)) of every row to some rows."""
    products = sample @ sample[rows].T
    return products.mul_(-2).add_(norms[:, None]).add_(norms[rows]).clamp_(min=0)


def _draw_one(n: int, generator: torch.Generator) -> int:
    return int(torch.randint(n, (1,), generator=generator))
