"""Passages and queries in the files of other projects, detected by their names and first lines.

    BEIR     corpus.jsonl ``{"_id", "title", "text"}``, queries.jsonl ``{"_id", "text"}``
    RocketQA passages: two columns (title, text), or three and more with these in the second and
             third; queries: the text in the first column. Tab-separated, no header, no ids: the
             id is the number of the line, from 0 over all files, or comes from a map.
    MS MARCO ids in the first column: collection.tsv (id, text), msmarco-docs.tsv (id, address,
             title, text), queries.tsv (id, text). Tab-separated, no header.

``null``, ``-`` and an empty column mean no title.

Source: https://github.com/beir-cellar/beir, https://github.com/PaddlePaddle/RocketQA,
https://microsoft.github.io/msmarco/
"""

import json
import logging
import re
import reprlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from sidmill.core.errors import SidmillError
from sidmill.core.terminal import names as shown_names
from sidmill.formats import catalogue
from sidmill.io import encodings, json_values, text_lines

logger = logging.getLogger(__name__)

NO_TITLE = ("", "-", "null")
INT64 = range(-(2**63), 2**63)
JSON_LINES = tuple(f".json{line}{end}" for line in ("l", "") for end in ("", ".gz", ".zst"))
FORMS = ("auto", "rocketqa", "msmarco")  # of tab-separated files
PROBED_LINES = 1000
MARCO_ID = re.compile(r"[A-Z]?\d+")  # D123 names a document of MS MARCO
BREAKS = re.compile("[\t\n\r]")  # separate columns and lines of res.topk


class Record(NamedTuple):
    """One line of a file.

    Attributes:
        file: its path.
        row: its line number, from 1.
        id: from the file or the map; None where it cannot be read.
        text: title and text, a line each.
        problem: the reason why it cannot be used, else None.
    """

    file: str
    row: int
    id: int | str | None
    text: str
    problem: str | None = None


def read_passages(files: list[str], ids_path: str | None, form: str) -> Iterator[Record]:
    """Yield the passages of all files in order. Memory: one line.

    Args:
        files: files of one project, in the order that numbers their lines.
        ids_path: ``passage2id.map.json`` (line number to id) for RocketQA files, or None.
        form: ``rocketqa``, ``msmarco``, or ``auto``: detected by the first lines, and logged.
    """
    if is_json(files[0]):
        _refuse_map(files[0], ids_path)
        yield from _read_beir(files)
    elif _form_of(files[0], form) == "msmarco":
        _refuse_map(files[0], ids_path)
        yield from _read_marco(files, "at least 2: id and text", is_document=True)
    else:
        yield from _read_rocketqa(files, ids_path)


def read_queries(files: list[str], ids_path: str | None, form: str) -> Iterator[Record]:
    """Yield the queries of all files in order.

    Args:
        files: files of one project.
        ids_path: ``q2qid.json`` (text to id) for RocketQA files, or None for line numbers.
        form: as of :func:`read_passages`.
    """
    if is_json(files[0]):
        _refuse_map(files[0], ids_path)
        yield from _read_beir(files)
        return
    if _form_of(files[0], form) == "msmarco":
        _refuse_map(files[0], ids_path)
        yield from _read_marco(files, "2: id and text", is_document=False)
        return

    # RocketQA: the text is the first column, and the key of the map.
    ids = ids_of_texts(ids_path) if ids_path else None
    for number, (file, row, columns, problem) in enumerate(_read_columns(files)):
        text = columns[0].strip()
        qid = number if ids is None else ids.get(text)
        if qid is None and problem is None:
            problem = f"{ids_path} has no id for it"
        yield _record(file, row, qid, "", text, problem)


def ids_of_texts(path: str) -> dict[str, int | str]:
    """The ids of query texts, from ``q2qid.json``; spaces around a text are ignored.

    Raises:
        SidmillError: if it is no JSON object.
    """
    ids: dict[str, int | str] = {}
    for text, qid in read_json(path).items():
        ids.setdefault(text.strip(), qid)
    return ids


def lines_of_passages(path: str) -> dict[str, str]:
    """Line number, as text, by passage id, from ``passage2id.map.json``.

    Memory: the map.
    """
    return {str(pid): line for line, pid in read_json(path).items()}


def is_json(path: str) -> bool:
    """Whether a file is read as JSON lines, by its name."""
    return path.lower().endswith(JSON_LINES)


def read_lines(path: str | Path) -> Iterator[tuple[int, str, str | None]]:
    """Yield the number of each line, from 1, its text without the line end, and its problem.

    Raises:
        SidmillError: if there is no such file, or it cannot be read to its end.
    """
    with text_lines.opened(path) as file:
        for number, line in enumerate(text_lines.read(encodings.as_utf8(file)), start=1):
            if line is None:
                yield number, "", text_lines.TOO_LONG
                continue
            try:
                text = line.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                yield number, "", f"not UTF-8 (byte {error.start} of the line)"
            else:
                yield number, text, None


def join_title(title: str, text: str) -> str:
    """Title and text, a line each; ``null``, ``-`` and an empty title are left out."""
    title = " ".join(title.split())
    text = text.strip()
    return text if title in NO_TITLE else f"{title}\n{text}"


def read_json(path: str) -> dict[str, Any]:
    """Read a JSON object that a retrieval data set comes with, such as ``q2qid.json``.

    Raises:
        SidmillError: if it is something else.
    """
    try:
        content = json.loads(Path(path).read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise SidmillError(f"{path}: cannot be read as JSON ({error}): correct it") from None
    if not isinstance(content, dict):
        raise SidmillError(f"{path}: a JSON {type(content).__name__}, wanted an object")
    return content


def _record(
    file: str, row: int, key: int | str | None, title: str, text: str, problem: str | None
) -> Record:
    problem = problem or _unusable(key, title + text)
    return Record(file, row, key, "" if problem else join_title(title, text), problem)


def _unusable(key: object, text: str) -> str | None:
    """The problem of an id or a text that could be read, or None."""
    if isinstance(key, bool) or not isinstance(key, int | str):
        return f"its id {reprlib.repr(key)} is a {type(key).__name__}, wanted text or an integer"
    if isinstance(key, int) and key not in INT64:
        return f"its id {key} does not fit in 64 bits: make the ids text"
    try:
        f"{key}{text}".encode()
    except UnicodeEncodeError:
        return "it holds half a character (a lone surrogate)"
    if isinstance(key, str) and (not key or BREAKS.search(key)):
        return "its id holds a tab or a line break" if key else "it has no id"
    if not any(character.isalnum() for character in text):
        return "no letter or digit in it"
    return None


def _form_of(file: str, form: str) -> str:
    """Detect the form of MS MARCO or RocketQA by the first lines, and log it.

    In MS MARCO each line has two or four columns: a unique number first, and a text last.
    """
    if form != "auto":
        return form
    probed = [
        line.split("\t") for _, line, problem in islice(read_lines(file), PROBED_LINES)
        if problem is None
    ]  # fmt: skip

    ids = [columns[0].strip() for columns in probed]
    has_ids = bool(ids) and len(set(ids)) == len(ids) and all(map(MARCO_ID.fullmatch, ids))
    has_texts = all(
        len(columns) in (2, 4) and re.search(r"[^\W\d_]", columns[-1]) for columns in probed
    )
    found = "msmarco" if has_ids and has_texts else "rocketqa"

    # A file of one column has one form only.
    if any(len(columns) > 1 for columns in probed):
        what = {
            "msmarco": "ids in the first column",
            "rocketqa": "no ids in it: line numbers, or those of a map",
        }
        logger.info(
            "%s is read as %s (%s): set retrieval.form if that is wrong", file, found, what[found]
        )
    return found


def _read_beir(files: list[str]) -> Iterator[Record]:
    for file in files:
        for row in catalogue.read(file):
            if row.problem or row.fields is None:
                yield Record(file, row.number, None, "", row.problem)
                continue
            key = row.fields.get("_id", row.key)
            title, text = row.fields.get("title") or "", row.fields.get("text") or ""

            # A record with a problem keeps the id that rejects.parquet lists.
            problem = None
            if key is None or (isinstance(key, str) and not key.strip()):
                key, problem = None, f"no id in field '_id': the row has {shown_names(row.fields)}"
            elif not isinstance(title, str) or not isinstance(text, str):
                title, text, problem = "", "", "title or text is not a string"
            yield _record(file, row.number, key, title, text, problem)


def _read_marco(files: list[str], wanted: str, *, is_document: bool) -> Iterator[Record]:
    """Records with an id in the first column and a text in the last."""
    for file, row, columns, problem in _read_columns(files):
        if problem is None and len(columns) < 2:
            problem = f"1 column, wanted {wanted}"
        title = columns[2] if is_document and len(columns) > 3 else ""
        yield _record(file, row, columns[0].strip(), title, columns[-1], problem)


def _read_rocketqa(files: list[str], ids_path: str | None) -> Iterator[Record]:
    """Passages without ids: line numbers over all files, or the ids of a map."""
    ids = _ids_of_lines(ids_path) if ids_path else None
    for number, (file, row, columns, problem) in enumerate(_read_columns(files)):
        pid = number if ids is None else next(ids, None)
        if pid is None:
            raise SidmillError(f"{ids_path}: ends before {file}, line {row}: it is of other files")
        if problem is None and len(columns) < 2:
            problem = "1 column, wanted at least 2: title and text"
        title, text = columns[:2] if len(columns) == 2 else [*columns, "", "", ""][1:3]
        yield _record(file, row, pid, title, text, problem)


def _read_columns(files: list[str]) -> Iterator[tuple[str, int, list[str], str | None]]:
    for file in files:
        for row, line, problem in read_lines(file):
            yield file, row, line.split("\t"), problem


def _ids_of_lines(path: str) -> Iterator[Any]:
    """Yield the id of each line, from a map of line number to id.

    The map is streamed while its keys count from 0; otherwise it is read whole.
    """
    # An empty file, or an array, is an error of read_json.
    with text_lines.opened(path) as file:
        stream = encodings.as_utf8(file)
        if not stream.peek(1)[:1] or json_values.shape(stream) == "array":
            read_json(path)

    number = 0
    with text_lines.opened(path) as file:
        for number, found in enumerate(json_values.read(path, encodings.as_utf8(file), "keyed")):
            if found.problem or found.key != str(number):
                break
            yield found.value
        else:
            return

    # The keys left off counting at ``number``.
    ids = read_json(path)
    while str(number) in ids:
        yield ids[str(number)]
        number += 1


def _refuse_map(file: str, ids_path: str | None) -> None:
    if ids_path:
        raise SidmillError(f"{file} holds its own ids: set {ids_path} back to null")
