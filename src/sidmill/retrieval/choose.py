"""The run that answers: its files under the names that users look for."""

from pathlib import Path

from sidmill.core.atomic import link_or_copy
from sidmill.formats import item_text, passages, run_files
from sidmill.settings.retrieval import Retrieval


def choose(
    run_path: str | Path,
    trec_path: str | Path,
    queries_path: str | Path,
    topk_out: str | Path,
    trec_out: str | Path,
    settings: Retrieval,
) -> None:
    """Give a run the paths res.topk and run.trec; no byte is copied where the disk can share it.

    Args:
        run_path: res.topk of the run.
        trec_path: its run.trec.
        queries_path: text.parquet of the queries.
        topk_out: res.topk to write.
        trec_out: run.trec to write.
        settings: section ``retrieval``. With ``topk_names: dureader`` res.topk has the text of the
            query and the line number of the passage, as the converter of DuReader-retrieval reads
            them: from ``query_ids`` and ``corpus_ids``, where they are set.

    Raises:
        SidmillError: if a passage has no line number.
    """
    link_or_copy(trec_path, trec_out)
    if settings.topk_names == "ids":
        link_or_copy(run_path, topk_out)
        return

    run = run_files.read(run_path)
    if settings.query_ids:
        entries = passages.read_json(settings.query_ids).items()
        texts = {str(qid): text for text, qid in entries}
    else:
        texts = item_text.find(queries_path, set(run.qids))
    numbers = passages.lines_of_passages(settings.corpus_ids) if settings.corpus_ids else None
    run_files.write_dureader(topk_out, run, texts, numbers)
