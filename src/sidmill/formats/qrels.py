"""``qrels.parquet``: labels of passages for a query, from BEIR, TREC or DuReader-retrieval.

    qrels.parquet  qid (string), pid (string), label (int64; above 0 answers the query)

    BEIR       query-id, corpus-id, score: tab-separated, these words as the first line or none
    TREC       qid, iteration, pid, label: separated by white space
    DuReader   JSON lines: question_id, answer_paragraphs[].paragraph_id

Ids are compared as strings, whatever type the corpus gives them.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from sidmill.formats.passages import is_json, read_lines
from sidmill.io import parquet

HEADER = ["query-id", "corpus-id", "score"]
SCHEMA = pa.schema([("qid", pa.string()), ("pid", pa.string()), ("label", pa.int64())])


class Judgement(NamedTuple):
    """The label of a passage for a query, and its line."""

    file: str
    row: int
    qid: str
    pid: str
    label: int


class BadLine(NamedTuple):
    """A line without a judgement; ``pid`` is known where the line has its columns."""

    row: int
    pid: str | None
    problem: str


def read_foreign(path: str) -> Iterator[Judgement | BadLine]:
    """Yield the judgements of a BEIR, TREC or DuReader file, detected by its name and columns."""
    for row, line, problem in read_lines(path):
        if problem:
            yield BadLine(row, None, problem)
        elif line.strip():
            yield from _of_json(path, row, line) if is_json(path) else _of_columns(path, row, line)


def write(path: str | Path, judgements: list[Judgement]) -> None:
    """Write qrels.parquet."""
    columns = [[getattr(each, name) for each in judgements] for name in SCHEMA.names]
    parquet.write(path, SCHEMA, [pa.table(columns, schema=SCHEMA)])


def read(path: str | Path) -> dict[str, dict[str, int]]:
    """Read qrels.parquet as labels by qid and pid."""
    accepted = {name: SCHEMA.field(name).type.equals for name in SCHEMA.names}
    found: dict[str, dict[str, int]] = {}
    for row in parquet.open_file(path, accepted).read().to_pylist():
        found.setdefault(row["qid"], {})[row["pid"]] = row["label"]
    return found


def _of_columns(path: str, row: int, line: str) -> Iterator[Judgement | BadLine]:
    fields = line.split("\t") if "\t" in line else line.split()
    if len(fields) not in (3, 4):
        yield BadLine(row, None, f"{len(fields)} columns, wanted 3 (BEIR) or 4 (TREC)")
        return
    qid, pid, label = (fields[0], *fields[-2:])
    if re.fullmatch(r"[+-]?\d{1,18}", label.strip()):
        yield Judgement(path, row, qid.strip(), pid.strip(), int(label))
    elif row > 1 or [field.strip() for field in fields] != HEADER:
        problem = f"the label {label!r:.80} is not a whole number of at most 18 digits"
        yield BadLine(row, pid, problem)


def _of_json(path: str, row: int, line: str) -> Iterator[Judgement | BadLine]:
    try:
        entry = json.loads(line)
        qid = str(entry["question_id"])
        pids = [str(answer["paragraph_id"]) for answer in entry["answer_paragraphs"]]
        "".join([qid, *pids]).encode()  # raises at half a character
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        problem = f"no question_id and answer_paragraphs ({type(error).__name__}: {error})"
        yield BadLine(row, None, problem)
    else:
        yield from (Judgement(path, row, qid, pid, 1) for pid in dict.fromkeys(pids))
