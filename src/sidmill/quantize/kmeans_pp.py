"""First codewords for k-means: k-means++ drawn in batches, without a centroid that takes all.

Shapes: m sample rows, D dimensions, K codewords.

Source: k-means++, https://theory.stanford.edu/~sergei/papers/kMeansPP-soda.pdf. One draw at a time
reads the sample K times; here 64 candidates are drawn at once from the distances as they stand,
measured by one matrix product, and each is kept with the probability ``distance now / distance at
the draw``. That is rejection sampling, so the codewords follow the k-means++ distribution exactly.
"""

import numpy as np

from sidmill.numeric import arrays
from sidmill.numeric.arrays import Array, Generator

BATCH = 64
CROWD = 8  # a first codeword with this many times the mean load is drawn again
CROWD_ROUNDS = 10
LOAD_ROWS = 4  # rows per codeword that loads are counted on


def seed_centroids(sample: Array, n_codes: int, generator: Generator, step: int) -> Array:
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
        loads = arrays.of(codes).bincount(codes, minlength=n_codes)
        is_crowded = loads > CROWD * max(1, len(sample) / n_codes)
        replaced = arrays.positions(is_crowded)
        if not len(replaced):
            break
        for code in replaced.tolist():
            members = arrays.positions(codes == code)
            centroids[code] = sample[members[arrays.draw_integer(generator, len(members))]]
        stale = arrays.positions(is_crowded[codes])  # rows whose centroid was replaced: compare all
        # The other rows are compared with the replaced centroids alone.
        score, nearest = _closest(sample, centroids[replaced], step)
        nearer = score > best
        where = arrays.of(best).where
        best, codes = where(nearer, score, best), where(nearer, replaced[nearest], codes)
        best[stale], codes[stale] = _closest(sample[stale], centroids, step)
    return centroids


def _closest(sample: Array, centroids: Array, step: int) -> tuple[Array, Array]:
    """Score of the nearest centroid of each row, the higher the nearer, and its index."""
    halves = arrays.square_norms(centroids) / 2
    maxima = []
    for block in arrays.split(sample, step):
        scores = block @ centroids.T
        scores -= halves
        maxima.append(arrays.highest(scores))
    values, columns = (arrays.of(sample).concatenate(each) for each in zip(*maxima, strict=True))
    return values, columns


def _plus_plus(sample: Array, n_codes: int, generator: Generator) -> Array:
    norms = arrays.square_norms(sample)
    chosen = [arrays.draw_integer(generator, len(sample))]
    distances = _distances(sample, norms, chosen)[:, 0]  # (m,), to the nearest codeword
    while len(chosen) < n_codes:
        distances[chosen] = 0
        # On the CPU: on a GPU the order of a sum varies.
        cumulated = arrays.cast(arrays.on_cpu(distances), "float64").cumsum(axis=0)
        if not cumulated[-1] > 0:  # every row is a centroid or equal to one: any other rows
            chosen += _not_among(chosen, len(sample), n_codes - len(chosen))
            break

        # Draw a batch of candidates, and measure all rows against it.
        draws = arrays.draw_uniform(generator, (BATCH, 2))
        positions = arrays.of(draws).searchsorted(cumulated, draws[:, 0] * cumulated[-1])
        candidates = positions.clip(max=len(sample) - 1).tolist()
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
        module = arrays.of(distances)
        distances = module.minimum(distances, module.amin(table[:, accepted], axis=1))
    return arrays.from_host(np.array(chosen), arrays.device_of(sample))


def _not_among(chosen: list[int], n_rows: int, n_wanted: int) -> list[int]:
    """The first ``n_wanted`` rows of ``n_rows`` that are not chosen yet."""
    is_free = np.ones(n_rows, dtype=bool)
    is_free[chosen] = False
    free: list[int] = np.flatnonzero(is_free)[:n_wanted].tolist()
    return free


def _distances(sample: Array, norms: Array, rows: list[int]) -> Array:
    """Squared distances (m, len(rows)) of every row to some rows."""
    products = sample @ sample[rows].T
    products *= -2
    products += norms[:, None]
    products += norms[rows]
    return products.clip(min=0)
