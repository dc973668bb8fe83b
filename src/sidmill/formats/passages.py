"""Passages and queries as other projects hand them out: BEIR's JSON lines, RocketQA's columns.

    BEIR     corpus.jsonl ``{"_id", "title", "text"}``, queries.jsonl ``{"_id", "text"}``
    RocketQA passages: two columns (title, text), or three and more with these in the second and
             third; queries: the text in the first column. Tab-separated, no header, no ids: the
             id is the number of the line, from 0 over all files, or what a map says.

``null``, ``-`` and nothing mean no title.

Source: https://github.com/beir-cellar/beir, https://github.com/PaddlePaddle/RocketQA
"""

import json
import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import ijson

from sidmill.core.errors import SidmillError
from sidmill.formats import catalogue, lines

NO_TITLE = ("", "-", "null")
INT64 = range(-(2**63), 2**63)
JSON_LINES = tuple(f".json{line}{end}" for line in ("l", "") for end in ("", ".gz", ".zst"))


class Record(NamedTuple):
    """One line of a file.

    Attributes:
        file: where it stands.
        row: its line number, from 1.
        id: as the file or the map has it; None where it cannot be read.
        text: title and text, a line each.
        problem: why it cannot be used, else None.
    """

    file: str
    row: int
    id: int | str | None
    text: str
    problem: str | None = None


def read_passages(files: list[str], ids_path: str | None) -> Iterator[Record]:
    """Yield the passages of all files in order. Memory: one line.

    Args:
        files: BEIR or RocketQA files, in the order that numbers their lines.
        ids_path: ``passage2id.map.json`` (line number to id) for RocketQA files, or None.
    """
    if is_json(files[0]):
        _refuse_map(files[0], ids_path)
        yield from _read_beir(files)
        return
    names = _names_of_lines(ids_path) if ids_path else None
    for number, (file, row, columns, problem) in enumerate(_read_columns(files)):
        pid = number if names is None else next(names, None)
        if pid is None:
            raise SidmillError(f"{ids_path}: ends before {file}, line {row}: it is of other files")
        if problem is None and len(columns) < 2:
            problem = "1 column, wanted at least 2: title and text"
        title, text = columns[:2] if len(columns) == 2 else [*columns, "", "", ""][1:3]
        yield _record(file, row, pid, title, text, problem)


def read_queries(files: list[str], ids_path: str | None) -> Iterator[Record]:
    """Yield the queries of all files in order.

    Args:
        files: BEIR or RocketQA files.
        ids_path: ``q2qid.json`` (text to id) for RocketQA files, or None for line numbers.
    """
    if is_json(files[0]):
        _refuse_map(files[0], ids_path)
        yield from _read_beir(files)
        return
    names = read_json(ids_path) if ids_path else None
    for number, (file, row, columns, problem) in enumerate(_read_columns(files)):
        text = columns[0].strip()
        qid = number if names is None else names.get(text)
        if qid is None and problem is None:
            problem = f"{ids_path} has no id for it"
        yield _record(file, row, qid, "", text, problem)


def is_json(path: str) -> bool:
    """Whether a file is taken for JSON lines, by its name."""
    return path.lower().endswith(JSON_LINES)


def read_lines(path: str | Path) -> Iterator[tuple[int, str, str | None]]:
    """Yield line number from 1, text without its line end, and what is wrong with it.

    Raises:
        SidmillError: if there is no such file.
    """
    try:
        file = Path(path).open("rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise SidmillError(f"{path}: {error.strerror}: check the path") from None
    with file:
        for number, line in enumerate(lines.read(file), start=1):
            if line is None:
                yield number, "", lines.TOO_LONG
                continue
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                yield number, "", f"not UTF-8 (byte {error.start} of the line)"
            else:
                yield number, text, None


def join_title(title: str, text: str) -> str:
    """Title and text, a line each; ``null``, ``-`` and nothing are no title."""
    title = " ".join(title.split())
    text = text.strip()
    return text if title in NO_TITLE else f"{title}\n{text}"


def read_json(path: str) -> dict:
    """Read a JSON object.

    Raises:
        SidmillError: if it is something else.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SidmillError(f"{path}: cannot be read as JSON ({error}): mend it") from None
    if not isinstance(content, dict):
        raise SidmillError(f"{path}: a JSON {type(content).__name__}, wanted an object")
    return content


def _record(
    file: str, row: int, key: int | str | None, title: str, text: str, problem: str | None
) -> Record:
    problem = problem or _unusable(key, title + text)
    return Record(file, row, key, "" if problem else join_title(title, text), problem)


def _unusable(key: object, text: str) -> str | None:
    """What is wrong with an id or a text that could be read."""
    if isinstance(key, bool) or not isinstance(key, int | str):
        return f"its id {reprlib.repr(key)} is a {type(key).__name__}, wanted text or an integer"
    if isinstance(key, int) and key not in INT64:
        return f"its id {key} does not fit in 64 bits: make the ids text"
    try:
        f"{key}{text}".encode()
    except UnicodeEncodeError:
        return "it holds half a character (a lone surrogate)"
    if not any(character.isalnum() for character in text):
        return "no letter or digit in it"
    return None


def _read_beir(files: list[str]) -> Iterator[Record]:
    for file in files:
        for row in catalogue.read(file):
            if row.problem:
                yield Record(file, row.number, None, "", row.problem)
                continue
            key = row.fields.get("_id")
            title, text = row.fields.get("title") or "", row.fields.get("text") or ""
            problem = None
            if isinstance(key, bool) or not isinstance(key, int | str) or key == "":
                key, problem = None, f"no id in field '_id': the row has {', '.join(row.fields)}"
            elif not isinstance(title, str) or not isinstance(text, str):
                title, text, problem = "", "", "title or text is not a string"
            yield _record(file, row.number, key, title, text, problem)


def _read_columns(files: list[str]) -> Iterator[tuple[str, int, list[str], str | None]]:
    for file in files:
        for row, line, problem in read_lines(file):
            yield file, row, line.split("\t"), problem


def _names_of_lines(path: str) -> Iterator[str]:
    """Yield the id of each line, from a map of line number to id.

    The map is streamed as long as its keys count from 0; otherwise it is read whole.
    """
    number = 0
    try:
        with Path(path).open("rb") as file:
            for number, (line, name) in enumerate(ijson.kvitems(file, "")):
                if line != str(number):
                    break
                yield name
            else:
                return
    except (OSError, ijson.JSONError) as error:
        raise SidmillError(
            f"{path}: cannot be read past its entry {number} ({error}): mend it"
        ) from None
    names = read_json(path)
    while str(number) in names:
        yield names[str(number)]
        number += 1


def _refuse_map(file: str, ids_path: str | None) -> None:
    if ids_path:
        raise SidmillError(f"{file} holds its own ids: set {ids_path} back to null")
