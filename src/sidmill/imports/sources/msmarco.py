"""MS MARCO passage ranking: tables with tabs, without header and without quotes.

    collection.tsv          id, passage
    queries.dev.small.tsv   id, query; also queries.dev.tsv
    qrels.dev.small.tsv     query, 0, passage, label; also qrels.dev.tsv

The judgements are those of the small dev set, as in the leaderboard, where they are there.

Source: https://microsoft.github.io/msmarco/Datasets
"""

from collections.abc import Iterator

from sidmill.imports import rows, times
from sidmill.imports.collection import Collection, Judgement, Passage
from sidmill.imports.content import Bad
from sidmill.imports.files import Entry, Files

TEXTS = ("id", "text")
QRELS = ("query", "iteration", "passage", "label")
SMALL = ".small."


def open_source(files: Files) -> Collection:
    """Open the collection and the dev set."""
    corpus = files.need_one(r"collection\.tsv", "collection.tsv")
    queries = _small_first(files.need(r"queries\.dev(\.small)?\.tsv", "queries.dev.small.tsv"))
    judged = _small_first(files.need(r"qrels\.dev(\.small)?\.tsv", "qrels.dev.small.tsv"))
    return Collection(
        lambda: _texts(corpus),
        lambda: _texts(queries),
        lambda: _judgements(judged),
        (f"queries of {queries.path}, judgements of {judged.path}",),
    )


def _small_first(entries: list[Entry]) -> Entry:
    return next((entry for entry in entries if SMALL in entry.base), entries[0])


def _texts(entry: Entry) -> Iterator[Passage | Bad]:
    for row in rows.separated(entry, "\t", TEXTS):
        if isinstance(row, Bad):
            yield row
            continue
        text = row.fields["text"].strip()
        yield Passage(row.fields["id"].strip(), "", text, entry.name, row.number)


def _judgements(entry: Entry) -> Iterator[Judgement | Bad]:
    for row in rows.separated(entry, "\t", QRELS):
        if isinstance(row, Bad):
            yield row
            continue
        try:
            label = times.whole(row.fields["label"])
        except ValueError:
            label = None
        if label is None:
            yield Bad(entry.name, row.number, f"label {row.fields['label']!r:.40} is no number")
            continue
        query, passage = row.fields["query"].strip(), row.fields["passage"].strip()
        yield Judgement(query, passage, label, entry.name, row.number)
