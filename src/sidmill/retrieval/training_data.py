"""What the encoders learn from -> triples.parquet and pairs.parquet.

Either files of RocketQA, which hold the texts themselves, or judgements (BEIR, TREC,
DuReader-retrieval), which name queries and passages by their ids.
"""

import logging
from collections.abc import Iterator

from sidmill.core.errors import SidmillError
from sidmill.core.paths import expand
from sidmill.formats import item_text, triples
from sidmill.formats.qrels import Judgement
from sidmill.retrieval.read import ANY_NAME, Rejects, read_judgements

logger = logging.getLogger(__name__)

SCHEMAS = {"dual": triples.TRIPLES, "cross": triples.PAIRS}
READERS = {"dual": triples.read_dual, "cross": triples.read_cross}


def read_training(
    output_path: str,
    rejects_path: str,
    corpus_path: str | None,
    queries_path: str | None,
    *,
    kind: str,
    path: str,
    form: str,
    on_bad_rows: str,
    max_reject_share: float,
) -> int:
    """Write training data as triples.parquet (kind ``dual``) or pairs.parquet (``cross``).

    Of judgements, a label above 0 is an answer, any other a hard negative: each judged passage of
    a query stands in one triple at least, and in one pair. Memory: the texts that are judged.

    Args:
        output_path: the parquet to write.
        rejects_path: rejects.parquet to write.
        corpus_path: text.parquet of the passages, for judgements.
        queries_path: text.parquet of the queries, for judgements.
        kind: ``dual`` or ``cross``.
        path: file, folder or glob.
        form: ``rocketqa`` or ``qrels``.
        on_bad_rows: ``error`` or ``reject``.
        max_reject_share: largest share of the lines that may be rejected for one cause.

    Returns:
        How many rows were written.

    Raises:
        SidmillError: for a bad line under ``error``; if none can be learned from.
    """
    rejects = Rejects("training", on_bad_rows, max_reject_share)
    setting = f"training.{kind}"
    if form == "rocketqa":
        rows = _lines(kind, expand(path, ANY_NAME, setting), rejects)
    else:
        judged = read_judgements(path, setting, rejects)
        rows = _named(kind, judged, corpus_path, queries_path, rejects)
    first = next(rows, None)
    if first is None:
        raise SidmillError(f"{path}: no line can be trained on: check {setting}{rejects.first()}")

    def all_rows() -> Iterator[tuple]:
        n_good = 1
        yield first
        for n_good, row in enumerate(rows, start=2):  # noqa: B007 - its last value is the count
            yield row
        rejects.check(n_good)

    n_rows = triples.write(output_path, SCHEMAS[kind], all_rows())
    rejects.write(rejects_path)
    return n_rows


def _lines(kind: str, files: list[str], rejects: Rejects) -> Iterator[tuple]:
    for file in files:
        for line in READERS[kind](file):
            if line.problem:
                rejects.add(None, file, line.row, line.problem)
            else:
                yield line.values


def _named(
    kind: str, judged: list[Judgement], corpus_path: str, queries_path: str, rejects: Rejects
) -> Iterator[tuple]:
    queries = item_text.find(queries_path, {each.qid for each in judged})
    passages = item_text.find(corpus_path, {each.pid for each in judged})
    answers: dict[str, list[str]] = {}
    others: dict[str, list[str]] = {}
    for each in judged:
        if each.qid not in queries:
            rejects.add(each.pid, each.file, each.row, f"query {each.qid!r} has no text")
        elif each.pid not in passages:
            rejects.add(each.pid, each.file, each.row, f"passage {each.pid!r} has no text")
        else:
            side = answers if each.label > 0 else others
            side.setdefault(each.qid, []).append(passages[each.pid])
    unanswered = [qid for qid in others if qid not in answers]
    if unanswered:
        logger.warning("%d queries have no answer and are left out", len(unanswered))
    if kind == "cross" and not others.keys() & answers.keys():
        raise SidmillError(
            "training.cross: no query has a passage judged 0 beside an answer, so there is nothing "
            "to tell apart: set cross.source: mined and training.dual"
        )
    for qid, known in answers.items():
        wrong = others.get(qid, [])
        if kind == "dual":
            for turn in range(max(len(known), len(wrong))):
                negative = wrong[turn % len(wrong)] if wrong else None
                yield queries[qid], known[turn % len(known)], negative
        else:
            yield from ((queries[qid], passage, 1) for passage in known)
            yield from ((queries[qid], passage, 0) for passage in wrong)
