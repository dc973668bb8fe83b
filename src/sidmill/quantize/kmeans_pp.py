"""First codewords for k-means: k-means++ drawn in batches, without a centroid that takes all.

Shapes: m sample rows, D dimensions, K codewords, p rows of one piece of the sample.

Source: k-means++, https://theory.stanford.edu/~sergei/papers/kMeansPP-soda.pdf. One draw at a time
reads the sample K times; here 64 candidates are drawn at once from the distances as they stand, and
each is kept with the probability ``distance now / distance at the draw``. That is rejection
sampling, so the codewords follow the k-means++ distribution exactly. One matrix product measures
the rows against the candidates that are kept.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sidmill.numeric import arrays, nearest_pieces, process_group
from sidmill.numeric.arrays import Array, Device, Generator
from sidmill.numeric.process_group import ALONE, Group
from sidmill.numeric.row_pieces import Piece
from sidmill.quantize import shared_blocks
from sidmill.quantize.shared_blocks import SharedBlock

BATCH = 64
CROWD = 8  # a first codeword with this many times the mean load is drawn again
CROWD_ROUNDS = 10
LOAD_ROWS = 4  # rows per codeword that loads are counted on


class Searchers(NamedTuple):
    """The devices and processes that measure rows. Every process holds the whole sample.

    Attributes:
        devices: of a process. CPUs share its rows; of several GPUs the first takes all.
        group: the processes; on CPUs each measures its own pieces, and tells the others.
        step: rows that a GPU measures at once.
    """

    devices: list[Device]
    group: Group
    step: int


class _Rows(NamedTuple):
    """Rows, in pieces, with what is measured of them once."""

    values: Array  # float32 (m, D)
    block: SharedBlock
    own: list[Piece]  # that this process measures
    norms: list[Array]  # float32 (p,) of each own piece, squared


def seed_centroids(
    sample: Array, n_codes: int, generator: Generator, searchers: Searchers
) -> Array:
    """Choose rows of the sample as first codewords.

    In many dimensions rows lie further from each other than from their mean, so a row near the
    mean, chosen as a codeword, attracts nearly every other row and k-means cannot leave that
    state. A codeword with more than ``CROWD`` times the mean load is replaced by one of its rows,
    which costs nothing where the load is a dense group of similar rows.

    Args:
        sample: float32 (m, D), m >= ``n_codes``; the same in all processes.
        n_codes: K.
        generator: a CPU generator; every draw comes from it.
        searchers: who measures. Scores of a piece take (p, K) numbers on each device.

    Returns:
        float32 (K, D).

    Raises:
        PeerEndedError: if another process is gone.
    """
    centroids = sample[_plus_plus(sample, n_codes, generator, searchers)]
    rows = _in_pieces(sample[: LOAD_ROWS * n_codes], searchers)
    best, codes = _closest(rows, centroids)
    for _ in range(CROWD_ROUNDS):
        loads = arrays.of(codes).bincount(codes, minlength=n_codes)
        is_crowded = loads > CROWD * max(1, len(codes) / n_codes)
        replaced = arrays.positions(is_crowded)
        if not len(replaced):
            break
        for code in replaced.tolist():
            members = arrays.positions(codes == code)
            centroids[code] = sample[members[arrays.draw_integer(generator, len(members))]]
        stale = arrays.positions(is_crowded[codes])  # rows whose centroid was replaced: compare all
        # The other rows are compared with the replaced centroids alone.
        score, nearest = _closest(rows, centroids[replaced])
        nearer = score > best
        where = arrays.of(best).where
        best, codes = where(nearer, score, best), where(nearer, replaced[nearest], codes)
        best[stale], codes[stale] = _closest(_in_pieces(rows.values[stale], searchers), centroids)
    return centroids


def _in_pieces(rows: Array, searchers: Searchers) -> _Rows:
    """Cut rows into pieces, and find those of this process."""
    if arrays.is_gpu(rows):
        block = SharedBlock(ALONE, 0, len(rows))
        own = [Piece(0, part) for part in arrays.split(rows, searchers.step)]
    else:
        block = SharedBlock(searchers.group, 0, len(rows), rows)
        n_devices = len(searchers.devices)
        own = [
            Piece(shared_blocks.device_of(block, span, n_devices), rows[span])
            for span in shared_blocks.own_spans(block)
        ]
    return _Rows(rows, block, own, [arrays.square_norms(piece.rows) for piece in own])


def _measure(rows: _Rows, work: Callable[..., tuple[Array, ...]], *arguments: Array) -> list[Array]:
    """Call ``work(piece, norms, ...)`` for every piece.

    Returns:
        What it returned, one value per row: (m,) each, the same in all processes.
    """
    jobs = [
        (piece.rows, norms, *arguments) for piece, norms in zip(rows.own, rows.norms, strict=True)
    ]
    found = nearest_pieces.run_concurrently(work, jobs, [piece.device_index for piece in rows.own])
    columns = [list(column) for column in zip(*found, strict=True)]
    if rows.block.group.size > 1:
        lengths = [span.stop - span.start for span in shared_blocks.piece_spans(rows.block)]
        first = rows.values[:1]  # its types, for a process without pieces
        examples = found[0] if found else work(first, arrays.square_norms(first), *arguments)
        columns = [
            shared_blocks.gather(rows.block, own, lengths, example)
            for own, example in zip(columns or [[]] * len(examples), examples, strict=True)
        ]
    return [arrays.of(rows.values).concatenate(column) for column in columns]


def _closest(rows: _Rows, centroids: Array) -> tuple[Array, Array]:
    """Score of the nearest centroid of each row, the higher the nearer, and its index, int64."""
    best, codes = _measure(rows, _score, centroids, arrays.square_norms(centroids) / 2)
    return best, codes


def _score(rows: Array, _: Array, centroids: Array, halves: Array) -> tuple[Array, Array]:
    """See :func:`_closest`, of the rows of a piece."""
    scores = rows @ centroids.T
    scores -= halves
    return arrays.highest(scores)


def _plus_plus(sample: Array, n_codes: int, generator: Generator, searchers: Searchers) -> Array:
    """Draw K rows by k-means++: int64 (K,)."""
    rows = _in_pieces(sample, searchers)
    chosen = [arrays.draw_integer(generator, len(sample))]
    distances = _to_nearest(rows, chosen)  # (m,), from the nearest codeword
    while len(chosen) < n_codes:
        distances[chosen] = 0
        # On the CPU: on a GPU the order of a sum varies.
        cumulated = arrays.cast(arrays.on_cpu(distances), "float64").cumsum(axis=0)
        if not cumulated[-1] > 0:  # every row is a centroid or equal to one: any other rows
            chosen += _not_among(chosen, len(sample), n_codes - len(chosen))
            break

        # Draw a batch of candidates, and measure them against each other.
        draws = arrays.draw_uniform(generator, (BATCH, 2))
        positions = arrays.of(draws).searchsorted(cumulated, draws[:, 0] * cumulated[-1])
        candidates = positions.clip(max=len(sample) - 1).tolist()
        drawn = sample[candidates]
        norms = arrays.square_norms(drawn)
        distance_at_draw = distances[candidates].tolist()
        thresholds = draws[:, 1].tolist()
        between = _of_first(_distances(drawn, norms, drawn, norms), rows.block.group).tolist()

        # Accept a candidate by its distance to the centroids of this batch as well.
        accepted: list[int] = []
        for number, row in enumerate(candidates):
            now = min([distance_at_draw[number], *(between[number][other] for other in accepted)])
            is_repeated = any(candidates[other] == row for other in accepted)
            if not is_repeated and thresholds[number] * distance_at_draw[number] < now:
                accepted.append(number)

        # Add the accepted candidates, and update the distances.
        added = [candidates[number] for number in accepted[: n_codes - len(chosen)]]
        chosen += added
        if not added:  # the first is always accepted, unless rounding leaves no distance
            chosen += _not_among(chosen, len(sample), n_codes - len(chosen))
            break
        distances = arrays.of(distances).minimum(distances, _to_nearest(rows, added))
    return arrays.from_host(np.array(chosen), arrays.device_of(sample))


def _to_nearest(rows: _Rows, numbers: list[int]) -> Array:
    """Squared distance of every row to the nearest of some: float32 (m,)."""
    targets = rows.values[numbers]
    (found,) = _measure(rows, _lowest_distances, targets, arrays.square_norms(targets))
    return found


def _of_first(table: Array, group: Group) -> Array:
    """The table of the first process, (t, t), in all of them.

    What they decide by it has to be the same, also where their processors round differently: it
    says how many messages follow.
    """
    own = table if group.rank == 0 else table[:0]
    return process_group.gather(group, own, [len(table), *[0] * (group.size - 1)])[0]


def _lowest_distances(
    rows: Array, norms: Array, targets: Array, target_norms: Array
) -> tuple[Array]:
    """See :func:`_to_nearest`, of the rows of a piece."""
    table = _distances(rows, norms, targets, target_norms)
    return (arrays.of(table).amin(table, axis=1),)


def _not_among(chosen: list[int], n_rows: int, n_wanted: int) -> list[int]:
    """The first ``n_wanted`` rows of ``n_rows`` that are not chosen yet."""
    is_free = np.ones(n_rows, dtype=bool)
    is_free[chosen] = False
    free: list[int] = np.flatnonzero(is_free)[:n_wanted].tolist()
    return free


def _distances(rows: Array, norms: Array, targets: Array, target_norms: Array) -> Array:
    """Squared distances (p, t) of rows to ``targets`` (t, D); norms are squared."""
    products = rows @ targets.T
    products *= -2
    products += norms[:, None]
    products += target_norms
    return products.clip(min=0)
