"""BEIR: passages and queries as JSON lines, judgements as tables with a header.

    corpus.jsonl       _id, title, text, metadata
    queries.jsonl      _id, text, metadata: of all splits
    qrels/test.tsv     query-id, corpus-id, score; also train.tsv and dev.tsv

The judgements are those of test, or of dev where there is no test (MS MARCO).

Source: https://github.com/beir-cellar/beir
"""

from collections.abc import Iterator

from sidmill.imports import rows, times
from sidmill.imports.collection import Collection, Judgement, Passage
from sidmill.imports.content import Bad
from sidmill.imports.files import Entry, Files

COLUMNS = ("query-id", "corpus-id", "score")


def open_source(files: Files) -> Collection:
    """Open a data set."""
    corpus = files.need_one(r"corpus\.jsonl", "corpus.jsonl")
    queries = files.need_one(r"queries\.jsonl", "queries.jsonl")
    found = files.need(r"(test|dev)\.tsv", "qrels/test.tsv or qrels/dev.tsv")
    judged = next((entry for entry in found if entry.base == "test.tsv"), found[0])
    return Collection(
        lambda: _texts(corpus),
        lambda: _texts(queries),
        lambda: _judgements(judged),
        (f"judgements of {judged.path}",),
    )


def _texts(entry: Entry) -> Iterator[Passage | Bad]:
    for row in rows.json_lines(entry):
        if isinstance(row, Bad):
            yield row
            continue
        fields = row.fields
        title, text = (rows.text(fields.get(name)) or "" for name in ("title", "text"))
        yield Passage(rows.text(fields.get("_id")) or "", title, text, entry.name, row.number)


def _judgements(entry: Entry) -> Iterator[Judgement | Bad]:
    for row in rows.separated(entry, "\t", COLUMNS):
        if isinstance(row, Bad):
            yield row
            continue
        query, passage, said = (row.fields[name].strip() for name in COLUMNS)
        if (query, passage, said) == COLUMNS:
            continue
        try:
            score = times.whole(said)
        except ValueError:
            score = None
        if score is None:
            yield Bad(entry.name, row.number, f"score {said!r:.40} is no number")
            continue
        yield Judgement(query, passage, score, entry.name, row.number)
