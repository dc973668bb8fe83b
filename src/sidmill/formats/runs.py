"""A run: the k passages found for each query, best first, in three forms.

    res.topk       qid, pid, rank (from 1), score: tab-separated, k lines per query
    run.trec       qid Q0 pid rank score tag: what trec_eval reads
    {run}_res.json {qid: [pid, ...]}: what the DuReader-retrieval evaluation reads

Scores are float32 in nine significant digits, which lose no bit. Each qid has its lines together.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sidmill.core.atomic import replacing
from sidmill.core.errors import SidmillError


class Run(NamedTuple):
    """Q queries with k passages each.

    Attributes:
        qids: ids of the queries, as strings.
        pids: for each query k ids, as strings, best first.
        scores: float32 (Q, k), never rising within a row.
    """

    qids: list[str]
    pids: list[list[str]]
    scores: np.ndarray


def write(topk_path: str, trec_path: str, json_path: str, run: Run, tag: str) -> None:
    """Write a run in its three forms.

    Raises:
        SidmillError: if a query has not exactly k different passages, or an id holds white space,
            which separates the columns of run.trec.
    """
    _check(run)
    with replacing(topk_path) as temporary, temporary.open("w", encoding="utf-8") as out:
        out.writelines(
            f"{qid}\t{pid}\t{rank}\t{score:.9g}\n" for qid, pid, rank, score in _lines(run)
        )
    with replacing(trec_path) as temporary, temporary.open("w", encoding="utf-8") as out:
        out.writelines(
            f"{qid} Q0 {pid} {rank} {score:.9g} {tag}\n" for qid, pid, rank, score in _lines(run)
        )
    with replacing(json_path) as temporary, temporary.open("w", encoding="utf-8") as out:
        lines = (
            f"{json.dumps(qid, ensure_ascii=False)}: {json.dumps(pids, ensure_ascii=False)}"
            for qid, pids in zip(run.qids, run.pids, strict=True)
        )
        out.write("{\n" + ",\n".join(lines) + "\n}\n")


def read(path: str | Path) -> Run:
    """Read res.topk.

    Raises:
        SidmillError: if a line is not of four columns, or the run fails the checks of ``write``.
    """
    found: dict[str, tuple[list[str], list[float]]] = {}
    with Path(path).open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                qid, pid, _, score = line.rstrip("\n").split("\t")
                value = float(score)
            except ValueError:
                raise SidmillError(
                    f"{path}, line {number}: wanted qid, pid, rank and score, tab-separated"
                ) from None
            pids, scores = found.setdefault(qid, ([], []))
            pids.append(pid)
            scores.append(value)
    lengths = {len(pids) for pids, _ in found.values()}
    if len(lengths) != 1:
        raise SidmillError(
            f"{path}: queries have {sorted(lengths)} passages, wanted one number for all"
        )
    scores = np.array([scores for _, scores in found.values()], dtype=np.float32)
    run = Run(list(found), [pids for pids, _ in found.values()], scores)
    _check(run)
    return run


def read_all(paths: Sequence[str | Path], names: Sequence[str]) -> dict[str, Run]:
    """Read several runs, by name."""
    return {name: read(path) for name, path in zip(names, paths, strict=True)}


def read_list(paths: Sequence[str | Path]) -> list[Run]:
    """Read several runs, in this order."""
    return [read(path) for path in paths]


def _lines(run: Run) -> Iterator[tuple[str, str, int, np.float32]]:
    for qid, pids, scores in zip(run.qids, run.pids, run.scores, strict=True):
        for rank, (pid, score) in enumerate(zip(pids, scores, strict=True), start=1):
            yield qid, pid, rank, score


def _check(run: Run) -> None:
    k = run.scores.shape[1] if run.scores.ndim == 2 else 0
    if len(set(run.qids)) != len(run.qids):
        raise SidmillError("a query id stands twice in the run: give each query its own id")
    for qid, pids in zip(run.qids, run.pids, strict=True):
        if len(pids) != k or len(set(pids)) != k:
            raise SidmillError(
                f"query {qid!r} has {len(set(pids))} different passages, wanted {k}: the run is cut"
            )
        spaced = next((name for name in (qid, *pids) if not name or name.split() != [name]), None)
        if spaced is not None:
            raise SidmillError(
                f"id {spaced!r} of query {qid!r}: run files are separated by white space, so ids "
                f"must be without it and not empty: rename it"
            )
