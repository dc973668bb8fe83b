"""Reciprocal-rank fusion: several runs become one, by ranks alone.

Source: Cormack, Clarke and Büttcher, 2009, https://doi.org/10.1145/1571941.1572114
"""

from collections.abc import Sequence

import numpy as np

from sidmill.core.errors import SidmillError
from sidmill.formats.run_files import Run
from sidmill.settings.retrieval import Fusion


def fuse(runs: Sequence[Run], settings: Fusion) -> Run:
    """Fuse retrieval runs: a passage scores the sum of 1 / (constant + rank) over the runs.

    Args:
        runs: of the same queries; the result has their order and the k of the first run.
        settings: section ``fusion``; the source has a constant of 60.

    Returns:
        k passages per query; equal sums go by the id as a string.

    Raises:
        SidmillError: if the runs are of different queries.
    """
    lines = [dict(zip(run.qids, run.pids, strict=True)) for run in runs]
    unshared = {qid for other in lines for qid in lines[0].keys() ^ other.keys()}
    if unshared:
        raise SidmillError(
            f"{len(unshared)} queries, such as {min(unshared)!r}, are not in every run: make the "
            f"runs of fusion.runs again"
        )

    k = runs[0].scores.shape[1]
    pids, scores = [], np.empty(runs[0].scores.shape, dtype=np.float32)
    for row, qid in enumerate(runs[0].qids):
        sums: dict[str, float] = {}
        for line in lines:
            for rank, pid in enumerate(line[qid], start=1):
                sums[pid] = sums.get(pid, 0.0) + 1 / (settings.constant + rank)

        # Sums are compared as they are written, in float32.
        best = sorted(sums.items(), key=lambda pair: (-np.float32(pair[1]), pair[0]))[:k]
        pids.append([pid for pid, _ in best])
        scores[row] = [value for _, value in best]
    return Run(runs[0].qids, pids, scores)
