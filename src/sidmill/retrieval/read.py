"""The user's passages, queries and judgements -> text.parquet and qrels.parquet.

Every line is either in that file or, with the reason, in the rejects next to it.
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
from sidmill.settings.retrieval import Retrieval

logger = logging.getLogger(__name__)

ANY_NAME = ("",)  # any suffix: passage files of RocketQA often have none
SECTIONS = {"queries": "retrieval", "training_queries": "training"}  # by collection


class Reject(NamedTuple):
    """A bad line, in the columns of rejects.parquet."""

    pid: str | None
    file: str
    row: int
    reason: str


class Rejects:
    """Collects bad lines, or stops at the first. Memory: the bad lines."""

    def __init__(self, section: str, on_bad_rows: str, max_share: float) -> None:
        """Set the section of the config, ``error`` or ``reject``, and the share of one cause."""
        self.section, self.on_bad_rows, self.max_share = section, on_bad_rows, max_share
        self.found: list[Reject] = []
        self.rows_read = 0
        self.tally = Tally()

    def add(self, key: object, file: str, row: int, reason: str) -> None:
        """Add a bad line.

        Raises:
            SidmillError: naming it, under ``error``.
        """
        if self.on_bad_rows == "error":
            advice = "correct the line"
            if reason.startswith(NOT_UTF8):
                advice = encodings.remedy(file, None)
            raise SidmillError(
                f"{file}, line {row}: {reason}: {advice}, or set {self.section}.on_bad_rows: "
                f"reject to list such lines next to the result"
            )
        self.tally.add(file, row, reason)
        shown = None if key is None else _encodable(key)
        self.found.append(Reject(shown, file, row, _encodable(reason)))

    def first(self) -> str:
        """The first bad line, for the message that no line is good."""
        if not self.found:
            return ""
        bad = self.found[0]
        return f"; first: {bad.file}, line {bad.row}: {bad.reason}"

    def check(self, n_good: int) -> None:
        """Stop if one cause took too many lines; log the share of each.

        Args:
            n_good: number of good lines.

        Raises:
            SidmillError: naming the cause and its share.
        """
        self.tally.rows = n_good + len(self.found)
        self.tally.check(self.max_share, self.section)
        for line in self.tally.lines():
            logger.warning("rejects: %s", line)

    def write(self, path: str | Path) -> None:
        """Write rejects.parquet."""
        columns = [[getattr(each, name) for each in self.found] for name in Reject._fields]
        schema = item_text.REJECTS_SCHEMA
        if self.rows_read:
            schema = schema.with_metadata({item_text.ROWS_READ_KEY: str(self.rows_read)})
        parquet.write(path, schema, [pa.table(columns, schema=schema)])


def read_corpus(text_path: str | Path, rejects_path: str | Path, settings: Retrieval) -> int:
    """Write the passages to text.parquet, in the order of the files.

    Memory: one block of passages, 8 bytes per id, and the rejects.

    Args:
        text_path: text.parquet to write.
        rejects_path: rejects.parquet to write.
        settings: section ``retrieval``: ``corpus`` is a file, folder or glob of BEIR, RocketQA or
            MS MARCO.

    Returns:
        Number of passages written.

    Raises:
        SidmillError: for a bad line under ``error``; if an id is repeated; if no line is good.
    """
    corpus = _required(settings.corpus, "retrieval.corpus")
    files = expand(corpus, ANY_NAME, "retrieval.corpus")
    records = partial(passages.read_passages, files, settings.corpus_ids, settings.form)
    rejects = Rejects("retrieval", settings.on_bad_rows, settings.max_reject_share)
    return _write_texts(text_path, rejects_path, records, corpus, rejects)


def read_queries(
    text_path: str | Path,
    rejects_path: str | Path,
    settings: Retrieval,
    collection: str = "queries",
) -> int:
    """Write queries to text.parquet, as :func:`read_corpus` writes passages.

    Args:
        text_path: text.parquet to write.
        rejects_path: rejects.parquet to write.
        settings: section ``retrieval``. For ``training_queries`` the file and the treatment of bad
            lines come from the section ``training``.
        collection: ``queries`` or ``training_queries``: whose settings the messages name.
    """
    section = SECTIONS[collection]
    queries = _required(settings.queries, f"{section}.queries")
    files = expand(queries, ANY_NAME, f"{section}.queries")
    records = partial(passages.read_queries, files, settings.query_ids, settings.form)
    rejects = Rejects(section, settings.on_bad_rows, settings.max_reject_share)
    return _write_texts(text_path, rejects_path, records, queries, rejects)


def read_qrels(qrels_path: str | Path, rejects_path: str | Path, settings: Retrieval) -> int:
    """Write the judgements to qrels.parquet, in the order of the files, equal repeats once.

    Args:
        qrels_path: qrels.parquet to write.
        rejects_path: rejects.parquet to write.
        settings: section ``retrieval``: ``qrels`` is a file, folder or glob of BEIR, TREC or
            DuReader-retrieval.

    Returns:
        Number of judgements written.

    Raises:
        SidmillError: for a bad line under ``error``; if no line is good.
    """
    rejects = Rejects("retrieval", settings.on_bad_rows, settings.max_reject_share)
    qrels = _required(settings.qrels, "retrieval.qrels")
    kept = read_judgements(qrels, "retrieval.qrels", rejects)
    rejects.check(len(kept))
    judgements.write(qrels_path, kept)
    rejects.write(rejects_path)
    return len(kept)


def read_judgements(path: str, setting: str, rejects: Rejects) -> list[judgements.Judgement]:
    """Read judgements in the order of the files, equal repeats once.

    Args:
        path: file, folder or glob, of BEIR, TREC or DuReader-retrieval.
        setting: the setting that names it, for messages.
        rejects: collects the bad lines.

    Raises:
        SidmillError: for a bad line, if those are errors; if no judgement is good.
    """
    kept: dict[tuple[str, str], judgements.Judgement] = {}
    for file in expand(path, ANY_NAME, setting):
        for found in judgements.read_foreign(file):
            if isinstance(found, judgements.BadLine):
                rejects.add(found.pid, file, found.row, found.problem)
                continue
            first = kept.setdefault((found.qid, found.pid), found)
            if first.label != found.label:
                reason = f"judged {found.label} here and {first.label} in line {first.row}"
                rejects.add(found.pid, file, found.row, reason)
    if not kept:
        raise SidmillError(f"{path}: no judgement in it: check {setting}{rejects.first()}")
    return list(kept.values())


def _required(path: str | None, setting: str) -> str:
    """The path of a setting.

    Raises:
        SidmillError: if it is null.
    """
    if path is None:
        raise SidmillError(f"{setting} is null: name a file (docs/retrieval.md)")
    return path


def _encodable(text: object) -> str:
    """Text that UTF-8 can hold: half characters become question marks."""
    return str(text).encode(errors="replace").decode()


def _write_texts(
    text_path: str | Path,
    rejects_path: str | Path,
    records: Callable[[], Iterator[passages.Record]],
    source: str,
    rejects: Rejects,
) -> int:
    """Write the good records to text.parquet, the others to rejects.parquet.

    Args:
        text_path: text.parquet to write.
        rejects_path: rejects.parquet to write.
        records: reads all of them; called twice where repeated ids are rejects.
        source: the path in the configuration, for messages.
        rejects: collects the bad records.

    Returns:
        Number of texts written.
    """
    # The first good record decides the type of all ids.
    repeated = _repeated(records()) if rejects.on_bad_rows == "reject" else set()
    good = _good_records(records(), rejects, repeated)
    first = next(good, None)
    if first is None:
        raise SidmillError(f"{source}: no line of it gives a text{rejects.first()}")
    id_type = type(first.id)
    schema = item_text.schema(pa.int64() if id_type is int else pa.string())
    keys = array("q")  # of all written ids, to find repeated ones

    def tables() -> Iterator[pa.Table]:
        batch = [first]
        for record in good:
            if type(record.id) is not id_type:
                reason = (
                    f"id {record.id!r:.80} is a {type(record.id).__name__}, the first one is a "
                    f"{id_type.__name__}: write all ids alike"
                )
                rejects.add(record.id, record.file, record.row, reason)
                continue
            batch.append(record)
            if len(batch) == parquet.ROWS_PER_GROUP:
                yield _table(batch, schema, keys)
                batch = []
        rejects.check(rejects.rows_read - len(rejects.found))
        yield _table(batch, schema, keys)

    rows = item_text.write(text_path, schema.field("pid").type, tables())

    # Repeated ids that are errors are found in the written file.
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
    """The records that give a text; the first one of each id.

    Args:
        records: all of them.
        rejects: collects the others.
        repeated: keys of ids that may be repeated, where those are rejects.
    """
    seen: dict[int | str | None, str] = {}
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
    """Keys that two good records have. Memory: 8 bytes per id."""
    return _twice(array("q", (_key(record.id) for record in records if not record.problem)))


def _twice(keys: "array[int]") -> set[int]:
    """Keys that are repeated."""
    hashes = np.sort(np.frombuffer(keys, dtype=np.int64))
    return set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())


def _table(records: list[passages.Record], schema: pa.Schema, keys: "array[int]") -> pa.Table:
    """Records as a table of text.parquet; their keys are appended to ``keys``."""
    keys.extend(_key(record.id) for record in records)
    columns = [[record.id for record in records], [record.text for record in records]]
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema)


def _key(pid: int | str | None) -> int:
    """64-bit hash of an id."""
    digest = blake2b(str(pid).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def _check_unique(text_path: str | Path, keys: "array[int]") -> None:
    """Refuse a repeated id: candidates by 64-bit hashes, then the ids themselves.

    Raises:
        SidmillError: naming the id.
    """
    suspects = _twice(keys)
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
