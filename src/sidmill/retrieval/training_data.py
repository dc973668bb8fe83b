"""Training data of the encoders -> triples.parquet and pairs.parquet.

Either files of RocketQA, which hold the texts themselves, or judgements (BEIR, TREC,
DuReader-retrieval), which name queries and passages by their ids.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

from sidmill.core.errors import SidmillError
from sidmill.core.paths import expand
from sidmill.formats import item_text, triples
from sidmill.formats.qrels import Judgement
from sidmill.retrieval.read import ANY_NAME, Rejects, read_judgements
from sidmill.settings.retrieval import Training

logger = logging.getLogger(__name__)

SCHEMAS = {"dual": triples.TRIPLES, "cross": triples.PAIRS}
READERS = {"dual": triples.read_dual, "cross": triples.read_cross}


def read_training(
    output_path: str | Path,
    rejects_path: str | Path,
    corpus_path: str | Path | None,
    queries_path: str | Path | None,
    kind: str,
    settings: Training,
) -> int:
    """Write training data as triples.parquet (kind ``dual``) or pairs.parquet (``cross``).

    In judgements a label above 0 is an answer, any other a hard negative: each judged passage of
    a query is in at least one triple, and in one pair. Memory: the texts that are judged.

    Args:
        output_path: the parquet to write.
        rejects_path: rejects.parquet to write.
        corpus_path: text.parquet of the passages, for judgements.
        queries_path: text.parquet of the queries, for judgements.
        kind: ``dual`` or ``cross``: the setting that names the file, folder or glob.
        settings: section ``training``.

    Returns:
        Number of rows written.

    Raises:
        SidmillError: for a bad line under ``error``; if no line can be trained on.
    """
    setting = f"training.{kind}"
    path = settings.dual if kind == "dual" else settings.cross
    if path is None:
        raise SidmillError(f"{setting} is null: name a file (docs/retrieval.md)")
    rejects = Rejects("training", settings.on_bad_rows, settings.max_reject_share)

    # Rows are made while they are written; the first one shows that there is any.
    rows: Iterator[triples.Row]
    if settings.form == "rocketqa":
        rows = _rows_of_lines(kind, expand(path, ANY_NAME, setting), rejects)
    elif corpus_path is None or queries_path is None:
        raise SidmillError(f"{setting}: judgements need the texts of passages and queries")
    else:
        judged = read_judgements(path, setting, rejects)
        rows = _rows_of_judgements(kind, judged, corpus_path, queries_path, rejects)
    first = next(rows, None)
    if first is None:
        raise SidmillError(f"{path}: no line can be trained on: check {setting}{rejects.first()}")

    def all_rows() -> Iterator[triples.Row]:
        n_good = 1
        yield first
        for n_good, row in enumerate(rows, start=2):  # noqa: B007 - its last value is the count
            yield row
        rejects.check(n_good)

    n_rows = triples.write(output_path, SCHEMAS[kind], all_rows())
    rejects.write(rejects_path)
    return n_rows


def _rows_of_lines(kind: str, files: list[str], rejects: Rejects) -> Iterator[triples.Row]:
    for file in files:
        for line in READERS[kind](file):
            if line.values is None:
                rejects.add(None, file, line.row, str(line.problem))
            else:
                yield line.values


def _rows_of_judgements(
    kind: str,
    judged: list[Judgement],
    corpus_path: str | Path,
    queries_path: str | Path,
    rejects: Rejects,
) -> Iterator[triples.Row]:
    queries = item_text.find(queries_path, {each.qid for each in judged})
    passages = item_text.find(corpus_path, {each.pid for each in judged})

    # Texts of the answers and of the other passages of each query.
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
            "training.cross: no query has a passage judged 0 as well as an answer, so there is "
            "nothing to learn: set cross.source: mined and training.dual"
        )

    # A triple per answer or hard negative, whichever are more; the others repeat in turn.
    for qid, positives in answers.items():
        negatives = others.get(qid, [])
        if kind == "dual":
            for turn in range(max(len(positives), len(negatives))):
                negative = negatives[turn % len(negatives)] if negatives else None
                yield queries[qid], positives[turn % len(positives)], negative
        else:
            yield from ((queries[qid], passage, 1) for passage in positives)
            yield from ((queries[qid], passage, 0) for passage in negatives)
