"""The run that answers: its files under the names that users look for."""

import shutil
from pathlib import Path

from sidmill.core.atomic import replacing
from sidmill.formats import item_text, passages, run_files


def choose(
    run_path: str | Path,
    trec_path: str | Path,
    queries_path: str | Path,
    topk_out: str | Path,
    trec_out: str | Path,
    *,
    topk_names: str,
    query_ids: str | None,
    corpus_ids: str | None,
) -> None:
    """Copy a run to res.topk and run.trec.

    Args:
        run_path: res.topk of the run.
        trec_path: its run.trec.
        queries_path: text.parquet of the queries.
        topk_out: res.topk to write.
        trec_out: run.trec to write.
        topk_names: what res.topk names queries and passages by: ``ids``, or ``dureader``: query
            text and line number of the passage, as the converter of DuReader-retrieval reads them.
        query_ids: ``q2qid.json``, whose texts name the queries then, or None.
        corpus_ids: ``passage2id.map.json``, which gives the line numbers, or None: ids are these.

    Raises:
        SidmillError: if a passage has no line number.
    """
    with replacing(trec_out) as temporary:
        shutil.copyfile(trec_path, temporary)
    if topk_names == "ids":
        with replacing(topk_out) as temporary:
            shutil.copyfile(run_path, temporary)
        return

    run = run_files.read(run_path)
    if query_ids:
        texts = {str(qid): key for key, qid in passages.read_json(query_ids).items()}
    else:
        texts = item_text.find(queries_path, set(run.qids))
    numbers = passages.lines_of_passages(corpus_ids) if corpus_ids else None
    run_files.write_dureader(topk_out, run, texts, numbers)
