"""The user's passages, queries and judgements -> text.parquet and qrels.parquet.

Every line is in the one file or, with the reason, in the rejects beside it.
"""

import logging
from array import array
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from sidmill.core.errors import SidmillError
from sidmill.core.paths import expand
from sidmill.formats import item_text, passages
from sidmill.formats import qrels as judgements
from sidmill.formats.reject_counts import NOT_UTF8, Tally
from sidmill.io import encodings, parquet

logger = logging.getLogger(__name__)

ANY_NAME = ("",)  # every name ends in nothing: passage files of RocketQA often have no suffix


class Reject(NamedTuple):
    """A line that gave nothing, in the columns of rejects.parquet."""

    pid: str | None
    file: str
    row: int
    reason: str


class Rejects:
    """Collects bad lines, or stops at the first.

    Memory: the bad lines.
    """

    def __init__(self, section: str, on_bad_rows: str, max_share: float) -> None:
        """Take the section of the config, ``error`` or ``reject``, and the share of one cause."""
        self.section, self.on_bad_rows, self.max_share = section, on_bad_rows, max_share
        self.found: list[Reject] = []
        self.rows_read = 0
        self.tally = Tally()

    def add(self, key: object, file: str, row: int, reason: str) -> None:
        """Note a bad line.

        Raises:
            SidmillError: naming it, under ``error``.
        """
        if self.on_bad_rows == "error":
            advice = "mend the line"
            if reason.startswith(NOT_UTF8):
                advice = encodings.remedy(file, None)
            raise SidmillError(
                f"{file}, line {row}: {reason}: {advice}, or set {self.section}.on_bad_rows: "
                f"reject to list such lines beside the result"
            )
        self.tally.add(file, row, reason)
        shown, said = (
            None if each is None else str(each).encode(errors="replace").decode()
            for each in (key, reason)
        )
        self.found.append(Reject(shown, file, row, said))

    def first(self) -> str:
        """The first bad line, for a message that says no line is good."""
        if not self.found:
            return ""
        bad = self.found[0]
        return f"; first: {bad.file}, line {bad.row}: {bad.reason}"

    def check(self, n_good: int) -> None:
        """Stop where one cause took too many lines; log the share of each.

        Args:
            n_good: lines that gave something.

        Raises:
            SidmillError: naming the cause and its share.
        """
        self.tally.rows = n_good + len(self.found)
        self.tally.check(self.max_share, self.section)
        for line in self.tally.lines():
            logger.warning("rejects: %s", line)

    def write(self, path: str | Path) -> None:
        """Write rejects.parquet."""
        columns = list(zip(*self.found, strict=True)) or [[], [], [], []]
        schema = item_text.REJECTS_SCHEMA
        if self.rows_read:
            schema = schema.with_metadata({item_text.ROWS_READ_KEY: str(self.rows_read)})
        parquet.write(path, schema, [pa.table(list(map(list, columns)), schema=schema)])


def read_corpus(
    text_path: str,
    rejects_path: str,
    *,
    corpus: str,
    corpus_ids: str | None,
    form: str,
    on_bad_rows: str,
    max_reject_share: float,
) -> int:
    """Write the passages to text.parquet, in the order of the files.

    Memory: one block of passages, 8 bytes per id, and the rejects.

    Args:
        text_path: text.parquet to write.
        rejects_path: rejects.parquet to write.
        corpus: file, folder or glob, of BEIR, RocketQA or MS MARCO.
        corpus_ids: map from line number to id, for RocketQA, or None.
        form: of tab-separated files: ``rocketqa``, ``msmarco``, or ``auto``.
        on_bad_rows: ``error`` or ``reject``.
        max_reject_share: largest share of the lines that may be rejected for one cause.

    Returns:
        How many passages were written.

    Raises:
        SidmillError: for a bad line under ``error``; if an id stands twice; if no line is good.
    """
    files = expand(corpus, ANY_NAME, "retrieval.corpus")
    records = partial(passages.read_passages, files, corpus_ids, form)
    rejects = Rejects("retrieval", on_bad_rows, max_reject_share)
    return _write_texts(text_path, rejects_path, records, corpus, rejects)


def read_queries(
    text_path: str,
    rejects_path: str,
    *,
    queries: str,
    query_ids: str | None,
    form: str,
    on_bad_rows: str,
    max_reject_share: float,
) -> int:
    """Write the queries to text.parquet; arguments as of :func:`read_corpus`."""
    files = expand(queries, ANY_NAME, "retrieval.queries")
    records = partial(passages.read_queries, files, query_ids, form)
    rejects = Rejects("retrieval", on_bad_rows, max_reject_share)
    return _write_texts(text_path, rejects_path, records, queries, rejects)


def read_qrels(
    qrels_path: str, rejects_path: str, *, qrels: str, on_bad_rows: str, max_reject_share: float
) -> int:
    """Write the judgements to qrels.parquet, in the order of the files; equal repeats once.

    Args:
        qrels_path: qrels.parquet to write.
        rejects_path: rejects.parquet to write.
        qrels: file, folder or glob, of BEIR, TREC or DuReader-retrieval.
        on_bad_rows: ``error`` or ``reject``.
        max_reject_share: largest share of the judgements that may be rejected for one cause.

    Returns:
        How many judgements were written.

    Raises:
        SidmillError: for a bad line under ``error``; if none is good.
    """
    rejects = Rejects("retrieval", on_bad_rows, max_reject_share)
    kept = read_judgements(qrels, "retrieval.qrels", rejects)
    rejects.check(len(kept))
    judgements.write(qrels_path, kept)
    rejects.write(rejects_path)
    return len(kept)


def read_judgements(path: str, setting: str, rejects: Rejects) -> list[judgements.Judgement]:
    """Read judgements in the order of the files; equal repeats once.

    Args:
        path: file, folder or glob, of BEIR, TREC or DuReader-retrieval.
        setting: the setting that names it, for messages.
        rejects: takes the bad lines.

    Raises:
        SidmillError: for a bad line, if those are errors; if no judgement is good.
    """
    kept: dict[tuple[str, str], judgements.Judgement] = {}
    for file in expand(path, ANY_NAME, setting):
        for found in judgements.read_foreign(file):
            known = kept.setdefault((found.qid, found.pid), found) if not found.problem else found
            if found.problem:
                rejects.add(found.pid, file, found.row, found.problem)
            elif known.label != found.label:
                reason = f"judged {found.label} here and {known.label} in line {known.row}"
                rejects.add(found.pid, file, found.row, reason)
    if not kept:
        raise SidmillError(f"{path}: no judgement in it: check {setting}{rejects.first()}")
    return list(kept.values())


def _write_texts(
    text_path: str,
    rejects_path: str,
    records: Callable[[], Iterator[passages.Record]],
    source: str,
    rejects: Rejects,
) -> int:
    repeated = _repeated(records()) if rejects.on_bad_rows == "reject" else set()
    good = _good_records(records(), rejects, repeated)
    first = next(good, None)
    if first is None:
        raise SidmillError(f"{source}: no line of it gives a text{rejects.first()}")
    kind = type(first.id)
    schema = item_text.schema(pa.int64() if kind is int else pa.string())
    keys = array("q")

    def tables() -> Iterator[pa.Table]:
        waiting = [first]
        for record in good:
            if type(record.id) is not kind:
                reason = (
                    f"id {record.id!r:.80} is a {type(record.id).__name__}, the first one is a "
                    f"{kind.__name__}: write all ids alike"
                )
                rejects.add(record.id, record.file, record.row, reason)
                continue
            waiting.append(record)
            if len(waiting) == parquet.ROWS_PER_GROUP:
                yield _table(waiting, schema, keys)
                waiting = []
        rejects.check(rejects.rows_read - len(rejects.found))
        yield _table(waiting, schema, keys)

    rows = item_text.write(text_path, schema.field("pid").type, tables())
    try:
        _check_unique(text_path, keys)
    except SidmillError:
        Path(text_path).unlink()
        raise
    rejects.write(rejects_path)
    logger.info("%d texts, %d rejects from %s", rows, len(rejects.found), source)
    return rows


def _good_records(
    records: Iterator[passages.Record], rejects: Rejects, repeated: set[int]
) -> Iterator[passages.Record]:
    """The records that give a text; of an id that stands twice the first.

    Args:
        records: all of them.
        rejects: takes the others.
        repeated: keys of ids that may stand twice, where those are rejects.
    """
    seen: dict[int | str, str] = {}
    for record in records:
        rejects.rows_read += 1
        problem = record.problem
        if problem is None and record.id in seen:
            problem = f"id {record.id!r:.80} stands already at {seen[record.id]}"
        elif problem is None and repeated and _key(record.id) in repeated:
            seen[record.id] = f"{record.file}, line {record.row}"
        if problem:
            rejects.add(record.id, record.file, record.row, problem)
        else:
            yield record


def _repeated(records: Iterator[passages.Record]) -> set[int]:
    """Keys that stand twice among the ids of good records. Memory: 8 bytes per id."""
    keys = array("q", (_key(record.id) for record in records if not record.problem))
    hashes = np.sort(np.frombuffer(keys, dtype=np.int64))
    return set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())


def _table(records: list[passages.Record], schema: pa.Schema, keys: array) -> pa.Table:
    keys.extend(_key(record.id) for record in records)
    columns = [[record.id for record in records], [record.text for record in records]]
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema)


def _key(pid: int | str) -> int:
    digest = blake2b(str(pid).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _check_unique(text_path: str, keys: array) -> None:
    """Stop at an id that stands twice, told by 64-bit hashes and then by the ids themselves."""
    hashes = np.sort(np.frombuffer(keys, dtype=np.int64))
    suspects = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    seen: dict[int | str, int] = {}
    row = 0
    for table in item_text.read(text_path) if suspects else ():
        for pid in table["pid"].to_pylist():
            if _key(pid) in suspects and seen.setdefault(pid, row) != row:
                raise SidmillError(
                    f"id {pid!r} belongs to two texts, numbers {seen[pid] + 1} and {row + 1} of "
                    f"the good ones: give each its own id"
                )
            row += 1
