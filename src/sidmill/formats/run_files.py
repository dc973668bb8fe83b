"""A run: the k best passages of each query, best first, in three forms.

    res.topk       qid, pid, rank (from 1), score: tab-separated, k lines per query
    run.trec       qid Q0 pid rank score tag: what trec_eval reads; empty if an id holds a space
    {run}_res.json {qid: [pid, ...]}: what the DuReader-retrieval evaluation reads

Scores are float32 in nine significant digits, which keep every bit. The lines of a qid are
consecutive. Scorers order run.trec by its scores, and equal ones each in its own way, so there
equal scores are the next lower float32, one after another: the order of res.topk is the only one.
"""

import json
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sidmill.core.atomic import replacing
from sidmill.core.errors import SidmillError

logger = logging.getLogger(__name__)

LEAST = np.finfo(np.float32).tiny  # the least float32 that no processor rounds to zero
BREAKS = re.compile(r"[\t\n\r]")


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
    """Write a retrieval run as res.topk, run.trec and JSON.

    Columns of run.trec are separated by white space: if an id holds some, run.trec stays empty,
    and the log says so. Memory: the scores once more.

    Raises:
        SidmillError: if a query has not exactly k different passages, or an id is empty or holds a
            tab or a line break, which separate columns and lines of res.topk.
    """
    _check(run)
    _write_lines(
        topk_path, (f"{qid}\t{pid}\t{rank}\t{score:.9g}\n" for qid, pid, rank, score in _lines(run))
    )

    # White space in an id would add a column.
    spaced = next((name for name in _names(run) if name.split() != [name]), None)
    if spaced is not None:
        logger.warning(
            "%s is left empty: its columns are separated by white space, which id %r holds; "
            "res.topk has the run", trec_path, spaced,
        )  # fmt: skip
    ranked = run._replace(scores=falling(run.scores))
    rows = () if spaced is not None else _lines(ranked)
    _write_lines(
        trec_path, (f"{qid} Q0 {pid} {rank} {score:.9g} {tag}\n" for qid, pid, rank, score in rows)
    )

    lines = (
        f"{json.dumps(qid, ensure_ascii=False)}: {json.dumps(pids, ensure_ascii=False)}"
        for qid, pids in zip(run.qids, run.pids, strict=True)
    )
    _write_lines(json_path, ["{\n" + ",\n".join(lines) + "\n}\n"])


def falling(scores: np.ndarray) -> np.ndarray:
    """Scores that fall from rank to rank, and are those given wherever these fall already.

    Args:
        scores: float32 (Q, k), never rising within a row, finite.

    Returns:
        float32 (Q, k), no two equal within a row, also where a reader rounds what is closer to 0
        than the least normal number.
    """
    result = np.array(scores, dtype=np.float32)
    for rank in range(1, result.shape[1]):
        below = np.nextafter(result[:, rank - 1], np.float32(-np.inf))
        below = np.where(np.abs(below) < LEAST, -LEAST, below)
        result[:, rank] = np.minimum(result[:, rank], below)
    return result


def write_dureader(
    path: str | Path, run: Run, texts: dict[str, str], numbers: dict[str, str] | None
) -> None:
    """Write res.topk as RocketQA does: query text, line number of the passage, rank, score.

    Args:
        path: file to write.
        run: the run.
        texts: text of each query.
        numbers: line number of each passage; None where ids are line numbers.

    Raises:
        SidmillError: if a passage has no line number, or a text holds a tab or a line break.
    """
    # Queries and passages that this form cannot name.
    broken = next((text for text in map(texts.get, run.qids) if BREAKS.search(text or "\n")), None)
    odd = next((pid for line in run.pids for pid in line
                if not (pid.isdecimal() if numbers is None else pid in numbers)), None)  # fmt: skip
    if broken is not None or odd is not None:
        what = f"passage {odd!r:.80} has no line number" if odd is not None else (
            f"query {broken!r:.80} holds a tab or a line break"
        )  # fmt: skip
        raise SidmillError(
            f"{what}, and retrieval.topk_names: dureader is for the files of DuReader-retrieval: "
            f"set retrieval.topk_names: ids"
        )

    _write_lines(
        path,
        (
            f"{texts[qid]}\t{pid if numbers is None else numbers[pid]}\t{rank}\t{score:.9g}\n"
            for qid, pid, rank, score in _lines(run)
        ),
    )


def check_ids(ids: Iterable[object], where: str) -> None:
    """Refuse ids that res.topk cannot hold: before a search, not after it.

    Raises:
        SidmillError: naming one.
    """
    broken = next((name for name in map(str, ids) if not name or BREAKS.search(name)), None)
    if broken is not None:
        raise SidmillError(
            f"{where}: id {broken!r:.80} is empty or holds a tab or a line break, which "
            f"separate columns and lines of res.topk: rename it"
        )


def read(path: str | Path) -> Run:
    """Read res.topk.

    Raises:
        SidmillError: if a line is not of four columns, or the run fails the checks of ``write``.
    """
    found: dict[str, tuple[list[str], list[float]]] = {}
    with Path(path).open(encoding="utf-8", newline="\n") as file:
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

    # All queries have the same number of passages.
    lengths = {len(pids) for pids, _ in found.values()}
    if len(lengths) != 1:
        raise SidmillError(
            f"{path}: queries have {sorted(lengths)} passages, wanted one number for all"
        )
    matrix = np.array([scores for _, scores in found.values()], dtype=np.float32)  # (Q, k)
    run = Run(list(found), [pids for pids, _ in found.values()], matrix)
    _check(run)
    return run


def read_all(paths: Sequence[str | Path], names: Sequence[str]) -> dict[str, Run]:
    """Read several runs, by name."""
    return {name: read(path) for name, path in zip(names, paths, strict=True)}


def read_list(paths: Sequence[str | Path]) -> list[Run]:
    """Read several runs, in this order."""
    return [read(path) for path in paths]


def _write_lines(path: str | Path, lines: Iterable[str]) -> None:
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as out:
        out.writelines(lines)


def _lines(run: Run) -> Iterator[tuple[str, str, int, np.float32]]:
    for qid, pids, scores in zip(run.qids, run.pids, run.scores, strict=True):
        for rank, (pid, score) in enumerate(zip(pids, scores, strict=True), start=1):
            yield qid, pid, rank, score


def _check(run: Run) -> None:
    k = run.scores.shape[1] if run.scores.ndim == 2 else 0
    if len(set(run.qids)) != len(run.qids):
        raise SidmillError("a query id is repeated in the run: give each query its own id")
    for qid, pids in zip(run.qids, run.pids, strict=True):
        if len(pids) != k or len(set(pids)) != k:
            raise SidmillError(
                f"query {qid!r} has {len(set(pids))} different passages, wanted {k}: the "
                f"run is cut short"
            )
    check_ids(_names(run), "the run")


def _names(run: Run) -> Iterator[str]:
    yield from run.qids
    for pids in run.pids:
        yield from pids
